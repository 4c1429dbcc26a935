/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Traffic keys from TLS secrets. Pure functions: RFC 8446 section 7.3 (TLS 1.3)
 * and RFC 5246 section 6.3 (TLS 1.2), and the kernel's form of the result.
 */
#ifndef KTLSGATE_KEYS_H
#define KTLSGATE_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/scoped.h"

#define TLS_SECRET_MAX 64
#define TLS_12	       0x0303
#define TLS_13	       0x0304

enum tls_cipher {
	TLS_AES_128_GCM,
	TLS_AES_256_GCM,
	TLS_CHACHA20_POLY1305,
	TLS_CIPHERS
};

/* Row of the cipher table: what OpenSSL and the kernel call it. */
struct tls_cipher_desc {
	const char *name;     /* "AES-128-GCM" */
	int nid;	      /* SSL_CIPHER_get_cipher_nid() */
	const char *evp_name; /* for EVP_CIPHER_fetch() */
	unsigned key_len;
	unsigned fixed_iv_12;	/* bytes of IV from the TLS 1.2 key block: 4 (GCM) or 12 */
	uint16_t kernel_cipher; /* TLS_CIPHER_* of linux/tls.h */
};

const struct tls_cipher_desc *tls_cipher_desc(enum tls_cipher c);
/* Returns 0 or -ENOTSUP when the cipher is none of ours. */
int tls_cipher_from_nid(int nid, enum tls_cipher *out) must_check;

/* The keys of one direction and the state of its first record after the hand-over. */
struct tls_keys {
	uint16_t version; /* TLS_12 or TLS_13 */
	enum tls_cipher cipher;
	uint8_t key[32];
	uint8_t iv[12];		 /* TLS 1.2 GCM: only the 4-byte salt is used */
	uint64_t seq;		 /* sequence number of the next record */
	uint64_t explicit_nonce; /* TLS 1.2 GCM, sending: explicit nonce of the next record, as a
				    big-endian number */
};

/*
 * The digest is named as OpenSSL does ("SHA2-256", "SHA2-384"). All return 0,
 * or -EIO when OpenSSL refused; out is wiped then. seq and explicit_nonce are
 * left for the caller, who counts the records.
 */
int keys_tls13(enum tls_cipher cipher, const char *digest, const uint8_t *secret, size_t secret_len,
	       struct tls_keys *out) must_check;
/* RFC 8446 section 7.2: application_traffic_secret_N+1; out may be secret. */
int keys_tls13_next_secret(const char *digest, const uint8_t *secret, size_t secret_len,
			   uint8_t *out) must_check;
int keys_tls12(enum tls_cipher cipher, const char *digest, const uint8_t master[48],
	       const uint8_t client_random[32], const uint8_t server_random[32],
	       struct tls_keys *client_write, struct tls_keys *server_write) must_check;

/* Large enough for every struct tls12_crypto_info_* of linux/tls.h. */
#define KEYS_CRYPTO_INFO_MAX 64
/* Fills buf with the struct for setsockopt(SOL_TLS, TLS_TX or TLS_RX); returns its size. */
size_t keys_to_crypto_info(const struct tls_keys *k, uint8_t buf[KEYS_CRYPTO_INFO_MAX]);

void keys_wipe(struct tls_keys *k);

#endif
