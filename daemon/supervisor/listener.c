// SPDX-License-Identifier: Apache-2.0
/* Opens listening sockets, and keeps them while they are named; see listener.h. */
#include "supervisor/listener.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include "base/log.h"

/* The sockets of one binding. */
struct listener_group {
	struct cfg_address address;
	char *vserver; /* NULL, or whose looked-up connections come here: its name */
	unsigned number;
	bool fresh; /* opened for a configuration that does not run yet */
	int *fds;   /* by worker */
};

static bool fits(const struct listener_group *g, const struct cfg_binding *b)
{
	if (!g->vserver != !b->looked_up || g->address.len != b->address.len ||
	    memcmp(&g->address.ss, &b->address.ss, b->address.len))
		return false;
	return !g->vserver || !strcmp(g->vserver, b->vserver->name);
}

static struct listener_group *find(const struct listeners *l, const struct cfg_binding *b)
{
	for (unsigned i = 0; i < l->n; i++) {
		if (fits(&l->groups[i], b))
			return &l->groups[i];
	}
	return NULL;
}

/* share: with the other workers' sockets. */
static int bind_socket(const struct cfg_binding *b, const struct cfg_address *address, bool share)
{
	int one = 1, family = address->ss.ss_family;
	bool ipv6 = family == AF_INET6;
	scoped_fd fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
	    (share && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one))) ||
	    (ipv6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one))) ||
	    (b->looked_up && setsockopt(fd, ipv6 ? IPPROTO_IPV6 : IPPROTO_IP,
					ipv6 ? IPV6_FREEBIND : IP_FREEBIND, &one, sizeof(one))) ||
	    bind(fd, (const struct sockaddr *)&address->ss, address->len))
		return -errno;
	return TAKE_FD(fd);
}

static in_port_t port_of(const struct cfg_address *a)
{
	return a->ss.ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)&a->ss)->sin6_port
					   : ((const struct sockaddr_in *)&a->ss)->sin_port;
}

/* Another address of the same port: with a wildcard among them, a bind says "in use" of our own. */
static bool port_is_ours(const struct listeners *l, const struct cfg_address *a)
{
	for (unsigned i = 0; i < l->n; i++) {
		if (l->groups[i].address.ss.ss_family == a->ss.ss_family &&
		    port_of(&l->groups[i].address) == port_of(a))
			return true;
	}
	return false;
}

/*
 * SO_REUSEPORT lets a second daemon of the same user take a share of our
 * connections in silence. A bind without it finds out.
 */
static int check_free(const struct listeners *l, const struct cfg_binding *b)
{
	scoped_fd fd = -1;

	if (b->looked_up || port_is_ours(l, &b->address))
		return 0;
	fd = bind_socket(b, &b->address, false);
	return fd < 0 ? fd : 0;
}

static void group_free(struct listener_group *g)
{
	free(g->vserver);
	free(g->fds);
}

static void group_close(const struct listeners *l, struct listener_group *g)
{
	for (unsigned w = 0; w < l->workers; w++) {
		if (g->fds[w] >= 0)
			close(g->fds[w]);
	}
	group_free(g);
}

/* What connections to come are like. Of a socket that listens already the backlog is changed. */
static int tune_and_listen(int fd, const struct config *cfg)
{
	int err = sockopt_set(fd, &cfg->client_socket);

	if (err)
		log_warn("socket.client.*: the kernel refused an option: %s", strerror(-err));
	return listen(fd, (int)cfg->backlog) ? -errno : 0;
}

/* All at the same port, which the kernel may choose. */
static int group_open(const struct listeners *l, const struct config *cfg,
		      const struct cfg_binding *b, struct listener_group *g)
{
	struct cfg_address address = b->address;
	int err = check_free(l, b);

	for (unsigned w = 0; !err && w < l->workers; w++) {
		g->fds[w] = bind_socket(b, &address, true);
		err = g->fds[w] < 0 ? g->fds[w] : tune_and_listen(g->fds[w], cfg);
		if (!err && getsockname(g->fds[w], (struct sockaddr *)&address.ss, &address.len))
			err = -errno;
	}
	return err;
}

/* The least number that no group has. */
static int free_number(const struct listeners *l)
{
	scoped_mem bool *used = calloc(l->n + 1, sizeof(*used));
	int number = 0;

	if (!used)
		return -ENOMEM;
	for (unsigned i = 0; i < l->n; i++) {
		if (l->groups[i].number <= l->n)
			used[l->groups[i].number] = true;
	}
	while (used[number])
		number++;
	return number;
}

static int group_new(const struct listeners *l, const struct cfg_binding *b,
		     struct listener_group *g)
{
	int number = free_number(l);

