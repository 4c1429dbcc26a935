// SPDX-License-Identifier: Apache-2.0
/* Asks CRLs about a certificate. Believes its caller that the issuer's certificate is good. */
#include "pki/crl.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include "pki/verify.h"
#include "pki/verify_rules.h"

#define KEYS_MAX       8 /* of one CRL that are remembered; a CA has one, while it rolls over two */
#define EXTENSIONS_MAX 32

SCOPED_DEFINE(cdp, CRL_DIST_POINTS, CRL_DIST_POINTS_free)
#define scoped_cdp __attribute__((cleanup(scoped_cdp_free_))) CRL_DIST_POINTS

/* What a signature check with one key has shown. */
struct checked {
	uint8_t key[32]; /* SHA-256 of the public key */
	bool good;
};

struct crl {
	X509_CRL *crl;
	ISSUING_DIST_POINT *idp; /* NULL: all certificates of the CA */
	struct checked keys[KEYS_MAX];
	atomic_uint n_keys;
};

struct crl_set {
	pthread_mutex_t lock; /* of whoever adds to keys */
	struct crl *crls;     /* newest first */
	unsigned n;
};

/* ---- reading ---- */

static bool known_extension(X509_EXTENSION *ext)
{
	switch (OBJ_obj2nid(X509_EXTENSION_get_object(ext))) {
	case NID_issuing_distribution_point:
	case NID_authority_key_identifier:
	case NID_crl_number:
		return true;
	default:
		return !X509_EXTENSION_get_critical(ext);
	}
}

/* Each is compared with each. RFC 5280 knows six. */
static bool known_extensions(const X509_CRL *crl)
{
	int n = X509_CRL_get_ext_count(crl);

	if (n > EXTENSIONS_MAX)
		return false;
	for (int i = 0; i < n; i++) {
		X509_EXTENSION *ext = X509_CRL_get_ext(crl, i);

		if (!known_extension(ext) ||
		    X509_CRL_get_ext_by_OBJ(crl, X509_EXTENSION_get_object(ext), i) >= 0)
			return false;
	}
	return true;
}

/* RFC 5280 5.3: an unknown critical extension of one entry is one of the CRL. */
static bool known_entries(X509_CRL *crl)
{
	const STACK_OF(X509_REVOKED) *list = X509_CRL_get_REVOKED(crl);

	for (int i = 0; i < sk_X509_REVOKED_num(list); i++) {
		const X509_REVOKED *r = sk_X509_REVOKED_value(list, i);

		for (int n = 0; n < X509_REVOKED_get_ext_count(r); n++)
			if (X509_EXTENSION_get_critical(X509_REVOKED_get_ext(r, n)) &&
			    OBJ_obj2nid(X509_EXTENSION_get_object(X509_REVOKED_get_ext(r, n))) !=
				    NID_crl_reason)
				return false;
	}
	return true;
}

static bool strong_signature(const X509_CRL *crl)
{
	const X509_ALGOR *alg;

	X509_CRL_get0_signature(crl, NULL, &alg);
	return verify_rules_strong(alg);
}

/* The scope, or NULL with *bad set if there is one that we do not serve. */
static ISSUING_DIST_POINT *scope_of(X509_CRL *crl, bool *bad)
{
	int critical;
	ISSUING_DIST_POINT *idp =
		X509_CRL_get_ext_d2i(crl, NID_issuing_distribution_point, &critical, NULL);

	*bad = idp ? idp->indirectCRL || idp->onlyattr || idp->onlysomereasons ||
			       idp->onlyuser + idp->onlyCA > 0xff
		   : critical != -1;
	if (idp && idp->distpoint)
		*bad = *bad || !DIST_POINT_set_dpname(idp->distpoint, X509_CRL_get_issuer(crl));
	if (!*bad)
		return idp;
	ISSUING_DIST_POINT_free(idp);
	return NULL;
}

const char *crl_unfit(X509_CRL *crl)
{
	bool bad;

	if (X509_CRL_get_ext_by_NID(crl, NID_delta_crl, -1) >= 0)
		return "is a delta CRL; give the complete one";
	if (!known_extensions(crl) || !known_entries(crl))
		return "holds critical extensions that are unknown here, one twice or more than "
		       "32; give a CRL without";
	if (!X509_CRL_get0_nextUpdate(crl))
		return "has no nextUpdate and would be good for ever; give one that ends (RFC 5280 "
		       "5.1.2.5)";
	if (X509_cmp_current_time(X509_CRL_get0_nextUpdate(crl)) == 0 ||
	    X509_cmp_current_time(X509_CRL_get0_lastUpdate(crl)) == 0)
		return "has a malformed date; give one made by RFC 5280";
	if (!strong_signature(crl))
		return "is signed with MD5, SHA-1 or something unknown; give one with SHA-256 or "
		       "better";
	ISSUING_DIST_POINT_free(scope_of(crl, &bad));
	return bad ? "is indirect, for attribute certificates or for some reasons only; give a "
		     "complete CRL of the CA itself"
		   : NULL;
}

