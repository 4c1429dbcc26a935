/* SPDX-License-Identifier: Apache-2.0 */
/* Looks names up, by and by; see resolver.h. Knows no connection. */
#include "service/resolver.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include "base/log.h"
#include "config/own.h"
#include "base/sandbox.h"
#include "base/shared_memory.h"
#include "base/timer.h"

#define RETRY_SECONDS 5 /* after a failure, if the interval is not shorter */

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
	if (addresses->n < RESOLVED_MAX && resolved_usable(&a))
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

		resolved_set_address(&addresses->list[i], s->port, &sa);
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
	resolved_publish(n->out, &a);
	resolved_set_address(&a.list[0], s->port, &first);
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
	resolved_read_list(n->out, &n->last);
}

static int take_names(struct names *names, const struct config *cfg, int table_fd)
{
	struct resolved *table =
		shared_memory_map_writable(table_fd, resolved_table_size(cfg->n_services));

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
