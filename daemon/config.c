// SPDX-License-Identifier: Apache-2.0
/*
 * A configuration file to one struct config: lines, objects, references,
 * certificates, checks. Does not know what a key looks like (config_table.c)
 * nor how a PEM file is read (pem.c).
 */
#include "config.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <openssl/err.h>
#include "config_types.h"
#include "crl.h"
#include "crl_history.h"
#include "forge.h"
#include "identity.h"
#include "machine.h"
#include "own.h"
#include "pem.h"
#include "pkcs11.h"

#define CONFIG_LINE_MAX 4096

SCOPED_DEFINE(ssl_ctx, SSL_CTX, SSL_CTX_free)
#define scoped_ssl_ctx __attribute__((cleanup(scoped_ssl_ctx_free_))) SSL_CTX

/* ---- errors: collected, then printed in the order of the lines ---- */

struct complaint {
	struct cfg_where at; /* line 0: about the configuration as a whole */
	unsigned number;     /* order of finding, among those of one line */
	char *text;
};

struct report {
	const char *path; /* of the first text */
	struct complaint *complaints;
	unsigned n;
	bool out_of_memory;
};

static void printf_like(3, 4) complain(struct report *r, struct cfg_where at, const char *fmt, ...)
{
	struct complaint *more = reallocarray(r->complaints, r->n + 1, sizeof(*more));
	va_list ap;

	if (more)
		r->complaints = more;
	va_start(ap, fmt);
	if (!more || vasprintf(&more[r->n].text, fmt, ap) < 0) {
		r->out_of_memory = true;
	} else {
		more[r->n].at = at;
		more[r->n].number = r->n;
		r->n++;
	}
	va_end(ap);
}

static int by_line(const void *a, const void *b)
{
	const struct complaint *x = a, *y = b;

	/* What is about the whole comes last. */
	if (!x->at.line != !y->at.line)
		return x->at.line ? -1 : 1;
	if (x->at.source != y->at.source)
		return x->at.source < y->at.source ? -1 : 1;
	if (x->at.line != y->at.line)
		return x->at.line < y->at.line ? -1 : 1;
	return x->number < y->number ? -1 : 1;
}

/* Prints and frees. Returns 0 if there was nothing to print, else -EINVAL. */
static int report_end(struct report *r, FILE *errors)
{
	if (!r->n && !r->out_of_memory)
		return 0;
	if (r->n)
		qsort(r->complaints, r->n, sizeof(*r->complaints), by_line);
	for (unsigned i = 0; i < r->n; i++) {
		const struct complaint *c = &r->complaints[i];

		if (c->at.line)
			fprintf(errors, "%s:%u: %s\n", c->at.file, c->at.line, c->text);
		else
			fprintf(errors, "%s: %s\n", r->path, c->text);
		free(c->text);
	}
	free(r->complaints);
	if (r->out_of_memory)
		fprintf(errors, "%s: out of memory\n", r->path);
	return -EINVAL;
}

/* ---- what the file said, kept until everything is checked ---- */

/* The last assignment to one key of one object. */
struct said {
	char *value; /* NULL: no text says */
	struct cfg_where at;
	bool wrong; /* complained about: nothing can be concluded from the member */
};

struct notes {
	struct cfg_where at; /* where the object was first named */
	struct said *said;   /* by row of the table */
};

/* What is looked at, each with all before it. */
enum depth {
	TEXTS,
	CERTIFICATES,
	KEYS
};

struct loader {
	const struct cfg_texts *texts;
	struct config *cfg;
	enum depth depth; /* KEYS: all that can be, signatures of CRLs, too */
	const char *crl_history;
	struct report report;
	struct notes *notes[SCOPES]; /* by index of the object */
	unsigned n_notes[SCOPES];
};

static unsigned row_of(const struct cfg_key *k)
{
	return k - cfg_keys;
}

static struct said *said(const struct loader *l, const struct cfg_key *k, unsigned object)
{
	return &l->notes[k->scope][object].said[row_of(k)];
}

/* For the object that is about to be added to the scope. */
static int notes_add(struct loader *l, enum cfg_scope scope, struct cfg_where at)
{
	struct notes *more = reallocarray(l->notes[scope], l->n_notes[scope] + 1, sizeof(*more));
	struct notes *n;

	if (!more)
		return -ENOMEM;
	l->notes[scope] = more;
	n = &more[l->n_notes[scope]];
	n->at = at;
	n->said = calloc(cfg_n_keys, sizeof(*n->said));
	if (!n->said)
		return -ENOMEM;
	l->n_notes[scope]++;
	return 0;
}

static void notes_free(struct loader *l)
{
	for (enum cfg_scope scope = 0; scope < SCOPES; scope++) {
		for (unsigned i = 0; i < l->n_notes[scope]; i++) {
			for (unsigned k = 0; k < cfg_n_keys; k++)
				free(l->notes[scope][i].said[k].value);
			free(l->notes[scope][i].said);
		}
		free(l->notes[scope]);
	}
}

/* The row of a member; the pattern is one of ours. */
static const struct cfg_key *row(const char *pattern)
{
	const char *name;
	size_t len;

	return cfg_find(pattern, &name, &len);
}

/* An error at the assignment to k, or, if the file has none, where the object was first named. */
static void printf_like(4, 5) complain_at(struct loader *l, const struct cfg_key *k,
					  unsigned object, const char *fmt, ...)
{
	struct said *s = said(l, k, object);
	const struct cfg_head *head = cfg_object(l->cfg, k->scope, object);
	char key[CFG_KEY_MAX];
	scoped_mem char *what = NULL;
	va_list ap;

	s->wrong = true;
	va_start(ap, fmt);
	if (vasprintf(&what, fmt, ap) < 0) {
		what = NULL;
		l->report.out_of_memory = true;
	}
	va_end(ap);
	if (!what)
		return;
	cfg_key_text(k, k->scope == SCOPE_GLOBAL ? NULL : head->name, key);
	if (s->value)
		complain(&l->report, s->at, "%s = %s: %s", key, s->value, what);
	else
		complain(&l->report, l->notes[k->scope][object].at, "%s: %s", key, what);
}

