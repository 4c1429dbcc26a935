// SPDX-License-Identifier: Apache-2.0
/*
 * The rules for forged certificates and their settings: tables, and text to
 * what forge.c asks. Forges nothing.
 */
#include "forge/forge_rules.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>

#define LIST_MAX 32  /* items of a list: a certificate is sent in each handshake */
#define ITEM_MAX 255 /* bytes of one item's text */
#define BLANK	 " \t"

/* ---- the table ---- */

const struct forge_rule forge_rule_table[] = {
	{1, "original", "chain, dates, purpose and the client's signature were verified before",
	 NULL},
	{2, "subject", "the original's DER, never re-encoded", NULL},
	{3, "issuer", "the forging CA's subject and key; its own constraints hold", NULL},
	{4, "serialNumber", "keyed hash: unpredictable, never twice for different certificates",
	 NULL},
	{5, "validity", "within the original, its chain, the forging CA and the lifespan",
	 "forge.lifespan, forge.start"},
	{6, "subjectAltName", "copied as it is: UPN, FASC-N and UUID live here", "forge.drop"},
	{7, "SPIFFE ID", "one URI, of a named trust domain", "forge.trust_domains"},
	{8, "Windows SID", "a privilege: only from named issuers", "forge.sid_issuers"},
	{9, "extKeyUsage", "clientAuth always, else what is allowed", "forge.eku"},
	{10, "keyUsage", "from the new key", NULL},
	{11, "basicConstraints", "always written, never a CA", NULL},
	{12, "key identifiers", "computed anew", NULL},
	{13, "certificatePolicies", "dropped, copied or mapped", "forge.policies"},
	{14, "AIA, CRL distribution points",
	 "the original's belong to another issuer; the forging CA's are put in",
	 "certkey.<name>.ocsp, .ca_issuers, .crl"},
	{15, "any other extension", "dropped unless listed",
	 "forge.copy, forge.map, forge.add, forge.drop, forge.provenance"},
	{16, "key", "new: the client's private key stays with the client", "forge.key"},
	{17, "certificate_authorities", "the backend's CA names choose the forging CA",
	 "forging_certkey, forge.no_matching_ca"},
	{18, "chain", "the forging CA's file is sent whole", NULL},
};
const unsigned forge_rule_count = ARRAY_SIZE(forge_rule_table);

/*
 * Extensions that have a rule of their own, or are of no use to anybody but
 * their issuer: no list may name them, but for what FORGE_SET_DROP may drop.
 */
static const struct extension {
	const char *oid;
	unsigned rule;
	bool droppable;
	const char *instead; /* what to set */
} extensions[] = {
	{"2.5.29.17", 6, true, "it is copied unless forge.drop names it"},
	{FORGE_OID_SID, 8, false, "set forge.sid_issuers"},
	{"2.5.29.37", 9, false, "set forge.eku"},
	{"2.5.29.15", 10, false, "it follows from the new key"},
	{"2.5.29.19", 11, false, "a forged certificate is never a CA's"},
	{"2.5.29.14", 12, false, "it is computed anew"},
	{"2.5.29.35", 12, false, "it is computed anew"},
	{"2.5.29.32", 13, false, "set forge.policies"},
	{"2.5.29.31", 14, false, "set certkey.<name>.crl"},
	{"2.5.29.46", 14, false, "the forging CA has its own"},
	{"1.3.6.1.5.5.7.1.1", 14, false, "set certkey.<name>.ocsp or .ca_issuers"},
	{"1.3.6.1.5.5.7.1.11", 14, false, "the forging CA has its own"},
	/* only in certificates of CAs */
	{"2.5.29.30", 15, true, "it is for CAs"}, /* nameConstraints */
	{"2.5.29.33", 15, true, "it is for CAs"}, /* policyMappings */
	{"2.5.29.36", 15, true, "it is for CAs"}, /* policyConstraints */
	{"2.5.29.54", 15, true, "it is for CAs"}, /* inhibitAnyPolicy */
	/* true of the original alone */
	{"2.5.29.16", 15, true, "it is about the original's key"},	     /* private key usage */
	{"1.3.6.1.4.1.11129.2.4.2", 15, true, "it is about the original"},   /* SCT list */
	{"1.3.6.1.4.1.11129.2.4.3", 15, false, "it forbids the use"},	     /* poison */
	{"1.3.6.1.5.5.7.1.24", 15, true, "it is about the original's OCSP"}, /* must-staple */
	{"1.3.6.1.5.5.7.48.1.5", 15, true, "it is about the original's OCSP"}, /* nocheck */
};

