/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much a peer's certificates may hold, judged before anything is computed with them: what
 * OpenSSL does with a certificate takes time that grows with the square of some of these numbers.
 * Pure; internal to verify.c and ocsp.c. docs/verify.md has the limits.
 */
#ifndef KTLSGATE_VERIFY_LIMITS_H
#define KTLSGATE_VERIFY_LIMITS_H

#include "pki/verify.h"

/*
 * One certificate. Looks at its DER and at nothing that OpenSSL works out of it: every call that
 * does so (X509_cmp() is one) has to come later. Returns X509_V_OK, or a VERIFY_ERR_* with the
 * count found and the limit in *excess.
 */
int verify_limits_certificate(const X509 *cert, struct verify_excess *excess) must_check;

/*
 * The leaf and all that was sent with it, which may hold the leaf too. Sets error, excess, at and
 * depth (as sent) of *out; at is NULL if no single certificate is at fault.
 */
void verify_limits_sent(X509 *leaf, const STACK_OF(X509) * sent, struct verify_result *out);

/* Names in cert that a CA above may constrain, and constraints in it for those below. */
unsigned verify_limits_names(const X509 *cert) must_check;
unsigned verify_limits_constraints(const X509 *cert) must_check;

/* "the client sent 200 certificates, at most 32 are taken", without who. error: one of those above.
 */
void verify_limits_text(int error, const struct verify_excess *excess, char *buf, size_t len);

/* Without the numbers. NULL: error is none of these. */
const char *verify_limits_error_text(int error) must_check;

#endif
