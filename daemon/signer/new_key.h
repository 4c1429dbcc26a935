/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whose the key of a forged certificate is. The signer makes the P-256 keys itself and hands them
 * out with the certificate: cheaper than to sign and to verify that one is the asker's own. An RSA
 * key takes too long for that, so the asker makes it, and signs with it what it is for.
 */
#ifndef KTLSGATE_NEW_KEY_H
#define KTLSGATE_NEW_KEY_H

#include <stdbool.h>
#include <stdint.h>
#include "base/scoped.h"

#define NEW_KEY_SCALAR_LEN    32  /* a private P-256 key: the number, big endian */
#define NEW_KEY_SIGNATURE_MAX 512 /* of RSA-4096 */

/* What a key is wanted for. */
struct new_key_claim {
	uint32_t vserver, service, ca; /* as in struct signer_request */
	const uint8_t *proof;	       /* the transcript, or a ticket_proof() */
	size_t proof_len;
};

/* The asker's end. Returns the length, 0: it cannot be made. */
size_t new_key_sign(EVP_PKEY *key, const struct new_key_claim *claim,
		    uint8_t out[NEW_KEY_SIGNATURE_MAX]) must_check;
bool new_key_verify(EVP_PKEY *key, const struct new_key_claim *claim, const uint8_t *signature,
		    size_t len) must_check;

/* The private half of a P-256 key. The caller wipes out. */
bool new_key_scalar(const EVP_PKEY *key, uint8_t out[NEW_KEY_SCALAR_LEN]) must_check;
/* The key of cert, a P-256 one, of which this is the private half. NULL: it is another kind of key,
 * or there is no memory. */
EVP_PKEY *new_key_restore(X509 *cert, const uint8_t scalar[NEW_KEY_SCALAR_LEN]) must_check;

#endif
