/* SPDX-License-Identifier: Apache-2.0 */
/* Throw-away certificates, and real handshakes whose messages are kept, for unit tests. */
#ifndef KTLSGATE_UNIT_TLS_H
#define KTLSGATE_UNIT_TLS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include "tls/fresh_tls.h"

/* A test that cannot set up its own world has nothing to say. */
#define MUST(cond)                                                                                 \
	do {                                                                                       \
		if (!(cond)) {                                                                     \
			printf("%s:%d: cannot go on: %s\n", __FILE__, __LINE__, #cond);            \
			exit(2);                                                                   \
		}                                                                                  \
	} while (0)

struct party {
	EVP_PKEY *key;
	X509 *cert;
};

/* kind: "RSA", "RSA-PSS", "P-256", "P-384", "P-521", "ED25519", "ED448". */
static inline EVP_PKEY *unit_key(const char *kind)
{
	bool ec = strncmp(kind, "P-", 2) == 0;
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, ec ? "EC" : kind, NULL);
	EVP_PKEY *key = NULL;

	MUST(ctx && EVP_PKEY_keygen_init(ctx) == 1);
	MUST(!ec || EVP_PKEY_CTX_set_group_name(ctx, kind) == 1);
	EVP_PKEY_generate(ctx, &key);
	EVP_PKEY_CTX_free(ctx);
	MUST(key);
	return key;
}

static inline void unit_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
	X509_EXTENSION *ext;
	X509V3_CTX ctx;

	X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
	ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
	MUST(ext && X509_add_ext(cert, ext, -1));
	X509_EXTENSION_free(ext);
}

static inline void unit_sign(X509 *cert, EVP_PKEY *key)
{
	bool pure = EVP_PKEY_is_a(key, "ED25519") || EVP_PKEY_is_a(key, "ED448");

	MUST(X509_sign(cert, key, pure ? NULL : EVP_sha256()));
}

/* issuer NULL: a self-signed CA. The validity is from and to seconds from now. */
static inline struct party unit_party(const char *kind, const char *name,
				      const struct party *issuer, long from, long to)
{
	static long serial = 1;
	struct party p = {unit_key(kind), X509_new()};
	const struct party *by = issuer ? issuer : &p;
	X509_NAME *subject;

	MUST(p.cert);
	subject = X509_get_subject_name(p.cert);
	MUST(X509_set_version(p.cert, X509_VERSION_3));
	ASN1_INTEGER_set(X509_get_serialNumber(p.cert), ++serial);
	MUST(X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const uint8_t *)name, -1, -1,
					0));
	X509_set_issuer_name(p.cert, X509_get_subject_name(by->cert));
	X509_gmtime_adj(X509_getm_notBefore(p.cert), from);
	X509_gmtime_adj(X509_getm_notAfter(p.cert), to);
	X509_set_pubkey(p.cert, p.key);
	unit_extension(p.cert, by->cert, NID_basic_constraints,
		       issuer ? "critical,CA:FALSE" : "critical,CA:TRUE");
	unit_extension(p.cert, by->cert, NID_key_usage,
		       issuer ? "critical,digitalSignature" : "critical,keyCertSign,cRLSign");
	unit_extension(p.cert, by->cert, NID_subject_key_identifier, "hash");
	unit_extension(p.cert, by->cert, NID_authority_key_identifier, "keyid:always");
	if (issuer)
		unit_extension(p.cert, by->cert, NID_ext_key_usage, "clientAuth,serverAuth");
	unit_sign(p.cert, by->key);
	return p;
}

static inline void unit_party_free(struct party *p)
{
	EVP_PKEY_free(p->key);
	X509_free(p->cert);
}

/* Handshake messages as the server saw them, up to the client's CertificateVerify. */
struct transcript_copy {
	uint8_t bytes[131072];
	size_t len;
	size_t at[32]; /* where each message begins; at[n] == len */
	unsigned n;
	bool done;
};

struct handshake_case {
	int version;
	const struct party *server, *client; /* client NULL: sends no certificate */
	X509 *extra;			     /* sent after the client's certificate, extras times */
	unsigned extras;
	bool retry;			  /* make the server send a HelloRetryRequest */
	bool staple;			  /* the server sends an OCSP response */
	const char *client_sigalgs;	  /* what the server asks for; NULL: OpenSSL's list */
	SSL_SESSION **session;		  /* set: resumed; else where the new one goes */
	const struct fresh_source *fresh; /* NULL: the server shows no fresh value */
};

