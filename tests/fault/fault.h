/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Faults, drawn from a seed, in a gate's worker threads. The programs linked
 * with it (--wrap, see the Makefile) come by here with each call that moves
 * bytes or holds something, and with each operation of a ring. A worker is a
 * thread that made a ring; its faults begin with its first wait. All other
 * threads, so all far ends, have none. Knows no flow and no engine.
 *
 * Soft faults are what a kernel may do at any time, and must not be seen at
 * all: short reads and writes, EINTR, EAGAIN, no descriptor for a pipe, a
 * multishot operation that ends. Hard ones end the flow, for a reason.
 *
 * EAGAIN is said only where more is announced by an event, and such an event is
 * made up behind it, as when a socket's buffer was full for a moment. So is one
 * behind a short recv(2), for TCP is never short but at the end of what is there.
 * A record of ours of a few bytes is never sent in part: no kernel does so.
 */
#ifndef FAULT_H
#define FAULT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* May be done to a call softly. */
#define SHORT 1
#define AGAIN 2
#define INTR  4
#define ENDS  8	 /* a multishot operation's last completion; it must be armed again */
#define FAILS 16 /* the errors are soft: the caller has another way */

/* Where a site is reached. */
#define IN_RELAY_USER 1
#define IN_RELAY_KTLS 2
#define IN_RELAY      3
#define IN_HANDSHAKE  4 /* and in front of it */
#define ANYWHERE      7

/* X(name, word, where, soft, most, errors): most calls let through in front of a hard error. */
#define SITES(X)                                                                                   \
	X(SPLICE_IN, "splice-in", IN_RELAY_KTLS, SHORT | AGAIN | INTR, 40, ENOMEM)                 \
	X(SPLICE_OUT, "splice-out", IN_RELAY_KTLS, SHORT | AGAIN | INTR, 40, ENOMEM)               \
	X(SEND, "send", IN_RELAY, SHORT | AGAIN | INTR, 40, ENOMEM, ENOBUFS)                       \
	X(SENDMSG, "sendmsg", IN_RELAY_KTLS, AGAIN | INTR, 4, ENOMEM)                              \
	X(RECV, "recv", IN_RELAY_USER, SHORT | AGAIN | INTR, 40, ENOMEM, ENOBUFS)                  \
	X(RECVMSG, "recvmsg", IN_RELAY_KTLS, AGAIN | INTR, 6, ENOMEM)                              \
	X(ULP, "ulp", IN_HANDSHAKE, 0, 4, ENOENT, ENOMEM)                                          \
	X(SET_TX, "set-tx", IN_RELAY_KTLS, 0, 2, ENOENT, ENOMEM, EBUSY)                            \
	X(SET_RX, "set-rx", IN_RELAY_KTLS, 0, 2, ENOENT, ENOMEM, EBUSY)                            \
	X(REKEY_TX, "rekey-tx", IN_RELAY_KTLS, 0, 3, ENOMEM, EBUSY)                                \
	X(REKEY_RX, "rekey-rx", IN_RELAY_KTLS, 0, 3, ENOMEM, EBUSY)                                \
	X(GETSOCKOPT, "getsockopt", IN_RELAY_KTLS, 0, 10, ENOMEM)                                  \
	X(IOCTL, "ioctl", IN_RELAY, 0, 6, ENOMEM)                                                  \
	X(PIPE, "pipe2", IN_RELAY_KTLS, FAILS, 0, EMFILE, ENFILE)                                  \
	X(PIPE_SIZE, "pipe-size", IN_RELAY_KTLS, FAILS, 0, EBADF)                                  \
	X(MALLOC, "malloc", ANYWHERE, 0, 12, ENOMEM)                                               \
	X(CALLOC, "calloc", ANYWHERE, 0, 6, ENOMEM)                                                \
	X(REALLOC, "realloc", ANYWHERE, 0, 4, ENOMEM)                                              \
	X(POLL, "poll", IN_RELAY, INTR, 4, ENOMEM)                                                 \
	X(SOCKET, "socket", IN_HANDSHAKE, 0, 4, EMFILE, ENFILE, ENOBUFS)                           \
	X(SIGNER_SEND, "signer-send", IN_HANDSHAKE, AGAIN | INTR, 2, ENOMEM, ENOBUFS)              \
	X(SIGNER_RECV, "signer-recv", IN_HANDSHAKE, AGAIN | INTR, 0, 0)                            \
	X(RING_POLL, "ring-poll", ANYWHERE, ENDS, 2, ENOMEM)                                       \
	X(RING_ACCEPT, "ring-accept", IN_HANDSHAKE, ENDS | FAILS, 0, EMFILE, ENFILE, ENOMEM)       \
	X(RING_CONNECT, "ring-connect", IN_HANDSHAKE, INTR, 4, ENOMEM, ECONNREFUSED, ETIMEDOUT)    \
	X(RING_RECV, "ring-recv", IN_HANDSHAKE, SHORT | INTR, 20, ENOMEM, ECONNRESET, ETIMEDOUT)   \
	X(RING_SEND, "ring-send", IN_HANDSHAKE, SHORT | INTR, 6, ENOMEM, ECONNRESET, EPIPE)

