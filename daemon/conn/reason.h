/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why a flow ended: one row per reason with what the client and the backend
 * are told (RFC 8446 section 6) and the text of the log line. Each reason is
 * a counter `reason_<name>` of `ktlsgatectl stats`.
 */
#ifndef KTLSGATE_REASON_H
#define KTLSGATE_REASON_H

#include "tls/record.h"

/*
 * X(name, alert to the client, alert to the backend, text)
 * ALERT_NONE: that side is not told by us (it is gone, it already has an
 * alert from OpenSSL, or it ended the connection itself).
 */
#define REASONS(X)                                                                                 \
	X(done, ALERT_NONE, ALERT_NONE, "closed by both sides")                                    \
	X(client_truncated, ALERT_NONE, ALERT_NONE, "client ended without close_notify")           \
	X(backend_truncated, ALERT_NONE, ALERT_NONE, "backend ended without close_notify")         \
	X(client_reset, ALERT_NONE, ALERT_NONE, "client reset the connection")                     \
	X(backend_reset, ALERT_NONE, ALERT_NONE, "backend reset the connection")                   \
	X(client_alert, ALERT_NONE, ALERT_NONE, "client sent a fatal alert")                       \
	X(backend_alert, ALERT_NONE, ALERT_NONE, "backend sent a fatal alert")                     \
	/* the client's handshake */                                                               \
	X(proxy_absent, ALERT_UNEXPECTED_MESSAGE, ALERT_NONE,                                      \
	  "proxy sent no PROXY protocol header")                                                   \
	X(proxy_version, ALERT_UNEXPECTED_MESSAGE, ALERT_NONE,                                     \
	  "proxy speaks version 1 of the PROXY protocol, and we version 2")                        \
	X(proxy_malformed, ALERT_UNEXPECTED_MESSAGE, ALERT_NONE,                                   \
	  "proxy sent a malformed PROXY protocol header")                                          \
	X(client_not_tls, ALERT_UNEXPECTED_MESSAGE, ALERT_NONE, "client does not speak TLS")       \
	X(client_gone, ALERT_NONE, ALERT_USER_CANCELED, "client left during the handshake")        \
	X(client_timeout, ALERT_USER_CANCELED, ALERT_USER_CANCELED,                                \
	  "client did not finish the handshake in time")                                           \
	X(client_hello_timeout, ALERT_USER_CANCELED, ALERT_NONE,                                   \
	  "client sent no whole ClientHello within timeout.client_hello")                          \
	X(overloaded, ALERT_INTERNAL_ERROR, ALERT_NONE,                                            \
	  "worker had no time for the client's handshake before timeout.handshake")                \
	X(client_version, ALERT_NONE, ALERT_USER_CANCELED, "client has no TLS version of ours")    \
	X(client_server_name, ALERT_NONE, ALERT_NONE,                                              \
	  "client asked for a server name that no certkey is for")                                 \
	X(loop, ALERT_NONE, ALERT_NONE, "client is this gate itself: a service leads back to it")  \
	X(client_alpn, ALERT_NONE, ALERT_NONE, "client offers no protocol of profile.<n>.alpn")    \
	X(client_cipher, ALERT_NONE, ALERT_USER_CANCELED,                                          \
	  "client has no cipher or signature algorithm of ours")                                   \
	X(client_protocol, ALERT_NONE, ALERT_USER_CANCELED, "client broke the handshake protocol") \
	X(client_handshake_size, ALERT_ILLEGAL_PARAMETER, ALERT_USER_CANCELED,                     \
	  "client's handshake is longer than limit.handshake_size")                                \
	X(client_refused, ALERT_NONE, ALERT_USER_CANCELED,                                         \
	  "client refused the handshake with an alert")                                            \
	/* the client's certificate; told by OpenSSL unless noted */                               \
	X(client_cert_required, ALERT_NONE, ALERT_HANDSHAKE_FAILURE,                               \
	  "client presented no certificate")                                                       \
	X(client_cert_absent, ALERT_CERTIFICATE_REQUIRED, ALERT_HANDSHAKE_FAILURE,                 \
	  "client presented no certificate and none can be forged")                                \
	X(client_cert_untrusted, ALERT_NONE, ALERT_HANDSHAKE_FAILURE,                              \
	  "client certificate is not from a trusted CA")                                           \
	X(client_cert_expired, ALERT_NONE, ALERT_HANDSHAKE_FAILURE, "client certificate expired")  \
	X(client_cert_not_yet_valid, ALERT_NONE, ALERT_HANDSHAKE_FAILURE,                          \
	  "client certificate is not yet valid")                                                   \
	X(client_cert_purpose, ALERT_NONE, ALERT_HANDSHAKE_FAILURE,                                \
	  "client certificate is not for client authentication")                                   \
	X(client_cert_revoked, ALERT_NONE, ALERT_HANDSHAKE_FAILURE,                                \
	  "client certificate was revoked")                                                        \
	X(client_crl_missing, ALERT_NONE, ALERT_HANDSHAKE_FAILURE,                                 \
	  "no CRL tells whether the client certificate was revoked")                               \
	X(client_crl_expired, ALERT_NONE, ALERT_HANDSHAKE_FAILURE,                                 \
	  "a CRL for the client certificate has expired")                                          \
	X(client_ocsp_unknown, ALERT_CERTIFICATE_UNKNOWN, ALERT_HANDSHAKE_FAILURE,                 \
	  "no OCSP answer tells whether the client certificate was revoked")                       \
	X(client_cert_invalid, ALERT_NONE, ALERT_HANDSHAKE_FAILURE,                                \
	  "client certificate was refused")                                                        \
	X(client_cert_proof, ALERT_NONE, ALERT_HANDSHAKE_FAILURE,                                  \
	  "client did not prove that it holds its key")                                            \
	/* forging */                                                                              \
	X(forge_chain, ALERT_CERTIFICATE_UNKNOWN, ALERT_HANDSHAKE_FAILURE,                         \
	  "signer refused the client's chain")                                                     \
	X(forge_proof, ALERT_ACCESS_DENIED, ALERT_HANDSHAKE_FAILURE,                               \
	  "signer saw no proof of possession")                                                     \
	X(forge_rule, ALERT_UNSUPPORTED_CERTIFICATE, ALERT_HANDSHAKE_FAILURE,                      \
	  "certificate cannot be forged")                                                          \
	X(forge_replay, ALERT_ACCESS_DENIED, ALERT_HANDSHAKE_FAILURE,                              \
	  "signer saw this handshake before")                                                      \
	X(forge_stale, ALERT_ACCESS_DENIED, ALERT_HANDSHAKE_FAILURE,                               \
	  "signer saw no fresh value in the handshake")                                            \
	X(forge_full, ALERT_INTERNAL_ERROR, ALERT_HANDSHAKE_FAILURE,                               \
	  "signer has no room to remember the handshake")                                          \
	X(forge_audit, ALERT_INTERNAL_ERROR, ALERT_HANDSHAKE_FAILURE,                              \
	  "audit log cannot be written")                                                           \
	X(forge_token, ALERT_ACCESS_DENIED, ALERT_HANDSHAKE_FAILURE,                               \
	  "signer refused the identity token")                                                     \
	X(forge_policy, ALERT_ACCESS_DENIED, ALERT_HANDSHAKE_FAILURE,                              \
	  "forging CA is not for this client")                                                     \
	X(forge_rate, ALERT_INTERNAL_ERROR, ALERT_HANDSHAKE_FAILURE,                               \
	  "forging CA's rate is used up")                                                          \
	X(forge_queue, ALERT_INTERNAL_ERROR, ALERT_HANDSHAKE_FAILURE, "signer has too much to do") \
	X(forge_failed, ALERT_INTERNAL_ERROR, ALERT_HANDSHAKE_FAILURE, "signer failed")            \
	X(forge_timeout, ALERT_INTERNAL_ERROR, ALERT_HANDSHAKE_FAILURE,                            \
	  "signer did not answer in time")                                                         \
	/* the backend's handshake */                                                              \
	X(no_service, ALERT_INTERNAL_ERROR, ALERT_NONE, "no service of the vserver can be used")   \
	X(no_early_connect, ALERT_INTERNAL_ERROR, ALERT_NONE,                                      \
	  "service had early_connects connections for other clients until timeout.handshake")      \
	X(backend_unresolved, ALERT_INTERNAL_ERROR, ALERT_NONE, "backend's name has no address")   \
	X(backend_connect_refused, ALERT_INTERNAL_ERROR, ALERT_NONE,                               \
	  "backend refused the connection")                                                        \
	X(backend_connect_failed, ALERT_INTERNAL_ERROR, ALERT_NONE, "backend is unreachable")      \
	X(backend_connect_timeout, ALERT_INTERNAL_ERROR, ALERT_NONE,                               \
	  "backend did not answer the connection in time")                                         \
	X(backend_connect_local, ALERT_INTERNAL_ERROR, ALERT_NONE,                                 \
	  "no local port, descriptor or memory for a connection to the backend")                   \
	X(backend_not_tls, ALERT_INTERNAL_ERROR, ALERT_NONE, "backend does not speak TLS")         \
	X(backend_gone, ALERT_INTERNAL_ERROR, ALERT_NONE, "backend left during the handshake")     \
	X(backend_timeout, ALERT_INTERNAL_ERROR, ALERT_USER_CANCELED,                              \
	  "backend did not finish the handshake in time")                                          \
	X(backend_version, ALERT_INTERNAL_ERROR, ALERT_NONE, "backend has no TLS version of ours") \
	X(backend_cipher, ALERT_INTERNAL_ERROR, ALERT_NONE,                                        \
	  "backend has no cipher, group or signature algorithm of ours")                           \
	X(backend_server_name, ALERT_UNRECOGNIZED_NAME, ALERT_NONE,                                \
	  "backend does not know the server name")                                                 \
	X(backend_alpn, ALERT_NO_APPLICATION_PROTOCOL, ALERT_USER_CANCELED,                        \
	  "backend has no protocol that the client offers")                                        \
	X(backend_protocol, ALERT_INTERNAL_ERROR, ALERT_NONE,                                      \
	  "backend broke the handshake protocol")                                                  \
	X(backend_refused, ALERT_HANDSHAKE_FAILURE, ALERT_NONE,                                    \
	  "backend refused the handshake with an alert")                                           \
	X(backend_refused_certificate, ALERT_ACCESS_DENIED, ALERT_NONE,                            \
	  "backend refused the forged certificate")                                                \
	X(backend_wants_certificate, ALERT_HANDSHAKE_FAILURE, ALERT_NONE,                          \
	  "backend insists on a client certificate, and none was to be shown")                     \
	X(backend_refused_fallback, ALERT_ACCESS_DENIED, ALERT_NONE,                               \
	  "backend refused the fallback certificate")                                              \
	X(backend_cert_untrusted, ALERT_INTERNAL_ERROR, ALERT_NONE,                                \
	  "backend certificate is not from a trusted CA")                                          \
	X(backend_cert_expired, ALERT_INTERNAL_ERROR, ALERT_NONE,                                  \
	  "backend certificate expired or is not yet valid")                                       \
	X(backend_cert_name, ALERT_INTERNAL_ERROR, ALERT_NONE,                                     \
	  "backend certificate is for another name")                                               \
	X(backend_cert_revoked, ALERT_INTERNAL_ERROR, ALERT_NONE,                                  \
	  "backend certificate was revoked")                                                       \
	X(backend_crl_missing, ALERT_INTERNAL_ERROR, ALERT_NONE,                                   \
	  "no CRL tells whether the backend certificate was revoked")                              \
	X(backend_crl_expired, ALERT_INTERNAL_ERROR, ALERT_NONE,                                   \
	  "a CRL for the backend certificate has expired")                                         \
	X(backend_ocsp_unknown, ALERT_INTERNAL_ERROR, ALERT_BAD_CERTIFICATE_STATUS_RESPONSE,       \
	  "no OCSP answer tells whether the backend certificate was revoked")                      \
	X(backend_cert_invalid, ALERT_INTERNAL_ERROR, ALERT_NONE,                                  \
	  "backend certificate was refused")                                                       \
	X(backend_no_certificate_request, ALERT_HANDSHAKE_FAILURE, ALERT_HANDSHAKE_FAILURE,        \
	  "backend did not ask for a client certificate")                                          \
	X(backend_late_request, ALERT_INTERNAL_ERROR, ALERT_UNEXPECTED_MESSAGE,                    \
	  "backend asked for a client certificate after the handshake")                            \
	X(backend_key_type, ALERT_HANDSHAKE_FAILURE, ALERT_HANDSHAKE_FAILURE,                      \
	  "backend accepts no key type we can forge with")                                         \
	X(backend_ca_names, ALERT_HANDSHAKE_FAILURE, ALERT_HANDSHAKE_FAILURE,                      \
	  "backend names none of our forging CAs")                                                 \
	/* hand-over and relay */                                                                  \
	X(engine_refused, ALERT_INTERNAL_ERROR, ALERT_USER_CANCELED,                               \
	  "dataplane.engine = ktls, but the kernel cannot do it")                                  \
	X(engine_failed, ALERT_INTERNAL_ERROR, ALERT_INTERNAL_ERROR,                               \
	  "keys could not be installed")                                                           \
	X(client_bad_record, ALERT_NONE, ALERT_INTERNAL_ERROR, "client sent a bad record")         \
	X(backend_bad_record, ALERT_INTERNAL_ERROR, ALERT_NONE, "backend sent a bad record")       \
	X(client_illegal, ALERT_NONE, ALERT_INTERNAL_ERROR, "client broke the protocol")           \
	X(backend_illegal, ALERT_INTERNAL_ERROR, ALERT_NONE, "backend broke the protocol")         \
	X(client_flood, ALERT_INTERNAL_ERROR, ALERT_INTERNAL_ERROR,                                \
	  "client sent too many records that carry no data")                                       \
	X(backend_flood, ALERT_INTERNAL_ERROR, ALERT_INTERNAL_ERROR,                               \
	  "backend sent too many records that carry no data")                                      \
	X(rekey_unsupported, ALERT_INTERNAL_ERROR, ALERT_INTERNAL_ERROR,                           \
	  "KeyUpdate, and this kernel cannot re-key")                                              \
	X(taken_for_key_update, ALERT_INTERNAL_ERROR, ALERT_INTERNAL_ERROR,                        \
	  "TLS 1.2, and the kernel takes a handshake record for a KeyUpdate")                      \
	X(half_close_timeout, ALERT_NONE, ALERT_NONE,                                              \
	  "one side closed in TLS 1.2, and did not take what the other had sent")                  \
	X(key_limit, ALERT_USER_CANCELED, ALERT_USER_CANCELED,                                     \
	  "dataplane.key_limit is reached, and this kernel cannot re-key")                         \
	X(idle_timeout, ALERT_USER_CANCELED, ALERT_USER_CANCELED, "nothing moved for too long")    \
	X(shutdown, ALERT_USER_CANCELED, ALERT_USER_CANCELED, "daemon is stopping")                \
	X(killed, ALERT_USER_CANCELED, ALERT_USER_CANCELED, "ended by an operator")                \
	X(closed_idle, ALERT_USER_CANCELED, ALERT_USER_CANCELED,                                   \
	  "idle the longest, at limit.flows")                                                      \
	X(limit_flows, ALERT_NONE, ALERT_NONE, "refused: limit.flows is reached")                  \
	X(limit_memory, ALERT_NONE, ALERT_NONE, "refused: limit.memory is reached")                \
	X(limit_vserver, ALERT_NONE, ALERT_NONE, "refused: the vserver's max_flows is reached")    \
	X(limit_source, ALERT_NONE, ALERT_NONE, "refused: limit.flows_per_source is reached")      \
	X(limit_source_handshakes, ALERT_NONE, ALERT_NONE,                                         \
	  "refused: limit.handshakes_per_source is reached")                                       \
	X(limit_handshakes, ALERT_NONE, ALERT_NONE, "refused: limit.handshakes is reached")        \
	X(no_memory, ALERT_INTERNAL_ERROR, ALERT_INTERNAL_ERROR, "out of memory")                  \
	X(io_error, ALERT_INTERNAL_ERROR, ALERT_INTERNAL_ERROR, "socket failed")

enum reason {
#define X(name, client, backend, text) REASON_##name,
	REASONS(X)
#undef X
	REASON_COUNT
};

struct reason_desc {
	const char *name;
	int client_alert, backend_alert; /* enum tls_alert */
	const char *text;
};

extern const struct reason_desc reasons[REASON_COUNT];

#endif
