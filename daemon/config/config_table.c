// SPDX-License-Identifier: Apache-2.0
/* The table of configuration keys, their names and printers. Knows no files or certificates. */
#include "config/config_types.h"

#include <ctype.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/un.h>
#include "pki/path.h"

_Static_assert(sizeof(enum cfg_engine) == sizeof(unsigned), "choices are stored as unsigned");

/* ---- the table ---- */

static const struct cfg_choice engines[] = {
	{"auto", ENGINE_AUTO}, {"ktls", ENGINE_KTLS}, {"user", ENGINE_USER}, {0}};
static const struct cfg_choice relays[] = {{"splice", RELAY_SPLICE}, {"copy", RELAY_COPY}, {0}};
static const struct cfg_choice steerings[] = {
	{"cpu", STEERING_CPU}, {"load", STEERING_LOAD}, {"hash", STEERING_HASH}, {0}};
static const struct cfg_choice control_modes[] = {
	{"0600", 0600}, {"0660", 0660}, {"0666", 0666}, {NULL, 0}};
static const struct cfg_choice full_actions[] = {{"refuse", WHEN_FULL_REFUSE},
						 {"queue", WHEN_FULL_QUEUE},
						 {"close_idle", WHEN_FULL_CLOSE_IDLE},
						 {0}};
static const struct cfg_choice log_levels[] = {{"error", LOG_LEVEL_ERROR},
					       {"warn", LOG_LEVEL_WARN},
					       {"info", LOG_LEVEL_INFO},
					       {"debug", LOG_LEVEL_DEBUG},
					       {0}};
static const struct cfg_choice client_auths[] = {{"off", CLIENT_AUTH_OFF},
						 {"optional", CLIENT_AUTH_OPTIONAL},
						 {"mandatory", CLIENT_AUTH_MANDATORY},
						 {0}};
static const struct cfg_choice versions[] = {{"1.2", TLS1_2_VERSION}, {"1.3", TLS1_3_VERSION}, {0}};
/* Forward secrecy and AEAD, and within the power of both engines: see the table in keys.c. */
static const struct cfg_choice ciphers[] = {{"ECDHE-ECDSA-AES256-GCM-SHA384", 0},
					    {"ECDHE-RSA-AES256-GCM-SHA384", 0},
					    {"ECDHE-ECDSA-AES128-GCM-SHA256", 0},
					    {"ECDHE-RSA-AES128-GCM-SHA256", 0},
					    {"ECDHE-ECDSA-CHACHA20-POLY1305", 0},
					    {"ECDHE-RSA-CHACHA20-POLY1305", 0},
					    {0}};
static const struct cfg_choice ciphersuites[] = {{"TLS_AES_256_GCM_SHA384", 0},
						 {"TLS_CHACHA20_POLY1305_SHA256", 0},
						 {"TLS_AES_128_GCM_SHA256", 0},
						 {0}};
static const struct cfg_choice groups[] = {{"X25519", 0},    {"P-256", 0},     {"X448", 0},
					   {"P-521", 0},     {"P-384", 0},     {"ffdhe2048", 0},
					   {"ffdhe3072", 0}, {"ffdhe4096", 0}, {0}};
static const struct cfg_choice snis[] = {{"fixed", SNI_FIXED}, {"mirror", SNI_MIRROR}, {0}};
static const struct cfg_choice revocations[] = {{"off", REVOCATION_OFF},
						{"optional", REVOCATION_OPTIONAL},
						{"mandatory", REVOCATION_MANDATORY},
						{0}};
static const struct cfg_choice connects[] = {
	{"early", CONNECT_EARLY}, {"verified", CONNECT_VERIFIED}, {0}};
static const struct cfg_choice checks[] = {
	{"off", CHECK_OFF}, {"connect", CHECK_CONNECT}, {"tls", CHECK_TLS}, {0}};
static const struct cfg_choice send_proxies[] = {
	{"off", SEND_PROXY_OFF}, {"on", SEND_PROXY_ON}, {"tls", SEND_PROXY_TLS}, {0}};
static const struct cfg_choice balances[] = {{"round-robin", BALANCE_ROUND_ROBIN},
					     {"least-connections", BALANCE_LEAST_CONNECTIONS},
					     {"source-hash", BALANCE_SOURCE_HASH},
					     {0}};

static const struct cfg_choice audit_syncs[] = {
	{"none", AUDIT_SYNC_NONE}, {"each", AUDIT_SYNC_EACH}, {0}};
static const struct cfg_choice forge_starts[] = {
	{"now", FORGE_START_NOW}, {"original", FORGE_START_ORIGINAL}, {0}};
static const struct cfg_choice forge_keys[] = {
	{"auto", FORGE_KEY_AUTO}, {"p-256", FORGE_KEY_P256}, {"rsa-2048", FORGE_KEY_RSA2048}, {0}};
static const struct cfg_choice no_matching_cas[] = {
	{"send", NO_MATCHING_CA_SEND}, {"fail", NO_MATCHING_CA_FAIL}, {0}};

#define GLOBAL(m)  .scope = SCOPE_GLOBAL, .offset = offsetof(struct config, m)
#define CERTKEY(m) .scope = SCOPE_CERTKEY, .offset = offsetof(struct cfg_certkey, m)
#define PROFILE(m) .scope = SCOPE_PROFILE, .offset = offsetof(struct cfg_profile, m)
#define RULE(s)                                                                                    \
	.type = &type_rule, .scope = SCOPE_PROFILE,                                                \
	.offset = offsetof(struct cfg_profile, forge.text[s])
#define SERVICE(m) .scope = SCOPE_SERVICE, .offset = offsetof(struct cfg_service, m)
#define VSERVER(m) .scope = SCOPE_VSERVER, .offset = offsetof(struct cfg_vserver, m)

