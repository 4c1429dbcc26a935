// SPDX-License-Identifier: Apache-2.0
/*
 * A set of digests in a ring, found through a chained hash table. Does not know what the digests
 * and the secrets are for.
 */
#include "signer/replay.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <openssl/crypto.h>
#include "base/shared_memory.h"

struct entry {
	uint8_t digest[REPLAY_DIGEST_LEN];
	uint32_t next;
	uint32_t epoch; /* since the machine was started */
};

struct token_keys {
	uint8_t keys[2][REPLAY_SECRET_LEN]; /* now, before */
	uint64_t made;			    /* ms */
	uint64_t period;		    /* ms; the longest ever asked for */
};

/* Entries are numbered from 1, so that 0 ends a chain. */
struct replay {
	pthread_mutex_t lock;
	uint64_t first_epoch; /* what the machine's start counts as */
	uint8_t secret[REPLAY_SECRET_LEN];
	struct token_keys tokens;
	uint32_t window; /* epochs */
	uint32_t oldest, n;
	uint32_t first[REPLAY_ENTRIES]; /* by hash */
	struct entry entries[REPLAY_ENTRIES + 1];
};

/* ---- the memory ---- */

/* Between processes, and not for ever when one dies with it. */
static void init_lock(pthread_mutex_t *lock)
{
	pthread_mutexattr_t attr;

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(lock, &attr);
	pthread_mutexattr_destroy(&attr);
}

/* What the dead one left half done is a chain without one entry: see forget(). */
static void lock(struct replay *r)
{
	if (pthread_mutex_lock(&r->lock) == EOWNERDEAD)
		pthread_mutex_consistent(&r->lock);
}

static void unlock(struct replay *r)
{
	pthread_mutex_unlock(&r->lock);
}

static bool fill_random(void *out, size_t len)
{
	return getrandom(out, len, 0) == (ssize_t)len;
}

static bool init(struct replay *r)
{
	uint32_t start;

	if (!fill_random(r->secret, sizeof(r->secret)) || !fill_random(&start, sizeof(start)))
		return false;
	/* Clients see the number of an epoch, and must not learn how long we have been up. */
	r->first_epoch = start;
	r->oldest = 1;
	init_lock(&r->lock);
	return true;
}

int replay_make(void)
{
	scoped_fd fd = shared_memory_new("ktlsgate-replay", sizeof(struct replay));
	struct replay *r;
	bool done;

	if (fd < 0)
		return fd;
	r = replay_map(fd);
	if (!r)
		return -errno;
	done = init(r);
	replay_free(r);
	return done ? TAKE_FD(fd) : -EIO;
}

struct replay *replay_map(int fd)
{
	return shared_memory_map_writable(fd, sizeof(struct replay));
}

void replay_free(struct replay *r)
{
	shared_memory_unmap(r, sizeof(*r));
}

/* ---- secrets ---- */

const uint8_t *replay_secret(const struct replay *r)
{
	return r->secret;
}

static uint64_t clock_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* False: no randomness; then the keys are as they were. */
static bool rotate(struct token_keys *t, uint64_t now)
{
	uint8_t fresh[2][REPLAY_SECRET_LEN];

	if (t->made && now - t->made < t->period)
		return true;
	if (!fill_random(fresh, sizeof(fresh)))
		return false;
	/* Nobody came for so long that the last key is too old as well. */
	if (!t->made || now - t->made >= 2 * t->period)
		memcpy(t->keys[0], fresh[1], REPLAY_SECRET_LEN);
	memcpy(t->keys[1], t->keys[0], REPLAY_SECRET_LEN);
	memcpy(t->keys[0], fresh[0], REPLAY_SECRET_LEN);
	t->made = now;
	OPENSSL_cleanse(fresh, sizeof(fresh));
	return true;
}

bool replay_token_keys(struct replay *r, unsigned period, uint8_t keys[2][REPLAY_SECRET_LEN])
{
	struct token_keys *t = &r->tokens;
	bool there;

	lock(r);
	if (t->period < period * 1000ull)
		t->period = period * 1000ull;
	there = rotate(t, clock_ms());
	memcpy(keys, t->keys, sizeof(t->keys));
	unlock(r);
	return there;
}

/* ---- the set ---- */

static uint32_t epoch_now(void)
{
	return (uint32_t)(clock_ms() / REPLAY_EPOCH_MS);
}

uint64_t replay_epoch(const struct replay *r)
{
	return r->first_epoch + epoch_now();
}

void replay_window(struct replay *r, unsigned epochs)
{
	lock(r);
	if (r->window < epochs)
		r->window = epochs;
	unlock(r);
}

/* A digest is uniform as it is. */
static uint32_t hash(const uint8_t *digest)
{
	uint32_t h;

	memcpy(&h, digest, sizeof(h));
	return h % REPLAY_ENTRIES;
}

static bool seen(const struct replay *r, const uint8_t *digest)
{
	for (uint32_t i = r->first[hash(digest)]; i; i = r->entries[i].next)
		if (memcmp(r->entries[i].digest, digest, REPLAY_DIGEST_LEN) == 0)
			return true;
	return false;
}

static void forget(struct replay *r, uint32_t i)
{
	uint32_t *link = &r->first[hash(r->entries[i].digest)];

	/* Not there: never used, or who was to write it died in between. */
	while (*link && *link != i)
		link = &r->entries[*link].next;
	if (*link)
		*link = r->entries[i].next;
}

static uint32_t behind(uint32_t i, uint32_t n)
{
	return (uint32_t)((i - 1 + (uint64_t)n) % REPLAY_ENTRIES) + 1;
}

/*
 * Entries leave in the order of their coming, each when it is old enough: one with an older epoch
 * than those in front of it waits for them, for another window at most. A few at a time, since
 * each call adds one at most, and a signer has others to serve.
 */
static void forget_old(struct replay *r)
{
	uint32_t now = epoch_now();

	for (int few = 64; few-- && r->n && r->entries[r->oldest].epoch < now &&
			   now - r->entries[r->oldest].epoch > r->window;) {
		forget(r, r->oldest);
		r->oldest = behind(r->oldest, 1);
		r->n--;
	}
}

static enum replay_verdict look(struct replay *r, const uint8_t *digest)
{
	if (seen(r, digest))
		return REPLAY_SEEN;
	forget_old(r);
	return r->n < REPLAY_ENTRIES ? REPLAY_NEW : REPLAY_FULL;
}

enum replay_verdict replay_look(struct replay *r, const uint8_t digest[REPLAY_DIGEST_LEN])
{
	enum replay_verdict verdict;

	lock(r);
	verdict = look(r, digest);
	unlock(r);
	return verdict;
}

/* In this order, so that whoever dies in between leaves a chain that can be followed. */
static void add(struct replay *r, const uint8_t *digest, uint32_t epoch)
{
	uint32_t i = behind(r->oldest, r->n), *first = &r->first[hash(digest)];

	forget(r, i);
	memcpy(r->entries[i].digest, digest, REPLAY_DIGEST_LEN);
	r->entries[i].epoch = epoch;
	r->entries[i].next = *first;
	__atomic_store_n(first, i, __ATOMIC_RELEASE);
	__atomic_store_n(&r->n, r->n + 1, __ATOMIC_RELEASE);
}

enum replay_verdict replay_add(struct replay *r, const uint8_t digest[REPLAY_DIGEST_LEN],
			       uint64_t epoch)
{
	enum replay_verdict verdict;

	lock(r);
	verdict = look(r, digest);
	if (verdict == REPLAY_NEW)
		add(r, digest, (uint32_t)(epoch - r->first_epoch));
	unlock(r);
	return verdict;
}
