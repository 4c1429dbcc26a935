// SPDX-License-Identifier: Apache-2.0
/* OCSP over HTTP and the ring, batched and cached; see responder.h. Knows no flow. */
#include "flow/responder.h"

#include <errno.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#define ENTRIES_MAX 1024
#define ACTIVE_MAX  64	/* connections to responders at a time; others wait */
#define QUEUE_MAX   512 /* of all that are asked for */
#define RETRY	    2	/* seconds before a responder that gave no answer is asked again */
#define HEADER_MAX  4096
#define URL_MAX	    512
#define IN_MAX	    (HEADER_MAX + OCSP_RESPONSE_MAX)

struct ocsp_entry {
	uint8_t fingerprint[FINGERPRINT_LEN];
	unsigned profile;
	struct ocsp_answer *answer; /* NULL: none yet */
	struct ocsp_query *query;   /* NULL: nobody asks */
	LIST_ENTRY(ocsp_entry) link;
	TAILQ_ENTRY(ocsp_entry) used;
};

struct ocsp_query {
	struct responder *responder;
	struct ocsp_entry *entry;
	X509 *cert, *issuer;
	struct cfg_address address;
	uint64_t deadline;
	LIST_HEAD(ocsp_waits, ocsp_wait) waits;
	TAILQ_ENTRY(ocsp_query) queue;
	LIST_ENTRY(ocsp_query) closing;
	int fd; /* -1: it waits for its turn */
	struct ring_op op;
	uint8_t *out;
	size_t out_len, out_off;
	size_t in_len;
	uint8_t in[IN_MAX];
};

static void start_queries(struct responder *r);
static void set_timer(struct responder *r);
static void receive(struct ocsp_query *q);

/* ---- answers ---- */

struct ocsp_answer *ocsp_answer_ref(struct ocsp_answer *a)
{
	a->refs++;
	return a;
}

void ocsp_answer_unref(struct ocsp_answer *a)
{
	if (a && !--a->refs)
		free(a);
}

static struct ocsp_answer *answer_new(enum ocsp_verdict verdict, time_t until, const char *why,
				      const uint8_t *der, size_t len)
{
	struct ocsp_answer *a = calloc(1, sizeof(*a) + len);

	if (!a)
		return NULL;
	a->refs = 1;
	a->verdict = verdict;
	a->until = until;
	snprintf(a->why, sizeof(a->why), "%s", why);
	if (len)
		memcpy(a->der, der, len);
	a->len = (uint32_t)len;
	return a;
}

/* ---- the end of a query ---- */

static void query_free(struct ocsp_query *q)
{
	if (q->fd >= 0)
		close(q->fd);
	X509_free(q->cert);
	X509_free(q->issuer);
	free(q->out);
	free(q);
}

/* Its operation, if one is out, completes later. */
static void query_close(struct ocsp_query *q)
{
	struct responder *r = q->responder;

	TAILQ_REMOVE(&r->queries, q, queue);
	if (q->fd >= 0)
		r->n_active--;
	if (!q->op.armed) {
		query_free(q);
		return;
	}
	q->entry = NULL;
	LIST_INSERT_HEAD(&r->closing, q, closing);
	ring_cancel(r->ring, &q->op);
}

/* Takes the reference to a, which may be NULL: no memory. */
static void query_end(struct ocsp_query *q, struct ocsp_answer *a)
{
	struct ocsp_entry *e = q->entry;
	struct ocsp_waits waits;
	struct ocsp_wait *w;

	LIST_INIT(&waits);
	while ((w = LIST_FIRST(&q->waits))) {
		LIST_REMOVE(w, link);
		LIST_INSERT_HEAD(&waits, w, link);
	}
	ocsp_answer_unref(e->answer);
	e->answer = a ? ocsp_answer_ref(a) : NULL;
	e->query = NULL;
	query_close(q);
	/* Each may end its flow, or cancel another that waits. */
	while ((w = LIST_FIRST(&waits))) {
		LIST_REMOVE(w, link);
		w->query = NULL;
		w->done(w, a);
	}
	ocsp_answer_unref(a);
}

