// SPDX-License-Identifier: Apache-2.0
/* TLS records of the far ends; see wire.h. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/hmac.h>
#include "wire.h"

static const struct {
	const char *evp;
	size_t key_len;
} ciphers[WIRE_CIPHERS] = {
	[WIRE_AES_128_GCM] = {"AES-128-GCM", 16},
	[WIRE_AES_256_GCM] = {"AES-256-GCM", 32},
	[WIRE_CHACHA20_POLY1305] = {"ChaCha20-Poly1305", 32},
};
static EVP_CIPHER *fetched[WIRE_CIPHERS];
static pthread_once_t fetch_once = PTHREAD_ONCE_INIT;

static void must(int ok, const char *what)
{
	if (ok == 1)
		return;
	fprintf(stderr, "wire: %s failed\n", what);
	abort();
}

static void fetch(void)
{
	for (int c = 0; c < WIRE_CIPHERS; c++)
		fetched[c] = EVP_CIPHER_fetch(NULL, ciphers[c].evp, NULL);
}

/* ---- keys ---- */

size_t wire_secret_len(enum wire_cipher cipher)
{
	return cipher == WIRE_AES_256_GCM ? 48 : 32;
}

/* HKDF-Expand-Label with an empty context; len is at most one block, so T(1) is all (RFC 5869). */
static void expand_label(const struct wire_keys *k, const char *label, uint8_t *out, size_t len)
{
	const EVP_MD *md = k->cipher == WIRE_AES_256_GCM ? EVP_sha384() : EVP_sha256();
	uint8_t info[64], block[EVP_MAX_MD_SIZE];
	size_t label_len = strlen(label), n = 0;
	unsigned block_len = sizeof(block);

	info[n++] = 0;
	info[n++] = (uint8_t)len;
	info[n++] = (uint8_t)(6 + label_len);
	memcpy(info + n, "tls13 ", 6);
	memcpy(info + n + 6, label, label_len);
	n += 6 + label_len;
	info[n++] = 0;
	info[n++] = 1;
	must(HMAC(md, k->secret, (int)wire_secret_len(k->cipher), info, n, block, &block_len) !=
		     NULL,
	     "HMAC");
	memcpy(out, block, len);
}

static void set_keys(struct wire *w)
{
	struct wire_keys *k = &w->keys;

	if (k->version == WIRE_TLS13) {
		expand_label(k, "key", k->key, ciphers[k->cipher].key_len);
		expand_label(k, "iv", k->iv, sizeof(k->iv));
	}
	must(EVP_CipherInit_ex2(w->ctx, fetched[k->cipher], k->key, NULL, w->seal, NULL), "a key");
}

void wire_init(struct wire *w, const struct wire_keys *keys, bool seal)
{
	pthread_once(&fetch_once, fetch);
	w->keys = *keys;
	w->seal = seal;
	w->ctx = EVP_CIPHER_CTX_new();
	must(w->ctx != NULL, "EVP_CIPHER_CTX_new");
	set_keys(w);
}

void wire_free(struct wire *w)
{
	EVP_CIPHER_CTX_free(w->ctx);
	w->ctx = NULL;
}

void wire_update(struct wire *w)
{
	expand_label(&w->keys, "traffic upd", w->keys.secret, wire_secret_len(w->keys.cipher));
	w->keys.seq = 0;
	set_keys(w);
}

/* ---- records ---- */

static void be64(uint8_t *p, uint64_t v)
{
	for (int i = 7; i >= 0; i--, v >>= 8)
		p[i] = (uint8_t)v;
}

static size_t explicit_len(const struct wire_keys *k)
{
	return k->version == WIRE_TLS12 && k->cipher != WIRE_CHACHA20_POLY1305 ? 8 : 0;
}

/* Nonce and additional data of the next record; n: its plaintext's length. Returns the latter's
 * length. */
static size_t prepare(const struct wire_keys *k, const uint8_t *rec, size_t n, uint8_t nonce[12],
		      uint8_t aad[13])
{
	uint8_t seq[8];

	be64(seq, k->seq);
	memcpy(nonce, k->iv, 12);
	if (explicit_len(k)) {
		memcpy(nonce + 4, rec + 5, 8);
	} else {
		for (int i = 0; i < 8; i++)
			nonce[4 + i] ^= seq[i];
	}
	if (k->version == WIRE_TLS13) {
		memcpy(aad, rec, 5);
		return 5;
	}
	memcpy(aad, seq, 8);
	memcpy(aad + 8, rec, 3);
	aad[11] = (uint8_t)(n >> 8);
	aad[12] = (uint8_t)n;
	return 13;
}

size_t wire_seal(struct wire *w, uint8_t type, const void *p, size_t n, size_t padding,
		 uint8_t *out)
{
	struct wire_keys *k = &w->keys;
	size_t ex = explicit_len(k), inner = n, len, aad_len;
	uint8_t nonce[12], aad[13], *body = out + 5 + ex;
	int got;

	memmove(body, p, n);
	out[0] = type;
	if (k->version == WIRE_TLS13) {
		if (type)
			body[inner++] = type;
		memset(body + inner, 0, padding);
		inner += padding;
		out[0] = WIRE_DATA;
	}
	len = ex + inner + 16;
	out[1] = 3;
	out[2] = 3;
	out[3] = (uint8_t)(len >> 8);
	out[4] = (uint8_t)len;
	if (ex)
		be64(out + 5, k->explicit_nonce++);
	aad_len = prepare(k, out, inner, nonce, aad);
	must(EVP_CipherInit_ex2(w->ctx, NULL, NULL, nonce, 1, NULL), "a nonce");
	must(EVP_CipherUpdate(w->ctx, NULL, &got, aad, (int)aad_len), "additional data");
	must(EVP_CipherUpdate(w->ctx, body, &got, body, (int)inner), "sealing");
	must(EVP_CipherFinal_ex(w->ctx, body + inner, &got), "sealing");
	must(EVP_CIPHER_CTX_ctrl(w->ctx, EVP_CTRL_AEAD_GET_TAG, 16, body + inner), "the tag");
	k->seq++;
	return 5 + len;
}

ssize_t wire_open(struct wire *w, uint8_t *rec, size_t len, uint8_t **plain, uint8_t *type)
{
	struct wire_keys *k = &w->keys;
	size_t ex = explicit_len(k), n, aad_len;
	uint8_t nonce[12], aad[13], *body = rec + 5 + ex;
	int got;

	if (len < 5 + ex + 16)
		return -1;
	n = len - 5 - ex - 16;
	aad_len = prepare(k, rec, n, nonce, aad);
	must(EVP_CipherInit_ex2(w->ctx, NULL, NULL, nonce, 0, NULL), "a nonce");
	must(EVP_CIPHER_CTX_ctrl(w->ctx, EVP_CTRL_AEAD_SET_TAG, 16, body + n), "the tag");
	must(EVP_CipherUpdate(w->ctx, NULL, &got, aad, (int)aad_len), "additional data");
	must(EVP_CipherUpdate(w->ctx, body, &got, body, (int)n), "opening");
	if (EVP_CipherFinal_ex(w->ctx, body + n, &got) != 1)
		return -1;
	k->seq++;
	*plain = body;
	*type = rec[0];
	if (k->version == WIRE_TLS12)
		return (ssize_t)n;
	while (n && !body[n - 1])
		n--;
	if (!n || rec[0] != WIRE_DATA)
		return -1;
	*type = body[n - 1];
	return (ssize_t)(n - 1);
}
