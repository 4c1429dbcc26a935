// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Before there is a socket: which vserver a new connection is for, whether its source may have one
 * (the shield), and, where no socket is bound to its address, which group of sockets takes it.
 * Knows addresses and ports; not the workers, between which steer.bpf.c chooses.
 *
 * The kernel asks for each segment that belongs to no connection: nearly always a SYN, and once for
 * each of those. A refused one is answered with a RST.
 */
#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include "maps.h"
#include "steer_maps.h"

#define AF_INET	  2 /* sys/socket.h is not for BPF */
#define NS_OF_SEC 1000000000ULL
#define V4_MAPPED bpf_htonl(0xffff) /* third word of ::ffff:0:0/96 */

/* The daemon sets the real sizes before loading. */
#define LPM(name_, size_, key_, value_)                                                            \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_LPM_TRIE);                                               \
		__uint(max_entries, size_);                                                        \
		__uint(map_flags, BPF_F_NO_PREALLOC);                                              \
		__type(key, key_);                                                                 \
		__type(value, value_);                                                             \
	} name_ SEC(".maps")

LPM(lookup_addr4, 1, struct lookup_key4, struct lookup_areas);
LPM(lookup_addr6, 1, struct lookup_key6, struct lookup_areas);
LPM(lookup_ports, 1, struct lookup_port, struct lookup_target);

/* The operator's to edit, with ktlsgatectl or bpftool. */
LPM(shield_rules4, SHIELD_RULES_MAX, struct lookup_key4, struct shield_rule);
LPM(shield_rules6, SHIELD_RULES_MAX, struct lookup_key6, struct shield_rule);

/* Whom it has not heard of for longest it forgets: he has a full bucket by then, or there are too
 * many. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, struct shield_source);
	__type(value, struct shield_bucket);
} shield_sources SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct shield_config);
} shield_config SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct shield_stats);
} shield_stats SEC(".maps");

/* Slots are numbered by group, then by worker; known when the program is loaded. */
const volatile __u32 slots_of_group = 1;

#define ADD(counter, n) __sync_fetch_and_add(&(counter), (n))

/* ---- whose it is ---- */

static __always_inline const struct lookup_areas *find_areas(const struct bpf_sk_lookup *ctx)
{
	if (ctx->family == AF_INET) {
		struct lookup_key4 key = {.prefixlen = 32};
		__u32 address = ctx->local_ip4;

		__builtin_memcpy(key.address, &address, sizeof(key.address));
		return bpf_map_lookup_elem(&lookup_addr4, &key);
	} else {
		struct lookup_key6 key = {.prefixlen = 128};
		__u32 address[4] = {ctx->local_ip6[0], ctx->local_ip6[1], ctx->local_ip6[2],
				    ctx->local_ip6[3]};

		__builtin_memcpy(key.address, address, sizeof(key.address));
		return bpf_map_lookup_elem(&lookup_addr6, &key);
	}
}

/* The longest prefix that has the port. */
static __always_inline const struct lookup_target *find_target(const struct bpf_sk_lookup *ctx)
{
	const struct lookup_areas *areas = find_areas(ctx);
	__u16 port = bpf_htons(ctx->local_port);
	struct lookup_port key = {.prefixlen = 48};

	if (!areas)
		return 0;
	__builtin_memcpy(key.port, &port, sizeof(key.port));
	for (__u32 i = 0; i < LOOKUP_DEPTH && i < areas->n; i++) {
		const struct lookup_target *target;

		key.area = areas->area[i];
		target = bpf_map_lookup_elem(&lookup_ports, &key);
		if (target)
			return target;
	}
	return 0;
}

/* ---- the shield ---- */

static __always_inline struct shield_rule *find_rule(const struct bpf_sk_lookup *ctx)
{
	if (ctx->family == AF_INET) {
		struct lookup_key4 key = {.prefixlen = 32};
		__u32 address = ctx->remote_ip4;

		__builtin_memcpy(key.address, &address, sizeof(key.address));
		return bpf_map_lookup_elem(&shield_rules4, &key);
	} else {
		struct lookup_key6 key = {.prefixlen = 128};
		__u32 address[4] = {ctx->remote_ip6[0], ctx->remote_ip6[1], ctx->remote_ip6[2],
				    ctx->remote_ip6[3]};

		__builtin_memcpy(key.address, address, sizeof(key.address));
		return bpf_map_lookup_elem(&shield_rules6, &key);
	}
}

