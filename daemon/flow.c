/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stage table, in flow order: accept, the two handshakes and their
 * interlock, forging, hand-over, relay, close. The only file that knows all
 * stages; what happens inside one is elsewhere.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <string.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <openssl/ec.h>
#include "flow.h"
#include "flow_show.h"
#include "flowlog.h"
#include "identity.h"
#include "log.h"
#include "names.h"
#include "verify.h"

#define RECONNECTS_MAX	 3
#define PATIENCE_MS	 500  /* a backend kept waiting longer may give up without being at fault */
#define CLOSING_TICK_MAX 64   /* ms */
#define TICKETS_MS	 3000 /* a backend that resumes has sent its first ticket by then */
#define LINGER_MS	 2000 /* a peer has our FIN: how long it may take to send its own */

/* What only the handshake stage needs. */
struct flow_handshake {
	struct flow *flow;
	TAILQ_ENTRY(flow_handshake) turn;  /* while waiting */
	bool waiting;			   /* for its turn */
	uint64_t waiting_since;		   /* ms */
	TAILQ_ENTRY(flow_handshake) early; /* while listed */
	bool early_listed;		   /* in worker.early */
	bool awaits_early;	/* a client that waits for its protocol, see await_early() */
	bool hello_done;	/* its ClientHello was accepted */
	bool client_verified;	/* as far as OpenSSL and the policy go */
	bool client_done;	/* and all output is with TCP: `finished` alone does not say that */
	bool backend_suspended; /* at its CertificateRequest */
	bool backend_resumed;
	bool backend_asked;	 /* for a certificate */
	bool backend_given_none; /* though it asked */
	bool backend_trusted;	 /* not known to be revoked, as far as OCSP is asked */
	bool backend_done;
	struct sockaddr_in6
		local;	      /* where the client connected to, as a proxy told; or AF_UNSPEC */
	bool reconnect;	      /* as soon as the poll has come back */
	bool without_session; /* the backend failed on one */
	uint8_t reconnects;
	bool switching;		     /* to another service, as soon as nothing is armed */
	struct hello hello;	     /* ours to the backend */
	struct balance_tried tried;  /* services, the present one among them */
	unsigned address_turn;	     /* which of the addresses of its name */
	uint64_t suspended_at;	     /* ms */
	struct timer backend_timer;  /* connecting, handshaking, forging: one after the other */
	enum reason backend_timeout; /* what its expiry means */
	struct identity *identity;
	struct ocsp_wait ocsp_waits[2]; /* by enum side_role */
	struct ocsp_answer *ocsp;	/* of the client; NULL: not asked, or none that helps */
	struct forging forging;
	struct forging_ask ask;
	uint8_t *proof; /* of a client that resumed: see ticket.h */
	size_t proof_len;
	char detail[160]; /* for the log line */
};

static void flow_close(struct flow *f, enum reason reason, int client_alert, int backend_alert,
		       const char *detail);
static void proceed(struct flow *f);
static void closing_tick(struct timer *t);
static void ready(struct ring_op *op, int res);

static struct flow *flow_of(const struct handshake *hs)
{
	return hs->side->flow;
}

static void flow_fail(struct flow *f, enum reason reason, const char *detail)
{
	flow_close(f, reason, reasons[reason].client_alert, reasons[reason].backend_alert, detail);
}

/* ---- accept ---- */

static void on_client(struct handshake *hs, enum handshake_event ev);

/* ms, of timeout.handshake */
static uint64_t handshake_left(const struct flow *f)
{
	uint64_t end = f->accepted + f->worker->gate->cfg->handshake_timeout * 1000ull;
	uint64_t now = f->worker->timers.now;

	return end > now ? end - now : 0;
}

/* Its next step may take ms; all of them together timeout.handshake. */
static void client_deadline(struct flow *f, uint64_t ms)
{
	uint64_t left = handshake_left(f);

	timer_set(&f->worker->timers, &f->timer, ms < left ? ms : left);
}

/* No person has a part in the ClientHello, so it comes soon or not at all. */
static void hello_deadline(struct flow *f)
{
	client_deadline(f, f->worker->gate->cfg->hello_timeout * 1000ull);
}

static void client_expired(struct timer *t)
{
	struct flow *f = container_of(t, struct flow, timer);
	enum reason reason = REASON_client_timeout;

	/* It may be us, or with the client through somebody else, who takes so long. */
	if (f->hs->waiting)
		reason = REASON_overloaded;
	else if (!f->hs->hello_done && handshake_left(f))
		reason = REASON_client_hello_timeout;
	else if (f->hs->awaits_early)
		reason = REASON_no_early_connect;
	else if (f->hs->client_verified && f->hs->ocsp_waits[SIDE_BACKEND].query)
		reason = REASON_backend_ocsp_unknown;
	else if (f->hs->client_verified && !f->hs->backend_done && f->hs->backend_timeout)
		reason = f->hs->backend_timeout;
	flow_fail(f, reason, NULL);
}

static void backend_unreachable(struct flow *f, enum reason reason, const char *detail);
static void connect_when_free(struct flow *f);
static void connect_service(struct flow *f);

