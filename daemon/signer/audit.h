/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The audit log: one line of JSON for each forged certificate, written by who
 * issues it and before it is handed out. Lines are whole: each is one write(2)
 * with O_APPEND, which a process that is killed has made or has not.
 */
#ifndef KTLSGATE_AUDIT_H
#define KTLSGATE_AUDIT_H

#include <stdbool.h>
#include <time.h>
#include "config/config.h"

struct audit;

/*
 * Opens or makes the file, mode 0600, and ends a last line that lacks its end:
 * the machine went down while it was written. sync: each line is on the disk before
 * audit_write() returns. Returns 0 or -errno, after a line in the log; *out is the
 * caller's.
 */
int audit_open(const char *path, bool sync, struct audit **out) must_check;
void audit_free(struct audit *a); /* NULL-safe */

/* All borrowed. */
struct audit_entry {
	const struct cfg_vserver *vserver;
	const struct cfg_service *service;
	const struct cfg_certkey *ca;
	/* as the worker says: not checked by anybody */
	uint64_t flow;
	int family; /* AF_INET, AF_INET6 or 0: unknown */
	in_port_t port;
	const uint8_t *peer;
	X509 *original, *forged;
};

/* Returns 0, or -errno: then the line is not in the log, and nothing may be issued. */
int audit_write(struct audit *a, const struct audit_entry *e) must_check;

#endif
