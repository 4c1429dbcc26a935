/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which worker gets a new connection: a sk_reuseport program for all listening
 * sockets. Called by the supervisor, which has the rights. Without it, or
 * where a worker has no socket, the kernel chooses by hash.
 */
#ifndef KTLSGATE_STEER_H
#define KTLSGATE_STEER_H

#include <stdbool.h>
#include <stdint.h>
#include "maps.h"
#include "base/scoped.h"

struct cfg_cpus;
struct steer;

/*
 * Loads the program, for n_groups groups of sockets with one for each worker, of which
 * cpus says the CPU. One log line on error.
 *
 * before: NULL, or the one that is to be replaced, of as many workers. A socket that is added here
 * may stay there until it is closed; to have it back, add it there again. Which workers are drained
 * is the same.
 */
int steer_open(unsigned n_groups, unsigned workers, const struct cfg_cpus *cpus,
	       enum steer_mode mode, const struct steer *before, struct steer **out) must_check;
/* Pins the maps under bpf_dir, after before (or NULL) is closed. One log line on error. */
int steer_take_over(struct steer *steer, struct steer *before, const char *bpf_dir) must_check;

/*
 * Steers a group's new connections: listen_fds[i] is worker i's socket. All are
 * bound to the same address, with SO_REUSEPORT set before bind, and listen.
 * Called again with new sockets, replaces the old ones. One log line on error;
 * the sockets then go on as if never added.
 */
int steer_add(struct steer *steer, unsigned group, const int *listen_fds, unsigned n) must_check;

/*
 * A drained worker gets no new connections; those that are under way to it, in its backlog too,
 * it still serves. -ENOENT: no such worker; -EBUSY: no other is left.
 */
int steer_drain(struct steer *steer, unsigned worker, bool drain) must_check;

/* One of its maps, by its name in maps.h. */
int steer_map(const struct steer *steer, const char *name);

/*
 * The map steer_load as memory, where worker i tells its number of open connections, at [i], for
 * STEER_BY_LOAD. NULL with errno; else until the process ends.
 */
uint64_t *steer_load_map(int map, unsigned workers) must_check;

/* Unpins and frees. Sockets keep their program for as long as they live. NULL-safe. */
void steer_close(struct steer *steer);
SCOPED_DEFINE(steer, struct steer, steer_close)
#define scoped_steer __attribute__((cleanup(scoped_steer_free_))) struct steer

#endif
