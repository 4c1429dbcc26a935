/* SPDX-License-Identifier: Apache-2.0 */
/* Server-side SSL_CTXs of a vserver and the verification of clients. Knows no backend. */
#include <errno.h>
#include <string.h>
#include <time.h>
#include "flow/client.h"
#include "base/log.h"
#include "tls/transcript.h"
#include "pki/verify.h"

/* The same verification as in the signer; OpenSSL chooses the alert, from the error set here. */
static int verify_cb(X509_STORE_CTX *ctx, void *arg)
{
	struct front *front = arg;
	struct verify_result result;
	int ret = verify_chain(front->verifier, VERIFY_CLIENT, X509_STORE_CTX_get0_cert(ctx),
			       X509_STORE_CTX_get0_untrusted(ctx), time(NULL), &result);

	handshake_verdict(ctx, &result);
	if (ret)
		return 0;
	X509_STORE_CTX_set0_verified_chain(ctx, result.chain);
	return 1;
}

/* RFC 8446 4.2.4, 4.3.2: the names help a client with several certificates to choose. */
static int announce_ca_names(SSL_CTX *ctx, const STACK_OF(X509) * anchors)
{
	for (int i = 0; i < sk_X509_num(anchors); i++) {
		if (!SSL_CTX_add_client_CA(ctx, sk_X509_value(anchors, i)))
			return -ENOMEM;
	}
	return 0;
}

static int require_client_cert(struct front *front, SSL_CTX *ctx, const struct cfg_profile *profile)
{
	int mode = SSL_VERIFY_PEER;

	if (profile->client_auth == CLIENT_AUTH_OFF)
		return 0;
	if (profile->client_auth == CLIENT_AUTH_MANDATORY)
		mode |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
	if (!SSL_CTX_set1_client_sigalgs_list(ctx, transcript_sigalgs))
		return -ENOMEM;
	if (front->forges && fresh_tls_use(ctx, &front->fresh))
		return -ENOMEM;
	SSL_CTX_set_verify(ctx, mode, NULL);
	SSL_CTX_set_cert_verify_callback(ctx, verify_cb, front);
	return profile->announce_ca_names ? announce_ca_names(ctx, profile->client_ca) : 0;
}

static const struct cfg_certkey *certkey_of(const struct front *front, unsigned i)
{
	return front->vserver->certkeys.items[i];
}

/* Which names lead to which certificates; a certkey that none leads to is a mistake. */
static int read_names(struct front *front)
{
	unsigned n = front->vserver->certkeys.n;
	scoped_mem X509 **certs = calloc(n, sizeof(X509 *));
	scoped_mem bool *used = calloc(n, sizeof(*used));

	if (!certs || !used)
		return -ENOMEM;
	for (unsigned i = 0; i < n; i++)
		certs[i] = certkey_of(front, i)->cert;
	front->sni = sni_table_new(certs, n, used);
	if (!front->sni)
		return -ENOMEM;
	for (unsigned i = 0; i < n; i++) {
		if (!used[i])
			log_warn("vserver %s: certkey %s is never shown: no name in its SAN, or an "
				 "earlier certkey has them all and a key of the same type",
				 front->vserver->name, certkey_of(front, i)->name);
	}
	return 0;
}

static int use_certkeys(const struct front *front, SSL_CTX *ctx, const struct sni_group *group)
{
	char err[256];

	for (unsigned i = 0; i < group->n; i++) {
		const struct cfg_certkey *ck = certkey_of(front, group->certs[i]);

		if (SSL_CTX_use_cert_and_key(ctx, ck->cert, ck->pkey, ck->chain, 1) == 1)
			continue;
		log_error("vserver %s: certkey %s: %s", front->vserver->name, ck->name,
			  log_openssl(err, sizeof(err)));
		return -EINVAL;
	}
	return 0;
}

/* RFC 6066 section 8. One that is out of date would only make clients refuse us: without is better.
 */