/* Nothing of the backend has come yet: the client can still go elsewhere. */
static bool before_server_hello(const struct flow *f)
{
	return f->backend.fd >= 0 && (!f->backend.hs || !f->backend.hs->last_received);
}

static void backend_expired(struct timer *t)
{
	struct flow_handshake *h = container_of(t, struct flow_handshake, backend_timer);

	if (h->switching)
		connect_when_free(h->flow);
	else if (h->awaits_early)
		connect_service(h->flow);
	else if (h->backend_timeout != REASON_forge_timeout && before_server_hello(h->flow))
		backend_unreachable(h->flow, h->backend_timeout, NULL);
	else
		flow_fail(h->flow, h->backend_timeout, NULL);
}

static void backend_deadline(struct flow *f, uint64_t ms, enum reason reason)
{
	f->hs->backend_timeout = reason;
	timer_set(&f->worker->timers, &f->hs->backend_timer, ms);
}

static void side_init(struct side *s, struct flow *f, enum side_role role, int fd)
{
	s->flow = f;
	s->role = (uint8_t)role;
	s->fd = fd;
}

/* All services of a vserver agree. */
static const struct cfg_profile *back_profile(const struct flow *f)
{
	return cfg_service_at(f->vserver, 0)->profile;
}

/* A backend there: no TCP, so no kernel TLS. */
static bool is_unix(const struct side *s)
{
	return s->role == SIDE_BACKEND && s->flow->service->address.ss.ss_family == AF_UNIX;
}

static bool forges(const struct flow *f)
{
	return back_profile(f)->dynamic_client_cert;
}

/*
 * At once, not at the hand-over: the kernel attaches the ULP to an established
 * connection only, and a peer may have sent its FIN by then. Without keys the
 * socket stays an ordinary TCP socket.
 */
static void attach_ulp(struct side *s)
{
	const struct gate *gate = s->flow->worker->gate;

	s->ulp = gate->cfg->engine != ENGINE_USER && !gate->ktls.error && !is_unix(s) &&
		 !ktls_attach(s);
}

#define KEEPALIVE_PROBES 4

/*
 * A peer may be gone without a word, or with a word that was lost: TCP ignores a
 * RST outside of the window, so behind data that was dropped for lack of memory.
 */
static void tune_socket(int fd, const struct config *cfg)
{
	int one = 1, probes = KEEPALIVE_PROBES, idle = (int)cfg->keepalive;
	int interval = idle < KEEPALIVE_PROBES ? 1 : idle / KEEPALIVE_PROBES;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	/* Else TCP takes bytes that the sender calls urgent out of the middle of a record. */
	setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &one, sizeof(one));
	if (!idle)
		return;
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
}

/* For whoever chooses the worker of new connections. */
static void tell_load(const struct worker *w)
{
	if (w->gate->load)
		__atomic_store_n(&w->gate->load[w->index], w->n_flows, __ATOMIC_RELAXED);
}

static struct flow *flow_new(struct worker *w, const struct cfg_vserver *vserver, int fd)
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
	f->hs->backend_timer.expired = backend_expired;
	f->worker = w;
	f->vserver = vserver;
	/* The only one, or chosen at the ClientHello. */
	f->service = vserver->services.n == 1 ? cfg_service_at(vserver, 0) : NULL;
	/* Old and new processes have flows at the same time: no two the same id. */
	f->id = (uint64_t)((w->gate->generation - 1) & 0xff) << 56 | (uint64_t)w->index << 48 |
		++w->next_flow_id;
	f->since = f->accepted = w->timers.now;
	f->timer.expired = client_expired;
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

/* ---- the client's turn ---- */

/*
 * A handshake takes the CPU for as long as some 200 messages of established flows do, and when more
 * connect than can be served, all of them begun at once would be done too late for each. So a
 * client waits, without an SSL object, until it has said something and everything else that has
 * happened was looked at: established flows first, then handshakes that have begun, then one more.
 */
#define TURN_PATIENCE_MS 500

static void end_waiting(struct flow_handshake *h)
{
	struct worker *w = h->flow->worker;

	if (!h->waiting)
		return;
	TAILQ_REMOVE(&w->turns, h, turn);
	h->waiting = false;
	stat_dec(w->stats, handshakes_waiting_active);
}

static void await_turn(struct flow_handshake *h)
{
	struct worker *w = h->flow->worker;

	TAILQ_INSERT_TAIL(&w->turns, h, turn);
	h->waiting = true;
	h->waiting_since = w->timers.now;
	stat_inc(w->stats, handshakes_waiting_active);
}

static void await_client(struct flow *f);

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
	/* recv() stops in front of urgent data, however often it is asked; who reads gets past it.
	 */
	if (n > 0 && n < HELLO_ENOUGH && !ioctl(f->client.fd, SIOCINQ, &queued) && queued > n)
		return true;
	return n == HELLO_ENOUGH || (n >= RECORD_HEADER && n >= RECORD_HEADER + (p[3] << 8 | p[4]));
}

