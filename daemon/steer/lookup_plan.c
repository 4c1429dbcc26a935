// SPDX-License-Identifier: Apache-2.0
/* From what vservers listen on to the entries of the maps lookup_*; see lookup_plan.h. */
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include "base/log.h"
#include "steer/lookup_plan.h"

/* ---- prefixes ---- */

static const uint8_t *bytes_of(const struct cfg_listen *l)
{
	if (l->address.ss.ss_family == AF_INET6)
		return ((const struct sockaddr_in6 *)&l->address.ss)->sin6_addr.s6_addr;
	return (const uint8_t *)&((const struct sockaddr_in *)&l->address.ss)->sin_addr;
}

static const uint8_t *key_bytes(const struct lookup_address *a, unsigned *prefix_len)
{
	*prefix_len = a->family == AF_INET6 ? a->key6.prefixlen : a->key4.prefixlen;
	return a->family == AF_INET6 ? a->key6.address : a->key4.address;
}

/* The first len bits of both are the same. */
static bool same_bits(const uint8_t *a, const uint8_t *b, unsigned len)
{
	unsigned whole = len / 8, rest = len % 8;

	return !memcmp(a, b, whole) && (!rest || (a[whole] ^ b[whole]) >> (8 - rest) == 0);
}

static bool is_within(const struct lookup_address *inner, const struct lookup_address *outer)
{
	unsigned inner_len, outer_len;
	const uint8_t *a = key_bytes(inner, &inner_len), *b = key_bytes(outer, &outer_len);

	return inner->family == outer->family && outer_len <= inner_len &&
	       same_bits(a, b, outer_len);
}

static void set_key(struct lookup_address *a, const struct cfg_listen *l)
{
	char host[INET6_ADDRSTRLEN] = "?";

	a->family = l->address.ss.ss_family;
	if (a->family == AF_INET6) {
		a->key6.prefixlen = l->prefix_len;
		memcpy(a->key6.address, bytes_of(l), sizeof(a->key6.address));
	} else {
		a->key4.prefixlen = l->prefix_len;
		memcpy(a->key4.address, bytes_of(l), sizeof(a->key4.address));
	}
	inet_ntop(a->family, bytes_of(l), host, sizeof(host));
	snprintf(a->areas.prefix, sizeof(a->areas.prefix), "%s/%u", host, l->prefix_len);
}

/* Number of the listen's area, made if need be; -ENOMEM. */
static int area_of(struct lookup_plan *plan, const struct cfg_listen *l)
{
	struct lookup_address wanted = {0}, *more;

	set_key(&wanted, l);
	for (unsigned i = 0; i < plan->n_addresses; i++) {
		if (is_within(&wanted, &plan->addresses[i]) &&
		    is_within(&plan->addresses[i], &wanted))
			return (int)i;
	}
	more = reallocarray(plan->addresses, plan->n_addresses + 1, sizeof(*more));
	if (!more)
		return -ENOMEM;
	plan->addresses = more;
	more[plan->n_addresses] = wanted;
	return (int)plan->n_addresses++;
}

/* The areas around an area and itself, the longest prefix first. */
static int nest(struct lookup_plan *plan, unsigned area)
{
	struct lookup_address *a = &plan->addresses[area];

	for (unsigned i = 0; i < plan->n_addresses; i++) {
		unsigned n = a->areas.n, len, other;

		if (!is_within(a, &plan->addresses[i]))
			continue;
		if (n == LOOKUP_DEPTH) {
			log_error("listen: %s lies in more than %d other prefixes", a->areas.prefix,
				  LOOKUP_DEPTH - 1);
			return -E2BIG;
		}
		key_bytes(&plan->addresses[i], &len);
		for (; n; n--) {
			key_bytes(&plan->addresses[a->areas.area[n - 1]], &other);
			if (other > len)
				break;
			a->areas.area[n] = a->areas.area[n - 1];
		}
		a->areas.area[n] = i;
		a->areas.n++;
	}
	return 0;
}

/* ---- ports ---- */

static int add_block(struct lookup_plan *plan, unsigned area, unsigned first, unsigned bits,
		     const struct lookup_target *target)
{
	struct lookup_ports *more = reallocarray(plan->ports, plan->n_ports + 1, sizeof(*more));

	if (!more)
		return -ENOMEM;
	plan->ports = more;
	more[plan->n_ports++] = (struct lookup_ports){
		.key = {.prefixlen = 48 - bits,
			.area = area,
			.port = {(uint8_t)(first >> 8), (uint8_t)first}},
		.target = *target,
	};
	return 0;
}

/* The fewest blocks of a power of two ports, each at a multiple of its size. */
static int add_ports(struct lookup_plan *plan, unsigned area, unsigned first, unsigned last,
		     const struct lookup_target *target)
{
	while (first <= last) {
		unsigned bits = 0;
		int err;

		while (bits < 16 && !(first & ((2u << bits) - 1)) &&
		       first + (2u << bits) - 1 <= last)
			bits++;
		err = add_block(plan, area, first, bits, target);
		if (err)
			return err;
		first += 1u << bits;
	}
	return 0;
}

static int add_listen(struct lookup_plan *plan, const struct cfg_listen *l,
		      const struct cfg_vserver *vserver, unsigned group)
{
	struct lookup_target target = {
		.group = group,
		.how = l->looked_up ? LOOKUP_ASSIGNED : LOOKUP_BOUND,
		.shield = vserver->shield,
	};
	unsigned first = ntohs(((const struct sockaddr_in *)&l->address.ss)->sin_port);
	int area = area_of(plan, l);

	if (area < 0)
		return area;
	snprintf(target.vserver, sizeof(target.vserver), "%s", vserver->name);
	snprintf(target.ports, sizeof(target.ports), first == l->last_port ? "%u" : "%u-%u", first,
		 l->last_port);
	plan->assigns = plan->assigns || l->looked_up;
	return add_ports(plan, (unsigned)area, first, l->last_port, &target);
}

/* The binding that config_check.c has made for it. */
static unsigned group_of(const struct config *cfg, const struct cfg_vserver *v,
			 const struct cfg_listen *l)
{
	for (unsigned i = 0; i < cfg->n_bindings; i++) {
		const struct cfg_binding *b = &cfg->bindings[i];

		if (b->vserver != v || b->looked_up != l->looked_up ||
		    b->address.ss.ss_family != l->address.ss.ss_family)
			continue;
		if (l->looked_up || !memcmp(&b->address.ss, &l->address.ss, l->address.len))
			return b->group;
	}
	return 0; /* there is one */
}

/* ---- public ---- */

int lookup_plan_new(const struct config *cfg, struct lookup_plan **out)
{
	scoped_lookup_plan *plan = calloc(1, sizeof(*plan));
	int err = plan ? 0 : -ENOMEM;

	*out = NULL;
	for (unsigned v = 0; !err && v < cfg->n_vservers; v++) {
		const struct cfg_vserver *vserver = cfg->vservers[v];

		for (unsigned i = 0; !err && i < vserver->listen.n; i++) {
			const struct cfg_listen *l = &vserver->listen.list[i];

			err = add_listen(plan, l, vserver, group_of(cfg, vserver, l));
		}
	}
	for (unsigned i = 0; !err && i < plan->n_addresses; i++)
		err = nest(plan, i);
	if (!err)
		*out = TAKE_PTR(plan);
	return err;
}

void lookup_plan_free(struct lookup_plan *plan)
{
	if (!plan)
		return;
	free(plan->addresses);
	free(plan->ports);
	free(plan);
}
