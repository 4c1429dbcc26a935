/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Forging: a verified client chain and a forging CA in, a new certificate out.
 * Pure: no I/O, no clock, no configuration lookup. The rules (forge_rules.h)
 * are RFC 5280's and what real PKIs need.
 */
#ifndef KTLSGATE_FORGE_H
#define KTLSGATE_FORGE_H

#include <stdio.h>
#include <time.h>
#include "forge/forge_rules.h"
#include "pki/identity.h"

#define FORGE_SERIAL_KEY_LEN 32

/* Where verifiers ask about what the CA issued: URIs separated by blanks; NULL: nowhere. */
struct forge_urls {
	const char *ocsp, *ca_issuers, *crl;
};

/* All borrowed. */
struct forge_ca {
	X509 *cert;
	EVP_PKEY *key;
	STACK_OF(X509) * chain; /* the CAs above cert in order, may be NULL */
	struct forge_urls urls;
};

struct forge_policy {
	const struct forge_rules *rules;	  /* borrowed */
	long lifespan;				  /* seconds a forged certificate lives at most */
	long skew;				  /* seconds notBefore may lie before now */
	uint8_t serial_key[FORGE_SERIAL_KEY_LEN]; /* secret of the issuer, rule 4 */
};

enum forge_error {
	FORGE_OK,
	FORGE_NO_CLIENT_AUTH,	  /* rule 1, 9: the EKU does not hold clientAuth */
	FORGE_ORIGINAL_IS_CA,	  /* rule 1 */
	FORGE_UNKNOWN_CRITICAL,	  /* rule 1 */
	FORGE_NOT_YET_OR_EXPIRED, /* rule 5: nothing is left of the validity */
	FORGE_CA_CONSTRAINT, /* rule 3: name constraints, EKU or path length of the forging CA, or
				of one above it */
	FORGE_NO_NAME,	     /* rule 2: empty subject without a critical SAN */
	FORGE_BAD_SAN,	     /* rules 6, 7 */
	FORGE_MEMORY,
	FORGE_SIGN, /* the CA's key did not sign */
	FORGE_ERRORS
};

/* One short lower-case sentence for logs; never NULL. */
const char *forge_error_text(enum forge_error e);

/*
 * Is this fit to be a forging CA, and are those in its chain the CAs above it
 * (rule 3)? CA:TRUE, keyCertSign, clientAuth or no EKU; each the issuer of the one
 * before it, within its path length and name constraints. ca->key is not looked
 * at. NULL if fit, else why: what is wrong, the end of a sentence about the file.
 */
const char *forge_ca_unfit(const struct forge_ca *ca, char why[FORGE_WHY_MAX]) must_check;

/*
 * Issues a certificate for id's leaf and the public key new_key under ca, which is fit
 * (forge_ca_unfit: its file's signatures are not verified again), at time now. explain: NULL, or
 * where a table "field, original, forged, rule" goes. On FORGE_OK *out is owned by the caller, else
 * NULL.
 */
enum forge_error forge_certificate(const struct forge_ca *ca, const struct identity *id,
				   EVP_PKEY *new_key, const struct forge_policy *policy, time_t now,
				   FILE *explain, X509 **out) must_check;

#endif
