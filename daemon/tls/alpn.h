/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lists of application protocols as RFC 7301 section 3.1 writes them: each
 * name behind a byte with its length. Pure.
 */
#ifndef KTLSGATE_ALPN_H
#define KTLSGATE_ALPN_H

#include <stdbool.h>
#include <stdint.h>
#include "base/scoped.h"

#define ALPN_NAME_MAX 255
#define ALPN_LIST_MAX 1024 /* of ours */

/* One protocol in the form of a list; length 0: none. */
struct alpn {
	uint8_t entry[1 + ALPN_NAME_MAX];
};

/* Names between blanks to a list in out. Returns its length, or -EINVAL. */
int alpn_parse(const char *text, uint8_t out[ALPN_LIST_MAX]) must_check;

/*
 * The list in the body of a ClientHello's extension: *list points into it. False: it is
 * malformed (which OpenSSL refuses by itself) or empty.
 */
bool alpn_read(const uint8_t *extension, size_t len, const uint8_t **list,
	       size_t *list_len) must_check;

/* The first of ours that is in theirs too. False: none is. Both lists are well-formed. */
bool alpn_choose(const uint8_t *ours, size_t ours_len, const uint8_t *theirs, size_t theirs_len,
		 struct alpn *out) must_check;

void alpn_set(struct alpn *a, const uint8_t *name, size_t len);
static inline size_t alpn_len(const struct alpn *a)
{
	return a->entry[0];
}

/* Names separated by blanks, cut to len; what is not printable becomes '?'. */
void alpn_text(const uint8_t *list, size_t list_len, char *out, size_t len);

#endif
