/* SPDX-License-Identifier: Apache-2.0 */
/* A thread's io_uring: submission, completion, restrictions. Knows no flow and no TLS. */
#include <errno.h>
#include <liburing.h>
#include <string.h>
#include "log.h"
#include "ring.h"

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
