/* SPDX-License-Identifier: Apache-2.0 */
/* Sums of all workers' counters, and their names; see stats.h. */
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>
#include "conn/stats.h"

_Static_assert(sizeof(struct stats) % sizeof(uint64_t) == 0, "nothing but numbers");

#define PLACE(name) (offsetof(struct stats, name) / sizeof(uint64_t))

/* By its name: see COUNTERS. */
static bool is_gauge(const char *name)
{
	static const char ending[] = "_active";
	size_t len = strlen(name);

	return len >= sizeof(ending) && !strcmp(name + len - (sizeof(ending) - 1), ending);
}

/* Of one worker, the number at this place. */
static uint64_t read_counter(const struct stats *s, size_t place)
{
	const _Atomic uint64_t *counters = (const void *)s;

	return atomic_load_explicit(&counters[place], memory_order_relaxed);
}

static uint64_t sum(const struct stats *by_worker, unsigned workers, size_t place)
{
	uint64_t total = 0;

	for (unsigned w = 0; w < workers; w++)
		total += read_counter(&by_worker[w], place);
	return total;
}

void stats_add(struct stats_sums *sums, const struct stats *by_worker, unsigned workers)
{
	for (size_t i = 0; i < STATS_VALUES; i++)
		sums->value[i] += sum(by_worker, workers, i);
}

void stats_add_ended(struct stats_sums *sums, const struct stats *by_worker, unsigned workers)
{
	struct stats_sums before = *sums;

	stats_add(sums, by_worker, workers);
#define X(name, help)                                                                              \
	if (is_gauge(#name))                                                                       \
		sums->value[PLACE(name)] = before.value[PLACE(name)];
	COUNTERS(X)
#undef X
}

uint64_t stats_flows(const struct stats *by_worker, unsigned workers)
{
	return sum(by_worker, workers, PLACE(flows_active));
}

static uint64_t sum_reason(const struct stats_sums *sums, unsigned r)
{
	return sums->value[PLACE(reason) + r];
}

void stats_write(const struct stats_sums *sums, const struct gauges *gauges, FILE *out)
{
#define X(name, help) fprintf(out, "%s %" PRIu64 "\n", #name, sums->value[PLACE(name)]);
	COUNTERS(X)
#undef X
	for (unsigned r = 0; r < REASON_COUNT; r++)
		fprintf(out, "reason_%s %" PRIu64 "\n", reasons[r].name, sum_reason(sums, r));
#define X(name, help) fprintf(out, "%s %" PRIu64 "\n", #name, gauges->name);
	GAUGES(X)
	KERNEL_COUNTERS(X)
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

void stats_write_metrics(const struct stats_sums *sums, const struct gauges *gauges, FILE *out)
{
	write_head("ktlsgate_build_info", "gauge", "1, with the version as a label", out);
	fputs("ktlsgate_build_info{version=\"" KTLSGATE_VERSION "\"} 1\n", out);
#define X(name, help) write_metric(#name, help, sums->value[PLACE(name)], is_gauge(#name), out);
	COUNTERS(X)
#undef X
	write_head("ktlsgate_flows_ended_total", "counter", "flows ended, by the reason", out);
	for (unsigned r = 0; r < REASON_COUNT; r++)
		fprintf(out, "ktlsgate_flows_ended_total{reason=\"%s\"} %" PRIu64 "\n",
			reasons[r].name, sum_reason(sums, r));
#define X(name, help) write_metric(#name, help, gauges->name, true, out);
	GAUGES(X)
#undef X
#define X(name, help) write_metric(#name, help, gauges->name, false, out);
	KERNEL_COUNTERS(X)
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
#define X(name, help) fprintf(out, "%s\tcounter\t%s\n", #name, help);
	KERNEL_COUNTERS(X)
#undef X
}
