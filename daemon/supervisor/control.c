// SPDX-License-Identifier: Apache-2.0
/* Connections of the control socket and their requests; see control.h. Knows no answer. */
#include "supervisor/control.h"

#include <errno.h>
#include <grp.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include "base/log.h"
#include "base/timer.h"

#define BODY_MAX	(1 << 20) /* bytes of `set` */
#define BACKLOG		128
#define ACCEPTS		32   /* of one turn */
#define ACCEPT_RETRY_MS 100  /* out of descriptors */
#define REQUEST_MS	5000 /* for a request to arrive */
/* A data process gives a client up itself; one that is stuck does not. */
#define ANSWER_MS  (OUTBOX_MS + 10000)
#define REQUEST_IN 50	/* ms: a request in so many, of each user */
#define BURST_MS   5000 /* what is saved up for more at once */

/* ---- listening ---- */

static int unix_address(const char *path, struct sockaddr_un *sun)
{
	memset(sun, 0, sizeof(*sun));
	sun->sun_family = AF_UNIX;
	if (strlen(path) >= sizeof(sun->sun_path)) {
		log_error("control.socket = %s: path is longer than %zu bytes", path,
			  sizeof(sun->sun_path) - 1);
		return -ENAMETOOLONG;
	}
	strcpy(sun->sun_path, path);
	return 0;
}

/* True if somebody answers there: then it is not ours to replace. */
static bool in_use(const struct sockaddr_un *sun)
{
	scoped_fd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	return fd >= 0 && !connect(fd, (const struct sockaddr *)sun, sizeof(*sun));
}

static void make_directory_of(const char *path)
{
	char dir[sizeof(((struct sockaddr_un *)0)->sun_path)];
	char *slash;

	snprintf(dir, sizeof(dir), "%s", path);
	slash = strrchr(dir, '/');
	if (!slash || slash == dir)
		return;
	*slash = '\0';
	if (mkdir(dir, 0755) && errno != EEXIST)
		log_warn("mkdir %s: %s", dir, strerror(errno));
}

/* With the right mode and group from the start, and without the right to give files away. */
static int bind_as(int fd, const struct sockaddr_un *sun, unsigned mode, const char *group)
{
	const struct group *g = group ? getgrnam(group) : NULL;
	mode_t old_mask = umask(0777 & ~mode);
	gid_t old_group = (gid_t)setfsgid((gid_t)-1);
	int ret;

	if (g)
		setfsgid(g->gr_gid);
	ret = bind(fd, (const struct sockaddr *)sun, sizeof(*sun)) ? -errno : 0;
	setfsgid(old_group);
	umask(old_mask);
	return ret;
}

static int listen_on(const char *path, unsigned mode, const char *group)
{
	struct sockaddr_un sun;
	scoped_fd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int ret = unix_address(path, &sun);

	if (ret)
		return ret;
	if (fd < 0)
		return -errno;
	if (in_use(&sun)) {
		log_error("control.socket = %s: another ktlsgated is listening there", path);
		return -EADDRINUSE;
	}
	make_directory_of(path);
	unlink(path);
	ret = bind_as(fd, &sun, mode, group);
	if (!ret && listen(fd, BACKLOG))
		ret = -errno;
	if (ret) {
		log_error("control.socket = %s: %s", path, strerror(-ret));
		return ret;
	}
	return TAKE_FD(fd);
}

int control_open(struct control *c, const char *path, unsigned mode, const char *group)
{
	c->path = strdup(path);
	if (!c->path)
		return -ENOMEM;
	for (unsigned i = 0; i < CONTROL_CLIENTS; i++)
		c->clients[i] = (struct control_client){.fd = -1};
	c->fd = listen_on(path, mode, group);
	return c->fd < 0 ? c->fd : 0;
}

/* ---- connections ---- */

static void client_free(struct control_client *cl)
{
	outbox_close(cl->fd);
	free(cl->body);
	outbox_free(&cl->out);
	*cl = (struct control_client){.fd = -1};
}

void control_close(struct control *c)
{
	if (c->fd >= 0)
		unlink(c->path);
	/* Before it is open no client's descriptor means anything. */
	for (unsigned i = 0; c->fd >= 0 && i < CONTROL_CLIENTS; i++)
		client_free(&c->clients[i]);
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	free(c->path);
	c->path = NULL;
}

struct control_client *control_find(struct control *c, uint32_t id)
{
	for (unsigned i = 0; i < CONTROL_CLIENTS; i++) {
		if (c->clients[i].stage && c->clients[i].id == id)
			return &c->clients[i];
	}
	return NULL;
}

static void send_more(struct control_client *cl)
{
	enum outbox_state state = outbox_send(&cl->out, cl->fd, timer_clock());

	if (state == OUTBOX_FULL)
		return;
	client_free(cl);
}

