// SPDX-License-Identifier: Apache-2.0
/* A MAC over who, where and until when. Knows no ticket and no socket. */
#include "tls/token.h"

#include <string.h>
#include <openssl/crypto.h>
#include <openssl/hmac.h>

#define END_LEN 8
#define MAC_LEN 32

_Static_assert(END_LEN + MAC_LEN == TOKEN_LEN, "token");

static void put_number(uint64_t n, uint8_t out[8])
{
	for (int i = 7; i >= 0; i--, n >>= 8)
		out[i] = (uint8_t)n;
}

static bool mac(const uint8_t *key, const struct token_claim *claim, const uint8_t *end,
		uint8_t *out)
{
	static const char label[] = "ktlsgate identity token"; /* the NUL is part of it */
	uint8_t text[sizeof(label) + END_LEN + 8 + FINGERPRINT_LEN + 255], *p = text;
	size_t name = strlen(claim->vserver);
	unsigned len;

	if (name > 255)
		return false;
	memcpy(p, label, sizeof(label));
	p += sizeof(label);
	memcpy(p, end, END_LEN);
	p += END_LEN;
	put_number(claim->generation, p);
	p += 8;
	memcpy(p, claim->fingerprint, FINGERPRINT_LEN);
	p += FINGERPRINT_LEN;
	memcpy(p, claim->vserver, name);
	p += name;
	return HMAC(EVP_sha256(), key, TOKEN_KEY_LEN, text, (size_t)(p - text), out, &len) != NULL;
}

bool token_make(const uint8_t key[TOKEN_KEY_LEN], const struct token_claim *claim, time_t end,
		uint8_t out[TOKEN_LEN])
{
	put_number((uint64_t)end, out);
	return mac(key, claim, out, out + END_LEN);
}

time_t token_end(const uint8_t token[TOKEN_LEN])
{
	uint64_t t = 0;

	for (int i = 0; i < END_LEN; i++)
		t = t << 8 | token[i];
	return (time_t)t;
}

bool token_check(const uint8_t key[TOKEN_KEY_LEN], const struct token_claim *claim, time_t now,
		 const uint8_t token[TOKEN_LEN])
{
	uint8_t want[MAC_LEN];

	return mac(key, claim, token, want) && !CRYPTO_memcmp(want, token + END_LEN, MAC_LEN) &&
	       now < token_end(token);
}
