// SPDX-License-Identifier: Apache-2.0
/* limit.c: what is shown of memory, however often somebody asks. */
#include "unit.h"
#include <stdlib.h>
#include <time.h>
#include "flow/limit.h"

#define PIECES 50000
#define ASKED  2000

static double cpu_seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* A heap full of holes, as thousands of flows leave it: a look takes malloc milliseconds. */
static void test_memory_shown(void)
{
	struct config cfg = {0};
	struct limits_flows flows = {0};
	struct limits *l = limits_new(&cfg, &flows);
	void **held = calloc(2 * PIECES, sizeof(*held));
	double before, look, asked;
	uint64_t shown = 0;

	for (size_t i = 0; i < 2 * PIECES; i++)
		held[i] = malloc(1100);
	for (size_t i = 0; i < 2 * PIECES; i += 2)
		free(held[i]);
	before = cpu_seconds();
	CHECK(limits_memory() > PIECES * 1100ull);
	look = cpu_seconds() - before;
	before = cpu_seconds();
	for (unsigned i = 0; i < ASKED; i++)
		shown = limits_memory_shown(l);
	asked = cpu_seconds() - before;
	CHECK(shown > PIECES * 1100ull);
	if (asked > look * ASKED / 10)
		printf("one look %.4f s, %d times asked %.4f s\n", look, ASKED, asked);
	CHECK(asked < look * ASKED / 10);
	for (size_t i = 1; i < 2 * PIECES; i += 2)
		free(held[i]);
	free(held);
	limits_free(l);
}

int main(void)
{
	test_memory_shown();
	return unit_end();
}
