// SPDX-License-Identifier: Apache-2.0
/*
 * Judges each candidate path of path.c, and tells which verdict is worth
 * reporting. Knows no socket, no configuration, no clock, and not what a peer is told.
 */
#include "pki/verify.h"

#include <errno.h>
#include <string.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include "pki/crl.h"
#include "pki/identity.h"
#include "pki/path.h"
#include "pki/verify_limits.h"
#include "pki/verify_rules.h"
#include "pki/verify_signatures.h"

#define AUTH_LEVEL 2 /* 112 bits: no MD5, no SHA-1 signatures */

SCOPED_DEFINE(store_ctx, X509_STORE_CTX, X509_STORE_CTX_free)
#define scoped_store_ctx __attribute__((cleanup(scoped_store_ctx_free_))) X509_STORE_CTX
#define scoped_path	 __attribute__((cleanup(path_free))) struct path_search

/* Borrowed certificates. */
static inline void scoped_stack_free_(STACK_OF(X509) * *stack)
{
	sk_X509_free(*stack);
}
#define scoped_stack __attribute__((cleanup(scoped_stack_free_))) STACK_OF(X509)

struct verifier {
	struct verify_policy policy;
	STACK_OF(X509) * anchors, *known; /* known: what may stand in between */
	X509_STORE *store;		  /* empty: carries is_next() and look_at_signatures() */
	struct known_signatures *signatures;
	struct crl_set *crls; /* NULL: revocation is not checked */
};

/* What is looked at while OpenSSL has the word. */
struct candidate {
	const struct verifier *v;
	struct path_search *path;
	time_t now;
	struct signatures_cost cost;
};

/* ---- what peers are verified against ---- */

/*
 * OpenSSL is to look at the candidate it was given and not to build a path of
 * its own: of two certificates with one name it might take the other.
 */
static int is_next(X509_STORE_CTX *ctx, X509 *cert, X509 *issuer)
{
	const struct candidate *c = X509_STORE_CTX_get_app_data(ctx);
	const struct path_search *path = c->path;
	unsigned n = path_length(path);

	for (unsigned i = 0; i + 1 < n; i++)
		if (path_cert(path, i) == cert)
			return path_cert(path, i + 1) == issuer;
	return cert == issuer && X509_self_signed(cert, 0) == 1;
}

static int look_at_signatures(X509_STORE_CTX *ctx)
{
	struct candidate *c = X509_STORE_CTX_get_app_data(ctx);

	return verify_signatures(ctx, c->v->signatures, c->now, &c->cost);
}

static int sort_cas(struct verifier *v, const STACK_OF(X509) * cas)
{
	for (int i = 0; i < sk_X509_num(cas); i++) {
		X509 *cert = sk_X509_value(cas, i);
		bool anchor = v->policy.partial_chain || X509_self_signed(cert, 0) == 1;

		if (!X509_up_ref(cert) || !sk_X509_push(anchor ? v->anchors : v->known, cert))
			return -ENOMEM;
	}
	return 0;
}

/* CAs that peers have to send are unknown here: their CRLs are verified when they are needed. */
static int add_crls(struct verifier *v, const STACK_OF(X509) * cas)
{
	if (v->policy.crl_check == REVOCATION_OFF)
		return 0;
	v->crls = crl_set_new(v->policy.crls, cas);
	return v->crls ? 0 : -ENOMEM;
}

struct verifier *verifier_new(const STACK_OF(X509) * cas, const struct verify_policy *policy)
{
	struct verifier *v = calloc(1, sizeof(*v));

	if (!v)
		return NULL;
	v->policy = *policy;
	v->anchors = sk_X509_new_null();
	v->known = sk_X509_new_null();
	v->store = X509_STORE_new();
	v->signatures = known_signatures_new();
	if (!v->anchors || !v->known || !v->store || !v->signatures || sort_cas(v, cas) ||
	    add_crls(v, cas)) {
		verifier_free(v);
		return NULL;
	}
	X509_STORE_set_check_issued(v->store, is_next);
	X509_STORE_set_verify(v->store, look_at_signatures);
	return v;
}

void verifier_free(struct verifier *v)
{
	if (!v)
		return;
	sk_X509_pop_free(v->anchors, X509_free);
	sk_X509_pop_free(v->known, X509_free);
	X509_STORE_free(v->store);
	known_signatures_free(v->signatures);
	crl_set_free(v->crls);
	free(v);
}

