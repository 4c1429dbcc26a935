/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The listening sockets, one per worker and binding: opened by the supervisor,
 * kept across configurations that name the same address, so that no connection
 * in a backlog is lost. Knows addresses, not what a vserver does.
 */
#ifndef KTLSGATE_LISTENER_H
#define KTLSGATE_LISTENER_H

#include "config/config.h"

struct listener_group;

struct listeners {
	struct listener_group *groups;
	unsigned n;
	unsigned workers;
};

/*
 * Finds or opens the sockets of all bindings of cfg, writes them to
 * out[binding * workers + worker], and numbers their groups in cfg; they stay
 * ours. On failure what was opened is closed, after a line to errors for each
 * address, and -errno.
 */
int listeners_open(struct listeners *l, struct config *cfg, int *out, FILE *errors) must_check;
/*
 * A data process shares them, and can shut them down or bend them for all that come after it. Those
 * that do not listen any more are made to; all: a data process has died, and everything it can have
 * changed is as cfg says again. How many did not listen, after a line about each group.
 */
unsigned listeners_mend(struct listeners *l, const struct config *cfg, bool all) must_check;
/* Makes those that were there before as cfg says: connections to come have its socket.client.*. */
void listeners_tune(struct listeners *l, const struct config *cfg);
/* Closes the sockets of addresses that cfg does not name; NULL: of all. */
void listeners_keep(struct listeners *l, const struct config *cfg);

#endif
