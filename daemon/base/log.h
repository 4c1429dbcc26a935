/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Log lines on standard error, one write(2) each. Under systemd (JOURNAL_STREAM
 * set) a line begins with sd-daemon's "<N>" priority, otherwise with a UTC time.
 * Never pass a secret to these functions.
 */
#ifndef KTLSGATE_LOG_H
#define KTLSGATE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include "base/scoped.h"

enum log_level {
	LOG_LEVEL_ERROR = 3,
	LOG_LEVEL_WARN = 4,
	LOG_LEVEL_INFO = 6,
	LOG_LEVEL_DEBUG = 7
};

/* ident: the process, e.g. "ktlsgated[signer]"; must outlive the process. */
void log_open(const char *ident, enum log_level max);

void log_error(const char *fmt, ...) printf_like(1, 2);
void log_warn(const char *fmt, ...) printf_like(1, 2);
void log_info(const char *fmt, ...) printf_like(1, 2);
void log_debug(const char *fmt, ...) printf_like(1, 2);
bool log_enabled(enum log_level level);

/* The newest OpenSSL error as text ("no OpenSSL error" if there is none); empties the queue. */
const char *log_openssl(char *buf, size_t len);

#endif
