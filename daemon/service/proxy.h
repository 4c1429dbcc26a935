/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The PROXY protocol, version 2 (haproxy.org, proxy-protocol.txt of 2020/03/05):
 * who the client is, told in front of everything else. Headers are parsed and
 * built here, not read or sent; nothing is kept.
 */
#ifndef KTLSGATE_PROXY_H
#define KTLSGATE_PROXY_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/scoped.h"

#define PROXY_HEAD 16 /* signature, version, command, family, length */
#define PROXY_BODY_MAX                                                                             \
	4096 /* addresses and TLVs of a header received; there are at most 64 KiB                  \
	      */
#define PROXY_TLVS_MAX	 1024
#define PROXY_HEADER_MAX (PROXY_HEAD + 36 + PROXY_TLVS_MAX)

enum proxy_error {
	PROXY_OK,
	PROXY_ABSENT,	 /* something else begins: the sender speaks no PROXY protocol */
	PROXY_VERSION_1, /* its text form */
	PROXY_MALFORMED,
};

/* Both of one family: AF_INET (fits too), AF_INET6; AF_UNSPEC: not told (LOCAL, UNIX sockets). */
struct proxy_addresses {
	struct sockaddr_in6 source, destination;
};

/* The first PROXY_HEAD bytes, or as many as there are: wrong as early as can be told. */
enum proxy_error proxy_check(const uint8_t *head, size_t have) must_check;
/* Of a complete head: the bytes that follow; with PROXY_BODY_MAX exceeded PROXY_MALFORMED. */
enum proxy_error proxy_body_len(const uint8_t head[PROXY_HEAD], size_t *len) must_check;
/* IPv4 addresses mapped into IPv6 come out as IPv4. TLVs are not looked at. */
enum proxy_error proxy_parse(const uint8_t *header, size_t len,
			     struct proxy_addresses *out) must_check;

/* What a backend is told about the client's TLS (section 2.2.6); NULL and empty: left out. */
struct proxy_tls {
	const char *version, *cipher; /* "TLSv1.3", "TLS_AES_128_GCM_SHA256" */
	const uint8_t *common_name;   /* UTF-8 */
	size_t common_name_len;
	bool certificate, verified;
};

/*
 * Builds a header: addresses of AF_UNSPEC make it LOCAL. alpn without its length byte; tls
 * NULL: no PP2_TYPE_SSL. What has no room is left out. Returns its length.
 */
size_t proxy_build(const struct proxy_addresses *a, const char *authority, const uint8_t *alpn,
		   size_t alpn_len, const struct proxy_tls *tls, uint8_t out[PROXY_HEADER_MAX]);

#endif
