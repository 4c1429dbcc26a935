/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the supervisor tells a process that it starts: its role, numbers and descriptors, in a
 * sealed memory file. The process is this program executed anew, with an address-space layout
 * of its own and with no descriptor but those.
 */
#ifndef KTLSGATE_BRIEF_H
#define KTLSGATE_BRIEF_H

#include <stdint.h>
#include <sys/types.h>
#include "tls/ktls_probe.h"
#include "base/scoped.h"

enum role {
	ROLE_SIGNER,
	ROLE_RESOLVER, /* only if a service has a name */
	ROLE_DATA,
	GENERATION_ROLES,	       /* those before are a generation's, and live as long as it */
	ROLE_CHECK = GENERATION_ROLES, /* looks at a configuration, and ends */
	ROLES
};

/* "signer", as on the command line */
const char *role_name(enum role role);

enum brief_fd {
	BRIEF_TEXTS,	   /* the configuration, see config_texts_seal() */
	BRIEF_READY,	   /* a pipe: a byte says that the process is ready */
	BRIEF_SAID,	   /* a pipe: what the check says, see config_check_texts() */
	BRIEF_STOP,	   /* a pipe: the process ends when the other end is closed */
	BRIEF_CHANNEL,	   /* to the supervisor, see answer.h */
	BRIEF_SEEN,	   /* replay_map() */
	BRIEF_FRESH,	   /* fresh.h: the signer writes, the data process reads */
	BRIEF_COUNTERS,	   /* memory for what the data process counts */
	BRIEF_CONNECTIONS, /* struct flow_counts, see limit.h */
	BRIEF_RESOLVED,	   /* resolver.h: the resolver writes, the data process reads */
	BRIEF_FLOWS,	   /* these are BPF maps */
	BRIEF_FLOW_INFO,
	BRIEF_SHIELD_STATS,
	BRIEF_STEER_LOAD,
	BRIEF_FDS
};

struct brief {
	char magic[20];
	uint32_t role; /* enum role */
	uint32_t generation, slot;
	uint32_t n_sockets, n_listeners;
	struct ktls_caps ktls;
	int fd[BRIEF_FDS]; /* -1: none */
	/*
	 * By worker the socket between it and the signer, the end of whoever is told; behind them
	 * [binding * workers + worker] the listening sockets.
	 */
	int list[];
};

/* No descriptor is set. NULL: no memory. Freed by free(3). */
struct brief *brief_new(enum role role, unsigned n_sockets, unsigned n_listeners) must_check;

/*
 * Starts the process, which inherits the descriptors that are named, the environment but for what
 * is between the service manager and us, and no way to gain privileges. Its id, or -errno.
 */
pid_t brief_execute(const struct brief *b) must_check;

/* In that process: what is at fd, which is closed. NULL: it is no brief. Freed by free(3). */
struct brief *brief_read(int fd) must_check;

#endif
