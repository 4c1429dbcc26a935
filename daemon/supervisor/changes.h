/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Notices that files which others replace, such as CRLs, have changed since the
 * configuration was loaded. Looks at them from time to time: that sees renames
 * and network file systems too. Does not know what is in them.
 */
#ifndef KTLSGATE_CHANGES_H
#define KTLSGATE_CHANGES_H

#include <stdbool.h>
#include <stdint.h>
#include "config/config.h"

struct changes_file;

struct changes {
	struct changes_file *files;
	unsigned n;
	unsigned period; /* ms between two looks; 0: none */
	uint64_t next;	 /* when the next one is due, CLOCK_MONOTONIC ms */
};

/* A time to be given to changes_watch(). */
struct timespec changes_now(void);

/*
 * From now on the files of cfg are watched, which was loaded at or after since.
 * Whatever was watched before no longer is. Without memory nothing is, which is logged.
 */
void changes_watch(struct changes *c, const struct config *cfg, struct timespec since);
void changes_free(struct changes *c);

/* What poll(2) shall wait at most, ms; -1: for ever. */
int changes_wait(const struct changes *c);

/*
 * After each poll(2). True: a file is another one than was loaded, and has not
 * changed since the look before, so that whoever writes it has done. Each state of a
 * file is told once.
 */
bool changes_turn(struct changes *c);

#endif
