/* SPDX-License-Identifier: Apache-2.0 */
/*
 * OpenSSL's default provider with what a gate needs and nothing else, for threads at work.
 *
 * OpenSSL 3.0 remembers nothing about keys: for each certificate that is parsed it asks every
 * method that was ever fetched and every decoder (OSSL_DECODER_CTX_new_for_pkey), most of them for
 * DH, DSA, SM2, private keys and formats of other vendors: 120 us each time in place of 45, a fifth
 * of what a new connection costs.
 */
#ifndef KTLSGATE_PROVIDER_H
#define KTLSGATE_PROVIDER_H

#include "base/scoped.h"

/*
 * Makes it the calling thread's default library context from now on. Key files are read before:
 * here is no decoder for them; keys that were read, or are another provider's, can be used. When
 * it cannot be had the thread goes on with OpenSSL as it is: slower, no more.
 */
void provider_use(void);

#endif
