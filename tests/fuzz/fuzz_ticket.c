// SPDX-License-Identifier: Apache-2.0
/*
 * What stands in a session ticket (worker) and in the proof of a resumed flow (signer, from a
 * worker it does not believe), and identity tokens.
 * Input: the token (TOKEN_LEN bytes), a byte, then
 * programs of certificates (cert.c) or, with bit 7 of the byte, bytes as they are.
 */
#include "fuzz.h"

#include <openssl/err.h>
#include "tls/ticket.h"

#define CERTIFICATES_MAX 24

/* OpenSSL takes its time for a certificate, and 250 bytes are one. */
static const struct fuzz_bound bound = {.base_us = 10000, .byte_ns = 2000};

static const uint8_t key[TOKEN_KEY_LEN] = "a key of tokens";

struct ticket {
	const uint8_t *p;
	size_t len;
};

/* Whether a token is ours is told by its MAC alone, over all of the claim. */
static void check_token(const uint8_t *token, X509 *leaf)
{
	struct token_claim claim = {.generation = 7, .vserver = "app"}, other, older;
	uint8_t ours[TOKEN_LEN];

	ENSURE(!identity_fingerprint(leaf, claim.fingerprint));
	other = older = claim;
	other.vserver = "other";
	older.generation = 6;
	ENSURE(token_make(key, &claim, token_end(token), ours));
	ENSURE(token_check(key, &claim, FUZZ_NOW, token) ==
	       (!memcmp(ours, token, TOKEN_LEN) && token_end(token) > FUZZ_NOW));
	ENSURE(!token_check(key, &other, FUZZ_NOW, token) &&
	       !token_check(key, &older, FUZZ_NOW, token));
}

static void run(void *arg)
{
	const struct ticket *t = arg;
	scoped_certs *rest = NULL, *behind = NULL;
	scoped_x509 *leaf = NULL;
	const uint8_t *token;

	if (ticket_read(t->p, t->len, &token, &rest))
		ENSURE(rest && (!token || token == t->p));
	else
		ENSURE(!rest);
	if (ticket_proof_read(t->p, t->len, &token, &leaf, &behind)) {
		ENSURE(leaf && behind && token == t->p);
		check_token(token, leaf);
	} else {
		ENSURE(!leaf && !behind);
	}
	ERR_clear_error();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};
	size_t n, from[CERTIFICATES_MAX];
	const uint8_t *token = fuzz_bytes(&in, TOKEN_LEN, &n);
	struct ticket t;
	struct der d;

	/* The signer's message has room for more than a ticket. */
	der_begin(&d, 65536);
	der_bytes(&d, token, n);
	if (fuzz_byte(&in) & 0x80)
		der_bytes(&d, in.p, in.left);
	else
		for (unsigned i = 0; in.left && i < CERTIFICATES_MAX && !d.full;)
			i += fuzz_certificate(&d, &in, from, CERTIFICATES_MAX - i);
	t = (struct ticket){d.p, d.len};
	if (!d.full)
		fuzz_bounded(&bound, d.len, run, &t);
	der_free(&d);
	return 0;
}
