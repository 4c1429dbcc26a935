// SPDX-License-Identifier: Apache-2.0
/* Looks at the dates of the CRLs; see expiry.h. Knows no file and no peer. */
#include "config/expiry.h"

#include <time.h>
#include "pki/crl.h"
#include "pki/identity.h"
#include "base/log.h"

#define LONGEST_MS 60000 /* the clock may be set */

/* When something is to be said about a CRL. */
struct moments {
	time_t soon, end;
};

typedef void visit_fn(void *arg, const struct cfg_profile *p, const char *key, const X509_CRL *crl);

static struct moments moments_of(const X509_CRL *crl)
{
	time_t begin, end;

	/* A CRL with such dates is refused when it is loaded. */
	if (identity_time(X509_CRL_get0_lastUpdate(crl), &begin) ||
	    identity_time(X509_CRL_get0_nextUpdate(crl), &end))
		return (struct moments){0};
	return (struct moments){.soon = end - (end - begin) / 10, .end = end};
}

static void visit_side(const struct cfg_profile *p, const char *key, const struct cfg_revocation *r,
		       visit_fn *visit, void *arg)
{
	for (int i = 0; r->crl_check != REVOCATION_OFF && i < sk_X509_CRL_num(r->crls); i++) {
		const X509_CRL *crl = sk_X509_CRL_value(r->crls, i);

		if (!crl_superseded(r->crls, crl))
			visit(arg, p, key, crl);
	}
}

static void visit_all(const struct config *cfg, visit_fn *visit, void *arg)
{
	for (unsigned i = 0; i < cfg->n_profiles; i++) {
		const struct cfg_profile *p = cfg->profiles[i];

		visit_side(p, "client_crl", &p->client_revocation, visit, arg);
		visit_side(p, "server_crl", &p->server_revocation, visit, arg);
	}
}

/* ---- the log's ---- */

struct next {
	time_t after, first; /* first 0: none */
};

static void take_earlier(struct next *n, time_t t)
{
	if (t > n->after && (!n->first || t < n->first))
		n->first = t;
}

static void look_for_next(void *arg, const struct cfg_profile *p, const char *key,
			  const X509_CRL *crl)
{
	struct moments m = moments_of(crl);

	(void)p;
	(void)key;
	take_earlier(arg, m.soon);
	take_earlier(arg, m.end);
}

int expiry_wait(const struct expiry *e, const struct config *cfg)
{
	struct next next = {.after = e->told};
	time_t now = time(NULL);

	visit_all(cfg, look_for_next, &next);
	if (!next.first)
		return -1;
	if (next.first <= now)
		return 0;
	return next.first - now < LONGEST_MS / 1000 ? (int)(next.first - now) * 1000 : LONGEST_MS;
}

struct telling {
	time_t told, now;
};

static void tell(void *arg, const struct cfg_profile *p, const char *key, const X509_CRL *crl)
{
	const struct telling *t = arg;
	struct moments m = moments_of(crl);
	char issuer[256];

	identity_subject(X509_CRL_get_issuer(crl), issuer, sizeof(issuer));
	if (m.end <= t->now && m.end > t->told)
		log_warn("profile.%s.%s: the CRL of %s has expired", p->name, key, issuer);
	else if (m.end > t->now && m.soon <= t->now && m.soon > t->told)
		log_warn("profile.%s.%s: the CRL of %s expires in %lld s", p->name, key, issuer,
			 (long long)(m.end - t->now));
}

void expiry_turn(struct expiry *e, const struct config *cfg)
{
	struct telling telling = {.told = e->told, .now = time(NULL)};

	if (telling.now <= e->told)
		return;
	visit_all(cfg, tell, &telling);
	e->told = telling.now;
}

/* ---- the counters' ---- */

static void look_for_end(void *arg, const struct cfg_profile *p, const char *key,
			 const X509_CRL *crl)
{
	(void)p;
	(void)key;
	take_earlier(arg, moments_of(crl).end);
}

uint64_t expiry_first(const struct config *cfg)
{
	struct next next = {0};

	visit_all(cfg, look_for_end, &next);
	return (uint64_t)next.first;
}
