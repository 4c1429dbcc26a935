// SPDX-License-Identifier: Apache-2.0
/* The client's handshake: its beginning, its events, who the client is, and the ticket at the end.
 */
#include "flow/flow_internal.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include "flow/flow.h"
#include "pki/identity.h"
#include "pki/verify.h"

static void on_client(struct handshake *hs, enum handshake_event ev);

/* ---- accept ---- */

void flow_client_expired(struct timer *t)
{
	struct flow *f = container_of(t, struct flow, timer);
	enum reason reason = REASON_client_timeout;

	/* It may be us, or with the client through somebody else, who takes so long. */
	if (f->hs->waiting)
		reason = REASON_overloaded;
	else if (!f->hs->hello_done && flow_handshake_left(f))
		reason = REASON_client_hello_timeout;
	else if (f->hs->awaits_early)
		reason = REASON_no_early_connect;
	else if (f->hs->client_verified && f->hs->ocsp_waits[SIDE_BACKEND].query)
		reason = REASON_backend_ocsp_unknown;
	else if (f->hs->client_verified && !f->hs->backend_done && f->hs->backend_timeout)
		reason = f->hs->backend_timeout;
	flow_fail(f, reason, NULL);
}

/* ---- the client's turn ---- */

/* More than any ClientHello that is sent today. */
#define HELLO_ENOUGH 4096

/*
 * Its first record is there, or as much of it as says enough: until then the bytes wait in the
 * kernel, where they cost least. What is no handshake record is there, too: whoever reads it will
 * say so.
 */
static bool has_spoken(const struct flow *f)
{
	uint8_t *p = f->worker->env.in;
	ssize_t n = recv(f->client.fd, p, HELLO_ENOUGH, MSG_PEEK | MSG_DONTWAIT);
	int queued;

	if (n > 0 && p[0] != RECORD_HANDSHAKE)
		return true;
	if (n == HELLO_ENOUGH || (n >= RECORD_HEADER && n >= RECORD_HEADER + (p[3] << 8 | p[4])))
		return true;
	/* recv() stops in front of urgent data, however often it is asked; who reads gets past it.
	 */
	return n > 0 && !ioctl(f->client.fd, SIOCINQ, &queued) && queued > n;
}

static void client_speaks(struct ring_op *op, int res)
{
	struct side *s = container_of(op, struct side, poll);
	struct flow *f = s->flow;

	if (f->stage != FLOW_STAGE_HANDSHAKE) {
		flow_side_ready(op, res);
	} else if (res < 0 || res & (POLLERR | POLLHUP) || (f->hs->waiting && res & POLLRDHUP)) {
		flow_fail(f, REASON_client_gone, res < 0 ? strerror(-res) : NULL);
	} else if (!f->hs->waiting && (res & POLLRDHUP || has_spoken(f))) {
		flow_await_turn(f->hs);
		flow_client_deadline(f, UINT64_MAX); /* it waits for us now */
	} else if (!f->hs->waiting && !op->armed) {
		flow_await_client(f); /* the kernel may end a multishot poll, and more is to come */
	}
}

void flow_await_client(struct flow *f)
{
	f->client.poll.done = client_speaks;
	ring_poll_multishot(f->worker->ring, &f->client.poll, f->client.fd, POLLIN | POLLRDHUP);
}

/* Whatever the way is that leads back here (NAT, a name, a balancer), the random is the same. */
static bool is_our_own(struct handshake *hs, struct hellos *hellos)
{
	const struct cfg_service *service;
	const unsigned char *random;

	if (SSL_client_hello_get0_random(hs->ssl, &random) != HELLO_RANDOM)
		return false;
	service = hellos_find(hellos, random);
	if (service)
		snprintf(hs->detail, sizeof(hs->detail), "service %s", service->name);
	return service;
}

static int client_hello(struct handshake *hs, int *alert)
{
	const struct flow *f = flow_of(hs);

	if (is_our_own(hs, f->worker->gate->hellos)) {
		hs->refused = HANDSHAKE_LOOP;
		*alert = ALERT_INTERNAL_ERROR;
		return SSL_CLIENT_HELLO_ERROR;
	}
	return front_hello(&f->worker->gate->fronts[f->vserver->index], hs, alert);
}

static void begin(struct flow *f)
{
	struct worker *w = f->worker;
	const struct front *front = &w->gate->fronts[f->vserver->index];
	struct handshake *hs = handshake_new(&f->client, w->ring, front->ctxs[0], true, on_client);

	if (!hs) {
		flow_fail(f, REASON_no_memory, NULL);
		return;
	}
	/* It comes back before the relay needs it, or flow_side_poll() sees that it has not. */
	f->client.poll.done = flow_side_ready;
	ring_cancel(w->ring, &f->client.poll);
	hs->hello = client_hello;
	hs->hold_change_cipher_spec = true;
	hs->max_received = w->gate->cfg->limit_handshake_size << 10;
	hs->transcript_on = flow_forges(f);
	f->client.hs = hs;
	flow_hello_deadline(f);
	handshake_start(hs);
}

