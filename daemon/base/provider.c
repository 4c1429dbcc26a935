/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A provider in front of OpenSSL's default one that hands on what is listed here, in a library
 * context of its own. Knows no key and no certificate.
 */
#include "base/provider.h"

#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/params.h>
#include <openssl/provider.h>
#include "base/log.h"

#define ALGORITHMS_MAX 32

/*
 * What TLS 1.2 and 1.3 and X.509 can ask of us, by the first of OpenSSL's names; of tickets too.
 * An operation that is not listed is handed on whole.
 */
static struct filter {
	int operation;
	const char *names[16];
	const char *property; /* they must have; NULL: any */
	OSSL_ALGORITHM kept[ALGORITHMS_MAX];
} filters[] = {
	{.operation = OSSL_OP_DIGEST,
	 .names = {"SHA1", "SHA2-224", "SHA2-256", "SHA2-384", "SHA2-512", "SHA2-512/224",
		   "SHA2-512/256", "SHA3-224", "SHA3-256", "SHA3-384", "SHA3-512"}},
	{.operation = OSSL_OP_CIPHER,
	 .names = {"AES-256-GCM", "AES-128-GCM", "ChaCha20-Poly1305", "AES-256-CBC",
		   "AES-256-CTR"}},
	{.operation = OSSL_OP_MAC, .names = {"HMAC"}},
	{.operation = OSSL_OP_KDF, .names = {"HKDF", "TLS13-KDF", "TLS1-PRF"}},
	{.operation = OSSL_OP_KEYMGMT,
	 .names = {"RSA", "RSA-PSS", "EC", "ED25519", "ED448", "X25519", "X448", "DH", "HMAC"}},
	{.operation = OSSL_OP_KEYEXCH, .names = {"ECDH", "X25519", "X448", "DH"}},
	{.operation = OSSL_OP_SIGNATURE, .names = {"RSA", "ECDSA", "ED25519", "ED448", "HMAC"}},
	{.operation = OSSL_OP_ASYM_CIPHER, .names = {"RSA"}},
	{.operation = OSSL_OP_KEM, .names = {"RSA"}},
	{.operation = OSSL_OP_ENCODER,
	 .names = {"RSA", "RSA-PSS", "EC", "ED25519", "ED448"},
	 .property = "output=der,structure=SubjectPublicKeyInfo"},
	{.operation = OSSL_OP_DECODER,
	 .names = {"RSA", "RSA-PSS", "EC", "ED25519", "ED448"},
	 .property = "input=der,structure=SubjectPublicKeyInfo"},
};

/* Both live as long as the process: the default provider apart from ours, and where ours is. */
static OSSL_PROVIDER *base;
static OSSL_LIB_CTX *lean;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* An algorithm's names are "RSA:rsaEncryption:1.2.840.113549.1.1.1". */
static bool is_named(const OSSL_ALGORITHM *a, const char *name)
{
	size_t n = strlen(name);

	return !strncmp(a->algorithm_names, name, n) &&
	       (!a->algorithm_names[n] || a->algorithm_names[n] == ':');
}

static bool wanted(const struct filter *f, const OSSL_ALGORITHM *a)
{
	if (f->property && !strstr(a->property_definition, f->property))
		return false;
	for (size_t i = 0; f->names[i]; i++) {
		if (is_named(a, f->names[i]))
			return true;
	}
	return false;
}

static void fill(struct filter *f)
{
	int no_cache;
	const OSSL_ALGORITHM *a = OSSL_PROVIDER_query_operation(base, f->operation, &no_cache);
	size_t n = 0;

	for (; a && a->algorithm_names && n < ALGORITHMS_MAX - 1; a++) {
		if (wanted(f, a))
			f->kept[n++] = *a;
	}
}

static const OSSL_ALGORITHM *query_operation(void *provctx, int operation, int *no_cache)
{
	(void)provctx;
	for (size_t i = 0; i < ARRAY_SIZE(filters); i++) {
		if (filters[i].operation != operation)
			continue;
		*no_cache = 0;
		return filters[i].kept;
	}
	return OSSL_PROVIDER_query_operation(base, operation, no_cache);
}

static int get_capabilities(void *provctx, const char *capability, OSSL_CALLBACK *cb, void *arg)
{
	(void)provctx;
	return OSSL_PROVIDER_get_capabilities(base, capability, cb, arg);
}

static int get_params(void *provctx, OSSL_PARAM params[])
{
	OSSL_PARAM *p = OSSL_PARAM_locate(params, OSSL_PROV_PARAM_STATUS);

	(void)provctx;
	return !p || OSSL_PARAM_set_int(p, 1);
}

/* The algorithms are the default provider's, and so is the context they are given. */
static int init(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in, const OSSL_DISPATCH **out,
		void **provctx)
{
	static const OSSL_DISPATCH table[] = {
		{OSSL_FUNC_PROVIDER_QUERY_OPERATION, (void (*)(void))query_operation},
		{OSSL_FUNC_PROVIDER_GET_CAPABILITIES, (void (*)(void))get_capabilities},
		{OSSL_FUNC_PROVIDER_GET_PARAMS, (void (*)(void))get_params},
		{0, NULL},
	};

	(void)handle;
	(void)in;
	*out = table;
	*provctx = OSSL_PROVIDER_get0_provider_ctx(base);
	return 1;
}

static void make(void)
{
	OSSL_LIB_CTX *made = OSSL_LIB_CTX_new();

	base = OSSL_PROVIDER_load(NULL, "default");
	for (size_t i = 0; base && i < ARRAY_SIZE(filters); i++)
		fill(&filters[i]);
	if (!base || !made || !OSSL_PROVIDER_add_builtin(made, "ktlsgate", init) ||
	    !OSSL_PROVIDER_load(made, "ktlsgate")) {
		OSSL_LIB_CTX_free(made);
		return;
	}
	lean = made;
}

void provider_use(void)
{
	char why[256];

	pthread_once(&once, make);
	if (!lean)
		log_warn("OpenSSL's provider: %s", log_openssl(why, sizeof(why)));
	else
		OSSL_LIB_CTX_set0_default(lean);
}
