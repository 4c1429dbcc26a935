/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a backend's CertificateRequest asks for: the kinds of keys it accepts and
 * the CAs it names (RFC 8446 section 4.3.2, RFC 5246 section 7.4.4), and the
 * last one of each service, for people. All of it while the handshake is
 * suspended in the certificate callback.
 */
#ifndef KTLSGATE_CERTREQ_H
#define KTLSGATE_CERTREQ_H

#include "config/config.h"
#include "forging/keymaker.h"

#define CERTREQ_SIGALGS_MAX 64
#define CERTREQ_TYPES_MAX   16

/* All of a request but the CA names. */
struct certreq {
	int version;
	unsigned n_sigalgs, n_types;
	uint16_t sigalgs[CERTREQ_SIGALGS_MAX]; /* RFC 8446 section 4.2.3 */
	uint8_t types[CERTREQ_TYPES_MAX];      /* TLS 1.2: RFC 5246 section 7.4.4 */
};

struct certreq_memory;

void certreq_read(SSL *ssl, struct certreq *out);

/*
 * The kind of key to forge with: the first of what is wanted that the backend
 * accepts. If there is none, OpenSSL would send an empty Certificate without a
 * word; then KEY_TYPES. Pure.
 */
enum key_type certreq_key_type(const struct certreq *r, enum cfg_forge_key wanted);

/* Does the backend accept a certificate with this key, RSA or P-256? */
bool certreq_accepts(const struct certreq *r, EVP_PKEY *key);

/*
 * The first of the CAs (struct cfg_certkey) that the backend names, itself or a
 * CA above it in its file or above that; 0 if the backend names none at all, -1
 * if it names others only.
 */
int certreq_choose_ca(SSL *ssl, const struct cfg_list *cas);

/* The last request of each service. NULL: out of memory. */
struct certreq_memory *certreq_memory_new(const struct config *cfg) must_check;
void certreq_memory_free(struct certreq_memory *m); /* NULL-safe */

/* Remembers ssl's; at most once in a second for each service, and without waiting. Thread-safe. */
void certreq_remember(struct certreq_memory *m, const struct cfg_service *service, SSL *ssl,
		      uint64_t now_ms);

/*
 * "name=value" lines about the service's last request: age_ms, version, sigalgs
 * (as in the TLS registry), key_types (TLS 1.2), and one ca_name per name, RFC 2253.
 * Nothing but "none" if there was none.
 */
void certreq_write(struct certreq_memory *m, const struct cfg_service *service, uint64_t now_ms,
		   FILE *out);

#endif