/* ---- one candidate ---- */

/* A candidate's verdict; with X509_V_OK its chain, owned. */
struct judgement {
	int error, depth;
	struct signatures_cost cost;
	struct verify_excess excess;
	STACK_OF(X509) * chain;
};

/* What a certificate holds is looked at once, in however many candidates it stands. */
struct looks {
	unsigned n;
	struct look {
		const X509 *cert;
		bool anchor;
		int error;
		unsigned names, constraints;
	} at[VERIFY_CANDIDATES_MAX * (PATH_DEPTH_MAX + 2)];
};

static STACK_OF(X509) * between(const struct path_search *path)
{
	STACK_OF(X509) *certs = sk_X509_new_null();

	for (unsigned i = 1; certs && i < path->len; i++) {
		if (!sk_X509_push(certs, path_cert(path, i))) {
			sk_X509_free(certs);
			return NULL;
		}
	}
	return certs;
}

static bool set_rules(X509_STORE_CTX *ctx, const struct verifier *v, X509 *anchor, time_t now)
{
	X509_VERIFY_PARAM *param = X509_STORE_CTX_get0_param(ctx);
	unsigned long flags = X509_V_FLAG_X509_STRICT | X509_V_FLAG_POLICY_CHECK;

	if (X509_self_signed(anchor, 0) != 1)
		flags |= X509_V_FLAG_PARTIAL_CHAIN;
	/* Any policy will do, which is not what OpenSSL takes an empty set for. */
	if (!X509_VERIFY_PARAM_set_flags(param, flags) ||
	    !X509_VERIFY_PARAM_add0_policy(param, OBJ_nid2obj(NID_any_policy)))
		return false;
	X509_VERIFY_PARAM_clear_flags(param, X509_V_FLAG_TRUSTED_FIRST);
	X509_VERIFY_PARAM_set_time(param, now);
	X509_VERIFY_PARAM_set_depth(param, (int)v->policy.depth);
	X509_VERIFY_PARAM_set_auth_level(param, AUTH_LEVEL);
	/* The common name is a name of a person, and not under constraints for DNS names. */
	X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
	return true;
}

static void judge_by_openssl(const struct verifier *v, struct path_search *path, time_t now,
			     struct judgement *j)
{
	struct candidate c = {.v = v, .path = path, .now = now};
	scoped_stack *untrusted = between(path), *anchors = sk_X509_new_null();
	scoped_store_ctx *ctx = X509_STORE_CTX_new();
	bool good;

	if (!untrusted || !anchors || !ctx || !sk_X509_push(anchors, path->anchor) ||
	    !X509_STORE_CTX_init(ctx, v->store, path_cert(path, 0), untrusted))
		return;
	X509_STORE_CTX_set0_trusted_stack(ctx, anchors);
	X509_STORE_CTX_set_app_data(ctx, &c);
	if (!set_rules(ctx, v, path->anchor, now))
		return;
	good = X509_verify_cert(ctx) == 1;
	j->cost = c.cost;
	if (good) {
		j->chain = X509_STORE_CTX_get1_chain(ctx);
		if (j->chain)
			j->error = X509_V_OK;
		return;
	}
	j->error = X509_STORE_CTX_get_error(ctx);
	j->depth = X509_STORE_CTX_get_error_depth(ctx);
	if (j->error == X509_V_OK)
		j->error = X509_V_ERR_UNSPECIFIED;
}

static void look_at(struct look *look, X509 *cert, unsigned depth, bool anchor,
		    const struct verify_policy *policy)
{
	*look = (struct look){
		.cert = cert,
		.anchor = anchor,
		.names = verify_limits_names(cert),
		.constraints = verify_limits_constraints(cert),
		.error = verify_rules_key(X509_get0_pubkey(cert), (int)depth, policy),
	};
	/* An anchor is there because an administrator wants it. */
	if (look->error == X509_V_OK && !anchor)
		look->error = verify_rules_form(cert);
}

/* There is room for all certificates of all candidates. */
static const struct look *look_of(struct looks *looks, const struct verifier *v,
				  const struct path_search *path, unsigned depth)
{
	X509 *cert = path_cert(path, depth);
	bool anchor = cert == path->anchor; /* a pinned leaf may be one, and then again not */
	unsigned i = 0;

	while (i < looks->n && (looks->at[i].cert != cert || looks->at[i].anchor != anchor))
		i++;
	if (i == looks->n)
		look_at(&looks->at[looks->n++], cert, depth, anchor, &v->policy);
	return &looks->at[i];
}

