// SPDX-License-Identifier: Apache-2.0
/* Log lines on standard error. Knows nothing of what is logged, and trusts no byte of it. */
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <openssl/err.h>
#include "base/escape.h"

#define MESSAGE_MAX  1024
#define LOG_LINE_MAX (ESCAPE_MAX * MESSAGE_MAX + 128) /* and the head */

static const char *log_ident = "ktlsgate";
static bool log_journal;
static atomic_uint log_max = LOG_LEVEL_INFO;

/*
 * JOURNAL_STREAM is inherited by every child of a service, a shell for example:
 * it counts only if it names the very file that is our standard error.
 */
static bool stderr_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long dev, ino;
	struct stat st;

	if (!stream || sscanf(stream, "%llu:%llu", &dev, &ino) != 2)
		return false;
	return !fstat(STDERR_FILENO, &st) && st.st_dev == dev && st.st_ino == ino;
}

void log_open(const char *ident, enum log_level max)
{
	log_ident = ident;
	log_journal = stderr_is_journal();
	atomic_store_explicit(&log_max, max, memory_order_relaxed);
}

bool log_enabled(enum log_level level)
{
	return level <= atomic_load_explicit(&log_max, memory_order_relaxed);
}

static const char *level_name(enum log_level level)
{
	switch (level) {
	case LOG_LEVEL_ERROR:
		return "error";
	case LOG_LEVEL_WARN:
		return "warning";
	case LOG_LEVEL_INFO:
		return "info";
	case LOG_LEVEL_DEBUG:
		return "debug";
	}
	return "?";
}

/* What stands before the message; returns its length. */
static size_t line_head(enum log_level level, char *out, size_t size)
{
	struct timespec now;
	struct tm tm;
	int n;

	if (log_journal) {
		n = snprintf(out, size, "<%d>%.60s: ", level, log_ident);
		return n;
	}
	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	n = strftime(out, size, "%Y-%m-%dT%H:%M:%S", &tm);
	n += snprintf(out + n, size - n, ".%03ldZ %.60s %s: ", now.tv_nsec / 1000000, log_ident,
		      level_name(level));
	return n;
}

static void printf_like(2, 0) log_line(enum log_level level, const char *fmt, va_list ap)
{
	char message[MESSAGE_MAX], line[LOG_LINE_MAX];
	int saved = errno, n;
	size_t len;

	if (!log_enabled(level))
		return;
	n = vsnprintf(message, sizeof(message), fmt, ap);
	if (n < 0)
		strcpy(message, "(a log line could not be formatted)");
	if (n >= (int)sizeof(message))
		memcpy(message + sizeof(message) - 4, "...", 4);
	len = line_head(level, line, sizeof(line));
	/* A peer's name must neither begin a new line nor speak to the terminal. */
	len += escape(message, strlen(message), line + len);
	line[len++] = '\n';
	/* There is nobody to tell when this fails. */
	if (write(STDERR_FILENO, line, len) < 0)
		errno = 0;
	errno = saved;
}

#define DEFINE_LOG(name, level)                                                                    \
	void name(const char *fmt, ...)                                                            \
	{                                                                                          \
		va_list ap;                                                                        \
                                                                                                   \
		va_start(ap, fmt);                                                                 \
		log_line(level, fmt, ap);                                                          \
		va_end(ap);                                                                        \
	}

DEFINE_LOG(log_error, LOG_LEVEL_ERROR)
DEFINE_LOG(log_warn, LOG_LEVEL_WARN)
DEFINE_LOG(log_info, LOG_LEVEL_INFO)
DEFINE_LOG(log_debug, LOG_LEVEL_DEBUG)

const char *log_openssl(char *buf, size_t len)
{
	const char *data = "", *reason;
	int flags = 0;
	unsigned long e = ERR_peek_last_error_data(&data, &flags);

	if (!len)
		return buf;
	if (!(flags & ERR_TXT_STRING))
		data = "";
	reason = ERR_SYSTEM_ERROR(e) ? strerror(ERR_GET_REASON(e)) : ERR_reason_error_string(e);
	if (!e)
		snprintf(buf, len, "no OpenSSL error");
	else if (reason)
		snprintf(buf, len, "%s%s%s", reason, *data ? ": " : "", data);
	else
		snprintf(buf, len, "OpenSSL error %lx", e);
	ERR_clear_error();
	return buf;
}
