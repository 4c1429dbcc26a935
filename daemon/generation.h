/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A generation: one configuration and the two processes that run it, a signer
 * and a data process. A reload starts the next one and retires the one before:
 * that one accepts nothing more and ends when its flows have. So a
 * configuration never changes under a running process, and all of it can.
 */
#ifndef KTLSGATE_GENERATION_H
#define KTLSGATE_GENERATION_H

#include <sys/types.h>
#include "config.h"
#include "count.h"
#include "ktls.h"
#include "replay.h"
#include "resolver.h"
#include "steer.h"
#include "stats.h"

enum child_kind {
	CHILD_SIGNER,
	CHILD_RESOLVER, /* only if a service has a name */
	CHILD_DATA,
	CHILDREN
};

struct generation;
struct lookup;

/* The supervisor's, inherited by every generation. */
struct shared {
	struct ktls_caps ktls;
	struct count *count;	 /* NULL: no BPF */
	struct steer *steer;	 /* the same */
	struct lookup *lookup;	 /* the same */
	struct replay *seen;	 /* the signers' memory of used transcripts */
	struct stats_area *area; /* the data processes' counters */
	/* In a child: closes what is the supervisor's or another generation's. */
	void (*leave)(struct shared *sh, const struct generation *self);
};

struct generation {
	struct config *cfg; /* owned */
	unsigned number;    /* from 1 */
	unsigned slot;	    /* in the area: no other living generation's */
	uint64_t since;	    /* timer_clock() */
	int *listeners;	    /* [binding * workers + worker]; the descriptors are listener.h's */
	int *worker_ends, *signer_ends; /* of the socket pairs, by worker */
	int stop_read, stop_write;	/* the signer ends when the write end closes */
	int channel;			/* to the data process, see answer.h; -1: there is none */
	struct resolved *resolved;	/* shared by the resolver and the data process; or NULL */
	pid_t children[CHILDREN];	/* 0: it does not run */
	uint64_t pause_end; /* timer_clock(): what has died is not started again before */
	bool retired;
	bool accepts_nothing; /* it has said so */
};

/* Takes cfg, also on failure. listeners: room for the descriptors, to be filled. NULL: no memory.
 */
struct generation *generation_new(struct config *cfg, unsigned number, unsigned slot);
/* Closes its descriptors; its processes must be gone. NULL-safe. */
void generation_free(struct generation *g);

/* Starts those of its processes that should run and do not. 0, or -errno after log lines. */
int generation_start(struct generation *g, struct shared *sh) must_check;
bool generation_runs(const struct generation *g);

/* Accept nothing more; end with the last flow. */
void generation_retire(struct generation *g);
/* End now: flows are told, and have timeout.drain. */
void generation_stop(struct generation *g);
/* Waits, and kills what does not end within seconds (ms since started). True: all ended well. */
bool generation_wait(struct generation *g);
/* How long it may take to stop, seconds. */
unsigned generation_patience(const struct generation *g);

/*
 * A child is gone: is it one of ours? Logs what it died of, unless it was to end,
 * and lets the signer end when there is no data process to serve any more.
 */
bool generation_reap(struct generation *g, struct shared *sh, pid_t pid, int status);
/* All its processes have ended, and are not to be started again. */
bool generation_over(const struct generation *g);

#endif