/* ---- lines ---- */

static const struct cfg_head *find_object(const struct config *cfg, enum cfg_scope scope,
					  const char *name)
{
	for (unsigned i = 0; i < cfg_count(cfg, scope); i++) {
		const struct cfg_head *head = cfg_object(cfg, scope, i);

		if (!strcmp(head->name, name))
			return head;
	}
	return NULL;
}

/* Index of the object that is named in a line, made if need be; -ENOMEM. */
static int object_index(struct loader *l, enum cfg_scope scope, const char *name,
			struct cfg_where at)
{
	const struct cfg_head *head;

	if (scope == SCOPE_GLOBAL)
		return 0;
	head = find_object(l->cfg, scope, name);
	if (head)
		return head->index;
	if (notes_add(l, scope, at) < 0)
		return -ENOMEM;
	head = cfg_object_add(l->cfg, scope, name);
	return head ? (int)head->index : -ENOMEM;
}

static void unknown_key(struct loader *l, struct cfg_where at, const char *key, const char *value)
{
	char near[CFG_KEY_MAX];

	if (cfg_nearest(key, near))
		complain(&l->report, at, "%s = %s: unknown key; did you mean %s?", key, value,
			 near);
	else
		complain(&l->report, at,
			 "%s = %s: unknown key; the example ktlsgate.conf lists all keys", key,
			 value);
}

static void assign(struct loader *l, struct cfg_where at, const char *key, const char *value)
{
	const char *name_start;
	char name[CFG_NAME_MAX + 1], why[CFG_WHY_MAX];
	size_t name_len;
	const struct cfg_key *k = cfg_find(key, &name_start, &name_len);
	struct said *s;
	void *object;
	int index;

	if (!k) {
		unknown_key(l, at, key, value);
		return;
	}
	if (k->scope != SCOPE_GLOBAL && !cfg_name_valid(name_start, name_len)) {
		complain(
			&l->report, at,
			"%s = %s: '%.*s' is no valid name for a %s; use 1 to %d of A-Z a-z 0-9 _ -",
			key, value, (int)name_len, name_start, cfg_scopes[k->scope].name,
			CFG_NAME_MAX);
		return;
	}
	snprintf(name, sizeof(name), "%.*s", (int)name_len, name_start);
	index = object_index(l, k->scope, name, at);
	if (index < 0) {
		l->report.out_of_memory = true;
		return;
	}
	s = said(l, k, index);
	free(s->value);
	s->value = strdup(value);
	s->at = at;
	s->wrong = false;
	if (!s->value) {
		l->report.out_of_memory = true;
		return;
	}
	object = cfg_object(l->cfg, k->scope, index);
	if (k->where)
		*(struct cfg_where *)cfg_member(object, k->where) = at;
	if (!*value)
		complain_at(l, k, index, "the value is missing; %s", k->help);
	else if (k->type->parse(k, value, cfg_member(object, k->offset), why) < 0)
		complain_at(l, k, index, "%s", why);
}

static char *trim(char *s)
{
	char *end = s + strlen(s);

	while (end > s && isspace((unsigned char)end[-1]))
		*--end = '\0';
	while (isspace((unsigned char)*s))
		s++;
	return s;
}

static void cut_comment(char *s)
{
	if (s[0] == '#' || s[0] == ';')
		s[0] = '\0';
	for (char *p = s; *p; p++) {
		if (*p == '#' && isspace((unsigned char)p[-1])) {
			*p = '\0';
			return;
		}
	}
}

/* The column of a byte that has no place in a text file, or 0. */
static size_t control_byte(const char *line, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (iscntrl((unsigned char)line[i]) && line[i] != '\t')
			return i + 1;
	}
	return 0;
}

static void read_line(struct loader *l, struct cfg_where at, char *line, size_t len)
{
	char *key, *equals;
	size_t column;

	if (len && line[len - 1] == '\r')
		line[--len] = '\0';
	if (len > CONFIG_LINE_MAX) {
		complain(&l->report, at, "the line has %zu bytes; at most %d are allowed", len,
			 CONFIG_LINE_MAX);
		return;
	}
	column = control_byte(line, len);
	if (column) {
		complain(&l->report, at,
			 "byte %zu of the line is 0x%02x; use text without control characters",
			 column, (unsigned char)line[column - 1]);
		return;
	}
	key = trim(line);
	cut_comment(key);
	key = trim(key);
	if (!*key)
		return;
	equals = strchr(key, '=');
	if (!equals) {
		complain(&l->report, at, "%s: there is no '='; write KEY = VALUE", key);
		return;
	}
	*equals = '\0';
	assign(l, at, trim(key), trim(equals + 1));
}

static void read_text(struct loader *l, unsigned source, const struct cfg_text *t)
{
	struct cfg_where at = {.file = l->cfg->files[source], .source = source};
	const char *next, *end = t->text + t->len;

	for (const char *p = t->text; p < end && !l->report.out_of_memory; p = next + 1) {
		scoped_mem char *line = NULL;

		next = memchr(p, '\n', (size_t)(end - p));
		if (!next)
			next = end;
		at.line++;
		/* A copy: the line is cut up, and the text is to be loaded again. */
		line = malloc((size_t)(next - p) + 1);
		if (!line) {
			l->report.out_of_memory = true;
			return;
		}
		memcpy(line, p, (size_t)(next - p));
		line[next - p] = '\0';
		read_line(l, at, line, (size_t)(next - p));
	}
}

/* ---- references and certificates ---- */

#define for_each_key(k)		   for (const struct cfg_key *k = cfg_keys; k < cfg_keys + cfg_n_keys; k++)
#define for_each_object(cfg, s, i) for (unsigned i = 0; i < cfg_count(cfg, s); i++)

