// SPDX-License-Identifier: Apache-2.0
/*
 * Proof of possession: real handshakes, and everything that must not pass.
 * test_transcript [STRIDE [SEED_DIRECTORY]]: flips every STRIDEth byte; writes
 * its transcripts as seeds for tests/fuzz/fuzz_transcript.c.
 */
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include "tls/transcript.h"
#include "unit.h"
#include "unit_tls.h"
#include "pki/verify.h"

static struct party ca, server, other_server;
static size_t stride = 13;
static const char *seed_dir;

/* The vserver has one more certificate, and that one is not the server's. */
static void servers_of(X509 *expected, uint8_t out[2][TRANSCRIPT_SERVER_LEN])
{
	MUST(X509_digest(ca.cert, EVP_sha256(), out[0], NULL));
	MUST(X509_digest(expected, EVP_sha256(), out[1], NULL));
}

static enum transcript_error check_len(const struct transcript_copy *t, size_t len, X509 *expected)
{
	uint8_t servers[2][TRANSCRIPT_SERVER_LEN];
	STACK_OF(X509) *untrusted = (STACK_OF(X509) *)1;
	X509 *leaf = (X509 *)1;
	uint8_t fresh[FRESH_LEN];
	enum transcript_error e;
	/* Its own allocation, so that valgrind and ASan see every byte read too far. */
	uint8_t *copy = malloc(len ? len : 1);

	memcpy(copy, t->bytes, len);
	servers_of(expected, servers);
	e = transcript_verify(copy, len, (const uint8_t(*)[TRANSCRIPT_SERVER_LEN])servers, 2, &leaf,
			      &untrusted, fresh);
	free(copy);
	CHECK_INT(ERR_peek_error(), 0);
	if (e == TRANSCRIPT_OK) {
		CHECK(leaf && untrusted);
		X509_free(leaf);
		sk_X509_pop_free(untrusted, X509_free);
	} else {
		CHECK(!leaf && !untrusted);
	}
	return e;
}

static enum transcript_error check(const struct transcript_copy *t)
{
	return check_len(t, t->len, server.cert);
}

static void write_seed(const struct transcript_copy *t, X509 *expected)
{
	static unsigned number;
	char path[4096];
	uint8_t *der = NULL;
	int len = i2d_X509(expected, &der);
	uint8_t head[2] = {(uint8_t)(len >> 8), (uint8_t)len};
	FILE *f;

	if (seed_dir) {
		snprintf(path, sizeof(path), "%s/seed%03u", seed_dir, number++);
		f = fopen(path, "w");
		MUST(f && fwrite(head, 2, 1, f) && fwrite(der, (size_t)len, 1, f) &&
		     fwrite(t->bytes, t->len, 1, f));
		fclose(f);
	}
	OPENSSL_free(der);
}

/* t without message drop, with message twice doubled, with message swap and its successor swapped.
 */
static void rearrange(const struct transcript_copy *t, unsigned drop, unsigned twice, unsigned swap,
		      struct transcript_copy *out)
{
	memset(out, 0, sizeof(*out));
	for (unsigned i = 0; i < t->n; i++) {
		unsigned from = i == swap ? i + 1 : i == swap + 1 ? i - 1 : i;
		size_t len = t->at[from + 1] - t->at[from];

		for (int k = 0; i != drop && k < (i == twice ? 2 : 1); k++) {
			memcpy(out->bytes + out->len, t->bytes + t->at[from], len);
			out->len += len;
		}
	}
}

