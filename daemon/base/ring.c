/* SPDX-License-Identifier: Apache-2.0 */
/* A thread's io_uring: submission, completion, restrictions. Knows no flow and no TLS. */
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <string.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/eventfd.h>
#include "base/log.h"
#include "base/ring.h"

struct ring {
	struct io_uring uring;
};

/*
 * What this ring may ever be asked to do: an attacker inside the data process
 * must not get around seccomp through io_uring (openat, socket, ...).
 */
static const uint8_t allowed_ops[] = {
	IORING_OP_ACCEPT, IORING_OP_POLL_ADD, IORING_OP_CONNECT,      IORING_OP_RECV,
	IORING_OP_SEND,	  IORING_OP_READ,     IORING_OP_ASYNC_CANCEL,
};

static int restrict_ring(struct io_uring *u)
{
	struct io_uring_restriction res[ARRAY_SIZE(allowed_ops) + 1];

	memset(res, 0, sizeof(res));
	for (size_t i = 0; i < ARRAY_SIZE(allowed_ops); i++) {
		res[i].opcode = IORING_RESTRICTION_SQE_OP;
		res[i].sqe_op = allowed_ops[i];
	}
	res[ARRAY_SIZE(allowed_ops)].opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
	/* The shared liburing 2.3 does not export io_uring_register_restrictions(). */
	return io_uring_register((unsigned)u->ring_fd, IORING_REGISTER_RESTRICTIONS, res,
				 ARRAY_SIZE(res));
}

static int setup(unsigned entries, unsigned flags, struct io_uring *u)
{
	struct io_uring_params p = {
		.flags = flags | IORING_SETUP_R_DISABLED | IORING_SETUP_CQSIZE,
		.cq_entries = entries * 4,
	};

	return io_uring_queue_init_params(entries, u, &p);
}

int ring_new(unsigned entries, struct ring **out)
{
	struct ring *r = calloc(1, sizeof(*r));
	int ret;

	if (!r)
		return -ENOMEM;
	ret = setup(entries, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN, &r->uring);
	if (ret == -EINVAL) /* before 6.1 */
		ret = setup(entries, 0, &r->uring);
	if (ret < 0) {
		log_error("io_uring: %s%s", strerror(-ret),
			  ret == -EPERM || ret == -ENOSYS ? "; is kernel.io_uring_disabled set, or "
							    "io_uring forbidden to this unit?"
							  : "");
		free(r);
		return ret;
	}
	ret = restrict_ring(&r->uring);
	if (!ret)
		ret = io_uring_register((unsigned)r->uring.ring_fd, IORING_REGISTER_ENABLE_RINGS,
					NULL, 0);
	if (ret < 0) {
		log_error("io_uring restrictions: %s", strerror(-ret));
		ring_free(r);
		return ret;
	}
	*out = r;
	return 0;
}

void ring_free(struct ring *r)
{
	if (!r)
		return;
	io_uring_queue_exit(&r->uring);
	free(r);
}

static struct io_uring_sqe *prepare(struct ring *r, struct ring_op *op)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&r->uring);

	/* The queue is full: hand it over and take the first free place. */
	while (!sqe) {
		io_uring_submit(&r->uring);
		sqe = io_uring_get_sqe(&r->uring);
	}
	if (op)
		op->armed = true;
	return sqe;
}

/* liburing's prep functions clear user_data: it is set last. */
static void arm(struct io_uring_sqe *sqe, struct ring_op *op)
{
	io_uring_sqe_set_data(sqe, op);
}

void ring_accept_multishot(struct ring *r, struct ring_op *op, int fd)
{
	struct io_uring_sqe *sqe = prepare(r, op);

	io_uring_prep_multishot_accept(sqe, fd, NULL, NULL, SOCK_CLOEXEC);
	arm(sqe, op);
}

void ring_poll_multishot(struct ring *r, struct ring_op *op, int fd, unsigned events)
{
	struct io_uring_sqe *sqe = prepare(r, op);

	io_uring_prep_poll_multishot(sqe, fd, events);
	arm(sqe, op);
}

void ring_poll(struct ring *r, struct ring_op *op, int fd, unsigned events)
{
	struct io_uring_sqe *sqe = prepare(r, op);

	io_uring_prep_poll_add(sqe, fd, events);
	arm(sqe, op);
}

void ring_connect(struct ring *r, struct ring_op *op, int fd, const struct sockaddr *sa,
		  socklen_t len)
{
	struct io_uring_sqe *sqe = prepare(r, op);

	io_uring_prep_connect(sqe, fd, sa, len);
	arm(sqe, op);
}

void ring_recv(struct ring *r, struct ring_op *op, int fd, void *buf, size_t len)
{
	struct io_uring_sqe *sqe = prepare(r, op);

	io_uring_prep_recv(sqe, fd, buf, len, 0);
	arm(sqe, op);
}

void ring_send(struct ring *r, struct ring_op *op, int fd, const void *buf, size_t len)
{
	struct io_uring_sqe *sqe = prepare(r, op);

	io_uring_prep_send(sqe, fd, buf, len, MSG_NOSIGNAL);
	arm(sqe, op);
}

void ring_read(struct ring *r, struct ring_op *op, int fd, void *buf, size_t len)
{
	struct io_uring_sqe *sqe = prepare(r, op);

	io_uring_prep_read(sqe, fd, buf, (unsigned)len, 0);
	arm(sqe, op);
}