static int staple_cb(SSL *ssl, void *arg)
{
	const struct front *front = arg;
	const X509 *shown = SSL_get_certificate(ssl);
	const struct cfg_certkey *ck = NULL;
	unsigned i;
	void *copy;

	for (i = 0; i < front->vserver->certkeys.n; i++) {
		ck = certkey_of(front, i);
		if (ck->cert == shown)
			break;
	}
	if (i == front->vserver->certkeys.n || !ck->staple.der)
		return SSL_TLSEXT_ERR_NOACK;
	if (ck->staple.expires && ck->staple.expires <= time(NULL)) {
		if (!atomic_exchange(&front->stale[i], true))
			log_warn("vserver %s: certkey %s: the OCSP response is out of date, and no "
				 "longer sent",
				 front->vserver->name, ck->name);
		return SSL_TLSEXT_ERR_NOACK;
	}
	copy = OPENSSL_memdup(ck->staple.der, ck->staple.len);
	if (!copy)
		return SSL_TLSEXT_ERR_NOACK;
	SSL_set_tlsext_status_ocsp_resp(ssl, copy, (long)ck->staple.len);
	return SSL_TLSEXT_ERR_OK;
}

/* ---- session tickets ---- */

static const struct front *front_of(const SSL *ssl)
{
	return SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
}

static int key_cb(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
		  EVP_MAC_CTX *mac, int encrypt)
{
	return ticket_key_cb(front_of(ssl)->tickets, name, iv, cipher, mac, encrypt);
}

/* Without data a ticket of TLS 1.2, which the handshake has promised, is worth nothing. */
static int ticket_made_cb(SSL *ssl, void *arg)
{
	const struct handshake *hs = SSL_get_app_data(ssl);
	SSL_SESSION *session = SSL_get_session(ssl);

	(void)arg;
	if (!hs->ticket_data_len)
		return 1;
	SSL_SESSION_set_timeout(session, hs->ticket_end - time(NULL));
	return SSL_SESSION_set1_ticket_appdata(session, hs->ticket_data, hs->ticket_data_len);
}

/*
 * Whom a session is of is looked at now as at the first time: dates, trust,
 * revocation. If that fails, the full handshake will say why.
 */
static bool still_good(const struct front *front, struct handshake *hs, SSL_SESSION *session)
{
	X509 *leaf = SSL_SESSION_get0_peer(session);
	scoped_certs *rest = NULL;
	struct verify_result verdict;
	const uint8_t *token = NULL;
	time_t now = time(NULL);
	void *data;
	size_t len;

	sk_X509_pop_free(TAKE_PTR(hs->resumed_chain), X509_free);
	if (!SSL_SESSION_get0_ticket_appdata(session, &data, &len) ||
	    !ticket_read(data, len, &token, &rest))
		return false;
	if (!leaf)
		return front->vserver->profile->client_auth != CLIENT_AUTH_MANDATORY;
	if (!front->verifier || (front->forges && (!token || token_end(token) <= now)))
		return false;
	if (verify_chain(front->verifier, VERIFY_CLIENT, leaf, rest, now, &verdict))
		return false;
	hs->resumed_chain = verdict.chain;
	if (token)
		memcpy(hs->resumed_token, token, TOKEN_LEN);
	return true;
}

static SSL_TICKET_RETURN ticket_seen_cb(SSL *ssl, SSL_SESSION *session, const unsigned char *name,
					size_t name_len, SSL_TICKET_STATUS status, void *arg)
{
	struct handshake *hs = SSL_get_app_data(ssl);

	(void)name;
	(void)name_len;
	if ((status == SSL_TICKET_SUCCESS || status == SSL_TICKET_SUCCESS_RENEW) &&
	    still_good(arg, hs, session))
		return SSL_TICKET_RETURN_USE;
	return SSL_TICKET_RETURN_IGNORE_RENEW;
}

/* One vserver's sessions are not another's, nor those of another policy. */
static int set_session_context(const struct front *front, SSL_CTX *ctx)
{
	const struct cfg_vserver *v = front->vserver;
	char text[2 * 64 + 16];
	uint8_t digest[32];

	snprintf(text, sizeof(text), "%s/%s/%u", v->name, v->profile->name,
		 (unsigned)v->profile->client_auth);
	return EVP_Digest(text, strlen(text), digest, NULL, EVP_sha256(), NULL) == 1 &&
			       SSL_CTX_set_session_id_context(ctx, digest, sizeof(digest)) == 1
		       ? 0
		       : -ENOMEM;
}

static int use_tickets(struct front *front, SSL_CTX *ctx)
{
	if (!front->tickets)
		return 0;
	SSL_CTX_clear_options(ctx, SSL_OP_NO_TICKET);
	SSL_CTX_set_app_data(ctx, front);
	SSL_CTX_set_timeout(ctx, (long)front->vserver->profile->ticket_lifetime);
	if (!SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, key_cb) ||
	    !SSL_CTX_set_session_ticket_cb(ctx, ticket_made_cb, ticket_seen_cb, front))
		return -ENOMEM;
	return set_session_context(front, ctx);
}

