// SPDX-License-Identifier: Apache-2.0
/* lookup_plan: what sk_lookup would find with the entries made, against the configuration's own
 * words.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include "steer/lookup_plan.h"
#include "unit.h"

struct place {
	const char *vserver, *address;
	unsigned prefix_len, first, last;
	bool looked_up;
};

static struct cfg_listen listen_of(const struct place *p)
{
	struct cfg_listen l = {
		.prefix_len = p->prefix_len,
		.last_port = (in_port_t)p->last,
		.looked_up = p->looked_up,
	};
	struct sockaddr_in6 *six = (void *)&l.address.ss;
	struct sockaddr_in *four = (void *)&l.address.ss;

	if (inet_pton(AF_INET, p->address, &four->sin_addr) == 1) {
		four->sin_family = AF_INET;
		l.address.len = sizeof(*four);
	} else {
		CHECK_INT(inet_pton(AF_INET6, p->address, &six->sin6_addr), 1);
		six->sin6_family = AF_INET6;
		l.address.len = sizeof(*six);
	}
	four->sin_port = htons((in_port_t)p->first); /* in both */
	return l;
}

/* One vserver and one binding for each place. */
static struct lookup_plan *plan_of(const struct place *places, unsigned n, int want)
{
	static struct cfg_vserver vservers[16], *list[16];
	static struct cfg_listen listens[16];
	static struct cfg_binding bindings[16];
	struct config cfg = {
		.vservers = list, .n_vservers = n, .bindings = bindings, .n_bindings = n};
	struct lookup_plan *plan;

	for (unsigned i = 0; i < n; i++) {
		listens[i] = listen_of(&places[i]);
		vservers[i] = (struct cfg_vserver){
			.name = (char *)places[i].vserver, .index = i, .listen = {&listens[i], 1}};
		list[i] = &vservers[i];
		bindings[i] = (struct cfg_binding){&vservers[i], listens[i].address,
						   places[i].looked_up, i};
	}
	CHECK_INT(lookup_plan_new(&cfg, &plan), want);
	return plan;
}

static bool starts_with(const uint8_t *a, const uint8_t *b, unsigned bits)
{
	for (unsigned i = 0; i < bits; i++) {
		if ((a[i / 8] ^ b[i / 8]) & 0x80 >> i % 8)
			return false;
	}
	return true;
}

/* Longest match, as the kernel's tries do it. */
static const struct lookup_areas *find_areas(const struct lookup_plan *plan, int family,
					     const uint8_t *address)
{
	const struct lookup_areas *best = NULL;
	unsigned best_len = 0;

	for (unsigned i = 0; i < plan->n_addresses; i++) {
		const struct lookup_address *a = &plan->addresses[i];
		unsigned len = family == AF_INET ? a->key4.prefixlen : a->key6.prefixlen;

		if (a->family != family ||
		    !starts_with(address, family == AF_INET ? a->key4.address : a->key6.address,
				 len))
			continue;
		if (best && len <= best_len)
			continue;
		best = &a->areas;
		best_len = len;
	}
	return best;
}

static const struct lookup_target *find_port(const struct lookup_plan *plan, unsigned area,
					     unsigned port)
{
	uint8_t bytes[2] = {(uint8_t)(port >> 8), (uint8_t)port};
	const struct lookup_target *found = NULL;

	for (unsigned i = 0; i < plan->n_ports; i++) {
		const struct lookup_port *k = &plan->ports[i].key;

		if (k->area != area || !starts_with(bytes, k->port, k->prefixlen - 32))
			continue;
		CHECK(!found); /* blocks of an area are disjoint */
		found = &plan->ports[i].target;
	}
	return found;
}

/* As the program: the longest prefix that has the port. */
static const char *find(const struct lookup_plan *plan, const char *address, unsigned port)
{
	uint8_t bytes[16] = {0};
	int family = inet_pton(AF_INET, address, bytes) == 1 ? AF_INET : AF_INET6;
	const struct lookup_areas *areas;

	if (family == AF_INET6)
		CHECK_INT(inet_pton(AF_INET6, address, bytes), 1);
	areas = find_areas(plan, family, bytes);
	for (unsigned i = 0; areas && i < areas->n; i++) {
		const struct lookup_target *t = find_port(plan, areas->area[i], port);

		if (t)
			return t->vserver;
	}
	return "none";
}

