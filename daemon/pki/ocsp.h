/* SPDX-License-Identifier: Apache-2.0 */
/*
 * OCSP requests and what their responses say (RFC 6960). The same code in the
 * worker, which asks, and in the signer, which is shown the answer. Knows no
 * socket and no clock.
 */
#ifndef KTLSGATE_OCSP_H
#define KTLSGATE_OCSP_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>
#include <openssl/x509.h>
#include "base/scoped.h"

#define OCSP_RESPONSE_MAX 8192 /* bytes; a response with its responder's certificate has 2000 */

enum ocsp_verdict {
	OCSP_NO_ANSWER, /* none that can be believed, or the responder does not know */
	OCSP_GOOD,
	OCSP_REVOKED
};

/* DER of the request about cert, to be freed with OPENSSL_free(); its length, or -ENOMEM. */
int ocsp_request(X509 *cert, X509 *issuer, uint8_t **der) must_check;

/*
 * What the response says about cert. It has to be signed by issuer, or by a
 * responder whose certificate issuer has issued with id-kp-OCSPSigning in it
 * (RFC 6960 4.2.2.2), and be current. *until: how long that may be relied upon. why: one
 * phrase if there is no answer.
 */
enum ocsp_verdict ocsp_judge(const uint8_t *der, size_t len, X509 *cert, X509 *issuer, time_t now,
			     time_t *until, const char **why) must_check;

#endif
