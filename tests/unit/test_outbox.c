// SPDX-License-Identifier: Apache-2.0
/* outbox.c: where an answer may be cut, what is held back, and when a reader has had its time. */
#include "unit.h"
#include "unit_tls.h"
#include <fcntl.h>
#include <sys/socket.h>
#include "base/outbox.h"

#define NOW 1000 /* ms */

static int open_pair(int pair[2])
{
	return socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair);
}

static int add(struct outbox *o, const char *text)
{
	return outbox_add(o, strdup(text), strlen(text), NOW);
}

/* What has come, as a string. */
static char *heard(int fd)
{
	static char text[1 << 20];
	size_t len = 0;
	ssize_t n;

	while ((n = recv(fd, text + len, sizeof(text) - 1 - len, 0)) > 0)
		len += (size_t)n;
	text[len] = '\0';
	return text;
}

static void test_held_back(void)
{
	struct outbox o = {.more = true};
	int pair[2];

	MUST(!open_pair(pair));
	CHECK(!add(&o, "ok\n"));
	CHECK_INT(outbox_send(&o, pair[0], NOW), OUTBOX_SENT);
	CHECK(!strcmp(heard(pair[1]), "ok"));
	CHECK(!add(&o, "one\n\n"));
	CHECK_INT(outbox_send(&o, pair[0], NOW), OUTBOX_SENT);
	CHECK(!strcmp(heard(pair[1]), "\none"));
	CHECK(!add(&o, ""));
	o.more = false;
	CHECK_INT(outbox_send(&o, pair[0], NOW), OUTBOX_SENT);
	CHECK(!strcmp(heard(pair[1]), "\n\n"));
	outbox_free(&o);
	close(pair[0]);
	outbox_close(pair[1]);
}

/* Lines of each length around that of a piece: wherever it stops, no line has ended. */
static void test_cut(size_t line)
{
	struct outbox o = {0};
	size_t len = 600000;
	char *text = malloc(len), *got;
	int pair[2];

	MUST(!open_pair(pair) && text);
	for (size_t i = 0; i < len; i++)
		text[i] = i % line == line - 1 || i == len - 1 ? '\n' : 'x';
	CHECK(!outbox_add(&o, text, len, NOW));
	for (;;) {
		enum outbox_state state = outbox_send(&o, pair[0], NOW);

		if (state == OUTBOX_SENT)
			break;
		CHECK_INT(state, OUTBOX_FULL);
		got = heard(pair[1]);
		CHECK(*got && got[strlen(got) - 1] == 'x');
	}
	got = heard(pair[1]);
	CHECK(*got && got[strlen(got) - 1] == '\n');
	outbox_free(&o);
	close(pair[0]);
	close(pair[1]);
}

static void test_patience(void)
{
	struct outbox o = {0};
	size_t len = 4 << 20;
	char *text = calloc(1, len);
	uint64_t now = NOW;
	int pair[2];

	MUST(!open_pair(pair) && text);
	CHECK(!outbox_add(&o, text, len, now));
	CHECK_INT(outbox_send(&o, pair[0], now), OUTBOX_FULL);
	CHECK_INT(outbox_deadline(&o), now + OUTBOX_STALL_MS);
	now += OUTBOX_STALL_MS - 1;
	CHECK_INT(outbox_send(&o, pair[0], now), OUTBOX_FULL);
	/* What is read gives more time, but not for ever. */
	while (now < NOW + OUTBOX_MS) {
		char some[8192];

		for (int i = 0; i < 4; i++)
			CHECK(recv(pair[1], some, sizeof(some), 0) > 0);
		CHECK_INT(outbox_send(&o, pair[0], now), OUTBOX_FULL);
		CHECK(outbox_deadline(&o) > now);
		now += OUTBOX_STALL_MS - 1;
	}
	CHECK_INT(outbox_send(&o, pair[0], now), OUTBOX_LEAVE);
	close(pair[1]);
	CHECK_INT(outbox_send(&o, pair[0], NOW), OUTBOX_LEAVE);
	outbox_free(&o);
	close(pair[0]);
}

int main(void)
{
	static const size_t lines[] = {1, 2, 7, 350, 4095, 4096, 4097, 100000};

	test_held_back();
	for (size_t i = 1; i < sizeof(lines) / sizeof(*lines); i++)
		test_cut(lines[i]);
	test_patience();
	return unit_end();
}
