// SPDX-License-Identifier: Apache-2.0
/*
 * Many random flows through the daemon's relay, both far ends played here: the
 * schedules come from a seed, the keys too, no handshake is made. Every byte
 * and every end is compared; see schedule.h for what is expected.
 *
 * Three threads: the gate (gate.c), one that makes the TCP connections, and
 * this one, which plays the far ends.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include "farend.h"
#include "fault.h"
#include "gate.h"
#include "base/log.h"
#include "base/timer.h"

#define SKIPPED	      77 /* exit status: this kernel has no kernel TLS */
#define PATIENCE_MS   20000
#define WRONG_MAX     20   /* then the run is over */
#define PIPE_OF_PAIRS 4096 /* bytes: as many connections are made in advance */
#define WARM_UP	      1000 /* flows of --soak before its memory is measured */
#define HEAP_SLACK    4096 /* bytes */

struct options {
	struct schedule_options schedule;
	struct fault_options faults;
	uint32_t flows, concurrent;
	int64_t only; /* -1: all */
	bool verbose, soak;
};

/* ---- connections ---- */

/* The four sockets of a flow. */
struct sockets {
	int far[2], gate[2]; /* by role */
};

struct dialer {
	const struct options *o;
	uint32_t first, end;
	int pipe[2]; /* of struct sockets, in the order of flows */
	pthread_t thread;
};

static void check(int ret, const char *what)
{
	if (ret >= 0)
		return;
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static void set(int fd, int level, int option, int value)
{
	if (value)
		check(setsockopt(fd, level, option, &value, sizeof(value)), "setsockopt");
}

/*
 * Before there is a connection, as the daemon does: when a receive buffer is made smaller later,
 * TCP has offered more already. Linux 6.17 and later throw away what they have offered and have no
 * room for, so the rest of a record that kernel TLS waits for may never come.
 */
static int prepared(int sndbuf, int rcvbuf, int mss)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	check(fd, "socket");
	set(fd, SOL_SOCKET, SO_SNDBUF, sndbuf);
	set(fd, SOL_SOCKET, SO_RCVBUF, rcvbuf);
	set(fd, IPPROTO_TCP, TCP_MAXSEG, mss);
	set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	/* A RST can be lost, and is not sent again. */
	set(fd, IPPROTO_TCP, TCP_KEEPIDLE, 2);
	set(fd, IPPROTO_TCP, TCP_KEEPINTVL, 1);
	set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	return fd;
}

/* The client's end dials the gate, the gate dials the backend's end. */
static void dial(const struct options *o, const struct end_plan *p, enum role role, uint32_t flow,
		 struct sockets *out)
{
	int far = prepared(p->sndbuf, p->rcvbuf, p->mss),
	    gate = prepared(p->gate_sndbuf, p->gate_rcvbuf, p->mss);
	int dialing = role == CLIENT ? far : gate, listening = role == CLIENT ? gate : far,
	    accepted;
	/* Many addresses, for ports are held in TIME_WAIT for a while. */
	struct sockaddr_in to = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK + (flow % 200 << 8)),
	};
	socklen_t len = sizeof(to);

	check(bind(listening, (struct sockaddr *)&to, len), "bind");
	check(listen(listening, 1), "listen");
	check(getsockname(listening, (struct sockaddr *)&to, &len), "getsockname");
	check(connect(dialing, (struct sockaddr *)&to, len), "connect");
	accepted = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
	check(accepted, "accept");
	close(listening);
	out->far[role] = role == CLIENT ? dialing : accepted;
	out->gate[role] = role == CLIENT ? accepted : dialing;
	if (o->schedule.ktls)
		check(ktls_attach(&(struct side){.fd = out->gate[role]}), "TCP_ULP");
}

