/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Resumption with backends: which session a flow may offer, and what it leaves
 * for the next one. A backend that resumes asks for no certificate: it goes by
 * the one it was shown when the session began. So a session is only ever offered
 * for the client of that handshake, who has been verified anew by then.
 */
#ifndef KTLSGATE_REUSE_H
#define KTLSGATE_REUSE_H

#include "forging/forging.h"
#include "conn/handshake.h"
#include "flow/session_cache.h"

/* A flow's. */
struct reuse {
	uint8_t key[SESSION_KEY_LEN];
	struct session
		*session;     /* the one offered, without der; then what the next is to be like */
	struct handshake *hs; /* TLS 1.3, in the relay: takes the backend's tickets in; owned */
};

/* Whose session with whom. */
struct reuse_ask {
	const struct cfg_vserver *vserver;
	const struct cfg_service *service;
	const struct identity *identity; /* that the backend is to be shown; NULL: nobody's */
	bool resumed;			 /* the client did: its proof is not of now */
	const struct sockaddr *address;	 /* the backend's */
	socklen_t address_len;
	const uint8_t *protocols; /* offered, as in alpn.h */
	size_t protocols_len;
};

/* ssl: the backend's, with the server name to ask for. NULL: out of memory. */
struct reuse *reuse_new(SSL *ssl, const struct reuse_ask *ask) must_check;
void reuse_free(struct reuse *r); /* NULL-safe */

/* Before ssl's ClientHello: the newest session there is, if it will do. */
void reuse_offer(struct reuse *r, struct session_cache *cache, struct stats *stats, SSL *ssl,
		 const struct reuse_ask *ask);

/*
 * ssl's handshake is complete: true if the backend took up the session; what is in
 * r->session then holds for this handshake too.
 */
bool reuse_taken(struct reuse *r, struct stats *stats, SSL *ssl) must_check;

/*
 * The flow is established: what can be kept of its session is. shown: what the backend was shown;
 * ignored where reuse_taken(). True: hs is r's from now on and waits for tickets, until
 * reuse_free().
 */
bool reuse_keep(struct reuse *r, struct session_cache *cache, struct stats *stats,
		const struct cfg_profile *back, struct handshake *hs,
		const struct session *shown) must_check;

/*
 * n bytes of NewSessionTicket messages from the backend, NULL: something else came. False: nothing
 * more is waited for.
 */
bool reuse_ticket(struct reuse *r, struct session_cache *cache, struct stats *stats,
		  const uint8_t *p, size_t n) must_check;

#endif
