// SPDX-License-Identifier: Apache-2.0
/*
 * Certificates from programs, signed with real keys, so that a fuzzer gets behind the checks of
 * form. A program is a few bytes; what it makes may be large: a count is one word.
 *
 *   subject and issuer (3 bits each, names N0 to N7), key and signer (3 bits each, and whether the
 *   signature is wrong), then steps up to a 0:
 *   1 an extension     2 n unknown ones     3 a subject of n RDNs     4 another kind of key
 *   5 n copies that differ in their serial number      6 a changed byte, under the signature
 *   7 other fields
 * Knows nothing of the code under test.
 */
#include "fuzz.h"

#include <openssl/evp.h>

struct evp_pkey_st *fuzz_key(unsigned n)
{
	static EVP_PKEY *keys[FUZZ_KEYS];
	uint8_t seed[32] = "ktlsgate fuzz key";

	n %= FUZZ_KEYS;
	seed[31] = (uint8_t)n;
	if (!keys[n])
		keys[n] = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, seed, sizeof(seed));
	ENSURE(keys[n]);
	return keys[n];
}

/* ---- names ---- */

static void rdn(struct der *d, unsigned attributes, const char *value, size_t len)
{
	der_open(d, TAG_SET);
	for (unsigned i = 0; i <= attributes && !d->full; i++) {
		der_open(d, TAG_SEQUENCE);
		der_oid(d, i & 1 ? "2.5.4.11" : "2.5.4.3");
		der_value(d, TAG_UTF8, value, len);
		der_close(d);
	}
	der_close(d);
}

static void name_of(struct der *d, unsigned n, unsigned rdns, unsigned attributes, size_t pad)
{
	char value[300];
	int len = snprintf(value, sizeof(value), "N%u", n);

	memset(value + len, 'a', pad);
	der_open(d, TAG_SEQUENCE);
	for (unsigned i = 0; i <= rdns && !d->full; i++)
		rdn(d, attributes, value, (size_t)len + pad);
	der_close(d);
}

void fuzz_name(struct der *d, unsigned n)
{
	name_of(d, n, 0, 0, 0);
}

/* The i-th of many names of a kind, `pad` bytes longer than it must be. */
static void general_name(struct der *d, unsigned kind, unsigned i, unsigned pad)
{
	static const uint8_t tags[] = {TAG_CONTEXT | 2, TAG_CONTEXT | 1, TAG_CONTEXT | 6,
				       TAG_CONTEXT | 6};
	static const char *const forms[][2] = {
		{"h", "."}, {"u", "@"}, {"spiffe://d", ".example/"}, {"http://h", ".example/"}};
	char filler[256], text[400];

	memset(filler, 'x', pad & 0xff);
	filler[pad & 0xff ? (pad & 0xff) - (pad == 255) : 0] = '\0';
	switch (kind % 8) {
	case 4:
		der_value(d, TAG_CONTEXT | 7, &i, sizeof(i));
		return;
	case 5:
		der_open(d, 0xa4);
		name_of(d, i, pad & 3, pad >> 2 & 3, 0);
		der_close(d);
		return;
	case 6: /* otherName: UPN */
		der_open(d, 0xa0);
		der_oid(d, "1.3.6.1.4.1.311.20.2.3");
		der_open(d, TAG_EXPLICIT);
		der_text(d, TAG_UTF8, filler);
		der_close(d);
		der_close(d);
		return;
	case 7:
		der_value(d, TAG_CONTEXT | 8, "\x2a\x03", 2);
		return;
	default:
		snprintf(text, sizeof(text), "%s%u%s%s%s", forms[kind & 3][0], i,
			 forms[kind & 3][1], filler, kind & 2 ? "" : ".example");
		der_text(d, tags[kind & 3], text);
	}
}

/* ---- extensions ---- */

/* How many of what there are in an extension's value. */
struct items {
	unsigned count, kind, pad;
};

