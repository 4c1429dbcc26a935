/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket, in the supervisor: a request line, an answer, end of
 * stream. The answer's first line is "ok", or "error TEXT", perhaps with more
 * lines. It never holds a secret.
 *
 *   stats, metrics     counters                           the newest data process
 *   config [KEY]       "key = value" lines                answers (answer.h)
 *   origins            the same with file and line
 *   requests SERVICE   what its backend last asked for
 *   flows              one line per flow, key=value separated by tabs
 *   kill ID            ends a flow: all data processes are asked in turn
 *   reload             reads the configuration again      here, for root only
 *   set NAME LENGTH    and LENGTH bytes of assignments, all of them or none; NAME is for
 *                      error messages
 *   drain worker N     no new connections for it; undrain: again
 *   shield COMMAND     see shield_command(); all but "show" for root only
 *   status             processes and generations
 *
 * Nothing here blocks: a client that is slow has its time and is then left.
 */
#ifndef KTLSGATE_CONTROL_H
#define KTLSGATE_CONTROL_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>
#include "answer.h"

#define CONTROL_CLIENTS 32

struct control_client {
	int fd;		   /* -1: free */
	uint32_t id;	   /* of this connection, never again */
	uint64_t deadline; /* timer_clock() */
	bool privileged;   /* root, or who we are */
	char line[REQUEST_MAX];
	size_t have;   /* of the line */
	bool complete; /* the line is */
	char *body;
	size_t body_len, body_have;
	unsigned asked; /* number of the generation whose answer is awaited; 0: none */
	bool answered;	/* "ok" is written */
};

struct control {
	int fd; /* listening; -1: not yet */
	char *path;
	uint32_t last_id;
	struct control_client clients[CONTROL_CLIENTS];
	/* A request has come whole. Either control_answer() follows, or the client's `asked` is
	 * set.
	 */
	void (*request)(void *arg, struct control_client *c);
	void *arg;
};

/*
 * Listens at path; a stale socket is replaced. group: its name, or NULL for our
 * own. 0, or -errno after a log line.
 */
int control_open(struct control *c, const char *path, unsigned mode, const char *group) must_check;
void control_close(struct control *c); /* and unlinks */

/* Descriptors to wait for: at most CONTROL_CLIENTS + 1 are written to p. Returns how many. */
unsigned control_poll(const struct control *c, struct pollfd *p);
/* What poll(2) may wait, ms; -1: for ever. */
int control_wait(const struct control *c);
/* After each poll(2), with what control_poll() had written. */
void control_turn(struct control *c, const struct pollfd *p, unsigned n);

struct control_client *control_find(struct control *c, uint32_t id);
/* Sends text, as much as the socket takes at once, and closes; text NULL: closes. */
void control_answer(struct control_client *c, const char *text);

#endif
