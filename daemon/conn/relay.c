/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The relay's common half: what records and ends mean, in which order they are
 * passed on, and when a flow is over. Knows no cipher and no pipe.
 *
 * close_notify, a fatal alert, FIN without close_notify (a truncation) and RST
 * are four different things and stay different on the other side. An end is
 * passed on behind the last byte that was read in front of it.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include "base/log.h"
#include "conn/relay.h"
#include "base/sockopt.h"

/* Records without data: a burst is normal (tickets), a stream of them is an attack on our CPU. */
#define IDLE_RECORD_BURST 64
#define IDLE_RECORD_MS	  100 /* one more is allowed per so many ms */

/* What a record wears its key out by besides its data: type, nonce and tag in whole blocks. */
#define RECORD_WEAR 32

/* To a peer that asks and does not read: so many of our answers wait at most. */
#define ANSWERS_MAX 64

#define TICK_MIN 1 /* ms */
#define TICK_MAX 64
/* Since the last byte that the other side sent to one that has closed. */
#define TLS12_CLOSE_MS 2000

/* ---- ends ---- */

static bool from_client(const struct half *h)
{
	return h->from->role == SIDE_CLIENT;
}

static void half_end(struct half *h, enum side_end end, enum reason client, enum reason backend)
{
	if (h->end)
		return;
	/*
	 * Many servers answer a close_notify with a mere FIN. It is passed on as the
	 * FIN it is, but with the other end gone nothing was cut off.
	 */
	if (end == END_FIN && half_other(h)->end == END_CLOSE_NOTIFY)
		client = backend = REASON_done;
	h->end = (uint8_t)end;
	h->end_reason = (uint8_t)(from_client(h) ? client : backend);
	if (!h->relay->first_end)
		h->relay->first_end = h;
}

void relay_fail(struct half *h, enum reason client, enum reason backend, int own_alert)
{
	/* A failure behind an orderly end (its bytes could not be kept) must not look like one. */
	if (!h->end_sent)
		h->end = END_NONE;
	half_end(h, END_ALERT, client, backend);
	h->own_alert = (int16_t)own_alert;
	h->end_alert = ALERT_INTERNAL_ERROR;
}

/*
 * What a connection says that is no more, whoever asks. Where TCP has given up it is the last ICMP
 * or routing error in place of ETIMEDOUT, which can be nearly any (tcp_write_err()).
 */
static bool is_gone(const struct side *s, int error)
{
	switch (-error) {
	case ECONNRESET:
	case EPIPE:
	case ETIMEDOUT:
	case EHOSTUNREACH:
	case ENETUNREACH:
	case ECONNABORTED:
		return true;
	case ENOMEM: /* ours, also when both ends are done */
	case ENOBUFS:
		return false;
	default:
		return error && !ktls_is_bad_record(-error) && sockopt_tcp_closed(s->fd);
	}
}

/* A call of ours failed, and neither end is to blame. */
static enum reason own_failure(const struct side *s, const char *what, int error)
{
	if (error == -ENOMEM || error == -ENOBUFS)
		return REASON_no_memory;
	log_warn("%s: %s failed: %s", side_name(s), what, strerror(-error));
	return REASON_io_error;
}

void relay_send_failed(struct half *h, int error)
{
	enum reason reason;

	h->relay->engine->release_half(h);
	if (is_gone(h->to, error)) {
		h->to->broken = true;
		return;
	}
	reason = own_failure(h->to, "sending", error);
	relay_fail(h, reason, reason, ALERT_INTERNAL_ERROR);
}

void relay_read_end(struct half *h, int error)
{
	enum reason reason;

	/* A reset that a send has already been told reads as end of stream. */
	if (is_gone(h->from, error) || (!error && h->from->broken)) {
		h->from->broken = true;
		half_end(h, END_RST, REASON_client_reset, REASON_backend_reset);
		return;
	}
	switch (-error) {
	case 0:
		half_end(h, END_FIN, REASON_client_truncated, REASON_backend_truncated);
		break;
	case EBADMSG:
		relay_fail(h, REASON_client_bad_record, REASON_backend_bad_record,
			   ALERT_BAD_RECORD_MAC);
		break;
	case EMSGSIZE:
		relay_fail(h, REASON_client_bad_record, REASON_backend_bad_record,
			   ALERT_RECORD_OVERFLOW);
		break;
	case EINVAL: /* of the kernel's parser: a version that is no TLS */
		relay_fail(h, REASON_client_bad_record, REASON_backend_bad_record,
			   ALERT_PROTOCOL_VERSION);
		break;
	default:
		reason = own_failure(h->from, "reading", error);
		relay_fail(h, reason, reason, ALERT_INTERNAL_ERROR);
	}
}

