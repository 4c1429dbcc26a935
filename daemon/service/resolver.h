/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of backends to addresses. getaddrinfo() blocks, opens files and UDP
 * sockets, none of which the data process can: a process of its own asks, again
 * and again, and publishes in shared memory what it was told last. That process
 * hears from name servers, so whoever reads the memory checks what stands there.
 */
#ifndef KTLSGATE_RESOLVER_H
#define KTLSGATE_RESOLVER_H

#include "service/resolved.h"

bool resolver_needed(const struct config *cfg);

/*
 * The resolver's whole life, in its own process: maps the table behind table_fd, gives up
 * privileges, writes one byte to ready_fd, ends when stop_fd says so. What failed keeps its last
 * good addresses, is counted, and logged once. Returns the exit status, on failure only.
 */
int resolver_run(const struct config *cfg, int table_fd, int ready_fd, int stop_fd) must_check;

#endif