static void *dial_all(void *arg)
{
	struct dialer *d = arg;

	for (uint32_t flow = d->first; flow < d->end; flow++) {
		struct sockets s;
		struct schedule plan;

		if (d->o->only >= 0 && flow != d->o->only)
			continue;
		schedule_make(&plan, &d->o->schedule, flow);
		dial(d->o, &plan.end[CLIENT], CLIENT, flow, &s);
		dial(d->o, &plan.end[BACKEND], BACKEND, flow, &s);
		if (write(d->pipe[1], &s, sizeof(s)) != sizeof(s)) { /* the run is over early */
			for (int r = 0; r < 2; r++) {
				close(s.far[r]);
				close(s.gate[r]);
			}
			break;
		}
	}
	close(d->pipe[1]);
	return NULL;
}

static void dialer_start(struct dialer *d, const struct options *o)
{
	d->o = o;
	check(pipe2(d->pipe, O_CLOEXEC), "pipe2");
	check(fcntl(d->pipe[1], F_SETPIPE_SZ, PIPE_OF_PAIRS), "F_SETPIPE_SZ");
	check(-pthread_create(&d->thread, NULL, dial_all, d), "pthread_create");
}

static void dialer_stop(struct dialer *d)
{
	struct sockets s;

	while (read(d->pipe[0], &s, sizeof(s)) == sizeof(s)) {
		for (int r = 0; r < 2; r++) {
			close(s.far[r]);
			close(s.gate[r]);
		}
	}
	close(d->pipe[0]);
	pthread_join(d->thread, NULL);
}

/* ---- keys ---- */

static void draw_bytes(uint64_t *r, uint8_t *p, size_t n)
{
	while (n--)
		*p++ = (uint8_t)draw(r);
}

static void draw_keys(uint64_t *r, const struct end_plan *p, uint64_t seq, struct wire_keys *k)
{
	memset(k, 0, sizeof(*k));
	k->version = p->version;
	k->cipher = (enum wire_cipher)p->cipher;
	k->seq = seq;
	if (k->version == WIRE_TLS13) {
		draw_bytes(r, k->secret, wire_secret_len(k->cipher));
		return;
	}
	draw_bytes(r, k->key, sizeof(k->key));
	draw_bytes(r, k->iv, k->cipher == WIRE_CHACHA20_POLY1305 ? 12 : 4);
	k->explicit_nonce = draw(r);
}

/* The daemon's view, by the daemon's own derivation: the two must agree. */
static void gate_keys(const struct wire_keys *k, struct tls_keys *out)
{
	static const enum tls_cipher ciphers[] = {
		[WIRE_AES_128_GCM] = TLS_AES_128_GCM,
		[WIRE_AES_256_GCM] = TLS_AES_256_GCM,
		[WIRE_CHACHA20_POLY1305] = TLS_CHACHA20_POLY1305,
	};
	const char *digest = k->cipher == WIRE_AES_256_GCM ? "SHA2-384" : "SHA2-256";

	memset(out, 0, sizeof(*out));
	out->version = k->version;
	out->cipher = ciphers[k->cipher];
	memcpy(out->key, k->key, sizeof(out->key));
	memcpy(out->iv, k->iv, sizeof(out->iv));
	if (k->version == WIRE_TLS13 &&
	    keys_tls13(out->cipher, digest, k->secret, wire_secret_len(k->cipher), out))
		abort();
	out->seq = k->seq;
	out->explicit_nonce = k->explicit_nonce;
}

/* ---- flows ---- */

struct slot {
	bool used;
	struct schedule schedule;
	struct farend end[2];
	struct gate_flow *gate;
	uint64_t deadline, wake[2]; /* ms */
};

struct run {
	const struct options *o;
	struct test_gate *gate;
	struct dialer dialer;
	bool dialed; /* all that are to come */
	uint32_t next_flow;
	struct slot *slots;
	struct pollfd *polls; /* the dialer's, then two a slot */
	uint32_t active, ok, wrong, given_up, by_kind[KIND_COUNT];
	uint64_t bytes;
};