/* Before anything is computed with a key: from the leaf upwards. */
static int form_error(const struct verifier *v, const struct path_search *path, struct looks *looks,
		      struct judgement *j)
{
	unsigned n = path_length(path), names = 0, comparisons = 0;

	for (unsigned depth = 0; depth < n; depth++) {
		const struct look *look = look_of(looks, v, path, depth);

		j->depth = (int)depth;
		if (look->error != X509_V_OK)
			return look->error;
		/* RFC 5280 6.1.4: each name below is held against each constraint. */
		comparisons += names * look->constraints;
		names += look->names;
		if (comparisons > VERIFY_COMPARISONS_MAX) {
			j->excess = (struct verify_excess){comparisons, VERIFY_COMPARISONS_MAX};
			return VERIFY_ERR_COMPARISONS;
		}
	}
	return X509_V_OK;
}

static int purpose_error(STACK_OF(X509) * chain, enum verify_purpose purpose, int *depth)
{
	int error;

	for (*depth = 0; *depth < sk_X509_num(chain); (*depth)++) {
		error = verify_rules_purpose(sk_X509_value(chain, *depth), *depth, purpose);
		if (error != X509_V_OK)
			return error;
	}
	*depth = 0;
	return verify_rules_uris(sk_X509_value(chain, 0), chain);
}

/* Of every certificate but the anchor, from the top: what a revoked CA says of others is nothing.
 */
static int crl_error(const struct verifier *v, STACK_OF(X509) * chain, time_t now, int *depth)
{
	int error = X509_V_OK;

	for (*depth = sk_X509_num(chain) - 2; v->crls && *depth >= 0; (*depth)--) {
		error = crl_set_check(v->crls, sk_X509_value(chain, *depth),
				      sk_X509_value(chain, *depth + 1), now);
		if (v->policy.crl_check == REVOCATION_OPTIONAL &&
		    (error == VERIFY_ERR_CRL_MISSING || error == VERIFY_ERR_CRL_EXPIRED))
			error = X509_V_OK;
		if (error != X509_V_OK)
			return error;
	}
	*depth = 0;
	return X509_V_OK;
}

static struct judgement judge(const struct verifier *v, enum verify_purpose purpose,
			      struct path_search *path, struct looks *looks, time_t now)
{
	struct judgement j = {.error = X509_V_ERR_OUT_OF_MEM};
	int error = form_error(v, path, looks, &j);

	if (error != X509_V_OK) {
		j.error = error;
		return j;
	}
	j.depth = 0;
	judge_by_openssl(v, path, now, &j);
	if (j.error != X509_V_OK)
		return j;
	j.error = purpose_error(j.chain, purpose, &j.depth);
	if (j.error == X509_V_OK)
		j.error = crl_error(v, j.chain, now, &j.depth);
	if (j.error != X509_V_OK) {
		sk_X509_pop_free(j.chain, X509_free);
		j.chain = NULL;
	}
	return j;
}

/* ---- all candidates ---- */

static bool is_signature_failure(int error)
{
	return error == X509_V_ERR_CERT_SIGNATURE_FAILURE;
}

/*
 * What is nearer to be right tells more: a path that was really signed before one
 * that only has the names; then the fault that is nearest to the leaf, since all
 * above it is right.
 */
static bool tells_more(const struct judgement *j, const struct verify_result *best)
{
	bool failure = is_signature_failure(j->error), best_failure;

	if (best->error == X509_V_OK)
		return true;
	best_failure = is_signature_failure(best->error);
	if (failure != best_failure)
		return best_failure;
	return j->depth < best->depth;
}

static void no_candidate(const struct path_search *path, X509 *leaf, struct verify_result *out)
{
	unsigned depth;

	out->at = path_dead_end(path, leaf, &depth);
	out->depth = (int)depth;
	if (path->exhausted)
		out->error = VERIFY_ERR_BUDGET;
	else if (path->too_long)
		out->error = X509_V_ERR_CERT_CHAIN_TOO_LONG;
	else if (X509_self_signed(out->at, 0) != 1)
		out->error = X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY;
	else
		out->error = depth ? X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN
				   : X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT;
}