/* clang-format off */
/* Grouped by scope, in the order of enum cfg_scope. */
const struct cfg_key cfg_keys[] = {
	{"dataplane.engine", GLOBAL(engine), .type = &type_choice, .choices = engines, .value = "auto",
	 .help = "record layer: in the kernel, in user space, or the kernel where it can"},
	{"dataplane.relay", GLOBAL(relay), .type = &type_choice, .choices = relays, .value = "splice",
	 .help = "how bytes move between two sockets of the kernel's record layer"},
	{"dataplane.workers", GLOBAL(workers), .fixed = true, .type = &type_workers, .word = "auto", .min = 1,
	 .max = WORKERS_MAX, .unit = "threads", .value = "auto",
	 .help = "threads of the data process; auto: one per CPU of dataplane.cpus, or that we may use"},
	{"dataplane.cpus", GLOBAL(cpus), .fixed = true, .type = &type_cpus, .word = "any", .value = "any",
	 .help = "the CPU of each worker in turn, which it stays on; any: they move as the kernel likes"},
	{"dataplane.steering", GLOBAL(steering), .type = &type_choice, .choices = steerings, .value = "cpu",
	 .help = "the worker of a new connection: that of the CPU it came in on, the less loaded of two, or by hash; needs BPF"},
	{"dataplane.key_limit", GLOBAL(key_limit), .type = &type_number, .unit = "MiB", .min = 1,
	 .max = 262144, .value = "262144",
	 .help = "sent under one AES-GCM key before a KeyUpdate; TLS 1.2, which has none, is warned of"},
	{"dataplane.user", GLOBAL(user), .type = &type_user,
	 .help = "user the processes run as that face the network or hold keys; unset: the one we were started as"},
	{"signer.user", GLOBAL(signer_user), .type = &type_user,
	 .help = "user of the signer, who holds the forging keys; unset: as dataplane.user"},
	{"resolver.user", GLOBAL(resolver_user), .type = &type_user,
	 .help = "user of the resolver, who asks name servers; unset: as dataplane.user"},
	{"bpf.dir", GLOBAL(bpf_dir), .fixed = true, .type = &type_path, .word = "off", .max = 3000,
	 .value = "/sys/fs/bpf/ktlsgate",
	 .help = "where BPF maps are pinned; off: no BPF"},
	{"control.socket", GLOBAL(control_socket), .fixed = true, .type = &type_path,
	 .max = sizeof(((struct sockaddr_un *)0)->sun_path) - 1, .value = "/run/ktlsgate/control.sock",
	 .help = "UNIX socket of ktlsgatectl"},
	{"control.mode", GLOBAL(control_mode), .fixed = true, .type = &type_choice,
	 .choices = control_modes, .value = "0660",
	 .help = "who may connect to it and see everything but secrets; only root may change anything"},
	{"control.group", GLOBAL(control_group), .fixed = true, .type = &type_group,
	 .help = "its group; unset: the group we were started as"},
	{"config.watch", GLOBAL(watch), .type = &type_duration, .unit = "s, m, h, d", .min = 0,
	 .max = DAY, .value = "30s",
	 .help = "how often changed CRLs are looked for, and the configuration loaded anew then; 0: never"},
	{"log.level", GLOBAL(log_level), .type = &type_choice, .choices = log_levels, .value = "info",
	 .help = "the least important lines that are still logged"},
	{"log.rate", GLOBAL(log_rate), .type = &type_number, .unit = "lines a second", .min = 0,
	 .max = 1000000, .value = "100",
	 .help = "lines about flows, by reason and worker; how many were left out is said; 0: all are logged"},
	{"limit.flows", GLOBAL(limit_flows), .type = &type_limit, .word = "auto", .unit = "connections", .min = 0,
	 .max = 10000000, .value = "auto",
	 .help = "connections at a time in all, those of older configurations too; auto: by descriptors and memory"},
	{"limit.when_full", GLOBAL(limit_when_full), .type = &type_choice, .choices = full_actions,
	 .value = "refuse",
	 .help = "at limit.flows: reset new connections, let them wait in the kernel's backlog, or end the flow that is idle the longest"},
	{"limit.idle_at_least", GLOBAL(limit_idle), .type = &type_duration, .unit = "s, m, h, d",
	 .min = 1, .max = 365 * DAY, .value = "1m",
	 .help = "for close_idle: a flow that moved a byte within this time is not ended; if all have, new connections are reset"},
	{"limit.memory", GLOBAL(limit_memory), .type = &type_limit, .word = "auto", .unit = "MiB", .min = 0,
	 .max = 1 << 20, .value = "auto",
	 .help = "that the data process has allocated: beyond it new connections are reset, or wait with limit.when_full = queue; auto: half of what the machine or its control group has"},
	{"limit.handshakes", GLOBAL(limit_handshakes), .type = &type_limit, .word = "auto", .unit = "connections",
	 .min = 0, .max = 10000000, .value = "auto",
	 .help = "connections in the handshake at a time; those beyond are reset; auto: as many as half of limit.memory is enough for"},
	{"limit.handshakes_per_source", GLOBAL(limit_handshakes_per_source), .type = &type_limit,
	 .word = "auto", .unit = "connections", .min = 0, .max = 10000000, .value = "auto",
	 .help = "of those, from one source; auto: half of limit.handshakes, 16 at least"},
	{"limit.handshake_size", GLOBAL(limit_handshake_size), .type = &type_number, .unit = "KiB",
	 .min = 16, .max = 1024, .value = "40",
	 .help = "that a client may send in its handshake, ClientHello and certificates included"},
	{"limit.flows_per_source", GLOBAL(limit_flows_per_source), .type = &type_number,
	 .unit = "connections", .min = 0, .max = 10000000, .value = "0",
	 .help = "connections at a time from one source; those beyond are reset; 0: no limit"},
	{"limit.source_prefix4", GLOBAL(limit_prefix4), .type = &type_number, .unit = "bits", .min = 1,
	 .max = 32, .value = "32",
	 .help = "how much of an IPv4 address makes a source"},
	{"limit.source_prefix6", GLOBAL(limit_prefix6), .type = &type_number, .unit = "bits", .min = 1,
	 .max = 128, .value = "64",
	 .help = "how much of an IPv6 address makes a source"},
	{"log.flows", GLOBAL(log_flows), .type = &type_path, .word = "off", .max = 4000, .value = "off",
	 .help = "append a line of JSON for each flow at its end; lines that cannot be written at once are lost, and counted"},
	{"timeout.handshake", GLOBAL(handshake_timeout), .type = &type_duration, .unit = "s, m, h, d",
	 .min = 1, .max = HOUR, .value = "120s",
	 .help = "client: from accept to the last handshake message; typing a PIN takes a while"},
	{"timeout.client_hello", GLOBAL(hello_timeout), .type = &type_duration, .unit = "s, m, h, d",
	 .min = 1, .max = HOUR, .value = "10s",
	 .help = "client: until its ClientHello is there, from accept, and from its turn; nobody types a PIN before"},
	{"timeout.backend_handshake", GLOBAL(backend_handshake_timeout), .type = &type_duration,
	 .unit = "s, m, h, d", .min = 1, .max = HOUR, .value = "20s",
	 .help = "backend: from connect to the last handshake message, without waits for the client"},
	{"timeout.connect", GLOBAL(connect_timeout), .type = &type_duration, .unit = "s, m, h, d", .min = 1,
	 .max = HOUR, .value = "5s",
	 .help = "backend: until the TCP connection stands"},
	{"timeout.idle", GLOBAL(idle_timeout), .type = &type_duration, .unit = "s, m, h, d", .min = 0,
	 .max = 365 * DAY, .value = "1h",
	 .help = "no byte in either direction; 0: never"},
	{"timeout.keepalive", GLOBAL(keepalive), .type = &type_duration, .unit = "s, m, h, d", .min = 0,
	 .max = 32767, .value = "60s",
	 .help = "TCP keepalive: a peer silent for so long is probed, and given up after as long again; 0: never"},
	{"timeout.drain", GLOBAL(drain_timeout), .type = &type_duration, .unit = "s, m, h, d", .min = 1,
	 .max = HOUR, .value = "30s",
	 .help = "at close: how long accepted bytes may take to leave"},
	{"socket.client.rcvbuf", GLOBAL(client_socket.rcvbuf), .type = &type_rcvbuf, .word = "auto",
	 .unit = "bytes, K, M", .min = 16384, .max = 512u << 20, .value = "auto",
	 .help = "receive buffer of a client's socket; auto: grows as the kernel sees fit (net.ipv4.tcp_rmem)"},
	{"socket.client.sndbuf", GLOBAL(client_socket.sndbuf), .type = &type_sndbuf, .word = "auto",
	 .unit = "bytes, K, M", .min = 16384, .max = 512u << 20, .value = "auto",
	 .help = "send buffer of a client's socket; auto: grows as the kernel sees fit (net.ipv4.tcp_wmem)"},
	{"socket.client.congestion_control", GLOBAL(client_socket.congestion_control),
	 .type = &type_congestion_control,
	 .help = "TCP's congestion control for what is sent to clients; unset: net.ipv4.tcp_congestion_control"},
	{"socket.backend.rcvbuf", GLOBAL(backend_socket.rcvbuf), .type = &type_rcvbuf, .word = "auto",
	 .unit = "bytes, K, M", .min = 16384, .max = 512u << 20, .value = "auto",
	 .help = "receive buffer of a backend's socket; auto: grows as the kernel sees fit (net.ipv4.tcp_rmem)"},
	{"socket.backend.sndbuf", GLOBAL(backend_socket.sndbuf), .type = &type_sndbuf, .word = "auto",
	 .unit = "bytes, K, M", .min = 16384, .max = 512u << 20, .value = "auto",
	 .help = "send buffer of a backend's socket; auto: grows as the kernel sees fit (net.ipv4.tcp_wmem)"},
	{"socket.backend.congestion_control", GLOBAL(backend_socket.congestion_control),
	 .type = &type_congestion_control,
	 .help = "TCP's congestion control for what is sent to backends; unset: net.ipv4.tcp_congestion_control"},
	{"socket.backlog", GLOBAL(backlog), .type = &type_backlog, .unit = "connections", .min = 1,
	 .max = 65535, .value = "4096",
	 .help = "that may wait to be accepted, of each worker's socket of an address"},
	{"forge.lifespan", GLOBAL(forge_lifespan), .type = &type_duration, .unit = "s, m, h, d",
	 .min = MINUTE, .max = 365 * DAY, .value = "24h",
	 .help = "how long a forged certificate is valid at most"},
	{"forge.cache", GLOBAL(forge_cache), .type = &type_number, .unit = "entries", .min = 1,
	 .max = 1000000, .value = "4096",
	 .help = "forged certificates kept for the next connection of the same client"},
	{"dataplane.session_cache", GLOBAL(session_cache), .type = &type_number, .unit = "entries",
	 .min = 1, .max = 1000000, .value = "4096",
	 .help = "sessions with backends kept for session_reuse, some 3 KiB each; the oldest is dropped first"},

	{"forge.rsa_keys", GLOBAL(forge_rsa_keys), .type = &type_number, .unit = "keys", .min = 1,
	 .max = 1024, .value = "8",
	 .help = "RSA keys made ahead of need, from the first on that a backend wants"},
	{"shield.rate", GLOBAL(shield_rate), .type = &type_number, .unit = "connections per second",
	 .min = 0, .max = 1000000, .value = "0",
	 .help = "of each source, before a socket exists; 0: no limit; needs BPF, like all of the shield"},
	{"shield.burst", GLOBAL(shield_burst), .type = &type_number, .unit = "connections", .min = 1,
	 .max = 1000000, .value = "20",
	 .help = "that a source may make at once after a while without any"},
	{"shield.prefix4", GLOBAL(shield_prefix4), .type = &type_number, .unit = "bits", .min = 1,
	 .max = 32, .value = "32",
	 .help = "of an IPv4 address that make a source"},
	{"shield.prefix6", GLOBAL(shield_prefix6), .type = &type_number, .unit = "bits", .min = 1,
	 .max = 128, .value = "64",
	 .help = "of an IPv6 address that make a source"},
	{"shield.sources", GLOBAL(shield_sources), .type = &type_number, .unit = "entries", .min = 64,
	 .max = 16777216, .value = "65536",
	 .help = "sources that are kept in mind, some 100 bytes each; the least recent is forgotten"},
	{"shield.deny", GLOBAL(shield_deny), .type = &type_prefixes,
	 .help = "sources that get no connection; ktlsgatectl shield has more, at run time"},

	{"forge.queue", GLOBAL(forge_queue), .type = &type_number, .unit = "requests", .min = 1,
	 .max = 65536, .value = "1024",
	 .help = "requests for the signer that a worker keeps; the client network with the most loses first"},
	{"audit.log", GLOBAL(audit_log), .type = &type_path, .word = "off", .max = 4000,
	 .value = "off",
	 .help = "append a line of JSON for each forged certificate; none is handed out whose line is not written"},
	{"audit.sync", GLOBAL(audit_sync), .type = &type_choice, .choices = audit_syncs,
	 .value = "none",
	 .help = "fdatasync: leave it to the kernel, or after each line, for machines that lose power"},

	{"certkey.<name>.cert", CERTKEY(cert_file), .where = offsetof(struct cfg_certkey, cert_where),
	 .type = &type_file, .mandatory = true,
	 .help = "the certificate, then the chain to send with it"},
	{"certkey.<name>.key", CERTKEY(key_file), .where = offsetof(struct cfg_certkey, key_where),
	 .type = &type_file, .mandatory = true,
	 .help = "its private key, a file or, of a forging CA, in a token: pkcs11:URI"},
	{"certkey.<name>.key_passphrase_file", CERTKEY(passphrase_file), .type = &type_secret_file,
	 .help = "file whose first line opens the key: its passphrase, or the token's PIN"},
	{"certkey.<name>.ocsp_response", CERTKEY(ocsp_response_file), .type = &type_der_file,
	 .help = "an OCSP response to staple: sent to clients that ask, until its nextUpdate"},

	{"certkey.<name>.ocsp", CERTKEY(ocsp), .type = &type_uris, .max = FORGE_URI_MAX,
	 .help = "a forging CA: where its OCSP responder is asked about forged certificates"},
	{"certkey.<name>.ca_issuers", CERTKEY(ca_issuers), .type = &type_uris, .max = FORGE_URI_MAX,
	 .help = "a forging CA: where its own certificate is fetched"},
	{"certkey.<name>.crl", CERTKEY(crl), .type = &type_uris, .max = FORGE_URI_MAX,
	 .help = "a forging CA: where its CRL is fetched"},

	{"certkey.<name>.policy.client_ca", CERTKEY(policy.client_ca_file),
	 .where = offsetof(struct cfg_certkey, policy.client_ca_where), .type = &type_file,
	 .help = "a forging CA, held by the signer: only for clients of these CAs (anchors)"},
	{"certkey.<name>.policy.names", CERTKEY(policy.names), .type = &type_patterns,
	 .help = "a forging CA, held by the signer: each name of a client must fit one of these"},
	{"certkey.<name>.policy.trust_domains", CERTKEY(policy.trust_domains), .type = &type_domains,
	 .help = "a forging CA, held by the signer: only SPIFFE IDs of these trust domains"},
	{"certkey.<name>.policy.lifespan", CERTKEY(policy.lifespan), .type = &type_duration,
	 .unit = "s, m, h, d", .word = "off", .min = MINUTE, .max = 365 * DAY, .value = "off",
	 .help = "a forging CA, held by the signer: no certificate is valid for longer"},
	{"certkey.<name>.policy.rate", CERTKEY(policy.rate), .type = &type_number,
	 .unit = "certificates a minute", .min = 0, .max = 10000000, .value = "0",
	 .help = "a forging CA, held by the signer: at most so many; 0: no bound"},

	{"profile.<name>.tls_min", PROFILE(tls_min), .where = offsetof(struct cfg_profile, tls_min_where),
	 .type = &type_choice, .choices = versions, .value = "1.2",
	 .help = "both: the oldest TLS version that is spoken"},
	{"profile.<name>.tls_max", PROFILE(tls_max), .type = &type_choice, .choices = versions,
	 .value = "1.3",
	 .help = "both: the newest TLS version that is spoken"},
	{"profile.<name>.ciphers", PROFILE(ciphers), .type = &type_words, .choices = ciphers,
	 .value = "ECDHE-ECDSA-AES256-GCM-SHA384 ECDHE-RSA-AES256-GCM-SHA384 "
		  "ECDHE-ECDSA-AES128-GCM-SHA256 ECDHE-RSA-AES128-GCM-SHA256 "
		  "ECDHE-ECDSA-CHACHA20-POLY1305 ECDHE-RSA-CHACHA20-POLY1305",
	 .help = "both: ciphers of TLS 1.2, the preferred first"},
	{"profile.<name>.ciphersuites", PROFILE(ciphersuites), .type = &type_words,
	 .choices = ciphersuites,
	 .value = "TLS_AES_256_GCM_SHA384 TLS_CHACHA20_POLY1305_SHA256 TLS_AES_128_GCM_SHA256",
	 .help = "both: cipher suites of TLS 1.3, the preferred first"},
	{"profile.<name>.groups", PROFILE(groups), .type = &type_words, .choices = groups,
	 .value = "X25519 P-256 X448 P-521 P-384",
	 .help = "both: groups of the key exchange, the preferred first"},
	{"profile.<name>.client_auth", PROFILE(client_auth),
	 .where = offsetof(struct cfg_profile, client_auth_where), .type = &type_choice,
	 .choices = client_auths, .value = "off",
	 .help = "vserver: whether clients are asked for a certificate and must have one"},
	{"profile.<name>.client_ca", PROFILE(client_ca_file),
	 .where = offsetof(struct cfg_profile, client_ca_where), .type = &type_file,
	 .help = "vserver: the CAs that client certificates are verified against"},
	{"profile.<name>.announce_ca_names", PROFILE(announce_ca_names), .type = &type_boolean,
	 .value = "on",
	 .help = "vserver: the names of client_ca in the CertificateRequest, for clients to choose by"},
	{"profile.<name>.session_tickets", PROFILE(session_tickets), .type = &type_boolean,
	 .value = "off",
	 .help = "vserver: clients may resume, without proving anew who they are; their certificate is looked at again"},
	{"profile.<name>.ticket_lifetime", PROFILE(ticket_lifetime), .type = &type_duration,
	 .unit = "s, m, h, d", .min = 1, .max = 7 * DAY, .value = "2h",
	 .help = "both: how long a client's proof, and a session with a backend, is good for; resuming does not lengthen it"},
	{"profile.<name>.session_reuse", PROFILE(session_reuse), .type = &type_boolean,
	 .value = "off",
	 .help = "service: resume sessions with the backend, each for the client it was begun for; needs connect = verified"},
	{"profile.<name>.alpn", PROFILE(alpn), .where = offsetof(struct cfg_profile, alpn_where),
	 .type = &type_alpn, .word = "off", .value = "off",
	 .help = "vserver: protocols on both sides: what the backend chooses (mirror), or the first of a list that the client has"},
	{"profile.<name>.dynamic_client_cert", PROFILE(dynamic_client_cert),
	 .where = offsetof(struct cfg_profile, dynamic_client_cert_where), .type = &type_boolean,
	 .value = "disabled",
	 .help = "service: show the backend a certificate forged from the client's"},
	{"profile.<name>.forging_certkey", PROFILE(forging_certkeys), .type = &cfg_type_references,
	 .refers = SCOPE_CERTKEY,
	 .help = "service: the CAs that issue the forged certificates; the backend's CA names choose"},
	{"profile.<name>.forge.no_matching_ca", PROFILE(forge.no_matching_ca), .type = &type_choice,
	 .choices = no_matching_cas, .value = "send",
	 .help = "the backend's CA names hold none of these CAs: send the first one's certificate, or fail"},
	{"profile.<name>.fallback_certkey", PROFILE(fallback_certkey), .type = &cfg_type_reference,
	 .refers = SCOPE_CERTKEY,
	 .help = "service: shown to the backend for clients without a certificate (client_auth = optional); unset: they fail"},
	{"profile.<name>.server_ca", PROFILE(server_ca_file),
	 .where = offsetof(struct cfg_profile, server_ca_where), .type = &type_file,
	 .help = "service: the CAs that the backend's certificate is verified against"},
	{"profile.<name>.require_certificate_request", PROFILE(require_certificate_request),
	 .type = &type_boolean, .value = "off",
	 .help = "service: fail if the backend asks for no certificate"},

	{"profile.<name>.forge.lifespan", PROFILE(forge.lifespan), .type = &type_duration,
	 .unit = "s, m, h, d", .word = "inherit", .min = MINUTE, .max = 365 * DAY, .value = "inherit",
	 .help = "how long a forged certificate is valid at most; inherit: forge.lifespan"},
	{"profile.<name>.forge.start", PROFILE(forge.start), .type = &type_choice,
	 .choices = forge_starts, .value = "now",
	 .help = "when its validity begins: now, or with the original's"},
	{"profile.<name>.forge.key", PROFILE(forge.key), .type = &type_choice, .choices = forge_keys,
	 .value = "auto",
	 .help = "its key; auto: P-256, or RSA where the backend's signature algorithms want it"},
	{"profile.<name>.forge.copy", RULE(FORGE_SET_COPY),
	 .help = "extensions of the original that are passed on as they are"},
	{"profile.<name>.forge.drop", RULE(FORGE_SET_DROP),
	 .help = "extensions that are left out though they were copied (subjectAltName) or critical"},
	{"profile.<name>.forge.map", RULE(FORGE_SET_MAP),
	 .help = "extensions of the original that are passed on under another OID"},
	{"profile.<name>.forge.add", RULE(FORGE_SET_ADD),
	 .help = "extensions that every forged certificate gets"},
	{"profile.<name>.forge.eku", RULE(FORGE_SET_EKU), .value = FORGE_EKU_DEFAULT,
	 .help = "key purposes of the original that are kept beside clientAuth"},
	{"profile.<name>.forge.policies", RULE(FORGE_SET_POLICIES), .value = FORGE_POLICY_DEFAULT,
	 .help = "certificate policies: dropped, copied, or those listed replaced and the others dropped"},
	{"profile.<name>.forge.sid_issuers", PROFILE(forge.sid_issuers_file),
	 .where = offsetof(struct cfg_profile, forge.sid_issuers_where), .type = &type_file,
	 .help = "the CAs whose Windows SIDs (a privilege) are passed on; unset: none"},
	{"profile.<name>.forge.trust_domains", RULE(FORGE_SET_TRUST_DOMAINS),
	 .help = "the SPIFFE trust domains whose identities are passed on; unset: none"},
	{"profile.<name>.forge.provenance", RULE(FORGE_SET_PROVENANCE), .value = FORGE_OFF,
	 .help = "extension that names the original: its SHA-256, issuer and serial number"},
	{"profile.<name>.client_crl", PROFILE(client_revocation.crl_files),
	 .where = offsetof(struct cfg_profile, client_revocation.crl_where), .type = &type_files,
	 .help = "vserver: certificate revocation lists of the clients' CAs"},
	{"profile.<name>.client_crl_check", PROFILE(client_revocation.crl_check),
	 .where = offsetof(struct cfg_profile, client_revocation.crl_check_where),
	 .type = &type_choice, .choices = revocations, .value = "off",
	 .help = "vserver: whether a client is refused if a CRL lists it; mandatory: or if no valid CRL can tell"},
	{"profile.<name>.client_ocsp", PROFILE(client_ocsp),
	 .where = offsetof(struct cfg_profile, client_ocsp_where), .type = &type_choice,
	 .choices = revocations, .value = "off",
	 .help = "vserver: whether a client is refused if the OCSP responder says so; mandatory: or if it says nothing"},
	{"profile.<name>.server_ocsp", PROFILE(server_ocsp), .type = &type_choice,
	 .choices = revocations, .value = "off",
	 .help = "service: the same for backends; asked for a stapled OCSP response, then the responder, if there is one"},
	{"profile.<name>.ocsp_responder", PROFILE(ocsp_responder), .type = &type_http_url,
	 .help = "who is asked about the certificates of clients (vserver) or backends (service)"},
	{"profile.<name>.ocsp_aia", PROFILE(ocsp_aia), .type = &type_aia,
	 .help = "hosts that certificates may name (AIA) as their responder, and where those are; unset: none"},
	{"profile.<name>.ocsp_timeout", PROFILE(ocsp_timeout), .type = &type_duration,
	 .unit = "s, m, h, d", .min = 1, .max = MINUTE, .value = "5s",
	 .help = "how long the OCSP responder may take"},
	{"profile.<name>.server_crl", PROFILE(server_revocation.crl_files),
	 .where = offsetof(struct cfg_profile, server_revocation.crl_where), .type = &type_files,
	 .help = "service: certificate revocation lists of the backends' CAs"},
	{"profile.<name>.server_crl_check", PROFILE(server_revocation.crl_check),
	 .where = offsetof(struct cfg_profile, server_revocation.crl_check_where),
	 .type = &type_choice, .choices = revocations, .value = "off",
	 .help = "service: the same for backends' certificates"},
	{"profile.<name>.verify.depth", PROFILE(verify.depth), .type = &type_number,
	 .unit = "certificates", .min = 0, .max = PATH_DEPTH_MAX, .value = "10",
	 .help = "CA certificates between the peer's and the trusted one at most"},
	{"profile.<name>.verify.rsa_bits", PROFILE(verify.rsa_bits), .type = &type_number,
	 .unit = "bits", .min = 2048, .max = 8192, .value = "2048",
	 .help = "size of an RSA key at least, in any certificate of a chain"},
	{"profile.<name>.verify.ec_bits", PROFILE(verify.ec_bits), .type = &type_number,
	 .unit = "bits", .min = 224, .max = 521, .value = "256",
	 .help = "size of an elliptic curve at least, in any certificate of a chain"},
	{"profile.<name>.verify.partial_chain", PROFILE(verify.partial_chain), .type = &type_boolean,
	 .value = "off",
	 .help = "trust every certificate of client_ca or server_ca, not the self-signed only"},

	{"service.<name>.address", SERVICE(address), .type = &type_backend, .mandatory = true,
	 .help = "where the backend listens"},
	{"service.<name>.resolve_interval", SERVICE(resolve_interval), .type = &type_duration,
	 .unit = "s, m, h, d", .min = 1, .max = DAY, .value = "30s",
	 .help = "address = NAME:PORT: how often the name is looked up again"},
	{"service.<name>.server_name", SERVICE(server_name), .type = &type_hostname, .mandatory = true,
	 .help = "the name the backend's certificate must have; also sent as SNI"},
	{"service.<name>.sni", SERVICE(sni), .type = &type_choice, .choices = snis, .value = "fixed",
	 .help = "the server name asked for: server_name, or what the client asked for"},
	{"service.<name>.profile", SERVICE(profile), .type = &cfg_type_reference,
	 .refers = SCOPE_PROFILE, .mandatory = true,
	 .help = "the profile of the backend side"},
	{"service.<name>.connect", SERVICE(connect), .type = &type_choice, .choices = connects,
	 .value = "early",
	 .help = "connect at the ClientHello, or when the client is verified"},
	{"service.<name>.early_connects", SERVICE(early_connects), .type = &type_number,
	 .unit = "connections", .min = 0, .max = 1000000, .value = "100",
	 .help = "connect = early: to it at a time for clients that are not verified yet; those beyond connect when they are; 0: no limit"},
	{"service.<name>.weight", SERVICE(weight), .type = &type_number, .min = 1, .max = 256,
	 .value = "1",
	 .help = "its share of the connections, beside the other services of a vserver"},
	{"service.<name>.backup", SERVICE(backup), .type = &type_boolean, .value = "off",
	 .help = "used only when no other service of the vserver can be"},
	{"service.<name>.send_proxy", SERVICE(send_proxy), .type = &type_choice, .choices = send_proxies,
	 .value = "off",
	 .help = "tell the backend the client's address by PROXY protocol version 2; tls: and its TLS and certificate"},
	{"service.<name>.drain", SERVICE(drain), .type = &type_boolean, .value = "off",
	 .help = "gets no new connection; those it has go on"},
	{"service.<name>.check", SERVICE(check), .type = &type_choice, .choices = checks, .value = "off",
	 .help = "whether the backend is tried by and by: by a connection, or by a TLS handshake"},
	{"service.<name>.check_certkey", SERVICE(check_certkey), .type = &cfg_type_reference,
	 .refers = SCOPE_CERTKEY,
	 .help = "check = tls: shown to a backend that asks for a certificate; without, its asking is enough"},
	{"service.<name>.check_interval", SERVICE(check_interval), .type = &type_duration,
	 .unit = "s, m, h, d", .min = 1, .max = DAY, .value = "5s",
	 .help = "from the end of a check to the next one"},
	{"service.<name>.check_timeout", SERVICE(check_timeout), .type = &type_duration,
	 .unit = "s, m, h, d", .min = 1, .max = HOUR, .value = "3s",
	 .help = "how long a check may take"},
	{"service.<name>.check_rise", SERVICE(check_rise), .type = &type_number, .unit = "checks",
	 .min = 1, .max = 100, .value = "2",
	 .help = "good ones in a row, until a service that is down is up"},
	{"service.<name>.check_fall", SERVICE(check_fall), .type = &type_number, .unit = "checks",
	 .min = 1, .max = 100, .value = "3",
	 .help = "bad ones in a row, until a service that is up is down; the first check decides alone"},
	{"service.<name>.eject_after", SERVICE(eject_after), .type = &type_number, .unit = "failures",
	 .min = 0, .max = 1000, .value = "5",
	 .help = "failed connects in a row, or suspicions that a check of ours confirms, until a service is avoided for a time; 0: never"},
	{"service.<name>.eject_time", SERVICE(eject_time), .type = &type_duration,
	 .unit = "s, m, h, d", .min = 1, .max = DAY, .value = "10s",
	 .help = "for how long, the first time; doubled each time in a row"},
	{"service.<name>.eject_time_max", SERVICE(eject_time_max), .type = &type_duration,
	 .unit = "s, m, h, d", .min = 1, .max = DAY, .value = "5m",
	 .help = "for how long at most"},
	{"service.<name>.slow_start", SERVICE(slow_start), .type = &type_duration,
	 .unit = "s, m, h, d", .min = 0, .max = HOUR, .value = "0",
	 .help = "how long its share grows from a tenth, when it is up again; 0: whole at once"},

	{"vserver.<name>.listen", VSERVER(listen), .where = offsetof(struct cfg_vserver, listen_where),
	 .type = &type_listens, .mandatory = true,
	 .help = "where clients connect to; a prefix or a range of ports needs BPF"},
	{"vserver.<name>.certkey", VSERVER(certkeys),
	 .where = offsetof(struct cfg_vserver, certkeys_where), .type = &cfg_type_references,
	 .refers = SCOPE_CERTKEY, .mandatory = true,
	 .help = "the certificates shown to clients: the server name (SNI) chooses, the first is the default"},
	{"vserver.<name>.allow_unknown_sni", VSERVER(allow_unknown_sni), .type = &type_boolean,
	 .value = "on",
	 .help = "clients that name no server, or one that no certkey is for, get the default; off: are refused"},
	{"vserver.<name>.shield", VSERVER(shield), .type = &type_boolean, .value = "on",
	 .help = "whether shield.* and the rules of ktlsgatectl shield apply"},
	{"vserver.<name>.profile", VSERVER(profile), .type = &cfg_type_reference,
	 .refers = SCOPE_PROFILE, .mandatory = true,
	 .help = "the profile of the client side"},
	{"vserver.<name>.service", VSERVER(services), .type = &cfg_type_references,
	 .refers = SCOPE_SERVICE, .mandatory = true,
	 .help = "where the connections go: one service, or several to balance between"},
	{"vserver.<name>.balance", VSERVER(balance), .type = &type_choice, .choices = balances,
	 .value = "round-robin",
	 .help = "how a connection's service is chosen: in turn, the least busy, or by the client's address"},
	{"vserver.<name>.max_flows", VSERVER(max_flows), .type = &type_number, .unit = "connections",
	 .min = 0, .max = 10000000, .value = "0",
	 .help = "connections at a time; those beyond are reset; 0: no limit"},
	{"vserver.<name>.accept_proxy", VSERVER(accept_proxy), .type = &type_boolean, .value = "off",
	 .help = "proxies in proxy_from tell the client's address, by PROXY protocol version 2, or are refused"},
	{"vserver.<name>.proxy_from", VSERVER(proxy_from), .type = &type_prefixes,
	 .help = "accept_proxy: the proxies; who comes from elsewhere is a client itself"},
	{"vserver.<name>.retries", VSERVER(retries), .type = &type_number, .min = 0, .max = 16,
	 .value = "2",
	 .help = "how often another service is tried when one cannot be connected to"},
};
/* clang-format on */
const unsigned cfg_n_keys = ARRAY_SIZE(cfg_keys);

