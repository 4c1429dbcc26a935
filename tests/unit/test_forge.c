// SPDX-License-Identifier: Apache-2.0
/*
 * forge.c where a process from outside cannot look: serial numbers, clamping to
 * the second, a caller that did not verify. The rest is in tests/test_forge.py.
 */
#include "unit.h"
#include "certs.h"
#include <stdbool.h>
#include "forge.h"

#define SECRET "0123456789abcdefghijklmnopqrstuv"

struct fixture {
	struct pki pki;
	EVP_PKEY *forge_key, *new_key;
	X509 *forge_cert;
	struct forge_ca ca;
	struct forge_policy policy;
};

static X509 *make_forge_ca(const struct fixture *f, time_t not_before, time_t not_after,
			   struct ext extra)
{
	return make_cert(&(struct cert_spec){.cn = "Forging CA",
					     .key = f->forge_key,
					     .not_before = not_before,
					     .not_after = not_after,
					     .ext = {CA_EXT, extra}});
}

static void fixture_init(struct fixture *f)
{
	pki_init(&f->pki);
	NEED(f->forge_key = EVP_EC_gen("P-256"));
	NEED(f->new_key = EVP_EC_gen("P-256"));
	f->forge_cert = make_forge_ca(f, NOW - 100 * DAY, NOW + 100 * DAY, (struct ext){0});
	f->ca = (struct forge_ca){.cert = f->forge_cert, .key = f->forge_key};
	f->policy = (struct forge_policy){.lifespan = DAY, .skew = 300};
	memcpy(f->policy.serial_key, SECRET, sizeof(f->policy.serial_key));
}

static void fixture_free(struct fixture *f)
{
	pki_free(&f->pki);
	EVP_PKEY_free(f->forge_key);
	EVP_PKEY_free(f->new_key);
	X509_free(f->forge_cert);
}

/* An identity nobody verified: forge_certificate() has to find out itself. Takes leaf. */
static struct identity *identify(const struct fixture *f, X509 *leaf)
{
	STACK_OF(X509) *chain = sk_X509_new_null();
	struct identity *id;

	NEED(sk_X509_push(chain, leaf) && sk_X509_push(chain, f->pki.ca) && X509_up_ref(f->pki.ca));
	id = identity_new(chain);
	NEED(id);
	return id;
}

static struct identity *alice(const struct fixture *f)
{
	return identify(f,
			make_client(&f->pki, (struct cert_spec){.ext = {CLIENT_EXT, CLIENT_AUTH}}));
}

static enum forge_error forge(const struct fixture *f, const struct identity *id, X509 **out)
{
	return forge_certificate(&f->ca, id, f->new_key, &f->policy, NOW, NULL, out);
}

static X509 *forged(const struct fixture *f, const struct identity *id, time_t now)
{
	X509 *cert = NULL;

	CHECK_INT(forge_certificate(&f->ca, id, f->new_key, &f->policy, now, NULL, &cert),
		  FORGE_OK);
	NEED(cert);
	return cert;
}

/* ---- rule 4 ---- */

static bool same_serial_free(X509 *a, X509 *b)
{
	bool same = !ASN1_INTEGER_cmp(X509_get0_serialNumber(a), X509_get0_serialNumber(b));

	X509_free(a);
	X509_free(b);
	return same;
}

static void test_serial(const struct fixture *f)
{
	struct identity *id = alice(f), *twin = alice(f), *fresh;
	struct fixture g = *f;

	CHECK(same_serial_free(forged(f, id, NOW), forged(f, id, NOW)));
	CHECK(!same_serial_free(forged(f, id, NOW), forged(f, twin, NOW)));
	CHECK(!same_serial_free(forged(f, id, NOW), forged(f, id, NOW + 1)));

	g.policy.serial_key[31] ^= 1;
	CHECK(!same_serial_free(forged(f, id, NOW), forged(&g, id, NOW)));
	g = *f;
	NEED(g.new_key = EVP_EC_gen("P-256"));
	CHECK(!same_serial_free(forged(f, id, NOW), forged(&g, id, NOW)));
	EVP_PKEY_free(g.new_key);

	/* notBefore is the original's in both; only notAfter tells them apart */
	fresh = identify(f, make_client(&f->pki, (struct cert_spec){.not_before = NOW - 10,
								    .ext = {CLIENT_EXT}}));
	CHECK(!same_serial_free(forged(f, fresh, NOW), forged(f, fresh, NOW + 20)));
	identity_free(id);
	identity_free(twin);
	identity_free(fresh);
}

