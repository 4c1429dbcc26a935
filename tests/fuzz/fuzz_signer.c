// SPDX-License-Identifier: Apache-2.0
/*
 * What goes between a worker and the signer: a request, of which the signer believes nothing, and
 * an answer. What a request holds has targets of its own (transcript, ticket, ocsp, chain). Input:
 * which of both, then the message; in a request with bit 1 the last length is made to fit.
 */
#include <string.h>
#include <openssl/err.h>
#include "signer/signer_internal.h"

#include "fuzz.h"

/* The first term: whether a key of 4096 bits is a good one. */
static const struct fuzz_bound bound = {.base_us = 20000, .byte_ns = 1000};

static void take_request(const uint8_t *message, size_t len)
{
	const uint8_t *end = message + len;
	scoped_pkey *key = NULL;
	struct request req;

	if (!signer_parse_request(message, len, &req))
		return;
	ENSURE(req.key == message + REQUEST_HEAD && req.key + req.head.key_len <= req.transcript);
	ENSURE(req.transcript + req.head.transcript_len == req.ocsp);
	ENSURE(req.ocsp + req.head.ocsp_len == end);
	key = signer_parse_key(req.key, req.head.key_len);
	if (key)
		ENSURE(signer_key_is_fit(key));
}

static void take_response(const uint8_t *message, size_t len)
{
	const struct signer_response *r = signer_parse_response(message, len);
	char text[256];

	if (!r)
		return;
	ENSURE(r->data + r->cert_len <= message + len);
	signer_status_text(r, text, sizeof(text));
	ENSURE(text[0]);
}

static void make_fit(uint8_t *message, size_t len)
{
	struct signer_request head;

	memcpy(&head, message, REQUEST_HEAD);
	head.key_len &= 0x3ff;
	head.transcript_len &= 0x3ff;
	head.ocsp_len = (uint32_t)(len - REQUEST_HEAD - head.key_len - head.transcript_len);
	memcpy(message, &head, REQUEST_HEAD);
}

static void run(void *arg)
{
	struct fuzz_input in = *(struct fuzz_input *)arg;
	unsigned how = fuzz_byte(&in);
	uint8_t *message = malloc(in.left + !in.left);

	ENSURE(message);
	memcpy(message, in.p, in.left);
	if (how & 2 && in.left >= REQUEST_HEAD)
		make_fit(message, in.left);
	if (how & 1)
		take_response(message, in.left);
	else
		take_request(message, in.left);
	free(message);
	ERR_clear_error();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};

	fuzz_bounded(&bound, size, run, &in);
	return 0;
}
