// SPDX-License-Identifier: Apache-2.0
/*
 * An OCSP responder's HTTP answer, byte by byte and whole, and the URL in a certificate that
 * says whom to ask. Input: the length of the URL, the URL, the answer.
 */
#include "../../daemon/flow/responder.c"

#include "fuzz.h"

static const struct fuzz_bound bound = {.base_us = 2000, .byte_ns = 20000};

struct answer {
	const uint8_t *p;
	size_t len;
	char url[300];
};

static int feed(struct ocsp_query *q, const struct answer *a, size_t n, bool ended,
		const uint8_t **body, size_t *len)
{
	memcpy(q->in, a->p, n);
	q->in_len = n;
	return find_body(q, ended, body, len);
}

/* What is decided with the first bytes is not decided otherwise with more of them. */
static void find_in_parts(const struct answer *a)
{
	struct ocsp_query *q = calloc(1, sizeof(*q));
	const uint8_t *body;
	size_t len, step = a->len / 64 + 1;
	int found = 0;

	ENSURE(q);
	for (size_t n = 0; !found && n < a->len; n += step)
		found = feed(q, a, n, false, &body, &len);
	if (!found)
		found = feed(q, a, a->len, true, &body, &len);
	ENSURE(found);
	if (found > 0)
		ENSURE(body >= q->in && body + len <= q->in + q->in_len);
	free(q);
}

static void ask(const char *url)
{
	struct target t;
	struct cfg_address address;

	if (!copy_url(&t, url))
		return;
	(void)!cfg_http_address(t.url, &address);
	(void)!cfg_aia_address("ocsp.example=127.0.0.1 b.example:81=[::1]:82", t.url, &address);
}

static void run(void *arg)
{
	const struct answer *a = arg;

	find_in_parts(a);
	ask(a->url);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};
	struct answer a = {0};
	const uint8_t *url;
	size_t n;

	url = fuzz_bytes(&in, fuzz_byte(&in), &n);
	memcpy(a.url, url, n);
	a.p = in.p;
	a.len = in.left < IN_MAX ? in.left : IN_MAX;
	fuzz_bounded(&bound, size, run, &a);
	return 0;
}
