/* SPDX-License-Identifier: Apache-2.0 */
/* How a fresh value gets into a server's handshake, where the client's signature covers it. */
#ifndef KTLSGATE_FRESH_TLS_H
#define KTLSGATE_FRESH_TLS_H

#include <openssl/ssl.h>
#include "tls/fresh.h"

/* Whose value. */
struct fresh_source {
	const struct fresh *values;
	unsigned vserver;
};

/*
 * Each full handshake of a server's ctx shows the newest value: see fresh.h. source stays the
 * caller's, and must outlive ctx. Takes ctx's certificate callback and its session cache mode. 0
 * or -ENOMEM.
 */
int fresh_tls_use(SSL_CTX *ctx, const struct fresh_source *source) must_check;

#endif
