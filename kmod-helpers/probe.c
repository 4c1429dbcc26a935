// SPDX-License-Identifier: Apache-2.0
/*
 * ktlsgate-probe: asks the running kernel, by trying on loopback sockets and not by its version,
 * for each feature ktlsgate needs or can use; one line each. Knows nothing of the daemon.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/bpf.h>
#include <linux/tls.h>
#include <mntent.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <liburing.h>
#include "scoped.h"

#ifndef SOL_TLS
#define SOL_TLS 282
#endif
#ifndef TCP_ULP
#define TCP_ULP 31
#endif
/* Linux 7.x; not in the headers of Debian 12. */
#ifndef TLS_TX_MAX_PAYLOAD_LEN
#define TLS_TX_MAX_PAYLOAD_LEN 5
#endif

enum {
	RECORD_MAX = 16384,
	WAIT_MS = 500,
	TYPE_HANDSHAKE = 22,
	PAGE = 4096
};

struct answer {
	bool yes;
	char why[160];
};

struct feature {
	const char *name;
	struct answer (*ask)(const struct feature *f);
	uint16_t version; /* of TLS */
	uint16_t cipher;  /* of the kernel's TLS_CIPHER_* */
	int direction;	  /* TLS_TX or TLS_RX */
	int program;	  /* BPF_PROG_TYPE_* */
	int attach;	  /* BPF_* attach type */
	const char *path;
};

static struct answer ask_ulp(const struct feature *f);
static struct answer ask_keys(const struct feature *f);
static struct answer ask_rekey(const struct feature *f);
static struct answer ask_no_pad(const struct feature *f);
static struct answer ask_max_payload(const struct feature *f);
static struct answer ask_splice_refill(const struct feature *f);
static struct answer ask_control_records(const struct feature *f);
static struct answer ask_io_uring(const struct feature *f);
static struct answer ask_io_uring_flags(const struct feature *f);
static struct answer ask_io_uring_ops(const struct feature *f);
static struct answer ask_sysctl(const struct feature *f);
static struct answer ask_bpf_program(const struct feature *f);
static struct answer ask_readable(const struct feature *f);
static struct answer ask_mounted(const struct feature *f);

#define KEYS(prefix, ver, suffix, id)                                                              \
	{.name = #prefix "_tx_" #suffix,                                                           \
	 .ask = ask_keys,                                                                          \
	 .version = ver,                                                                           \
	 .cipher = id,                                                                             \
	 .direction = TLS_TX},                                                                     \
	{                                                                                          \
		.name = #prefix "_rx_" #suffix, .ask = ask_keys, .version = ver, .cipher = id,     \
		.direction = TLS_RX                                                                \
	}
#define PROGRAM(label, type, where)                                                                \
	{                                                                                          \
		.name = label, .ask = ask_bpf_program, .program = type, .attach = where            \
	}

static const struct feature features[] = {
	{.name = "tls_ulp", .ask = ask_ulp},
	KEYS(tls12, TLS_1_2_VERSION, aes_128_gcm, TLS_CIPHER_AES_GCM_128),
	KEYS(tls12, TLS_1_2_VERSION, aes_256_gcm, TLS_CIPHER_AES_GCM_256),
	KEYS(tls12, TLS_1_2_VERSION, chacha20_poly1305, TLS_CIPHER_CHACHA20_POLY1305),
	KEYS(tls13, TLS_1_3_VERSION, aes_128_gcm, TLS_CIPHER_AES_GCM_128),
	KEYS(tls13, TLS_1_3_VERSION, aes_256_gcm, TLS_CIPHER_AES_GCM_256),
	KEYS(tls13, TLS_1_3_VERSION, chacha20_poly1305, TLS_CIPHER_CHACHA20_POLY1305),
	{.name = "tls_rekey", .ask = ask_rekey},
	{.name = "tls_rx_expect_no_pad", .ask = ask_no_pad},
	{.name = "tls_tx_max_payload_len", .ask = ask_max_payload},
	{.name = "splice_refill_safe", .ask = ask_splice_refill},
	{.name = "control_records", .ask = ask_control_records},
	{.name = "io_uring", .ask = ask_io_uring},
	{.name = "io_uring_defer_taskrun", .ask = ask_io_uring_flags},
	{.name = "io_uring_ops", .ask = ask_io_uring_ops},
	{.name = "pipe_max_size", .ask = ask_sysctl, .path = "/proc/sys/fs/pipe-max-size"},
	{.name = "pipe_user_pages_soft",
	 .ask = ask_sysctl,
	 .path = "/proc/sys/fs/pipe-user-pages-soft"},
	{.name = "pipe_user_pages_hard",
	 .ask = ask_sysctl,
	 .path = "/proc/sys/fs/pipe-user-pages-hard"},
	PROGRAM("sk_lookup", BPF_PROG_TYPE_SK_LOOKUP, BPF_SK_LOOKUP),
	PROGRAM("sk_reuseport", BPF_PROG_TYPE_SK_REUSEPORT, BPF_SK_REUSEPORT_SELECT),
	PROGRAM("cgroup_skb", BPF_PROG_TYPE_CGROUP_SKB, BPF_CGROUP_INET_EGRESS),
	PROGRAM("sock_ops", BPF_PROG_TYPE_SOCK_OPS, BPF_CGROUP_SOCK_OPS),
	{.name = "btf", .ask = ask_readable, .path = "/sys/kernel/btf/vmlinux"},
	{.name = "cgroup2", .ask = ask_mounted, .path = "cgroup2"},
	{.name = "bpffs", .ask = ask_mounted, .path = "bpf"},
};