#define LISTED(type, list_, count_)                                                                \
	.size = sizeof(type), .list = offsetof(struct config, list_),                              \
	.count = offsetof(struct config, count_)

const struct cfg_scope_desc cfg_scopes[SCOPES] = {
	[SCOPE_GLOBAL] = {.name = "", .help = "for all"},
	[SCOPE_CERTKEY] = {"certkey", "a certificate and its private key",
			   LISTED(struct cfg_certkey, certkeys, n_certkeys)},
	[SCOPE_PROFILE] = {"profile", "how TLS is spoken, with clients or with backends",
			   LISTED(struct cfg_profile, profiles, n_profiles)},
	[SCOPE_SERVICE] = {"service", "a backend",
			   LISTED(struct cfg_service, services, n_services)},
	[SCOPE_VSERVER] = {"vserver", "what clients connect to",
			   LISTED(struct cfg_vserver, vservers, n_vservers)},
};

#define ASSERT_HEAD(type)                                                                          \
	_Static_assert(offsetof(type, name) == offsetof(struct cfg_head, name) &&                  \
			       offsetof(type, index) == offsetof(struct cfg_head, index),          \
		       #type " does not begin like struct cfg_head")
ASSERT_HEAD(struct cfg_certkey);
ASSERT_HEAD(struct cfg_profile);
ASSERT_HEAD(struct cfg_service);
ASSERT_HEAD(struct cfg_vserver);

/* ---- objects ---- */

void *cfg_get_pointer(const void *member)
{
	void *p;

	memcpy(&p, member, sizeof(p));
	return p;
}

void cfg_set_pointer(void *member, void *value)
{
	memcpy(member, &value, sizeof(value));
}

unsigned cfg_count(const struct config *cfg, enum cfg_scope scope)
{
	if (scope == SCOPE_GLOBAL)
		return 1;
	return *(const unsigned *)cfg_member(cfg, cfg_scopes[scope].count);
}

void *cfg_object(const struct config *cfg, enum cfg_scope scope, unsigned i)
{
	char *list;

	if (scope == SCOPE_GLOBAL)
		return (void *)cfg;
	list = cfg_get_pointer(cfg_member(cfg, cfg_scopes[scope].list));
	return cfg_get_pointer(list + i * sizeof(void *));
}

int cfg_set_defaults(enum cfg_scope scope, void *object)
{
	char why[CFG_WHY_MAX];

	for (const struct cfg_key *k = cfg_keys; k < cfg_keys + cfg_n_keys; k++) {
		if (k->scope != scope || !k->value)
			continue;
		if (k->type->parse(k, k->value, cfg_member(object, k->offset), why) < 0)
			return -ENOMEM; /* the tests parse every default */
	}
	return 0;
}

void *cfg_object_add(struct config *cfg, enum cfg_scope scope, const char *name)
{
	const struct cfg_scope_desc *s = &cfg_scopes[scope];
	unsigned *count = cfg_member(cfg, s->count);
	void *list_member = cfg_member(cfg, s->list);
	char *list = reallocarray(cfg_get_pointer(list_member), *count + 1, sizeof(void *));
	struct cfg_head *head;

	if (!list)
		return NULL;
	cfg_set_pointer(list_member, list);
	head = calloc(1, s->size);
	if (!head)
		return NULL;
	/* From here on config_free() finds it. */
	cfg_set_pointer(list + *count * sizeof(void *), head);
	head->index = (*count)++;
	head->name = strdup(name);
	if (!head->name || cfg_set_defaults(scope, head) < 0)
		return NULL;
	return head;
}

/* ---- keys as text ---- */

bool cfg_name_valid(const char *name, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (!isalnum((unsigned char)name[i]) && name[i] != '_' && name[i] != '-')
			return false;
	}
	return len && len <= CFG_NAME_MAX;
}

