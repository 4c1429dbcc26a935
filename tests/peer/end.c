/* SPDX-License-Identifier: Apache-2.0 */
/* Follows a plan on one socket and notes what the other end does. Knows no other end. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <openssl/err.h>
#include "end.h"

#define READ_SIZE (64 << 10)
#define CHUNK	  (64 << 10) /* sealed at a time */
#define BURST_MAX 64	     /* small writes to a segment */
#define QUIT_MAX  6000	     /* bytes of a handshake, about */

const char end_impatient[] = "nothing happened for too long";
const char end_quits[] = "left in its handshake";

static BIO_METHOD *method;

/* ---- sleeping ---- */

static void wake_at(struct world *w, uint64_t at)
{
	if (at < w->wake)
		w->wake = at;
}

static bool asleep(struct world *w, uint64_t *until)
{
	if (*until > w->now) {
		wake_at(w, *until);
		return true;
	}
	*until = 0;
	return false;
}

/* ---- the socket, as OpenSSL sees it ---- */

static bool gone(int error)
{
	return error == ECONNRESET || error == EPIPE || error == ETIMEDOUT;
}

static int bio_write(BIO *bio, const char *buf, int len)
{
	struct end *e = BIO_get_data(bio);
	size_t n = (size_t)len;

	if (e->out_len + n > e->out_size) {
		size_t size = e->out_len + n < 4096 ? 4096 : 2 * (e->out_len + n);
		uint8_t *grown = realloc(e->out, size);

		if (!grown)
			return -1;
		e->out = grown;
		e->out_size = size;
	}
	memcpy(e->out + e->out_len, buf, n);
	e->out_len += n;
	e->handshaken += n;
	return len;
}

/* A record that cannot be opened, then zeros for as long as OpenSSL wants to read. */
static int inject(struct end *e, char *buf, int len)
{
	static const uint8_t rubbish[3][5] = {
		{23, 3, 3, 0, 64},	/* bad_record_mac */
		{23, 3, 3, 0x7f, 0xff}, /* record_overflow */
		{22, 3, 3, 0, 64},	/* unexpected_message in TLS 1.3 */
	};
	const uint8_t *header = rubbish[e->plan->pattern % 3];

	for (int i = 0; i < len; i++, e->injected++)
		buf[i] = e->injected < 5 ? (char)header[e->injected] : 0;
	return len;
}

static int bio_read(BIO *bio, char *buf, int len)
{
	struct end *e = BIO_get_data(bio);
	ssize_t n;

	BIO_clear_retry_flags(bio);
	if (e->inject)
		return inject(e, buf, len);
	n = recv(e->fd, buf, (size_t)len, 0);
	if (n > 0) {
		e->moved_at = e->world->now;
		e->handshaken += (uint64_t)n;
		return (int)n;
	}
	if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
		BIO_set_retry_read(bio);
		return -1;
	}
	/* A reset that a send has been told reads as end of stream. */
	if (n < 0 || e->send_broken)
		e->reset = true;
	else
		e->eof = true;
	return n < 0 ? -1 : 0;
}

static long bio_ctrl(BIO *bio, int cmd, long num, void *ptr)
{
	const struct end *e = BIO_get_data(bio);

	(void)num;
	(void)ptr;
	if (cmd == BIO_CTRL_EOF)
		return e->eof || e->reset;
	return cmd == BIO_CTRL_FLUSH;
}

int end_init(void)
{
	method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "end");
	return method && BIO_meth_set_write(method, bio_write) &&
			       BIO_meth_set_read(method, bio_read) &&
			       BIO_meth_set_ctrl(method, bio_ctrl)
		       ? 0
		       : -1;
}

void end_info(const SSL *ssl, int where, int value)
{
	struct end *e = SSL_get_app_data(ssl);

	if (where == SSL_CB_READ_ALERT)
		e->alert_in = value;
	else if (where == SSL_CB_WRITE_ALERT && e->flow && value >> 8 == SSL3_AL_FATAL)
		e->flow->seen[e->role].alert_sent = value & 0xff;
}

/* False: the kernel takes no more for now. */
static bool flush(struct end *e)
{
	while (e->out_off < e->out_len) {
		ssize_t n = send(e->fd, e->out + e->out_off, e->out_len - e->out_off, MSG_NOSIGNAL);

		if (n < 0 && errno == EAGAIN)
			return false;
		if (n < 0) {
			e->send_broken = gone(errno);
			break;
		}
		e->out_off += (size_t)n;
		e->moved_at = e->world->now;
	}
	free(e->out);
	e->out = NULL;
	e->out_off = e->out_len = e->out_size = 0;
	return true;
}