/* ---- signatures ---- */

static const struct checked *find_key(const struct crl *c, unsigned n, const uint8_t key[32])
{
	for (unsigned i = 0; i < n; i++)
		if (!memcmp(c->keys[i].key, key, sizeof(c->keys[i].key)))
			return &c->keys[i];
	return NULL;
}

static void remember(struct crl_set *set, struct crl *c, const uint8_t key[32], bool good)
{
	unsigned n;

	pthread_mutex_lock(&set->lock);
	n = atomic_load_explicit(&c->n_keys, memory_order_relaxed);
	if (n < KEYS_MAX && !find_key(c, n, key)) {
		memcpy(c->keys[n].key, key, sizeof(c->keys[n].key));
		c->keys[n].good = good;
		/* Readers do without the lock: an entry is there before it is counted. */
		atomic_store_explicit(&c->n_keys, n + 1, memory_order_release);
	}
	pthread_mutex_unlock(&set->lock);
}

static bool is_signed_by(struct crl_set *set, struct crl *c, X509 *issuer)
{
	const struct checked *known;
	uint8_t key[32];
	bool good;

	if (X509_pubkey_digest(issuer, EVP_sha256(), key, NULL) != 1)
		return false;
	known = find_key(c, atomic_load_explicit(&c->n_keys, memory_order_acquire), key);
	if (known)
		return known->good;
	good = X509_CRL_verify(c->crl, X509_get0_pubkey(issuer)) == 1;
	remember(set, c, key, good);
	return good;
}

static bool is_issuer(const struct crl *c, const X509 *issuer)
{
	return !X509_NAME_cmp(X509_CRL_get_issuer(c->crl), X509_get_subject_name(issuer));
}

enum crl_signer crl_signer(X509_CRL *crl, const STACK_OF(X509) * cas)
{
	enum crl_signer found = CRL_SIGNER_UNKNOWN;

	for (int i = 0; i < sk_X509_num(cas); i++) {
		X509 *ca = sk_X509_value(cas, i);

		if (X509_NAME_cmp(X509_CRL_get_issuer(crl), X509_get_subject_name(ca)) != 0)
			continue;
		if (X509_get_key_usage(ca) & KU_CRL_SIGN &&
		    X509_CRL_verify(crl, X509_get0_pubkey(ca)) == 1)
			return CRL_SIGNER_KNOWN;
		found = CRL_SIGNER_OTHER;
	}
	ERR_clear_error();
	return found;
}

/* ---- the set ---- */

time_t crl_this_update(const X509_CRL *crl)
{
	struct tm tm;

	return ASN1_TIME_to_tm(X509_CRL_get0_lastUpdate(crl), &tm) == 1 ? timegm(&tm) : 0;
}

static int newest_first(const X509_CRL *const *a, const X509_CRL *const *b)
{
	time_t x = crl_this_update(*a), y = crl_this_update(*b);

	return x < y ? 1 : x > y ? -1 : 0;
}

static bool same_extension(const X509_CRL *a, const X509_CRL *b, int nid)
{
	X509_EXTENSION *x = X509_CRL_get_ext(a, X509_CRL_get_ext_by_NID(a, nid, -1));
	X509_EXTENSION *y = X509_CRL_get_ext(b, X509_CRL_get_ext_by_NID(b, nid, -1));

	if (!x || !y)
		return x == y;
	return !ASN1_OCTET_STRING_cmp(X509_EXTENSION_get_data(x), X509_EXTENSION_get_data(y));
}

bool crl_superseded(const STACK_OF(X509_CRL) * crls, const X509_CRL *crl)
{
	for (int i = 0; i < sk_X509_CRL_num(crls); i++) {
		const X509_CRL *other = sk_X509_CRL_value(crls, i);

		if (crl_this_update(other) > crl_this_update(crl) &&
		    !X509_NAME_cmp(X509_CRL_get_issuer(other), X509_CRL_get_issuer(crl)) &&
		    same_extension(other, crl, NID_authority_key_identifier) &&
		    same_extension(other, crl, NID_issuing_distribution_point))
			return true;
	}
	return false;
}

static bool add(struct crl_set *set, X509_CRL *crl)
{
	struct crl *c = &set->crls[set->n];
	ASN1_INTEGER *serial = ASN1_INTEGER_new();
	X509_REVOKED *none;
	bool bad = true;

	if (serial && X509_CRL_up_ref(crl)) {
		c->crl = crl;
		set->n++;
		c->idp = scope_of(crl, &bad);
		/* Sorts the list, while nobody else reads it. */
		(void)X509_CRL_get0_by_serial(crl, &none, serial);
	}
	ASN1_INTEGER_free(serial);
	return !bad;
}

struct crl_set *crl_set_new(const STACK_OF(X509_CRL) * crls, const STACK_OF(X509) * cas)
{
	STACK_OF(X509_CRL) *sorted = sk_X509_CRL_dup(crls);
	struct crl_set *set = calloc(1, sizeof(*set));
	int n = sk_X509_CRL_num(crls);
	bool ok = sorted && set;

