/* SPDX-License-Identifier: Apache-2.0 */
/* Looks names up, by and by; see resolver.h. Knows no connection. */
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include "log.h"
#include "resolver.h"
#include "sandbox.h"
#include "timer.h"

#define RETRY_SECONDS 5 /* after a failure, if the interval is not shorter */

/* A sequence lock: odd while it is being written. */
struct resolved {
	_Atomic uint32_t sequence;
	_Atomic uint64_t failures;
	struct resolved_addresses addresses;
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

struct resolved *resolved_new(unsigned n_services)
{
	void *table = mmap(NULL, n_services * sizeof(struct resolved), PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	return table == MAP_FAILED ? NULL : table;
}

void resolved_free(struct resolved *table, unsigned n_services)
{
	if (table)
		munmap(table, n_services * sizeof(*table));
}

static void publish(struct resolved *r, const struct resolved_addresses *addresses)
{
	uint32_t sequence = atomic_load_explicit(&r->sequence, memory_order_relaxed);

	atomic_store_explicit(&r->sequence, sequence + 1, memory_order_relaxed);
	atomic_thread_fence(memory_order_release);
	memcpy(&r->addresses, addresses, sizeof(r->addresses));
	atomic_store_explicit(&r->sequence, sequence + 2, memory_order_release);
}

/* A writer that died in the middle must not hold a worker up. */
#define READS_MAX 1000

void resolved_get(const struct resolved *table, unsigned service, struct resolved_addresses *out,
		  uint64_t *failures)
{
	const struct resolved *r = &table[service];

	if (failures)
		*failures = atomic_load_explicit(&r->failures, memory_order_relaxed);
	for (int i = 0; i < READS_MAX; i++) {
		uint32_t before = atomic_load_explicit(&r->sequence, memory_order_acquire);

		memcpy(out, &r->addresses, sizeof(*out));
		atomic_thread_fence(memory_order_acquire);
		if (!(before & 1) &&
		    before == atomic_load_explicit(&r->sequence, memory_order_relaxed) &&
		    out->n <= RESOLVED_MAX)
			return;
	}
	out->n = 0;
}

/* ---- looking up ---- */

struct name {
	const struct cfg_service *service;
	struct resolved *out;
	uint64_t due; /* ms */
	bool failed;  /* the last time */
};

struct names {
	struct name *list;
	unsigned n;
};

static void add(struct resolved_addresses *a, const struct addrinfo *ai, in_port_t port)
{
	struct sockaddr_in6 *sa = &a->list[a->n];

	if (a->n == RESOLVED_MAX || ai->ai_addrlen > sizeof(*sa) ||
	    (ai->ai_family != AF_INET && ai->ai_family != AF_INET6))
		return;
	memcpy(sa, ai->ai_addr, ai->ai_addrlen);
	if (ai->ai_family == AF_INET6)
		sa->sin6_port = port;
	else
		((struct sockaddr_in *)sa)->sin_port = port;
	a->n++;
}

static void found(struct name *n, const struct addrinfo *list)
{
	const struct cfg_service *s = n->service;
	struct resolved_addresses a = {0};
	char text[CFG_ADDRESS_TEXT];

	for (; list; list = list->ai_next)
		add(&a, list, s->port);
	n->due = timer_clock() + s->resolve_interval * 1000ull;
	if (!memcmp(&a, &n->out->addresses, sizeof(a)) && !n->failed)
		return;
	n->failed = false;
	publish(n->out, &a);
	log_info("service %s: %s is %s%s", s->name, s->host, cfg_address_text(&a.list[0], text),
		 a.n > 1 ? " and others" : "");
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
			 n->out->addresses.n ? "; it keeps its last addresses" : "");
	n->failed = true;
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

static int take_names(struct names *names, const struct config *cfg, struct resolved *table)
{
	names->list = calloc(cfg->n_services, sizeof(*names->list));
	if (!names->list)
		return -ENOMEM;
	for (unsigned i = 0; i < cfg->n_services; i++) {
		if (cfg->services[i]->host[0])
			names->list[names->n++] =
				(struct name){.service = cfg->services[i], .out = &table[i]};
	}
	return 0;
}

int resolver_run(const struct config *cfg, struct resolved *table, int ready_fd, int stop_fd)
{
	struct pollfd stop = {.fd = stop_fd, .events = POLLIN};
	int keep[] = {ready_fd, stop_fd};
	struct names names = {0};
	pthread_t thread;

	log_open("ktlsgated[resolver]", cfg->log_level);
	signal(SIGPIPE, SIG_IGN);
	if (sandbox_keep_only(keep, ARRAY_SIZE(keep)) || sandbox_drop_privileges(cfg->user) ||
	    take_names(&names, cfg, table) ||
	    pthread_create(&thread, NULL, look_up_for_ever, &names) || sandbox_resolver() ||
	    write(ready_fd, "", 1) != 1) {
		log_error("cannot start");
		return EXIT_FAILURE;
	}
	/* A look-up may take its time, and need not be waited for. */
	while (poll(&stop, 1, -1) < 0 && errno == EINTR)
		;
	_exit(EXIT_SUCCESS);
}
