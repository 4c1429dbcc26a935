// SPDX-License-Identifier: Apache-2.0
/* Counts connections against the limits; see limit.h. */
#include "flow/limit.h"

#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include "base/log.h"
#include "base/timer.h"

#define BUCKETS	       4096
#define LOCKS	       64
#define MEMORY_LOOK_MS 100
#define SHOWN_SHARE    50 /* so many times as long as the last look took is the next one away */

/* Addresses that share the configured prefix; there while it has connections. */
struct source {
	struct in6_addr prefix; /* IPv4: mapped */
	unsigned flows, handshakes, bucket;
	struct source *next;
};

struct limits {
	const struct config *cfg;
	struct limits_flows flows;
	_Atomic unsigned *vservers; /* connections, by index */
	_Atomic unsigned handshakes;
	_Atomic uint64_t memory_looked; /* ms: when that was last asked for */
	atomic_bool memory_full;
	uint64_t shown, shown_until; /* limits_memory_shown(): bytes; ns */
	uint64_t seed;		     /* so that nobody can choose addresses of one bucket */
	struct source *buckets[BUCKETS];
	pthread_mutex_t locks[LOCKS];
};

struct limits *limits_new(const struct config *cfg, const struct limits_flows *flows)
{
	struct limits *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	l->cfg = cfg;
	l->flows = *flows;
	l->vservers = calloc(cfg->n_vservers, sizeof(*l->vservers));
	for (unsigned i = 0; i < LOCKS; i++)
		pthread_mutex_init(&l->locks[i], NULL);
	if (l->vservers && getrandom(&l->seed, sizeof(l->seed), 0) == sizeof(l->seed))
		return l;
	limits_free(l);
	return NULL;
}

void limits_free(struct limits *l)
{
	if (!l)
		return;
	for (unsigned i = 0; i < BUCKETS; i++) {
		while (l->buckets[i]) {
			struct source *next = l->buckets[i]->next;

			free(l->buckets[i]);
			l->buckets[i] = next;
		}
	}
	free(l->vservers);
	free(l);
}

/* ---- sources ---- */

static struct in6_addr prefix_of(const struct config *cfg, const struct sockaddr *peer)
{
	struct in6_addr prefix = {0};

	if (peer->sa_family == AF_INET6) {
		prefix = ((const struct sockaddr_in6 *)peer)->sin6_addr;
		cfg_mask_bits(prefix.s6_addr, 16, cfg->limit_prefix6);
	} else {
		prefix.s6_addr[10] = prefix.s6_addr[11] = 0xff;
		memcpy(prefix.s6_addr + 12, &((const struct sockaddr_in *)peer)->sin_addr, 4);
		cfg_mask_bits(prefix.s6_addr + 12, 4, cfg->limit_prefix4);
	}
	return prefix;
}

static unsigned bucket_of(const struct limits *l, const struct in6_addr *prefix)
{
	uint64_t word[2], h = l->seed;

	memcpy(word, prefix, sizeof(word));
	for (int i = 0; i < 2; i++) {
		h = (h ^ word[i]) * 0x9e3779b97f4a7c15ull;
		h ^= h >> 32;
	}
	return (unsigned)(h % BUCKETS);
}

static struct source *find_or_add(struct limits *l, const struct in6_addr *prefix, unsigned bucket)
{
	struct source *s = l->buckets[bucket];

	while (s && memcmp(&s->prefix, prefix, sizeof(*prefix)) != 0)
		s = s->next;
	if (s)
		return s;
	s = calloc(1, sizeof(*s));
	if (!s)
		return NULL;
	*s = (struct source){.prefix = *prefix, .bucket = bucket, .next = l->buckets[bucket]};
	l->buckets[bucket] = s;
	return s;
}

static void drop(struct limits *l, struct source *s)
{
	struct source **link = &l->buckets[s->bucket];

	while (*link != s)
		link = &(*link)->next;
	*link = s->next;
	free(s);
}

/* Both counts are below their limits; 0: no limit. */
static enum reason source_has_room(const struct config *cfg, const struct source *s)
{
	if (cfg->limit_flows_per_source && s->flows >= cfg->limit_flows_per_source)
		return REASON_limit_source;
	if (cfg->limit_handshakes_per_source && s->handshakes >= cfg->limit_handshakes_per_source)
		return REASON_limit_source_handshakes;
	return REASON_done;
}

static enum reason take_source(struct limits *l, const struct sockaddr *peer, struct source **out)
{
	struct in6_addr prefix = prefix_of(l->cfg, peer);
	unsigned bucket = bucket_of(l, &prefix);
	pthread_mutex_t *lock = &l->locks[bucket % LOCKS];
	enum reason reason;
	struct source *s;

