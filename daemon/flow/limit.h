/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many connections there may be: in all, at a vserver, from a source, in
 * the handshake, in memory. Shared by all workers. Knows numbers and addresses, no flow.
 */
#ifndef KTLSGATE_LIMIT_H
#define KTLSGATE_LIMIT_H

#include "conn/reason.h"
#include "config/config.h"
#include "conn/stats.h"

#define GENERATIONS_MAX 16 /* at a time */

/*
 * How many connections each generation has, by its slot. The supervisor alone writes it, a few
 * times a second; data processes read it.
 */
struct flow_counts {
	_Atomic uint64_t by_slot[GENERATIONS_MAX];
};

/* What limit.flows is about: our own workers' connections, and those of other generations. */
struct limits_flows {
	const struct stats *own; /* by worker */
	unsigned workers;
	const struct flow_counts *others;
	unsigned slot; /* ours */
};

struct limits;

/* What a connection takes of the limits; zeroed: nothing. */
struct limits_share {
	struct source *source; /* NULL: sources are not counted */
	bool vserver, handshake;
};

/* NULL: no memory. */
struct limits *limits_new(const struct config *cfg, const struct limits_flows *flows) must_check;
void limits_free(struct limits *l); /* NULL-safe */

/* limit.flows is reached: what is to be done then, limit.when_full says. */
bool limits_full(const struct limits *l);

/* Bytes that this process has allocated and not freed. */
uint64_t limits_memory(void);
/*
 * The same for the control socket. malloc walks its free lists under locks that workers wait for,
 * 14 ms for 50,000 free pieces, so it is made to at most a fiftieth of the time, and the last
 * answer stands until then. By one thread.
 */
uint64_t limits_memory_shown(struct limits *l);
/*
 * Before the first flow. 0, or -ENOMEM after a log line: more is allocated than limit.memory lets
 * be, and nobody would ever come in.
 */
int limits_check_memory(const struct limits *l) must_check;
/*
 * limit.memory is reached, and in use was not yet 1/8 less again. Looks at it every 100 ms at most;
 * from any thread.
 */
bool limits_memory_full(struct limits *l);

/*
 * limit.flows and limit.memory apart, takes a share for one more connection of vserver from peer
 * (AF_INET or AF_INET6). REASON_done: it may come; or which limit it would exceed, and nothing is
 * taken.
 */
enum reason limits_take(struct limits *l, const struct cfg_vserver *vserver,
			const struct sockaddr *peer, struct limits_share *out) must_check;
/* How many connections have not come to the end of their handshakes. */
unsigned limits_handshakes(const struct limits *l);
/* Its handshake is over. Harmless when said again. */
void limits_established(struct limits *l, struct limits_share *share);
/* Gives everything back. */
void limits_give_back(struct limits *l, const struct cfg_vserver *vserver,
		      struct limits_share *share);

#endif