enum site {
#define X(name, ...) SITE_##name,
	SITES(X)
#undef X
	SITE_COUNT
};

enum fault_mode {
	FAULTS_OFF,
	FAULTS_SOFT,
	FAULTS_HARD /* one in each flow, or one after the other; a few soft ones in between */
};

struct fault_options {
	enum fault_mode mode;
	uint64_t seed;
	bool by_flow;	/* what is no flow's, fault_flow(), has no faults */
	int site;	/* of the hard ones; -1: any */
	unsigned where; /* this program reaches, IN_* */
};

/* Before any worker starts. */
void fault_setup(const struct fault_options *o);
bool fault_on(void);

/* There in a whole daemon only, which has a system call filter: fault_env.c. */
extern const bool fault_sandboxed __attribute__((weak));

/* -1: no such site */
int fault_site(const char *word);
/* What was done so far, by site: "recv 12+3 ...": soft ones and hard ones. */
void fault_report(char *buf, size_t len);

/*
 * What happens on these descriptors and meanwhile is flow's, drawn for it alone, so that the flow
 * can be repeated by its number. no_again: no EAGAIN to a reader. In the worker's thread.
 */
void fault_flow(uint32_t flow, const int fds[2], bool no_again);
/* The flow has its reason: what comes now happens to one that is closing. */
void fault_flow_closes(uint32_t flow);
enum fault_fired {
	FIRED_OPEN = 1,
	FIRED_CLOSING = 2
};
/* Whether the hard fault of flow has happened, and when: enum fault_fired. */
unsigned fault_fired(uint32_t flow);
void fault_print(uint32_t flow, char *buf, size_t len);

/* ---- between the files of the injector ---- */

struct fault_plan;

/* NULL: no faults here and now. Of a descriptor, and of what the thread is at from then on. */
struct fault_plan *fault_plan_of(int fd);
struct fault_plan *fault_plan_here(void);
/* The error that this call is to have, 0: none. */
int fault_draw(struct fault_plan *p, enum site site);
/* How much of len this call may move. */
size_t fault_shorten(struct fault_plan *p, enum site site, size_t len);
/* Is this multishot operation's completion to be its last one? */
bool fault_ends(struct fault_plan *p, enum site site);

/* The thread has made a ring; it waits for the first time; it is done with it. */
void fault_thread_begins(void);
void fault_thread_waits(void);
void fault_thread_ends(void);
bool fault_thread(void);
/* The thread has a ring, faults or not. */
bool fault_worker(void);
/* Readiness of fd is announced with the next completions. */
void fault_announce(int fd);
/* A descriptor of the thread itself, polled since before its first wait: the signer's. */
bool fault_is_own(int fd);

#endif
