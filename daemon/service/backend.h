/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The back: how a service is connected to and verified. One struct back per
 * service, shared read-only by all workers.
 */
#ifndef KTLSGATE_BACKEND_H
#define KTLSGATE_BACKEND_H

#include "conn/handshake.h"
#include "conn/reason.h"

struct back {
	SSL_CTX *ctx;
	struct verifier *verifier;
	const struct cfg_service *service;
};

int back_init(struct back *back, const struct cfg_service *service) must_check;
void back_free(struct back *back);

/* A socket for an address of this family, ready for ring_connect(). -errno on failure. */
int back_socket(sa_family_t family) must_check;
/* An errno of connect(2) that is about this machine, and says nothing about the service. */
bool back_error_is_ours(int error) must_check;
/*
 * What the certificate must hold and what is asked for (SNI): the service's server_name, or with
 * sni = mirror, for the latter, client_name, unless that is empty. Returns 0 or -ENOMEM.
 */
int back_expect_name(const struct back *back, SSL *ssl, const char *client_name) must_check;
/* A list as in alpn.h; len 0: none. Returns 0 or -ENOMEM. */
int back_offer(SSL *ssl, const uint8_t *list, size_t len) must_check;

/* Is this alert about the certificate we presented? */
bool backend_alert_is_refusal(int alert);

/* Why the backend's handshake failed; presented: it has our certificate. */
enum reason backend_failure(const struct handshake *hs, bool presented);

#endif