static void client_speaks(struct ring_op *op, int res)
{
	struct side *s = container_of(op, struct side, poll);
	struct flow *f = s->flow;

	if (f->stage != FLOW_STAGE_HANDSHAKE) {
		ready(op, res);
	} else if (res < 0 || res & (POLLERR | POLLHUP) || (f->hs->waiting && res & POLLRDHUP)) {
		flow_fail(f, REASON_client_gone, res < 0 ? strerror(-res) : NULL);
	} else if (!f->hs->waiting && (res & POLLRDHUP || has_spoken(f))) {
		await_turn(f->hs);
		client_deadline(f, UINT64_MAX); /* it waits for us now */
	} else if (!f->hs->waiting && !op->armed) {
		await_client(f); /* the kernel may end a multishot poll, and more is to come */
	}
}

static void await_client(struct flow *f)
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
	/* It comes back before the relay needs it, or start_poll() sees that it has not. */
	f->client.poll.done = ready;
	ring_cancel(w->ring, &f->client.poll);
	hs->hello = client_hello;
	hs->hold_change_cipher_spec = true;
	hs->max_received = w->gate->cfg->limit_handshake_size << 10;
	hs->transcript_on = forges(f);
	f->client.hs = hs;
	hello_deadline(f);
	handshake_start(hs);
}

/*
 * In the order of their coming; but who has waited for long may well be about to leave, and if all
 * did, nobody would be served in time: then the newest. NULL: nobody waits.
 */
static struct flow_handshake *next_turn(const struct worker *w)
{
	struct flow_handshake *first = TAILQ_FIRST(&w->turns);

	if (first && w->timers.now - first->waiting_since > TURN_PATIENCE_MS)
		return TAILQ_LAST(&w->turns, flow_turns);
	return first;
}

bool flows_begin(struct worker *w)
{
	struct flow_handshake *h = next_turn(w);

	if (!h)
		return false;
	end_waiting(h);
	begin(h->flow);
	return !TAILQ_EMPTY(&w->turns);
}

/* ---- what a proxy tells of its client ---- */

static enum reason proxy_reason(enum proxy_error error)
{
	switch (error) {
	case PROXY_ABSENT:
		return REASON_proxy_absent;
	case PROXY_VERSION_1:
		return REASON_proxy_version;
	default:
		return REASON_proxy_malformed;
	}
}

static void proxy_header_complete(struct flow *f)
{
	struct proxy_addresses a;
	enum proxy_error error = proxy_parse(f->proxy->bytes, f->proxy->have, &a);

	free(TAKE_PTR(f->proxy));
	if (error) {
		flow_fail(f, proxy_reason(error), NULL);
		return;
	}
	/* LOCAL: the proxy speaks for itself. */
	if (a.source.sin6_family != AF_UNSPEC) {
		f->peer = a.source;
		f->hs->local = a.destination;
	}
	await_client(f);
}

/* Exactly the header, first what tells its length: what is behind belongs to the handshake. */
static void proxy_header_read(struct ring_op *op, int res)
{
	struct flow *f = container_of(op, struct side, rx)->flow;
	struct proxy_header *p = f->proxy;
	enum proxy_error error;
	size_t body = 0;

	if (f->stage != FLOW_STAGE_HANDSHAKE)
		return;
	if (res <= 0 && res != -EINTR) {
		flow_fail(f, REASON_client_gone, res ? strerror(-res) : NULL);
		return;
	}
	p->have += res > 0 ? (size_t)res : 0;
	error = p->have < PROXY_HEAD ? proxy_check(p->bytes, p->have)
				     : proxy_body_len(p->bytes, &body);
	if (error)
		flow_fail(f, proxy_reason(error), NULL);
	else if (p->have == PROXY_HEAD + body)
		proxy_header_complete(f);
	else
		ring_recv(f->worker->ring, op, f->client.fd, p->bytes + p->have,
			  PROXY_HEAD + body - p->have);
}

static void await_proxy_header(struct flow *f)
{
	f->proxy = calloc(1, sizeof(*f->proxy));
	if (!f->proxy) {
		flow_fail(f, REASON_no_memory, NULL);
		return;
	}
	f->client.rx.done = proxy_header_read;
	ring_recv(f->worker->ring, &f->client.rx, f->client.fd, f->proxy->bytes, PROXY_HEAD);
}

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
	tune_socket(fd, w->gate->cfg);
	attach_ulp(&f->client);
	hello_deadline(f);
	if (vserver->accept_proxy &&
	    cfg_prefixes_hold(&vserver->proxy_from, (const struct sockaddr *)&f->peer))
		await_proxy_header(f);
	else
		await_client(f);
}

/* ---- the backend's connection ---- */

static void on_backend(struct handshake *hs, enum handshake_event ev);

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
				.identity = forges(f) ? f->hs->identity : NULL,
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

static void start_backend_handshake(struct flow *f)
{
	struct worker *w = f->worker;
	struct back *back = &w->gate->backs[f->service->index];
	struct side *s = &f->backend;
	const uint8_t *protocols;
	size_t len;

	attach_ulp(s);
	s->hs = handshake_new(s, w->ring, back->ctx, false, on_backend);
	front_offer(f->client.hs, &protocols, &len);
	if (!s->hs || back_expect_name(back, s->hs->ssl, f->client.hs->server_name) ||
	    back_offer(s->hs->ssl, protocols, len)) {
		flow_fail(f, REASON_no_memory, NULL);
		return;
	}
	if (f->service->profile->session_reuse && !f->hs->without_session)
		offer_session(f, protocols, len);
	backend_deadline(f, w->gate->cfg->backend_handshake_timeout * 1000ull,
			 REASON_backend_timeout);
	handshake_start(s->hs);
	remember_hello(f);
}

