// SPDX-License-Identifier: Apache-2.0
/* Options of TCP sockets that the configuration names, and TCP's state; see sockopt.h. */
#include "base/sockopt.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#define IPV4_SYSCTL "/proc/sys/net/ipv4/"
#define NAME_MAX_CC 16 /* TCP_CA_NAME_MAX */

static int new_socket(void)
{
	return socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

/* ---- what the kernel would take ---- */

static int option_of(enum sockopt_buffer which)
{
	return which == SOCKOPT_RCVBUF ? SO_RCVBUF : SO_SNDBUF;
}

/* The kernel keeps twice the payload, and tells that (socket(7)). */
static unsigned payload(int fd, int option)
{
	int value = 0;
	socklen_t len = sizeof(value);

	return getsockopt(fd, SOL_SOCKET, option, &value, &len) ? 0 : (unsigned)value / 2;
}

static int set_buffer(int fd, int option, unsigned size)
{
	return setsockopt(fd, SOL_SOCKET, option, &size, sizeof(size)) ? -errno : 0;
}

unsigned sockopt_buffer_given(enum sockopt_buffer which, unsigned size)
{
	scoped_fd fd = new_socket();
	unsigned given;

	if (fd < 0 || set_buffer(fd, option_of(which), size))
		return size;
	given = payload(fd, option_of(which));
	return given < size ? given : size;
}

unsigned sockopt_backlog_max(void)
{
	scoped_file *file = fopen("/proc/sys/net/core/somaxconn", "re");
	unsigned max;

	return file && fscanf(file, "%u", &max) == 1 ? max : ~0U;
}

/* One of the kernel's lists, without its newline; empty where there is no /proc. */
static void read_list(const char *path, char *out, size_t len)
{
	scoped_file *file = fopen(path, "re");

	out[0] = '\0';
	if (file && fgets(out, (int)len, file))
		out[strcspn(out, "\n")] = '\0';
}

static bool holds(const char *list, const char *word)
{
	size_t len = strlen(word);

	for (const char *p = list; *p; p += strcspn(p, " "), p += strspn(p, " ")) {
		if (!strncmp(p, word, len) && (!p[len] || p[len] == ' '))
			return true;
	}
	return false;
}

static int set_congestion_control(int fd, const char *name)
{
	return setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, (socklen_t)strlen(name)) ? -errno
											  : 0;
}

/* Ours tells of a name that is none and loads a module, the kernel's list of what all may use. */
int sockopt_congestion_check(const char *name, char *why, size_t len)
{
	scoped_fd fd = new_socket();
	char allowed[512], available[512];
	int err = fd < 0 ? 0 : set_congestion_control(fd, name);

	/* The checking process has no socket of TCP's; the supervisor, which reads the texts, too,
	 * has. */
	if (fd < 0)
		return 0;
	read_list(IPV4_SYSCTL "tcp_allowed_congestion_control", allowed, sizeof(allowed));
	read_list(IPV4_SYSCTL "tcp_available_congestion_control", available, sizeof(available));
	if (!err && (holds(allowed, name) || !allowed[0]))
		return 0;
	if (holds(available, name) || err == -EPERM)
		snprintf(why, len,
			 "is not for processes without privileges, which serve the connections; "
			 "use one of %s, or add it to the sysctl "
			 "net.ipv4.tcp_allowed_congestion_control",
			 allowed);
	else
		snprintf(why, len,
			 "is no congestion control of this kernel; use one of %s, or load its "
			 "module (modprobe tcp_NAME)",
			 allowed);
	return -EINVAL;
}

/* ---- setting ---- */

int sockopt_set(int fd, const struct sockopt *o)
{
	int err = 0, ret;

	if (o->rcvbuf)
		err = set_buffer(fd, SO_RCVBUF, o->rcvbuf);
	if (o->sndbuf) {
		ret = set_buffer(fd, SO_SNDBUF, o->sndbuf);
		err = err ? err : ret;
	}
	if (o->congestion_control) {
		ret = set_congestion_control(fd, o->congestion_control);
		err = err ? err : ret;
	}
	return err;
}

/* Setting a size ends autotuning; only the lock's own option begins it again (socket(7)). */
void sockopt_reset(int fd)
{
	scoped_fd fresh = new_socket();
	char name[NAME_MAX_CC] = "";
	socklen_t len = sizeof(name) - 1;
	int none = 0;

	if (fresh < 0)
		return;
	(void)!set_buffer(fd, SO_RCVBUF, payload(fresh, SO_RCVBUF));
	(void)!set_buffer(fd, SO_SNDBUF, payload(fresh, SO_SNDBUF));
	setsockopt(fd, SOL_SOCKET, SO_BUF_LOCK, &none, sizeof(none));
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){0}, sizeof(struct linger));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &(struct timeval){0}, sizeof(struct timeval));
	setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &none, sizeof(none));
	(void)fcntl(fd, F_SETFL, 0);
	if (!getsockopt(fresh, IPPROTO_TCP, TCP_CONGESTION, name, &len))
		(void)!set_congestion_control(fd, name);
}

bool sockopt_tcp_closed(int fd)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);

	return !getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) && info.tcpi_state == TCP_CLOSE;
}
