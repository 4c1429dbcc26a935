// SPDX-License-Identifier: Apache-2.0
/* The end of a flow: each side is told why, what was sent is drained, and the sockets are closed.
 */
#include "flow/flow_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include "flow/flow.h"
#include "flow/flow_show.h"
#include "flow/flowlog.h"
#include "base/log.h"

#define CLOSING_TICK_MAX 64   /* ms */
#define LINGER_MS	 2000 /* a peer has our FIN: how long it may take to send its own */

/* ---- close ---- */

static void log_close(const struct flow *f, const char *detail)
{
	const struct reason_desc *d = &reasons[f->reason];
	char client[CFG_ADDRESS_TEXT];

	if ((f->reason == REASON_done && !log_enabled(LOG_LEVEL_DEBUG)) ||
	    !worker_may_log(f->worker, f->reason))
		return;
	log_info("flow %" PRIu64 ": %s client %s service %s: %s%s%s (%s)", f->id, f->vserver->name,
		 flow_client_text(f, client), flow_service_name(f), d->text, detail ? ": " : "",
		 detail ? detail : "", d->name);
}

/* What each side's stream ends with, once it has been told what it is to be told. */
static enum side_end end_for(enum reason reason, enum side_role role)
{
	if (reason == REASON_done)
		return END_CLOSE_NOTIFY;
	if ((reason == REASON_client_reset && role == SIDE_BACKEND) ||
	    (reason == REASON_backend_reset && role == SIDE_CLIENT))
		return END_RST;
	return END_FIN;
}

/* A client that has neither an SSL object nor keys yet. */
static void tell_unbegun(struct side *s, int alert)
{
	uint8_t record[7];

	if (alert != ALERT_NONE && side_pending_add(s, record, record_plain_alert(alert, record)))
		s->broken = true;
}

/* The only way to end a flow. Safe to call again, and from any event. */
void flow_close(struct flow *f, enum reason reason, int client_alert, int backend_alert,
		const char *detail)
{
	struct worker *w = f->worker;

	if (f->stage == FLOW_STAGE_CLOSING)
		return;
	f->reason = (uint8_t)reason;
	log_close(f, detail);
	stat_inc(w->stats, reason[reason]);
	if (!f->client.hs && !f->client.version)
		tell_unbegun(&f->client, client_alert);
	if (f->stage == FLOW_STAGE_RELAY) {
		relay_stop(&f->relay);
		stat_dec(w->stats, flows_relaying_active);
	}
	if (w->gate->flowlog)
		f->wire = calloc(2, sizeof(*f->wire)); /* without memory the line has zeros */
	flow_forget_session(f);
	flow_handshake_free(f);
	f->stage = FLOW_STAGE_CLOSING;
	f->since = w->timers.now;
	f->alert[SIDE_CLIENT] = (int16_t)client_alert;
	f->alert[SIDE_BACKEND] = (int16_t)backend_alert;
	f->end[SIDE_CLIENT] = (uint8_t)end_for(reason, SIDE_CLIENT);
	f->end[SIDE_BACKEND] = (uint8_t)end_for(reason, SIDE_BACKEND);
	if (f->client.hs)
		handshake_stop(f->client.hs);
	else
		ring_cancel(w->ring, &f->client.rx);
	if (f->backend.hs)
		handshake_stop(f->backend.hs);
	ring_cancel(w->ring, &f->backend.rx);
	ring_cancel(w->ring, &f->backend.tx);
	ring_cancel(w->ring, &f->client.poll);
	ring_cancel(w->ring, &f->backend.poll);
	f->timer.expired = flow_closing_tick;
	f->tick = 1;
	timer_set(&w->timers, &f->timer, 0);
}

const struct engine *flow_closing_engine(const struct flow *f)
{
	return f->relay.engine ? f->relay.engine : &engine_raw;
}

/* OpenSSL's last words (its own alert) and ours become bytes to be sent. */
static void end_handshake(struct flow *f, struct side *s)
{
	struct handshake *hs = TAKE_PTR(s->hs);
	uint8_t buf[64];
	size_t n = handshake_alert(hs, f->alert[s->role], buf);
	int ret = side_pending_add(s, hs->output + hs->output_off, hs->output_len - hs->output_off);

	if (!ret)
		ret = side_pending_add(s, buf, n);
	if (ret)
		s->broken = true;
	s->tx_closed = true;
	handshake_free(hs);
}

