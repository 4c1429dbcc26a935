// SPDX-License-Identifier: Apache-2.0
/*
 * ktlsgate-offload: shows and switches TLS offload of network devices (ethtool netlink), and shows
 * for each socket with kernel TLS whether a device or the CPU does it (sock_diag). Knows nothing of
 * the daemon.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <linux/ethtool_netlink.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <linux/tls.h>
#include <net/if.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <netlink/netlink.h>
#include <stdbool.h>
#include <string.h>
#include "base/scoped.h"

#define TCP_ALL_STATES 0xfff

SCOPED_DEFINE(nl_sock, struct nl_sock, nl_socket_free)
SCOPED_DEFINE(nl_msg, struct nl_msg, nlmsg_free)
#define scoped_nl_sock __attribute__((cleanup(scoped_nl_sock_free_))) struct nl_sock
#define scoped_nl_msg  __attribute__((cleanup(scoped_nl_msg_free_))) struct nl_msg

static const char usage_text[] =
	"usage: ktlsgate-offload [DEVICE [FEATURE on|off]]\n"
	"       ktlsgate-offload -s\n"
	"TLS offload of network devices: each one's features with on or off, and \"fixed\" if it\n"
	"cannot be changed. FEATURE is tx, rx or record; new connections use it.\n"
	"\n"
	"  -s, --sockets  sockets with kernel TLS, and who encrypts (tx) and decrypts (rx)\n"
	"  -V, --version  version\n"
	"  -h, --help     this text\n"
	"\n"
	"Switching and --sockets need root. Exit status: 0 success, 1 failure, 2 wrong usage.\n";

/* Names of the kernel's netdev_features_strings. */
static const struct feature {
	const char *name, *kernel_name;
} features[] = {
	{"tx", "tls-hw-tx-offload"},
	{"rx", "tls-hw-rx-offload"},
	{"record", "tls-hw-record"},
};

struct device {
	char name[IF_NAMESIZE];
	bool active[ARRAY_SIZE(features)], fixed[ARRAY_SIZE(features)];
};

/* What is asked of the answer to a request. */
struct query {
	const char *device;
	struct device last; /* that was shown */
	bool quiet;
};

static int usage(FILE *to, int status)
{
	fputs(usage_text, to);
	return status;
}

static int complain(const char *what, int nl_error)
{
	fprintf(stderr, "ktlsgate-offload: %s: %s\n", what, nl_geterror(nl_error));
	return EXIT_FAILURE;
}

/* The end of a dump carries its error, which libnl does not look at. */
static int take_end(struct nl_msg *msg, void *arg)
{
	const struct nlmsghdr *h = nlmsg_hdr(msg);
	int *error = arg;

	if (nlmsg_datalen(h) >= (int)sizeof(int))
		memcpy(error, nlmsg_data(h), sizeof(int));
	return NL_STOP;
}

static int hear(struct nl_sock *sock, nl_recvmsg_msg_cb_t take, void *arg)
{
	int error = 0, ret;

	nl_socket_modify_cb(sock, NL_CB_VALID, NL_CB_CUSTOM, take, arg);
	nl_socket_modify_cb(sock, NL_CB_FINISH, NL_CB_CUSTOM, take_end, &error);
	ret = nl_recvmsgs_default(sock);
	if (ret >= 0 && error < 0)
		return -nl_syserr2nlerr(error);
	return ret;
}

/* ---- devices ---- */

static struct nlattr *inner(struct nlattr *nest, int type)
{
	return nest ? nla_find(nla_data(nest), nla_len(nest), type) : NULL;
}

