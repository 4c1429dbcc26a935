/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A worker's OCSP client: asks a responder over HTTP, with one request in flight
 * for a certificate however many flows wait for it, and keeps the answers until
 * their nextUpdate. Nothing blocks. Knows no flow.
 */
#ifndef KTLSGATE_RESPONDER_H
#define KTLSGATE_RESPONDER_H

#include <sys/queue.h>
#include "config/config.h"
#include "pki/identity.h"
#include "pki/ocsp.h"
#include "base/ring.h"
#include "conn/stats.h"
#include "base/timer.h"

#define RESPONDER_BUCKETS 512

/* What is known of a certificate. Shared by references, within the worker. */
struct ocsp_answer {
	unsigned refs;
	enum ocsp_verdict verdict;
	time_t until;
	char why[96];  /* one phrase: why there is no answer, or who says "revoked" */
	uint32_t len;  /* of the response, 0: none came that could be believed */
	uint8_t der[]; /* for the signer */
};

struct ocsp_query;

/* A flow that waits. All zero but done to begin with. */
struct ocsp_wait {
	/* Called once after -EINPROGRESS, unless responder_cancel() came first. Borrowed. */
	void (*done)(struct ocsp_wait *w, struct ocsp_answer *a);
	struct ocsp_query *query; /* NULL: it does not wait */
	LIST_ENTRY(ocsp_wait) link;
};

struct ocsp_entry;

struct responder {
	struct ring *ring;
	struct timers *timers;
	struct stats *stats;
	struct timer timer; /* of the query that expires first */
	LIST_HEAD(, ocsp_entry) buckets[RESPONDER_BUCKETS];
	TAILQ_HEAD(, ocsp_entry) entries;	      /* least recently used first */
	TAILQ_HEAD(ocsp_queries, ocsp_query) queries; /* asked or about to be, oldest first */
	LIST_HEAD(, ocsp_query) closing;	      /* their last completion is still out */
	unsigned n_entries, n_active;
};

/* Whose certificate; everything is borrowed for the call. */
struct ocsp_ask {
	const struct cfg_profile *profile; /* has the responders, if any, and the time-out */
	const STACK_OF(X509) * chain;	   /* verified: the certificate, its issuer, others */
	const uint8_t *staple;		   /* a response that came with the certificate */
	size_t staple_len;		   /* 0: none did */
};

/* One timer of timers is its own: the caller has reserved it. */
void responder_init(struct responder *r, struct ring *ring, struct timers *timers,
		    struct stats *stats);
/* When the ring is gone. */
void responder_free(struct responder *r);

/*
 * A stapled response that can be believed is the answer; else the responder is asked, if there is
 * one. 0: *a is what is known, a reference for the caller. -EINPROGRESS: w->done() is called.
 * -ENOMEM.
 */
int responder_ask(struct responder *r, const struct ocsp_ask *ask, struct ocsp_wait *w,
		  struct ocsp_answer **a) must_check;
void responder_cancel(struct ocsp_wait *w);

struct ocsp_answer *ocsp_answer_ref(struct ocsp_answer *a);
void ocsp_answer_unref(struct ocsp_answer *a); /* NULL-safe */

#endif
