/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Certificate revocation lists, ready to be asked (RFC 5280 section 6.3). Knows
 * no file and no clock. Complete CRLs of the CA itself only: delta and indirect
 * ones are refused when they are read, and so is whatever could be misread.
 */
#ifndef KTLSGATE_CRL_H
#define KTLSGATE_CRL_H

#include <stdbool.h>
#include <time.h>
#include <openssl/x509.h>
#include "base/scoped.h"

struct crl_set;

/* One of crls is newer, of the same issuer and key identifier, and of the same scope. */
bool crl_superseded(const STACK_OF(X509_CRL) * crls, const X509_CRL *crl) must_check;

/* When it was made; 0: the date is malformed. */
time_t crl_this_update(const X509_CRL *crl);

enum crl_signer {
	CRL_SIGNER_KNOWN,
	CRL_SIGNER_UNKNOWN, /* none of cas has its issuer's name: verified when one is seen that has
			     */
	CRL_SIGNER_OTHER    /* one has, but the CRL is not signed with its key */
};
/* Takes as long as hashing the CRL, once for each of cas with its issuer's name. */
enum crl_signer crl_signer(X509_CRL *crl, const STACK_OF(X509) * cas) must_check;

/*
 * Why a CRL cannot be used, "what is wrong; what would be right", or NULL. Scans
 * the whole list.
 */
const char *crl_unfit(X509_CRL *crl);

/*
 * Takes references to crls, each of which must be fit. Signatures by one of cas
 * are verified at once, others when they are first needed: that takes as long as
 * hashing the CRL, once for each key. NULL on allocation failure. May be asked by
 * several threads.
 */
struct crl_set *crl_set_new(const STACK_OF(X509_CRL) * crls, const STACK_OF(X509) * cas) must_check;
void crl_set_free(struct crl_set *set); /* NULL-safe */

/*
 * X509_V_OK, X509_V_ERR_CERT_REVOKED or VERIFY_ERR_CRL_EXPIRED (and cert is not on it): what the
 * newest CRL says whose scope has cert and which is signed with the key of issuer, the certificate
 * above cert in its path. If there is none: VERIFY_ERR_CRL_INVALID if one has at least the
 * issuer's name and that scope, else VERIFY_ERR_CRL_MISSING.
 */
int crl_set_check(struct crl_set *set, X509 *cert, X509 *issuer, time_t now) must_check;

#endif
