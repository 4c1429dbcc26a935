/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who the client is: what a verified chain says, in the form the rest needs.
 */
#ifndef KTLSGATE_IDENTITY_H
#define KTLSGATE_IDENTITY_H

#include <stdint.h>
#include <time.h>
#include <openssl/x509.h>
#include "base/scoped.h"

#define FINGERPRINT_LEN 32 /* SHA-256 of the certificate's DER */

struct identity {
	uint8_t fingerprint[FINGERPRINT_LEN];
	X509 *leaf;		/* borrowed from chain */
	STACK_OF(X509) * chain; /* verified: leaf first, anchor last; owned */
	time_t not_before;	/* latest of the leaf alone */
	time_t not_after;	/* earliest of the whole verified chain (rule 5) */
	char subject[256];	/* RFC 2253 text, cut, printable ASCII; for logs and flows only */
};

/* Takes ownership of chain on success. NULL when out of memory or on an unparsable date. */
struct identity *identity_new(STACK_OF(X509) * chain) must_check;
void identity_free(struct identity *id);
SCOPED_DEFINE(identity, struct identity, identity_free)
#define scoped_identity __attribute__((cleanup(scoped_identity_free_))) struct identity

/* ASN.1 time to seconds since the epoch. Returns 0 or -EINVAL. */
int identity_time(const ASN1_TIME *t, time_t *out) must_check;

/* SHA-256 over the DER of cert. Returns 0 or -ENOMEM. */
int identity_fingerprint(X509 *cert, uint8_t out[FINGERPRINT_LEN]) must_check;

/* SHA-256 over the fingerprints of the whole chain, anchor included. Returns 0 or -ENOMEM. */
int identity_chain_digest(const struct identity *id, uint8_t out[FINGERPRINT_LEN]) must_check;

/* "ab12..." lower-case hex; out holds 2 * n + 1 bytes. */
void identity_hex(const uint8_t *in, size_t n, char *out);

/* The subject as RFC 2253 text, cut to len, control and non-ASCII bytes escaped. */
void identity_subject(const X509_NAME *name, char *out, size_t len);

#endif