#define NAME_MARK "<name>"

const struct cfg_key *cfg_find(const char *text, const char **name, size_t *name_len)
{
	size_t len = strlen(text);

	*name = text;
	*name_len = 0;
	for (const struct cfg_key *k = cfg_keys; k < cfg_keys + cfg_n_keys; k++) {
		const char *mark = strstr(k->pattern, NAME_MARK), *tail;
		size_t head_len, tail_len;

		if (!mark && !strcmp(text, k->pattern))
			return k;
		if (!mark)
			continue;
		head_len = mark - k->pattern;
		tail = mark + strlen(NAME_MARK);
		tail_len = strlen(tail);
		if (len < head_len + tail_len || strncmp(text, k->pattern, head_len) ||
		    strcmp(text + len - tail_len, tail))
			continue;
		*name = text + head_len;
		*name_len = len - head_len - tail_len;
		return k;
	}
	return NULL;
}

void cfg_key_text(const struct cfg_key *k, const char *name, char out[CFG_KEY_MAX])
{
	const char *mark = strstr(k->pattern, NAME_MARK);

	if (!mark || !name)
		snprintf(out, CFG_KEY_MAX, "%s", k->pattern);
	else
		snprintf(out, CFG_KEY_MAX, "%.*s%.*s%s", (int)(mark - k->pattern), k->pattern,
			 CFG_NAME_MAX, name, mark + strlen(NAME_MARK));
}

