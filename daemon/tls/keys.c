// SPDX-License-Identifier: Apache-2.0
/*
 * Derives traffic keys from TLS secrets and lays them out for the kernel.
 * Knows neither where the secrets come from nor what is done with the keys.
 */
#include "tls/keys.h"

#include <endian.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <linux/tls.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/kdf.h>
#include <openssl/obj_mac.h>
#include <openssl/params.h>

#define FIXED_IV_GCM 4 /* RFC 5288: the salt, in front of an explicit nonce */

static const struct tls_cipher_desc ciphers[TLS_CIPHERS] = {
	[TLS_AES_128_GCM] =
		{
			.name = "AES-128-GCM",
			.nid = NID_aes_128_gcm,
			.evp_name = "AES-128-GCM",
			.key_len = 16,
			.fixed_iv_12 = FIXED_IV_GCM,
			.kernel_cipher = TLS_CIPHER_AES_GCM_128,
		},
	[TLS_AES_256_GCM] =
		{
			.name = "AES-256-GCM",
			.nid = NID_aes_256_gcm,
			.evp_name = "AES-256-GCM",
			.key_len = 32,
			.fixed_iv_12 = FIXED_IV_GCM,
			.kernel_cipher = TLS_CIPHER_AES_GCM_256,
		},
	[TLS_CHACHA20_POLY1305] =
		{
			.name = "CHACHA20-POLY1305",
			.nid = NID_chacha20_poly1305,
			.evp_name = "ChaCha20-Poly1305",
			.key_len = 32,
			.fixed_iv_12 = 12, /* RFC 7905: as in TLS 1.3 */
			.kernel_cipher = TLS_CIPHER_CHACHA20_POLY1305,
		},
};

const struct tls_cipher_desc *tls_cipher_desc(enum tls_cipher c)
{
	return &ciphers[c];
}

int tls_cipher_from_nid(int nid, enum tls_cipher *out)
{
	for (unsigned c = 0; c < TLS_CIPHERS; c++) {
		if (ciphers[c].nid != nid)
			continue;
		*out = c;
		return 0;
	}
	return -ENOTSUP;
}

SCOPED_DEFINE(kdfctx, EVP_KDF_CTX, EVP_KDF_CTX_free)
#define scoped_kdfctx __attribute__((cleanup(scoped_kdfctx_free_))) EVP_KDF_CTX

/* Fetched once and never freed: a fetch takes locks that a handshake need not wait for. */
static EVP_KDF *tls13_kdf, *tls12_prf;
static pthread_once_t kdfs_once = PTHREAD_ONCE_INIT;

static void fetch_kdfs(void)
{
	tls13_kdf = EVP_KDF_fetch(NULL, OSSL_KDF_NAME_TLS1_3_KDF, NULL);
	tls12_prf = EVP_KDF_fetch(NULL, OSSL_KDF_NAME_TLS1_PRF, NULL);
}

/* OSSL_PARAM has no const, but nothing is ever written through these. */
static OSSL_PARAM param_string(const char *key, const char *s)
{
	return OSSL_PARAM_construct_utf8_string(key, (char *)s, 0);
}

static OSSL_PARAM param_octets(const char *key, const void *p, size_t len)
{
	return OSSL_PARAM_construct_octet_string(key, (void *)p, len);
}

static int kdf_derive(EVP_KDF *kdf, const OSSL_PARAM *params, uint8_t *out, size_t len)
{
	scoped_kdfctx *ctx = EVP_KDF_CTX_new(kdf);

	if (!ctx || EVP_KDF_derive(ctx, out, len, params) != 1)
		return -EIO;
	return 0;
}

/* RFC 8446 section 7.1, with an empty context. */
static int hkdf_expand_label(const char *digest, const uint8_t *secret, size_t secret_len,
			     const char *label, uint8_t *out, size_t len)
{
	int mode = EVP_KDF_HKDF_MODE_EXPAND_ONLY;
	const OSSL_PARAM params[] = {
		OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode),
		param_string(OSSL_KDF_PARAM_DIGEST, digest),
		param_octets(OSSL_KDF_PARAM_KEY, secret, secret_len),
		param_octets(OSSL_KDF_PARAM_PREFIX, "tls13 ", 6),
		param_octets(OSSL_KDF_PARAM_LABEL, label, strlen(label)),
		OSSL_PARAM_construct_end(),
	};

	pthread_once(&kdfs_once, fetch_kdfs);
	return kdf_derive(tls13_kdf, params, out, len);
}

/* Everything but seq and explicit_nonce, which count the caller's records. */
static void begin_keys(struct tls_keys *k, uint16_t version, enum tls_cipher cipher)
{
	k->version = version;
	k->cipher = cipher;
	memset(k->key, 0, sizeof(k->key));
	memset(k->iv, 0, sizeof(k->iv));
}

int keys_tls13(enum tls_cipher cipher, const char *digest, const uint8_t *secret, size_t secret_len,
	       struct tls_keys *out)
{
	unsigned key_len = ciphers[cipher].key_len;

