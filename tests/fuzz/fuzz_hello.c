// SPDX-License-Identifier: Apache-2.0
/*
 * Server names and protocols of a ClientHello: the bodies of two of its extensions.
 * Input: length of the first, then both.
 */
#include "fuzz.h"

#include "tls/alpn.h"
#include "tls/sni.h"

static const struct fuzz_bound bound = {.base_us = 1000, .byte_ns = 400};

struct extensions {
	uint8_t *name, *protocols;
	size_t name_len, protocols_len;
};

static struct sni_table *table;

static void begin(void)
{
	/* N0 with 300 names h<i>..example, which is more than anybody has */
	static const uint8_t program[] = {0, 0, 1, 3, 0, 1, 44, 0, 0, 0};
	struct fuzz_input in = {program, sizeof(program)};
	const unsigned char *p;
	struct der d;
	size_t from;
	X509 *cert;
	bool used;

	der_begin(&d, 20000);
	ENSURE(fuzz_certificate(&d, &in, &from, 1) == 1);
	p = d.p;
	cert = d2i_X509(NULL, &p, (long)d.len);
	ENSURE(cert);
	table = sni_table_new(&cert, 1, &used);
	ENSURE(table);
	X509_free(cert);
	der_free(&d);
}

static bool printable(const char *text)
{
	for (; *text; text++) {
		if (*text <= ' ' || *text > '~')
			return false;
	}
	return true;
}

static void server_name(const struct extensions *e)
{
	char name[SNI_NAME_MAX + 1];
	bool found = sni_read(e->name, e->name_len, name);

	ENSURE(memchr(name, 0, sizeof(name)) && printable(name) && (!found || name[0]));
	ENSURE(sni_find(table, name) < (int)sni_groups(table));
}

static void protocols(const struct extensions *e)
{
	uint8_t ours[ALPN_LIST_MAX];
	int ours_len = alpn_parse("h2 http/1.1 imap pop3 mqtt a b c d e f g h i j", ours);
	const uint8_t *list;
	struct alpn chosen = {0};
	char text[64];
	size_t len;

	ENSURE(ours_len > 0);
	if (!alpn_read(e->protocols, e->protocols_len, &list, &len))
		return;
	if (alpn_choose(ours, (size_t)ours_len, list, len, &chosen))
		ENSURE(alpn_len(&chosen));
	alpn_text(list, len, text, sizeof(text));
	ENSURE(strlen(text) < sizeof(text));
}

static void run(void *arg)
{
	server_name(arg);
	protocols(arg);
}

static uint8_t *copy(struct fuzz_input *in, size_t max, size_t *len)
{
	const uint8_t *p = fuzz_bytes(in, max, len);
	uint8_t *out = malloc(*len + !*len);

	ENSURE(out);
	memcpy(out, p, *len);
	return out;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};
	struct extensions e;
	unsigned n = fuzz_word(&in);

	if (!table)
		begin();
	e.name = copy(&in, n, &e.name_len);
	e.protocols = copy(&in, 65535, &e.protocols_len);
	fuzz_bounded(&bound, size, run, &e);
	free(e.name);
	free(e.protocols);
	return 0;
}