static void check_mandatory(struct loader *l)
{
	for_each_key (k) {
		char range[200] = "";
		scoped_file *f = k->mandatory ? fmemopen(range, sizeof(range), "w") : NULL;

		if (!f)
			continue;
		k->type->range(k, f);
		fflush(f);
		for_each_object (l->cfg, k->scope, i) {
			if (!said(l, k, i)->value)
				complain_at(l, k, i, "is missing; a %s needs it: %s (%s)",
					    cfg_scopes[k->scope].name, range, k->help);
		}
	}
}

static void resolve_reference(struct loader *l, const struct cfg_key *k, unsigned object)
{
	const char *wanted = said(l, k, object)->value, *kind = cfg_scopes[k->refers].name;
	const struct cfg_head *found;

	if (!wanted || said(l, k, object)->wrong)
		return;
	found = find_object(l->cfg, k->refers, wanted);
	if (!found) {
		complain_at(l, k, object, "there is no %s of this name; define %s.%s.*", kind, kind,
			    wanted);
		return;
	}
	cfg_set_pointer(cfg_member(cfg_object(l->cfg, k->scope, object), k->offset), (void *)found);
}

/* The object of the next name in *text, which is moved behind it; NULL after a complaint. */
static void *next_reference(struct loader *l, const struct cfg_key *k, unsigned object,
			    const char **text)
{
	const char *kind = cfg_scopes[k->refers].name;
	size_t len = strcspn(*text, CFG_BLANK);
	char name[CFG_NAME_MAX + 1];
	const struct cfg_head *found;

	snprintf(name, sizeof(name), "%.*s", (int)len, *text);
	*text += len;
	*text += strspn(*text, CFG_BLANK);
	found = find_object(l->cfg, k->refers, name);
	if (!found)
		complain_at(l, k, object, "there is no %s %s; define %s.%s.*", kind, name, kind,
			    name);
	return (void *)found;
}

static bool list_has(const struct cfg_list *list, const void *item)
{
	for (unsigned i = 0; i < list->n; i++) {
		if (list->items[i] == item)
			return true;
	}
	return false;
}

static void resolve_list(struct loader *l, const struct cfg_key *k, unsigned object)
{
	const char *text = said(l, k, object)->value;
	struct cfg_list *list = cfg_member(cfg_object(l->cfg, k->scope, object), k->offset);

	if (!text || said(l, k, object)->wrong)
		return;
	while (*text) {
		void *found = next_reference(l, k, object, &text), **more;

		if (!found)
			continue;
		if (list_has(list, found)) {
			complain_at(l, k, object, "names %s twice; once is enough",
				    ((const struct cfg_head *)found)->name);
			continue;
		}
		more = reallocarray(list->items, list->n + 1, sizeof(*more));
		if (!more) {
			l->report.out_of_memory = true;
			return;
		}
		list->items = more;
		list->items[list->n++] = found;
	}
}

static void resolve_references(struct loader *l)
{
	for_each_key (k) {
		for_each_object (l->cfg, k->scope, i) {
			if (k->type == &cfg_type_reference)
				resolve_reference(l, k, i);
			else if (k->type == &cfg_type_references)
				resolve_list(l, k, i);
		}
	}
	for_each_object (l->cfg, SCOPE_PROFILE, i) {
		const struct cfg_list *list = &l->cfg->profiles[i]->forging_certkeys;
		struct cfg_certkey *fallback = l->cfg->profiles[i]->fallback_certkey;

		if (fallback)
			fallback->serving = true;

		for (unsigned c = 0; c < list->n; c++)
			((struct cfg_certkey *)list->items[c])->forging = true;
	}
	for_each_object (l->cfg, SCOPE_VSERVER, i) {
		const struct cfg_list *list = &l->cfg->vservers[i]->certkeys;

		for (unsigned c = 0; c < list->n; c++)
			((struct cfg_certkey *)list->items[c])->serving = true;
	}
	for_each_object (l->cfg, SCOPE_SERVICE, i) {
		if (l->cfg->services[i]->check_certkey)
			l->cfg->services[i]->check_certkey->monitor = true;
	}
}

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
		complain_at(l, k, object, "%s", why);
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
		complain_at(l, row("certkey.<name>.ocsp_response"), ck->index, "%s", why);
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
		complain_at(loading->l, loading->k, loading->object, "%s: %s", path, why);
}

