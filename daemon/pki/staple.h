/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An OCSP response about our own certificate, to be sent with it (RFC 6066
 * section 8). Checked when it is read: a response that clients would refuse
 * is a mistake of the configuration.
 */
#ifndef KTLSGATE_STAPLE_H
#define KTLSGATE_STAPLE_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>
#include "base/scoped.h"

#define STAPLE_MAX 65535 /* bytes; what CertificateStatus is given room for here */

struct staple {
	uint8_t *der; /* NULL: none */
	size_t len;
	time_t expires; /* nextUpdate; 0: the response has none */
};

/*
 * Reads path, a DER file. It must be successful, say "good" about cert, be
 * signed by its issuer (the first of chain) or by a responder that this one
 * appointed, and not be from the future; being out of date is no error. Returns 0,
 * -errno with "what is wrong; what would be right" in why. */
int staple_load(const char *path, X509 *cert, STACK_OF(X509) * chain, time_t now,
		struct staple *out, char *why, size_t why_len) must_check;
/* The same with a file that was read already. */
int staple_parse(const void *der, size_t len, X509 *cert, STACK_OF(X509) * chain, time_t now,
		 struct staple *out, char *why, size_t why_len) must_check;
void staple_free(struct staple *s);

#endif
