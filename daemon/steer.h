/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which worker gets a new connection: a sk_reuseport program for all listening
 * sockets. Called by the supervisor, which has the rights. Without it, or
 * where a worker has no socket, the kernel chooses by hash.
 */
#ifndef KTLSGATE_STEER_H
#define KTLSGATE_STEER_H

#include "scoped.h"

struct steer;

/* Loads the program and pins its maps under bpf_dir. One log line on error. */
int steer_open(const char *bpf_dir, unsigned n_vservers, unsigned workers,
	       struct steer **out) must_check;

/*
 * Steers vserver's new connections: listen_fds[i] is worker i's socket. All are
 * bound to the same address, with SO_REUSEPORT set before bind, and listen.
 * Called again with new sockets, replaces the old ones. One log line on error;
 * the sockets then go on as if never added.
 */
int steer_add(struct steer *steer, unsigned vserver, const int *listen_fds, unsigned n) must_check;

/* Unpins and frees. Sockets keep the program for as long as they live. NULL-safe. */
void steer_close(struct steer *steer);
SCOPED_DEFINE(steer, struct steer, steer_close)
#define scoped_steer __attribute__((cleanup(scoped_steer_free_))) struct steer

#endif
