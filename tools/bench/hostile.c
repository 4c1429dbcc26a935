// SPDX-License-Identifier: Apache-2.0
/*
 * hostile [-w] [DIR]: makes chains that are meant to be expensive, and prints what each costs until
 * it is refused: CPU time of this thread for reading the certificates (as libssl does) and in
 * verify_chain(). With DIR, what a client needs to send each is written there: NAME.pem (leaf
 * first), NAME.key and root.pem. -w: only that. Knows no gate; see tools/bench/hostile.py.
 */
#include <errno.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/param_build.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include "base/provider.h"
#include "pki/verify.h"
#include "../../tests/unit/unit_tls.h"

#define RUNS 3 /* the least of them counts: this machine has other things to do */
#define SENT 400

/* What a case sends. Names are common names, and "root" is the anchor's. */
struct sent {
	X509 *certs[SENT]; /* leaf first */
	EVP_PKEY *keys[SENT];
	unsigned n;
};

static struct party root, root384; /* the anchors */
static EVP_PKEY *ec; /* of everything whose key does not matter: key generation takes time */

/* ---- certificates ---- */

static X509_NAME *name_of(const char *cn)
{
	X509_NAME *name = X509_NAME_new();

	MUST(name &&
	     X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const uint8_t *)cn, -1, -1, 0));
	return name;
}

/* An unsigned one, added to s. */
static X509 *add(struct sent *s, const char *subject, const char *issuer, EVP_PKEY *key)
{
	X509 *cert = X509_new();
	X509_NAME *a = name_of(subject), *b = name_of(issuer);

	MUST(cert && s->n < SENT && X509_set_version(cert, X509_VERSION_3));
	ASN1_INTEGER_set(X509_get_serialNumber(cert), 1000 + s->n);
	MUST(X509_set_subject_name(cert, a) && X509_set_issuer_name(cert, b));
	X509_gmtime_adj(X509_getm_notBefore(cert), -3600);
	X509_gmtime_adj(X509_getm_notAfter(cert), 86400);
	MUST(X509_set_pubkey(cert, key));
	X509_NAME_free(a);
	X509_NAME_free(b);
	s->keys[s->n] = key;
	return s->certs[s->n++] = cert;
}

static X509 *add_ca(struct sent *s, const char *subject, const char *issuer, EVP_PKEY *key)
{
	X509 *cert = add(s, subject, issuer, key);

	unit_extension(cert, root.cert, NID_basic_constraints, "critical,CA:TRUE");
	unit_extension(cert, root.cert, NID_key_usage, "critical,keyCertSign");
	unit_extension(cert, root.cert, NID_subject_key_identifier, "hash");
	unit_extension(cert, root.cert, NID_authority_key_identifier, "keyid:always");
	return cert;
}

static X509 *add_leaf(struct sent *s, const char *issuer, EVP_PKEY *key)
{
	X509 *cert = add(s, "mallory", issuer, key);

	unit_extension(cert, root.cert, NID_subject_key_identifier, "hash");
	unit_extension(cert, root.cert, NID_authority_key_identifier, "keyid:always");
	return cert;
}

/* As many as will be tried, which nobody has signed: each is one more path to the anchor. */
static void add_fakes(struct sent *s, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		unit_sign(add_ca(s, "fake", "root", ec), ec);
}

static void add_octets(X509 *cert, const ASN1_OBJECT *oid, const uint8_t *der, size_t len)
{
	ASN1_OCTET_STRING *value = ASN1_OCTET_STRING_new();
	X509_EXTENSION *ext;

	MUST(value && ASN1_OCTET_STRING_set(value, der, (int)len));
	ext = X509_EXTENSION_create_by_OBJ(NULL, oid, 0, value);
	MUST(ext && X509_add_ext(cert, ext, -1));
	X509_EXTENSION_free(ext);
	ASN1_OCTET_STRING_free(value);
}

/* ---- DER, where OpenSSL makes no such thing or takes too long ---- */

struct der {
	uint8_t bytes[200000];
	size_t len;
};

static void put(struct der *d, const void *bytes, size_t len)
{
	MUST(d->len + len <= sizeof(d->bytes));
	memcpy(d->bytes + d->len, bytes, len);
	d->len += len;
}

