// SPDX-License-Identifier: Apache-2.0
/* The far ends' part; see farend.h. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "farend.h"

#define EXTRA_MAX    44 /* the gate bears a burst of 64 records without data, ends included */
#define TICKETS_MAX  20
#define FLOOD	     400
#define PADDING_MAX  2000
#define WRITES_A_RUN 8

enum message {
	HELLO_REQUEST = 0,
	CLIENT_HELLO = 1,
	NEW_SESSION_TICKET = 4,
	FINISHED = 20,
	KEY_UPDATE = 24
};

static bool tls13(const struct farend *e)
{
	return e->plan->version == WIRE_TLS13;
}

/* ---- sealing ---- */

static uint8_t *room(struct farend *e, size_t n)
{
	if (e->out_off) {
		memmove(e->out, e->out + e->out_off, e->out_len - e->out_off);
		e->out_len -= e->out_off;
		e->out_off = 0;
	}
	if (e->out_len + n > e->out_size) {
		e->out_size = (e->out_len + n) * 2;
		e->out = realloc(e->out, e->out_size);
		if (!e->out)
			abort();
	}
	return e->out + e->out_len;
}

static void put_raw(struct farend *e, const void *p, size_t n)
{
	memcpy(room(e, n), p, n);
	e->out_len += n;
}

static size_t draw_padding(struct farend *e, size_t n)
{
	uint64_t most = WIRE_PLAIN - n < PADDING_MAX ? WIRE_PLAIN - n : PADDING_MAX;

	if (!most || !draw_chance(&e->plan->random, e->plan->padded))
		return 0;
	return draw_log(&e->plan->random, 1, most);
}

static void put_record(struct farend *e, uint8_t type, const void *p, size_t n)
{
	size_t padding = draw_padding(e, n);
	uint8_t *out = room(e, n + padding + WIRE_OVERHEAD);

	e->out_len += wire_seal(&e->tx, type, p, n, padding, out);
}

static void put_data(struct farend *e, size_t n)
{
	uint8_t buf[WIRE_PLAIN];

	pattern(e->options->seed, e->schedule->flow, e->role, e->seen.sent, buf, n);
	put_record(e, WIRE_DATA, buf, n);
	e->seen.sent += n;
}

static void put_alert(struct farend *e, uint8_t level, uint8_t alert)
{
	uint8_t p[2] = {level, alert};

	put_record(e, WIRE_ALERT, p, sizeof(p));
}

static size_t message(uint8_t *p, enum message type, size_t body)
{
	p[0] = (uint8_t)type;
	p[1] = 0;
	p[2] = (uint8_t)(body >> 8);
	p[3] = (uint8_t)body;
	/*
	 * A later part of a ticket shall look like a KeyUpdate to the kernel, which sees the first
	 * byte only. In TLS 1.2, where it cannot be given keys again, that would be the end.
	 */
	memset(p + 4, type == NEW_SESSION_TICKET ? KEY_UPDATE : 0x5a, body);
	return 4 + body;
}

/* As one record, or cut anywhere into up to three. */
static void put_messages(struct farend *e, const uint8_t *p, size_t n)
{
	for (int i = 0; i < 2 && n > 1 && draw_chance(&e->plan->random, 300); i++) {
		size_t part = 1 + draw_below(&e->plan->random, n - 1);

		put_record(e, WIRE_HANDSHAKE, p, part);
		e->extra_left--;
		p += part;
		n -= part;
	}
	put_record(e, WIRE_HANDSHAKE, p, n);
	e->extra_left--;
}

static size_t key_update_message(struct farend *e, uint8_t *p)
{
	size_t n = message(p, KEY_UPDATE, 1);

	p[4] = draw_chance(&e->plan->random, 500);
	e->seen.updates_wanted += p[4];
	return n;
}

/* ---- records without data ---- */

static void put_tickets(struct farend *e)
{
	uint8_t buf[4 * 400 + 8];
	unsigned count = 1 + (unsigned)draw_below(&e->plan->random, 4);
	size_t n = 0;
	bool update = e->options->rekey && draw_chance(&e->plan->random, e->plan->key_updates);

	if (count > e->tickets_left)
		count = e->tickets_left;
	e->tickets_left -= count;
	while (count--)
		n += message(buf + n, NEW_SESSION_TICKET, draw_below(&e->plan->random, 300));
	if (update)
		n += key_update_message(e, buf + n);
	if (n)
		put_messages(e, buf, n);
	if (update)
		wire_update(&e->tx);
}

