/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The service manager's watchdog, fed by the supervisor: three times in its
 * period the data process is asked, over the control socket, to have each
 * worker answer, and only an answer is passed on. Knows no process.
 */
#ifndef KTLSGATE_WATCHDOG_H
#define KTLSGATE_WATCHDOG_H

#include <stdbool.h>
#include <stdint.h>

struct watchdog {
	const char *socket; /* the control socket */
	unsigned period;    /* ms between two questions; 0: nobody wants to know */
	uint64_t next;	    /* when the next one is due, CLOCK_MONOTONIC ms */
	int fd;		    /* the one that is open; -1: none */
	bool silent;	    /* the last one was not answered; said once */
};

void watchdog_init(struct watchdog *w, const char *socket);
/* What poll(2) shall wait at most, ms; -1: for ever. */
int watchdog_wait(const struct watchdog *w);
/* After each poll(2): readable is about w->fd, well is what the caller knows of the processes. */
void watchdog_turn(struct watchdog *w, bool readable, bool well);
void watchdog_close(struct watchdog *w);

#endif
