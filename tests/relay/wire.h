/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The far ends' record layer, over EVP and HMAC: written apart from the
 * daemon's (record.c, keys.c) so that an error there is not mirrored here, and
 * able to send what no stack sends. Knows no socket.
 */
#ifndef RELAY_WIRE_H
#define RELAY_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <openssl/evp.h>

enum wire_cipher {
	WIRE_AES_128_GCM,
	WIRE_AES_256_GCM,
	WIRE_CHACHA20_POLY1305,
	WIRE_CIPHERS
};

#define WIRE_TLS12    0x0303
#define WIRE_TLS13    0x0304
#define WIRE_PLAIN    16384
#define WIRE_OVERHEAD (5 + 8 + 1 + 16)
#define WIRE_RECORD   (WIRE_PLAIN + 2048 + 5) /* the longest that can be parsed */

enum wire_type {
	WIRE_CCS = 20,
	WIRE_ALERT = 21,
	WIRE_HANDSHAKE = 22,
	WIRE_DATA = 23
};

/* One direction's keys: a traffic secret (TLS 1.3), or key and IV (TLS 1.2: 4 bytes salt for GCM).
 */
struct wire_keys {
	uint16_t version;
	enum wire_cipher cipher;
	uint8_t secret[48];
	uint8_t key[32], iv[12];
	uint64_t seq, explicit_nonce;
};

struct wire {
	struct wire_keys keys;
	EVP_CIPHER_CTX *ctx;
	bool seal;
};

size_t wire_secret_len(enum wire_cipher cipher);
void wire_init(struct wire *w, const struct wire_keys *keys, bool seal);
void wire_free(struct wire *w);
/* The next generation of traffic keys (TLS 1.3). */
void wire_update(struct wire *w);

/*
 * Seals n bytes with padding behind the type (TLS 1.3); type 0 leaves the type
 * away, so that the record has none. Returns the record's length; out holds
 * n + padding + WIRE_OVERHEAD. No limit is kept: n may be too large on purpose.
 */
size_t wire_seal(struct wire *w, uint8_t type, const void *p, size_t n, size_t padding,
		 uint8_t *out);
/* Opens a whole record in place; *plain points into it. Returns the length or -1. */
ssize_t wire_open(struct wire *w, uint8_t *rec, size_t len, uint8_t **plain, uint8_t *type);

#endif
