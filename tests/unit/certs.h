/* SPDX-License-Identifier: Apache-2.0 */
/* Certificates for unit tests, made on the spot. Aborts when OpenSSL fails: no test of ours. */
#ifndef KTLSGATE_UNIT_CERTS_H
#define KTLSGATE_UNIT_CERTS_H

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <openssl/ec.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>

#define NOW	1800000000L /* 2027-01-15 */
#define HOUR	3600L
#define DAY	86400L
#define ANY_EXT 16

#define NEED(cond)                                                                                 \
	do {                                                                                       \
		if (!(cond)) {                                                                     \
			printf("%s:%d: cannot make it: %s\n", __FILE__, __LINE__, #cond);          \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

struct ext {
	int nid;	   /* 0 ends the list */
	const char *value; /* as in openssl.cnf */
};

struct cert_spec {
	const char *cn;		      /* "": empty subject; NULL: "Alice" */
	X509 *issuer;		      /* NULL: self-signed */
	EVP_PKEY *key, *issuer_key;   /* issuer_key NULL: key */
	time_t not_before, not_after; /* 0: NOW - 30 days, NOW + 30 days */
	const EVP_MD *md;	      /* NULL: SHA-256 */
	struct ext ext[ANY_EXT];
};

static inline X509 *make_cert(const struct cert_spec *s)
{
	static long serial = 1;
	const char *cn = s->cn ? s->cn : "Alice";
	X509 *cert = X509_new();
	X509_NAME *name = X509_NAME_new();
	X509V3_CTX ctx;

	NEED(cert && name);
	if (*cn)
		NEED(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8,
						(const unsigned char *)cn, -1, -1, 0));
	NEED(X509_set_version(cert, X509_VERSION_3));
	NEED(ASN1_INTEGER_set(X509_get_serialNumber(cert), serial++));
	NEED(X509_set_subject_name(cert, name));
	NEED(X509_set_issuer_name(cert, s->issuer ? X509_get_subject_name(s->issuer) : name));
	NEED(ASN1_TIME_set(X509_getm_notBefore(cert),
			   s->not_before ? s->not_before : NOW - 30 * DAY));
	NEED(ASN1_TIME_set(X509_getm_notAfter(cert), s->not_after ? s->not_after : NOW + 30 * DAY));
	NEED(X509_set_pubkey(cert, s->key));
	X509V3_set_ctx(&ctx, s->issuer ? s->issuer : cert, cert, NULL, NULL, 0);
	for (const struct ext *e = s->ext; e->nid; e++) {
		X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, &ctx, e->nid, e->value);

		NEED(ext && X509_add_ext(cert, ext, -1));
		X509_EXTENSION_free(ext);
	}
	NEED(X509_sign(cert, s->issuer_key ? s->issuer_key : s->key, s->md ? s->md : EVP_sha256()));
	X509_NAME_free(name);
	return cert;
}

/* What a CA's and a client's certificate ordinarily hold. */
#define CA_EXT                                                                                     \
	{NID_basic_constraints, "critical,CA:TRUE"}, {NID_key_usage, "critical,keyCertSign"},      \
	{                                                                                          \
		NID_subject_key_identifier, "hash"                                                 \
	}
#define ISSUED_EXT                                                                                 \
	{NID_subject_key_identifier, "hash"},                                                      \
	{                                                                                          \
		NID_authority_key_identifier, "keyid:always"                                       \
	}
#define CLIENT_EXT                                                                                 \
	ISSUED_EXT, {NID_basic_constraints, "critical,CA:FALSE"},                                  \
	{                                                                                          \
		NID_key_usage, "critical,digitalSignature"                                         \
	}
#define CLIENT_AUTH                                                                                \
	{                                                                                          \
		NID_ext_key_usage, "clientAuth"                                                    \
	}

/* A client root, an intermediate below it, and a P-256 key for each party. */
struct pki {
	EVP_PKEY *root_key, *ca_key, *client_key;
	X509 *root, *ca;
};

static inline void pki_init(struct pki *p)
{
	NEED(p->root_key = EVP_EC_gen("P-256"));
	NEED(p->ca_key = EVP_EC_gen("P-256"));
	NEED(p->client_key = EVP_EC_gen("P-256"));
	p->root = make_cert(&(struct cert_spec){
		.cn = "Root", .key = p->root_key, .not_after = NOW + 1000 * DAY, .ext = {CA_EXT}});
	p->ca = make_cert(&(struct cert_spec){
		.cn = "Client CA",
		.key = p->ca_key,
		.issuer = p->root,
		.issuer_key = p->root_key,
		.not_after = NOW + 20 * DAY,
		.ext = {CA_EXT, {NID_authority_key_identifier, "keyid:always"}}});
}

static inline void pki_free(struct pki *p)
{
	X509_free(p->root);
	X509_free(p->ca);
	EVP_PKEY_free(p->root_key);
	EVP_PKEY_free(p->ca_key);
	EVP_PKEY_free(p->client_key);
}

/* Fills in issuer and key where the spec leaves them out: a client below p->ca. */
static inline X509 *make_client(const struct pki *p, struct cert_spec s)
{
	if (!s.key)
		s.key = p->client_key;
	if (!s.issuer)
		s.issuer = p->ca;
	if (!s.issuer_key)
		s.issuer_key = p->ca_key;
	return make_cert(&s);
}

#endif
