// SPDX-License-Identifier: Apache-2.0
/* A sorted table of names, and the groups of certificates they lead to. Knows no socket. */
#include "tls/sni.h"

#include <ctype.h>
#include <string.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

struct sni_name {
	char *name;	 /* lower case; "*." stands in front of a wildcard's rest */
	unsigned number; /* of its certificate; once grouped, of the group */
};

struct sni_table {
	struct sni_name *names; /* sorted; each once when grouped */
	unsigned n_names;
	struct sni_group *groups;
	unsigned n_groups;
};

SCOPED_DEFINE(table, struct sni_table, sni_table_free)
#define scoped_table __attribute__((cleanup(scoped_table_free_))) struct sni_table

/* Letters, digits, '-', '_' and dots between labels; lower case. False: no DNS name. */
static bool copy_name(const unsigned char *in, size_t len, char *out)
{
	size_t label = 0;

	out[0] = '\0';
	if (len && in[len - 1] == '.')
		len--;
	if (!len || len > SNI_NAME_MAX)
		return false;
	for (size_t i = 0; i < len; i++) {
		if (in[i] == '.' ? !label : !isalnum(in[i]) && in[i] != '-' && in[i] != '_')
			return false;
		label = in[i] == '.' ? 0 : label + 1;
	}
	if (!label)
		return false;
	for (size_t i = 0; i < len; i++)
		out[i] = (char)tolower(in[i]);
	out[len] = '\0';
	return true;
}

/* A SAN's dNSName in the form of the table. A wildcard is the whole first label or none. */
static bool table_name(const ASN1_IA5STRING *dns, char *out)
{
	const unsigned char *p = ASN1_STRING_get0_data(dns);
	size_t len = (size_t)ASN1_STRING_length(dns);

	if (len < 2 || p[0] != '*' || p[1] != '.')
		return copy_name(p, len, out);
	memcpy(out, "*.", 2);
	return len - 2 <= SNI_NAME_MAX - 2 && copy_name(p + 2, len - 2, out + 2);
}

static bool add_name(struct sni_table *t, const char *name, unsigned number)
{
	struct sni_name *more = reallocarray(t->names, t->n_names + 1, sizeof(*more));

	if (!more)
		return false;
	t->names = more;
	more[t->n_names].name = strdup(name);
	more[t->n_names].number = number;
	return more[t->n_names++].name;
}

static bool add_names_of(struct sni_table *t, X509 *cert, unsigned number)
{
	scoped_names *san = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
	char name[SNI_NAME_MAX + 1];

	for (int i = 0; i < sk_GENERAL_NAME_num(san); i++) {
		const GENERAL_NAME *gn = sk_GENERAL_NAME_value(san, i);

		if (gn->type == GEN_DNS && table_name(gn->d.dNSName, name) &&
		    !add_name(t, name, number))
			return false;
	}
	return true;
}

static int by_name(const void *a, const void *b)
{
	const struct sni_name *x = a, *y = b;
	int order = strcmp(x->name, y->name);

	if (order)
		return order;
	return x->number < y->number ? -1 : x->number > y->number;
}

/* The earlier one stays if there are two with keys of one type. */
static void group_add(struct sni_group *g, X509 *const *certs, unsigned number)
{
	int type = EVP_PKEY_get_base_id(X509_get0_pubkey(certs[number]));

	for (unsigned i = 0; i < g->n; i++) {
		if (EVP_PKEY_get_base_id(X509_get0_pubkey(certs[g->certs[i]])) == type)
			return;
	}
	if (g->n < SNI_KEY_TYPES)
		g->certs[g->n++] = number;
}

/* The number of a group with the same certificates, made if need be; -1: out of memory. */
static int group_number(struct sni_table *t, const struct sni_group *g)
{
	struct sni_group *more;

	for (unsigned i = 0; i < t->n_groups; i++) {
		if (t->groups[i].n == g->n &&
		    !memcmp(t->groups[i].certs, g->certs, g->n * sizeof(g->certs[0])))
			return (int)i;
	}
	more = reallocarray(t->groups, t->n_groups + 1, sizeof(*more));
	if (!more)
		return -1;
	t->groups = more;
	t->groups[t->n_groups] = *g;
	return (int)t->n_groups++;
}