/*
 * Cut in front of its length, a message of 24 bytes makes a record that begins as a KeyUpdate does:
 * Linux 6.18 and 7.3 want a new key then, and give TLS 1.2 none (docs/testing.md). So never 24.
 */
static void put_renegotiation(struct farend *e)
{
	uint8_t buf[256];
	size_t body = e->role == BACKEND ? 0 : draw_below(&e->plan->random, 200), n;

	n = message(buf, e->role == BACKEND ? HELLO_REQUEST : CLIENT_HELLO,
		    body == KEY_UPDATE ? body + 1 : body);
	e->seen.renegotiations_wanted++;
	put_messages(e, buf, n);
}

static void put_extra(struct farend *e)
{
	switch (draw_below(&e->plan->random, 3)) {
	case 0:
		put_record(e, WIRE_DATA, "", 0);
		e->extra_left--;
		break;
	case 1: /* warnings that end nothing: user_canceled; TLS 1.2 knows others */
		put_alert(e, 1, tls13(e) || draw_chance(&e->plan->random, 500) ? 90 : 41);
		e->extra_left--;
		break;
	default:
		if (!tls13(e))
			put_renegotiation(e);
		else if (e->role == BACKEND)
			put_tickets(e);
	}
}

static void put_key_update(struct farend *e)
{
	uint8_t buf[8];

	put_messages(e, buf, key_update_message(e, buf));
	wire_update(&e->tx);
}

/* ---- breaking the protocol ---- */

static void put_long_plaintext(struct farend *e)
{
	static const uint8_t zeros[WIRE_PLAIN + 1];
	uint8_t *out = room(e, sizeof(zeros) + WIRE_OVERHEAD);

	e->out_len += wire_seal(&e->tx, WIRE_DATA, zeros, sizeof(zeros), 0, out);
}

static void put_only_padding(struct farend *e)
{
	uint8_t *out = room(e, 100 + WIRE_OVERHEAD);

	e->out_len += wire_seal(&e->tx, 0, "", 0, 100, out);
}

static void put_flood(struct farend *e, enum broken broken)
{
	uint8_t buf[64];

	for (int i = 0; i < FLOOD; i++) {
		switch (broken) {
		case BREAK_EMPTY_FLOOD:
			put_record(e, WIRE_DATA, "", 0);
			break;
		case BREAK_TICKET_FLOOD:
			put_record(e, WIRE_HANDSHAKE, buf, message(buf, NEW_SESSION_TICKET, 20));
			break;
		default:
			put_record(e, WIRE_HANDSHAKE, buf, key_update_message(e, buf));
			wire_update(&e->tx);
		}
	}
}

