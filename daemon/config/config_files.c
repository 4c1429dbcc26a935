// SPDX-License-Identifier: Apache-2.0
/* What a configuration names: certificates, CRLs, OCSP responses and private keys are loaded here.
 */
#include "config/config_internal.h"

#include <stdarg.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <openssl/err.h>
#include "config/config.h"
#include "config/config_types.h"
#include "pki/crl.h"
#include "pki/crl_history.h"
#include "pki/identity.h"
#include "pki/pem.h"
#include "pki/pkcs11.h"

SCOPED_DEFINE(ssl_ctx, SSL_CTX, SSL_CTX_free)
#define scoped_ssl_ctx __attribute__((cleanup(scoped_ssl_ctx_free_))) SSL_CTX

/* ---- references and certificates ---- */

static STACK_OF(X509) *
	load_certs(struct loader *l, const struct cfg_key *k, unsigned object, const char *path)
{
	const struct cfg_file *f = path ? config_texts_file(l->texts, path) : NULL;
	STACK_OF(X509) *certs = NULL;
	char why[CFG_WHY_MAX];
	int err = 0;

	if (f)
		err = pem_parse_certs(f->data, f->len, &certs, why, sizeof(why));
	else if (path)
		err = pem_load_certs(path, &certs, why, sizeof(why));
	if (err < 0)
		cfg_complain_at(l, k, object, "%s", why);
	return certs;
}

static void load_staple(struct loader *l, struct cfg_certkey *ck)
{
	const struct cfg_file *f = config_texts_file(l->texts, ck->ocsp_response_file);
	char why[CFG_WHY_MAX];
	int err;

	if (f)
		err = staple_parse(f->data, f->len, ck->cert, ck->chain, time(NULL), &ck->staple,
				   why, sizeof(why));
	else
		err = staple_load(ck->ocsp_response_file, ck->cert, ck->chain, time(NULL),
				  &ck->staple, why, sizeof(why));
	if (err < 0)
		cfg_complain_at(l, cfg_row("certkey.<name>.ocsp_response"), ck->index, "%s", why);
}

/* Calls each with every name of the list. False: out of memory. */
static bool for_each_file (const char *list, void (*each)(void *arg, const char *path), void *arg)
{
	scoped_mem char *copy = list ? strdup(list) : NULL;
	char *rest = copy, *path;

	while (copy && (path = cfg_next_file(&rest)))
		each(arg, path);
	return copy || !list;
}

struct crl_loading {
	struct loader *l;
	const struct cfg_key *k;
	unsigned object;
	STACK_OF(X509_CRL) * crls;
};

static void load_crl_file(void *arg, const char *path)
{
	struct crl_loading *loading = arg;
	const struct cfg_file *f = config_texts_file(loading->l->texts, path);
	char why[CFG_WHY_MAX];

	if ((f ? pem_parse_crls(f->data, f->len, loading->crls, why, sizeof(why))
	       : pem_load_crls(path, loading->crls, why, sizeof(why))) < 0)
		cfg_complain_at(loading->l, loading->k, loading->object, "%s: %s", path, why);
}

/* Those of a side that somebody looks at, with a name in name; else without crls. */
struct crl_list cfg_crls_of(const struct cfg_profile *p, const struct cfg_revocation *r,
			    char name[CFG_KEY_MAX])
{
	bool client = r == &p->client_revocation;

	snprintf(name, CFG_KEY_MAX, "profile.%s.%s_crl", p->name, client ? "client" : "server");
	if (r->crl_check == REVOCATION_OFF || !r->crl_files)
		return (struct crl_list){.name = name};
	return (struct crl_list){name, r->crl_files, r->crls, client ? p->client_ca : p->server_ca};
}

