// SPDX-License-Identifier: Apache-2.0
/*
 * Explains a forged certificate by comparing it with its original, for people.
 * Decides nothing and is shown no secret.
 */
#include "forge/forge_explain.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>
#include <openssl/objects.h>
#include <openssl/x509v3.h>

static void print_subject(BIO *out, X509 *cert)
{
	X509_NAME_print_ex(out, X509_get_subject_name(cert), 0, XN_FLAG_RFC2253);
}

static void print_issuer(BIO *out, X509 *cert)
{
	X509_NAME_print_ex(out, X509_get_issuer_name(cert), 0, XN_FLAG_RFC2253);
}

static void print_serial(BIO *out, X509 *cert)
{
	i2a_ASN1_INTEGER(out, X509_get0_serialNumber(cert));
}

static void print_not_before(BIO *out, X509 *cert)
{
	ASN1_TIME_print(out, X509_get0_notBefore(cert));
}

static void print_not_after(BIO *out, X509 *cert)
{
	ASN1_TIME_print(out, X509_get0_notAfter(cert));
}

static void print_key(BIO *out, X509 *cert)
{
	EVP_PKEY *key = X509_get0_pubkey(cert);
	const char *type = key ? EVP_PKEY_get0_type_name(key) : NULL;

	BIO_printf(out, "%s, %d bits", type ? type : "unknown", key ? EVP_PKEY_get_bits(key) : 0);
}

static void print_signature(BIO *out, X509 *cert)
{
	BIO_puts(out, OBJ_nid2ln(X509_get_signature_nid(cert)));
}

static const struct field {
	const char *name;
	unsigned rule;
	void (*print)(BIO *out, X509 *cert);
} fields[] = {
	{"Subject", 2, print_subject},	    {"Issuer", 3, print_issuer},
	{"Serial number", 4, print_serial}, {"Not before", 5, print_not_before},
	{"Not after", 5, print_not_after},  {"Public key", 16, print_key},
	{"Signature", 3, print_signature},
};

/*
 * One line of text from bio, which it empties: runs of white space become a
 * blank, and what a terminal could obey is escaped: the client chose it.
 */
static void put_line(FILE *out, const char *label, BIO *bio)
{
	char *text;
	long n = BIO_get_mem_data(bio, &text);
	bool blank = false, begun = false;

	fprintf(out, "    %-8s  ", label);
	for (long i = 0; i < n; i++) {
		unsigned char c = (unsigned char)text[i];

		if (isspace(c)) {
			blank = begun;
			continue;
		}
		if (blank)
			putc(' ', out);
		blank = false;
		begun = true;
		fprintf(out, c > 0x20 && c < 0x7f ? "%c" : "\\x%02X", c);
	}
	putc('\n', out);
	(void)BIO_reset(bio);
}

static void put_rule(FILE *out, const struct forge_rule *rule)
{
	fprintf(out, "    rule %-3u  %s", rule->number, rule->text);
	if (rule->key)
		fprintf(out, " [%s]", rule->key);
	putc('\n', out);
}

static void explain_field(FILE *out, const struct field *f, BIO *bio, X509 *original, X509 *forged)
{
	fprintf(out, "%s\n", f->name);
	f->print(bio, original);
	put_line(out, "original", bio);
	f->print(bio, forged);
	put_line(out, "forged", bio);
	put_rule(out, forge_rule_by_number(f->rule));
}

static void print_extension(BIO *bio, X509_EXTENSION *ext, const char *absent)
{
	if (!ext) {
		BIO_printf(bio, "(%s)", absent);
		return;
	}
	if (X509_EXTENSION_get_critical(ext))
		BIO_puts(bio, "critical, ");
	if (!X509V3_EXT_print(bio, ext, X509V3_EXT_PARSE_UNKNOWN, 0))
		BIO_printf(bio, "%d octets", ASN1_STRING_length(X509_EXTENSION_get_data(ext)));
}

static X509_EXTENSION *find_extension(X509 *cert, const ASN1_OBJECT *oid)
{
	int at = X509_get_ext_by_OBJ(cert, oid, -1);

	return at < 0 ? NULL : X509_get_ext(cert, at);
}

static void explain_extension(FILE *out, BIO *bio, X509_EXTENSION *original, X509_EXTENSION *forged)
{
	X509_EXTENSION *any = forged ? forged : original;
	const ASN1_OBJECT *oid = X509_EXTENSION_get_object(any);
	char name[80];

	OBJ_obj2txt(name, sizeof(name), oid, 0);
	fprintf(out, "%s\n", name);
	print_extension(bio, original, "none");
	put_line(out, "original", bio);
	print_extension(bio, forged, "dropped");
	put_line(out, "forged", bio);
	put_rule(out, forge_rule_of_extension(oid));
}

/* Where an extension of the forged certificate comes from, if from the original. */
static X509_EXTENSION *origin(const struct forge_rules *rules, X509 *original,
			      const ASN1_OBJECT *oid)
{
	const struct forge_item *mapped = forge_list_find_to(&rules->lists[FORGE_SET_MAP], oid);

	return find_extension(original, mapped ? mapped->oid : oid);
}

static X509_EXTENSION *destination(const struct forge_rules *rules, X509 *forged,
				   const ASN1_OBJECT *oid)
{
	const struct forge_item *mapped = forge_list_find(&rules->lists[FORGE_SET_MAP], oid);

	return find_extension(forged, mapped ? mapped->to : oid);
}

void forge_explain(FILE *out, const struct forge_rules *rules, X509 *original, X509 *forged)
{
	scoped_bio *bio = BIO_new(BIO_s_mem());

	if (!bio)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++)
		explain_field(out, &fields[i], bio, original, forged);

	for (int i = 0; i < X509_get_ext_count(forged); i++) {
		X509_EXTENSION *ext = X509_get_ext(forged, i);
		const ASN1_OBJECT *oid = X509_EXTENSION_get_object(ext);

		explain_extension(out, bio, origin(rules, original, oid), ext);
	}
	for (int i = 0; i < X509_get_ext_count(original); i++) {
		X509_EXTENSION *ext = X509_get_ext(original, i);

		if (!destination(rules, forged, X509_EXTENSION_get_object(ext)))
			explain_extension(out, bio, ext, NULL);
	}
}
