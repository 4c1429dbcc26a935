// SPDX-License-Identifier: Apache-2.0
/* The hand-over: an engine is chosen, the keys of both sides go into it, and the relay begins and
 * ends. */
#include "flow/flow_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <string.h>
#include "flow/flow.h"
#include "flow/flow_show.h"
#include "pki/identity.h"
#include "base/log.h"

#define TICKETS_MS 3000 /* a backend that resumes has sent its first ticket by then */

/* ---- hand-over ---- */

/* Which engine can carry this flow; counts why it is not ktls. */
const struct engine *flow_choose_engine(struct flow *f)
{
	const struct gate *gate = f->worker->gate;
	struct stats *stats = f->worker->stats;

	if (gate->cfg->engine == ENGINE_USER) {
		stat_inc(stats, user_because_configured);
		return &engine_user;
	}
	if (gate->ktls.error) {
		stat_inc(stats, user_because_no_ktls);
		return &engine_user;
	}
	if (!ktls_can(&gate->ktls, f->client.version, f->client.cipher) ||
	    !ktls_can(&gate->ktls, f->backend.version, f->backend.cipher)) {
		stat_inc(stats, user_because_cipher);
		return &engine_user;
	}
	if (flow_side_is_unix(&f->backend)) {
		stat_inc(stats, user_because_unix);
		return &engine_user;
	}
	if (!f->client.ulp || !f->backend.ulp) {
		stat_inc(stats, user_because_install);
		return &engine_user;
	}
	return &engine_ktls;
}

int flow_install(const struct engine *engine, struct side *s, const struct flow_keys *k)
{
	return engine == &engine_ktls ? ktls_install(s, &k->rx, &k->tx)
				      : user_side_new(s, &k->rx, &k->tx);
}

static void arm_poll(struct side *s)
{
	s->poll.done = flow_side_ready;
	ring_poll_multishot(s->flow->worker->ring, &s->poll, s->fd,
			    POLLIN | POLLPRI | POLLOUT | POLLRDHUP);
}

void flow_side_ready(struct ring_op *op, int res)
{
	struct side *s = container_of(op, struct side, poll);
	struct flow *f = s->flow;

	if (f->stage == FLOW_STAGE_CLOSING) {
		/* It may be the last completion the flow has waited for. */
		if (!op->armed)
			timer_set(&f->worker->timers, &f->timer, 0);
		return;
	}
	/* Armed for the handshake's sake and cancelled since: now for the relay. */
	if (f->stage != FLOW_STAGE_RELAY)
		return;
	if (res < 0 && res != -ECANCELED) {
		relay_poll_failed(&f->relay, s, res);
		return;
	}
	if (!op->armed)
		arm_poll(s);
	if (res < 0)
		return;
	if (res & (POLLIN | POLLRDHUP | POLLERR | POLLHUP))
		s->readable = true;
	if (res & POLLPRI)
		s->urgent = true;
	if (res & (POLLOUT | POLLERR | POLLHUP))
		s->writable = true;
	if (res & (POLLRDHUP | POLLERR | POLLHUP))
		s->hung_up = true;
	relay_run(&f->relay);
}

/* A poll of the handshake's that has not come back yet is re-armed by flow_side_ready(). */
void flow_side_poll(struct side *s)
{
	if (s->poll.armed)
		s->poll.done = flow_side_ready;
	else
		arm_poll(s);
}

/* What it is about is in flow_records(), when the answer comes; none does if the channel is full.
 */
