// SPDX-License-Identifier: Apache-2.0
/*
 * steer, the shield and count on the real kernel, over loopback, as root. Oracles are what
 * the application sent and what TCP_INFO says.
 *   test_bpf                    all checks
 *   test_bpf hold DIR CGROUP    one steered, counted connection until standard
 *                               input ends: for bpftool, kill -9 and a second daemon
 */
#include <errno.h>
#include <grp.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <linux/magic.h>
#include <linux/tcp.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include "steer/count.h"
#include "base/log.h"
#include "steer/lookup.h"
#include "steer/shield.h"
#include "steer/steer.h"
#include "unit.h"

#define MAX_WORKERS 4
#define NOBODY	    65534
#define WAIT_MS	    5000

static char bpf_dir[64], cgroup_name[64];

static void die(const char *what)
{
	perror(what);
	exit(1);
}

/* ---- sockets ---- */

struct address {
	struct sockaddr_storage ss;
	socklen_t len;
};

static struct address loopback4(void)
{
	struct address a = {.len = sizeof(struct sockaddr_in)};
	struct sockaddr_in *sin = (void *)&a.ss;

	sin->sin_family = AF_INET;
	sin->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return a;
}

static struct address any4(void)
{
	struct address a = loopback4();

	((struct sockaddr_in *)&a.ss)->sin_addr.s_addr = INADDR_ANY;
	return a;
}

static struct address loopback6(void)
{
	struct address a = {.len = sizeof(struct sockaddr_in6)};
	struct sockaddr_in6 *sin6 = (void *)&a.ss;

	sin6->sin6_family = AF_INET6;
	sin6->sin6_addr = in6addr_loopback;
	return a;
}

static struct address any6(void)
{
	struct address a = loopback6();

	((struct sockaddr_in6 *)&a.ss)->sin6_addr = in6addr_any;
	return a;
}

static uint16_t port_of(int fd)
{
	struct address a = {.len = sizeof(a.ss)};

	if (getsockname(fd, (struct sockaddr *)&a.ss, &a.len))
		die("getsockname");
	return ntohs(((struct sockaddr_in *)&a.ss)->sin_port); /* the same place in both families */
}

static void set_port(struct address *a, uint16_t port)
{
	((struct sockaddr_in *)&a->ss)->sin_port = htons(port);
}

static void set_option(int fd, int level, int option, int value)
{
	if (setsockopt(fd, level, option, &value, sizeof(value)))
		die("setsockopt");
}

static int listen_on(struct address a, uint16_t port)
{
	int fd = socket(a.ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	set_port(&a, port);
	set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1);
	if (bind(fd, (struct sockaddr *)&a.ss, a.len) || listen(fd, 128))
		die("listen");
	return fd;
}

static int connect_to(struct address a, uint16_t port)
{
	int fd = socket(a.ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	set_port(&a, port);
	if (connect(fd, (struct sockaddr *)&a.ss, a.len))
		die("connect");
	return fd;
}

static bool have_ipv6(void)
{
	scoped_fd fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		printf("IPv6 is not tested: %s\n", strerror(errno));
	return fd >= 0;
}

struct listeners {
	int fds[MAX_WORKERS];
	unsigned n;
	uint16_t port;
};

static struct listeners open_listeners(struct address a, unsigned n)
{
	struct listeners l = {.n = n};

	for (unsigned i = 0; i < n; i++) {
		l.fds[i] = listen_on(a, l.port);
		l.port = port_of(l.fds[i]);
	}
	return l;
}

static void close_listeners(struct listeners *l)
{
	for (unsigned i = 0; i < l->n; i++) {
		if (l->fds[i] >= 0)
			close(l->fds[i]);
	}
}

/* The worker whose socket got the connection; it is accepted and closed. */
static int which_worker(const struct listeners *l)
{
	struct pollfd p[MAX_WORKERS];

	for (unsigned i = 0; i < l->n; i++)
		p[i] = (struct pollfd){.fd = l->fds[i], .events = POLLIN};
	if (poll(p, l->n, WAIT_MS) != 1)
		return -1;
	for (unsigned i = 0; i < l->n; i++) {
		if (p[i].revents) {
			close(accept4(l->fds[i], NULL, NULL, SOCK_CLOEXEC));
			return i;
		}
	}
	return -1;
}

static int connect_and_ask(const struct listeners *l, struct address a)
{
	int fd = connect_to(a, l->port), worker = which_worker(l);

	close(fd);
	return worker;
}

/* ---- maps, by their pins ---- */

static int pinned(const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", bpf_dir, name);
	return bpf_obj_get(path);
}

/* Adds up all CPUs' values: structs of u64 only. */
static void read_percpu(const char *name, uint32_t key, uint64_t *sum, size_t fields)
{
	scoped_fd map = pinned(name);
	size_t cpus = libbpf_num_possible_cpus();
	scoped_mem uint64_t *values = calloc(cpus, fields * sizeof(*values));

	memset(sum, 0, fields * sizeof(*sum));
	if (!values || bpf_map_lookup_elem(map, &key, values)) {
		CHECK(!"per-CPU lookup");
		return;
	}
	for (size_t i = 0; i < cpus * fields; i++)
		sum[i % fields] += values[i];
}

static struct steer_stats stats_of(uint32_t worker)
{
	struct steer_stats s;

	read_percpu(MAP_STEER_STATS, worker, (uint64_t *)&s, sizeof(s) / 8);
	return s;
}

static struct flow_totals totals_of(uint32_t side)
{
	struct flow_totals t;

	read_percpu(MAP_TOTALS, side, (uint64_t *)&t, sizeof(t) / 8);
	return t;
}

static uint64_t cookie_of(int fd)
{
	uint64_t cookie = 0;
	socklen_t len = sizeof(cookie);

	if (getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len))
		die("SO_COOKIE");
	return cookie;
}

