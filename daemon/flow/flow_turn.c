// SPDX-License-Identifier: Apache-2.0
/*
 * Which client's handshake begins next, when more clients connect than can be served at once.
 * Knows no TLS.
 */
#include "flow/flow_internal.h"

#include "flow/flow.h"

void flow_end_waiting(struct flow_handshake *h)
{
	struct worker *w = h->flow->worker;

	if (!h->waiting)
		return;
	TAILQ_REMOVE(&w->turns, h, turn);
	h->waiting = false;
	stat_dec(w->stats, handshakes_waiting_active);
}

void flow_await_turn(struct flow_handshake *h)
{
	struct worker *w = h->flow->worker;

	TAILQ_INSERT_TAIL(&w->turns, h, turn);
	h->waiting = true;
	h->waiting_since = w->timers.now;
	stat_inc(w->stats, handshakes_waiting_active);
}

/*
 * In the order of their coming; but who has waited for long may well be about to leave, and if all
 * did, nobody would be served in time: then the newest. NULL: nobody waits.
 */
struct flow_handshake *flow_next_turn(const struct worker *w)
{
	struct flow_handshake *first = TAILQ_FIRST(&w->turns);

	if (first && w->timers.now - first->waiting_since > TURN_PATIENCE_MS)
		return TAILQ_LAST(&w->turns, flow_turns);
	return first;
}
