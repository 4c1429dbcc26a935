// SPDX-License-Identifier: Apache-2.0
/* What OCSP says about the client's and the backend's certificates; both handshakes wait for it. */
#include "flow/flow_internal.h"

#include <errno.h>
#include "flow/flow.h"
#include "pki/identity.h"
#include "pki/verify.h"

/* What OCSP has to say about a certificate is known, or will not be. False: the flow has failed. */
static bool not_revoked(struct flow *f, enum side_role role, const struct ocsp_answer *a)
{
	bool client = role == SIDE_CLIENT;
	enum verify_revocation mode =
		client ? f->vserver->profile->client_ocsp : f->service->profile->server_ocsp;
	enum reason revoked = client ? REASON_client_cert_revoked : REASON_backend_cert_revoked;

	if (!a)
		flow_fail(f, REASON_no_memory, NULL);
	/* Elsewhere OpenSSL tells it. */
	else if (a->verdict == OCSP_REVOKED)
		flow_close(f, revoked,
			   client ? ALERT_CERTIFICATE_REVOKED : reasons[revoked].client_alert,
			   client ? reasons[revoked].backend_alert : ALERT_CERTIFICATE_REVOKED,
			   a->why);
	else if (a->verdict != OCSP_GOOD && mode == REVOCATION_MANDATORY)
		flow_fail(f, client ? REASON_client_ocsp_unknown : REASON_backend_ocsp_unknown,
			  a->why);
	return f->stage == FLOW_STAGE_HANDSHAKE;
}

static void client_revocation_known(struct flow *f, struct ocsp_answer *a)
{
	if (!not_revoked(f, SIDE_CLIENT, a))
		return;
	if (a->verdict == OCSP_GOOD)
		f->hs->ocsp = ocsp_answer_ref(a);
	flow_client_known(f);
}

static void backend_revocation_known(struct flow *f, struct ocsp_answer *a)
{
	if (!not_revoked(f, SIDE_BACKEND, a))
		return;
	f->hs->backend_trusted = true;
	flow_proceed(f);
}

static void client_ocsp_answered(struct ocsp_wait *w, struct ocsp_answer *a)
{
	struct flow_handshake *h = container_of(w, struct flow_handshake, ocsp_waits[SIDE_CLIENT]);

	client_revocation_known(h->flow, a);
}

static void backend_ocsp_answered(struct ocsp_wait *w, struct ocsp_answer *a)
{
	struct flow_handshake *h = container_of(w, struct flow_handshake, ocsp_waits[SIDE_BACKEND]);

	backend_revocation_known(h->flow, a);
}

/* Until it is known the client waits: in TLS 1.2 before its Finished is read, in TLS 1.3 behind it.
 */
void flow_ask_about_client(struct flow *f)
{
	struct ocsp_wait *w = &f->hs->ocsp_waits[SIDE_CLIENT];
	struct ocsp_ask ask = {.profile = f->vserver->profile, .chain = f->hs->identity->chain};
	struct ocsp_answer *a = NULL;

	w->done = client_ocsp_answered;
	if (responder_ask(&f->worker->responder, &ask, w, &a) == -EINPROGRESS)
		return;
	client_revocation_known(f, a);
	ocsp_answer_unref(a);
}

/* Until it is known the backend waits: for our certificate, or, if it wants none, for data. */
void flow_ask_about_backend(struct flow *f)
{
	struct ocsp_wait *w = &f->hs->ocsp_waits[SIDE_BACKEND];
	SSL *ssl = f->backend.hs->ssl;
	struct ocsp_ask ask = {.profile = f->service->profile,
			       .chain = SSL_get0_verified_chain(ssl)};
	long len = SSL_get_tlsext_status_ocsp_resp(ssl, &ask.staple);
	struct ocsp_answer *a = NULL;

	ask.staple_len = len > 0 ? (size_t)len : 0;
	w->done = backend_ocsp_answered;
	if (responder_ask(&f->worker->responder, &ask, w, &a) == -EINPROGRESS)
		return;
	backend_revocation_known(f, a);
	ocsp_answer_unref(a);
}