/* Those of a side that somebody looks at, with a name in name; else without crls. */
static struct crl_list crls_of(const struct cfg_profile *p, const struct cfg_revocation *r,
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
	const struct said *s = said(l, loading->k, loading->object);
	char issuer[256];

	identity_subject(X509_CRL_get_issuer(crl), issuer, sizeof(issuer));
	switch (crl_signer(crl, list->cas)) {
	case CRL_SIGNER_KNOWN:
		return;
	case CRL_SIGNER_OTHER:
		complain_at(l, loading->k, loading->object,
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

	complain_at(loading->l, loading->k, loading->object, "%s", what);
}

static void check_crls(struct loader *l, struct crl_loading *loading,
		       const struct cfg_revocation *r)
{
	char name[CFG_KEY_MAX];
	struct crl_list list = crls_of(l->cfg->profiles[loading->object], r, name);

	if (!list.crls || said(l, loading->k, loading->object)->wrong)
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
	crl = row(files);
	crl_check = row(check);
	r->crls = sk_X509_CRL_new_null();
	loading = (struct crl_loading){l, crl, object, r->crls};
	if (!r->crls || !for_each_file (r->crl_files, load_crl_file, &loading))
		l->report.out_of_memory = true;
	check_crls(l, &loading, r);
	if (r->crl_check != REVOCATION_OFF && !said(l, crl, object)->value)
		complain_at(l, crl_check, object,
			    "there is no CRL to look at; set profile.%s.%s_crl",
			    l->cfg->profiles[object]->name, side);
	if (r->crl_check == REVOCATION_OFF && said(l, crl, object)->value &&
	    !said(l, crl_check, object)->value)
		complain_at(
			l, crl, object,
			"nobody looks at it; set profile.%s.%s_crl_check = optional or mandatory",
			l->cfg->profiles[object]->name, side);
}

static void load_certificates(struct loader *l)
{
	const struct cfg_key *cert = row("certkey.<name>.cert");
	const struct cfg_key *client_ca = row("profile.<name>.client_ca");
	const struct cfg_key *server_ca = row("profile.<name>.server_ca");
	const struct cfg_key *sid_issuers = row("profile.<name>.forge.sid_issuers");
	const struct cfg_key *policy_ca = row("certkey.<name>.policy.client_ca");

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

/* The row of a rule's setting. */
static const struct cfg_key *rule_row(enum forge_setting s)
{
	char pattern[CFG_KEY_MAX];

	snprintf(pattern, sizeof(pattern), "profile.<name>.forge.%s", forge_setting_name(s));
	return row(pattern);
}

/* Each was looked at when its line was read; what is wrong only together is found here. */
static void make_rules(struct loader *l, struct cfg_profile *p)
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
		complain_at(l, rule_row(where), p->index, "%s", why);
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
		complain_at(l, row("certkey.<name>.cert"), ck->index,
			    "OpenSSL refuses certificate %d of the file: %s; use RSA keys of 2048 "
			    "bits or more, or EC keys, and signatures with SHA-256 or better",
			    n, log_openssl(why, sizeof(why)));
}

/* What certreq.c knows a backend to accept or not. */
static void check_fallback(struct loader *l, const struct cfg_profile *p)
{
	EVP_PKEY *key = p->fallback_certkey && p->fallback_certkey->cert
				? X509_get0_pubkey(p->fallback_certkey->cert)
				: NULL;

	if (key && !EVP_PKEY_is_a(key, "RSA") &&
	    !(EVP_PKEY_is_a(key, "EC") && EVP_PKEY_get_bits(key) == 256))
		complain_at(l, row("profile.<name>.fallback_certkey"), p->index,
			    "has a key that backends may not take; use RSA or P-256");
}

/* The processes that face the network have no files, so no token either. */
static void check_token(struct loader *l, const struct cfg_certkey *ck)
{
	const struct cfg_key *key = row("certkey.<name>.key");

	if (ck->serving && ck->key_file && pkcs11_uri(ck->key_file) &&
	    !said(l, key, ck->index)->wrong)
		complain_at(l, key, ck->index,
			    "is in a token, and the certkey of a vserver; only the keys of forging "
			    "CAs can be there");
}

static void check_certkeys(struct loader *l)
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
	complain(r, ck->key_where, "certkey.%s.key = %s: %s", ck->name, ck->key_file, what);
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
static void check_keys(struct loader *l)
{
	const struct cfg_key *cert = row("certkey.<name>.cert");

	for_each_object (l->cfg, SCOPE_CERTKEY, i) {
		struct cfg_certkey *ck = l->cfg->certkeys[i];

		if (ck->cert && ck->key_file && !said(l, cert, i)->wrong)
			load_key(ck, &l->report);
	}
}

/* ---- checks of what belongs together ---- */

static void check_forging_ca(struct loader *l, const struct cfg_profile *p,
			     const struct cfg_certkey *ca)
{
	const struct cfg_key *forging = row("profile.<name>.forging_certkey");
	const char *unfit = NULL;
	char why[FORGE_WHY_MAX];

	if (ca->cert)
		unfit = forge_ca_unfit(&(struct forge_ca){.cert = ca->cert, .chain = ca->chain},
				       why);
	if (unfit)
		complain_at(l, forging, p->index,
			    "%s cannot be a forging CA: %s; use a CA certificate that may "
			    "sign client certificates, then the CAs above it in order",
			    ca->cert_file, unfit);
	/* The data process holds serving keys; forging keys are to stay in the signer. */
	if (ca->serving)
		complain_at(l, forging, p->index,
			    "%s is also the certkey of a vserver; the forging key needs a certkey "
			    "of its own",
			    ca->name);
}

static void check_ocsp(struct loader *l, const struct cfg_profile *p)
{
	const struct cfg_key *ocsp = row("profile.<name>.client_ocsp");

	if (p->client_ocsp != REVOCATION_OFF && !said(l, ocsp, p->index)->wrong &&
	    !said(l, row("profile.<name>.ocsp_responder"), p->index)->value &&
	    !said(l, row("profile.<name>.ocsp_aia"), p->index)->value)
		complain_at(
			l, ocsp, p->index,
			"nobody is there to be asked; set profile.%s.ocsp_responder or ocsp_aia",
			p->name);
}

static void check_profiles(struct loader *l)
{
	const struct cfg_key *client_auth = row("profile.<name>.client_auth");
	const struct cfg_key *client_ca = row("profile.<name>.client_ca");
	const struct cfg_key *dynamic = row("profile.<name>.dynamic_client_cert");
	const struct cfg_key *forging = row("profile.<name>.forging_certkey");

	for_each_object (l->cfg, SCOPE_PROFILE, i) {
		const struct cfg_profile *p = l->cfg->profiles[i];

		check_fallback(l, p);
		if (p->tls_min > p->tls_max)
			complain_at(l, row("profile.<name>.tls_min"), i,
				    "is newer than profile.%s.tls_max; no version is left, set "
				    "tls_min = 1.2 or tls_max = 1.3",
				    p->name);
		check_ocsp(l, p);
		if (p->client_auth != CLIENT_AUTH_OFF && !said(l, client_auth, i)->wrong &&
		    !said(l, client_ca, i)->value)
			complain_at(l, client_auth, i,
				    "no CA to verify clients against; set profile.%s.client_ca",
				    p->name);
		if (p->dynamic_client_cert && !said(l, dynamic, i)->wrong &&
		    !said(l, forging, i)->value)
			complain_at(l, dynamic, i,
				    "no CA to forge with; set profile.%s.forging_certkey", p->name);
		for (unsigned c = 0; c < p->forging_certkeys.n; c++)
			check_forging_ca(l, p, p->forging_certkeys.items[c]);
	}
}

/* The data process holds its key: it must not be the signer's. */
static void check_monitor(struct loader *l, const struct cfg_service *s)
{
	const struct cfg_key *key = row("service.<name>.check_certkey");

	if (!s->check_certkey)
		return;
	if (s->check_certkey->forging)
		complain_at(l, key, s->index,
			    "is a forging CA; the monitor needs a client certificate of its own");
	else if (s->check != CHECK_TLS)
		complain_at(l, key, s->index,
			    "is shown by no check; set service.%s.check = tls, or leave it out",
			    s->name);
}

/* What the client's handshake decides is not known when the connection is made early. */
static void check_send_proxy(struct loader *l, const struct cfg_service *s)
{
	if (s->send_proxy == SEND_PROXY_TLS && s->connect == CONNECT_EARLY)
		complain_at(l, row("service.<name>.send_proxy"), s->index,
			    "the client's certificate is not known at its ClientHello; set "
			    "service.%s.connect = verified, or send_proxy = on",
			    s->name);
}

/* Which session may be offered is known when the client is verified, and the ClientHello has it. */
static void check_session_reuse(struct loader *l, const struct cfg_service *s)
{
	if (s->profile && s->profile->session_reuse && s->connect == CONNECT_EARLY)
		complain_at(l, row("service.<name>.profile"), s->index,
			    "profile.%s.session_reuse is on, but who the client is is not known at "
			    "its ClientHello; set service.%s.connect = verified, or session_reuse "
			    "= off",
			    s->profile->name, s->name);
	/* Who resumes shows no certificate to ask about. */
	if (s->profile && s->profile->session_reuse && s->profile->server_ocsp != REVOCATION_OFF)
		complain_at(
			l, row("service.<name>.profile"), s->index,
			"profile.%s.session_reuse does not go with server_ocsp, since a backend "
			"that resumes shows no certificate; set one of them to off",
			s->profile->name);
}

/* Kernel TLS is of TCP. */
static void check_unix(struct loader *l, const struct cfg_service *s)
{
	if (s->address.ss.ss_family == AF_UNIX && l->cfg->engine == ENGINE_KTLS)
		complain_at(
			l, row("service.<name>.address"), s->index,
			"kernel TLS does not exist on UNIX sockets; set dataplane.engine = auto");
}

static void check_services(struct loader *l)
{
	const struct cfg_key *profile = row("service.<name>.profile");
	const struct cfg_key *server_ca = row("profile.<name>.server_ca");

	for_each_object (l->cfg, SCOPE_SERVICE, i) {
		const struct cfg_profile *p = l->cfg->services[i]->profile;

		if (p && !said(l, server_ca, p->index)->value)
			complain_at(l, profile, i,
				    "this profile has no CA to verify the backend against; set "
				    "profile.%s.server_ca",
				    p->name);
		check_monitor(l, l->cfg->services[i]);
		check_send_proxy(l, l->cfg->services[i]);
		check_session_reuse(l, l->cfg->services[i]);
		check_unix(l, l->cfg->services[i]);
	}
}

static unsigned first_port(const struct cfg_listen *l)
{
	return ntohs(((const struct sockaddr_in *)&l->address.ss)->sin_port); /* in both families */
}

/* The same addresses, whatever the ports; of nested prefixes the longer one wins. */
static bool same_addresses(const struct cfg_listen *a, const struct cfg_listen *b)
{
	const struct sockaddr_in *a4 = (const struct sockaddr_in *)&a->address.ss,
				 *b4 = (const struct sockaddr_in *)&b->address.ss;
	const struct sockaddr_in6 *a6 = (const struct sockaddr_in6 *)&a->address.ss,
				  *b6 = (const struct sockaddr_in6 *)&b->address.ss;

	if (a->address.ss.ss_family != b->address.ss.ss_family || a->prefix_len != b->prefix_len)
		return false;
	if (a->address.ss.ss_family == AF_INET)
		return a4->sin_addr.s_addr == b4->sin_addr.s_addr;
	return IN6_ARE_ADDR_EQUAL(&a6->sin6_addr, &b6->sin6_addr);
}

static bool overlap(const struct cfg_listen *a, const struct cfg_listen *b)
{
	return same_addresses(a, b) && first_port(a) <= b->last_port &&
	       first_port(b) <= a->last_port;
}

/* The vserver, i or one before it, that takes what the n-th element of i's list would. */
static const struct cfg_vserver *listens_there(const struct loader *l, unsigned i, unsigned n)
{
	const struct cfg_listen *wanted = &l->cfg->vservers[i]->listen.list[n];

	for (unsigned j = 0; j <= i; j++) {
		const struct cfg_listens *taken = &l->cfg->vservers[j]->listen;

		for (unsigned m = 0; m < (j == i ? n : taken->n); m++) {
			if (overlap(wanted, &taken->list[m]))
				return l->cfg->vservers[j];
		}
	}
	return NULL;
}

static void check_listens(struct loader *l, const struct cfg_key *listen, unsigned i)
{
	const struct cfg_vserver *v = l->cfg->vservers[i], *other = NULL;

	if (said(l, listen, i)->wrong)
		return;
	for (unsigned n = 0; n < v->listen.n && !other; n++)
		other = listens_there(l, i, n);
	if (other == v)
		complain_at(l, listen, i, "names an address and port twice; once is enough");
	else if (other)
		complain_at(l, listen, i,
			    "vserver.%s listens there already; use another address or port",
			    other->name);
}

/* By which profile a service forges; NULL: it does not. */
static const struct cfg_profile *forging_profile(const struct cfg_service *s)
{
	return s->profile && s->profile->dynamic_client_cert ? s->profile : NULL;
}

static void complain_disagreement(struct loader *l, const struct cfg_vserver *v,
				  const struct cfg_service *forges, const struct cfg_service *other)
{
	const struct cfg_profile *p = forging_profile(other);

	complain_at(l, row("vserver.<name>.service"), v->index,
		    "service.%s forges by profile.%s, and service.%s %s%s; give all services of a "
		    "vserver the same forging profile, or make another vserver",
		    forges->name, forges->profile->name, other->name,
		    p ? "by profile." : "does not", p ? p->name : "");
}

/* A certificate that was forged for one service is shown to another, should that one fail. */
static void check_agreement(struct loader *l, const struct cfg_vserver *v)
{
	for (unsigned i = 1; i < v->services.n; i++) {
		const struct cfg_service *first = cfg_service_at(v, 0), *s = cfg_service_at(v, i);
		bool first_forges = forging_profile(first);

		if (!first->profile || !s->profile || forging_profile(s) == forging_profile(first))
			continue;
		complain_disagreement(l, v, first_forges ? first : s, first_forges ? s : first);
		return;
	}
}

/* A service that forges needs clients with a certificate. */
static void check_forging(struct loader *l, const struct cfg_vserver *v)
{
	const struct cfg_service *first = v->services.n ? cfg_service_at(v, 0) : NULL;
	const struct cfg_profile *back = first ? first->profile : NULL;

	check_agreement(l, v);
	if (!v->profile || !back || !back->dynamic_client_cert ||
	    v->profile->client_auth != CLIENT_AUTH_OFF ||
	    said(l, row("profile.<name>.client_auth"), v->profile->index)->wrong)
		return;
	complain_at(
		l, row("vserver.<name>.profile"), v->index,
		"profile.%s.client_auth is off, but profile.%s of service.%s forges from client "
		"certificates (dynamic_client_cert); set profile.%s.client_auth = mandatory",
		v->profile->name, back->name, first->name, v->profile->name);
}

/* The client's ClientHello waits for the backend's choice: there must be a backend by then. */
static void check_mirror(struct loader *l, const struct cfg_vserver *v)
{
	for (unsigned i = 0; v->profile && v->profile->alpn.mirror && i < v->services.n; i++) {
		const struct cfg_service *s = cfg_service_at(v, i);

		if (s->connect == CONNECT_EARLY)
			continue;
		complain_at(l, row("vserver.<name>.profile"), v->index,
			    "profile.%s.alpn is mirror, but service.%s.connect is verified: the "
			    "backend's choice comes too late; set service.%s.connect = early, or "
			    "alpn to a list",
			    v->profile->name, s->name, s->name);
		return;
	}
}

/* Anybody could claim to be anybody. */
static void check_accept_proxy(struct loader *l, const struct cfg_vserver *v)
{
	if (v->accept_proxy && !said(l, row("vserver.<name>.proxy_from"), v->index)->value)
		complain_at(l, row("vserver.<name>.accept_proxy"), v->index,
			    "nobody is trusted to tell; set vserver.%s.proxy_from to the addresses "
			    "of the proxies",
			    v->name);
}

/* It would connect to itself, and that connection to itself again. */
static void check_own_addresses(struct loader *l)
{
	const struct cfg_key *address = row("service.<name>.address");

	for_each_object (l->cfg, SCOPE_SERVICE, i) {
		const struct cfg_address *a = &l->cfg->services[i]->address;
		const struct cfg_vserver *v = own_vserver(l->cfg, (const struct sockaddr *)&a->ss);

		if (v && !said(l, address, i)->wrong)
			complain_at(
				l, address, i,
				"vserver.%s listens there, so connections would come back to this "
				"gate; name the address of the backend itself",
				v->name);
	}
}

static void check_vservers(struct loader *l)
{
	const struct cfg_key *listen = row("vserver.<name>.listen");

	if (!l->cfg->n_vservers)
		complain(&l->report, (struct cfg_where){0},
			 "there is no vserver; define at least one: %s = 0.0.0.0:8443 ...",
			 listen->pattern);
	for_each_object (l->cfg, SCOPE_VSERVER, i) {
		check_listens(l, listen, i);
		check_accept_proxy(l, l->cfg->vservers[i]);
		check_forging(l, l->cfg->vservers[i]);
		check_mirror(l, l->cfg->vservers[i]);
	}
}

/* ---- workers ---- */

/* One for each CPU that is named. */
static void settle_workers(struct loader *l)
{
	const struct cfg_key *workers = row("dataplane.workers");
	const char *value = said(l, workers, 0)->value;
	struct config *cfg = l->cfg;

	if (!cfg->cpus.n || said(l, workers, 0)->wrong || said(l, row("dataplane.cpus"), 0)->wrong)
		return;
	if (!value || !strcasecmp(value, workers->word))
		cfg->workers = cfg->cpus.n;
	else if (cfg->workers != cfg->cpus.n)
		complain_at(l, workers, 0,
			    "dataplane.cpus has %u CPU%s, each of which gets one worker; set it to "
			    "auto",
			    cfg->cpus.n, cfg->cpus.n == 1 ? "" : "s");
}

/* ---- limits ---- */

static void settle_limits(struct config *cfg)
{
	struct machine m;

	machine_look(&m);
	machine_settle_limits(&m, cfg);
}

/* ---- sockets ---- */

/*
 * What is looked up needs a socket that only sk_lookup leads to: it is bound where no packet can
 * be addressed to, IPv4's dummy address (RFC 7600) and IPv6's discard prefix (RFC 6666), at a port
 * that the kernel chooses.
 */
static struct cfg_address nowhere(int family)
{
	struct cfg_address a = {.len = sizeof(struct sockaddr_in)};

	if (family == AF_INET6) {
		a.len = sizeof(struct sockaddr_in6);
		inet_pton(family, "100::1", &((struct sockaddr_in6 *)&a.ss)->sin6_addr);
	} else {
		inet_pton(family, "192.0.0.8", &((struct sockaddr_in *)&a.ss)->sin_addr);
	}
	a.ss.ss_family = family;
	return a;
}

static bool bind_to(struct config *cfg, struct cfg_vserver *v, const struct cfg_address *address,
		    bool looked_up)
{
	struct cfg_binding *more = reallocarray(cfg->bindings, cfg->n_bindings + 1, sizeof(*more));

	if (!more)
		return false;
	cfg->bindings = more;
	more[cfg->n_bindings++] = (struct cfg_binding){v, *address, looked_up, 0};
	return true;
}

/* For all of a vserver's looked-up addresses of a family one binding does. */
static bool bind_vserver(struct config *cfg, struct cfg_vserver *v)
{
	bool four = false, six = false;

	for (unsigned i = 0; i < v->listen.n; i++) {
		const struct cfg_listen *l = &v->listen.list[i];
		int family = l->address.ss.ss_family;
		bool *done = family == AF_INET6 ? &six : &four;
		struct cfg_address address = l->looked_up ? nowhere(family) : l->address;

		if (l->looked_up && *done)
			continue;
		*done = *done || l->looked_up;
		if (!bind_to(cfg, v, &address, l->looked_up))
			return false;
	}
	return true;
}

static void derive_bindings(struct loader *l)
{
	for_each_object (l->cfg, SCOPE_VSERVER, i) {
		if (!bind_vserver(l->cfg, l->cfg->vservers[i]))
			l->report.out_of_memory = true;
	}
}

/* ---- public ---- */

static struct config *config_new(const struct cfg_texts *t)
{
	struct config *cfg = calloc(1, sizeof(*cfg));
	bool ok;

	if (!cfg)
		return NULL;
	cfg->files = calloc(t->n, sizeof(*cfg->files));
	ok = cfg->files && !cfg_set_defaults(SCOPE_GLOBAL, cfg);
	for (; ok && cfg->n_files < t->n; cfg->n_files++) {
		cfg->files[cfg->n_files] = strdup(t->list[cfg->n_files].name);
		ok = cfg->files[cfg->n_files];
	}
	if (ok)
		return cfg;
	config_free(cfg);
	return NULL;
}

static void load(struct loader *l, const struct cfg_texts *t)
{
	if (notes_add(l, SCOPE_GLOBAL, (struct cfg_where){0}) < 0) {
		l->report.out_of_memory = true;
		return;
	}
	for (unsigned i = 0; i < t->n; i++)
		read_text(l, i, &t->list[i]);
	check_mandatory(l);
	settle_workers(l);
	settle_limits(l->cfg);
	resolve_references(l);
	if (l->depth >= CERTIFICATES)
		load_certificates(l);
	for_each_object (l->cfg, SCOPE_PROFILE, i)
		make_rules(l, l->cfg->profiles[i]);
	check_certkeys(l);
	check_profiles(l);
	check_services(l);
	check_vservers(l);
	check_own_addresses(l);
	derive_bindings(l);
	if (l->depth >= KEYS)
		check_keys(l);
}

/* Where each value came from, in the order of the printers. */
static int keep_origins(const struct loader *l)
{
	struct config *cfg = l->cfg;
	struct cfg_origin *next;
	size_t n = 0;

	for (enum cfg_scope scope = 0; scope < SCOPES; scope++)
		n += (size_t)l->n_notes[scope] * cfg_n_keys;
	next = cfg->origins = calloc(n, sizeof(*next));
	if (!next)
		return -ENOMEM;
	for (enum cfg_scope scope = 0; scope < SCOPES; scope++) {
		const struct notes *notes = l->notes[scope];

		for (unsigned i = 0; notes && i < l->n_notes[scope]; i++) {
			for_each_key (k) {
				const struct said *s = &notes[i].said[row_of(k)];

				if (s->value)
					*next++ = (struct cfg_origin){k, i, s->at};
			}
		}
	}
	cfg->n_origins = (unsigned)(next - cfg->origins);
	next = reallocarray(cfg->origins, cfg->n_origins + 1, sizeof(*next));
	if (next)
		cfg->origins = next;
	return 0;
}

/* Prints what is wrong and frees the notes. 0 or -EINVAL; the configuration is there in any case.
 */
static int load_config(struct loader *l, FILE *errors)
{
	l->report.path = l->texts->list[0].name;
	l->cfg = config_new(l->texts);
	if (!l->cfg) {
		fprintf(errors, "%s: out of memory\n", l->report.path);
		return -EINVAL;
	}
	load(l, l->texts);
	if (!l->report.out_of_memory && keep_origins(l))
		l->report.out_of_memory = true;
	notes_free(l);
	return report_end(&l->report, errors);
}

static int load_to(const struct cfg_texts *t, enum depth depth, FILE *errors, struct config **out)
{
	struct loader l = {.texts = t, .depth = depth, .crl_history = t->crl_history};
	int err = load_config(&l, errors);

	*out = NULL;
	if (err < 0)
		config_free(l.cfg);
	else
		*out = l.cfg;
	return err;
}

int config_load_texts(const struct cfg_texts *t, FILE *errors, struct config **out)
{
	return load_to(t, CERTIFICATES, errors, out);
}

int config_load_names(const struct cfg_texts *t, FILE *errors, struct config **out)
{
	return load_to(t, TEXTS, errors, out);
}

struct config *config_glance(const struct cfg_texts *t)
{
	struct loader l = {.texts = t, .depth = TEXTS};
	scoped_mem char *unread = NULL;
	size_t len = 0;
	FILE *errors = open_memstream(&unread, &len);

	if (!errors)
		return NULL;
	(void)!load_config(&l, errors);
	fclose(errors);
	return l.cfg;
}

int config_load(const char *path, FILE *errors, struct config **out)
{
	struct cfg_texts t;
	int err = config_read(path, errors, &t);

	*out = NULL;
	if (err)
		return err;
	err = config_load_texts(&t, errors, out);
	config_texts_free(&t);
	return err;
}

static int write_crl_history(const struct config *cfg, FILE *out)
{
	int err = 0;

	for (unsigned i = 0; !err && i < 2 * cfg->n_profiles; i++) {
		const struct cfg_profile *p = cfg->profiles[i / 2];
		char name[CFG_KEY_MAX];
		struct crl_list list =
			crls_of(p, i % 2 ? &p->server_revocation : &p->client_revocation, name);

		if (list.crls)
			err = crl_history_write(&list, out);
	}
	return err;
}

int config_check_texts(const struct cfg_texts *t, FILE *errors, FILE *crl_history)
{
	struct config *cfg;
	int err = load_to(t, KEYS, errors, &cfg);

	if (!err && crl_history && write_crl_history(cfg, crl_history)) {
		fprintf(errors, "%s: out of memory\n", t->list[0].name);
		err = -ENOMEM;
	}
	config_free(cfg);
	return err;
}

int config_check(const char *path, FILE *errors)
{
	struct cfg_texts t;
	int err = config_read(path, errors, &t);

	if (err)
		return err;
	err = config_check_texts(&t, errors, NULL);
	config_texts_free(&t);
	return err;
}

/* The value as it would be printed; NULL: out of memory. */
static char *value_text(const struct config *cfg, const struct cfg_key *k)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	if (!f)
		return NULL;
	if (cfg_is_set(k, cfg_member(cfg, k->offset)))
		k->type->print(k, cfg_member(cfg, k->offset), f);
	return fclose(f) ? NULL : text;
}

static struct cfg_where origin_of(const struct config *cfg, const struct cfg_key *k)
{
	for (unsigned i = 0; i < cfg->n_origins; i++) {
		if (cfg->origins[i].key == k)
			return cfg->origins[i].where;
	}
	return (struct cfg_where){0};
}

int config_check_change(const struct config *now, const struct config *next, FILE *errors)
{
	int err = 0;

	for_each_key (k) {
		scoped_mem char *is = NULL, *would_be = NULL;
		struct cfg_where at = {0};

		if (!k->fixed)
			continue;
		is = value_text(now, k);
		would_be = value_text(next, k);
		if (is && would_be && !strcmp(is, would_be))
			continue;
		at = origin_of(next, k);
		if (at.line)
			fprintf(errors, "%s:%u: ", at.file, at.line);
		else
			fprintf(errors, "%s: ", next->files[0]);
		fprintf(errors,
			"%s = %s: cannot change while the daemon runs; it is %s until a restart\n",
			k->pattern, would_be ? would_be : "?", is ? is : "?");
		err = -EBUSY;
	}
	return err;
}

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
	return report_end(&r, errors);
}