static bool has_entry(const char *name, uint64_t cookie)
{
	scoped_fd map = pinned(name);
	char value[512];

	return !bpf_map_lookup_elem(map, &cookie, value);
}

static bool gone(const char *name, uint64_t cookie)
{
	for (int ms = 0; ms < WAIT_MS; ms++) {
		if (!has_entry(name, cookie))
			return true;
		usleep(1000);
	}
	return false;
}

/* ---- steer ---- */

static const struct cfg_cpus no_cpus;

static void pin_to_cpu(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		die("sched_setaffinity");
}

/* 100 connections, the connecting thread on each allowed CPU in turn. */
static void check_cpu_rule(struct steer *steer, unsigned vserver, unsigned workers,
			   struct address listen, struct address target)
{
	struct listeners l = open_listeners(listen, workers);
	struct steer_stats before[MAX_WORKERS], after;
	unsigned want[MAX_WORKERS] = {0};
	cpu_set_t allowed;
	unsigned wrong = 0;

	sched_getaffinity(0, sizeof(allowed), &allowed);
	for (unsigned w = 0; w < workers; w++)
		before[w] = stats_of(w);
	CHECK_INT(steer_add(steer, vserver, l.fds, workers), 0);
	for (int i = 0, cpu = 0; i < 100; cpu = (cpu + 1) % CPU_SETSIZE) {
		if (!CPU_ISSET(cpu, &allowed))
			continue;
		pin_to_cpu(cpu);
		want[cpu % MAX_WORKERS % workers]++;
		wrong += connect_and_ask(&l, target) != (int)(cpu % MAX_WORKERS % workers);
		i++;
	}
	sched_setaffinity(0, sizeof(allowed), &allowed);
	CHECK_INT(wrong, 0);
	for (unsigned w = 0; w < workers; w++) {
		after = stats_of(w);
		CHECK_INT(after.selected - before[w].selected, want[w]);
		CHECK_INT(after.fallback, before[w].fallback);
	}
	close_listeners(&l);
}

static void set_mode(enum steer_mode mode)
{
	struct steer_config config;
	scoped_fd map = pinned(MAP_STEER_CONFIG);
	uint32_t zero = 0;

	CHECK_INT(bpf_map_lookup_elem(map, &zero, &config), 0);
	config.mode = mode;
	CHECK_INT(bpf_map_update_elem(map, &zero, &config, BPF_ANY), 0);
}

/* How many of n connections each worker gets; the statistics must say the same. */
static void count_workers(const struct listeners *l, int n, unsigned *got)
{
	uint64_t before[MAX_WORKERS];

	memset(got, 0, MAX_WORKERS * sizeof(*got));
	for (unsigned w = 0; w < MAX_WORKERS; w++)
		before[w] = stats_of(w).selected;
	for (int i = 0; i < n; i++) {
		int w = connect_and_ask(l, loopback4());

		if (w >= 0)
			got[w]++;
	}
	for (unsigned w = 0; w < MAX_WORKERS; w++)
		CHECK_INT(stats_of(w).selected - before[w], got[w]);
}

static void check_hash_mode(struct steer *steer)
{
	struct listeners l = open_listeners(loopback4(), MAX_WORKERS);
	unsigned got[MAX_WORKERS];

	CHECK_INT(steer_add(steer, 0, l.fds, MAX_WORKERS), 0);
	set_mode(STEER_BY_HASH);
	count_workers(&l, 100, got);
	for (unsigned w = 0; w < MAX_WORKERS; w++)
		CHECK(got[w] > 0);
	set_mode(STEER_BY_CPU);
	close_listeners(&l);
}

/* Of two chosen by chance the less loaded: the most loaded one never, the least often. */
static void check_load_mode(struct steer *steer)
{
	struct listeners l = open_listeners(loopback4(), MAX_WORKERS);
	uint64_t *load = steer_load_map(steer_map(steer, MAP_STEER_LOAD), MAX_WORKERS);
	unsigned got[MAX_WORKERS];

	CHECK_INT(steer_add(steer, 0, l.fds, MAX_WORKERS), 0);
	set_mode(STEER_BY_LOAD);
	for (unsigned w = 0; w < MAX_WORKERS; w++)
		load[w] = 10 * (w + 2) % 40; /* 20 30 0 10 */
	/* A half, a third, a sixth: six standard deviations from being in another order. */
	count_workers(&l, 1000, got);
	CHECK_INT(got[1], 0);
	CHECK(got[2] > got[3] && got[3] > got[0] && got[0] > 0);
	memset(load, 0, MAX_WORKERS * sizeof(*load));
	set_mode(STEER_BY_CPU);
	close_listeners(&l);
}