/* ---- what the backend is told of the client ---- */

static void client_addresses(struct flow *f, struct proxy_addresses *a)
{
	socklen_t len = sizeof(a->destination);

	a->source = f->peer;
	a->destination = f->hs->local;
	/* Else a proxy in front has told. */
	if (a->destination.sin6_family == AF_UNSPEC)
		getsockname(f->client.fd, (struct sockaddr *)&a->destination, &len);
}

/* The subject's CN as UTF-8, to be freed with OPENSSL_free(), and its length; 0: there is none. */
static size_t common_name(X509 *cert, unsigned char **out)
{
	X509_NAME *subject = cert ? X509_get_subject_name(cert) : NULL;
	int at = subject ? X509_NAME_get_index_by_NID(subject, NID_commonName, -1) : -1, len;

	*out = NULL;
	if (at < 0)
		return 0;
	len = names_utf8(X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)), out);
	return len > 0 ? (size_t)len : 0;
}

static size_t build_proxy_header(struct flow *f, uint8_t *out)
{
	SSL *ssl = f->client.hs->ssl;
	X509 *cert = SSL_get0_peer_certificate(ssl);
	bool tell_tls = f->service->send_proxy == SEND_PROXY_TLS;
	unsigned char *name;
	size_t name_len = common_name(tell_tls ? cert : NULL, &name);
	struct proxy_tls tls = {
		.version = SSL_get_version(ssl),
		.cipher = SSL_get_cipher_name(ssl),
		.common_name = name,
		.common_name_len = name_len,
		.certificate = cert,
		.verified = true, /* or we would not be here */
	};
	struct proxy_addresses a;
	const uint8_t *alpn;
	unsigned alpn_len;
	size_t n;

	client_addresses(f, &a);
	SSL_get0_alpn_selected(ssl, &alpn, &alpn_len);
	n = proxy_build(&a, f->client.hs->server_name, alpn, alpn_len, tell_tls ? &tls : NULL, out);
	OPENSSL_free(name);
	return n;
}

static void proxy_header_sent(struct ring_op *op, int res)
{
	struct flow *f = container_of(op, struct side, tx)->flow;
	struct proxy_header *p = f->proxy;

	if (f->stage != FLOW_STAGE_HANDSHAKE || f->hs->switching)
		return;
	if (res < 0 && res != -EINTR) {
		backend_unreachable(f, REASON_backend_gone, strerror(-res));
		return;
	}
	p->sent += res > 0 ? (size_t)res : 0;
	if (p->sent < p->have) {
		ring_send(f->worker->ring, op, f->backend.fd, p->bytes + p->sent,
			  p->have - p->sent);
		return;
	}
	free(TAKE_PTR(f->proxy));
	start_backend_handshake(f);
}

/* In front of all else (section 2): the backend's handshake waits for it. */
static void send_proxy_header(struct flow *f)
{
	f->proxy = calloc(1, sizeof(*f->proxy));
	if (!f->proxy) {
		flow_fail(f, REASON_no_memory, NULL);
		return;
	}
	f->proxy->have = build_proxy_header(f, f->proxy->bytes);
	f->backend.tx.done = proxy_header_sent;
	ring_send(f->worker->ring, &f->backend.tx, f->backend.fd, f->proxy->bytes, f->proxy->have);
}

static void connect_socket(struct flow *f);

static void connected(struct ring_op *op, int res)
{
	struct side *s = container_of(op, struct side, rx);
	struct flow *f = s->flow;

	if (f->stage != FLOW_STAGE_HANDSHAKE || f->hs->switching)
		return;
	if (res == -EINTR)
		connect_socket(f);
	else if (res == -ECONNREFUSED)
		backend_unreachable(f, REASON_backend_connect_refused, NULL);
	else if (res == -ETIMEDOUT)
		backend_unreachable(f, REASON_backend_connect_timeout, NULL);
	else if (back_error_is_ours(-res))
		backend_unreachable(f, REASON_backend_connect_local, strerror(-res));
	else if (res < 0)
		backend_unreachable(f, REASON_backend_connect_failed, strerror(-res));
	else if (f->service->send_proxy != SEND_PROXY_OFF)
		send_proxy_header(f);
	else
		start_backend_handshake(f);
}

static void connect_socket(struct flow *f)
{
	socklen_t len;
	const struct sockaddr *address = backend_address(f, &len);

	ring_connect(f->worker->ring, &f->backend.rx, f->backend.fd, address, len);
}