static void slot_start(struct run *run, struct slot *slot, const struct sockets *sockets)
{
	const struct options *o = run->o;
	struct schedule *s = &slot->schedule;
	struct gate_flow *g = calloc(1, sizeof(*g));
	uint64_t r;

	if (!g)
		abort();
	schedule_make(s, &o->schedule, o->only >= 0 ? (uint32_t)o->only : run->next_flow++);
	g->number = s->flow;
	g->breaks = s->kind == KIND_BREAK;
	r = s->end[CLIENT].random ^ s->end[BACKEND].random;
	for (int role = 0; role < 2; role++) {
		struct end_plan *p = &s->end[role];
		struct gate_side *side = &g->side[role];
		struct wire_keys tx, rx;

		draw_keys(&r, p, p->seq[0], &tx);
		draw_keys(&r, p, p->seq[1], &rx);
		gate_keys(&tx, &side->rx);
		gate_keys(&rx, &side->tx);
		if (p->version == WIRE_TLS13) {
			memcpy(side->rx_secret, tx.secret, sizeof(side->rx_secret));
			memcpy(side->tx_secret, rx.secret, sizeof(side->tx_secret));
			side->secret_len = (uint8_t)wire_secret_len(tx.cipher);
		}
		side->fd = sockets->gate[role];
		farend_start(&slot->end[role], &o->schedule, s, (enum role)role, sockets->far[role],
			     &tx, &rx);
		slot->wake[role] = 0;
	}
	atomic_store(&g->reason, -1);
	slot->gate = g;
	slot->used = true;
	slot->deadline = timer_clock() + PATIENCE_MS * o->schedule.patience;
	run->active++;
	test_gate_hand_over(run->gate, g);
}

static void print_seen(const char *who, const struct farend *e)
{
	const struct seen *s = &e->seen;
	static const char *const how[] = {"nothing", "close_notify", "an alert", "FIN", "RST"};

	printf("    the %s sent %" PRIu64 ", received %" PRIu64
	       ", saw %s %d, then %s; its end was %s\n",
	       who, s->sent, s->received, how[s->ended], s->alert, how[s->tail],
	       s->finished ? "sent" : "not sent");
}

static void print_slot(const struct slot *slot, const char *verdict, int reason)
{
	char text[1024], faults[256], *ends;

	schedule_print(&slot->schedule, text, sizeof(text));
	ends = strchr(text, '\n');
	*ends++ = 0;
	ends += strspn(ends, " ");
	printf("flow %u: %s\n  %s; the log says %s\n    %s\n", slot->schedule.flow, verdict, text,
	       reason < 0 ? "nothing yet" : reasons[reason].name, ends);
	print_seen("client", &slot->end[CLIENT]);
	print_seen("backend", &slot->end[BACKEND]);
	if (fault_on()) {
		fault_print(slot->schedule.flow, faults, sizeof(faults));
		printf("    %s\n", faults);
	}
	fflush(stdout);
}

/* A hard fault need not have been one to the flow: as if there had been none is right too. */
static bool is_right(struct run *run, const struct slot *slot, int reason, char *text, size_t len)
{
	const struct seen seen[2] = {slot->end[CLIENT].seen, slot->end[BACKEND].seen};
	const struct told told = {.reason = (enum reason)reason,
				  .ended_at = slot->gate->ended_at,
				  .quiet = slot->gate->quiet};
	unsigned fired = fault_fired(slot->schedule.flow);

	if (schedule_judge(&slot->schedule, &run->o->schedule, seen, &told, text, len))
		return true;
	if (!fired || !schedule_judge_given_up(&slot->schedule, &run->o->schedule, seen, &told,
					       fired & FIRED_CLOSING, text, len))
		return false;
	run->given_up++;
	return true;
}

static void slot_end(struct run *run, struct slot *slot, int reason)
{
	struct seen seen[2] = {slot->end[CLIENT].seen, slot->end[BACKEND].seen};
	char text[512] = "still going on when the patience was over";
	bool ok = reason >= 0 && is_right(run, slot, reason, text, sizeof(text));

	run->ok += ok;
	run->wrong += !ok;
	run->by_kind[slot->schedule.kind]++;
	run->bytes += seen[CLIENT].received + seen[BACKEND].received;
	if (!ok)
		print_slot(slot, text, reason);
	else if (run->o->verbose)
		print_slot(slot, "right", reason);
	farend_stop(&slot->end[CLIENT]);
	farend_stop(&slot->end[BACKEND]);
	if (reason >= 0) /* else the gate may still write to it */
		free(slot->gate);
	slot->used = false;
	run->active--;
}