const struct forge_rule *forge_rule_by_number(unsigned number)
{
	for (unsigned i = 0; i < forge_rule_count; i++) {
		if (forge_rule_table[i].number == number)
			return &forge_rule_table[i];
	}
	return &forge_rule_table[0];
}

bool forge_has_oid(const ASN1_OBJECT *obj, const char *oid)
{
	char text[80];

	return OBJ_obj2txt(text, sizeof(text), obj, 1) > 0 && !strcmp(text, oid);
}

static const struct extension *find_extension(const ASN1_OBJECT *oid)
{
	for (size_t i = 0; i < ARRAY_SIZE(extensions); i++) {
		if (forge_has_oid(oid, extensions[i].oid))
			return &extensions[i];
	}
	return NULL;
}

const struct forge_rule *forge_rule_of_extension(const ASN1_OBJECT *oid)
{
	const struct extension *e = find_extension(oid);

	return forge_rule_by_number(e ? e->rule : 15);
}

void forge_rules_print(FILE *out)
{
	for (unsigned i = 0; i < forge_rule_count; i++) {
		const struct forge_rule *r = &forge_rule_table[i];

		fprintf(out, "%u\t%s\t%s\t%s\n", r->number, r->field, r->text,
			r->key ? r->key : "-");
	}
}

/* ---- the settings ---- */

static int extension_item(struct forge_item *item, const char *value, char *why);
static int droppable_item(struct forge_item *item, const char *value, char *why);
static int map_item(struct forge_item *item, const char *value, char *why);
static int value_item(struct forge_item *item, const char *value, char *why);
static int usage_item(struct forge_item *item, const char *value, char *why);
static int policy_item(struct forge_item *item, const char *value, char *why);
static int provenance_item(struct forge_item *item, const char *value, char *why);

/* How the items of a setting look. NULL: it lists trust domains, not OIDs. */
static const struct setting {
	const char *name, *range;
	int (*item)(struct forge_item *item, const char *value, char *why);
	unsigned max;
} settings[FORGE_SETTINGS] = {
	[FORGE_SET_COPY] = {"copy", "OIDs of extensions", extension_item, LIST_MAX},
	[FORGE_SET_DROP] = {"drop", "OIDs of extensions", droppable_item, LIST_MAX},
	[FORGE_SET_MAP] = {"map", "OID=OID of extensions", map_item, LIST_MAX},
	[FORGE_SET_ADD] = {"add", "OID=utf8:TEXT | OID=hex:DER", value_item, LIST_MAX},
	[FORGE_SET_EKU] = {"eku", "OIDs of key purposes", usage_item, LIST_MAX},
	[FORGE_SET_POLICIES] = {"policies", "drop | copy | OID=OID ...", policy_item, LIST_MAX},
	[FORGE_SET_TRUST_DOMAINS] = {"trust_domains", "SPIFFE trust domains, e.g. example.org",
				     NULL, LIST_MAX},
	[FORGE_SET_PROVENANCE] = {"provenance", "off | OID of an extension", provenance_item, 1},
};

const char *forge_setting_name(enum forge_setting s)
{
	return settings[s].name;
}

const char *forge_setting_range(enum forge_setting s)
{
	return settings[s].range;
}