	pthread_mutex_lock(lock);
	s = find_or_add(l, &prefix, bucket);
	reason = s ? source_has_room(l->cfg, s) : REASON_no_memory;
	if (reason == REASON_done) {
		s->flows++;
		s->handshakes++;
	}
	pthread_mutex_unlock(lock);
	*out = reason == REASON_done ? s : NULL;
	return reason;
}

static void source_established(struct limits *l, struct source *s)
{
	pthread_mutex_t *lock = &l->locks[s->bucket % LOCKS];

	pthread_mutex_lock(lock);
	s->handshakes--;
	pthread_mutex_unlock(lock);
}

static void give_source(struct limits *l, struct source *s)
{
	pthread_mutex_t *lock = &l->locks[s->bucket % LOCKS];

	pthread_mutex_lock(lock);
	if (!--s->flows)
		drop(l, s);
	pthread_mutex_unlock(lock);
}

/* ---- all of them ---- */

/* No more than max, whoever else counts at the same time. 0: no limit. */
static bool take_one(_Atomic unsigned *count, unsigned max)
{
	if (atomic_fetch_add(count, 1) < max || !max)
		return true;
	atomic_fetch_sub(count, 1);
	return false;
}

bool limits_full(const struct limits *l)
{
	const struct limits_flows *f = &l->flows;
	uint64_t flows;

	if (!l->cfg->limit_flows)
		return false;
	flows = stats_flows(f->own, f->workers);
	for (unsigned slot = 0; slot < GENERATIONS_MAX; slot++) {
		if (slot != f->slot)
			flows += atomic_load_explicit(&f->others->by_slot[slot],
						      memory_order_relaxed);
	}
	return flows >= l->cfg->limit_flows;
}

uint64_t limits_memory(void)
{
	struct mallinfo2 m = mallinfo2();

	return m.uordblks + m.hblkhd;
}

static uint64_t clock_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

uint64_t limits_memory_shown(struct limits *l)
{
	uint64_t now = clock_ns();

	if (now < l->shown_until)
		return l->shown;
	l->shown = limits_memory();
	l->shown_until = now + SHOWN_SHARE * (clock_ns() - now);
	return l->shown;
}

/* Full again and again at the very limit would be of no use: an eighth must be free first. */
static uint64_t memory_enough(const struct limits *l)
{
	uint64_t limit = (uint64_t)l->cfg->limit_memory << 20;

	return limit - limit / 8;
}

int limits_check_memory(const struct limits *l)
{
	uint64_t in_use = limits_memory();

	if (!l->cfg->limit_memory || in_use <= memory_enough(l))
		return 0;
	log_error("limit.memory = %u: %" PRIu64
		  " KiB are allocated before the first flow, and 7/8 of "
		  "the limit is what there may be for the next",
		  l->cfg->limit_memory, in_use / 1024);
	return -ENOMEM;
}

bool limits_memory_full(struct limits *l)
{
	uint64_t then = l->memory_looked, now, in_use;

	if (!l->cfg->limit_memory)
		return false;
	now = timer_clock();
	/* One thread looks: malloc walks its free lists, each arena's under its lock. */
	if (now < then + MEMORY_LOOK_MS ||
	    !atomic_compare_exchange_strong(&l->memory_looked, &then, now))
		return l->memory_full;
	in_use = limits_memory();
	if (in_use >= (uint64_t)l->cfg->limit_memory << 20)
		l->memory_full = true;
	else if (in_use <= memory_enough(l))
		l->memory_full = false;
	return l->memory_full;
}

enum reason limits_take(struct limits *l, const struct cfg_vserver *vserver,
			const struct sockaddr *peer, struct limits_share *out)
{
	enum reason reason = REASON_done;

	*out = (struct limits_share){0};
	out->vserver = take_one(&l->vservers[vserver->index], vserver->max_flows);
	if (!out->vserver)
		return REASON_limit_vserver;
	out->handshake = take_one(&l->handshakes, l->cfg->limit_handshakes);
	if (!out->handshake)
		reason = REASON_limit_handshakes;
	else if (l->cfg->limit_flows_per_source || l->cfg->limit_handshakes_per_source)
		reason = take_source(l, peer, &out->source);
	if (reason != REASON_done)
		limits_give_back(l, vserver, out);
	return reason;
}

unsigned limits_handshakes(const struct limits *l)
{
	return l->handshakes;
}

void limits_established(struct limits *l, struct limits_share *share)
{
	if (!share->handshake)
		return;
	share->handshake = false;
	atomic_fetch_sub(&l->handshakes, 1);
	if (share->source)
		source_established(l, share->source);
}

void limits_give_back(struct limits *l, const struct cfg_vserver *vserver,
		      struct limits_share *share)
{
	limits_established(l, share);
	if (share->vserver)
		atomic_fetch_sub(&l->vservers[vserver->index], 1);
	if (share->source)
		give_source(l, share->source);
	*share = (struct limits_share){0};
}