static void test_tampered(struct transcript_copy *t)
{
	static struct transcript_copy changed;
	const unsigned none = 1000;

	for (size_t i = 0; i < t->len; i += stride) {
		t->bytes[i] ^= (uint8_t)(1 << i % 8);
		CHECK(check(t) != TRANSCRIPT_OK);
		t->bytes[i] ^= (uint8_t)(1 << i % 8);
	}
	for (size_t len = 0; len < t->len; len += stride)
		CHECK_INT(check_len(t, len, server.cert), TRANSCRIPT_MALFORMED);
	CHECK_INT(check_len(t, t->len + 1, server.cert), TRANSCRIPT_MALFORMED);
	CHECK_INT(check_len(t, t->len, other_server.cert), TRANSCRIPT_NOT_OUR_SERVER);
	for (unsigned i = 0; i < t->n; i++) {
		/* Only the stapled OCSP response may be missing, and was signed. */
		enum transcript_error e = t->bytes[t->at[i]] == SSL3_MT_CERTIFICATE_STATUS
						  ? TRANSCRIPT_BAD_SIGNATURE
						  : TRANSCRIPT_MALFORMED;

		rearrange(t, i, none, none, &changed);
		CHECK_INT(check(&changed), e);
		rearrange(t, none, i, none, &changed);
		CHECK_INT(check(&changed), TRANSCRIPT_MALFORMED);
		if (i + 1 == t->n)
			continue;
		rearrange(t, none, none, i, &changed);
		CHECK(check(&changed) != TRANSCRIPT_OK);
	}
	CHECK_INT(check(t), TRANSCRIPT_OK);
}

static unsigned scheme_of(const struct transcript_copy *t)
{
	const uint8_t *verify = t->bytes + t->at[t->n - 1];

	return (unsigned)verify[4] << 8 | verify[5];
}

static void test_accepted(void)
{
	static const struct {
		const char *key, *sigalgs;
		unsigned scheme12, scheme13; /* 0: not possible */
	} rows[] = {
		{"RSA", NULL, 0x0804, 0x0804},
		{"RSA", "rsa_pss_rsae_sha384", 0x0805, 0x0805},
		{"RSA", "rsa_pss_rsae_sha512", 0x0806, 0x0806},
		{"RSA", "RSA+SHA256", 0x0401, 0},
		{"RSA", "RSA+SHA384", 0x0501, 0},
		{"RSA", "RSA+SHA512", 0x0601, 0},
		{"RSA-PSS", NULL, 0x0809, 0x0809},
		{"RSA-PSS", "rsa_pss_pss_sha384", 0x080a, 0x080a},
		{"RSA-PSS", "rsa_pss_pss_sha512", 0x080b, 0x080b},
		{"P-256", NULL, 0x0403, 0x0403},
		{"P-384", NULL, 0, 0x0503},
		{"P-384", "ECDSA+SHA256", 0x0403, 0}, /* TLS 1.2 does not bind hash to curve */
		{"P-521", NULL, 0, 0x0603},
		{"ED25519", NULL, 0x0807, 0x0807},
		{"ED448", NULL, 0x0808, 0x0808},
	};
	static struct transcript_copy t;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct party client = unit_party(rows[i].key, "client", &ca, -60, 3600);

		for (int variant = 0; variant < 5; variant++) {
			bool tls13 = variant >= 2;
			struct handshake_case c = {.server = &server,
						   .client = &client,
						   .version =
							   tls13 ? TLS1_3_VERSION : TLS1_2_VERSION,
						   .retry = variant == 3,
						   .staple = variant == 1 || variant == 4,
						   .extra = ca.cert,
						   .extras = 1,
						   .client_sigalgs = rows[i].sigalgs};
			unsigned scheme = tls13 ? rows[i].scheme13 : rows[i].scheme12;

			if (!scheme)
				continue;
			unit_handshake(&c, &t);
			CHECK_INT(scheme_of(&t), scheme);
			CHECK_INT(check(&t), TRANSCRIPT_OK);
			write_seed(&t, server.cert);
			/* One of each kind is enough for what takes seconds. */
			if (!rows[i].sigalgs || !rows[i].scheme13)
				test_tampered(&t);
		}
		unit_party_free(&client);
	}
}

/* Which leaf and which rest come out. */
static void test_output(void)
{
	static struct transcript_copy t;
	struct party client = unit_party("P-256", "client", &ca, -60, 3600);
	struct handshake_case c = {
		.server = &server, .client = &client, .version = TLS1_3_VERSION, .extra = ca.cert};
	uint8_t servers[2][TRANSCRIPT_SERVER_LEN], fresh[FRESH_LEN];
	STACK_OF(X509) * untrusted;
	X509 *leaf;

	servers_of(server.cert, servers);
	for (c.extras = 0; c.extras < 3; c.extras++) {
		unit_handshake(&c, &t);
		CHECK_INT(transcript_verify(t.bytes, t.len,
					    (const uint8_t(*)[TRANSCRIPT_SERVER_LEN])servers, 2,
					    &leaf, &untrusted, fresh),
			  TRANSCRIPT_OK);
		CHECK(leaf && X509_cmp(leaf, client.cert) == 0);
		CHECK_INT(sk_X509_num(untrusted), c.extras);
		for (int i = 0; i < sk_X509_num(untrusted); i++)
			CHECK(X509_cmp(sk_X509_value(untrusted, i), ca.cert) == 0);
		X509_free(leaf);
		sk_X509_pop_free(untrusted, X509_free);
	}
	c.extras = VERIFY_SENT_MAX - 1;
	unit_handshake(&c, &t);
	CHECK_INT(check(&t), TRANSCRIPT_OK);
	c.extras = VERIFY_SENT_MAX;
	unit_handshake(&c, &t);
	CHECK_INT(check(&t), TRANSCRIPT_TOO_MUCH);
	unit_party_free(&client);
}