static void slot_run(struct run *run, struct slot *slot, const struct pollfd polls[2])
{
	uint64_t now = timer_clock();
	int reason;

	for (int r = 0; r < 2; r++) {
		if (polls[r].revents || slot->wake[r] <= now)
			farend_run(&slot->end[r], polls[r].revents, now);
	}
	reason = atomic_load(&slot->gate->reason);
	if (slot->end[CLIENT].done && slot->end[BACKEND].done && reason >= 0)
		slot_end(run, slot, reason);
	else if (now > slot->deadline)
		slot_end(run, slot, -1);
}

static void admit(struct run *run, struct slot *slot)
{
	struct sockets s;
	ssize_t n = read(run->dialer.pipe[0], &s, sizeof(s));

	if (n == sizeof(s))
		slot_start(run, slot, &s);
	else
		run->dialed = true;
}

/* What to poll for; returns for how long at most. */
static int prepare_polls(struct run *run)
{
	uint64_t now = timer_clock(), wake = now + 1000;
	bool room = run->active < run->o->concurrent && !run->dialed;

	run->polls[0] = (struct pollfd){.fd = room ? run->dialer.pipe[0] : -1, .events = POLLIN};
	for (uint32_t i = 0; i < run->o->concurrent; i++) {
		struct slot *slot = &run->slots[i];

		for (int r = 0; r < 2; r++) {
			struct pollfd *p = &run->polls[1 + 2 * i + (uint32_t)r];

			*p = (struct pollfd){.fd = -1};
			slot->wake[r] = UINT64_MAX;
			if (!slot->used)
				continue;
			p->events = farend_wants(&slot->end[r], now, &slot->wake[r]);
			p->fd = slot->end[r].fd;
			if (slot->wake[r] < wake)
				wake = slot->wake[r];
		}
		/* Only the gate's word is missing. */
		if (slot->used && slot->end[CLIENT].done && slot->end[BACKEND].done)
			wake = now + 1;
	}
	return wake > now ? (int)(wake - now) : 0;
}

static void run_flows(struct run *run)
{
	while ((run->active || !run->dialed) && run->wrong < WRONG_MAX) {
		int timeout = prepare_polls(run);

		if (poll(run->polls, 1 + 2 * run->o->concurrent, timeout) < 0 && errno != EINTR)
			check(-1, "poll");
		for (uint32_t i = 0; i < run->o->concurrent; i++) {
			struct slot *slot = &run->slots[i];

			if (slot->used)
				slot_run(run, slot, &run->polls[1 + 2 * i]);
			else if (run->polls[0].revents && !run->dialed) {
				admit(run, slot);
				run->polls[0].revents = 0;
			}
		}
	}
	for (uint32_t i = 0; i < run->o->concurrent; i++) {
		if (run->slots[i].used)
			slot_end(run, &run->slots[i], -1);
	}
}

/* ---- the program ---- */

static unsigned open_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	while (dir && readdir(dir))
		n++;
	if (dir)
		closedir(dir);
	return n;
}

static uint64_t number(const char *text)
{
	char *end;
	uint64_t n = strtoull(text, &end, 0);

	if (*end == 'k' || *end == 'm')
		n <<= *end++ == 'k' ? 10 : 20;
	if (*end || end == text) {
		fprintf(stderr, "%s: not a number\n", text);
		exit(2);
	}
	return n;
}

static int name(int value, const char *text)
{
	if (value < 0) {
		fprintf(stderr, "%s: no such thing\n", text);
		exit(2);
	}
	return value;
}

static void usage(void)
{
	fprintf(stderr,
		"usage: ktlsgate-relay-test [--engine user|ktls|copy] [--flows N] [--concurrent "
		"N]\n"
		"    [--seed S] [--only FLOW] [--kind KIND] [--break NAME] [--bytes MOST] [--least "
		"BYTES]\n"
		"    [--stalls PER_MILLE] [--patience FACTOR] [--few-pipes] [--whole-writes] "
		"[--tiny]\n"
		"    [--key-limit BYTES]\n"
		"    [--faults soft|hard] [--fault SITE] [--soak] [--verbose]\n");
	exit(2);
}