/* Levenshtein; both shorter than CFG_KEY_MAX. */
static unsigned edit_distance(const char *a, const char *b)
{
	unsigned row[CFG_KEY_MAX], left, diagonal;

	for (unsigned j = 0; j < CFG_KEY_MAX; j++)
		row[j] = j;
	for (unsigned i = 0; a[i]; i++) {
		diagonal = i;
		row[0] = i + 1;
		for (unsigned j = 0; b[j]; j++) {
			unsigned change = diagonal + (a[i] != b[j]);

			diagonal = row[j + 1];
			left = row[j];
			row[j + 1] = (diagonal < left ? diagonal : left) + 1;
			if (change < row[j + 1])
				row[j + 1] = change;
		}
	}
	return row[strlen(b)];
}

bool cfg_nearest(const char *text, char out[CFG_KEY_MAX])
{
	const char *first = strchr(text, '.'), *last = first ? strchr(first + 1, '.') : NULL;
	char name[CFG_NAME_MAX + 1] = "", key[CFG_KEY_MAX];
	long best, d;

	if (strlen(text) >= CFG_KEY_MAX)
		return false;
	best = strlen(text) / 3 + 1; /* further off, it is another word */
	out[0] = '\0';
	if (first && cfg_name_valid(first + 1, last > first ? last - first - 1 : 0))
		snprintf(name, sizeof(name), "%.*s", (int)(last - first - 1), first + 1);
	for (const struct cfg_key *k = cfg_keys; k < cfg_keys + cfg_n_keys; k++) {
		cfg_key_text(k, name, key);
		if (labs((long)strlen(text) - (long)strlen(key)) >= best)
			continue;
		d = edit_distance(text, key);
		if (d >= best)
			continue;
		best = d;
		cfg_key_text(k, *name ? name : NULL, out);
	}
	return out[0];
}

