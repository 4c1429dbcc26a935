/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ClientHellos of ours that backends are answering just now, by their random. One that comes in
 * at one of our own listeners shows that a service leads back to us, whatever is in between: NAT, a
 * load balancer, a name. Shared by all workers. Knows no flow.
 */
#ifndef KTLSGATE_HELLOS_H
#define KTLSGATE_HELLOS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include "base/scoped.h"

#define HELLO_RANDOM 32

struct hellos;
struct cfg_service;

/* Zeroed: not in the table. */
struct hello {
	LIST_ENTRY(hello) link;
	uint8_t random[HELLO_RANDOM];
	const struct cfg_service *service;
};

struct hellos *hellos_new(void) must_check; /* NULL: out of memory */
void hellos_free(struct hellos *t);	    /* NULL-safe */

/* h stays where it is until hellos_remove(). */
void hellos_add(struct hellos *t, struct hello *h, const uint8_t random[HELLO_RANDOM],
		const struct cfg_service *service);
/* Harmless if it is not in the table. */
void hellos_remove(struct hellos *t, struct hello *h);

/* The service that such a ClientHello was sent to; NULL: it is not ours. */
const struct cfg_service *hellos_find(struct hellos *t, const uint8_t random[HELLO_RANDOM]);

#endif