/* ---- who is idle ---- */

/* A busy relay changes its place so often, whatever it moves. */
#define RANK_MS 1000

static void rank_last(struct relay *r)
{
	TAILQ_INSERT_TAIL(&r->env->by_idleness, r, idle_link);
	r->ranked_at = r->env->timers->now;
}

static void moved_now(struct relay *r)
{
	r->last_move = r->env->timers->now;
	if (r->last_move - r->ranked_at < RANK_MS)
		return;
	TAILQ_REMOVE(&r->env->by_idleness, r, idle_link);
	rank_last(r);
}

struct relay *relay_idlest(const struct relay_env *env, uint64_t ms)
{
	struct relay *r = TAILQ_FIRST(&env->by_idleness);

	return r && env->timers->now - r->last_move >= ms ? r : NULL;
}

void relay_moved(struct half *h, size_t n)
{
	h->bytes += n;
	h->to->key_used += n + RECORD_WEAR;
	if (from_client(h))
		stat_add(h->relay->env->stats, bytes_from_client, n);
	else
		stat_add(h->relay->env->stats, bytes_from_backend, n);
	moved_now(h->relay);
}

/* ---- records that are not data ---- */

/* A token bucket per half. */
static bool idle_record_allowed(struct half *h)
{
	uint64_t now = h->relay->env->timers->now;
	uint64_t earned = (now - h->idle_refill) / IDLE_RECORD_MS;

	if (earned) {
		h->idle_records =
			earned >= h->idle_records ? 0 : (uint8_t)(h->idle_records - earned);
		h->idle_refill = now;
	}
	if (h->idle_records < IDLE_RECORD_BURST) {
		h->idle_records++;
		return true;
	}
	relay_fail(h, REASON_client_flood, REASON_backend_flood, ALERT_INTERNAL_ERROR);
	return false;
}

bool relay_empty_record(struct half *h)
{
	return idle_record_allowed(h);
}

static const char *digest_of(const struct side *s)
{
	return s->cipher == TLS_AES_256_GCM ? "SHA2-384" : "SHA2-256";
}

/* Moves a traffic secret one generation on and derives its keys. */
static int next_keys(struct side *s, uint8_t *secret, struct tls_keys *keys)
{
	int ret = keys_tls13_next_secret(digest_of(s), secret, s->secrets.len, secret);

	if (!ret)
		ret = keys_tls13((enum tls_cipher)s->cipher, digest_of(s), secret, s->secrets.len,
				 keys);
	keys->seq = 0;
	return ret;
}

static int rekey(struct side *s, uint8_t *secret,
		 int (*install)(struct side *, const struct tls_keys *))
{
	struct tls_keys keys = {0};
	int ret = next_keys(s, secret, &keys);

	if (!ret)
		ret = install(s, &keys);
	keys_wipe(&keys);
	return ret;
}

/* Our KeyUpdate is queued: what follows must be under the next keys, or nothing can follow. */
static int rekey_behind_message(struct relay *r, struct side *s)
{
	int ret = rekey(s, s->secrets.tx, r->engine->rekey_tx);

	stat_inc(r->env->stats, key_updates_sent);
	s->key_used = 0;
	if (ret)
		s->broken = true;
	return ret;
}

/*
 * An answer to what from has asked, into the other half's stream. None if many wait there already:
 * one KeyUpdate answers all requests in front of it (RFC 8446 4.6.3), and a refusal may be left out
 * (RFC 5246 7.2.2). 1: queued; 0: withheld; or -errno.
 */
static int answer(struct half *h, uint8_t type, const uint8_t *message, size_t len)
{
	struct side *from = h->from;
	int ret;

	if (from->tx_closed)
		return 0;
	if (from->answers >= ANSWERS_MAX) {
		stat_inc(h->relay->env->stats, answers_withheld);
		return 0;
	}
	ret = h->relay->engine->send_record(from, type, message, len);
	if (!ret && from->pending_len)
		from->answers++;
	return ret ? ret : 1;
}