/* ---- printers ---- */

bool cfg_is_set(const struct cfg_key *k, const void *member)
{
	if (k->type == &type_address || k->type == &type_backend)
		return ((const struct cfg_address *)member)->len;
	if (k->type == &cfg_type_reference || (k->type->owns_string && !k->word))
		return cfg_get_pointer(member);
	return true;
}

bool config_has(const struct config *cfg, const char *key)
{
	const char *name;
	size_t len;
	const struct cfg_key *k = cfg_find(key, &name, &len);

	if (!k || k->scope == SCOPE_GLOBAL)
		return k;
	for (unsigned i = 0; i < cfg_count(cfg, k->scope); i++) {
		const struct cfg_head *head = cfg_object(cfg, k->scope, i);

		if (strlen(head->name) == len && !memcmp(head->name, name, len))
			return true;
	}
	return false;
}

/* tell(): each setting in order. Returns how many there are; key: only that one. */
static int for_each_setting (const struct config *cfg, const char *key,
			     void (*tell)(const struct cfg_key *k, unsigned object,
					  const char *text, const void *member, void *arg),
			     void *arg)
{
	int n = 0;

	for (enum cfg_scope scope = 0; scope < SCOPES; scope++) {
		for (unsigned i = 0; i < cfg_count(cfg, scope); i++) {
			const void *object = cfg_object(cfg, scope, i);
			const char *name = scope ? ((const struct cfg_head *)object)->name : NULL;

			for (const struct cfg_key *k = cfg_keys; k < cfg_keys + cfg_n_keys; k++) {
				const void *member = cfg_member(object, k->offset);
				char text[CFG_KEY_MAX];

				if (k->scope != scope || !cfg_is_set(k, member))
					continue;
				cfg_key_text(k, name, text);
				if (key && strcmp(key, text))
					continue;
				tell(k, i, text, member, arg);
				n++;
			}
		}
	}
	return n;
}

