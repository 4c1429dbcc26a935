/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which of several certificates a ClientHello's server name asks for. Names come
 * from the certificates' SAN; pure: certificates and names in, numbers out.
 */
#ifndef KTLSGATE_SNI_H
#define KTLSGATE_SNI_H

#include <stdbool.h>
#include <stdint.h>
#include <openssl/x509.h>
#include "base/scoped.h"

#define SNI_NAME_MAX  255
#define SNI_KEY_TYPES 5 /* RSA, RSA-PSS, EC, Ed25519, Ed448: one certificate of each */

/* Certificates for the same names, each with a key of another type; the client's
 * signature_algorithms choose among them. */
struct sni_group {
	unsigned certs[SNI_KEY_TYPES]; /* their numbers, in the order given */
	unsigned n;
};

struct sni_table;

/*
 * certs[0..n), n > 0; borrowed only while this runs. used[i] is set if some name,
 * or the lack of one, leads to certs[i]. NULL: out of memory.
 */
struct sni_table *sni_table_new(X509 *const *certs, unsigned n, bool *used) must_check;
void sni_table_free(struct sni_table *t); /* NULL-safe */

/* Group 0 is the default: the first certificate, and those that share its first name. */
unsigned sni_groups(const struct sni_table *t);
const struct sni_group *sni_group(const struct sni_table *t, unsigned group);

/*
 * The group for name: exact, else by a wildcard in place of the whole first
 * label (RFC 9525 section 6.3). -1: none.
 */
int sni_find(const struct sni_table *t, const char *name) must_check;

/*
 * The host name in the body of a server_name extension (RFC 6066 section 3),
 * lower case, without the dot at the end that some clients send. False: there is none
 * that can be one of ours; out is then empty, or text for the log if it has
 * the form of a DNS name.
 */
bool sni_read(const uint8_t *extension, size_t len, char out[SNI_NAME_MAX + 1]) must_check;

#endif