static void query_fail(struct ocsp_query *q, const char *why)
{
	struct responder *r = q->responder;

	stat_inc(r->stats, ocsp_failures);
	query_end(q, answer_new(OCSP_NO_ANSWER, time(NULL) + RETRY, why, NULL, 0));
	start_queries(r);
	set_timer(r);
}

static void judge(struct ocsp_query *q, const uint8_t *der, size_t len)
{
	struct responder *r = q->responder;
	enum ocsp_verdict verdict;
	char text[96];
	const char *why;
	time_t until;

	verdict = ocsp_judge(der, len, q->cert, q->issuer, time(NULL), &until, &why);
	if (verdict == OCSP_NO_ANSWER) {
		snprintf(text, sizeof(text), "the OCSP response %s", why);
		query_fail(q, text);
		return;
	}
	query_end(q, answer_new(verdict, until, "says the OCSP responder", der, len));
	start_queries(r);
	set_timer(r);
}

/* ---- HTTP, as little of it as there is ---- */

/* Behind the line that begins with name, or NULL. */
static const char *header_value(const char *headers, const char *name)
{
	size_t n = strlen(name);

	for (const char *line = strstr(headers, "\r\n"); line; line = strstr(line + 2, "\r\n"))
		if (!strncasecmp(line + 2, name, n) && line[2 + n] == ':')
			return line + 2 + n + 1;
	return NULL;
}

/* 1: the body is there; 0: it is not yet; -1: it never will be. */
static int find_body(struct ocsp_query *q, bool ended, const uint8_t **body, size_t *len)
{
	const uint8_t *end = memmem(q->in, q->in_len, "\r\n\r\n", 4);
	char headers[HEADER_MAX + 1];
	const char *length;
	size_t n;

	if (!end)
		return ended || q->in_len > HEADER_MAX ? -1 : 0;
	n = (size_t)(end - q->in) + 2; /* with the last line's end */
	if (n > HEADER_MAX || memchr(q->in, 0, n))
		return -1;
	memcpy(headers, q->in, n);
	headers[n] = '\0';
	if (strncmp(headers, "HTTP/1.", 7) || strncmp(headers + 8, " 200", 4))
		return -1;
	*body = end + 4;
	*len = q->in_len - (size_t)(*body - q->in);
	length = header_value(headers, "Content-Length");
	if (!length)
		return ended;
	n = strtoul(length, NULL, 10);
	if (n > OCSP_RESPONSE_MAX || (ended && *len < n))
		return -1;
	if (*len < n)
		return 0;
	*len = n;
	return 1;
}

static void received(struct ring_op *op, int res);
static void sent(struct ring_op *op, int res);

/* True: the query was given up, and this was its last completion. */
static bool was_closing(struct ocsp_query *q)
{
	if (q->entry)
		return false;
	if (!q->op.armed) {
		LIST_REMOVE(q, closing);
		query_free(q);
	}
	return true;
}

static void receive(struct ocsp_query *q)
{
	q->op.done = received;
	ring_recv(q->responder->ring, &q->op, q->fd, q->in + q->in_len, IN_MAX - q->in_len);
}

static void received(struct ring_op *op, int res)
{
	struct ocsp_query *q = container_of(op, struct ocsp_query, op);
	const uint8_t *body;
	size_t len;
	int found;

	if (was_closing(q))
		return;
	if (res == -EINTR) {
		receive(q);
		return;
	}
	if (res < 0) {
		query_fail(q, "the OCSP responder broke the connection");
		return;
	}
	q->in_len += (size_t)res;
	found = find_body(q, res == 0, &body, &len);
	if (found == 1)
		judge(q, body, len);
	else if (found < 0 || res == 0 || q->in_len == IN_MAX)
		query_fail(q, "the OCSP responder did not answer with a response");
	else
		receive(q);
}

static void send_request(struct ocsp_query *q)
{
	q->op.done = sent;
	ring_send(q->responder->ring, &q->op, q->fd, q->out + q->out_off, q->out_len - q->out_off);
}

