/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of ktlsgatectl have in common. */
#ifndef KTLSGATE_CTL_H
#define KTLSGATE_CTL_H

#include <stdio.h>
#include "base/scoped.h"

/* The lines behind the daemon's "ok", as a stream; NULL after a message. */
FILE *ask(const char *request) must_check;

/* Text of somebody else's: what a terminal could obey is escaped, but for tabs and line feeds. */
void put_text(const char *text, size_t len, FILE *out);

/*
 * Prints the lines of the audit log that say a certificate of this serial number
 * was forged (hex; case, colons and leading zeros do not matter). path NULL: the
 * running daemon's audit.log. Returns the exit status.
 */
int ctl_forged(const char *serial, const char *path) must_check;

/*
 * Becomes ktlsgate-forge --explain with the rules of a running daemon's service and
 * what its backend last asked for. Returns only on an error, the exit status.
 */
int ctl_explain(const char *service, const char *chain) must_check;

#endif
