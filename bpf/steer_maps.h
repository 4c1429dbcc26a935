/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The maps that steer.bpf.c and lookup.bpf.c share: the daemon makes steer's, of the right sizes,
 * and puts them in the place of lookup's.
 */
#ifndef KTLSGATE_STEER_MAPS_H
#define KTLSGATE_STEER_MAPS_H

#include <bpf/bpf_helpers.h>
#include "maps.h"

/*
 * Not a reuseport sockarray: a socket can be in one of those only, and sk_lookup does not take
 * from it. u64 values: a dump then shows each socket's cookie.
 */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} steer_sockets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct steer_worker);
} steer_workers SEC(".maps");

#endif