/* RFC 8446 4.6.3 */
static bool key_update(struct half *h, bool requested)
{
	uint8_t message[5];
	int ret;

	stat_inc(h->relay->env->stats, key_updates);
	ret = rekey(h->from, h->from->secrets.rx, h->relay->engine->rekey_rx);
	if (!ret && requested)
		ret = answer(h, RECORD_HANDSHAKE, message, record_key_update(false, message));
	if (ret > 0)
		ret = rekey_behind_message(h->relay, h->from);
	if (!ret)
		return true;
	if (ret == -EBUSY || ret == -EOPNOTSUPP)
		relay_fail(h, REASON_rekey_unsupported, REASON_rekey_unsupported,
			   ALERT_INTERNAL_ERROR);
	else
		relay_read_end(h, ret);
	return false;
}

static bool refuse_renegotiation(struct half *h)
{
	static const uint8_t no_renegotiation[2] = {1, ALERT_NO_RENEGOTIATION};
	int ret;

	/* A record has room for thousands. */
	if (!idle_record_allowed(h))
		return false;
	stat_inc(h->relay->env->stats, renegotiations_refused);
	ret = answer(h, RECORD_ALERT, no_renegotiation, sizeof(no_renegotiation));
	if (ret < 0)
		relay_read_end(h, ret);
	return ret >= 0;
}

static bool control_event(struct half *h, const struct record_event *ev)
{
	switch (ev->kind) {
	case EVENT_WARNING:
		return true;
	case EVENT_TICKET:
		stat_inc(h->relay->env->stats, tickets_dropped);
		return true;
	case EVENT_RENEGOTIATION:
		return refuse_renegotiation(h);
	case EVENT_KEY_UPDATE:
		return key_update(h, ev->requested);
	case EVENT_CLOSE_NOTIFY:
		half_end(h, END_CLOSE_NOTIFY, REASON_done, REASON_done);
		return false;
	case EVENT_FATAL:
		half_end(h, END_ALERT, REASON_client_alert, REASON_backend_alert);
		h->end_alert = (int16_t)ev->alert;
		h->own_alert = ALERT_NONE;
		return false;
	case EVENT_ILLEGAL:
		relay_fail(h, REASON_client_illegal,
			   ev->late_request ? REASON_backend_late_request : REASON_backend_illegal,
			   ev->alert);
		return false;
	}
	return false;
}

bool relay_control(struct half *h, uint8_t type, const uint8_t *p, size_t n)
{
	struct side *from = h->from;
	struct record_event ev;
	const uint8_t *messages = p;
	size_t len = n;

	if (!idle_record_allowed(h))
		return false;
	while (record_control_next(&from->control, from->version, side_peer_is_server(from), type,
				   &p, &n, &ev)) {
		if (ev.kind != EVENT_TICKET)
			messages = NULL;
		if (!control_event(h, &ev))
			return false;
	}
	if (type == RECORD_HANDSHAKE && from->tickets)
		from->tickets(from, messages, len);
	return true;
}

/* ---- passing an end on ---- */

static void relay_end(struct relay *r, enum reason reason, int client_alert, int backend_alert)
{
	if (r->ended)
		return;
	r->ended = true;
	r->end(r, reason, client_alert, backend_alert);
}

void relay_abort(struct relay *r, enum reason reason)
{
	relay_end(r, reason, reasons[reason].client_alert, reasons[reason].backend_alert);
}

void relay_poll_failed(struct relay *r, const struct side *s, int error)
{
	relay_abort(r, own_failure(s, "waiting", error));
}

/* Of a record of ours: the receiver is gone, or the flow ends at once, whatever its halves do. */
static void queue_failed(struct half *h, int error)
{
	if (is_gone(h->to, error))
		h->to->broken = true;
	else
		relay_abort(h->relay, own_failure(h->to, "sending", error));
}

/* False: the other side's kernel takes no more for now, or the flow has ended. */
static bool flush_to(struct half *h)
{
	struct side *to = h->to;
	int ret;

	if (to->broken || !to->pending_len)
		return true;
	ret = h->relay->engine->flush(to);
	if (ret == -EAGAIN) {
		to->writable = false;
		return false;
	}
	if (ret)
		queue_failed(h, ret);
	else
		to->writable = true;
	return !h->relay->ended;
}

