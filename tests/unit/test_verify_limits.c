// SPDX-License-Identifier: Apache-2.0
/* What is refused because it is too much, up to which number it is taken, and what that costs. */
#include "unit.h"
#include "certs.h"
#include <errno.h>
#include <time.h>
#include "pki/verify.h"
#include "pki/verify_limits.h"

/* Hostile chains took seconds; on the slowest machine a refusal is nowhere near. */
#define REFUSED_WITHIN_MS 100

static struct pki pki;

static double cpu_ms(void)
{
	struct timespec t;

	NEED(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t) == 0);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* Against root; sent may be NULL. The chain is not kept. */
static struct verify_result verdict_on(X509 *root, X509 *leaf, STACK_OF(X509) * sent)
{
	STACK_OF(X509) *anchors = sk_X509_new_null();
	struct verify_policy policy = VERIFY_POLICY_DEFAULT;
	struct verify_result r;
	struct verifier *v;
	double begun;
	int ret;

	NEED(sk_X509_push(anchors, root) && (v = verifier_new(anchors, &policy)));
	begun = cpu_ms();
	ret = verify_chain(v, VERIFY_CLIENT, leaf, sent, NOW, &r);
	CHECK(cpu_ms() - begun < REFUSED_WITHIN_MS);
	CHECK_INT(ret, r.error == X509_V_OK ? 0 : -EACCES);
	sk_X509_pop_free(r.chain, X509_free);
	verifier_free(v);
	sk_X509_free(anchors);
	return r;
}

/* n elements, with commas in between; each # in one is 0, 2, 4, ... */
static char *list(const char *element, unsigned n)
{
	char *text = calloc(n + 1, 64), *p = text;

	NEED(text);
	for (unsigned i = 0; i < n; i++) {
		if (i)
			*p++ = ',';
		for (const char *c = element; *c; c++)
			p += *c == '#' ? sprintf(p, "%u", 2 * i) : sprintf(p, "%c", *c);
	}
	return text;
}

/* As list(); OpenSSL takes no list of policies without a configuration file. */
static char *policies(unsigned n)
{
	char *text = calloc(n + 3, 32), *p = text;

	NEED(text);
	p += sprintf(p, "DER:3082%04X", 6 * n);
	for (unsigned i = 0; i < n; i++)
		p += sprintf(p, "300406022B%02X", i);
	return text;
}

static X509 *leaf_with(int nid, const char *value, X509 *issuer)
{
	return make_client(&pki,
			   (struct cert_spec){.issuer = issuer,
					      .ext = {CLIENT_EXT, CLIENT_AUTH, {nid, value}}});
}

static struct verify_result verdict_on_leaf(X509 *leaf)
{
	STACK_OF(X509) *sent = sk_X509_new_null();
	struct verify_result r;

	NEED(sk_X509_push(sent, leaf) && sk_X509_push(sent, pki.ca));
	r = verdict_on(pki.root, leaf, sent);
	sk_X509_free(sent);
	return r;
}

