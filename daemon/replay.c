// SPDX-License-Identifier: Apache-2.0
/*
 * A set of digests in a ring, found through a chained hash table. All memory
 * is taken at the start. Does not know what the digests are of.
 */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/random.h>
#include "replay.h"
#include "shared_memory.h"

/* Slots are numbered from 1, so that 0 ends a chain. */
struct replay {
	pthread_mutex_t lock;
	uint8_t secret[REPLAY_SECRET_LEN];
	uint8_t digest[REPLAY_ENTRIES + 1][REPLAY_DIGEST_LEN];
	uint32_t next[REPLAY_ENTRIES + 1];
	uint32_t first[REPLAY_ENTRIES]; /* by hash */
	uint32_t oldest; /* the slot to be used next: never used, or the oldest digest's */
};

static uint32_t hash(const uint8_t *digest);
static void forget(struct replay *r, uint32_t slot);

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

/* What the dead one left half done is a chain without one slot: see forget(). */
static void lock(struct replay *r)
{
	if (pthread_mutex_lock(&r->lock) == EOWNERDEAD)
		pthread_mutex_consistent(&r->lock);
}

int replay_make(void)
{
	scoped_fd fd = shared_memory_new("ktlsgate-replay", sizeof(struct replay));
	struct replay *r = fd >= 0 ? replay_map(fd) : NULL;
	bool ok;

	if (!r)
		return fd < 0 ? fd : -errno;
	ok = getrandom(r->secret, sizeof(r->secret), 0) == sizeof(r->secret);
	r->oldest = 1;
	init_lock(&r->lock);
	replay_free(r);
	return ok ? TAKE_FD(fd) : -EIO;
}

struct replay *replay_map(int fd)
{
	return shared_memory_map_writable(fd, sizeof(struct replay));
}

struct replay *replay_new(void)
{
	scoped_fd fd = replay_make();

	return fd < 0 ? NULL : replay_map(fd);
}

void replay_free(struct replay *r)
{
	shared_memory_unmap(r, sizeof(*r));
}

const uint8_t *replay_secret(const struct replay *r)
{
	return r->secret;
}

static bool seen(const struct replay *r, const uint8_t *digest)
{
	for (uint32_t slot = r->first[hash(digest)]; slot; slot = r->next[slot])
		if (memcmp(r->digest[slot], digest, REPLAY_DIGEST_LEN) == 0)
			return true;
	return false;
}

bool replay_seen(struct replay *r, const uint8_t digest[REPLAY_DIGEST_LEN])
{
	bool found;

	lock(r);
	found = seen(r, digest);
	pthread_mutex_unlock(&r->lock);
	return found;
}

static void add(struct replay *r, const uint8_t *digest)
{
	uint32_t slot = r->oldest, *first = &r->first[hash(digest)];

	forget(r, slot);
	memcpy(r->digest[slot], digest, REPLAY_DIGEST_LEN);
	r->next[slot] = *first;
	*first = slot;
	r->oldest = slot % REPLAY_ENTRIES + 1;
}

bool replay_add(struct replay *r, const uint8_t digest[REPLAY_DIGEST_LEN])
{
	bool is_new;

	lock(r);
	is_new = !seen(r, digest);
	if (is_new)
		add(r, digest);
	pthread_mutex_unlock(&r->lock);
	return is_new;
}

/* A digest is uniform as it is. */
static uint32_t hash(const uint8_t *digest)
{
	uint32_t h;

	memcpy(&h, digest, sizeof(h));
	return h % REPLAY_ENTRIES;
}

static void forget(struct replay *r, uint32_t slot)
{
	uint32_t *link = &r->first[hash(r->digest[slot])];

	/* Not there: never used, or who was to write it died in between. */
	while (*link && *link != slot)
		link = &r->next[*link];
	if (*link)
		*link = r->next[slot];
}