/* No new connection, and the one that waits in its backlog is not lost. */
static void check_drain(struct steer *steer)
{
	static const enum steer_mode modes[] = {STEER_BY_CPU, STEER_BY_HASH, STEER_BY_LOAD};
	struct listeners l = open_listeners(loopback4(), MAX_WORKERS);
	cpu_set_t allowed;
	int cpu = 0, waiting, drained;
	unsigned got[MAX_WORKERS];

	sched_getaffinity(0, sizeof(allowed), &allowed);
	while (!CPU_ISSET(cpu, &allowed))
		cpu++;
	pin_to_cpu(cpu);
	drained = cpu % MAX_WORKERS;
	CHECK_INT(steer_add(steer, 0, l.fds, MAX_WORKERS), 0);
	waiting = connect_to(loopback4(), l.port);
	CHECK_INT(steer_drain(steer, drained, true), 0);
	CHECK_INT(which_worker(&l), drained);
	close(waiting);
	for (unsigned i = 0; i < ARRAY_SIZE(modes); i++) {
		set_mode(modes[i]);
		count_workers(&l, 100, got);
		CHECK_INT(got[drained], 0);
	}
	for (unsigned w = 0; w < MAX_WORKERS - 1; w++)
		CHECK_INT(steer_drain(steer, w, true), 0);
	CHECK_INT(steer_drain(steer, MAX_WORKERS - 1, true), -EBUSY);
	CHECK_INT(steer_drain(steer, MAX_WORKERS, true), -ENOENT);
	for (unsigned w = 0; w < MAX_WORKERS; w++)
		CHECK_INT(steer_drain(steer, w, false), 0);
	count_workers(&l, 100, got);
	CHECK_INT(got[drained], 100);
	sched_setaffinity(0, sizeof(allowed), &allowed);
	close_listeners(&l);
}

/* A worker without a socket: the others serve its connections. */
static void check_fallback(struct steer *steer)
{
	struct listeners l = open_listeners(loopback4(), 2);
	cpu_set_t allowed;
	int cpu = 0, worker;
	uint64_t before;

	sched_getaffinity(0, sizeof(allowed), &allowed);
	while (!CPU_ISSET(cpu, &allowed))
		cpu++;
	worker = cpu % 2;
	CHECK_INT(steer_add(steer, 0, l.fds, 2), 0);
	before = stats_of(worker).fallback;
	close(l.fds[worker]);
	l.fds[worker] = -1;
	pin_to_cpu(cpu);
	for (int i = 0; i < 10; i++)
		CHECK_INT(connect_and_ask(&l, loopback4()), !worker);
	sched_setaffinity(0, sizeof(allowed), &allowed);
	CHECK_INT(stats_of(worker).fallback - before, 10);
	close_listeners(&l);
}

static void check_refusals(struct steer *steer)
{
	scoped_fd plain = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct listeners l = open_listeners(loopback4(), 1);
	int many[MAX_WORKERS + 1];

	for (unsigned i = 0; i < ARRAY_SIZE(many); i++)
		many[i] = l.fds[0];
	CHECK_INT(steer_add(steer, 99, l.fds, 1), -EINVAL);
	CHECK_INT(steer_add(steer, 0, l.fds, 0), -EINVAL);
	CHECK_INT(steer_add(steer, 0, many, MAX_WORKERS + 1), -EINVAL);
	if (listen(plain, 1))
		die("listen");
	CHECK_INT(steer_add(steer, 0, (int[]){plain}, 1), -EINVAL); /* no SO_REUSEPORT */
	close_listeners(&l);
}

/* Worker i is that of the i-th CPU of the list, here backwards; other CPUs are shared out. */
static void check_pinned(void)
{
	scoped_steer *steer = NULL;
	struct listeners l = open_listeners(loopback4(), 2);
	unsigned list[2], n = 0;
	struct cfg_cpus cpus = {.list = list, .n = 2};
	cpu_set_t allowed;

	sched_getaffinity(0, sizeof(allowed), &allowed);
	for (int cpu = CPU_SETSIZE - 1; cpu >= 0 && n < 2; cpu--) {
		if (CPU_ISSET(cpu, &allowed))
			list[n++] = (unsigned)cpu;
	}
	if (n < 2)
		die("this test needs two CPUs");
	CHECK_INT(steer_open(1, 2, &cpus, STEER_BY_CPU, NULL, &steer), 0);
	CHECK_INT(steer_add(steer, 0, l.fds, 2), 0);
	for (int i = 0; i < 20; i++) {
		pin_to_cpu((int)list[i % 2]);
		CHECK_INT(connect_and_ask(&l, loopback4()), i % 2);
	}
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, &allowed) || cpu == (int)list[0] || cpu == (int)list[1])
			continue;
		pin_to_cpu(cpu);
		CHECK_INT(connect_and_ask(&l, loopback4()), cpu % 2);
	}
	sched_setaffinity(0, sizeof(allowed), &allowed);
	close_listeners(&l);
}