static void numbered_oid(struct der *d, const char *root, unsigned i)
{
	char oid[64];

	snprintf(oid, sizeof(oid), "%s.%u", root, i);
	der_oid(d, oid);
}

static void basic_constraints(struct der *d, const struct items *it)
{
	der_open(d, TAG_SEQUENCE);
	if (it->kind & 1)
		der_true(d);
	if (it->kind & 2)
		der_number(d, TAG_INTEGER, it->pad);
	der_close(d);
}

static void key_usage(struct der *d, const struct items *it)
{
	uint8_t bits[2] = {0, (uint8_t)it->kind};

	der_value(d, TAG_BITS, bits, sizeof(bits));
}

static void extended_key_usage(struct der *d, const struct items *it)
{
	der_open(d, TAG_SEQUENCE);
	if (it->kind & 1)
		der_oid(d, "1.3.6.1.5.5.7.3.2");
	if (it->kind & 2)
		der_oid(d, "1.3.6.1.5.5.7.3.9");
	for (unsigned i = 0; i < it->count && !d->full; i++)
		numbered_oid(d, "1.3.6.1.4.1.99999.3", i);
	der_close(d);
}

static void names(struct der *d, const struct items *it)
{
	der_open(d, TAG_SEQUENCE);
	for (unsigned i = 0; i <= it->count && !d->full; i++)
		general_name(d, it->kind, i, it->pad);
	der_close(d);
}

static void name_constraints(struct der *d, const struct items *it)
{
	der_open(d, TAG_SEQUENCE);
	der_open(d, it->kind & 8 ? 0xa1 : 0xa0);
	for (unsigned i = 0; i <= it->count && !d->full; i++) {
		der_open(d, TAG_SEQUENCE);
		general_name(d, it->kind, i, it->pad);
		der_close(d);
	}
	der_close(d);
	der_close(d);
}

static void policies(struct der *d, const struct items *it)
{
	der_open(d, TAG_SEQUENCE);
	if (it->kind & 1) {
		der_open(d, TAG_SEQUENCE);
		der_oid(d, "2.5.29.32.0");
		der_close(d);
	}
	for (unsigned i = 0; i < it->count && !d->full; i++) {
		der_open(d, TAG_SEQUENCE);
		numbered_oid(d, "1.3.6.1.4.1.99999.4", i);
		der_close(d);
	}
	der_close(d);
}

/* Each policy of the issuer to one or several of the subject's. */
static void policy_mappings(struct der *d, const struct items *it)
{
	unsigned width = (it->kind & 15) + 1;

	der_open(d, TAG_SEQUENCE);
	for (unsigned i = 0; i <= it->count && !d->full; i++) {
		der_open(d, TAG_SEQUENCE);
		numbered_oid(d, "1.3.6.1.4.1.99999.4", i / width);
		numbered_oid(d, "1.3.6.1.4.1.99999.4", i % width);
		der_close(d);
	}
	der_close(d);
}

static void policy_constraints(struct der *d, const struct items *it)
{
	der_open(d, TAG_SEQUENCE);
	der_number(d, TAG_CONTEXT | 0, it->kind);
	der_close(d);
}

static void inhibit_any_policy(struct der *d, const struct items *it)
{
	der_number(d, TAG_INTEGER, it->kind);
}

static void subject_key_id(struct der *d, const struct items *it)
{
	der_value(d, TAG_OCTETS, &it->kind, 1);
}

static void authority_key_id(struct der *d, const struct items *it)
{
	der_open(d, TAG_SEQUENCE);
	der_value(d, TAG_CONTEXT | 0, &it->kind, 1);
	der_close(d);
}

static void info_access(struct der *d, const struct items *it)
{
	der_open(d, TAG_SEQUENCE);
	for (unsigned i = 0; i <= it->count && !d->full; i++) {
		der_open(d, TAG_SEQUENCE);
		der_oid(d, "1.3.6.1.5.5.7.48.1");
		general_name(d, it->kind, i, it->pad);
		der_close(d);
	}
	der_close(d);
}

