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

static uint64_t sum_reason(struct stats *const *blocks, unsigned n, unsigned r)
{
	return sum(blocks, n, offsetof(struct stats, reason) + r * sizeof(uint64_t));
}

/* By its name: see COUNTERS. */
static bool is_gauge(const char *name)
{
	static const char ending[] = "_active";
	size_t len = strlen(name);

	return len >= sizeof(ending) && !strcmp(name + len - (sizeof(ending) - 1), ending);
}

void stats_write(struct stats *const *blocks, unsigned n, const struct gauges *gauges, FILE *out)
{
#define X(name, help)                                                                              \
	fprintf(out, "%s %" PRIu64 "\n", #name, sum(blocks, n, offsetof(struct stats, name)));
	COUNTERS(X)
#undef X
	for (unsigned r = 0; r < REASON_COUNT; r++)
		fprintf(out, "reason_%s %" PRIu64 "\n", reasons[r].name, sum_reason(blocks, n, r));
#define X(name, help) fprintf(out, "%s %" PRIu64 "\n", #name, gauges->name);
	GAUGES(X)
#undef X
}

/* A family's head. Our texts have no backslash and no line feed, which would need escapes. */
static void write_head(const char *name, const char *kind, const char *help, FILE *out)
{
	fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind);
}

/* ktlsgate_NAME for gauges, ktlsgate_NAME_total for counters, the unit at the end. */
static void write_metric(const char *name, const char *help, uint64_t value, bool gauge, FILE *out)
{
	static const char unit[] = "bytes_";
	bool bytes = !strncmp(name, unit, sizeof(unit) - 1);
	char full[128];

	snprintf(full, sizeof(full), "ktlsgate_%s%s%s", bytes ? name + sizeof(unit) - 1 : name,
		 bytes ? "_bytes" : "", gauge ? "" : "_total");
	write_head(full, gauge ? "gauge" : "counter", help, out);
	fprintf(out, "%s %" PRIu64 "\n", full, value);
}

void stats_write_metrics(struct stats *const *blocks, unsigned n, const struct gauges *gauges,
			 FILE *out)
{
	write_head("ktlsgate_build_info", "gauge", "1, with the version as a label", out);
	fputs("ktlsgate_build_info{version=\"" KTLSGATE_VERSION "\"} 1\n", out);
#define X(name, help)                                                                              \
	write_metric(#name, help, sum(blocks, n, offsetof(struct stats, name)), is_gauge(#name),   \
		     out);
	COUNTERS(X)
#undef X
	write_head("ktlsgate_flows_ended_total", "counter", "flows ended, by the reason", out);
	for (unsigned r = 0; r < REASON_COUNT; r++)
		fprintf(out, "ktlsgate_flows_ended_total{reason=\"%s\"} %" PRIu64 "\n",
			reasons[r].name, sum_reason(blocks, n, r));
#define X(name, help) write_metric(#name, help, gauges->name, true, out);
	GAUGES(X)
#undef X
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
