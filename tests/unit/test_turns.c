/* SPDX-License-Identifier: Apache-2.0 */
/* Whose handshake begins next. */
#include "flow/flow_internal.h"
#include "unit.h"

#define FIRST_MS 1000

static struct stats stats;
static struct worker worker = {.stats = &stats, .turns = TAILQ_HEAD_INITIALIZER(worker.turns)};
static struct flow flows[3];
static struct flow_handshake waiting[3];

/* A millisecond after one another. */
static void three_come(void)
{
	for (unsigned i = 0; i < 3; i++) {
		flows[i].worker = &worker;
		waiting[i].flow = &flows[i];
		worker.timers.now = FIRST_MS + i;
		flow_await_turn(&waiting[i]);
	}
}

/* Who it is, or -1; it waits no more. */
static int takes_turn(void)
{
	struct flow_handshake *h = flow_next_turn(&worker);

	if (!h)
		return -1;
	flow_end_waiting(h);
	return (int)(h - waiting);
}

static void test_in_order(void)
{
	CHECK_INT(takes_turn(), -1);
	three_come();
	worker.timers.now = FIRST_MS + TURN_PATIENCE_MS;
	for (int i = 0; i < 3; i++)
		CHECK_INT(takes_turn(), i);
	CHECK_INT(takes_turn(), -1);
}

static void test_newest_when_the_oldest_waited_long(void)
{
	three_come();
	worker.timers.now = FIRST_MS + TURN_PATIENCE_MS + 1;
	CHECK_INT(takes_turn(), 2);
	/* With the one that has waited for so long gone, it is the others' turn as they came. */
	flow_end_waiting(&waiting[0]);
	CHECK_INT(takes_turn(), 1);
	CHECK_INT(takes_turn(), -1);
}

static void test_who_leaves_waits_no_more(void)
{
	three_come();
	flow_end_waiting(&waiting[1]);
	flow_end_waiting(&waiting[1]);
	CHECK_INT(stats.handshakes_waiting_active, 2);
	CHECK_INT(takes_turn(), 0);
	CHECK_INT(takes_turn(), 2);
	CHECK_INT(takes_turn(), -1);
	CHECK_INT(stats.handshakes_waiting_active, 0);
}

int main(void)
{
	test_in_order();
	test_newest_when_the_oldest_waited_long();
	test_who_leaves_waits_no_more();
	return unit_end();
}
