// SPDX-License-Identifier: Apache-2.0
/* Compares addresses with those that vservers listen on; see own.h. Knows no connection. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include "config/own.h"
#include "base/scoped.h"

/* Without its port, in the form that listeners have. */
struct place {
	int family;
	uint8_t bytes[16];
	unsigned len;
	in_port_t port; /* host order */
};

/* connect(2) takes the unspecified address for loopback, and an IPv4 address in IPv6 clothes for
 * it. */
static bool read_place(const struct sockaddr *sa, struct place *p)
{
	const struct sockaddr_in *four = (const void *)sa;
	const struct sockaddr_in6 *six = (const void *)sa;

	*p = (struct place){.family = sa->sa_family};
	if (sa->sa_family == AF_INET) {
		p->len = 4;
		p->port = ntohs(four->sin_port);
		memcpy(p->bytes, &four->sin_addr, 4);
	} else if (sa->sa_family == AF_INET6) {
		p->len = 16;
		p->port = ntohs(six->sin6_port);
		memcpy(p->bytes, &six->sin6_addr, 16);
		if (IN6_IS_ADDR_V4MAPPED(&six->sin6_addr)) {
			p->family = AF_INET;
			p->len = 4;
			memmove(p->bytes, p->bytes + 12, 4);
		}
	} else {
		return false;
	}
	if (p->family == AF_INET && !memcmp(p->bytes, "\0\0\0", 4))
		memcpy(p->bytes, (uint8_t[]){127, 0, 0, 1}, 4);
	else if (p->family == AF_INET6 && !memcmp(p->bytes, &in6addr_any, 16))
		memcpy(p->bytes, &in6addr_loopback, 16);
	return true;
}

/* ---- does the kernel deliver it here? ---- */

struct route_request {
	struct nlmsghdr head;
	struct rtmsg route;
	struct rtattr attribute;
	uint8_t bytes[16];
};

static bool is_local(const struct place *p)
{
	scoped_fd fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	struct route_request ask = {
		.head = {.nlmsg_type = RTM_GETROUTE, .nlmsg_flags = NLM_F_REQUEST},
		.route = {.rtm_family = (unsigned char)p->family,
			  .rtm_dst_len = (unsigned char)(p->len * 8)},
		.attribute = {.rta_type = RTA_DST, .rta_len = (unsigned short)RTA_LENGTH(p->len)},
	};
	union {
		struct nlmsghdr head;
		uint8_t bytes[4096];
	} answer;
	const struct rtmsg *route = NLMSG_DATA(&answer.head);
	ssize_t n;

	if (fd < 0)
		return false;
	ask.head.nlmsg_len = (uint32_t)(NLMSG_LENGTH(sizeof(ask.route)) + RTA_SPACE(p->len));
	memcpy(ask.bytes, p->bytes, p->len);
	if (send(fd, &ask, ask.head.nlmsg_len, 0) != (ssize_t)ask.head.nlmsg_len)
		return false;
	n = recv(fd, &answer, sizeof(answer), 0);
	return n >= (ssize_t)NLMSG_LENGTH(sizeof(*route)) &&
	       answer.head.nlmsg_type == RTM_NEWROUTE && route->rtm_type == RTN_LOCAL;
}

/* ---- listeners ---- */

enum match {
	MATCH_NO,
	MATCH_IF_LOCAL, /* of the prefix, or any */
	MATCH_EXACT,
};

static enum match match_listen(const struct cfg_listen *l, const struct place *p)
{
	uint8_t masked[16];
	struct place there;

	if (l->address.ss.ss_family != p->family)
		return MATCH_NO;
	/* In both families it is at the same place. */
	if (p->port < ntohs(((const struct sockaddr_in *)&l->address.ss)->sin_port) ||
	    p->port > l->last_port)
		return MATCH_NO;
	if (!l->prefix_len)
		return MATCH_IF_LOCAL;
	if (!read_place((const struct sockaddr *)&l->address.ss, &there))
		return MATCH_NO;
	memcpy(masked, p->bytes, p->len);
	cfg_mask_bits(masked, p->len, l->prefix_len);
	if (memcmp(masked, there.bytes, p->len))
		return MATCH_NO;
	return l->prefix_len == p->len * 8 ? MATCH_EXACT : MATCH_IF_LOCAL;
}

const struct cfg_vserver *own_vserver(const struct config *cfg, const struct sockaddr *address)
{
	const struct cfg_vserver *maybe = NULL;
	struct place p;

	if (!read_place(address, &p))
		return NULL;
	for (unsigned i = 0; i < cfg->n_vservers; i++) {
		const struct cfg_vserver *v = cfg->vservers[i];

		for (unsigned n = 0; n < v->listen.n; n++) {
			enum match match = match_listen(&v->listen.list[n], &p);

			if (match == MATCH_EXACT)
				return v;
			if (match == MATCH_IF_LOCAL)
				maybe = v;
		}
	}
	return maybe && is_local(&p) ? maybe : NULL;
}
