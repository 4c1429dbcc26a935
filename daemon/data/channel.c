// SPDX-License-Identifier: Apache-2.0
/* The messages between the supervisor and the data process, for both ends. Knows no answer. */
#include "data/channel.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include "data/answer.h"
#include "base/log.h"

/* ---- the channel ---- */

static int send_message(int channel, const struct message *m, int fd)
{
	struct iovec iov = {(void *)m, sizeof(*m)};
	union rights rights = {0};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (fd >= 0) {
		msg.msg_control = &rights;
		msg.msg_controllen = sizeof(rights.space);
		rights.head = (struct cmsghdr){
			.cmsg_level = SOL_SOCKET,
			.cmsg_type = SCM_RIGHTS,
			.cmsg_len = CMSG_LEN(sizeof(int)),
		};
		memcpy(CMSG_DATA(&rights.head), &fd, sizeof(fd));
	}
	return sendmsg(channel, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -1 : 0;
}

int answer_tell_retire(int channel)
{
	return send_message(channel, &(struct message){.retire = true}, -1);
}

int answer_tell_watch(int channel, int fd)
{
	return send_message(channel, &(struct message){.watch = true}, fd);
}

int answer_tell_offload(int channel, const struct offload_answer *answer)
{
	return send_message(channel, &(struct message){.offload = *answer}, -1);
}

int answer_hand_over(int channel, const struct handed *handed, int fd)
{
	struct message m = {
		.id = handed->id,
		.first = handed->first,
		.others = *handed->others,
		.generations = handed->generations,
	};

	snprintf(m.line, sizeof(m.line), "%s", handed->line);
	return send_message(channel, &m, fd);
}

bool answer_outcome(int channel, uint32_t *id, enum outcome *out, struct offload_question *question)
{
	/* Workers write their question as it is, see flow.c. */
	union {
		struct outcome_told told;
		struct offload_question question;
	} said;
	const struct outcome_told *r = &said.told;
	ssize_t n = recv(channel, &said, sizeof(said), MSG_DONTWAIT);

	_Static_assert(sizeof(said.told) != sizeof(said.question), "told apart by their sizes");
	if (n == sizeof(said.question)) {
		*question = said.question;
		*id = NO_ID;
		*out = OUTCOME_ASKS;
		return true;
	}
	if (n != sizeof(*r))
		return false;
	*id = r->id;
	*out = r->outcome <= OUTCOME_NONE ? (enum outcome)r->outcome : OUTCOME_NONE;
	return true;
}

/* >0: a message, with *fd or -1; 0: the end. */
ssize_t channel_receive(int channel, struct message *m, int *fd)
{
	struct iovec iov = {m, sizeof(*m)};
	union rights rights = {0};
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &rights,
		.msg_controllen = sizeof(rights.space),
	};
	ssize_t n = TEMP_FAILURE_RETRY(recvmsg(channel, &msg, MSG_CMSG_CLOEXEC));
	const struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&msg) : NULL;

	*fd = -1;
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
		memcpy(fd, CMSG_DATA(c), sizeof(*fd));
	return n == sizeof(*m) ? n : 0;
}

/* ---- requests ---- */

void channel_tell_outcome(int channel, uint32_t id, enum outcome outcome)
{
	struct outcome_told r = {.id = id, .outcome = outcome};

	if (send(channel, &r, sizeof(r), MSG_NOSIGNAL) < 0)
		log_warn("the supervisor cannot be answered: %s", strerror(errno));
}