bool front_ticket(const struct front *front, struct handshake *hs, const STACK_OF(X509) * chain,
		  const uint8_t *token)
{
	time_t now = time(NULL);

	if (!front->tickets || hs->ticket_data || (chain && front->forges && !token))
		return false;
	/* Without it a session of TLS 1.2 can be another's (RFC 7627). */
	if (SSL_version(hs->ssl) == TLS1_2_VERSION && !hs->extended_master_secret)
		return false;
	hs->ticket_end =
		token ? token_end(token) : now + (time_t)front->vserver->profile->ticket_lifetime;
	if (hs->ticket_end <= now)
		return false;
	hs->ticket_data_len = ticket_write(chain, token, &hs->ticket_data);
	return hs->ticket_data_len;
}

/* ---- contexts ---- */

static int make_ctx(struct front *front, unsigned group)
{
	SSL_CTX *ctx = front->ctxs[group] = handshake_ctx_new(true, front->vserver->profile);
	int ret;

	if (!ctx)
		return -ENOMEM;
	SSL_CTX_set_tlsext_status_cb(ctx, staple_cb);
	SSL_CTX_set_tlsext_status_arg(ctx, front);
	ret = use_certkeys(front, ctx, sni_group(front->sni, group));
	if (!ret)
		ret = use_tickets(front, ctx);
	return ret ? ret : require_client_cert(front, ctx, front->vserver->profile);
}

static int make_ctxs(struct front *front)
{
	unsigned n = sni_groups(front->sni);
	int ret = 0;

	front->ctxs = calloc(n, sizeof(*front->ctxs));
	if (!front->ctxs)
		return -ENOMEM;
	for (unsigned i = 0; i < n && !ret; i++)
		ret = make_ctx(front, i);
	return ret;
}

int front_init(struct front *front, const struct cfg_vserver *vserver, const struct fresh *fresh)
{
	const struct cfg_profile *profile = vserver->profile;
	int ret;

	front->vserver = vserver;
	front->stale = calloc(vserver->certkeys.n, sizeof(*front->stale));
	if (!front->stale)
		return -ENOMEM;
	if (profile->client_auth != CLIENT_AUTH_OFF) {
		struct verify_policy policy = config_policy(profile, &profile->client_revocation);

		front->verifier = verifier_new(profile->client_ca, &policy);
		if (!front->verifier)
			return -ENOMEM;
	}
	front->forges = cfg_service_at(vserver, 0)->profile->dynamic_client_cert;
	front->fresh = (struct fresh_source){fresh, vserver->index};
	if (profile->session_tickets) {
		front->tickets = ticket_keys_new(profile->ticket_lifetime);
		if (!front->tickets)
			return -ENOMEM;
	}
	ret = read_names(front);
	if (!ret)
		ret = make_ctxs(front);
	if (ret == -ENOMEM)
		log_error("vserver %s: out of memory", vserver->name);
	return ret;
}

void front_free(struct front *front)
{
	for (unsigned i = 0; front->ctxs && i < sni_groups(front->sni); i++)
		SSL_CTX_free(front->ctxs[i]);
	free(front->ctxs);
	free(front->stale);
	ticket_keys_free(front->tickets);
	sni_table_free(front->sni);
	verifier_free(front->verifier);
	*front = (struct front){0};
}

/* ---- the ClientHello ---- */

_Static_assert(sizeof(((struct handshake *)0)->server_name) == SNI_NAME_MAX + 1, "server_name");

/* False: the name is none of ours, and that is not allowed. */
static bool choose_certificates(const struct front *front, struct handshake *hs, int *alert)
{
	const unsigned char *ext;
	int group = -1;
	size_t len;

	if (SSL_client_hello_get0_ext(hs->ssl, TLSEXT_TYPE_server_name, &ext, &len) &&
	    sni_read(ext, len, hs->server_name))
		group = sni_find(front->sni, hs->server_name);
	if (group < 0 && !front->vserver->allow_unknown_sni) {
		hs->refused = HANDSHAKE_SERVER_NAME;
		snprintf(hs->detail, sizeof(hs->detail), "%s",
			 hs->server_name[0] ? hs->server_name : "none that is a name");
		*alert = ALERT_UNRECOGNIZED_NAME;
		return false;
	}
	/* Of the connection it keeps what is no certificate: the memory BIOs, our callbacks. */
	if (group > 0)
		SSL_set_SSL_CTX(hs->ssl, front->ctxs[group]);
	return true;
}

