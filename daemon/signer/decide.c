// SPDX-License-Identifier: Apache-2.0
/* What a request must prove before a certificate is issued. The signer believes a worker nothing.
 */
#include "signer/signer_internal.h"

#include <signal.h>
#include <string.h>
#include <time.h>
#include "signer/audit.h"
#include "signer/ca_policy.h"
#include "signer/signer.h"
#include "base/timer.h"
#include "tls/token.h"
#include "pki/verify.h"

#define RSA_MIN_BITS 2048
#define RSA_MAX_BITS 4096 /* a larger key only costs time */
#define TOKEN_USES   8	  /* in an epoch, beyond one for each worker */

/* Who the client is, as far as it was proved to us. */
struct proof {
	X509 *leaf;
	STACK_OF(X509) * untrusted;
	uint8_t digest[TRANSCRIPT_DIGEST_LEN]; /* of the transcript, if it is one */
	uint64_t epoch;			       /* of the transcript */
	bool has_token;
	uint8_t token[TOKEN_LEN];
};

static struct verdict take_key(const struct request *req, EVP_PKEY **key);

static void proof_free(struct proof *p)
{
	X509_free(p->leaf);
	sk_X509_pop_free(p->untrusted, X509_free);
}

#define scoped_proof __attribute__((cleanup(proof_free))) struct proof

static const struct cfg_service *find_service(const struct cfg_vserver *v, uint32_t index)
{
	for (unsigned i = 0; i < v->services.n; i++) {
		if (cfg_service_at(v, i)->index == index)
			return cfg_service_at(v, i);
	}
	return NULL;
}

/* Who may ask: a forging vserver, for a service of its own, with one of that service's CAs. */
static const struct forging *find_forging(const struct signer *s, const struct signer_request *head)
{
	const struct cfg_service *service;
	const struct forging *forging;

	if (head->vserver >= s->n_issuers || !s->issuers[head->vserver].verifier)
		return NULL;
	service = find_service(s->issuers[head->vserver].vserver, head->service);
	if (!service)
		return NULL;
	forging = &s->forgings[service->profile->index];
	return head->ca < forging->n_cas ? forging : NULL;
}

/* Of a request that find_forging() has found good. */
static const struct cfg_certkey *ca_of(const struct signer *s, const struct signer_request *head)
{
	const struct cfg_profile *profile = s->cfg->services[head->service]->profile;

	return profile->forging_certkeys.items[head->ca];
}

/* In the log before it is in anybody's hands. */
static int audit_issued(struct signer *s, const struct signer_request *head, X509 *original,
			X509 *forged)
{
	const struct cfg_service *service = s->cfg->services[head->service];
	const struct audit_entry entry = {
		.vserver = s->issuers[head->vserver].vserver,
		.service = service,
		.ca = ca_of(s, head),
		.flow = head->flow,
		.family = head->family,
		.port = head->port,
		.peer = head->peer,
		.original = original,
		.forged = forged,
	};

	return audit_write(s->audit, &entry);
}

/* What the worker found out; it is believed no more than what the responder has signed. */
static int ocsp_error(const struct issuer *is, const struct request *req, STACK_OF(X509) * chain,
		      time_t now)
{
	enum verify_revocation mode = is->vserver->profile->client_ocsp;
	enum ocsp_verdict verdict = OCSP_NO_ANSWER;
	const char *why;
	time_t until;

	if (mode != REVOCATION_OFF && req->head.ocsp_len && sk_X509_num(chain) > 1)
		verdict = ocsp_judge(req->ocsp, req->head.ocsp_len, sk_X509_value(chain, 0),
				     sk_X509_value(chain, 1), now, &until, &why);
	if (verdict == OCSP_REVOKED)
		return X509_V_ERR_CERT_REVOKED;
	return mode == REVOCATION_MANDATORY && verdict != OCSP_GOOD ? VERIFY_ERR_OCSP : X509_V_OK;
}

/* When and where the client signed: recently, and here. */
static struct verdict check_fresh(const struct signer *s, const struct issuer *is,
				  const uint8_t *value, uint64_t *epoch)
{
	struct fresh_place place = {.generation = s->memory.generation,
				    .vserver = is->vserver->name};

	if (!fresh_check(replay_secret(s->memory.seen), &place, value))
		return (struct verdict){SIGNER_STALE, STALE_FOREIGN};
	*epoch = place.epoch;
	if (replay_epoch(s->memory.seen) - place.epoch > s->window)
		return (struct verdict){SIGNER_STALE, STALE_OLD};
	return (struct verdict){SIGNER_OK, 0};
}

static struct verdict replay_verdict(enum replay_verdict v)
{
	static const enum signer_status statuses[] = {[REPLAY_NEW] = SIGNER_OK,
						      [REPLAY_SEEN] = SIGNER_REPLAY,
						      [REPLAY_FULL] = SIGNER_FULL};

	return (struct verdict){statuses[v], 0};
}

