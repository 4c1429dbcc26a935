// SPDX-License-Identifier: Apache-2.0
/* libbpf's messages, and the sizes of maps; see bpf_load.h. */
#include "steer/bpf_load.h"

#include <string.h>
#include <bpf/libbpf.h>
#include "base/log.h"

static int printf_like(2, 0) to_log(enum libbpf_print_level level, const char *fmt, va_list args)
{
	char line[512];
	int n;

	(void)level;
	if (!log_enabled(LOG_LEVEL_DEBUG))
		return 0;
	n = vsnprintf(line, sizeof(line), fmt, args);
	line[strcspn(line, "\n")] = '\0';
	log_debug("%s", line);
	return n;
}

void bpf_load_messages(void)
{
	libbpf_set_print(to_log);
}

int bpf_load_size(struct bpf_map *map, unsigned n)
{
	return bpf_map__set_max_entries(map, n ? n : 1);
}
