/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options of TCP sockets that the configuration names: whether this kernel would take them, and
 * setting them; and what state TCP is in. Knows sockets, no flow.
 */
#ifndef KTLSGATE_SOCKOPT_H
#define KTLSGATE_SOCKOPT_H

#include <stdbool.h>
#include <stddef.h>
#include "base/scoped.h"

/* Zeroed: all is the kernel's to choose. */
struct sockopt {
	unsigned rcvbuf, sndbuf; /* bytes of payload, as setsockopt(2) takes them; 0: autotuned */
	char *congestion_control;
};

enum sockopt_buffer {
	SOCKOPT_RCVBUF,
	SOCKOPT_SNDBUF
};

/* The most bytes that the kernel gives, where it would cut size down in silence; or size. */
unsigned sockopt_buffer_given(enum sockopt_buffer which, unsigned size);

/* The most connections a backlog can have here, net.core.somaxconn; ~0: not known. */
unsigned sockopt_backlog_max(void);

/*
 * May a process without any privilege use this congestion control? Where ours may do more, a module
 * of that name is loaded for it. 0, or -EINVAL with "what is wrong; what would be right" in why.
 */
int sockopt_congestion_check(const char *name, char *why, size_t len) must_check;

/*
 * For connections to come, so before connect(2) or listen(2): a window is scaled in the handshake.
 * Accepted sockets have what their listening socket has. 0, or -errno of the first that was
 * refused; the others are set.
 */
int sockopt_set(int fd, const struct sockopt *o) must_check;
/* Back to what a new socket has, in all that a data process can change. */
void sockopt_reset(int fd);

/* TCP has nothing to do with this connection any more: reset, given up, or closed by both ends. */
bool sockopt_tcp_closed(int fd);

#endif