/* A handshake of its own, signed by the client, fresh, and not used before. */
static struct verdict prove_by_transcript(struct signer *s, const struct issuer *is,
					  const struct request *req, struct proof *out)
{
	uint8_t fresh[FRESH_LEN];
	enum transcript_error proof;
	struct verdict v;

	if (!transcript_digest(req->transcript, req->head.transcript_len, out->digest))
		return (struct verdict){SIGNER_NO_PROOF, TRANSCRIPT_MALFORMED};
	v = replay_verdict(replay_look(s->memory.seen, out->digest));
	if (v.status != SIGNER_OK)
		return v;
	proof = transcript_verify(req->transcript, req->head.transcript_len,
				  (const uint8_t(*)[TRANSCRIPT_SERVER_LEN])is->servers,
				  is->n_servers, &out->leaf, &out->untrusted, fresh);
	if (proof != TRANSCRIPT_OK)
		return (struct verdict){SIGNER_NO_PROOF, proof};
	return check_fresh(s, is, fresh, &out->epoch);
}

/* Whom a token is for. False: no memory. */
static bool token_claim(const struct signer *s, const struct cfg_vserver *v, X509 *leaf,
			struct token_claim *out)
{
	out->generation = s->memory.generation;
	out->vserver = v->name;
	return !identity_fingerprint(leaf, out->fingerprint);
}

static bool is_our_token(const struct signer *s, const struct token_claim *claim, time_t now,
			 const uint8_t *token)
{
	uint8_t keys[2][TOKEN_KEY_LEN];
	bool ours = replay_token_keys(s->memory.seen, s->token_life, keys) &&
		    (token_check(keys[0], claim, now, token) ||
		     token_check(keys[1], claim, now, token));

	OPENSSL_cleanse(keys, sizeof(keys));
	return ours;
}

/* Our own word that the client did so to this vserver, a while ago. */
static struct verdict prove_by_token(struct signer *s, const struct issuer *is,
				     const struct request *req, time_t now, struct proof *out)
{
	const struct cfg_vserver *v = is->vserver;
	struct token_claim claim;
	const uint8_t *token;

	if (!v->profile->session_tickets ||
	    !ticket_proof_read(req->transcript, req->head.transcript_len, &token, &out->leaf,
			       &out->untrusted) ||
	    !token_claim(s, v, out->leaf, &claim) || !is_our_token(s, &claim, now, token))
		return (struct verdict){SIGNER_TOKEN, TOKEN_INVALID};
	/* As it is: to resume does not make the proof any younger. */
	memcpy(out->token, token, TOKEN_LEN);
	out->has_token = true;
	return (struct verdict){SIGNER_OK, 0};
}

static void give_token(struct signer *s, const struct cfg_vserver *v, time_t now,
		       struct proof *proof)
{
	uint8_t keys[2][TOKEN_KEY_LEN];
	struct token_claim claim;

	if (proof->has_token || !v->profile->session_tickets)
		return;
	proof->has_token = token_claim(s, v, proof->leaf, &claim) &&
			   replay_token_keys(s->memory.seen, s->token_life, keys) &&
			   token_make(keys[0], &claim, now + (time_t)v->profile->ticket_lifetime,
				      proof->token);
	OPENSSL_cleanse(keys, sizeof(keys));
}

/* What a token was used for: the nth time in an epoch, for a service, a CA and a kind of key. */
static bool token_use(const struct signer_request *head, const uint8_t *token, uint64_t epoch,
		      unsigned n, uint8_t out[REPLAY_DIGEST_LEN])
{
	struct {
		char label[24];
		uint64_t epoch;
		uint32_t service, ca, rsa, n;
		uint8_t token[TOKEN_LEN];
	} text = {.label = "ktlsgate token use",
		  .epoch = epoch,
		  .service = head->service,
		  .ca = head->ca,
		  .rsa = head->key_len != 0,
		  .n = n};

	memcpy(text.token, token, TOKEN_LEN);
	return EVP_Digest(&text, sizeof(text), out, NULL, EVP_sha256(), NULL) == 1;
}

/*
 * A token is for as many certificates as it takes, but not for a storm: what has been issued is in
 * the workers' cache. Each of them may miss it there once at the same time.
 */
static struct verdict take_token(struct signer *s, const struct request *req, const uint8_t *token)
{
	uint64_t epoch = replay_epoch(s->memory.seen);
	uint8_t digest[REPLAY_DIGEST_LEN];

	for (unsigned n = 0; n < s->n + TOKEN_USES; n++) {
		enum replay_verdict v;

		if (!token_use(&req->head, token, epoch, n, digest))
			return (struct verdict){SIGNER_RULE, FORGE_MEMORY};
		v = replay_add(s->memory.seen, digest, epoch);
		if (v != REPLAY_SEEN)
			return replay_verdict(v);
	}
	return (struct verdict){SIGNER_TOKEN, TOKEN_EXHAUSTED};
}