enum forge_setting forge_setting_find(const char *name)
{
	int s = 0;

	while (s < FORGE_SETTINGS && strcmp(settings[s].name, name) != 0)
		s++;
	return (enum forge_setting)s;
}

static int printf_like(2, 3) wrong(char *why, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, FORGE_WHY_MAX, fmt, ap);
	va_end(ap);
	ERR_clear_error();
	return -EINVAL;
}

static void item_clear(struct forge_item *item)
{
	ASN1_OBJECT_free(item->oid);
	ASN1_OBJECT_free(item->to);
	ASN1_OCTET_STRING_free(item->value);
	free(item->text);
	*item = (struct forge_item){0};
}

static void list_clear(struct forge_list *list)
{
	for (unsigned i = 0; i < list->n; i++)
		item_clear(&list->items[i]);
	free(list->items);
	*list = (struct forge_list){0};
}

/* ---- one item ---- */

static ASN1_OBJECT *parse_oid(const char *text)
{
	ASN1_OBJECT *oid = OBJ_txt2obj(text, 0);

	ERR_clear_error();
	return oid;
}

/* An extension that no rule of its own decides about. */
static int free_extension(const ASN1_OBJECT *oid, char *why)
{
	const struct extension *e = find_extension(oid);
	char name[40];

	if (!e)
		return 0;
	OBJ_obj2txt(name, sizeof(name), oid, 0);
	return wrong(why, "names %s, which rule %u decides about; %s", name, e->rule, e->instead);
}

static int no_value(const char *value, char *why)
{
	return value ? wrong(why, "holds a '='; list OIDs only") : 0;
}

static int extension_item(struct forge_item *item, const char *value, char *why)
{
	int ret = no_value(value, why);

	return ret ? ret : free_extension(item->oid, why);
}

static int droppable_item(struct forge_item *item, const char *value, char *why)
{
	const struct extension *e = find_extension(item->oid);

	if (e && e->droppable && !value)
		return 0;
	return extension_item(item, value, why);
}

/* The OID behind the '='. */
static int parse_to(struct forge_item *item, const char *value, char *why)
{
	if (!value)
		return wrong(why, "lacks a '='; write OID=OID");
	item->to = parse_oid(value);
	return item->to ? 0 : wrong(why, "holds no OID behind a '='; write OID=OID");
}

static int map_item(struct forge_item *item, const char *value, char *why)
{
	int ret = parse_to(item, value, why);

	if (!ret)
		ret = free_extension(item->oid, why);
	return ret ? ret : free_extension(item->to, why);
}

/* Text as a UTF8String. */
static int encode_utf8(struct forge_item *item, const char *text, char *why)
{
	ASN1_UTF8STRING *s = ASN1_UTF8STRING_new();
	unsigned char *der = NULL;
	int len = -1;

	if (s && ASN1_STRING_set(s, text, -1))
		len = i2d_ASN1_UTF8STRING(s, &der);
	if (len > 0 && !ASN1_OCTET_STRING_set(item->value, der, len))
		len = -1;
	OPENSSL_free(der);
	ASN1_UTF8STRING_free(s);
	return len > 0 ? 0 : wrong(why, "out of memory");
}

/* Exactly one DER value. */
static int decode_hex(struct forge_item *item, const char *text, char *why)
{
	long len = 0, body;
	unsigned char *der = OPENSSL_hexstr2buf(text, &len);
	const unsigned char *p = der;
	int tag, class, ret = 0;

	if (!der || !len || ASN1_get_object(&p, &body, &tag, &class, len) & 0x80 ||
	    p + body != der + len)
		ret = wrong(why, "holds behind hex: what is not one DER value; e.g. hex:0500");
	else if (!ASN1_OCTET_STRING_set(item->value, der, (int)len))
		ret = wrong(why, "out of memory");
	OPENSSL_free(der);
	return ret;
}

