/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of backends to addresses. getaddrinfo() blocks, opens files and UDP
 * sockets, none of which the data process can: a process of its own asks, again
 * and again, and publishes in shared memory what it was told last.
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

/* By service index, shared between processes; one writes. */
struct resolved;

bool resolver_needed(const struct config *cfg);
/* NULL: no memory. */
struct resolved *resolved_new(unsigned n_services) must_check;
void resolved_free(struct resolved *table, unsigned n_services); /* NULL-safe */
/* Never waits; failures: times that a look-up failed, if not NULL. */
void resolved_get(const struct resolved *table, unsigned service, struct resolved_addresses *out,
		  uint64_t *failures);

/*
 * The resolver's whole life, in its own process: gives up privileges, writes one
 * byte to ready_fd, ends when stop_fd says so. What failed keeps its last good
 * addresses, is counted, and logged once. Returns the exit status, on failure only.
 */
int resolver_run(const struct config *cfg, struct resolved *table, int ready_fd,
		 int stop_fd) must_check;

#endif
