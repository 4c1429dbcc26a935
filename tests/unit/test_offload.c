// SPDX-License-Identifier: Apache-2.0
/* offload.c: sock_diag's answers, whole and cut. Of real sockets with kernel TLS: test_offload.py.
 */
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/tls.h>
#include "unit.h"
#include "flow/offload.h"

struct answer {
	union {
		struct nlmsghdr head;
		char bytes[1024];
	};
	size_t len;
};

/* Begins an attribute; its end is where end_attribute() is called. */
static size_t begin_attribute(struct answer *a, unsigned type)
{
	struct nlattr attribute = {.nla_len = NLA_HDRLEN, .nla_type = (uint16_t)type};

	memcpy(a->bytes + a->len, &attribute, sizeof(attribute));
	a->len += NLA_HDRLEN;
	return a->len - NLA_HDRLEN;
}

static void end_attribute(struct answer *a, size_t at)
{
	uint16_t len = (uint16_t)(a->len - at);

	memcpy(a->bytes + at, &len, sizeof(len)); /* nla_len is the first member */
	a->len = NLA_ALIGN(a->len);
}

static void put_number(struct answer *a, unsigned type, uint16_t value)
{
	size_t at = begin_attribute(a, type);

	memcpy(a->bytes + a->len, &value, sizeof(value));
	a->len += sizeof(value);
	end_attribute(a, at);
}

static struct answer begin(void)
{
	struct answer a = {.len = NLMSG_SPACE(sizeof(struct inet_diag_msg))};

	a.head.nlmsg_type = SOCK_DIAG_BY_FAMILY;
	return a;
}

/* As the kernel writes it: an attribute in front, the name of the ULP, and what it says. */
static struct answer about(uint16_t tx, uint16_t rx)
{
	struct answer a = begin();
	size_t ulp, tls;

	put_number(&a, INET_DIAG_TOS, 7);
	ulp = begin_attribute(&a, INET_DIAG_ULP_INFO | NLA_F_NESTED);
	put_number(&a, INET_ULP_INFO_NAME, 't' | 'l' << 8);
	tls = begin_attribute(&a, INET_ULP_INFO_TLS | NLA_F_NESTED);
	put_number(&a, TLS_INFO_VERSION, TLS_1_3_VERSION);
	put_number(&a, TLS_INFO_TXCONF, tx);
	put_number(&a, TLS_INFO_RXCONF, rx);
	end_attribute(&a, tls);
	end_attribute(&a, ulp);
	a.head.nlmsg_len = (uint32_t)a.len;
	return a;
}

/* Its own allocation, so that ASan sees every byte read too far. */
static enum flow_records read_cut(const struct answer *a, size_t len)
{
	char *copy = malloc(len ? len : 1);
	enum flow_records records;

	memcpy(copy, a->bytes, len);
	records = offload_read(copy, len);
	free(copy);
	return records;
}

static void test_directions(void)
{
	static const struct {
		uint16_t tx, rx;
		enum flow_records want;
	} rows[] = {
		{TLS_CONF_SW, TLS_CONF_SW, FLOW_RECORDS_SOFTWARE},
		{TLS_CONF_HW, TLS_CONF_SW, FLOW_RECORDS_DEVICE_TX},
		{TLS_CONF_SW, TLS_CONF_HW, FLOW_RECORDS_DEVICE_RX},
		{TLS_CONF_HW, TLS_CONF_HW, FLOW_RECORDS_DEVICE},
		{TLS_CONF_HW_RECORD, TLS_CONF_HW_RECORD, FLOW_RECORDS_DEVICE},
		{TLS_CONF_BASE, TLS_CONF_SW, FLOW_RECORDS_UNKNOWN},
		{TLS_CONF_SW, TLS_CONF_BASE, FLOW_RECORDS_UNKNOWN},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		struct answer a = about(rows[i].tx, rows[i].rx);

		CHECK_INT(read_cut(&a, a.len), rows[i].want);
	}
}

static void test_other_answers(void)
{
	struct answer a = about(TLS_CONF_SW, TLS_CONF_SW), plain = begin();

	plain.head.nlmsg_len = (uint32_t)plain.len;
	CHECK_INT(read_cut(&plain, plain.len), FLOW_RECORDS_UNKNOWN);
	for (size_t len = 0; len < a.len; len++) {
		CHECK_INT(read_cut(&a, len), FLOW_RECORDS_UNKNOWN);
		/* The header agrees; the attributes go on behind the end. */
		a.head.nlmsg_len = (uint32_t)len;
		CHECK_INT(read_cut(&a, len), FLOW_RECORDS_UNKNOWN);
		a.head.nlmsg_len = (uint32_t)a.len;
	}
	a.head.nlmsg_type = NLMSG_ERROR;
	CHECK_INT(read_cut(&a, a.len), FLOW_RECORDS_UNKNOWN);
}

static unsigned questions; /* put to the kernel */

/* In place of the C library's. */
ssize_t send(int fd, const void *buf, size_t n, int flags)
{
	questions++;
	return sendto(fd, buf, n, flags, NULL, 0);
}

/* Those of other families than TCP's a worker has no business with. */
static void test_questions(void)
{
	struct offload_question q = {.flow = 7};
	struct offload_answer a;

	q.side[0].local.sin6_family = q.side[0].remote.sin6_family = AF_UNIX;
	q.side[1].local.sin6_family = q.side[1].remote.sin6_family = AF_INET;
	offload_look(&q, &a);
	CHECK_INT(questions, 1);
	CHECK_INT(a.flow, 7);
	CHECK_INT(a.records[0], FLOW_RECORDS_UNKNOWN);
	CHECK_INT(a.records[1], FLOW_RECORDS_UNKNOWN);
}

int main(void)
{
	test_directions();
	test_other_answers();
	test_questions();
	return unit_end();
}
