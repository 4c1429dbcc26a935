/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Health checks of services: by a connection, or by a TLS handshake, on a
 * worker's ring and in between its flows. Each service is checked by one worker.
 */
#ifndef KTLSGATE_CHECK_H
#define KTLSGATE_CHECK_H

#include "service/backend.h"
#include "service/service.h"
#include "base/timer.h"

struct check {
	struct service *service;
	const struct back *back;
	struct ring *ring;
	struct timers *timers;
	struct timer timer;	    /* the next check; while one runs: the end of its time */
	struct side side;	    /* of no flow */
	struct cfg_address address; /* of this check */
	unsigned turn;		    /* of a name's addresses: each is checked in its turn */
	bool running;		    /* from the connect to the verdict */
	bool ending;		    /* the verdict is there; what is armed comes back */
	bool presented;		    /* the monitor certificate */
	bool confirming;	    /* a suspicion of flows: always a handshake, and ejects */
	uint64_t ended;		    /* ms: the last one; 0: there was none */
	uint8_t buf[2048];	    /* what comes behind the handshake */
};

/*
 * Checks back's service from now on, if it is to be checked. The timers have
 * room for one more, and both outlive the check. delay: ms to the first one.
 */
void check_start(struct check *c, struct service *service, const struct back *back,
		 struct ring *ring, struct timers *timers, uint64_t delay);
/*
 * Flows suspect the service (service_suspected()): it is checked by a handshake, also if check =
 * off. At once, but never within check_interval of the check before: clients can cause suspicions.
 */
void check_suspected(struct check *c);
/* No more checks; what is under way is given up. False: not yet, call again. */
bool check_stop(struct check *c) must_check;

#endif
