// SPDX-License-Identifier: Apache-2.0
/*
 * forge.c where a process from outside cannot look: serial numbers, clamping to
 * the second, a caller that did not verify. The rest is in tests/test_forge.py.
 */
#include "unit.h"
#include "certs.h"
#include <stdbool.h>
#include "forge/forge.h"

#define SECRET "0123456789abcdefghijklmnopqrstuv"

struct fixture {
	struct pki pki;
	EVP_PKEY *forge_key, *new_key;
	X509 *forge_cert;
	struct forge_ca ca;
	struct forge_policy policy;
	struct forge_rules *rules;
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
	NEED(f->rules = forge_rules_new());
	f->policy = (struct forge_policy){.rules = f->rules, .lifespan = DAY, .skew = 300};
	memcpy(f->policy.serial_key, SECRET, sizeof(f->policy.serial_key));
}

static void fixture_free(struct fixture *f)
{
	pki_free(&f->pki);
	EVP_PKEY_free(f->forge_key);
	EVP_PKEY_free(f->new_key);
	X509_free(f->forge_cert);
	forge_rules_free(f->rules);
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
			enum forge_error want)
{
	struct fixture g = *f;
	X509 *cert = NULL;

	g.ca.cert = ca;
	CHECK_INT(forge(&g, id, &cert), want);
	X509_free(cert);
}

static struct identity *alice_with_mail(const struct fixture *f)
{
	return identify(
		f, make_client(&f->pki, (struct cert_spec){.ext = {CLIENT_EXT,
								   {NID_subject_alt_name,
								    "email:alice@example.com"}}}));
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
	struct identity *id = alice_with_mail(f);

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		X509 *ca = make_forge_ca(f, 0, 0, rows[i].extra);

		check_under(f, id, ca, rows[i].want);
		X509_free(ca);
	}
	identity_free(id);
}

/* ---- rule 3: the CAs above it in its file ---- */

#define FILE_MAX 4

/* A file of certificates, the forging CA first; n of them. */
struct file {
	X509 *cert[FILE_MAX];
	int n;
};

/* unfit: part of what forge_ca_unfit() says, NULL: fit. forged: what forge_certificate() does. */
static void check_file(const struct fixture *f, const struct file *file, const char *unfit,
		       enum forge_error want)
{
	struct identity *id = alice_with_mail(f);
	STACK_OF(X509) *above = sk_X509_new_null();
	char why[FORGE_WHY_MAX] = "fit";
	struct fixture g = *f;
	const char *said;
	X509 *cert = NULL;

	for (int i = 1; i < file->n; i++)
		NEED(sk_X509_push(above, file->cert[i]));
	g.ca.cert = file->cert[0];
	g.ca.chain = above;
	said = forge_ca_unfit(&g.ca, why);
	CHECK(unfit ? said && strstr(said, unfit) : !said);
	if (!unfit != !said || (unfit && !strstr(why, unfit)))
		printf("  %s, but expected: %s\n", why, unfit ? unfit : "fit");
	CHECK_INT(forge(&g, id, &cert), want);
	CHECK((cert != NULL) == (want == FORGE_OK));
	X509_free(cert);
	sk_X509_free(above);
	identity_free(id);
}

static X509 *make_root(const struct fixture *f, const struct ext *ext)
{
	struct cert_spec spec = {.cn = "Forging Root", .key = f->pki.root_key};

	memcpy(spec.ext, ext, 5 * sizeof(*ext));
	return make_cert(&spec);
}

static X509 *make_ca_below(const char *cn, EVP_PKEY *key, X509 *issuer, EVP_PKEY *issuer_key)
{
	struct cert_spec spec = {
		.cn = cn, .key = key, .issuer = issuer, .issuer_key = issuer_key, .ext = {CA_EXT}};

	if (X509_get0_subject_key_id(issuer))
		spec.ext[3] = (struct ext){NID_authority_key_identifier, "keyid:always"};
	return make_cert(&spec);
}

static const struct ext skid = {NID_subject_key_identifier, "hash"};
static const struct ext bc = {NID_basic_constraints, "critical,CA:TRUE"};
static const struct ext ku = {NID_key_usage, "critical,keyCertSign"};

static void test_above(const struct fixture *f)
{
	const struct {
		struct ext ext[5]; /* of the root */
		const char *unfit;
		enum forge_error want;
	} rows[] = {
		{{bc, ku, skid}, NULL, FORGE_OK},
		{{{NID_basic_constraints, "critical,CA:TRUE,pathlen:1"}, ku, skid}, NULL, FORGE_OK},
		{{{NID_basic_constraints, "critical,CA:TRUE,pathlen:0"}, ku, skid},
		 "certificate 2 has a path length too short",
		 FORGE_CA_CONSTRAINT},
		{{bc, ku, skid, {NID_ext_key_usage, "clientAuth,emailProtection"}}, NULL, FORGE_OK},
		{{bc, ku, skid, {NID_ext_key_usage, "serverAuth"}},
		 "certificate 2 is no CA for clients",
		 FORGE_CA_CONSTRAINT},
		{{bc, ku, skid, {NID_ext_key_usage, "anyExtendedKeyUsage"}},
		 "certificate 2 is no CA for clients",
		 FORGE_CA_CONSTRAINT},
		{{{NID_basic_constraints, "critical,CA:FALSE"}, ku, skid},
		 "certificate 2 is no CA for clients",
		 FORGE_CA_CONSTRAINT},
		/* without keyCertSign it has not issued anything either */
		{{bc, {NID_key_usage, "critical,cRLSign"}, skid},
		 "certificate 2 did not issue the one before it",
		 FORGE_CA_CONSTRAINT},
		{{bc, ku, skid, {NID_mime_mhs, "critical,DER:0500"}},
		 "certificate 2 has an unknown critical extension",
		 FORGE_CA_CONSTRAINT},
		/* an old root: as RFC 5280 does not want it, and in use */
		{{{NID_basic_constraints, "CA:TRUE"}}, NULL, FORGE_OK},
		/* the forging CA satisfies them, Alice does not */
		{{bc, ku, skid, {NID_name_constraints, "permitted;email:example.org"}},
		 NULL,
		 FORGE_CA_CONSTRAINT},
		{{bc, ku, skid, {NID_name_constraints, "permitted;email:example.com"}},
		 NULL,
		 FORGE_OK},
		/* an excluded directory name of nothing is above all of them */
		{{bc, ku, skid, {NID_name_constraints, "critical,DER:3008a1063004a4023000"}},
		 "certificate 2 has name constraints that a CA before it does not satisfy",
		 FORGE_CA_CONSTRAINT},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		X509 *root = make_root(f, rows[i].ext);
		X509 *ca = make_ca_below("Forging CA", f->forge_key, root, f->pki.root_key);

		check_file(f, &(struct file){{ca, root}, 2}, rows[i].unfit, rows[i].want);
		X509_free(ca);
		X509_free(root);
	}
}

