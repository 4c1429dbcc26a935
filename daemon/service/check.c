/* SPDX-License-Identifier: Apache-2.0 */
/* One service's health check, again and again; see check.h. Knows no flow. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <openssl/err.h>
#include "service/check.h"
#include "service/proxy.h"

#define ENDING_TICK_MS 1

static void expired(struct timer *t);
static void conclude(struct check *c, const char *why);

static struct check *check_of(struct side *s)
{
	return container_of(s, struct check, side);
}

void check_start(struct check *c, struct service *service, const struct back *back,
		 struct ring *ring, struct timers *timers, uint64_t delay)
{
	c->service = service;
	c->back = back;
	c->ring = ring;
	c->timers = timers;
	c->side.role = SIDE_BACKEND;
	c->side.fd = -1;
	c->timer.expired = expired;
	if (service->cfg->check != CHECK_OFF)
		timer_set(timers, &c->timer, delay);
}

/* ---- the end of one ---- */

static bool armed(const struct check *c)
{
	return c->side.rx.armed || c->side.tx.armed;
}

/* True: nothing of it is left. */
static bool clean_up(struct check *c)
{
	if (armed(c))
		return false;
	handshake_free(TAKE_PTR(c->side.hs));
	if (c->side.fd >= 0)
		close(c->side.fd);
	c->side.fd = -1;
	OPENSSL_cleanse(&c->side.secrets, sizeof(c->side.secrets));
	c->ending = c->presented = c->confirming = false;
	c->ended = c->timers->now;
	return true;
}

static void give_up(struct check *c)
{
	c->running = false;
	c->ending = true;
	if (c->side.hs)
		handshake_stop(c->side.hs);
	ring_cancel(c->ring, &c->side.rx);
	ring_cancel(c->ring, &c->side.tx);
}

static bool is_wanted(const struct check *c)
{
	return c->service->cfg->check != CHECK_OFF || atomic_load(&c->service->suspected);
}

static void end(struct check *c)
{
	if (!clean_up(c))
		timer_set(c->timers, &c->timer, ENDING_TICK_MS);
	else if (is_wanted(c))
		timer_set(c->timers, &c->timer, c->service->cfg->check_interval * 1000ull);
}

void check_suspected(struct check *c)
{
	uint64_t interval = c->service->cfg->check_interval * 1000ull;
	uint64_t since = c->timers->now - c->ended;

	/* While one runs, end() sees that another is wanted. */
	if (!atomic_load(&c->service->suspected) || c->running || c->ending || c->confirming)
		return;
	c->confirming = true;
	timer_set(c->timers, &c->timer, !c->ended || since >= interval ? 0 : interval - since);
}

/* It said something, whatever it was; what suspicions are about is silence. */
static bool answered(const struct check *c)
{
	const struct handshake *hs = c->side.hs;

	return hs && (hs->last_received || (hs->failure && hs->failure != HANDSHAKE_EOF &&
					    hs->failure != HANDSHAKE_RESET));
}

/* Without a verdict: it was we who failed. */
static void abandon(struct check *c)
{
	give_up(c);
	/* Not here: we may be inside of the handshake that is to be freed. */
	timer_set(c->timers, &c->timer, ENDING_TICK_MS);
}

/* why NULL: the service is well. */
static void conclude(struct check *c, const char *why)
{
	char text[192];

	snprintf(text, sizeof(text), "check: %s", why ? why : "");
	if (c->confirming)
		service_confirmed(c->service, why && !answered(c) ? text : NULL, c->timers->now);
	else
		service_checked(c->service, why ? text : NULL, c->timers->now);
	abandon(c);
}

bool check_stop(struct check *c)
{
	timer_clear(c->timers, &c->timer);
	if (c->running)
		give_up(c);
	return clean_up(c);
}

/* ---- behind the handshake: does the backend take the monitor certificate? ---- */

static void receive(struct check *c);

/* Its tickets, or an end of its own. */
static void read_verdict(struct check *c)
{
	struct handshake *hs = c->side.hs;
	uint8_t data[256];
	char why[96];
	int ret, error;

	ERR_clear_error();
	ret = SSL_read(hs->ssl, data, sizeof(data));
	error = SSL_get_error(hs->ssl, ret);
	ERR_clear_error();
	if (ret > 0 || error == SSL_ERROR_ZERO_RETURN) {
		conclude(c, NULL);
	} else if (error == SSL_ERROR_WANT_READ) {
		receive(c);
	} else {
		snprintf(why, sizeof(why), "the monitor certificate was refused: %s",
			 hs->alert != ALERT_NONE && alert_name(hs->alert) ? alert_name(hs->alert)
									  : "no alert");
		conclude(c, why);
	}
}

static void received(struct ring_op *op, int res)
{
	struct check *c = check_of(container_of(op, struct side, rx));

	if (!c->running)
		return;
	if (res == 0)
		conclude(c, NULL);
	else if (res < 0)
		conclude(c, strerror(-res));
	else if (BIO_write(c->side.hs->in, c->buf, res) != res)
		abandon(c);
	else
		read_verdict(c);
}