static void sent(struct ring_op *op, int res)
{
	struct ocsp_query *q = container_of(op, struct ocsp_query, op);

	if (was_closing(q))
		return;
	if (res < 0 && res != -EINTR) {
		query_fail(q, "the OCSP responder broke the connection");
		return;
	}
	q->out_off += res > 0 ? (size_t)res : 0;
	if (q->out_off < q->out_len)
		send_request(q);
	else
		receive(q);
}

static void connected(struct ring_op *op, int res)
{
	struct ocsp_query *q = container_of(op, struct ocsp_query, op);

	if (was_closing(q))
		return;
	if (res < 0)
		query_fail(q, "the OCSP responder is unreachable");
	else
		send_request(q);
}

/* ---- the beginning of a query ---- */

/* Whom to ask, and how that is written in the request. */
struct target {
	struct cfg_address address;
	char url[URL_MAX];
};

/* True: it can stand in a request. The certificate is verified, but its CA may be careless. */
static bool copy_url(struct target *t, const char *url)
{
	size_t n = strlen(url);

	for (size_t i = 0; i < n; i++)
		if (url[i] <= ' ' || url[i] > '~')
			return false;
	if (n >= sizeof(t->url))
		return false;
	memcpy(t->url, url, n + 1);
	return true;
}

/* Whom the certificate names, if that is a host of ocsp_aia; else ocsp_responder, if it is set. */
static bool find_target(const struct ocsp_ask *ask, struct target *t)
{
	const char *hosts = ask->profile->ocsp_aia, *responder = ask->profile->ocsp_responder;
	STACK_OF(OPENSSL_STRING) *urls =
		hosts ? X509_get1_ocsp(sk_X509_value(ask->chain, 0)) : NULL;
	bool found = false;

	for (int i = 0; !found && i < sk_OPENSSL_STRING_num(urls); i++) {
		const char *url = sk_OPENSSL_STRING_value(urls, i);

		found = copy_url(t, url) && !cfg_aia_address(hosts, url, &t->address);
	}
	X509_email_free(urls);
	if (!found && responder)
		found = copy_url(t, responder) && !cfg_http_address(responder, &t->address);
	return found;
}

static int write_request(struct ocsp_query *q, const char *url)
{
	const char *host = url + strlen(CFG_HTTP), *path = strchr(host, '/');
	int host_len = path ? (int)(path - host) : (int)strlen(host), der_len, head_len;
	uint8_t *der;
	char *head = NULL;

	der_len = ocsp_request(q->cert, q->issuer, &der);
	if (der_len < 0)
		return der_len;
	/* 1.0: the end of the connection is the end of the response, and nothing is chunked. */
	head_len = asprintf(&head,
			    "POST %s HTTP/1.0\r\nHost: %.*s\r\n"
			    "Content-Type: application/ocsp-request\r\n"
			    "Accept: application/ocsp-response\r\nContent-Length: %d\r\n\r\n",
			    path ? path : "/", host_len, host, der_len);
	q->out = head_len < 0 ? NULL : malloc((size_t)head_len + (size_t)der_len);
	if (q->out) {
		memcpy(q->out, head, (size_t)head_len);
		memcpy(q->out + head_len, der, (size_t)der_len);
		q->out_len = (size_t)head_len + (size_t)der_len;
	}
	if (head_len >= 0)
		free(head);
	OPENSSL_free(der);
	return q->out ? 0 : -ENOMEM;
}

static X509 *cert_ref(const STACK_OF(X509) * chain, int i)
{
	X509 *cert = sk_X509_value(chain, i);

	return X509_up_ref(cert) ? cert : NULL;
}

static struct ocsp_query *query_new(struct responder *r, struct ocsp_entry *e,
				    const struct ocsp_ask *ask, const struct target *t)
{
	struct ocsp_query *q = calloc(1, sizeof(*q));

	if (!q)
		return NULL;
	q->fd = -1;
	q->responder = r;
	q->entry = e;
	LIST_INIT(&q->waits);
	q->cert = cert_ref(ask->chain, 0);
	q->issuer = cert_ref(ask->chain, 1);
	q->address = t->address;
	if (!q->cert || !q->issuer || write_request(q, t->url)) {
		query_free(q);
		return NULL;
	}
	q->deadline = r->timers->now + ask->profile->ocsp_timeout * 1000ull;
	TAILQ_INSERT_TAIL(&r->queries, q, queue);
	e->query = q;
	return q;
}

