// SPDX-License-Identifier: Apache-2.0
/*
 * The ring's operations, at the boundary of ring.h; see fault.h. A multishot
 * operation has a shadow that the ring knows in its place: it can seem to have
 * ended while the kernel's goes on, and get events of our making.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include "fault.h"
#include "base/ring.h"

#define HELD_MAX  256
#define FAKES_MAX 4096

struct shadow {
	struct ring_op op;    /* the ring's */
	struct ring_op *user; /* NULL: it has given up */
	int fd;
	enum site site;
	bool hidden;	    /* the user was told that it is over */
	bool announce;	    /* with the next completions */
	int held[HELD_MAX]; /* results that came while it was hidden: connections */
	unsigned n_held;
	LIST_ENTRY(shadow) link;
};

/* A completion that the kernel knows nothing of. */
struct fake {
	struct ring_op *op;
	int res;
};

static _Thread_local LIST_HEAD(, shadow) shadows;
static _Thread_local struct fake fakes[FAKES_MAX];
static _Thread_local unsigned n_fakes;
static _Thread_local bool announcements;

int __real_ring_new(unsigned entries, struct ring **out);
int __wrap_ring_new(unsigned entries, struct ring **out);
void __real_ring_free(struct ring *r);
void __wrap_ring_free(struct ring *r);
int __real_ring_wait(struct ring *r, int64_t timeout_ms);
int __wrap_ring_wait(struct ring *r, int64_t timeout_ms);
void __real_ring_complete(struct ring *r);
void __wrap_ring_complete(struct ring *r);
void __real_ring_cancel(struct ring *r, struct ring_op *op);
void __wrap_ring_cancel(struct ring *r, struct ring_op *op);
void __real_ring_accept_multishot(struct ring *r, struct ring_op *op, int fd);
void __wrap_ring_accept_multishot(struct ring *r, struct ring_op *op, int fd);
void __real_ring_poll_multishot(struct ring *r, struct ring_op *op, int fd, unsigned events);
void __wrap_ring_poll_multishot(struct ring *r, struct ring_op *op, int fd, unsigned events);
void __real_ring_poll(struct ring *r, struct ring_op *op, int fd, unsigned events);
void __wrap_ring_poll(struct ring *r, struct ring_op *op, int fd, unsigned events);
void __real_ring_connect(struct ring *r, struct ring_op *op, int fd, const struct sockaddr *sa,
			 socklen_t len);
void __wrap_ring_connect(struct ring *r, struct ring_op *op, int fd, const struct sockaddr *sa,
			 socklen_t len);
void __real_ring_recv(struct ring *r, struct ring_op *op, int fd, void *buf, size_t len);
void __wrap_ring_recv(struct ring *r, struct ring_op *op, int fd, void *buf, size_t len);
void __real_ring_send(struct ring *r, struct ring_op *op, int fd, const void *buf, size_t len);
void __wrap_ring_send(struct ring *r, struct ring_op *op, int fd, const void *buf, size_t len);
void *__real_calloc(size_t n, size_t size);
int __real_poll(struct pollfd *fds, nfds_t n, int timeout);

/* ---- completions of our making ---- */

/* As in the kernel: submitted now, completed when the user next asks. */
static void complete_later(struct ring_op *op, int res)
{
	if (n_fakes == FAKES_MAX)
		abort();
	op->armed = true;
	fakes[n_fakes++] = (struct fake){.op = op, .res = res};
}

static void deliver_fakes(void)
{
	struct fake due[FAKES_MAX];
	unsigned n = n_fakes;

	memcpy(due, fakes, n * sizeof(*due));
	n_fakes = 0;
	for (unsigned i = 0; i < n; i++) {
		due[i].op->armed = false;
		due[i].op->done(due[i].op, due[i].res);
	}
}

/* True: the operation is not submitted, it will have failed. */
static bool will_fail(struct fault_plan *p, enum site site, struct ring_op *op)
{
	int error = p ? fault_draw(p, site) : 0;

	if (error)
		complete_later(op, -error);
	return error;
}

/* ---- shadows ---- */

static struct shadow *shadow_of(const struct ring_op *user)
{
	struct shadow *s;

	LIST_FOREACH (s, &shadows, link) {
		if (s->user == user)
			return s;
	}
	return NULL;
}

static void tell(struct shadow *s, int res, bool more)
{
	s->hidden = !more;
	s->user->armed = more;
	s->user->done(s->user, res);
}

static void shadow_done(struct ring_op *op, int res)
{
	struct shadow *s = container_of(op, struct shadow, op);
	struct fault_plan *p = fault_plan_of(s->fd);

	if (s->user && s->hidden && op->armed) {
		/* The kernel would have found it again: a poll's state, a listener's backlog. */
		if (s->site == SITE_RING_ACCEPT && s->n_held < HELD_MAX)
			s->held[s->n_held++] = res;
		return;
	}
	if (op->armed) {
		if (s->user)
			tell(s, res, !(p && fault_ends(p, s->site)));
		return;
	}
	LIST_REMOVE(s, link);
	if (s->user && !s->hidden)
		tell(s, res, false);
	free(s);
}

/* The user arms it again, or for the first time. NULL: the kernel has it already. */
static struct shadow *shadow_arm(struct ring_op *user, int fd, enum site site)
{
	struct shadow *s = shadow_of(user);

	user->armed = true;
	if (s) {
		s->hidden = false;
		s->announce = announcements = true;
		return NULL;
	}
	s = __real_calloc(1, sizeof(*s));
	if (!s)
		abort();
	s->user = user;
	s->fd = fd;
	s->site = site;
	s->op.done = shadow_done;
	LIST_INSERT_HEAD(&shadows, s, link);
	return s;
}

