/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is known of a service while the data process runs: one struct service
 * per configured one, shared by all workers, every member changed by atomic
 * operations, but for the text of the last error. What is decided from it is in
 * balance.c, how it is checked in check.c. Times are those of timer_clock().
 */
#ifndef KTLSGATE_SERVICE_H
#define KTLSGATE_SERVICE_H

#include <pthread.h>
#include <stdatomic.h>
#include "service/resolver.h"

enum service_state {
	SERVICE_UP,
	SERVICE_DOWN,	 /* its checks say */
	SERVICE_EJECTED, /* for a time: too many flows failed on it */
	SERVICE_DRAINING,
	SERVICE_STATES
};

struct service {
	const struct cfg_service *cfg;
	const struct resolved *resolved; /* the table; NULL: it has no name */
	_Atomic uint64_t flows;		 /* with a connection to it, or making one */
	_Atomic uint64_t connections;	 /* begun for flows, in all */
	_Atomic uint32_t early;		 /* of those now: the client is not verified yet */
	_Atomic uint64_t early_waits;	 /* flows that had to wait: service.<n>.early_connects */
	_Atomic uint64_t failures;	 /* of those: no connection, or no ServerHello */
	_Atomic uint32_t streak;	 /* no connection, in a row */
	_Atomic uint64_t suspicions;	 /* connected, but no ServerHello; among the failures */
	_Atomic uint32_t suspicion_row;	 /* those since the last success */
	_Atomic bool suspected;		 /* a check of ours is wanted, see check_suspected() */
	_Atomic bool told;		 /* that it fails; that it answers again is told then */
	_Atomic uint64_t told_at;	 /* ms; of a suspicion */

	_Atomic bool draining;
	_Atomic bool down;
	_Atomic uint64_t up_since;	/* ms; 0: from the start, or never down */
	_Atomic uint64_t ejected_until; /* ms */
	_Atomic uint32_t ejected_in_row;
	_Atomic uint64_t ejections;

	_Atomic uint64_t checks, checks_failed;
	uint32_t check_row; /* checks against the present verdict; the checking worker's */
	bool checked;	    /* once at least; the checking worker's */

	pthread_mutex_t lock;
	char last_error[192]; /* under lock; empty: none yet */
};

/* By service index; NULL: out of memory. */
struct service *services_new(const struct config *cfg, const struct resolved *resolved) must_check;
void services_free(struct service *services);

/* The turn-th of its addresses, from 0; false: it has no more. */
bool service_address(const struct service *s, unsigned turn, struct cfg_address *out) must_check;

enum service_state service_state(const struct service *s, uint64_t now);

/* Its weight in units of 1/256, less while it starts slowly. */
uint64_t service_weight(const struct service *s, uint64_t now);
#define SERVICE_WHOLE 256

/* A flow begins to connect; service_release() when it has let go of the connection. */
void service_acquire(struct service *s);
void service_release(struct service *s);

/*
 * The same for a client that is not verified yet. False: there are service.<n>.early_connects of
 * them, and nothing is taken.
 */
bool service_take_early(struct service *s) must_check;
/* That client is verified, or the connection is gone. */
void service_end_early(struct service *s);
void service_early_waits(struct service *s);

/* It answered a flow's ClientHello. */
void service_worked(struct service *s, uint64_t now);
/*
 * There was no connection: no client can cause that, since nothing of a client's has been sent. The
 * first failure of a row is logged, and ejection.
 */
void service_failed(struct service *s, const char *why, uint64_t now);
/*
 * It was connected and gave no ServerHello. What it was sent may hold what the client chose (server
 * name, protocols, its address), and that may be the cause: so this alone never ejects. True:
 * there were service.<n>.eject_after of them in a row, and a check of ours is to find out.
 */
bool service_suspected(struct service *s, const char *why, uint64_t now) must_check;
/* What that check found, which sends nothing of a client's. NULL: it answers. Ejects, or not. */
void service_confirmed(struct service *s, const char *why, uint64_t now);

/* What a check found; why NULL: it is well. By one worker only. */
void service_checked(struct service *s, const char *why, uint64_t now);

void service_drain(struct service *s, bool drain);

/* One line per service, tab-separated key=value, for the control socket. */
void services_print(struct service *services, unsigned n, uint64_t now, FILE *out);
/* Prometheus's text format. */
void services_write_metrics(const struct service *services, unsigned n, uint64_t now, FILE *out);

#endif
