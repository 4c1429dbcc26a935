// SPDX-License-Identifier: Apache-2.0
/* verify.c and identity.c: verdicts, and what is read out of a verified chain. */
#include "unit.h"
#include "certs.h"
#include <errno.h>
#include "pki/identity.h"
#include "pki/verify.h"

/* The verdict on leaf (which it frees), sent with p's intermediate, against p's root. */
static int verdict_at(const struct pki *p, X509 *leaf, time_t now, int want_depth)
{
	STACK_OF(X509) *anchors = sk_X509_new_null(), *sent = sk_X509_new_null();
	struct verify_result r;
	struct verify_policy policy = VERIFY_POLICY_DEFAULT;
	struct verifier *v;
	int rc;

	NEED(sk_X509_push(anchors, p->root) && sk_X509_push(sent, p->ca));
	NEED(v = verifier_new(anchors, &policy));
	rc = verify_chain(v, VERIFY_CLIENT, leaf, sent, now, &r);
	CHECK_INT(rc, r.error == X509_V_OK ? 0 : -EACCES);
	CHECK((r.chain != NULL) == (r.error == X509_V_OK));
	CHECK_INT(r.depth, want_depth);
	if (r.chain) {
		CHECK_INT(sk_X509_num(r.chain), 3);
		CHECK(!X509_cmp(sk_X509_value(r.chain, 0), leaf));
		CHECK(!X509_cmp(sk_X509_value(r.chain, 2), p->root));
	}
	sk_X509_pop_free(r.chain, X509_free);
	verifier_free(v);
	sk_X509_free(anchors);
	sk_X509_free(sent);
	X509_free(leaf);
	return r.error;
}

static int verdict(const struct pki *p, X509 *leaf)
{
	return verdict_at(p, leaf, NOW, 0);
}

#define CLIENT(...) make_client(p, (struct cert_spec){__VA_ARGS__})

static void test_purpose(const struct pki *p)
{
	CHECK_INT(verdict(p, CLIENT(.ext = {CLIENT_EXT, CLIENT_AUTH})), X509_V_OK);
	CHECK_INT(verdict(p, CLIENT(.ext = {CLIENT_EXT})), X509_V_OK);
	CHECK_INT(verdict(p, CLIENT(.ext = {ISSUED_EXT})), X509_V_OK);
	CHECK_INT(verdict(p, CLIENT(.ext = {CLIENT_EXT, {NID_ext_key_usage, "serverAuth"}})),
		  X509_V_ERR_INVALID_PURPOSE);
	CHECK_INT(
		verdict(p, CLIENT(.ext = {CLIENT_EXT, {NID_ext_key_usage, "anyExtendedKeyUsage"}})),
		X509_V_ERR_INVALID_PURPOSE);
	/* may agree on keys, may not sign: no use for CertificateVerify */
	CHECK_INT(verdict(p, CLIENT(.ext = {ISSUED_EXT,
					    CLIENT_AUTH,
					    {NID_key_usage, "critical,keyAgreement"}})),
		  X509_V_ERR_INVALID_PURPOSE);
	CHECK_INT(verdict(p, CLIENT(.ext = {CA_EXT,
					    CLIENT_AUTH,
					    {NID_authority_key_identifier, "keyid:always"}})),
		  X509_V_ERR_INVALID_PURPOSE); /* its key usage is looked at first */
	CHECK_INT(verdict(p, CLIENT(.ext = {ISSUED_EXT,
					    CLIENT_AUTH,
					    {NID_basic_constraints, "critical,CA:TRUE"},
					    {NID_key_usage,
					     "critical,keyCertSign,digitalSignature"}})),
		  X509_V_ERR_INVALID_NON_CA);
	CHECK_INT(verdict(p, CLIENT(.ext = {ISSUED_EXT,
					    CLIENT_AUTH,
					    {NID_basic_constraints, "critical,CA:TRUE"},
					    {NID_key_usage, "critical,digitalSignature"}})),
		  X509_V_ERR_INVALID_NON_CA);
}

static void test_extensions(const struct pki *p)
{
	CHECK_INT(verdict(p, CLIENT(.ext = {CLIENT_EXT,
					    CLIENT_AUTH,
					    {NID_mime_mhs, "critical,DER:0500"}})),
		  X509_V_ERR_UNHANDLED_CRITICAL_EXTENSION);
	CHECK_INT(verdict(p, CLIENT(.ext = {CLIENT_EXT, CLIENT_AUTH, {NID_mime_mhs, "DER:0500"}})),
		  X509_V_OK);
	/* twice the same extension: which one counts? */
	CHECK(verdict(p, CLIENT(.ext = {CLIENT_EXT,
					{NID_ext_key_usage, "clientAuth"},
					{NID_ext_key_usage, "serverAuth"}})) != X509_V_OK);
	CHECK_INT(verdict(p, CLIENT(.cn = "", .ext = {CLIENT_EXT,
						      CLIENT_AUTH,
						      {NID_subject_alt_name, "email:a@b.c"}})),
		  X509_V_ERR_EMPTY_SUBJECT_SAN_NOT_CRITICAL);
}