static void put_break(struct farend *e)
{
	static const char http[] = "GET / HTTP/1.1\r\nHost: ktlsgate\r\n\r\n";
	static const uint8_t short_record[] = {WIRE_DATA, 3, 3, 0, 10, 1, 2, 3,
					       4,	  5, 6, 7, 8,  9, 10};
	uint8_t buf[512] = {WIRE_DATA, 3, 3, 0x80, 0};
	size_t n;

	switch (e->plan->broken) {
	case BREAK_BAD_MAC:
		put_record(e, WIRE_DATA, "ktlsgate", 8);
		e->out[e->out_len - 1 - draw_below(&e->plan->random, 24)] ^= 1;
		break;
	case BREAK_SHORT_RECORD:
		put_raw(e, short_record, sizeof(short_record));
		break;
	case BREAK_LONG_HEADER:
		put_raw(e, buf, sizeof(buf));
		break;
	case BREAK_LONG_PLAINTEXT:
		put_long_plaintext(e);
		break;
	case BREAK_UNKNOWN_TYPE:
		put_record(e, (uint8_t)(24 + draw_below(&e->plan->random, 200)), "ktlsgate", 8);
		break;
	case BREAK_CHANGE_CIPHER_SPEC:
		put_record(e, WIRE_CCS, "\1", 1);
		break;
	case BREAK_NOT_TLS:
		put_raw(e, http, strlen(http));
		break;
	case BREAK_NO_TYPE:
		put_only_padding(e);
		break;
	case BREAK_FINISHED:
		put_record(e, WIRE_HANDSHAKE, buf, message(buf, FINISHED, 32));
		break;
	case BREAK_EMPTY_HANDSHAKE:
		put_record(e, WIRE_HANDSHAKE, "", 0);
		break;
	case BREAK_LONE_BYTE_ALERT:
		put_record(e, WIRE_ALERT, "\1", 1);
		break;
	case BREAK_DOUBLE_ALERT:
		put_record(e, WIRE_ALERT, "\1\132\1\132", 4);
		break;
	case BREAK_KEY_UPDATE_2:
	case BREAK_KEY_UPDATE_BEHIND:
		n = message(buf, KEY_UPDATE, 1);
		buf[4] = e->plan->broken == BREAK_KEY_UPDATE_2 ? 2 : 0;
		if (e->plan->broken == BREAK_KEY_UPDATE_BEHIND)
			n += message(buf + n, KEY_UPDATE, 1);
		put_record(e, WIRE_HANDSHAKE, buf, n);
		break;
	case BREAK_KEY_UPDATE_LONG:
		put_record(e, WIRE_HANDSHAKE, buf, message(buf, KEY_UPDATE, 2));
		break;
	case BREAK_KEY_UPDATE:
	case BREAK_OLD_KEYS:
		put_record(e, WIRE_HANDSHAKE, buf, key_update_message(e, buf));
		put_record(e, WIRE_DATA, "ktlsgate", 8);
		break;
	case BREAK_CLIENT_TICKET:
	case BREAK_TICKET_12:
		put_record(e, WIRE_HANDSHAKE, buf, message(buf, NEW_SESSION_TICKET, 100));
		break;
	case BREAK_DATA_IN_MESSAGE:
		n = message(buf, NEW_SESSION_TICKET, 100);
		put_record(e, WIRE_HANDSHAKE, buf, 1 + draw_below(&e->plan->random, n - 1));
		put_record(e, WIRE_DATA, "ktlsgate", 8);
		break;
	default:
		put_flood(e, e->plan->broken);
	}
}

/* ---- its own end ---- */

static void put_cut(struct farend *e)
{
	uint8_t buf[1000] = {0};
	size_t from = e->out_len - e->out_off, whole;

	put_record(e, WIRE_DATA, buf, 1 + draw_below(&e->plan->random, sizeof(buf)));
	whole = e->out_len - e->out_off - from;
	e->out_len -= 1 + draw_below(&e->plan->random, whole - 1);
}

static void put_end(struct farend *e)
{
	switch (e->plan->finish) {
	case BY_CLOSE_NOTIFY:
		put_alert(e, 1, 0);
		break;
	case BY_ALERT:
		put_alert(e, 2, e->plan->alert);
		break;
	case BY_CUT:
		put_cut(e);
		break;
	case BY_BREAK:
		put_break(e);
		break;
	case BY_CLOSE:
		if (e->plan->said_goodbye)
			put_alert(e, 1, 0);
		break;
	default:
		break;
	}
	e->sealed_all = true;
}

static bool may_end(const struct farend *e)
{
	const struct end_plan *p = e->plan;

	switch (p->when) {
	case WHEN_RECEIVED:
		return e->seen.ended || e->seen.received >= e->schedule->end[!e->role].total;
	case WHEN_PEER_ENDED:
		return e->seen.ended;
	case WHEN_ABORT:
		return e->seen.ended || e->seen.received >= p->abort_received;
	default:
		return true;
	}
}

/* Seals the next record. False: nothing is to be sent for now. */
static bool produce(struct farend *e)
{
	struct end_plan *p = e->plan;
	uint64_t goal = p->when == WHEN_ABORT ? p->abort_sent : p->total;
	size_t n;

	if (e->sealed_all || (p->after_peer && !e->seen.ended))
		return false;
	if (e->seen.sent >= goal && may_end(e)) {
		put_end(e);
		return true;
	}
	if (e->seen.sent == p->total)
		return false;
	if (e->extra_left > 6 && draw_chance(&p->random, p->extra)) {
		put_extra(e);
		return true;
	}
	if (e->extra_left > 6 && draw_chance(&p->random, p->key_updates)) {
		put_key_update(e);
		return true;
	}
	n = draw_record(&p->random, p->sizes);
	put_data(e, n < p->total - e->seen.sent ? n : p->total - e->seen.sent);
	return true;
}

