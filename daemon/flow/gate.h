/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the flows of a worker work with: struct gate, which all workers of the data process share
 * and which does not change once they run, and struct worker, which belongs to one thread.
 */
#ifndef KTLSGATE_GATE_H
#define KTLSGATE_GATE_H

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include "service/backend.h"
#include "service/balance.h"
#include "service/check.h"
#include "flow/client.h"
#include "steer/count.h"
#include "forging/forging.h"
#include "flow/hellos.h"
#include "flow/limit.h"
#include "conn/relay.h"
#include "flow/responder.h"
#include "flow/reuse.h"

struct flowlog;

/* Shared by all workers of the data process; immutable once they run. */
struct gate {
	struct config *cfg;
	struct front *fronts;		 /* by vserver index */
	struct back *backs;		 /* by service index */
	const struct resolved *resolved; /* NULL: no service has a name */
	struct service *services;	 /* by service index */
	struct balance_tables *tables;	 /* by vserver index */
	struct forge_cache *cache;
	struct session_cache *sessions;
	struct keymaker *keys;
	struct certreq_memory *certreqs;
	struct limits *limits;
	struct hellos *hellos;
	struct count *count;	 /* NULL: no BPF */
	int shield_stats;	 /* BPF map; -1: there is none */
	struct flowlog *flowlog; /* NULL: off */
	int tls_counters;	 /* see offload_counters() */
	int channel;		 /* to the supervisor */
	uint64_t *load;		 /* by worker, see steer_load_map(); or NULL */
	struct ktls_caps ktls;
	struct stats *stats;		 /* by worker, in memory that the supervisor reads */
	const struct flow_counts *flows; /* of all generations */
	unsigned generation;		 /* its number, from 1 */
	unsigned slot;			 /* its place in flows */
	unsigned n_workers;
	struct worker *workers;
	pthread_barrier_t set_up, go; /* of all workers and who starts them */
	const int *listeners;	      /* [binding * workers + worker] */
	const int *signer_fds;	      /* by worker */
	const struct fresh *fresh;    /* what the signer publishes; borrowed */
};

struct listener {
	struct worker *worker;
	const struct cfg_vserver *vserver;
	int fd;
	struct ring_op op;
	struct timer retry; /* after EMFILE and the like */
};

/* Something another thread asks of a worker; run() is called in the worker's thread. */
struct command {
	void (*run)(struct worker *w, void *arg);
	void *arg;
	struct command *next;
	sem_t done;
};

/* Lines of one kind within one second. */
struct log_window {
	uint64_t second; /* CLOCK_MONOTONIC */
	unsigned lines, left_out;
};

struct worker {
	unsigned index;
	struct gate *gate;
	pthread_t thread;
	struct ring *ring;
	struct timers timers;
	struct relay_env env;
	struct forger forger;
	struct responder responder;
	struct stats *stats;	    /* in shared memory */
	struct listener *listeners; /* one per binding */
	struct balance *balances;   /* by vserver index */
	struct check *checks;	    /* of every n-th service, n being the workers */
	unsigned n_checks;
	TAILQ_HEAD(flow_turns, flow_handshake) turns; /* clients whose handshake is to begin */
	/* Early connections that wait for their client at the CertificateRequest, oldest first. */
	TAILQ_HEAD(flow_early, flow_handshake) early;
	LIST_HEAD(, flow) flows;	  /* the newest first, and so the highest id */
	LIST_HEAD(, flow_cursor) cursors; /* see flow_show.h */
	struct log_window
		logged[REASON_COUNT + 1]; /* by reason of the end; the last: established */
	struct timer tell_left_out;
	unsigned n_flows;
	int error; /* of the set-up */
	uint64_t next_flow_id;
	bool retired;  /* accepts nothing more */
	bool stopping; /* and ends with the last flow */

	int wake_fd; /* eventfd */
	uint64_t wake_value;
	struct ring_op wake;
	_Atomic(struct command *) commands;
};

/* Those that belong to no flow. */
unsigned worker_timers(const struct worker *w);

/* May one more line of this kind be logged now? Else it is counted, and the number told soon. */
bool worker_may_log(struct worker *w, unsigned kind);

/* Whoever checks the service is told that flows suspect it. From any thread. */
void workers_suspect(const struct gate *gate, const struct service *s);

/* Builds contexts and cache. The serving keys must be loaded. Returns 0 or -errno. */
int gate_init(struct gate *gate) must_check;
void gate_free(struct gate *gate);

/* ---- gate.c ---- */

void worker_tell_left_out(struct timer *t);

#endif