static void test_time(const struct pki *p)
{
	CHECK_INT(verdict(p, CLIENT(.not_after = NOW - 1, .ext = {CLIENT_EXT})),
		  X509_V_ERR_CERT_HAS_EXPIRED);
	CHECK_INT(verdict(p, CLIENT(.not_before = NOW + 1, .ext = {CLIENT_EXT})),
		  X509_V_ERR_CERT_NOT_YET_VALID);
	CHECK_INT(verdict(p, CLIENT(.not_before = NOW, .not_after = NOW + 1, .ext = {CLIENT_EXT})),
		  X509_V_OK);
	/* the leaf lives on, its CA does not */
	CHECK_INT(verdict_at(p, CLIENT(.ext = {CLIENT_EXT}), NOW + 21 * DAY, 1),
		  X509_V_ERR_CERT_HAS_EXPIRED);
}

static void test_issuer(const struct pki *p)
{
	EVP_PKEY *other_key = EVP_EC_gen("P-256");
	X509 *other, *below;

	NEED(other_key);
	other = make_cert(&(struct cert_spec){.cn = "Stranger", .key = other_key, .ext = {CA_EXT}});
	CHECK_INT(verdict(p, CLIENT(.issuer = other, .issuer_key = other_key, .ext = {CLIENT_EXT})),
		  X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY);
	/* the right name and key identifier over the wrong signature */
	CHECK_INT(verdict(p, CLIENT(.issuer_key = other_key, .ext = {CLIENT_EXT})),
		  X509_V_ERR_CERT_SIGNATURE_FAILURE);
	CHECK_INT(verdict(p, make_cert(&(struct cert_spec){
				     .cn = "Self", .key = p->client_key, .ext = {CLIENT_EXT}})),
		  X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT);
	/* issued by a client: no CA, so it cannot be on the path */
	below = CLIENT(.issuer_key = NULL, .ext = {CLIENT_EXT});
	CHECK(verdict(p, CLIENT(.issuer = below, .issuer_key = p->client_key,
				.ext = {CLIENT_EXT})) != X509_V_OK);
	X509_free(below);
	X509_free(other);
	EVP_PKEY_free(other_key);
}

static void test_strength(const struct pki *p)
{
	EVP_PKEY *weak = EVP_RSA_gen(1024);

	NEED(weak);
	CHECK_INT(verdict(p, CLIENT(.key = weak, .ext = {CLIENT_EXT})),
		  X509_V_ERR_EE_KEY_TOO_SMALL);
	CHECK_INT(verdict(p, CLIENT(.md = EVP_sha1(), .ext = {CLIENT_EXT})),
		  X509_V_ERR_CA_MD_TOO_WEAK);
	EVP_PKEY_free(weak);
}

static void test_identity(const struct pki *p)
{
	X509 *leaf = CLIENT(.cn = "A\nB\xc3\xa4\x1b[31m", .not_before = NOW - 5 * DAY,
			    .not_after = NOW + 25 * DAY, .ext = {CLIENT_EXT});
	STACK_OF(X509) *chain = sk_X509_new_null();
	uint8_t want[FINGERPRINT_LEN];
	struct identity *id;

	NEED(sk_X509_push(chain, leaf) && sk_X509_push(chain, p->ca) &&
	     sk_X509_push(chain, p->root) && X509_up_ref(p->ca) && X509_up_ref(p->root));
	id = identity_new(chain);
	NEED(id);
	CHECK(id->leaf == leaf);
	CHECK_INT(id->not_before, NOW - 5 * DAY);
	CHECK_INT(id->not_after, NOW + 20 * DAY); /* the intermediate's */
	NEED(X509_digest(leaf, EVP_sha256(), want, NULL));
	CHECK(!memcmp(id->fingerprint, want, sizeof(want)));
	CHECK(!strcmp(id->subject, "CN=A\\0AB\\C3\\A4\\1B[31m"));
	identity_free(id);
	identity_free(NULL);
}

static void test_identity_small(void)
{
	const uint8_t bytes[] = {0x00, 0xab, 0x0f};
	ASN1_TIME *bad = ASN1_TIME_new();
	X509_NAME *name = X509_NAME_new();
	char text[8];
	time_t t;

	identity_hex(bytes, sizeof(bytes), text);
	CHECK(!strcmp(text, "00ab0f"));

	NEED(bad && name && ASN1_STRING_set(bad, "not a time", -1));
	CHECK_INT(identity_time(bad, &t), -EINVAL);
	CHECK_INT(identity_time(NULL, &t), -EINVAL);
	NEED(ASN1_TIME_set_string(bad, "99991231235959Z")); /* RFC 5280: no well-defined end */
	CHECK_INT(identity_time(bad, &t), 0);
	CHECK_INT(t, 253402300799LL);

	identity_subject(name, text, sizeof(text));
	CHECK(!strcmp(text, ""));
	NEED(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"Alice",
					-1, -1, 0));
	identity_subject(name, text, sizeof(text));
	CHECK(!strcmp(text, "CN=Alic"));
	ASN1_TIME_free(bad);
	X509_NAME_free(name);
}