/* ---- sending ---- */

static size_t write_size(struct farend *e)
{
	size_t left = e->out_len - e->out_off, n = left;

	if (e->plan->writes == WRITES_ONES && e->one_byte_writes) {
		e->one_byte_writes--;
		n = 1;
	} else if (e->plan->writes == WRITES_ODD || e->plan->writes == WRITES_ONES) {
		n = draw_log(&e->plan->random, 1, 20000);
	}
	return n < left ? n : left;
}

static void shut(struct farend *e, bool rst)
{
	struct linger linger = {.l_onoff = 1, .l_linger = 0};

	if (rst)
		setsockopt(e->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	close(e->fd);
	e->fd = -1;
	e->done = true;
}

/* Everything is with the kernel, its own end included. */
static void sent_all(struct farend *e, uint64_t now)
{
	e->seen.finished = true;
	e->seen.finished_at = now;
	switch (e->plan->finish) {
	case BY_FIN:
	case BY_CUT:
		shutdown(e->fd, SHUT_WR);
		break;
	case BY_CLOSE:
	case BY_RST:
		shut(e, e->plan->finish == BY_RST);
		break;
	default:
		if (e->plan->fin_at_once)
			shutdown(e->fd, SHUT_WR);
	}
}

static void send_some(struct farend *e, uint64_t now)
{
	size_t target = e->plan->writes == WRITES_HUGE ? 1 << 20 : 1 << 16;

	for (int i = 0; i < WRITES_A_RUN && !e->seen.finished && now >= e->paused_until; i++) {
		ssize_t n;

		while (e->out_len - e->out_off < target && produce(e))
			e->idle = false;
		if (e->sealed_all && e->plan->finish == BY_RST && e->plan->fin_at_once) {
			e->seen.finished = true;
			shut(e, true);
			return;
		}
		if (e->out_off == e->out_len) {
			e->idle = !e->sealed_all;
			if (e->sealed_all)
				sent_all(e, now);
			return;
		}
		n = send(e->fd, e->out + e->out_off, write_size(e), MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0) { /* reset: nothing it says is heard any more */
			e->reset = e->seen.finished = e->sealed_all = true;
			e->seen.finished_at = now;
			return;
		}
		e->out_off += (size_t)n;
		if (draw_chance(&e->plan->random, e->plan->pauses))
			e->paused_until = now + 1 + draw_below(&e->plan->random, 15);
	}
}

/* ---- receiving ---- */

static void ended(struct farend *e, enum ended how)
{
	if (e->seen.ended)
		return;
	e->seen.ended = how;
}

static void take_data(struct farend *e, const uint8_t *p, size_t n)
{
	uint8_t want[WIRE_PLAIN];
	struct seen *s = &e->seen;

	if (n > sizeof(want)) {
		s->garbage = "a record too long";
		return;
	}
	pattern(e->options->seed, e->schedule->flow, !e->role, s->received, want, n);
	for (size_t i = 0; i < n && s->different_at < 0; i++) {
		if (p[i] == want[i])
			continue;
		s->different_at = (int64_t)(s->received + i);
		pattern_trace(e->options->seed, p + i, n - i, s->trace, sizeof(s->trace));
	}
	s->received += n;
}

static void take_alert(struct farend *e, const uint8_t *p, size_t n)
{
	if (n != 2) {
		e->seen.garbage = "an alert of another length than 2";
	} else if (p[1] == 0) {
		ended(e, ENDED_CLOSE_NOTIFY);
	} else if (p[0] == 1 && p[1] == 100 && !tls13(e)) {
		e->seen.renegotiations++;
	} else {
		ended(e, ENDED_ALERT);
		e->seen.alert = p[1];
	}
}

static void take_message(struct farend *e, const uint8_t *p, size_t n)
{
	static const uint8_t update[] = {KEY_UPDATE, 0, 0, 1, 0};

	if (!tls13(e) || n != sizeof(update) || memcmp(p, update, n)) {
		e->seen.garbage = "a handshake message that is no answer";
		return;
	}
	e->seen.updates++;
	wire_update(&e->rx);
}

static void take_record(struct farend *e)
{
	uint8_t *p, type;
	ssize_t n = wire_open(&e->rx, e->in, e->in_len, &p, &type);

	e->in_len = 0;
	if (n < 0)
		e->seen.garbage = "a record that cannot be opened";
	else if (e->seen.ended)
		e->seen.garbage = "a record behind the end";
	else if (type == WIRE_DATA)
		take_data(e, p, (size_t)n);
	else if (type == WIRE_ALERT)
		take_alert(e, p, (size_t)n);
	else if (type == WIRE_HANDSHAKE)
		take_message(e, p, (size_t)n);
	else
		e->seen.garbage = "a record of unknown type";
}

/* How much is missing of the record's header, then of the record. */
static size_t missing(struct farend *e)
{
	size_t len;

	if (e->in_len < 5)
		return 5 - e->in_len;
	len = 5 + (size_t)(e->in[3] << 8 | e->in[4]);
	if (len > sizeof(e->in))
		e->seen.garbage = "a header of no record";
	return len - e->in_len;
}

static void stream_ended(struct farend *e, bool rst)
{
	if (e->in_len && !rst) {
		e->seen.garbage = "a record cut short";
		e->seen.cut = true;
	}
	e->seen.tail = rst ? ENDED_RST : ENDED_FIN;
	ended(e, e->seen.tail);
}

static void consume(struct farend *e, const uint8_t *p, size_t n)
{
	while (n && !e->seen.garbage) {
		size_t need = missing(e), take = need < n ? need : n;

		if (e->seen.garbage)
			return;
		memcpy(e->in + e->in_len, p, take);
		e->in_len += take;
		p += take;
		n -= take;
		/* Of a header alone not yet: its body's length is only now known. */
		if (e->in_len >= 5 && !missing(e) && !e->seen.garbage)
			take_record(e);
	}
}

static void receive(struct farend *e, uint64_t now)
{
	uint8_t buf[65536];
	ssize_t n = recv(e->fd, buf, e->plan->read_max, MSG_DONTWAIT);

	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0) {
		stream_ended(e, n < 0 || e->reset);
		return;
	}
	consume(e, buf, (size_t)n);
	if (e->plan->stall_ms && !e->stalled && e->seen.received >= e->plan->stall_at) {
		e->stalled = true;
		e->stalled_until = now + e->plan->stall_ms;
	}
}

