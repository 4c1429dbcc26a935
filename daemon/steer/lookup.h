/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loads and feeds bpf/lookup.bpf.c, which decides before there is a socket: whose a new connection
 * is, and whether its source may have one (shield.h). Called by the supervisor, which has the
 * rights; a data process may read the counters.
 */
#ifndef KTLSGATE_LOOKUP_H
#define KTLSGATE_LOOKUP_H

#include "steer/lookup_plan.h"
#include "base/scoped.h"
#include "steer/steer.h"

struct lookup;

/* Prepares; nothing is loaded yet. -ENOMEM */
int lookup_open(const char *bpf_dir, struct lookup **out) must_check;

/*
 * From here on connections in this network namespace are treated as cfg says and led by plan to
 * steer's groups. Called again it changes from one to the other at once: no connection meets
 * neither or both, and the shield's rules and buckets stay. One log line on error; what there was
 * then stays in force.
 */
int lookup_set(struct lookup *lookup, const struct config *cfg, const struct lookup_plan *plan,
	       const struct steer *steer) must_check;

/* A map of the program in force, by its name in maps.h; -ENOENT before lookup_set(). */
int lookup_map(const struct lookup *lookup, const char *name) must_check;

/*
 * The map shield_stats, to be read only, for a data process; the descriptor stays lookup's. -1 if
 * lookup is NULL, or it could not be opened.
 */
int lookup_stats_map(const struct lookup *lookup);

/* Only in the process that opened it: detaches, unpins and frees. NULL-safe. */
void lookup_close(struct lookup *lookup);
SCOPED_DEFINE(lookup, struct lookup, lookup_close)
#define scoped_lookup __attribute__((cleanup(scoped_lookup_free_))) struct lookup

#endif
