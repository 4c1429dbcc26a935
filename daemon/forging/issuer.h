/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A worker's end of the signer: answers come back by id, nothing blocks, and a
 * request may be given up at any time.
 *
 * Few requests are on their way at once. The others are kept here, by the
 * network that the client is from (IPv4 /24, IPv6 /64), and these take turns:
 * who asks a thousand times waits a thousand turns, and holds nobody else up. What is
 * kept is bounded; then the network that has most loses its newest.
 */
#ifndef KTLSGATE_ISSUER_H
#define KTLSGATE_ISSUER_H

#include <sys/queue.h>
#include "base/ring.h"
#include "signer/signer.h"

struct issue {
	/*
	 * Called once, unless issue_cancel() came first. r NULL: no answer will come;
	 * dropped tells why.
	 */
	void (*done)(struct issue *issue, const struct signer_response *r);
	uint64_t id;
	bool dropped;	  /* there were too many; else the signer is out of reach */
	uint8_t *message; /* not sent yet */
	size_t message_len;
	bool active;
	struct issue_network *network; /* while it is kept */
	TAILQ_ENTRY(issue) link;
};

TAILQ_HEAD(issue_list, issue);

struct issuer {
	struct ring *ring;
	int fd; /* SOCK_SEQPACKET to the signer, non-blocking */
	uint64_t next_id;
	struct ring_op poll;
	unsigned max, n_kept, n_sent;
	TAILQ_HEAD(, issue_network) networks; /* that have something kept; the next turn first */
	struct issue_list sent;
	uint8_t *buf; /* SIGNER_MESSAGE_MAX */
};

/* max: requests kept */
int issuer_init(struct issuer *is, struct ring *ring, int fd, unsigned max) must_check;
void issuer_free(struct issuer *is);
/*
 * Returns 0 or -errno, -EBUSY: there are too many, and the client's network has most
 * of them. issue must outlive the answer or issue_cancel().
 */
int issue_start(struct issuer *is, struct issue *issue, const struct signer_ask *ask) must_check;
void issue_cancel(struct issuer *is, struct issue *issue);

#endif
