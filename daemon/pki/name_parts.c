// SPDX-License-Identifier: Apache-2.0
/* Names of certificates to parts. Knows no pattern. */
#include "pki/name_parts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "pki/names.h"

/* ---- a row of parts ---- */

void name_parts_free(struct name_parts *p)
{
	free(p->list);
	*p = (struct name_parts){0};
}

void name_parts_add(struct name_parts *p, uint32_t part)
{
	size_t room = p->room ? 2 * p->room : 64;
	uint32_t *more;

	if (p->n == NAME_PARTS_MAX)
		p->unusable = true;
	if (p->unusable || p->no_memory)
		return;
	if (p->n == p->room) {
		more = reallocarray(p->list, room, sizeof(*more));
		p->no_memory = !more;
		if (!more)
			return;
		p->list = more;
		p->room = room;
	}
	p->list[p->n++] = part;
}

void name_parts_add_ascii(struct name_parts *p, const char *text, uint32_t flags)
{
	for (; *text; text++)
		name_parts_add(p, (unsigned char)*text | flags);
}

static void add_utf8(struct name_parts *p, const unsigned char *text, int len, uint32_t flags)
{
	while (len > 0 && !p->unusable && !p->no_memory) {
		unsigned long c;
		int n = UTF8_getc(text, len, &c);

		if (n <= 0) {
			p->unusable = true;
			return;
		}
		name_parts_add(p, (uint32_t)c | flags);
		text += n;
		len -= n;
	}
}

static void add_der(struct name_parts *p, unsigned char *der, int len)
{
	static const char digits[] = "0123456789abcdef";

	p->unusable = p->unusable || len < 0 || !der;
	name_parts_add(p, PART_DER);
	for (int i = 0; der && i < len && !p->unusable && !p->no_memory; i++) {
		name_parts_add(p, (unsigned char)digits[der[i] >> 4]);
		name_parts_add(p, (unsigned char)digits[der[i] & 15]);
	}
	OPENSSL_free(der);
}

static void add_oid(struct name_parts *p, const ASN1_OBJECT *oid)
{
	char text[NAME_OID_MAX];
	int len = OBJ_obj2txt(text, sizeof(text), oid, 1);

	p->unusable = p->unusable || len <= 0 || len >= (int)sizeof(text);
	if (!p->unusable)
		name_parts_add_ascii(p, text, 0);
}

/* As text if it is one, else as DER. */
static void add_value(struct name_parts *p, const ASN1_TYPE *value, uint32_t flags)
{
	unsigned char *text = NULL, *der = NULL;
	int len = value->type == V_ASN1_NULL || value->type == V_ASN1_BOOLEAN ||
				  value->type == V_ASN1_OBJECT
			  ? -ENOENT
			  : names_utf8(value->value.asn1_string, &text);

	if (len == -ENOENT)
		add_der(p, der, i2d_ASN1_TYPE(value, &der));
	else if (len < 0)
		p->unusable = true;
	else
		add_utf8(p, text, len, flags);
	OPENSSL_free(text);
}

/* ---- distinguished names ---- */

struct attribute {
	char oid[NAME_OID_MAX];
	int index;
};

static int by_oid(const void *a, const void *b)
{
	const struct attribute *x = a, *y = b;
	int order = strcmp(x->oid, y->oid);

	return order ? order : x->index - y->index;
}

static void add_attribute(struct name_parts *p, const X509_NAME_ENTRY *e)
{
	ASN1_STRING *value = X509_NAME_ENTRY_get_data(e);
	ASN1_TYPE typed = {.type = ASN1_STRING_type(value), .value.asn1_string = value};

	name_parts_add(p, PART_ATTRIBUTE);
	add_oid(p, X509_NAME_ENTRY_get_object(e));
	name_parts_add(p, PART_VALUE);
	add_value(p, &typed, 0);
}

/* The entries from first to last, which are one RDN: a set, so their order says nothing. */
static void add_rdn(struct name_parts *p, const X509_NAME *name, int first, int last)
{
	struct attribute list[NAME_AVAS_MAX];
	int n = last - first + 1;

	if (n > NAME_AVAS_MAX) {
		p->unusable = true;
		return;
	}
	for (int i = 0; i < n; i++) {
		const X509_NAME_ENTRY *e = X509_NAME_get_entry(name, first + i);

		OBJ_obj2txt(list[i].oid, NAME_OID_MAX, X509_NAME_ENTRY_get_object(e), 1);
		list[i].index = first + i;
	}
	qsort(list, (size_t)n, sizeof(*list), by_oid);
	name_parts_add(p, PART_RDN);
	for (int i = 0; i < n; i++)
		add_attribute(p, X509_NAME_get_entry(name, list[i].index));
	name_parts_add(p, PART_RDN_END);
}

static int rdn_of(const X509_NAME *name, int index)
{
	return X509_NAME_ENTRY_set(X509_NAME_get_entry(name, index));
}

void name_parts_of_dn(const X509_NAME *name, struct name_parts *out)
{
	int first;

	for (int last = X509_NAME_entry_count(name) - 1; last >= 0; last = first - 1) {
		for (first = last; first > 0 && rdn_of(name, first - 1) == rdn_of(name, last);)
			first--;
		add_rdn(out, name, first, last);
	}
}

