// SPDX-License-Identifier: Apache-2.0
/* provider.c: what a gate needs is there for each kind of certificate, and what it does not is not.
 */
#include "unit.h"
#include "certs.h"
#include "forging/keymaker.h"
#include "base/provider.h"

#include <openssl/provider.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* From bytes, as a peer sends it; the caller frees. */
static X509 *parsed_again(X509 *cert)
{
	uint8_t *der = NULL;
	int len = i2d_X509(cert, &der);
	const uint8_t *p = der;
	X509 *again = d2i_X509(NULL, &p, len);

	OPENSSL_free(der);
	return again;
}

/* key was made before provider_use(): it signs here, and what it has signed is verified here. */
static void check_key(EVP_PKEY *key, const EVP_MD *md)
{
	X509 *cert = make_cert(&(struct cert_spec){.key = key, .md = md, .ext = {CA_EXT}});
	X509 *again = parsed_again(cert);
	EVP_PKEY *pub = again ? X509_get0_pubkey(again) : NULL;
	uint8_t *spki = NULL;

	CHECK(pub && EVP_PKEY_eq(pub, key) == 1);
	CHECK(pub && X509_verify(again, pub) == 1);
	CHECK(pub && i2d_PUBKEY(pub, &spki) > 0);
	OPENSSL_free(spki);
	X509_free(again);
	X509_free(cert);
}

static void test_keys(void)
{
	EVP_PKEY *rsa = EVP_RSA_gen(2048), *p256 = EVP_EC_gen("P-256"), *p384 = EVP_EC_gen("P-384");
	EVP_PKEY *ed = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	EVP_PKEY *ed448 = EVP_PKEY_Q_keygen(NULL, NULL, "ED448"), *here;

	provider_use();
	CHECK(OSSL_PROVIDER_available(NULL, "ktlsgate"));
	check_key(rsa, EVP_sha256());
	check_key(p256, EVP_sha256());
	check_key(p384, EVP_sha384());
	check_key(ed, EVP_md_null());
	check_key(ed448, EVP_md_null());
	here = EVP_EC_gen("P-256");
	check_key(here, EVP_sha256());
	EVP_PKEY_free(rsa);
	EVP_PKEY_free(p256);
	EVP_PKEY_free(p384);
	EVP_PKEY_free(ed);
	EVP_PKEY_free(ed448);
	EVP_PKEY_free(here);
}

static void test_absent(void)
{
	static const char *const keys[] = {"DSA", "DHX", "SM2", "SCRYPT"};
	EVP_CIPHER *des = EVP_CIPHER_fetch(NULL, "DES-EDE3-CBC", NULL);
	EVP_MD *md5 = EVP_MD_fetch(NULL, "MD5", NULL);

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		EVP_KEYMGMT *k = EVP_KEYMGMT_fetch(NULL, keys[i], NULL);

		CHECK(!k);
		EVP_KEYMGMT_free(k);
	}
	CHECK(!des && !md5);
	EVP_CIPHER_free(des);
	EVP_MD_free(md5);
}

/* Again from the same thread, and what other threads of before have is still whole. */
static void test_again(void)
{
	OSSL_LIB_CTX *ours = OSSL_LIB_CTX_set0_default(NULL);
	EVP_MD *md5;

	provider_use();
	CHECK(OSSL_LIB_CTX_set0_default(NULL) == ours);
	OSSL_LIB_CTX_set0_default(OSSL_LIB_CTX_get0_global_default());
	md5 = EVP_MD_fetch(NULL, "MD5", NULL);
	CHECK(md5 != NULL);
	EVP_MD_free(md5);
}

/* A key made for workers is one of theirs, or each would be exported anew for its first signature.
 */
static void test_keymaker(void)
{
	struct keymaker *k = keymaker_new(1, false);
	int wake = eventfd(0, 0);
	EVP_PKEY *key;
	uint64_t n;

	NEED(k && wake >= 0 && !keymaker_start(k));
	key = keymaker_take(k, wake);
	CHECK(!key);
	CHECK(read(wake, &n, sizeof(n)) == sizeof(n));
	key = keymaker_take(k, wake);
	CHECK(key && !strcmp(OSSL_PROVIDER_get0_name(EVP_PKEY_get0_provider(key)), "ktlsgate"));
	EVP_PKEY_free(key);
	keymaker_free(k);
	close(wake);
}

int main(void)
{
	test_keys();
	test_absent();
	test_again();
	test_keymaker();
	return unit_end();
}
