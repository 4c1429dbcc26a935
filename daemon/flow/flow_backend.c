// SPDX-License-Identifier: Apache-2.0
/*
 * The backend's connection and handshake: connecting, the events of its handshake, and connecting
 * anew when a backend gives up while the client takes its time.
 */
#include "flow/flow_internal.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <netinet/in.h>
#include "flow/flow.h"
#include "pki/identity.h"
#include "pki/verify.h"

#define PATIENCE_MS 500 /* a backend kept waiting longer may give up without being at fault */

static void connect_socket(struct flow *f);
static void on_backend(struct handshake *hs, enum handshake_event ev);

/* ---- accept ---- */

void flow_backend_expired(struct timer *t)
{
	struct flow_handshake *h = container_of(t, struct flow_handshake, backend_timer);

	if (h->switching)
		flow_connect_when_free(h->flow);
	else if (h->awaits_early)
		flow_connect_service(h->flow);
	else if (h->backend_timeout != REASON_forge_timeout && flow_before_server_hello(h->flow))
		flow_backend_unreachable(h->flow, h->backend_timeout, NULL);
	else
		flow_fail(h->flow, h->backend_timeout, NULL);
}

void flow_backend_deadline(struct flow *f, uint64_t ms, enum reason reason)
{
	f->hs->backend_timeout = reason;
	timer_set(&f->worker->timers, &f->hs->backend_timer, ms);
}

/* ---- the backend's connection ---- */

static const struct sockaddr *backend_address(const struct flow *f, socklen_t *len)
{
	const struct cfg_address *configured = &f->service->address;

	if (!f->service->host[0]) {
		*len = configured->len;
		return (const struct sockaddr *)&configured->ss;
	}
	*len = f->resolved.sin6_family == AF_INET6 ? sizeof(struct sockaddr_in6)
						   : sizeof(struct sockaddr_in);
	return (const struct sockaddr *)&f->resolved;
}

/* The client is verified: that goes with session_reuse. */
static void offer_session(struct flow *f, const uint8_t *protocols, size_t len)
{
	const struct worker *w = f->worker;
	const struct handshake *client = f->client.hs;
	struct reuse_ask ask = {.vserver = f->vserver,
				.service = f->service,
				.identity = flow_forges(f) ? f->hs->identity : NULL,
				.resumed = SSL_session_reused(client->ssl),
				.protocols = protocols,
				.protocols_len = len};
	SSL *ssl = f->backend.hs->ssl;

	/* Without the proof nothing is shown to a backend; find_or_forge() will say so. */
	if (ask.identity && !ask.resumed && !client->transcript_done)
		return;
	ask.address = backend_address(f, &ask.address_len);
	f->reuse = reuse_new(ssl, &ask);
	if (f->reuse)
		reuse_offer(f->reuse, w->gate->sessions, w->stats, ssl, &ask);
}

/* Its ClientHello is made, and leaves when the worker next waits. */
static void remember_hello(struct flow *f)
{
	uint8_t random[HELLO_RANDOM];

	if (f->stage == FLOW_STAGE_HANDSHAKE && f->backend.hs &&
	    SSL_get_client_random(f->backend.hs->ssl, random, sizeof(random)) == sizeof(random))
		hellos_add(f->worker->gate->hellos, &f->hs->hello, random, f->service);
}

void flow_start_backend_handshake(struct flow *f)
{
	struct worker *w = f->worker;
	struct back *back = &w->gate->backs[f->service->index];
	struct side *s = &f->backend;
	const uint8_t *protocols;
	size_t len;

	flow_socket_attach_ulp(s);
	s->hs = handshake_new(s, w->ring, back->ctx, false, on_backend);
	front_offer(f->client.hs, &protocols, &len);
	if (!s->hs || back_expect_name(back, s->hs->ssl, f->client.hs->server_name) ||
	    back_offer(s->hs->ssl, protocols, len)) {
		flow_fail(f, REASON_no_memory, NULL);
		return;
	}
	if (f->service->profile->session_reuse && !f->hs->without_session)
		offer_session(f, protocols, len);
	flow_backend_deadline(f, w->gate->cfg->backend_handshake_timeout * 1000ull,
			      REASON_backend_timeout);
	handshake_start(s->hs);
	remember_hello(f);
}

/* ---- what the backend is told of the client ---- */

static void connected(struct ring_op *op, int res)
{
	struct side *s = container_of(op, struct side, rx);
	struct flow *f = s->flow;

	if (f->stage != FLOW_STAGE_HANDSHAKE || f->hs->switching)
		return;
	if (res == -EINTR)
		connect_socket(f);
	else if (res == -ECONNREFUSED)
		flow_backend_unreachable(f, REASON_backend_connect_refused, NULL);
	else if (res == -ETIMEDOUT)
		flow_backend_unreachable(f, REASON_backend_connect_timeout, NULL);
	else if (back_error_is_ours(-res))
		flow_backend_unreachable(f, REASON_backend_connect_local, strerror(-res));
	else if (res < 0)
		flow_backend_unreachable(f, REASON_backend_connect_failed, strerror(-res));
	else if (f->service->send_proxy != SEND_PROXY_OFF)
		flow_send_proxy_header(f);
	else
		flow_start_backend_handshake(f);
}