static void test_steer(void)
{
	scoped_steer *steer = NULL;

	CHECK_INT(steer_open(3, MAX_WORKERS, &no_cpus, STEER_BY_CPU, NULL, &steer), 0);
	CHECK_INT(steer_take_over(steer, NULL, bpf_dir), 0);
	if (!steer)
		return;
	for (unsigned workers = 1; workers <= MAX_WORKERS; workers++)
		check_cpu_rule(steer, 0, workers, loopback4(), loopback4());
	check_cpu_rule(steer, 1, 2, any4(), loopback4());
	if (have_ipv6()) {
		check_cpu_rule(steer, 2, 4, loopback6(), loopback6());
		check_cpu_rule(steer, 1, 2, any6(), loopback6());
		check_cpu_rule(steer, 1, 2, any6(), loopback4());
	}
	check_hash_mode(steer);
	check_load_mode(steer);
	check_drain(steer);
	check_fallback(steer);
	check_refusals(steer);
	check_pinned();
}

/* ---- lookup and shield ---- */

static char *command(const struct lookup *lookup, const char *text)
{
	static char answer[4096];
	FILE *out = fmemopen(answer, sizeof(answer), "w");

	memset(answer, 0, sizeof(answer));
	shield_command(lookup, text, out);
	fclose(out);
	return answer;
}

#define CHECK_COMMAND(lookup, text, want) CHECK(!strcmp(command(lookup, text), want))
#define CHECK_SHOWN(lookup, line)	  CHECK(strstr(command(lookup, "show"), line))

static struct config shield_example(struct cfg_prefix *denied, unsigned n)
{
	static struct cfg_vserver *none;

	return (struct config){.vservers = &none,
			       .workers = 1,
			       .shield_prefix4 = 32,
			       .shield_prefix6 = 64,
			       .shield_deny = {denied, n}};
}

static void check_commands(const struct lookup *l)
{
	CHECK_COMMAND(l, "deny 192.0.2.0/24", "ok\n");
	CHECK_COMMAND(l, "allow 192.0.2.1", "ok\n");
	CHECK_COMMAND(l, "limit 2001:db8::/32 50", "ok\n");
	CHECK_COMMAND(l, "limit 0.0.0.0/0 5 100", "ok\n");
	CHECK_SHOWN(l, "rule 192.0.2.0/24 deny run-time dropped 0\n");
	CHECK_SHOWN(l, "rule 192.0.2.1/32 allow run-time dropped 0\n");
	CHECK_SHOWN(l, "rule 2001:db8::/32 limit 50/s burst 50 run-time dropped 0\n");
	CHECK_SHOWN(l, "rule 0.0.0.0/0 limit 5/s burst 100 run-time dropped 0\n");
	CHECK_COMMAND(l, "reset 192.0.2.1", "ok\n");
	CHECK_COMMAND(l, "reset 192.0.2.1",
		      "error there is no rule for exactly this prefix; see `shield show`\n");
	CHECK_COMMAND(l, "deny 192.0.2.1/24",
		      "error 192.0.2.1/24 has bits of the address set behind the prefix; use "
		      "192.0.2.0/24\n");
	for (const char *const *bad =
		     (const char *const[]){"", "deny", "n 1.2.3.4", "deny x y", "limit 1.2.3.4",
					   "limit 1.2.3.4 0", "limit 1.2.3.4 1 1000001",
					   "limit 1.2.3.4 1 1 1", "show me", "reset 1.2.3.4 5",
					   NULL};
	     *bad; bad++)
		CHECK(!strncmp(command(l, *bad), "error want ", 11) ||
		      !strncmp(command(l, *bad), "error x ", 8));
}

/* The configuration's rules go with it, an operator's stay. */
static void check_new_configuration(struct lookup *l, const struct lookup_plan *plan,
				    const struct steer *steer)
{
	struct cfg_prefix denied[] = {{AF_INET, 24, {198, 51, 100}},
				      {AF_INET, 24, {203, 0, 113}},
				      {AF_INET6, 16, {0x20, 0x02}}};
	struct config both = shield_example(denied, 3), second = shield_example(denied + 1, 1);
	char *shown;

	CHECK_INT(lookup_set(l, &both, plan, steer), 0);
	CHECK_SHOWN(l, "rule 198.51.100.0/24 deny configured dropped 0\n");
	CHECK_SHOWN(l, "rule 203.0.113.0/24 deny configured dropped 0\n");
	CHECK_SHOWN(l, "rule 2002::/16 deny configured dropped 0\n");
	CHECK_COMMAND(l, "allow 203.0.113.0/24", "ok\n");
	CHECK_INT(lookup_set(l, &second, plan, steer), 0);
	shown = command(l, "show");
	CHECK(!strstr(shown, "198.51.100.0") && !strstr(shown, "2002::"));
	CHECK(strstr(shown, "rule 203.0.113.0/24 allow run-time dropped 0\n"));
	CHECK(strstr(shown, "rule 192.0.2.0/24 deny run-time dropped 0\n"));
}

