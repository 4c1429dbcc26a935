// SPDX-License-Identifier: Apache-2.0
/* The cache of forged certificates: who goes first, who may still be used, who frees. */
#include <pthread.h>
#include "forging/forge_cache.h"
#include "unit.h"
#include "unit_tls.h"

#define THREADS 4
#define ROUNDS	20000
#define KEYS	24

static struct party party;

static struct forge_key key_of(unsigned n)
{
	struct forge_key k = {.fingerprint = {(uint8_t)n}, .issuer = {1}, .chain = {2}};

	return k;
}

static struct forged *new_forged(time_t not_after)
{
	struct forged *f;

	X509_up_ref(party.cert);
	EVP_PKEY_up_ref(party.key);
	f = forged_new(party.cert, party.key, not_after);
	MUST(f);
	return f;
}

static bool put(struct forge_cache *c, unsigned n, time_t not_after)
{
	struct forge_key k = key_of(n);
	struct forged *f = new_forged(not_after);
	bool evicted = forge_cache_put(c, &k, f);

	forged_unref(f);
	return evicted;
}

static bool has(struct forge_cache *c, unsigned n, time_t now)
{
	struct forge_key k = key_of(n);
	struct forged *f = forge_cache_get(c, &k, now);

	forged_unref(f);
	return f;
}

static void test_order(void)
{
	struct forge_cache *c = forge_cache_new(3);

	CHECK_INT(forge_cache_entries(c), 0);
	CHECK(!has(c, 1, 0));
	CHECK(!put(c, 1, 100) && !put(c, 2, 100) && !put(c, 3, 100));
	CHECK(has(c, 1, 0)); /* now 2 is the one not used for longest */
	CHECK(put(c, 4, 100));
	CHECK(!has(c, 2, 0));
	CHECK(has(c, 3, 0) && has(c, 1, 0) && has(c, 4, 0));
	CHECK(put(c, 5, 100));
	CHECK(!has(c, 3, 0));
	/* Putting again is a use, and evicts nobody. */
	CHECK(!put(c, 1, 200));
	CHECK_INT(forge_cache_entries(c), 3);
	CHECK(has(c, 1, 150)); /* the new one */
	CHECK(put(c, 6, 100) && put(c, 7, 100));
	CHECK(has(c, 1, 0) && has(c, 6, 0) && has(c, 7, 0));
	CHECK(!has(c, 4, 0) && !has(c, 5, 0));
	CHECK_INT(forge_cache_entries(c), 3);
	forge_cache_free(c);
}

static void test_key_parts(void)
{
	struct forge_cache *c = forge_cache_new(8);
	struct forge_key k = key_of(1), other;

	put(c, 1, 100);
	other = k;
	other.issuer[31] ^= 1;
	CHECK(!forge_cache_get(c, &other, 0));
	other = k;
	other.chain[31] ^= 1;
	CHECK(!forge_cache_get(c, &other, 0));
	other = k;
	other.fingerprint[31] ^= 1; /* same bucket */
	CHECK(!forge_cache_get(c, &other, 0));
	CHECK(has(c, 1, 0));
	forge_cache_free(c);
}

static void test_expiry(void)
{
	struct forge_cache *c = forge_cache_new(4);

	put(c, 1, 100);
	CHECK(has(c, 1, 99));
	CHECK(!has(c, 1, 100));
	CHECK_INT(forge_cache_entries(c), 0);
	CHECK(!has(c, 1, 0)); /* really dropped */
	put(c, 1, 100);
	CHECK(has(c, 1, 0));
	forge_cache_free(c);
}

static void test_references(void)
{
	struct forge_cache *c = forge_cache_new(1);
	struct forge_key k = key_of(1);
	struct forged *f = new_forged(100), *again;

	CHECK_INT(f->refs, 1);
	forge_cache_put(c, &k, f);
	CHECK_INT(f->refs, 2);
	again = forge_cache_get(c, &k, 0);
	CHECK(again == f);
	CHECK_INT(f->refs, 3);
	CHECK(put(c, 2, 100)); /* evicts it */
	CHECK_INT(f->refs, 2);
	forge_cache_free(c);
	CHECK_INT(f->refs, 2);
	forged_unref(again);
	CHECK(f->cert == party.cert && f->key == party.key);
	forged_unref(f);
	forged_unref(NULL);
	forge_cache_free(NULL);
}

static void test_no_entries(void)
{
	struct forge_cache *c = forge_cache_new(0);

	CHECK(!put(c, 1, 100));
	CHECK(!has(c, 1, 0));
	CHECK_INT(forge_cache_entries(c), 0);
	forge_cache_free(c);
}

struct churn {
	struct forge_cache *cache;
	unsigned seed, hits, wrong;
};

static void *churn(void *arg)
{
	struct churn *t = arg;

	for (unsigned i = 0; i < ROUNDS; i++) {
		unsigned n = (unsigned)rand_r(&t->seed) % KEYS;
		struct forge_key k = key_of(n);
		struct forged *f = forge_cache_get(t->cache, &k, rand_r(&t->seed) % 2000);

		t->hits += f != NULL;
		/* Each key's entries carry its number in the date. */
		t->wrong += f && f->until != (time_t)(1000 + n);
		if (!f) {
			f = new_forged(1000 + n);
			forge_cache_put(t->cache, &k, f);
		}
		forged_unref(f);
	}
	return NULL;
}

static void test_threads(void)
{
	struct forge_cache *c = forge_cache_new(KEYS / 2);
	struct churn t[THREADS];
	pthread_t threads[THREADS];

	for (unsigned i = 0; i < THREADS; i++) {
		t[i] = (struct churn){.cache = c, .seed = i};
		MUST(pthread_create(&threads[i], NULL, churn, &t[i]) == 0);
	}
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(threads[i], NULL);
		CHECK(t[i].hits > ROUNDS / 100);
		CHECK_INT(t[i].wrong, 0);
	}
	CHECK(forge_cache_entries(c) <= KEYS / 2);
	forge_cache_free(c);
}

int main(void)
{
	party = unit_party("P-256", "forged", NULL, -60, 3600);
	test_order();
	test_key_parts();
	test_expiry();
	test_references();
	test_no_entries();
	test_threads();
	unit_party_free(&party);
	return unit_end();
}