/* ---- what is remembered of CAs that peers send ---- */

#define NEW_CA(...)                                                                                \
	make_cert(&(struct cert_spec){                                                             \
		.cn = "Client CA",                                                                 \
		.key = p->ca_key,                                                                  \
		.ext = {CA_EXT, {NID_authority_key_identifier, "keyid:always"}},                   \
		__VA_ARGS__})

static struct verifier *verifier_of(X509 *anchor, X509 *other)
{
	STACK_OF(X509) *anchors = sk_X509_new_null();
	struct verify_policy policy = VERIFY_POLICY_DEFAULT;
	struct verifier *v;

	NEED(sk_X509_push(anchors, anchor) && (!other || sk_X509_push(anchors, other)));
	NEED(v = verifier_new(anchors, &policy));
	sk_X509_free(anchors);
	return v;
}

static void check_sent(struct verifier *v, X509 *leaf, X509 *ca, time_t now, int error,
		       unsigned signatures)
{
	STACK_OF(X509) *sent = sk_X509_new_null();
	struct verify_result r;

	NEED(sk_X509_push(sent, ca));
	CHECK_INT(verify_chain(v, VERIFY_CLIENT, leaf, sent, now, &r),
		  error == X509_V_OK ? 0 : -EACCES);
	CHECK_INT(r.error, error);
	CHECK_INT(r.signatures, signatures);
	sk_X509_pop_free(r.chain, X509_free);
	sk_X509_free(sent);
}

/* The same but for the last bit of its signature. */
static X509 *spoiled(X509 *cert)
{
	uint8_t *der = NULL;
	int len = i2d_X509(cert, &der);
	const uint8_t *p = der;
	X509 *copy;

	der[len - 1] ^= 1;
	NEED(copy = d2i_X509(NULL, &p, len));
	OPENSSL_free(der);
	return copy;
}

static void test_known_signatures(const struct pki *p)
{
	struct verifier *v = verifier_of(p->root, NULL);
	X509 *leaf = CLIENT(.ext = {CLIENT_EXT}), *bad = spoiled(p->ca), *bad_leaf = spoiled(leaf);

	for (int i = 0; i < 2; i++) /* what is wrong is not remembered */
		check_sent(v, leaf, bad, NOW, X509_V_ERR_CERT_SIGNATURE_FAILURE, 1);
	check_sent(v, leaf, p->ca, NOW, X509_V_OK, 2);
	check_sent(v, leaf, p->ca, NOW, X509_V_OK, 1);
	check_sent(v, bad_leaf, p->ca, NOW, X509_V_ERR_CERT_SIGNATURE_FAILURE, 1);
	check_sent(v, leaf, bad, NOW, X509_V_ERR_CERT_SIGNATURE_FAILURE, 1);
	/* dates are looked at nonetheless */
	check_sent(v, leaf, p->ca, NOW + 21 * DAY, X509_V_ERR_CERT_HAS_EXPIRED, 0);
	/* sixteen others, and it is forgotten */
	for (int i = 0; i < 16; i++) {
		X509 *ca = NEW_CA(.issuer = p->root, .issuer_key = p->root_key);

		check_sent(v, leaf, ca, NOW, X509_V_OK, 2);
		check_sent(v, leaf, ca, NOW, X509_V_OK, 1);
		X509_free(ca);
	}
	check_sent(v, leaf, p->ca, NOW, X509_V_OK, 2);
	verifier_free(v);
	X509_free(leaf);
	X509_free(bad);
	X509_free(bad_leaf);
}

/* That one issuer has signed it says nothing of another one with the same name. */
static void test_known_issuer(const struct pki *p)
{
	EVP_PKEY *other_key = EVP_EC_gen("P-256");
	X509 *root = make_cert(&(struct cert_spec){
		.cn = "Root", .key = p->root_key, .not_after = NOW + DAY, .ext = {CA_EXT}});
	X509 *other = make_cert(&(struct cert_spec){
		.cn = "Root", .key = other_key, .not_after = NOW + 9 * DAY, .ext = {CA_EXT}});
	X509 *ca = NEW_CA(.issuer = root, .issuer_key = p->root_key, .not_after = NOW + 9 * DAY);
	X509 *leaf = CLIENT(.issuer = ca, .not_after = NOW + 9 * DAY, .ext = {CLIENT_EXT});
	struct verifier *v = verifier_of(root, other);

	check_sent(v, leaf, ca, NOW, X509_V_OK, 2);
	check_sent(v, leaf, ca, NOW + 2 * DAY, X509_V_ERR_CERT_HAS_EXPIRED, 1);
	verifier_free(v);
	X509_free(leaf);
	X509_free(ca);
	X509_free(root);
	X509_free(other);
	EVP_PKEY_free(other_key);
}

int main(void)
{
	struct pki p;

	pki_init(&p);
	test_purpose(&p);
	test_extensions(&p);
	test_time(&p);
	test_issuer(&p);
	test_strength(&p);
	test_identity(&p);
	test_identity_small();
	test_known_signatures(&p);
	test_known_issuer(&p);
	pki_free(&p);
	return unit_end();
}