#define CHECK_FIND(plan, address, port, want)                                                      \
	do {                                                                                       \
		const char *got_ = find(plan, address, port);                                      \
		CHECK(!strcmp(got_, want));                                                        \
		if (strcmp(got_, want))                                                            \
			printf("%s:%d: %s, not %s\n", address, port, got_, want);                  \
	} while (0)

static void test_longest_prefix_with_the_port(void)
{
	static const struct place places[] = {
		{"all", "0.0.0.0", 0, 443, 443, false},
		{"ten", "10.0.0.0", 8, 400, 8999, true},
		{"net", "10.1.0.0", 16, 443, 443, true},
		{"host", "10.1.2.3", 32, 8443, 8443, false},
		{"odd", "10.1.2.128", 25, 1, 65535, true},
		{"six", "2001:db8::", 32, 443, 444, true},
		{"six1", "2001:db8::1", 128, 443, 443, false},
	};
	scoped_lookup_plan *plan = plan_of(places, ARRAY_SIZE(places), 0);

	if (!plan)
		return;
	CHECK(plan->assigns);
	CHECK_FIND(plan, "192.0.2.1", 443, "all");
	CHECK_FIND(plan, "192.0.2.1", 444, "none");
	CHECK_FIND(plan, "10.9.9.9", 443, "ten");
	CHECK_FIND(plan, "10.9.9.9", 399, "none");
	CHECK_FIND(plan, "10.9.9.9", 400, "ten");
	CHECK_FIND(plan, "10.9.9.9", 8999, "ten");
	CHECK_FIND(plan, "10.9.9.9", 9000, "none");
	CHECK_FIND(plan, "10.1.9.9", 443, "net");
	CHECK_FIND(plan, "10.1.9.9", 8443, "ten");
	CHECK_FIND(plan, "10.1.2.3", 8443, "host");
	CHECK_FIND(plan, "10.1.2.3", 443, "net");
	CHECK_FIND(plan, "10.1.2.3", 500, "ten");
	CHECK_FIND(plan, "10.1.2.127", 1, "none");
	CHECK_FIND(plan, "10.1.2.128", 1, "odd");
	CHECK_FIND(plan, "10.1.2.255", 65535, "odd");
	CHECK_FIND(plan, "2001:db8:1::1", 444, "six");
	CHECK_FIND(plan, "2001:db8::1", 443, "six1");
	CHECK_FIND(plan, "2001:db8::1", 444, "six");
	CHECK_FIND(plan, "2001:db9::1", 443, "none");
}

/* Every port of a range, and none beside it, whatever its ends. */
static void test_ranges(void)
{
	static const unsigned ends[][2] = {{1, 1},	   {1, 65535},	  {2, 65535},
					   {32768, 65535}, {1023, 32769}, {65535, 65535}};

	for (unsigned i = 0; i < ARRAY_SIZE(ends); i++) {
		struct place p = {"v", "10.0.0.0", 8, ends[i][0], ends[i][1], true};
		scoped_lookup_plan *plan = plan_of(&p, 1, 0);
		unsigned wrong = 0;

		if (!plan)
			return;
		CHECK(plan->n_ports <= 30);
		for (unsigned port = 1; port < 65536; port++) {
			bool want = port >= p.first && port <= p.last;

			wrong += !!find_port(plan, 0, port) != want;
		}
		CHECK_INT(wrong, 0);
	}
}

static void test_depth(void)
{
	struct place places[LOOKUP_DEPTH + 1];

	for (unsigned i = 0; i < ARRAY_SIZE(places); i++)
		places[i] = (struct place){"v", "10.0.0.0", 8 + i, 443, 443, true};
	lookup_plan_free(plan_of(places, LOOKUP_DEPTH, 0));
	CHECK(!plan_of(places, LOOKUP_DEPTH + 1, -E2BIG));
}

int main(void)
{
	test_longest_prefix_with_the_port();
	test_ranges();
	test_depth();
	return unit_end();
}
