// SPDX-License-Identifier: Apache-2.0
/* Key derivation against published and independently computed vectors; the kernel's layout. */
#include "unit.h"
#include "tls/keys.h"

#include <errno.h>
#include <openssl/obj_mac.h>

/* Compares with a hex string; a mismatch prints what there is. */
static bool is_hex(const uint8_t *p, size_t n, const char *hex)
{
	char got[2 * 128 + 1] = "";

	for (size_t i = 0; i < n && i < 128; i++)
		sprintf(got + 2 * i, "%02x", p[i]);
	if (strcmp(got, hex) == 0)
		return true;
	printf("got  %s\nwant %s\n", got, hex);
	return false;
}

static void from_hex(const char *hex, uint8_t *out)
{
	for (unsigned byte; sscanf(hex, "%2x", &byte) == 1; hex += 2)
		*out++ = (uint8_t)byte;
}

static void count_up(uint8_t *p, size_t n, uint8_t first)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)(first + i);
}

static bool all_zero(const void *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (((const uint8_t *)p)[i])
			return false;
	return true;
}

struct tls13_vector {
	const char *origin;
	enum tls_cipher cipher;
	const char *digest;
	size_t secret_len;
	const char *secret, *key, *iv, *next;
};

/*
 * RFC 8448 section 3 gives secret, key and iv; the rest was computed with
 * Python's hmac, and RFC 8448's next secrets with openssl kdf.
 */
static const struct tls13_vector tls13_vectors[] = {
	{"RFC 8448 server", TLS_AES_128_GCM, "SHA2-256", 32,
	 "a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643",
	 "9f02283b6c9c07efc26bb9f2ac92e356", "cf782b88dd83549aadf1e984",
	 "51921b8aa3001976eb401d0a4319a8516416a6c56001a357e5d162031e84f916"},
	{"RFC 8448 client", TLS_AES_128_GCM, "SHA2-256", 32,
	 "9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5",
	 "17422dda596ed5d9acd890e3c63f5051", "5b78923dee08579033e523d9",
	 "fcdfcc72725aaee48bf64e4fd8b749cdbdbab39d90da0b26e2245ca6ea167207"},
	{"SHA-384", TLS_AES_256_GCM, "SHA2-384", 48,
	 "404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f"
	 "606162636465666768696a6b6c6d6e6f",
	 "32f584230ad7bd6ea025e6e6cc16e757358c962ebc8196f5433acae983fb668b",
	 "0e7c7d30272bc74a0c9833b2",
	 "3255a7cd505c9e8030cd35c53a234e9d4a0fbe907003b132feea8e7eb3fafab0"
	 "0aa859605fcdc4d1f4e7f49d221fabad"},
	{"ChaCha20", TLS_CHACHA20_POLY1305, "SHA2-256", 32,
	 "404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f",
	 "c38a77665cc2c3e5ee40f5a93e41e3766d1096763860b329865168833b5d337e",
	 "380b541dc252b1f0618aea80",
	 "e8fc7f681aa59e59a6da531ad5b59f2b7ed21605445b04dcbe4727655950a3cf"},
};

static void test_tls13(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(tls13_vectors); i++) {
		const struct tls13_vector *v = &tls13_vectors[i];
		unsigned key_len = tls_cipher_desc(v->cipher)->key_len;
		uint8_t secret[TLS_SECRET_MAX], next[TLS_SECRET_MAX];
		struct tls_keys k;

		from_hex(v->secret, secret);
		memset(&k, 0xaa, sizeof(k));
		k.seq = 5;
		k.explicit_nonce = 6;
		CHECK_INT(keys_tls13(v->cipher, v->digest, secret, v->secret_len, &k), 0);
		CHECK_INT(k.version, TLS_13);
		CHECK_INT(k.cipher, v->cipher);
		CHECK(is_hex(k.key, key_len, v->key));
		CHECK(all_zero(k.key + key_len, sizeof(k.key) - key_len));
		CHECK(is_hex(k.iv, sizeof(k.iv), v->iv));
		CHECK_INT(k.seq, 5);
		CHECK_INT(k.explicit_nonce, 6);

		CHECK_INT(keys_tls13_next_secret(v->digest, secret, v->secret_len, next), 0);
		CHECK(is_hex(next, v->secret_len, v->next));
		/* out may be secret */
		CHECK_INT(keys_tls13_next_secret(v->digest, secret, v->secret_len, secret), 0);
		CHECK(is_hex(secret, v->secret_len, v->next));
	}
}