static void tell(struct flow *f, struct side *s, const struct engine *engine)
{
	int alert = f->alert[s->role];
	uint8_t message[2] = {2, (uint8_t)alert};

	s->tx_closed = true;
	if (alert == ALERT_NONE) {
		if (f->end[s->role] != END_CLOSE_NOTIFY)
			return;
		message[0] = 1;
		message[1] = ALERT_CLOSE_NOTIFY;
	}
	if (engine->send_record && engine->send_record(s, RECORD_ALERT, message, sizeof(message)))
		s->broken = true;
}

/*
 * Reads what still comes, to be able to close without destroying what we sent.
 * True: nothing comes any more. A record that cannot be opened is not the end, but
 * no reading gets past it, and each try would stop what is still to be sent.
 */
static bool discard(struct flow *f, struct side *s)
{
	uint8_t *buf = f->worker->env.in;

	for (int i = 0; i < 16 && !s->rx_error; i++) {
		uint8_t type;
		ssize_t n = ktls_recv(s, buf, RELAY_SCRATCH_IN, &type);

		if (n < 0 && ktls_is_bad_record((int)-n)) {
			s->rx_error = (int)-n;
			return false;
		}
		if (n == -EAGAIN || n == -EKEYEXPIRED)
			return false;
		if (n < 0 || (n == 0 && !type))
			return true;
	}
	return false;
}

/* All that was sent, the FIN included, has arrived; or the connection is reset and nothing will. */
static bool acked(const struct side *s)
{
	int queued;

	return (!ioctl(s->fd, SIOCOUTQ, &queued) && !queued) || sockopt_tcp_closed(s->fd);
}

static void close_side(struct flow *f, struct side *s)
{
	struct linger rst = {.l_onoff = 1, .l_linger = 0};

	if (f->wire)
		flowlog_look(s->fd, &f->wire[s->role]);
	if (f->end[s->role] == END_RST)
		setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &rst, sizeof(rst));
	close(s->fd);
	s->fd = -1;
}

/* One look at a closing side; true: it is closed. */
static bool close_step(struct flow *f, struct side *s)
{
	const struct engine *engine = flow_closing_engine(f);
	uint64_t now = f->worker->timers.now;
	bool ended;
	int ret;

	if (s->fd < 0)
		return true;
	if (s->rx.armed || s->tx.armed)
		return false;
	if (s->hs)
		end_handshake(f, s);
	if (!s->tx_closed && !s->broken)
		tell(f, s, engine);
	ret = s->broken ? 0 : engine->flush(s);
	if (!ret && !s->broken)
		ret = engine->drained(s);
	if (ret < 0 && ret != -EAGAIN)
		s->broken = true;
	if (!s->broken && !s->acked_at &&
	    now - f->since >= f->worker->gate->cfg->drain_timeout * 1000ull) {
		stat_inc(f->worker->stats, drain_timeouts);
		log_warn("flow %" PRIu64 ": %s took not all its bytes within timeout.drain", f->id,
			 side_name(s));
		s->broken = true;
	}
	if (s->broken) {
		close_side(f, s);
		return true;
	}
	/*
	 * All the time: with a full receive buffer TCP drops segments whole, and with them
	 * the acknowledgements that the last bytes wait for.
	 */
	ended = discard(f, s);
	if (!ret && s->rx_error)
		ktls_resume_tx(s);
	if (ret <= 0)
		return false;
	if (f->end[s->role] == END_RST) {
		if (!acked(s))
			return false;
		close_side(f, s);
		return true;
	}
	if (!s->fin_sent) {
		s->fin_sent = true;
		shutdown(s->fd, SHUT_WR);
	}
	/* A record cut short stays unread, and close() then sends RST: not before all has arrived.
	 */
	if (!acked(s))
		return false;
	/* Whoever sent the FIN, the relay or this: its receiver may still have an answer to give.
	 */
	if (!s->acked_at)
		s->acked_at = now;
	if (!ended && now - s->acked_at < LINGER_MS)
		return false;
	close_side(f, s);
	return true;
}

static bool has_armed(const struct side *s)
{
	return s->poll.armed || s->rx.armed || s->tx.armed;
}

void flow_closing_tick(struct timer *t)
{
	struct flow *f = container_of(t, struct flow, timer);
	bool client_closed = close_step(f, &f->client);
	bool backend_closed = close_step(f, &f->backend);

	if (client_closed && backend_closed && !has_armed(&f->client) && !has_armed(&f->backend)) {
		flow_free(f);
		return;
	}
	timer_set(&f->worker->timers, &f->timer, f->tick);
	f->tick = f->tick * 2 > CLOSING_TICK_MAX ? CLOSING_TICK_MAX : f->tick * 2;
}