static int usage(FILE *to, int status)
{
	fputs("usage: ktlsgate-probe [-h | --help | -V | --version]\n"
	      "Tries what this kernel offers ktlsgate and prints name=yes or name=no with the "
	      "reason,\n"
	      "one line for each feature. Run as root: BPF needs it. Exit status 0, bad usage 2.\n",
	      to);
	return status;
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {
		{"help", no_argument, NULL, 'h'}, {"version", no_argument, NULL, 'V'}, {0}};
	int opt;

	while ((opt = getopt_long(argc, argv, "hV", longs, NULL)) != -1) {
		if (opt == 'h')
			return usage(stdout, 0);
		if (opt != 'V')
			return usage(stderr, 2);
		puts("ktlsgate-probe " KTLSGATE_VERSION);
		return 0;
	}
	if (optind < argc)
		return usage(stderr, 2);

	signal(SIGPIPE, SIG_IGN);
	/* The verifier's log is of no use to the reader of one line. */
	libbpf_set_print(NULL);
	for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
		struct answer a = features[i].ask(&features[i]);

		printf("%s=%s%s%s\n", features[i].name, a.yes ? "yes" : "no", *a.why ? " " : "",
		       a.why);
	}
	return 0;
}

/* ---- answers ---- */

static struct answer printf_like(2, 3) answer(bool yes, const char *fmt, ...)
{
	struct answer a = {.yes = yes};
	va_list args;

	va_start(args, fmt);
	vsnprintf(a.why, sizeof(a.why), fmt, args);
	va_end(args);
	return a;
}

static struct answer yes(void)
{
	return (struct answer){.yes = true};
}

static struct answer no(const char *what, int err)
{
	return answer(false, "%s: %s", what, strerror(-err));
}

/* ---- kTLS ---- */

struct pair {
	int tx, rx;
};

static void pair_close(struct pair *p)
{
	scoped_close_(&p->tx);
	scoped_close_(&p->rx);
}
#define scoped_pair __attribute__((cleanup(pair_close))) struct pair

/* Two ends of a TCP connection over loopback. */
static int pair_connect(struct pair *p)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr *sa = (struct sockaddr *)&sin;
	socklen_t len = sizeof(sin);
	scoped_fd listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (listener < 0 || bind(listener, sa, len) || listen(listener, 1) ||
	    getsockname(listener, sa, &len))
		return -errno;
	p->tx = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (p->tx < 0 || connect(p->tx, sa, len))
		return -errno;
	p->rx = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	return p->rx < 0 ? -errno : 0;
}

static int set_ulp(int fd)
{
	return setsockopt(fd, SOL_TCP, TCP_ULP, "tls", sizeof("tls")) ? -errno : 0;
}