struct verify_policy config_policy(const struct cfg_profile *p, const struct cfg_revocation *r)
{
	struct verify_policy policy = p->verify;

	policy.crl_check = r->crl_check;
	policy.crls = r->crls;
	return policy;
}

static void found_if_set(const char *path, void (*found)(void *arg, const char *path), void *arg)
{
	if (path)
		found(arg, path);
}

void config_public_files(const struct config *cfg, void (*found)(void *arg, const char *path),
			 void *arg)
{
	for (unsigned i = 0; i < cfg->n_certkeys; i++) {
		found_if_set(cfg->certkeys[i]->cert_file, found, arg);
		found_if_set(cfg->certkeys[i]->ocsp_response_file, found, arg);
		found_if_set(cfg->certkeys[i]->policy.client_ca_file, found, arg);
	}
	for (unsigned i = 0; i < cfg->n_profiles; i++) {
		found_if_set(cfg->profiles[i]->client_ca_file, found, arg);
		found_if_set(cfg->profiles[i]->server_ca_file, found, arg);
		found_if_set(cfg->profiles[i]->forge.sid_issuers_file, found, arg);
	}
	config_changing_files(cfg, found, arg);
}

void config_changing_files(const struct config *cfg, void (*found)(void *arg, const char *path),
			   void *arg)
{
	for (unsigned i = 0; i < cfg->n_profiles; i++) {
		(void)for_each_file (cfg->profiles[i]->client_revocation.crl_files, found, arg);
		(void)for_each_file (cfg->profiles[i]->server_revocation.crl_files, found, arg);
	}
}

