// SPDX-License-Identifier: Apache-2.0
/* The cache of sessions with backends: one use each, bounded, in all and for each key. */
#include <pthread.h>
#include <string.h>
#include <openssl/crypto.h>
#include "flow/session_cache.h"
#include "unit.h"

#define THREADS 4
#define ROUNDS	20000
#define KEYS	24

/* They share a bucket in pairs. */
static void key_of(unsigned n, uint8_t key[SESSION_KEY_LEN])
{
	memset(key, 0, SESSION_KEY_LEN);
	key[0] = (uint8_t)(n / 2);
	key[SESSION_KEY_LEN - 1] = (uint8_t)n;
}

static bool put(struct session_cache *c, unsigned n, time_t until)
{
	struct session *s = calloc(1, sizeof(*s));
	uint8_t key[SESSION_KEY_LEN];

	if (!s)
		abort();
	s->until = until;
	s->der_len = 1;
	s->der = OPENSSL_zalloc(1);
	key_of(n, key);
	return session_cache_put(c, key, s);
}

/* Until when it would have been good, 0: there was none. */
static time_t take(struct session_cache *c, unsigned n, time_t now)
{
	struct session *s;
	uint8_t key[SESSION_KEY_LEN];
	time_t until;

	key_of(n, key);
	s = session_cache_take(c, key, now);
	until = s ? s->until : 0;
	session_free(s);
	return until;
}

static void test_one_use(void)
{
	struct session_cache *c = session_cache_new(8);

	CHECK(!take(c, 1, 0));
	CHECK(!put(c, 1, 100) && !put(c, 1, 101) && !put(c, 2, 102));
	CHECK_INT(session_cache_entries(c), 3);
	CHECK_INT(take(c, 1, 0), 101); /* the newest first */
	CHECK_INT(take(c, 1, 0), 100);
	CHECK(!take(c, 1, 0) && !take(c, 3, 0)); /* 3 shares a bucket with 2 */
	CHECK_INT(take(c, 2, 0), 102);
	CHECK_INT(session_cache_entries(c), 0);
	session_cache_free(c);
}

static void test_expiry(void)
{
	struct session_cache *c = session_cache_new(8);

	put(c, 1, 200);
	put(c, 1, 100);
	CHECK_INT(take(c, 1, 100), 200); /* the newer one is over, and dropped */
	CHECK_INT(session_cache_entries(c), 0);
	put(c, 1, 100);
	CHECK(!take(c, 1, 101));
	put(c, 1, 100);
	CHECK_INT(take(c, 1, 99), 100);
	session_cache_free(c);
}

static void test_bounds(void)
{
	struct session_cache *c = session_cache_new(SESSIONS_OF_KEY + 2);

	for (unsigned i = 0; i < SESSIONS_OF_KEY; i++)
		CHECK(!put(c, 1, 100 + i));
	CHECK(put(c, 1, 200)); /* its own oldest goes */
	CHECK_INT(session_cache_entries(c), SESSIONS_OF_KEY);
	CHECK(!put(c, 2, 300) && !put(c, 3, 301));
	CHECK(put(c, 4, 302)); /* the oldest of all, which is of 1 */
	CHECK_INT(session_cache_entries(c), SESSIONS_OF_KEY + 2);
	CHECK_INT(take(c, 1, 0), 200);
	for (unsigned i = SESSIONS_OF_KEY - 1; i >= 2; i--)
		CHECK_INT(take(c, 1, 0), 100 + i);
	CHECK(!take(c, 1, 0));
	CHECK(take(c, 2, 0) && take(c, 3, 0) && take(c, 4, 0));
	session_cache_free(c);
	c = session_cache_new(0);
	CHECK(!put(c, 1, 100) && !take(c, 1, 0));
	session_cache_free(c);
	session_cache_free(NULL);
	session_free(NULL);
}

struct churn {
	struct session_cache *cache;
	unsigned seed, taken, wrong;
};

static void *churn(void *arg)
{
	struct churn *t = arg;

	for (unsigned i = 0; i < ROUNDS; i++) {
		unsigned n = (unsigned)rand_r(&t->seed) % KEYS;
		time_t until = take(t->cache, n, 0);

		t->taken += until != 0;
		/* Each key's carry its number in the date. */
		t->wrong += until && until != (time_t)(1000 + n);
		put(t->cache, n, 1000 + n);
	}
	return NULL;
}

static void test_threads(void)
{
	struct session_cache *c = session_cache_new(KEYS / 2);
	struct churn t[THREADS];
	pthread_t threads[THREADS];

	for (unsigned i = 0; i < THREADS; i++) {
		t[i] = (struct churn){.cache = c, .seed = i};
		CHECK_INT(pthread_create(&threads[i], NULL, churn, &t[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(threads[i], NULL);
		CHECK(t[i].taken > ROUNDS / 100);
		CHECK_INT(t[i].wrong, 0);
	}
	CHECK(session_cache_entries(c) <= KEYS / 2);
	session_cache_free(c);
}

int main(void)
{
	test_one_use();
	test_expiry();
	test_bounds();
	test_threads();
	return unit_end();
}
