/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The extensions of a forged certificate: which of the original's may be passed
 * on, and what is written. Internal to forge*.c.
 */
#ifndef KTLSGATE_FORGE_EXTENSIONS_H
#define KTLSGATE_FORGE_EXTENSIONS_H

#include "forge/forge.h"

/* The original's subjectAltName; NULL: it has none. */
X509_EXTENSION *forge_find_san(const X509 *cert);

/*
 * Rules 6 to 8: may it be copied as it is? sid_trusted: see forge_sid_trusted().
 */
bool forge_san_copyable(const X509_EXTENSION *san, const struct forge_rules *rules,
			bool sid_trusted);

/* Rule 8: is id's issuer one of those whose SIDs are believed? */
bool forge_sid_trusted(const struct forge_rules *rules, const struct identity *id);

/* Does the forging CA's file allow those below it the key purpose? */
bool forge_usage_allowed(const struct forge_ca *ca, const ASN1_OBJECT *purpose);

/* Writes all of them to cert, whose other fields are set but for the serial number. */
bool forge_add_extensions(X509 *cert, const struct forge_ca *ca, const struct identity *id,
			  const struct forge_rules *rules) must_check;

#endif
