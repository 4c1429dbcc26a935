// SPDX-License-Identifier: Apache-2.0
/* Depth-first search for paths to a trust anchor. Knows names, key identifiers and a budget. */
#include "pki/path.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <openssl/x509v3.h>

#define UNREACHABLE UINT_MAX

/* What speaks for an issuer, the weightiest last: a self-signed anchor ends the path. */
enum {
	SCORE_IN_TIME = 1,
	SCORE_IS_CA = 2,
	SCORE_ANCHOR = 4,
	SCORE_IDENTIFIERS = 8
};

static bool issued_by_name(const X509 *cert, const X509 *issuer)
{
	return !X509_NAME_cmp(X509_get_issuer_name(cert), X509_get_subject_name(issuer));
}

static bool contains(const STACK_OF(X509) * certs, const X509 *cert)
{
	for (int i = 0; i < sk_X509_num(certs); i++)
		if (!X509_cmp(sk_X509_value(certs, i), cert))
			return true;
	return false;
}

static bool in_pool(const struct path_search *s, const X509 *cert)
{
	for (unsigned i = 0; i < s->n_pool; i++)
		if (!X509_cmp(s->pool[i], cert))
			return true;
	return false;
}

/* ---- which certificates lead to an anchor at all ---- */

static void fill_pool(struct path_search *s, const X509 *leaf, const STACK_OF(X509) * certs,
		      unsigned max)
{
	for (int i = 0; i < sk_X509_num(certs) && s->n_pool < max; i++) {
		X509 *cert = sk_X509_value(certs, i);

		if (X509_cmp(cert, leaf) && !contains(s->anchors, cert) && !in_pool(s, cert))
			s->pool[s->n_pool++] = cert;
	}
}

static bool under_anchor(const struct path_search *s, const X509 *cert)
{
	for (int i = 0; i < sk_X509_num(s->anchors); i++)
		if (issued_by_name(cert, sk_X509_value(s->anchors, i)))
			return true;
	return false;
}

/* The fewest certificates between cert and an anchor, judging by those measured so far. */
static unsigned measure(const struct path_search *s, const X509 *cert)
{
	unsigned best = under_anchor(s, cert) ? 0 : UNREACHABLE;

	for (unsigned i = 0; best && i < s->n_pool; i++)
		if (s->distance[i] < UNREACHABLE && s->distance[i] + 1 < best &&
		    issued_by_name(cert, s->pool[i]))
			best = s->distance[i] + 1;
	return best;
}

/* Dead ends, however many were sent, then cost no step of the search. */
static void measure_pool(struct path_search *s)
{
	bool changed = true;

	for (unsigned i = 0; i < s->n_pool; i++)
		s->distance[i] = UNREACHABLE;
	for (unsigned round = 0; changed && round <= s->depth; round++) {
		changed = false;
		for (unsigned i = 0; i < s->n_pool; i++) {
			unsigned d = measure(s, s->pool[i]);

			changed |= d != s->distance[i];
			s->distance[i] = d;
		}
	}
}

/* ---- issuers of one certificate, best first ---- */

static bool is_in_time(const X509 *cert, time_t now)
{
	return X509_cmp_time(X509_get0_notBefore(cert), &now) < 0 &&
	       X509_cmp_time(X509_get0_notAfter(cert), &now) > 0;
}

/* RFC 5280 4.2.1.1: identifiers help to choose; that they differ refuses nothing (RFC 4158 3.5). */
static bool identifiers_fit(X509 *cert, X509 *issuer)
{
	const ASN1_OCTET_STRING *want = X509_get0_authority_key_id(cert);
	const ASN1_OCTET_STRING *have = X509_get0_subject_key_id(issuer);
	const ASN1_INTEGER *serial = X509_get0_authority_serial(cert);

	if (serial && ASN1_INTEGER_cmp(serial, X509_get0_serialNumber(issuer)))
		return false;
	return !want || !have || !ASN1_OCTET_STRING_cmp(want, have);
}

static unsigned score(const struct path_search *s, X509 *cert, X509 *issuer, bool anchor)
{
	bool is_ca = X509_check_ca(issuer) && X509_get_key_usage(issuer) & KU_KEY_CERT_SIGN;

	return (identifiers_fit(cert, issuer) ? SCORE_IDENTIFIERS : 0) |
	       (anchor ? SCORE_ANCHOR : 0) | (is_ca ? SCORE_IS_CA : 0) |
	       (is_in_time(issuer, s->now) ? SCORE_IN_TIME : 0);
}

/* In order of the score, what came first first; the worst falls off the end. */
static void offer(struct path_frame *f, struct path_issuer issuer)
{
	unsigned at = f->n;

	while (at && f->issuers[at - 1].score < issuer.score)
		at--;
	if (at == PATH_ISSUERS_MAX)
		return;
	if (f->n < PATH_ISSUERS_MAX)
		f->n++;
	memmove(&f->issuers[at + 1], &f->issuers[at], (f->n - 1 - at) * sizeof(f->issuers[0]));
	f->issuers[at] = issuer;
}