static void distribution_points(struct der *d, const struct items *it)
{
	der_open(d, TAG_SEQUENCE);
	for (unsigned i = 0; i <= it->count && !d->full; i++) {
		der_open(d, TAG_SEQUENCE);
		der_open(d, 0xa0);
		der_open(d, 0xa0);
		general_name(d, it->kind, i, it->pad);
		der_close(d);
		der_close(d);
		der_close(d);
	}
	der_close(d);
}

static void issuing_distribution_point(struct der *d, const struct items *it)
{
	der_open(d, TAG_SEQUENCE);
	der_open(d, 0xa0);
	der_open(d, 0xa0);
	for (unsigned i = 0; i <= it->count && !d->full; i++)
		general_name(d, it->kind, i, it->pad);
	der_close(d);
	der_close(d);
	if (it->kind & 0x10)
		der_value(d, TAG_CONTEXT | 1, "\xff", 1);
	if (it->kind & 0x20)
		der_value(d, TAG_CONTEXT | 2, "\xff", 1);
	der_close(d);
}

static void number(struct der *d, const struct items *it)
{
	der_number(d, TAG_INTEGER, it->count);
}

static void empty(struct der *d, const struct items *it)
{
	(void)it;
	der_value(d, TAG_NULL, NULL, 0);
}

static const struct {
	const char *oid;
	void (*write)(struct der *d, const struct items *it);
} extensions[] = {
	{"2.5.29.19", basic_constraints},
	{"2.5.29.15", key_usage},
	{"2.5.29.37", extended_key_usage},
	{"2.5.29.17", names},
	{"2.5.29.30", name_constraints},
	{"2.5.29.32", policies},
	{"2.5.29.33", policy_mappings},
	{"2.5.29.36", policy_constraints},
	{"2.5.29.54", inhibit_any_policy},
	{"2.5.29.14", subject_key_id},
	{"2.5.29.35", authority_key_id},
	{"1.3.6.1.5.5.7.1.1", info_access},
	{"2.5.29.31", distribution_points},
	{"2.5.29.28", issuing_distribution_point},
	{"2.5.29.18", names},
	{"2.5.29.20", number},
	{"2.5.29.27", number},
	{"2.5.29.46", distribution_points},
	{"1.3.6.1.5.5.7.48.1.5", empty},
	{"1.3.6.1.4.1.311.25.2", names},
};
#define EXTENSIONS (sizeof(extensions) / sizeof(extensions[0]))

/* kind (odd: the value is made of the next bytes as they are), critical, count, item, padding */
void fuzz_extension(struct der *d, struct fuzz_input *in)
{
	unsigned which = fuzz_byte(in), flags = fuzz_byte(in);
	struct items it = {fuzz_word(in), fuzz_byte(in), fuzz_byte(in)};
	unsigned i = which % EXTENSIONS;
	size_t got;

	der_open(d, TAG_SEQUENCE);
	der_oid(d, extensions[i].oid);
	if (flags & 1)
		der_true(d);
	der_open(d, TAG_OCTETS);
	if (flags & 2) {
		const uint8_t *raw = fuzz_bytes(in, it.pad, &got);

		der_bytes(d, raw, got);
	} else {
		extensions[i].write(d, &it);
	}
	der_close(d);
	der_close(d);
}

static void unknown_extensions(struct der *d, unsigned n, unsigned len)
{
	static const uint8_t value[256];

	for (unsigned i = 0; i < n && !d->full; i++) {
		der_open(d, TAG_SEQUENCE);
		numbered_oid(d, "1.3.6.1.4.1.99999.5", i);
		der_value(d, TAG_OCTETS, value, len & 0xff);
		der_close(d);
	}
}

/* ---- keys ---- */

static void ed25519(struct der *d)
{
	der_open(d, TAG_SEQUENCE);
	der_oid(d, "1.3.101.112");
	der_close(d);
}

