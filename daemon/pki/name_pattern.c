// SPDX-License-Identifier: Apache-2.0
/* Patterns for names to rows of tokens, and such a row against a name's parts. Knows no policy. */
#include "pki/name_pattern.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/asn1.h>
#include "pki/name_parts.h"

#define BLANK	" \t"
#define SPECIAL ";\"<>" /* of a value of a DN: RFC 4514 wants them escaped, beside + and , */

static const char *const kinds[] = {
	[NAME_SUBJECT] = "subject:", [NAME_DNS] = "dns:", [NAME_EMAIL] = "email:",
	[NAME_URI] = "uri:",	     [NAME_IP] = "ip:",	  [NAME_DIR] = "dir:",
	[NAME_UPN] = "upn:",	     [NAME_RID] = "rid:", [NAME_OTHER] = "other:",
	[NAME_TYPE] = "type:",
};

/* Not NUL-terminated. */
struct text {
	const char *p, *end;
};

/* What a place of a name is to be. */
struct token {
	enum {
		LITERAL, /* this part */
		ANY,	 /* "?" a character */
		CLASS,	 /* "[...]" one of those, or with "!" none of those */
		STAR,	 /* characters, or nothing */
		STARS	 /* "**" anything */
	} kind;
	uint32_t part;
	struct text members; /* of a CLASS, between its brackets */
};

/* A pattern, ready to be compared. */
struct pattern {
	struct token *list;
	size_t n, room;
	bool no_memory;
	char *why; /* NAME_PATTERN_WHY_MAX; empty: nothing is wrong yet */
};

static void pattern_free(struct pattern *p)
{
	free(p->list);
}
#define scoped_pattern __attribute__((cleanup(pattern_free))) struct pattern

static void printf_like(2, 3) wrong(struct pattern *p, const char *fmt, ...)
{
	va_list ap;

	if (*p->why)
		return;
	va_start(ap, fmt);
	vsnprintf(p->why, NAME_PATTERN_WHY_MAX, fmt, ap);
	va_end(ap);
}

static void add(struct pattern *p, struct token t)
{
	size_t room = p->room ? 2 * p->room : 32;
	struct token *more;

	if (p->n == p->room) {
		more = p->no_memory ? NULL : reallocarray(p->list, room, sizeof(*more));
		p->no_memory = !more;
		if (!more)
			return;
		p->list = more;
		p->room = room;
	}
	p->list[p->n++] = t;
}

static void add_part(struct pattern *p, uint32_t part)
{
	add(p, (struct token){.kind = LITERAL, .part = part});
}

/* ---- characters ---- */

static bool hex_pair(const struct text *t)
{
	return t->end - t->p > 2 && t->p[0] == '\\' && isxdigit((unsigned char)t->p[1]) &&
	       isxdigit((unsigned char)t->p[2]);
}

/* \C3\BC: bytes of one UTF-8 character. 0: they are not. */
static size_t unescape_hex(struct text *t, unsigned char out[4])
{
	size_t n = 0;

	while (n < 4 && hex_pair(t)) {
		unsigned long c;

		out[n++] = (unsigned char)(OPENSSL_hexchar2int((unsigned char)t->p[1]) << 4 |
					   OPENSSL_hexchar2int((unsigned char)t->p[2]));
		t->p += 3;
		if (UTF8_getc(out, (int)n, &c) == (int)n)
			return n;
	}
	return 0;
}

/* The next character, as RFC 4514 escapes them. False: it is none; t is not at its end. */
static bool next_char(struct text *t, uint32_t *c, bool *escaped)
{
	unsigned char bytes[4];
	unsigned long found = 0;
	int n;

	*escaped = *t->p == '\\';
	if (!*escaped) {
		n = UTF8_getc((const unsigned char *)t->p, (int)(t->end - t->p), &found);
		t->p += n > 0 ? n : 0;
	} else if (hex_pair(t)) {
		n = UTF8_getc(bytes, (int)unescape_hex(t, bytes), &found);
	} else {
		n = t->end - t->p > 1 && (ispunct((unsigned char)t->p[1]) || t->p[1] == ' ') ? 2
											     : 0;
		found = n ? (unsigned char)t->p[1] : 0;
		t->p += n;
	}
	*c = (uint32_t)found;
	return n > 0 && found >= 0x20 && found != 0x7f;
}