static void connect_socket(struct flow *f)
{
	socklen_t len;
	const struct sockaddr *address = backend_address(f, &len);

	ring_connect(f->worker->ring, &f->backend.rx, f->backend.fd, address, len);
}

void flow_connect_backend(struct flow *f)
{
	struct worker *w = f->worker;
	struct side *s = &f->backend;
	struct service *service = &w->gate->services[f->service->index];
	struct cfg_address address;
	int fd;

	f->acquired = service;
	service_acquire(service);
	if (!service_address(service, f->hs->address_turn, &address)) {
		flow_backend_unreachable(f, REASON_backend_unresolved, NULL);
		return;
	}
	if (f->service->host[0])
		memcpy(&f->resolved, &address.ss, sizeof(f->resolved));
	fd = back_socket(address.ss.ss_family);
	if (fd < 0) {
		flow_fail(f, REASON_backend_connect_local, strerror(-fd));
		return;
	}
	s->fd = fd;
	flow_socket_tune(fd, w->gate->cfg);
	/* A sysctl may have changed since the configuration was checked. */
	if (!flow_side_is_unix(s) && sockopt_set(fd, &w->gate->cfg->backend_socket))
		stat_inc(w->stats, socket_options_refused);
	s->rx.done = connected;
	flow_backend_deadline(f, w->gate->cfg->connect_timeout * 1000ull,
			      REASON_backend_connect_timeout);
	connect_socket(f);
}

/* ---- a backend that gives up while the client takes its time ---- */

/* Nothing of this connection is armed but, perhaps, its poll. */
static void drop_backend(struct flow *f)
{
	struct side *s = &f->backend;

	flow_release_service(f);
	hellos_remove(f->worker->gate->hellos, &f->hs->hello);
	free(TAKE_PTR(f->proxy));
	reuse_free(TAKE_PTR(f->reuse));
	handshake_free(s->hs);
	s->hs = NULL;
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
	responder_cancel(&f->hs->ocsp_waits[SIDE_BACKEND]);
	f->hs->backend_suspended = f->hs->backend_resumed = f->hs->backend_trusted = false;
	f->forged = f->fallback = false;
	timer_clear(&f->worker->timers, &f->hs->backend_timer);
}

#define SWITCH_TICK_MS 1

/* What was armed has been cancelled, and comes back within moments. */
void flow_connect_when_free(struct flow *f)
{
	struct side *s = &f->backend;

	f->hs->switching = s->rx.armed || s->tx.armed || s->poll.armed;
	if (f->hs->switching) {
		timer_set(&f->worker->timers, &f->hs->backend_timer, SWITCH_TICK_MS);
		return;
	}
	drop_backend(f);
	flow_connect_service(f);
}

void flow_reconnect(struct flow *f)
{
	if (f->backend.poll.armed) {
		f->hs->reconnect = true;
		ring_cancel(f->worker->ring, &f->backend.poll);
		return;
	}
	f->hs->reconnect = false;
	f->hs->reconnects++;
	stat_inc(f->worker->stats, backend_reconnects);
	if (f->backend.fd >= 0)
		drop_backend(f);
	flow_connect_chosen(f);
}

/* The backend hung up while it waited at its CertificateRequest. */
static void backend_hung_up(struct ring_op *op, int res)
{
	struct side *s = container_of(op, struct side, poll);
	struct flow *f = s->flow;

	(void)res;
	if (f->stage != FLOW_STAGE_HANDSHAKE)
		return;
	if (f->hs->reconnect) {
		flow_reconnect(f);
		return;
	}
	/* Cancelled: the handshake goes on, and its events decide. */
	if (!f->hs->backend_suspended || f->hs->backend_resumed)
		return;
	/* It is connected anew once the client is through; before, it would time out again. */
	drop_backend(f);
	if (f->hs->client_verified)
		flow_proceed(f);
}

static void watch_backend(struct flow *f)
{
	if (f->backend.poll.armed)
		return;
	f->backend.poll.done = backend_hung_up;
	ring_poll(f->worker->ring, &f->backend.poll, f->backend.fd, POLLRDHUP);
}

/* It left right when we came back to it: its patience, not its verdict. */
static bool lost_patience(const struct flow *f)
{
	const struct handshake *hs = f->backend.hs;

	return (hs->failure == HANDSHAKE_EOF || hs->failure == HANDSHAKE_RESET) &&
	       f->hs->backend_resumed && f->hs->reconnects < RECONNECTS_MAX &&
	       f->worker->timers.now - f->hs->suspended_at > PATIENCE_MS;
}

/* ---- events of the two handshakes ---- */

/*
 * An alert in place of what a session was offered for. It should not be (RFC 8446 4.2.11), but
 * there are servers that cannot resume what they have handed out; to them this is a client like
 * others.
 */