static void receive(struct check *c)
{
	c->side.rx.done = received;
	ring_recv(c->ring, &c->side.rx, c->side.fd, c->buf, sizeof(c->buf));
}

/* One of our records; the socket's buffer is as good as empty. */
static void say(struct check *c, const void *record, size_t len)
{
	(void)!send(c->side.fd, record, len, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void close_notify(struct check *c)
{
	struct handshake *hs = c->side.hs;
	char *data;
	long n;

	SSL_shutdown(hs->ssl);
	n = BIO_get_mem_data(hs->out, &data);
	if (n > 0)
		say(c, data, (size_t)n);
	(void)BIO_reset(hs->out);
	ERR_clear_error();
	shutdown(c->side.fd, SHUT_WR);
}

/* A TLS 1.3 server's verdict on our certificate comes behind our Finished. */
static void handshake_complete(struct check *c)
{
	close_notify(c);
	if (c->presented && SSL_version(c->side.hs->ssl) == TLS1_3_VERSION)
		receive(c);
	else
		conclude(c, NULL);
}

/* ---- the handshake ---- */

/* The backend's certificate has been verified by now. */
static void certificate_requested(struct check *c)
{
	const struct cfg_certkey *ck = c->service->cfg->check_certkey;
	struct handshake *hs = c->side.hs;
	uint8_t alert[64];

	if (!ck) {
		say(c, alert, handshake_alert(hs, ALERT_USER_CANCELED, alert));
		conclude(c, NULL);
	} else if (!SSL_use_cert_and_key(hs->ssl, ck->cert, ck->pkey, ck->chain, 1)) {
		abandon(c);
	} else {
		c->presented = true;
		handshake_resume(hs);
	}
}

static void handshake_failed(struct check *c)
{
	enum reason reason = backend_failure(c->side.hs, c->presented);
	char detail[96], why[160];
	const char *more = handshake_failure_detail(c->side.hs, detail, sizeof(detail));

	snprintf(why, sizeof(why), "%s%s%s",
		 reason == REASON_backend_refused_certificate
			 ? "the monitor certificate was refused"
			 : reasons[reason].text,
		 more ? ": " : "", more ? more : "");
	conclude(c, why);
}

static void on_handshake(struct handshake *hs, enum handshake_event ev)
{
	struct check *c = check_of(hs->side);

	switch (ev) {
	case HANDSHAKE_SUSPENDED:
		certificate_requested(c);
		break;
	case HANDSHAKE_DONE:
		handshake_complete(c);
		break;
	case HANDSHAKE_FAILED:
		handshake_failed(c);
		break;
	case HANDSHAKE_HELLO:
	case HANDSHAKE_HELD:
		break;
	}
}

static void start_handshake(struct check *c)
{
	static const struct proxy_addresses local; /* it is we who ask */
	struct side *s = &c->side;

	if (c->service->cfg->send_proxy != SEND_PROXY_OFF) {
		uint8_t header[PROXY_HEADER_MAX];

		say(c, header, proxy_build(&local, NULL, NULL, 0, NULL, header));
	}
	s->hs = handshake_new(s, c->ring, c->back->ctx, false, on_handshake);
	if (!s->hs || back_expect_name(c->back, s->hs->ssl, ""))
		abandon(c);
	else
		handshake_start(s->hs);
}

/* ---- the beginning ---- */

static void connected(struct ring_op *op, int res)
{
	struct check *c = check_of(container_of(op, struct side, rx));

	if (!c->running)
		return;
	if (back_error_is_ours(-res))
		abandon(c);
	else if (res < 0)
		conclude(c, strerror(-res));
	else if (c->service->cfg->check == CHECK_CONNECT && !c->confirming)
		conclude(c, NULL);
	else
		start_handshake(c);
}

static void begin(struct check *c)
{
	c->confirming = atomic_exchange(&c->service->suspected, false);
	if (!service_address(c->service, c->turn, &c->address)) {
		c->turn = 0;
		if (!service_address(c->service, 0, &c->address)) {
			conclude(c, "the name is not resolved");
			return;
		}
	}
	c->turn++;
	c->side.fd = back_socket(c->address.ss.ss_family);
	if (c->side.fd < 0) {
		/* Ours: it says nothing about the service. */
		end(c);
		return;
	}
	c->running = true;
	c->side.rx.done = connected;
	timer_set(c->timers, &c->timer, c->service->cfg->check_timeout * 1000ull);
	ring_connect(c->ring, &c->side.rx, c->side.fd, (const struct sockaddr *)&c->address.ss,
		     c->address.len);
}

static void expired(struct timer *t)
{
	struct check *c = container_of(t, struct check, timer);

	if (c->running)
		conclude(c, "no answer in time");
	else if (c->ending)
		end(c);
	else
		begin(c);
}
