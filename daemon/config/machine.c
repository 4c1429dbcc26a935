// SPDX-License-Identifier: Apache-2.0
/* Memory and descriptors that there are, and the limits they lead to; see machine.h. */
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include "config/machine.h"
#include "base/scoped.h"

#define MIB	       (1u << 20)
#define MEMORY_LEAST   64u	    /* MiB */
#define FLOW_MEMORY    (32u << 10)  /* of the machine's memory, with the kernel's part */
#define HANDSHAKE_COST (192u << 10) /* of a client that sends limit.handshake_size */
#define LIMIT_MOST     10000000u
#define SOURCE_LEAST   16u

/* ---- memory ---- */

static FILE *open_below(const char *root, const char *path)
{
	char name[PATH_MAX];

	if (snprintf(name, sizeof(name), "%s%s", root, path) >= (int)sizeof(name))
		return NULL;
	return fopen(name, "re");
}

static uint64_t physical_memory(const char *root)
{
	scoped_file *f = open_below(root, "/proc/meminfo");
	uint64_t kib;

	return f && fscanf(f, "MemTotal: %" SCNu64, &kib) == 1 ? kib << 10 : UINT64_MAX;
}

/* UINT64_MAX: "max", or there is no such file. */
static uint64_t read_bound(const char *root, const char *group, const char *file)
{
	char path[PATH_MAX];
	scoped_file *f = NULL;
	uint64_t bytes;

	if (snprintf(path, sizeof(path), "/sys/fs/cgroup%s/%s", group, file) >= (int)sizeof(path))
		return UINT64_MAX;
	f = open_below(root, path);
	return f && fscanf(f, "%" SCNu64, &bytes) == 1 ? bytes : UINT64_MAX;
}

static uint64_t less(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* Of a group and all those above it, up to the hierarchy's root, whose path has `top` bytes. */
static uint64_t group_bound(const char *root, char *group, size_t top)
{
	uint64_t bound = UINT64_MAX;

	for (;;) {
		bound = less(bound, read_bound(root, group, "memory.max"));
		bound = less(bound, read_bound(root, group, "memory.high"));
		bound = less(bound, read_bound(root, group, "memory.limit_in_bytes"));
		if (strlen(group) <= top)
			return bound;
		*strrchr(group, '/') = '\0';
	}
}

/* A line of /proc/self/cgroup: "0::/path" (version 2) or "4:memory:/path" (version 1). */
static uint64_t line_bound(const char *root, const char *line)
{
	char controllers[128] = "", path[PATH_MAX - 16], group[PATH_MAX];
	bool second = !strncmp(line, "0::", 3);

	if (second ? sscanf(line, "0::%4079s", path) != 1
		   : sscanf(line, "%*u:%127[^:]:%4079s", controllers, path) != 2)
		return UINT64_MAX;
	if (path[0] != '/' || (!second && strcmp(controllers, "memory")))
		return UINT64_MAX;
	snprintf(group, sizeof(group), "%s%s", second ? "" : "/memory", path[1] ? path : "");
	return group_bound(root, group, second ? 0 : strlen("/memory"));
}

uint64_t machine_memory(const char *root)
{
	scoped_file *f = open_below(root, "/proc/self/cgroup");
	uint64_t bytes = physical_memory(root);
	char line[PATH_MAX + 128];

	while (f && fgets(line, sizeof(line), f))
		bytes = less(bytes, line_bound(root, line));
	return bytes;
}

void machine_look(struct machine *m)
{
	struct rlimit lim;

	m->memory = machine_memory("");
	/* The supervisor raises the soft one to it. */
	m->descriptors = getrlimit(RLIMIT_NOFILE, &lim) ? UINT64_MAX : lim.rlim_max;
}

/* ---- limits ---- */

/* In MiB: a half. The rest is for the kernel's part, the other processes, an older configuration.
 */
static unsigned default_memory(const struct machine *m)
{
	uint64_t mib = m->memory / 2 / MIB;

	if (mib < MEMORY_LEAST)
		return MEMORY_LEAST;
	return (unsigned)less(mib, MIB);
}

/* Two descriptors each, and a quarter of all for listening sockets, pipes and the rest. */
static unsigned default_flows(const struct machine *m)
{
	uint64_t flows = less(m->descriptors / 8 * 3, m->memory / FLOW_MEMORY);

	return (unsigned)less(flows ? flows : 1, LIMIT_MOST);
}

/* Half of the memory that there may be in all, were each as costly as it can be. */
static unsigned default_handshakes(const struct machine *m, const struct config *cfg)
{
	uint64_t memory = cfg->limit_memory ? cfg->limit_memory : default_memory(m);
	uint64_t most = memory * MIB / 2 / HANDSHAKE_COST;

	return (unsigned)less(most ? most : 1, LIMIT_MOST);
}

/* One host alone shall not have all places; a proxy or a NAT gets by with half of them. */
static unsigned default_per_source(unsigned handshakes)
{
	if (!handshakes)
		return 0;
	return handshakes / 2 > SOURCE_LEAST ? handshakes / 2 : SOURCE_LEAST;
}

void machine_settle_limits(const struct machine *m, struct config *cfg)
{
	if (cfg->limit_memory == CFG_AUTO)
		cfg->limit_memory = default_memory(m);
	if (cfg->limit_flows == CFG_AUTO)
		cfg->limit_flows = default_flows(m);
	if (cfg->limit_handshakes == CFG_AUTO)
		cfg->limit_handshakes = default_handshakes(m, cfg);
	if (cfg->limit_handshakes_per_source == CFG_AUTO)
		cfg->limit_handshakes_per_source = default_per_source(cfg->limit_handshakes);
}
