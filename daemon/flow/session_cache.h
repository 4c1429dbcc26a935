/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sessions with backends, shared by all workers: bounded, the oldest goes first.
 * A session is in the cache or with one flow, never in both: tickets of TLS 1.3
 * are for one use (RFC 8446 appendix C.4), and one that a backend fails on is gone.
 */
#ifndef KTLSGATE_SESSION_CACHE_H
#define KTLSGATE_SESSION_CACHE_H

#include "forging/forge_cache.h"

#define SESSION_KEY_LEN 32 /* SHA-256 over all that must be the same; see reuse.c */
#define SESSIONS_OF_KEY 4  /* at a time; what a client has in parallel, and no more */

struct session_cache;

/* What can be resumed, and what was true of the handshake that made it. */
struct session {
	uint8_t *der; /* an SSL_SESSION, NULL: not there yet; owned, wiped */
	int der_len;
	time_t until;	       /* not offered from then on */
	struct forged *forged; /* what the backend was shown: a reference; or NULL */
	bool fallback;	       /* it was shown the fallback certificate */
	bool asked;	       /* it asked for a certificate */
};

void session_free(struct session *s); /* NULL-safe */

struct session_cache *session_cache_new(unsigned entries) must_check;
void session_cache_free(struct session_cache *c); /* NULL-safe */

/* The newest of key that is good at now becomes the caller's; NULL: there is none. Thread-safe. */
struct session *session_cache_take(struct session_cache *c, const uint8_t key[SESSION_KEY_LEN],
				   time_t now) must_check;
/* Takes s. True if another one was dropped for it. Thread-safe. */
bool session_cache_put(struct session_cache *c, const uint8_t key[SESSION_KEY_LEN],
		       struct session *s);

unsigned session_cache_entries(struct session_cache *c);

#endif