/* shutdown() only once nothing is left that it could throw away; until then the tick comes back. */
static bool send_fin(struct half *h)
{
	struct side *to = h->to;
	int drained;

	if (to->fin_sent || to->broken)
		return true;
	drained = h->relay->engine->drained(to);
	if (!drained) {
		h->relay->tick_wanted = true;
		return false;
	}
	if (drained < 0) {
		to->broken = true;
		return true;
	}
	h->relay->tick = TICK_MIN;
	to->fin_sent = to->tx_closed = true;
	shutdown(to->fd, SHUT_WR);
	return true;
}

/* False: the flow has ended. */
static bool send_close_notify(struct half *h)
{
	static const uint8_t close_notify[2] = {1, ALERT_CLOSE_NOTIFY};
	struct relay *r = h->relay;
	int ret;

	if (h->to->tx_closed || h->to->broken)
		return true;
	ret = r->engine->send_record(h->to, RECORD_ALERT, close_notify, sizeof(close_notify));
	if (ret) {
		queue_failed(h, ret);
	} else {
		h->to->tx_closed = true;
		(void)flush_to(h);
	}
	return !r->ended;
}

static void pass_close_notify(struct half *h)
{
	struct relay *r = h->relay;

	if (!h->end_sent) {
		if (!send_close_notify(h))
			return;
		h->end_sent = true;
		if (!half_other(h)->end)
			stat_inc(r->env->stats, half_closes);
		/* Half-close is a thing of TLS 1.3; in 1.2 the answer follows soon. */
		if (h->from->version == TLS_12 && !r->close_by)
			r->close_by = r->env->timers->now + TLS12_CLOSE_MS;
	}
	if (!h->to->fin_sent && h->from->hung_up)
		(void)send_fin(h);
}

static void pass_alert(struct half *h)
{
	if (from_client(h))
		relay_end(h->relay, h->end_reason, h->own_alert, h->end_alert);
	else
		relay_end(h->relay, h->end_reason, h->end_alert, h->own_alert);
}

/* Everything read in front of the end has been accepted by the other side's kernel. */
static void pass_end(struct half *h)
{
	switch (h->end) {
	case END_CLOSE_NOTIFY:
		pass_close_notify(h);
		break;
	case END_FIN:
		if (!h->end_sent)
			h->end_sent = send_fin(h);
		break;
	case END_ALERT:
		pass_alert(h);
		break;
	case END_RST:
		relay_end(h->relay, h->end_reason, ALERT_NONE, ALERT_NONE);
		break;
	default:
		break;
	}
}

/* ---- keys wear out ---- */

/*
 * RFC 8446 5.5: AES-GCM protects some 2^24.5 full records under one key. What counts are blocks
 * of the cipher, so it is bytes that are counted here.
 */
bool relay_key_worn_out(const struct half *h)
{
	const struct side *to = h->to;
	uint64_t limit = h->relay->env->key_limit;

	return limit && to->key_used >= limit && to->cipher != TLS_CHACHA20_POLY1305 &&
	       !h->in_flight && !to->tx_closed && !to->broken;
}

static void renew_key(struct half *h)
{
	struct relay *r = h->relay;
	uint8_t message[5];
	int ret;

	if (h->to->version == TLS_12) {
		h->to->key_used = 0;
		stat_inc(r->env->stats, key_limits_passed);
		log_warn("%s: dataplane.key_limit passed, and TLS 1.2 cannot re-key",
			 side_name(h->to));
	} else if (r->engine == &engine_ktls && !r->env->caps->rekey) {
		relay_abort(r, REASON_key_limit);
	} else {
		ret = r->engine->send_record(h->to, RECORD_HANDSHAKE, message,
					     record_key_update(false, message));
		if (!ret)
			ret = rekey_behind_message(r, h->to);
		if (ret)
			queue_failed(h, ret);
	}
}

/* ---- running ---- */