/* ---- running ---- */

void farend_start(struct farend *e, const struct schedule_options *o, struct schedule *s,
		  enum role role, int fd, const struct wire_keys *tx, const struct wire_keys *rx)
{
	memset(e, 0, sizeof(*e));
	e->options = o;
	e->schedule = s;
	e->plan = &s->end[role];
	e->role = role;
	e->fd = fd;
	e->seen.different_at = -1;
	e->extra_left = EXTRA_MAX;
	e->tickets_left = TICKETS_MAX;
	e->one_byte_writes = 150;
	wire_init(&e->tx, tx, true);
	wire_init(&e->rx, rx, false);
}

static uint64_t soonest(uint64_t at, uint64_t now, uint64_t *wake)
{
	if (at > now && at < *wake)
		*wake = at;
	return at;
}

short farend_wants(struct farend *e, uint64_t now, uint64_t *wake)
{
	short events = 0;

	if (e->done)
		return 0;
	if (!e->seen.tail && soonest(e->stalled_until, now, wake) <= now)
		events |= POLLIN;
	if (e->seen.finished || soonest(e->paused_until, now, wake) > now)
		return events;
	if (!e->idle)
		events |= POLLOUT;
	return events;
}

void farend_run(struct farend *e, short events, uint64_t now)
{
	if (e->done)
		return;
	if (events & (POLLERR | POLLHUP)) /* else poll() would never sleep */
		e->stalled_until = e->paused_until = 0;
	if (!e->seen.tail && now >= e->stalled_until)
		receive(e, now);
	if (e->seen.garbage || e->seen.ended == ENDED_ALERT || e->seen.tail == ENDED_RST)
		e->seen.finished = e->sealed_all = true;
	send_some(e, now);
	if (!e->done && ((e->seen.tail && e->seen.finished) || e->seen.garbage))
		shut(e, false);
}

void farend_stop(struct farend *e)
{
	if (e->fd >= 0)
		shut(e, true);
	wire_free(&e->tx);
	wire_free(&e->rx);
	free(e->out);
	e->out = NULL;
}