/* Puts what d holds from at on behind a header of its own. */
static void wrap(struct der *d, size_t at, uint8_t tag)
{
	size_t n = d->len - at;
	uint8_t header[5] = {tag, 0x83, (uint8_t)(n >> 16), (uint8_t)(n >> 8), (uint8_t)n};
	unsigned len = 5;

	if (n < 128) {
		header[1] = (uint8_t)n;
		len = 2;
	} else if (n < 256) {
		header[1] = 0x81;
		header[2] = (uint8_t)n;
		len = 3;
	} else if (n < 65536) {
		header[1] = 0x82;
		header[2] = (uint8_t)(n >> 8);
		header[3] = (uint8_t)n;
		len = 4;
	}
	MUST(d->len + len <= sizeof(d->bytes));
	memmove(d->bytes + at + len, d->bytes + at, n);
	memcpy(d->bytes + at, header, len);
	d->len += len;
}

static void add_der(X509 *cert, int nid, const struct der *d)
{
	add_octets(cert, OBJ_nid2obj(nid), d->bytes, d->len);
}

/* n elements with that tag: what stands in front of a number, it, and what stands behind it. */
static void add_list(X509 *cert, int nid, unsigned n, uint8_t tag, const char *before,
		     const char *after)
{
	static struct der d;
	char text[64];

	d.len = 0;
	for (unsigned i = 0; i < n; i++) {
		size_t at = d.len;

		snprintf(text, sizeof(text), "%s%u%s", before, i, after);
		put(&d, text, strlen(text));
		wrap(&d, at, tag);
	}
	wrap(&d, 0, 0x30);
	add_der(cert, nid, &d);
}

static void put_oid(struct der *d, const char *text)
{
	ASN1_OBJECT *oid = OBJ_txt2obj(text, 1);
	uint8_t *bytes = NULL;
	int len = i2d_ASN1_OBJECT(oid, &bytes);

	MUST(oid && len > 0);
	put(d, bytes, (size_t)len);
	OPENSSL_free(bytes);
	ASN1_OBJECT_free(oid);
}

/* n times a SEQUENCE of each OIDs. */
static void add_oids(X509 *cert, int nid, unsigned n, unsigned each)
{
	static struct der d;
	char text[32];

	d.len = 0;
	for (unsigned i = 0; i < n; i++) {
		size_t at = d.len;

		snprintf(text, sizeof(text), "1.3.%u", 200 + i);
		for (unsigned k = 0; k < each; k++)
			put_oid(&d, text);
		if (each && nid != NID_ext_key_usage)
			wrap(&d, at, 0x30);
	}
	wrap(&d, 0, 0x30);
	add_der(cert, nid, &d);
}

static void add_many_extensions(X509 *cert, unsigned n)
{
	char text[32];

	for (unsigned i = 0; i < n; i++) {
		ASN1_OBJECT *oid;

		snprintf(text, sizeof(text), "1.3.%u", 200 + i);
		MUST(oid = OBJ_txt2obj(text, 1));
		add_octets(cert, oid, (const uint8_t *)"", 0);
		ASN1_OBJECT_free(oid);
	}
}

/* fullName is absent: the point is named relative to the issuer, whose name is copied for it. */
static void add_points(X509 *cert, unsigned n)
{
	static const uint8_t point[] = {0x30, 0x11, 0xa0, 0x0f, 0xa1, 0x0d, 0x30, 0x0b, 0x06, 0x03,
					0x55, 0x04, 0x03, 0x0c, 0x04, 'l',  'i',  's',	't'};
	static struct der d;

	d.len = 0;
	for (unsigned i = 0; i < n; i++)
		put(&d, point, sizeof(point));
	wrap(&d, 0, 0x30);
	add_der(cert, NID_crl_distribution_points, &d);
}

static X509_NAME *many_rdns(unsigned n, const char *cn)
{
	X509_NAME *name = name_of(cn);

	for (unsigned i = 0; i < n; i++)
		MUST(X509_NAME_add_entry_by_txt(name, "OU", MBSTRING_ASC, (const uint8_t *)"x", 1,
						-1, 0));
	return name;
}

/* ---- keys ---- */

static EVP_PKEY *rsa(unsigned bits)
{
	/* A modulus that nobody can factor, nor we: random and odd. It verifies, and never signs.
	 */
	BIGNUM *n = BN_new(), *e = BN_new();
	OSSL_PARAM_BLD *bld = OSSL_PARAM_BLD_new();
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
	EVP_PKEY *key = NULL;

	MUST(n && e && bld && ctx && BN_rand(n, (int)bits, BN_RAND_TOP_TWO, BN_RAND_BOTTOM_ODD));
	BN_set_word(e, 65537);
	MUST(OSSL_PARAM_BLD_push_BN(bld, "n", n) && OSSL_PARAM_BLD_push_BN(bld, "e", e));
	MUST(EVP_PKEY_fromdata_init(ctx) == 1 &&
	     EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, OSSL_PARAM_BLD_to_param(bld)) == 1);
	return key;
}

