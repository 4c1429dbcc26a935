// SPDX-License-Identifier: Apache-2.0
/*
 * The life of a flow, in order: it is accepted, proceeds through two handshakes and their
 * interlock, is handed over to the relay, and is freed. proceed() is the one place that decides
 * what comes next while the handshakes run. What happens inside a stage is in the other files
 * flow_*.c.
 */
#include "flow/flow_internal.h"

#include <netinet/in.h>
#include "flow/flow.h"
#include "flow/flow_show.h"
#include "pki/identity.h"
#include "base/log.h"

void flow_fail(struct flow *f, enum reason reason, const char *detail)
{
	flow_close(f, reason, reasons[reason].client_alert, reasons[reason].backend_alert, detail);
}

/* ---- accept ---- */

/* ms, of timeout.handshake */
uint64_t flow_handshake_left(const struct flow *f)
{
	uint64_t end = f->accepted + f->worker->gate->cfg->handshake_timeout * 1000ull;
	uint64_t now = f->worker->timers.now;

	return end > now ? end - now : 0;
}

/* Its next step may take ms; all of them together timeout.handshake. */
void flow_client_deadline(struct flow *f, uint64_t ms)
{
	uint64_t left = flow_handshake_left(f);

	timer_set(&f->worker->timers, &f->timer, ms < left ? ms : left);
}

/* No person has a part in the ClientHello, so it comes soon or not at all. */
void flow_hello_deadline(struct flow *f)
{
	flow_client_deadline(f, f->worker->gate->cfg->hello_timeout * 1000ull);
}

static void side_init(struct side *s, struct flow *f, enum side_role role, int fd)
{
	s->flow = f;
	s->role = (uint8_t)role;
	s->fd = fd;
}

/* For whoever chooses the worker of new connections. */
static void tell_load(const struct worker *w)
{
	if (w->gate->load)
		__atomic_store_n(&w->gate->load[w->index], w->n_flows, __ATOMIC_RELAXED);
}

struct flow *flow_new(struct worker *w, const struct cfg_vserver *vserver, int fd)
{
	struct flow *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	f->hs = calloc(1, sizeof(*f->hs));
	/* Two deadlines a flow. */
	if (!f->hs || timers_reserve(&w->timers, 2 * (w->n_flows + 1) + worker_timers(w))) {
		free(f->hs);
		free(f);
		return NULL;
	}
	f->hs->flow = f;
	f->hs->backend_timer.expired = flow_backend_expired;
	f->worker = w;
	f->vserver = vserver;
	/* The only one, or chosen at the ClientHello. */
	f->service = vserver->services.n == 1 ? cfg_service_at(vserver, 0) : NULL;
	/* Old and new processes have flows at the same time: no two the same id. */
	f->id = (uint64_t)((w->gate->generation - 1) & 0xff) << 56 | (uint64_t)w->index << 48 |
		++w->next_flow_id;
	f->since = f->accepted = w->timers.now;
	f->timer.expired = flow_client_expired;
	side_init(&f->client, f, SIDE_CLIENT, fd);
	side_init(&f->backend, f, SIDE_BACKEND, -1);
	LIST_INSERT_HEAD(&w->flows, f, link);
	w->n_flows++;
	tell_load(w);
	stat_inc(w->stats, flows_active);
	return f;
}

/* Before there is a flow: at once and by a reset, so that it costs us next to nothing. */
static void refuse_client(struct worker *w, const struct cfg_vserver *vserver, int fd,
			  enum reason reason, const struct sockaddr_in6 *peer)
{
	struct linger rst = {.l_onoff = 1, .l_linger = 0};
	char client[CFG_ADDRESS_TEXT];

	stat_inc(w->stats, reason[reason]);
	if (worker_may_log(w, reason))
		log_info("vserver %s: client %s: %s (%s)", vserver->name,
			 cfg_address_text(peer, client), reasons[reason].text,
			 reasons[reason].name);
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &rst, sizeof(rst));
	close(fd);
}

/* ---- what a proxy tells of its client ---- */

/* At limit.flows: has one of ours, idle for long enough, been ended for a new one? */
static bool close_idlest(struct worker *w)
{
	struct relay *r = relay_idlest(&w->env, w->gate->cfg->limit_idle * 1000ull);

	if (r)
		flow_fail(container_of(r, struct flow, relay), REASON_closed_idle, NULL);
	return r;
}

/* Behind the other limits: for a connection that these refuse, none is ended. */
static enum reason take_room(struct worker *w)
{
	enum cfg_when_full when_full = w->gate->cfg->limit_when_full;

	/* Accepted before the worker had stopped to. */
	if (when_full == WHEN_FULL_QUEUE)
		return REASON_done;
	if (limits_memory_full(w->gate->limits))
		return REASON_limit_memory;
	if (limits_full(w->gate->limits) && (when_full != WHEN_FULL_CLOSE_IDLE || !close_idlest(w)))
		return REASON_limit_flows;
	return REASON_done;
}

