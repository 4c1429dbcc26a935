/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counting by connection, in the kernel: every TCP connection of the daemon's
 * own cgroup, so that other traffic pays nothing. The supervisor opens and
 * closes it; the data process is given two of the maps and, without any
 * capability, adds what only the daemon knows. The counters stay in the kernel.
 */
#ifndef KTLSGATE_COUNT_H
#define KTLSGATE_COUNT_H

#include "maps.h"
#include "base/scoped.h"

struct count;

/*
 * Makes the cgroup cgroup_name below the one we are in, moves this process
 * there, attaches the programs to it and pins the maps under bpf_dir. Counted
 * are sockets made, and listening sockets' connections where the *listening*
 * socket was made, afterwards by this process and its children. bpf_dir and
 * cgroup_name are one daemon's only; a predecessor that was killed is cleaned up
 * after. One log line on error; nothing is left behind then.
 */
int count_open(const char *bpf_dir, const char *cgroup_name, unsigned max_flows,
	       struct count **out) must_check;

/*
 * The maps flows, to be read only, and flow_info, to be written only, by descriptor; they stay
 * count's. -1 if count is NULL.
 */
int count_flows_map(const struct count *count);
int count_flow_info_map(const struct count *count);
/* In a data process: what works on two maps that it was given, now its own. -ENOMEM */
int count_use(int flows, int flow_info, struct count **out) must_check;

/*
 * Forgets what was said of connections that there are not. A data process that has ended may have
 * said anything of any number, and the kernel forgets it only when such a connection closes.
 */
void count_forget_invented(const struct count *count);

/*
 * Adds info to fd's counters in the map flow_info, until the socket closes.
 * Needs bpf(2): BPF_MAP_UPDATE_ELEM, BPF_MAP_LOOKUP_ELEM, BPF_MAP_DELETE_ELEM.
 */
void count_flow_info(const struct count *count, int fd, const struct flow_info *info);

/* -ENOENT: not counted (no connection, made elsewhere, or the map was full). */
int count_read_flow(const struct count *count, int fd, struct flow_value *out) must_check;

/*
 * Only in the process that opened it: detaches, unpins, moves this process back
 * and removes the cgroup, unless a child still lives there. NULL-safe.
 */
void count_close(struct count *count);
SCOPED_DEFINE(count, struct count, count_close)
#define scoped_count __attribute__((cleanup(scoped_count_free_))) struct count

#endif
