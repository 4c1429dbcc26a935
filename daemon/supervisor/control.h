/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket, in the supervisor: a request line, an answer, end of
 * stream. The answer's first line is "ok", or "error TEXT", perhaps with more
 * lines. It never holds a secret.
 *
 *   stats, metrics     counters                           the newest data process
 *   config [KEY]       "key = value" lines                answers (answer.h)
 *   origins            the same with file and line
 *   requests SERVICE   what its backend last asked for
 *   flows              one line per flow, key=value separated by tabs
 *   kill ID            ends a flow: all data processes are asked in turn
 *   reload             reads the configuration again      here, for root only
 *   set NAME LENGTH    and LENGTH bytes of assignments, all of them or none; NAME is for
 *                      error messages
 *   drain worker N     no new connections for it; undrain: again
 *   shield COMMAND     see shield_command(); all but "show" for root only
 *   status             processes and generations
 *
 * Nothing here blocks, and nobody can keep others out: each user has so many connections, of which
 * those that are too many are refused at once, so many requests a second, of which those that are
 * too many wait, and so much time to ask and to read. Root, and the user that we are, have places
 * of their own and no such limits.
 */
#ifndef KTLSGATE_CONTROL_H
#define KTLSGATE_CONTROL_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>
#include "data/channel.h"
#include "base/outbox.h"

#define CONTROL_CLIENTS	 32 /* connections */
#define CONTROL_KEPT	 8  /* of these only for root and the user that we are */
#define CONTROL_PER_USER 6
#define CONTROL_USERS	 64 /* whose rate is remembered */

enum control_stage {
	CONTROL_FREE,
	CONTROL_ASKS,	  /* its request is arriving */
	CONTROL_WAITS,	  /* the request is there; its user has used up its rate */
	CONTROL_ASKED,	  /* a data process answers */
	CONTROL_ANSWERED, /* our own answer is being sent */
};

struct control_client {
	enum control_stage stage;
	int fd;		   /* -1: the client has left, and a data process does not know yet */
	uint32_t id;	   /* of this connection, never again */
	uint64_t deadline; /* timer_clock(); ASKS and ASKED */
	uid_t uid;
	bool privileged; /* root, or who we are */
	char line[REQUEST_MAX];
	size_t have;   /* of the line */
	bool complete; /* the line is */
	char *body;
	size_t body_len, body_have;
	unsigned asked; /* number of the generation whose answer is awaited; 0: none */
	bool answered;	/* "ok" is written */
	struct outbox out;
};

/* A user's requests: so many a second, and so many at once after a while without. */
struct control_rate {
	uid_t uid;
	uint64_t busy_until; /* timer_clock(): when what it has asked for would be used up */
};

struct control {
	int fd; /* listening; -1: not yet */
	char *path;
	uint32_t last_id;
	uint64_t accept_again; /* timer_clock(): after a failure */
	struct control_client clients[CONTROL_CLIENTS];
	struct control_rate rates[CONTROL_USERS];
	/* A request has come whole. Either control_answer() follows, or the client's `asked` is
	 * set.
	 */
	void (*request)(void *arg, struct control_client *c);
	void *arg;
};

/*
 * Listens at path; a stale socket is replaced. group: its name, or NULL for our
 * own. 0, or -errno after a log line.
 */
int control_open(struct control *c, const char *path, unsigned mode, const char *group) must_check;
void control_close(struct control *c); /* and unlinks */

/* Descriptors to wait for: at most CONTROL_CLIENTS + 1 are written to p. Returns how many. */
unsigned control_poll(const struct control *c, struct pollfd *p);
/* What poll(2) may wait, ms; -1: for ever. */
int control_wait(const struct control *c);
/* After each poll(2), with what control_poll() had written. */
void control_turn(struct control *c, const struct pollfd *p, unsigned n);

struct control_client *control_find(struct control *c, uint32_t id);
/* Sends text, a copy of it, and closes; text NULL: closes. The client is no more the caller's. */
void control_answer(struct control_client *c, const char *text);

#endif
