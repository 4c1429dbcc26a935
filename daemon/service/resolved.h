/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The addresses of services that are known by a name, in memory between two processes: the resolver
 * writes them, the data process reads. The resolver hears from name servers, so whoever reads
 * checks what is there.
 */
#ifndef KTLSGATE_RESOLVED_H
#define KTLSGATE_RESOLVED_H

#include <netinet/in.h>
#include <stdatomic.h>
#include "config/config.h"

#define RESOLVED_MAX 8 /* addresses of a name; more are left out */

/* In the order of getaddrinfo() (RFC 6724). n 0: nothing was ever found. */
struct resolved_addresses {
	uint32_t n;
	struct sockaddr_in6 list[RESOLVED_MAX]; /* AF_INET fits too */
};

/* Of an address, what a name stands for; the rest is the service's. */
struct found_address {
	uint32_t family;	 /* AF_INET or AF_INET6 */
	uint32_t scope_id;	 /* of a link-local one */
	struct in6_addr address; /* IPv4: the first four bytes */
};

struct found_addresses {
	uint32_t n;
	struct found_address list[RESOLVED_MAX];
};

/*
 * lists[turn % 2] is to be read, the other one is written before turn grows. So a writer that is
 * slow, or dies in the middle, holds nobody up.
 */
struct resolved {
	_Atomic uint32_t turn;
	_Atomic uint64_t failures;
	_Atomic uint64_t own;
	struct found_addresses lists[2];
};

/* Its memory, see shared_memory.h. A descriptor, or -errno. */
int resolved_new(unsigned n_services) must_check;
/* For reading, all that services have in common; NULL: errno says why. */
const struct resolved *resolved_map(int fd, unsigned n_services) must_check;
/*
 * Never waits. Whatever the resolver has written, these are at most RESOLVED_MAX addresses that a
 * backend can have, at the service's port. failures: times that a look-up failed, if not NULL.
 */
void resolved_get(const struct resolved *table, const struct cfg_service *service,
		  struct resolved_addresses *out, uint64_t *failures);

/* Addresses that look-ups left out because a vserver of ours listens there; see own.h. */
uint64_t resolved_own(const struct resolved *table, const struct cfg_service *service);
size_t resolved_table_size(unsigned n_services);
void resolved_publish(struct resolved *r, const struct found_addresses *addresses);
void resolved_read_list(const struct resolved *r, struct found_addresses *out);
bool resolved_usable(const struct found_address *a);
void resolved_set_address(const struct found_address *a, in_port_t port, struct sockaddr_in6 *out);

#endif