static inline void unit_message(int write_p, int version, int type, const void *buf, size_t len,
				SSL *ssl, void *arg)
{
	struct transcript_copy *t = arg;
	const uint8_t *p = buf;

	(void)version;
	(void)ssl;
	if (type != SSL3_RT_HANDSHAKE || t->done)
		return;
	MUST(t->len + len <= sizeof(t->bytes) && t->n + 1 < 32);
	memcpy(t->bytes + t->len, buf, len);
	t->len += len;
	t->at[++t->n] = t->len;
	t->done = !write_p && p[0] == SSL3_MT_CERTIFICATE_VERIFY;
}

static inline int unit_accept_any(X509_STORE_CTX *ctx, void *arg)
{
	(void)ctx;
	(void)arg;
	return 1;
}

static inline int unit_staple(SSL *ssl, void *arg)
{
	(void)arg;
	SSL_set_tlsext_status_ocsp_resp(ssl, OPENSSL_memdup("response", 8), 8);
	return SSL_TLSEXT_ERR_OK;
}

static inline SSL_CTX *unit_ctx(const struct handshake_case *c, bool server)
{
	SSL_CTX *ctx = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
	const struct party *p = server ? c->server : c->client;

	MUST(ctx && SSL_CTX_set_min_proto_version(ctx, c->version) &&
	     SSL_CTX_set_max_proto_version(ctx, c->version));
	SSL_CTX_set_security_level(ctx, 0); /* so that SHA-1 can be tried */
	SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
	SSL_CTX_set_cert_verify_callback(ctx, unit_accept_any, NULL);
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
	SSL_CTX_set_session_id_context(ctx, (const uint8_t *)"unit", 4);
	if (p)
		MUST(SSL_CTX_use_certificate(ctx, p->cert) && SSL_CTX_use_PrivateKey(ctx, p->key));
	for (unsigned i = 0; !server && i < c->extras; i++)
		MUST(SSL_CTX_add1_chain_cert(ctx, c->extra));
	if (c->retry)
		MUST(SSL_CTX_set1_groups_list(ctx, server ? "P-384" : "X25519:P-384"));
	if (server && c->staple)
		SSL_CTX_set_tlsext_status_cb(ctx, unit_staple);
	if (server && c->fresh)
		MUST(!fresh_tls_use(ctx, c->fresh));
	if (server && c->client_sigalgs)
		MUST(SSL_CTX_set1_client_sigalgs_list(ctx, c->client_sigalgs));
	return ctx;
}

/* Makes a handshake; the server accepts any certificate. */
static inline void unit_handshake(const struct handshake_case *c, struct transcript_copy *t)
{
	static SSL_CTX *last_server; /* holds the sessions that a later case resumes */
	SSL_CTX *cc = unit_ctx(c, false);
	SSL *client, *server;
	BIO *a, *b;
	char byte;
	bool resumed = c->session && *c->session;

	memset(t, 0, sizeof(*t));
	if (!resumed) {
		SSL_CTX_free(last_server);
		last_server = unit_ctx(c, true);
	}
	client = SSL_new(cc);
	server = SSL_new(last_server);
	MUST(client && server && BIO_new_bio_pair(&a, 1 << 18, &b, 1 << 18));
	SSL_set_bio(client, a, a);
	SSL_set_bio(server, b, b);
	SSL_set_connect_state(client);
	SSL_set_accept_state(server);
	SSL_set_msg_callback(server, unit_message);
	SSL_set_msg_callback_arg(server, t);
	if (c->staple)
		SSL_set_tlsext_status_type(client, TLSEXT_STATUSTYPE_ocsp);
	if (resumed)
		MUST(SSL_set_session(client, *c->session));
	for (int i = 0; i < 10; i++) {
		SSL_do_handshake(client);
		SSL_do_handshake(server);
	}
	MUST(SSL_is_init_finished(client) && SSL_is_init_finished(server));
	MUST(SSL_session_reused(server) == resumed);
	if (c->session && !resumed) {
		SSL_read(client, &byte, 1); /* takes the tickets */
		*c->session = SSL_get1_session(client);
	}
	/* A session is only resumable if it was shut down properly. */
	SSL_shutdown(client);
	SSL_shutdown(server);
	SSL_free(client);
	SSL_free(server);
	SSL_CTX_free(cc);
	if (!c->session) {
		SSL_CTX_free(last_server);
		last_server = NULL;
	}
}

#endif
