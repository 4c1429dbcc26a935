/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket: one request line, an answer, end of stream.
 *
 *   stats          "name value" lines
 *   flows          one line per flow, key=value separated by tabs
 *   config [KEY]   "key = value" lines
 *
 * The answer's first line is "ok", or "error TEXT". It never holds a secret.
 */
#ifndef KTLSGATE_CONTROL_H
#define KTLSGATE_CONTROL_H

#include "worker.h"

/* A listening UNIX socket at path (mode 0660); a stale one is replaced. -errno after a log line. */
int control_listen(const char *path) must_check;

/* Serves requests until stop_fd is readable. */
void control_run(struct gate *gate, int listen_fd, int stop_fd);

#endif
