// SPDX-License-Identifier: Apache-2.0
/* machine: the memory of control groups, in trees of files made for it, and the limits they lead
 * to. */
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "config/machine.h"
#include "unit.h"

#define GIB (1ull << 30)

static char root[] = "/tmp/ktlsgate-machine-XXXXXX";

/* A file and the directories in front of it. */
static void put(const char *path, const char *text)
{
	char name[PATH_MAX];
	FILE *f;

	snprintf(name, sizeof(name), "%s%s", root, path);
	for (char *p = name + strlen(root) + 1; (p = strchr(p, '/')); p++) {
		*p = '\0';
		mkdir(name, 0700);
		*p = '/';
	}
	f = fopen(name, "w");
	CHECK(f && fputs(text, f) >= 0 && !fclose(f));
}

static void test_memory(void)
{
	CHECK(machine_memory(root) == UINT64_MAX); /* nothing can be read */
	put("/proc/meminfo", "MemTotal:       16777216 kB\nMemFree: 1 kB\n");
	CHECK_INT(machine_memory(root), 16 * GIB);

	put("/proc/self/cgroup", "1:name=systemd:/x\n0::/system.slice/gate.service\n");
	CHECK_INT(machine_memory(root), 16 * GIB);
	put("/sys/fs/cgroup/system.slice/gate.service/memory.max", "max\n");
	CHECK_INT(machine_memory(root), 16 * GIB);
	put("/sys/fs/cgroup/system.slice/memory.max", "4294967296\n"); /* of a group above */
	CHECK_INT(machine_memory(root), 4 * GIB);
	put("/sys/fs/cgroup/system.slice/gate.service/memory.high", "2147483648\n");
	CHECK_INT(machine_memory(root), 2 * GIB);

	put("/proc/self/cgroup", "0::/\n"); /* a container's */
	CHECK_INT(machine_memory(root), 16 * GIB);
	put("/sys/fs/cgroup/memory.max", "1073741824\n");
	CHECK_INT(machine_memory(root), GIB);

	put("/proc/self/cgroup", "5:cpu,cpuacct:/y\n4:memory:/docker/abc\n0::/nowhere\n");
	put("/sys/fs/cgroup/memory.max", "max\n");
	CHECK_INT(machine_memory(root), 16 * GIB);
	put("/sys/fs/cgroup/memory/docker/memory.limit_in_bytes", "536870912\n");
	put("/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "9223372036854771712\n");
	CHECK_INT(machine_memory(root), GIB / 2);
	put("/proc/self/cgroup", "4:memory:../../etc\n0::\n:\n4:memory\n"); /* nonsense */
	CHECK_INT(machine_memory(root), 16 * GIB);
}

static void test_limits(void)
{
	struct config cfg = {.limit_memory = CFG_AUTO,
			     .limit_flows = CFG_AUTO,
			     .limit_handshakes = CFG_AUTO,
			     .limit_handshakes_per_source = CFG_AUTO};
	struct config off = {.limit_handshakes_per_source = CFG_AUTO};
	struct config memory_off = {.limit_handshakes = CFG_AUTO};
	struct machine m = {.memory = 2 * GIB, .descriptors = 524288};

	machine_settle_limits(&m, &cfg);
	CHECK_INT(cfg.limit_memory, 1024);
	CHECK_INT(cfg.limit_flows, 65536);     /* by memory */
	CHECK_INT(cfg.limit_handshakes, 2730); /* 512 MiB of 192 KiB each */
	CHECK_INT(cfg.limit_handshakes_per_source, 1365);

	cfg.limit_flows = CFG_AUTO;
	m.descriptors = 1024;
	machine_settle_limits(&m, &cfg);
	CHECK_INT(cfg.limit_flows, 384); /* by descriptors */

	machine_settle_limits(&m, &off); /* as somebody has set it */
	CHECK_INT(off.limit_flows + off.limit_memory + off.limit_handshakes, 0);
	CHECK_INT(off.limit_handshakes_per_source, 0);
	machine_settle_limits(&m, &memory_off);
	CHECK_INT(memory_off.limit_handshakes, 2730);

	cfg = (struct config){
		.limit_memory = CFG_AUTO, .limit_flows = CFG_AUTO, .limit_handshakes = CFG_AUTO};
	m = (struct machine){.memory = UINT64_MAX, .descriptors = UINT64_MAX};
	machine_settle_limits(&m, &cfg); /* nothing is known: within the keys' ranges */
	CHECK_INT(cfg.limit_memory, 1 << 20);
	CHECK_INT(cfg.limit_flows, 10000000);
	CHECK(cfg.limit_handshakes <= 10000000);
}

int main(void)
{
	char command[PATH_MAX];

	CHECK(mkdtemp(root));
	test_memory();
	test_limits();
	snprintf(command, sizeof(command), "rm -rf %s", root);
	CHECK(!system(command));
	return unit_end();
}