/* Returns true if there is more to do at once. */
static bool half_run(struct half *h)
{
	bool more = false;

	if (relay_key_worn_out(h))
		renew_key(h);
	if (h->relay->ended || !flush_to(h))
		return false;
	/*
	 * With the receiver gone its data has nowhere to go. The sender is told
	 * when the other half reads the reset; all that half has read still arrives.
	 */
	if (h->to->broken) {
		half_other(h)->from->readable = true;
		return false;
	}
	if (!h->end)
		more = h->relay->engine->move(h);
	if (h->end && !h->in_flight && flush_to(h))
		pass_end(h);
	return more && !h->end;
}

static void set_timer(struct relay *r)
{
	uint64_t now = r->env->timers->now, at = UINT64_MAX;

	if (r->tick_wanted)
		at = now + r->tick;
	if (r->close_by && r->close_by < at)
		at = r->close_by;
	if (r->env->idle_timeout && r->last_move + r->env->idle_timeout < at)
		at = r->last_move + r->env->idle_timeout;
	/* Data moving on does not touch the heap: the timer finds out when it fires. */
	if (at == UINT64_MAX)
		timer_clear(r->env->timers, &r->timer);
	else if (!r->timer.slot || at < r->timer.deadline)
		timer_set(r->env->timers, &r->timer, at > now ? at - now : 0);
}

/*
 * A receiver that died is read by the other half, and the flow ends with that: but not when its own
 * end has been passed on, nor when there is nobody left to whom its bytes could go.
 */
static void check_receiver(struct half *h)
{
	enum reason reason = from_client(h) ? REASON_backend_reset : REASON_client_reset;

	if (!h->to->broken || h->end_sent || !(half_other(h)->end_sent || h->from->broken))
		return;
	/* The sender's reset came first, and waited for an answer to be taken. */
	if (h->end == END_RST)
		reason = (enum reason)h->end_reason;
	relay_end(h->relay, reason, ALERT_NONE, ALERT_NONE);
}

/* A send was told that a bad record has come: no poll tells of it again. */
static bool has_error_to_read(const struct half *h)
{
	return h->from->rx_error && !h->end && h->to->writable && !h->to->broken &&
	       !h->to->pending_len;
}

void relay_run(struct relay *r)
{
	bool more;

	if (r->ended)
		return;
	more = half_run(&r->from_client);
	if (!r->ended)
		more |= half_run(&r->from_backend);
	/* The second half may have queued an answer for the first one's receiver. */
	if (!r->ended && r->from_client.to->pending_len)
		(void)flush_to(&r->from_client);
	if (!r->ended && r->from_client.end_sent && r->from_backend.end_sent)
		relay_end(r, r->first_end->end_reason, ALERT_NONE, ALERT_NONE);
	check_receiver(&r->from_client);
	check_receiver(&r->from_backend);
	if (r->ended)
		return;
	more |= has_error_to_read(&r->from_client) || has_error_to_read(&r->from_backend);
	if (more && !r->ready) {
		r->ready = true;
		LIST_INSERT_HEAD(&r->env->ready, r, ready_link);
	}
	set_timer(r);
}

/* Bytes that the receiver has no room for, wherever they are stuck; or behind them an end. */
static bool undelivered(const struct half *h)
{
	return h->in_flight || h->to->pending_len || (h->from->readable && !h->to->writable) ||
	       (h->end && !h->end_sent);
}

/*
 * Who closes in TLS 1.2 has closed both ways (RFC 5246 7.2.1), and the answer is ours to give. But
 * programs read on: as long as the other side's bytes come, they are passed on, and with some of
 * them stuck the end is no close_notify.
 */
static void close_for_tls12(struct relay *r)
{
	uint64_t quiet = r->last_move + TLS12_CLOSE_MS;

	if (quiet > r->env->timers->now) {
		r->close_by = quiet;
		set_timer(r);
	} else if (undelivered(&r->from_client) || undelivered(&r->from_backend)) {
		relay_end(r, REASON_half_close_timeout, ALERT_NONE, ALERT_NONE);
	} else {
		relay_end(r, REASON_done, ALERT_NONE, ALERT_NONE);
	}
}