/* A list that nobody who may has signed must not take the place of one that somebody has. */
static void check_crl_signer(struct loader *l, const struct crl_loading *loading, X509_CRL *crl,
			     const struct crl_list *list)
{
	const char *ca = strstr(list->name, "client_crl") ? "client_ca" : "server_ca";
	const struct said *s = cfg_said(l, loading->k, loading->object);
	char issuer[256];

	identity_subject(X509_CRL_get_issuer(crl), issuer, sizeof(issuer));
	switch (crl_signer(crl, list->cas)) {
	case CRL_SIGNER_KNOWN:
		return;
	case CRL_SIGNER_OTHER:
		cfg_complain_at(
			l, loading->k, loading->object,
			"the CRL of %s is not signed by the CA of that name in %s; fetch it "
			"again, or add the CA's other certificate there",
			issuer, ca);
		return;
	case CRL_SIGNER_UNKNOWN:
		log_warn("%s:%u: %s: the CRL of %s cannot be verified before a peer shows that "
			 "CA; add its certificate to %s",
			 s->at.file, s->at.line, list->name, issuer, ca);
	}
}

static void complain_of_history(void *arg, const char *what)
{
	const struct crl_loading *loading = arg;

	cfg_complain_at(loading->l, loading->k, loading->object, "%s", what);
}

static void check_crls(struct loader *l, struct crl_loading *loading,
		       const struct cfg_revocation *r)
{
	char name[CFG_KEY_MAX];
	struct crl_list list = cfg_crls_of(l->cfg->profiles[loading->object], r, name);

	if (!list.crls || cfg_said(l, loading->k, loading->object)->wrong)
		return;
	for (int i = 0; l->depth >= KEYS && i < sk_X509_CRL_num(list.crls); i++)
		check_crl_signer(l, loading, sk_X509_CRL_value(list.crls, i), &list);
	if (crl_history_check(l->crl_history, &list, complain_of_history, loading))
		l->report.out_of_memory = true;
}

static void load_crls(struct loader *l, const char *side, unsigned object, struct cfg_revocation *r)
{
	char files[CFG_KEY_MAX], check[CFG_KEY_MAX];
	const struct cfg_key *crl, *crl_check;
	struct crl_loading loading;

	snprintf(files, sizeof(files), "profile.<name>.%s_crl", side);
	snprintf(check, sizeof(check), "profile.<name>.%s_crl_check", side);
	crl = cfg_row(files);
	crl_check = cfg_row(check);
	r->crls = sk_X509_CRL_new_null();
	loading = (struct crl_loading){l, crl, object, r->crls};
	if (!r->crls || !for_each_file (r->crl_files, load_crl_file, &loading))
		l->report.out_of_memory = true;
	check_crls(l, &loading, r);
	if (r->crl_check != REVOCATION_OFF && !cfg_said(l, crl, object)->value)
		cfg_complain_at(l, crl_check, object,
				"there is no CRL to look at; set profile.%s.%s_crl",
				l->cfg->profiles[object]->name, side);
	if (r->crl_check == REVOCATION_OFF && cfg_said(l, crl, object)->value &&
	    !cfg_said(l, crl_check, object)->value)
		cfg_complain_at(
			l, crl, object,
			"nobody looks at it; set profile.%s.%s_crl_check = optional or mandatory",
			l->cfg->profiles[object]->name, side);
}