static void test_serial_form(const struct fixture *f)
{
	struct identity *id = alice(f);

	for (int i = 0; i < 64; i++) {
		X509 *cert = forged(f, id, NOW + i);
		const ASN1_INTEGER *serial = X509_get0_serialNumber(cert);

		CHECK_INT(ASN1_STRING_length(serial), 20);
		CHECK_INT(ASN1_STRING_type(serial), V_ASN1_INTEGER); /* not NEG_INTEGER */
		CHECK_INT(ASN1_STRING_get0_data(serial)[0] >> 6, 1);
		X509_free(cert);
	}
	identity_free(id);
}

/* ---- rule 5 ---- */

static void check_validity(const struct fixture *f, time_t original_from, time_t original_to,
			   time_t from, time_t to)
{
	struct identity *id =
		identify(f, make_client(&f->pki, (struct cert_spec){.not_before = original_from,
								    .not_after = original_to,
								    .ext = {CLIENT_EXT}}));
	X509 *cert = forged(f, id, NOW);
	time_t t;

	CHECK_INT(identity_time(X509_get0_notBefore(cert), &t), 0);
	CHECK_INT(t, from);
	CHECK_INT(identity_time(X509_get0_notAfter(cert), &t), 0);
	CHECK_INT(t, to);
	X509_free(cert);
	identity_free(id);
}

static void check_refused(const struct fixture *f, time_t original_from, time_t original_to)
{
	struct identity *id =
		identify(f, make_client(&f->pki, (struct cert_spec){.not_before = original_from,
								    .not_after = original_to,
								    .ext = {CLIENT_EXT}}));
	X509 *cert = NULL;

	CHECK_INT(forge(f, id, &cert), FORGE_NOT_YET_OR_EXPIRED);
	CHECK(!cert);
	identity_free(id);
}

static void test_validity(const struct fixture *f)
{
	struct fixture g = *f;

	/* skew and lifespan; the original's beginning; its end */
	check_validity(f, 0, 0, NOW - 300, NOW + DAY);
	check_validity(f, NOW - 299, 0, NOW - 299, NOW + DAY);
	check_validity(f, 0, NOW + DAY - 1, NOW - 300, NOW + DAY - 1);
	check_validity(f, NOW, NOW + 1, NOW, NOW + 1);
	check_refused(f, NOW + 1, 0);
	check_refused(f, 0, NOW);

	/* the client's intermediate ends after 20 days, its leaf after 30 */
	g.policy.lifespan = 1000 * DAY;
	check_validity(&g, 0, 0, NOW - 300, NOW + 20 * DAY);

	/* the forging CA's both ends */
	g.ca.cert = make_forge_ca(f, NOW - 60, NOW + 5 * DAY, (struct ext){0});
	check_validity(&g, 0, 0, NOW - 60, NOW + 5 * DAY);
	X509_free(g.ca.cert);
	g.ca.cert = make_forge_ca(f, NOW + 1, NOW + 5 * DAY, (struct ext){0});
	check_refused(&g, 0, 0);
	X509_free(g.ca.cert);

	g = *f;
	g.policy.lifespan = 0;
	check_refused(&g, 0, 0);
	g.policy.lifespan = __LONG_MAX__; /* no overflow, no certificate for ever */
	check_refused(&g, 0, 0);
}

/* ---- rule 1, by the forger itself ---- */

static void check_original(const struct fixture *f, struct cert_spec spec, enum forge_error want)
{
	struct identity *id = identify(f, make_client(&f->pki, spec));
	X509 *cert = NULL;

	CHECK_INT(forge(f, id, &cert), want);
	CHECK((cert != NULL) == (want == FORGE_OK));
	X509_free(cert);
	identity_free(id);
}

#define ORIGINAL(f, want, ...) check_original(f, (struct cert_spec){__VA_ARGS__}, want)

static void test_originals(const struct fixture *f)
{
	ORIGINAL(f, FORGE_OK, .ext = {CLIENT_EXT});
	ORIGINAL(f, FORGE_ORIGINAL_IS_CA,
		 .ext = {ISSUED_EXT, CLIENT_AUTH, {NID_basic_constraints, "critical,CA:TRUE"}});
	ORIGINAL(f, FORGE_ORIGINAL_IS_CA,
		 .ext = {ISSUED_EXT,
			 {NID_basic_constraints, "critical,CA:TRUE"},
			 {NID_key_usage, "critical,digitalSignature"}});
	ORIGINAL(f, FORGE_UNKNOWN_CRITICAL,
		 .ext = {CLIENT_EXT, {NID_mime_mhs, "critical,DER:0500"}});
	/* OpenSSL knows this one, so it verifies; a certificate without it would say more */
	ORIGINAL(f, FORGE_UNKNOWN_CRITICAL,
		 .ext = {CLIENT_EXT, {NID_inhibit_any_policy, "critical,0"}});
	ORIGINAL(f, FORGE_UNKNOWN_CRITICAL,
		 .ext = {CLIENT_EXT,
			 {NID_subject_alt_name, "email:a@b.c"},
			 {NID_subject_alt_name, "email:x@y.z"}});
	ORIGINAL(f, FORGE_NO_CLIENT_AUTH, .ext = {CLIENT_EXT, {NID_ext_key_usage, "serverAuth"}});
	ORIGINAL(f, FORGE_NO_CLIENT_AUTH,
		 .ext = {CLIENT_EXT, {NID_ext_key_usage, "anyExtendedKeyUsage"}});
	ORIGINAL(f, FORGE_NO_NAME, .cn = "", .ext = {CLIENT_EXT});
	ORIGINAL(f, FORGE_NO_NAME, .cn = "",
		 .ext = {CLIENT_EXT, {NID_subject_alt_name, "email:a@b.c"}});
	ORIGINAL(f, FORGE_OK, .cn = "",
		 .ext = {CLIENT_EXT, {NID_subject_alt_name, "critical,email:a@b.c"}});
}