static bool is_zero(const uint8_t value[FRESH_LEN])
{
	static const uint8_t zero[FRESH_LEN];

	return !memcmp(value, zero, FRESH_LEN);
}

/* What stands in the place of a fresh value. */
static void fresh_of(const struct transcript_copy *t, uint8_t out[FRESH_LEN])
{
	uint8_t servers[2][TRANSCRIPT_SERVER_LEN];
	STACK_OF(X509) *untrusted = NULL;
	X509 *leaf = NULL;

	servers_of(server.cert, servers);
	CHECK_INT(transcript_verify(t->bytes, t->len,
				    (const uint8_t(*)[TRANSCRIPT_SERVER_LEN])servers, 2, &leaf,
				    &untrusted, out),
		  TRANSCRIPT_OK);
	X509_free(leaf);
	sk_X509_pop_free(untrusted, X509_free);
}

/* It comes out as it was put in, in each version; no two ServerHellos have the same session id. */
static void test_fresh(void)
{
	static struct transcript_copy t, again;
	struct party client = unit_party("P-256", "client", &ca, -60, 3600);
	scoped_fd fd = fresh_new(3);
	struct fresh *values = fresh_map_writable(fd, 3);
	uint8_t want[FRESH_LEN], got[FRESH_LEN];
	const struct fresh_source source = {values, 1};

	MUST(values);
	memset(want, 0xa5, sizeof(want));
	fresh_write(values, 7, 1, want);
	fresh_publish(values, 7);
	for (int variant = 0; variant < 3; variant++) {
		struct handshake_case c = {.server = &server,
					   .client = &client,
					   .version = variant ? TLS1_3_VERSION : TLS1_2_VERSION,
					   .retry = variant == 2};

		unit_handshake(&c, &t);
		fresh_of(&t, got);
		CHECK(is_zero(got) || !variant); /* a session id of OpenSSL's own */
		c.fresh = &source;
		unit_handshake(&c, &t);
		fresh_of(&t, got);
		CHECK(!memcmp(got, want, FRESH_LEN));
		unit_handshake(&c, &again);
		CHECK(memcmp(t.bytes + t.at[1] + 4 + 2 + 32 + 1,
			     again.bytes + again.at[1] + 4 + 2 + 32 + 1, FRESH_SESSION_ID_LEN));
		write_seed(&t, server.cert);
		test_tampered(&t);
	}
	fresh_unmap(values, 3);
	unit_party_free(&client);
}

static void test_no_certificate(void)
{
	static struct transcript_copy t;

	for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
		struct handshake_case c = {.server = &server, .version = version};

		unit_handshake(&c, &t);
		CHECK_INT(check(&t), TRANSCRIPT_NO_CERTIFICATE);
		write_seed(&t, server.cert);
	}
}

static void test_resumed(void)
{
	static struct transcript_copy t;
	struct party client = unit_party("P-256", "client", &ca, -60, 3600);

	for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
		SSL_SESSION *session = NULL;
		struct handshake_case c = {.server = &server,
					   .client = &client,
					   .version = version,
					   .session = &session};

		unit_handshake(&c, &t);
		CHECK_INT(check(&t), TRANSCRIPT_OK);
		unit_handshake(&c, &t); /* which checks that it is resumed */
		CHECK_INT(check(&t), TRANSCRIPT_MALFORMED);
		SSL_SESSION_free(session);
	}
	unit_party_free(&client);
}

