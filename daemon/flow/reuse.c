// SPDX-License-Identifier: Apache-2.0
/* Keys of sessions and how long they are good for; see reuse.h. Knows no flow and no socket. */
#include "flow/reuse.h"

#include <string.h>
#include <openssl/err.h>

/* ---- whose it is ---- */

static bool add(EVP_MD_CTX *md, const void *p, size_t n)
{
	uint32_t len = (uint32_t)n;

	return EVP_DigestUpdate(md, &len, sizeof(len)) && EVP_DigestUpdate(md, p, n);
}

/*
 * Another path is another validity; the address may lead to a backend that trusts other CAs; what
 * else is in the profiles is the same for as long as this process lives, and the cache with it.
 */
static bool make_key(SSL *ssl, const struct reuse_ask *ask, uint8_t *key)
{
	const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
	const uint32_t indices[] = {ask->vserver->index, ask->service->index};
	uint8_t who[2 * FINGERPRINT_LEN] = {0};
	scoped_mdctx *md = EVP_MD_CTX_new();

	if (ask->identity) {
		memcpy(who, ask->identity->fingerprint, FINGERPRINT_LEN);
		if (identity_chain_digest(ask->identity, who + FINGERPRINT_LEN))
			return false;
	}
	if (!name)
		name = "";
	return md && EVP_DigestInit_ex(md, EVP_sha256(), NULL) && add(md, who, sizeof(who)) &&
	       add(md, indices, sizeof(indices)) && add(md, ask->address, ask->address_len) &&
	       add(md, name, strlen(name)) && add(md, ask->protocols, ask->protocols_len) &&
	       EVP_DigestFinal_ex(md, key, NULL);
}

struct reuse *reuse_new(SSL *ssl, const struct reuse_ask *ask)
{
	struct reuse *r = calloc(1, sizeof(*r));

	if (r && make_key(ssl, ask, r->key))
		return r;
	free(r);
	return NULL;
}

void reuse_free(struct reuse *r)
{
	if (!r)
		return;
	session_free(r->session);
	handshake_free(r->hs);
	free(r);
}

/* ---- offering ---- */

/* The der is used up. */
static bool set_session(SSL *ssl, struct session *s)
{
	const uint8_t *p = s->der;
	SSL_SESSION *session = d2i_SSL_SESSION(NULL, &p, s->der_len);
	bool set = session && SSL_set_session(ssl, session);

	SSL_SESSION_free(session);
	OPENSSL_clear_free(TAKE_PTR(s->der), (size_t)s->der_len);
	ERR_clear_error();
	return set;
}

void reuse_offer(struct reuse *r, struct session_cache *cache, struct stats *stats, SSL *ssl,
		 const struct reuse_ask *ask)
{
	struct session *s = session_cache_take(cache, r->key, time(NULL));

	/* Its token would stand in the ticket that the client is going to get. */
	if (s && s->forged && forging_stale(ask->vserver->profile, ask->resumed, s->forged))
		session_free(TAKE_PTR(s));
	if (s && !set_session(ssl, s))
		session_free(TAKE_PTR(s));
	if (!s)
		stat_inc(stats, backend_session_misses);
	r->session = s;
}

bool reuse_taken(struct reuse *r, struct stats *stats, SSL *ssl)
{
	if (!r->session)
		return false;
	if (SSL_session_reused(ssl)) {
		stat_inc(stats, backend_resumptions);
		return true;
	}
	stat_inc(stats, backend_session_refusals);
	session_free(TAKE_PTR(r->session));
	return false;
}

/* ---- keeping ---- */

static void bound(time_t *until, const X509 *cert)
{
	time_t end;

	if (identity_time(X509_get0_notAfter(cert), &end))
		end = 0;
	if (end < *until)
		*until = end;
}

/* Neither what the backend was shown nor what it has shown may be out of date by then. */
static time_t good_until(SSL *ssl, const struct cfg_profile *back, const struct forged *forged)
{
	STACK_OF(X509) *chain = SSL_get0_verified_chain(ssl);
	time_t until = time(NULL) + (time_t)back->ticket_lifetime;

	if (SSL_get_certificate(ssl))
		bound(&until, SSL_get_certificate(ssl));
	for (int i = 0; i < sk_X509_num(chain); i++)
		bound(&until, sk_X509_value(chain, i));
	return forged && forged->until < until ? forged->until : until;
}

/* RFC 8446 4.6.1: 0 is to be discarded at once; RFC 5077 5.6: the client may choose. */
static time_t lifetime(const SSL_SESSION *session)
{
	unsigned long hint = SSL_SESSION_get_ticket_lifetime_hint(session);

	if (SSL_SESSION_get_protocol_version(session) == TLS1_3_VERSION || hint)
		return (time_t)hint;
	return (time_t)SSL_SESSION_get_timeout(session);
}

static void store(struct reuse *r, struct session_cache *cache, struct stats *stats,
		  SSL_SESSION *session)
{
	struct session *s = TAKE_PTR(r->session);
	time_t now = time(NULL), end = now + lifetime(session);

	if (s->until > end)
		s->until = end;
	if (s->until > now && SSL_SESSION_is_resumable(session))
		s->der_len = i2d_SSL_SESSION(session, &s->der);
	if (!s->der) {
		session_free(s);
		return;
	}
	stat_inc(stats, backend_sessions);
	if (session_cache_put(cache, r->key, s))
		stat_inc(stats, backend_session_evictions);
}

bool reuse_keep(struct reuse *r, struct session_cache *cache, struct stats *stats,
		const struct cfg_profile *back, struct handshake *hs, const struct session *shown)
{
	/* Resuming makes nothing younger: what was resumed says how long it goes on. */
	if (!r->session) {
		r->session = malloc(sizeof(*r->session));
		if (!r->session)
			return false;
		*r->session = *shown;
		if (shown->forged)
			forged_ref(shown->forged);
		r->session->until = good_until(hs->ssl, back, shown->forged);
	}
	if (SSL_version(hs->ssl) == TLS1_3_VERSION) {
		r->hs = hs;
		return true;
	}
	/* Without it a session can be another's (RFC 7627). */
	if (SSL_get_extms_support(hs->ssl) == 1)
		store(r, cache, stats, SSL_get_session(hs->ssl));
	return false;
}

bool reuse_ticket(struct reuse *r, struct session_cache *cache, struct stats *stats,
		  const uint8_t *p, size_t n)
{
	SSL_SESSION *session = NULL;

	if (!p || handshake_ticket_received(r->hs, p, n, &session))
		return false;
	if (!session)
		return true;
	store(r, cache, stats, session);
	return false;
}
