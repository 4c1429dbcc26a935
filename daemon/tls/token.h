/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Identity tokens: the signer's word that a client proved to a vserver who it is,
 * until a time. Made and checked in the signer, which alone has the key; a
 * worker carries them in session tickets. Pure.
 */
#ifndef KTLSGATE_TOKEN_H
#define KTLSGATE_TOKEN_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>
#include "pki/identity.h"

#define TOKEN_KEY_LEN 32
#define TOKEN_LEN     40 /* when it ends, 8 bytes, and HMAC-SHA256 */

/* Who has proved it, and to whom. */
struct token_claim {
	uint64_t generation; /* under another configuration the client proves it again */
	const char *vserver; /* its name */
	uint8_t fingerprint[FINGERPRINT_LEN]; /* of the client's leaf */
};

/* False: out of memory. */
bool token_make(const uint8_t key[TOKEN_KEY_LEN], const struct token_claim *claim, time_t end,
		uint8_t out[TOKEN_LEN]) must_check;
bool token_check(const uint8_t key[TOKEN_KEY_LEN], const struct token_claim *claim, time_t now,
		 const uint8_t token[TOKEN_LEN]) must_check;
/* As the token says itself: for who does not have the key. */
time_t token_end(const uint8_t token[TOKEN_LEN]);

#endif
