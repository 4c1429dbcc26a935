/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The forging stage of a worker: from a verified client and a backend's
 * CertificateRequest to the certificate to present. Chooses key and CA, looks
 * into the cache, waits for another flow of the same client, or asks the signer.
 * Nothing blocks.
 */
#ifndef KTLSGATE_FORGING_H
#define KTLSGATE_FORGING_H

#include "forging/certreq.h"
#include "forging/forge_cache.h"
#include "forging/issuer.h"
#include "conn/reason.h"
#include "conn/stats.h"

/* A worker's. Everything but issuer and the lists is borrowed. */
struct forger {
	struct issuer issuer;
	struct forge_cache *cache;
	struct keymaker *keys;
	struct stats *stats;
	int wake_fd;				   /* eventfd, written when there are keys again */
	LIST_HEAD(, forging) leaders;		   /* those that ask the signer */
	TAILQ_HEAD(forging_list, forging) keyless; /* those that wait for a key */
};

/* A flow's. All zero but done to begin with. */
struct forging {
	/*
	 * Called once after forging_get() said -EINPROGRESS, unless forging_cancel()
	 * came first. REASON_done: call forging_get() again. detail may be NULL.
	 */
	void (*done)(struct forging *fg, enum reason reason, const char *detail);

	/* set by forging_get() */
	struct forged *forged; /* a reference of ours, or NULL */
	unsigned ca;	       /* whose: index among the profile's forging CAs */

	/* private */
	enum forging_state {
		FORGING_IDLE,
		FORGING_NEEDS_KEY,
		FORGING_ASKS,
		FORGING_WAITS
	} state;
	struct forger *forger;
	struct forge_key key; /* of the certificate wanted, or there */
	enum key_type key_type;
	const struct forging_ask *ask;
	EVP_PKEY *new_key;
	struct issue issue;
	LIST_HEAD(, forging) waiters;
	LIST_ENTRY(forging) link; /* among leaders or waiters */
	TAILQ_ENTRY(forging) keyless_link;
};

/* For whom; stays until done() or forging_cancel(). */
struct forging_ask {
	const struct cfg_vserver *vserver;
	const struct cfg_service *service;
	const struct identity *identity;
	const struct sockaddr *peer;
	uint64_t flow;
	const uint8_t *transcript;
	size_t transcript_len;
	bool resumed;	     /* transcript is a ticket_proof() instead */
	const uint8_t *ocsp; /* the response that says the client is good, or NULL */
	size_t ocsp_len;
};

int forger_init(struct forger *f, struct ring *ring, int signer_fd, unsigned queue) must_check;
void forger_free(struct forger *f);
/* wake_fd was written to: those without a key try again. */
void forger_woken(struct forger *f);

/*
 * ssl: the backend's, at its CertificateRequest. 0: fg->forged may be presented,
 * with the chain of CA fg->ca. -EINPROGRESS: done() is called later; asking again
 * meanwhile is harmless. -EACCES: it cannot be; *why and *detail (may be NULL) say why.
 */
int forging_get(struct forger *f, struct forging *fg, SSL *ssl, const struct forging_ask *ask,
		enum reason *why, const char **detail) must_check;
/*
 * A client that did not resume has just proved who it is, and may resume for as long as that is
 * good for: an older proof's token, kept with the certificate, would cut it short.
 */
bool forging_stale(const struct cfg_profile *front, bool resumed,
		   const struct forged *forged) must_check;
/* Gives up whatever goes on, and what is there. */
void forging_cancel(struct forging *fg);

#endif