static void print_setting(const struct cfg_key *k, unsigned object, const char *text,
			  const void *member, void *arg)
{
	FILE *out = arg;

	(void)object;
	fprintf(out, "%s = ", text);
	k->type->print(k, member, out);
	fputc('\n', out);
}

int config_print(const struct config *cfg, const char *key, FILE *out)
{
	return for_each_setting (cfg, key, print_setting, out);
}

struct origins {
	const struct config *cfg;
	unsigned next;
	FILE *out;
};

static bool before(const struct cfg_origin *o, const struct cfg_key *k, unsigned object)
{
	if (o->key->scope != k->scope)
		return o->key->scope < k->scope;
	if (o->object != object)
		return o->object < object;
	return o->key < k;
}

/* Both lists are in the same order, so one walk through each does. */
static void print_origin(const struct cfg_key *k, unsigned object, const char *text,
			 const void *member, void *arg)
{
	struct origins *o = arg;
	const struct cfg_origin *from = o->cfg->origins + o->next;
	const struct cfg_origin *end = o->cfg->origins + o->cfg->n_origins;

	/* What was assigned but is not printed: "off" and the like. */
	while (from < end && before(from, k, object))
		from++;
	o->next = (unsigned)(from - o->cfg->origins);
	fprintf(o->out, "%s = ", text);
	k->type->print(k, member, o->out);
	if (from < end && from->key == k && from->object == object)
		fprintf(o->out, " # %s:%u\n", from->where.file, from->where.line);
	else
		fputs(" # default\n", o->out);
}

