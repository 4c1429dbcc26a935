// SPDX-License-Identifier: Apache-2.0
/*
 * The control socket: what anybody with access to it may write, cut as the input says, and what
 * the data process tells the supervisor.
 * Input: number of bytes that come at a time, then the bytes. First byte with bit 7: they are
 * messages of the data process instead.
 */
#include "fuzz.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "supervisor/control.h"

static const struct fuzz_bound bound = {.base_us = 20000, .byte_ns = 20000};

static struct control control;
static struct sockaddr_un address = {.sun_family = AF_UNIX};
static unsigned asked;

static void request(void *arg, struct control_client *c)
{
	ENSURE(arg == &control && strlen(c->line) < REQUEST_MAX && !strchr(c->line, '\n'));
	ENSURE(!c->body || c->body_have == c->body_len);
	asked++;
	control_answer(c, "ok\n");
}

static void remove_socket(void)
{
	control_close(&control);
}

static void begin(void)
{
	snprintf(address.sun_path, sizeof(address.sun_path), "/tmp/fuzz-control.%d", getpid());
	control.request = request;
	control.arg = &control;
	ENSURE(!control_open(&control, address.sun_path, 0600, NULL));
	atexit(remove_socket);
}

static void turn(void)
{
	struct pollfd p[CONTROL_CLIENTS + 64];
	unsigned n = control_poll(&control, p);

	ENSURE(n <= CONTROL_CLIENTS + 64 && poll(p, n, 0) >= 0);
	control_turn(&control, p, n);
}

/* What is sent is answered, or the end is seen: the supervisor keeps nobody. */
static void converse(struct fuzz_input in, size_t step)
{
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	char answer[4096];
	size_t n;

	ENSURE(fd >= 0 && !connect(fd, (struct sockaddr *)&address, sizeof(address)));
	turn();
	asked = 0;
	while (in.left) {
		const uint8_t *p = fuzz_bytes(&in, step, &n);

		if (send(fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
			break;
		turn();
	}
	ENSURE(asked <= 1);
	ENSURE(recv(fd, answer, sizeof(answer), MSG_DONTWAIT) || !asked);
	close(fd);
	turn();
}

static void outcomes(struct fuzz_input in)
{
	struct offload_question question;
	enum outcome outcome;
	uint32_t id;
	int pair[2];
	size_t n;

	ENSURE(!socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair));
	while (in.left) {
		size_t len = fuzz_byte(&in);
		const uint8_t *p = fuzz_bytes(&in, len, &n);

		ENSURE(send(pair[0], p, n, 0) == (ssize_t)n);
		if (answer_outcome(pair[1], &id, &outcome, &question))
			ENSURE((unsigned)outcome <= OUTCOME_ASKS);
	}
	close(pair[0]);
	close(pair[1]);
}

static void run(void *arg)
{
	struct fuzz_input in = *(struct fuzz_input *)arg;
	unsigned how = fuzz_byte(&in);

	if (how & 0x80)
		outcomes(in);
	else
		converse(in, in.left / 50 + 1 + how);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};

	if (!address.sun_path[0])
		begin();
	fuzz_bounded(&bound, size, run, &in);
	return 0;
}
