/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shield: which sources may have a connection, decided by bpf/lookup.bpf.c before there is a
 * socket. Rules for prefixes, of which the longest decides; for all others a limit of each source.
 */
#ifndef KTLSGATE_SHIELD_H
#define KTLSGATE_SHIELD_H

#include "config/config.h"
#include "maps.h"
#include "base/scoped.h"

struct lookup;

/*
 * Puts the limit of each source into the map shield_config, and the rules of shield.deny in the
 * place of those of an earlier configuration; what an operator has said of a prefix stays. -errno
 */
int shield_configure(int config, int rules4, int rules6, const struct config *cfg) must_check;

/*
 * Does what an operator asks: "deny PREFIX", "allow PREFIX", "limit PREFIX RATE [BURST]", "reset
 * PREFIX", "show". Writes the answer: "ok" and lines, or "error TEXT".
 */
void shield_command(const struct lookup *lookup, const char *command, FILE *out);

/* For Prometheus: connections by vserver and what came of them. stats: the map shield_stats. */
void shield_write_metrics(int stats, FILE *out);

/* Before files are forbidden: how many CPUs there are is read from one. */
void shield_prepare(void);
/* All CPUs' counters of the vserver at a place, with its name; -ENOENT: there is none. */
int shield_read(int stats, unsigned place, struct shield_stats *out) must_check;

#endif
