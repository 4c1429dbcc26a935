// SPDX-License-Identifier: Apache-2.0
/*
 * A set of digests in a ring, found through a chained hash table. All memory
 * is taken at the start. Does not know what the digests are of.
 */
#include <string.h>
#include <sys/mman.h>
#include "replay.h"

/* Slots are numbered from 1, so that 0 ends a chain. */
struct replay {
	uint8_t digest[REPLAY_ENTRIES + 1][REPLAY_DIGEST_LEN];
	uint32_t next[REPLAY_ENTRIES + 1];
	uint32_t first[REPLAY_ENTRIES]; /* by hash */
	uint32_t oldest; /* the slot to be used next; once full, the oldest digest's */
	bool full;
};

static uint32_t hash(const uint8_t *digest);
static void forget(struct replay *r, uint32_t slot);

struct replay *replay_new(void)
{
	struct replay *r =
		mmap(NULL, sizeof(*r), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (r == MAP_FAILED)
		return NULL;
	r->oldest = 1;
	return r;
}

void replay_free(struct replay *r)
{
	if (r)
		munmap(r, sizeof(*r));
}

bool replay_seen(const struct replay *r, const uint8_t digest[REPLAY_DIGEST_LEN])
{
	for (uint32_t slot = r->first[hash(digest)]; slot; slot = r->next[slot])
		if (memcmp(r->digest[slot], digest, REPLAY_DIGEST_LEN) == 0)
			return true;
	return false;
}

void replay_add(struct replay *r, const uint8_t digest[REPLAY_DIGEST_LEN])
{
	uint32_t slot = r->oldest, *first = &r->first[hash(digest)];

	if (r->full)
		forget(r, slot);
	memcpy(r->digest[slot], digest, REPLAY_DIGEST_LEN);
	r->next[slot] = *first;
	*first = slot;
	if (slot == REPLAY_ENTRIES)
		r->full = true;
	r->oldest = slot % REPLAY_ENTRIES + 1;
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

	/* Not there: who was to write it died in between. */
	while (*link && *link != slot)
		link = &r->next[*link];
	if (*link)
		*link = r->next[slot];
}