static bool next_good_char(struct pattern *p, struct text *t, uint32_t *c, bool *escaped)
{
	if (next_char(t, c, escaped))
		return true;
	wrong(p, "is no UTF-8, or has a backslash in front of neither a special character nor two "
		 "hexadecimal digits");
	return false;
}

/* The first of those that is not escaped, or the end. */
static const char *find(struct text t, const char *those)
{
	for (; t.p < t.end; t.p++) {
		if (*t.p == '\\' && t.end - t.p > 1)
			t.p++;
		else if (strchr(those, *t.p))
			break;
	}
	return t.p;
}

static bool is(const struct text *t, const char *what)
{
	size_t len = strlen(what);

	return (size_t)(t->end - t->p) == len && !memcmp(t->p, what, len);
}

/* ---- one part: characters and wildcards ---- */

static void add_class(struct pattern *p, struct text *t)
{
	struct text members = {t->p + 1, t->end};
	uint32_t c;
	bool escaped;

	members.p += members.p < members.end && *members.p == '!';
	t->p = members.end = find((struct text){members.p, t->end}, "]");
	if (t->p == t->end || members.p == members.end) {
		wrong(p, "has a [ that no ] closes, or nothing in between; \\[ is the character");
		t->p = t->end;
		return;
	}
	for (struct text m = members; m.p < m.end;) {
		if (!next_good_char(p, &m, &c, &escaped))
			break;
	}
	add(p, (struct token){.kind = CLASS, .part = members.p[-1] == '!', .members = members});
	t->p++;
}

static void add_stars(struct pattern *p, struct text *t)
{
	size_t n = 0;

	for (; t->p < t->end && *t->p == '*'; t->p++)
		n++;
	add(p, (struct token){.kind = n > 1 ? STARS : STAR});
}

static void add_text(struct pattern *p, struct text t)
{
	uint32_t c;
	bool escaped;

	while (t.p < t.end && !*p->why) {
		if (*t.p == '*')
			add_stars(p, &t);
		else if (*t.p == '[')
			add_class(p, &t);
		else if (next_good_char(p, &t, &c, &escaped))
			add(p, (struct token){.kind = c == '?' && !escaped ? ANY : LITERAL,
					      .part = c});
	}
}

/* Of an attribute or an otherName; # begins the DER of one that is no text. */
static void add_value(struct pattern *p, struct text t)
{
	add_part(p, PART_VALUE);
	if (t.p < t.end && *t.p == '#') {
		add_part(p, PART_DER);
		t.p++;
	}
	add_text(p, t);
}

/* The dotted form of a type that has a name or is in dotted form; false: there is no such one. */
static bool find_oid(struct text t, char out[NAME_OID_MAX])
{
	char name[NAME_OID_MAX];
	ASN1_OBJECT *oid;

	if (t.p == t.end || t.end - t.p >= NAME_OID_MAX)
		return false;
	snprintf(name, sizeof(name), "%.*s", (int)(t.end - t.p), t.p);
	oid = OBJ_txt2obj(name, 0);
	for (char *c = name; !oid && *c; c++)
		*c = (char)toupper((unsigned char)*c);
	oid = oid ? oid : OBJ_txt2obj(name, 0);
	if (!oid)
		return false;
	OBJ_obj2txt(out, NAME_OID_MAX, oid, 1);
	ASN1_OBJECT_free(oid);
	return true;
}

/* ---- distinguished names ---- */

struct attribute {
	char oid[NAME_OID_MAX];
	struct text value;
};

static int by_oid(const void *a, const void *b)
{
	return strcmp(((const struct attribute *)a)->oid, ((const struct attribute *)b)->oid);
}

