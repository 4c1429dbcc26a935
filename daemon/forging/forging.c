// SPDX-License-Identifier: Apache-2.0
/* Chooses, looks up, coalesces and asks; see forging.h. Knows no flow and no handshake. */
#include "forging/forging.h"

#include <errno.h>
#include <string.h>
#include <openssl/err.h>

#define STALE_S	   60 /* how long before its end a certificate is no longer handed out */
#define DETAIL_MAX 160

static void issued(struct issue *issue, const struct signer_response *r);

int forger_init(struct forger *f, struct ring *ring, int signer_fd, unsigned queue)
{
	LIST_INIT(&f->leaders);
	TAILQ_INIT(&f->keyless);
	return issuer_init(&f->issuer, ring, signer_fd, queue);
}

void forger_free(struct forger *f)
{
	issuer_free(&f->issuer);
}

/* ---- what is wanted ---- */

static const struct cfg_profile *profile_of(const struct forging_ask *ask)
{
	return ask->service->profile;
}

/* Another path is another validity, other rules are another certificate. */
static int make_key(const struct forging_ask *ask, unsigned ca, enum key_type type,
		    struct forge_key *key)
{
	const struct cfg_certkey *ck = profile_of(ask)->forging_certkeys.items[ca];

	*key = (struct forge_key){.profile = profile_of(ask)->index, .key_type = type};
	if (ask->vserver->profile->session_tickets)
		key->vserver = ask->vserver->index + 1;
	memcpy(key->fingerprint, ask->identity->fingerprint, FINGERPRINT_LEN);
	if (identity_chain_digest(ask->identity, key->chain))
		return -ENOMEM;
	return identity_fingerprint(ck->cert, key->issuer);
}

/* Rules 16 and 17. */
static int choose(SSL *ssl, const struct cfg_profile *profile, enum key_type *type, unsigned *ca,
		  enum reason *why)
{
	int chosen = certreq_choose_ca(ssl, &profile->forging_certkeys);
	struct certreq request;

	certreq_read(ssl, &request);
	*type = certreq_key_type(&request, profile->forge.key);
	*ca = chosen < 0 ? 0 : (unsigned)chosen;
	if (*type == KEY_TYPES) {
		*why = REASON_backend_key_type;
		return -EACCES;
	}
	if (chosen < 0 && profile->forge.no_matching_ca == NO_MATCHING_CA_FAIL) {
		*why = REASON_backend_ca_names;
		return -EACCES;
	}
	return 0;
}

/* ---- waiting ---- */

static void unlink_forging(struct forging *fg)
{
	if (fg->state == FORGING_NEEDS_KEY)
		TAILQ_REMOVE(&fg->forger->keyless, fg, keyless_link);
	if (fg->state != FORGING_IDLE)
		LIST_REMOVE(fg, link);
	fg->state = FORGING_IDLE;
}

/* Those that waited for fg's certificate look again, and the first may have to ask itself. */
static void release_waiters(struct forging *fg)
{
	struct forging *waiter;

	while ((waiter = LIST_FIRST(&fg->waiters))) {
		unlink_forging(waiter);
		waiter->done(waiter, REASON_done, NULL);
	}
}

static void finish(struct forging *fg, enum reason reason, const char *detail)
{
	unlink_forging(fg);
	release_waiters(fg);
	fg->done(fg, reason, detail);
}

void forging_cancel(struct forging *fg)
{
	if (fg->state == FORGING_ASKS)
		issue_cancel(&fg->forger->issuer, &fg->issue);
	if (fg->state != FORGING_IDLE) {
		unlink_forging(fg);
		release_waiters(fg);
	}
	EVP_PKEY_free(TAKE_PTR(fg->new_key));
	forged_unref(TAKE_PTR(fg->forged));
}

static struct forging *find_leader(struct forger *f, const struct forge_key *key)
{
	struct forging *fg;

