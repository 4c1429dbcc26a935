// SPDX-License-Identifier: Apache-2.0
/*
 * transcript_verify() on anything. Input: length (2 bytes) and DER of the server
 * certificate to expect, then the messages. `test_transcript 13 DIRECTORY`
 * writes seeds; each has another certificate, hence the prefix.
 */
#include <stdlib.h>
#include <openssl/err.h>
#include "transcript.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t digest[TRANSCRIPT_DIGEST_LEN], servers[1][TRANSCRIPT_SERVER_LEN], fresh[FRESH_LEN];
	scoped_certs *untrusted = NULL;
	scoped_x509 *leaf = NULL;
	size_t len;

	if (size < 2)
		return 0;
	len = (size_t)data[0] << 8 | data[1];
	if (len > size - 2)
		return 0;
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
	if (ERR_peek_error())
		abort();
	return 0;
}
