/* SPDX-License-Identifier: Apache-2.0 */
/* The worker's end of the signer's protocol; see issuer.h. Knows no flow. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include "issuer.h"

static void ready(struct ring_op *op, int res);

int issuer_init(struct issuer *is, struct ring *ring, int fd)
{
	is->ring = ring;
	is->fd = fd;
	TAILQ_INIT(&is->unsent);
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

static void remove_issue(struct issuer *is, struct issue *issue)
{
	if (!issue->active)
		return;
	issue->active = false;
	if (issue->message)
		TAILQ_REMOVE(&is->unsent, issue, link);
	else
		TAILQ_REMOVE(&is->sent, issue, link);
	free(issue->message);
	issue->message = NULL;
}

void issue_cancel(struct issuer *is, struct issue *issue)
{
	remove_issue(is, issue);
}

static void send_unsent(struct issuer *is)
{
	struct issue *issue;

	while ((issue = TAILQ_FIRST(&is->unsent))) {
		ssize_t n = TEMP_FAILURE_RETRY(send(is->fd, issue->message, issue->message_len,
						    MSG_DONTWAIT | MSG_NOSIGNAL));

		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0) {
			remove_issue(is, issue);
			issue->done(issue, NULL);
			continue;
		}
		TAILQ_REMOVE(&is->unsent, issue, link);
		free(TAKE_PTR(issue->message));
		TAILQ_INSERT_TAIL(&is->sent, issue, link);
	}
}

int issue_start(struct issuer *is, struct issue *issue, const struct signer_ask *ask)
{
	ssize_t n = signer_build_request(is->next_id, ask, is->buf);

	if (n < 0)
		return (int)n;
	issue->message = malloc((size_t)n);
	if (!issue->message)
		return -ENOMEM;
	memcpy(issue->message, is->buf, (size_t)n);
	issue->message_len = (size_t)n;
	issue->id = is->next_id++;
	issue->active = true;
	TAILQ_INSERT_TAIL(&is->unsent, issue, link);
	send_unsent(is);
	return 0;
}

static void answered(struct issuer *is, const struct signer_response *r)
{
	struct issue *issue;

	/* Answers come in the order of the requests: the first one it is, mostly. */
	TAILQ_FOREACH(issue, &is->sent, link)
	{
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
	}
	send_unsent(is);
	if (!op->armed)
		ring_poll_multishot(is->ring, &is->poll, is->fd, POLLIN | POLLOUT);
}
