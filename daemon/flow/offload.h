/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether the kernel or a network device seals and opens the records of a socket with kernel TLS.
 * Only sock_diag(7) tells, and the data process has no netlink socket: it asks the supervisor, who
 * has no part in the connection, and only where a device was ever given a key.
 */
#ifndef KTLSGATE_OFFLOAD_H
#define KTLSGATE_OFFLOAD_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include "maps.h"
#include "base/scoped.h"

/* A connection. */
struct offload_socket {
	uint64_t cookie;
	struct sockaddr_in6 local, remote; /* AF_INET too */
};

/* Both sides of a flow, by enum side_role. */
struct offload_question {
	uint64_t flow; /* its id */
	struct offload_socket side[2];
};

struct offload_answer {
	uint64_t flow;
	uint8_t records[2]; /* enum flow_records */
};

/* ---- the data process's ---- */

/* The kernel's counters of TLS, to be opened before files are forbidden; -1: there are none. */
int offload_counters(void);
/* May any socket of this network namespace have its keys in a device? */
bool offload_possible(int counters);
int offload_describe(int fd, struct offload_socket *out) must_check;

/* ---- the supervisor's ---- */

/* What sock_diag's answer about one socket says. */
enum flow_records offload_read(const char *buf, size_t n);
/* FLOW_RECORDS_UNKNOWN where the kernel does not know the socket, or has no sock_diag. */
void offload_look(const struct offload_question *q, struct offload_answer *out);

#endif