static struct verdict take_place(struct signer *s, const struct request *req,
				 const struct proof *proof)
{
	if (req->head.resumed)
		return take_token(s, req, proof->token);
	return replay_verdict(replay_add(s->memory.seen, proof->digest, proof->epoch));
}

/* out: only the token is set */
struct verdict signer_decide(struct signer *s, const struct request *req, time_t now,
			     struct signer_response *out, EVP_PKEY **key, X509 **cert)
{
	scoped_proof proof = {0};
	scoped_certs *chain = NULL;
	scoped_identity *id = NULL;
	struct verify_result chain_verdict;
	const struct forging *forging = find_forging(s, &req->head);
	const struct cfg_certkey *ca;
	const struct issuer *is;
	struct forge_policy policy;
	enum ca_refusal refusal;
	enum forge_error forged;
	struct verdict v;
	int revoked;

	if (!forging)
		return (struct verdict){SIGNER_BAD_REQUEST, 0};
	is = &s->issuers[req->head.vserver];
	v = take_key(req, key);
	if (v.status != SIGNER_OK)
		return v;

	v = req->head.resumed ? prove_by_token(s, is, req, now, &proof)
			      : prove_by_transcript(s, is, req, &proof);
	if (v.status != SIGNER_OK)
		return v;
	if (verify_chain(is->verifier, VERIFY_CLIENT, proof.leaf, proof.untrusted, now,
			 &chain_verdict) < 0)
		return (struct verdict){SIGNER_CHAIN, chain_verdict.error};
	chain = chain_verdict.chain;
	revoked = ocsp_error(is, req, chain, now);
	if (revoked != X509_V_OK)
		return (struct verdict){SIGNER_CHAIN, revoked};
	id = identity_new(chain);
	if (!id)
		return (struct verdict){SIGNER_RULE, FORGE_MEMORY};
	TAKE_PTR(chain);

	ca = ca_of(s, &req->head);
	refusal = ca_policy_check(&s->policies[ca->index], id);
	if (refusal != CA_MAY)
		return (struct verdict){SIGNER_POLICY, refusal};

	policy = forging->policy;
	if (ca->policy.lifespan && ca->policy.lifespan < policy.lifespan)
		policy.lifespan = ca->policy.lifespan;
	forged = forge_certificate(&forging->cas[req->head.ca], id, *key, &policy, now, NULL, cert);
	OPENSSL_cleanse(&policy, sizeof(policy));
	if (forged != FORGE_OK)
		return (struct verdict){SIGNER_RULE, forged};
	/* Last: what is refused for another reason uses nothing up. */
	if (!ca_policy_take(&s->policies[ca->index], timer_clock())) {
		X509_free(TAKE_PTR(*cert));
		return (struct verdict){SIGNER_RATE, 0};
	}
	/* Here at last it takes a place: what is refused for another reason takes none. */
	v = take_place(s, req, &proof);
	if (v.status != SIGNER_OK) {
		X509_free(TAKE_PTR(*cert));
		return v;
	}
	if (s->audit && audit_issued(s, &req->head, id->leaf, *cert) < 0) {
		X509_free(TAKE_PTR(*cert));
		return (struct verdict){SIGNER_AUDIT, 0};
	}
	give_token(s, is->vserver, now, &proof);
	out->has_token = proof.has_token;
	memcpy(out->token, proof.token, TOKEN_LEN);
	return (struct verdict){SIGNER_OK, 0};
}

/* Made here, or proved to be the asker's: never anybody else's. */
static struct verdict take_key(const struct request *req, EVP_PKEY **key)
{
	const struct signer_request *head = &req->head;
	const struct new_key_claim claim = {.vserver = head->vserver,
					    .service = head->service,
					    .ca = head->ca,
					    .proof = req->transcript,
					    .proof_len = head->transcript_len};

	if (!head->key_len && !head->signature_len)
		*key = EVP_EC_gen("P-256");
	else
		*key = signer_parse_key(req->key, head->key_len);
	if (!*key)
		return (struct verdict){SIGNER_BAD_REQUEST, 0};
	if (head->key_len && !new_key_verify(*key, &claim, req->signature, head->signature_len))
		return (struct verdict){SIGNER_KEY, 0};
	return (struct verdict){SIGNER_OK, 0};
}

/* NULL unless der is exactly one public key of a kind that an asker may bring. */
EVP_PKEY *signer_parse_key(const uint8_t *der, size_t len)
{
	const uint8_t *p = der;
	scoped_pkey *key = d2i_PUBKEY(NULL, &p, (long)len);

	if (!key || p != der + len || !signer_key_is_fit(key))
		return NULL;
	return TAKE_PTR(key);
}

bool signer_key_is_fit(EVP_PKEY *key)
{
	scoped_pkey_ctx *ctx = NULL;
	int bits = EVP_PKEY_get_bits(key);

	if (!EVP_PKEY_is_a(key, "RSA") || bits < RSA_MIN_BITS || bits > RSA_MAX_BITS)
		return false;
	ctx = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);
	return ctx && EVP_PKEY_public_check_quick(ctx) == 1;
}