static EVP_PKEY *with_params(const char *type, const char *group, bool explicit_curve)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
	EVP_PKEY *key = NULL;

	MUST(ctx && EVP_PKEY_keygen_init(ctx) == 1 && EVP_PKEY_CTX_set_group_name(ctx, group) == 1);
	if (explicit_curve)
		MUST(EVP_PKEY_CTX_set_ec_param_enc(ctx, 0) == 1);
	MUST(EVP_PKEY_generate(ctx, &key) == 1);
	return key;
}

/* ---- the corpus ---- */

static void extensions(struct sent *s)
{
	add_many_extensions(add_leaf(s, "fake", ec), 9800);
	add_fakes(s, 16);
}

static void extensions_everywhere(struct sent *s)
{
	add_many_extensions(add_leaf(s, "fake", ec), 300);
	for (unsigned i = 0; i < 16; i++)
		add_many_extensions(add_ca(s, "fake", "root", ec), 300);
}

static void names(struct sent *s)
{
	add_list(add_leaf(s, "fake", ec), NID_subject_alt_name, 6000, 0x82, "a", "");
	add_fakes(s, 16);
}

static void uris(struct sent *s)
{
	add_list(add_leaf(s, "fake", ec), NID_subject_alt_name, 4000, 0x86, "u:", "");
	add_fakes(s, 16);
}

static void rdns(struct sent *s)
{
	X509_NAME *name = many_rdns(3500, "fake");

	MUST(X509_set_issuer_name(add_leaf(s, "fake", ec), name));
	MUST(X509_set_subject_name(add_ca(s, "fake", "root", ec), name));
	X509_NAME_free(name);
}

static void points(struct sent *s)
{
	X509 *leaf = add_leaf(s, "fake", ec);
	X509_NAME *name = many_rdns(1500, "fake");

	MUST(X509_set_issuer_name(leaf, name));
	X509_NAME_free(name);
	add_points(leaf, 1500);
	add_fakes(s, 1);
}

static void policies(struct sent *s)
{
	add_oids(add_leaf(s, "fake", ec), NID_certificate_policies, 5000, 1);
	add_fakes(s, 16);
}

static void mappings(struct sent *s)
{
	X509 *ca;

	unit_sign(add_leaf(s, "fake", ec), ec);
	ca = add_ca(s, "fake", "root", ec);
	add_oids(ca, NID_certificate_policies, 2000, 1);
	add_oids(ca, NID_policy_mappings, 2000, 2);
}

static void signed_policies(struct sent *s)
{
	add_oids(add_leaf(s, "root", ec), NID_certificate_policies, 5000, 1);
}

static void purposes(struct sent *s)
{
	add_oids(add_leaf(s, "fake", ec), NID_ext_key_usage, 5000, 1);
	add_fakes(s, 16);
}

static void put_subtrees(struct der *d, unsigned n)
{
	size_t all = d->len;
	char text[16];

	for (unsigned i = 0; i < n; i++) {
		size_t tree = d->len;

		snprintf(text, sizeof(text), "b%u", i);
		put(d, text, strlen(text));
		wrap(d, tree, 0x82);
		wrap(d, tree, 0x30);
	}
	wrap(d, all, 0xa1); /* excluded: all are looked at */
	wrap(d, all, 0x30);
}

/* A CA that the root has signed: whoever has one such may do as he likes below it. */
static void constraints(struct sent *s)
{
	static struct der d;
	X509 *ca;

	add_list(add_leaf(s, "sub", ec), NID_subject_alt_name, 1000, 0x82, "a", ".example");
	ca = add_ca(s, "sub", "root", ec);
	d.len = 0;
	put_subtrees(&d, 1000);
	add_der(ca, NID_name_constraints, &d);
}

static void wide(struct sent *s)
{
	add_leaf(s, "fake", ec);
	add_fakes(s, 63);
}

/* Ten layers of six: each of a layer may stand below each of the next. */
static void deep(struct sent *s)
{
	char subject[16] = "fake", issuer[16];

	add_leaf(s, "fake", ec);
	for (unsigned layer = 0; layer < 10; layer++) {
		snprintf(issuer, sizeof(issuer), layer == 9 ? "root" : "layer%u", layer);
		for (unsigned i = 0; i < 6; i++)
			add_ca(s, subject, issuer, ec);
		strcpy(subject, issuer);
	}
}

