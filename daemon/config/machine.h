/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the machine, or the container, lets us have, and the limits that follow from it. Knows no
 * flow.
 */
#ifndef KTLSGATE_MACHINE_H
#define KTLSGATE_MACHINE_H

#include "config/config.h"

struct machine {
	uint64_t memory;      /* bytes */
	uint64_t descriptors; /* of a process */
};

/*
 * The memory of the machine or of our control group, whichever is less. root: "", or a directory
 * with proc and sys in it, for tests. What cannot be read is no bound.
 */
uint64_t machine_memory(const char *root);

void machine_look(struct machine *m);

/* Replaces each limit of cfg that is CFG_AUTO; docs/design.md has the formula. */
void machine_settle_limits(const struct machine *m, struct config *cfg);

#endif
