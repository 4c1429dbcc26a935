// SPDX-License-Identifier: Apache-2.0
/* Holds an identity against what a forging CA is for. Knows no worker and no socket. */
#include "signer/ca_policy.h"

#include <string.h>
#include <strings.h>
#include <openssl/err.h>
#include "pki/name_pattern.h"
#include "pki/names.h"

#define BLANK	 " \t"
#define SPIFFE	 "spiffe://"
#define ITEM_MAX 1024

static const char *const refusal_texts[CA_REFUSALS] = {
	[CA_MAY] = "allowed",
	[CA_OTHER_CLIENT_CA] = "the client's CA is none of policy.client_ca",
	[CA_NAME] = "a name fits no pattern of policy.names",
	[CA_TRUST_DOMAIN] = "the SPIFFE ID is of none of policy.trust_domains",
	[CA_MEMORY] = "out of memory",
};

const char *ca_refusal_text(enum ca_refusal r)
{
	return (unsigned)r < CA_REFUSALS ? refusal_texts[r] : "unknown refusal";
}

/* ---- lists ---- */

/* The list's next item, copied to out; false: there is none. */
static bool next_item(const char **list, char out[ITEM_MAX])
{
	size_t len;

	*list += strspn(*list, BLANK);
	len = strcspn(*list, BLANK);
	if (!len)
		return false;
	snprintf(out, ITEM_MAX, "%.*s", (int)len, *list);
	*list += len;
	return true;
}

/* ---- the identity ---- */

/* By name and key: an anchor's certificate may have been renewed. */
static bool from_client_ca(const struct cfg_ca_policy *cfg, const struct identity *id)
{
	X509 *anchor = sk_X509_value(id->chain, sk_X509_num(id->chain) - 1);

	for (int i = 0; i < sk_X509_num(cfg->client_ca); i++) {
		X509 *ca = sk_X509_value(cfg->client_ca, i);

		if (!X509_NAME_cmp(X509_get_subject_name(ca), X509_get_subject_name(anchor)) &&
		    EVP_PKEY_eq(X509_get0_pubkey(ca), X509_get0_pubkey(anchor)) == 1)
			return true;
	}
	ERR_clear_error();
	return false;
}

/* Of name_patterns_fit(). */
static enum ca_refusal refusal(int fits)
{
	if (fits < 0)
		return CA_MEMORY;
	return fits ? CA_MAY : CA_NAME;
}

static bool domain_listed(const char *domains, const char *uri)
{
	char domain[ITEM_MAX];
	size_t len;

	uri += strlen(SPIFFE);
	len = strcspn(uri, "/");
	while (next_item(&domains, domain)) {
		if (strlen(domain) == len && !memcmp(domain, uri, len))
			return true;
	}
	return false;
}

static bool domain_allowed(const char *domains, const GENERAL_NAME *name)
{
	const ASN1_STRING *s = name->type == GEN_URI ? name->d.uniformResourceIdentifier : NULL;
	unsigned char *uri = NULL;
	int len = s ? names_utf8(s, &uri) : 0;
	bool allowed = len >= 0 && (len < (int)strlen(SPIFFE) ||
				    strncasecmp((char *)uri, SPIFFE, strlen(SPIFFE)) != 0 ||
				    domain_listed(domains, (char *)uri));

	OPENSSL_free(uri);
	return allowed;
}

static enum ca_refusal check_name(const struct cfg_ca_policy *cfg, const GENERAL_NAME *name)
{
	enum ca_refusal r = cfg->names ? refusal(name_patterns_fit(cfg->names, name)) : CA_MAY;

	if (r == CA_MAY && cfg->trust_domains && !domain_allowed(cfg->trust_domains, name))
		return CA_TRUST_DOMAIN;
	return r;
}

/*
 * With patterns, every alternative name must fit one, and the subject, too, if
 * there is a pattern for it or nothing else to go by.
 */
static enum ca_refusal check_names(const struct cfg_ca_policy *cfg, const struct identity *id)
{
	scoped_names *names = X509_get_ext_d2i(id->leaf, NID_subject_alt_name, NULL, NULL);
	enum ca_refusal r = CA_MAY;

	for (int i = 0; r == CA_MAY && i < sk_GENERAL_NAME_num(names); i++)
		r = check_name(cfg, sk_GENERAL_NAME_value(names, i));
	if (r == CA_MAY && cfg->names &&
	    (sk_GENERAL_NAME_num(names) <= 0 || name_patterns_have_subject(cfg->names)))
		r = refusal(name_patterns_fit_subject(cfg->names, X509_get_subject_name(id->leaf)));
	return r;
}

enum ca_refusal ca_policy_check(const struct ca_policy *p, const struct identity *id)
{
	if (p->cfg->client_ca && !from_client_ca(p->cfg, id))
		return CA_OTHER_CLIENT_CA;
	return p->cfg->names || p->cfg->trust_domains ? check_names(p->cfg, id) : CA_MAY;
}

/* A bucket of one minute's certificates, full at first. */
bool ca_policy_take(struct ca_policy *p, uint64_t now_ms)
{
	double rate = p->cfg->rate;

	if (!p->cfg->rate)
		return true;
	if (!p->at_ms)
		p->tokens = rate;
	else
		p->tokens += (double)(now_ms - p->at_ms) * rate / 60000;
	p->at_ms = now_ms ? now_ms : 1;
	if (p->tokens > rate)
		p->tokens = rate;
	if (p->tokens < 1)
		return false;
	p->tokens--;
	return true;
}