static void test_elements(void)
{
	static const struct {
		int nid;
		const char *element;
		unsigned max;
		int error;
		int at_max; /* the verdict on as many as are taken */
	} cases[] = {
		{NID_subject_alt_name, "DNS:a#", VERIFY_NAMES_MAX, VERIFY_ERR_NAMES, X509_V_OK},
		{NID_issuer_alt_name, "DNS:a#", VERIFY_NAMES_MAX, VERIFY_ERR_NAMES, X509_V_OK},
		{NID_certificate_policies, NULL, VERIFY_POLICIES_MAX, VERIFY_ERR_POLICIES,
		 X509_V_OK},
		{NID_policy_mappings, "1.3.1#:1.3.2#", VERIFY_POLICIES_MAX, VERIFY_ERR_POLICIES,
		 X509_V_OK},
		{NID_crl_distribution_points, "URI:http://a/#", VERIFY_POINTS_MAX,
		 VERIFY_ERR_POINTS, X509_V_OK},
		{NID_freshest_crl, "URI:http://a/#", VERIFY_POINTS_MAX, VERIFY_ERR_POINTS,
		 X509_V_OK},
		{NID_name_constraints, "excluded;DNS:a#", VERIFY_CONSTRAINTS_MAX,
		 VERIFY_ERR_CONSTRAINTS, X509_V_OK},
		/* the anchor holds no such resources */
		{NID_sbgp_autonomousSysNum, "AS:#", VERIFY_RESOURCES_MAX, VERIFY_ERR_RESOURCES,
		 X509_V_ERR_UNNESTED_RESOURCE},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		for (unsigned n = cases[i].max; n <= cases[i].max + 1; n++) {
			char *value = cases[i].element ? list(cases[i].element, n) : policies(n);
			char text[256], want[64];
			X509 *leaf = leaf_with(cases[i].nid, value, NULL);
			struct verify_result r = verdict_on_leaf(leaf);

			CHECK_INT(r.error, n > cases[i].max ? cases[i].error : cases[i].at_max);
			if (n > cases[i].max) {
				CHECK(r.at == leaf);
				CHECK_INT(r.excess.n, n);
				CHECK_INT(r.signatures + r.candidates, 0);
				verify_result_text(&r, text, sizeof(text));
				snprintf(want, sizeof(want), "at most %u (certificate 0: CN=Alice)",
					 cases[i].max);
				CHECK(strstr(text, want));
			}
			X509_free(leaf);
			free(value);
		}
	}
}

static void test_purposes(void)
{
	for (unsigned n = VERIFY_PURPOSES_MAX; n <= VERIFY_PURPOSES_MAX + 1; n++) {
		char *others = list("1.3.1#", n - 1), *value;
		X509 *leaf;

		NEED(asprintf(&value, "clientAuth,%s", others) > 0);
		leaf = make_client(
			&pki, (struct cert_spec){.ext = {CLIENT_EXT, {NID_ext_key_usage, value}}});
		CHECK_INT(verdict_on_leaf(leaf).error,
			  n > VERIFY_PURPOSES_MAX ? VERIFY_ERR_PURPOSES : X509_V_OK);
		X509_free(leaf);
		free(others);
		free(value);
	}
}

/* A BER reader, which OpenSSL is here, takes an indefinite length for as many elements. */
static void test_indefinite_length(void)
{
	uint8_t der[6 + 5 * 2000] = {0x30, 0x80}, *p = der + 2;
	ASN1_OCTET_STRING *value = ASN1_OCTET_STRING_new();
	X509 *leaf = leaf_with(NID_netscape_comment, "x", NULL);
	X509_EXTENSION *ext;

	for (unsigned i = 0; i < 2000; i++, p += 3)
		memcpy(p, (uint8_t[]){0x82, 1, 'a'}, 3);
	NEED(value && ASN1_OCTET_STRING_set(value, der, (int)(p + 2 - der)));
	ext = X509_EXTENSION_create_by_NID(NULL, NID_subject_alt_name, 0, value);
	NEED(ext && X509_add_ext(leaf, ext, -1));
	CHECK_INT(verdict_on_leaf(leaf).error, VERIFY_ERR_NAMES);
	X509_EXTENSION_free(ext);
	ASN1_OCTET_STRING_free(value);
	X509_free(leaf);
}

/* Unknown, and each of its own kind. */
static void add_extensions(X509 *cert, unsigned n)
{
	char text[32];

	for (unsigned i = 0; i < n; i++) {
		ASN1_OCTET_STRING *value = ASN1_OCTET_STRING_new();
		X509_EXTENSION *ext;
		ASN1_OBJECT *oid;

		snprintf(text, sizeof(text), "1.3.%u", 200 + i);
		oid = OBJ_txt2obj(text, 1);
		ext = X509_EXTENSION_create_by_OBJ(NULL, oid, 0, value);
		NEED(oid && value && ext && X509_add_ext(cert, ext, -1));
		X509_EXTENSION_free(ext);
		ASN1_OBJECT_free(oid);
		ASN1_OCTET_STRING_free(value);
	}
}