/*
 * A token bucket in one number: the time at which it is full again (GCRA). Two CPUs at the same
 * moment may let one connection too many through; a lock would cost each of them more.
 */
static __always_inline bool take_token(__u64 *full_at, __u32 rate, __u32 burst)
{
	__u64 now = bpf_ktime_get_ns(), interval, at = *full_at;

	if (!rate)
		return true;
	interval = NS_OF_SEC / rate;
	if (at < now)
		at = now;
	if (at + interval > now + interval * (burst ? burst : 1))
		return false;
	*full_at = at + interval;
	return true;
}

/*
 * All is read, whatever the family (what is not there is 0): of two branches the compiler would
 * make one load by a computed pointer, and the verifier refuses that of a context.
 */
static __always_inline void set_source(struct shield_source *key, const struct bpf_sk_lookup *ctx,
				       const struct shield_config *config)
{
	bool ipv4 = ctx->family == AF_INET;

	key->address[0] = ctx->remote_ip6[0] & config->mask6[0];
	key->address[1] = ctx->remote_ip6[1] & config->mask6[1];
	key->address[2] = ipv4 ? V4_MAPPED : ctx->remote_ip6[2] & config->mask6[2];
	key->address[3] =
		(ctx->remote_ip4 & config->mask4) | (ctx->remote_ip6[3] & config->mask6[3]);
}

static __always_inline bool source_may(const struct bpf_sk_lookup *ctx)
{
	__u32 zero = 0;
	const struct shield_config *config = bpf_map_lookup_elem(&shield_config, &zero);
	struct shield_bucket fresh = {0}, *bucket;
	struct shield_source key = {0};

	if (!config || !config->rate)
		return true;
	set_source(&key, ctx, config);
	bucket = bpf_map_lookup_elem(&shield_sources, &key);
	if (bucket) {
		if (take_token(&bucket->full_at_ns, config->rate, config->burst))
			return true;
		ADD(bucket->dropped, 1);
		return false;
	}
	take_token(&fresh.full_at_ns, config->rate, config->burst);
	bpf_map_update_elem(&shield_sources, &key, &fresh, BPF_ANY);
	return true;
}

/* The longest prefix decides; without any, the limit of each source. */
static __always_inline bool admitted(const struct bpf_sk_lookup *ctx, struct shield_stats *stats)
{
	struct shield_rule *rule = find_rule(ctx);

	if (!rule) {
		if (source_may(ctx))
			return true;
		ADD(stats->over_source_limit, 1);
		return false;
	}
	if (rule->action == SHIELD_ALLOW)
		return true;
	if (rule->action == SHIELD_LIMIT && take_token(&rule->full_at_ns, rule->rate, rule->burst))
		return true;
	ADD(rule->dropped, 1);
	ADD(*(rule->action == SHIELD_LIMIT ? &stats->over_prefix_limit : &stats->denied), 1);
	return false;
}

static __always_inline bool shield_admits(const struct bpf_sk_lookup *ctx,
					  const struct lookup_target *target)
{
	__u32 index = target->stats;
	struct shield_stats *stats = bpf_map_lookup_elem(&shield_stats, &index);

	if (!stats)
		return true;
	if (target->shield && !admitted(ctx, stats))
		return false;
	ADD(stats->admitted, 1);
	return true;
}

/* ---- who takes it ---- */

/* Any socket of the group that is not a drained worker's: steer.bpf.c chooses among them. */
static __always_inline void assign(struct bpf_sk_lookup *ctx, const struct lookup_target *target)
{
	__u32 first = 0, slot;
	const struct steer_worker *worker = bpf_map_lookup_elem(&steer_workers, &first);
	struct bpf_sock *sk;

	if (!worker)
		return;
	slot = target->group * slots_of_group + worker->next;
	sk = bpf_map_lookup_elem(&steer_sockets, &slot);
	if (!sk)
		return;
	bpf_sk_assign(ctx, sk, 0);
	bpf_sk_release(sk);
}

SEC("sk_lookup")
int lookup(struct bpf_sk_lookup *ctx)
{
	const struct lookup_target *target;

	if (ctx->protocol != IPPROTO_TCP)
		return SK_PASS;
	target = find_target(ctx);
	if (!target)
		return SK_PASS;
	if (!shield_admits(ctx, target))
		return SK_DROP;
	if (target->how == LOOKUP_ASSIGNED)
		assign(ctx, target);
	return SK_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
