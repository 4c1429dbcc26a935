/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The names in a certificate: which of them are text at all, and that text. Whoever applied for
 * the certificate has chosen it.
 */
#ifndef KTLSGATE_NAMES_H
#define KTLSGATE_NAMES_H

#include <stdbool.h>
#include <openssl/x509v3.h>
#include "base/scoped.h"

/*
 * An ASN.1 string of any character set as UTF-8 in *out, NUL-terminated, to be freed with
 * OPENSSL_free(). Returns its length in bytes; -EINVAL: it holds a control character (C0, DEL,
 * C1, so never a NUL) or is malformed; -ENOENT: its ASN.1 type is not one for text.
 */
int names_utf8(const ASN1_STRING *s, unsigned char **out) must_check;

/*
 * False if a string in the name makes names_utf8() return -EINVAL: programs would read different
 * names in it. Values that are not text (an address, an OID) are no reason.
 */
bool names_readable(const X509_NAME *name) must_check;
bool names_readable_general(const GENERAL_NAME *name) must_check;

/*
 * "kind:text" for the audit log, with kind one of dns, email, uri, ip, dir, upn, other, rid, type;
 * "other:OID=text", or "other:OID=#" and its DER in hexadecimal. What
 * is not printable ASCII, and a backslash, is \XX as in RFC 4514. The caller's; NULL: out of
 * memory.
 */
char *names_general(const GENERAL_NAME *name) must_check;
/* RFC 2253 text, whole; the caller's; NULL: out of memory. */
char *names_subject(const X509_NAME *name) must_check;

/* The userPrincipalName (Microsoft's) that an otherName is; NULL: it is another one. */
const ASN1_UTF8STRING *names_upn(const OTHERNAME *other) must_check;

#endif
