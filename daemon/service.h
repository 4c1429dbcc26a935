/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is known of a service while the data process runs: one struct service
 * per configured one, shared by all workers, every member changed by atomic
 * operations only. What is decided from it is in balance.c.
 */
#ifndef KTLSGATE_SERVICE_H
#define KTLSGATE_SERVICE_H

#include <stdatomic.h>
#include "config.h"

struct service {
	const struct cfg_service *cfg;
	_Atomic uint64_t flows;	      /* with a connection to it, or making one */
	_Atomic uint64_t connections; /* begun for flows, in all */
	_Atomic uint64_t failures;    /* of those: no connection, or no ServerHello */
	_Atomic uint32_t streak;      /* failures since the last success */
};

/* By service index; NULL: out of memory. To be freed with free(). */
struct service *services_new(const struct config *cfg) must_check;

/* A flow begins to connect; service_release() when it has let go of the connection. */
void service_acquire(struct service *s);
void service_release(struct service *s);

/* It answered a ClientHello. */
void service_worked(struct service *s);
/*
 * It could not be connected to, or left before its ServerHello: nothing that a
 * client could cause. The first failure of a row is logged.
 */
void service_failed(struct service *s, const char *why);

#endif