static void test_order(const struct fixture *f)
{
	const struct ext plain[5] = {bc, ku, skid};
	const struct ext one_below[5] = {
		{NID_basic_constraints, "critical,CA:TRUE,pathlen:1"}, ku, skid};
	EVP_PKEY *root_key = f->pki.root_key, *upper_key = f->pki.ca_key;
	X509 *root = make_root(f, plain), *narrow = make_root(f, one_below);
	X509 *upper = make_ca_below("Upper", upper_key, root, root_key);
	X509 *ca = make_ca_below("Forging CA", f->forge_key, upper, upper_key);
	X509 *again = make_ca_below("Forging CA", f->forge_key, root, root_key);
	X509 *rolled = make_ca_below("Forging Root", f->new_key, root, root_key);
	X509 *below_rolled = make_ca_below("Forging CA", f->forge_key, rolled, f->new_key);
	/* Upper's name, no key identifier to tell it by, another key */
	X509 *impostor =
		make_cert(&(struct cert_spec){.cn = "Upper", .key = f->new_key, .ext = {bc, ku}});
	X509 *nameless = make_cert(&(struct cert_spec){.cn = "Forging CA",
						       .key = f->forge_key,
						       .issuer = upper,
						       .issuer_key = upper_key,
						       .ext = {bc, ku, skid}});
	static const char not_issued[] = "certificate 2 did not issue the one before it";

	check_file(f, &(struct file){{ca}, 1}, NULL, FORGE_OK);
	check_file(f, &(struct file){{ca, upper}, 2}, NULL, FORGE_OK);
	check_file(f, &(struct file){{ca, upper, root}, 3}, NULL, FORGE_OK);
	check_file(f, &(struct file){{ca, upper, narrow}, 3},
		   "certificate 3 has a path length too short", FORGE_CA_CONSTRAINT);
	/* self-issued ones are not counted */
	check_file(f, &(struct file){{below_rolled, rolled, narrow}, 3}, NULL, FORGE_OK);
	check_file(f, &(struct file){{again, upper, root}, 3}, not_issued, FORGE_OK);
	check_file(f, &(struct file){{ca, root}, 2}, not_issued, FORGE_CA_CONSTRAINT);
	check_file(f, &(struct file){{f->forge_cert, root}, 2}, not_issued, FORGE_CA_CONSTRAINT);
	check_file(f, &(struct file){{f->forge_cert, f->forge_cert}, 2}, not_issued, FORGE_OK);
	check_file(f, &(struct file){{nameless, upper}, 2}, NULL, FORGE_OK);
	/* nor is a signature of the file's looked at again */
	check_file(f, &(struct file){{nameless, impostor}, 2}, not_issued, FORGE_OK);

	X509_free(root);
	X509_free(narrow);
	X509_free(upper);
	X509_free(ca);
	X509_free(again);
	X509_free(rolled);
	X509_free(below_rolled);
	X509_free(impostor);
	X509_free(nameless);
}

/* Rule 5 */
static void test_above_expires(const struct fixture *f)
{
	X509 *root = make_cert(&(struct cert_spec){.cn = "Forging Root",
						   .key = f->pki.root_key,
						   .not_before = NOW - 60,
						   .not_after = NOW + HOUR,
						   .ext = {CA_EXT}});
	X509 *ca = make_ca_below("Forging CA", f->forge_key, root, f->pki.root_key);
	STACK_OF(X509) *above = sk_X509_new_null();
	struct fixture g = *f;

	NEED(sk_X509_push(above, root));
	g.ca.cert = ca;
	g.ca.chain = above;
	check_validity(&g, 0, 0, NOW - 60, NOW + HOUR);
	NEED(ASN1_TIME_set(X509_getm_notAfter(root), NOW) &&
	     X509_sign(root, f->pki.root_key, EVP_sha256()));
	check_refused(&g, 0, 0);
	sk_X509_free(above);
	X509_free(ca);
	X509_free(root);
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
		char buf[FORGE_WHY_MAX];
		const char *why;
		X509 *ca;

		memcpy(spec.ext, rows[i].ext, sizeof(rows[i].ext));
		ca = make_cert(&spec);
		why = forge_ca_unfit(&(struct forge_ca){.cert = ca}, buf);
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
	test_above(&f);
	test_order(&f);
	test_above_expires(&f);
	test_wrong_key(&f);
	test_key_usage(&f);
	test_unfit(&f);
	test_explain(&f);
	test_error_texts();
	fixture_free(&f);
	return unit_end();
}
