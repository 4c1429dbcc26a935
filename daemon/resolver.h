/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of backends to addresses. getaddrinfo() blocks, opens files and UDP
 * sockets, none of which the data process can: a process of its own asks, again
 * and again, and publishes in shared memory what it was told last. That process
 * hears from name servers, so whoever reads the memory checks what stands there.
 */
#ifndef KTLSGATE_RESOLVER_H
#define KTLSGATE_RESOLVER_H

#include <netinet/in.h>
#include "config.h"

#define RESOLVED_MAX 8 /* addresses of a name; more are left out */

/* In the order of getaddrinfo() (RFC 6724). n 0: nothing was ever found. */
struct resolved_addresses {
	uint32_t n;
	struct sockaddr_in6 list[RESOLVED_MAX]; /* AF_INET fits too */
};

/* By service index, shared between processes; the resolver alone writes. */
struct resolved;

bool resolver_needed(const struct config *cfg);
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

/*
 * The resolver's whole life, in its own process: maps the table behind table_fd, gives up
 * privileges, writes one byte to ready_fd, ends when stop_fd says so. What failed keeps its last
 * good addresses, is counted, and logged once. Returns the exit status, on failure only.
 */
int resolver_run(const struct config *cfg, int table_fd, int ready_fd, int stop_fd) must_check;

#endif
