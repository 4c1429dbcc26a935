/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The channel between the supervisor and the data process: a SOCK_SEQPACKET pair of blocking
 * sockets; both ends are the same binary. The supervisor hands over requests of the control socket,
 * each with the connection that the answer goes to. What comes from the data process is checked
 * like what comes from the network.
 */
#ifndef KTLSGATE_CHANNEL_H
#define KTLSGATE_CHANNEL_H

#include <stdbool.h>
#include "flow/offload.h"
#include "conn/stats.h"

#define REQUEST_MAX 512 /* a request's line with its NUL */

enum outcome {
	OUTCOME_DONE, /* answered, for all generations */
	OUTCOME_MORE, /* our part is written: the next generation goes on */
	OUTCOME_NONE, /* nothing written: not known here */
	OUTCOME_ASKS, /* none: a worker has a question */
};

/* ---- the supervisor's end: never block, 0 or -1 with errno ---- */

/* Its outcome, with this id, comes when it accepts nothing more. */
#define RETIRED_ID 0
/* The same when no handshake is left either, so that nobody will ask the signer or the resolver. */
#define SETTLED_ID (UINT32_MAX - 1)
#define NO_ID	   UINT32_MAX /* of no connection */
int answer_tell_retire(int channel) must_check;
/* A request that is handed over, with what only the supervisor knows. */
struct handed {
	uint32_t id;			 /* of the connection */
	bool first;			 /* this generation begins the answer with "ok" */
	const char *line;		 /* the request */
	const struct stats_sums *others; /* what all other data processes have counted */
	unsigned generations;		 /* that have a data process */
};
/* fd, the connection that the answer goes to, stays the caller's. */
int answer_hand_over(int channel, const struct handed *handed, int fd) must_check;
/* False: nothing (errno EAGAIN) or the end. *question: of OUTCOME_ASKS. */
bool answer_outcome(int channel, uint32_t *id, enum outcome *out,
		    struct offload_question *question);
/* From now on the watchdog asks at the other end of fd, which stays the caller's. */
int answer_tell_watch(int channel, int fd) must_check;
int answer_tell_offload(int channel, const struct offload_answer *answer) must_check;

/* ---- the data process's end ---- */

struct message {
	uint32_t id; /* of the connection */
	bool retire; /* instead of a request */
	bool watch;  /* the same: who sits at the other end of the descriptor asks now and then */
	bool first;
	char line[REQUEST_MAX];
	struct stats_sums others; /* see struct handed */
	unsigned generations;
	struct offload_answer offload; /* flow 0: there is none */
};

struct outcome_told {
	uint32_t id;
	uint32_t outcome;
};

union rights {
	struct cmsghdr head;
	char space[CMSG_SPACE(sizeof(int))];
};
ssize_t channel_receive(int channel, struct message *m, int *fd);
void channel_tell_outcome(int channel, uint32_t id, enum outcome outcome);

#endif
