/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The signatures and dates of one path, in place of OpenSSL's own look at them: it is the same,
 * but that a CA's certificate which many peers send is verified with its issuer's key once, and
 * not for each of them. Dates are looked at each time. Internal to verify.c.
 */
#ifndef KTLSGATE_VERIFY_SIGNATURES_H
#define KTLSGATE_VERIFY_SIGNATURES_H

#include <time.h>
#include <openssl/x509.h>
#include "base/scoped.h"

/* Which pairs of CA certificates belong together: the last few. Thread-safe. */
struct known_signatures;

struct known_signatures *known_signatures_new(void) must_check; /* NULL: out of memory */
void known_signatures_free(struct known_signatures *known);	/* NULL-safe */

/* What was spent. */
struct signatures_cost {
	unsigned computed; /* signatures that were looked at */
	unsigned us;	   /* of CPU time, by verify_rules_cost() */
};

/*
 * For X509_STORE_set_verify(): 1 if all is right with the chain in ctx at now, else 0 with error
 * and depth set. What it took is added to *cost.
 */
int verify_signatures(X509_STORE_CTX *ctx, struct known_signatures *known, time_t now,
		      struct signatures_cost *cost) must_check;

#endif
