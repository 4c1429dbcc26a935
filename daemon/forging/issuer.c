/* SPDX-License-Identifier: Apache-2.0 */
/* The worker's end of the signer's protocol; see issuer.h. Knows no flow. */
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include "forging/issuer.h"

#define SENT_MAX 8 /* on their way: enough to keep the signer busy, too few for a queue */

struct issue_network {
	uint8_t prefix[8];
	int family;
	unsigned n;
	struct issue_list issues;
	TAILQ_ENTRY(issue_network) link;
};

static void ready(struct ring_op *op, int res);

int issuer_init(struct issuer *is, struct ring *ring, int fd, unsigned max)
{
	is->ring = ring;
	is->fd = fd;
	is->max = max;
	TAILQ_INIT(&is->networks);
	TAILQ_INIT(&is->sent);
	is->buf = malloc(SIGNER_MESSAGE_MAX);
	if (!is->buf)
		return -ENOMEM;
	/* The socket outlives this process: answers to a predecessor's requests must not match
	 * ours. */
	if (getrandom(&is->next_id, sizeof(is->next_id), 0) != sizeof(is->next_id))
		return -EIO;
	is->poll.done = ready;
	ring_poll_multishot(ring, &is->poll, fd, POLLIN | POLLOUT);
	return 0;
}

void issuer_free(struct issuer *is)
{
	free(is->buf);
	is->buf = NULL;
}

/* ---- networks ---- */

static void network_of(const struct sockaddr *peer, struct issue_network *out)
{
	memset(out, 0, sizeof(*out));
	if (!peer)
		return;
	out->family = peer->sa_family;
	if (peer->sa_family == AF_INET6)
		memcpy(out->prefix, &((const struct sockaddr_in6 *)peer)->sin6_addr, 8);
	else if (peer->sa_family == AF_INET)
		memcpy(out->prefix, &((const struct sockaddr_in *)peer)->sin_addr, 3);
}

static struct issue_network *find_network(struct issuer *is, const struct issue_network *like)
{
	struct issue_network *n;

	TAILQ_FOREACH (n, &is->networks, link) {
		if (n->family == like->family &&
		    !memcmp(n->prefix, like->prefix, sizeof(n->prefix)))
			return n;
	}
	return NULL;
}

/* Made if need be; NULL: out of memory. */
static struct issue_network *get_network(struct issuer *is, const struct sockaddr *peer)
{
	struct issue_network like, *n;

	network_of(peer, &like);
	n = find_network(is, &like);
	if (n)
		return n;
	n = malloc(sizeof(*n));
	if (!n)
		return NULL;
	*n = like;
	TAILQ_INIT(&n->issues);
	TAILQ_INSERT_TAIL(&is->networks, n, link);
	return n;
}

static void put_network(struct issuer *is, struct issue_network *n)
{
	if (n->n)
		return;
	TAILQ_REMOVE(&is->networks, n, link);
	free(n);
}

static struct issue_network *largest_network(const struct issuer *is)
{
	struct issue_network *n, *largest = NULL;

	TAILQ_FOREACH (n, &is->networks, link) {
		if (!largest || n->n > largest->n)
			largest = n;
	}
	return largest;
}

/* ---- requests ---- */

static void remove_kept(struct issuer *is, struct issue *issue)
{
	struct issue_network *n = TAKE_PTR(issue->network);

	TAILQ_REMOVE(&n->issues, issue, link);
	n->n--;
	is->n_kept--;
	put_network(is, n);
	free(TAKE_PTR(issue->message));
}

static void remove_issue(struct issuer *is, struct issue *issue)
{
	if (!issue->active)
		return;
	issue->active = false;
	if (issue->network) {
		remove_kept(is, issue);
	} else {
		TAILQ_REMOVE(&is->sent, issue, link);
		is->n_sent--;
	}
}

/* One that is on its way is answered nonetheless; by nobody's request then. */
void issue_cancel(struct issuer *is, struct issue *issue)
{
	remove_issue(is, issue);
}