	LIST_FOREACH (fg, &f->leaders, link) {
		if (!memcmp(&fg->key, key, sizeof(*key)))
			return fg;
	}
	return NULL;
}

/* ---- asking ---- */

static int ask_signer(struct forging *fg)
{
	const struct forging_ask *ask = fg->ask;
	const struct signer_ask request = {
		.vserver = ask->vserver->index,
		.service = ask->service->index,
		.ca = fg->ca,
		.flow = ask->flow,
		.peer = ask->peer,
		.key = fg->new_key,
		.transcript = ask->transcript,
		.transcript_len = ask->transcript_len,
		.resumed = ask->resumed,
		.ocsp = ask->ocsp,
		.ocsp_len = ask->ocsp_len,
	};

	fg->state = FORGING_ASKS;
	fg->issue.done = issued;
	return issue_start(&fg->forger->issuer, &fg->issue, &request);
}

/* Why the signer was not even asked. */
static enum reason ask_reason(int error)
{
	return error == -EBUSY ? REASON_forge_queue : REASON_forge_failed;
}

/* A P-256 key comes from the signer. False: there is none now. */
static bool take_key(struct forging *fg)
{
	if (fg->key_type == KEY_P256)
		return true;
	fg->new_key = keymaker_take(fg->forger->keys, fg->forger->wake_fd);
	return fg->new_key;
}

/* 0 or -EINPROGRESS; on another error fg is idle. */
static int lead(struct forging *fg)
{
	struct forger *f = fg->forger;

	LIST_INIT(&fg->waiters);
	LIST_INSERT_HEAD(&f->leaders, fg, link);
	if (take_key(fg)) {
		int ret = ask_signer(fg);

		if (!ret)
			return -EINPROGRESS;
		unlink_forging(fg);
		/* Making room in the issuer's line may have let others look, and wait for this. */
		release_waiters(fg);
		return ret;
	}
	fg->state = FORGING_NEEDS_KEY;
	TAILQ_INSERT_TAIL(&f->keyless, fg, keyless_link);
	stat_inc(f->stats, forge_key_waits);
	return -EINPROGRESS;
}

void forger_woken(struct forger *f)
{
	struct forging *fg;

	while ((fg = TAILQ_FIRST(&f->keyless))) {
		int ret;

		if (!take_key(fg))
			return;
		TAILQ_REMOVE(&f->keyless, fg, keyless_link);
		ret = ask_signer(fg);
		if (ret)
			finish(fg, ask_reason(ret), NULL);
	}
}

bool forging_stale(const struct cfg_profile *front, bool resumed, const struct forged *forged)
{
	return front->session_tickets && !resumed &&
	       (!forged->has_token ||
		token_end(forged->token) - time(NULL) < (time_t)front->ticket_lifetime / 2);
}

int forging_get(struct forger *f, struct forging *fg, SSL *ssl, const struct forging_ask *ask,
		enum reason *why, const char **detail)
{
	struct forging *leader;
	struct forge_key key;
	enum key_type type;
	unsigned ca;
	int ret;

	*detail = NULL;
	if (fg->state != FORGING_IDLE)
		return -EINPROGRESS;
	ret = choose(ssl, profile_of(ask), &type, &ca, why);
	if (ret)
		return ret;
	*why = REASON_no_memory;
	if (make_key(ask, ca, type, &key))
		return -EACCES;
	/* The backend may have been connected anew, and have asked for something else. */
	if (fg->forged && !memcmp(&fg->key, &key, sizeof(key)))
		return 0;
	forged_unref(TAKE_PTR(fg->forged));
	fg->forger = f;
	fg->ask = ask;
	fg->key = key;
	fg->key_type = type;
	fg->ca = ca;
	fg->forged = forge_cache_get(f->cache, &key, time(NULL));
	if (fg->forged && forging_stale(ask->vserver->profile, ask->resumed, fg->forged))
		forged_unref(TAKE_PTR(fg->forged));
	if (fg->forged) {
		stat_inc(f->stats, forge_cache_hits);
		return 0;
	}
	leader = find_leader(f, &key);
	if (leader) {
		stat_inc(f->stats, forge_coalesced);
		fg->state = FORGING_WAITS;
		LIST_INIT(&fg->waiters);
		LIST_INSERT_HEAD(&leader->waiters, fg, link);
		return -EINPROGRESS;
	}
	stat_inc(f->stats, forge_cache_misses);
	ret = lead(fg);
	if (ret == -EINPROGRESS)
		return ret;
	*why = ask_reason(ret);
	return -EACCES;
}