/* Returns true when there is nothing more to try. */
static bool conclude(const struct judgement *j, struct path_search *path, struct verify_result *out)
{
	if (j->error == X509_V_OK || j->error == X509_V_ERR_OUT_OF_MEM) {
		out->error = j->error;
		out->depth = 0;
		out->at = NULL;
		out->chain = j->chain;
		return true;
	}
	if (tells_more(j, out)) {
		out->error = j->error;
		out->depth = j->depth;
		out->excess = j->excess;
		out->at = (unsigned)j->depth < path_length(path)
				  ? path_cert(path, (unsigned)j->depth)
				  : NULL;
	}
	if (is_signature_failure(j->error))
		path_reject(path, (unsigned)j->depth);
	return false;
}

/* ---- the budget ---- */

static int64_t cpu_ms(void)
{
	struct timespec t;

	if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t))
		return 0;
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

struct budget {
	int64_t began_ms;
	unsigned signatures_us;
	struct looks looks;
};

static bool may_go_on(const struct budget *b, const struct path_search *path,
		      const struct verify_result *out)
{
	if (!out->candidates)
		return true;
	return out->candidates < VERIFY_CANDIDATES_MAX &&
	       out->signatures + path_length(path) <= VERIFY_SIGNATURES_MAX &&
	       b->signatures_us + verify_rules_cost(X509_get0_pubkey(path->anchor)) <=
		       VERIFY_SIGNATURES_US_MAX &&
	       cpu_ms() - b->began_ms < VERIFY_CPU_MS_MAX;
}

static int search(const struct verifier *v, enum verify_purpose purpose, X509 *leaf,
		  const STACK_OF(X509) * untrusted, time_t now, struct verify_result *out)
{
	struct budget budget = {.began_ms = cpu_ms()};
	scoped_path path;
	bool done = false;

	if (path_begin(&path, leaf, untrusted, v->known, v->anchors, v->policy.depth, now)) {
		out->error = X509_V_ERR_OUT_OF_MEM;
		return -ENOMEM;
	}
	while (!done && path_next(&path) && may_go_on(&budget, &path, out)) {
		struct judgement j = judge(v, purpose, &path, &budget.looks, now);

		out->candidates++;
		out->signatures += j.cost.computed;
		budget.signatures_us += j.cost.us;
		done = conclude(&j, &path, out);
	}
	ERR_clear_error();
	if (!done && out->error == X509_V_OK)
		no_candidate(&path, leaf, out);
	if (out->error == X509_V_OK)
		return 0;
	return out->error == X509_V_ERR_OUT_OF_MEM ? -ENOMEM : -EACCES;
}

int verify_chain(const struct verifier *v, enum verify_purpose purpose, X509 *leaf,
		 const STACK_OF(X509) * untrusted, time_t now, struct verify_result *out)
{
	*out = (struct verify_result){.error = X509_V_OK};
	/* Before the first call that makes OpenSSL look into a certificate. */
	verify_limits_sent(leaf, untrusted, out);
	return out->error != X509_V_OK ? -EACCES : search(v, purpose, leaf, untrusted, now, out);
}

/* ---- saying ---- */

const char *verify_error_text(int error)
{
	switch (error) {
	case VERIFY_ERR_KEY:
		return "public key is of a kind that is refused";
	case VERIFY_ERR_SERIAL:
		return "serial number is longer than 20 octets";
	case VERIFY_ERR_BUDGET:
		return "too many possible certificate paths";
	case VERIFY_ERR_CRL_MISSING:
		return "no valid CRL of the issuer";
	case VERIFY_ERR_CRL_EXPIRED:
		return "the CRL of the issuer has expired";
	case VERIFY_ERR_CRL_INVALID:
		return "the CRL in the issuer's name is not signed with its key, or not valid yet";
	case VERIFY_ERR_OCSP:
		return "no valid OCSP response";
	default:
		return verify_limits_error_text(error) ? verify_limits_error_text(error)
						       : X509_verify_cert_error_string(error);
	}
}

void verify_result_text(const struct verify_result *r, char *buf, size_t len)
{
	char excess[128], subject[128];

	if (!verify_limits_error_text(r->error)) {
		snprintf(buf, len, "%s", verify_error_text(r->error));
		return;
	}
	verify_limits_text(r->error, &r->excess, excess, sizeof(excess));
	if (!r->at) {
		snprintf(buf, len, "%s", excess);
		return;
	}
	identity_subject(X509_get_subject_name(r->at), subject, sizeof(subject));
	snprintf(buf, len, "%s (certificate %d: %s)", excess, r->depth, subject);
}