static void parse(int argc, char **argv, struct options *o)
{
	static const struct option table[] = {
		{"engine", 1, NULL, 'e'},     {"flows", 1, NULL, 'n'},
		{"concurrent", 1, NULL, 'c'}, {"seed", 1, NULL, 's'},
		{"only", 1, NULL, 'o'},	      {"kind", 1, NULL, 'k'},
		{"break", 1, NULL, 'B'},      {"bytes", 1, NULL, 'b'},
		{"stalls", 1, NULL, 'S'},     {"patience", 1, NULL, 'p'},
		{"few-pipes", 0, NULL, 'f'},  {"key-limit", 1, NULL, 'l'},
		{"least", 1, NULL, 'm'},      {"whole-writes", 0, NULL, 'w'},
		{"verbose", 0, NULL, 'v'},    {"soak", 0, NULL, 'K'},
		{"faults", 1, NULL, 'F'},     {"fault", 1, NULL, 'H'},
		{"tiny", 0, NULL, 't'},	      {NULL, 0, NULL, 0},
	};

	for (int c; (c = getopt_long(argc, argv, "", table, NULL)) != -1;) {
		switch (c) {
		case 'e':
			o->schedule.copy = !strcmp(optarg, "copy");
			o->schedule.ktls = o->schedule.copy || !strcmp(optarg, "ktls");
			break;
		case 'n':
			o->flows = (uint32_t)number(optarg);
			break;
		case 'c':
			o->concurrent = (uint32_t)number(optarg);
			break;
		case 's':
			o->schedule.seed = number(optarg);
			break;
		case 'o':
			o->only = (int64_t)number(optarg);
			break;
		case 'k':
			o->schedule.kind = name(schedule_kind(optarg), optarg);
			break;
		case 'B':
			o->schedule.kind = KIND_BREAK;
			o->schedule.broken = name(schedule_broken(optarg), optarg);
			break;
		case 'b':
			o->schedule.bytes = number(optarg);
			break;
		case 'm':
			o->schedule.least = number(optarg);
			break;
		case 't':
			o->schedule.tiny = true;
			break;
		case 'w':
			o->schedule.whole_writes = true;
			break;
		case 'S':
			o->schedule.stalls = (unsigned)number(optarg);
			break;
		case 'p':
			o->schedule.patience = (unsigned)number(optarg);
			break;
		case 'f':
			o->schedule.few_pipes = true;
			break;
		case 'l':
			o->schedule.key_limit = number(optarg);
			break;
		case 'v':
			o->verbose = true;
			break;
		case 'K':
			o->soak = true;
			break;
		case 'F':
			o->faults.mode = !strcmp(optarg, "soft") ? FAULTS_SOFT : FAULTS_HARD;
			break;
		case 'H':
			o->faults.mode = FAULTS_HARD;
			o->faults.site = name(fault_site(optarg), optarg);
			break;
		default:
			usage();
		}
	}
	if (optind < argc || !o->concurrent)
		usage();
}

/* What a thread keeps for its next malloc() would be counted as in use. */
static void begin_without_cache(char **argv)
{
	if (getenv("GLIBC_TUNABLES"))
		return;
	setenv("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0", 1);
	execv("/proc/self/exe", argv);
	check(-1, "execv");
}

/* The flows up to number end, with a gate of their own that must leave nothing behind. */
static void run_part(struct run *run, const struct ktls_caps *caps, uint32_t end)
{
	const struct options *o = run->o;
	const struct gate_options gate = {.ktls = o->schedule.ktls,
					  .copy = o->schedule.copy,
					  .key_limit = o->schedule.key_limit,
					  .drain_seconds = 15 * o->schedule.patience};
	unsigned descriptors = open_descriptors(), now;

	run->dialed = false;
	run->gate = test_gate_start(&gate, caps);
	run->dialer.first = run->next_flow;
	run->dialer.end = end;
	dialer_start(&run->dialer, o);
	run_flows(run);
	dialer_stop(&run->dialer);
	run->wrong += test_gate_stop(run->gate);
	now = open_descriptors();
	if (now == descriptors)
		return;
	printf("left behind: %d descriptors\n", (int)now - (int)descriptors);
	run->wrong++;
}

