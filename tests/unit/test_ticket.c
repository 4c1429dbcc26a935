// SPDX-License-Identifier: Apache-2.0
/* ticket.c: keys that are replaced, and contents that are not trusted to be well-formed. */
#include "unit.h"
#include "unit_tls.h"
#include <time.h>
#include "tls/ticket.h"

struct sealed {
	unsigned char name[16], iv[EVP_MAX_IV_LENGTH];
};

/* What the callback says of a ticket that it is asked to open or to seal. */
static int call(struct ticket_keys *k, struct sealed *s, int encrypt)
{
	EVP_CIPHER_CTX *cipher = EVP_CIPHER_CTX_new();
	EVP_MAC *hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
	EVP_MAC_CTX *mac = EVP_MAC_CTX_new(hmac);
	int ret;

	MUST(cipher && mac);
	ret = ticket_key_cb(k, s->name, s->iv, cipher, mac, encrypt);
	EVP_MAC_CTX_free(mac);
	EVP_MAC_free(hmac);
	EVP_CIPHER_CTX_free(cipher);
	return ret;
}

static void pass(long milliseconds)
{
	nanosleep(&(struct timespec){milliseconds / 1000, milliseconds % 1000 * 1000000}, NULL);
}

/* Keys count whole seconds: from the beginning of one, 1.1 s are one of them. */
static void begin_second(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	pass((1000000000 - now.tv_nsec) / 1000000 + 1);
}

static void test_rotation(void)
{
	struct ticket_keys *k, *other;
	struct sealed first, second, nobody = {{0}, {0}};

	begin_second();
	k = ticket_keys_new(1);
	other = ticket_keys_new(1);

	MUST(k && other);
	CHECK_INT(call(k, &first, 1), 1);
	CHECK_INT(call(k, &first, 0), 1);
	CHECK_INT(call(other, &first, 0), 0);
	CHECK_INT(call(k, &nobody, 0), 0);
	pass(1100);
	CHECK_INT(call(k, &second, 1), 1);
	CHECK(memcmp(first.name, second.name, sizeof(first.name)));
	CHECK_INT(call(k, &first, 0), 1);
	CHECK_INT(call(k, &second, 0), 1);
	pass(1100);
	CHECK_INT(call(k, &first, 0), 0);
	CHECK_INT(call(k, &second, 0), 1);
	pass(2100); /* nobody came for two periods */
	CHECK_INT(call(k, &second, 0), 0);
	ticket_keys_free(k);
	ticket_keys_free(other);
	ticket_keys_free(NULL);
}

static void test_contents(void)
{
	struct party root = unit_party("P-256", "root", NULL, -60, 3600);
	struct party ca = unit_party("P-256", "ca", &root, -60, 3600);
	struct party leaf = unit_party("P-256", "leaf", &ca, -60, 3600);
	STACK_OF(X509) *chain = sk_X509_new_null(), *rest;
	uint8_t token[TOKEN_LEN] = {1}, *data;
	const uint8_t *found;
	X509 *first;
	size_t len;

	MUST(chain && sk_X509_push(chain, leaf.cert) && sk_X509_push(chain, ca.cert) &&
	     sk_X509_push(chain, root.cert));
	len = ticket_write(chain, token, &data);
	CHECK(ticket_read(data, len, &found, &rest));
	CHECK(found && !memcmp(found, token, TOKEN_LEN));
	CHECK_INT(sk_X509_num(rest), 1);
	CHECK(!X509_cmp(sk_X509_value(rest, 0), ca.cert));
	sk_X509_pop_free(rest, X509_free);
	for (size_t cut = 1; cut < len; cut++) {
		bool ok = ticket_read(data, len - cut, &found, &rest);

		CHECK_INT(ok, len - cut == TOKEN_LEN); /* no certificates behind the token: fine */
		if (ok)
			sk_X509_pop_free(rest, X509_free);
	}
	free(data);
	len = ticket_write(chain, NULL, &data);
	CHECK(ticket_read(data, len, &found, &rest) && !found);
	sk_X509_pop_free(rest, X509_free);
	free(data);
	len = ticket_write(NULL, NULL, &data); /* a client without certificate */
	CHECK_INT(len, TOKEN_LEN);
	CHECK(ticket_read(data, len, &found, &rest) && !found && !sk_X509_num(rest));
	sk_X509_pop_free(rest, X509_free);
	free(data);

	len = ticket_proof(chain, token, &data);
	CHECK(ticket_proof_read(data, len, &found, &first, &rest));
	CHECK(!X509_cmp(first, leaf.cert) && sk_X509_num(rest) == 1);
	X509_free(first);
	sk_X509_pop_free(rest, X509_free);
	CHECK(!ticket_proof_read(data, TOKEN_LEN, &found, &first, &rest));
	CHECK(!ticket_proof_read(data, len - 1, &found, &first, &rest));
	free(data);
	for (int i = 0; i < 100; i++)
		MUST(sk_X509_insert(chain, ca.cert, 1));
	CHECK_INT(ticket_write(chain, token, &data), 0);
	sk_X509_free(chain);
	unit_party_free(&leaf);
	unit_party_free(&ca);
	unit_party_free(&root);
}

int main(void)
{
	test_rotation();
	test_contents();
	return unit_end();
}