/* Every CA has every other's name above it, each with a key of its own. */
static void mesh(struct sent *s)
{
	char subject[16], issuer[16];

	add_leaf(s, "m0", ec);
	for (unsigned i = 0; i < 8; i++)
		for (unsigned k = 0; k < 7; k++) {
			snprintf(subject, sizeof(subject), "m%u", i);
			if (k == 6)
				strcpy(issuer, "root");
			else
				snprintf(issuer, sizeof(issuer), "m%u", (i + k + 1) % 8);
			add_ca(s, subject, issuer, unit_key("P-256"));
		}
}

static void long_oids(struct sent *s)
{
	X509 *leaf = add_leaf(s, "fake", ec);
	static uint8_t der[20000];
	const uint8_t *p = der;
	ASN1_OBJECT *oid;

	memset(der, 0x81, sizeof(der));
	memcpy(der, (uint8_t[]){0x06, 0x82, (sizeof(der) - 4) >> 8, (sizeof(der) - 4) & 0xff}, 4);
	for (unsigned i = 0; i < 3; i++) {
		der[sizeof(der) - 1] = (uint8_t)i;
		p = der;
		MUST(oid = d2i_ASN1_OBJECT(NULL, &p, sizeof(der)));
		add_octets(leaf, oid, (const uint8_t *)"", 0);
		ASN1_OBJECT_free(oid);
	}
	add_fakes(s, 8);
}

static void big_extension(struct sent *s)
{
	static uint8_t zeros[56000];

	add_octets(add_leaf(s, "fake", ec), OBJ_nid2obj(NID_netscape_comment), zeros,
		   sizeof(zeros));
	add_fakes(s, 8);
}

static void many_certificates(struct sent *s)
{
	for (unsigned i = 0; i < 110; i++) {
		char subject[16], issuer[16];

		snprintf(subject, sizeof(subject), "c%u", i);
		snprintf(issuer, sizeof(issuer), "c%u", i + 1);
		unit_sign(add(s, subject, issuer, ec), ec);
	}
}

/* ---- the same, as much as is taken ---- */

static void within_extensions(struct sent *s)
{
	add_many_extensions(add_leaf(s, "fake", ec), 62);
	for (unsigned i = 0; i < 28; i++)
		add_many_extensions(add_ca(s, "fake", "root", ec), 60);
}

static void within_names(struct sent *s)
{
	add_list(add_leaf(s, "fake", ec), NID_subject_alt_name, 1000, 0x82, "", "");
	for (unsigned i = 0; i < 4; i++)
		add_list(add_ca(s, "fake", "root", ec), NID_subject_alt_name, 1000, 0x82, "", "");
}

static void within_rdns(struct sent *s)
{
	X509_NAME *name = many_rdns(63, "fake");

	MUST(X509_set_issuer_name(add_leaf(s, "fake", ec), name));
	for (unsigned i = 0; i < 14; i++) {
		X509 *ca = add_ca(s, "fake", "root", ec);

		MUST(X509_set_subject_name(ca, name));
		if (i)
			MUST(X509_set_issuer_name(ca, name));
	}
	X509_NAME_free(name);
}

static void within_points(struct sent *s)
{
	X509_NAME *name = many_rdns(31, "fake");
	X509 *leaf = add_leaf(s, "fake", ec);

	MUST(X509_set_issuer_name(leaf, name));
	add_points(leaf, 32);
	X509_NAME_free(name);
	add_fakes(s, 40);
}

static void within_policies(struct sent *s)
{
	add_oids(add_leaf(s, "sub0", ec), NID_certificate_policies, 64, 1);
	for (unsigned i = 0; i < 10; i++) {
		char subject[16], issuer[16];
		X509 *ca;

		snprintf(subject, sizeof(subject), "sub%u", i);
		snprintf(issuer, sizeof(issuer), i == 9 ? "root" : "sub%u", i + 1);
		ca = add_ca(s, subject, issuer, ec);
		add_oids(ca, NID_certificate_policies, 64, 1);
		add_oids(ca, NID_policy_mappings, 64, 2);
	}
}

static void within_constraints(struct sent *s)
{
	static struct der d;

	add_list(add_leaf(s, "sub", ec), NID_subject_alt_name, 500, 0x82, "a", ".example");
	d.len = 0;
	put_subtrees(&d, 60);
	add_der(add_ca(s, "sub", "root", ec), NID_name_constraints, &d);
}

