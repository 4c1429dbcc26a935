// SPDX-License-Identifier: Apache-2.0
/* A table of randoms; see hellos.h. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "flow/hellos.h"

/* A power of two. Only randoms of our own making are in it: nobody can choose those of one bucket.
 */
#define BUCKETS 1024

struct bucket {
	pthread_mutex_t lock;
	LIST_HEAD(, hello) list;
};

struct hellos {
	struct bucket buckets[BUCKETS];
};

struct hellos *hellos_new(void)
{
	struct hellos *t = calloc(1, sizeof(*t));

	for (unsigned i = 0; t && i < BUCKETS; i++) {
		pthread_mutex_init(&t->buckets[i].lock, NULL);
		LIST_INIT(&t->buckets[i].list);
	}
	return t;
}

void hellos_free(struct hellos *t)
{
	free(t);
}

static struct bucket *bucket_of(struct hellos *t, const uint8_t *random)
{
	return &t->buckets[(random[0] << 8 | random[1]) % BUCKETS];
}

void hellos_add(struct hellos *t, struct hello *h, const uint8_t random[HELLO_RANDOM],
		const struct cfg_service *service)
{
	struct bucket *b = bucket_of(t, random);

	memcpy(h->random, random, HELLO_RANDOM);
	h->service = service;
	pthread_mutex_lock(&b->lock);
	LIST_INSERT_HEAD(&b->list, h, link);
	pthread_mutex_unlock(&b->lock);
}

void hellos_remove(struct hellos *t, struct hello *h)
{
	struct bucket *b = bucket_of(t, h->random);

	if (!h->service)
		return;
	pthread_mutex_lock(&b->lock);
	LIST_REMOVE(h, link);
	pthread_mutex_unlock(&b->lock);
	h->service = NULL;
}

const struct cfg_service *hellos_find(struct hellos *t, const uint8_t random[HELLO_RANDOM])
{
	struct bucket *b = bucket_of(t, random);
	const struct cfg_service *service = NULL;
	const struct hello *h;

	pthread_mutex_lock(&b->lock);
	LIST_FOREACH (h, &b->list, link) {
		if (!memcmp(h->random, random, HELLO_RANDOM))
			service = h->service;
	}
	pthread_mutex_unlock(&b->lock);
	return service;
}
