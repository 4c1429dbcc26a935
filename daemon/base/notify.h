/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the service manager is told (sd_notify(3)), without libsystemd: one
 * datagram to a socket named in the environment. Without one, nothing happens.
 */
#ifndef KTLSGATE_NOTIFY_H
#define KTLSGATE_NOTIFY_H

#include "base/scoped.h"

/* Assignments, one a line: "READY=1\nSTATUS=...". */
void notify_send(const char *fmt, ...) printf_like(1, 2);

/* Milliseconds within which it wants to read WATCHDOG=1 each time; 0: it does not. */
unsigned notify_watchdog_ms(void);

#endif