static void within_certificates(struct sent *s)
{
	add_leaf(s, "fake", ec);
	add_fakes(s, 62);
}

/* One name, the anchor's too, and keys that do not say which is meant: all may stand below all. */
static void one_name(struct sent *s)
{
	static const uint8_t identifier[] = {0x30, 3, 0x80, 1, 1};

	for (unsigned i = 0; i < 63; i++) {
		X509 *cert = add(s, "root", "root", unit_key("P-256"));

		unit_extension(cert, cert, NID_basic_constraints, "critical,CA:TRUE");
		unit_extension(cert, cert, NID_subject_key_identifier, "01");
		if (i)
			unit_extension(cert, cert, NID_key_usage, "critical,keyCertSign");
		add_octets(cert, OBJ_nid2obj(NID_authority_key_identifier), identifier,
			   sizeof(identifier));
	}
}

static void p384_anchor(struct sent *s)
{
	add_leaf(s, "fake", ec);
	for (unsigned i = 0; i < 40; i++)
		add_ca(s, "fake", "root384", ec);
}

/* ---- keys that are not to be computed with ---- */

static void leaf_with(struct sent *s, EVP_PKEY *key)
{
	add_leaf(s, "fake", key);
	add_fakes(s, 16);
}

static void ca_with(struct sent *s, EVP_PKEY *key, unsigned n)
{
	add_leaf(s, "fake", ec);
	for (unsigned i = 0; i < n; i++)
		add_ca(s, "fake", "root", key);
}

static void rsa_16384_leaf(struct sent *s)
{
	leaf_with(s, rsa(16384));
}

static void rsa_16384_cas(struct sent *s)
{
	ca_with(s, rsa(16384), 16);
}

static void rsa_8192_cas(struct sent *s)
{
	ca_with(s, rsa(8192), 16);
}

static void dh_cas(struct sent *s)
{
	ca_with(s, with_params("DH", "ffdhe8192", false), 16);
}

static void explicit_curve_cas(struct sent *s)
{
	ca_with(s, with_params("EC", "secp521r1", true), 32);
}

static void binary_curve_cas(struct sent *s)
{
	ca_with(s, with_params("EC", "sect571r1", false), 32);
}

static void brainpool_cas(struct sent *s)
{
	ca_with(s, with_params("EC", "brainpoolP512r1", false), 32);
}

static const struct hostile_case {
	const char *name;
	void (*make)(struct sent *s);
	bool from_root; /* the root has signed the last one sent, and that one the one before it */
} cases[] = {
	{"extensions", extensions, false},
	{"extensions-everywhere", extensions_everywhere, false},
	{"names", names, false},
	{"uris", uris, false},
	{"rdns", rdns, false},
	{"distribution-points", points, false},
	{"policies", policies, false},
	{"policy-mappings", mappings, false},
	{"policies-signed", signed_policies, true},
	{"purposes", purposes, false},
	{"constraints-signed", constraints, true},
	{"wide", wide, false},
	{"deep", deep, false},
	{"mesh", mesh, false},
	{"long-oids", long_oids, false},
	{"big-extension", big_extension, false},
	{"many-certificates", many_certificates, false},
	{"within-extensions", within_extensions, false},
	{"within-names", within_names, false},
	{"within-rdns", within_rdns, false},
	{"within-points", within_points, false},
	{"within-policies-signed", within_policies, true},
	{"within-constraints-signed", within_constraints, true},
	{"within-certificates", within_certificates, false},
	{"one-name", one_name, false},
	{"p384-anchor", p384_anchor, false},
	{"rsa-16384-leaf", rsa_16384_leaf, false},
	{"rsa-16384-cas", rsa_16384_cas, false},
	{"rsa-8192-cas", rsa_8192_cas, false},
	{"dh-8192-cas", dh_cas, false},
	{"explicit-curve-cas", explicit_curve_cas, false},
	{"sect571r1-cas", binary_curve_cas, false},
	{"brainpoolP512r1-cas", brainpool_cas, false},
};

/* ---- what it costs ---- */

static double cpu_ms(void)
{
	struct timespec t;

	MUST(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t) == 0);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

struct wire {
	uint8_t *der[SENT];
	int len[SENT];
	unsigned n, total;
};

static void sign_all(const struct hostile_case *c, struct sent *s)
{
	for (unsigned i = 0; i < s->n; i++) {
		if (c->from_root)
			unit_sign(s->certs[i], i + 1 < s->n ? s->keys[i + 1] : root.key);
		else
			unit_sign(s->certs[i], ec);
	}
}