void end_set_buffers(int fd, const struct end_plan *plan)
{
	if (plan->sndbuf)
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &plan->sndbuf, sizeof(plan->sndbuf));
	if (plan->rcvbuf)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &plan->rcvbuf, sizeof(plan->rcvbuf));
	if (plan->mss)
		setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &plan->mss, sizeof(plan->mss));
}

void end_told(struct end *e)
{
	static const int large = 1 << 20;

	e->moved_at = e->world->now;
	if (e->flow && e->flow->plan.kind == KIND_STALLED && e->role == CLIENT)
		setsockopt(e->fd, SOL_SOCKET, SO_RCVBUF, &large, sizeof(large));
}

/* ---- life ---- */

struct end *end_new(struct world *w, enum role role, int fd, SSL *ssl, struct flow *flow)
{
	struct end *e = calloc(1, sizeof(*e));
	BIO *bio = BIO_new(method);
	int one = 1;

	if (!e || !bio)
		abort();
	e->world = w;
	e->role = role;
	e->fd = fd;
	e->ssl = ssl;
	e->flow = flow;
	e->plan = flow ? &flow->plan.end[role] : NULL;
	e->state = role == CLIENT ? END_CONNECTING : END_HANDSHAKE;
	e->alert_in = -1;
	e->quit_at = draw_below(&w->random, 1000) < w->quits ? draw_below(&w->random, QUIT_MAX)
							     : UINT64_MAX;
	e->moved_at = w->now;
	if (flow)
		flow->end[role] = e;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	BIO_set_data(bio, e);
	BIO_set_init(bio, 1);
	SSL_set_bio(ssl, bio, bio);
	SSL_set_app_data(ssl, e);
	LIST_INSERT_HEAD(&w->ends, e, link);
	return e;
}

static void end_over(struct end *e, const char *trouble)
{
	if (e->flow)
		e->flow->end[e->role] = NULL;
	close(e->fd);
	e->world->finished(e, trouble);
	LIST_REMOVE(e, link);
	/* No last words: what is to be said was said. */
	SSL_set_quiet_shutdown(e->ssl, 1);
	SSL_free(e->ssl);
	free(e->out);
	free(e);
}

/* ---- receiving ---- */

static void note_end(struct end *e)
{
	struct seen *s = &e->flow->seen[e->role];

	if (s->ended)
		return;
	e->moved_at = e->world->now;
	if (e->alert_in >= 0 && (e->alert_in & 0xff) == SSL_AD_CLOSE_NOTIFY) {
		s->ended = ENDED_CLOSE_NOTIFY;
		s->undue = !e->flow->seen[!e->role].said_goodbye;
	} else if (e->alert_in >= 0) {
		s->ended = ENDED_ALERT;
		s->alert = e->alert_in & 0xff;
	} else if (e->reset || e->send_broken) {
		s->ended = ENDED_RST;
	} else if (e->eof) {
		s->ended = ENDED_FIN;
	} else {
		s->ended = ENDED_ERROR;
	}
}

static bool meet(struct end *e)
{
	e->flow = e->world->meet(e, plan_number(e->number));
	if (!e->flow)
		return false;
	e->plan = &e->flow->plan.end[e->role];
	end_set_buffers(e->fd, e->plan);
	if (e->plan->padding)
		SSL_set_block_padding(e->ssl, e->plan->padding);
	if (e->plan->fragment)
		SSL_set_max_send_fragment(e->ssl, e->plan->fragment);
	return true;
}

