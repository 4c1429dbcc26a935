// SPDX-License-Identifier: Apache-2.0
/* Reads CertificateRequests. Knows no client and no flow. */
#include "forging/certreq.h"

#include <inttypes.h>
#include <pthread.h>
#include <string.h>
#include <openssl/ssl.h>
#include "pki/identity.h"

#define REMEMBER_MS 1000
#define NAMES_MAX   64 /* CA names that are remembered */

/* ---- which key ---- */

void certreq_read(SSL *ssl, struct certreq *out)
{
	int n = SSL_get_sigalgs(ssl, 0, NULL, NULL, NULL, NULL, NULL);
	const unsigned char *types = NULL;
	size_t n_types = 0;

	*out = (struct certreq){.version = SSL_version(ssl)};
	for (int i = 0; i < n && i < CERTREQ_SIGALGS_MAX; i++) {
		unsigned char sig, hash;

		SSL_get_sigalgs(ssl, i, NULL, NULL, NULL, &sig, &hash);
		out->sigalgs[out->n_sigalgs++] = (uint16_t)(hash << 8 | sig);
	}
	if (out->version == TLS1_2_VERSION)
		n_types = SSL_get0_certificate_types(ssl, &types);
	for (size_t i = 0; i < n_types && i < CERTREQ_TYPES_MAX; i++)
		out->types[out->n_types++] = types[i];
}

static bool has_type(const struct certreq *r, uint8_t type)
{
	return memchr(r->types, type, r->n_types);
}

static bool has_sigalg(const struct certreq *r, uint16_t wanted)
{
	for (unsigned i = 0; i < r->n_sigalgs; i++) {
		if (r->sigalgs[i] == wanted)
			return true;
	}
	return false;
}

static bool accepts_p256(const struct certreq *r)
{
	if (r->version == TLS1_2_VERSION && !has_type(r, TLS_CT_ECDSA_SIGN))
		return false;
	return has_sigalg(r, 0x0403); /* ecdsa_secp256r1_sha256 */
}

/* RSA PKCS#1 only in TLS 1.2: RFC 8446 section 4.2.3. */
static bool accepts_rsa(const struct certreq *r)
{
	static const uint16_t pss[] = {0x0804, 0x0805, 0x0806}, pkcs1[] = {0x0401, 0x0501, 0x0601};
	bool tls12 = r->version == TLS1_2_VERSION;

	if (tls12 && !has_type(r, TLS_CT_RSA_SIGN))
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(pss); i++) {
		if (has_sigalg(r, pss[i]) || (tls12 && has_sigalg(r, pkcs1[i])))
			return true;
	}
	return false;
}

enum key_type certreq_key_type(const struct certreq *r, enum cfg_forge_key wanted)
{
	if (wanted != FORGE_KEY_RSA2048 && accepts_p256(r))
		return KEY_P256;
	if (wanted != FORGE_KEY_P256 && accepts_rsa(r))
		return KEY_RSA2048;
	return KEY_TYPES;
}

bool certreq_accepts(const struct certreq *r, EVP_PKEY *key)
{
	return EVP_PKEY_is_a(key, "RSA") ? accepts_rsa(r) : accepts_p256(r);
}

/* ---- which CA ---- */

static bool names_hold(const STACK_OF(X509_NAME) * names, const X509_NAME *name)
{
	for (int i = 0; i < sk_X509_NAME_num(names); i++) {
		if (!X509_NAME_cmp(sk_X509_NAME_value(names, i), name))
			return true;
	}
	return false;
}

/* What is sent below that name would be found by a path from it (RFC 8446 section 4.2.4). */
static bool names_cert(const STACK_OF(X509_NAME) * names, X509 *cert)
{
	return names_hold(names, X509_get_subject_name(cert)) ||
	       names_hold(names, X509_get_issuer_name(cert));
}

