/* SPDX-License-Identifier: Apache-2.0 */
/* Looks names up, by and by; see resolver.h. Knows no connection. */
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include "log.h"
#include "own.h"
#include "resolver.h"
#include "sandbox.h"
#include "shared_memory.h"
#include "timer.h"

#define RETRY_SECONDS 5 /* after a failure, if the interval is not shorter */

/* Of an address, what a name stands for; the rest is the service's. */
struct found_address {
	uint32_t family;	 /* AF_INET or AF_INET6 */
	uint32_t scope_id;	 /* of a link-local one */
	struct in6_addr address; /* IPv4: the first four bytes */
};

struct found_addresses {
	uint32_t n;
	struct found_address list[RESOLVED_MAX];
};

/*
 * lists[turn % 2] is to be read, the other one is written before turn grows. So a writer that is
 * slow, or dies in the middle, holds nobody up.
 */
struct resolved {
	_Atomic uint32_t turn;
	_Atomic uint64_t failures;
	_Atomic uint64_t own;
	struct found_addresses lists[2];
};

/* ---- the table ---- */

bool resolver_needed(const struct config *cfg)
{
	for (unsigned i = 0; i < cfg->n_services; i++) {
		if (cfg->services[i]->host[0])
			return true;
	}
	return false;
}

static size_t table_size(unsigned n_services)
{
	return n_services * sizeof(struct resolved);
}

int resolved_new(unsigned n_services)
{
	return shared_memory_new("ktlsgate-resolved", table_size(n_services));
}

const struct resolved *resolved_map(int fd, unsigned n_services)
{
	return shared_memory_map(fd, table_size(n_services));
}

static void publish(struct resolved *r, const struct found_addresses *addresses)
{
	uint32_t turn = atomic_load_explicit(&r->turn, memory_order_relaxed) + 1;

	memcpy(&r->lists[turn % 2], addresses, sizeof(*addresses));
	atomic_store_explicit(&r->turn, turn, memory_order_release);
}

/* A list is written anew only after the other one has become the one to be read. */
#define READS_MAX 4

/* Nothing, if the writer is so fast that no list stays for as long as it takes to copy one. */
static void read_list(const struct resolved *r, struct found_addresses *out)
{
	for (int i = 0; i < READS_MAX; i++) {
		uint32_t turn = atomic_load_explicit(&r->turn, memory_order_acquire);

		memcpy(out, &r->lists[turn % 2], sizeof(*out));
		atomic_thread_fence(memory_order_acquire);
		if (turn == atomic_load_explicit(&r->turn, memory_order_relaxed))
			return;
	}
	out->n = 0;
}

/*
 * May a backend be there? The unspecified address is this host to connect(2), and an IPv4 address
 * in IPv6's clothes would pass by what is asked of IPv4 addresses.
 */
static bool usable(const struct found_address *a)
{
	in_addr_t in;

	if (a->family == AF_INET6)
		return !IN6_IS_ADDR_UNSPECIFIED(&a->address) &&
		       !IN6_IS_ADDR_MULTICAST(&a->address) && !IN6_IS_ADDR_V4MAPPED(&a->address);
	memcpy(&in, &a->address, sizeof(in));
	in = ntohl(in);
	return a->family == AF_INET && in != INADDR_ANY && in != INADDR_BROADCAST &&
	       !IN_MULTICAST(in);
}

static void set_address(const struct found_address *a, in_port_t port, struct sockaddr_in6 *out)
{
	struct sockaddr_in *in = (struct sockaddr_in *)out;

	memset(out, 0, sizeof(*out));
	if (a->family == AF_INET) {
		in->sin_family = AF_INET;
		in->sin_port = port;
		memcpy(&in->sin_addr, &a->address, sizeof(in->sin_addr));
		return;
	}
	out->sin6_family = AF_INET6;
	out->sin6_port = port;
	out->sin6_addr = a->address;
	if (IN6_IS_ADDR_LINKLOCAL(&a->address))
		out->sin6_scope_id = a->scope_id;
}

void resolved_get(const struct resolved *table, const struct cfg_service *service,
		  struct resolved_addresses *out, uint64_t *failures)
{
	const struct resolved *r = &table[service->index];
	struct found_addresses found;

	if (failures)
		*failures = atomic_load_explicit(&r->failures, memory_order_relaxed);
	read_list(r, &found);
	out->n = 0;
	for (uint32_t i = 0; i < found.n && i < RESOLVED_MAX; i++) {
		if (usable(&found.list[i]))
			set_address(&found.list[i], service->port, &out->list[out->n++]);
	}
}

uint64_t resolved_own(const struct resolved *table, const struct cfg_service *service)
{
	return atomic_load_explicit(&table[service->index].own, memory_order_relaxed);
}

/* ---- looking up ---- */

struct name {
	const struct cfg_service *service;
	const struct config *cfg;
	struct resolved *out;
	struct found_addresses last; /* that were published */
	bool own;		     /* the last time, one was where we listen */
	uint64_t due;		     /* ms */
	bool failed;		     /* the last time */
};

struct names {
	struct name *list;
	unsigned n;
};

