/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The back: how a service is connected to and verified. One struct back per
 * service, shared read-only by all workers.
 */
#ifndef KTLSGATE_BACKEND_H
#define KTLSGATE_BACKEND_H

#include "handshake.h"
#include "reason.h"

struct back {
	SSL_CTX *ctx;
	const struct cfg_service *service;
};

int back_init(struct back *back, const struct cfg_service *service) must_check;
void back_free(struct back *back);

/* A socket for the service's address, ready for ring_connect(). -errno on failure. */
int back_socket(const struct back *back) must_check;
/* Server name: what is asked for (SNI) and what the certificate must hold. Returns 0 or -ENOMEM. */
int back_expect_name(const struct back *back, SSL *ssl) must_check;

/* Is this alert about the certificate we presented? */
bool backend_alert_is_refusal(int alert);

/* Why the backend's handshake failed; presented: it has our certificate. */
enum reason backend_failure(const struct handshake *hs, bool presented);

#endif