static int value_item(struct forge_item *item, const char *value, char *why)
{
	item->value = ASN1_OCTET_STRING_new();
	if (!item->value)
		return wrong(why, "out of memory");
	if (free_extension(item->oid, why))
		return -EINVAL;
	if (value && !strncmp(value, "utf8:", 5) && value[5])
		return encode_utf8(item, value + 5, why);
	if (value && !strncmp(value, "hex:", 4))
		return decode_hex(item, value + 4, why);
	return wrong(why, "holds no value; write OID=utf8:TEXT or OID=hex:DER");
}

static int usage_item(struct forge_item *item, const char *value, char *why)
{
	(void)item;
	return no_value(value, why);
}

static int policy_item(struct forge_item *item, const char *value, char *why)
{
	return parse_to(item, value, why);
}

static int provenance_item(struct forge_item *item, const char *value, char *why)
{
	return extension_item(item, value, why);
}

/* SPIFFE-ID 2.1: letters in lower case, digits, dots, dashes, underscores. */
static int domain_item(struct forge_item *item, const char *text, char *why)
{
	for (const char *p = text; *p; p++) {
		if (!islower((unsigned char)*p) && !isdigit((unsigned char)*p) &&
		    !strchr(".-_", *p))
			return wrong(why, "'%.40s' is no trust domain; use a-z 0-9 . - _", text);
	}
	item->text = strdup(text);
	return item->text ? 0 : wrong(why, "out of memory");
}

static int parse_item(const struct setting *s, char *text, struct forge_item *item, char *why)
{
	char *value;

	if (!s->item)
		return domain_item(item, text, why);
	value = strchr(text, '=');
	if (value)
		*value++ = '\0';
	item->oid = parse_oid(text);
	if (!item->oid)
		return wrong(why, "'%.40s' is no OID; write e.g. 1.3.6.1.4.1.99999.1", text);
	return s->item(item, value, why);
}

static bool same_item(const struct forge_item *a, const struct forge_item *b)
{
	if (a->text && b->text)
		return !strcmp(a->text, b->text);
	return a->oid && b->oid && !OBJ_cmp(a->oid, b->oid);
}

static int append_item(const struct setting *s, struct forge_list *list, struct forge_item *item,
		       char *why)
{
	struct forge_item *more;

	for (unsigned i = 0; i < list->n; i++) {
		if (same_item(&list->items[i], item))
			return wrong(why, "names the same twice; once is enough");
	}
	if (list->n >= s->max)
		return wrong(why, "holds too many; use at most %u", s->max);
	more = reallocarray(list->items, list->n + 1, sizeof(*more));
	if (!more)
		return wrong(why, "out of memory");
	list->items = more;
	list->items[list->n++] = *item;
	*item = (struct forge_item){0};
	return 0;
}

static int parse_list(const struct setting *s, const char *text, struct forge_list *list, char *why)
{
	for (text += strspn(text, BLANK); *text; text += strspn(text, BLANK)) {
		size_t len = strcspn(text, BLANK);
		struct forge_item item = {0};
		char one[ITEM_MAX + 1];
		int ret;

		if (len > ITEM_MAX)
			return wrong(why, "holds an item of %zu bytes; use at most %d", len,
				     ITEM_MAX);
		memcpy(one, text, len);
		one[len] = '\0';
		text += len;
		ret = parse_item(s, one, &item, why);
		if (!ret)
			ret = append_item(s, list, &item, why);
		item_clear(&item);
		if (ret)
			return ret;
	}
	return list->n ? 0 : wrong(why, "is empty; use %s", s->range);
}

/* The words that stand for a whole list. */
static bool is_word(enum forge_setting s, const char *text)
{
	if (s == FORGE_SET_POLICIES)
		return !strcmp(text, FORGE_POLICY_DEFAULT) || !strcmp(text, "copy");
	return s == FORGE_SET_PROVENANCE && !strcmp(text, FORGE_OFF);
}