/* In a bitset in its long form: a list of bits, those that are set or, with a mask, all of it. */
static bool has_bit(struct nlattr *bitset, const char *name)
{
	struct nlattr *bits = inner(bitset, ETHTOOL_A_BITSET_BITS), *bit;
	bool masked = !inner(bitset, ETHTOOL_A_BITSET_NOMASK);
	int left;

	if (!bits)
		return false;
	nla_for_each_nested (bit, bits, left) {
		struct nlattr *text = inner(bit, ETHTOOL_A_BITSET_BIT_NAME);

		if (text && !strcmp(nla_get_string(text), name))
			return !masked || inner(bit, ETHTOOL_A_BITSET_BIT_VALUE);
	}
	return false;
}

static int take_device(struct nl_msg *msg, void *arg)
{
	struct nlattr *a[ETHTOOL_A_FEATURES_MAX + 1], *name;
	struct query *q = arg;

	if (genlmsg_parse(nlmsg_hdr(msg), 0, a, ETHTOOL_A_FEATURES_MAX, NULL) < 0 ||
	    !a[ETHTOOL_A_FEATURES_HEADER])
		return NL_SKIP;
	name = inner(a[ETHTOOL_A_FEATURES_HEADER], ETHTOOL_A_HEADER_DEV_NAME);
	if (!name)
		return NL_SKIP;
	q->last = (struct device){0};
	snprintf(q->last.name, sizeof(q->last.name), "%s", nla_get_string(name));
	for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
		const char *bit = features[i].kernel_name;

		q->last.active[i] = has_bit(a[ETHTOOL_A_FEATURES_ACTIVE], bit);
		q->last.fixed[i] = !has_bit(a[ETHTOOL_A_FEATURES_HW], bit) ||
				   has_bit(a[ETHTOOL_A_FEATURES_NOCHANGE], bit);
	}
	if (q->quiet)
		return NL_OK;
	printf("%s", q->last.name);
	for (size_t i = 0; i < ARRAY_SIZE(features); i++)
		printf(" %s=%s%s", features[i].name, q->last.active[i] ? "on" : "off",
		       q->last.fixed[i] ? ",fixed" : "");
	putchar('\n');
	return NL_OK;
}

/* A request with its header. */
static struct nl_msg *request(int family, uint8_t command, const char *device)
{
	scoped_nl_msg *msg = nlmsg_alloc();
	struct nlattr *header;

	if (!msg || !genlmsg_put(msg, NL_AUTO_PORT, NL_AUTO_SEQ, family, 0, 0, command,
				 ETHTOOL_GENL_VERSION))
		return NULL;
	header = nla_nest_start(msg, ETHTOOL_A_FEATURES_HEADER);
	if (!header || nla_put_string(msg, ETHTOOL_A_HEADER_DEV_NAME, device) < 0)
		return NULL;
	nla_nest_end(msg, header);
	return TAKE_PTR(msg);
}

/* Without acknowledgements each request has one answer, and a dump has an end. */
static int ask(struct nl_sock *sock, struct nl_msg *msg, nl_recvmsg_msg_cb_t take, void *arg)
{
	int ret = nl_send_auto(sock, msg);

	return ret < 0 ? ret : hear(sock, take, arg);
}

static int show(struct nl_sock *sock, int family, struct query *q)
{
	scoped_nl_msg *msg = request(family, ETHTOOL_MSG_FEATURES_GET, q->device);
	int ret = msg ? ask(sock, msg, take_device, q) : -NLE_NOMEM;

	return ret < 0 ? complain(q->device, ret) : EXIT_SUCCESS;
}

/* One by one: what a dump has no room for the kernel leaves out. */
static int show_all(struct nl_sock *sock, int family)
{
	struct if_nameindex *all = if_nameindex();
	int status = EXIT_SUCCESS;

	if (!all)
		return complain("network devices", -nl_syserr2nlerr(errno));
	for (struct if_nameindex *i = all; i->if_index; i++) {
		struct query q = {.device = i->if_name};

		if (show(sock, family, &q))
			status = EXIT_FAILURE;
	}
	if_freenameindex(all);
	return status;
}

static int ignore(struct nl_msg *msg, void *arg)
{
	(void)msg;
	(void)arg;
	return NL_OK;
}