static void test_weak(void)
{
	static const struct {
		const char *key, *sigalgs;
		unsigned scheme;
	} rows[] = {
		{"RSA", "RSA+SHA1", 0x0201},
		{"RSA", "RSA+SHA224", 0x0301},
		{"P-256", "ECDSA+SHA1", 0x0203},
	};
	static struct transcript_copy t;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct party client = unit_party(rows[i].key, "client", &ca, -60, 3600);
		struct handshake_case c = {.server = &server,
					   .client = &client,
					   .version = TLS1_2_VERSION,
					   .client_sigalgs = rows[i].sigalgs};

		unit_handshake(&c, &t);
		CHECK_INT(scheme_of(&t), rows[i].scheme);
		CHECK_INT(check(&t), TRANSCRIPT_WEAK);
		unit_party_free(&client);
	}
}

static void put_signature(struct transcript_copy *t, unsigned scheme, const uint8_t *sig,
			  size_t len)
{
	uint8_t *verify = t->bytes + t->at[t->n - 1];
	uint8_t head[8] = {SSL3_MT_CERTIFICATE_VERIFY, 0,
			   (uint8_t)((len + 4) >> 8),  (uint8_t)(len + 4),
			   (uint8_t)(scheme >> 8),     (uint8_t)scheme,
			   (uint8_t)(len >> 8),	       (uint8_t)len};

	memcpy(verify, head, sizeof(head));
	memcpy(verify + sizeof(head), sig, len);
	t->len = t->at[t->n - 1] + sizeof(head) + len;
}

/* What OpenSSL would not do: a TLS 1.3 CertificateVerify with any scheme and digest. */
static void sign_again(struct transcript_copy *t, EVP_PKEY *key, unsigned scheme, const EVP_MD *md)
{
	uint8_t content[64 + 34 + 32], sig[1024];
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	size_t len = sizeof(sig);

	memset(content, ' ', 64);
	memcpy(content + 64, "TLS 1.3, client CertificateVerify", 34);
	MUST(EVP_Digest(t->bytes, t->at[t->n - 1], content + 98, NULL, EVP_sha256(), NULL));
	MUST(EVP_DigestSignInit(ctx, NULL, md, NULL, key) == 1 &&
	     EVP_DigestSign(ctx, sig, &len, content, sizeof(content)) == 1);
	EVP_MD_CTX_free(ctx);
	put_signature(t, scheme, sig, len);
}

static void set_suite(struct transcript_copy *t, uint16_t suite)
{
	uint8_t *hello = t->bytes + t->at[1];
	uint8_t *p = hello + 4 + 2 + 32 + 1 + hello[4 + 2 + 32];

	MUST(p[0] == 0x13);
	p[0] = (uint8_t)(suite >> 8);
	p[1] = (uint8_t)suite;
}

static void test_tls13_rules(void)
{
	static struct transcript_copy t;
	struct party rsa = unit_party("RSA", "client", &ca, -60, 3600);
	struct party p384 = unit_party("P-384", "client", &ca, -60, 3600);
	struct handshake_case c = {.server = &server, .version = TLS1_3_VERSION};

	c.client = &p384;
	unit_handshake(&c, &t);
	set_suite(&t, 0x1301);
	sign_again(&t, p384.key, 0x0503, EVP_sha384());
	CHECK_INT(check(&t), TRANSCRIPT_OK); /* so sign_again() is right */
	sign_again(&t, p384.key, 0x0403, EVP_sha256());
	CHECK_INT(check(&t), TRANSCRIPT_BAD_SIGNATURE); /* curve of another scheme */
	sign_again(&t, p384.key, 0x0203, EVP_sha1());
	CHECK_INT(check(&t), TRANSCRIPT_WEAK);
	set_suite(&t, 0x1303);
	sign_again(&t, p384.key, 0x0503, EVP_sha384());
	CHECK_INT(check(&t), TRANSCRIPT_OK);
	set_suite(&t, 0x1304); /* CCM: also SHA-256, but none of ours */
	sign_again(&t, p384.key, 0x0503, EVP_sha384());
	CHECK_INT(check(&t), TRANSCRIPT_MALFORMED);
	/* Somebody else's signature. */
	set_suite(&t, 0x1301);
	sign_again(&t, other_server.key, 0x0403, EVP_sha256());
	CHECK_INT(check(&t), TRANSCRIPT_BAD_SIGNATURE);

	c.client = &rsa;
	unit_handshake(&c, &t);
	set_suite(&t, 0x1301);
	sign_again(&t, rsa.key, 0x0401, EVP_sha256());
	CHECK_INT(check(&t), TRANSCRIPT_WEAK); /* PKCS #1 */
	sign_again(&t, rsa.key, 0x0804, EVP_sha256());
	CHECK_INT(check(&t), TRANSCRIPT_BAD_SIGNATURE); /* PKCS #1 under the name of PSS */
	unit_party_free(&rsa);
	unit_party_free(&p384);
}

