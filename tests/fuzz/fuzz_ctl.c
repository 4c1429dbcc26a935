// SPDX-License-Identifier: Apache-2.0
/*
 * ktlsgatectl reading what answers it: root runs it, and a data process, which the network can
 * reach, answers. What it prints holds no byte that a terminal would obey.
 * Input: which command, --json or not, the answer.
 */
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

int ktlsgatectl_main(int argc, char **argv);
static int answer_instead(int fd, const struct sockaddr *address, socklen_t len);

#define main	ktlsgatectl_main
#define connect answer_instead
#include "../../tools/ktlsgatectl.c"
#undef main
#undef connect

#include "fuzz.h"

#include <unistd.h>

static const struct fuzz_bound bound = {.base_us = 20000, .byte_ns = 4000};

static struct fuzz_input answer;

/* In place of ctl_forge.c, which runs other programs. */
int ctl_forged(const char *serial, const char *path)
{
	return !serial || !path;
}

int ctl_explain(const char *service, const char *chain)
{
	return !service || !chain;
}

static int answer_instead(int fd, const struct sockaddr *address, socklen_t len)
{
	int pair[2], size = 1 << 20;

	(void)address;
	(void)len;
	ENSURE(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	(void)!send(pair[0], answer.p, answer.left, MSG_DONTWAIT | MSG_NOSIGNAL);
	shutdown(pair[0], SHUT_WR);
	ENSURE(dup2(pair[1], fd) == fd);
	close(pair[1]);
	/* Open, so that the request can be sent; closed with the next. */
	dup2(pair[0], 200);
	close(pair[0]);
	return 0;
}

static void check(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text[i];

		ENSURE((c >= ' ' && c != 0x7f) || c == '\n' || c == '\t');
		/* C1 in UTF-8 */
		ENSURE(c != 0xc2 || (i + 1 < len && (unsigned char)text[i + 1] >= 0xa0));
	}
}

static void run(void *arg)
{
	static const char *const commands[][3] = {
		{"stats"},   {"flows"},		  {"services"},		  {"status"},
		{"metrics"}, {"requests", "app"}, {"flows", "stage=*e*"}, {"log.level"},
	};
	struct fuzz_input in = *(struct fuzz_input *)arg;
	unsigned how = fuzz_byte(&in);
	const char *const *command_line = commands[how % 8];
	char *argv[] = {(char *)command_line[0], (char *)command_line[1], NULL};
	char *printed = NULL, *complained = NULL;
	size_t printed_len, complained_len;
	FILE *out = stdout, *err = stderr;

	answer = in;
	json = how & 8;
	values_only = how & 16;
	stdout = open_memstream(&printed, &printed_len);
	stderr = open_memstream(&complained, &complained_len);
	ENSURE(stdout && stderr);
	(void)command(argv[1] ? 2 : 1, argv, NULL);
	fclose(stdout);
	fclose(stderr);
	stdout = out;
	stderr = err;
	check(printed, printed_len);
	check(complained, complained_len);
	free(printed);
	free(complained);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};

	fuzz_bounded(&bound, size, run, &in);
	return 0;
}
