// SPDX-License-Identifier: Apache-2.0
/*
 * Any bytes as a configuration file. What is accepted must print, and what is
 * printed must be accepted again and print the same.
 *   clang -fsanitize=fuzzer,address -Idaemon tests/fuzz/fuzz_config.c <daemon objects> -lssl
 * -lcrypto
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct config *load(const void *data, size_t len)
{
	scoped_fd fd = memfd_create("fuzz", MFD_CLOEXEC);
	char path[40], *errors = NULL;
	struct config *cfg = NULL;
	size_t size = 0;
	FILE *e;

	if (fd < 0 || write(fd, data, len) != (ssize_t)len)
		abort();
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	e = open_memstream(&errors, &size);
	if (!e)
		abort();
	if (config_load(path, e, &cfg) != (cfg ? 0 : -22))
		abort();
	fclose(e);
	if (!cfg != (size > 0)) /* errors are told, and only errors */
		abort();
	free(errors);
	return cfg;
}

static char *print(const struct config *cfg, size_t *size)
{
	char *text = NULL;
	FILE *f = open_memstream(&text, size);

	if (!f || !config_print(cfg, NULL, f))
		abort();
	fclose(f);
	return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct config *cfg = load(data, len), *again;
	size_t size = 0, size_again = 0;
	char *text, *text_again;

	if (!cfg)
		return 0;
	text = print(cfg, &size);
	again = load(text, size);
	if (!again)
		abort();
	text_again = print(again, &size_again);
	if (size != size_again || memcmp(text, text_again, size))
		abort();
	free(text);
	free(text_again);
	config_free(cfg);
	config_free(again);
	return 0;
}
