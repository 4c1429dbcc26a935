// SPDX-License-Identifier: Apache-2.0
/* Proofs that a key is the asker's own, and private keys as messages carry them. */
#include "signer/new_key.h"

#include <string.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/param_build.h>

#define POINT_LEN 65 /* uncompressed, of P-256 */

SCOPED_DEFINE(param_bld, OSSL_PARAM_BLD, OSSL_PARAM_BLD_free)
SCOPED_DEFINE(params, OSSL_PARAM, OSSL_PARAM_free)
#define scoped_param_bld __attribute__((cleanup(scoped_param_bld_free_))) OSSL_PARAM_BLD
#define scoped_params	 __attribute__((cleanup(scoped_params_free_))) OSSL_PARAM

/* ---- RSA: a signature ---- */

static const char label[] = "ktlsgate new key"; /* the NUL is signed too */

struct signed_text {
	char label[sizeof(label)];
	uint8_t numbers[12];
	uint8_t digest[32];
};

static void put_number(uint32_t n, uint8_t out[4])
{
	for (int i = 3; i >= 0; i--, n >>= 8)
		out[i] = (uint8_t)n;
}

static bool make_text(const struct new_key_claim *claim, struct signed_text *out)
{
	memcpy(out->label, label, sizeof(label));
	put_number(claim->vserver, out->numbers);
	put_number(claim->service, out->numbers + 4);
	put_number(claim->ca, out->numbers + 8);
	return EVP_Digest(claim->proof, claim->proof_len, out->digest, NULL, EVP_sha256(), NULL) ==
	       1;
}

size_t new_key_sign(EVP_PKEY *key, const struct new_key_claim *claim,
		    uint8_t out[NEW_KEY_SIGNATURE_MAX])
{
	scoped_mdctx *ctx = EVP_MD_CTX_new();
	size_t len = NEW_KEY_SIGNATURE_MAX;
	struct signed_text text;

	if (!ctx || !make_text(claim, &text) || EVP_PKEY_get_size(key) > NEW_KEY_SIGNATURE_MAX ||
	    EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, key) != 1 ||
	    EVP_DigestSign(ctx, out, &len, (const uint8_t *)&text, sizeof(text)) != 1)
		return 0;
	return len;
}

bool new_key_verify(EVP_PKEY *key, const struct new_key_claim *claim, const uint8_t *signature,
		    size_t len)
{
	scoped_mdctx *ctx = EVP_MD_CTX_new();
	struct signed_text text;

	return ctx && make_text(claim, &text) &&
	       EVP_DigestVerifyInit(ctx, NULL, EVP_sha256(), NULL, key) == 1 &&
	       EVP_DigestVerify(ctx, signature, len, (const uint8_t *)&text, sizeof(text)) == 1;
}

/* ---- P-256: the private key itself ---- */

bool new_key_scalar(const EVP_PKEY *key, uint8_t out[NEW_KEY_SCALAR_LEN])
{
	BIGNUM *scalar = NULL;
	bool ok = EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_PRIV_KEY, &scalar) == 1 &&
		  BN_bn2binpad(scalar, out, NEW_KEY_SCALAR_LEN) == NEW_KEY_SCALAR_LEN;

	BN_clear_free(scalar);
	return ok;
}

static OSSL_PARAM *build_params(const BIGNUM *scalar, const uint8_t *point, size_t point_len)
{
	scoped_param_bld *build = OSSL_PARAM_BLD_new();

	if (!build ||
	    !OSSL_PARAM_BLD_push_utf8_string(build, OSSL_PKEY_PARAM_GROUP_NAME, "prime256v1", 0) ||
	    !OSSL_PARAM_BLD_push_octet_string(build, OSSL_PKEY_PARAM_PUB_KEY, point, point_len) ||
	    !OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_PRIV_KEY, scalar))
		return NULL;
	return OSSL_PARAM_BLD_to_param(build);
}

static EVP_PKEY *build_key(const BIGNUM *scalar, const uint8_t *point, size_t point_len)
{
	scoped_pkey_ctx *ctx = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);
	scoped_params *params = build_params(scalar, point, point_len);
	EVP_PKEY *key = NULL;

	if (!ctx || !params || EVP_PKEY_fromdata_init(ctx) != 1 ||
	    EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_KEYPAIR, params) != 1)
		return NULL;
	return key;
}

EVP_PKEY *new_key_restore(X509 *cert, const uint8_t scalar[NEW_KEY_SCALAR_LEN])
{
	EVP_PKEY *public = X509_get0_pubkey(cert), *key = NULL;
	uint8_t point[POINT_LEN];
	size_t len;
	BIGNUM *number;

	if (!public || EVP_PKEY_get_octet_string_param(public, OSSL_PKEY_PARAM_PUB_KEY, point,
						       sizeof(point), &len) != 1)
		return NULL;
	number = BN_secure_new(); /* so that OpenSSL wipes each copy */
	if (number && BN_bin2bn(scalar, NEW_KEY_SCALAR_LEN, number))
		key = build_key(number, point, len);
	BN_clear_free(number);
	return key;
}