/* ---- alternative names ---- */

/* Marks each of the characters from begin to end that is one of those as a boundary. */
static void mark(struct name_parts *p, size_t begin, size_t end, const char *those)
{
	for (size_t i = begin; i < end && i < p->n; i++) {
		uint32_t c = p->list[i] & PART_CODE;

		if (c && c < 0x80 && strchr(those, (int)c))
			p->list[i] |= PART_BOUNDARY;
	}
}

static bool is_one_of(const struct name_parts *p, size_t i, const char *those)
{
	uint32_t c = p->list[i] & PART_CODE;

	return c && c < 0x80 && strchr(those, (int)c);
}

/* The first place from at on where one of those stands, or the end. */
static size_t find(const struct name_parts *p, size_t at, const char *those)
{
	while (at < p->n && !is_one_of(p, at, those))
		at++;
	return at;
}

/* Labels, from begin on: none is empty. */
static void mark_labels(struct name_parts *p, size_t begin)
{
	mark(p, begin, p->n, ".");
	for (size_t at = begin;; at++) {
		size_t dot = find(p, at, ".");

		p->unusable = p->unusable || dot == at;
		at = dot;
		if (at >= p->n)
			return;
	}
}

/* What is in front of the last @, which may hold dots, and a DNS name. */
static void mark_mailbox(struct name_parts *p)
{
	size_t domain = p->n;

	mark(p, 0, p->n, "@");
	while (domain && !is_one_of(p, domain - 1, "@"))
		domain--;
	if (domain)
		mark_labels(p, domain);
}

/* "." or ".." as a segment of the path: who resolves it goes to another one. */
static bool has_dot_segment(const struct name_parts *p, size_t path)
{
	for (size_t at = path; at < p->n; at++) {
		size_t end = find(p, at, "/?#"), n = end - at;

		if ((n == 1 || n == 2) && is_one_of(p, at, ".") && is_one_of(p, end - 1, "."))
			return true;
		at = end;
	}
	return false;
}

/*
 * RFC 3986: in scheme and authority capitals do not count, in the rest they do. A % may stand for
 * any character, also for a boundary.
 */
static void mark_uri(struct name_parts *p)
{
	size_t authority = find(p, 0, ":") + 1, path = authority;

	if (authority + 1 < p->n && is_one_of(p, authority, "/") &&
	    is_one_of(p, authority + 1, "/"))
		path = find(p, authority + 2, "/?#");
	mark(p, 0, p->n, ":/?#@%");
	mark(p, 0, path, ".");
	for (size_t i = path; i < p->n; i++)
		p->list[i] |= PART_EXACT;
	p->unusable = p->unusable || has_dot_segment(p, path);
}

static void add_text(struct name_parts *p, const ASN1_STRING *s)
{
	unsigned char *text;
	int len = names_utf8(s, &text);

	if (len < 0)
		p->unusable = true;
	else
		add_utf8(p, text, len, 0);
	OPENSSL_free(text);
}

static void add_other(struct name_parts *p, const OTHERNAME *other)
{
	add_oid(p, other->type_id);
	name_parts_add(p, PART_VALUE);
	add_value(p, other->value, PART_EXACT);
}

static void add_untranslated(struct name_parts *p, const GENERAL_NAME *name)
{
	unsigned char *der = NULL;
	char number[12];

	snprintf(number, sizeof(number), "%d", name->type);
	name_parts_add_ascii(p, number, 0);
	name_parts_add(p, PART_VALUE);
	add_der(p, der, i2d_GENERAL_NAME(name, &der));
}

enum name_kind name_kind_of(const GENERAL_NAME *name)
{
	switch (name->type) {
	case GEN_DNS:
		return NAME_DNS;
	case GEN_EMAIL:
		return NAME_EMAIL;
	case GEN_URI:
		return NAME_URI;
	case GEN_IPADD:
		return NAME_IP;
	case GEN_DIRNAME:
		return NAME_DIR;
	case GEN_OTHERNAME:
		return names_upn(name->d.otherName) ? NAME_UPN : NAME_OTHER;
	case GEN_RID:
		return NAME_RID;
	default:
		return NAME_TYPE;
	}
}

void name_parts_of(const GENERAL_NAME *name, struct name_parts *out)
{
	switch (name_kind_of(name)) {
	case NAME_DNS:
		add_text(out, name->d.dNSName);
		mark_labels(out, 0);
		break;
	case NAME_EMAIL:
		add_text(out, name->d.rfc822Name);
		mark_mailbox(out);
		break;
	case NAME_UPN:
		add_text(out, names_upn(name->d.otherName));
		mark_mailbox(out);
		break;
	case NAME_URI:
		add_text(out, name->d.uniformResourceIdentifier);
		mark_uri(out);
		break;
	case NAME_DIR:
		name_parts_of_dn(name->d.directoryName, out);
		break;
	case NAME_OTHER:
		add_other(out, name->d.otherName);
		break;
	case NAME_RID:
		add_oid(out, name->d.registeredID);
		mark_labels(out, 0);
		break;
	default:
		add_untranslated(out, name);
	}
}
