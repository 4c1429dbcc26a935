// SPDX-License-Identifier: Apache-2.0
/* The system calls and allocations that the gate's threads make; see fault.h. */
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <linux/tls.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include "fault.h"

#ifndef SOL_TLS
#define SOL_TLS 282
#endif
#define FD_MAX 65536

/* WRAP(type, name, arguments): the one that is called, and the C library's. */
#define WRAP(type, name, ...)                                                                      \
	type __real_##name(__VA_ARGS__);                                                           \
	type __wrap_##name(__VA_ARGS__);                                                           \
	type __wrap_##name(__VA_ARGS__)

/* splice(2) has refused the next record on this socket: it is there for recvmsg(2). */
static bool refused[FD_MAX];

/* True: the call fails, errno is set. */
static bool fails(struct fault_plan *p, enum site site, int fd)
{
	int error = p ? fault_draw(p, site) : 0;

	if (!error || (error == EAGAIN && fd < FD_MAX && refused[fd]))
		return false;
	if (error == EAGAIN)
		fault_announce(fd);
	errno = error;
	return true;
}

/* Variadic in the C library, of one argument here. */
int __real_fcntl(int fd, int command, long arg);
int __wrap_fcntl(int fd, int command, long arg);
int __real_ioctl(int fd, unsigned long request, void *arg);
int __wrap_ioctl(int fd, unsigned long request, void *arg);

/* ---- bytes ---- */

static bool is_pipe(int fd)
{
	return __real_fcntl(fd, F_GETPIPE_SZ, 0) > 0;
}

/*
 * docs/design.md, "Where bytes would get lost": into an empty pipe only, and out of it exactly what
 * is in it. Hardly a record is cut so that breaking these shows in its bytes, on every kernel.
 */
static void check_pipe(int in, int out, size_t len)
{
	bool fills = !is_pipe(in);
	int held = 0;

	if (&fault_sandboxed) /* a whole daemon's filter knows no FIONREAD */
		return;
	if (!__real_ioctl(fills ? out : in, FIONREAD, &held) && (size_t)held == (fills ? 0 : len))
		return;
	fprintf(stderr, "splice(): a pipe with %d bytes is asked to %s %zu\n", held,
		fills ? "take" : "give", len);
	abort();
}

WRAP(ssize_t, splice, int in, off64_t *off_in, int out, off64_t *off_out, size_t len,
     unsigned flags)
{
	/* A pipe belongs to no flow, so the socket tells whose it is. */
	struct fault_plan *p = fault_plan_of(in);
	enum site site = SITE_SPLICE_IN;
	int fd = in;
	ssize_t n;

	if (fault_worker()) /* what tries a kernel's abilities fills pipes on purpose */
		check_pipe(in, out, len);
	if (p && is_pipe(in)) {
		p = fault_plan_of(fd = out);
		site = SITE_SPLICE_OUT;
	}
	if (fails(p, site, fd))
		return -1;
	if (p)
		len = fault_shorten(p, site, len);
	n = __real_splice(in, off_in, out, off_out, len, flags);
	if (fd < FD_MAX && site == SITE_SPLICE_IN)
		refused[fd] = n < 0 && errno == EINVAL;
	return n;
}

WRAP(ssize_t, send, int fd, const void *buf, size_t len, int flags)
{
	struct fault_plan *p = fault_plan_of(fd);

	/* The signer's socket keeps messages whole. */
	if (p && fault_is_own(fd))
		return fails(p, SITE_SIGNER_SEND, fd) ? -1 : __real_send(fd, buf, len, flags);
	if (fails(p, SITE_SEND, fd))
		return -1;
	return __real_send(fd, buf, p ? fault_shorten(p, SITE_SEND, len) : len, flags);
}

WRAP(ssize_t, recv, int fd, void *buf, size_t len, int flags)
{
	struct fault_plan *p = flags & MSG_PEEK ? NULL : fault_plan_of(fd);
	size_t less = len;
	ssize_t n;

	if (p && fault_is_own(fd))
		return fails(p, SITE_SIGNER_RECV, fd) ? -1 : __real_recv(fd, buf, len, flags);
	if (fails(p, SITE_RECV, fd))
		return -1;
	if (p)
		less = fault_shorten(p, SITE_RECV, len);
	n = __real_recv(fd, buf, less, flags);
	if (less < len)
		fault_announce(fd);
	return n;
}

