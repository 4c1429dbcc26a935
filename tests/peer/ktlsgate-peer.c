/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Traffic for tests: both ends of thousands of flows around a gate, so that each
 * byte and each end of a stream can be compared with what was sent. Knows nothing
 * of the gate but its addresses.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <glob.h>
#include <inttypes.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include "end.h"

#define PAIRS_MAX  2
#define EVENTS_MAX 256
#define TICK_MS	   50
#define QUIET_MS   1500 /* --stall: nothing has moved for so long */
#define GRACE_MS   500	/* for connections of flows that were aborted early */
#define RATE_FLOWS 1000000

enum mode {
	MODE_FLOWS,
	MODE_IDLE,
	MODE_STALL,
	MODE_RATE,
	MODE_BULK
};

struct address {
	struct sockaddr_storage ss;
	socklen_t len;
};

static struct options {
	struct plan_options plan;
	enum mode mode;
	struct address connect[PAIRS_MAX], listen[PAIRS_MAX], source;
	unsigned n_connect, n_listen;
	uint32_t flows;
	unsigned concurrency;
	uint64_t every; /* us; 0: as many at once as --concurrency says */
	int64_t only;
	unsigned seconds; /* --rate */
	uint32_t pinging; /* flows in front of them that are there all the time */
	bool counts;
	bool may_fail;
	bool any_end;
	bool steps;
	const char *server_name;
	const char *cipher;
	const char *ca, *cert, *key, *backend_cert, *backend_key, *backend_ca, *shown;
} opt = {
	.plan = {.kind = -1, .bytes = 1 << 20, .tls = "1.3"},
	.flows = 100,
	.concurrency = 64,
	.only = -1,
	.server_name = "app.example",
};

static struct world world;
static struct flow **flows;
static uint32_t launched, met, met_in_time, strays, quits, live_ends, wrong;
static SSL_CTX **client_ctx, *backend_ctx;
static unsigned n_client_ctx;
static X509 *shown; /* to the backend, whoever the client is; NULL: each client's own subject */
static struct samples {
	uint64_t *ns;
	size_t n;
} took, pinged;
static uint64_t began; /* ns */
static int listeners[PAIRS_MAX];
static uint64_t started, first_met;
static bool stdin_told, announced;