struct tls12_vector {
	enum tls_cipher cipher;
	const char *digest;
	const char *client_key, *server_key, *client_iv, *server_iv;
};

/*
 * master 10..3f, client_random 80..9f, server_random c0..df. Computed with
 * Python's hmac and again with `openssl kdf ... TLS1-PRF`.
 */
static const struct tls12_vector tls12_vectors[] = {
	{TLS_AES_128_GCM, "SHA2-256", "7c73ae2ef8096b91d4437a7d6f34cf68",
	 "eabfdeae6824ec4ff6f1a6e0d57512cc", "c6974374", "c943859a"},
	{TLS_AES_256_GCM, "SHA2-384",
	 "91e74db807b16b2f2adf4c83bbfc94a5a5caf7a793c438379c5665e0de2b699f",
	 "d8f8f13c1eb2ad92fb6848f4d3699636c182a99620b75d3eaa84c04aa8ff08a8", "db1a2384",
	 "f0359497"},
	{TLS_CHACHA20_POLY1305, "SHA2-256",
	 "7c73ae2ef8096b91d4437a7d6f34cf68eabfdeae6824ec4ff6f1a6e0d57512cc",
	 "c6974374c943859a83535755ad1f94b36e2d3f8144e62824c28a0e1613918fa5",
	 "2bf3989ad2ae117a095a7464", "9f9f54f95a7434c26f845c65"},
};

static void test_tls12(void)
{
	uint8_t master[48], client_random[32], server_random[32];

	count_up(master, 48, 0x10);
	count_up(client_random, 32, 0x80);
	count_up(server_random, 32, 0xc0);
	for (size_t i = 0; i < ARRAY_SIZE(tls12_vectors); i++) {
		const struct tls12_vector *v = &tls12_vectors[i];
		const struct tls_cipher_desc *d = tls_cipher_desc(v->cipher);
		struct tls_keys c, s;

		memset(&c, 0xaa, sizeof(c));
		memset(&s, 0xbb, sizeof(s));
		CHECK_INT(keys_tls12(v->cipher, v->digest, master, client_random, server_random, &c,
				     &s),
			  0);
		CHECK_INT(c.version, TLS_12);
		CHECK_INT(s.version, TLS_12);
		CHECK_INT(s.cipher, v->cipher);
		CHECK(is_hex(c.key, d->key_len, v->client_key));
		CHECK(is_hex(s.key, d->key_len, v->server_key));
		CHECK(is_hex(c.iv, d->fixed_iv_12, v->client_iv));
		CHECK(is_hex(s.iv, d->fixed_iv_12, v->server_iv));
		CHECK(all_zero(c.key + d->key_len, sizeof(c.key) - d->key_len));
		CHECK(all_zero(s.iv + d->fixed_iv_12, sizeof(s.iv) - d->fixed_iv_12));
	}
}

static void test_refusals(void)
{
	uint8_t secret[TLS_SECRET_MAX + 1] = {1}, next[TLS_SECRET_MAX + 1];
	struct tls_keys a, b;

	memset(&a, 0xaa, sizeof(a));
	CHECK_INT(keys_tls13(TLS_AES_128_GCM, "no-such-digest", secret, 32, &a), -EIO);
	CHECK(all_zero(&a, sizeof(a)));

	memset(&a, 0xaa, sizeof(a));
	memset(&b, 0xaa, sizeof(b));
	CHECK_INT(keys_tls12(TLS_AES_128_GCM, "no-such-digest", secret, secret, secret, &a, &b),
		  -EIO);
	CHECK(all_zero(&a, sizeof(a)));
	CHECK(all_zero(&b, sizeof(b)));

	memset(next, 0xaa, sizeof(next));
	CHECK_INT(keys_tls13_next_secret("no-such-digest", secret, 32, next), -EIO);
	CHECK(all_zero(next, 32));
	CHECK_INT(next[32], 0xaa);
	CHECK_INT(keys_tls13_next_secret("SHA2-256", secret, TLS_SECRET_MAX + 1, next), -EIO);
}