static bool names_ca(const STACK_OF(X509_NAME) * names, const struct cfg_certkey *ca)
{
	bool named = names_cert(names, ca->cert);

	for (int i = 0; !named && i < sk_X509_num(ca->chain); i++)
		named = names_cert(names, sk_X509_value(ca->chain, i));
	return named;
}

int certreq_choose_ca(SSL *ssl, const struct cfg_list *cas)
{
	const STACK_OF(X509_NAME) *names = SSL_get0_peer_CA_list(ssl);

	if (sk_X509_NAME_num(names) <= 0)
		return 0;
	for (unsigned i = 0; i < cas->n; i++) {
		if (names_ca(names, cas->items[i]))
			return (int)i;
	}
	return -1;
}

/* ---- the last one of each service ---- */

struct request {
	uint64_t at_ms; /* 0: there was none */
	struct certreq said;
	int n_names; /* all, even those not kept */
	char *names; /* lines */
};

struct certreq_memory {
	pthread_mutex_t lock;
	unsigned n;
	struct request *requests; /* by service index */
};

struct certreq_memory *certreq_memory_new(const struct config *cfg)
{
	struct certreq_memory *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->n = cfg->n_services;
	m->requests = calloc(m->n + 1, sizeof(*m->requests));
	if (!m->requests) {
		free(m);
		return NULL;
	}
	pthread_mutex_init(&m->lock, NULL);
	return m;
}

void certreq_memory_free(struct certreq_memory *m)
{
	if (!m)
		return;
	for (unsigned i = 0; i < m->n; i++)
		free(m->requests[i].names);
	pthread_mutex_destroy(&m->lock);
	free(m->requests);
	free(m);
}

static char *names_text(const STACK_OF(X509_NAME) * names)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	if (!f)
		return NULL;
	for (int i = 0; i < sk_X509_NAME_num(names) && i < NAMES_MAX; i++) {
		char name[256];

		identity_subject(sk_X509_NAME_value(names, i), name, sizeof(name));
		fprintf(f, "ca_name=%s\n", name);
	}
	if (!fclose(f))
		return text;
	free(text);
	return NULL;
}

static void remember(struct request *r, SSL *ssl, uint64_t now_ms)
{
	const STACK_OF(X509_NAME) *names = SSL_get0_peer_CA_list(ssl);

	r->at_ms = now_ms;
	certreq_read(ssl, &r->said);
	r->n_names = sk_X509_NAME_num(names);
	free(r->names);
	r->names = names_text(names);
}

void certreq_remember(struct certreq_memory *m, const struct cfg_service *service, SSL *ssl,
		      uint64_t now_ms)
{
	struct request *r = &m->requests[service->index];

	/* Whoever holds the lock remembers another one, as good. */
	if (pthread_mutex_trylock(&m->lock))
		return;
	if (!r->at_ms || now_ms - r->at_ms >= REMEMBER_MS)
		remember(r, ssl, now_ms);
	pthread_mutex_unlock(&m->lock);
}

void certreq_write(struct certreq_memory *m, const struct cfg_service *service, uint64_t now_ms,
		   FILE *out)
{
	struct request *r = &m->requests[service->index];

	pthread_mutex_lock(&m->lock);
	if (!r->at_ms) {
		fputs("none\n", out);
		pthread_mutex_unlock(&m->lock);
		return;
	}
	fprintf(out, "age_ms=%" PRIu64 "\nversion=%s\nsigalgs=", now_ms - r->at_ms,
		r->said.version == TLS1_2_VERSION ? "TLSv1.2" : "TLSv1.3");
	for (unsigned i = 0; i < r->said.n_sigalgs; i++)
		fprintf(out, "%s%04x", i ? " " : "", r->said.sigalgs[i]);
	fputs("\nkey_types=", out);
	for (unsigned i = 0; i < r->said.n_types; i++)
		fprintf(out, "%s%u", i ? " " : "", r->said.types[i]);
	fprintf(out, "\nca_names=%d\n%s", r->n_names < 0 ? 0 : r->n_names,
		r->names ? r->names : "");
	pthread_mutex_unlock(&m->lock);
}
