/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Every BPF map's name, key and value: shared by the BPF programs, the daemon
 * and whoever dumps a pinned map. Names are chosen for `bpftool map dump`: it
 * prints enumerators by name and char arrays as text.
 */
#ifndef KTLSGATE_MAPS_H
#define KTLSGATE_MAPS_H

#include <linux/types.h>

/* A map is pinned as bpf_dir/NAME under its own name. */
#define MAP_FLOWS	    "flows"	/* hash: socket cookie → struct flow_value */
#define MAP_FLOW_INFO	    "flow_info" /* hash: socket cookie → struct flow_info */
#define MAP_TOTALS	    "totals"	/* per-CPU array: enum flow_side → struct flow_totals */
#define MAP_VSERVER_TOTALS  "vserver_totals"  /* per-CPU hash: named → named_totals, clients' */
#define MAP_SERVICE_TOTALS  "service_totals"  /* per-CPU hash: named → named_totals, backends' */
#define MAP_STEER_LISTENERS "steer_listeners" /* hash: steer_listener_key → steer_listener */
#define MAP_STEER_SOCKETS   "steer_sockets"   /* sockmap: slot → socket */
#define MAP_STEER_CONFIG    "steer_config"    /* array: 0 → struct steer_config */
#define MAP_STEER_WORKERS   "steer_workers"   /* array: worker → struct steer_worker */
#define MAP_STEER_CPUS	    "steer_cpus"      /* array: CPU → its worker (u32) */
#define MAP_STEER_LOAD	    "steer_load"      /* array: worker → its open connections (u64) */
#define MAP_STEER_STATS	    "steer_stats"     /* per-CPU array: worker → struct steer_stats */
#define MAP_LOOKUP_ADDR4    "lookup_addr4"    /* LPM trie: lookup_key4 → lookup_areas */
#define MAP_LOOKUP_ADDR6    "lookup_addr6"    /* LPM trie: lookup_key6 → lookup_areas */
#define MAP_LOOKUP_PORTS    "lookup_ports"    /* LPM trie: lookup_port → lookup_target */
#define MAP_SHIELD_RULES4   "shield_rules4"   /* LPM trie: lookup_key4 → shield_rule */
#define MAP_SHIELD_RULES6   "shield_rules6"   /* LPM trie: lookup_key6 → shield_rule */
#define MAP_SHIELD_SOURCES  "shield_sources"  /* LRU hash: shield_source → shield_bucket */
#define MAP_SHIELD_CONFIG   "shield_config"   /* array: 0 → struct shield_config */
#define MAP_SHIELD_STATS    "shield_stats" /* per-CPU array: see lookup_target → shield_stats */

#define MAP_FLOWS_DEFAULT 65536
#define NAMED_MAX	  4096 /* vservers, or services, that totals are kept of */
#define NAME_LEN	  64   /* of the longest name, NUL included */

/* ---- count: one entry per TCP connection, the key is its socket cookie (u64) ---- */

enum flow_side {
	FLOW_CLIENT,  /* we accepted */
	FLOW_BACKEND, /* we connected */
	FLOW_SIDES,
};

/* The address family on the wire: IPv4 also for an IPv4-mapped peer of an IPv6 socket. */
enum flow_family {
	FLOW_IPV4 = 2,
	FLOW_IPV6 = 10
};

/* The kernel's TCP states, include/net/tcp_states.h */
enum flow_state {
	FLOW_ESTABLISHED = 1,
	FLOW_SYN_SENT,
	FLOW_SYN_RECV,
	FLOW_FIN_WAIT1,
	FLOW_FIN_WAIT2,
	FLOW_TIME_WAIT,
	FLOW_CLOSE,
	FLOW_CLOSE_WAIT,
	FLOW_LAST_ACK,
	FLOW_LISTEN,
	FLOW_CLOSING,
	FLOW_NEW_SYN_RECV,
};

enum flow_engine {
	FLOW_ENGINE_NONE,
	FLOW_ENGINE_USER,
	FLOW_ENGINE_KTLS
};

/* Who seals and opens the records of a connection. */
enum flow_records {
	FLOW_RECORDS_NONE,    /* not in the relay yet */
	FLOW_RECORDS_UNKNOWN, /* the kernel's TLS: it was asked, and has not said yet */
	FLOW_RECORDS_USER,    /* our own record layer */
	FLOW_RECORDS_SOFTWARE,
	FLOW_RECORDS_DEVICE,
	FLOW_RECORDS_DEVICE_TX, /* sealed by the device, opened in software */
	FLOW_RECORDS_DEVICE_RX, /* the other way round */
};

#define FLOW_ADDRESS_LEN 40 /* an IPv6 address written in full, NUL included */

/*
 * What crossed the wire, from the segment on that established the connection:
 * segments (not GSO packets) and TCP payload bytes, retransmissions included.
 */
struct flow_value {
	enum flow_side side;
	enum flow_state state;
	enum flow_family family;
	__u16 local_port;
	__u16 remote_port;
	char local_address[FLOW_ADDRESS_LEN];
	char remote_address[FLOW_ADDRESS_LEN];
	__u64 packets_rx;
	__u64 packets_tx;
	__u64 bytes_rx;
	__u64 bytes_tx;
	__u64 established_ns; /* CLOCK_MONOTONIC */
	__u32 retransmits;    /* segments */
	__u32 srtt_us;
};

/* What only the daemon knows of a flow. Zero it before filling it in: the kernel sees all of it. */
struct flow_info {
	__u64 flow_id; /* the same for both sides */
	enum flow_engine engine;
	enum flow_records records;
	char vserver[NAME_LEN];
	char service[NAME_LEN];
	char tls_version[8];	  /* "TLSv1.3" */
	char client_identity[24]; /* first 8 bytes of the certificate's SHA-256, 16 hex digits; or
				     none */
};

