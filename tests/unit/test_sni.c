// SPDX-License-Identifier: Apache-2.0
/* sni.c: reading a server_name extension. Which certificate it leads to, test_sni.py tells. */
#include "unit.h"
#include "tls/sni.h"

/* The extension for a host name of any bytes. */
static bool read_name(const char *name, size_t len, char *out)
{
	uint8_t ext[400], *copy;
	bool ok;

	ext[0] = (uint8_t)((len + 3) >> 8);
	ext[1] = (uint8_t)(len + 3);
	ext[2] = 0;
	ext[3] = (uint8_t)(len >> 8);
	ext[4] = (uint8_t)len;
	memcpy(ext + 5, name, len);
	/* Its own allocation, so that ASan sees every byte read too far. */
	copy = malloc(len + 5);
	memcpy(copy, ext, len + 5);
	ok = sni_read(copy, len + 5, out);
	free(copy);
	return ok;
}

static void test_names(void)
{
	static const struct {
		const char *in, *out; /* out NULL: refused */
	} rows[] = {
		{"app.example", "app.example"},
		{"APP.Example", "app.example"},
		{"app.example.", "app.example"},
		{"xn--bcher-kva.example", "xn--bcher-kva.example"},
		{"a_b.example", "a_b.example"},
		{"localhost", "localhost"},
		{"", NULL},
		{".", NULL},
		{".example", NULL},
		{"a..example", NULL},
		{"*.example", NULL},
		{"a b", NULL},
		{"a/b", NULL},
		{"b\xc3\xbc"
		 "cher.example",
		 NULL},
		{"[::1]", NULL},
	};
	char out[SNI_NAME_MAX + 1], longest[300];

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		bool ok = read_name(rows[i].in, strlen(rows[i].in), out);

		CHECK_INT(ok, rows[i].out != NULL);
		CHECK(!strcmp(out, rows[i].out ? rows[i].out : ""));
	}
	CHECK(!read_name("a\0b", 3, out));
	memset(longest, 'a', sizeof(longest));
	CHECK(read_name(longest, SNI_NAME_MAX, out));
	CHECK(!read_name(longest, SNI_NAME_MAX + 1, out));
}

static void test_malformed(void)
{
	uint8_t ext[] = {0, 6, 0, 0, 3, 'a', '.', 'b'};
	char out[SNI_NAME_MAX + 1];

	CHECK(sni_read(ext, sizeof(ext), out));
	for (size_t len = 0; len < sizeof(ext); len++)
		CHECK(!sni_read(ext, len, out));
	ext[2] = 1; /* no host_name */
	CHECK(!sni_read(ext, sizeof(ext), out));
	ext[2] = 0;
	ext[4] = 2; /* something behind it */
	CHECK(!sni_read(ext, sizeof(ext), out));
}

int main(void)
{
	test_names();
	test_malformed();
	return unit_end();
}