uint64_t end_clock(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void stop_watch(struct end *e)
{
	struct flow *f = e->flow;

	if (e->role != CLIENT || !f->asked_at)
		return;
	e->world->took(f, end_clock() - f->asked_at);
	f->asked_at = 0;
}

static void take(struct end *e, const uint8_t *buf, size_t n)
{
	static uint8_t expected[READ_SIZE];
	struct flow *f = e->flow;
	struct seen *s = &f->seen[e->role];
	EVP_MD_CTX *digest = f->digest[!e->role][1];

	plan_bytes(&f->plan, !e->role, s->received, expected, n);
	if (s->different_at < 0 && memcmp(buf, expected, n)) {
		size_t i = 0;

		while (buf[i] == expected[i])
			i++;
		s->different_at = (int64_t)(s->received + i);
	}
	if (digest)
		EVP_DigestUpdate(digest, buf, n);
	stop_watch(e);
	s->received += n;
	e->world->bytes += n;
}

static bool reads_now(struct end *e)
{
	uint64_t received;

	if (!e->flow)
		return true;
	received = e->flow->seen[e->role].received;
	if (e->flow->seen[e->role].ended)
		return false;
	if (e->flow->plan.kind == KIND_STALLED && e->role == CLIENT && !e->world->told)
		return false;
	if (e->plan->stall_ms && !e->stalled && received >= e->plan->stall_at) {
		e->stalled = true;
		e->read_sleep = e->world->now + e->plan->stall_ms;
	}
	return !asleep(e->world, &e->read_sleep);
}

/* How much to ask for: never past the place where the plan stops or stalls. */
static size_t read_size(const struct end *e)
{
	uint64_t received, stop = UINT64_MAX;

	if (!e->flow)
		return NUMBER_LEN - e->number_len;
	received = e->flow->seen[e->role].received;
	if (e->plan->when == WHEN_RECEIVED && e->plan->stop_at > received)
		stop = e->plan->stop_at - received;
	if (e->plan->stall_ms && !e->stalled && e->plan->stall_at > received &&
	    e->plan->stall_at - received < stop)
		stop = e->plan->stall_at - received;
	return stop < READ_SIZE ? stop : READ_SIZE;
}

static bool stops_here(const struct end *e)
{
	return e->flow && e->plan->when == WHEN_RECEIVED &&
	       e->flow->seen[e->role].received >= e->plan->stop_at;
}

/* Returns NULL, or what went wrong with an end that has no flow. */
static const char *receive(struct end *e)
{
	static uint8_t buf[READ_SIZE];

	while (reads_now(e) && !stops_here(e)) {
		size_t n;

		ERR_clear_error();
		if (!SSL_read_ex(e->ssl, buf, read_size(e), &n)) {
			if (SSL_get_error(e->ssl, 0) == SSL_ERROR_WANT_READ)
				break;
			if (!e->flow)
				return "ended before it had said its number";
			note_end(e);
			break;
		}
		if (e->flow) {
			take(e, buf, n);
			continue;
		}
		memcpy(e->number + e->number_len, buf, n);
		e->number_len += (unsigned)n;
		if (e->number_len < NUMBER_LEN)
			continue;
		if (!meet(e))
			return "said a number that is no flow's";
		take(e, e->number, NUMBER_LEN);
	}
	return NULL;
}

/* ---- sending ---- */

/* An end that was told to stop as soon as the other had: a TLS 1.2 close_notify is for both. */
static void heed_end(struct end *e)
{
	const struct seen *s = &e->flow->seen[e->role];

	if (s->ended == ENDED_RST || s->ended == ENDED_ALERT || s->ended == ENDED_ERROR ||
	    (s->ended == ENDED_CLOSE_NOTIFY && SSL_version(e->ssl) == TLS1_2_VERSION))
		e->plan->total = e->flow->seen[e->role].sent;
}

/* Where it has to wait for the other end's next message. */
static uint64_t turn_ends(const struct end *e, uint64_t received)
{
	uint64_t turns = received < NUMBER_LEN ? 0 : (received - NUMBER_LEN) / e->plan->turn;

	return NUMBER_LEN + (turns + (e->role == CLIENT)) * e->plan->turn;
}

static uint64_t may_send(const struct end *e)
{
	const struct seen *s = &e->flow->seen[e->role];
	bool waits = e->world->hold || (e->plan->after_peer && !s->ended);
	uint64_t limit = waits ? NUMBER_LEN : e->plan->total;

	if (e->plan->turn && turn_ends(e, s->received) < limit)
		limit = turn_ends(e, s->received);
	return limit > s->sent ? limit - s->sent : 0;
}

/* Seals one write of the plan, or as much of a large one as is sealed at a time. */
static bool seal(struct end *e)
{
	static uint8_t buf[CHUNK];
	struct seen *s = &e->flow->seen[e->role];
	EVP_MD_CTX *digest = e->flow->digest[e->role][0];
	size_t n = may_send(e), done;

	if (!e->write_left)
		e->write_left = draw_size(&e->plan->random, e->plan->sizes);
	if (n > e->write_left)
		n = e->write_left;
	if (n > sizeof(buf))
		n = sizeof(buf);
	if (s->sent < NUMBER_LEN && n > NUMBER_LEN - s->sent)
		n = NUMBER_LEN - s->sent;
	plan_bytes(&e->flow->plan, e->role, s->sent, buf, n);
	ERR_clear_error();
	if (!SSL_write_ex(e->ssl, buf, n, &done))
		return false;
	if (digest)
		EVP_DigestUpdate(digest, buf, done);
	if (e->plan->turn && e->role == CLIENT && e->world->took && s->sent >= NUMBER_LEN)
		e->flow->asked_at = end_clock();
	s->sent += done;
	e->write_left -= done;
	return true;
}

static bool pauses(struct end *e)
{
	if (e->plan->pauses && draw_below(&e->plan->random, 1000) < e->plan->pauses)
		e->write_sleep = e->world->now + 1 + draw_below(&e->plan->random, 30);
	return asleep(e->world, &e->write_sleep);
}

static void maybe_update_keys(struct end *e)
{
	if (e->plan->key_updates && SSL_version(e->ssl) == TLS1_3_VERSION &&
	    draw_below(&e->plan->random, 1000) < e->plan->key_updates)
		SSL_key_update(e->ssl, draw_below(&e->plan->random, 2)
					       ? SSL_KEY_UPDATE_REQUESTED
					       : SSL_KEY_UPDATE_NOT_REQUESTED);
}

/*
 * Ends with something that could not be flushed, which set_interest() then waits for, or with
 * nothing that may be sent now. So nobody may flush behind it: the socket may take it by then, and
 * nothing would tell that there is more to send.
 */
static void transmit(struct end *e)
{
	while (flush(e) && !e->closed && !e->send_broken && !asleep(e->world, &e->write_sleep) &&
	       may_send(e)) {
		unsigned burst = 1 + (unsigned)draw_below(&e->plan->random, BURST_MAX);

		if (!e->write_left) {
			if (pauses(e))
				return;
			maybe_update_keys(e);
		}
		while (burst-- && may_send(e) && e->out_len < CHUNK / 2) {
			if (!seal(e)) {
				e->send_broken = true;
				break;
			}
		}
	}
}

/* ---- ending ---- */

static bool ripe(const struct end *e)
{
	const struct seen *s = &e->flow->seen[e->role];
	bool sent = s->sent >= e->plan->total && !e->out_len;

	switch (e->plan->when) {
	case WHEN_SENT:
		return sent;
	case WHEN_BOTH:
		return sent && (s->ended || s->received >= e->flow->plan.end[!e->role].total);
	case WHEN_PEER_ENDED:
		return sent && s->ended;
	case WHEN_RECEIVED:
		if (s->ended)
			return true;
		/* A close_notify before the number might as well be one that the gate made up. */
		if (e->plan->finish == BY_CLOSE_NOTIFY_CLOSE && s->sent < NUMBER_LEN)
			return false;
		return s->received >= e->plan->stop_at;
	case WHEN_TOLD:
		return e->world->told && !e->out_len;
	}
	return false;
}

static void reset(struct end *e)
{
	struct linger linger = {.l_onoff = 1, .l_linger = 0};

	setsockopt(e->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
}

static void send_alert(struct end *e)
{
	char buf[4096];
	size_t n;

	e->inject = true;
	while (SSL_read_ex(e->ssl, buf, sizeof(buf), &n) ||
	       SSL_get_error(e->ssl, 0) == SSL_ERROR_WANT_READ)
		;
}

/* True: this end is over. */
static bool finish(struct end *e)
{
	struct seen *s = &e->flow->seen[e->role];

	e->closed = true;
	switch (e->plan->finish) {
	case BY_CLOSE_NOTIFY:
		s->closed_early = s->received < e->flow->plan.end[!e->role].total;
		e->plan->total = s->sent; /* WHEN_TOLD */
		s->said_goodbye = true;
		SSL_shutdown(e->ssl);
		break;
	case BY_FIN:
		shutdown(e->fd, SHUT_WR);
		e->fin_sent = true;
		break;
	case BY_RST:
		reset(e);
		return true;
	case BY_ALERT:
		send_alert(e);
		e->state = END_DRAINING;
		break;
	case BY_CLOSE:
		return true;
	case BY_CLOSE_NOTIFY_CLOSE:
		s->closed_early = s->said_goodbye = true;
		SSL_shutdown(e->ssl);
		flush(e);
		return true;
	}
	return false;
}

/* Behind our alert: FIN, then what comes is thrown away. True: over. */
static bool drain(struct end *e)
{
	char buf[4096];
	ssize_t n;

	if (flush(e) && !e->fin_sent) {
		e->fin_sent = true;
		shutdown(e->fd, SHUT_WR);
	}
	do {
		n = recv(e->fd, buf, sizeof(buf), 0);
		if (n > 0)
			e->moved_at = e->world->now;
	} while (n > 0);
	return n == 0 || errno != EAGAIN;
}

/* True: over. */
static bool wind_up(struct end *e)
{
	const struct seen *s = &e->flow->seen[e->role];

	if (!e->closed && (ripe(e) || (e->send_broken && s->ended)) && finish(e))
		return true;
	if (e->state == END_DRAINING)
		return drain(e);
	if (!e->closed || !flush(e))
		return e->closed && e->send_broken && s->ended;
	if (!e->fin_sent && (e->plan->fin_at_once || s->ended)) {
		e->fin_sent = true;
		shutdown(e->fd, SHUT_WR);
	}
	return s->ended;
}

/* ---- running ---- */

static void set_interest(struct end *e)
{
	struct epoll_event ev = {.data.ptr = e};
	bool was = e->interest;

	if (e->out_len || e->state == END_CONNECTING)
		ev.events |= EPOLLOUT;
	if (e->state == END_DRAINING || e->state == END_HANDSHAKE ||
	    (e->state == END_OPEN && reads_now(e)))
		ev.events |= EPOLLIN;
	if (ev.events == e->interest)
		return;
	e->interest = ev.events;
	epoll_ctl(e->world->epoll,
		  !was	      ? EPOLL_CTL_ADD
		  : ev.events ? EPOLL_CTL_MOD
			      : EPOLL_CTL_DEL,
		  e->fd, &ev);
}

/* A part of what it would say next, if anything; then it closes, or resets. */
static void quit(struct end *e)
{
	e->out_len -= draw_below(&e->world->random, e->out_len - e->out_off + 1);
	flush(e);
	if (draw_below(&e->world->random, 2))
		reset(e);
}

/* True: done; *trouble: it failed. */
static bool handshake(struct end *e, const char **trouble)
{
	int error;

	if (e->state == END_CONNECTING) {
		int failed = 0;
		socklen_t len = sizeof(failed);

		getsockopt(e->fd, SOL_SOCKET, SO_ERROR, &failed, &len);
		if (failed) {
			*trouble = strerror(failed);
			return false;
		}
		e->state = END_HANDSHAKE;
	}
	ERR_clear_error();
	if (SSL_do_handshake(e->ssl) == 1) {
		e->state = END_OPEN;
		e->moved_at = e->world->now;
		return true;
	}
	error = SSL_get_error(e->ssl, -1);
	if (e->handshaken >= e->quit_at) {
		quit(e);
		*trouble = end_quits;
		return false;
	}
	flush(e);
	if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE)
		return false;
	if (e->alert_in >= 0)
		*trouble = SSL_alert_desc_string_long(e->alert_in);
	else if (e->eof || e->reset)
		*trouble = e->eof ? "FIN in the handshake" : "RST in the handshake";
	else
		*trouble = ERR_reason_error_string(ERR_peek_error());
	if (!*trouble)
		*trouble = "handshake failed";
	return false;
}

static bool lost_patience(struct end *e)
{
	uint64_t end = e->moved_at + e->world->patience;
	bool waits = e->flow && !e->world->told && e->state == END_OPEN &&
		     (e->flow->plan.kind == KIND_HOLD || e->flow->plan.kind == KIND_STALLED);

	if (waits)
		return false;
	wake_at(e->world, end + 1);
	return e->world->now > end;
}

static bool open_run(struct end *e, const char **trouble)
{
	flush(e); /* tickets */
	*trouble = receive(e);
	if (*trouble || !e->flow)
		return *trouble;
	heed_end(e);
	transmit(e);
	return wind_up(e);
}

void end_run(struct end *e)
{
	const char *trouble = NULL;

	if (e->state < END_OPEN && !handshake(e, &trouble) && trouble) {
		end_over(e, trouble);
		return;
	}
	if (e->state >= END_OPEN) {
		if (e->state == END_DRAINING ? drain(e) : open_run(e, &trouble)) {
			end_over(e, trouble);
			return;
		}
	}
	if (lost_patience(e)) {
		end_over(e, end_impatient);
		return;
	}
	set_interest(e);
}