static void read_attribute(struct pattern *p, struct text t, struct attribute *out)
{
	struct text type = {t.p, find(t, "=")};
	const char *special;

	if (type.end == t.end) {
		wrong(p,
		      "has \"%.*s\" where TYPE=VALUE belongs; a comma or plus sign in a value is "
		      "written \\, or \\+",
		      (int)(t.end - t.p), t.p);
		return;
	}
	if (!find_oid(type, out->oid))
		wrong(p, "has the unknown attribute \"%.*s\"; use a name such as CN or an OID",
		      (int)(type.end - type.p), type.p);
	out->value = (struct text){type.end + 1, t.end};
	special = find(out->value, SPECIAL);
	if (special != t.end)
		wrong(p, "has a bare %c in a value; write \\%c", *special, *special);
}

static void add_rdn(struct pattern *p, struct text t)
{
	struct attribute list[NAME_AVAS_MAX];
	size_t n = 0;

	for (struct text rest = t; !*p->why; rest.p++) {
		struct text one = {rest.p, find(rest, "+")};

		if (n == NAME_AVAS_MAX)
			wrong(p, "has more than %d attributes in one RDN", NAME_AVAS_MAX);
		else
			read_attribute(p, one, &list[n++]);
		rest.p = one.end;
		if (rest.p == rest.end)
			break;
	}
	if (*p->why)
		return;
	qsort(list, n, sizeof(*list), by_oid);
	add_part(p, PART_RDN);
	for (size_t i = 0; i < n; i++) {
		add_part(p, PART_ATTRIBUTE);
		for (const char *c = list[i].oid; *c; c++)
			add_part(p, (unsigned char)*c);
		add_value(p, list[i].value);
	}
	add_part(p, PART_RDN_END);
}

static bool has_stars(const struct pattern *p, size_t from)
{
	for (size_t i = from; i < p->n; i++) {
		if (p->list[i].kind == STARS)
			return true;
	}
	return false;
}

static void add_dn(struct pattern *p, struct text t)
{
	for (; !*p->why; t.p++) {
		struct text one = {t.p, find(t, ",")};
		size_t before = p->n;

		if (is(&one, "**")) {
			add(p, (struct token){.kind = STARS});
		} else {
			add_rdn(p, one);
			if (has_stars(p, before))
				wrong(p, "has ** within an RDN; it stands for whole ones, * for a "
					 "part of a value");
		}
		t.p = one.end;
		if (t.p == t.end)
			return;
	}
}

/* ---- other kinds ---- */

/* OID=PATTERN, or NUMBER=PATTERN of a type of general name. */
static void add_typed(struct pattern *p, struct text t, bool oid)
{
	struct text type = {t.p, find(t, "=")}, value = {type.end + 1, t.end};
	char text[NAME_OID_MAX];

	if (type.end == t.end) {
		wrong(p,
		      "says nothing about the value; write %s=PATTERN, with the value's DER in "
		      "hexadecimal, #0403..., if it is no text",
		      oid ? "OID" : "TYPE");
		return;
	}
	snprintf(text, sizeof(text), "%.*s", (int)(type.end - type.p), type.p);
	if (oid && !find_oid(type, text)) {
		wrong(p, "has no OID in front of the =");
		return;
	}
	for (const char *c = text; *c; c++)
		add_part(p, (unsigned char)*c);
	add_value(p, value);
}

struct prefix {
	int family;
	unsigned len;
	unsigned char address[16];
};

/* ADDRESS[/LENGTH] */
static bool read_prefix(struct text t, struct prefix *out)
{
	char text[INET6_ADDRSTRLEN + 8], *slash, *end = "";
	unsigned long max;

	if (t.end - t.p >= (ptrdiff_t)sizeof(text))
		return false;
	snprintf(text, sizeof(text), "%.*s", (int)(t.end - t.p), t.p);
	slash = strchr(text, '/');
	if (slash)
		*slash = '\0';
	out->family = strchr(text, ':') ? AF_INET6 : AF_INET;
	max = out->family == AF_INET ? 32 : 128;
	out->len = (unsigned)max;
	if (slash) {
		unsigned long len = strtoul(slash + 1, &end, 10);

		if (!isdigit((unsigned char)slash[1]) || *end || len > max)
			return false;
		out->len = (unsigned)len;
	}
	return inet_pton(out->family, text, out->address) == 1;
}

