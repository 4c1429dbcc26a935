// SPDX-License-Identifier: Apache-2.0
/* Fresh values, and the memory in which they are published. Knows no handshake and no clock. */
#include "tls/fresh.h"

#include <stdatomic.h>
#include <string.h>
#include <openssl/crypto.h>
#include <openssl/hmac.h>
#include "base/shared_memory.h"

#define EPOCH_LEN 8
#define MAC_LEN	  (FRESH_LEN - EPOCH_LEN)

/* ---- a value ---- */

static void put_number(uint64_t n, uint8_t out[8])
{
	for (int i = 7; i >= 0; i--, n >>= 8)
		out[i] = (uint8_t)n;
}

static uint64_t get_number(const uint8_t in[8])
{
	uint64_t n = 0;

	for (int i = 0; i < 8; i++)
		n = n << 8 | in[i];
	return n;
}

bool fresh_make(const uint8_t secret[FRESH_SECRET_LEN], const struct fresh_place *place,
		uint8_t out[FRESH_LEN])
{
	static const char label[] = "ktlsgate fresh value"; /* the NUL is part of it */
	uint8_t text[sizeof(label) + 8 + 8 + 255], mac[32], *p = text;
	size_t name = strlen(place->vserver);
	unsigned len;

	if (name > 255)
		return false;
	memcpy(p, label, sizeof(label));
	p += sizeof(label);
	put_number(place->epoch, p);
	put_number(place->generation, p + 8);
	memcpy(p + 16, place->vserver, name);
	p += 16 + name;
	if (!HMAC(EVP_sha256(), secret, FRESH_SECRET_LEN, text, (size_t)(p - text), mac, &len))
		return false;
	put_number(place->epoch, out);
	memcpy(out + EPOCH_LEN, mac, MAC_LEN);
	return true;
}

bool fresh_check(const uint8_t secret[FRESH_SECRET_LEN], struct fresh_place *place,
		 const uint8_t value[FRESH_LEN])
{
	uint8_t want[FRESH_LEN];

	place->epoch = get_number(value);
	return fresh_make(secret, place, want) && !CRYPTO_memcmp(want, value, FRESH_LEN);
}

/* ---- where they are published ---- */

/* Of two epochs, even and odd: the older value is written while the newer is read. */
struct fresh {
	atomic_uint_fast64_t epoch; /* the newest that is whole; 0: there is none */
	uint8_t values[][2][FRESH_LEN];
};

static size_t size(unsigned n_vservers)
{
	return sizeof(struct fresh) + (size_t)n_vservers * 2 * FRESH_LEN;
}

int fresh_new(unsigned n_vservers)
{
	return shared_memory_new("ktlsgate-fresh", size(n_vservers));
}

const struct fresh *fresh_map(int fd, unsigned n_vservers)
{
	return shared_memory_map(fd, size(n_vservers));
}

struct fresh *fresh_map_writable(int fd, unsigned n_vservers)
{
	return shared_memory_map_writable(fd, size(n_vservers));
}

void fresh_unmap(const struct fresh *f, unsigned n_vservers)
{
	shared_memory_unmap(f, size(n_vservers));
}

void fresh_write(struct fresh *f, uint64_t epoch, unsigned vserver, const uint8_t value[FRESH_LEN])
{
	memcpy(f->values[vserver][epoch % 2], value, FRESH_LEN);
}

void fresh_publish(struct fresh *f, uint64_t epoch)
{
	atomic_store_explicit(&f->epoch, epoch, memory_order_release);
}

void fresh_read(const struct fresh *f, unsigned vserver, uint8_t out[FRESH_LEN])
{
	uint64_t epoch = atomic_load_explicit(&f->epoch, memory_order_acquire);

	memcpy(out, f->values[vserver][epoch % 2], FRESH_LEN);
}
