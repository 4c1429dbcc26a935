/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Verification of a client's certificate chain: the same code in the worker,
 * in the signer and in ktlsgate-forge. Pure: certificates in, verdict out.
 */
#ifndef KTLSGATE_VERIFY_H
#define KTLSGATE_VERIFY_H

#include <time.h>
#include <openssl/x509.h>
#include "scoped.h"

struct verify_result {
	int error; /* X509_V_OK or the X509_V_ERR_* of the refusal */
	int depth; /* of the certificate at fault; 0 is the leaf */
	STACK_OF(X509) *
		chain; /* leaf first, anchor last; owned by the caller; NULL unless verified */
};

/*
 * Builds an X509_STORE of trust anchors for verify_client_chain().
 * NULL on allocation failure. Shared between threads read-only afterwards.
 */
X509_STORE *verify_store_new(STACK_OF(X509) * anchors) must_check;

/*
 * Verifies leaf against the anchors of store at time now (seconds since the
 * epoch) as RFC 5280 section 6 wants it, X509_V_FLAG_X509_STRICT, for the
 * purpose clientAuth: EKU (if there is one) must hold clientAuth and the key
 * usage (if there is one) digitalSignature. CA:TRUE leaves and unknown
 * critical extensions are refused. untrusted: what the client sent, may be NULL.
 *
 * Returns 0 with out->error == X509_V_OK and the verified chain, -EACCES with
 * the verdict in out, or -ENOMEM.
 */
int verify_client_chain(X509_STORE *store, X509 *leaf, STACK_OF(X509) * untrusted, time_t now,
			struct verify_result *out) must_check;

#endif
