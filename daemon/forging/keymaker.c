// SPDX-License-Identifier: Apache-2.0
/* The pool of keys and the thread that fills it. Knows no certificate and no worker. */
#include "forging/keymaker.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <openssl/err.h>
#include <openssl/rsa.h>
#include "base/thread.h"

#define RSA_BITS    2048
#define WAITING_MAX 256 /* as many as there can be workers */

struct keymaker {
	pthread_t thread;
	bool started;
	atomic_bool stop;
	pthread_mutex_t lock; /* of all below */
	pthread_cond_t wanted;
	unsigned depth, ready;
	bool filling; /* false: nobody has wanted one yet */
	EVP_PKEY **keys;
	int waiting[WAITING_MAX];
	unsigned n_waiting;
};

struct keymaker *keymaker_new(unsigned depth, bool eager)
{
	struct keymaker *k = calloc(1, sizeof(*k));

	if (!k)
		return NULL;
	k->depth = depth ? depth : 1;
	k->filling = eager;
	k->keys = calloc(k->depth, sizeof(EVP_PKEY *));
	if (!k->keys) {
		free(k);
		return NULL;
	}
	pthread_mutex_init(&k->lock, NULL);
	pthread_cond_init(&k->wanted, NULL);
	return k;
}

static int keep_on(EVP_PKEY_CTX *ctx)
{
	struct keymaker *k = EVP_PKEY_CTX_get_app_data(ctx);

	return !atomic_load_explicit(&k->stop, memory_order_relaxed);
}

static EVP_PKEY *make_rsa(struct keymaker *k)
{
	scoped_pkey_ctx *ctx = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
	EVP_PKEY *key = NULL;

	if (!ctx || EVP_PKEY_keygen_init(ctx) != 1 ||
	    EVP_PKEY_CTX_set_rsa_keygen_bits(ctx, RSA_BITS) != 1)
		return NULL;
	EVP_PKEY_CTX_set_app_data(ctx, k);
	EVP_PKEY_CTX_set_cb(ctx, keep_on);
	if (EVP_PKEY_generate(ctx, &key) != 1)
		key = NULL;
	ERR_clear_error();
	return key;
}

/* False: the end has come. */
static bool wait_until_wanted(struct keymaker *k)
{
	bool stop;

	pthread_mutex_lock(&k->lock);
	while (!k->stop && (!k->filling || k->ready == k->depth))
		pthread_cond_wait(&k->wanted, &k->lock);
	stop = k->stop;
	pthread_mutex_unlock(&k->lock);
	return !stop;
}

static void add(struct keymaker *k, EVP_PKEY *key)
{
	int waiting[WAITING_MAX];
	uint64_t one = 1;
	unsigned n;

	pthread_mutex_lock(&k->lock);
	k->keys[k->ready++] = key;
	n = k->n_waiting;
	memcpy(waiting, k->waiting, n * sizeof(*waiting));
	k->n_waiting = 0;
	pthread_mutex_unlock(&k->lock);
	for (unsigned i = 0; i < n; i++)
		(void)!write(waiting[i], &one, sizeof(one));
}

static void make_keys(void *arg)
{
	struct keymaker *k = arg;

	while (wait_until_wanted(k)) {
		EVP_PKEY *key = make_rsa(k);

		if (key)
			add(k, key);
	}
}

int keymaker_start(struct keymaker *k)
{
	int ret = thread_start(&k->thread, "the keymaker", make_keys, k);

	k->started = !ret;
	return ret;
}

void keymaker_free(struct keymaker *k)
{
	if (!k)
		return;
	if (k->started) {
		pthread_mutex_lock(&k->lock);
		k->stop = true;
		pthread_cond_signal(&k->wanted);
		pthread_mutex_unlock(&k->lock);
		pthread_join(k->thread, NULL);
	}
	for (unsigned i = 0; i < k->ready; i++)
		EVP_PKEY_free(k->keys[i]);
	pthread_mutex_destroy(&k->lock);
	pthread_cond_destroy(&k->wanted);
	free(k->keys);
	free(k);
}

static void wait_here(struct keymaker *k, int wake_fd)
{
	for (unsigned i = 0; i < k->n_waiting; i++) {
		if (k->waiting[i] == wake_fd)
			return;
	}
	if (k->n_waiting < WAITING_MAX)
		k->waiting[k->n_waiting++] = wake_fd;
}

EVP_PKEY *keymaker_take(struct keymaker *k, int wake_fd)
{
	EVP_PKEY *key = NULL;

	pthread_mutex_lock(&k->lock);
	if (k->ready)
		key = k->keys[--k->ready];
	else
		wait_here(k, wake_fd);
	k->filling = true;
	pthread_cond_signal(&k->wanted);
	pthread_mutex_unlock(&k->lock);
	return key;
}

unsigned keymaker_ready(struct keymaker *k)
{
	unsigned n;

	pthread_mutex_lock(&k->lock);
	n = k->ready;
	pthread_mutex_unlock(&k->lock);
	return n;
}