/* As they are encoded: EVP_PKEY_eq() compares curves, too, and took a third of a hostile search. */
static bool same_key(const X509 *a, const X509 *b)
{
	return !ASN1_STRING_cmp(X509_get0_pubkey_bitstr(a), X509_get0_pubkey_bitstr(b));
}

/* RFC 4158 2.4.2: the same name with the same key again leads in a circle. */
static bool on_path(const struct path_search *s, const X509 *cert)
{
	for (unsigned i = 0; i < s->len; i++) {
		const X509 *other = s->frames[i].cert;

		if (!X509_NAME_cmp(X509_get_subject_name(other), X509_get_subject_name(cert)) &&
		    same_key(other, cert))
			return true;
	}
	return false;
}

static void push(struct path_search *s, X509 *cert)
{
	unsigned room = s->depth - s->len; /* intermediates that may follow cert */
	struct path_frame *f = &s->frames[s->len++];

	f->cert = cert;
	f->n = f->next = 0;
	for (int i = 0; i < sk_X509_num(s->anchors); i++) {
		X509 *anchor = sk_X509_value(s->anchors, i);

		if (issued_by_name(cert, anchor) && X509_cmp(cert, anchor))
			offer(f, (struct path_issuer){anchor, true, score(s, cert, anchor, true)});
	}
	for (unsigned i = 0; i < s->n_pool; i++) {
		X509 *issuer = s->pool[i];

		if (s->distance[i] == UNREACHABLE || !issued_by_name(cert, issuer))
			continue;
		if (s->distance[i] + 1 > room)
			s->too_long = true;
		else if (!on_path(s, issuer))
			offer(f,
			      (struct path_issuer){issuer, false, score(s, cert, issuer, false)});
	}
}

/* ---- the search ---- */

int path_begin(struct path_search *s, X509 *leaf, const STACK_OF(X509) * sent,
	       const STACK_OF(X509) * known, const STACK_OF(X509) * anchors, unsigned depth,
	       time_t now)
{
	int n_known = known ? sk_X509_num(known) : 0;
	size_t max = PATH_SENT_MAX + (size_t)n_known;

	*s = (struct path_search){.anchors = anchors, .now = now, .depth = depth};
	s->pool = calloc(max, sizeof(*s->pool));
	s->distance = calloc(max, sizeof(*s->distance));
	if (!s->pool || !s->distance)
		return -ENOMEM;
	fill_pool(s, leaf, sent, PATH_SENT_MAX);
	fill_pool(s, leaf, known, (unsigned)max);
	measure_pool(s);
	push(s, leaf);
	if (contains(anchors, leaf))
		s->anchor = leaf; /* the first candidate */
	return 0;
}

void path_free(struct path_search *s)
{
	free(s->pool);
	free(s->distance);
}

static bool is_bad(const struct path_search *s, const X509 *cert, const X509 *issuer)
{
	for (unsigned i = 0; i < s->n_bad; i++)
		if (s->bad[i].cert == cert && s->bad[i].issuer == issuer)
			return true;
	return false;
}

bool path_next(struct path_search *s)
{
	if (!s->steps++ && s->anchor)
		return true;
	while (s->len) {
		struct path_frame *f = &s->frames[s->len - 1];
		const struct path_issuer *issuer = &f->issuers[f->next];

		if (f->next == f->n) {
			s->len--;
			continue;
		}
		if (s->steps++ >= PATH_STEPS_MAX) {
			s->exhausted = true;
			return false;
		}
		f->next++;
		if (is_bad(s, f->cert, issuer->cert))
			continue;
		if (issuer->anchor) {
			s->anchor = issuer->cert;
			return true;
		}
		push(s, issuer->cert);
	}
	return false;
}

void path_reject(struct path_search *s, unsigned depth)
{
	if (depth + 1 >= path_length(s))
		return;
	if (s->n_bad < PATH_BAD_MAX) {
		s->bad[s->n_bad].cert = path_cert(s, depth);
		s->bad[s->n_bad++].issuer = path_cert(s, depth + 1);
	}
	s->len = depth + 1;
}

unsigned path_length(const struct path_search *s)
{
	return s->len + (s->len != 1 || s->anchor != s->frames[0].cert);
}

X509 *path_cert(const struct path_search *s, unsigned depth)
{
	return depth < s->len ? s->frames[depth].cert : s->anchor;
}

X509 *path_dead_end(const struct path_search *s, X509 *leaf, unsigned *depth)
{
	bool used[PATH_SENT_MAX] = {false};
	X509 *cert = leaf;

	for (*depth = 0; *depth < s->depth; (*depth)++) {
		unsigned i = 0;

		while (i < s->n_pool && i < PATH_SENT_MAX &&
		       (used[i] || !issued_by_name(cert, s->pool[i])))
			i++;
		if (i == s->n_pool || i == PATH_SENT_MAX || X509_self_signed(cert, 0) == 1)
			break;
		used[i] = true;
		cert = s->pool[i];
	}
	return cert;
}