void fuzz_public_key(struct der *d, unsigned key)
{
	uint8_t bits[33] = {0};
	size_t len = 32;

	ENSURE(EVP_PKEY_get_raw_public_key(fuzz_key(key), bits + 1, &len) == 1);
	der_open(d, TAG_SEQUENCE);
	ed25519(d);
	der_value(d, TAG_BITS, bits, sizeof(bits));
	der_close(d);
}

/* Of any size, odd, and with nobody who could sign. */
static void rsa_key(struct der *d, unsigned bytes, unsigned exponent_bytes)
{
	static uint8_t ones[8192];

	memset(ones, 0x7f, sizeof(ones));
	der_open(d, TAG_SEQUENCE);
	der_open(d, TAG_SEQUENCE);
	der_oid(d, "1.2.840.113549.1.1.1");
	der_value(d, TAG_NULL, NULL, 0);
	der_close(d);
	der_open(d, TAG_BITS);
	der_bytes(d, "", 1);
	der_open(d, TAG_SEQUENCE);
	der_value(d, TAG_INTEGER, ones, bytes % sizeof(ones));
	der_value(d, TAG_INTEGER, ones, exponent_bytes % sizeof(ones));
	der_close(d);
	der_close(d);
	der_close(d);
}

/* P-256 and others by their OID, with a point that is none. */
static void ec_key(struct der *d, unsigned curve, unsigned bytes)
{
	static const char *const curves[] = {"1.2.840.10045.3.1.7", "1.3.132.0.34", "1.3.132.0.35",
					     "1.3.132.0.10", "1.3.132.0.39"};
	static uint8_t point[512] = {0, 4, 1};

	der_open(d, TAG_SEQUENCE);
	der_open(d, TAG_SEQUENCE);
	der_oid(d, "1.2.840.10045.2.1");
	der_oid(d, curves[curve % 5]);
	der_close(d);
	der_value(d, TAG_BITS, point, 2 + bytes % 500);
	der_close(d);
}

static void other_key(struct der *d, struct fuzz_input *in, unsigned key)
{
	unsigned kind = fuzz_byte(in), size = fuzz_word(in), more = fuzz_word(in);
	size_t got;
	const uint8_t *raw;

	d->len = 0;
	switch (kind % 4) {
	case 0:
		fuzz_public_key(d, key);
		break;
	case 1:
		rsa_key(d, size, more);
		break;
	case 2:
		ec_key(d, more, size);
		break;
	default: /* whatever the bytes say, in place of the AlgorithmIdentifier and the bits */
		raw = fuzz_bytes(in, size & 0xff, &got);
		der_value(d, TAG_SEQUENCE, raw, got);
	}
}

/* ---- certificates ---- */

void fuzz_sign(struct der *d, size_t from, unsigned key, bool flipped)
{
	uint8_t bits[65] = {0};
	size_t len = 64;
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();

	ENSURE(ctx && EVP_DigestSignInit(ctx, NULL, NULL, NULL, fuzz_key(key)) == 1);
	ENSURE(EVP_DigestSign(ctx, bits + 1, &len, d->p + from, d->len - from) == 1);
	EVP_MD_CTX_free(ctx);
	bits[1] ^= flipped;
	ed25519(d);
	der_value(d, TAG_BITS, bits, sizeof(bits));
}

struct spec {
	unsigned subject, issuer, key, signer;
	bool flipped;
	struct der subject_der, key_der, extension_der;
	unsigned copies;
	unsigned patch_at, patch;
	unsigned version, serial_len, dates;
};

#define PART_MAX 100000

static void spec_free(struct spec *s)
{
	der_free(&s->subject_der);
	der_free(&s->key_der);
	der_free(&s->extension_der);
}