static void check_heap(struct run *run, size_t before)
{
	size_t after = mallinfo2().uordblks;

	printf("heap: %zu bytes, then %zu\n", before, after);
	if (after <= before + HEAP_SLACK)
		return;
	printf("left behind: %zu bytes of memory\n", after - before);
	run->wrong++;
}

static void choose_engine(struct schedule_options *o, struct ktls_caps *caps)
{
	ktls_probe(caps);
	if (!o->ktls) {
		o->rekey = true;
		o->ciphers[0] = o->ciphers[1] = (1u << WIRE_CIPHERS) - 1;
		return;
	}
	if (caps->error || !caps->ciphers[0] || !caps->ciphers[1]) {
		printf("skipped: no kernel TLS here: %s\n", strerror(caps->error));
		exit(SKIPPED);
	}
	o->rekey = caps->rekey;
	memcpy(o->ciphers, caps->ciphers, sizeof(o->ciphers));
}

static void summarise(const struct run *run, uint64_t ms)
{
	static const char *const kinds[] = {
#define X(name, word, weight) word,
		KINDS(X)
#undef X
	};

	if (fault_on()) {
		char faults[1024];

		fault_report(faults, sizeof(faults));
		printf("faults:%s; flows given up %u\n", faults, run->given_up);
	}
	printf("%s engine, %s re-keying:", run->o->schedule.ktls ? "ktls" : "user",
	       run->o->schedule.rekey ? "with" : "without");
	for (int k = 0; k < KIND_COUNT; k++)
		printf(" %s %u", kinds[k], run->by_kind[k]);
	printf("; %" PRIu64 " MiB in %.1f s, %.0f flows/s\n", run->bytes >> 20, (double)ms / 1000,
	       (run->ok + run->wrong) * 1000.0 / (double)(ms ? ms : 1));
	printf("flows %u, ok %u, wrong %u, seed %" PRIu64 "\n", run->ok + run->wrong, run->ok,
	       run->wrong, run->o->schedule.seed);
}

int main(int argc, char **argv)
{
	struct options o = {
		.schedule =
			{.kind = -1, .broken = -1, .bytes = 4 << 20, .stalls = 60, .patience = 1},
		.flows = 10000,
		.concurrent = 32,
		.only = -1,
		.faults = {.site = -1},
	};
	struct run run = {.o = &o};
	struct rlimit files;
	struct ktls_caps caps;
	uint64_t began = timer_clock();
	size_t heap;

	o.schedule.seed = began;
	parse(argc, argv, &o);
	if (o.soak)
		begin_without_cache(argv);
	if (o.only >= o.flows)
		o.flows = (uint32_t)o.only + 1;
	log_open("gate", LOG_LEVEL_WARN);
	signal(SIGPIPE, SIG_IGN);
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	choose_engine(&o.schedule, &caps);
	printf("seed %" PRIu64 "\n", o.schedule.seed);
	fflush(stdout);

	o.faults.seed = o.schedule.seed;
	o.faults.by_flow = true;
	o.faults.where = o.schedule.ktls ? IN_RELAY_KTLS : IN_RELAY_USER;
	fault_setup(&o.faults);
	o.schedule.faults = fault_on();
	if (fault_on()) /* now and then */
		o.schedule.few_pipes = true;
	run.slots = calloc(o.concurrent, sizeof(*run.slots));
	run.polls = calloc(1 + 2 * o.concurrent, sizeof(*run.polls));
	if (!run.slots || !run.polls)
		abort();
	if (o.soak)
		run_part(&run, &caps, WARM_UP < o.flows ? WARM_UP : o.flows);
	heap = mallinfo2().uordblks;
	run_part(&run, &caps, o.flows);
	if (o.soak)
		check_heap(&run, heap);
	free(run.slots);
	free(run.polls);
	summarise(&run, timer_clock() - began);
	return run.wrong || !run.ok;
}