/* generation changes the key: both ends of a pair use the same one. */
static int set_keys(int fd, int direction, uint16_t version, uint16_t cipher, uint8_t generation)
{
	union {
		struct tls_crypto_info info;
		struct tls12_crypto_info_aes_gcm_128 gcm128;
		struct tls12_crypto_info_aes_gcm_256 gcm256;
		struct tls12_crypto_info_chacha20_poly1305 chacha;
	} keys;
	socklen_t len;

	memset(&keys, 0, sizeof(keys));
	keys.info.version = version;
	keys.info.cipher_type = cipher;
	switch (cipher) {
	case TLS_CIPHER_AES_GCM_128:
		keys.gcm128.key[0] = generation;
		len = sizeof(keys.gcm128);
		break;
	case TLS_CIPHER_AES_GCM_256:
		keys.gcm256.key[0] = generation;
		len = sizeof(keys.gcm256);
		break;
	case TLS_CIPHER_CHACHA20_POLY1305:
		keys.chacha.key[0] = generation;
		len = sizeof(keys.chacha);
		break;
	default:
		return -EINVAL;
	}
	return setsockopt(fd, SOL_TLS, direction, &keys, len) ? -errno : 0;
}

/* A connected pair that sends and receives TLS 1.3 AES-128-GCM in the kernel. */
static int pair_ktls(struct pair *p)
{
	int err = pair_connect(p);

	if (!err)
		err = set_ulp(p->tx);
	if (!err)
		err = set_ulp(p->rx);
	if (!err)
		err = set_keys(p->tx, TLS_TX, TLS_1_3_VERSION, TLS_CIPHER_AES_GCM_128, 0);
	if (!err)
		err = set_keys(p->rx, TLS_RX, TLS_1_3_VERSION, TLS_CIPHER_AES_GCM_128, 0);
	return err;
}

static bool readable(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, WAIT_MS) == 1;
}

static struct answer ask_ulp(const struct feature *f)
{
	scoped_pair p = {-1, -1};
	int err = pair_connect(&p);

	(void)f;
	if (err)
		return no("loopback connection", err);
	err = set_ulp(p.tx);
	if (err == -ENOENT)
		return answer(false, "module tls is not loaded: modprobe tls (CONFIG_TLS)");
	return err ? no("TCP_ULP", err) : yes();
}

static struct answer ask_keys(const struct feature *f)
{
	scoped_pair p = {-1, -1};
	int err = pair_connect(&p);

	if (!err)
		err = set_ulp(p.tx);
	if (err)
		return no("tls_ulp", err);
	err = set_keys(p.tx, f->direction, f->version, f->cipher, 0);
	if (err == -ENOENT)
		return answer(false, "cipher module missing: modprobe %s",
			      f->cipher == TLS_CIPHER_CHACHA20_POLY1305 ? "chacha20poly1305"
									: "gcm");
	return err ? no(f->direction == TLS_TX ? "TLS_TX" : "TLS_RX", err) : yes();
}

static struct answer ask_rekey(const struct feature *f)
{
	scoped_pair p = {-1, -1};
	int err = pair_ktls(&p);

	(void)f;
	if (err)
		return no("kTLS", err);
	err = set_keys(p.tx, TLS_TX, TLS_1_3_VERSION, TLS_CIPHER_AES_GCM_128, 1);
	return err ? no("second TLS_TX", err) : yes();
}

static struct answer ask_no_pad(const struct feature *f)
{
	scoped_pair p = {-1, -1};
	int err = pair_ktls(&p);

	(void)f;
	if (err)
		return no("kTLS", err);
	if (setsockopt(p.rx, SOL_TLS, TLS_RX_EXPECT_NO_PAD, &(int){1}, sizeof(int)))
		return no("TLS_RX_EXPECT_NO_PAD", -errno);
	return yes();
}

static struct answer ask_max_payload(const struct feature *f)
{
	scoped_pair p = {-1, -1};
	int err = pair_ktls(&p);
	uint16_t len = 4096;

	(void)f;
	if (err)
		return no("kTLS", err);
	if (setsockopt(p.tx, SOL_TLS, TLS_TX_MAX_PAYLOAD_LEN, &len, sizeof(len)))
		return no("TLS_TX_MAX_PAYLOAD_LEN", -errno);
	return yes();
}

/* ---- splice ---- */

typedef int pipe_fds[2];
static void pipe_close(pipe_fds *p)
{
	scoped_close_(&(*p)[0]);
	scoped_close_(&(*p)[1]);
}
#define scoped_pipe __attribute__((cleanup(pipe_close))) pipe_fds

/* One byte in each of count slots: pages given by vmsplice do not merge. */
static int occupy(int pipe_in, int count, char *pages)
{
	for (int i = 0; i < count; i++) {
		struct iovec page = {.iov_base = pages + (size_t)i * PAGE, .iov_len = 1};

		if (vmsplice(pipe_in, &page, 1, SPLICE_F_NONBLOCK) != 1)
			return -EPIPE;
	}
	return 0;
}

