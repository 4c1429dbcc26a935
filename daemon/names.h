/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The names in a certificate as text, for the audit log and for patterns:
 * "kind:text", with kind one of dns, email, uri, ip, dir, upn, other, type. What is
 * not printable ASCII, and a backslash, is \XX as in RFC 4514: the client chose it.
 */
#ifndef KTLSGATE_NAMES_H
#define KTLSGATE_NAMES_H

#include <stdbool.h>
#include <openssl/x509v3.h>
#include "scoped.h"

/* The caller's; NULL: out of memory. */
char *names_general(const GENERAL_NAME *name) must_check;
/* RFC 2253 text, whole; the caller's; NULL: out of memory. */
char *names_subject(const X509_NAME *name) must_check;

/* Is there a kind of name that pattern ("email:*@example.org", "subject:*") begins with? */
bool names_kind_known(const char *pattern, size_t len);

#endif
