// SPDX-License-Identifier: Apache-2.0
/* From the anchor down to the leaf; see verify_signatures.h. Knows no rule: who may sign
 * was looked at before. */
#include "pki/verify_signatures.h"

#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include "pki/identity.h"
#include "pki/verify_rules.h"

#define KNOWN_MAX 16 /* of one profile's peers: few have as many CAs below their anchors */

/* Certificates, not keys and what was signed: there is nothing in them that could differ. */
struct pair {
	uint8_t cert[FINGERPRINT_LEN], issuer[FINGERPRINT_LEN];
};

struct known_signatures {
	pthread_mutex_t lock;
	struct pair pairs[KNOWN_MAX]; /* all zero: unused */
	unsigned next;		      /* the oldest */
};

struct known_signatures *known_signatures_new(void)
{
	struct known_signatures *known = calloc(1, sizeof(*known));

	if (known)
		pthread_mutex_init(&known->lock, NULL);
	return known;
}

void known_signatures_free(struct known_signatures *known)
{
	if (!known)
		return;
	pthread_mutex_destroy(&known->lock);
	free(known);
}

static bool is_known(struct known_signatures *known, const struct pair *pair)
{
	bool found = false;

	pthread_mutex_lock(&known->lock);
	for (unsigned i = 0; i < KNOWN_MAX && !found; i++)
		found = !memcmp(&known->pairs[i], pair, sizeof(*pair));
	pthread_mutex_unlock(&known->lock);
	return found;
}

static void remember(struct known_signatures *known, const struct pair *pair)
{
	pthread_mutex_lock(&known->lock);
	known->pairs[known->next] = *pair;
	known->next = (known->next + 1) % KNOWN_MAX;
	pthread_mutex_unlock(&known->lock);
}

static int fail(X509_STORE_CTX *ctx, int depth, int error)
{
	X509_STORE_CTX_set_error_depth(ctx, depth);
	X509_STORE_CTX_set_error(ctx, error);
	return 0;
}

static int date_error(const X509 *cert, time_t now)
{
	/* 0: it is no time at all; else a time that is now lies before it */
	int begin = X509_cmp_time(X509_get0_notBefore(cert), &now);
	int end = X509_cmp_time(X509_get0_notAfter(cert), &now);

	if (!begin)
		return X509_V_ERR_ERROR_IN_CERT_NOT_BEFORE_FIELD;
	if (begin > 0)
		return X509_V_ERR_CERT_NOT_YET_VALID;
	if (!end)
		return X509_V_ERR_ERROR_IN_CERT_NOT_AFTER_FIELD;
	return end < 0 ? X509_V_ERR_CERT_HAS_EXPIRED : X509_V_OK;
}

/* Only of CAs: leaves come by the thousand, each a few times. */
static bool is_signed(X509 *cert, X509 *issuer, int depth, struct known_signatures *known,
		      struct signatures_cost *cost)
{
	struct pair pair;
	bool ca = depth > 0 && !identity_fingerprint(cert, pair.cert) &&
		  !identity_fingerprint(issuer, pair.issuer);

	if (ca && is_known(known, &pair))
		return true;
	cost->computed++;
	cost->us += verify_rules_cost(X509_get0_pubkey(issuer));
	if (X509_verify(cert, X509_get0_pubkey(issuer)) != 1)
		return false;
	if (ca)
		remember(known, &pair);
	return true;
}

int verify_signatures(X509_STORE_CTX *ctx, struct known_signatures *known, time_t now,
		      struct signatures_cost *cost)
{
	STACK_OF(X509) *chain = X509_STORE_CTX_get0_chain(ctx);
	int anchor = sk_X509_num(chain) - 1;

	/* What an anchor has signed itself with says nothing. */
	for (int i = anchor; i >= 0; i--) {
		X509 *cert = sk_X509_value(chain, i);
		int error;

		if (i < anchor && !is_signed(cert, sk_X509_value(chain, i + 1), i, known, cost))
			return fail(ctx, i, X509_V_ERR_CERT_SIGNATURE_FAILURE);
		error = date_error(cert, now);
		if (error != X509_V_OK)
			return fail(ctx, i, error);
	}
	return 1;
}
