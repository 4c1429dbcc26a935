// SPDX-License-Identifier: Apache-2.0
/*
 * The forged-certificate cache: a hash table and a list in order of use under
 * one mutex. Does not know who issues certificates, nor what time it is.
 */
#include <pthread.h>
#include <string.h>
#include "forging/forge_cache.h"

/* All nodes are allocated at the start: the bound is real and putting cannot run out of memory. */
struct node {
	struct forge_key key;
	struct forged *forged;	     /* NULL: the node is free */
	struct node *next_in_bucket; /* or the next free node */
	struct node *newer, *older;
};

struct forge_cache {
	pthread_mutex_t lock;
	unsigned size, used;
	size_t mask; /* buckets - 1; their number is a power of two */
	struct node *nodes;
	struct node **buckets;
	struct node *free;
	struct node *newest, *oldest;
};

static struct node **find(struct forge_cache *c, const struct forge_key *key);
static struct forged *remove_node(struct forge_cache *c, struct node **link);
static struct node **bucket_of(struct forge_cache *c, const struct forge_key *key);
static void list_add(struct forge_cache *c, struct node *n);
static void list_del(struct forge_cache *c, struct node *n);

struct forge_cache *forge_cache_new(unsigned entries)
{
	struct forge_cache *c = calloc(1, sizeof(*c));
	size_t buckets = 1;

	if (!c)
		return NULL;
	pthread_mutex_init(&c->lock, NULL);
	while (buckets < entries)
		buckets *= 2;
	c->size = entries;
	c->mask = buckets - 1;
	c->buckets = calloc(buckets, sizeof(struct node *));
	c->nodes = calloc(entries ? entries : 1, sizeof(*c->nodes));
	if (!c->buckets || !c->nodes) {
		forge_cache_free(c);
		return NULL;
	}
	for (unsigned i = 0; i < entries; i++) {
		c->nodes[i].next_in_bucket = c->free;
		c->free = &c->nodes[i];
	}
	return c;
}

void forge_cache_free(struct forge_cache *c)
{
	if (!c)
		return;
	for (struct node *n = c->newest; n; n = n->older)
		forged_unref(n->forged);
	pthread_mutex_destroy(&c->lock);
	free(c->nodes);
	free(c->buckets);
	free(c);
}

struct forged *forge_cache_get(struct forge_cache *c, const struct forge_key *key, time_t now)
{
	struct forged *found = NULL, *dropped = NULL;
	struct node **link;

	pthread_mutex_lock(&c->lock);
	link = find(c, key);
	/* A certificate is expired in its last second: so OpenSSL, the likely judge, counts. */
	if (*link && now >= (*link)->forged->until) {
		dropped = remove_node(c, link);
	} else if (*link) {
		list_del(c, *link);
		list_add(c, *link);
		found = forged_ref((*link)->forged);
	}
	pthread_mutex_unlock(&c->lock);
	forged_unref(dropped);
	return found;
}

struct forged *forged_new(X509 *cert, EVP_PKEY *key, time_t until)
{
	struct forged *f = malloc(sizeof(*f));

	if (!f) {
		X509_free(cert);
		EVP_PKEY_free(key);
		return NULL;
	}
	*f = (struct forged){.refs = 1, .cert = cert, .key = key, .until = until};
	return f;
}

bool forge_cache_put(struct forge_cache *c, const struct forge_key *key, struct forged *f)
{
	struct forged *dropped = NULL;
	bool evicted = false;
	struct node **link, *n;

	if (!c->size)
		return false;
	forged_ref(f);
	pthread_mutex_lock(&c->lock);
	link = find(c, key);
	if (*link) {
		dropped = remove_node(c, link);
	} else if (!c->free) {
		dropped = remove_node(c, find(c, &c->oldest->key));
		evicted = true;
	}
	n = c->free;
	c->free = n->next_in_bucket;
	n->key = *key;
	n->forged = f;
	link = bucket_of(c, key);
	n->next_in_bucket = *link;
	*link = n;
	list_add(c, n);
	c->used++;
	pthread_mutex_unlock(&c->lock);
	forged_unref(dropped);
	return evicted;
}

struct forged *forged_ref(struct forged *f)
{
	f->refs++;
	return f;
}

void forged_unref(struct forged *f)
{
	if (!f || --f->refs)
		return;
	X509_free(f->cert);
	EVP_PKEY_free(f->key);
	free(f);
}

unsigned forge_cache_entries(struct forge_cache *c)
{
	unsigned n;

	pthread_mutex_lock(&c->lock);
	n = c->used;
	pthread_mutex_unlock(&c->lock);
	return n;
}

/* The link that points at the key's node, or at the end of its bucket (NULL). */
static struct node **find(struct forge_cache *c, const struct forge_key *key)
{
	struct node **link = bucket_of(c, key);

	while (*link && memcmp(&(*link)->key, key, sizeof(*key)) != 0)
		link = &(*link)->next_in_bucket;
	return link;
}

/* Returns the cache's reference: to be dropped outside the lock. */
static struct forged *remove_node(struct forge_cache *c, struct node **link)
{
	struct node *n = *link;

	/* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): callers have found the node. */
	*link = n->next_in_bucket;
	list_del(c, n);
	n->next_in_bucket = c->free;
	c->free = n;
	c->used--;
	return TAKE_PTR(n->forged);
}

/* The fingerprint is a SHA-256 already, and of a certificate that a trusted CA has signed. */
static struct node **bucket_of(struct forge_cache *c, const struct forge_key *key)
{
	size_t hash;

	memcpy(&hash, key->fingerprint, sizeof(hash));
	return &c->buckets[hash & c->mask];
}

static void list_add(struct forge_cache *c, struct node *n)
{
	n->newer = NULL;
	n->older = c->newest;
	if (c->newest)
		c->newest->newer = n;
	else
		c->oldest = n;
	c->newest = n;
}

static void list_del(struct forge_cache *c, struct node *n)
{
	if (n->newer)
		n->newer->older = n->older;
	else
		c->newest = n->older;
	if (n->older)
		n->older->newer = n->newer;
	else
		c->oldest = n->newer;
}
