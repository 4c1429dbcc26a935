/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text that somebody else chose, made fit for a terminal, a log line and a field of a line. What
 * can be shown stays: printable ASCII, and valid UTF-8 for characters that can be seen. Every
 * other byte becomes \xNN: control characters (C0, DEL, C1 in one byte or two), bytes that are no
 * UTF-8, and characters that only change how their neighbours look (bidirectional overrides, no
 * width, line separators). A backslash stays as it is.
 */
#ifndef KTLSGATE_ESCAPE_H
#define KTLSGATE_ESCAPE_H

#include <stddef.h>
#include <stdio.h>

/* The most that a byte can become. */
#define ESCAPE_MAX 4

/* out holds ESCAPE_MAX * n bytes; no NUL is put behind them. Returns how many there are. */
size_t escape(const char *in, size_t n, char *out);
/* The same to a stream. */
void escape_put(const char *text, size_t n, FILE *out);
/* A JSON string with its quotes; what is escaped above becomes \u00NN. */
void escape_json(const char *text, FILE *out);

#endif
