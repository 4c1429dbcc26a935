// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Counts every TCP connection of one cgroup. Knows sockets and segments; not
 * TLS, not the daemon's flows: those it adds itself, in flow_info.
 */
#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/tcp.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include "maps.h"

#define AF_INET	    2 /* sys/socket.h is not for BPF */
#define CGROUP_PASS 1
#define V4_MAPPED   bpf_htonl(0xffff) /* third word of ::ffff:0:0/96 */
#define CALLBACKS                                                                                  \
	(BPF_SOCK_OPS_STATE_CB_FLAG | BPF_SOCK_OPS_RTT_CB_FLAG | BPF_SOCK_OPS_RETRANS_CB_FLAG)
#define MAX_IPV6_EXT 4 /* extension headers looked at to find TCP */

/* Not an LRU: that would forget live flows. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAP_FLOWS_DEFAULT);
	__type(key, __u64);
	__type(value, struct flow_value);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAP_FLOWS_DEFAULT);
	__type(key, __u64);
	__type(value, struct flow_info);
} flow_info SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, FLOW_SIDES);
	__type(key, __u32);
	__type(value, struct flow_totals);
} totals SEC(".maps");

/* Entries are made when the first connection of that name ends. */
#define NAMED_TOTALS(name_)                                                                        \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_PERCPU_HASH);                                            \
		__uint(max_entries, NAMED_MAX);                                                    \
		__uint(map_flags, BPF_F_NO_PREALLOC);                                              \
		__type(key, struct named);                                                         \
		__type(value, struct named_totals);                                                \
	} name_ SEC(".maps")

NAMED_TOTALS(vserver_totals);
NAMED_TOTALS(service_totals);

/* Atomic also on per-CPU values: a softirq may interrupt a system call's addition. */
#define ADD(counter, n) __sync_fetch_and_add(&(counter), (n))

static __always_inline void print_ipv4(char *text, __u32 address)
{
	__u64 args[] = {(unsigned long)&address};

	bpf_snprintf(text, FLOW_ADDRESS_LEN, "%pI4", args, sizeof(args));
}

static __always_inline void print_ipv6(char *text, const __u32 *address)
{
	__u64 args[] = {(unsigned long)address};

	bpf_snprintf(text, FLOW_ADDRESS_LEN, "%pI6", args, sizeof(args));
}

static __always_inline bool is_ipv4(const struct bpf_sock_ops *ops)
{
	if (ops->family == AF_INET)
		return true;
	return !ops->remote_ip6[0] && !ops->remote_ip6[1] && ops->remote_ip6[2] == V4_MAPPED;
}

static __always_inline void set_addresses(struct flow_value *flow, const struct bpf_sock_ops *ops)
{
	flow->local_port = ops->local_port;
	flow->remote_port = bpf_ntohl(ops->remote_port);
	if (is_ipv4(ops)) {
		flow->family = FLOW_IPV4;
		print_ipv4(flow->local_address, ops->local_ip4);
		print_ipv4(flow->remote_address, ops->remote_ip4);
	} else {
		__u32 local[] = {ops->local_ip6[0], ops->local_ip6[1], ops->local_ip6[2],
				 ops->local_ip6[3]};
		__u32 remote[] = {ops->remote_ip6[0], ops->remote_ip6[1], ops->remote_ip6[2],
				  ops->remote_ip6[3]};

		flow->family = FLOW_IPV6;
		print_ipv6(flow->local_address, local);
		print_ipv6(flow->remote_address, remote);
	}
}

/*
 * The segment that establishes the connection met the packet hook before the
 * entry existed (an accepted one's even as the listener's), and it may carry
 * data: TCP_DEFER_ACCEPT, a lost ACK, Fast Open.
 */
static __always_inline void count_first_segment(struct flow_value *flow,
						const struct bpf_sock_ops *ops)
{
	const struct tcphdr *tcp = ops->skb_data;

	if ((void *)(tcp + 1) > ops->skb_data_end)
		return;
	flow->packets_rx = 1;
	flow->bytes_rx = ops->skb_len - tcp->doff * 4;
}

static __always_inline void open_flow(struct bpf_sock_ops *ops, enum flow_side side)
{
	__u64 cookie = bpf_get_socket_cookie(ops);
	struct flow_value flow = {
		.side = side,
		.state = FLOW_ESTABLISHED,
		.established_ns = bpf_ktime_get_ns(),
		.retransmits = ops->total_retrans,
		.srtt_us = ops->srtt_us >> 3,
	};
	struct flow_totals *total;
	__u32 key = side;

	total = bpf_map_lookup_elem(&totals, &key);
	if (!total)
		return;
	set_addresses(&flow, ops);
	count_first_segment(&flow, ops);
	if (bpf_map_update_elem(&flows, &cookie, &flow, BPF_ANY)) {
		ADD(total->flow_insert_failed, 1);
		return;
	}
	ADD(total->flows_opened, 1);
	bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags | CALLBACKS);
}

static __always_inline struct named_totals *find_named(void *map, const void *name)
{
	static const struct named_totals none;
	struct named_totals *total = bpf_map_lookup_elem(map, name);

	if (total)
		return total;
	bpf_map_update_elem(map, name, &none, BPF_NOEXIST);
	return bpf_map_lookup_elem(map, name);
}