/* What a data process gets of a map that is not its own: counters to be read. */
static void check_cannot_change(int map, uint32_t first)
{
	uint64_t key = first;
	uint8_t value[4096] = {0};

	CHECK(map >= 0);
	CHECK_INT(bpf_map_lookup_elem(map, &key, value), first ? -ENOENT : 0);
	CHECK_INT(bpf_map_update_elem(map, &key, value, BPF_ANY), -EPERM);
	CHECK_INT(bpf_map_delete_elem(map, &key), -EPERM);
}

static void test_shield(void)
{
	struct config cfg = shield_example(NULL, 0);
	struct lookup_plan plan = {0};
	struct steer *steer = NULL;
	struct lookup *lookup = NULL;

	CHECK_INT(steer_open(1, 1, &no_cpus, STEER_BY_CPU, NULL, &steer), 0);
	CHECK_INT(lookup_open(bpf_dir, &lookup), 0);
	CHECK(!strncmp(command(NULL, "show"), "error there is no shield", 24));
	CHECK(!strncmp(command(lookup, "show"), "error there is no shield", 24));
	CHECK_INT(lookup_set(lookup, &cfg, &plan, steer), 0);
	CHECK_SHOWN(lookup, "ok\nsource limit none\n");
	check_commands(lookup);
	check_new_configuration(lookup, &plan, steer);
	check_cannot_change(lookup_stats_map(lookup), 0);
	lookup_close(lookup);
	steer_close(steer);
	CHECK(access(bpf_dir, F_OK) && errno == ENOENT);
}

/* ---- count ---- */

struct pair {
	int client; /* connected: side "backend" in the kernel's eyes */
	int server; /* accepted */
};

static struct pair open_pair(struct address a, uint16_t port, int listener)
{
	struct pair p = {.client = connect_to(a, port)};

	p.server = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (p.server < 0)
		die("accept");
	return p;
}

static void close_pair(struct pair *p)
{
	close(p->client);
	close(p->server);
}

struct job {
	int fd;
	size_t bytes;
};

static void *send_all(void *arg)
{
	const struct job *job = arg;
	size_t left = job->bytes, chunk = left > 1 << 20 ? 1 << 20 : left;
	scoped_mem char *buf = calloc(1, chunk + 1);
	ssize_t n;

	for (; left; left -= n) {
		n = send(job->fd, buf, left < chunk ? left : chunk, MSG_NOSIGNAL);
		if (n <= 0)
			die("send");
	}
	return NULL;
}

static void receive(int fd, size_t bytes)
{
	static char buf[65536];
	ssize_t n;

	for (; bytes; bytes -= n) {
		n = recv(fd, buf, bytes < sizeof(buf) ? bytes : sizeof(buf), 0);
		if (n <= 0)
			die("recv");
	}
}

static void transfer(int from, int to, size_t bytes)
{
	struct job job = {from, bytes};
	pthread_t thread;

	if (pthread_create(&thread, NULL, send_all, &job))
		die("pthread_create");
	receive(to, bytes);
	pthread_join(thread, NULL);
}

static struct tcp_info tcp_info_of(int fd)
{
	struct tcp_info info = {0};
	socklen_t len = sizeof(info);

	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len))
		die("TCP_INFO");
	return info;
}

/*
 * Equal to the kernel's own segment counts, less the SYN: it came before the
 * connection, and the kernel counts it on both sides.
 */
static bool segments_agree(const struct count *count, int fd, enum flow_side side)
{
	unsigned syn_rx = side == FLOW_CLIENT, syn_tx = side == FLOW_BACKEND;
	struct flow_value flow;

	for (int ms = 0; ms < WAIT_MS; ms++) { /* the last ACK may be on its way */
		struct tcp_info info = tcp_info_of(fd);

		if (count_read_flow(count, fd, &flow))
			return false;
		if (flow.packets_rx + syn_rx == info.tcpi_segs_in &&
		    flow.packets_tx + syn_tx == info.tcpi_segs_out)
			return true;
		usleep(1000);
	}
	return false;
}

/*
 * What the sender counted is what the application sent and, on a starved
 * machine, the retransmissions TCP_INFO knows of; of those not all need arrive.
 */
static void check_direction(const struct flow_value *sender, const struct flow_value *receiver,
			    int sender_fd, size_t bytes)
{
	struct tcp_info info = tcp_info_of(sender_fd);

	CHECK_INT(sender->retransmits, info.tcpi_total_retrans);
	CHECK_INT(sender->bytes_tx, bytes + info.tcpi_bytes_retrans);
	CHECK(receiver->bytes_rx >= bytes);
	CHECK(receiver->bytes_rx <= bytes + info.tcpi_bytes_retrans);
}

static void check_bytes(const struct count *count, struct pair *p, size_t to_server,
			size_t to_client)
{
	struct flow_value client, server;

	transfer(p->client, p->server, to_server);
	transfer(p->server, p->client, to_client);
	CHECK(segments_agree(count, p->client, FLOW_BACKEND));
	CHECK(segments_agree(count, p->server, FLOW_CLIENT));
	CHECK_INT(count_read_flow(count, p->client, &client), 0);
	CHECK_INT(count_read_flow(count, p->server, &server), 0);
	check_direction(&client, &server, p->client, to_server);
	check_direction(&server, &client, p->server, to_client);
}