/* ---- the answer ---- */

/* Why the signer refused, as a reason of ours. */
static enum reason signer_reason(const struct signer_response *r)
{
	switch (r->status) {
	case SIGNER_NO_PROOF:
		return REASON_forge_proof;
	case SIGNER_CHAIN:
		return REASON_forge_chain;
	case SIGNER_RULE:
		return REASON_forge_rule;
	case SIGNER_REPLAY:
		return REASON_forge_replay;
	case SIGNER_STALE:
		return REASON_forge_stale;
	case SIGNER_FULL:
		return REASON_forge_full;
	case SIGNER_TOKEN:
		return REASON_forge_token;
	case SIGNER_POLICY:
		return REASON_forge_policy;
	case SIGNER_RATE:
		return REASON_forge_rate;
	case SIGNER_AUDIT:
		return REASON_forge_audit;
	default:
		return REASON_forge_failed;
	}
}

/*
 * A backend that checks dates at every request must not meet one that ends in
 * the next moment; unless there is no other, because the original ends then.
 */
static time_t hand_out_until(time_t not_after)
{
	return not_after - time(NULL) > 2 * STALE_S ? not_after - STALE_S : not_after;
}

static struct forged *take_issued(struct forging *fg, const struct signer_response *r)
{
	const uint8_t *der = r->data + r->key_len;
	X509 *cert = d2i_X509(NULL, &der, (long)r->cert_len);
	time_t not_after;

	if (cert && r->key_len)
		fg->new_key = new_key_restore(cert, r->data);
	/* Whatever else has gone wrong, a certificate for another key is another's. */
	if (!cert || !fg->new_key || EVP_PKEY_eq(X509_get0_pubkey(cert), fg->new_key) != 1 ||
	    identity_time(X509_get0_notAfter(cert), &not_after)) {
		X509_free(cert);
		return NULL;
	}
	if (fg->ask->identity->not_after < not_after)
		not_after = fg->ask->identity->not_after;
	return forged_new(cert, TAKE_PTR(fg->new_key), hand_out_until(not_after));
}

static void issued(struct issue *issue, const struct signer_response *r)
{
	struct forging *fg = container_of(issue, struct forging, issue);
	struct forger *f = fg->forger;
	char text[DETAIL_MAX];

	if (!r && issue->dropped) {
		finish(fg, REASON_forge_queue, NULL);
		return;
	}
	if (!r) {
		finish(fg, REASON_forge_failed, "out of reach");
		return;
	}
	if (r->status != SIGNER_OK) {
		signer_status_text(r, text, sizeof(text));
		/* Where the reason says it all, it is not said twice. */
		finish(fg, signer_reason(r),
		       r->status == SIGNER_AUDIT || r->status == SIGNER_RATE ? NULL : text);
		return;
	}
	fg->forged = take_issued(fg, r);
	if (!fg->forged) {
		finish(fg, REASON_no_memory, NULL);
		return;
	}
	fg->forged->has_token = r->has_token;
	memcpy(fg->forged->token, r->token, TOKEN_LEN);
	stat_inc(f->stats, forged);
	if (forge_cache_put(f->cache, &fg->key, fg->forged))
		stat_inc(f->stats, forge_cache_evictions);
	finish(fg, REASON_done, NULL);
}
