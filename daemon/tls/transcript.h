/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Proof of possession from handshake messages: the signer's check that a client
 * really authenticated to one of our vservers. Pure.
 */
#ifndef KTLSGATE_TRANSCRIPT_H
#define KTLSGATE_TRANSCRIPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "tls/fresh.h"
#include "base/scoped.h"

#define TRANSCRIPT_MAX	      65536
#define TRANSCRIPT_DIGEST_LEN 32
#define TRANSCRIPT_SERVER_LEN 32 /* SHA-256 of a server certificate's DER */

enum transcript_error {
	TRANSCRIPT_OK,
	TRANSCRIPT_MALFORMED,	   /* not ClientHello .. CertificateVerify in a legal order */
	TRANSCRIPT_NOT_OUR_SERVER, /* the server's leaf is none of those expected */
	TRANSCRIPT_NO_CERTIFICATE, /* the client sent none */
	TRANSCRIPT_BAD_SIGNATURE,  /* CertificateVerify does not verify */
	TRANSCRIPT_TOO_MUCH,	   /* more certificates than verify.h takes, or too long ones */
	TRANSCRIPT_WEAK,	   /* signature scheme we do not accept (SHA-1, MD5, unknown) */
	TRANSCRIPT_MEMORY,
	TRANSCRIPT_ERRORS
};
const char *transcript_error_text(enum transcript_error e);

/* For SSL_CTX_set1_client_sigalgs_list(): what is asked for must be what is accepted here. */
extern const char transcript_sigalgs[];

/*
 * messages: the handshake messages as SSL_CTX_set_msg_callback() shows them
 * (4-byte headers included, no record headers), from ClientHello (the first
 * one, and the HelloRetryRequest after it, if there was one) up to and
 * including the client's CertificateVerify. TLS version and hash are read from
 * the ServerHello in it. servers[0..n): the leaf certificates that the vserver may
 * present, as SHA-256 of their DER.
 *
 * TRANSCRIPT_OK: the signature verifies over exactly these messages under the
 * key of *leaf; *leaf and *untrusted (the rest of the client's Certificate
 * message, never NULL) are then owned by the caller, and fresh is what the client
 * signed in the place of a fresh value: see fresh.h. All zero: nothing is there.
 * Nothing is said about the chain (see verify.h), nor about fresh.
 */
enum transcript_error transcript_verify(const uint8_t *messages, size_t len,
					const uint8_t (*servers)[TRANSCRIPT_SERVER_LEN], size_t n,
					X509 **leaf, STACK_OF(X509) * *untrusted,
					uint8_t fresh[FRESH_LEN]) must_check;

/*
 * SHA-256 over what the client signed: everything before the last message. The
 * same for every signature over it, since an ECDSA signature (r, s) has a twin
 * (r, -s) that anyone can compute: it names a handshake where replays matter.
 * False if messages are not whole handshake messages.
 */
bool transcript_digest(const uint8_t *messages, size_t len,
		       uint8_t out[TRANSCRIPT_DIGEST_LEN]) must_check;

#endif