int forge_rules_set(struct forge_rules *r, enum forge_setting s, const char *text,
		    char why[FORGE_WHY_MAX])
{
	struct forge_list list = {0};
	bool word = is_word(s, text);
	int ret = word ? 0 : parse_list(&settings[s], text, &list, why);

	if (ret || !r) {
		list_clear(&list);
		return ret;
	}
	list_clear(&r->lists[s]);
	r->lists[s] = list;
	if (s == FORGE_SET_POLICIES)
		r->copy_policies = word && !strcmp(text, "copy");
	return 0;
}

struct forge_rules *forge_rules_new(void)
{
	struct forge_rules *r = calloc(1, sizeof(*r));
	char why[FORGE_WHY_MAX];

	if (r && !forge_rules_set(r, FORGE_SET_EKU, FORGE_EKU_DEFAULT, why))
		return r;
	forge_rules_free(r);
	return NULL;
}

void forge_rules_free(struct forge_rules *r)
{
	if (!r)
		return;
	for (int s = 0; s < FORGE_SETTINGS; s++)
		list_clear(&r->lists[s]);
	free(r);
}

/* ---- what is written, by which setting ---- */

/* How many of the settings write oid; *last: the last of them. */
static unsigned writers(const struct forge_rules *r, const ASN1_OBJECT *oid,
			enum forge_setting *last)
{
	static const enum forge_setting by_oid[] = {FORGE_SET_COPY, FORGE_SET_ADD,
						    FORGE_SET_PROVENANCE};
	const struct forge_list *map = &r->lists[FORGE_SET_MAP];
	unsigned n = 0;

	for (unsigned i = 0; i < map->n; i++) {
		if (OBJ_cmp(map->items[i].to, oid))
			continue;
		n++;
		*last = FORGE_SET_MAP;
	}
	for (size_t i = 0; i < ARRAY_SIZE(by_oid); i++) {
		if (!forge_list_find(&r->lists[by_oid[i]], oid))
			continue;
		n++;
		*last = by_oid[i];
	}
	return n;
}

const char *forge_rules_contradiction(const struct forge_rules *r, enum forge_setting *where,
				      char why[FORGE_WHY_MAX])
{
	for (int s = 0; s < FORGE_SETTINGS; s++) {
		if (s != FORGE_SET_COPY && s != FORGE_SET_MAP && s != FORGE_SET_ADD &&
		    s != FORGE_SET_PROVENANCE)
			continue;
		for (unsigned i = 0; i < r->lists[s].n; i++) {
			const struct forge_item *item = &r->lists[s].items[i];
			const ASN1_OBJECT *oid = s == FORGE_SET_MAP ? item->to : item->oid;
			char name[40];

			if (writers(r, oid, where) < 2)
				continue;
			OBJ_obj2txt(name, sizeof(name), oid, 0);
			snprintf(why, FORGE_WHY_MAX, "writes %s, as another setting does; keep one",
				 name);
			return why;
		}
	}
	return NULL;
}

const struct forge_item *forge_list_find(const struct forge_list *list, const ASN1_OBJECT *oid)
{
	for (unsigned i = 0; i < list->n; i++) {
		if (!OBJ_cmp(list->items[i].oid, oid))
			return &list->items[i];
	}
	return NULL;
}

const struct forge_item *forge_list_find_to(const struct forge_list *list, const ASN1_OBJECT *oid)
{
	for (unsigned i = 0; i < list->n; i++) {
		if (!OBJ_cmp(list->items[i].to, oid))
			return &list->items[i];
	}
	return NULL;
}

bool forge_trusts_domain(const struct forge_rules *r, const char *domain, size_t n)
{
	const struct forge_list *list = &r->lists[FORGE_SET_TRUST_DOMAINS];

	for (unsigned i = 0; i < list->n; i++) {
		if (strlen(list->items[i].text) == n && !memcmp(list->items[i].text, domain, n))
			return true;
	}
	return false;
}