	begin_keys(out, TLS_13, cipher);
	if (hkdf_expand_label(digest, secret, secret_len, "key", out->key, key_len) ||
	    hkdf_expand_label(digest, secret, secret_len, "iv", out->iv, sizeof(out->iv))) {
		keys_wipe(out);
		return -EIO;
	}
	return 0;
}

int keys_tls13_next_secret(const char *digest, const uint8_t *secret, size_t secret_len,
			   uint8_t *out)
{
	uint8_t next[TLS_SECRET_MAX];
	int r = -EIO;

	if (secret_len > sizeof(next))
		return -EIO;
	if (hkdf_expand_label(digest, secret, secret_len, "traffic upd", next, secret_len)) {
		OPENSSL_cleanse(out, secret_len);
	} else {
		memcpy(out, next, secret_len);
		r = 0;
	}
	OPENSSL_cleanse(next, sizeof(next));
	return r;
}

static const uint8_t *take(const uint8_t *p, uint8_t *field, size_t len)
{
	memcpy(field, p, len);
	return p + len;
}

/* RFC 5246 section 6.3. AEAD ciphers take no MAC keys from the key block. */
int keys_tls12(enum tls_cipher cipher, const char *digest, const uint8_t master[48],
	       const uint8_t client_random[32], const uint8_t server_random[32],
	       struct tls_keys *client_write, struct tls_keys *server_write)
{
	size_t key_len = ciphers[cipher].key_len, iv_len = ciphers[cipher].fixed_iv_12;
	const OSSL_PARAM params[] = {
		param_string(OSSL_KDF_PARAM_DIGEST, digest),
		param_octets(OSSL_KDF_PARAM_SECRET, master, 48),
		/* Several seeds are concatenated. */
		param_octets(OSSL_KDF_PARAM_SEED, "key expansion", 13),
		param_octets(OSSL_KDF_PARAM_SEED, server_random, 32),
		param_octets(OSSL_KDF_PARAM_SEED, client_random, 32),
		OSSL_PARAM_construct_end(),
	};
	uint8_t block[2 * (32 + 12)];
	const uint8_t *p = block;

	begin_keys(client_write, TLS_12, cipher);
	begin_keys(server_write, TLS_12, cipher);
	pthread_once(&kdfs_once, fetch_kdfs);
	if (kdf_derive(tls12_prf, params, block, 2 * (key_len + iv_len))) {
		OPENSSL_cleanse(block, sizeof(block));
		keys_wipe(client_write);
		keys_wipe(server_write);
		return -EIO;
	}
	p = take(p, client_write->key, key_len);
	p = take(p, server_write->key, key_len);
	p = take(p, client_write->iv, iv_len);
	take(p, server_write->iv, iv_len);
	OPENSSL_cleanse(block, sizeof(block));
	return 0;
}

/*
 * The kernel's structs differ only in the lengths of their fields: info, iv,
 * key, salt, rec_seq, without padding. So they are written from a list of
 * fields; these lines hold the kernel's header to it.
 */
#define LAYOUT_IS(type, iv_len, key_len, salt_len)                                                 \
	_Static_assert(offsetof(type, iv) == sizeof(struct tls_crypto_info) &&                     \
			       offsetof(type, key) == offsetof(type, iv) + (iv_len) &&             \
			       offsetof(type, salt) == offsetof(type, key) + (key_len) &&          \
			       offsetof(type, rec_seq) == offsetof(type, salt) + (salt_len) &&     \
			       sizeof(type) == offsetof(type, rec_seq) + 8 &&                      \
			       sizeof(type) <= KEYS_CRYPTO_INFO_MAX,                               \
		       #type)
LAYOUT_IS(struct tls12_crypto_info_aes_gcm_128, 8, 16, 4);
LAYOUT_IS(struct tls12_crypto_info_aes_gcm_256, 8, 32, 4);
LAYOUT_IS(struct tls12_crypto_info_chacha20_poly1305, 12, 32, 0);

static uint8_t *put(uint8_t *p, const void *field, size_t len)
{
	memcpy(p, field, len);
	return p + len;
}

static uint8_t *put_be64(uint8_t *p, uint64_t v)
{
	uint64_t be = htobe64(v);

	return put(p, &be, sizeof(be));
}

size_t keys_to_crypto_info(const struct tls_keys *k, uint8_t buf[KEYS_CRYPTO_INFO_MAX])
{
	const struct tls_cipher_desc *c = &ciphers[k->cipher];
	struct tls_crypto_info info = {.version = k->version, .cipher_type = c->kernel_cipher};
	/* The kernel splits an AES-GCM nonce in two in both versions, a ChaCha20 one never. */
	size_t salt_len = c->fixed_iv_12 == FIXED_IV_GCM ? FIXED_IV_GCM : 0;
	uint8_t *p = put(buf, &info, sizeof(info));

	if (salt_len && k->version == TLS_12)
		p = put_be64(p, k->explicit_nonce);
	else
		p = put(p, k->iv + salt_len, sizeof(k->iv) - salt_len);
	p = put(p, k->key, c->key_len);
	p = put(p, k->iv, salt_len);
	p = put_be64(p, k->seq);
	return p - buf;
}

void keys_wipe(struct tls_keys *k)
{
	OPENSSL_cleanse(k, sizeof(*k));
}
