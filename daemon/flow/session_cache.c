// SPDX-License-Identifier: Apache-2.0
/*
 * A hash table and a list by age under one mutex. Does not know what is in a
 * key, nor what time it is.
 */
#include <pthread.h>
#include <string.h>
#include <sys/queue.h>
#include <openssl/crypto.h>
#include "flow/session_cache.h"

/* All are allocated at the start: the bound is real and putting cannot run out of memory. */
struct node {
	uint8_t key[SESSION_KEY_LEN];
	struct session *session;
	LIST_ENTRY(node) in_bucket; /* the newest first */
	TAILQ_ENTRY(node) by_age;   /* the oldest first; or among the free */
};

TAILQ_HEAD(nodes, node);

struct session_cache {
	pthread_mutex_t lock;
	unsigned used;
	size_t mask; /* buckets - 1; their number is a power of two */
	struct node *nodes;
	LIST_HEAD(bucket, node) * buckets;
	struct nodes by_age, free;
};

void session_free(struct session *s)
{
	if (!s)
		return;
	OPENSSL_clear_free(s->der, (size_t)s->der_len);
	forged_unref(s->forged);
	free(s);
}

struct session_cache *session_cache_new(unsigned entries)
{
	struct session_cache *c = calloc(1, sizeof(*c));
	size_t buckets = 1;

	if (!c)
		return NULL;
	pthread_mutex_init(&c->lock, NULL);
	TAILQ_INIT(&c->by_age);
	TAILQ_INIT(&c->free);
	while (buckets < entries)
		buckets *= 2;
	c->mask = buckets - 1;
	c->buckets = calloc(buckets, sizeof(*c->buckets));
	c->nodes = calloc(entries ? entries : 1, sizeof(*c->nodes));
	if (!c->buckets || !c->nodes) {
		session_cache_free(c);
		return NULL;
	}
	for (unsigned i = 0; i < entries; i++)
		TAILQ_INSERT_TAIL(&c->free, &c->nodes[i], by_age);
	return c;
}

void session_cache_free(struct session_cache *c)
{
	struct node *n;

	if (!c)
		return;
	TAILQ_FOREACH (n, &c->by_age, by_age)
		session_free(n->session);
	pthread_mutex_destroy(&c->lock);
	free(c->buckets);
	free(c->nodes);
	free(c);
}

/* The key is a digest: its bytes are as good a hash as any. */
static struct bucket *bucket_of(struct session_cache *c, const uint8_t *key)
{
	size_t hash;

	memcpy(&hash, key, sizeof(hash));
	return &c->buckets[hash & c->mask];
}

static struct session *remove_node(struct session_cache *c, struct node *n)
{
	LIST_REMOVE(n, in_bucket);
	TAILQ_REMOVE(&c->by_age, n, by_age);
	TAILQ_INSERT_TAIL(&c->free, n, by_age);
	c->used--;
	return TAKE_PTR(n->session);
}

/* The n-th newest of key, from 0; NULL: it has fewer. */
static struct node *nth(struct session_cache *c, const uint8_t *key, unsigned n)
{
	struct node *node;

	LIST_FOREACH (node, bucket_of(c, key), in_bucket) {
		if (!memcmp(node->key, key, SESSION_KEY_LEN) && !n--)
			return node;
	}
	return NULL;
}

struct session *session_cache_take(struct session_cache *c, const uint8_t key[SESSION_KEY_LEN],
				   time_t now)
{
	struct session *s = NULL;
	struct node *n;

	do {
		session_free(s);
		pthread_mutex_lock(&c->lock);
		n = nth(c, key, 0);
		s = n ? remove_node(c, n) : NULL;
		pthread_mutex_unlock(&c->lock);
	} while (s && now >= s->until);
	return s;
}

bool session_cache_put(struct session_cache *c, const uint8_t key[SESSION_KEY_LEN],
		       struct session *s)
{
	struct session *dropped = NULL;
	struct node *n;

	pthread_mutex_lock(&c->lock);
	n = nth(c, key, SESSIONS_OF_KEY - 1);
	if (!n && TAILQ_EMPTY(&c->free))
		n = TAILQ_FIRST(&c->by_age);
	if (n)
		dropped = remove_node(c, n);
	n = TAILQ_FIRST(&c->free);
	if (n) {
		TAILQ_REMOVE(&c->free, n, by_age);
		memcpy(n->key, key, SESSION_KEY_LEN);
		n->session = TAKE_PTR(s);
		LIST_INSERT_HEAD(bucket_of(c, key), n, in_bucket);
		TAILQ_INSERT_TAIL(&c->by_age, n, by_age);
		c->used++;
	}
	pthread_mutex_unlock(&c->lock);
	session_free(s); /* a cache without entries */
	session_free(dropped);
	return dropped;
}

unsigned session_cache_entries(struct session_cache *c)
{
	unsigned n;

	pthread_mutex_lock(&c->lock);
	n = c->used;
	pthread_mutex_unlock(&c->lock);
	return n;
}