static void connect_backend(struct flow *f)
{
	struct worker *w = f->worker;
	struct side *s = &f->backend;
	struct service *service = &w->gate->services[f->service->index];
	struct cfg_address address;
	int fd;

	f->acquired = service;
	service_acquire(service);
	if (!service_address(service, f->hs->address_turn, &address)) {
		backend_unreachable(f, REASON_backend_unresolved, NULL);
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
	tune_socket(fd, w->gate->cfg);
	/* A sysctl may have changed since the configuration was checked. */
	if (!is_unix(s) && sockopt_set(fd, &w->gate->cfg->backend_socket))
		stat_inc(w->stats, socket_options_refused);
	s->rx.done = connected;
	backend_deadline(f, w->gate->cfg->connect_timeout * 1000ull,
			 REASON_backend_connect_timeout);
	connect_socket(f);
}

/* ---- its service ---- */

static bool choose_service(struct flow *f)
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

static void unlist_early(struct flow_handshake *h)
{
	if (h->early_listed)
		TAILQ_REMOVE(&h->flow->worker->early, h, early);
	h->early_listed = false;
}

/* The service no longer counts its connection as early: the client is verified, or it is gone. */
static void end_early(struct flow *f)
{
	if (f->early)
		service_end_early(f->acquired);
	f->early = false;
	if (f->hs)
		unlist_early(f->hs);
}

/* At its CertificateRequest: it can be given up, and made anew when the client is verified. */
static void list_early(struct flow *f)
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
		unlist_early(h);
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

/* Now; or proceed() does it, when the client is verified. */
static void connect_service(struct flow *f)
{
	if (!may_connect(f)) {
		if (f->service->connect == CONNECT_EARLY && f->client.hs->suspended)
			await_early(f);
		return;
	}
	f->hs->awaits_early = false;
	connect_backend(f);
}

/* It may be out of use since it was chosen: a person takes a minute to type a PIN. */
static void connect_chosen(struct flow *f)
{
	const struct service *s = &f->worker->gate->services[f->service->index];

	if (service_state(s, f->worker->timers.now) != SERVICE_UP) {
		f->hs->tried.n = 0;
		if (!choose_service(f)) {
			flow_fail(f, REASON_no_service, NULL);
			return;
		}
	}
	connect_backend(f);
}

static void release_service(struct flow *f)
{
	end_early(f);
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
		if (h->tried.n > f->vserver->retries || !choose_service(f))
			return false;
		count_retry(f->worker->stats, reason);
	}
	h->backend_asked = false;
	if (f->backend.hs)
		handshake_stop(f->backend.hs);
	ring_cancel(f->worker->ring, &f->backend.rx);
	ring_cancel(f->worker->ring, &f->backend.tx);
	connect_when_free(f);
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
static void backend_unreachable(struct flow *f, enum reason reason, const char *detail)
{
	char address[CFG_ADDRESS_TEXT], why[320];

	snprintf(why, sizeof(why), "%s: %s%s%s", flow_backend_text(f, address),
		 reasons[reason].text, detail ? ": " : "", detail ? detail : "");
	blame_service(f, reason, why);
	if (!try_another(f, reason))
		flow_fail(f, reason, detail);
}

/* ---- a backend that gives up while the client takes its time ---- */

/* Nothing of this connection is armed but, perhaps, its poll. */
static void drop_backend(struct flow *f)
{
	struct side *s = &f->backend;

	release_service(f);
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
static void connect_when_free(struct flow *f)
{
	struct side *s = &f->backend;

	f->hs->switching = s->rx.armed || s->tx.armed || s->poll.armed;
	if (f->hs->switching) {
		timer_set(&f->worker->timers, &f->hs->backend_timer, SWITCH_TICK_MS);
		return;
	}
	drop_backend(f);
	connect_service(f);
}

static void reconnect(struct flow *f)
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
	connect_chosen(f);
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
		reconnect(f);
		return;
	}
	/* Cancelled: the handshake goes on, and its events decide. */
	if (!f->hs->backend_suspended || f->hs->backend_resumed)
		return;
	/* It is connected anew once the client is through; before, it would time out again. */
	drop_backend(f);
	if (f->hs->client_verified)
		proceed(f);
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

static void client_failed(struct flow *f)
{
	const struct handshake *hs = f->client.hs;
	char buf[64];

	flow_fail(f, client_failure(hs), handshake_failure_detail(hs, buf, sizeof(buf)));
}

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
		reconnect(f);
		return;
	}
	if (lost_patience(f)) {
		reconnect(f);
		return;
	}
	if (reason == REASON_backend_gone && before_server_hello(f)) {
		backend_unreachable(f, reason, handshake_failure_detail(hs, buf, sizeof(buf)));
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
static void client_cert_absent(struct flow *f)
{
	int alert = SSL_version(f->client.hs->ssl) == TLS1_3_VERSION ? ALERT_CERTIFICATE_REQUIRED
								     : ALERT_HANDSHAKE_FAILURE;

	flow_close(f, REASON_client_cert_absent, alert,
		   reasons[REASON_client_cert_absent].backend_alert, NULL);
}

/* What OCSP has to say about a certificate is known, or will not be. False: the flow has failed. */
static bool not_revoked(struct flow *f, enum side_role role, const struct ocsp_answer *a)
{
	bool client = role == SIDE_CLIENT;
	enum verify_revocation mode =
		client ? f->vserver->profile->client_ocsp : f->service->profile->server_ocsp;
	enum reason revoked = client ? REASON_client_cert_revoked : REASON_backend_cert_revoked;

	if (!a)
		flow_fail(f, REASON_no_memory, NULL);
	/* Elsewhere OpenSSL tells it. */
	else if (a->verdict == OCSP_REVOKED)
		flow_close(f, revoked,
			   client ? ALERT_CERTIFICATE_REVOKED : reasons[revoked].client_alert,
			   client ? reasons[revoked].backend_alert : ALERT_CERTIFICATE_REVOKED,
			   a->why);
	else if (a->verdict != OCSP_GOOD && mode == REVOCATION_MANDATORY)
		flow_fail(f, client ? REASON_client_ocsp_unknown : REASON_backend_ocsp_unknown,
			  a->why);
	return f->stage == FLOW_STAGE_HANDSHAKE;
}

static void client_known(struct flow *f)
{
	f->hs->client_verified = true;
	end_early(f);
	proceed(f);
}

static void client_revocation_known(struct flow *f, struct ocsp_answer *a)
{
	if (!not_revoked(f, SIDE_CLIENT, a))
		return;
	if (a->verdict == OCSP_GOOD)
		f->hs->ocsp = ocsp_answer_ref(a);
	client_known(f);
}

static void backend_revocation_known(struct flow *f, struct ocsp_answer *a)
{
	if (!not_revoked(f, SIDE_BACKEND, a))
		return;
	f->hs->backend_trusted = true;
	proceed(f);
}

static void client_ocsp_answered(struct ocsp_wait *w, struct ocsp_answer *a)
{
	struct flow_handshake *h = container_of(w, struct flow_handshake, ocsp_waits[SIDE_CLIENT]);

	client_revocation_known(h->flow, a);
}

static void backend_ocsp_answered(struct ocsp_wait *w, struct ocsp_answer *a)
{
	struct flow_handshake *h = container_of(w, struct flow_handshake, ocsp_waits[SIDE_BACKEND]);

	backend_revocation_known(h->flow, a);
}

/* Until it is known the client waits: in TLS 1.2 before its Finished is read, in TLS 1.3 behind it.
 */
static void ask_about_client(struct flow *f)
{
	struct ocsp_wait *w = &f->hs->ocsp_waits[SIDE_CLIENT];
	struct ocsp_ask ask = {.profile = f->vserver->profile, .chain = f->hs->identity->chain};
	struct ocsp_answer *a = NULL;

	w->done = client_ocsp_answered;
	if (responder_ask(&f->worker->responder, &ask, w, &a) == -EINPROGRESS)
		return;
	client_revocation_known(f, a);
	ocsp_answer_unref(a);
}

/* Until it is known the backend waits: for our certificate, or, if it wants none, for data. */
static void ask_about_backend(struct flow *f)
{
	struct ocsp_wait *w = &f->hs->ocsp_waits[SIDE_BACKEND];
	SSL *ssl = f->backend.hs->ssl;
	struct ocsp_ask ask = {.profile = f->service->profile,
			       .chain = SSL_get0_verified_chain(ssl)};
	long len = SSL_get_tlsext_status_ocsp_resp(ssl, &ask.staple);
	struct ocsp_answer *a = NULL;

	ask.staple_len = len > 0 ? (size_t)len : 0;
	w->done = backend_ocsp_answered;
	if (responder_ask(&f->worker->responder, &ask, w, &a) == -EINPROGRESS)
		return;
	backend_revocation_known(f, a);
	ocsp_answer_unref(a);
}

/* The client's certificate, chain and CertificateVerify are checked; or it had none to show. */
static void client_verified(struct flow *f)
{
	bool has_cert = SSL_get0_peer_certificate(f->client.hs->ssl) != NULL;

	if (SSL_session_reused(f->client.hs->ssl))
		stat_inc(f->worker->stats, client_resumptions);

	if (!has_cert && forges(f) && !back_profile(f)->fallback_certkey) {
		client_cert_absent(f);
		return;
	}
	if (has_cert && make_identity(f)) {
		flow_fail(f, REASON_no_memory, NULL);
		return;
	}
	if (has_cert && f->vserver->profile->client_ocsp != REVOCATION_OFF) {
		ask_about_client(f);
		return;
	}
	client_known(f);
}

static void on_client(struct handshake *hs, enum handshake_event ev)
{
	struct flow *f = flow_of(hs);

	switch (ev) {
	case HANDSHAKE_HELLO:
		f->hs->hello_done = true;
		client_deadline(f, UINT64_MAX);
		if (!choose_service(f))
			flow_fail(f, REASON_no_service, NULL);
		else
			connect_service(f);
		break;
	case HANDSHAKE_HELD:
		client_verified(f);
		break;
	case HANDSHAKE_DONE:
		f->hs->client_done = true;
		/* In TLS 1.2 it was held, and verified, before. */
		if (f->hs->client_verified)
			proceed(f);
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
		proceed(f);
	else
		ask_about_backend(f);
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
		list_early(f);
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

/* ---- forging ---- */

static void forging_done(struct forging *fg, enum reason reason, const char *detail)
{
	struct flow_handshake *h = container_of(fg, struct flow_handshake, forging);
	struct flow *f = h->flow;

	/* Unless the backend has been connected anew meanwhile: then the deadline is that one's. */
	if (h->backend_timeout == REASON_forge_timeout)
		timer_clear(&f->worker->timers, &h->backend_timer);
	if (reason == REASON_done)
		proceed(f);
	else
		flow_fail(f, reason, detail);
}

/* True: the certificate is there; false: it is being made, or the flow has failed. */
static bool find_or_forge(struct flow *f)
{
	struct flow_handshake *h = f->hs;
	const struct handshake *client = f->client.hs;
	const char *detail;
	enum reason why;
	int ret;

	/* Without the client's proof nothing is shown to a backend, not from the cache either. */
	if (SSL_session_reused(client->ssl)) {
		if (!h->proof)
			h->proof_len =
				ticket_proof(h->identity->chain, client->resumed_token, &h->proof);
		if (!h->proof_len) {
			flow_fail(f, REASON_no_memory, NULL);
			return false;
		}
	} else if (!client->transcript_done) {
		if (client->transcript_no_memory)
			flow_fail(f, REASON_no_memory, NULL);
		else
			flow_fail(f, REASON_forge_failed, "handshake too long");
		return false;
	}
	if (h->forging.state == FORGING_IDLE)
		backend_deadline(f, f->worker->gate->cfg->backend_handshake_timeout * 1000ull,
				 REASON_forge_timeout);
	h->forging.done = forging_done;
	h->ask = (struct forging_ask){.vserver = f->vserver,
				      .service = f->service,
				      .identity = h->identity,
				      .peer = (const struct sockaddr *)&f->peer,
				      .flow = f->id,
				      .transcript = h->proof ? h->proof : client->transcript,
				      .transcript_len =
					      h->proof ? h->proof_len : client->transcript_len,
				      .resumed = h->proof,
				      .ocsp = h->ocsp ? h->ocsp->der : NULL,
				      .ocsp_len = h->ocsp ? h->ocsp->len : 0};
	ret = forging_get(&f->worker->forger, &h->forging, f->backend.hs->ssl, &h->ask, &why,
			  &detail);
	if (ret && ret != -EINPROGRESS)
		flow_fail(f, why, detail);
	return !ret;
}

/* For a client that has no certificate, and need not have one. */
static void present_fallback(struct flow *f)
{
	const struct cfg_certkey *ck = f->service->profile->fallback_certkey;
	SSL *ssl = f->backend.hs->ssl;
	struct certreq request;

	/* Another service of the vserver has one. */
	if (!ck) {
		client_cert_absent(f);
		return;
	}
	certreq_read(ssl, &request);
	if (!certreq_accepts(&request, X509_get0_pubkey(ck->cert))) {
		flow_fail(f, REASON_backend_key_type, "of fallback_certkey");
		return;
	}
	if (SSL_use_cert_and_key(ssl, ck->cert, ck->pkey, ck->chain, 1) != 1) {
		flow_fail(f, REASON_no_memory, NULL);
		return;
	}
	f->fallback = true;
	stat_inc(f->worker->stats, backend_fallback);
}

/* The forged certificate, with the whole chain of its issuer (rule 18), goes to the backend. */
static void present(struct flow *f)
{
	const struct forging *fg = &f->hs->forging;
	const struct cfg_certkey *ca = back_profile(f)->forging_certkeys.items[fg->ca];
	struct handshake *hs = f->backend.hs;
	STACK_OF(X509) *chain = sk_X509_new_null();
	bool ok = chain && sk_X509_push(chain, ca->cert);

	for (int i = 0; ok && i < sk_X509_num(ca->chain); i++)
		ok = sk_X509_push(chain, sk_X509_value(ca->chain, i));
	ok = ok && SSL_use_cert_and_key(hs->ssl, fg->forged->cert, fg->forged->key, chain, 1);
	sk_X509_free(chain);
	if (!ok) {
		flow_fail(f, REASON_no_memory, NULL);
		return;
	}
	f->forged = true;
}

static void resume_backend(struct flow *f)
{
	f->hs->backend_resumed = true;
	ring_cancel(f->worker->ring, &f->backend.poll);
	backend_deadline(f, f->worker->gate->cfg->backend_handshake_timeout * 1000ull,
			 REASON_backend_timeout);
	handshake_resume(f->backend.hs);
}

/* ---- the interlock ---- */

/* OpenSSL answers with an empty Certificate, in silence; what follows is for the backend to say. */
static void count_no_certificate(struct flow *f)
{
	if (f->hs->backend_given_none)
		return; /* it was connected anew */
	f->hs->backend_given_none = true;
	stat_inc(f->worker->stats, backend_no_certificate);
}

static void answer_certificate_request(struct flow *f)
{
	if (!forges(f)) {
		count_no_certificate(f);
		resume_backend(f);
		return;
	}
	if (!f->hs->identity)
		present_fallback(f);
	else if (find_or_forge(f))
		present(f);
	else
		return;
	if (f->stage == FLOW_STAGE_HANDSHAKE)
		resume_backend(f);
}

static void hand_over(struct flow *f);

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
static bool give_ticket(struct flow *f)
{
	if (SSL_version(f->client.hs->ssl) != TLS1_3_VERSION || !prepare_ticket(f))
		return false;
	stat_inc(f->worker->stats, client_tickets);
	handshake_ticket(f->client.hs);
	return true;
}

/* TLS 1.2: the ticket, if the client wants one, is part of what follows. */
static void release_client(struct flow *f)
{
	(void)!prepare_ticket(f);
	handshake_release(f->client.hs);
}

/*
 * The one place that decides what comes next while the handshakes run. Called
 * whenever one of them, the signer, or OCSP got somewhere. Until the client is
 * verified the backend waits at its CertificateRequest.
 */
static void proceed(struct flow *f)
{
	struct flow_handshake *h = f->hs;

	if (f->stage != FLOW_STAGE_HANDSHAKE || !h->client_verified)
		return;
	if (f->backend.fd < 0) {
		/* Never connected (service.<n>.connect = verified), or it hung up meanwhile. */
		if (!h->backend_asked)
			connect_chosen(f);
		else if (h->reconnects < RECONNECTS_MAX)
			reconnect(f);
		else
			flow_fail(f, REASON_backend_gone, NULL);
		return;
	}
	if (!h->backend_trusted)
		return;
	if (h->backend_suspended && !h->backend_resumed) {
		answer_certificate_request(f);
		return;
	}
	if (!h->backend_done)
		return;
	if (!h->backend_asked && f->service->profile->require_certificate_request) {
		flow_fail(f, REASON_backend_no_certificate_request, NULL);
		return;
	}
	if (h->client_done && give_ticket(f))
		return;
	if (h->client_done)
		hand_over(f);
	else if (f->client.hs->held && !f->client.hs->released)
		release_client(f);
}

static void free_handshake(struct flow *f)
{
	struct flow_handshake *h = f->hs;

	if (!h)
		return;
	end_waiting(h);
	unlist_early(h);
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

/* ---- hand-over ---- */

struct flow_keys {
	struct tls_keys rx, tx;
};

/* Which engine can carry this flow; counts why it is not ktls. */
static const struct engine *choose_engine(struct flow *f)
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
	if (is_unix(&f->backend)) {
		stat_inc(stats, user_because_unix);
		return &engine_user;
	}
	if (!f->client.ulp || !f->backend.ulp) {
		stat_inc(stats, user_because_install);
		return &engine_user;
	}
	return &engine_ktls;
}

static int install(const struct engine *engine, struct side *s, const struct flow_keys *k)
{
	return engine == &engine_ktls ? ktls_install(s, &k->rx, &k->tx)
				      : user_side_new(s, &k->rx, &k->tx);
}

static void arm_poll(struct side *s)
{
	s->poll.done = ready;
	ring_poll_multishot(s->flow->worker->ring, &s->poll, s->fd,
			    POLLIN | POLLPRI | POLLOUT | POLLRDHUP);
}

static void ready(struct ring_op *op, int res)
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

/* A poll of the handshake's that has not come back yet is re-armed by ready(). */
static void start_poll(struct side *s)
{
	if (s->poll.armed)
		s->poll.done = ready;
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

static void tell_bpf(const struct flow *f)
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

static void forget_session(struct flow *f)
{
	f->backend.tickets = NULL;
	timer_clear(&f->worker->timers, &f->timer);
	reuse_free(TAKE_PTR(f->reuse));
}

static void tickets_received(struct side *s, const uint8_t *p, size_t n)
{
	struct flow *f = s->flow;

	if (!reuse_ticket(f->reuse, f->worker->gate->sessions, f->worker->stats, p, n))
		forget_session(f);
}

static void tickets_late(struct timer *t)
{
	forget_session(container_of(t, struct flow, timer));
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
		forget_session(f);
		return;
	}
	f->backend.hs = NULL;
	f->backend.tickets = tickets_received;
	f->timer.expired = tickets_late;
	timer_set(&w->timers, &f->timer, TICKETS_MS);
}

static void relay_ended(struct relay *r, enum reason reason, int client_alert, int backend_alert);

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
	free_handshake(f);
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
	tell_bpf(f);
	start_poll(&f->client);
	start_poll(&f->backend);
	relay_start(&f->relay, &w->env, engine, &f->client, &f->backend, relay_ended);
}

static int install_both(const struct engine *engine, struct flow *f, const struct flow_keys *client,
			const struct flow_keys *backend)
{
	int ret = install(engine, &f->client, client);

	if (!ret)
		ret = install(engine, &f->backend, backend);
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
	const struct engine *engine = choose_engine(f);
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
static void hand_over(struct flow *f)
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

static void relay_ended(struct relay *r, enum reason reason, int client_alert, int backend_alert)
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
static void flow_close(struct flow *f, enum reason reason, int client_alert, int backend_alert,
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
	forget_session(f);
	free_handshake(f);
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
	f->timer.expired = closing_tick;
	f->tick = 1;
	timer_set(&w->timers, &f->timer, 0);
}

static const struct engine *closing_engine(const struct flow *f)
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
	const struct engine *engine = closing_engine(f);
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

static void flow_free(struct flow *f)
{
	struct worker *w = f->worker;
	const struct engine *engine = closing_engine(f);

	flow_log(f);
	free(f->wire);
	timer_clear(&w->timers, &f->timer);
	release_service(f);
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

static bool has_armed(const struct side *s)
{
	return s->poll.armed || s->rx.armed || s->tx.armed;
}

static void closing_tick(struct timer *t)
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
		tell_bpf(f);
}

bool flow_kill(struct worker *w, uint64_t id)
{
	struct flow *f = find_flow(w, id);

	if (f)
		flow_fail(f, REASON_killed, NULL);
	return f;
}
