// SPDX-License-Identifier: Apache-2.0
/* Which characters can be shown, and what stands for the others; see escape.h. Knows no locale. */
#include "base/escape.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* Beyond ASCII: what is invisible, or changes what stands around it. The last is the end. */
static const struct {
	uint32_t first, last;
} unseen[] = {
	{0x80, 0x9f},	    /* C1 */
	{0xad, 0xad},	    /* soft hyphen */
	{0x61c, 0x61c},	    /* bidirectional */
	{0x180e, 0x180e},   /* no width */
	{0x200b, 0x200f},   /* no width; bidirectional */
	{0x2028, 0x202e},   /* line separators; bidirectional */
	{0x2060, 0x206f},   /* no width; bidirectional */
	{0xd800, 0xdfff},   /* surrogates: no UTF-8 */
	{0xfeff, 0xfeff},   /* byte order mark */
	{0xfff9, 0xffff},   /* annotations, not characters */
	{0xe0000, 0xe0fff}, /* tags, variants */
	{0x110000, UINT32_MAX},
};

static bool is_seen(uint32_t c)
{
	unsigned i = 0;

	while (c > unseen[i].last)
		i++;
	return c < unseen[i].first;
}

/* Bytes of the character at p, of which there are n; 0: it is to be escaped. */
static size_t shown(const char *p, size_t n)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	unsigned char c = (unsigned char)*p;
	size_t len = c < 0x80 ? 1 : c < 0xc0 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf8 ? 4 : 0;
	uint32_t code = c & (0xffu >> (len + 1));

	if (len == 1)
		return c >= 0x20 && c < 0x7f;
	if (!len || len > n)
		return 0;
	for (size_t i = 1; i < len; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (p[i] & 0x3f);
	}
	return code >= least[len] && is_seen(code) ? len : 0;
}

static char *put_byte(unsigned char c, char *out)
{
	static const char hex[] = "0123456789abcdef";

	*out++ = '\\';
	*out++ = 'x';
	*out++ = hex[c >> 4];
	*out++ = hex[c & 15];
	return out;
}

size_t escape(const char *in, size_t n, char *out)
{
	char *o = out;

	while (n) {
		size_t len = shown(in, n);

		if (len)
			o = mempcpy(o, in, len);
		else
			o = put_byte((unsigned char)*in, o);
		len += !len;
		in += len;
		n -= len;
	}
	return (size_t)(o - out);
}

void escape_put(const char *text, size_t n, FILE *out)
{
	while (n) {
		size_t run = 0, len;
		char byte[ESCAPE_MAX];

		while (run < n && (len = shown(text + run, n - run)))
			run += len;
		fwrite(text, 1, run, out);
		text += run;
		n -= run;
		if (!n)
			break;
		fwrite(byte, 1, (size_t)(put_byte((unsigned char)*text, byte) - byte), out);
		text++;
		n--;
	}
}

void escape_json(const char *text, FILE *out)
{
	size_t n = strlen(text), len;

	putc('"', out);
	for (; n; text += len, n -= len) {
		len = shown(text, n);
		if (!len)
			fprintf(out, "\\u%04x", (unsigned char)*text);
		else if (*text == '"' || *text == '\\')
			fprintf(out, "\\%c", *text);
		else
			fwrite(text, 1, len, out);
		len += !len;
	}
	putc('"', out);
}