void cfg_load_certificates(struct loader *l)
{
	const struct cfg_key *cert = cfg_row("certkey.<name>.cert");
	const struct cfg_key *client_ca = cfg_row("profile.<name>.client_ca");
	const struct cfg_key *server_ca = cfg_row("profile.<name>.server_ca");
	const struct cfg_key *sid_issuers = cfg_row("profile.<name>.forge.sid_issuers");
	const struct cfg_key *policy_ca = cfg_row("certkey.<name>.policy.client_ca");

	for_each_object (l->cfg, SCOPE_CERTKEY, i) {
		struct cfg_certkey *ck = l->cfg->certkeys[i];

		ck->policy.client_ca = load_certs(l, policy_ca, i, ck->policy.client_ca_file);
		ck->chain = load_certs(l, cert, i, ck->cert_file);
		if (ck->chain)
			ck->cert = sk_X509_shift(ck->chain);
		if (ck->cert && ck->ocsp_response_file)
			load_staple(l, ck);
	}
	for_each_object (l->cfg, SCOPE_PROFILE, i) {
		struct cfg_profile *p = l->cfg->profiles[i];

		p->client_ca = load_certs(l, client_ca, i, p->client_ca_file);
		p->server_ca = load_certs(l, server_ca, i, p->server_ca_file);
		p->forge.sid_issuers = load_certs(l, sid_issuers, i, p->forge.sid_issuers_file);
		load_crls(l, "client", i, &p->client_revocation);
		load_crls(l, "server", i, &p->server_revocation);
	}
}

/* The cfg_row of a rule's setting. */
static const struct cfg_key *rule_row(enum forge_setting s)
{
	char pattern[CFG_KEY_MAX];

	snprintf(pattern, sizeof(pattern), "profile.<name>.forge.%s", forge_setting_name(s));
	return cfg_row(pattern);
}

/* Each was looked at when its line was read; what is wrong only together is found here. */
void cfg_make_rules(struct loader *l, struct cfg_profile *p)
{
	struct forge_rules *rules = forge_rules_new();
	char why[FORGE_WHY_MAX];
	enum forge_setting where;

	p->forge.rules = rules;
	for (int s = 0; rules && s < FORGE_SETTINGS; s++) {
		if (p->forge.text[s] && forge_rules_set(rules, s, p->forge.text[s], why))
			l->report.out_of_memory = true;
	}
	if (!rules) {
		l->report.out_of_memory = true;
		return;
	}
	rules->start = p->forge.start;
	rules->sid_issuers = p->forge.sid_issuers;
	if (forge_rules_contradiction(rules, &where, why))
		cfg_complain_at(l, rule_row(where), p->index, "%s", why);
}

/* Which certificate, from 1, OpenSSL would not take into a context of its security level; or 0. */
static int refused_certificate(const struct cfg_certkey *ck, SSL_CTX *ctx)
{
	if (SSL_CTX_use_certificate(ctx, ck->cert) != 1)
		return 1;
	for (int i = 0; i < sk_X509_num(ck->chain); i++) {
		if (SSL_CTX_add1_chain_cert(ctx, sk_X509_value(ck->chain, i)) != 1)
			return i + 2;
	}
	return 0;
}

/* Here, where file and line are known, and not when the contexts are built. */
static void check_certkey(struct loader *l, const struct cfg_certkey *ck)
{
	scoped_ssl_ctx *ctx = SSL_CTX_new(TLS_method());
	char why[200];
	int n;

	if (!ctx) {
		l->report.out_of_memory = true;
		return;
	}
	ERR_clear_error();
	n = refused_certificate(ck, ctx);
	if (n)
		cfg_complain_at(
			l, cfg_row("certkey.<name>.cert"), ck->index,
			"OpenSSL refuses certificate %d of the file: %s; use RSA keys of 2048 "
			"bits or more, or EC keys, and signatures with SHA-256 or better",
			n, log_openssl(why, sizeof(why)));
}

/* What certreq.c knows a backend to accept or not. */
void cfg_check_fallback(struct loader *l, const struct cfg_profile *p)
{
	EVP_PKEY *key = p->fallback_certkey && p->fallback_certkey->cert
				? X509_get0_pubkey(p->fallback_certkey->cert)
				: NULL;

	if (key && !EVP_PKEY_is_a(key, "RSA") &&
	    !(EVP_PKEY_is_a(key, "EC") && EVP_PKEY_get_bits(key) == 256))
		cfg_complain_at(l, cfg_row("profile.<name>.fallback_certkey"), p->index,
				"has a key that backends may not take; use RSA or P-256");
}

