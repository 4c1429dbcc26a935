// SPDX-License-Identifier: Apache-2.0
/* Keys and contents of session tickets. Knows no handshake and no configuration. */
#include "tls/ticket.h"
#include "base/timer.h"

#include <pthread.h>
#include <string.h>
#include <time.h>
#include <openssl/core_names.h>
#include <openssl/rand.h>

#define NAME_LEN	 16
#define CERTIFICATES_MAX 16

struct ticket_key {
	uint8_t name[NAME_LEN], cipher[32], mac[32];
};

struct ticket_keys {
	pthread_mutex_t lock;
	struct ticket_key now, before;
	time_t made; /* CLOCK_MONOTONIC */
	unsigned period;
};

static time_t clock_seconds(void)
{
	return (time_t)(timer_clock() / 1000);
}

static bool make_key(struct ticket_key *k)
{
	return RAND_bytes(k->name, sizeof(k->name)) == 1 &&
	       RAND_priv_bytes(k->cipher, sizeof(k->cipher)) == 1 &&
	       RAND_priv_bytes(k->mac, sizeof(k->mac)) == 1;
}

struct ticket_keys *ticket_keys_new(unsigned period)
{
	struct ticket_keys *k = calloc(1, sizeof(*k));

	if (!k)
		return NULL;
	pthread_mutex_init(&k->lock, NULL);
	k->period = period;
	k->made = clock_seconds();
	/* No ticket has this name yet: what is before must not be all zero. */
	if (make_key(&k->now) && make_key(&k->before))
		return k;
	ticket_keys_free(k);
	return NULL;
}

void ticket_keys_free(struct ticket_keys *k)
{
	if (!k)
		return;
	pthread_mutex_destroy(&k->lock);
	OPENSSL_cleanse(k, sizeof(*k));
	free(k);
}

static bool rotate(struct ticket_keys *k)
{
	time_t age = clock_seconds() - k->made;

	if (age < (time_t)k->period)
		return true;
	/* Nobody came for so long that the last key is too old as well. */
	if (age >= 2 * (time_t)k->period && !make_key(&k->now))
		return false;
	k->before = k->now;
	k->made += age;
	return make_key(&k->now);
}

static bool use(const struct ticket_key *key, unsigned char *iv, EVP_CIPHER_CTX *cipher,
		EVP_MAC_CTX *mac, int encrypt)
{
	char digest[] = "SHA256";
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, (void *)key->mac,
						  sizeof(key->mac)),
		OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
		OSSL_PARAM_construct_end(),
	};

	return EVP_CipherInit_ex(cipher, EVP_aes_256_cbc(), NULL, key->cipher, iv, encrypt) == 1 &&
	       EVP_MAC_CTX_set_params(mac, params) == 1;
}

static int find_and_use(struct ticket_keys *k, unsigned char *name, unsigned char *iv,
			EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, int encrypt)
{
	const struct ticket_key *key = &k->now;

	if (!rotate(k))
		return -1;
	if (encrypt) {
		memcpy(name, key->name, NAME_LEN);
		if (RAND_bytes(iv, EVP_CIPHER_get_iv_length(EVP_aes_256_cbc())) != 1)
			return -1;
	} else if (memcmp(name, key->name, NAME_LEN)) {
		key = &k->before;
		if (memcmp(name, key->name, NAME_LEN))
			return 0;
	}
	return use(key, iv, cipher, mac, encrypt) ? 1 : -1;
}

int ticket_key_cb(struct ticket_keys *k, unsigned char *name, unsigned char *iv,
		  EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, int encrypt)
{
	int ret;

	pthread_mutex_lock(&k->lock);
	ret = find_and_use(k, name, iv, cipher, mac, encrypt);
	pthread_mutex_unlock(&k->lock);
	return ret;
}

/* ---- what stands in a ticket ---- */

/* The token, all zero where there is none, and chain from first on without its anchor. */
static size_t write_all(const STACK_OF(X509) * chain, int first, const uint8_t *token,
			uint8_t **out)
{
	int n = sk_X509_num(chain) > 1 ? sk_X509_num(chain) - 1 : sk_X509_num(chain);
	size_t len = TOKEN_LEN;
	uint8_t *p;

	for (int i = first; i < n; i++) {
		int der = i2d_X509(sk_X509_value(chain, i), NULL);

		if (der <= 0)
			return 0;
		len += (size_t)der;
	}
	if (len > TICKET_DATA_MAX)
		return 0;
	p = *out = calloc(1, len);
	if (!p)
		return 0;
	if (token)
		memcpy(p, token, TOKEN_LEN);
	p += TOKEN_LEN;
	for (int i = first; i < n; i++)
		i2d_X509(sk_X509_value(chain, i), &p);
	return len;
}

/* One certificate behind the other, and nothing else. */
static bool read_certs(const uint8_t *p, size_t len, STACK_OF(X509) * out)
{
	const uint8_t *end = p + len;

	while (p < end) {
		X509 *cert = sk_X509_num(out) < CERTIFICATES_MAX
				     ? d2i_X509(NULL, &p, (long)(end - p))
				     : NULL;

		if (!cert || !sk_X509_push(out, cert)) {
			X509_free(cert);
			return false;
		}
	}
	return true;
}

size_t ticket_write(const STACK_OF(X509) * chain, const uint8_t *token, uint8_t **out)
{
	return write_all(chain, 1, token, out);
}

bool ticket_read(const uint8_t *data, size_t len, const uint8_t **token, STACK_OF(X509) * *rest)
{
	static const uint8_t none[TOKEN_LEN];
	scoped_certs *certs = sk_X509_new_null();

	if (!certs || len < TOKEN_LEN || !read_certs(data + TOKEN_LEN, len - TOKEN_LEN, certs))
		return false;
	*token = memcmp(data, none, TOKEN_LEN) ? data : NULL;
	*rest = TAKE_PTR(certs);
	return true;
}

size_t ticket_proof(const STACK_OF(X509) * chain, const uint8_t token[TOKEN_LEN], uint8_t **out)
{
	return write_all(chain, 0, token, out);
}

bool ticket_proof_read(const uint8_t *proof, size_t len, const uint8_t **token, X509 **leaf,
		       STACK_OF(X509) * *rest)
{
	scoped_certs *certs = sk_X509_new_null();

	if (!certs || len < TOKEN_LEN || !read_certs(proof + TOKEN_LEN, len - TOKEN_LEN, certs) ||
	    !sk_X509_num(certs))
		return false;
	*token = proof;
	*leaf = sk_X509_shift(certs);
	*rest = TAKE_PTR(certs);
	return true;
}