	*g = (struct listener_group){.address = b->address, .fresh = true, .number = number};
	g->fds = malloc(l->workers * sizeof(*g->fds));
	if (b->looked_up)
		g->vserver = strdup(b->vserver->name);
	if (number < 0 || !g->fds || (b->looked_up && !g->vserver)) {
		group_free(g);
		return -ENOMEM;
	}
	for (unsigned w = 0; w < l->workers; w++)
		g->fds[w] = -1;
	return 0;
}

static int add(struct listeners *l, const struct config *cfg, const struct cfg_binding *b)
{
	struct listener_group *more = reallocarray(l->groups, l->n + 1, sizeof(*more));
	struct listener_group g;
	int err;

	if (!more)
		return -ENOMEM;
	l->groups = more;
	err = group_new(l, b, &g);
	if (err)
		return err;
	err = group_open(l, cfg, b, &g);
	if (err)
		group_close(l, &g);
	else
		l->groups[l->n++] = g;
	return err;
}

/* Closes the groups that are not kept. */
static void sift(struct listeners *l,
		 bool (*keep)(const struct listener_group *g, const struct config *cfg),
		 const struct config *cfg)
{
	unsigned n = 0;

	for (unsigned i = 0; i < l->n; i++) {
		if (keep(&l->groups[i], cfg))
			l->groups[n++] = l->groups[i];
		else
			group_close(l, &l->groups[i]);
	}
	l->n = n;
}

static bool is_old(const struct listener_group *g, const struct config *cfg)
{
	(void)cfg;
	return !g->fresh;
}

static bool is_named(const struct listener_group *g, const struct config *cfg)
{
	for (unsigned i = 0; cfg && i < cfg->n_bindings; i++) {
		if (fits(g, &cfg->bindings[i]))
			return true;
	}
	return false;
}

int listeners_open(struct listeners *l, struct config *cfg, int *out, FILE *errors)
{
	int err = 0;

	for (unsigned i = 0; i < cfg->n_bindings; i++) {
		struct cfg_binding *b = &cfg->bindings[i];
		int ret = find(l, b) ? 0 : add(l, cfg, b);
		const struct listener_group *g = find(l, b);

		if (ret || !g) {
			fprintf(errors, "vserver.%s.listen: %s\n", b->vserver->name,
				strerror(-ret));
			err = ret;
			continue;
		}
		b->group = g->number;
		memcpy(out + (size_t)i * l->workers, g->fds, l->workers * sizeof(*out));
	}
	if (err)
		sift(l, is_old, NULL);
	return err;
}

static bool listens(int fd)
{
	int is = 0;
	socklen_t len = sizeof(is);

	return !getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &is, &len) && is;
}

/*
 * What shutdown(2) has left would be handed down to accepted connections, which then ended at once.
 * An address of no family undoes it, and a connection to somewhere else; the socket stays bound.
 */
static void disconnect(int fd)
{
	const struct sockaddr nowhere = {.sa_family = AF_UNSPEC};

	(void)connect(fd, &nowhere, sizeof(nowhere));
}

/* Whether it did not listen. */
static bool mend(int fd, const struct config *cfg, bool all)
{
	bool well = listens(fd);
	int err;

	if (well && !all)
		return false;
	if (!well)
		disconnect(fd);
	sockopt_reset(fd);
	err = tune_and_listen(fd, cfg);
	if (err)
		log_error("a listening socket cannot be had back: %s", strerror(-err));
	return !well;
}

unsigned listeners_mend(struct listeners *l, const struct config *cfg, bool all)
{
	unsigned mended = 0;

	for (unsigned i = 0; i < l->n; i++) {
		const struct listener_group *g = &l->groups[i];
		char text[CFG_ADDRESS_TEXT];
		unsigned n = 0;

		for (unsigned w = 0; w < l->workers; w++)
			n += mend(g->fds[w], cfg, all);
		if (n)
			log_error("%s: a data process has shut down %u listening sockets; they "
				  "listen again",
				  cfg_address_text(&g->address.ss, text), n);
		mended += n;
	}
	return mended;
}

void listeners_tune(struct listeners *l, const struct config *cfg)
{
	for (unsigned i = 0; i < l->n; i++) {
		/* Opened for it: they are as it says. */
		for (unsigned w = 0; w < l->workers && !l->groups[i].fresh; w++) {
			sockopt_reset(l->groups[i].fds[w]);
			(void)!tune_and_listen(l->groups[i].fds[w], cfg);
		}
	}
}

void listeners_keep(struct listeners *l, const struct config *cfg)
{
	sift(l, is_named, cfg);
	for (unsigned i = 0; i < l->n; i++)
		l->groups[i].fresh = false;
	if (cfg)
		return;
	free(l->groups);
	l->groups = NULL;
}
