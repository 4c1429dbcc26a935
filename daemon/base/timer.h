/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deadlines of one worker: a binary heap, so that the loop knows when to wake
 * and rests completely when there is nothing to wait for. Times are
 * CLOCK_MONOTONIC milliseconds.
 */
#ifndef KTLSGATE_TIMER_H
#define KTLSGATE_TIMER_H

#include <stdint.h>
#include "base/scoped.h"

struct timer {
	void (*expired)(struct timer *t);
	uint64_t deadline;
	uint32_t slot; /* position in the heap + 1; 0: not set */
};

struct timers {
	struct timer **heap;
	uint32_t n, size;
	uint64_t now; /* of this turn of the loop */
};

uint64_t timer_clock(void);

/* Makes room for n timers in all, so that timer_set() cannot fail. Returns 0 or -ENOMEM. */
int timers_reserve(struct timers *ts, uint32_t n) must_check;
/* (Re)sets t to expire ms from now. */
void timer_set(struct timers *ts, struct timer *t, uint64_t ms);
void timer_clear(struct timers *ts, struct timer *t);
/* Runs what is due. */
void timers_run(struct timers *ts);
/* Milliseconds until the next one, -1: none. */
int64_t timers_next(const struct timers *ts);

#endif