static void expired(struct timer *t)
{
	struct relay *r = container_of(t, struct relay, timer);
	uint64_t now = r->env->timers->now;

	if (r->close_by && now >= r->close_by) {
		close_for_tls12(r);
		return;
	}
	if (r->env->idle_timeout && now >= r->last_move + r->env->idle_timeout) {
		relay_abort(r, REASON_idle_timeout);
		return;
	}
	if (!r->tick_wanted) {
		set_timer(r);
		return;
	}
	r->tick_wanted = false;
	r->tick = r->tick * 2 > TICK_MAX ? TICK_MAX : r->tick * 2;
	relay_run(r);
}

static void half_init(struct half *h, struct relay *r, struct side *from, struct side *to)
{
	memset(h, 0, sizeof(*h));
	h->relay = r;
	h->from = from;
	h->to = to;
	h->end_alert = h->own_alert = ALERT_NONE;
	h->idle_refill = r->env->timers->now;
}

void relay_start(struct relay *r, struct relay_env *env, const struct engine *engine,
		 struct side *client, struct side *backend,
		 void (*end)(struct relay *, enum reason, int, int))
{
	memset(r, 0, sizeof(*r));
	r->env = env;
	r->engine = engine;
	r->end = end;
	r->timer.expired = expired;
	r->tick = TICK_MIN;
	r->last_move = env->timers->now;
	rank_last(r);
	half_init(&r->from_client, r, client, backend);
	half_init(&r->from_backend, r, backend, client);
	/* Bytes may be waiting since before the polls were armed. */
	client->readable = client->writable = true;
	backend->readable = backend->writable = true;
	relay_run(r);
}

bool relay_run_ready(struct relay_env *env)
{
	LIST_HEAD(, relay) turn = {LIST_FIRST(&env->ready)};
	struct relay *r;

	/* The list moves to a head of its own: who becomes ready again waits for the next turn. */
	if (turn.lh_first)
		turn.lh_first->ready_link.le_prev = &turn.lh_first;
	LIST_INIT(&env->ready);
	while ((r = LIST_FIRST(&turn))) {
		LIST_REMOVE(r, ready_link);
		r->ready = false;
		relay_run(r);
	}
	return !LIST_EMPTY(&env->ready);
}

void relay_stop(struct relay *r)
{
	r->ended = true;
	TAILQ_REMOVE(&r->env->by_idleness, r, idle_link);
	if (r->ready) {
		r->ready = false;
		LIST_REMOVE(r, ready_link);
	}
	timer_clear(r->env->timers, &r->timer);
	r->engine->release_half(&r->from_client);
	r->engine->release_half(&r->from_backend);
}

/* ---- bytes waiting for a side's kernel ---- */

static void wipe_pending(struct side *s)
{
	if (s->pending)
		OPENSSL_cleanse(s->pending, s->pending_len); /* may hold keys, see relay_splice.c */
	free(s->pending);
}

int side_pending_add(struct side *s, const void *buf, size_t len)
{
	uint32_t left = s->pending_len - s->pending_off;
	uint8_t *grown;

	if (!len)
		return 0;
	grown = malloc(left + len);
	if (!grown)
		return -ENOMEM;
	if (left)
		memcpy(grown, s->pending + s->pending_off, left);
	memcpy(grown + left, buf, len);
	wipe_pending(s);
	s->pending = grown;
	s->pending_off = 0;
	s->pending_len = (uint32_t)(left + len);
	return 0;
}

int side_pending_send(struct side *s)
{
	while (s->pending_len) {
		ssize_t n = TEMP_FAILURE_RETRY(send(s->fd, s->pending + s->pending_off,
						    s->pending_len - s->pending_off,
						    MSG_DONTWAIT | MSG_NOSIGNAL));

		if (n < 0)
			return -errno;
		s->pending_off += (uint32_t)n;
		if (s->pending_off == s->pending_len)
			side_pending_free(s);
	}
	return 0;
}

void side_pending_free(struct side *s)
{
	wipe_pending(s);
	s->pending = NULL;
	s->pending_off = s->pending_len = 0;
	s->answers = 0;
}

/* ---- before there is an engine: bytes are sent as they are ---- */

static int raw_drained(struct side *s)
{
	return !s->pending_len;
}

static void raw_release_half(struct half *h)
{
	(void)h;
}

static void raw_release_side(struct side *s)
{
	side_pending_free(s);
}

const struct engine engine_raw = {
	.name = "none",
	.flush = side_pending_send,
	.drained = raw_drained,
	.release_half = raw_release_half,
	.release_side = raw_release_side,
};