static void add_flow(struct flow_totals *total, const struct flow_value *flow)
{
	total->flows_opened++;
	total->flows_closed++;
	total->packets_rx += flow->packets_rx;
	total->packets_tx += flow->packets_tx;
	total->bytes_rx += flow->bytes_rx;
	total->bytes_tx += flow->bytes_tx;
	total->retransmits += flow->retransmits;
}

/* Closing takes the entries away and moves them into the totals; a FIN is a packet without bytes.
 */
static void check_close(const struct count *count, struct pair *p)
{
	struct flow_totals before[FLOW_SIDES], after[FLOW_SIDES];
	uint64_t client_cookie = cookie_of(p->client), server_cookie = cookie_of(p->server);
	struct flow_value flow[FLOW_SIDES];

	for (int side = 0; side < FLOW_SIDES; side++)
		before[side] = totals_of(side);
	CHECK_INT(count_read_flow(count, p->server, &flow[FLOW_CLIENT]), 0);
	CHECK_INT(count_read_flow(count, p->client, &flow[FLOW_BACKEND]), 0);
	close_pair(p);
	CHECK(gone(MAP_FLOWS, client_cookie));
	CHECK(gone(MAP_FLOWS, server_cookie));
	for (int side = 0; side < FLOW_SIDES; side++) {
		before[side].flows_opened--; /* add_flow() adds an opened one */
		add_flow(&before[side], &flow[side]);
		after[side] = totals_of(side);
		CHECK_INT(after[side].flows_opened, before[side].flows_opened);
		CHECK_INT(after[side].flows_closed, before[side].flows_closed);
		CHECK_INT(after[side].bytes_rx, before[side].bytes_rx);
		CHECK_INT(after[side].bytes_tx, before[side].bytes_tx);
		CHECK(after[side].packets_rx > before[side].packets_rx);
		CHECK(after[side].packets_tx > before[side].packets_tx);
		CHECK_INT(after[side].flow_insert_failed, 0);
	}
}

static void check_sizes(const struct count *count, struct address listen, struct address target,
			int mss)
{
	static const size_t sizes[] = {0, 1, 1459, 16384, 65536, 1 << 20, 10 << 20};
	scoped_fd listener = listen_on(listen, 0);

	if (mss) /* many segments to a packet */
		set_option(listener, IPPROTO_TCP, TCP_MAXSEG, mss);
	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct pair p = open_pair(target, port_of(listener), listener);

		check_bytes(count, &p, sizes[i], sizes[ARRAY_SIZE(sizes) - 1 - i]);
		check_close(count, &p);
	}
}

static void check_fields(const struct count *count, struct address listen, struct address target,
			 const char *text, enum flow_family family)
{
	scoped_fd listener = listen_on(listen, 0);
	uint16_t port = port_of(listener);
	struct pair p = open_pair(target, port, listener);
	struct flow_value client, server;

	transfer(p.client, p.server, 1000);
	CHECK_INT(count_read_flow(count, p.client, &client), 0);
	CHECK_INT(count_read_flow(count, p.server, &server), 0);
	CHECK_INT(client.side, FLOW_BACKEND);
	CHECK_INT(server.side, FLOW_CLIENT);
	CHECK_INT(client.family, family);
	CHECK_INT(server.family, family);
	CHECK_INT(client.state, FLOW_ESTABLISHED);
	CHECK_INT(client.remote_port, port);
	CHECK_INT(server.local_port, port);
	CHECK_INT(client.local_port, port_of(p.client));
	CHECK_INT(server.remote_port, port_of(p.client));
	CHECK(!strcmp(client.remote_address, text));
	CHECK(!strcmp(server.remote_address, text));
	CHECK(!strcmp(client.local_address, text));
	CHECK(!strcmp(server.local_address, text));
	CHECK(client.established_ns > 0);
	CHECK(client.srtt_us > 0);
	shutdown(p.client, SHUT_WR);
	receive(p.server, 0);
	CHECK_INT(count_read_flow(count, p.client, &client), 0);
	CHECK(client.state == FLOW_FIN_WAIT1 || client.state == FLOW_FIN_WAIT2);
	CHECK_INT(client.bytes_tx, 1000);
	close_pair(&p);
}

/* The segment that establishes the connection carries data. */
static void check_deferred_accept(const struct count *count)
{
	scoped_fd listener = listen_on(loopback4(), 0);
	struct job job = {.bytes = 777};
	struct flow_value flow;
	struct pair p;

	set_option(listener, IPPROTO_TCP, TCP_DEFER_ACCEPT, 5);
	p.client = job.fd = connect_to(loopback4(), port_of(listener));
	send_all(&job);
	p.server = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	receive(p.server, 777);
	CHECK_INT(count_read_flow(count, p.server, &flow), 0);
	CHECK_INT(flow.bytes_rx, 777);
	CHECK(segments_agree(count, p.server, FLOW_CLIENT));
	close_pair(&p);
}

static struct flow_info example_info(void)
{
	return (struct flow_info){
		.flow_id = 42,
		.engine = FLOW_ENGINE_KTLS,
		.records = FLOW_RECORDS_DEVICE_TX,
		.vserver = "app",
		.service = "app1",
		.tls_version = "TLSv1.3",
		.client_identity = "0123456789abcdef",
	};
}

