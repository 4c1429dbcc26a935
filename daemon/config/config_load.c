// SPDX-License-Identifier: Apache-2.0
/*
 * Reads a configuration: lines, the objects that they make, and references between objects. All
 * errors are collected and printed in the order of the lines. Loads files through config_files.c
 * and has what belongs together checked by config_check.c.
 */
#include "config/config_internal.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <strings.h>
#include "config/config.h"
#include "config/config_types.h"
#include "pki/crl_history.h"

#define CONFIG_LINE_MAX 4096

/* ---- errors: collected, then printed in the order of the lines ---- */

void printf_like(3, 4) cfg_complain(struct report *r, struct cfg_where at, const char *fmt, ...)
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
int cfg_report_end(struct report *r, FILE *errors)
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

static unsigned row_of(const struct cfg_key *k)
{
	return k - cfg_keys;
}

struct said *cfg_said(const struct loader *l, const struct cfg_key *k, unsigned object)
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

/* The cfg_row of a member; the pattern is one of ours. */
const struct cfg_key *cfg_row(const char *pattern)
{
	const char *name;
	size_t len;

	return cfg_find(pattern, &name, &len);
}

/* An error at the assignment to k, or, if the file has none, where the object was first named. */
void printf_like(4, 5) cfg_complain_at(struct loader *l, const struct cfg_key *k, unsigned object,
				       const char *fmt, ...)
{
	struct said *s = cfg_said(l, k, object);
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
		cfg_complain(&l->report, s->at, "%s = %s: %s", key, s->value, what);
	else
		cfg_complain(&l->report, l->notes[k->scope][object].at, "%s: %s", key, what);
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
		cfg_complain(&l->report, at, "%s = %s: unknown key; did you mean %s?", key, value,
			     near);
	else
		cfg_complain(&l->report, at,
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
		cfg_complain(
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
	s = cfg_said(l, k, index);
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
		cfg_complain_at(l, k, index, "the value is missing; %s", k->help);
	else if (k->type->parse(k, value, cfg_member(object, k->offset), why) < 0)
		cfg_complain_at(l, k, index, "%s", why);
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
		cfg_complain(&l->report, at, "the line has %zu bytes; at most %d are allowed", len,
			     CONFIG_LINE_MAX);
		return;
	}
	column = control_byte(line, len);
	if (column) {
		cfg_complain(&l->report, at,
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
		cfg_complain(&l->report, at, "%s: there is no '='; write KEY = VALUE", key);
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

#define for_each_key(k) for (const struct cfg_key *k = cfg_keys; k < cfg_keys + cfg_n_keys; k++)

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
			if (!cfg_said(l, k, i)->value)
				cfg_complain_at(l, k, i, "is missing; a %s needs it: %s (%s)",
						cfg_scopes[k->scope].name, range, k->help);
		}
	}
}

static void resolve_reference(struct loader *l, const struct cfg_key *k, unsigned object)
{
	const char *wanted = cfg_said(l, k, object)->value, *kind = cfg_scopes[k->refers].name;
	const struct cfg_head *found;

	if (!wanted || cfg_said(l, k, object)->wrong)
		return;
	found = find_object(l->cfg, k->refers, wanted);
	if (!found) {
		cfg_complain_at(l, k, object, "there is no %s of this name; define %s.%s.*", kind,
				kind, wanted);
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
		cfg_complain_at(l, k, object, "there is no %s %s; define %s.%s.*", kind, name, kind,
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
	const char *text = cfg_said(l, k, object)->value;
	struct cfg_list *list = cfg_member(cfg_object(l->cfg, k->scope, object), k->offset);

	if (!text || cfg_said(l, k, object)->wrong)
		return;
	while (*text) {
		void *found = next_reference(l, k, object, &text), **more;

		if (!found)
			continue;
		if (list_has(list, found)) {
			cfg_complain_at(l, k, object, "names %s twice; once is enough",
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
	cfg_settle_workers(l);
	cfg_settle_limits(l->cfg);
	resolve_references(l);
	if (l->depth >= CERTIFICATES)
		cfg_load_certificates(l);
	for_each_object (l->cfg, SCOPE_PROFILE, i)
		cfg_make_rules(l, l->cfg->profiles[i]);
	cfg_check_certkeys(l);
	cfg_check_profiles(l);
	cfg_check_services(l);
	cfg_check_vservers(l);
	cfg_check_own_addresses(l);
	cfg_derive_bindings(l);
	if (l->depth >= KEYS)
		cfg_check_keys(l);
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
	return cfg_report_end(&l->report, errors);
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
			cfg_crls_of(p, i % 2 ? &p->server_revocation : &p->client_revocation, name);

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