static int put_wanted(struct nl_msg *msg, const char *bit_name, bool on)
{
	struct nlattr *wanted = nla_nest_start(msg, ETHTOOL_A_FEATURES_WANTED);
	struct nlattr *bits = nla_nest_start(msg, ETHTOOL_A_BITSET_BITS);
	struct nlattr *bit = nla_nest_start(msg, ETHTOOL_A_BITSET_BITS_BIT);

	if (!wanted || !bits || !bit ||
	    nla_put_string(msg, ETHTOOL_A_BITSET_BIT_NAME, bit_name) < 0 ||
	    (on && nla_put_flag(msg, ETHTOOL_A_BITSET_BIT_VALUE) < 0))
		return -NLE_NOMEM;
	nla_nest_end(msg, bit);
	nla_nest_end(msg, bits);
	nla_nest_end(msg, wanted);
	return 0;
}

/* Then shows the device as it is: the kernel may have reasons not to follow. */
static int change(struct nl_sock *sock, int family, const char *device, size_t feature, bool on)
{
	scoped_nl_msg *msg = request(family, ETHTOOL_MSG_FEATURES_SET, device);
	struct query q = {.device = device, .quiet = true};
	int ret = show(sock, family, &q);

	if (ret)
		return ret;
	if (q.last.active[feature] != on && q.last.fixed[feature]) {
		fprintf(stderr, "ktlsgate-offload: %s: %s cannot be changed on this device\n",
			device, features[feature].name);
		return EXIT_FAILURE;
	}
	if (!msg || put_wanted(msg, features[feature].kernel_name, on))
		return complain("request", -NLE_NOMEM);
	ret = ask(sock, msg, ignore, NULL);
	if (ret < 0)
		return complain(device, ret);
	q.quiet = false;
	ret = show(sock, family, &q);
	if (!ret && q.last.active[feature] != on) {
		fprintf(stderr,
			"ktlsgate-offload: %s: %s did not change; it may need other "
			"features on\n",
			device, features[feature].name);
		return EXIT_FAILURE;
	}
	return ret;
}

static int devices(int argc, char **argv)
{
	scoped_nl_sock *sock = nl_socket_alloc();
	size_t feature = 0;
	int ret, family;

	while (argc == 3 && feature < ARRAY_SIZE(features) &&
	       strcmp(features[feature].name, argv[1]))
		feature++;
	if (argc == 2 || argc > 3 || feature == ARRAY_SIZE(features) ||
	    (argc == 3 && strcmp(argv[2], "on") && strcmp(argv[2], "off")))
		return usage(stderr, 2);
	ret = sock ? genl_connect(sock) : -NLE_NOMEM;
	if (ret < 0)
		return complain("netlink", ret);
	family = genl_ctrl_resolve(sock, ETHTOOL_GENL_NAME);
	if (family < 0)
		return complain("this kernel has no ethtool netlink", family);
	nl_socket_disable_auto_ack(sock);
	if (argc == 0)
		return show_all(sock, family);
	if (argc == 1)
		return show(sock, family, &(struct query){.device = argv[0]});
	return change(sock, family, argv[0], feature, !strcmp(argv[2], "on"));
}

/* ---- sockets ---- */

static void print_address(int family, const __be32 *address, __be16 port)
{
	char text[INET6_ADDRSTRLEN] = "?";

	inet_ntop(family, address, text, sizeof(text));
	printf(family == AF_INET6 ? "[%s]:%u" : "%s:%u", text, ntohs(port));
}

static const char *cipher_name(unsigned cipher)
{
	switch (cipher) {
	case TLS_CIPHER_AES_GCM_128:
		return "aes_128_gcm";
	case TLS_CIPHER_AES_GCM_256:
		return "aes_256_gcm";
	case TLS_CIPHER_CHACHA20_POLY1305:
		return "chacha20_poly1305";
	default:
		return "other";
	}
}

