/* SPDX-License-Identifier: Apache-2.0 */
/* Server-side SSL_CTX of a vserver and the verification of clients. Knows no backend. */
#include <errno.h>
#include <time.h>
#include "client.h"
#include "log.h"
#include "transcript.h"
#include "verify.h"

/* The same verification as in the signer; OpenSSL chooses the alert, from the error set here. */
static int verify_cb(X509_STORE_CTX *ctx, void *arg)
{
	struct front *front = arg;
	struct verify_result result;
	int ret = verify_client_chain(front->store, X509_STORE_CTX_get0_cert(ctx),
				      X509_STORE_CTX_get0_untrusted(ctx), time(NULL), &result);

	X509_STORE_CTX_set_error(ctx, ret == -ENOMEM ? X509_V_ERR_OUT_OF_MEM : result.error);
	X509_STORE_CTX_set_error_depth(ctx, result.depth);
	if (ret)
		return 0;
	X509_STORE_CTX_set0_verified_chain(ctx, result.chain);
	return 1;
}

/* RFC 8446 4.2.4, 4.3.2: the names help a client with several certificates to choose. */
static int announce_ca_names(SSL_CTX *ctx, const STACK_OF(X509) * anchors)
{
	for (int i = 0; i < sk_X509_num(anchors); i++) {
		if (!SSL_CTX_add_client_CA(ctx, sk_X509_value(anchors, i)))
			return -ENOMEM;
	}
	return 0;
}

static int require_client_cert(struct front *front, const struct cfg_profile *profile)
{
	int mode = SSL_VERIFY_PEER;

	if (profile->client_auth == CLIENT_AUTH_OFF)
		return 0;
	if (profile->client_auth == CLIENT_AUTH_MANDATORY)
		mode |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
	front->store = verify_store_new(profile->client_ca);
	if (!front->store || !SSL_CTX_set1_client_sigalgs_list(front->ctx, transcript_sigalgs))
		return -ENOMEM;
	SSL_CTX_set_verify(front->ctx, mode, NULL);
	SSL_CTX_set_cert_verify_callback(front->ctx, verify_cb, front);
	return announce_ca_names(front->ctx, profile->client_ca);
}

int front_init(struct front *front, const struct cfg_vserver *vserver)
{
	const struct cfg_certkey *certkey = vserver->certkey;
	char err[256];
	int ret;

	front->ctx = handshake_ctx_new(true);
	if (!front->ctx)
		return -ENOMEM;
	if (SSL_CTX_use_cert_and_key(front->ctx, certkey->cert, certkey->pkey, certkey->chain, 1) !=
	    1) {
		log_error("vserver %s: certkey %s: %s", vserver->name, certkey->name,
			  log_openssl(err, sizeof(err)));
		return -EINVAL;
	}
	ret = require_client_cert(front, vserver->profile);
	if (ret)
		log_error("vserver %s: client_ca: out of memory", vserver->name);
	return ret;
}

void front_free(struct front *front)
{
	SSL_CTX_free(front->ctx);
	X509_STORE_free(front->store);
	front->ctx = NULL;
	front->store = NULL;
}

static enum reason verify_reason(int error)
{
	switch (error) {
	case X509_V_ERR_CERT_HAS_EXPIRED:
		return REASON_client_cert_expired;
	case X509_V_ERR_CERT_NOT_YET_VALID:
		return REASON_client_cert_not_yet_valid;
	case X509_V_ERR_INVALID_PURPOSE:
		return REASON_client_cert_purpose;
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
	case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
	case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
	case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
	case X509_V_ERR_CERT_UNTRUSTED:
		return REASON_client_cert_untrusted;
	default:
		return REASON_client_cert_invalid;
	}
}

enum reason client_failure(const struct handshake *hs)
{
	switch (hs->failure) {
	case HANDSHAKE_EOF:
	case HANDSHAKE_RESET:
		return REASON_client_gone;
	case HANDSHAKE_NOT_TLS:
		return REASON_client_not_tls;
	case HANDSHAKE_PEER_ALERT:
		return REASON_client_refused;
	case HANDSHAKE_VERIFY:
		return verify_reason(hs->error);
	case HANDSHAKE_NO_CERTIFICATE:
		return REASON_client_cert_required;
	case HANDSHAKE_VERSION:
		return REASON_client_version;
	case HANDSHAKE_CIPHER:
		return REASON_client_cipher;
	case HANDSHAKE_SIGNATURE:
		return REASON_client_cert_proof;
	case HANDSHAKE_NO_MEMORY:
		return REASON_no_memory;
	default:
		return REASON_client_protocol;
	}
}
