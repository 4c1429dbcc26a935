// SPDX-License-Identifier: Apache-2.0
/*
 * ktlsgate-probe: asks the running kernel, by trying on loopback sockets and not by its version,
 * for each feature ktlsgate needs or can use; one line each. Of the daemon it knows only how that
 * tries kernel TLS.
 */
#include <errno.h>
#include <getopt.h>
#include <linux/bpf.h>
#include <mntent.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <liburing.h>
#include "tls/ktls_probe.h"

struct answer {
	bool yes;
	char why[160];
};

struct feature {
	const char *name;
	struct answer (*ask)(const struct feature *f);
	struct ktls_answer (*ktls)(void);
	uint16_t version; /* of TLS */
	enum tls_cipher cipher;
	bool tx;
	int program; /* BPF_PROG_TYPE_* */
	int attach;  /* BPF_* attach type */
	const char *path;
};

static struct answer ask_ktls(const struct feature *f);
static struct answer ask_keys(const struct feature *f);
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
	 .tx = true},                                                                              \
	{                                                                                          \
		.name = #prefix "_rx_" #suffix, .ask = ask_keys, .version = ver, .cipher = id      \
	}
#define PROGRAM(label, type, where)                                                                \
	{                                                                                          \
		.name = label, .ask = ask_bpf_program, .program = type, .attach = where            \
	}

static const struct feature features[] = {
	{.name = "tls_ulp", .ask = ask_ktls, .ktls = ktls_try_ulp},
	KEYS(tls12, TLS_12, aes_128_gcm, TLS_AES_128_GCM),
	KEYS(tls12, TLS_12, aes_256_gcm, TLS_AES_256_GCM),
	KEYS(tls12, TLS_12, chacha20_poly1305, TLS_CHACHA20_POLY1305),
	KEYS(tls13, TLS_13, aes_128_gcm, TLS_AES_128_GCM),
	KEYS(tls13, TLS_13, aes_256_gcm, TLS_AES_256_GCM),
	KEYS(tls13, TLS_13, chacha20_poly1305, TLS_CHACHA20_POLY1305),
	{.name = "tls_rekey", .ask = ask_ktls, .ktls = ktls_try_rekey},
	{.name = "tls_rx_expect_no_pad", .ask = ask_ktls, .ktls = ktls_try_no_pad},
	{.name = "tls_tx_max_payload_len", .ask = ask_ktls, .ktls = ktls_try_max_payload},
	{.name = "splice_refill_safe", .ask = ask_ktls, .ktls = ktls_try_refill},
	{.name = "overlapping_segments", .ask = ask_ktls, .ktls = ktls_try_overlap},
	{.name = "control_records", .ask = ask_ktls, .ktls = ktls_try_control_records},
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

static struct answer from_ktls(struct ktls_answer a)
{
	return answer(!a.error, "%s", a.why);
}

static struct answer ask_ktls(const struct feature *f)
{
	return from_ktls(f->ktls());
}

static struct answer ask_keys(const struct feature *f)
{
	return from_ktls(ktls_try_keys(f->tx, f->version, f->cipher));
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
