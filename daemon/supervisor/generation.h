/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A generation: one configuration and the two processes that run it, a signer
 * and a data process. A reload starts the next one and retires the one before:
 * that one accepts nothing more and ends when its flows have; its signer ends before, with the last
 * handshake. So a
 * configuration never changes under a running process, and all of it can.
 */
#ifndef KTLSGATE_GENERATION_H
#define KTLSGATE_GENERATION_H

#include <sys/types.h>
#include "process/brief.h"
#include "config/config.h"
#include "steer/count.h"
#include "conn/ktls.h"
#include "flow/limit.h"
#include "signer/replay.h"
#include "service/resolver.h"
#include "steer/steer.h"

struct lookup;

/* The supervisor's, of which every generation is given a part. */
struct shared {
	struct ktls_caps ktls;
	struct count *count;	   /* NULL: no BPF */
	struct steer *steer;	   /* the same */
	struct lookup *lookup;	   /* the same */
	int seen;		   /* what all signers share, replay_make() */
	struct stats_sums ended;   /* what data processes that are gone have counted */
	struct flow_counts *flows; /* written here, for the data processes to read */
	int flows_fd;		   /* its memory */
};

struct generation {
	struct config *cfg; /* owned */
	unsigned number;    /* from 1 */
	unsigned slot;	    /* below GENERATIONS_MAX: no other living generation's */
	uint64_t since;	    /* timer_clock() */
	int *listeners;	    /* [binding * workers + worker]; the descriptors are listener.h's */
	int *worker_ends, *signer_ends; /* of the socket pairs, by worker */
	int stop_read, stop_write;	/* the signer ends when the write end closes */
	int channel;			/* to the data process, see answer.h; -1: there is none */
	/* What its data process counts, by worker, and that process alone writes; NULL: there is
	 * none. Anything may stand there: see generation_flows(). */
	const struct stats *counted;
	uint64_t flows_most; /* no more connections are believed */
	/* The memory in which the resolver tells the data process, for each of them; -1: no
	 * service has a name. */
	int resolved_write, resolved_read;
	/* That in which the signer publishes fresh values for the data process. */
	int fresh_write, fresh_read;
	int texts;			  /* config_texts_seal() */
	pid_t children[GENERATION_ROLES]; /* 0: it does not run */
	uint64_t pause_end; /* timer_clock(): what has died is not started again before */
	bool retired;
	bool accepts_nothing; /* it has said so */
	bool settled;	      /* retired, and no handshake is left that could ask the signer */
	uint64_t settle_by;   /* timer_clock(): when all have ended, or should have */
	uint64_t kill_at;     /* the same: when a signer that was told to end is killed; 0: never */
};

/*
 * Takes cfg, and what it is made of: texts, see config_texts_seal(); also on failure. listeners:
 * room for the descriptors, to be filled. NULL: no memory, or no descriptors.
 */
struct generation *generation_new(struct config *cfg, int texts, unsigned number, unsigned slot);
/* Closes its descriptors; its processes must be gone. NULL-safe. */
void generation_free(struct generation *g);

/* Starts those of its processes that should run and do not. 0, or -errno after log lines. */
int generation_start(struct generation *g, struct shared *sh) must_check;
bool generation_runs(const struct generation *g);

/* Adds what its data process counts, if there is one. */
void generation_add_counted(const struct generation *g, struct stats_sums *sums);
/* How many connections it says it has, flows_most at most. */
uint64_t generation_flows(const struct generation *g);
/*
 * How many it has, for limit.flows of the others. A retired one has never more than when this was
 * last called: a captured process must not keep its successor from accepting by what it writes.
 */
uint64_t generation_flows_left(struct generation *g);

/* Accept nothing more; end with the last flow. */
void generation_retire(struct generation *g);
/* A retired one has said that no handshake is left: its signer and its resolver are to end. */
void generation_settle(struct generation *g);
/* Settles one that has not said so in its time. After each poll(2). */
void generation_turn(struct generation *g);
/* What poll(2) shall wait at most for that, ms; -1: for ever. */
int generation_due(const struct generation *g);
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
/* Its data process is gone: what it counted is kept, once. */
void generation_forget_counted(struct generation *g, struct shared *sh);
/* All its processes have ended, and are not to be started again. */
bool generation_over(const struct generation *g);

#endif
