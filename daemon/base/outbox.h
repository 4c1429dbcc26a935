/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An answer on its way to a client of the control socket. It is sent as fast as the client reads,
 * and nobody ever waits for that: a client that takes nothing for OUTBOX_STALL_MS, or is not done
 * after OUTBOX_MS, is to be left. An answer that is cut short never ends with a line feed, so the
 * client can tell. Times are those of timer_clock().
 */
#ifndef KTLSGATE_OUTBOX_H
#define KTLSGATE_OUTBOX_H

#include <stdbool.h>
#include <stdint.h>
#include "base/scoped.h"

#define OUTBOX_STALL_MS 5000
#define OUTBOX_MS	60000

struct outbox {
	char *text;	 /* owned */
	size_t off, len; /* of it: sent, and all */
	bool more;	 /* will be added: a line feed at the end is held back until then */
	uint64_t began, moved;
};

enum outbox_state {
	OUTBOX_SENT,  /* all that may be sent */
	OUTBOX_FULL,  /* the client has to read first: go on when poll(2) says POLLOUT */
	OUTBOX_LEAVE, /* the client has gone, or is too slow */
};

/* Takes text, of malloc(3), which goes behind what is there. 0 or -ENOMEM, and text is freed. */
int outbox_add(struct outbox *o, char *text, size_t len, uint64_t now) must_check;
/* Never blocks, and does not take long. */
enum outbox_state outbox_send(struct outbox *o, int fd, uint64_t now);
/* When a client that takes nothing more is to be left. */
uint64_t outbox_deadline(const struct outbox *o);
void outbox_free(struct outbox *o);
/* Closes the socket, if fd is one, so that what was sent arrives. */
void outbox_close(int fd);

#endif