static void __attribute__((noreturn, format(printf, 1, 2))) die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("ktlsgate-peer: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	ERR_print_errors_fp(stderr);
	exit(2);
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* ---- verdicts ---- */

static void print_wrong(struct flow *f, const char *text)
{
	if (!f->wrong)
		wrong++;
	f->wrong = true;
	printf("wrong: flow %u, schedule %s, TLS %s %s, seed %" PRIu64 ": %s\n", f->plan.flow,
	       kind_words[f->plan.kind], f->plan.version[CLIENT] == TLS1_2_VERSION ? "1.2" : "1.3",
	       f->plan.version[BACKEND] == TLS1_2_VERSION ? "1.2" : "1.3", opt.plan.seed, text);
	fflush(stdout);
}

/* The client may be gone before the gate has come as far as to speak to the backend. */
static bool may_never_meet(const struct flow *f)
{
	enum finish by = f->plan.end[CLIENT].finish;

	return by == BY_RST || by == BY_CLOSE || by == BY_CLOSE_NOTIFY_CLOSE;
}

/* A client that is one too many may be refused, or leave; those that ping stay unharmed. */
static bool may_fail(const struct flow *f)
{
	return opt.may_fail && !(opt.pinging && f->plan.kind == KIND_PING);
}

static void judge(struct flow *f)
{
	bool (*right)(const struct plan *, enum role, const struct seen *, char *, size_t) =
		may_fail(f)   ? plan_judge_given_up
		: opt.any_end ? plan_judge_bytes
			      : plan_judge;
	char text[512];

	for (int i = 0; i < 2; i++) {
		if (!right(&f->plan, i, f->seen, text, sizeof(text)))
			print_wrong(f, text);
	}
}

static void end_trouble(struct end *e, const char *trouble)
{
	char text[512];
	const struct seen *s = &e->flow->seen[e->role];

	snprintf(text, sizeof(text),
		 "%s: %s (state %d, sent %" PRIu64 " of %" PRIu64 ", received %" PRIu64
		 " of %" PRIu64 ", %s%sended %d, unsent %zu)",
		 role_words[e->role], trouble, e->state, s->sent, e->plan->total, s->received,
		 e->flow->plan.end[!e->role].total, e->closed ? "closed, " : "",
		 e->send_broken ? "broken, " : "", s->ended, e->out_len - e->out_off);
	print_wrong(e->flow, text);
}

static void finished(struct end *e, const char *trouble)
{
	struct flow *f = e->flow;

	live_ends--;
	quits += trouble == end_quits;
	if (!f) {
		strays++;
		if (e->alert_in >= 0 && (e->alert_in & 0xff) == SSL_AD_CLOSE_NOTIFY) {
			printf("wrong: a backend got close_notify before a flow's number\n");
			wrong++;
		}
		return;
	}
	if (trouble && (!may_fail(f) || (trouble == end_impatient && !opt.every)))
		end_trouble(e, trouble);
	f->over[e->role] = true;
	if (f->over[CLIENT] && f->over[BACKEND] && !f->wrong)
		judge(f);
}

/* Flows whose backend's end never came. */
static void judge_unmet(void)
{
	uint32_t aborted = 0;

	for (uint32_t i = 0; i < launched; i++) {
		struct flow *f = flows[i];

		if (!f || f->met || f->wrong)
			continue;
		if (may_never_meet(f) || may_fail(f))
			aborted++;
		else
			print_wrong(f, "the backend never saw it");
	}
	/* A gate with too much to do may try a backend more than once. */
	if (strays > aborted && !wrong && !opt.may_fail) {
		printf("wrong: %u connections to the backend without a number, %u flows aborted\n",
		       strays, aborted);
		wrong++;
	}
}

/* ---- starting flows ---- */

static const X509 *client_certificate(uint32_t flow)
{
	return SSL_CTX_get0_certificate(client_ctx[flow % n_client_ctx]);
}

/* The forged certificate is to show the subject of this client and of no other. */
static bool same_subject(struct end *e, uint32_t flow)
{
	X509 *forged = SSL_get0_peer_certificate(e->ssl);
	const X509 *expected = shown ? shown : client_certificate(flow);

	return forged &&
	       !X509_NAME_cmp(X509_get_subject_name(forged), X509_get_subject_name(expected));
}

static struct flow *meet(struct end *e, int64_t number)
{
	struct flow *f = number >= 0 && number < launched ? flows[number] : NULL;

	if (!f || f->met) {
		printf("wrong: a backend read flow number %" PRId64 "%s\n", number,
		       f ? ", which it has already" : "");
		wrong++;
		return NULL;
	}
	f->met = true;
	f->end[BACKEND] = e;
	met++;
	if (launched < opt.flows)
		met_in_time = met;
	if (!first_met)
		first_met = world.now;
	if (!same_subject(e, f->plan.flow))
		print_wrong(f, "the backend was shown another client's subject");
	if (SSL_version(e->ssl) != f->plan.version[BACKEND])
		print_wrong(f, "the backend speaks another version than planned");
	return f;
}

static void make_digests(struct flow *f)
{
	for (int i = 0; i < 4; i++) {
		f->digest[i / 2][i % 2] = EVP_MD_CTX_new();
		EVP_DigestInit_ex(f->digest[i / 2][i % 2], EVP_sha256(), NULL);
	}
}

static SSL *client_ssl(const struct plan *p)
{
	SSL *ssl = SSL_new(client_ctx[p->flow % n_client_ctx]);

	if (!ssl)
		die("SSL_new");
	SSL_set_connect_state(ssl);
	SSL_set_tlsext_host_name(ssl, opt.server_name);
	SSL_set1_host(ssl, opt.server_name);
	SSL_set_min_proto_version(ssl, p->version[CLIENT]);
	SSL_set_max_proto_version(ssl, p->version[CLIENT]);
	if (p->end[CLIENT].padding)
		SSL_set_block_padding(ssl, p->end[CLIENT].padding);
	if (p->end[CLIENT].fragment)
		SSL_set_max_send_fragment(ssl, p->end[CLIENT].fragment);
	return ssl;
}

static struct plan_options pinging_plan; /* set_up() */

static void launch(uint32_t number)
{
	struct flow *f = flows[number] = calloc(1, sizeof(*f));
	struct address *a;
	int fd;

	if (!f)
		die("out of memory");
	plan_make(&f->plan, number < opt.pinging ? &pinging_plan : &opt.plan, number);
	f->seen[CLIENT].different_at = f->seen[BACKEND].different_at = -1;
	if (f->plan.kind == KIND_BULK)
		make_digests(f);
	a = &opt.connect[f->plan.pair];
	fd = socket(a->ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		die("socket: %s", strerror(errno));
	if (opt.source.len && bind(fd, (struct sockaddr *)&opt.source.ss, opt.source.len))
		die("--source: %s", strerror(errno));
	end_set_buffers(fd, &f->plan.end[CLIENT]);
	if (world.took)
		f->asked_at = end_clock();
	if (connect(fd, (struct sockaddr *)&a->ss, a->len) && errno != EINPROGRESS)
		die("connect: %s", strerror(errno));
	live_ends++;
	/* Nothing to be read yet: its turn comes when the connection is there. */
	struct end *e = end_new(&world, CLIENT, fd, client_ssl(&f->plan), f);
	struct epoll_event ev = {.events = e->interest = EPOLLOUT, .data.ptr = e};

	epoll_ctl(world.epoll, EPOLL_CTL_ADD, fd, &ev);
	if (world.now + world.patience < world.wake)
		world.wake = world.now + world.patience;
}

static bool holding(void)
{
	return opt.mode == MODE_IDLE || opt.mode == MODE_STALL;
}

/* All flows are there before what is measured begins. */
static bool gathers(void)
{
	return opt.steps && (opt.plan.kind == KIND_STREAM || opt.plan.kind == KIND_PING);
}

/* --rate: the seconds count from when the pinging flows are there. */
static bool in_time(void)
{
	return met < opt.pinging ? !wrong : world.now - started < opt.seconds * 1000ull;
}

static bool more_to_launch(void)
{
	if (opt.mode == MODE_RATE)
		return in_time() && launched < RATE_FLOWS;
	return launched < opt.flows;
}

/* When the next one begins by --every, ms. */
static uint64_t next_launch(void)
{
	return started + (launched - opt.pinging) * opt.every / 1000;
}

/* The next one has to wait. */
static bool has_to_wait(void)
{
	if (launched < opt.pinging)
		return false;
	if (met < opt.pinging) {
		started = world.now;
		return true;
	}
	if (opt.every)
		return world.now < next_launch();
	if (holding() || gathers())
		return launched - met >= opt.concurrency;
	return live_ends >= 2 * (opt.pinging + opt.concurrency);
}

static void launch_some(void)
{
	while (more_to_launch()) {
		if (has_to_wait())
			return;
		launched++;
		if (opt.only < 0 || opt.only == launched - 1)
			launch(launched - 1);
	}
}

static void accept_all(unsigned pair)
{
	int fd;

	while ((fd = accept4(listeners[pair], NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
		SSL *ssl = SSL_new(backend_ctx);

		if (!ssl)
			die("SSL_new");
		SSL_set_accept_state(ssl);
		if (pair == 1 || !strcmp(opt.plan.tls, "1.2"))
			SSL_set_max_proto_version(ssl, TLS1_2_VERSION);
		else
			SSL_set_min_proto_version(ssl, TLS1_3_VERSION);
		live_ends++;
		end_run(end_new(&world, BACKEND, fd, ssl, NULL));
	}
}

/* ---- flows that are held ---- */

static bool settled(void)
{
	for (uint32_t i = 0; i < opt.flows; i++) {
		const struct flow *f = flows[i];

		if (f->wrong)
			continue;
		if (f->seen[CLIENT].received < f->plan.end[BACKEND].total ||
		    f->seen[BACKEND].received < f->plan.end[CLIENT].total)
			return false;
	}
	return true;
}

static uint64_t all_sent(void)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < launched; i++)
		sum += flows[i]->seen[BACKEND].sent;
	return sum;
}

static bool at_rest(void)
{
	static uint64_t last, since;
	uint64_t sum;

	if (launched < opt.flows || met + wrong < opt.flows)
		return false;
	if (opt.mode == MODE_IDLE)
		return settled();
	sum = all_sent();
	if (sum != last)
		since = world.now;
	last = sum;
	return world.now - since >= QUIET_MS;
}

static unsigned port_of(int fd, int (*name)(int, struct sockaddr *, socklen_t *))
{
	struct sockaddr_in6 sa;
	socklen_t len = sizeof(sa);

	if (name(fd, (struct sockaddr *)&sa, &len))
		return 0;
	return ntohs(sa.sin6_port); /* at the same place in sockaddr_in */
}

static void print_counts(const struct flow *f)
{
	printf("flow %u", f->plan.flow);
	for (int i = 0; i < 2; i++) {
		struct tcp_info t;
		socklen_t len = sizeof(t);
		int fd = f->end[i] ? f->end[i]->fd : -1;

		memset(&t, 0, sizeof(t));
		if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &t, &len))
			die("flow %u is no longer open", f->plan.flow);
		printf(" %s %u gate %u sent %" PRIu64 " resent %" PRIu64 " received %" PRIu64,
		       role_words[i], port_of(fd, getsockname), port_of(fd, getpeername),
		       (uint64_t)t.tcpi_bytes_sent, (uint64_t)t.tcpi_bytes_retrans,
		       (uint64_t)t.tcpi_bytes_received);
	}
	putchar('\n');
}

