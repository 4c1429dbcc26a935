/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The data process's answers on their way to clients of the control socket, many at once: none
 * waits for another, and the thread waits for none. A list of flows is made while it is sent,
 * portion by portion, so it takes no more memory for many flows than for few.
 */
#ifndef KTLSGATE_REPLY_H
#define KTLSGATE_REPLY_H

#include <poll.h>
#include "flow/flow_show.h"
#include "base/outbox.h"

#define REPLIES 64 /* more than the supervisor hands over at once */

struct reply {
	int fd; /* -1: free */
	uint32_t id;
	unsigned outcome; /* to be told when it is sent */
	struct outbox out;
	unsigned worker; /* whose flows come next; of a list only */
	struct flow_cursor cursor;
};

struct replies {
	struct gate *gate;
	/* One is sent, or its client has left. */
	void (*over)(void *arg, uint32_t id, unsigned outcome);
	void *arg;
	unsigned n;
	struct reply list[REPLIES];
};

void replies_init(struct replies *r);
bool replies_full(const struct replies *r);
/* What remains is cut short. While the workers run. */
void replies_free(struct replies *r);

/* Takes fd, a client's connection, and text, the answer; flows: they are to be listed behind it. */
void replies_add(struct replies *r, int fd, uint32_t id, unsigned outcome, char *text, size_t len,
		 bool flows);

/* As control_poll(), control_wait() and control_turn(): at most REPLIES descriptors. */
unsigned replies_poll(const struct replies *r, struct pollfd *p);
int replies_wait(const struct replies *r);
void replies_turn(struct replies *r, const struct pollfd *p, unsigned n);

#endif