static void test_cipher_table(void)
{
	enum tls_cipher c;

	for (unsigned i = 0; i < TLS_CIPHERS; i++) {
		CHECK_INT(tls_cipher_from_nid(tls_cipher_desc(i)->nid, &c), 0);
		CHECK_INT(c, i);
	}
	CHECK_INT(tls_cipher_from_nid(NID_aes_128_ccm, &c), -ENOTSUP);
	CHECK_INT(tls_cipher_from_nid(NID_undef, &c), -ENOTSUP);
	CHECK(strcmp(tls_cipher_desc(TLS_AES_128_GCM)->name, "AES-128-GCM") == 0);
}

/* Spelled out from linux/tls.h: u16 version, u16 cipher (little-endian machine), iv, key, salt,
 * seq. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define HEAD(version, cipher) version "03" cipher "00"
#else
#define HEAD(version, cipher) "03" version "00" cipher
#endif
#define KEY_16 "000102030405060708090a0b0c0d0e0f"
#define KEY_32 KEY_16 "101112131415161718191a1b1c1d1e1f"

static const struct {
	uint16_t version;
	enum tls_cipher cipher;
	const char *bytes;
} crypto_infos[] = {
	{TLS_13, TLS_AES_128_GCM,
	 HEAD("04", "33") "a4a5a6a7a8a9aaab" KEY_16 "a0a1a2a3"
			  "0102030405060708"},
	{TLS_13, TLS_AES_256_GCM,
	 HEAD("04", "34") "a4a5a6a7a8a9aaab" KEY_32 "a0a1a2a3"
			  "0102030405060708"},
	{TLS_13, TLS_CHACHA20_POLY1305,
	 HEAD("04", "36") "a0a1a2a3a4a5a6a7a8a9aaab" KEY_32 "0102030405060708"},
	{TLS_12, TLS_AES_128_GCM,
	 HEAD("03", "33") "f1f2f3f4f5f6f7f8" KEY_16 "a0a1a2a3"
			  "0102030405060708"},
	{TLS_12, TLS_AES_256_GCM,
	 HEAD("03", "34") "f1f2f3f4f5f6f7f8" KEY_32 "a0a1a2a3"
			  "0102030405060708"},
	{TLS_12, TLS_CHACHA20_POLY1305,
	 HEAD("03", "36") "a0a1a2a3a4a5a6a7a8a9aaab" KEY_32 "0102030405060708"},
};

static void test_crypto_info(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(crypto_infos); i++) {
		struct tls_keys k = {
			.version = crypto_infos[i].version,
			.cipher = crypto_infos[i].cipher,
			.seq = 0x0102030405060708,
			.explicit_nonce = 0xf1f2f3f4f5f6f7f8,
		};
		uint8_t buf[KEYS_CRYPTO_INFO_MAX];
		size_t n;

		count_up(k.key, sizeof(k.key), 0);
		count_up(k.iv, sizeof(k.iv), 0xa0);
		memset(buf, 0xee, sizeof(buf));
		n = keys_to_crypto_info(&k, buf);
		CHECK_INT(n, strlen(crypto_infos[i].bytes) / 2);
		CHECK(is_hex(buf, n, crypto_infos[i].bytes));
		CHECK_INT(buf[n], 0xee);
		keys_wipe(&k);
		CHECK(all_zero(&k, sizeof(k)));
	}
}

int main(void)
{
	test_cipher_table();
	test_tls13();
	test_tls12();
	test_refusals();
	test_crypto_info();
	return unit_end();
}