void control_answer(struct control_client *cl, const char *text)
{
	char *copy = text && cl->fd >= 0 ? strdup(text) : NULL;

	if (!copy || outbox_add(&cl->out, copy, strlen(copy), timer_clock())) {
		client_free(cl);
		return;
	}
	cl->stage = CONTROL_ANSWERED;
	cl->asked = 0;
	send_more(cl);
}

/* ---- who may come in ---- */

/* Who may change things: whoever could as well edit the files and send a signal. */
static bool is_privileged(uid_t uid)
{
	return uid == 0 || uid == geteuid();
}

/* A free place, or NULL and why there is none. */
static struct control_client *place_for(struct control *c, uid_t uid, char *why, size_t size)
{
	unsigned of_user = 0, unprivileged = 0;
	struct control_client *found = NULL;

	for (unsigned i = 0; i < CONTROL_CLIENTS; i++) {
		struct control_client *cl = &c->clients[i];

		if (!cl->stage && !found)
			found = cl;
		of_user += cl->stage && cl->uid == uid;
		unprivileged += cl->stage && !cl->privileged;
	}
	if (found && is_privileged(uid))
		return found;
	if (of_user >= CONTROL_PER_USER)
		snprintf(why, size, "error too many connections of uid %u: %u at once\n", uid,
			 CONTROL_PER_USER);
	else if (!found || unprivileged >= CONTROL_CLIENTS - CONTROL_KEPT)
		snprintf(why, size, "error too many connections: try again\n");
	else
		return found;
	return NULL;
}

/* They are told, and have to go: whoever waited in the backlog would keep others out. */
static void refuse(int fd, const char *why)
{
	(void)!send(fd, why, strlen(why), MSG_DONTWAIT | MSG_NOSIGNAL);
	outbox_close(fd);
}

static void add_client(struct control *c, int fd)
{
	struct ucred peer = {.uid = (uid_t)-1};
	socklen_t len = sizeof(peer);
	struct control_client *cl;
	char why[96];

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len)) {
		close(fd);
		return;
	}
	cl = place_for(c, peer.uid, why, sizeof(why));
	if (!cl) {
		refuse(fd, why);
		return;
	}
	*cl = (struct control_client){
		.stage = CONTROL_ASKS,
		.fd = fd,
		.id = ++c->last_id,
		.deadline = timer_clock() + REQUEST_MS,
		.uid = peer.uid,
		.privileged = is_privileged(peer.uid),
	};
}

static void accept_clients(struct control *c)
{
	for (unsigned i = 0; i < ACCEPTS; i++) {
		int fd = accept4(c->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd >= 0) {
			add_client(c, fd);
			continue;
		}
		if (errno != EAGAIN && errno != ECONNABORTED)
			c->accept_again = timer_clock() + ACCEPT_RETRY_MS;
		return;
	}
}

/* ---- how often ---- */

/* Of the users that are remembered, the one that has asked least lately makes room. */
static unsigned rate_index(const struct control *c, uid_t uid)
{
	unsigned least = 0;

	for (unsigned i = 0; i < CONTROL_USERS; i++) {
		const struct control_rate *r = &c->rates[i];

		if (r->uid == uid && r->busy_until)
			return i;
		if (r->busy_until < c->rates[least].busy_until)
			least = i;
	}
	return least;
}

/* When its request may be looked at: now, or later. */
static uint64_t turn_of(const struct control *c, const struct control_client *cl, uint64_t now)
{
	const struct control_rate *r = &c->rates[rate_index(c, cl->uid)];

	if (cl->privileged || r->uid != cl->uid || r->busy_until <= now + BURST_MS)
		return now;
	return r->busy_until - BURST_MS;
}

static void count_request(struct control *c, const struct control_client *cl, uint64_t now)
{
	struct control_rate *r = &c->rates[rate_index(c, cl->uid)];

	if (r->uid != cl->uid)
		*r = (struct control_rate){.uid = cl->uid};
	r->busy_until = (r->busy_until > now ? r->busy_until : now) + REQUEST_IN;
}

/* ---- requests ---- */

/* "set NAME LENGTH" has a body; -EINVAL: not of that form. */
static int begin_body(struct control_client *cl)
{
	const char *length = strrchr(cl->line, ' ');
	char *end;
	unsigned long n;

	if (strncmp(cl->line, "set ", 4))
		return 0;
	if (!length || length < cl->line + 4)
		return -EINVAL;
	n = strtoul(length + 1, &end, 10);
	if (*end || end == length + 1 || n > BODY_MAX)
		return -EINVAL;
	/* Whoever will be refused is so before it has sent a MiB. */
	if (!cl->privileged)
		return 0;
	cl->body = malloc(n + 1);
	if (!cl->body)
		return -ENOMEM;
	cl->body_len = n;
	cl->body[n] = '\0';
	return 0;
}