static void step(struct spec *s, struct fuzz_input *in, unsigned op)
{
	unsigned n, more;

	switch (op) {
	case 1:
		fuzz_extension(&s->extension_der, in);
		return;
	case 2:
		n = fuzz_word(in);
		unknown_extensions(&s->extension_der, n, fuzz_byte(in));
		return;
	case 3:
		n = fuzz_word(in);
		more = fuzz_byte(in);
		s->subject_der.len = 0;
		name_of(&s->subject_der, s->subject, n, more, fuzz_byte(in));
		return;
	case 4:
		other_key(&s->key_der, in, s->key);
		return;
	case 5:
		s->copies = fuzz_byte(in);
		return;
	case 6:
		s->patch_at = fuzz_word(in);
		s->patch = fuzz_byte(in);
		return;
	default:
		s->version = fuzz_byte(in);
		s->serial_len = fuzz_byte(in);
		s->dates = fuzz_byte(in);
	}
}

static void read_spec(struct spec *s, struct fuzz_input *in)
{
	unsigned names = fuzz_byte(in), keys = fuzz_byte(in), op;

	*s = (struct spec){.subject = names & 7,
			   .issuer = names >> 3 & 7,
			   .key = keys & 7,
			   .signer = keys >> 3 & 7,
			   .flipped = keys >> 6 & 1,
			   .version = 2,
			   .serial_len = 8};
	der_begin(&s->subject_der, PART_MAX);
	der_begin(&s->key_der, PART_MAX);
	der_begin(&s->extension_der, PART_MAX);
	fuzz_name(&s->subject_der, s->subject);
	fuzz_public_key(&s->key_der, s->key);
	while ((op = fuzz_byte(in) % 8))
		step(s, in, op);
}

static void validity(struct der *d, unsigned dates)
{
	der_open(d, TAG_SEQUENCE);
	der_text(d, TAG_UTC_TIME, dates & 1 ? "260101000000Z" : "200101000000Z");
	der_text(d, dates & 4 ? TAG_TIME : TAG_UTC_TIME,
		 dates & 4   ? "99991231235959Z"
		 : dates & 2 ? "210101000000Z"
			     : "491231235959Z");
	der_close(d);
}

static void write_one(struct der *d, const struct spec *s, unsigned copy)
{
	uint8_t serial[256] = {1, (uint8_t)copy, (uint8_t)s->subject};
	size_t tbs;

	der_open(d, TAG_SEQUENCE);
	tbs = d->len;
	der_open(d, TAG_SEQUENCE);
	if (s->version) {
		der_open(d, TAG_EXPLICIT);
		der_number(d, TAG_INTEGER, s->version);
		der_close(d);
	}
	der_value(d, TAG_INTEGER, serial, s->serial_len);
	ed25519(d);
	fuzz_name(d, s->issuer);
	validity(d, s->dates);
	der_bytes(d, s->subject_der.p, s->subject_der.len);
	der_bytes(d, s->key_der.p, s->key_der.len);
	if (s->extension_der.len) {
		der_open(d, TAG_EXPLICIT | 3);
		der_value(d, TAG_SEQUENCE, s->extension_der.p, s->extension_der.len);
		der_close(d);
	}
	der_close(d);
	if (s->patch && d->len > tbs)
		d->p[tbs + s->patch_at % (d->len - tbs)] ^= (uint8_t)s->patch;
	fuzz_sign(d, tbs, s->signer, s->flipped);
	der_close(d);
}

unsigned fuzz_certificate(struct der *d, struct fuzz_input *in, size_t *from, unsigned max)
{
	struct spec s;
	unsigned n = 0;

	read_spec(&s, in);
	do {
		from[n] = d->len;
		write_one(d, &s, n);
	} while (!d->full && ++n < max && n <= s.copies);
	spec_free(&s);
	return n;
}

void fuzz_anchor(struct der *d)
{
	static const uint8_t program[] = {
		0, 0,			/* N0, key 0, by itself */
		1, 0, 1, 0, 0, 1,    0, /* basicConstraints, critical: a CA */
		1, 1, 1, 0, 0, 0x06, 0, /* keyUsage: keyCertSign, cRLSign */
		1, 9, 0, 0, 0, 0,    0, /* subjectKeyIdentifier */
	};
	struct fuzz_input in = {program, sizeof(program)};
	size_t from;

	ENSURE(fuzz_certificate(d, &in, &from, 1) == 1);
}