/* All certificates that have the name at names[i]; they stand side by side. */
static struct sni_group certs_for(const struct sni_table *t, unsigned i, X509 *const *certs)
{
	struct sni_group g = {.n = 0};

	for (unsigned j = i; j < t->n_names && !strcmp(t->names[j].name, t->names[i].name); j++)
		group_add(&g, certs, t->names[j].number);
	return g;
}

/* The first certificate, and what else has its first name: the other key type of the same server.
 */
static bool add_default(struct sni_table *t, X509 *const *certs)
{
	struct sni_group g = {.n = 0};

	for (unsigned i = 0; i < t->n_names && !g.n; i++) {
		if (t->names[i].number == 0)
			g = certs_for(t, i, certs);
	}
	if (!g.n)
		group_add(&g, certs, 0);
	return group_number(t, &g) == 0;
}

static bool make_groups(struct sni_table *t, X509 *const *certs)
{
	unsigned kept = 0, next;

	for (unsigned i = 0; i < t->n_names; i = next) {
		struct sni_group g = certs_for(t, i, certs);
		int number = group_number(t, &g);

		if (number < 0)
			return false;
		for (next = i + 1; next < t->n_names; next++) {
			if (strcmp(t->names[next].name, t->names[i].name))
				break;
			free(TAKE_PTR(t->names[next].name));
		}
		t->names[kept] = (struct sni_name){TAKE_PTR(t->names[i].name), (unsigned)number};
		kept++;
	}
	t->n_names = kept;
	return true;
}

struct sni_table *sni_table_new(X509 *const *certs, unsigned n, bool *used)
{
	scoped_table *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	for (unsigned i = 0; i < n; i++) {
		used[i] = false;
		if (!add_names_of(t, certs[i], i))
			return NULL;
	}
	if (t->n_names)
		qsort(t->names, t->n_names, sizeof(*t->names), by_name);
	if (!add_default(t, certs) || !make_groups(t, certs))
		return NULL;
	for (unsigned g = 0; g < t->n_groups; g++)
		for (unsigned i = 0; i < t->groups[g].n; i++)
			used[t->groups[g].certs[i]] = true;
	return TAKE_PTR(t);
}

void sni_table_free(struct sni_table *t)
{
	if (!t)
		return;
	for (unsigned i = 0; i < t->n_names; i++)
		free(t->names[i].name);
	free(t->names);
	free(t->groups);
	free(t);
}

unsigned sni_groups(const struct sni_table *t)
{
	return t->n_groups;
}

const struct sni_group *sni_group(const struct sni_table *t, unsigned group)
{
	return &t->groups[group];
}

static int compare(const void *key, const void *entry)
{
	return strcmp(key, ((const struct sni_name *)entry)->name);
}

static int find(const struct sni_table *t, const char *name)
{
	const struct sni_name *found =
		t->n_names ? bsearch(name, t->names, t->n_names, sizeof(*t->names), compare) : NULL;

	return found ? (int)found->number : -1;
}

int sni_find(const struct sni_table *t, const char *name)
{
	const char *dot = strchr(name, '.');
	char wildcard[SNI_NAME_MAX + 2];
	int group = find(t, name);

	if (group >= 0 || !dot)
		return group;
	snprintf(wildcard, sizeof(wildcard), "*%s", dot);
	return find(t, wildcard);
}

bool sni_read(const uint8_t *ext, size_t len, char out[SNI_NAME_MAX + 1])
{
	size_t name_len;

	out[0] = '\0';
	/* One entry: type host_name, there is no other. OpenSSL refuses what is malformed. */
	if (len < 5 || ext[2] != TLSEXT_NAMETYPE_host_name)
		return false;
	name_len = (size_t)ext[3] << 8 | ext[4];
	return name_len == len - 5 && copy_name(ext + 5, name_len, out);
}