static void add(struct found_addresses *addresses, const struct addrinfo *ai)
{
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)ai->ai_addr;
	const struct sockaddr_in *in = (const struct sockaddr_in *)ai->ai_addr;
	struct found_address a = {.family = (uint32_t)ai->ai_family};

	if (a.family == AF_INET && ai->ai_addrlen >= sizeof(*in)) {
		memcpy(&a.address, &in->sin_addr, sizeof(in->sin_addr));
	} else if (a.family == AF_INET6 && ai->ai_addrlen >= sizeof(*in6)) {
		a.address = in6->sin6_addr;
		a.scope_id = in6->sin6_scope_id;
	}
	if (addresses->n < RESOLVED_MAX && usable(&a))
		addresses->list[addresses->n++] = a;
}

/* Leaves out where we listen ourselves: each connection there would make the next. */
static void leave_out_own(struct name *n, struct found_addresses *addresses)
{
	const struct cfg_service *s = n->service;
	struct found_addresses rest = {0};
	char text[CFG_ADDRESS_TEXT];
	bool before = n->own;

	n->own = false;
	for (uint32_t i = 0; i < addresses->n; i++) {
		const struct cfg_vserver *v;
		struct sockaddr_in6 sa;

		set_address(&addresses->list[i], s->port, &sa);
		v = own_vserver(n->cfg, (const struct sockaddr *)&sa);
		if (!v) {
			rest.list[rest.n++] = addresses->list[i];
			continue;
		}
		n->own = true;
		atomic_fetch_add_explicit(&n->out->own, 1, memory_order_relaxed);
		if (!before)
			log_warn(
				"service %s: %s is %s, where vserver %s of this gate listens: left "
				"out",
				s->name, s->host, cfg_address_text(&sa, text), v->name);
	}
	*addresses = rest;
}

static void failed(struct name *n, const char *why)
{
	const struct cfg_service *s = n->service;
	unsigned seconds =
		s->resolve_interval < RETRY_SECONDS ? s->resolve_interval : RETRY_SECONDS;

	n->due = timer_clock() + seconds * 1000ull;
	atomic_fetch_add_explicit(&n->out->failures, 1, memory_order_relaxed);
	if (!n->failed)
		log_warn("service %s: %s is not resolved: %s%s", s->name, s->host, why,
			 n->last.n ? "; it keeps its last addresses" : "");
	n->failed = true;
}

static void found(struct name *n, const struct addrinfo *list)
{
	const struct cfg_service *s = n->service;
	struct found_addresses a = {0};
	struct sockaddr_in6 first;
	char text[CFG_ADDRESS_TEXT];

	for (; list; list = list->ai_next)
		add(&a, list);
	leave_out_own(n, &a);
	if (!a.n) {
		failed(n, "no backend can be at the address that was found");
		return;
	}
	n->due = timer_clock() + s->resolve_interval * 1000ull;
	if (!memcmp(&a, &n->last, sizeof(a)) && !n->failed)
		return;
	n->failed = false;
	n->last = a;
	publish(n->out, &a);
	set_address(&a.list[0], s->port, &first);
	log_info("service %s: %s is %s%s", s->name, s->host, cfg_address_text(&first, text),
		 a.n > 1 ? " and others" : "");
}

static void look_up(struct name *n)
{
	struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *list = NULL;
	int err = getaddrinfo(n->service->host, NULL, &hints, &list);

	if (err)
		failed(n, err == EAI_SYSTEM ? strerror(errno) : gai_strerror(err));
	else
		found(n, list);
	if (!err)
		freeaddrinfo(list);
}

static void *look_up_for_ever(void *arg)
{
	const struct names *names = arg;

	for (;;) {
		uint64_t next = UINT64_MAX, now;

		for (unsigned i = 0; i < names->n; i++) {
			if (names->list[i].due <= timer_clock())
				look_up(&names->list[i]);
			if (names->list[i].due < next)
				next = names->list[i].due;
		}
		now = timer_clock();
		if (next > now)
			(void)!poll(NULL, 0, (int)(next - now));
	}
	return NULL;
}

/* ---- the process ---- */

/* What a resolver that died has found is still good. */
static void take_name(struct name *n, const struct config *cfg, const struct cfg_service *service,
		      struct resolved *table)
{
	n->cfg = cfg;
	n->service = service;
	n->out = &table[service->index];
	read_list(n->out, &n->last);
}

static int take_names(struct names *names, const struct config *cfg, int table_fd)
{
	struct resolved *table = shared_memory_map_writable(table_fd, table_size(cfg->n_services));

	names->list = calloc(cfg->n_services, sizeof(*names->list));
	if (!names->list || !table)
		return -ENOMEM;
	for (unsigned i = 0; i < cfg->n_services; i++) {
		if (cfg->services[i]->host[0])
			take_name(&names->list[names->n++], cfg, cfg->services[i], table);
	}
	return 0;
}

int resolver_run(const struct config *cfg, int table_fd, int ready_fd, int stop_fd)
{
	struct pollfd stop = {.fd = stop_fd, .events = POLLIN};
	struct names names = {0};
	pthread_t thread;

	log_open("ktlsgated[resolver]", cfg->log_level);
	signal(SIGPIPE, SIG_IGN);
	if (take_names(&names, cfg, table_fd) ||
	    sandbox_drop_privileges(config_user(cfg, cfg->resolver_user), true) ||
	    pthread_create(&thread, NULL, look_up_for_ever, &names) || sandbox_resolver() ||
	    write(ready_fd, "", 1) != 1) {
		log_error("cannot start");
		return EXIT_FAILURE;
	}
	close(table_fd);
	close(ready_fd);
	/* A look-up may take its time, and need not be waited for. */
	while (poll(&stop, 1, -1) < 0 && errno == EINTR)
		;
	_exit(EXIT_SUCCESS);
}