/* 1: sent; 0: there is no room now; -errno */
static int send_one(struct issuer *is, struct issue *issue)
{
	ssize_t n = TEMP_FAILURE_RETRY(
		send(is->fd, issue->message, issue->message_len, MSG_DONTWAIT | MSG_NOSIGNAL));

	if (n < 0)
		return errno == EAGAIN ? 0 : -errno;
	return 1;
}

/* The network whose turn it is goes to the end of the line. */
static void send_kept(struct issuer *is)
{
	while (is->n_sent < SENT_MAX && !TAILQ_EMPTY(&is->networks)) {
		struct issue_network *n = TAILQ_FIRST(&is->networks);
		struct issue *issue = TAILQ_FIRST(&n->issues);
		int ret = send_one(is, issue);

		if (!ret)
			return;
		TAILQ_REMOVE(&is->networks, n, link);
		TAILQ_INSERT_TAIL(&is->networks, n, link);
		remove_kept(is, issue);
		if (ret > 0) {
			TAILQ_INSERT_TAIL(&is->sent, issue, link);
			is->n_sent++;
			continue;
		}
		issue->active = false;
		issue->done(issue, NULL);
	}
}

static void drop_newest(struct issuer *is, struct issue_network *n)
{
	struct issue *issue = TAILQ_LAST(&n->issues, issue_list);

	remove_issue(is, issue);
	issue->dropped = true;
	issue->done(issue, NULL);
}

/* Room for one more of the network like; -EBUSY: it has most already. */
static int make_room(struct issuer *is, const struct sockaddr *peer)
{
	struct issue_network like;

	network_of(peer, &like);
	/* More than one: who waited for a dropped one's certificate now asks itself. */
	while (is->n_kept >= is->max) {
		struct issue_network *own = find_network(is, &like);
		struct issue_network *largest = largest_network(is);

		if (own && own->n >= largest->n)
			return -EBUSY;
		drop_newest(is, largest);
	}
	return 0;
}

int issue_start(struct issuer *is, struct issue *issue, const struct signer_ask *ask)
{
	/* Taken at once: making room may start another request in between. */
	uint64_t id = is->next_id++;
	ssize_t n = signer_build_request(id, ask, is->buf);
	scoped_mem uint8_t *message = NULL;
	struct issue_network *network;
	int ret;

	if (n < 0)
		return (int)n;
	message = malloc((size_t)n);
	if (!message)
		return -ENOMEM;
	memcpy(message, is->buf, (size_t)n);
	ret = make_room(is, ask->peer);
	if (ret)
		return ret;
	network = get_network(is, ask->peer);
	if (!network)
		return -ENOMEM;
	issue->message = TAKE_PTR(message);
	issue->message_len = (size_t)n;
	issue->id = id;
	issue->active = true;
	issue->dropped = false;
	issue->network = network;
	TAILQ_INSERT_TAIL(&network->issues, issue, link);
	network->n++;
	is->n_kept++;
	send_kept(is);
	return 0;
}

static void answered(struct issuer *is, const struct signer_response *r)
{
	struct issue *issue;

	/* Answers come in the order of the requests: the first one it is, mostly. */
	TAILQ_FOREACH (issue, &is->sent, link) {
		if (issue->id != r->id)
			continue;
		remove_issue(is, issue);
		issue->done(issue, r);
		return;
	}
}

static void ready(struct ring_op *op, int res)
{
	struct issuer *is = container_of(op, struct issuer, poll);

	if (res == -ECANCELED)
		return;
	for (;;) {
		ssize_t n =
			TEMP_FAILURE_RETRY(recv(is->fd, is->buf, SIGNER_MESSAGE_MAX, MSG_DONTWAIT));
		const struct signer_response *r;

		if (n <= 0)
			break;
		r = signer_parse_response(is->buf, (size_t)n);
		if (r)
			answered(is, r);
		if (r && r->key_len)
			OPENSSL_cleanse(is->buf, (size_t)n);
	}
	send_kept(is);
	if (!op->armed)
		ring_poll_multishot(is->ring, &is->poll, is->fd, POLLIN | POLLOUT);
}