bool flows_begin(struct worker *w)
{
	struct flow_handshake *h = flow_next_turn(w);

	if (!h)
		return false;
	flow_end_waiting(h);
	begin(h->flow);
	return !TAILQ_EMPTY(&w->turns);
}

/* ---- events of the two handshakes ---- */

static void client_failed(struct flow *f)
{
	const struct handshake *hs = f->client.hs;
	char buf[64];

	flow_fail(f, client_failure(hs), handshake_failure_detail(hs, buf, sizeof(buf)));
}

static int make_identity(struct flow *f)
{
	struct handshake *client = f->client.hs;
	STACK_OF(X509) *chain = SSL_session_reused(client->ssl)
					? client->resumed_chain
					: SSL_get0_verified_chain(client->ssl);
	struct flow_handshake *h = f->hs;

	if (h->identity)
		return 0;
	chain = chain ? X509_chain_up_ref(chain) : NULL;
	if (!chain)
		return -ENOMEM;
	h->identity = identity_new(chain);
	if (!h->identity) {
		sk_X509_pop_free(chain, X509_free);
		return -ENOMEM;
	}
	memcpy(f->fingerprint, h->identity->fingerprint, sizeof(f->fingerprint));
	f->identified = true;
	return 0;
}

/* On purpose: nothing can be forged, so the backend must not be reached. */
void flow_client_cert_absent(struct flow *f)
{
	int alert = SSL_version(f->client.hs->ssl) == TLS1_3_VERSION ? ALERT_CERTIFICATE_REQUIRED
								     : ALERT_HANDSHAKE_FAILURE;

	flow_close(f, REASON_client_cert_absent, alert,
		   reasons[REASON_client_cert_absent].backend_alert, NULL);
}

/* The client's certificate, chain and CertificateVerify are checked; or it had none to show. */
static void client_verified(struct flow *f)
{
	bool has_cert = SSL_get0_peer_certificate(f->client.hs->ssl) != NULL;

	if (SSL_session_reused(f->client.hs->ssl))
		stat_inc(f->worker->stats, client_resumptions);

	if (!has_cert && flow_forges(f) && !flow_back_profile(f)->fallback_certkey) {
		flow_client_cert_absent(f);
		return;
	}
	if (has_cert && make_identity(f)) {
		flow_fail(f, REASON_no_memory, NULL);
		return;
	}
	if (has_cert && f->vserver->profile->client_ocsp != REVOCATION_OFF) {
		flow_ask_about_client(f);
		return;
	}
	flow_client_known(f);
}

static void on_client(struct handshake *hs, enum handshake_event ev)
{
	struct flow *f = flow_of(hs);

	switch (ev) {
	case HANDSHAKE_HELLO:
		f->hs->hello_done = true;
		flow_client_deadline(f, UINT64_MAX);
		if (!flow_choose_service(f))
			flow_fail(f, REASON_no_service, NULL);
		else
			flow_connect_service(f);
		break;
	case HANDSHAKE_HELD:
		client_verified(f);
		break;
	case HANDSHAKE_DONE:
		f->hs->client_done = true;
		/* In TLS 1.2 it was held, and verified, before. */
		if (f->hs->client_verified)
			flow_proceed(f);
		else
			client_verified(f);
		break;
	case HANDSHAKE_FAILED:
		client_failed(f);
		break;
	case HANDSHAKE_SUSPENDED:
		break;
	}
}

/* ---- the interlock ---- */

/* For the client's next connection: the proof of this one, if there was any. */
static bool prepare_ticket(struct flow *f)
{
	const struct flow_handshake *h = f->hs;
	const struct forged *forged = h->forging.forged;

	return front_ticket(&f->worker->gate->fronts[f->vserver->index], f->client.hs,
			    h->identity ? h->identity->chain : NULL,
			    forged && forged->has_token ? forged->token : NULL);
}

/* TLS 1.3, both handshakes through: true if a ticket is on its way; DONE comes again. */
bool flow_give_ticket(struct flow *f)
{
	if (SSL_version(f->client.hs->ssl) != TLS1_3_VERSION || !prepare_ticket(f))
		return false;
	stat_inc(f->worker->stats, client_tickets);
	handshake_ticket(f->client.hs);
	return true;
}

/* TLS 1.2: the ticket, if the client wants one, is part of what follows. */
void flow_release_client(struct flow *f)
{
	(void)!prepare_ticket(f);
	handshake_release(f->client.hs);
}