void config_print_origins(const struct config *cfg, FILE *out)
{
	struct origins o = {.cfg = cfg, .out = out};

	for_each_setting (cfg, NULL, print_origin, &o)
		;
}

void config_print_table(FILE *out)
{
	fputs("key\ttype\tunit\trange\tdefault\truntime\thelp\n", out);
	for (const struct cfg_key *k = cfg_keys; k < cfg_keys + cfg_n_keys; k++) {
		fprintf(out, "%s\t%s\t%s\t", k->pattern, k->type->name, k->unit ? k->unit : "-");
		k->type->range(k, out);
		fprintf(out, "\t%s\t%s\t%s\n",
			k->value       ? k->value
			: k->mandatory ? "mandatory"
				       : "unset",
			k->fixed ? "no" : "yes", k->help);
	}
}

/* What the example sets: one vserver that forges for one backend, and no root beside it. */
static const char *const sample[] = {
	"dataplane.user = ktlsgate",
	"signer.user = ktlsgate-signer",
	"resolver.user = ktlsgate-resolver",
	"certkey.web.cert = /etc/ktlsgate/pki/web.pem",
	"certkey.web.key = /etc/ktlsgate/pki/web.key",
	"certkey.forge.cert = /etc/ktlsgate/pki/forge-ca.pem",
	"certkey.forge.key = /etc/ktlsgate/pki/forge-ca.key",
	"profile.front.client_auth = mandatory",
	"profile.front.client_ca = /etc/ktlsgate/pki/client-ca.pem",
	"profile.back.dynamic_client_cert = enabled",
	"profile.back.forging_certkey = forge",
	"profile.back.server_ca = /etc/ktlsgate/pki/server-ca.pem",
	"service.app1.address = 127.0.0.1:9443",
	"service.app1.server_name = backend.example",
	"service.app1.profile = back",
	"vserver.app.listen = 0.0.0.0:8443",
	"vserver.app.certkey = web",
	"vserver.app.profile = front",
	"vserver.app.service = app1",
};

static void print_help(const struct cfg_key *k, FILE *out)
{
	fprintf(out, "# %s: %s.\n#   ", k->pattern, k->help);
	k->type->range(k, out);
	fprintf(out, "%s\n", k->mandatory ? "; mandatory" : "");
}

/* pattern NULL: of all keys of the scope */
static void print_sample(enum cfg_scope scope, const char *pattern, FILE *out)
{
	const char *name;
	size_t len;

	for (unsigned i = 0; i < ARRAY_SIZE(sample); i++) {
		char key[CFG_KEY_MAX];

		snprintf(key, sizeof(key), "%.*s", (int)strcspn(sample[i], " "), sample[i]);
		if (cfg_find(key, &name, &len)->scope == scope &&
		    (!pattern || !strcmp(key, pattern)))
			fprintf(out, "%s\n", sample[i]);
	}
}

int config_print_example(FILE *out)
{
	fputs("# SPDX-License-Identifier: Apache-2.0\n"
	      "# ktlsgate.conf: KEY = VALUE, one per line; a later line replaces an earlier one.\n"
	      "# Comments are lines that begin with # or ; and the rest of a line from a # that\n"
	      "# stands after white space. Times take s, m, h or d (none: seconds). <name> is of\n"
	      "# letters, digits, _ and -. What is commented out here is the default.\n"
	      "# Generated from the table in daemon/config/config_table.c: do not edit.\n",
	      out);
	for (const struct cfg_key *k = cfg_keys; k < cfg_keys + cfg_n_keys; k++) {
		if (k->scope != SCOPE_GLOBAL)
			continue;
		fputc('\n', out);
		print_help(k, out);
		if (k->value)
			fprintf(out, "#%s = %s\n", k->pattern, k->value);
		print_sample(SCOPE_GLOBAL, k->pattern, out);
	}
	for (enum cfg_scope scope = SCOPE_GLOBAL + 1; scope < SCOPES; scope++) {
		fprintf(out, "\n# A %s: %s.\n", cfg_scopes[scope].name, cfg_scopes[scope].help);
		for (const struct cfg_key *k = cfg_keys; k < cfg_keys + cfg_n_keys; k++) {
			if (k->scope != scope)
				continue;
			print_help(k, out);
			if (k->value)
				fprintf(out, "#   default: %s\n", k->value);
		}
		print_sample(scope, NULL, out);
	}
	return ferror(out) ? -EIO : 0;
}