void ring_cancel(struct ring *r, struct ring_op *op)
{
	struct io_uring_sqe *sqe;

	if (!op->armed)
		return;
	sqe = prepare(r, NULL);
	io_uring_prep_cancel(sqe, op, 0);
	arm(sqe, NULL);
}

int ring_wait(struct ring *r, int64_t timeout_ms)
{
	struct __kernel_timespec ts = {
		.tv_sec = timeout_ms / 1000,
		.tv_nsec = timeout_ms % 1000 * 1000000,
	};
	struct io_uring_cqe *cqe;
	int ret;

	ret = io_uring_submit_and_wait_timeout(&r->uring, &cqe, 1, timeout_ms < 0 ? NULL : &ts,
					       NULL);
	if (ret < 0 && ret != -ETIME && ret != -EINTR && ret != -EAGAIN && ret != -EBUSY)
		return ret;
	return 0;
}

/*
 * A completion function may cancel, re-arm and free operations, so each
 * completion is taken off the queue before it is acted upon.
 */
void ring_complete(struct ring *r)
{
	struct io_uring *u = &r->uring;
	struct io_uring_cqe *cqe;

	while (!io_uring_peek_cqe(u, &cqe)) {
		struct ring_op *op = io_uring_cqe_get_data(cqe);
		bool more = cqe->flags & IORING_CQE_F_MORE;
		int res = cqe->res;

		io_uring_cqe_seen(u, cqe);
		if (!op)
			continue;
		op->armed = more;
		op->done(op, res);
	}
}

/* ---- probe ---- */

struct tried {
	struct ring_op op;
	const char *name;
	int res;
	bool done;
};

static void note(struct ring_op *op, int res)
{
	struct tried *t = container_of(op, struct tried, op);

	t->res = res;
	t->done = true;
}

#define TRIED(text)                                                                                \
	{                                                                                          \
		.op.done = note, .name = text                                                      \
	}

/* The result of what was prepared with t->op. */
static int await(struct ring *r, struct tried *t, const char **failed)
{
	*failed = t->name;
	for (int i = 0; !t->done && i < 10; i++) {
		int ret = ring_wait(r, 100);

		if (ret)
			return ret;
		ring_complete(r);
	}
	return t->done ? t->res : -ETIMEDOUT;
}

static int listen_on_loopback(struct sockaddr_in *sin)
{
	socklen_t len = sizeof(*sin);
	scoped_fd fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	*sin = (struct sockaddr_in){.sin_family = AF_INET,
				    .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	if (fd < 0 || bind(fd, (struct sockaddr *)sin, len) || listen(fd, 1) ||
	    getsockname(fd, (struct sockaddr *)sin, &len))
		return -errno;
	return TAKE_FD(fd);
}

/* A connection, as a worker makes it; *server is left to the caller. */
static int try_connection(struct ring *r, int client, int *server, const char **failed)
{
	struct tried accept = TRIED("accept"), connect = TRIED("connect");
	struct sockaddr_in sin;
	scoped_fd listener = listen_on_loopback(&sin);
	int ret;

	*failed = "socket";
	if (listener < 0 || client < 0)
		return listener < 0 ? listener : -errno;
	ring_accept_multishot(r, &accept.op, listener);
	ring_connect(r, &connect.op, client, (struct sockaddr *)&sin, sizeof(sin));
	ret = *server = await(r, &accept, failed);
	if (ret >= 0)
		ret = await(r, &connect, failed);
	if (ret < 0)
		return ret;
	*failed = accept.name;
	if (!accept.op.armed)
		return -ENOTSUP;
	accept.done = false;
	ring_cancel(r, &accept.op);
	ret = await(r, &accept, failed);
	return ret == -ECANCELED ? 0 : -EIO;
}

static int try_operations(struct ring *r, const char **failed)
{
	struct tried send = TRIED("send"), poll = TRIED("poll"), recv = TRIED("recv"),
		     read = TRIED("read");
	scoped_fd client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), server = -1;
	scoped_fd event = eventfd(1, EFD_CLOEXEC);
	char byte = 1, got = 0;
	uint64_t value = 0;
	int ret = try_connection(r, client, &server, failed);

	if (ret < 0)
		return ret;
	ring_poll_multishot(r, &poll.op, server, POLLIN);
	ring_send(r, &send.op, client, &byte, sizeof(byte));
	ret = await(r, &send, failed);
	if (ret >= 0)
		ret = await(r, &poll, failed);
	if (ret < 0)
		return ret;
	if (!(ret & POLLIN) || !poll.op.armed)
		return -ENOTSUP;
	ring_recv(r, &recv.op, server, &got, sizeof(got));
	ring_read(r, &read.op, event, &value, sizeof(value));
	ret = await(r, &recv, failed);
	if (ret >= 0)
		ret = await(r, &read, failed);
	if (ret < 0)
		return ret;
	return got == byte && value == 1 ? 0 : -EIO;
}

int ring_probe(const char **failed)
{
	struct ring *r;
	int ret;

	*failed = NULL;
	ret = ring_new(8, &r);
	if (ret)
		return ret;
	ret = try_operations(r, failed);
	ring_free(r);
	return ret;
}
