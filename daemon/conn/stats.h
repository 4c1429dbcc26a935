/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counters: one block per worker, written by that worker alone, read with relaxed loads and summed
 * by whoever answers. The blocks of a data process lie in memory that it alone can write. The
 * supervisor reads them too: it keeps what ended processes have counted, and tells the one that
 * answers what all others have, so that a reload or a death resets nothing. It trusts none of
 * these numbers: how many blocks there are it knows itself, and it only adds them up.
 */
#ifndef KTLSGATE_STATS_H
#define KTLSGATE_STATS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include "conn/reason.h"
#include "base/scoped.h"

/* X(name, help). Counters only grow, but for the gauges named *_active. */
#define COUNTERS(X)                                                                                \
	X(flows_accepted, "connections accepted")                                                  \
	X(flows_active, "connections open now")                                                    \
	X(handshakes_waiting_active,                                                               \
	  "clients that have said something, and wait for their handshake to begin")               \
	X(flows_established, "flows handed over to an engine")                                     \
	X(flows_relaying_active, "flows in the relay now")                                         \
	X(flows_closed, "flows ended, whatever the reason")                                        \
	X(accept_errors, "accept() failures")                                                      \
	X(accept_pauses,                                                                           \
	  "times a worker left connections in the backlog: limit.flows or limit.memory")           \
	X(log_lines_left_out, "lines about flows that log.rate has kept out of the log")           \
	X(engine_ktls_flows, "flows carried by kernel TLS")                                        \
	X(engine_user_flows, "flows carried by the user-space record layer")                       \
	X(user_because_configured, "user engine: dataplane.engine = user")                         \
	X(user_because_no_ktls, "user engine: the kernel has no TLS ULP")                          \
	X(user_because_cipher, "user engine: the kernel lacks this version or cipher")             \
	X(user_because_unix, "user engine: the backend is a UNIX socket")                          \
	X(user_because_install,                                                                    \
	  "user engine: the kernel refused the ULP or the keys of this flow")                      \
	X(bytes_from_client, "plaintext bytes moved from clients to backends")                     \
	X(bytes_from_backend, "plaintext bytes moved from backends to clients")                    \
	X(forge_cache_hits, "forged certificates found in the cache")                              \
	X(forge_cache_misses, "forged certificates asked of the signer")                           \
	X(forge_cache_evictions, "cache entries dropped for room")                                 \
	X(forge_coalesced, "flows that waited for the same client's certificate")                  \
	X(forge_key_waits, "flows that waited for an RSA key to be made")                          \
	X(forged, "certificates issued by the signer")                                             \
	X(socket_options_refused,                                                                  \
	  "connections to backends without a socket.backend.* as configured")                      \
	X(early_given_up, "early connections to backends given up for clients with alpn = mirror") \
	X(backend_reconnects,                                                                      \
	  "backends connected anew: the client took its time, or a session failed")                \
	X(retries_connect_refused, "flows that went to another service: refused")                  \
	X(retries_connect_failed, "flows that went to another service: unreachable")               \
	X(retries_connect_timeout, "flows that went to another service: no connection in time")    \
	X(retries_gone, "flows that went to another service: it left before its ServerHello")      \
	X(retries_timeout, "flows that went to another service: no ServerHello in time")           \
	X(backend_no_request, "flows whose backend asked for no client certificate")               \
	X(backend_no_certificate,                                                                  \
	  "flows whose backend asked for a client certificate and was given none")                 \
	X(backend_fallback, "times the fallback certificate was shown to a backend")               \
	X(client_tickets, "session tickets given to TLS 1.3 clients")                              \
	X(client_resumptions, "client handshakes that resumed a session")                          \
	X(backend_sessions, "sessions with backends put into the cache")                           \
	X(backend_session_misses, "backend handshakes with no session to offer")                   \
	X(backend_session_refusals, "backends that went on with a full handshake instead")         \
	X(backend_session_evictions, "sessions dropped for room, or for newer ones")               \
	X(backend_resumptions, "backend handshakes that resumed a session")                        \
	X(ocsp_requests, "questions put to OCSP responders")                                       \
	X(ocsp_cache_hits, "peers whose OCSP answer was known")                                    \
	X(ocsp_failures, "questions without an answer that could be believed")                     \
	X(ocsp_staples, "backends whose stapled OCSP response was the answer")                     \
	X(ocsp_staples_refused, "stapled OCSP responses that could not be believed")               \
	X(tickets_dropped, "NewSessionTicket messages taken out of backends' streams")             \
	X(key_updates, "KeyUpdate messages received")                                              \
	X(key_updates_sent, "KeyUpdate messages sent, answers included")                           \
	X(key_limits_passed, "times a TLS 1.2 key went past dataplane.key_limit")                  \
	X(renegotiations_refused, "TLS 1.2 renegotiations answered with no_renegotiation")         \
	X(answers_withheld, "answers to KeyUpdate or renegotiation to peers that read none")       \
	X(half_closes, "directions closed while the other went on")                                \
	X(drain_timeouts, "sides closed before all bytes had left")                                \
	X(pipes_active, "pipes borrowed now")                                                      \
	X(reloads_refused,                                                                         \
	  "configurations, or changed CRLs, that could not be used: what ran goes on")             \
	X(flow_log_lost, "lines that log.flows has lost: the disk was too slow or full")           \
	X(reads_copied,                                                                            \
	  "reads that took plaintext to user space: no pipe, or dataplane.relay = copy")

