/* SPDX-License-Identifier: Apache-2.0 */
/* The choice among the services of a vserver; see balance.h. Knows no flow and no connection. */
#include <errno.h>
#include <string.h>
#include "service/balance.h"

/* ---- the Maglev table ---- */

/* A table of a hundred times as many entries as services keeps shares within one per cent. */
#define ENTRIES_PER_SERVICE 100
#define NO_SERVICE	    UINT16_MAX

static const uint32_t primes[] = {251, 503, 1021, 2039, 4093, 8191, 16381, 32749, 65521, 131071};

/* Finalizer of SplitMix64 (Steele et al., 2014): the same on every gate, so that they agree. */
static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return x ^ x >> 31;
}

/* By the name: a service's place does not depend on its neighbours. */
static uint64_t hash_name(const char *name, uint64_t salt)
{
	uint64_t h = mix(salt);

	for (; *name; name++)
		h = mix(h ^ (uint8_t)*name);
	return h;
}

/* Walks a permutation of the table: the next entry that is still free is this service's. */
struct walk {
	uint32_t at, skip;
	uint32_t credit; /* an entry is taken for every `heaviest` of it */
};

static void take_entry(struct maglev *m, struct walk *w, unsigned position)
{
	while (m->entries[w->at] != NO_SERVICE)
		w->at = (w->at + w->skip) % m->size;
	m->entries[w->at] = (uint16_t)position;
}

/* Round by round, in which each gains its weight in credit; nobody goes without an entry. */
static void fill(struct maglev *m, const struct cfg_vserver *v, bool backup, uint32_t heaviest,
		 struct walk *walks)
{
	uint32_t filled = 0;

	while (filled < m->size) {
		for (unsigned i = 0; i < v->services.n && filled < m->size; i++) {
			if (cfg_service_at(v, i)->backup != backup)
				continue;
			walks[i].credit += cfg_service_at(v, i)->weight;
			if (walks[i].credit < heaviest)
				continue;
			walks[i].credit -= heaviest;
			take_entry(m, &walks[i], i);
			filled++;
		}
	}
}

static uint32_t greatest_common_divisor(uint32_t a, uint32_t b)
{
	return b ? greatest_common_divisor(b, a % b) : a;
}

static int maglev_init(struct maglev *m, const struct cfg_vserver *v, bool backup)
{
	scoped_mem struct walk *walks = calloc(v->services.n, sizeof(*walks));
	uint32_t heaviest = 0, divisor = 0;
	uint64_t weights = 0;
	size_t p = 0;

	for (unsigned i = 0; i < v->services.n; i++) {
		uint32_t weight = cfg_service_at(v, i)->weight;

		if (cfg_service_at(v, i)->backup != backup)
			continue;
		weights += weight;
		heaviest = weight > heaviest ? weight : heaviest;
		divisor = greatest_common_divisor(weight, divisor);
	}
	if (!weights)
		return 0;
	while (p + 1 < ARRAY_SIZE(primes) && primes[p] < weights / divisor * ENTRIES_PER_SERVICE)
		p++;
	m->entries = calloc(primes[p], sizeof(*m->entries));
	if (!m->entries || !walks)
		return -ENOMEM;
	m->size = primes[p];
	for (uint32_t i = 0; i < m->size; i++)
		m->entries[i] = NO_SERVICE;
	for (unsigned i = 0; i < v->services.n; i++) {
		walks[i].at = (uint32_t)(hash_name(cfg_service_at(v, i)->name, 1) % m->size);
		walks[i].skip =
			(uint32_t)(hash_name(cfg_service_at(v, i)->name, 2) % (m->size - 1) + 1);
		walks[i].credit = heaviest;
	}
	fill(m, v, backup, heaviest, walks);
	return 0;
}

int balance_tables_init(struct balance_tables *t, const struct cfg_vserver *v)
{
	int ret;

	if (v->balance != BALANCE_SOURCE_HASH)
		return 0;
	ret = maglev_init(&t->services, v, false);
	return ret ? ret : maglev_init(&t->backups, v, true);
}

void balance_tables_free(struct balance_tables *t)
{
	free(t->services.entries);
	free(t->backups.entries);
}

/* ---- one worker's ---- */

int balance_init(struct balance *b, const struct cfg_vserver *v, const struct balance_tables *t,
		 struct service *services)
{
	b->vserver = v;
	b->tables = t;
	b->services = services;
	b->credit = calloc(v->services.n, sizeof(*b->credit));
	return b->credit ? 0 : -ENOMEM;
}

void balance_free(struct balance *b)
{
	free(b->credit);
}

/* ---- who can be chosen ---- */

