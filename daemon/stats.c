/* SPDX-License-Identifier: Apache-2.0 */
/* Sums the workers' counters for the control thread; see stats.h. */
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>
#include "stats.h"

static uint64_t sum(struct stats *const *blocks, unsigned n, size_t offset)
{
	uint64_t total = 0;

	for (unsigned i = 0; i < n; i++) {
		_Atomic uint64_t *counter = (void *)((char *)blocks[i] + offset);

		total += atomic_load_explicit(counter, memory_order_relaxed);
	}
	return total;
}

void stats_write(struct stats *const *blocks, unsigned n, FILE *out)
{
#define X(name, help)                                                                              \
	fprintf(out, "%s %" PRIu64 "\n", #name, sum(blocks, n, offsetof(struct stats, name)));
	COUNTERS(X)
#undef X
	for (unsigned r = 0; r < REASON_COUNT; r++)
		fprintf(out, "reason_%s %" PRIu64 "\n", reasons[r].name,
			sum(blocks, n, offsetof(struct stats, reason) + r * sizeof(uint64_t)));
}

/* By its name: see COUNTERS. */
static bool is_gauge(const char *name)
{
	static const char ending[] = "_active";
	size_t len = strlen(name);

	return len >= sizeof(ending) && !strcmp(name + len - (sizeof(ending) - 1), ending);
}

void stats_print_table(FILE *out)
{
	fputs("name\tkind\thelp\n", out);
#define X(name, help)                                                                              \
	fprintf(out, "%s\t%s\t%s\n", #name, is_gauge(#name) ? "gauge" : "counter", help);
	COUNTERS(X)
#undef X
	for (unsigned r = 0; r < REASON_COUNT; r++)
		fprintf(out, "reason_%s\tcounter\t%s\n", reasons[r].name, reasons[r].text);
#define X(name, help) fprintf(out, "%s\tgauge\t%s\n", #name, help);
	GAUGES(X)
#undef X
}
