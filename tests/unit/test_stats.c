// SPDX-License-Identifier: Apache-2.0
/* Sums of counters over processes that come and go, and of numbers that no worker has counted. */
#include <fcntl.h>
#include <sys/mman.h>
#include "flow/limit.h"
#include "base/shared_memory.h"
#include "conn/stats.h"
#include "unit.h"

#define WORKERS 3

static uint64_t accepted(const struct stats_sums *sums)
{
	return sums->value[offsetof(struct stats, flows_accepted) / sizeof(uint64_t)];
}

static uint64_t active(const struct stats_sums *sums)
{
	return sums->value[offsetof(struct stats, flows_active) / sizeof(uint64_t)];
}

static void test_sums(void)
{
	struct stats blocks[WORKERS] = {0};
	struct stats_sums sums = {0};

	for (unsigned w = 0; w < WORKERS; w++) {
		stat_add(&blocks[w], flows_accepted, 10);
		stat_inc(&blocks[w], flows_active);
	}
	CHECK_INT(stats_flows(blocks, WORKERS), WORKERS);
	stats_add(&sums, blocks, WORKERS);
	CHECK_INT(accepted(&sums), 30);
	CHECK_INT(active(&sums), 3);
	stats_add_ended(&sums, blocks, WORKERS);
	CHECK_INT(accepted(&sums), 60);
	CHECK_INT(active(&sums), 3);
}

/* The last of the table, and nothing behind the blocks that there are. */
static void test_bounds(void)
{
	struct stats blocks[WORKERS + 1];
	struct stats_sums sums = {0};

	memset(blocks, 0xff, sizeof(blocks));
	memset(blocks, 0, WORKERS * sizeof(blocks[0]));
	blocks[WORKERS - 1].reason[REASON_COUNT - 1] = 1;
	stats_add(&sums, blocks, WORKERS);
	for (size_t i = 0; i < STATS_VALUES; i++)
		CHECK_INT(sums.value[i], i == STATS_VALUES - 1);
}

/* How a process that answers sees another one's memory. */
static void test_read_only_once_forbidden(void)
{
	const size_t len = sizeof(struct flow_counts);
	scoped_fd fd = shared_memory_new("test", len);
	struct flow_counts *mine = shared_memory_map_writable(fd, len);
	const struct flow_counts *theirs;

	CHECK(mine && !shared_memory_forbid_writers(fd));
	mine->by_slot[1] = 5;
	theirs = shared_memory_map(fd, len);
	CHECK(theirs && theirs->by_slot[1] == 5);
	CHECK(!shared_memory_map_writable(fd, len));
	CHECK(mprotect((void *)theirs, len, PROT_READ | PROT_WRITE));
	CHECK(write(fd, "x", 1) < 0);
	mine->by_slot[1] = 6;
	CHECK(theirs && theirs->by_slot[1] == 6);
	shared_memory_unmap(theirs, len);
	shared_memory_unmap(mine, len);
}

int main(void)
{
	test_sums();
	test_bounds();
	test_read_only_once_forbidden();
	return unit_end();
}