struct choice {
	struct balance *b;
	const struct balance_tried *tried;
	uint64_t now;
	bool backup;
	bool last_resort; /* one that is ejected is better than none: that is a guess, and may be
			     over */
};

static struct service *service_at(const struct choice *c, unsigned position)
{
	return &c->b->services[cfg_service_at(c->b->vserver, position)->index];
}

static bool is_candidate(const struct choice *c, unsigned position)
{
	for (unsigned i = 0; i < c->tried->n; i++) {
		if (c->tried->at[i] == position)
			return false;
	}
	if (service_at(c, position)->cfg->backup != c->backup)
		return false;
	switch (service_state(service_at(c, position), c->now)) {
	case SERVICE_UP:
		return true;
	case SERVICE_EJECTED:
		return c->last_resort;
	default:
		return false;
	}
}

static bool any_candidate(const struct choice *c)
{
	for (unsigned i = 0; i < c->b->vserver->services.n; i++) {
		if (is_candidate(c, i))
			return true;
	}
	return false;
}

static uint64_t weight_of(const struct choice *c, unsigned position)
{
	return service_weight(service_at(c, position), c->now);
}

/* ---- the ways to choose; there is a candidate ---- */

/* Smooth weighted round-robin, as nginx has it: {5, 1, 1} gives a a b a c a a. */
static int by_turn(const struct choice *c)
{
	int64_t *credit = c->b->credit, total = 0;
	int best = -1;

	for (unsigned i = 0; i < c->b->vserver->services.n; i++) {
		if (!is_candidate(c, i))
			continue;
		credit[i] += (int64_t)weight_of(c, i);
		total += (int64_t)weight_of(c, i);
		if (best < 0 || credit[i] > credit[best])
			best = (int)i;
	}
	credit[best] -= total;
	return best;
}

/* The fewest connections by weight, this one included; equals take turns. */
static int least_busy(const struct choice *c)
{
	unsigned n = c->b->vserver->services.n, first = c->b->next++ % n;
	uint64_t best_flows = 0, best_weight = 1;
	int best = -1;

	for (unsigned k = 0; k < n; k++) {
		unsigned i = (first + k) % n;
		uint64_t flows, weight;

		if (!is_candidate(c, i))
			continue;
		flows = 1 + atomic_load_explicit(&service_at(c, i)->flows, memory_order_relaxed);
		weight = weight_of(c, i);
		if (best >= 0 && flows * best_weight >= best_flows * weight)
			continue;
		best = (int)i;
		best_flows = flows;
		best_weight = weight;
	}
	return best;
}

static uint64_t hash_client(const struct sockaddr_in6 *client)
{
	uint64_t network;

	if (client->sin6_family == AF_INET)
		return mix(((const struct sockaddr_in *)client)->sin_addr.s_addr);
	memcpy(&network, &client->sin6_addr, sizeof(network));
	return mix(network);
}

#define REHASHES 16

/* While a service starts slowly, it has only so many of its clients. */
static bool admitted(const struct choice *c, unsigned position, uint64_t h)
{
	const struct service *s = service_at(c, position);

	return mix(h) % SERVICE_WHOLE * s->cfg->weight < service_weight(s, c->now);
}

/*
 * Where the table names a service that cannot be used, the client's next hash
 * decides: only that service's clients move, spread over all others, and they
 * come back with it.
 */
static int by_source(const struct choice *c, const struct sockaddr_in6 *client)
{
	const struct maglev *m = c->backup ? &c->b->tables->backups : &c->b->tables->services;
	uint64_t h = hash_client(client);

	for (unsigned i = 0; i < REHASHES; i++, h = mix(h)) {
		unsigned position = m->entries[h % m->size];

		if (is_candidate(c, position) && admitted(c, position, h))
			return (int)position;
	}
	for (uint32_t i = 0; i < m->size; i++) {
		if (is_candidate(c, m->entries[(h + i) % m->size]))
			return m->entries[(h + i) % m->size];
	}
	return -1;
}

static int choose(const struct choice *c, const struct sockaddr_in6 *client)
{
	switch (c->b->vserver->balance) {
	case BALANCE_LEAST_CONNECTIONS:
		return least_busy(c);
	case BALANCE_SOURCE_HASH:
		return by_source(c, client);
	default:
		return by_turn(c);
	}
}

int balance_choose(struct balance *b, const struct sockaddr_in6 *client,
		   const struct balance_tried *tried, uint64_t now)
{
	struct choice c = {.b = b, .tried = tried, .now = now};

	for (unsigned i = 0; i < 4; i++) {
		c.backup = i & 1;
		c.last_resort = i & 2;
		if (any_candidate(&c))
			return choose(&c, client);
	}
	return -1;
}