static void announce(void)
{
	if (announced || !holding() || !at_rest())
		return;
	announced = true;
	for (uint32_t i = 0; opt.counts && i < opt.flows; i++)
		print_counts(flows[i]);
	if (opt.mode == MODE_IDLE)
		printf("idle %u\n", opt.flows);
	else
		printf("stalled %u, bytes %" PRIu64 "\n", opt.flows, all_sent());
	fflush(stdout);
}

static void run_all(void)
{
	struct end *e, *next;

	world.wake = UINT64_MAX;
	for (e = LIST_FIRST(&world.ends); e; e = next) {
		next = LIST_NEXT(e, link);
		end_run(e);
	}
}

static void tell_all(void)
{
	struct end *e;

	world.told = true;
	LIST_FOREACH (e, &world.ends, link)
		end_told(e);
}

/* ---- steps: somebody measures from one to the next ---- */

static void sample(const struct flow *f, uint64_t ns)
{
	bool pings = f->plan.flow < opt.pinging;
	struct samples *s = pings ? &pinged : &took;

	/* Before and after, others are missing; and what answers a number is no ping. */
	if ((opt.mode == MODE_RATE && (met < opt.pinging || !in_time())) ||
	    (pings && f->seen[CLIENT].received < NUMBER_LEN))
		return;
	if (!(s->n & (s->n + 1))) {
		s->ns = realloc(s->ns, 2 * (s->n + 1) * sizeof(*s->ns));
		if (!s->ns)
			die("out of memory");
	}
	s->ns[s->n++] = ns;
}

