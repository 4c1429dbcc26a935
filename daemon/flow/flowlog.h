/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The flow log: a line of JSON for each flow that has ended. Workers hand lines over and never
 * wait; a thread writes them. What the disk is too slow or too full for is lost, and counted.
 * docs/flow-log.md has the fields.
 */
#ifndef KTLSGATE_FLOWLOG_H
#define KTLSGATE_FLOWLOG_H

#include <stdbool.h>
#include <stdint.h>
#include "base/scoped.h"

struct flowlog;

/* What TCP says of a connection; zero: there was none. */
struct flowlog_wire {
	uint64_t bytes_rx, bytes_tx; /* payload, acknowledged */
	uint32_t packets_rx, packets_tx;
	uint32_t retransmits; /* segments */
	uint32_t rtt_us;      /* smoothed */
};

/*
 * Opens path to append to, made with mode 0640. lost: counts the lines that are not written; it
 * must outlive the log. path NULL: no log, *out is NULL. -errno after a log line.
 */
int flowlog_open(const char *path, _Atomic uint64_t *lost, struct flowlog **out) must_check;
/* Starts the thread. NULL-safe, as the following. Returns 0 or -errno. */
int flowlog_start(struct flowlog *log) must_check;
/* Takes a copy of a line, its line feed included; never waits for the disk. */
void flowlog_add(struct flowlog *log, const char *line, size_t len);
/* Writes what is left. */
void flowlog_close(struct flowlog *log);

/* Before the socket is closed. */
void flowlog_look(int fd, struct flowlog_wire *out);

#endif
