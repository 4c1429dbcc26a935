/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gate under test: a worker thread whose flows begin at the hand-over, with
 * keys that the test chose. From there on all of it is the daemon's own code:
 * ring, timers, engines, relay, close. Knows no schedule.
 */
#ifndef RELAY_GATE_H
#define RELAY_GATE_H

#include <stdatomic.h>
#include "tls/keys.h"
#include "conn/ktls.h"

struct gate_side {
	int fd; /* the gate's from now on; for ktls the ULP is attached, as at accept */
	struct tls_keys rx, tx;
	uint8_t rx_secret[48], tx_secret[48]; /* TLS 1.3 */
	uint8_t secret_len;
};

struct gate_flow {
	struct gate_side side[2]; /* client, backend */
	uint32_t number;
	bool breaks; /* an end sends a bad record */
	uint64_t ended_at,
		quiet; /* ms: when the relay ended, and how long nothing had moved by then */
	/* enum reason once the relay has ended; from then on the flow is its owner's. -1 before. */
	_Atomic int reason;
};

struct gate_options {
	bool ktls, copy;
	uint64_t key_limit; /* bytes; 0: none */
	unsigned drain_seconds;
};

struct test_gate;

/* caps: of kernel TLS, also when the user engine is to be used. NULL: no ring. */
struct test_gate *test_gate_start(const struct gate_options *o, const struct ktls_caps *caps);
void test_gate_hand_over(struct test_gate *g, struct gate_flow *flow);
/* Waits until every flow is closed. Returns how many things were left behind, each printed. */
unsigned test_gate_stop(struct test_gate *g);

#endif