static int by_size(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static void print_samples(const char *what, struct samples *s)
{
	if (s->n)
		qsort(s->ns, s->n, sizeof(*s->ns), by_size);
	printf("%s n %zu", what, s->n);
	if (s->n)
		printf(" p50 %" PRIu64 " p99 %" PRIu64 " max %" PRIu64, s->ns[s->n / 2],
		       s->ns[s->n * 99 / 100], s->ns[s->n - 1]);
	printf(" ns\n");
}

static void step(const char *name)
{
	char line[256];

	if (began)
		printf("%s %" PRIu64 " ns\n", name, end_clock() - began);
	else
		puts(name);
	fflush(stdout);
	if (read(0, line, sizeof(line)) <= 0)
		die("--steps: nobody is there");
	began = end_clock();
}

static bool gathered(void)
{
	if (launched < opt.flows || met < opt.flows)
		return false;
	for (uint32_t i = 0; i < opt.flows; i++) {
		if (flows[i]->seen[CLIENT].received < NUMBER_LEN)
			return false;
	}
	return true;
}

/* Nothing is under way while a step waits. */
static void pace(void)
{
	if (world.told || (world.hold ? !gathered() : !settled()))
		return;
	if (world.hold) {
		step("ready");
		took.n = 0;
		world.hold = false;
	} else {
		step("done");
		tell_all();
	}
	run_all();
}

static void read_stdin(void)
{
	char buf[256];

	if (read(0, buf, sizeof(buf)) > 0 && opt.mode == MODE_IDLE)
		return;
	/* --idle ends with stdin, --stall goes on with a line. */
	epoll_ctl(world.epoll, EPOLL_CTL_DEL, 0, NULL);
	stdin_told = true;
}

/* The seconds are over: a ping under way is answered, and the flow closes. */
static void stop_pinging(void)
{
	for (uint32_t i = 0; i < opt.pinging; i++) {
		struct plan *p = &flows[i]->plan;

		if (p->end[CLIENT].when == WHEN_BOTH)
			return;
		for (int k = 0; k < 2; k++) {
			p->end[k].total = flows[i]->seen[CLIENT].sent;
			p->end[k].when = WHEN_BOTH;
		}
	}
	run_all();
}

/* ---- the loop ---- */

static bool all_over(void)
{
	static uint64_t quiet_since;
	bool unmet = false;

	if (more_to_launch() || live_ends) {
		quiet_since = 0;
		return false;
	}
	for (uint32_t i = 0; i < launched && !unmet; i++)
		unmet = flows[i] && !flows[i]->met;
	if (!quiet_since)
		quiet_since = world.now;
	return !unmet || world.now - quiet_since >= GRACE_MS;
}

static void handle(const struct epoll_event *ev)
{
	for (unsigned i = 0; i < opt.n_listen; i++) {
		if (ev->data.ptr == &listeners[i]) {
			accept_all(i);
			return;
		}
	}
	if (ev->data.ptr == &stdin_told)
		read_stdin();
	else
		end_run(ev->data.ptr);
}

static void run(void)
{
	struct epoll_event events[EVENTS_MAX];

	if (opt.steps && !gathers())
		step("ready");
	started = world.now = now_ms();
	while (!all_over()) {
		uint64_t wait = TICK_MS;
		int n;

		launch_some();
		if (world.wake < world.now + wait)
			wait = world.wake > world.now ? world.wake - world.now : 0;
		if (opt.every && more_to_launch() && next_launch() < world.now + wait)
			wait = next_launch() - world.now;
		n = epoll_wait(world.epoll, events, EVENTS_MAX, (int)wait);
		world.now = now_ms();
		for (int i = 0; i < n; i++)
			handle(&events[i]);
		if (world.now >= world.wake)
			run_all();
		announce();
		if (opt.pinging && launched && !in_time())
			stop_pinging();
		if (gathers())
			pace();
		if (announced && stdin_told && !world.told) {
			tell_all();
			run_all();
		}
	}
	if (opt.steps && !gathers())
		step("done");
}

/* ---- results ---- */

static void print_bulk(void)
{
	uint64_t ms = world.now - first_met;
	double mib = (double)opt.plan.bytes * 2 / (1 << 20);
	bool equal = true;

	for (int i = 0; i < 2; i++) {
		uint8_t sent[32], received[32];

		EVP_DigestFinal_ex(flows[0]->digest[i][0], sent, NULL);
		EVP_DigestFinal_ex(flows[0]->digest[i][1], received, NULL);
		printf("sha256 %s ", role_words[i]);
		for (int k = 0; k < 32; k++)
			printf("%02x", sent[k]);
		putchar('\n');
		equal = equal && !memcmp(sent, received, sizeof(sent));
	}
	if (!equal)
		wrong++;
	printf("bulk %" PRIu64 " bytes each way, %.1f MiB/s in all, sha256 %s\n", opt.plan.bytes,
	       mib * 1000 / (double)(ms ? ms : 1), equal ? "equal" : "DIFFERENT");
}

static int results(void)
{
	uint32_t n = opt.only >= 0 ? 1 : launched, bad = 0;

	judge_unmet();
	for (uint32_t i = 0; i < launched; i++)
		bad += flows[i] && flows[i]->wrong;
	if (opt.mode == MODE_RATE)
		printf("%.1f connections/s\n", n * 1000.0 / (double)(world.now - started));
	if (opt.mode == MODE_BULK)
		print_bulk();
	if (world.took)
		print_samples("took", &took);
	if (opt.pinging)
		print_samples("pinged", &pinged);
	if (opt.every || opt.may_fail)
		printf("met %u, in time %u\n", met, met_in_time);
	if (world.quits)
		printf("quits %u\n", quits);
	printf("flows %u, ok %u, wrong %u, seed %" PRIu64 ", bytes %" PRIu64 "\n", n, n - bad,
	       wrong, opt.plan.seed, world.bytes);
	return wrong ? 1 : 0;
}

/* ---- setting up ---- */

static SSL_CTX *context(const SSL_METHOD *m, const char *cert, const char *key, const char *ca,
			int verify)
{
	SSL_CTX *ctx = SSL_CTX_new(m);

	if (!ctx || SSL_CTX_use_certificate_chain_file(ctx, cert) != 1 ||
	    SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) != 1)
		die("%s, %s", cert, key);
	if (SSL_CTX_load_verify_locations(ctx, ca, NULL) != 1)
		die("%s", ca);
	SSL_CTX_set_verify(ctx, verify, NULL);
	/* A missing close_notify is told from one by end_info(). */
	SSL_CTX_set_options(ctx, SSL_OP_IGNORE_UNEXPECTED_EOF | SSL_OP_NO_RENEGOTIATION);
	SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	/* Without one a server that asks for certificates fails on its own tickets. */
	SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"peer", 4);
	SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
	SSL_CTX_set_read_ahead(ctx, 1);
	SSL_CTX_set_info_callback(ctx, end_info);
	if (opt.cipher && SSL_CTX_set_ciphersuites(ctx, opt.cipher) != 1 &&
	    SSL_CTX_set_cipher_list(ctx, opt.cipher) != 1)
		die("--cipher %s", opt.cipher);
	return ctx;
}

