// SPDX-License-Identifier: Apache-2.0
/* escape.c: what is shown as it is, and that every other byte is escaped, in each form. */
#include "unit.h"
#include <stdbool.h>
#include <stdlib.h>
#include "base/escape.h"

static bool becomes(const char *in, size_t n, const char *want)
{
	char out[64 * ESCAPE_MAX], *text = NULL;
	size_t len = escape(in, n, out), size = 0;
	FILE *f = open_memstream(&text, &size);
	bool same;

	escape_put(in, n, f);
	fclose(f);
	same = len == strlen(want) && !memcmp(out, want, len) && size == len &&
	       !memcmp(text, want, len);
	if (!same)
		printf("got %.*s, want %s\n", (int)len, out, want);
	free(text);
	return same;
}

#define SHOWN(text)	   CHECK(becomes(text, sizeof(text) - 1, text))
#define ESCAPED(text, out) CHECK(becomes(text, sizeof(text) - 1, out))

static void test_shown(void)
{
	SHOWN("");
	SHOWN(" !~\\");
	SHOWN("M\xc3\xbcller");		       /* U+00FC */
	SHOWN("\xc2\xa0");		       /* the first behind C1 */
	SHOWN("\xe2\x82\xac\xf0\x9f\x94\x92"); /* U+20AC, U+1F512 */
}

static void test_escaped(void)
{
	ESCAPED("\x1b[2J\x7f", "\\x1b[2J\\x7f");
	ESCAPED("a\0b\tc\nd", "a\\x00b\\x09c\\x0ad");
	ESCAPED("\x9b", "\\x9b");		    /* C1 in one byte */
	ESCAPED("\xc2\x9b", "\\xc2\\x9b");	    /* and in two */
	ESCAPED("\xe2\x80\xae", "\\xe2\\x80\\xae"); /* U+202E turns the line around */
	ESCAPED("\xe2\x80\xa8", "\\xe2\\x80\\xa8"); /* U+2028 */
	ESCAPED("\xef\xbb\xbf", "\\xef\\xbb\\xbf"); /* U+FEFF */
	ESCAPED("\xc0\x9b", "\\xc0\\x9b");	    /* more bytes than U+001B needs */
	ESCAPED("\xe0\x80\x9b", "\\xe0\\x80\\x9b");
	ESCAPED("\xed\xa0\x80", "\\xed\\xa0\\x80");	     /* a surrogate */
	ESCAPED("\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"); /* U+110000 */
	ESCAPED("\xc3", "\\xc3");			     /* cut short */
	ESCAPED("\xc3(\xe2\x82", "\\xc3(\\xe2\\x82");
	ESCAPED("\xf8\x88\x80\x80\x80", "\\xf8\\x88\\x80\\x80\\x80");
}

/* No byte below 0x20 and no C1 comes through, whatever stands around it. */
static void test_all_pairs(void)
{
	char out[3 * ESCAPE_MAX];

	for (unsigned i = 0; i < 1u << 24; i += 7) {
		char in[3] = {(char)(i >> 16), (char)(i >> 8), (char)i};
		size_t len = escape(in, sizeof(in), out);

		for (size_t k = 0; k < len; k++) {
			unsigned char c = (unsigned char)out[k];

			if (c < 0x20 || c == 0x7f || (c == 0xc2 && (out[k + 1] & 0xe0) == 0x80)) {
				printf("%06x\n", i);
				CHECK(false);
				return;
			}
		}
	}
	CHECK(true);
}

static void test_json(void)
{
	char *text = NULL;
	size_t size = 0;
	FILE *f = open_memstream(&text, &size);

	escape_json("a\"b\\c\x1b\xc3\xbc\xff", f);
	fclose(f);
	CHECK(!strcmp(text, "\"a\\\"b\\\\c\\u001b\xc3\xbc\\u00ff\""));
	free(text);
}

int main(void)
{
	test_shown();
	test_escaped();
	test_all_pairs();
	test_json();
	return unit_end();
}
