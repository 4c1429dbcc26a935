// SPDX-License-Identifier: Apache-2.0
/* Connections of the control socket and their requests; see control.h. Knows no answer. */
#include "control.h"

#include <errno.h>
#include <grp.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include "log.h"
#include "timer.h"

#define CLIENT_MS  10000     /* a client that takes longer, to ask or to be answered, is left */
#define BODY_MAX   (1 << 20) /* bytes of `set` */
#define ANSWER_BUF (1 << 20) /* SO_SNDBUF: an answer of ours is sent in one piece */

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
	if (!ret && listen(fd, 16))
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
		c->clients[i].fd = -1;
	c->fd = listen_on(path, mode, group);
	return c->fd < 0 ? c->fd : 0;
}

/* ---- connections ---- */

static void client_free(struct control_client *cl)
{
	if (cl->fd >= 0)
		close(cl->fd);
	free(cl->body);
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

static struct control_client *free_client(struct control *c)
{
	for (unsigned i = 0; i < CONTROL_CLIENTS; i++) {
		if (c->clients[i].fd < 0)
			return &c->clients[i];
	}
	return NULL;
}

/* Who may change things: whoever could as well edit the files and send a signal. */
static bool is_privileged(int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	return !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) &&
	       (peer.uid == 0 || peer.uid == geteuid());
}

/* The socket stays a blocking one: the data process writes to it, and has a time-out. */
static void accept_client(struct control *c)
{
	struct control_client *cl = free_client(c);
	int fd = cl ? accept4(c->fd, NULL, NULL, SOCK_CLOEXEC) : -1, size = ANSWER_BUF;

	if (fd < 0)
		return;
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	*cl = (struct control_client){
		.fd = fd,
		.id = ++c->last_id,
		.deadline = timer_clock() + CLIENT_MS,
		.privileged = is_privileged(fd),
	};
}

struct control_client *control_find(struct control *c, uint32_t id)
{
	for (unsigned i = 0; i < CONTROL_CLIENTS; i++) {
		if (c->clients[i].fd >= 0 && c->clients[i].id == id)
			return &c->clients[i];
	}
	return NULL;
}

/* What was not read would turn our end into a reset, and the answer may be lost. */
static void discard(int fd)
{
	char buf[4096];

	for (int i = 0; i < 16 && recv(fd, buf, sizeof(buf), MSG_DONTWAIT) > 0; i++)
		;
}

void control_answer(struct control_client *cl, const char *text)
{
	size_t len = text ? strlen(text) : 0;

	while (len) {
		ssize_t n = send(cl->fd, text, len, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n <= 0)
			break;
		text += n;
		len -= (size_t)n;
	}
	discard(cl->fd);
	client_free(cl);
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

static void readable(struct control *c, struct control_client *cl)
{
	if (cl->asked) { /* it says more than it should, or goes */
		client_free(cl);
		return;
	}
	if (!cl->complete) {
		if (!read_line(cl))
			return;
		if (begin_body(cl)) {
			control_answer(cl, "error want set NAME LENGTH, LENGTH up to 1 MiB\n");
			return;
		}
	}
	if (read_body(cl))
		c->request(c->arg, cl);
}

/* ---- waiting ---- */

unsigned control_poll(const struct control *c, struct pollfd *p)
{
	unsigned n = 0;

	p[n++] = (struct pollfd){.fd = c->fd, .events = POLLIN};
	for (unsigned i = 0; i < CONTROL_CLIENTS; i++) {
		const struct control_client *cl = &c->clients[i];

		/* One that has asked is only watched for its going away. */
		if (cl->fd >= 0)
			p[n++] = (struct pollfd){.fd = cl->fd, .events = cl->asked ? 0 : POLLIN};
	}
	return n;
}

int control_wait(const struct control *c)
{
	uint64_t now = timer_clock();
	int wait = -1;

	for (unsigned i = 0; i < CONTROL_CLIENTS; i++) {
		const struct control_client *cl = &c->clients[i];
		int ms = cl->deadline > now ? (int)(cl->deadline - now) : 0;

		if (cl->fd >= 0 && (wait < 0 || ms < wait))
			wait = ms;
	}
	return wait;
}

void control_turn(struct control *c, const struct pollfd *p, unsigned n)
{
	uint64_t now = timer_clock();

	for (unsigned i = 0; i < CONTROL_CLIENTS; i++) {
		struct control_client *cl = &c->clients[i];

		for (unsigned k = 1; k < n; k++) {
			if (cl->fd >= 0 && p[k].fd == cl->fd && p[k].revents) {
				readable(c, cl);
				break;
			}
		}
		if (cl->fd >= 0 && cl->deadline <= now)
			control_answer(cl, cl->answered ? NULL : "error no answer in time\n");
	}
	if (n && p[0].revents)
		accept_client(c);
}
