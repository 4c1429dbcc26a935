/* SPDX-License-Identifier: Apache-2.0 */
/* Successes and failures of services, counted; see service.h. Knows no flow and no worker. */
#include <stdlib.h>
#include "log.h"
#include "service.h"

struct service *services_new(const struct config *cfg)
{
	struct service *services = calloc(cfg->n_services + 1, sizeof(*services));

	for (unsigned i = 0; services && i < cfg->n_services; i++)
		services[i].cfg = cfg->services[i];
	return services;
}

void service_acquire(struct service *s)
{
	atomic_fetch_add_explicit(&s->flows, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&s->connections, 1, memory_order_relaxed);
}

void service_release(struct service *s)
{
	atomic_fetch_sub_explicit(&s->flows, 1, memory_order_relaxed);
}

void service_worked(struct service *s)
{
	/* Mostly zero already: then nobody's cache line is taken away. */
	if (atomic_load_explicit(&s->streak, memory_order_relaxed))
		atomic_store_explicit(&s->streak, 0, memory_order_relaxed);
}

void service_failed(struct service *s, const char *why)
{
	atomic_fetch_add_explicit(&s->failures, 1, memory_order_relaxed);
	if (!atomic_fetch_add_explicit(&s->streak, 1, memory_order_relaxed))
		log_warn("service %s: %s", s->cfg->name, why);
}
