/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What RFC 5280 forbids and X509_verify_cert() of OpenSSL 3.0 lets pass even
 * with X509_V_FLAG_X509_STRICT, and which keys are too weak. Pure; internal to verify.c.
 */
#ifndef KTLSGATE_VERIFY_RULES_H
#define KTLSGATE_VERIFY_RULES_H

#include "pki/verify.h"

/*
 * Each returns X509_V_OK, an X509_V_ERR_* or an enum verify_error.
 *
 * The key of a certificate at depth of a path, before any signature is checked with it:
 * also bounds what one check costs. NULL: one that could not be read.
 */
int verify_rules_key(const EVP_PKEY *key, int depth, const struct verify_policy *policy) must_check;

/*
 * What one check of a signature with key costs, in microseconds on a machine of 2024. Only how the
 * numbers compare matters: P-384 takes twelve times as long as P-256.
 */
unsigned verify_rules_cost(const EVP_PKEY *key) must_check;

/* The form of a certificate that is no trust anchor. */
int verify_rules_form(X509 *cert) must_check;

/* Whether cert, at depth (0: the leaf), may stand in a path for the purpose. */
int verify_rules_purpose(X509 *cert, int depth, enum verify_purpose purpose) must_check;

/* A signature algorithm that nobody can forge with: no MD5, no SHA-1. For CRLs and OCSP responses.
 */
bool verify_rules_strong(const X509_ALGOR *alg) must_check;

/* leaf's URIs, if a certificate of chain above it constrains URIs (RFC 5280 4.2.1.10). */
int verify_rules_uris(X509 *leaf, STACK_OF(X509) * chain) must_check;

#endif