static bool failed_on_session(const struct flow *f)
{
	return f->reuse && f->reuse->session && f->backend.hs->failure == HANDSHAKE_PEER_ALERT &&
	       !f->hs->backend_suspended && f->hs->reconnects < RECONNECTS_MAX;
}

static void backend_failed(struct flow *f)
{
	const struct handshake *hs = f->backend.hs;
	enum reason reason = backend_failure(hs, f->forged || f->fallback);
	char buf[64];

	if (failed_on_session(f)) {
		stat_inc(f->worker->stats, backend_session_refusals);
		f->hs->without_session = true;
		flow_reconnect(f);
		return;
	}
	if (lost_patience(f)) {
		flow_reconnect(f);
		return;
	}
	if (reason == REASON_backend_gone && flow_before_server_hello(f)) {
		flow_backend_unreachable(f, reason, handshake_failure_detail(hs, buf, sizeof(buf)));
		return;
	}
	if (reason == REASON_backend_refused_certificate && f->fallback)
		reason = REASON_backend_refused_fallback;
	/* TLS 1.2 has no alert of its own for this. */
	if (reason == REASON_backend_refused && f->hs->backend_given_none &&
	    (hs->alert == ALERT_HANDSHAKE_FAILURE || hs->alert == ALERT_CERTIFICATE_REQUIRED))
		reason = REASON_backend_wants_certificate;
	/* The client is told what the backend thinks of its identity. */
	flow_close(f, reason,
		   reason == REASON_backend_refused_certificate ? hs->alert
								: reasons[reason].client_alert,
		   reasons[reason].backend_alert, handshake_failure_detail(hs, buf, sizeof(buf)));
}

void flow_client_known(struct flow *f)
{
	f->hs->client_verified = true;
	flow_end_early(f);
	flow_proceed(f);
}

/*
 * The backend's ServerHello and EncryptedExtensions are there. With alpn =
 * mirror the client has waited for them, unless this is not the first
 * connection to a backend. One that ignores a list of ours is left to it: it
 * may speak the protocol and not know its name.
 */
static void backend_chose(struct flow *f)
{
	struct handshake *client = f->client.hs;
	const unsigned char *name;
	unsigned len;

	SSL_get0_alpn_selected(f->backend.hs->ssl, &name, &len);
	if (client->suspended)
		front_choose(client, name, len);
	else if (f->vserver->profile->alpn.mirror &&
		 (len != alpn_len(&client->alpn) ||
		  (len && memcmp(name, client->alpn.entry + 1, len))))
		flow_fail(f, REASON_backend_alpn, "not the one it chose before");
}

/* Its certificate and name are checked. Comes at the CertificateRequest and at the end. */
static void backend_verified(struct flow *f)
{
	if (f->service->profile->server_ocsp == REVOCATION_OFF)
		f->hs->backend_trusted = true;
	if (f->hs->backend_trusted)
		flow_proceed(f);
	else
		flow_ask_about_backend(f);
}

/* Was a session taken up, then what the backend was shown in its first handshake holds here. */
static void look_at_session(struct flow *f)
{
	const struct session *s;

	if (!f->reuse || !reuse_taken(f->reuse, f->worker->stats, f->backend.hs->ssl))
		return;
	s = f->reuse->session;
	f->forged = s->forged;
	f->fallback = s->fallback;
	f->hs->backend_asked = s->asked;
	/* Its token is for the client's ticket. */
	if (s->forged && !f->hs->forging.forged)
		f->hs->forging.forged = forged_ref(s->forged);
}

static void on_backend(struct handshake *hs, enum handshake_event ev)
{
	struct flow *f = flow_of(hs);

	if (ev == HANDSHAKE_SUSPENDED || ev == HANDSHAKE_DONE)
		backend_chose(f);
	if (f->stage != FLOW_STAGE_HANDSHAKE)
		return;
	switch (ev) {
	case HANDSHAKE_SUSPENDED:
		f->hs->backend_suspended = f->hs->backend_asked = true;
		f->hs->suspended_at = f->worker->timers.now;
		service_worked(f->acquired, f->worker->timers.now);
		timer_clear(&f->worker->timers, &f->hs->backend_timer);
		certreq_remember(f->worker->gate->certreqs, f->service, hs->ssl,
				 f->worker->timers.now);
		watch_backend(f);
		flow_list_early(f);
		backend_verified(f);
		break;
	case HANDSHAKE_DONE:
		f->hs->backend_done = true;
		/* Of this connection: one before may have asked, and have been lost. */
		f->hs->backend_asked = f->hs->backend_suspended;
		/* Nor is that one's certificate of use any more. */
		if (f->hs->forging.state != FORGING_IDLE)
			forging_cancel(&f->hs->forging);
		look_at_session(f);
		service_worked(f->acquired, f->worker->timers.now);
		timer_clear(&f->worker->timers, &f->hs->backend_timer);
		backend_verified(f);
		break;
	case HANDSHAKE_FAILED:
		backend_failed(f);
		break;
	case HANDSHAKE_HELLO:
	case HANDSHAKE_HELD:
		break;
	}
}