static const char *who(unsigned conf)
{
	static const char *const names[] = {[TLS_CONF_BASE] = "none",
					    [TLS_CONF_SW] = "software",
					    [TLS_CONF_HW] = "device",
					    [TLS_CONF_HW_RECORD] = "device-record"};

	return conf < ARRAY_SIZE(names) && names[conf] ? names[conf] : "unknown";
}

static unsigned number(struct nlattr *a)
{
	return a ? nla_get_u16(a) : 0;
}

static int take_socket(struct nl_msg *msg, void *arg)
{
	const struct inet_diag_msg *d = nlmsg_data(nlmsg_hdr(msg));
	struct nlattr *a[INET_DIAG_MAX + 1], *ulp[INET_ULP_INFO_MAX + 1], *tls[TLS_INFO_MAX + 1];
	unsigned version;

	(void)arg;
	if (nlmsg_parse(nlmsg_hdr(msg), sizeof(*d), a, INET_DIAG_MAX, NULL) < 0 ||
	    !a[INET_DIAG_ULP_INFO] ||
	    nla_parse_nested(ulp, INET_ULP_INFO_MAX, a[INET_DIAG_ULP_INFO], NULL) < 0 ||
	    !ulp[INET_ULP_INFO_TLS] ||
	    nla_parse_nested(tls, TLS_INFO_MAX, ulp[INET_ULP_INFO_TLS], NULL) < 0)
		return NL_SKIP;
	version = number(tls[TLS_INFO_VERSION]);
	print_address(d->idiag_family, d->id.idiag_src, d->id.idiag_sport);
	putchar(' ');
	print_address(d->idiag_family, d->id.idiag_dst, d->id.idiag_dport);
	printf(" %s %s tx=%s rx=%s\n",
	       version == TLS_1_3_VERSION   ? "TLSv1.3"
	       : version == TLS_1_2_VERSION ? "TLSv1.2"
					    : "no keys",
	       cipher_name(number(tls[TLS_INFO_CIPHER])), who(number(tls[TLS_INFO_TXCONF])),
	       who(number(tls[TLS_INFO_RXCONF])));
	return NL_OK;
}

static int sockets(void)
{
	scoped_nl_sock *sock = nl_socket_alloc();
	/* The kernel tells of a ULP only who asks for TCP's figures (inet_sk_diag_fill()). */
	struct inet_diag_req_v2 req = {.sdiag_protocol = IPPROTO_TCP,
				       .idiag_ext = 1 << (INET_DIAG_INFO - 1),
				       .idiag_states = TCP_ALL_STATES};
	int ret = sock ? nl_connect(sock, NETLINK_SOCK_DIAG) : -NLE_NOMEM;

	for (int i = 0; i < 2 && ret >= 0; i++) {
		req.sdiag_family = i ? AF_INET6 : AF_INET;
		ret = nl_send_simple(sock, SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &req, sizeof(req));
		if (ret >= 0)
			ret = hear(sock, take_socket, NULL);
	}
	return ret < 0 ? complain("sock_diag", ret) : EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {{"sockets", no_argument, NULL, 's'},
					      {"version", no_argument, NULL, 'V'},
					      {"help", no_argument, NULL, 'h'},
					      {0}};
	bool want_sockets = false;
	int opt;

	while ((opt = getopt_long(argc, argv, "sVh", longs, NULL)) != -1) {
		switch (opt) {
		case 's':
			want_sockets = true;
			break;
		case 'V':
			puts("ktlsgate-offload " KTLSGATE_VERSION);
			return EXIT_SUCCESS;
		case 'h':
			return usage(stdout, EXIT_SUCCESS);
		default:
			return usage(stderr, 2);
		}
	}
	if (!want_sockets)
		return devices(argc - optind, argv + optind);
	return optind == argc ? sockets() : usage(stderr, 2);
}