static void test_sans(const struct fixture *f)
{
	static const struct {
		const char *value;
		enum forge_error want;
	} rows[] = {
		{"URI:urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6", FORGE_OK},
		{"otherName:1.3.6.1.4.1.311.20.2.3;UTF8:alice@example.com", FORGE_OK},
		{"URI:spiffe://example.org/alice", FORGE_BAD_SAN},
		{"URI:SPIFFE://example.org/alice", FORGE_BAD_SAN},
		{"email:a@b.c,URI:spiffe://example.org/alice", FORGE_BAD_SAN},
		{"otherName:1.3.6.1.4.1.311.25.2.1;OCTETSTRING:S-1-5-21-1-2-3-500", FORGE_BAD_SAN},
		/* tag:microsoft.com,2022-09-14:sid:S-1-5 in two spellings, and its year before */
		{"DER:"
		 "302886267461673a6d6963726f736f66742e636f6d2c323032322d30392d31343a7369643a532d312"
		 "d35",
		 FORGE_BAD_SAN},
		{"DER:"
		 "302886265441473a4d4943524f534f46542e434f4d2c323032322d30392d31343a5349443a532d312"
		 "d35",
		 FORGE_BAD_SAN},
		{"DER:"
		 "302886267461673a6d6963726f736f66742e636f6d2c323032312d30392d31343a7369643a532d312"
		 "d35",
		 FORGE_OK},
		/* the DNS names "a" and "a\0b"; "a" with an octet behind; cut short; none at all */
		{"DER:3003820161", FORGE_OK},
		{"DER:30058203610062", FORGE_BAD_SAN},
		{"DER:300382016100", FORGE_BAD_SAN},
		{"DER:30058203", FORGE_UNKNOWN_CRITICAL},
		{"DER:3000", FORGE_BAD_SAN},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		ORIGINAL(f, rows[i].want,
			 .ext = {CLIENT_EXT, {NID_subject_alt_name, rows[i].value}});
}

/* ---- rules 3, 10, 16 ---- */

static void check_under(const struct fixture *f, const struct identity *id, X509 *ca,
			STACK_OF(X509) * chain, enum forge_error want)
{
	struct fixture g = *f;
	X509 *cert = NULL;

	g.ca.cert = ca;
	g.ca.chain = chain;
	CHECK_INT(forge(&g, id, &cert), want);
	X509_free(cert);
}

static void test_ca(const struct fixture *f)
{
	static const struct {
		struct ext extra;
		enum forge_error want;
	} rows[] = {
		{{NID_name_constraints, "permitted;email:example.org"}, FORGE_CA_CONSTRAINT},
		{{NID_name_constraints, "permitted;email:example.com"}, FORGE_OK},
		{{NID_name_constraints, "excluded;email:example.com"}, FORGE_CA_CONSTRAINT},
		{{NID_name_constraints, "critical,DER:0500"}, FORGE_CA_CONSTRAINT},
		{{NID_ext_key_usage, "serverAuth"}, FORGE_CA_CONSTRAINT},
		{{NID_ext_key_usage, "clientAuth"}, FORGE_OK},
	};
	const struct cert_spec spec = {
		.ext = {CLIENT_EXT, {NID_subject_alt_name, "email:alice@example.com"}}};
	struct identity *id = identify(f, make_client(&f->pki, spec));

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		X509 *ca = make_forge_ca(f, 0, 0, rows[i].extra);
		STACK_OF(X509) *chain = sk_X509_new_null();

		NEED(sk_X509_push(chain, ca));
		check_under(f, id, ca, NULL, rows[i].want);
		/* name constraints bind everything below them */
		if (rows[i].extra.nid == NID_name_constraints)
			check_under(f, id, f->forge_cert, chain, rows[i].want);
		sk_X509_free(chain);
		X509_free(ca);
	}
	identity_free(id);
}

