/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RSA keys for forged certificates (P-256 ones are the signer's to make). One takes
 * a fifth of a second, so a thread of its own makes them ahead, into a pool from
 * which each is taken once. The pool is empty until somebody wants the first:
 * most backends never do.
 */
#ifndef KTLSGATE_KEYMAKER_H
#define KTLSGATE_KEYMAKER_H

#include <stdbool.h>
#include "base/scoped.h"

enum key_type {
	KEY_P256,
	KEY_RSA2048,
	KEY_TYPES
};

struct keymaker;

/* depth: RSA keys kept ready; eager: from the start. NULL: out of memory. */
struct keymaker *keymaker_new(unsigned depth, bool eager) must_check;
/* Starts the thread; before the process gives up making threads. Returns 0 or -errno. */
int keymaker_start(struct keymaker *k) must_check;
/* Ends the thread, even in the middle of a key. NULL-safe. */
void keymaker_free(struct keymaker *k);

/*
 * A new RSA key, the caller's. NULL: the pool is empty, and wake_fd (an eventfd) is
 * written to once, when there is a key again. Never blocks. Thread-safe.
 */
EVP_PKEY *keymaker_take(struct keymaker *k, int wake_fd) must_check;

/* RSA keys in the pool now. */
unsigned keymaker_ready(struct keymaker *k);

#endif