/* Closed flows, by enum flow_side; per CPU. */
struct flow_totals {
	__u64 flows_opened;
	__u64 flows_closed;
	__u64 flow_insert_failed; /* `flows` was full: not counted anywhere else */
	__u64 packets_rx;
	__u64 packets_tx;
	__u64 bytes_rx;
	__u64 bytes_tx;
	__u64 retransmits;
	__u64 unnamed; /* closed in the handshake, or there were NAMED_MAX names: only counted here
			*/
};

struct named {
	char name[NAME_LEN];
};

/* Closed connections of flows that came as far as the relay; per CPU. */
struct named_totals {
	__u64 connections;
	__u64 packets_rx;
	__u64 packets_tx;
	__u64 bytes_rx;
	__u64 bytes_tx;
	__u64 retransmits;
};

/* ---- lookup: from an address and port to a vserver ---- */

#define STEER_TEXT NAME_LEN /* bytes of a name or an address for humans, NUL included */

/*
 * The destination of a new connection, network order, and what a configuration's prefixes have to
 * do with it: the longest one that matches, then those around it.
 */
struct lookup_key4 {
	__u32 prefixlen;
	__u8 address[4];
};

struct lookup_key6 {
	__u32 prefixlen;
	__u8 address[16];
};

#define LOOKUP_DEPTH 8 /* prefixes within each other */

struct lookup_areas {
	__u32 n;
	__u32 area[LOOKUP_DEPTH]; /* numbers of prefixes, the longest first */
	char prefix[STEER_TEXT];  /* the key for humans */
};

/* Ranges of ports are cut into blocks of powers of two. */
struct lookup_port {
	__u32 prefixlen; /* 32 and 0 to 16 bits of the port */
	__u32 area;
	__u8 port[2]; /* network order */
	__u16 zero;
};

enum lookup_how {
	LOOKUP_BOUND,	 /* a socket is bound there, which the kernel finds */
	LOOKUP_ASSIGNED, /* to the socket that is bound nowhere, see steer_sockets */
};

struct lookup_target {
	__u32 group; /* of sockets: a binding of the configuration */
	enum lookup_how how;
	__u32 shield; /* vserver.<n>.shield */
	__u32 stats;  /* the vserver's place in shield_stats */
	char vserver[STEER_TEXT];
	char ports[16]; /* the key for humans */
};

/* ---- shield: by source address, before a socket exists ---- */

#define SHIELD_RULES_MAX 65536 /* of each family; takes memory only for those there are */

enum shield_action {
	SHIELD_DENY,
	SHIELD_ALLOW, /* without any limit */
	SHIELD_LIMIT, /* the whole prefix together: rate and burst */
};

enum shield_origin {
	SHIELD_AT_RUN_TIME,
	SHIELD_CONFIGURED, /* shield.deny: goes when a new configuration has it no more */
};

/* All zero: deny. So a prefix is denied with bpftool by a value of zeros. */
struct shield_rule {
	enum shield_action action;
	enum shield_origin origin;
	__u32 rate;	  /* connections per second */
	__u32 burst;	  /* that may come at once; 0: one */
	__u64 full_at_ns; /* CLOCK_MONOTONIC: when the bucket is full again */
	__u64 dropped;
};

struct shield_config {
	__u32 rate;  /* connections per second of each source; 0: no limit */
	__u32 burst; /* that may come at once */
	__u32 prefix4;
	__u32 prefix6;	/* what of an address makes a source */
	__u32 mask4;	/* prefix4, network order */
	__u32 mask6[4]; /* prefix6 */
};

/* Network order, ::ffff:a.b.c.d for IPv4; the bits behind the configured prefix are zero. */
struct shield_source {
	__u32 address[4];
};

struct shield_bucket {
	__u64 full_at_ns;
	__u64 dropped;
};

/* By vserver, per CPU. */
struct shield_stats {
	__u64 admitted;
	__u64 denied;		 /* by a rule */
	__u64 over_prefix_limit; /* by the bucket of a rule */
	__u64 over_source_limit; /* by the bucket of a source */
	char vserver[STEER_TEXT];
};

/* ---- steer: to a worker ---- */

/* A listening socket as bpf_sock shows it; an IPv4 address sits in address[0], network order. */
struct steer_listener_key {
	__u32 address[4];
	__u32 device; /* SO_BINDTODEVICE or the scope of a link-local address; 0: any */
	__u16 port;   /* host order */
	__u16 family;
};

struct steer_listener {
	__u32 group;
	__u32 base;	 /* its first slot in steer_sockets */
	__u32 workers;	 /* slots it has */
	char listen[56]; /* the key for humans */
};

enum steer_mode {
	STEER_BY_CPU,  /* the worker of the CPU that received the SYN */
	STEER_BY_HASH, /* the connection's 4-tuple */
	STEER_BY_LOAD, /* the one of two, chosen by chance, that has fewer connections open */
};

struct steer_config {
	enum steer_mode mode;
	__u32 active; /* workers that are not drained: the first entries of steer_workers.next */
};

/* Two lists in one map, so that it is as long as there are workers. */
struct steer_worker {
	__u32 next;    /* the n-th worker that is not drained */
	__u32 drained; /* this worker takes no new connections */
};

/* By worker, per CPU: of segments that open a connection (SYN), repeated ones included. */
struct steer_stats {
	__u64 selected;
	__u64 fallback; /* it had no socket: the kernel chose another */
};

#endif
