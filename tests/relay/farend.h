/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A far end of a flow: plays its part of the schedule on one socket and notes
 * what it sees. Knows no gate, and no other end but by its schedule.
 */
#ifndef RELAY_FAREND_H
#define RELAY_FAREND_H

#include "schedule.h"
#include "wire.h"

struct farend {
	const struct schedule *schedule;
	const struct schedule_options *options;
	struct end_plan *plan;
	enum role role;
	int fd; /* -1: closed */
	struct wire tx, rx;
	struct seen seen;

	uint8_t *out; /* sealed, not yet sent */
	size_t out_off, out_len, out_size;
	uint8_t in[WIRE_RECORD]; /* the record being received */
	size_t in_len;

	unsigned extra_left, tickets_left; /* what the gate will bear */
	unsigned one_byte_writes;
	uint64_t paused_until, stalled_until; /* ms */
	bool stalled;
	bool sealed_all; /* its own end stands in out */
	bool idle;	 /* nothing to send until something comes */
	bool reset;	 /* a send was told so */
	bool done;
};

/* Takes fd. keys: as it sends, and as it receives. */
void farend_start(struct farend *e, const struct schedule_options *o, struct schedule *s,
		  enum role role, int fd, const struct wire_keys *tx, const struct wire_keys *rx);
/* Events to poll for; *wake is lowered to when it wants to be run again without any. */
short farend_wants(struct farend *e, uint64_t now, uint64_t *wake);
void farend_run(struct farend *e, short events, uint64_t now);
void farend_stop(struct farend *e);

#endif
