// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Which worker's listening socket gets a new connection. Knows listeners and
 * slots; not what a worker does, nor who puts sockets into the slots.
 */
#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/tcp.h>
#include <bpf/bpf_helpers.h>
#include "maps.h"
#include "steer_maps.h"

#define AF_INET 2 /* sys/socket.h is not for BPF */

/* The daemon sets the real sizes before loading. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct steer_listener_key);
	__type(value, struct steer_listener);
} steer_listeners SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct steer_config);
} steer_config SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} steer_cpus SEC(".maps");

/* The workers write it as memory. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, __u64);
} steer_load SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct steer_stats);
} steer_stats SEC(".maps");

static __always_inline struct steer_listener *find_listener(const struct bpf_sock *sk)
{
	struct steer_listener_key key = {
		.device = sk->bound_dev_if,
		.port = sk->src_port,
		.family = sk->family,
	};

	if (sk->family == AF_INET) {
		key.address[0] = sk->src_ip4;
	} else {
		key.address[0] = sk->src_ip6[0];
		key.address[1] = sk->src_ip6[1];
		key.address[2] = sk->src_ip6[2];
		key.address[3] = sk->src_ip6[3];
	}
	return bpf_map_lookup_elem(&steer_listeners, &key);
}

/* The n-th of those that are not drained. */
static __always_inline __u32 nth_active(__u32 n)
{
	const struct steer_worker *w = bpf_map_lookup_elem(&steer_workers, &n);

	return w ? w->next : 0;
}

static __always_inline bool is_drained(__u32 worker)
{
	const struct steer_worker *w = bpf_map_lookup_elem(&steer_workers, &worker);

	return w && w->drained;
}

static __always_inline __u32 worker_of(__u32 cpu)
{
	const __u32 *worker = bpf_map_lookup_elem(&steer_cpus, &cpu);

	return worker ? *worker : cpu;
}

static __always_inline __u64 load_of(__u32 worker)
{
	const __u64 *load = bpf_map_lookup_elem(&steer_load, &worker);

	return load ? *load : ~0ULL;
}

/*
 * Not the least of all: what workers tell of themselves is late, and a burst would go to one. By
 * chance two different ones of n.
 */
static __always_inline __u32 less_loaded(__u32 n)
{
	__u32 chance = bpf_get_prandom_u32(), a = chance % n, b;

	if (n == 1)
		return nth_active(0);
	b = (a + 1 + (chance >> 16) % (n - 1)) % n;
	a = nth_active(a);
	b = nth_active(b);
	return load_of(b) < load_of(a) ? b : a;
}

static __always_inline __u32 choose(const struct sk_reuseport_md *ctx, __u32 workers)
{
	__u32 zero = 0, cpu = bpf_get_smp_processor_id(), worker = worker_of(cpu) % workers;
	const struct steer_config *config = bpf_map_lookup_elem(&steer_config, &zero);

	if (!config || !config->active)
		return worker;
	if (config->mode == STEER_BY_HASH)
		return nth_active(ctx->hash % config->active);
	if (config->mode == STEER_BY_LOAD)
		return less_loaded(config->active);
	/* The others keep their CPUs while one is drained. */
	return is_drained(worker) ? nth_active(cpu % config->active) : worker;
}

/*
 * What comes late to a connection that is gone is looked up here, too, and so is the ACK that
 * brings a SYN cookie back, which needs a socket.
 */
static __always_inline bool is_syn(const struct sk_reuseport_md *ctx)
{
	const struct tcphdr *tcp = ctx->data;

	return (const void *)(tcp + 1) <= ctx->data_end && tcp->syn;
}

/* Always SK_PASS: without a selection the kernel chooses by hash among the group's sockets. */
SEC("sk_reuseport")
int steer(struct sk_reuseport_md *ctx)
{
	const struct steer_listener *listener = find_listener(ctx->sk);
	struct steer_stats *stats;
	__u32 worker, slot;
	long err;

	if (!listener)
		return SK_PASS;
	worker = choose(ctx, listener->workers);
	slot = listener->base + worker;
	err = bpf_sk_select_reuseport(ctx, &steer_sockets, &slot, 0);

	stats = bpf_map_lookup_elem(&steer_stats, &worker);
	if (stats && is_syn(ctx))
		__sync_fetch_and_add(err ? &stats->fallback : &stats->selected, 1);
	return SK_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
