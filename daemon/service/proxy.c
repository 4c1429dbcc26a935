/* SPDX-License-Identifier: Apache-2.0 */
/* Headers of the PROXY protocol, to and from bytes; see proxy.h. */
#include <string.h>
#include "service/proxy.h"

static const uint8_t signature[12] = {0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d,
				      0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a};

#define VERSION_2     0x20
#define COMMAND_LOCAL 0
#define COMMAND_PROXY 1
#define TCP_OVER_IPV4 0x11
#define TCP_OVER_IPV6 0x21
#define IPV4_LEN      12
#define IPV6_LEN      36

enum {
	TYPE_ALPN = 0x01,
	TYPE_AUTHORITY = 0x02,
	TYPE_SSL = 0x20,
	SUBTYPE_SSL_VERSION = 0x21,
	SUBTYPE_SSL_CN = 0x22,
	SUBTYPE_SSL_CIPHER = 0x23,
	CLIENT_SSL = 0x01,
	CLIENT_CERT_CONN = 0x02,
	CLIENT_CERT_SESS = 0x04,
};

/* ---- received ---- */

static size_t least(size_t a, size_t b)
{
	return a < b ? a : b;
}

enum proxy_error proxy_check(const uint8_t *head, size_t have)
{
	if (have && !memcmp(head, "PROXY ", least(have, 6)))
		return have < 6 ? PROXY_OK : PROXY_VERSION_1;
	if (memcmp(head, signature, least(have, sizeof(signature))) != 0)
		return PROXY_ABSENT;
	if (have > 12 && ((head[12] & 0xf0) != VERSION_2 || (head[12] & 0x0f) > COMMAND_PROXY))
		return PROXY_MALFORMED;
	return PROXY_OK;
}

enum proxy_error proxy_body_len(const uint8_t head[PROXY_HEAD], size_t *len)
{
	enum proxy_error err = proxy_check(head, PROXY_HEAD);

	*len = (size_t)head[14] << 8 | head[15];
	if (!err && *len > PROXY_BODY_MAX)
		err = PROXY_MALFORMED;
	return err;
}

static void set_v4(struct sockaddr_in6 *out, const uint8_t *ip, const uint8_t *port)
{
	struct sockaddr_in *in = (struct sockaddr_in *)out;

	in->sin_family = AF_INET;
	memcpy(&in->sin_addr, ip, 4);
	memcpy(&in->sin_port, port, 2);
}

static void set_v6(struct sockaddr_in6 *out, const uint8_t *ip, const uint8_t *port)
{
	out->sin6_family = AF_INET6;
	memcpy(&out->sin6_addr, ip, 16);
	memcpy(&out->sin6_port, port, 2);
}

static bool is_mapped(const uint8_t *ip)
{
	static const uint8_t prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

	return !memcmp(ip, prefix, sizeof(prefix));
}

enum proxy_error proxy_parse(const uint8_t *header, size_t len, struct proxy_addresses *out)
{
	const uint8_t *p = header + PROXY_HEAD;
	size_t body;
	enum proxy_error err;

	memset(out, 0, sizeof(*out));
	if (len < PROXY_HEAD)
		return PROXY_MALFORMED;
	err = proxy_body_len(header, &body);
	if (err || len != PROXY_HEAD + body)
		return err ? err : PROXY_MALFORMED;
	if ((header[12] & 0x0f) == COMMAND_LOCAL)
		return PROXY_OK;
	switch (header[13]) {
	case TCP_OVER_IPV4:
		if (body < IPV4_LEN)
			return PROXY_MALFORMED;
		set_v4(&out->source, p, p + 8);
		set_v4(&out->destination, p + 4, p + 10);
		return PROXY_OK;
	case TCP_OVER_IPV6:
		if (body < IPV6_LEN)
			return PROXY_MALFORMED;
		if (is_mapped(p) && is_mapped(p + 16)) {
			set_v4(&out->source, p + 12, p + 32);
			set_v4(&out->destination, p + 28, p + 34);
		} else {
			set_v6(&out->source, p, p + 32);
			set_v6(&out->destination, p + 16, p + 34);
		}
		return PROXY_OK;
	default: /* UNIX sockets, UDP, unspecified: to be taken, the addresses not (section 2.2) */
		return PROXY_OK;
	}
}