WRAP(ssize_t, sendmsg, int fd, const struct msghdr *msg, int flags)
{
	return fails(fault_plan_of(fd), SITE_SENDMSG, fd) ? -1 : __real_sendmsg(fd, msg, flags);
}

WRAP(ssize_t, recvmsg, int fd, struct msghdr *msg, int flags)
{
	/* A peek asks what splice(2) meant by its 0: EAGAIN would be a lie. */
	struct fault_plan *p = flags & MSG_PEEK ? NULL : fault_plan_of(fd);

	return fails(p, SITE_RECVMSG, fd) ? -1 : __real_recvmsg(fd, msg, flags);
}

WRAP(int, poll, struct pollfd *fds, nfds_t n, int timeout)
{
	/* Only those that do not wait: the others are no worker's. */
	if (!timeout && n == 1 && fails(fault_plan_of(fds[0].fd), SITE_POLL, fds[0].fd))
		return -1;
	return __real_poll(fds, n, timeout);
}

/* ---- sockets ---- */

/* Bits: TLS_TX and TLS_RX have been set once on this socket. */
static unsigned char keyed[FD_MAX];

static bool key_fails(int fd, int direction)
{
	struct fault_plan *p = fault_plan_of(fd);
	bool again = fd < FD_MAX && keyed[fd] & 1 << direction;
	bool tx = direction == TLS_TX;

	if (!p)
		return false;
	if (fd < FD_MAX)
		keyed[fd] |= (unsigned char)(1 << direction);
	if (again)
		return fails(p, tx ? SITE_REKEY_TX : SITE_REKEY_RX, fd);
	return fails(p, tx ? SITE_SET_TX : SITE_SET_RX, fd);
}

WRAP(int, setsockopt, int fd, int level, int option, const void *value, socklen_t len)
{
	bool ulp = level == SOL_TCP && option == TCP_ULP;

	/* In any thread: a new socket, which may have an old one's number. */
	if (ulp && fd < FD_MAX)
		keyed[fd] = 0;
	if (ulp && fails(fault_plan_of(fd), SITE_ULP, fd))
		return -1;
	if (level == SOL_TLS && (option == TLS_TX || option == TLS_RX) && key_fails(fd, option))
		return -1;
	return __real_setsockopt(fd, level, option, value, len);
}

WRAP(int, getsockopt, int fd, int level, int option, void *value, socklen_t *len)
{
	if (fails(fault_plan_of(fd), SITE_GETSOCKOPT, fd))
		return -1;
	return __real_getsockopt(fd, level, option, value, len);
}

WRAP(int, socket, int family, int type, int protocol)
{
	if (fails(fault_plan_here(), SITE_SOCKET, -1))
		return -1;
	return __real_socket(family, type, protocol);
}

int __wrap_ioctl(int fd, unsigned long request, void *arg)
{
	if (request == SIOCOUTQ && fails(fault_plan_of(fd), SITE_IOCTL, fd))
		return -1;
	return __real_ioctl(fd, request, arg);
}

/* ---- pipes ---- */

WRAP(int, pipe2, int fds[2], int flags)
{
	return fails(fault_plan_here(), SITE_PIPE, -1) ? -1 : __real_pipe2(fds, flags);
}

int __wrap_fcntl(int fd, int command, long arg)
{
	/* A pipe of two slots, as unprivileged users get them. */
	if (command == F_GETPIPE_SZ && fails(fault_plan_here(), SITE_PIPE_SIZE, -1))
		return 2 * (int)sysconf(_SC_PAGESIZE);
	return __real_fcntl(fd, command, arg);
}

/* ---- memory ---- */

WRAP(void *, malloc, size_t n)
{
	return fails(fault_plan_here(), SITE_MALLOC, -1) ? NULL : __real_malloc(n);
}

WRAP(void *, calloc, size_t n, size_t size)
{
	return fails(fault_plan_here(), SITE_CALLOC, -1) ? NULL : __real_calloc(n, size);
}

WRAP(void *, realloc, void *p, size_t n)
{
	return fails(fault_plan_here(), SITE_REALLOC, -1) ? NULL : __real_realloc(p, n);
}

WRAP(void *, reallocarray, void *p, size_t n, size_t size)
{
	return fails(fault_plan_here(), SITE_REALLOC, -1) ? NULL : __real_reallocarray(p, n, size);
}
