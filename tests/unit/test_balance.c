/* SPDX-License-Identifier: Apache-2.0 */
/* Shares by weight, minimal disruption of source-hash, backups, what was tried already. */
#include <arpa/inet.h>
#include <stdlib.h>
#include "service/balance.h"
#include "unit.h"

#define MAX 12

/* A vserver of n services, s0, s1, ... */
struct bench {
	struct cfg_service cfg[MAX];
	void *list[MAX];
	char names[MAX][16];
	struct service services[MAX];
	struct cfg_vserver vserver;
	struct balance_tables tables;
	struct balance balance;
};

static void setup(struct bench *b, enum cfg_balance how, unsigned n, const unsigned *weights,
		  unsigned backups)
{
	memset(b, 0, sizeof(*b));
	for (unsigned i = 0; i < n; i++) {
		snprintf(b->names[i], sizeof(b->names[i]), "s%u", i);
		b->cfg[i] = (struct cfg_service){
			.name = b->names[i],
			.index = i,
			.weight = weights ? weights[i] : 1,
			.backup = i >= n - backups,
		};
		b->list[i] = &b->cfg[i];
		b->services[i].cfg = &b->cfg[i];
		pthread_mutex_init(&b->services[i].lock, NULL);
	}
	b->vserver = (struct cfg_vserver){.services = {b->list, n}, .balance = how};
	CHECK_INT(balance_tables_init(&b->tables, &b->vserver), 0);
	CHECK_INT(balance_init(&b->balance, &b->vserver, &b->tables, b->services), 0);
}

static void teardown(struct bench *b)
{
	balance_free(&b->balance);
	balance_tables_free(&b->tables);
}

static struct sockaddr_in6 client_v4(uint32_t n)
{
	struct sockaddr_in6 sa = {0};
	struct sockaddr_in *in = (struct sockaddr_in *)&sa;

	in->sin_family = AF_INET;
	in->sin_addr.s_addr = htonl(0x0a000000 + n);
	in->sin_port = htons((uint16_t)(n * 7));
	return sa;
}

static int choose(struct bench *b, uint32_t client, int tried)
{
	struct sockaddr_in6 sa = client_v4(client);
	struct balance_tried t = {.at = {(uint16_t)tried}, .n = tried >= 0};

	return balance_choose(&b->balance, &sa, &t, 1000);
}

static void test_turns(void)
{
	static const unsigned weights[] = {5, 1, 1};
	static const int order[] = {0, 0, 1, 0, 2, 0, 0};
	struct bench b;

	setup(&b, BALANCE_ROUND_ROBIN, 3, weights, 0);
	for (unsigned i = 0; i < 21; i++)
		CHECK_INT(choose(&b, 0, -1), order[i % 7]);
	CHECK(choose(&b, 0, 0) != 0);
	teardown(&b);
}

static void test_least(void)
{
	static const unsigned weights[] = {1, 1, 2};
	struct bench b;
	int seen[3] = {0};

	setup(&b, BALANCE_LEAST_CONNECTIONS, 3, weights, 0);
	for (unsigned i = 0; i < 40; i++) {
		int at = choose(&b, 0, -1);

		service_acquire(&b.services[at]);
		seen[at]++;
	}
	CHECK_INT(seen[0], 10);
	CHECK_INT(seen[1], 10);
	CHECK_INT(seen[2], 20);
	for (unsigned i = 0; i < 5; i++)
		service_release(&b.services[1]);
	for (unsigned i = 0; i < 5; i++) {
		CHECK_INT(choose(&b, 0, -1), 1);
		service_acquire(&b.services[1]);
	}
	teardown(&b);
}

#define CLIENTS 20000

