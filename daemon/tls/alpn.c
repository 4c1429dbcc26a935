// SPDX-License-Identifier: Apache-2.0
/* Protocol lists: read, chosen from, shown. Knows no TLS library. */
#include "tls/alpn.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#define BLANK " \t"

int alpn_parse(const char *text, uint8_t out[ALPN_LIST_MAX])
{
	size_t len = 0, n;

	for (text += strspn(text, BLANK); *text; text += n, text += strspn(text, BLANK)) {
		n = strcspn(text, BLANK);
		if (n > ALPN_NAME_MAX || len + 1 + n > ALPN_LIST_MAX)
			return -EINVAL;
		for (size_t i = 0; i < n; i++) {
			if (!isgraph((unsigned char)text[i]))
				return -EINVAL;
		}
		out[len] = (uint8_t)n;
		memcpy(out + len + 1, text, n);
		len += 1 + n;
	}
	return len ? (int)len : -EINVAL;
}

static bool well_formed(const uint8_t *list, size_t len)
{
	size_t at = 0;

	while (at < len && list[at])
		at += 1 + (size_t)list[at];
	return len && at == len;
}

bool alpn_read(const uint8_t *ext, size_t len, const uint8_t **list, size_t *list_len)
{
	if (len < 2 || ((size_t)ext[0] << 8 | ext[1]) != len - 2)
		return false;
	*list = ext + 2;
	*list_len = len - 2;
	return well_formed(*list, *list_len);
}

/* Lengths first: memcmp(3) may read all that it is told of, and list ends sooner. */
static bool has(const uint8_t *list, size_t len, const uint8_t *entry)
{
	for (size_t at = 0; at < len; at += 1 + (size_t)list[at]) {
		if (list[at] == entry[0] && !memcmp(list + at + 1, entry + 1, entry[0]))
			return true;
	}
	return false;
}

bool alpn_choose(const uint8_t *ours, size_t ours_len, const uint8_t *theirs, size_t theirs_len,
		 struct alpn *out)
{
	for (size_t at = 0; at < ours_len; at += 1 + (size_t)ours[at]) {
		if (!has(theirs, theirs_len, ours + at))
			continue;
		alpn_set(out, ours + at + 1, ours[at]);
		return true;
	}
	return false;
}

void alpn_set(struct alpn *a, const uint8_t *name, size_t len)
{
	a->entry[0] = (uint8_t)len;
	if (len)
		memcpy(a->entry + 1, name, len);
}

void alpn_text(const uint8_t *list, size_t list_len, char *out, size_t len)
{
	size_t n = 0;

	for (size_t at = 0; at < list_len; at += 1 + (size_t)list[at]) {
		if (at && n + 1 < len)
			out[n++] = ' ';
		for (size_t i = 1; i <= list[at] && n + 1 < len; i++)
			out[n++] = isgraph(list[at + i]) ? (char)list[at + i] : '?';
	}
	if (len)
		out[n] = '\0';
}