static void test_wrong_key(const struct fixture *f)
{
	struct identity *id = alice(f);
	struct fixture g = *f;
	X509 *cert = NULL;

	g.ca.key = f->new_key;
	CHECK_INT(forge(&g, id, &cert), FORGE_SIGN);
	CHECK(!cert);
	identity_free(id);
}

static void check_key_usage(const struct fixture *f, EVP_PKEY *new_key, const char *original,
			    uint32_t want)
{
	struct identity *id = identify(
		f, make_client(&f->pki,
			       (struct cert_spec){.ext = {ISSUED_EXT, {NID_key_usage, original}}}));
	struct fixture g = *f;
	X509 *cert;

	g.new_key = new_key;
	cert = forged(&g, id, NOW);
	CHECK_INT(X509_get_key_usage(cert), want);
	X509_free(cert);
	identity_free(id);
}

static void test_key_usage(const struct fixture *f)
{
	EVP_PKEY *rsa = EVP_RSA_gen(2048);

	NEED(rsa);
	check_key_usage(f, f->new_key, "critical,digitalSignature,keyEncipherment,nonRepudiation",
			KU_DIGITAL_SIGNATURE);
	check_key_usage(f, rsa, "critical,digitalSignature", KU_DIGITAL_SIGNATURE);
	check_key_usage(f, rsa, "critical,digitalSignature,keyEncipherment",
			KU_DIGITAL_SIGNATURE | KU_KEY_ENCIPHERMENT);
	EVP_PKEY_free(rsa);
}

static void test_unfit(const struct fixture *f)
{
	static const struct ext skid = {NID_subject_key_identifier, "hash"};
	static const struct ext bc = {NID_basic_constraints, "critical,CA:TRUE"};
	static const struct ext ku = {NID_key_usage, "critical,keyCertSign"};
	const struct {
		struct ext ext[5];
		const char *why; /* part of it; NULL: fit */
	} rows[] = {
		{{bc, ku, skid}, NULL},
		{{bc, ku, skid, {NID_ext_key_usage, "clientAuth,emailProtection"}}, NULL},
		{{{NID_basic_constraints, "critical,CA:TRUE,pathlen:0"}, ku, skid}, NULL},
		{{{NID_basic_constraints, "critical,CA:FALSE"}, ku, skid}, "CA:TRUE"},
		{{ku, skid}, "CA:TRUE"},
		{{{NID_basic_constraints, "CA:TRUE"}, ku, skid}, "not critical"},
		{{bc, {NID_key_usage, "critical,cRLSign"}, skid}, "keyCertSign"},
		{{bc, skid}, "no key usage"},
		{{bc, ku}, "no subject key identifier"},
		{{bc, ku, skid, {NID_ext_key_usage, "serverAuth"}}, "clientAuth"},
		{{bc, ku, skid, {NID_mime_mhs, "critical,DER:0500"}}, "unknown critical"},
		{{bc, bc, ku, skid}, "twice"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct cert_spec spec = {.cn = "CA", .key = f->forge_key};
		const char *why;
		X509 *ca;

		memcpy(spec.ext, rows[i].ext, sizeof(rows[i].ext));
		ca = make_cert(&spec);
		why = forge_ca_unfit(ca);
		if (rows[i].why)
			CHECK(why && strstr(why, rows[i].why));
		else
			CHECK(!why);
		X509_free(ca);
	}
}

/* ---- explain ---- */

static void test_explain(const struct fixture *f)
{
	struct identity *id = identify(
		f, make_client(&f->pki,
			       (struct cert_spec){.cn = "\x1b[2J",
						  .ext = {CLIENT_EXT,
							  CLIENT_AUTH,
							  {NID_info_access,
							   "OCSP;URI:http://example.com/"}}}));
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);
	X509 *cert = NULL;

	NEED(out);
	CHECK_INT(forge_certificate(&f->ca, id, f->new_key, &f->policy, NOW, out, &cert), FORGE_OK);
	fclose(out);
	CHECK(strstr(text, "Subject\n"));
	CHECK(strstr(text, "Authority Information Access\n"));
	CHECK(strstr(text, "forged    (dropped)\n    rule 14 "));
	CHECK(!strchr(text, 0x1b));
	CHECK(!strstr(text, SECRET));
	free(text);
	X509_free(cert);
	identity_free(id);
}

static void test_error_texts(void)
{
	for (int e = -1; e <= FORGE_ERRORS; e++)
		CHECK(forge_error_text((enum forge_error)e) && *forge_error_text(e));
}

int main(void)
{
	struct fixture f;

	fixture_init(&f);
	test_serial(&f);
	test_serial_form(&f);
	test_validity(&f);
	test_originals(&f);
	test_sans(&f);
	test_ca(&f);
	test_wrong_key(&f);
	test_key_usage(&f);
	test_unfit(&f);
	test_explain(&f);
	test_error_texts();
	fixture_free(&f);
	return unit_end();
}