static bool holds(const struct prefix *p, const ASN1_OCTET_STRING *ip)
{
	const unsigned char *bytes = ASN1_STRING_get0_data(ip);
	unsigned whole = p->len / 8, rest = p->len % 8;

	if (ASN1_STRING_length(ip) != (p->family == AF_INET ? 4 : 16) ||
	    memcmp(bytes, p->address, whole) != 0)
		return false;
	return !rest || !((bytes[whole] ^ p->address[whole]) >> (8 - rest));
}

static void read_pattern(struct pattern *p, enum name_kind kind, struct text t)
{
	struct prefix prefix;

	if (is(&t, "*"))
		return;
	if (kind == NAME_SUBJECT || kind == NAME_DIR)
		add_dn(p, t);
	else if (kind == NAME_OTHER || kind == NAME_TYPE)
		add_typed(p, t, kind == NAME_OTHER);
	else if (kind != NAME_IP)
		add_text(p, t);
	else if (!read_prefix(t, &prefix))
		wrong(p, "is no address; write ADDRESS or ADDRESS/LENGTH, e.g. 192.0.2.0/24");
}

/* ---- comparing ---- */

static uint32_t fold(uint32_t c)
{
	return c < 0x80 ? (uint32_t)tolower((int)c) : c;
}

static bool same_char(uint32_t a, uint32_t part)
{
	uint32_t b = part & PART_CODE;

	return (a & PART_CODE) == b || (!(part & PART_EXACT) && fold(a & PART_CODE) == fold(b));
}

static bool in_range(uint32_t first, uint32_t last, uint32_t part)
{
	uint32_t c = part & PART_CODE;

	if (c >= first && c <= last)
		return true;
	if (part & PART_EXACT || c >= 0x80)
		return false;
	return ((uint32_t)tolower((int)c) >= first && (uint32_t)tolower((int)c) <= last) ||
	       ((uint32_t)toupper((int)c) >= first && (uint32_t)toupper((int)c) <= last);
}

static bool in_class(const struct token *t, uint32_t part)
{
	struct text m = t->members;
	bool found = false, escaped;

	while (m.p < m.end && !found) {
		uint32_t first = 0, last;

		if (!next_char(&m, &first, &escaped))
			return false;
		last = first;
		if (m.end - m.p > 1 && *m.p == '-') {
			m.p++;
			if (!next_char(&m, &last, &escaped))
				return false;
		}
		found = in_range(first, last, part);
	}
	return found != !!t->part;
}

static bool takes(const struct token *t, uint32_t part)
{
	switch (t->kind) {
	case LITERAL:
		return same_char(t->part, part);
	case ANY:
	case STAR:
		return !(part & PART_BOUNDARY);
	case CLASS:
		return !(part & PART_BOUNDARY) && in_class(t, part);
	case STARS:
		return true;
	}
	return false;
}

static bool repeats(const struct token *t)
{
	return t->kind == STAR || t->kind == STARS;
}

/* Marks the places that can be reached without a part. */
static void skip_stars(const struct pattern *p, bool *at)
{
	for (size_t i = 0; i < p->n; i++) {
		if (at[i] && repeats(&p->list[i]))
			at[i + 1] = true;
	}
}

/*
 * All places of the pattern where one can be are followed at once: that takes parts * tokens steps
 * and no more, whatever the name's owner has put into it.
 */
static int compare(const struct pattern *p, const struct name_parts *name)
{
	size_t size = p->n + 1;
	scoped_mem bool *at = calloc(2 * size, sizeof(*at));
	bool *now = at, *next;

	if (!at)
		return -ENOMEM;
	next = at + size;
	now[0] = true;
	skip_stars(p, now);
	for (size_t i = 0; i < name->n; i++) {
		bool *spent = now;

		memset(next, 0, size);
		for (size_t k = 0; k < p->n; k++) {
			if (now[k] && takes(&p->list[k], name->list[i]))
				next[repeats(&p->list[k]) ? k : k + 1] = true;
		}
		skip_stars(p, next);
		now = next;
		next = spent;
	}
	return now[p->n];
}

