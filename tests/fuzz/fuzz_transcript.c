// SPDX-License-Identifier: Apache-2.0
/*
 * transcript_verify() on anything. Input: length (2 bytes) and DER of the server
 * certificate to expect, then the messages. `test_transcript 13 DIRECTORY`
 * writes seeds; each has another certificate, hence the prefix.
 */
#include "fuzz.h"

#include <openssl/err.h>
#include "tls/transcript.h"

/* The first term: a signature, with whatever key, and up to 100 certificates. */
static const struct fuzz_bound bound = {.base_us = 20000, .byte_ns = 400};

static void run(void *arg)
{
	const struct fuzz_input *in = arg;
	const uint8_t *data = in->p;
	size_t size = in->left;
	uint8_t digest[TRANSCRIPT_DIGEST_LEN], servers[1][TRANSCRIPT_SERVER_LEN];
	uint8_t fresh[FRESH_LEN];
	scoped_certs *untrusted = NULL;
	scoped_x509 *leaf = NULL;
	size_t len;

	if (size < 2)
		return;
	len = (size_t)data[0] << 8 | data[1];
	if (len > size - 2)
		return;
	if (EVP_Digest(data + 2, len, servers[0], NULL, EVP_sha256(), NULL) != 1)
		abort();
	data += 2 + len;
	size -= 2 + len;
	if (transcript_verify(data, size, (const uint8_t(*)[TRANSCRIPT_SERVER_LEN])servers, 1,
			      &leaf, &untrusted, fresh) == TRANSCRIPT_OK) {
		if (!leaf || !untrusted || !transcript_digest(data, size, digest))
			abort();
	} else if (leaf || untrusted) {
		abort();
	}
	ENSURE(!ERR_peek_error());
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};

	fuzz_bounded(&bound, size, run, &in);
	return 0;
}
