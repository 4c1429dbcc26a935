/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A worker's end of the signer: requests go out in order, answers come back by
 * id, nothing blocks. A request may be given up at any time.
 */
#ifndef KTLSGATE_ISSUER_H
#define KTLSGATE_ISSUER_H

#include <sys/queue.h>
#include "ring.h"
#include "signer.h"

struct issue {
	/* Called once, unless issue_cancel() came first. r NULL: the signer is out of reach. */
	void (*done)(struct issue *issue, const struct signer_response *r);
	uint64_t id;
	uint8_t *message; /* not sent yet */
	size_t message_len;
	bool active;
	TAILQ_ENTRY(issue) link;
};

struct issuer {
	struct ring *ring;
	int fd; /* SOCK_SEQPACKET to the signer, non-blocking */
	uint64_t next_id;
	struct ring_op poll;
	TAILQ_HEAD(issue_list, issue) unsent, sent;
	uint8_t *buf; /* SIGNER_MESSAGE_MAX */
};

int issuer_init(struct issuer *is, struct ring *ring, int fd) must_check;
void issuer_free(struct issuer *is);
/* Returns 0 or -errno; issue must outlive the answer or issue_cancel(). */
int issue_start(struct issuer *is, struct issue *issue, const struct signer_ask *ask) must_check;
void issue_cancel(struct issuer *is, struct issue *issue);

#endif
