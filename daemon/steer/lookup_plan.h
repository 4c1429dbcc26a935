/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What sk_lookup has to know, bpf/lookup.bpf.c: the entries of the maps lookup_*, made from what
 * the vservers listen on. Pure: knows the configuration and the maps' form, not the kernel.
 */
#ifndef KTLSGATE_LOOKUP_PLAN_H
#define KTLSGATE_LOOKUP_PLAN_H

#include <stdbool.h>
#include "config/config.h"
#include "maps.h"
#include "base/scoped.h"

/* A prefix; which key counts tells family. */
struct lookup_address {
	int family;
	struct lookup_key4 key4;
	struct lookup_key6 key6;
	struct lookup_areas areas;
};

struct lookup_ports {
	struct lookup_port key;
	struct lookup_target target;
};

struct lookup_plan {
	struct lookup_address *addresses; /* by area number */
	unsigned n_addresses;
	struct lookup_ports *ports;
	unsigned n_ports;
	bool assigns; /* something that no socket is bound to */
};

/*
 * Groups of sockets have their bindings' numbers. Returns 0, -ENOMEM, or -E2BIG after a log line
 * that names the prefix that lies in too many others. To be freed with lookup_plan_free().
 */
int lookup_plan_new(const struct config *cfg, struct lookup_plan **out) must_check;
void lookup_plan_free(struct lookup_plan *plan);
SCOPED_DEFINE(lookup_plan, struct lookup_plan, lookup_plan_free)
#define scoped_lookup_plan __attribute__((cleanup(scoped_lookup_plan_free_))) struct lookup_plan

#endif