/*
 * A full record spliced into a pipe with one free slot, again and again. Kernels with the flaw lose
 * bytes between two calls, silently; the reader here sees which arrived.
 */
static struct answer ask_splice_refill(const struct feature *f)
{
	enum {
		TAKEN = 15
	};
	scoped_mem char *sent = malloc(RECORD_MAX), *got = malloc(RECORD_MAX + TAKEN);
	scoped_mem char *pages = calloc(TAKEN, PAGE);
	scoped_pipe fds = {-1, -1};
	scoped_pair p = {-1, -1};
	int err = pair_ktls(&p);
	size_t total = 0;

	(void)f;
	if (err)
		return no("kTLS", err);
	if (!sent || !got || !pages || pipe2(fds, O_CLOEXEC | O_NONBLOCK))
		return no("pipe", -errno);
	if (fcntl(fds[1], F_SETPIPE_SZ, (TAKEN + 1) * PAGE) != (TAKEN + 1) * PAGE)
		return answer(false, "cannot try: no pipe of 16 slots");
	for (int i = 0; i < RECORD_MAX; i++)
		sent[i] = (char)(i * 7 + i / 251);
	if (send(p.tx, sent, RECORD_MAX, 0) != RECORD_MAX)
		return no("send", -errno);

	while (total < RECORD_MAX && readable(p.rx)) {
		ssize_t n, left;

		if (occupy(fds[1], TAKEN, pages))
			return answer(false, "cannot try: the pipe filled early");
		n = splice(p.rx, NULL, fds[1], NULL, RECORD_MAX, SPLICE_F_NONBLOCK);
		if (n <= 0)
			break;
		left = read(fds[0], got, RECORD_MAX + TAKEN);
		if (left != n + TAKEN || (size_t)n > RECORD_MAX - total ||
		    memcmp(got + TAKEN, sent + total, (size_t)n))
			return answer(false, "wrong bytes after %zu of %d", total, RECORD_MAX);
		total += (size_t)n;
	}
	if (total != RECORD_MAX)
		return answer(false, "%zu of %d bytes arrived: refill only an empty pipe", total,
			      RECORD_MAX);
	return yes();
}

static int send_control(int fd, uint8_t type, void *data, size_t len)
{
	char control[CMSG_SPACE(sizeof(type))] = {0};
	struct iovec iov = {.iov_base = data, .iov_len = len};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = CMSG_LEN(sizeof(type))};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

	cmsg->cmsg_level = SOL_TLS;
	cmsg->cmsg_type = TLS_SET_RECORD_TYPE;
	cmsg->cmsg_len = CMSG_LEN(sizeof(type));
	*CMSG_DATA(cmsg) = type;
	return sendmsg(fd, &msg, 0) < 0 ? -errno : 0;
}

/* The type of the next record, or -errno. */
static int recv_control(int fd)
{
	char control[CMSG_SPACE(1)] = {0}, data[64];
	struct iovec iov = {.iov_base = data, .iov_len = sizeof(data)};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = sizeof(control)};
	const struct cmsghdr *cmsg;

	if (recvmsg(fd, &msg, MSG_DONTWAIT) < 0)
		return -errno;
	cmsg = CMSG_FIRSTHDR(&msg);
	if (!cmsg || cmsg->cmsg_level != SOL_TLS || cmsg->cmsg_type != TLS_GET_RECORD_TYPE)
		return -ENOMSG;
	return *CMSG_DATA(cmsg);
}

static struct answer ask_control_records(const struct feature *f)
{
	char ticket[] = {4, 0, 0, 1, 0};
	scoped_pipe fds = {-1, -1};
	scoped_pair p = {-1, -1};
	int err = pair_ktls(&p), type;
	ssize_t n;

	(void)f;
	if (err)
		return no("kTLS", err);
	if (pipe2(fds, O_CLOEXEC))
		return no("pipe", -errno);
	err = send_control(p.tx, TYPE_HANDSHAKE, ticket, sizeof(ticket));
	if (err)
		return no("TLS_SET_RECORD_TYPE", err);
	if (!readable(p.rx))
		return answer(false, "a control record did not wake poll");
	n = splice(p.rx, NULL, fds[1], NULL, RECORD_MAX, SPLICE_F_NONBLOCK);
	if (n >= 0 || errno != EINVAL)
		return answer(false, "splice of a control record gave %zd, not EINVAL", n);
	type = recv_control(p.rx);
	if (type != TYPE_HANDSHAKE)
		return answer(false, "TLS_GET_RECORD_TYPE gave %d, not 22", type);
	return yes();
}

