/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The service manager's watchdog, fed by the supervisor: three times in its period the newest data
 * process is asked to have each worker answer, and only an answer is passed on. It is asked over a
 * socket pair of the watchdog's own, which no client of the control socket can fill. Knows no
 * process.
 */
#ifndef KTLSGATE_WATCHDOG_H
#define KTLSGATE_WATCHDOG_H

#include <stdbool.h>
#include <stdint.h>

struct watchdog {
	unsigned period; /* ms between two questions; 0: nobody wants to know */
	uint64_t next;	 /* when the next one is due, CLOCK_MONOTONIC ms */
	int fd;		 /* to who is asked; -1: nobody */
	bool asked;	 /* and there is no answer yet */
	bool silent;	 /* that is so for a whole period; said once */
};

void watchdog_init(struct watchdog *w);
/* What poll(2) shall wait at most, ms; -1: for ever. */
int watchdog_wait(const struct watchdog *w);
/*
 * After each poll(2): readable is about w->fd, well is what the caller knows of the processes,
 * channel leads to the data process that is to be asked (answer.h; -1: there is none).
 */
void watchdog_turn(struct watchdog *w, bool readable, bool well, int channel);
/* Nobody is asked until the next turn, and then whoever it names. */
void watchdog_close(struct watchdog *w);

#endif