static void test_hash_shares(void)
{
	static const unsigned weights[] = {100, 100, 200, 1};
	struct bench b;
	unsigned seen[4] = {0};

	setup(&b, BALANCE_SOURCE_HASH, 4, weights, 0);
	for (uint32_t i = 0; i < CLIENTS; i++)
		seen[choose(&b, i, -1)]++;
	for (unsigned i = 0; i < 3; i++) {
		double share = (double)seen[i] / CLIENTS, want = weights[i] / 401.0;

		CHECK(share > want * 0.95 && share < want * 1.05);
	}
	CHECK(seen[3]);
	teardown(&b);
}

/* A service that cannot be used takes only its own clients elsewhere, and to all others. */
static void test_hash_disruption(void)
{
	struct bench b;
	unsigned moved_to[8] = {0}, moved = 0;

	setup(&b, BALANCE_SOURCE_HASH, 8, NULL, 0);
	for (uint32_t i = 0; i < CLIENTS; i++) {
		int before = choose(&b, i, -1), after = choose(&b, i, 3);

		CHECK_INT(choose(&b, i, -1), before);
		if (before != 3)
			CHECK_INT(after, before);
		if (before == 3) {
			moved_to[after]++;
			moved++;
		}
	}
	CHECK(moved > CLIENTS / 10 && moved < CLIENTS / 6);
	CHECK_INT(moved_to[3], 0);
	for (unsigned i = 0; i < 8; i++)
		CHECK(i == 3 || moved_to[i] > moved / 14);
	teardown(&b);
}

/* Maglev's promise: a service less in the configuration, and few others change. */
static void test_hash_removal(void)
{
	struct bench all, less;
	unsigned moved = 0;

	setup(&all, BALANCE_SOURCE_HASH, 10, NULL, 0);
	setup(&less, BALANCE_SOURCE_HASH, 9, NULL, 0);
	for (uint32_t i = 0; i < CLIENTS; i++) {
		int before = choose(&all, i, -1);

		moved += before != 9 && choose(&less, i, -1) != before;
	}
	CHECK(moved < CLIENTS / 20);
	teardown(&all);
	teardown(&less);
}

/* The port and an IPv6 host's own half do not count. */
static void test_hash_of_what(void)
{
	struct balance_tried none = {0};
	struct bench b;

	setup(&b, BALANCE_SOURCE_HASH, 8, NULL, 0);
	for (uint32_t i = 0; i < 50; i++) {
		struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_port = 1}, other;

		inet_pton(AF_INET6, "2001:db8::1", &a.sin6_addr);
		a.sin6_addr.s6_addr[7] = (uint8_t)i;
		other = a;
		other.sin6_port = 99;
		other.sin6_addr.s6_addr[15] = 77;
		CHECK_INT(balance_choose(&b.balance, &a, &none, 1000),
			  balance_choose(&b.balance, &other, &none, 1000));
	}
	teardown(&b);
}

static void test_backups(void)
{
	static const enum cfg_balance all[] = {BALANCE_ROUND_ROBIN, BALANCE_LEAST_CONNECTIONS,
					       BALANCE_SOURCE_HASH};

	for (unsigned k = 0; k < 3; k++) {
		struct balance_tried tried = {.at = {0, 1, 2, 3}};
		struct sockaddr_in6 sa = client_v4(k);
		struct bench b;

		setup(&b, all[k], 4, NULL, 2);
		for (uint32_t i = 0; i < 100; i++)
			CHECK(choose(&b, i, -1) < 2);
		CHECK_INT(choose(&b, 0, 0), 1);
		tried.n = 2;
		CHECK(balance_choose(&b.balance, &sa, &tried, 1000) >= 2);
		tried.n = 3;
		CHECK_INT(balance_choose(&b.balance, &sa, &tried, 1000), 3);
		tried.n = 4;
		CHECK_INT(balance_choose(&b.balance, &sa, &tried, 1000), -1);
		teardown(&b);
	}
}

int main(void)
{
	test_turns();
	test_least();
	test_hash_shares();
	test_hash_disruption();
	test_hash_removal();
	test_hash_of_what();
	test_backups();
	return unit_end();
}
