// SPDX-License-Identifier: Apache-2.0
/* Which service and which of its addresses a flow is connected to, and where it goes when that
 * fails. */
#include "flow/flow_internal.h"

#include "flow/flow.h"
#include "flow/flow_show.h"

/* ---- accept ---- */

/* Nothing of the backend has come yet: the client can still go elsewhere. */
bool flow_before_server_hello(const struct flow *f)
{
	return f->backend.fd >= 0 && (!f->backend.hs || !f->backend.hs->last_received);
}

/* ---- its service ---- */

bool flow_choose_service(struct flow *f)
{
	struct balance_tried *tried = &f->hs->tried;
	int at = balance_choose(&f->worker->balances[f->vserver->index], &f->peer, tried,
				f->worker->timers.now);

	if (at < 0)
		return false;
	tried->at[tried->n++] = (uint16_t)at;
	f->hs->address_turn = 0;
	f->resolved.sin6_family = AF_UNSPEC;
	f->service = cfg_service_at(f->vserver, (unsigned)at);
	return true;
}

/* ---- before the client is verified ---- */

#define EARLY_TICK_MS 20

void flow_unlist_early(struct flow_handshake *h)
{
	if (h->early_listed)
		TAILQ_REMOVE(&h->flow->worker->early, h, early);
	h->early_listed = false;
}

/* The service no longer counts its connection as early: the client is verified, or it is gone. */
void flow_end_early(struct flow *f)
{
	if (f->early)
		service_end_early(f->acquired);
	f->early = false;
	if (f->hs)
		flow_unlist_early(f->hs);
}

/* At its CertificateRequest: it can be given up, and made anew when the client is verified. */
void flow_list_early(struct flow *f)
{
	if (f->early)
		TAILQ_INSERT_TAIL(&f->worker->early, f->hs, early);
	f->hs->early_listed = f->early;
}

/* The one that has waited the longest is given up: backend_hung_up() comes of it. */
static void give_up_oldest_early(struct worker *w, const struct cfg_service *service)
{
	struct flow_handshake *h;

	TAILQ_FOREACH (h, &w->early, early) {
		if (h->flow->service != service)
			continue;
		flow_unlist_early(h);
		stat_inc(w->stats, early_given_up);
		ring_cancel(w->ring, &h->flow->backend.poll);
		return;
	}
}

/* A client that waits at its ClientHello for the backend's choice (alpn = mirror) is not verified
 * before: it needs a place now, and takes that of the one who has taken the longest. */
static void await_early(struct flow *f)
{
	if (!f->hs->awaits_early)
		give_up_oldest_early(f->worker, f->service);
	f->hs->awaits_early = true;
	timer_set(&f->worker->timers, &f->hs->backend_timer, EARLY_TICK_MS);
}

/* The one place that decides whether a service is connected before it is known for whom. */
static bool may_connect(struct flow *f)
{
	struct service *service = &f->worker->gate->services[f->service->index];

	if (f->hs->client_verified)
		return true;
	if (f->service->connect != CONNECT_EARLY)
		return false;
	f->early = service_take_early(service);
	if (!f->early && !f->hs->awaits_early)
		service_early_waits(service);
	return f->early;
}

/* Now; or flow_proceed() does it, when the client is verified. */
void flow_connect_service(struct flow *f)
{
	if (!may_connect(f)) {
		if (f->service->connect == CONNECT_EARLY && f->client.hs->suspended)
			await_early(f);
		return;
	}
	f->hs->awaits_early = false;
	flow_connect_backend(f);
}

/* It may be out of use since it was chosen: a person takes a minute to type a PIN. */
void flow_connect_chosen(struct flow *f)
{
	const struct service *s = &f->worker->gate->services[f->service->index];

	if (service_state(s, f->worker->timers.now) != SERVICE_UP) {
		f->hs->tried.n = 0;
		if (!flow_choose_service(f)) {
			flow_fail(f, REASON_no_service, NULL);
			return;
		}
	}
	flow_connect_backend(f);
}

void flow_release_service(struct flow *f)
{
	flow_end_early(f);
	if (f->acquired)
		service_release(TAKE_PTR(f->acquired));
}

static void count_retry(struct stats *stats, enum reason reason)
{
	switch (reason) {
	case REASON_backend_connect_refused:
		stat_inc(stats, retries_connect_refused);
		return;
	case REASON_backend_connect_timeout:
		stat_inc(stats, retries_connect_timeout);
		return;
	case REASON_backend_gone:
		stat_inc(stats, retries_gone);
		return;
	case REASON_backend_timeout:
		stat_inc(stats, retries_timeout);
		return;
	default:
		stat_inc(stats, retries_connect_failed);
		return;
	}
}

/* Of a name; each is tried once. */
static bool next_address(struct flow *f)
{
	struct cfg_address ignored;

	return f->service->host[0] && service_address(f->acquired, ++f->hs->address_turn, &ignored);
}

static bool try_another(struct flow *f, enum reason reason)
{
	struct flow_handshake *h = f->hs;

	if (!next_address(f)) {
		if (h->tried.n > f->vserver->retries || !flow_choose_service(f))
			return false;
		count_retry(f->worker->stats, reason);
	}
	h->backend_asked = false;
	if (f->backend.hs)
		handshake_stop(f->backend.hs);
	ring_cancel(f->worker->ring, &f->backend.rx);
	ring_cancel(f->worker->ring, &f->backend.tx);
	flow_connect_when_free(f);
	return true;
}

/*
 * Once there is a connection, what the client chose can be the cause: a server name that the
 * backend hangs up on, an address that it does not like. Then it takes a check of our own.
 */
static void blame_service(const struct flow *f, enum reason reason, const char *why)
{
	uint64_t now = f->worker->timers.now;

	switch (reason) {
	case REASON_backend_connect_local:
		return;
	case REASON_backend_gone:
	case REASON_backend_timeout:
		if (service_suspected(f->acquired, why, now))
			workers_suspect(f->worker->gate, f->acquired);
		return;
	default:
		service_failed(f->acquired, why, now);
	}
}

/* No connection, or one that ended before it began: another service, or the client is told. */
void flow_backend_unreachable(struct flow *f, enum reason reason, const char *detail)
{
	char address[CFG_ADDRESS_TEXT], why[320];

	snprintf(why, sizeof(why), "%s: %s%s%s", flow_backend_text(f, address),
		 reasons[reason].text, detail ? ": " : "", detail ? detail : "");
	blame_service(f, reason, why);
	if (!try_another(f, reason))
		flow_fail(f, reason, detail);
}