static X509 *leaf_with_extensions(unsigned n)
{
	X509 *leaf = leaf_with(NID_netscape_comment, "x", NULL);

	add_extensions(leaf, n - (unsigned)X509_get_ext_count(leaf));
	NEED(X509_sign(leaf, pki.ca_key, EVP_sha256()));
	return leaf;
}

static void test_extensions(void)
{
	X509 *leaf = leaf_with_extensions(VERIFY_EXTENSIONS_MAX);

	CHECK_INT(verdict_on_leaf(leaf).error, X509_V_OK);
	X509_free(leaf);
	leaf = leaf_with_extensions(VERIFY_EXTENSIONS_MAX + 1);
	CHECK_INT(verdict_on_leaf(leaf).error, VERIFY_ERR_EXTENSIONS);
	X509_free(leaf);
}

static X509_NAME *long_name(unsigned attributes)
{
	X509_NAME *name = X509_NAME_new();

	for (unsigned i = 0; i < attributes; i++)
		NEED(X509_NAME_add_entry_by_txt(name, "OU", MBSTRING_ASC, (const uint8_t *)"x", 1,
						-1, 0));
	return name;
}

static void test_attributes(void)
{
	for (unsigned n = VERIFY_RDNS_MAX; n <= VERIFY_RDNS_MAX + 1; n++) {
		X509 *leaf = leaf_with(NID_netscape_comment, "x", NULL);
		X509_NAME *name = long_name(n);

		NEED(X509_set_subject_name(leaf, name) &&
		     X509_sign(leaf, pki.ca_key, EVP_sha256()));
		CHECK_INT(verdict_on_leaf(leaf).error,
			  n > VERIFY_RDNS_MAX ? VERIFY_ERR_RDNS : X509_V_OK);
		X509_NAME_free(name);
		X509_free(leaf);
	}
}

/* OpenSSL copies the issuer's name for each point: of 1500 and 1500 it took five seconds. */
static void test_copies(void)
{
	char *points = list("URI:http://a/#", VERIFY_POINTS_MAX);
	X509 *leaf = leaf_with(NID_crl_distribution_points, points, NULL);
	X509_NAME *name = long_name(VERIFY_COPIES_MAX / VERIFY_POINTS_MAX + 1);
	struct verify_result r;

	NEED(X509_set_issuer_name(leaf, name));
	r = verdict_on_leaf(leaf);
	CHECK_INT(r.error, VERIFY_ERR_COPIES);
	CHECK_INT(r.excess.n, VERIFY_COPIES_MAX + VERIFY_POINTS_MAX);
	CHECK(!r.at);
	X509_NAME_free(name);
	X509_free(leaf);
	free(points);
}

static void test_sent(void)
{
	STACK_OF(X509) *sent = sk_X509_new_null();
	X509 *leaf = leaf_with(NID_netscape_comment, "x", NULL);
	char *comment = calloc(1, VERIFY_BYTES_MAX + 1), text[256];
	struct verify_result r;
	X509 *long_leaf;

	NEED(sk_X509_push(sent, leaf));
	for (unsigned i = 1; i < VERIFY_SENT_MAX; i++)
		NEED(sk_X509_push(sent, pki.ca));
	CHECK_INT(verdict_on(pki.root, leaf, sent).error, X509_V_OK);
	NEED(sk_X509_push(sent, pki.ca));
	r = verdict_on(pki.root, leaf, sent);
	CHECK_INT(r.error, VERIFY_ERR_CERTIFICATES);
	verify_result_text(&r, text, sizeof(text));
	CHECK(!strcmp(text, "65 certificates, at most 64"));

	memset(comment, 'x', VERIFY_BYTES_MAX);
	long_leaf = leaf_with(NID_netscape_comment, comment, NULL);
	CHECK_INT(verdict_on_leaf(long_leaf).error, VERIFY_ERR_BYTES);
	comment[VERIFY_BYTES_MAX - 2000] = 0;
	X509_free(long_leaf);
	long_leaf = leaf_with(NID_netscape_comment, comment, NULL);
	CHECK_INT(verdict_on_leaf(long_leaf).error, X509_V_OK);
	X509_free(long_leaf);
	X509_free(leaf);
	sk_X509_free(sent);
	free(comment);
}