void flow_accept(struct worker *w, const struct cfg_vserver *vserver, int fd)
{
	struct limits_share share;
	struct sockaddr_in6 peer = {0};
	socklen_t len = sizeof(peer);
	enum reason reason;
	struct flow *f = NULL;

	stat_inc(w->stats, flows_accepted);
	getpeername(fd, (struct sockaddr *)&peer, &len);
	reason = limits_take(w->gate->limits, vserver, (const struct sockaddr *)&peer, &share);
	if (reason == REASON_done)
		reason = take_room(w);
	if (reason == REASON_done) {
		f = flow_new(w, vserver, fd);
		reason = REASON_no_memory;
	}
	if (!f) {
		limits_give_back(w->gate->limits, vserver, &share);
		refuse_client(w, vserver, fd, reason, &peer);
		return;
	}
	f->peer = peer;
	f->share = share;
	flow_socket_tune(fd, w->gate->cfg);
	flow_socket_attach_ulp(&f->client);
	flow_hello_deadline(f);
	if (vserver->accept_proxy &&
	    cfg_prefixes_hold(&vserver->proxy_from, (const struct sockaddr *)&f->peer))
		flow_await_proxy_header(f);
	else
		flow_await_client(f);
}

/* ---- the interlock ---- */

/*
 * The one place that decides what comes next while the handshakes run. Called
 * whenever one of them, the signer, or OCSP got somewhere. Until the client is
 * verified the backend waits at its CertificateRequest.
 */
void flow_proceed(struct flow *f)
{
	struct flow_handshake *h = f->hs;

	if (f->stage != FLOW_STAGE_HANDSHAKE || !h->client_verified)
		return;
	if (f->backend.fd < 0) {
		/* Never connected (service.<n>.connect = verified), or it hung up meanwhile. */
		if (!h->backend_asked)
			flow_connect_chosen(f);
		else if (h->reconnects < RECONNECTS_MAX)
			flow_reconnect(f);
		else
			flow_fail(f, REASON_backend_gone, NULL);
		return;
	}
	if (!h->backend_trusted)
		return;
	if (h->backend_suspended && !h->backend_resumed) {
		flow_answer_certificate_request(f);
		return;
	}
	if (!h->backend_done)
		return;
	if (!h->backend_asked && f->service->profile->require_certificate_request) {
		flow_fail(f, REASON_backend_no_certificate_request, NULL);
		return;
	}
	if (h->client_done && flow_give_ticket(f))
		return;
	if (h->client_done)
		flow_hand_over(f);
	else if (f->client.hs->held && !f->client.hs->released)
		flow_release_client(f);
}

void flow_handshake_free(struct flow *f)
{
	struct flow_handshake *h = f->hs;

	if (!h)
		return;
	flow_end_waiting(h);
	flow_unlist_early(h);
	hellos_remove(f->worker->gate->hellos, &h->hello);
	limits_established(f->worker->gate->limits, &f->share);
	forging_cancel(&h->forging);
	free(h->proof);
	responder_cancel(&h->ocsp_waits[SIDE_CLIENT]);
	responder_cancel(&h->ocsp_waits[SIDE_BACKEND]);
	ocsp_answer_unref(h->ocsp);
	timer_clear(&f->worker->timers, &h->backend_timer);
	identity_free(h->identity);
	free(h);
	f->hs = NULL;
}

/* ---- close ---- */

void flow_free(struct flow *f)
{
	struct worker *w = f->worker;
	const struct engine *engine = flow_closing_engine(f);

	flow_log(f);
	free(f->wire);
	timer_clear(&w->timers, &f->timer);
	flow_release_service(f);
	limits_give_back(w->gate->limits, f->vserver, &f->share);
	free(f->proxy);
	engine->release_side(&f->client);
	engine->release_side(&f->backend);
	OPENSSL_cleanse(&f->client.secrets, sizeof(f->client.secrets));
	OPENSSL_cleanse(&f->backend.secrets, sizeof(f->backend.secrets));
	handshake_free(f->client.hs);
	handshake_free(f->backend.hs);
	flow_cursors_skip(w, f);
	LIST_REMOVE(f, link);
	w->n_flows--;
	tell_load(w);
	stat_dec(w->stats, flows_active);
	stat_inc(w->stats, flows_closed);
	free(f);
}

void flows_shutdown(struct worker *w)
{
	struct flow *f, *next;

	for (f = LIST_FIRST(&w->flows); f; f = next) {
		next = LIST_NEXT(f, link);
		flow_fail(f, REASON_shutdown, NULL);
	}
}

/* ---- for the control socket ---- */

/* The newest are the first of the list, and questions are about the newest. */
static struct flow *find_flow(const struct worker *w, uint64_t id)
{
	struct flow *f = LIST_FIRST(&w->flows);

	/* Of another worker, or generation. */
	if (f && (f->id ^ id) >> 48)
		return NULL;
	while (f && f->id > id)
		f = LIST_NEXT(f, link);
	return f && f->id == id ? f : NULL;
}

void flow_records(struct worker *w, const struct offload_answer *answer)
{
	struct flow *f = find_flow(w, answer->flow);

	if (!f)
		return;
	f->client.records = answer->records[SIDE_CLIENT];
	f->backend.records = answer->records[SIDE_BACKEND];
	if (f->stage == FLOW_STAGE_RELAY)
		flow_tell_bpf(f);
}

bool flow_kill(struct worker *w, uint64_t id)
{
	struct flow *f = find_flow(w, id);

	if (f)
		flow_fail(f, REASON_killed, NULL);
	return f;
}
