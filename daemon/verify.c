// SPDX-License-Identifier: Apache-2.0
/*
 * Verifies a client's chain. Knows no socket, no configuration, no clock, and not
 * what a peer is told.
 */
#include "verify.h"

#include <errno.h>
#include <openssl/x509v3.h>

#define MAX_INTERMEDIATES 10
#define AUTH_LEVEL	  2 /* 112 bits: RSA 2048, P-224, no SHA-1 signatures */

SCOPED_DEFINE(store_ctx, X509_STORE_CTX, X509_STORE_CTX_free)
#define scoped_store_ctx __attribute__((cleanup(scoped_store_ctx_free_))) X509_STORE_CTX

X509_STORE *verify_store_new(STACK_OF(X509) * anchors)
{
	X509_STORE *store = X509_STORE_new();

	if (!store)
		return NULL;
	for (int i = 0; i < sk_X509_num(anchors); i++) {
		if (!X509_STORE_add_cert(store, sk_X509_value(anchors, i))) {
			X509_STORE_free(store);
			return NULL;
		}
	}
	return store;
}

/*
 * What X509_PURPOSE_SSL_CLIENT lets pass in a leaf and we do not: a CA's
 * certificate, and a key that may agree on keys but not sign.
 */
static int leaf_error(X509 *leaf)
{
	/* X509_check_ca() overlooks CA:TRUE with a key usage that lacks keyCertSign. */
	if (X509_check_ca(leaf) || X509_get_extension_flags(leaf) & EXFLAG_CA)
		return X509_V_ERR_INVALID_NON_CA;
	/* Both are UINT32_MAX, hence allow everything, without the extension. */
	if (!(X509_get_key_usage(leaf) & KU_DIGITAL_SIGNATURE) ||
	    !(X509_get_extended_key_usage(leaf) & XKU_SSL_CLIENT))
		return X509_V_ERR_INVALID_PURPOSE;
	return X509_V_OK;
}

static X509_STORE_CTX *store_ctx_new(X509_STORE *store, X509 *leaf, STACK_OF(X509) * untrusted,
				     time_t now)
{
	scoped_store_ctx *ctx = X509_STORE_CTX_new();
	X509_VERIFY_PARAM *param;

	if (!ctx || !X509_STORE_CTX_init(ctx, store, leaf, untrusted) ||
	    !X509_STORE_CTX_set_purpose(ctx, X509_PURPOSE_SSL_CLIENT))
		return NULL;
	param = X509_STORE_CTX_get0_param(ctx);
	X509_VERIFY_PARAM_set_time(param, now);
	X509_VERIFY_PARAM_set_depth(param, MAX_INTERMEDIATES);
	X509_VERIFY_PARAM_set_auth_level(param, AUTH_LEVEL);
	if (!X509_VERIFY_PARAM_set_flags(param,
					 X509_V_FLAG_X509_STRICT | X509_V_FLAG_TRUSTED_FIRST))
		return NULL;
	return TAKE_PTR(ctx);
}

static int refuse(struct verify_result *out, int error, int depth)
{
	out->error = error;
	out->depth = depth;
	return error == X509_V_ERR_OUT_OF_MEM ? -ENOMEM : -EACCES;
}

int verify_client_chain(X509_STORE *store, X509 *leaf, STACK_OF(X509) * untrusted, time_t now,
			struct verify_result *out)
{
	scoped_store_ctx *ctx = store_ctx_new(store, leaf, untrusted, now);
	int error;

	*out = (struct verify_result){.error = X509_V_ERR_UNSPECIFIED};
	if (!ctx)
		return refuse(out, X509_V_ERR_OUT_OF_MEM, 0);

	if (X509_verify_cert(ctx) != 1) {
		error = X509_STORE_CTX_get_error(ctx);
		if (error == X509_V_OK)
			error = X509_V_ERR_UNSPECIFIED;
		return refuse(out, error, X509_STORE_CTX_get_error_depth(ctx));
	}
	error = leaf_error(leaf);
	if (error != X509_V_OK)
		return refuse(out, error, 0);

	out->chain = X509_STORE_CTX_get1_chain(ctx);
	if (!out->chain)
		return refuse(out, X509_V_ERR_OUT_OF_MEM, 0);
	out->error = X509_V_OK;
	return 0;
}