/* Anyone can turn an ECDSA signature into another valid one; the digest must not tell them apart.
 */
static void test_digest(void)
{
	static struct transcript_copy t, twin;
	uint8_t a[TRANSCRIPT_DIGEST_LEN], b[TRANSCRIPT_DIGEST_LEN], sig[256], *out = sig;
	struct party client = unit_party("P-256", "client", &ca, -60, 3600);
	struct handshake_case c = {.server = &server, .client = &client, .version = TLS1_3_VERSION};
	EC_GROUP *group = EC_GROUP_new_by_curve_name(NID_X9_62_prime256v1);
	const BIGNUM *r, *s;
	const uint8_t *in;
	BIGNUM *minus = BN_new();
	ECDSA_SIG *parsed, *negated = ECDSA_SIG_new();

	unit_handshake(&c, &t);
	in = t.bytes + t.at[t.n - 1] + 8;
	parsed = d2i_ECDSA_SIG(NULL, &in, (long)(t.bytes + t.len - in));
	MUST(parsed && group && minus && negated);
	ECDSA_SIG_get0(parsed, &r, &s);
	MUST(BN_sub(minus, EC_GROUP_get0_order(group), s));
	MUST(ECDSA_SIG_set0(negated, BN_dup(r), minus));
	twin = t;
	put_signature(&twin, 0x0403, sig, (size_t)i2d_ECDSA_SIG(negated, &out));
	CHECK_INT(check(&twin), TRANSCRIPT_OK);
	CHECK(t.len != twin.len || memcmp(t.bytes, twin.bytes, t.len) != 0);
	CHECK(transcript_digest(t.bytes, t.len, a) && transcript_digest(twin.bytes, twin.len, b));
	CHECK(memcmp(a, b, sizeof(a)) == 0);

	unit_handshake(&c, &twin);
	CHECK(transcript_digest(twin.bytes, twin.len, b) && memcmp(a, b, sizeof(a)) != 0);
	CHECK(!transcript_digest(t.bytes, t.len - 1, b));
	ECDSA_SIG_free(parsed);
	ECDSA_SIG_free(negated);
	EC_GROUP_free(group);
	unit_party_free(&client);
}

static void test_bounds(void)
{
	static struct transcript_copy t;

	memset(t.bytes, 0, sizeof(t.bytes));
	CHECK_INT(check_len(&t, 0, server.cert), TRANSCRIPT_MALFORMED);
	CHECK_INT(check_len(&t, TRANSCRIPT_MAX + 1, server.cert), TRANSCRIPT_MALFORMED);
	memset(t.bytes, 0xff, sizeof(t.bytes));
	CHECK_INT(check_len(&t, TRANSCRIPT_MAX, server.cert), TRANSCRIPT_MALFORMED);
	for (int e = -1; e <= TRANSCRIPT_ERRORS; e++)
		CHECK(strlen(transcript_error_text((enum transcript_error)e)) > 5);
}

int main(int argc, char **argv)
{
	if (argc > 1)
		stride = strtoul(argv[1], NULL, 10);
	if (argc > 2)
		seed_dir = argv[2];
	ca = unit_party("P-256", "client CA", NULL, -60, 3600);
	server = unit_party("P-256", "server", &ca, -60, 3600);
	other_server = unit_party("P-256", "server", &ca, -60, 3600);

	test_accepted();
	test_output();
	test_fresh();
	test_no_certificate();
	test_resumed();
	test_weak();
	test_tls13_rules();
	test_digest();
	test_bounds();

	unit_party_free(&ca);
	unit_party_free(&server);
	unit_party_free(&other_server);
	return unit_end();
}
