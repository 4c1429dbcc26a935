/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A thread's io_uring. The only file that names liburing; everybody else
 * sees operations with a completion function.
 *
 * An operation is armed from its submission to its last completion; its
 * struct ring_op, its buffer and its descriptor must outlive that. Results
 * are the kernel's: a count or a negative errno; -ECANCELED after
 * ring_cancel() or at the ring's end.
 */
#ifndef KTLSGATE_RING_H
#define KTLSGATE_RING_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include "base/scoped.h"

struct ring;

struct ring_op {
	void (*done)(struct ring_op *op, int res);
	bool armed;
};

/* Must be called by the thread that will use it. Returns 0 or -errno, having logged why. */
int ring_new(unsigned entries, struct ring **out) must_check;
void ring_free(struct ring *r);

/*
 * Does this kernel do what workers ask of a ring? Each operation is tried, on loopback. 0, or
 * -errno: *failed is the operation then, or NULL if there is no ring, having logged why.
 */
int ring_probe(const char **failed) must_check;

void ring_accept_multishot(struct ring *r, struct ring_op *op, int fd);
/* Edge-triggered: one completion per change, res is the poll(2) mask at that time. */
void ring_poll_multishot(struct ring *r, struct ring_op *op, int fd, unsigned events);
void ring_poll(struct ring *r, struct ring_op *op, int fd, unsigned events);
void ring_connect(struct ring *r, struct ring_op *op, int fd, const struct sockaddr *sa,
		  socklen_t len);
void ring_recv(struct ring *r, struct ring_op *op, int fd, void *buf, size_t len);
void ring_send(struct ring *r, struct ring_op *op, int fd, const void *buf, size_t len);
void ring_read(struct ring *r, struct ring_op *op, int fd, void *buf, size_t len);
/* The operation completes with -ECANCELED, or with its result if that came first. */
void ring_cancel(struct ring *r, struct ring_op *op);

/*
 * Submits what was prepared and waits for a completion, or until timeout_ms
 * passed (-1: no limit). Returns 0 or -errno.
 */
int ring_wait(struct ring *r, int64_t timeout_ms) must_check;
/* Runs the completion functions of what has completed. */
void ring_complete(struct ring *r);

#endif
