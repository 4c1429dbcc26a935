// SPDX-License-Identifier: Apache-2.0
/* Text to a socket that may not take it; see outbox.h. Knows no request and no answer. */
#include "base/outbox.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#define PIECE  4096 /* a UNIX socket takes so little as a whole, or not at all */
#define PIECES 64   /* of one call */

int outbox_add(struct outbox *o, char *text, size_t len, uint64_t now)
{
	size_t left = o->len - o->off;
	char *both = left ? malloc(left + len) : text;

	if (!o->began)
		o->began = o->moved = now;
	if (!both) {
		free(text);
		return -ENOMEM;
	}
	if (left) {
		memcpy(both, o->text + o->off, left);
		memcpy(both + left, text, len);
		free(text);
	}
	free(o->text);
	o->text = both;
	o->off = 0;
	o->len = left + len;
	return 0;
}

/* Each piece but the last of all ends within a line. 0: nothing is to be sent now. */
static size_t next_piece(const struct outbox *o)
{
	size_t left = o->len - o->off, n = left < PIECE ? left : PIECE;

	if (n == left && !o->more)
		return n;
	while (n && o->text[o->off + n - 1] == '\n')
		n--;
	return n || left < PIECE ? n : PIECE;
}

enum outbox_state outbox_send(struct outbox *o, int fd, uint64_t now)
{
	size_t n = 0;

	for (unsigned i = 0; i < PIECES && (n = next_piece(o)); i++) {
		ssize_t sent = send(fd, o->text + o->off, n, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (sent < 0 && errno != EAGAIN && errno != EINTR)
			return OUTBOX_LEAVE;
		if (sent <= 0)
			return now < outbox_deadline(o) ? OUTBOX_FULL : OUTBOX_LEAVE;
		o->off += (size_t)sent;
		o->moved = now;
	}
	if (n)
		return now < o->began + OUTBOX_MS ? OUTBOX_FULL : OUTBOX_LEAVE;
	return OUTBOX_SENT;
}

uint64_t outbox_deadline(const struct outbox *o)
{
	uint64_t stall = o->moved + OUTBOX_STALL_MS, end = o->began + OUTBOX_MS;

	return stall < end ? stall : end;
}

void outbox_free(struct outbox *o)
{
	free(o->text);
	*o = (struct outbox){0};
}

/* What was not read would turn our end into a reset, and the answer may be lost. */
void outbox_close(int fd)
{
	char buf[4096];

	for (int i = 0; fd >= 0 && i < 16 && recv(fd, buf, sizeof(buf), MSG_DONTWAIT) > 0; i++)
		;
	if (fd >= 0)
		close(fd);
}