/* True: the line is there; behind it only a body may come, so nothing else is read. */
static bool read_line(struct control_client *cl)
{
	while (cl->have < sizeof(cl->line) - 1) {
		char *c = cl->line + cl->have;
		ssize_t n = recv(cl->fd, c, 1, MSG_DONTWAIT);

		if (n <= 0) {
			if (!n || errno != EAGAIN)
				client_free(cl);
			return false;
		}
		cl->have++;
		if (*c == '\n') {
			*c = '\0';
			cl->line[strcspn(cl->line, "\r")] = '\0';
			cl->complete = true;
			return true;
		}
	}
	control_answer(cl, "error the request is too long\n");
	return false;
}

static bool read_body(struct control_client *cl)
{
	while (cl->body_have < cl->body_len) {
		ssize_t n = recv(cl->fd, cl->body + cl->body_have, cl->body_len - cl->body_have,
				 MSG_DONTWAIT);

		if (n <= 0) {
			if (!n || errno != EAGAIN)
				client_free(cl);
			return false;
		}
		cl->body_have += (size_t)n;
	}
	return true;
}

/* If it is its user's turn; else it waits. */
static void take_request(struct control *c, struct control_client *cl)
{
	uint64_t now = timer_clock();
	uint32_t id = cl->id;

	cl->stage = CONTROL_WAITS;
	if (turn_of(c, cl, now) > now)
		return;
	count_request(c, cl, now);
	c->request(c->arg, cl);
	if (cl->id != id || cl->stage != CONTROL_WAITS)
		return;
	cl->stage = CONTROL_ASKED;
	cl->deadline = now + ANSWER_MS;
}

static void read_request(struct control *c, struct control_client *cl)
{
	if (!cl->complete) {
		if (!read_line(cl))
			return;
		if (begin_body(cl)) {
			control_answer(cl, "error want set NAME LENGTH, LENGTH up to 1 MiB\n");
			return;
		}
	}
	if (read_body(cl))
		take_request(c, cl);
}

/* ---- waiting ---- */

/* What there is to be told of each client but that it has left. */
static short events_of(const struct control_client *cl)
{
	return cl->stage == CONTROL_ASKS ? POLLIN : cl->stage == CONTROL_ANSWERED ? POLLOUT : 0;
}

unsigned control_poll(const struct control *c, struct pollfd *p)
{
	bool pauses = c->accept_again > timer_clock();
	unsigned n = 0;

	p[n++] = (struct pollfd){.fd = pauses ? -1 : c->fd, .events = POLLIN};
	for (unsigned i = 0; i < CONTROL_CLIENTS; i++) {
		const struct control_client *cl = &c->clients[i];

		if (cl->fd >= 0)
			p[n++] = (struct pollfd){.fd = cl->fd, .events = events_of(cl)};
	}
	return n;
}

static uint64_t due(const struct control *c, const struct control_client *cl, uint64_t now)
{
	switch (cl->stage) {
	case CONTROL_FREE:
		break;
	case CONTROL_ASKS:
	case CONTROL_ASKED:
		return cl->deadline;
	case CONTROL_WAITS:
		return turn_of(c, cl, now);
	case CONTROL_ANSWERED:
		return outbox_deadline(&cl->out);
	}
	return UINT64_MAX;
}

int control_wait(const struct control *c)
{
	uint64_t now = timer_clock(), first = c->accept_again > now ? c->accept_again : UINT64_MAX;

	for (unsigned i = 0; i < CONTROL_CLIENTS; i++) {
		uint64_t at = due(c, &c->clients[i], now);

		if (at < first)
			first = at;
	}
	if (first == UINT64_MAX)
		return -1;
	return first > now ? (int)(first - now) : 0;
}

/* Something has come, there is room for more of the answer, or it has left. */
static void client_ready(struct control *c, struct control_client *cl, short revents)
{
	if (cl->stage == CONTROL_ASKS) {
		read_request(c, cl);
	} else if (cl->stage == CONTROL_ANSWERED) {
		send_more(cl);
	} else if (cl->stage == CONTROL_ASKED && revents) {
		/* Its place is free when the data process has let go of it. */
		outbox_close(TAKE_FD(cl->fd));
	} else {
		client_free(cl);
	}
}

static void client_due(struct control *c, struct control_client *cl)
{
	if (cl->stage == CONTROL_WAITS)
		take_request(c, cl);
	else if (cl->stage == CONTROL_ASKS)
		control_answer(cl, "error no request in time\n");
	else if (cl->stage)
		client_free(cl);
}

static short revents_of(const struct control_client *cl, const struct pollfd *p, unsigned n)
{
	for (unsigned k = 1; cl->fd >= 0 && k < n; k++) {
		if (p[k].fd == cl->fd)
			return p[k].revents;
	}
	return 0;
}

void control_turn(struct control *c, const struct pollfd *p, unsigned n)
{
	for (unsigned i = 0; i < CONTROL_CLIENTS; i++) {
		struct control_client *cl = &c->clients[i];
		short revents = revents_of(cl, p, n);
		uint64_t now = timer_clock();

		if (revents)
			client_ready(c, cl, revents);
		else if (due(c, cl, now) <= now)
			client_due(c, cl);
	}
	if (n && p[0].revents)
		accept_clients(c);
}