static void free_members(enum cfg_scope scope, void *object)
{
	for_each_key (k) {
		if (k->scope == scope && k->type->owns_string)
			free(cfg_get_pointer(cfg_member(object, k->offset)));
	}
}

/* EVP_PKEY_free() wipes the key. */
void config_free(struct config *cfg)
{
	if (!cfg)
		return;
	for (unsigned i = 0; i < cfg->n_certkeys; i++) {
		X509_free(cfg->certkeys[i]->cert);
		sk_X509_pop_free(cfg->certkeys[i]->chain, X509_free);
		sk_X509_pop_free(cfg->certkeys[i]->policy.client_ca, X509_free);
		EVP_PKEY_free(cfg->certkeys[i]->pkey);
		staple_free(&cfg->certkeys[i]->staple);
	}
	for (unsigned i = 0; i < cfg->n_profiles; i++) {
		sk_X509_pop_free(cfg->profiles[i]->client_ca, X509_free);
		sk_X509_pop_free(cfg->profiles[i]->server_ca, X509_free);
		sk_X509_pop_free(cfg->profiles[i]->forge.sid_issuers, X509_free);
		forge_rules_free(cfg->profiles[i]->forge.rules);
		sk_X509_CRL_pop_free(cfg->profiles[i]->client_revocation.crls, X509_CRL_free);
		sk_X509_CRL_pop_free(cfg->profiles[i]->server_revocation.crls, X509_CRL_free);
	}
	for (enum cfg_scope scope = SCOPE_GLOBAL + 1; scope < SCOPES; scope++) {
		for_each_object (cfg, scope, i) {
			struct cfg_head *head = cfg_object(cfg, scope, i);

			free_members(scope, head);
			free(head->name);
			free(head);
		}
		free(cfg_get_pointer(cfg_member(cfg, cfg_scopes[scope].list)));
	}
	free_members(SCOPE_GLOBAL, cfg);
	free(cfg->bindings);
	for (unsigned i = 0; i < cfg->n_files; i++)
		free(cfg->files[i]);
	free(cfg->files);
	free(cfg->origins);
	free(cfg);
}
