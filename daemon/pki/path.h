/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Candidate paths from a certificate to a trust anchor, by names alone: one
 * after the other, the likeliest first, within a fixed budget. Cross-signed
 * CAs, several certificates of one name and loops are what it is for (RFC 4158).
 * Checks no signature and no date; judging a candidate is verify.c's business.
 */
#ifndef KTLSGATE_PATH_H
#define KTLSGATE_PATH_H

#include <stdbool.h>
#include <time.h>
#include <openssl/x509.h>
#include "base/scoped.h"

#define PATH_DEPTH_MAX	 16   /* intermediates */
#define PATH_SENT_MAX	 64   /* certificates of the peer that are looked at */
#define PATH_ISSUERS_MAX 32   /* tried for one certificate in one place */
#define PATH_STEPS_MAX	 1000 /* looks at an issuer, in all */
#define PATH_BAD_MAX	 128  /* rejected pairs remembered */

struct path_issuer {
	X509 *cert;
	bool anchor;
	unsigned score;
};

struct path_frame {
	X509 *cert;
	struct path_issuer issuers[PATH_ISSUERS_MAX]; /* best first */
	unsigned n, next;
};

/* All certificates are borrowed and must live as long as the search. */
struct path_search {
	const STACK_OF(X509) * anchors;
	time_t now;
	unsigned depth;
	X509 **pool; /* may stand between the leaf and an anchor */
	unsigned *distance;
	unsigned n_pool;
	struct path_frame frames[PATH_DEPTH_MAX + 1]; /* of the present path, leaf first */
	unsigned len;
	X509 *anchor; /* of the present candidate */
	struct {
		const X509 *cert, *issuer;
	} bad[PATH_BAD_MAX];
	unsigned n_bad, steps;
	bool exhausted; /* the budget ended the search */
	bool too_long;	/* a path went on beyond depth */
};

/*
 * Begins a search for paths from leaf to one of anchors, with at most depth (up
 * to PATH_DEPTH_MAX) certificates of sent and known in between. sent is what the
 * peer sent, known what we have ourselves; either may be NULL and may hold the leaf
 * and the anchors too. Returns 0 or -ENOMEM; path_free() in either case.
 */
int path_begin(struct path_search *s, X509 *leaf, const STACK_OF(X509) * sent,
	       const STACK_OF(X509) * known, const STACK_OF(X509) * anchors, unsigned depth,
	       time_t now) must_check;
void path_free(struct path_search *s);

/*
 * The next candidate: s->frames[0..s->len) and s->anchor above them. If the
 * leaf is itself an anchor, that is the first, with len 1 and anchor the leaf.
 */
bool path_next(struct path_search *s) must_check;

/* The certificate at depth of the present candidate was not signed by the one above it. */
void path_reject(struct path_search *s, unsigned depth);

/* Certificates of the present candidate, anchor included. */
unsigned path_length(const struct path_search *s);
X509 *path_cert(const struct path_search *s, unsigned depth);

/* Where the likeliest path ends if there is no candidate: its last certificate and its depth. */
X509 *path_dead_end(const struct path_search *s, X509 *leaf, unsigned *depth);

#endif