static bool offered(const struct handshake *hs, const uint8_t **list, size_t *len)
{
	const unsigned char *ext;
	size_t ext_len;

	return SSL_client_hello_get0_ext(hs->ssl,
					 TLSEXT_TYPE_application_layer_protocol_negotiation, &ext,
					 &ext_len) &&
	       alpn_read(ext, ext_len, list, len);
}

static int choose_protocol(const struct cfg_alpn *alpn, struct handshake *hs, int *alert)
{
	const uint8_t *list;
	size_t len;

	if (hs->alpn_known || (!alpn->mirror && !alpn->list) || !offered(hs, &list, &len))
		return SSL_CLIENT_HELLO_SUCCESS;
	if (alpn->mirror)
		return SSL_CLIENT_HELLO_RETRY;
	if (alpn_choose(alpn->list, alpn->len, list, len, &hs->alpn))
		return SSL_CLIENT_HELLO_SUCCESS;
	/* RFC 7301 section 3.2 */
	hs->refused = HANDSHAKE_ALPN;
	alpn_text(list, len, hs->detail, sizeof(hs->detail));
	*alert = ALERT_NO_APPLICATION_PROTOCOL;
	return SSL_CLIENT_HELLO_ERROR;
}

int front_hello(const struct front *front, struct handshake *hs, int *alert)
{
	const unsigned char *ext;
	size_t len;

	hs->extended_master_secret =
		SSL_client_hello_get0_ext(hs->ssl, TLSEXT_TYPE_extended_master_secret, &ext, &len);
	if (!choose_certificates(front, hs, alert))
		return SSL_CLIENT_HELLO_ERROR;
	return choose_protocol(&front->vserver->profile->alpn, hs, alert);
}

void front_offer(const struct handshake *hs, const uint8_t **list, size_t *len)
{
	*list = hs->alpn.entry;
	*len = alpn_len(&hs->alpn) ? 1 + alpn_len(&hs->alpn) : 0;
	if (!*len && hs->suspended && !offered(hs, list, len))
		*len = 0;
}

void front_choose(struct handshake *hs, const uint8_t *name, size_t len)
{
	alpn_set(&hs->alpn, name, len);
	hs->alpn_known = true;
	handshake_resume(hs);
}

/* ---- failure ---- */

static enum reason verify_reason(int error)
{
	switch (error) {
	case X509_V_ERR_CERT_HAS_EXPIRED:
		return REASON_client_cert_expired;
	case X509_V_ERR_CERT_NOT_YET_VALID:
		return REASON_client_cert_not_yet_valid;
	case X509_V_ERR_INVALID_PURPOSE:
		return REASON_client_cert_purpose;
	case X509_V_ERR_CERT_REVOKED:
		return REASON_client_cert_revoked;
	case VERIFY_ERR_CRL_MISSING:
	case VERIFY_ERR_CRL_INVALID:
		return REASON_client_crl_missing;
	case VERIFY_ERR_CRL_EXPIRED:
		return REASON_client_crl_expired;
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
	case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
	case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
	case X509_V_ERR_CERT_UNTRUSTED:
		return REASON_client_cert_untrusted;
	default:
		return REASON_client_cert_invalid;
	}
}

enum reason client_failure(const struct handshake *hs)
{
	switch (hs->failure) {
	case HANDSHAKE_EOF:
	case HANDSHAKE_RESET:
		return REASON_client_gone;
	case HANDSHAKE_NOT_TLS:
		return REASON_client_not_tls;
	case HANDSHAKE_PEER_ALERT:
		return REASON_client_refused;
	case HANDSHAKE_VERIFY:
		return verify_reason(hs->error);
	case HANDSHAKE_NO_CERTIFICATE:
		return REASON_client_cert_required;
	case HANDSHAKE_SERVER_NAME:
		return REASON_client_server_name;
	case HANDSHAKE_ALPN:
		return REASON_client_alpn;
	case HANDSHAKE_VERSION:
		return REASON_client_version;
	case HANDSHAKE_CIPHER:
		return REASON_client_cipher;
	case HANDSHAKE_SIGNATURE:
		return REASON_client_cert_proof;
	case HANDSHAKE_LOOP:
		return REASON_loop;
	case HANDSHAKE_TOO_LONG:
		return REASON_client_handshake_size;
	case HANDSHAKE_NO_MEMORY:
		return REASON_no_memory;
	default:
		return REASON_client_protocol;
	}
}