/* What has ended for the user and was not armed again is ended in the kernel too. */
static void give_up_hidden(struct ring *r)
{
	struct shadow *s;

	LIST_FOREACH (s, &shadows, link) {
		/* A listener comes back after a while. */
		if (!s->user || !s->hidden || s->site == SITE_RING_ACCEPT)
			continue;
		s->user = NULL;
		__real_ring_cancel(r, &s->op);
	}
}

void fault_announce(int fd)
{
	struct shadow *s;

	LIST_FOREACH (s, &shadows, link) {
		if (s->fd == fd && s->user)
			s->announce = announcements = true;
	}
}

bool fault_is_own(int fd)
{
	struct shadow *s;

	LIST_FOREACH (s, &shadows, link) {
		if (s->fd == fd && s->op.armed && s->site == SITE_SIGNER_RECV)
			return true;
	}
	return false;
}

/* A poll's new state; to a listener, what it would have taken from its backlog. */
static void announce(struct shadow *s)
{
	struct pollfd now = {.fd = s->fd, .events = POLLIN | POLLOUT | POLLRDHUP};
	int held = s->n_held ? s->held[--s->n_held] : -1;

	(void)fault_plan_of(s->fd);
	if (s->site != SITE_RING_ACCEPT) {
		if (__real_poll(&now, 1, 0) >= 0)
			tell(s, now.revents, true);
		return;
	}
	if (held < 0)
		return;
	if (s->n_held)
		s->announce = announcements = true;
	tell(s, held, true);
}

static void deliver_announcements(void)
{
	struct shadow *s;

	announcements = false;
	do {
		/* A user may take any shadow off the list meanwhile. */
		LIST_FOREACH (s, &shadows, link) {
			if (s->announce && s->user && !s->hidden)
				break;
		}
		if (s) {
			s->announce = false;
			announce(s);
		}
	} while (s && !announcements);
}

/* ---- the ring ---- */

int __wrap_ring_new(unsigned entries, struct ring **out)
{
	fault_thread_begins();
	return __real_ring_new(entries, out);
}

void __wrap_ring_free(struct ring *r)
{
	struct shadow *s;

	fault_thread_ends();
	__real_ring_free(r);
	while ((s = LIST_FIRST(&shadows))) {
		LIST_REMOVE(s, link);
		free(s);
	}
}

int __wrap_ring_wait(struct ring *r, int64_t timeout_ms)
{
	fault_thread_waits();
	return __real_ring_wait(r, n_fakes || announcements ? 0 : timeout_ms);
}

void __wrap_ring_complete(struct ring *r)
{
	__real_ring_complete(r);
	deliver_fakes();
	deliver_announcements();
	give_up_hidden(r);
}

void __wrap_ring_cancel(struct ring *r, struct ring_op *op)
{
	struct shadow *s = op->armed ? shadow_of(op) : NULL;

	__real_ring_cancel(r, s ? &s->op : op);
}

/* ---- operations ---- */

void __wrap_ring_accept_multishot(struct ring *r, struct ring_op *op, int fd)
{
	struct shadow *s;

	if (!fault_thread()) {
		__real_ring_accept_multishot(r, op, fd);
		return;
	}
	if (will_fail(fault_plan_of(fd), SITE_RING_ACCEPT, op))
		return;
	s = shadow_arm(op, fd, SITE_RING_ACCEPT);
	if (s)
		__real_ring_accept_multishot(r, &s->op, fd);
}

void __wrap_ring_poll_multishot(struct ring *r, struct ring_op *op, int fd, unsigned events)
{
	struct fault_plan *p = fault_plan_of(fd);
	struct shadow *s;

	if (!fault_thread()) {
		__real_ring_poll_multishot(r, op, fd, events);
		return;
	}
	if (p && !fault_is_own(fd) && will_fail(p, SITE_RING_POLL, op))
		return;
	/* Polled before there was a flow: the signer's socket. */
	s = shadow_arm(op, fd, p ? SITE_RING_POLL : SITE_SIGNER_RECV);
	if (s)
		__real_ring_poll_multishot(r, &s->op, fd, events);
}

void __wrap_ring_poll(struct ring *r, struct ring_op *op, int fd, unsigned events)
{
	if (!will_fail(fault_plan_of(fd), SITE_RING_POLL, op))
		__real_ring_poll(r, op, fd, events);
}

void __wrap_ring_connect(struct ring *r, struct ring_op *op, int fd, const struct sockaddr *sa,
			 socklen_t len)
{
	if (!will_fail(fault_plan_of(fd), SITE_RING_CONNECT, op))
		__real_ring_connect(r, op, fd, sa, len);
}

void __wrap_ring_recv(struct ring *r, struct ring_op *op, int fd, void *buf, size_t len)
{
	struct fault_plan *p = fault_plan_of(fd);

	if (!will_fail(p, SITE_RING_RECV, op))
		__real_ring_recv(r, op, fd, buf, p ? fault_shorten(p, SITE_RING_RECV, len) : len);
}

void __wrap_ring_send(struct ring *r, struct ring_op *op, int fd, const void *buf, size_t len)
{
	struct fault_plan *p = fault_plan_of(fd);

	if (!will_fail(p, SITE_RING_SEND, op))
		__real_ring_send(r, op, fd, buf, p ? fault_shorten(p, SITE_RING_SEND, len) : len);
}