static void add_client(const char *cert, const char *key)
{
	client_ctx = realloc(client_ctx, (n_client_ctx + 1) * sizeof(*client_ctx));
	if (!client_ctx)
		die("out of memory");
	client_ctx[n_client_ctx++] =
		context(TLS_client_method(), cert, key, opt.ca, SSL_VERIFY_PEER);
}

/* --cert may be a directory: every x.pem with an x.key beside it. */
static void add_clients(void)
{
	char path[4096];
	struct stat st;
	glob_t found;

	if (!stat(opt.cert, &st) && !S_ISDIR(st.st_mode)) {
		add_client(opt.cert, opt.key ? opt.key : opt.cert);
		return;
	}
	snprintf(path, sizeof(path), "%s/*.pem", opt.cert);
	if (glob(path, 0, NULL, &found))
		die("%s: nothing there", path);
	for (size_t i = 0; i < found.gl_pathc; i++) {
		snprintf(path, sizeof(path), "%s", found.gl_pathv[i]);
		memcpy(path + strlen(path) - 3, "key", 3);
		if (!access(path, R_OK))
			add_client(found.gl_pathv[i], path);
	}
	globfree(&found);
	if (!n_client_ctx)
		die("%s: no x.pem with x.key", opt.cert);
}

static void watch(int fd, void *ptr)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = ptr};

	if (epoll_ctl(world.epoll, EPOLL_CTL_ADD, fd, &ev))
		die("epoll_ctl: %s", strerror(errno));
}

