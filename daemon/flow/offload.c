// SPDX-License-Identifier: Apache-2.0
/* Who seals and opens the records of a socket, by the kernel's word; see offload.h. */
#include "flow/offload.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/tls.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define ALL_STATES ~0u

/* ---- in the data process ---- */

int offload_counters(void)
{
	return open("/proc/net/tls_stat", O_RDONLY | O_CLOEXEC);
}

static bool is_zero(const char *counters, const char *name)
{
	const char *line = strstr(counters, name);

	return line && !strtoull(line + strlen(name), NULL, 10);
}

/* They only grow, and count each socket whose key a device has taken. */
bool offload_possible(int counters)
{
	char text[2048];
	ssize_t n = pread(counters, text, sizeof(text) - 1, 0);

	if (n <= 0)
		return true;
	text[n] = '\0';
	return !is_zero(text, "TlsTxDevice") || !is_zero(text, "TlsRxDevice");
}

int offload_describe(int fd, struct offload_socket *out)
{
	socklen_t cookie = sizeof(out->cookie), local = sizeof(out->local),
		  remote = sizeof(out->remote);

	if (getsockopt(fd, SOL_SOCKET, SO_COOKIE, &out->cookie, &cookie) ||
	    getsockname(fd, (struct sockaddr *)&out->local, &local) ||
	    getpeername(fd, (struct sockaddr *)&out->remote, &remote))
		return -errno;
	return 0;
}

/* ---- in the supervisor ---- */

static void put_address(const struct sockaddr_in6 *sa, __be32 address[4], __be16 *port)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)sa;

	*port = sa->sin6_port; /* at the same place in both */
	if (sa->sin6_family == AF_INET)
		address[0] = in->sin_addr.s_addr;
	else
		memcpy(address, &sa->sin6_addr, sizeof(sa->sin6_addr));
}

/* One socket, found by its addresses and known by its cookie: the kernel searches no list. */
static int ask(int netlink, const struct offload_socket *s)
{
	struct {
		struct nlmsghdr head;
		struct inet_diag_req_v2 diag;
	} request = {
		.head = {.nlmsg_len = sizeof(request),
			 .nlmsg_type = SOCK_DIAG_BY_FAMILY,
			 .nlmsg_flags = NLM_F_REQUEST},
		/* It tells of a ULP only who asks for TCP's figures (inet_sk_diag_fill()). */
		.diag = {.sdiag_family = (uint8_t)s->local.sin6_family,
			 .sdiag_protocol = IPPROTO_TCP,
			 .idiag_ext = 1 << (INET_DIAG_INFO - 1),
			 .idiag_states = ALL_STATES},
	};
	struct inet_diag_sockid *id = &request.diag.id;

	/* Whoever asks may ask for these, and for nothing else. */
	if ((s->local.sin6_family != AF_INET && s->local.sin6_family != AF_INET6) ||
	    s->remote.sin6_family != s->local.sin6_family)
		return -EAFNOSUPPORT;
	put_address(&s->local, id->idiag_src, &id->idiag_sport);
	put_address(&s->remote, id->idiag_dst, &id->idiag_dport);
	if (s->local.sin6_family == AF_INET6)
		id->idiag_if = s->local.sin6_scope_id;
	id->idiag_cookie[0] = (uint32_t)s->cookie;
	id->idiag_cookie[1] = (uint32_t)(s->cookie >> 32);
	return send(netlink, &request, sizeof(request), 0) < 0 ? -errno : 0;
}

/* The attribute of this type among those in [p, end); NULL: there is none. */
static const struct nlattr *find_attribute(const char *p, const char *end, unsigned type)
{
	while (end - p >= NLA_HDRLEN) {
		const struct nlattr *a = (const struct nlattr *)p;

		if (a->nla_len < NLA_HDRLEN || a->nla_len > end - p)
			return NULL;
		if ((a->nla_type & NLA_TYPE_MASK) == type)
			return a;
		p += end - p > NLA_ALIGN(a->nla_len) ? NLA_ALIGN(a->nla_len) : end - p;
	}
	return NULL;
}

static const struct nlattr *find_inside(const struct nlattr *nest, unsigned type)
{
	const char *p = (const char *)nest;

	return nest ? find_attribute(p + NLA_HDRLEN, p + nest->nla_len, type) : NULL;
}

/* TLS_CONF_*; BASE, which is none, if it does not say. */
static unsigned number(const struct nlattr *a)
{
	uint16_t value = TLS_CONF_BASE;

	if (a && a->nla_len >= NLA_HDRLEN + sizeof(value))
		memcpy(&value, (const char *)a + NLA_HDRLEN, sizeof(value));
	return value;
}

static bool in_device(unsigned conf)
{
	return conf == TLS_CONF_HW || conf == TLS_CONF_HW_RECORD;
}

enum flow_records offload_read(const char *buf, size_t n)
{
	const struct nlmsghdr *head = (const struct nlmsghdr *)buf;
	const struct nlattr *tls;
	unsigned tx, rx;

	/* Else an error: there is no such socket any more. */
	if (n < NLMSG_SPACE(sizeof(struct inet_diag_msg)) || head->nlmsg_len > n ||
	    head->nlmsg_type != SOCK_DIAG_BY_FAMILY)
		return FLOW_RECORDS_UNKNOWN;
	tls = find_inside(find_attribute(buf + NLMSG_SPACE(sizeof(struct inet_diag_msg)),
					 buf + head->nlmsg_len, INET_DIAG_ULP_INFO),
			  INET_ULP_INFO_TLS);
	tx = number(find_inside(tls, TLS_INFO_TXCONF));
	rx = number(find_inside(tls, TLS_INFO_RXCONF));
	if (tx == TLS_CONF_BASE || rx == TLS_CONF_BASE)
		return FLOW_RECORDS_UNKNOWN;
	if (in_device(tx))
		return in_device(rx) ? FLOW_RECORDS_DEVICE : FLOW_RECORDS_DEVICE_TX;
	return in_device(rx) ? FLOW_RECORDS_DEVICE_RX : FLOW_RECORDS_SOFTWARE;
}

static enum flow_records look(int netlink, const struct offload_socket *s)
{
	union {
		struct nlmsghdr head; /* aligned */
		char bytes[4096];
	} answer;
	ssize_t n;

	if (netlink < 0 || ask(netlink, s))
		return FLOW_RECORDS_UNKNOWN;
	/* It is there when send() returns. */
	n = recv(netlink, answer.bytes, sizeof(answer), MSG_DONTWAIT);
	return n < 0 ? FLOW_RECORDS_UNKNOWN : offload_read(answer.bytes, (size_t)n);
}

void offload_look(const struct offload_question *q, struct offload_answer *out)
{
	scoped_fd netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);

	out->flow = q->flow;
	for (int i = 0; i < 2; i++)
		out->records[i] = (uint8_t)look(netlink, &q->side[i]);
}
