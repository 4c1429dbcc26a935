/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The last digests seen: a bounded set that forgets the oldest first. Its memory
 * is shared between processes by its descriptor, so it outlives one that dies; several
 * may use it at once.
 */
#ifndef KTLSGATE_REPLAY_H
#define KTLSGATE_REPLAY_H

#include <stdbool.h>
#include <stdint.h>
#include "scoped.h"

#define REPLAY_DIGEST_LEN 32
#define REPLAY_SECRET_LEN 32
#define REPLAY_ENTRIES	  65536

struct replay;

/* Memory of an empty set, to be mapped by signers: its descriptor, or -errno. */
int replay_make(void) must_check;
/* The set at fd. NULL with errno. */
struct replay *replay_map(int fd) must_check;
/* Both, for one process. NULL: no memory, or no randomness. */
struct replay *replay_new(void) must_check;
/* A secret of all processes that share it, of REPLAY_SECRET_LEN bytes. */
const uint8_t *replay_secret(const struct replay *r);
void replay_free(struct replay *r); /* NULL-safe */

bool replay_seen(struct replay *r, const uint8_t digest[REPLAY_DIGEST_LEN]) must_check;
/* False: it is in the set already. */
bool replay_add(struct replay *r, const uint8_t digest[REPLAY_DIGEST_LEN]) must_check;

#endif