static int fits_parts(enum name_kind kind, struct text t, const struct name_parts *name)
{
	char why[NAME_PATTERN_WHY_MAX] = "";
	scoped_pattern p = {.why = why};

	if (name->unusable)
		return 0;
	read_pattern(&p, kind, t);
	if (p.no_memory)
		return -ENOMEM;
	return *why ? 0 : compare(&p, name);
}

static bool fits_address(struct text t, const ASN1_OCTET_STRING *ip)
{
	struct prefix prefix;

	return read_prefix(t, &prefix) && holds(&prefix, ip);
}

/* ---- lists ---- */

/* The list's next item; a blank behind a backslash belongs to it. */
static bool next_item(const char **list, struct text *out)
{
	struct text rest;

	*list += strspn(*list, BLANK);
	rest = (struct text){*list, *list + strlen(*list)};
	*out = (struct text){*list, find(rest, BLANK)};
	*list = out->end;
	return out->p < out->end;
}

/* Its kind, with t behind the colon; false: there is no such kind, or no pattern. */
static bool take_kind(struct text *t, enum name_kind *kind)
{
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		size_t len = strlen(kinds[i]);

		if ((size_t)(t->end - t->p) > len && !memcmp(t->p, kinds[i], len)) {
			*kind = (enum name_kind)i;
			t->p += len;
			return true;
		}
	}
	return false;
}

static int check_item(struct text item, char why[NAME_PATTERN_WHY_MAX])
{
	scoped_pattern p = {.why = why};
	enum name_kind kind;

	if (item.end - item.p > NAME_PATTERN_MAX)
		wrong(&p, "has more than %d bytes", NAME_PATTERN_MAX);
	else if (!take_kind(&item, &kind))
		wrong(&p, "begins with no kind of name and a colon");
	else
		read_pattern(&p, kind, item);
	if (p.no_memory)
		return -ENOMEM;
	return *why ? -EINVAL : 0;
}

int name_patterns_check(const char *patterns, char why[NAME_PATTERN_WHY_MAX])
{
	struct text item;
	int err = 0;

	*why = '\0';
	while (!err && next_item(&patterns, &item)) {
		char what[NAME_PATTERN_WHY_MAX] = "";

		err = check_item(item, what);
		if (err == -EINVAL)
			snprintf(why, NAME_PATTERN_WHY_MAX, "%.*s %s",
				 (int)(item.end - item.p > 40 ? 40 : item.end - item.p), item.p,
				 what);
	}
	return err;
}

bool name_patterns_have_subject(const char *patterns)
{
	struct text item;
	enum name_kind kind;

	while (next_item(&patterns, &item)) {
		if (take_kind(&item, &kind) && kind == NAME_SUBJECT)
			return true;
	}
	return false;
}

/* ip: if the kind is NAME_IP. */
static int fit(const char *patterns, enum name_kind kind, const struct name_parts *parts,
	       const ASN1_OCTET_STRING *ip)
{
	struct text item;
	enum name_kind of;
	int fits = 0;

	while (!fits && next_item(&patterns, &item)) {
		if (!take_kind(&item, &of) || of != kind)
			continue;
		if (is(&item, "*"))
			return 1;
		fits = kind == NAME_IP ? fits_address(item, ip) : fits_parts(kind, item, parts);
	}
	return fits;
}

int name_patterns_fit(const char *patterns, const GENERAL_NAME *name)
{
	enum name_kind kind = name_kind_of(name);
	scoped_name_parts parts = {0};

	if (kind == NAME_IP)
		return fit(patterns, kind, &parts, name->d.iPAddress);
	name_parts_of(name, &parts);
	return parts.no_memory ? -ENOMEM : fit(patterns, kind, &parts, NULL);
}

int name_patterns_fit_subject(const char *patterns, const X509_NAME *subject)
{
	scoped_name_parts parts = {0};

	name_parts_of_dn(subject, &parts);
	return parts.no_memory ? -ENOMEM : fit(patterns, NAME_SUBJECT, &parts, NULL);
}
