// SPDX-License-Identifier: Apache-2.0
/*
 * A header of the PROXY protocol as a client, or what stands in front of us, sends it, and
 * the header that a backend gets with what the client chose in it.
 */
#include "fuzz.h"

#include <arpa/inet.h>
#include "service/proxy.h"

static const struct fuzz_bound bound = {.base_us = 1000, .byte_ns = 200};

/* Known as wrong as early as can be, and then for good. */
static enum proxy_error check_prefixes(const uint8_t *data, size_t size)
{
	enum proxy_error err = PROXY_OK;

	for (size_t n = 0; n <= PROXY_HEAD && n <= size; n++) {
		uint8_t *copy = malloc(n + 1);

		ENSURE(copy);
		memcpy(copy, data, n);
		if (err)
			ENSURE(proxy_check(copy, n) != PROXY_OK);
		else
			err = proxy_check(copy, n);
		free(copy);
	}
	return err;
}

static void check_addresses(const struct proxy_addresses *a)
{
	int family = a->source.sin6_family;

	ENSURE(family == AF_INET || family == AF_INET6 || family == AF_UNSPEC);
	ENSURE(a->destination.sin6_family == family);
}

static void text(struct fuzz_input *in, char out[256])
{
	size_t n;
	const uint8_t *p = fuzz_bytes(in, 255, &n);

	memcpy(out, p, n);
	out[n] = '\0';
}

/* What is built from it says the same. */
static void build_and_parse(const struct proxy_addresses *a, const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};
	uint8_t header[PROXY_HEADER_MAX];
	struct proxy_tls tls = {.version = "TLSv1.3",
				.cipher = "TLS_AES_128_GCM_SHA256",
				.certificate = true,
				.verified = true};
	char authority[256];
	struct proxy_addresses again;
	size_t n, body, protocol_len;
	const uint8_t *protocol;

	text(&in, authority);
	tls.common_name = fuzz_bytes(&in, 255, &tls.common_name_len);
	protocol = fuzz_bytes(&in, 255, &protocol_len);
	n = proxy_build(a, authority, protocol, protocol_len, &tls, header);
	ENSURE(n >= PROXY_HEAD && n <= PROXY_HEADER_MAX);
	ENSURE(proxy_body_len(header, &body) == PROXY_OK && body == n - PROXY_HEAD);
	ENSURE(proxy_parse(header, n, &again) == PROXY_OK);
	ENSURE(a->source.sin6_family != AF_INET || !memcmp(a, &again, sizeof(again)));
}

static void run(void *arg)
{
	const struct fuzz_input *in = arg;
	enum proxy_error err = check_prefixes(in->p, in->left);
	struct proxy_addresses a;
	size_t len;

	ENSURE(proxy_parse(in->p, in->left, &a) == PROXY_OK || a.source.sin6_family == AF_UNSPEC);
	if (err || in->left < PROXY_HEAD || proxy_body_len(in->p, &len))
		return;
	ENSURE(len <= PROXY_BODY_MAX);
	if (len > in->left - PROXY_HEAD || proxy_parse(in->p, PROXY_HEAD + len, &a) != PROXY_OK)
		return;
	check_addresses(&a);
	build_and_parse(&a, in->p + PROXY_HEAD, in->left - PROXY_HEAD);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* Its own, so that a read behind it is found. */
	uint8_t *copy = malloc(size + !size);
	struct fuzz_input in = {copy, size};

	ENSURE(copy);
	memcpy(copy, data, size);
	fuzz_bounded(&bound, size, run, &in);
	free(copy);
	return 0;
}