/* ---- to be sent ---- */

static size_t put_addresses(uint8_t *p, const struct proxy_addresses *a)
{
	const struct sockaddr_in *s4 = (const struct sockaddr_in *)&a->source;
	const struct sockaddr_in *d4 = (const struct sockaddr_in *)&a->destination;

	if (a->source.sin6_family == AF_INET) {
		memcpy(p, &s4->sin_addr, 4);
		memcpy(p + 4, &d4->sin_addr, 4);
		memcpy(p + 8, &s4->sin_port, 2);
		memcpy(p + 10, &d4->sin_port, 2);
		return IPV4_LEN;
	}
	memcpy(p, &a->source.sin6_addr, 16);
	memcpy(p + 16, &a->destination.sin6_addr, 16);
	memcpy(p + 32, &a->source.sin6_port, 2);
	memcpy(p + 34, &a->destination.sin6_port, 2);
	return IPV6_LEN;
}

/* TLVs, one behind the other. */
struct tlvs {
	uint8_t *p;
	size_t n, room;
};

static void put_tlv(struct tlvs *t, uint8_t type, const void *value, size_t len)
{
	if (!len || t->room - t->n < 3 + len)
		return;
	t->p[t->n] = type;
	t->p[t->n + 1] = (uint8_t)(len >> 8);
	t->p[t->n + 2] = (uint8_t)len;
	memcpy(t->p + t->n + 3, value, len);
	t->n += 3 + len;
}

static void put_text(struct tlvs *t, uint8_t type, const char *text)
{
	if (text)
		put_tlv(t, type, text, strlen(text));
}

static void put_tls(struct tlvs *t, const struct proxy_tls *tls)
{
	uint8_t value[512];
	struct tlvs sub = {value, 5, sizeof(value)};

	value[0] = CLIENT_SSL | (tls->certificate ? CLIENT_CERT_CONN | CLIENT_CERT_SESS : 0);
	memset(value + 1, 0, 4);
	value[4] = !(tls->certificate && tls->verified);
	put_text(&sub, SUBTYPE_SSL_VERSION, tls->version);
	put_text(&sub, SUBTYPE_SSL_CIPHER, tls->cipher);
	put_tlv(&sub, SUBTYPE_SSL_CN, tls->common_name, tls->common_name_len);
	put_tlv(t, TYPE_SSL, value, sub.n);
}

size_t proxy_build(const struct proxy_addresses *a, const char *authority, const uint8_t *alpn,
		   size_t alpn_len, const struct proxy_tls *tls, uint8_t out[PROXY_HEADER_MAX])
{
	struct tlvs t = {out, PROXY_HEAD, PROXY_HEADER_MAX};
	bool local = a->source.sin6_family == AF_UNSPEC;

	memcpy(out, signature, sizeof(signature));
	out[12] = VERSION_2 | (local ? COMMAND_LOCAL : COMMAND_PROXY);
	out[13] = local ? 0 : a->source.sin6_family == AF_INET ? TCP_OVER_IPV4 : TCP_OVER_IPV6;
	if (!local) {
		t.n += put_addresses(out + PROXY_HEAD, a);
		put_tlv(&t, TYPE_ALPN, alpn, alpn_len);
		put_text(&t, TYPE_AUTHORITY, authority);
		if (tls)
			put_tls(&t, tls);
	}
	out[14] = (uint8_t)((t.n - PROXY_HEAD) >> 8);
	out[15] = (uint8_t)(t.n - PROXY_HEAD);
	return t.n;
}