/* Each name with each constraint above it. */
static void test_comparisons(void)
{
	char *constraints = list("excluded;DNS:b#", 100);
	X509 *ca = make_cert(
		&(struct cert_spec){.cn = "Sub",
				    .key = pki.ca_key,
				    .issuer = pki.root,
				    .issuer_key = pki.root_key,
				    .ext = {CA_EXT,
					    {NID_authority_key_identifier, "keyid:always"},
					    {NID_name_constraints, constraints}}});
	STACK_OF(X509) *sent = sk_X509_new_null();

	NEED(sk_X509_push(sent, ca));
	for (unsigned n = 300; n <= 400; n += 100) {
		char *names = list("DNS:a#", n);
		X509 *leaf = leaf_with(NID_subject_alt_name, names, ca);
		struct verify_result r = verdict_on(pki.root, leaf, sent);

		CHECK_INT(r.error, n == 300 ? X509_V_OK : VERIFY_ERR_COMPARISONS);
		if (n == 400) {
			CHECK(r.at == ca);
			CHECK_INT(r.excess.n, 100 * (1 + 1 + n));
			CHECK_INT(r.signatures, 0);
		}
		X509_free(leaf);
		free(names);
	}
	sk_X509_free(sent);
	X509_free(ca);
	free(constraints);
}

/* Of 16 CAs that the anchor has not signed: as many are tried as its key allows. */
static void test_signatures(const char *curve, unsigned tried)
{
	EVP_PKEY *key = EVP_EC_gen(curve);
	X509 *root = make_cert(&(struct cert_spec){.cn = "Slow", .key = key, .ext = {CA_EXT}});
	STACK_OF(X509) *sent = sk_X509_new_null();
	struct verify_result r;
	X509 *leaf = NULL;

	NEED(key);
	for (unsigned i = 0; i < VERIFY_CANDIDATES_MAX; i++) {
		X509 *ca = make_cert(&(struct cert_spec){
			.cn = "Fake",
			.key = pki.ca_key,
			.issuer = root,
			.issuer_key = pki.ca_key,
			.ext = {CA_EXT, {NID_authority_key_identifier, "keyid:always"}}});

		NEED(sk_X509_push(sent, ca));
		leaf = leaf ? leaf : leaf_with(NID_netscape_comment, "x", ca);
	}
	r = verdict_on(root, leaf, sent);
	CHECK_INT(r.error, X509_V_ERR_CERT_SIGNATURE_FAILURE);
	CHECK_INT(r.signatures, tried);
	X509_free(leaf);
	sk_X509_pop_free(sent, X509_free);
	X509_free(root);
	EVP_PKEY_free(key);
}

/* As large as they come: everything here is taken. */
static void test_large_but_legal(void)
{
	char *names = list("DNS:host#.some.large.department.example", 100);
	X509 *leaf = leaf_with(NID_subject_alt_name, names, NULL);

	add_extensions(leaf, 25);
	NEED(X509_sign(leaf, pki.ca_key, EVP_sha256()));
	CHECK(X509_get_ext_count(leaf) >= 30 && i2d_X509(leaf, NULL) > 4000);
	CHECK_INT(verdict_on_leaf(leaf).error, X509_V_OK);
	X509_free(leaf);
	free(names);
}

static void test_texts(void)
{
	for (int e = VERIFY_ERR_CERTIFICATES; e <= VERIFY_ERR_COMPARISONS; e++) {
		CHECK(verify_limits_error_text(e));
		CHECK(!strcmp(verify_limits_error_text(e), verify_error_text(e)));
	}
	CHECK(!verify_limits_error_text(VERIFY_ERR_KEY));
}

int main(void)
{
	pki_init(&pki);
	test_elements();
	test_purposes();
	test_indefinite_length();
	test_extensions();
	test_attributes();
	test_copies();
	test_sent();
	test_comparisons();
	test_signatures("P-256", VERIFY_CANDIDATES_MAX);
	test_signatures("P-384", 4);
	test_large_but_legal();
	test_texts();
	pki_free(&pki);
	return unit_end();
}