static void ask_supervisor(const struct flow *f)
{
	struct offload_question q = {.flow = f->id};

	if (!offload_describe(f->client.fd, &q.side[SIDE_CLIENT]) &&
	    !offload_describe(f->backend.fd, &q.side[SIDE_BACKEND]))
		(void)!send(f->worker->gate->channel, &q, sizeof(q), MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* The keys are in their places. Where no device was ever given one, nobody needs to be asked. */
static void learn_records(struct flow *f)
{
	enum flow_records records = FLOW_RECORDS_USER;

	if (f->relay.engine == &engine_ktls)
		records = offload_possible(f->worker->gate->tls_counters) ? FLOW_RECORDS_UNKNOWN
									  : FLOW_RECORDS_SOFTWARE;
	f->client.records = f->backend.records = records;
	if (records == FLOW_RECORDS_UNKNOWN)
		ask_supervisor(f);
}

void flow_tell_bpf(const struct flow *f)
{
	const struct gate *gate = f->worker->gate;
	struct flow_info info = {.flow_id = f->id};

	if (!gate->count)
		return;
	info.engine = f->relay.engine == &engine_ktls ? FLOW_ENGINE_KTLS : FLOW_ENGINE_USER;
	snprintf(info.vserver, sizeof(info.vserver), "%s", f->vserver->name);
	snprintf(info.service, sizeof(info.service), "%s", f->service->name);
	if (f->identified)
		identity_hex(f->fingerprint, sizeof(f->fingerprint), info.client_identity);
	snprintf(info.tls_version, sizeof(info.tls_version), "%s",
		 f->client.version == TLS_13 ? "TLSv1.3" : "TLSv1.2");
	info.records = f->client.records;
	count_flow_info(gate->count, f->client.fd, &info);
	snprintf(info.tls_version, sizeof(info.tls_version), "%s",
		 f->backend.version == TLS_13 ? "TLSv1.3" : "TLSv1.2");
	info.records = f->backend.records;
	count_flow_info(gate->count, f->backend.fd, &info);
}

static void log_established(const struct flow *f, const struct engine *engine)
{
	char client[CFG_ADDRESS_TEXT], backend[CFG_ADDRESS_TEXT];

	if (!worker_may_log(f->worker, REASON_COUNT))
		return;
	log_info("flow %" PRIu64 ": %s %s (%s%s%s) -> service %s %s (%s, %s%s), engine %s%s%s",
		 f->id, f->vserver->name, flow_client_text(f, client),
		 SSL_get_version(f->client.hs->ssl), f->hs->identity ? ", " : "",
		 f->hs->identity ? f->hs->identity->subject : "", f->service->name,
		 flow_backend_text(f, backend), SSL_get_version(f->backend.hs->ssl),
		 f->forged     ? "forged certificate"
		 : f->fallback ? "fallback certificate"
			       : "no certificate",
		 SSL_session_reused(f->backend.hs->ssl) ? ", resumed" : "", engine->name,
		 f->alpn[0] ? ", alpn " : "", f->alpn);
}

/* ---- the backend's session, for the client's next connection ---- */

void flow_forget_session(struct flow *f)
{
	f->backend.tickets = NULL;
	timer_clear(&f->worker->timers, &f->timer);
	reuse_free(TAKE_PTR(f->reuse));
}

static void tickets_received(struct side *s, const uint8_t *p, size_t n)
{
	struct flow *f = s->flow;

	if (!reuse_ticket(f->reuse, f->worker->gate->sessions, f->worker->stats, p, n))
		flow_forget_session(f);
}

static void tickets_late(struct timer *t)
{
	flow_forget_session(container_of(t, struct flow, timer));
}

/* In TLS 1.3 it comes with a ticket, soon: until then the SSL object is kept, at 20 KiB. */
static void keep_session(struct flow *f)
{
	struct worker *w = f->worker;
	const struct session shown = {.forged = f->forged ? f->hs->forging.forged : NULL,
				      .fallback = f->fallback,
				      .asked = f->hs->backend_asked};

	if (!f->reuse)
		return;
	if (!reuse_keep(f->reuse, w->gate->sessions, w->stats, f->service->profile, f->backend.hs,
			&shown)) {
		flow_forget_session(f);
		return;
	}
	f->backend.hs = NULL;
	f->backend.tickets = tickets_received;
	f->timer.expired = tickets_late;
	timer_set(&w->timers, &f->timer, TICKETS_MS);
}

static void start_relay(struct flow *f, const struct engine *engine)
{
	struct worker *w = f->worker;
	const struct alpn *alpn = &f->client.hs->alpn;

	alpn_text(alpn->entry, alpn_len(alpn) ? 1 + alpn_len(alpn) : 0, f->alpn, sizeof(f->alpn));
	log_established(f, engine);
	if (!f->hs->backend_asked)
		stat_inc(w->stats, backend_no_request);
	timer_clear(&w->timers, &f->timer);
	f->client.max_fragment = handshake_max_fragment(f->client.hs);
	keep_session(f);
	flow_handshake_free(f);
	handshake_free(TAKE_PTR(f->client.hs));
	handshake_free(TAKE_PTR(f->backend.hs));
	f->stage = FLOW_STAGE_RELAY;
	stat_inc(w->stats, flows_established);
	stat_inc(w->stats, flows_relaying_active);
	if (engine == &engine_ktls)
		stat_inc(w->stats, engine_ktls_flows);
	else
		stat_inc(w->stats, engine_user_flows);
	f->relay.engine = engine;
	learn_records(f);
	flow_tell_bpf(f);
	flow_side_poll(&f->client);
	flow_side_poll(&f->backend);
	relay_start(&f->relay, &w->env, engine, &f->client, &f->backend, flow_relay_ended);
}

static int install_both(const struct engine *engine, struct flow *f, const struct flow_keys *client,
			const struct flow_keys *backend)
{
	int ret = flow_install(engine, &f->client, client);

	if (!ret)
		ret = flow_install(engine, &f->backend, backend);
	if (ret)
		engine->release_side(&f->client);
	return ret;
}

/* As long as the kernel has not a single key, the flow can still go the other way. */
static bool may_fall_back(struct flow *f, const struct engine *engine, int error)
{
	struct worker *w = f->worker;

	if (engine == &engine_user || w->gate->cfg->engine == ENGINE_KTLS || f->client.keyed)
		return false;
	log_warn("flow %" PRIu64 ": the kernel took no keys (%s): relayed in user space", f->id,
		 strerror(-error));
	stat_inc(w->stats, user_because_install);
	return true;
}

/* The kernel would seal the handshake's alert once more: this one goes through it, and is the last.
 */
static void end_keyed(struct side *s, int alert)
{
	const uint8_t message[2] = {2, (uint8_t)alert};

	if (!s->keyed)
		return;
	handshake_free(TAKE_PTR(s->hs));
	s->tx_closed = true;
	if (ktls_send_record(s, RECORD_ALERT, message, sizeof(message)))
		s->broken = true;
}

static void start_engine(struct flow *f, const struct flow_keys *client,
			 const struct flow_keys *backend)
{
	const struct reason_desc *failed = &reasons[REASON_engine_failed];
	const struct engine *engine = flow_choose_engine(f);
	int ret;

	if (engine == &engine_user && f->worker->gate->cfg->engine == ENGINE_KTLS) {
		flow_fail(f, REASON_engine_refused, NULL);
		return;
	}
	ret = install_both(engine, f, client, backend);
	if (ret && may_fall_back(f, engine, ret)) {
		engine = &engine_user;
		ret = install_both(engine, f, client, backend);
	}
	if (!ret) {
		start_relay(f, engine);
		return;
	}
	end_keyed(&f->client, failed->client_alert);
	end_keyed(&f->backend, failed->backend_alert);
	flow_fail(f, REASON_engine_failed, strerror(-ret));
}

/* Both handshakes are complete and all their output is with TCP. */
void flow_hand_over(struct flow *f)
{
	struct flow_keys client = {0}, backend = {0};
	int ret = handshake_keys(f->client.hs, &client.rx, &client.tx);

	if (!ret)
		ret = handshake_keys(f->backend.hs, &backend.rx, &backend.tx);
	if (ret)
		flow_fail(f, REASON_engine_failed, strerror(-ret));
	else
		start_engine(f, &client, &backend);
	OPENSSL_cleanse(&client, sizeof(client));
	OPENSSL_cleanse(&backend, sizeof(backend));
}

/* ---- the relay's end ---- */

void flow_relay_ended(struct relay *r, enum reason reason, int client_alert, int backend_alert)
{
	struct flow *f = container_of(r, struct flow, relay);
	char text[64] = "";
	int alert = reason == REASON_client_alert ? backend_alert : client_alert;

	if (reason == REASON_client_alert || reason == REASON_backend_alert) {
		if (alert_name(alert))
			snprintf(text, sizeof(text), "%s", alert_name(alert));
		else
			snprintf(text, sizeof(text), "alert %d", alert);
	}
	/* A TLS 1.3 server's verdict on our certificate comes behind our Finished. */
	if (reason == REASON_backend_alert && (f->forged || f->fallback) &&
	    !r->from_backend.bytes && backend_alert_is_refusal(alert))
		reason = f->forged ? REASON_backend_refused_certificate
				   : REASON_backend_refused_fallback;
	if (reason == REASON_backend_alert && !f->forged && !f->fallback &&
	    alert == ALERT_CERTIFICATE_REQUIRED)
		reason = REASON_backend_wants_certificate;
	flow_close(f, reason, client_alert, backend_alert, text[0] ? text : NULL);
}