	if (set) {
		pthread_mutex_init(&set->lock, NULL);
		set->crls = calloc(n > 0 ? (size_t)n : 1, sizeof(*set->crls));
		ok = ok && set->crls;
	}
	if (ok) {
		sk_X509_CRL_set_cmp_func(sorted, newest_first);
		sk_X509_CRL_sort(sorted);
	}
	for (int i = 0; ok && i < n; i++)
		ok = add(set, sk_X509_CRL_value(sorted, i));
	sk_X509_CRL_free(sorted);
	if (!ok) {
		crl_set_free(set);
		return NULL;
	}
	for (unsigned i = 0; i < set->n; i++)
		for (int k = 0; k < sk_X509_num(cas); k++)
			if (is_issuer(&set->crls[i], sk_X509_value(cas, k)))
				(void)is_signed_by(set, &set->crls[i], sk_X509_value(cas, k));
	return set;
}

void crl_set_free(struct crl_set *set)
{
	if (!set)
		return;
	for (unsigned i = 0; i < set->n; i++) {
		X509_CRL_free(set->crls[i].crl);
		ISSUING_DIST_POINT_free(set->crls[i].idp);
	}
	pthread_mutex_destroy(&set->lock);
	free(set->crls);
	free(set);
}

/* ---- which CRL is about a certificate ---- */

static bool holds_name(const DIST_POINT_NAME *p, const GENERAL_NAME *name)
{
	if (p->type == 1)
		return name->type == GEN_DIRNAME && p->dpname &&
		       !X509_NAME_cmp(p->dpname, name->d.directoryName);
	for (int i = 0; i < sk_GENERAL_NAME_num(p->name.fullname); i++)
		if (!GENERAL_NAME_cmp(sk_GENERAL_NAME_value(p->name.fullname, i),
				      (GENERAL_NAME *)name))
			return true;
	return false;
}

/* RFC 5280 6.3.3 (b) (2) (i): one name of the one is one of the other. */
static bool points_match(const DIST_POINT_NAME *a, const DIST_POINT_NAME *b)
{
	if (a->type == 1 && b->type == 1)
		return a->dpname && b->dpname && !X509_NAME_cmp(a->dpname, b->dpname);
	if (a->type == 1)
		return points_match(b, a);
	for (int i = 0; i < sk_GENERAL_NAME_num(a->name.fullname); i++)
		if (holds_name(b, sk_GENERAL_NAME_value(a->name.fullname, i)))
			return true;
	return false;
}

static bool names_point(X509 *cert, const DIST_POINT_NAME *of_crl)
{
	scoped_cdp *points = X509_get_ext_d2i(cert, NID_crl_distribution_points, NULL, NULL);

	for (int i = 0; i < sk_DIST_POINT_num(points); i++) {
		DIST_POINT *p = sk_DIST_POINT_value(points, i);

		if (p->CRLissuer || !p->distpoint ||
		    !DIST_POINT_set_dpname(p->distpoint, X509_get_issuer_name(cert)))
			continue;
		if (points_match(p->distpoint, of_crl))
			return true;
	}
	return false;
}

static bool in_scope(const struct crl *c, X509 *cert)
{
	bool is_ca = X509_get_extension_flags(cert) & EXFLAG_CA;

	if (!c->idp)
		return true;
	if ((c->idp->onlyuser > 0 && is_ca) || (c->idp->onlyCA > 0 && !is_ca))
		return false;
	return !c->idp->distpoint || names_point(cert, c->idp->distpoint);
}

static int verdict(struct crl *c, X509 *cert, time_t now)
{
	X509_REVOKED *entry;

	/* 2: removed from a list it was on */
	if (X509_CRL_get0_by_cert(c->crl, &entry, cert) == 1)
		return X509_V_ERR_CERT_REVOKED;
	return X509_cmp_time(X509_CRL_get0_nextUpdate(c->crl), &now) < 0 ? VERIFY_ERR_CRL_EXPIRED
									 : X509_V_OK;
}

int crl_set_check(struct crl_set *set, X509 *cert, X509 *issuer, time_t now)
{
	/* RFC 5280 6.3.3 (f); UINT32_MAX without the extension. */
	bool may_sign = X509_get_key_usage(issuer) & KU_CRL_SIGN, named = false;

	for (unsigned i = 0; i < set->n; i++) {
		struct crl *c = &set->crls[i];

		if (!is_issuer(c, issuer) || !in_scope(c, cert))
			continue;
		named = true;
		if (may_sign && X509_cmp_time(X509_CRL_get0_lastUpdate(c->crl), &now) < 0 &&
		    is_signed_by(set, c, issuer))
			return verdict(c, cert, now);
	}
	/* A list that stands where the CA's was must not make "revoked" to "unknown". */
	return named ? VERIFY_ERR_CRL_INVALID : VERIFY_ERR_CRL_MISSING;
}
