/* SPDX-License-Identifier: Apache-2.0 */
/* Sums the workers' counters for the control thread; see stats.h. */
#include <inttypes.h>
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
