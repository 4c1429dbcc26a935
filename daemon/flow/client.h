/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The front: what a vserver shows to clients, and how their certificates are
 * verified. One struct front per vserver, shared read-only by all workers.
 */
#ifndef KTLSGATE_CLIENT_H
#define KTLSGATE_CLIENT_H

#include <stdatomic.h>
#include "tls/fresh_tls.h"
#include "conn/handshake.h"
#include "conn/reason.h"
#include "tls/sni.h"
#include "tls/ticket.h"

struct front {
	const struct cfg_vserver *vserver;
	struct sni_table *sni;
	SSL_CTX **ctxs;		     /* by group of sni: they differ in their certificates only */
	struct verifier *verifier;   /* of clients; NULL when client_auth = off */
	struct ticket_keys *tickets; /* NULL: nobody resumes */
	bool forges;		     /* the vserver's services do: who resumes needs a token */
	struct fresh_source fresh;   /* what its handshakes show, if it forges */
	atomic_bool *stale; /* by certkey: it was said that its OCSP response is out of date */
};

/* The vserver's serving key must be loaded. fresh: borrowed; not used if nothing is forged. Returns
 * 0 or -errno after a log line. */
int front_init(struct front *front, const struct cfg_vserver *vserver,
	       const struct fresh *fresh) must_check;
void front_free(struct front *front);

/*
 * To be called from handshake.hello: chooses the certificates for the server name that the client
 * asked for, and the protocol. Returns SSL_CLIENT_HELLO_*; RETRY: the backend is to choose, see
 * front_offer() and front_choose(). On ERROR the handshake is refused for a reason of ours.
 */
int front_hello(const struct front *front, struct handshake *hs, int *alert) must_check;

/* The protocols to offer to the backend: what was chosen, else what the client offers; len 0: none.
 * The list is hs's, until it goes on. */
void front_offer(const struct handshake *hs, const uint8_t **list, size_t *len);

/* The backend has chosen (len 0: nothing): a client that waits for this goes on. */
void front_choose(struct handshake *hs, const uint8_t *name, size_t len);

/*
 * Prepares hs->ticket_data for a client with the verified chain (NULL: it has no
 * certificate) and the signer's token (NULL: none). False: it gets no ticket.
 */
bool front_ticket(const struct front *front, struct handshake *hs, const STACK_OF(X509) * chain,
		  const uint8_t *token) must_check;

/* Why the client's handshake failed. */
enum reason client_failure(const struct handshake *hs);

#endif