/* The processes that face the network have no files, so no token either. */
static void check_token(struct loader *l, const struct cfg_certkey *ck)
{
	const struct cfg_key *key = cfg_row("certkey.<name>.key");

	if (ck->serving && ck->key_file && pkcs11_uri(ck->key_file) &&
	    !cfg_said(l, key, ck->index)->wrong)
		cfg_complain_at(
			l, key, ck->index,
			"is in a token, and the certkey of a vserver; only the keys of forging "
			"CAs can be there");
}

void cfg_check_certkeys(struct loader *l)
{
	for_each_object (l->cfg, SCOPE_CERTKEY, i)
		check_token(l, l->cfg->certkeys[i]);
	for_each_object (l->cfg, SCOPE_CERTKEY, i) {
		if (l->cfg->certkeys[i]->cert)
			check_certkey(l, l->cfg->certkeys[i]);
	}
}

/* ---- private keys ---- */

static void printf_like(3, 4)
	complain_key(struct report *r, const struct cfg_certkey *ck, const char *fmt, ...)
{
	char what[CFG_WHY_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	cfg_complain(r, ck->key_where, "certkey.%s.key = %s: %s", ck->name, ck->key_file, what);
}

static void load_key(struct cfg_certkey *ck, struct report *r)
{
	scoped_pkey *pkey = NULL;
	enum file_use use = ck->forging ? FILE_OF_OWNER : FILE_OF_GROUP;
	char why[CFG_WHY_MAX];

	if (pkcs11_uri(ck->key_file) ? pkcs11_load_key(ck->key_file, ck->passphrase_file, &pkey,
						       why, sizeof(why)) < 0
				     : pem_load_key(ck->key_file, ck->passphrase_file, use, &pkey,
						    why, sizeof(why)) < 0) {
		complain_key(r, ck, "%s", why);
		return;
	}
	if (EVP_PKEY_eq(X509_get0_pubkey(ck->cert), pkey) != 1) {
		complain_key(
			r, ck,
			"is not the key of the certificate in %s; give the one it was made for",
			ck->cert_file);
		return;
	}
	ck->pkey = TAKE_PTR(pkey);
}

/* Not of a certkey whose certificate is wrong: there is nothing that the key could belong to. */
void cfg_check_keys(struct loader *l)
{
	const struct cfg_key *cert = cfg_row("certkey.<name>.cert");

	for_each_object (l->cfg, SCOPE_CERTKEY, i) {
		struct cfg_certkey *ck = l->cfg->certkeys[i];

		if (ck->cert && ck->key_file && !cfg_said(l, cert, i)->wrong)
			load_key(ck, &l->report);
	}
}

/* ---- public ---- */

int config_load_keys(struct config *cfg, unsigned kinds, FILE *errors)
{
	struct report r = {.path = cfg->files[0]};

	for_each_object (cfg, SCOPE_CERTKEY, i) {
		struct cfg_certkey *ck = cfg->certkeys[i];
		bool wanted = (kinds & CFG_KEYS_SERVING && (ck->serving || ck->monitor)) ||
			      (kinds & CFG_KEYS_FORGING && ck->forging);

		if (wanted && !ck->pkey)
			load_key(ck, &r);
	}
	return cfg_report_end(&r, errors);
}

struct verify_policy config_policy(const struct cfg_profile *p, const struct cfg_revocation *r)
{
	struct verify_policy policy = p->verify;

	policy.crl_check = r->crl_check;
	policy.crls = r->crls;
	return policy;
}

void config_changing_files(const struct config *cfg, void (*found)(void *arg, const char *path),
			   void *arg)
{
	for (unsigned i = 0; i < cfg->n_profiles; i++) {
		(void)for_each_file (cfg->profiles[i]->client_revocation.crl_files, found, arg);
		(void)for_each_file (cfg->profiles[i]->server_revocation.crl_files, found, arg);
	}
}