/* To what the daemon has said the connection belongs to. False: it has not, or there is no room. */
static __always_inline bool add_named(__u64 cookie, const struct flow_value *flow)
{
	const struct flow_info *info = bpf_map_lookup_elem(&flow_info, &cookie);
	struct named_totals *total;

	if (!info)
		return false;
	if (flow->side == FLOW_CLIENT)
		total = find_named(&vserver_totals, info->vserver);
	else
		total = find_named(&service_totals, info->service);
	if (!total)
		return false;
	ADD(total->connections, 1);
	ADD(total->packets_rx, flow->packets_rx);
	ADD(total->packets_tx, flow->packets_tx);
	ADD(total->bytes_rx, flow->bytes_rx);
	ADD(total->bytes_tx, flow->bytes_tx);
	ADD(total->retransmits, flow->retransmits);
	return true;
}

static __always_inline void close_flow(__u64 cookie, const struct flow_value *flow)
{
	struct flow_totals *total;
	__u32 key = flow->side;

	total = bpf_map_lookup_elem(&totals, &key);
	if (total) {
		ADD(total->flows_closed, 1);
		ADD(total->packets_rx, flow->packets_rx);
		ADD(total->packets_tx, flow->packets_tx);
		ADD(total->bytes_rx, flow->bytes_rx);
		ADD(total->bytes_tx, flow->bytes_tx);
		ADD(total->retransmits, flow->retransmits);
		if (!add_named(cookie, flow))
			ADD(total->unnamed, 1);
	}
	/* In this order: count_flow_info() relies on it. */
	bpf_map_delete_elem(&flows, &cookie);
	bpf_map_delete_elem(&flow_info, &cookie);
}

static __always_inline void update_flow(const struct bpf_sock_ops *ops)
{
	__u64 cookie = bpf_get_socket_cookie((void *)ops);
	struct flow_value *flow;

	flow = bpf_map_lookup_elem(&flows, &cookie);
	if (!flow)
		return;
	flow->srtt_us = ops->srtt_us >> 3;
	flow->retransmits = ops->total_retrans;
	if (ops->op != BPF_SOCK_OPS_STATE_CB)
		return;
	flow->state = ops->args[1];
	if (flow->state == FLOW_CLOSE)
		close_flow(cookie, flow);
}

SEC("sockops")
int count_sock(struct bpf_sock_ops *ops)
{
	switch (ops->op) {
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		open_flow(ops, FLOW_CLIENT);
		break;
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		open_flow(ops, FLOW_BACKEND);
		break;
	case BPF_SOCK_OPS_STATE_CB:
	case BPF_SOCK_OPS_RTT_CB:
	case BPF_SOCK_OPS_RETRANS_CB:
		update_flow(ops);
		break;
	}
	return 1;
}

static __always_inline bool is_ipv6_ext(__u8 header)
{
	return header == IPPROTO_HOPOPTS || header == IPPROTO_ROUTING || header == IPPROTO_DSTOPTS;
}

/* Where TCP begins, from the network header; 0: not TCP (IPsec wraps before we look). */
static __always_inline __u32 tcp_offset(const struct __sk_buff *skb)
{
	__u8 ip[10], ext[2];
	__u32 offset = 40;

	if (bpf_skb_load_bytes(skb, 0, ip, sizeof(ip)))
		return 0;
	if (ip[0] >> 4 == 4)
		return ip[9] == IPPROTO_TCP ? (ip[0] & 0xf) * 4 : 0;

	/* Not only exotic packets: BIG TCP puts a hop-by-hop header into every large one. */
	ext[0] = ip[6];
	for (int i = 0; i < MAX_IPV6_EXT && is_ipv6_ext(ext[0]); i++) {
		if (bpf_skb_load_bytes(skb, offset, ext, sizeof(ext)))
			return 0;
		offset += (ext[1] + 1) * 8;
	}
	return ext[0] == IPPROTO_TCP ? offset : 0;
}

static __always_inline __u32 tcp_payload(const struct __sk_buff *skb)
{
	__u32 offset = tcp_offset(skb), headers;
	__u8 data_offset;

	if (!offset || bpf_skb_load_bytes(skb, offset + 12, &data_offset, 1))
		return 0;
	headers = offset + (data_offset >> 4) * 4;
	return skb->len > headers ? skb->len - headers : 0;
}

/* gso_segs is 0 for a packet that is one segment. */
static __always_inline __u32 segments(const struct __sk_buff *skb)
{
	return skb->gso_segs ? skb->gso_segs : 1;
}

static __always_inline struct flow_value *find_flow(struct __sk_buff *skb)
{
	__u64 cookie = bpf_get_socket_cookie(skb);

	return bpf_map_lookup_elem(&flows, &cookie);
}

SEC("cgroup_skb/ingress")
int count_ingress(struct __sk_buff *skb)
{
	struct flow_value *flow = find_flow(skb);

	if (flow) {
		ADD(flow->packets_rx, segments(skb));
		ADD(flow->bytes_rx, tcp_payload(skb));
	}
	return CGROUP_PASS;
}

SEC("cgroup_skb/egress")
int count_egress(struct __sk_buff *skb)
{
	struct flow_value *flow = find_flow(skb);

	if (flow) {
		ADD(flow->packets_tx, segments(skb));
		ADD(flow->bytes_tx, tcp_payload(skb));
	}
	return CGROUP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