/* Returns the wait status of what a process without any right does with the handle. */
static int as_nobody(const struct count *count, int fd)
{
	struct flow_info info = example_info();
	struct flow_value flow;
	pid_t pid = fork();
	int status;

	if (pid) {
		waitpid(pid, &status, 0);
		return status;
	}
	if (setgroups(0, NULL) || setresgid(NOBODY, NOBODY, NOBODY) ||
	    setresuid(NOBODY, NOBODY, NOBODY) || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		_exit(2);
	count_flow_info(count, fd, &info);
	_exit(count_read_flow(count, fd, &flow) ? 3 : 0);
}

static void check_flow_info(const struct count *count)
{
	scoped_fd listener = listen_on(loopback4(), 0), map = pinned(MAP_FLOW_INFO);
	struct pair p = open_pair(loopback4(), port_of(listener), listener);
	struct flow_info info = example_info(), got = {0};
	uint64_t cookie = cookie_of(p.server);

	CHECK_INT(as_nobody(count, p.server), 0);
	CHECK_INT(bpf_map_lookup_elem(map, &cookie, &got), 0);
	CHECK(!memcmp(&got, &info, sizeof(got)));
	close_pair(&p);
	CHECK(gone(MAP_FLOW_INFO, cookie));

	/* For a socket that is not counted nothing may stay: nobody would ever delete it. */
	count_flow_info(count, listener, &info);
	CHECK(!has_entry(MAP_FLOW_INFO, cookie_of(listener)));
	CHECK_INT(count_read_flow(count, listener, &(struct flow_value){0}), -ENOENT);
}

/* RST instead of FIN: the entries go as well. */
static void check_reset(void)
{
	scoped_fd listener = listen_on(loopback4(), 0);
	struct pair p = open_pair(loopback4(), port_of(listener), listener);
	uint64_t client = cookie_of(p.client), server = cookie_of(p.server);
	struct linger abort_it = {.l_onoff = 1};

	setsockopt(p.client, SOL_SOCKET, SO_LINGER, &abort_it, sizeof(abort_it));
	close(p.client);
	CHECK(gone(MAP_FLOWS, client));
	CHECK(gone(MAP_FLOWS, server));
	close(p.server);
}

static bool in_cgroup(const char *name)
{
	scoped_file *file = fopen("/proc/self/cgroup", "re");
	char line[512], want[128];

	snprintf(want, sizeof(want), "/%s\n", name);
	while (file && fgets(line, sizeof(line), file)) {
		if (!strncmp(line, "0::", 3) && strlen(line) > strlen(want) &&
		    !strcmp(line + strlen(line) - strlen(want), want))
			return true;
	}
	return false;
}

/* It writes descriptions, and reads none: others may have written some. */
static void check_maps_of_data_process(const struct count *count)
{
	struct flow_info info = example_info(), got;
	int map = count_flow_info_map(count);
	uint64_t key = 1;

	check_cannot_change(count_flows_map(count), 1);
	CHECK_INT(bpf_map_update_elem(map, &key, &info, BPF_ANY), 0);
	CHECK_INT(bpf_map_lookup_elem(map, &key, &got), -EPERM);
	CHECK_INT(bpf_map_delete_elem(map, &key), 0);
	for (; key < 100; key++)
		CHECK_INT(bpf_map_update_elem(map, &key, &info, BPF_ANY), 0);
	count_forget_invented(count);
	for (key = 1; key < 100; key++)
		CHECK(!has_entry(MAP_FLOW_INFO, key));
}

static void test_count(void)
{
	struct count *count = NULL;

	CHECK_INT(count_open(bpf_dir, cgroup_name, MAP_FLOWS_DEFAULT, &count), 0);
	if (!count)
		return;
	CHECK(in_cgroup(cgroup_name));
	check_sizes(count, loopback4(), loopback4(), 0);
	check_sizes(count, loopback4(), loopback4(), 1400);
	check_fields(count, loopback4(), loopback4(), "127.0.0.1", FLOW_IPV4);
	if (have_ipv6()) {
		check_sizes(count, loopback6(), loopback6(), 1400);
		check_sizes(count, any6(), loopback4(), 0);
		check_fields(count, any6(), loopback4(), "127.0.0.1", FLOW_IPV4);
		check_fields(count, loopback6(), loopback6(),
			     "0000:0000:0000:0000:0000:0000:0000:0001", FLOW_IPV6);
	}
	check_deferred_accept(count);
	check_flow_info(count);
	check_maps_of_data_process(count);
	check_reset();
	count_close(count);
	CHECK(!in_cgroup(cgroup_name));
	CHECK(access(bpf_dir, F_OK) && errno == ENOENT);
}

static void test_full_map(void)
{
	scoped_count *count = NULL;
	struct pair pairs[3];
	struct flow_totals client, backend;
	int listener;

	CHECK_INT(count_open(bpf_dir, cgroup_name, 4, &count), 0);
	if (!count)
		return;
	listener = listen_on(loopback4(), 0);
	for (int i = 0; i < 3; i++)
		pairs[i] = open_pair(loopback4(), port_of(listener), listener);
	client = totals_of(FLOW_CLIENT);
	backend = totals_of(FLOW_BACKEND);
	CHECK_INT(client.flows_opened + backend.flows_opened, 4);
	CHECK_INT(client.flow_insert_failed + backend.flow_insert_failed, 2);
	for (int i = 0; i < 3; i++)
		close_pair(&pairs[i]);
	close(listener);
}

/* Sockets made before, or outside, are none of our business. */
static void test_not_ours(void)
{
	scoped_fd listener = listen_on(loopback4(), 0);
	scoped_count *count = NULL;
	struct flow_value flow;
	struct pair p;

	CHECK_INT(count_open(bpf_dir, cgroup_name, 16, &count), 0);
	if (!count)
		return;
	p = open_pair(loopback4(), port_of(listener), listener);
	CHECK_INT(count_read_flow(count, p.client, &flow), 0);
	CHECK_INT(count_read_flow(count, p.server, &flow), -ENOENT);
	close_pair(&p);
}

static void test_errors(void)
{
	struct count *count = NULL;
	struct steer *steer = NULL;
	char tmp[] = "/tmp/ktlsgate-test-XXXXXX", dir[64];

	if (!mkdtemp(tmp))
		die("mkdtemp");
	snprintf(dir, sizeof(dir), "%s/pins", tmp);
	CHECK_INT(count_open(dir, cgroup_name, 16, &count), -EMEDIUMTYPE);
	CHECK_INT(steer_open(1, 1, &no_cpus, STEER_BY_CPU, NULL, &steer), 0);
	CHECK_INT(steer_take_over(steer, NULL, dir), -EMEDIUMTYPE);
	steer_close(steer);
	CHECK(!count);
	CHECK(!in_cgroup(cgroup_name));
	CHECK(!rmdir(tmp)); /* nothing left in it */
	CHECK_INT(count_open(bpf_dir, "no/such", 16, &count), -ENOENT);
	count_close(NULL);
	steer_close(NULL);
}

static void test_no_rights(void)
{
	struct count *count = NULL;
	struct steer *steer = NULL;
	pid_t pid = fork();
	int status;

	if (pid) {
		waitpid(pid, &status, 0);
		CHECK_INT(status, 0);
		return;
	}
	if (setgroups(0, NULL) || setresgid(NOBODY, NOBODY, NOBODY) ||
	    setresuid(NOBODY, NOBODY, NOBODY))
		_exit(2);
	unit_failures = 0;
	CHECK_INT(count_open(bpf_dir, cgroup_name, 16, &count), -EACCES);
	CHECK_INT(steer_open(1, 1, &no_cpus, STEER_BY_CPU, NULL, &steer), -EPERM);
	CHECK(!count && !steer);
	_exit(unit_failures);
}

/* ---- for test_bpf.py ---- */

static int hold(void)
{
	scoped_steer *steer = NULL;
	scoped_count *count = NULL;
	struct flow_info info = example_info();
	struct listeners l;
	struct pair p;
	char c;

	if (count_open(bpf_dir, cgroup_name, MAP_FLOWS_DEFAULT, &count) ||
	    steer_open(1, 1, &no_cpus, STEER_BY_CPU, NULL, &steer) ||
	    steer_take_over(steer, NULL, bpf_dir))
		return 1;
	l = open_listeners(loopback4(), 1);
	if (steer_add(steer, 0, l.fds, 1))
		return 1;
	p = open_pair(loopback4(), l.port, l.fds[0]);
	transfer(p.client, p.server, 100000);
	transfer(p.server, p.client, 5);
	count_flow_info(count, p.server, &info);
	printf("ready %u\n", l.port);
	fflush(stdout);
	while (read(STDIN_FILENO, &c, 1) > 0)
		;
	close_pair(&p);
	close_listeners(&l);
	return 0;
}

static void mount_bpffs(void)
{
	struct statfs fs;

	if (!statfs("/sys/fs/bpf", &fs) && fs.f_type == BPF_FS_MAGIC)
		return;
	if (mount("bpf", "/sys/fs/bpf", "bpf", 0, NULL))
		die("mount /sys/fs/bpf");
}

int main(int argc, char **argv)
{
	log_open("test_bpf", getenv("DEBUG") ? LOG_LEVEL_DEBUG : LOG_LEVEL_WARN);
	if (geteuid()) {
		printf("skipped: needs root\n");
		return 77;
	}
	mount_bpffs();
	if (argc == 4 && !strcmp(argv[1], "hold")) {
		snprintf(bpf_dir, sizeof(bpf_dir), "%s", argv[2]);
		snprintf(cgroup_name, sizeof(cgroup_name), "%s", argv[3]);
		return hold();
	}
	snprintf(bpf_dir, sizeof(bpf_dir), "/sys/fs/bpf/ktlsgate-test-%d", getpid());
	snprintf(cgroup_name, sizeof(cgroup_name), "ktlsgate-test-%d", getpid());
	test_steer();
	test_shield();
	test_count();
	test_full_map();
	test_not_ours();
	test_errors();
	test_no_rights();
	return unit_end();
}
