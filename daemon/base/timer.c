/* SPDX-License-Identifier: Apache-2.0 */
/* A binary heap of deadlines; see timer.h. */
#include <errno.h>
#include <time.h>
#include "base/timer.h"

uint64_t timer_clock(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void place(struct timers *ts, uint32_t i, struct timer *t)
{
	ts->heap[i] = t;
	t->slot = i + 1;
}

static void sift_up(struct timers *ts, uint32_t i, struct timer *t)
{
	while (i && ts->heap[(i - 1) / 2]->deadline > t->deadline) {
		place(ts, i, ts->heap[(i - 1) / 2]);
		i = (i - 1) / 2;
	}
	place(ts, i, t);
}

static void sift_down(struct timers *ts, uint32_t i, struct timer *t)
{
	for (uint32_t child; (child = 2 * i + 1) < ts->n; i = child) {
		if (child + 1 < ts->n && ts->heap[child + 1]->deadline < ts->heap[child]->deadline)
			child++;
		if (ts->heap[child]->deadline >= t->deadline)
			break;
		place(ts, i, ts->heap[child]);
	}
	place(ts, i, t);
}

int timers_reserve(struct timers *ts, uint32_t n)
{
	uint32_t size = ts->size ? ts->size : 64;
	struct timer **heap;

	if (n <= ts->size)
		return 0;
	while (size < n)
		size *= 2;
	heap = reallocarray(ts->heap, size, sizeof(*heap));
	if (!heap)
		return -ENOMEM;
	ts->heap = heap;
	ts->size = size;
	return 0;
}

void timer_set(struct timers *ts, struct timer *t, uint64_t ms)
{
	timer_clear(ts, t);
	t->deadline = ts->now + ms;
	sift_up(ts, ts->n++, t);
}

void timer_clear(struct timers *ts, struct timer *t)
{
	uint32_t i = t->slot - 1;
	struct timer *last;

	if (!t->slot)
		return;
	t->slot = 0;
	last = ts->heap[--ts->n];
	if (last == t)
		return;
	if (i && ts->heap[(i - 1) / 2]->deadline > last->deadline)
		sift_up(ts, i, last);
	else
		sift_down(ts, i, last);
}

void timers_run(struct timers *ts)
{
	while (ts->n && ts->heap[0]->deadline <= ts->now) {
		struct timer *t = ts->heap[0];

		timer_clear(ts, t);
		t->expired(t);
	}
}

int64_t timers_next(const struct timers *ts)
{
	if (!ts->n)
		return -1;
	return ts->heap[0]->deadline > ts->now ? (int64_t)(ts->heap[0]->deadline - ts->now) : 0;
}