struct stats {
#define X(name, help) _Atomic uint64_t name;
	COUNTERS(X)
#undef X
	_Atomic uint64_t reason[REASON_COUNT];
};

/* Only the owning thread writes: no locked instruction needed. */
#define stat_add(s, name, n)                                                                       \
	atomic_store_explicit(&(s)->name,                                                          \
			      atomic_load_explicit(&(s)->name, memory_order_relaxed) + (n),        \
			      memory_order_relaxed)
#define stat_inc(s, name) stat_add(s, name, 1)
#define stat_dec(s, name) stat_add(s, name, (uint64_t)-1)

/* X(name, help): gauges that no worker keeps, from answer.c. */
#define GAUGES(X)                                                                                  \
	X(forge_cache_entries, "forged certificates in the cache now")                             \
	X(backend_sessions_kept, "sessions with backends in the cache now")                        \
	X(forge_keys_ready, "RSA keys made ahead of need now")                                     \
	X(memory_bytes, "allocated by the data process now, of which limit.memory is the limit")   \
	X(crl_next_update, "when the first CRL expires, in seconds since 1970; 0: there is none")  \
	X(workers, "threads of the data process")                                                  \
	X(generations, "data processes: the newest, and those whose flows have not ended yet")     \
	X(generation, "number of the configuration that runs: 1 and 1 more with each reload")

/* X(name, help): counters that the kernel keeps, from answer.c too. */
#define KERNEL_COUNTERS(X)                                                                         \
	X(shield_denied, "connections refused by a rule of the shield")                            \
	X(shield_over_prefix_limit, "connections above the limit that a rule has for a prefix")    \
	X(shield_over_source_limit, "connections above shield.rate of one source")

struct gauges {
#define X(name, help) uint64_t name;
	GAUGES(X)
	KERNEL_COUNTERS(X)
#undef X
};

/* Every name of `ktlsgatectl stats` in its order, with kind (counter, gauge) and meaning. */
void stats_print_table(FILE *out);

#define STATS_WORKERS 256 /* of one data process */

/* One number for each member of struct stats, at its place. */
#define STATS_VALUES	  (sizeof(struct stats) / sizeof(uint64_t))
#define STATS_INDEX(name) (offsetof(struct stats, name) / sizeof(uint64_t))
struct stats_sums {
	uint64_t value[STATS_VALUES];
};

/* Adds what the workers of a data process have counted. A sum that does not fit wraps around. */
void stats_add(struct stats_sums *sums, const struct stats *by_worker, unsigned workers);
/* The same when that process is gone: what it had (gauges) is left out. */
void stats_add_ended(struct stats_sums *sums, const struct stats *by_worker, unsigned workers);
/* The connections that are open. */
uint64_t stats_flows(const struct stats *by_worker, unsigned workers);

/* "name value" lines in table order. */
void stats_write(const struct stats_sums *sums, const struct gauges *gauges, FILE *out);
/* The same in Prometheus's text format, with its names. */
void stats_write_metrics(const struct stats_sums *sums, const struct gauges *gauges, FILE *out);

#endif
