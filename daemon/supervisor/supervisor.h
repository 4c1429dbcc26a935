/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The supervisor: opens what needs rights (BPF, sockets), starts the processes
 * of a configuration and restarts what dies, reloads, and otherwise sits still.
 * It never loads a private key, and parses no certificate or CRL.
 */
#ifndef KTLSGATE_SUPERVISOR_H
#define KTLSGATE_SUPERVISOR_H

#include "supervisor/changes.h"
#include "supervisor/control.h"
#include "supervisor/generation.h"
#include "supervisor/listener.h"
#include "supervisor/watchdog.h"

/* For supervisor.c, reload.c, and requests.c, which answers from it. */
struct supervisor {
	struct shared shared;
	const char *path;
	struct cfg_texts texts; /* of the newest generation */
	struct listeners listeners;
	struct control control;
	int signal_fd;
	struct watchdog watchdog;
	struct changes changes; /* of files that the current configuration was made of */
	struct generation *generations[GENERATIONS_MAX]; /* by slot */
	struct generation *current;
	unsigned last_number;
	uint64_t next_look; /* timer_clock(): at the listening sockets */
	bool bpf;	    /* there is a directory for its maps */
};

/*
 * Runs with the configuration of path until SIGTERM or SIGINT; SIGHUP reads it
 * again. Returns the exit status.
 */
int supervisor_run(const char *path);

/*
 * All of it, or nothing and why: name NULL reads the files again, else text, if
 * there is one, is put behind what runs. *answer: for the control socket, to be
 * freed; NULL: no memory.
 */
void supervisor_reload(struct supervisor *s, const char *name, const char *text, size_t len,
		       char **answer);

/* The newest of the generations with a number below limit; NULL: none. */
struct generation *supervisor_newest_below(const struct supervisor *s, unsigned limit);
/* What all data processes but asked's have counted, those that are gone too. */
struct stats_sums supervisor_sums_without(const struct supervisor *s,
					  const struct generation *asked);

#endif
