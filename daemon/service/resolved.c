// SPDX-License-Identifier: Apache-2.0
/*
 * The table of resolved addresses, in memory that the resolver writes and the data process reads.
 * Who reads it checks it, for the resolver hears from name servers.
 */
#include "service/resolved.h"

#include <stdatomic.h>
#include <string.h>
#include "service/resolver.h"
#include "base/shared_memory.h"

bool resolver_needed(const struct config *cfg)
{
	for (unsigned i = 0; i < cfg->n_services; i++) {
		if (cfg->services[i]->host[0])
			return true;
	}
	return false;
}

size_t resolved_table_size(unsigned n_services)
{
	return n_services * sizeof(struct resolved);
}

int resolved_new(unsigned n_services)
{
	return shared_memory_new("ktlsgate-resolved", resolved_table_size(n_services));
}

const struct resolved *resolved_map(int fd, unsigned n_services)
{
	return shared_memory_map(fd, resolved_table_size(n_services));
}

void resolved_publish(struct resolved *r, const struct found_addresses *addresses)
{
	uint32_t turn = atomic_load_explicit(&r->turn, memory_order_relaxed) + 1;

	memcpy(&r->lists[turn % 2], addresses, sizeof(*addresses));
	atomic_store_explicit(&r->turn, turn, memory_order_release);
}

/* A list is written anew only after the other one has become the one to be read. */
#define READS_MAX 4

/* Nothing, if the writer is so fast that no list stays for as long as it takes to copy one. */
void resolved_read_list(const struct resolved *r, struct found_addresses *out)
{
	for (int i = 0; i < READS_MAX; i++) {
		uint32_t turn = atomic_load_explicit(&r->turn, memory_order_acquire);

		memcpy(out, &r->lists[turn % 2], sizeof(*out));
		atomic_thread_fence(memory_order_acquire);
		if (turn == atomic_load_explicit(&r->turn, memory_order_relaxed))
			return;
	}
	out->n = 0;
}

/*
 * May a backend be there? The unspecified address is this host to connect(2), and an IPv4 address
 * in IPv6's clothes would pass by what is asked of IPv4 addresses.
 */
bool resolved_usable(const struct found_address *a)
{
	in_addr_t in;

	if (a->family == AF_INET6)
		return !IN6_IS_ADDR_UNSPECIFIED(&a->address) &&
		       !IN6_IS_ADDR_MULTICAST(&a->address) && !IN6_IS_ADDR_V4MAPPED(&a->address);
	memcpy(&in, &a->address, sizeof(in));
	in = ntohl(in);
	return a->family == AF_INET && in != INADDR_ANY && in != INADDR_BROADCAST &&
	       !IN_MULTICAST(in);
}

void resolved_set_address(const struct found_address *a, in_port_t port, struct sockaddr_in6 *out)
{
	struct sockaddr_in *in = (struct sockaddr_in *)out;

	memset(out, 0, sizeof(*out));
	if (a->family == AF_INET) {
		in->sin_family = AF_INET;
		in->sin_port = port;
		memcpy(&in->sin_addr, &a->address, sizeof(in->sin_addr));
		return;
	}
	out->sin6_family = AF_INET6;
	out->sin6_port = port;
	out->sin6_addr = a->address;
	if (IN6_IS_ADDR_LINKLOCAL(&a->address))
		out->sin6_scope_id = a->scope_id;
}

void resolved_get(const struct resolved *table, const struct cfg_service *service,
		  struct resolved_addresses *out, uint64_t *failures)
{
	const struct resolved *r = &table[service->index];
	struct found_addresses found;

	if (failures)
		*failures = atomic_load_explicit(&r->failures, memory_order_relaxed);
	resolved_read_list(r, &found);
	out->n = 0;
	for (uint32_t i = 0; i < found.n && i < RESOLVED_MAX; i++) {
		if (resolved_usable(&found.list[i]))
			resolved_set_address(&found.list[i], service->port, &out->list[out->n++]);
	}
}

uint64_t resolved_own(const struct resolved *table, const struct cfg_service *service)
{
	return atomic_load_explicit(&table[service->index].own, memory_order_relaxed);
}
