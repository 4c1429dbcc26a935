/* SPDX-License-Identifier: Apache-2.0 */
/* The area of all workers' counters, and their sums; see stats.h. */
#include <inttypes.h>
#include <sched.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include "stats.h"

struct slot {
	_Atomic uint32_t workers; /* 0: unused */
	struct stats by_worker[STATS_WORKERS];
};

struct stats_area {
	_Atomic uint32_t moves; /* odd: a slot's counts are on their way to `ended` */
	struct stats ended;	/* of all processes that are gone */
	struct slot slots[STATS_SLOTS];
};

/* By its name: see COUNTERS. */
static bool is_gauge(const char *name)
{
	static const char ending[] = "_active";
	size_t len = strlen(name);

	return len >= sizeof(ending) && !strcmp(name + len - (sizeof(ending) - 1), ending);
}

struct stats_area *stats_area_new(void)
{
	struct stats_area *area = mmap(NULL, sizeof(*area), PROT_READ | PROT_WRITE,
				       MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	return area == MAP_FAILED ? NULL : area;
}

void stats_area_free(struct stats_area *area)
{
	if (area)
		munmap(area, sizeof(*area));
}

struct stats *stats_area_begin(struct stats_area *area, unsigned slot, unsigned workers)
{
	struct slot *s = &area->slots[slot];

	memset(s->by_worker, 0, workers * sizeof(s->by_worker[0]));
	s->workers = workers;
	return s->by_worker;
}

unsigned stats_area_slots(const struct stats_area *area)
{
	unsigned n = 0;

	for (unsigned i = 0; i < STATS_SLOTS; i++)
		n += area->slots[i].workers != 0;
	return n;
}

static uint64_t read_counter(const struct stats *s, size_t offset)
{
	_Atomic uint64_t *counter = (void *)((char *)s + offset);

	return atomic_load_explicit(counter, memory_order_relaxed);
}

uint64_t stats_area_sum(const struct stats_area *area, unsigned slot, size_t offset)
{
	const struct slot *s = &area->slots[slot];
	uint64_t total = 0;

	for (unsigned w = 0; w < s->workers; w++)
		total += read_counter(&s->by_worker[w], offset);
	return total;
}

static uint64_t sum_once(const struct stats_area *area, size_t offset)
{
	uint64_t total = read_counter(&area->ended, offset);

	for (unsigned i = 0; i < STATS_SLOTS; i++)
		total += stats_area_sum(area, i, offset);
	return total;
}

/* The supervisor may be moving a slot's counts meanwhile: none may be counted twice or not. */
static uint64_t sum(const struct stats_area *area, size_t offset)
{
	for (;;) {
		uint32_t before = area->moves;
		uint64_t total = sum_once(area, offset);

		if (!(before & 1) && area->moves == before)
			return total;
		sched_yield();
	}
}

static uint64_t sum_reason(const struct stats_area *area, unsigned r)
{
	return sum(area, offsetof(struct stats, reason) + r * sizeof(uint64_t));
}

void stats_area_end(struct stats_area *area, unsigned slot)
{
	area->moves++;
#define X(name, help)                                                                              \
	if (!is_gauge(#name))                                                                      \
		area->ended.name += stats_area_sum(area, slot, offsetof(struct stats, name));
	COUNTERS(X)
#undef X
	for (unsigned r = 0; r < REASON_COUNT; r++)
		area->ended.reason[r] += stats_area_sum(
			area, slot, offsetof(struct stats, reason) + r * sizeof(uint64_t));
	area->slots[slot].workers = 0;
	area->moves++;
}

void stats_write(const struct stats_area *area, const struct gauges *gauges, FILE *out)
{
#define X(name, help)                                                                              \
	fprintf(out, "%s %" PRIu64 "\n", #name, sum(area, offsetof(struct stats, name)));
	COUNTERS(X)
#undef X
	for (unsigned r = 0; r < REASON_COUNT; r++)
		fprintf(out, "reason_%s %" PRIu64 "\n", reasons[r].name, sum_reason(area, r));
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

void stats_write_metrics(const struct stats_area *area, const struct gauges *gauges, FILE *out)
{
	write_head("ktlsgate_build_info", "gauge", "1, with the version as a label", out);
	fputs("ktlsgate_build_info{version=\"" KTLSGATE_VERSION "\"} 1\n", out);
#define X(name, help)                                                                              \
	write_metric(#name, help, sum(area, offsetof(struct stats, name)), is_gauge(#name), out);
	COUNTERS(X)
#undef X
	write_head("ktlsgate_flows_ended_total", "counter", "flows ended, by the reason", out);
	for (unsigned r = 0; r < REASON_COUNT; r++)
		fprintf(out, "ktlsgate_flows_ended_total{reason=\"%s\"} %" PRIu64 "\n",
			reasons[r].name, sum_reason(area, r));
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
