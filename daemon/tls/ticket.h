/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Session tickets of one vserver: their keys, and what stands in them. Nothing
 * about a session is kept here; a ticket holds it all, sealed. What a resumed
 * handshake does not prove again is in it: the client's chain, and the signer's
 * token that it was proved.
 */
#ifndef KTLSGATE_TICKET_H
#define KTLSGATE_TICKET_H

#include <openssl/ssl.h>
#include "tls/token.h"

#define TICKET_DATA_MAX 12288 /* the chain's certificates behind the leaf, and the token */

struct ticket_keys;

/* Random; replaced every `period` seconds, and good for as long again. Thread-safe. NULL: no
 * memory or randomness. */
struct ticket_keys *ticket_keys_new(unsigned period) must_check;
void ticket_keys_free(struct ticket_keys *k); /* NULL-safe; wipes */

/* For SSL_CTX_set_tlsext_ticket_key_evp_cb(): see there. */
int ticket_key_cb(struct ticket_keys *k, unsigned char *name, unsigned char *iv,
		  EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, int encrypt) must_check;

/*
 * What to put into a ticket, beside what OpenSSL does: chain verified (leaf first,
 * anchor last) and token (NULL: none). *out is the caller's, to be freed. Returns its length, 0 if
 * it is too much or there is no memory: then no ticket.
 */
size_t ticket_write(const STACK_OF(X509) * chain, const uint8_t *token, uint8_t **out) must_check;
/* token: inside data, or NULL. *rest: the certificates behind the leaf. False: malformed. */
bool ticket_read(const uint8_t *data, size_t len, const uint8_t **token,
		 STACK_OF(X509) * *rest) must_check;

/*
 * The proof of a resumed flow for the signer: the token, the leaf, what stood
 * behind it. As ticket_write(). And what the signer reads in it, all of it the caller's.
 */
size_t ticket_proof(const STACK_OF(X509) * chain, const uint8_t token[TOKEN_LEN],
		    uint8_t **out) must_check;
bool ticket_proof_read(const uint8_t *proof, size_t len, const uint8_t **token, X509 **leaf,
		       STACK_OF(X509) * *rest) must_check;

#endif