static void listen_all(void)
{
	int one = 1;

	for (unsigned i = 0; i < opt.n_listen; i++) {
		struct address *a = &opt.listen[i];
		int fd = socket(a->ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

		listeners[i] = fd;
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		if (bind(fd, (struct sockaddr *)&a->ss, a->len) || listen(fd, 4096))
			die("--listen: %s", strerror(errno));
		watch(fd, &listeners[i]);
	}
}

static X509 *read_certificate(const char *path)
{
	FILE *file = fopen(path, "r");
	X509 *cert = file ? PEM_read_X509(file, NULL, NULL, NULL) : NULL;

	if (!cert)
		die("%s: no certificate", path);
	fclose(file);
	return cert;
}

static void set_up(void)
{
	struct rlimit files;

	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	world.epoll = epoll_create1(EPOLL_CLOEXEC);
	world.wake = UINT64_MAX;
	world.random = opt.plan.seed;
	world.meet = meet;
	world.finished = finished;
	LIST_INIT(&world.ends);
	flows = calloc(opt.mode == MODE_RATE ? RATE_FLOWS : opt.flows, sizeof(*flows));
	if (world.epoll < 0 || !flows || end_init())
		die("out of memory");
	world.hold = gathers();
	if (opt.steps || opt.pinging)
		world.took = sample;
	pinging_plan = opt.plan;
	pinging_plan.kind = KIND_PING;
	pinging_plan.bytes = UINT64_MAX / 2;
	if (opt.shown)
		shown = read_certificate(opt.shown);
	add_clients();
	backend_ctx = context(TLS_server_method(), opt.backend_cert, opt.backend_key,
			      opt.backend_ca, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT);
	SSL_CTX_set_verify_depth(backend_ctx, 5);
	listen_all();
	if (holding())
		watch(0, &stdin_told);
}

/* ---- the command line ---- */

static unsigned parse_addresses(char *text, struct address *out)
{
	unsigned n = 0;
	char *save = NULL;

	for (char *a = strtok_r(text, ",", &save); a; a = strtok_r(NULL, ",", &save)) {
		struct addrinfo hints = {.ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM};
		struct addrinfo *found;
		char *colon = strrchr(a, ':');

		if (!colon || n == PAIRS_MAX)
			die("%s: ADDRESS:PORT expected, %d at most", a, PAIRS_MAX);
		*colon = '\0';
		if (*a == '[' && colon[-1] == ']') {
			colon[-1] = '\0';
			a++;
		}
		if (getaddrinfo(a, colon + 1, &hints, &found))
			die("%s: not a numeric address", a);
		memcpy(&out[n].ss, found->ai_addr, found->ai_addrlen);
		out[n++].len = found->ai_addrlen;
		freeaddrinfo(found);
	}
	return n;
}

static void parse_source(const char *text)
{
	char address[128];

	if (strchr(text, ','))
		die("--source: one address expected");
	snprintf(address, sizeof(address), "%s:0", text);
	parse_addresses(address, &opt.source);
}

static uint64_t parse_number(const char *text)
{
	static const char units[] = "kMG";
	char *end;
	uint64_t n = strtoull(text, &end, 10);
	const char *unit = *end ? strchr(units, *end) : NULL;

	if (end == text || (*end && (!unit || end[1])))
		die("%s: not a number", text);
	return unit ? n << (10 * (unit - units + 1)) : n;
}

static int parse_kind(const char *word)
{
	if (!strcmp(word, "mixed"))
		return -1;
	for (int i = 0; i < KIND_COUNT; i++) {
		if (!strcmp(word, kind_words[i]))
			return i;
	}
	die("--schedule %s: not one of those in --help", word);
}

static void __attribute__((noreturn)) help(void)
{
	puts("ktlsgate-peer --connect ADDR[,ADDR] --listen ADDR[,ADDR] [MODE] [OPTIONS] FILES\n"
	     "Both ends of flows through a gate. ADDR: address:port; of a second pair the backend\n"
	     "speaks TLS 1.2 only. Sizes take k, M, G.\n"
	     "Files: --ca --cert (or a directory of x.pem, x.key) --key --backend-cert\n"
	     "       --backend-key --backend-ca\n"
	     "Modes: --flows N     N flows, each as its schedule says (the default)\n"
	     "       --idle N      hold N flows until stdin ends; --counts: TCP's bytes of each\n"
	     "       --stall N     N flows the client does not read until a line comes on stdin\n"
	     "       --rate T      connections, one after another, for T seconds;\n"
	     "                     --pinging N: beside N flows as \"ping\", there all the time\n"
	     "       --bulk BYTES  one flow, both directions at once\n"
	     "Options: --schedule KIND --rekey (mixed includes it) --bytes MAX --concurrency N\n"
	     "         --seed N --only FLOW --tls 1.2|1.3|mixed --cipher NAME --name SERVER\n"
	     "         --patience SECONDS\n"
	     "         --shown CERT: the backend must be shown its subject, not the client's\n"
	     "         --any-end: bytes count, not how a stream ends (nginx: with a bare FIN)\n"
	     "         --steps: \"ready\" is printed when all is set up, \"done\" when the last "
	     "byte\n"
	     "         has come, and behind each a line on stdin is waited for\n"
	     "         --may-fail: the gate may give a flow up, but not lie about it; how many\n"
	     "         the backend met is printed, in all and until the last one began\n"
	     "         --quits N: so many ends in 1000 leave in their handshake (and --may-fail)\n"
	     "         --source ADDR: where clients connect from\n"
	     "         --every US: a flow begins every so many microseconds, whatever became of\n"
	     "         those before, and with --may-fail its ends may lose patience; prints the "
	     "same\n"
	     "Kinds:");
	printf("  %-14s %s\n", "mixed", "one of those down to \"tiny\" for each flow");
	for (int i = 0; i < KIND_COUNT; i++)
		printf("  %-14s %s\n", kind_words[i], kind_helps[i]);
	exit(0);
}

static const struct option long_options[] = {
	{"connect", 1, NULL, 'c'},	{"listen", 1, NULL, 'l'},
	{"flows", 1, NULL, 'f'},	{"concurrency", 1, NULL, 'n'},
	{"seed", 1, NULL, 's'},		{"schedule", 1, NULL, 'k'},
	{"bytes", 1, NULL, 'b'},	{"tls", 1, NULL, 't'},
	{"cipher", 1, NULL, 'C'},	{"ca", 1, NULL, 'a'},
	{"cert", 1, NULL, 'e'},		{"key", 1, NULL, 'y'},
	{"backend-cert", 1, NULL, 'E'}, {"backend-key", 1, NULL, 'Y'},
	{"backend-ca", 1, NULL, 'A'},	{"idle", 1, NULL, 'i'},
	{"stall", 1, NULL, 'S'},	{"counts", 0, NULL, 'o'},
	{"rate", 1, NULL, 'r'},		{"bulk", 1, NULL, 'B'},
	{"only", 1, NULL, 'O'},		{"name", 1, NULL, 'N'},
	{"rekey", 0, NULL, 'R'},	{"patience", 1, NULL, 'p'},
	{"may-fail", 0, NULL, 'm'},	{"quits", 1, NULL, 'q'},
	{"steps", 0, NULL, 'P'},	{"any-end", 0, NULL, 'x'},
	{"shown", 1, NULL, 'W'},	{"source", 1, NULL, 'F'},
	{"every", 1, NULL, 'v'},	{"pinging", 1, NULL, 'g'},
	{"help", 0, NULL, 'h'},		{NULL, 0, NULL, 0},
};

static void set_mode(enum mode mode, enum kind kind, uint64_t n_flows)
{
	opt.mode = mode;
	opt.plan.kind = kind;
	opt.flows = (uint32_t)n_flows;
}

static void parse_option(int c)
{
	switch (c) {
	case 'c':
		opt.n_connect = parse_addresses(optarg, opt.connect);
		break;
	case 'l':
		opt.n_listen = parse_addresses(optarg, opt.listen);
		break;
	case 'f':
		opt.flows = (uint32_t)parse_number(optarg);
		break;
	case 'n':
		opt.concurrency = (unsigned)parse_number(optarg);
		break;
	case 's':
		opt.plan.seed = parse_number(optarg);
		break;
	case 'k':
		opt.plan.kind = parse_kind(optarg);
		break;
	case 'b':
		opt.plan.bytes = parse_number(optarg);
		break;
	case 't':
		opt.plan.tls = optarg;
		break;
	case 'C':
		opt.cipher = optarg;
		break;
	case 'a':
		opt.ca = optarg;
		break;
	case 'e':
		opt.cert = optarg;
		break;
	case 'y':
		opt.key = optarg;
		break;
	case 'E':
		opt.backend_cert = optarg;
		break;
	case 'Y':
		opt.backend_key = optarg;
		break;
	case 'A':
		opt.backend_ca = optarg;
		break;
	case 'i':
		set_mode(MODE_IDLE, KIND_HOLD, parse_number(optarg));
		break;
	case 'S':
		set_mode(MODE_STALL, KIND_STALLED, parse_number(optarg));
		break;
	case 'o':
		opt.counts = true;
		break;
	case 'r':
		set_mode(MODE_RATE, KIND_QUICK, 0);
		opt.seconds = (unsigned)parse_number(optarg);
		opt.concurrency = 1;
		break;
	case 'g':
		opt.pinging = (uint32_t)parse_number(optarg);
		break;
	case 'B':
		set_mode(MODE_BULK, KIND_BULK, 1);
		opt.plan.bytes = parse_number(optarg);
		break;
	case 'O':
		opt.only = (int64_t)parse_number(optarg);
		break;
	case 'N':
		opt.server_name = optarg;
		break;
	case 'R':
		opt.plan.rekey = true;
		break;
	case 'p':
		world.patience = parse_number(optarg) * 1000;
		break;
	case 'q':
		world.quits = (unsigned)parse_number(optarg);
		opt.may_fail = true;
		break;
	case 'm':
		opt.may_fail = true;
		break;
	case 'P':
		opt.steps = true;
		break;
	case 'x':
		opt.any_end = true;
		break;
	case 'W':
		opt.shown = optarg;
		break;
	case 'F':
		parse_source(optarg);
		break;
	case 'v':
		opt.every = parse_number(optarg);
		break;
	case 'h':
		help();
	default:
		exit(2);
	}
}

static void parse(int argc, char **argv)
{
	int c;

	world.patience = 30000;
	if (getrandom(&opt.plan.seed, 4, 0) != 4)
		die("getrandom");
	while ((c = getopt_long(argc, argv, "h", long_options, NULL)) != -1)
		parse_option(c);
	if (!opt.n_connect || opt.n_connect != opt.n_listen || !opt.ca || !opt.cert ||
	    !opt.backend_cert || !opt.backend_key || !opt.backend_ca || optind != argc)
		die("--connect, --listen (as many) and the files are needed; see --help");
	if (opt.only >= 0 && (opt.only >= opt.flows || holding() || opt.mode == MODE_RATE))
		die("--only: no such flow");
	if (opt.pinging && opt.mode != MODE_RATE)
		die("--pinging: with --rate only");
	if (opt.plan.bytes < NUMBER_LEN)
		opt.plan.bytes = NUMBER_LEN;
	opt.plan.pairs = opt.n_connect;
}

int main(int argc, char **argv)
{
	parse(argc, argv);
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("seed %" PRIu64 "\n", opt.plan.seed);
	set_up();
	run();
	return results();
}
