/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which service of a vserver a connection goes to. Tables of source-hash are
 * made once and shared; whose turn it is, each worker counts for itself.
 */
#ifndef KTLSGATE_BALANCE_H
#define KTLSGATE_BALANCE_H

#include <netinet/in.h>
#include "service/service.h"

#define BALANCE_TRIED_MAX 17 /* the first service, and vserver.<n>.retries at most */

/* Positions in a vserver's list of services that failed for this flow. */
struct balance_tried {
	uint16_t at[BALANCE_TRIED_MAX];
	uint8_t n;
};

/*
 * A Maglev table (Eisenbud et al., NSDI 2016, section 3.4): from the hash of a
 * client's address to a position in the list. Every service fills a share of it
 * by its weight, in an order of its own, so that a changed list moves few clients.
 */
struct maglev {
	uint16_t *entries;
	uint32_t size; /* a prime; 0: there is no such service */
};

/* Of one vserver, for all workers. */
struct balance_tables {
	struct maglev services, backups; /* source-hash only */
};

int balance_tables_init(struct balance_tables *t, const struct cfg_vserver *v) must_check;
void balance_tables_free(struct balance_tables *t);

/* Of one vserver in one worker. */
struct balance {
	const struct cfg_vserver *vserver;
	const struct balance_tables *tables;
	struct service *services; /* by service index */
	int64_t *credit;	  /* round-robin; by position */
	unsigned next;		  /* least-connections: where to begin to look */
};

int balance_init(struct balance *b, const struct cfg_vserver *v, const struct balance_tables *t,
		 struct service *services) must_check;
void balance_free(struct balance *b);

/*
 * The position of the service for a connection of client (of its address the
 * port does not count, nor the lower half in IPv6: a host changes it), or -1:
 * there is none that can be used and was not tried. now: of timer_clock().
 */
int balance_choose(struct balance *b, const struct sockaddr_in6 *client,
		   const struct balance_tried *tried, uint64_t now) must_check;

#endif
