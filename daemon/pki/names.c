// SPDX-License-Identifier: Apache-2.0
/* Names of certificates to text. Knows nothing of what the text is for. */
#include "pki/names.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <openssl/err.h>

/* ---- is it text? ---- */

enum char_set {
	NO_TEXT,
	ASCII, /* of seven bits; OpenSSL would take the eighth for Latin-1 */
	WIDER
};

static enum char_set char_set_of(int asn1_type)
{
	switch (asn1_type) {
	case V_ASN1_IA5STRING:
	case V_ASN1_PRINTABLESTRING:
	case V_ASN1_NUMERICSTRING:
	case V_ASN1_VISIBLESTRING:
		return ASCII;
	case V_ASN1_UTF8STRING:
	case V_ASN1_T61STRING: /* Latin-1, as everybody has it */
	case V_ASN1_BMPSTRING:
	case V_ASN1_UNIVERSALSTRING:
		return WIDER;
	default:
		return NO_TEXT;
	}
}

static bool is_ascii(const ASN1_STRING *s)
{
	const unsigned char *p = ASN1_STRING_get0_data(s);

	for (int i = 0; i < ASN1_STRING_length(s); i++) {
		if (p[i] >= 0x80)
			return false;
	}
	return true;
}

/* C0, DEL and C1; the latter are C2 80 to C2 9F in UTF-8. */
static bool has_control(const unsigned char *utf8, int len)
{
	for (int i = 0; i < len; i++) {
		if (utf8[i] < 0x20 || utf8[i] == 0x7f ||
		    (utf8[i] == 0xc2 && i + 1 < len && utf8[i + 1] < 0xa0))
			return true;
	}
	return false;
}

int names_utf8(const ASN1_STRING *s, unsigned char **out)
{
	enum char_set set = char_set_of(ASN1_STRING_type(s));
	int len;

	*out = NULL;
	if (set == NO_TEXT)
		return -ENOENT;
	if (set == ASCII && !is_ascii(s))
		return -EINVAL;
	len = ASN1_STRING_to_UTF8(out, s);
	if (len >= 0 && !has_control(*out, len))
		return len;
	ERR_clear_error();
	OPENSSL_free(*out);
	*out = NULL;
	return -EINVAL;
}

static bool is_readable(const ASN1_STRING *s)
{
	unsigned char *text;
	int len = s ? names_utf8(s, &text) : -ENOENT;

	if (len >= 0)
		OPENSSL_free(text);
	return len != -EINVAL;
}

bool names_readable(const X509_NAME *name)
{
	for (int i = 0; i < X509_NAME_entry_count(name); i++) {
		if (!is_readable(X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, i))))
			return false;
	}
	return true;
}

static bool is_readable_other(const ASN1_TYPE *value)
{
	return char_set_of(value->type) == NO_TEXT || is_readable(value->value.asn1_string);
}

bool names_readable_general(const GENERAL_NAME *name)
{
	switch (name->type) {
	case GEN_EMAIL:
	case GEN_DNS:
	case GEN_URI:
		return is_readable(name->d.ia5);
	case GEN_DIRNAME:
		return names_readable(name->d.directoryName);
	case GEN_OTHERNAME:
		return is_readable_other(name->d.otherName->value);
	case GEN_EDIPARTY:
		return is_readable(name->d.ediPartyName->nameAssigner) &&
		       is_readable(name->d.ediPartyName->partyName);
	default:
		return true;
	}
}

/* ---- to text ---- */

static void put_text(FILE *out, const char *s, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)s[i];

		if (c >= 0x20 && c < 0x7f && c != '\\')
			putc(c, out);
		else
			fprintf(out, "\\%02X", c);
	}
}

static void put_string(FILE *out, const char *kind, const ASN1_STRING *s)
{
	fprintf(out, "%s:", kind);
	put_text(out, (const char *)ASN1_STRING_get0_data(s), (size_t)ASN1_STRING_length(s));
}

static void put_ip(FILE *out, const ASN1_OCTET_STRING *ip)
{
	const uint8_t *bytes = ASN1_STRING_get0_data(ip);
	int len = ASN1_STRING_length(ip);
	char text[INET6_ADDRSTRLEN] = "?";

	if (len == 4 || len == 16)
		inet_ntop(len == 4 ? AF_INET : AF_INET6, bytes, text, sizeof(text));
	fprintf(out, "ip:%s", text);
}

const ASN1_UTF8STRING *names_upn(const OTHERNAME *other)
{
	bool is = OBJ_obj2nid(other->type_id) == NID_ms_upn &&
		  other->value->type == V_ASN1_UTF8STRING;

	return is ? other->value->value.utf8string : NULL;
}

static void put_oid(FILE *out, const char *kind, const ASN1_OBJECT *oid)
{
	char text[80] = "";

	OBJ_obj2txt(text, sizeof(text), oid, 1);
	fprintf(out, "%s:%s", kind, text);
}

static void put_der(FILE *out, const ASN1_TYPE *value)
{
	unsigned char *der = NULL;
	int len = i2d_ASN1_TYPE(value, &der);

	fputs("=#", out);
	for (int i = 0; i < len; i++)
		fprintf(out, "%02X", der[i]);
	OPENSSL_free(der);
}

static void put_other(FILE *out, const OTHERNAME *other)
{
	const ASN1_UTF8STRING *upn = names_upn(other);
	const ASN1_STRING *s = other->value->value.asn1_string;

	if (upn) {
		put_string(out, "upn", upn);
		return;
	}
	put_oid(out, "other", other->type_id);
	if (char_set_of(other->value->type) == NO_TEXT) {
		put_der(out, other->value);
		return;
	}
	putc('=', out);
	put_text(out, (const char *)ASN1_STRING_get0_data(s), (size_t)ASN1_STRING_length(s));
}

static void put_directory(FILE *out, const X509_NAME *name)
{
	scoped_mem char *text = names_subject(name);

	fprintf(out, "dir:%s", text ? text : "?");
}

static void put_name(FILE *out, const GENERAL_NAME *name)
{
	switch (name->type) {
	case GEN_DNS:
		put_string(out, "dns", name->d.dNSName);
		return;
	case GEN_EMAIL:
		put_string(out, "email", name->d.rfc822Name);
		return;
	case GEN_URI:
		put_string(out, "uri", name->d.uniformResourceIdentifier);
		return;
	case GEN_IPADD:
		put_ip(out, name->d.iPAddress);
		return;
	case GEN_OTHERNAME:
		put_other(out, name->d.otherName);
		return;
	case GEN_DIRNAME:
		put_directory(out, name->d.directoryName);
		return;
	case GEN_RID:
		put_oid(out, "rid", name->d.registeredID);
		return;
	default:
		fprintf(out, "type:%d", name->type);
	}
}

char *names_general(const GENERAL_NAME *name)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	if (!out)
		return NULL;
	put_name(out, name);
	if (!fclose(out))
		return text;
	free(text);
	return NULL;
}

char *names_subject(const X509_NAME *name)
{
	scoped_bio *bio = BIO_new(BIO_s_mem());
	char *text;
	long n;

	/* XN_FLAG_RFC2253 escapes control bytes and everything beyond ASCII. */
	if (!bio || X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253) < 0)
		return NULL;
	n = BIO_get_mem_data(bio, &text);
	return n > 0 ? strndup(text, (size_t)n) : strdup("");
}