/* Returns false if q has ended. */
static bool start(struct ocsp_query *q)
{
	struct responder *r = q->responder;

	q->fd = socket(q->address.ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (q->fd < 0)
		return false;
	r->n_active++;
	stat_inc(r->stats, ocsp_requests);
	q->op.done = connected;
	ring_connect(r->ring, &q->op, q->fd, (const struct sockaddr *)&q->address.ss,
		     q->address.len);
	return true;
}

/* One without a descriptor waits for that of another, or for its deadline. */
static void start_queries(struct responder *r)
{
	struct ocsp_query *q;

	TAILQ_FOREACH (q, &r->queries, queue) {
		if (r->n_active >= ACTIVE_MAX)
			return;
		if (q->fd < 0 && !start(q))
			return;
	}
}

static void set_timer(struct responder *r)
{
	uint64_t first = UINT64_MAX;
	struct ocsp_query *q;

	TAILQ_FOREACH (q, &r->queries, queue)
		first = q->deadline < first ? q->deadline : first;
	if (first == UINT64_MAX)
		timer_clear(r->timers, &r->timer);
	else
		timer_set(r->timers, &r->timer,
			  first > r->timers->now ? first - r->timers->now : 0);
}

static struct ocsp_query *expired_query(const struct responder *r)
{
	struct ocsp_query *q;

	TAILQ_FOREACH (q, &r->queries, queue)
		if (q->deadline <= r->timers->now)
			return q;
	return NULL;
}

static void expired(struct timer *t)
{
	struct responder *r = container_of(t, struct responder, timer);
	struct ocsp_query *q;

	while ((q = expired_query(r)))
		query_fail(q, "the OCSP responder did not answer in time");
	set_timer(r);
}

/* ---- the cache ---- */

static unsigned bucket_of(const uint8_t *fingerprint)
{
	return (fingerprint[0] | fingerprint[1] << 8) % RESPONDER_BUCKETS;
}

static void entry_free(struct responder *r, struct ocsp_entry *e)
{
	LIST_REMOVE(e, link);
	TAILQ_REMOVE(&r->entries, e, used);
	r->n_entries--;
	ocsp_answer_unref(e->answer);
	free(e);
}

static void make_room(struct responder *r)
{
	struct ocsp_entry *e, *next;

	for (e = TAILQ_FIRST(&r->entries); e && r->n_entries >= ENTRIES_MAX; e = next) {
		next = TAILQ_NEXT(e, used);
		if (!e->query)
			entry_free(r, e);
	}
}

static struct ocsp_entry *find(struct responder *r, unsigned profile,
			       const uint8_t fingerprint[FINGERPRINT_LEN])
{
	struct ocsp_entry *e;

	LIST_FOREACH (e, &r->buckets[bucket_of(fingerprint)], link)
		if (e->profile == profile && !memcmp(e->fingerprint, fingerprint, FINGERPRINT_LEN))
			return e;
	return NULL;
}

static struct ocsp_entry *find_or_add(struct responder *r, const struct ocsp_ask *ask)
{
	uint8_t fingerprint[FINGERPRINT_LEN];
	struct ocsp_entry *e;

	if (identity_fingerprint(sk_X509_value(ask->chain, 0), fingerprint))
		return NULL;
	e = find(r, ask->profile->index, fingerprint);
	if (e) {
		TAILQ_REMOVE(&r->entries, e, used);
		TAILQ_INSERT_TAIL(&r->entries, e, used);
		return e;
	}
	make_room(r);
	e = calloc(1, sizeof(*e));
	if (!e)
		return NULL;
	memcpy(e->fingerprint, fingerprint, FINGERPRINT_LEN);
	e->profile = ask->profile->index;
	LIST_INSERT_HEAD(&r->buckets[bucket_of(fingerprint)], e, link);
	TAILQ_INSERT_TAIL(&r->entries, e, used);
	r->n_entries++;
	return e;
}

static unsigned queue_length(const struct responder *r)
{
	const struct ocsp_query *q;
	unsigned n = 0;

	TAILQ_FOREACH (q, &r->queries, queue)
		n++;
	return n;
}

/* ---- for flows ---- */

void responder_init(struct responder *r, struct ring *ring, struct timers *timers,
		    struct stats *stats)
{
	*r = (struct responder){.ring = ring, .timers = timers, .stats = stats};
	r->timer.expired = expired;
	TAILQ_INIT(&r->entries);
	TAILQ_INIT(&r->queries);
}

void responder_free(struct responder *r)
{
	struct ocsp_query *q;

	if (!r->ring)
		return;
	while ((q = TAILQ_FIRST(&r->queries))) {
		TAILQ_REMOVE(&r->queries, q, queue);
		query_free(q);
	}
	while ((q = LIST_FIRST(&r->closing))) {
		LIST_REMOVE(q, closing);
		query_free(q);
	}
	while (!TAILQ_EMPTY(&r->entries))
		entry_free(r, TAILQ_FIRST(&r->entries));
}

static int unanswered(struct ocsp_answer **a, const char *why)
{
	*a = answer_new(OCSP_NO_ANSWER, 0, why, NULL, 0);
	return *a ? 0 : -ENOMEM;
}

/* *a: the answer that came with the certificate, such as it is. */
static int judge_staple(struct responder *r, const struct ocsp_ask *ask, struct ocsp_answer **a)
{
	enum ocsp_verdict verdict;
	char text[96];
	const char *why;
	time_t until;

	if (!ask->staple_len)
		return unanswered(a, "there is no OCSP response, and no responder to ask");
	verdict = ocsp_judge(ask->staple, ask->staple_len, sk_X509_value(ask->chain, 0),
			     sk_X509_value(ask->chain, 1), time(NULL), &until, &why);
	if (verdict == OCSP_NO_ANSWER) {
		stat_inc(r->stats, ocsp_staples_refused);
		snprintf(text, sizeof(text), "the stapled OCSP response %s", why);
		return unanswered(a, text);
	}
	stat_inc(r->stats, ocsp_staples);
	*a = answer_new(verdict, until, "says the stapled OCSP response", ask->staple,
			ask->staple_len);
	return *a ? 0 : -ENOMEM;
}

static int ask_responder(struct responder *r, const struct ocsp_ask *ask, const struct target *t,
			 struct ocsp_wait *w, struct ocsp_answer **a)
{
	struct ocsp_entry *e = find_or_add(r, ask);

	if (!e)
		return -ENOMEM;
	if (!e->query && e->answer && e->answer->until > time(NULL)) {
		stat_inc(r->stats, ocsp_cache_hits);
		*a = ocsp_answer_ref(e->answer);
		return 0;
	}
	if (!e->query) {
		if (queue_length(r) >= QUEUE_MAX) {
			stat_inc(r->stats, ocsp_failures);
			return unanswered(a, "too many OCSP requests wait");
		}
		if (!query_new(r, e, ask, t))
			return -ENOMEM;
	}
	w->query = e->query;
	LIST_INSERT_HEAD(&e->query->waits, w, link);
	start_queries(r);
	set_timer(r);
	return -EINPROGRESS;
}

int responder_ask(struct responder *r, const struct ocsp_ask *ask, struct ocsp_wait *w,
		  struct ocsp_answer **a)
{
	struct target target;
	int ret;

	/* A certificate that is itself an anchor has nobody above it to answer for it. */
	if (sk_X509_num(ask->chain) < 2)
		return unanswered(a, "it has no issuer");
	ret = judge_staple(r, ask, a);
	if (ret || (*a)->verdict != OCSP_NO_ANSWER || !find_target(ask, &target))
		return ret;
	ocsp_answer_unref(TAKE_PTR(*a));
	return ask_responder(r, ask, &target, w, a);
}

void responder_cancel(struct ocsp_wait *w)
{
	if (!w->query)
		return;
	LIST_REMOVE(w, link);
	w->query = NULL;
}
