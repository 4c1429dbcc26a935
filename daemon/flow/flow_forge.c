// SPDX-License-Identifier: Apache-2.0
/* The answer to a backend's CertificateRequest: a forged certificate, the fallback certificate, or
 * none. */
#include "flow/flow_internal.h"

#include <errno.h>
#include "flow/flow.h"
#include "pki/identity.h"

/* ---- forging ---- */

static void forging_done(struct forging *fg, enum reason reason, const char *detail)
{
	struct flow_handshake *h = container_of(fg, struct flow_handshake, forging);
	struct flow *f = h->flow;

	/* Unless the backend has been connected anew meanwhile: then the deadline is that one's. */
	if (h->backend_timeout == REASON_forge_timeout)
		timer_clear(&f->worker->timers, &h->backend_timer);
	if (reason == REASON_done)
		flow_proceed(f);
	else
		flow_fail(f, reason, detail);
}

/* True: the certificate is there; false: it is being made, or the flow has failed. */
static bool find_or_forge(struct flow *f)
{
	struct flow_handshake *h = f->hs;
	const struct handshake *client = f->client.hs;
	const char *detail;
	enum reason why;
	int ret;

	/* Without the client's proof nothing is shown to a backend, not from the cache either. */
	if (SSL_session_reused(client->ssl)) {
		if (!h->proof)
			h->proof_len =
				ticket_proof(h->identity->chain, client->resumed_token, &h->proof);
		if (!h->proof_len) {
			flow_fail(f, REASON_no_memory, NULL);
			return false;
		}
	} else if (!client->transcript_done) {
		if (client->transcript_no_memory)
			flow_fail(f, REASON_no_memory, NULL);
		else
			flow_fail(f, REASON_forge_failed, "handshake too long");
		return false;
	}
	if (h->forging.state == FORGING_IDLE)
		flow_backend_deadline(f, f->worker->gate->cfg->backend_handshake_timeout * 1000ull,
				      REASON_forge_timeout);
	h->forging.done = forging_done;
	h->ask = (struct forging_ask){.vserver = f->vserver,
				      .service = f->service,
				      .identity = h->identity,
				      .peer = (const struct sockaddr *)&f->peer,
				      .flow = f->id,
				      .transcript = h->proof ? h->proof : client->transcript,
				      .transcript_len =
					      h->proof ? h->proof_len : client->transcript_len,
				      .resumed = h->proof,
				      .ocsp = h->ocsp ? h->ocsp->der : NULL,
				      .ocsp_len = h->ocsp ? h->ocsp->len : 0};
	ret = forging_get(&f->worker->forger, &h->forging, f->backend.hs->ssl, &h->ask, &why,
			  &detail);
	if (ret && ret != -EINPROGRESS)
		flow_fail(f, why, detail);
	return !ret;
}

/* For a client that has no certificate, and need not have one. */
static void present_fallback(struct flow *f)
{
	const struct cfg_certkey *ck = f->service->profile->fallback_certkey;
	SSL *ssl = f->backend.hs->ssl;
	struct certreq request;

	/* Another service of the vserver has one. */
	if (!ck) {
		flow_client_cert_absent(f);
		return;
	}
	certreq_read(ssl, &request);
	if (!certreq_accepts(&request, X509_get0_pubkey(ck->cert))) {
		flow_fail(f, REASON_backend_key_type, "of fallback_certkey");
		return;
	}
	if (SSL_use_cert_and_key(ssl, ck->cert, ck->pkey, ck->chain, 1) != 1) {
		flow_fail(f, REASON_no_memory, NULL);
		return;
	}
	f->fallback = true;
	stat_inc(f->worker->stats, backend_fallback);
}

/* The forged certificate, with the whole chain of its issuer (rule 18), goes to the backend. */
static void present(struct flow *f)
{
	const struct forging *fg = &f->hs->forging;
	const struct cfg_certkey *ca = flow_back_profile(f)->forging_certkeys.items[fg->ca];
	struct handshake *hs = f->backend.hs;
	STACK_OF(X509) *chain = sk_X509_new_null();
	bool ok = chain && sk_X509_push(chain, ca->cert);

	for (int i = 0; ok && i < sk_X509_num(ca->chain); i++)
		ok = sk_X509_push(chain, sk_X509_value(ca->chain, i));
	ok = ok && SSL_use_cert_and_key(hs->ssl, fg->forged->cert, fg->forged->key, chain, 1);
	sk_X509_free(chain);
	if (!ok) {
		flow_fail(f, REASON_no_memory, NULL);
		return;
	}
	f->forged = true;
}

static void resume_backend(struct flow *f)
{
	f->hs->backend_resumed = true;
	ring_cancel(f->worker->ring, &f->backend.poll);
	flow_backend_deadline(f, f->worker->gate->cfg->backend_handshake_timeout * 1000ull,
			      REASON_backend_timeout);
	handshake_resume(f->backend.hs);
}

/* ---- the interlock ---- */

/* OpenSSL answers with an empty Certificate, in silence; what follows is for the backend to say. */
static void count_no_certificate(struct flow *f)
{
	if (f->hs->backend_given_none)
		return; /* it was connected anew */
	f->hs->backend_given_none = true;
	stat_inc(f->worker->stats, backend_no_certificate);
}

void flow_answer_certificate_request(struct flow *f)
{
	if (!flow_forges(f)) {
		count_no_certificate(f);
		resume_backend(f);
		return;
	}
	if (!f->hs->identity)
		present_fallback(f);
	else if (find_or_forge(f))
		present(f);
	else
		return;
	if (f->stage == FLOW_STAGE_HANDSHAKE)
		resume_backend(f);
}