/* ---- io_uring ---- */

/* The number in a one-line file, or -1. */
static long read_number(const char *path)
{
	scoped_file *file = fopen(path, "re");
	long value;

	return file && fscanf(file, "%ld", &value) == 1 ? value : -1;
}

static struct answer ask_io_uring(const struct feature *f)
{
	/* 0 for all, 1 for a group or CAP_SYS_ADMIN, 2 for nobody; not there before 6.6. */
	long disabled = read_number("/proc/sys/kernel/io_uring_disabled");
	struct io_uring ring;
	int err = io_uring_queue_init(8, &ring, 0);

	(void)f;
	if (err)
		return answer(false, "%s%s", strerror(-err),
			      disabled > 0 ? ": kernel.io_uring_disabled is set" : "");
	io_uring_queue_exit(&ring);
	if (disabled > 0)
		return answer(true, "for the privileged: kernel.io_uring_disabled=%ld", disabled);
	return yes();
}

static struct answer ask_io_uring_flags(const struct feature *f)
{
	struct io_uring ring;
	int err = io_uring_queue_init(8, &ring,
				      IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);

	(void)f;
	if (err)
		return no("SINGLE_ISSUER|DEFER_TASKRUN", err);
	io_uring_queue_exit(&ring);
	return yes();
}

static struct answer ask_io_uring_ops(const struct feature *f)
{
	static const struct {
		int op;
		const char *name;
	} ops[] = {
		{IORING_OP_ACCEPT, "accept"},	{IORING_OP_ASYNC_CANCEL, "cancel"},
		{IORING_OP_CONNECT, "connect"}, {IORING_OP_POLL_ADD, "poll_add"},
		{IORING_OP_READ, "read"},	{IORING_OP_RECV, "recv"},
		{IORING_OP_RECVMSG, "recvmsg"}, {IORING_OP_SEND, "send"},
		{IORING_OP_SENDMSG, "sendmsg"}, {IORING_OP_SPLICE, "splice"},
	};
	struct io_uring_probe *probe = io_uring_get_probe();
	struct answer a = {.yes = true};

	(void)f;
	if (!probe)
		return answer(false, "io_uring cannot be asked");
	for (size_t i = 0; i < ARRAY_SIZE(ops); i++) {
		size_t used = strlen(a.why);

		if (io_uring_opcode_supported(probe, ops[i].op))
			continue;
		a.yes = false;
		snprintf(a.why + used, sizeof(a.why) - used, "%s%s",
			 used ? " " : "missing: ", ops[i].name);
	}
	io_uring_free_probe(probe);
	return a;
}

/* ---- the rest of the system ---- */

static struct answer ask_sysctl(const struct feature *f)
{
	long value = read_number(f->path);

	return value < 0 ? answer(false, "%s cannot be read", f->path) : answer(true, "%ld", value);
}

/* r0 = 1; exit: every one of these program types may return 1. */
static struct answer ask_bpf_program(const struct feature *f)
{
	static const struct bpf_insn insns[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = 1},
		{.code = BPF_JMP | BPF_EXIT},
	};
	LIBBPF_OPTS(bpf_prog_load_opts, opts,
		    .expected_attach_type = (enum bpf_attach_type)f->attach);
	scoped_fd fd = bpf_prog_load((enum bpf_prog_type)f->program, f->name, "Dual BSD/GPL", insns,
				     ARRAY_SIZE(insns), &opts);

	if (fd == -EPERM)
		return answer(false, "not permitted: needs CAP_BPF and CAP_NET_ADMIN");
	return fd < 0 ? no("BPF_PROG_LOAD", fd) : yes();
}

static struct answer ask_readable(const struct feature *f)
{
	return access(f->path, R_OK) ? no(f->path, -errno) : yes();
}

static struct answer ask_mounted(const struct feature *f)
{
	FILE *mounts = setmntent("/proc/self/mounts", "re");
	struct answer a = answer(false, "no file system of type %s is mounted", f->path);
	const struct mntent *mount;

	if (!mounts)
		return no("/proc/self/mounts", -errno);
	while (!a.yes && (mount = getmntent(mounts)))
		if (!strcmp(mount->mnt_type, f->path))
			a = answer(true, "%s", mount->mnt_dir);
	endmntent(mounts);
	return a;
}
