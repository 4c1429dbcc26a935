/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Forged certificates and their keys, shared by all workers: bounded, least
 * recently used goes first, never older than either certificate allows.
 * One entry per (original and its chain, forging CA, rules, key type).
 */
#ifndef KTLSGATE_FORGE_CACHE_H
#define KTLSGATE_FORGE_CACHE_H

#include <stdbool.h>
#include "tls/token.h"

struct forge_cache;

/* A certificate with its key, reference counted; immutable. */
struct forged {
	_Atomic unsigned refs;
	X509 *cert;
	EVP_PKEY *key;
	time_t until;	/* no longer handed out: before the end of it and of the original's chain */
	bool has_token; /* the signer's word for whom it was issued */
	uint8_t token[TOKEN_LEN];
};

struct forge_key {
	uint8_t fingerprint[FINGERPRINT_LEN]; /* of the original leaf */
	uint8_t issuer[FINGERPRINT_LEN];      /* of the forging CA's certificate */
	uint8_t chain[FINGERPRINT_LEN]; /* SHA-256 over the verified chain's fingerprints: another
					   path, another validity */
	uint32_t profile;		/* index: other rules, another certificate */
	uint32_t key_type;
	uint32_t vserver; /* where there are session tickets, since tokens are for one: index + 1 */
};

struct forge_cache *forge_cache_new(unsigned entries) must_check;
void forge_cache_free(struct forge_cache *c); /* NULL-safe */

/* A reference to the entry valid at now, or NULL. An expired entry is dropped. Thread-safe. */
struct forged *forge_cache_get(struct forge_cache *c, const struct forge_key *key,
			       time_t now) must_check;

/* Takes cert and key (also on failure); returns a reference, or NULL (out of memory). */
struct forged *forged_new(X509 *cert, EVP_PKEY *key, time_t until) must_check;
/* Takes a reference; replaces an entry of the same key. True if another one was evicted. */
bool forge_cache_put(struct forge_cache *c, const struct forge_key *key, struct forged *f);
struct forged *forged_ref(struct forged *f);
void forged_unref(struct forged *f); /* NULL-safe */

unsigned forge_cache_entries(struct forge_cache *c);

#endif