static void to_wire(const struct sent *s, struct wire *w)
{
	*w = (struct wire){.n = s->n};
	for (unsigned i = 0; i < s->n; i++) {
		w->len[i] = i2d_X509(s->certs[i], &w->der[i]);
		MUST(w->len[i] > 0);
		w->total += (unsigned)w->len[i];
	}
}

static STACK_OF(X509) * from_wire(const struct wire *w)
{
	STACK_OF(X509) *certs = sk_X509_new_null();

	for (unsigned i = 0; i < w->n; i++) {
		const uint8_t *p = w->der[i];
		X509 *cert = d2i_X509(NULL, &p, w->len[i]);

		MUST(cert && sk_X509_push(certs, cert));
	}
	ERR_clear_error();
	return certs;
}

static void write_case(const char *dir, const char *name, const struct sent *s)
{
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s.pem", dir, name);
	MUST(f = fopen(path, "w"));
	for (unsigned i = 0; i < s->n; i++)
		MUST(PEM_write_X509(f, s->certs[i]));
	fclose(f);
	snprintf(path, sizeof(path), "%s/%s.key", dir, name);
	MUST(f = fopen(path, "w"));
	/* A client has to show a key that fits: the bare modulus above has none, nobody takes it.
	 */
	(void)PEM_write_PrivateKey(f, s->keys[0], NULL, NULL, 0, NULL, NULL);
	fclose(f);
}

static void measure(const struct hostile_case *c, const struct wire *w)
{
	double reading = 1e9, verifying = 1e9;
	struct verify_result r;

	for (unsigned i = 0; i < RUNS; i++) {
		struct verify_policy policy = VERIFY_POLICY_DEFAULT;
		STACK_OF(X509) *anchors = sk_X509_new_null(), *certs;
		struct verifier *v;
		double begun = cpu_ms(), read, done;

		certs = from_wire(w);
		read = cpu_ms();
		MUST(sk_X509_push(anchors, root.cert) && sk_X509_push(anchors, root384.cert));
		MUST(v = verifier_new(anchors, &policy)); /* it has seen nothing yet */
		done = cpu_ms();
		MUST(verify_chain(v, VERIFY_CLIENT, sk_X509_value(certs, 0), certs, time(NULL),
				  &r) != -ENOENT);
		done = cpu_ms() - done;
#ifdef VERIFY_BYTES_MAX
		/* libssl gets to see none of them. */
		if (w->total > VERIFY_BYTES_MAX || w->n > VERIFY_SENT_MAX)
			read = begun;
#endif
		reading = read - begun < reading ? read - begun : reading;
		verifying = done < verifying ? done : verifying;
		sk_X509_pop_free(r.chain, X509_free);
		verifier_free(v);
		sk_X509_free(anchors);
		if (i + 1 < RUNS)
			sk_X509_pop_free(certs, X509_free);
	}
	printf("%-26s %6u %4u %9.2f %9.2f  %u/%u  %s\n", c->name, w->total, w->n, reading,
	       verifying, r.candidates, r.signatures, verify_error_text(r.error));
	fflush(stdout);
}

#define CASES (sizeof(cases) / sizeof(cases[0]))

int main(int argc, char **argv)
{
	static struct wire wires[CASES];
	bool only_write = argc == 3 && !strcmp(argv[1], "-w");
	const char *dir = argc > 1 ? argv[argc - 1] : NULL;
	static struct sent s;

	ec = unit_key("P-256");
	root = unit_party("P-256", "root", NULL, -3600, 86400);
	root384 = unit_party("P-384", "root384", NULL, -3600, 86400);
	if (dir) {
		s = (struct sent){.certs = {root.cert, root384.cert}, .keys = {root.key}, .n = 2};
		write_case(dir, "root", &s);
	}
	for (size_t i = 0; i < CASES; i++) {
		s = (struct sent){.n = 0};
		cases[i].make(&s);
		sign_all(&cases[i], &s);
		to_wire(&s, &wires[i]);
		if (dir)
			write_case(dir, cases[i].name, &s);
	}
	if (only_write)
		return 0;
	provider_use(); /* from here on as in the daemon, which can make few of these keys */
	printf("%-26s %6s %4s %9s %9s  %s\n", "case", "bytes", "sent", "read, ms", "verify, ms",
	       "candidates/signatures, verdict");
	for (size_t i = 0; i < CASES; i++)
		measure(&cases[i], &wires[i]);
	return 0;
}
