// SPDX-License-Identifier: Apache-2.0
/*
 * Giving up privileges: user, capabilities, descriptors, system calls. Knows
 * what each kind of process needs to live, not what it does.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/bpf.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <pwd.h>
#include <seccomp.h>
#include <stdbool.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include "base/log.h"
#include "base/sandbox.h"

#ifndef SOL_TLS
#define SOL_TLS 282
#endif

/* Sanitizers open files, start processes and trace themselves when they report. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) ||                         \
	__has_feature(memory_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

/* A call, if one argument of it is this value. */
struct exact {
	int call;
	unsigned arg;
	scmp_datum_t value;
};

/* Of a socket, for setsockopt(2) or getsockopt(2). */
struct option {
	int level, name;
};

/* What looking names up takes, and reading files. */
static const int name_services[] = {
	/* sockets and files; making and opening them: see allow_reading() */
	SCMP_SYS(connect), SCMP_SYS(bind), SCMP_SYS(sendto), SCMP_SYS(sendmsg), SCMP_SYS(sendmmsg),
	SCMP_SYS(recvfrom), SCMP_SYS(recvmsg), SCMP_SYS(recvmmsg), SCMP_SYS(getsockname),
	SCMP_SYS(getpeername), SCMP_SYS(getsockopt), SCMP_SYS(setsockopt), SCMP_SYS(shutdown),
	SCMP_SYS(read), SCMP_SYS(readv), SCMP_SYS(pread64), SCMP_SYS(write), SCMP_SYS(writev),
	SCMP_SYS(lseek), SCMP_SYS(close), SCMP_SYS(stat), SCMP_SYS(fstat), SCMP_SYS(lstat),
	SCMP_SYS(newfstatat), SCMP_SYS(statx), SCMP_SYS(access), SCMP_SYS(faccessat),
	SCMP_SYS(faccessat2), SCMP_SYS(readlink), SCMP_SYS(readlinkat), SCMP_SYS(getdents64),
	SCMP_SYS(poll), SCMP_SYS(ppoll), SCMP_SYS(select), SCMP_SYS(pselect6),
	SCMP_SYS(epoll_create1), SCMP_SYS(epoll_ctl), SCMP_SYS(epoll_wait), SCMP_SYS(epoll_pwait),
	/* who and where we are */
	SCMP_SYS(uname), SCMP_SYS(getpid), SCMP_SYS(gettid), SCMP_SYS(getppid), SCMP_SYS(getuid),
	SCMP_SYS(geteuid), SCMP_SYS(getgid), SCMP_SYS(getegid), SCMP_SYS(sysinfo),
	SCMP_SYS(sched_getaffinity),
	/* randomness and time */
	SCMP_SYS(getrandom), SCMP_SYS(clock_gettime), SCMP_SYS(gettimeofday), SCMP_SYS(time),
	SCMP_SYS(nanosleep), SCMP_SYS(clock_nanosleep),
	/* memory; mmap and mprotect: see allow_reading() */
	SCMP_SYS(brk), SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise),
	/* the C library's own; the thread may have hardly begun */
	SCMP_SYS(set_robust_list), SCMP_SYS(rseq), SCMP_SYS(futex), SCMP_SYS(sched_yield),
	SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn),
	SCMP_SYS(restart_syscall), SCMP_SYS(exit), SCMP_SYS(exit_group)};

static int look_up_user(const char *user, uid_t *uid, gid_t *gid);
static int become_user(uid_t uid, gid_t gid);
static int enter_empty_root(void);
static void drop_bounding_set(void);
static int drop_capabilities(void);
static int keep_reading_rights(bool token);
/* Files of others, too: as the processes that will load the keys. A token's are written. */
static int keep_reading_rights(bool token)
{
	static const cap_value_t kept[] = {CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE};
	cap_t had = cap_get_proc(), caps = cap_init();
	int r = had && caps ? 0 : -ENOMEM;

	for (int i = 0; r == 0 && i < 1 + token; i++) {
		cap_flag_value_t has = CAP_CLEAR;

		(void)cap_get_flag(had, kept[i], CAP_PERMITTED, &has);
		if (has == CAP_SET)
			(void)(cap_set_flag(caps, CAP_PERMITTED, 1, &kept[i], CAP_SET) ||
			       cap_set_flag(caps, CAP_EFFECTIVE, 1, &kept[i], CAP_SET));
	}
	if (r == 0)
		drop_bounding_set();
	if (r == 0 && cap_set_proc(caps) < 0)
		r = -errno;
	cap_free(had);
	cap_free(caps);
	return r;
}

static int compare_ints(const void *a, const void *b);
static int new_filter(uint32_t otherwise, const int *calls, size_t n, scmp_filter_ctx *out);
static int load_filter(scmp_filter_ctx filter, int r);
static int allow_memory(scmp_filter_ctx filter);
static int allow_token(scmp_filter_ctx filter);
static int allow_data(scmp_filter_ctx filter);
static int allow_exact(scmp_filter_ctx filter, const struct exact *list, size_t n);
static int allow_options(scmp_filter_ctx filter, int call, const struct option *list, size_t n);
static int allow_stream(scmp_filter_ctx filter, int family);
static int allow_reading(scmp_filter_ctx filter);
static int allow_socket(scmp_filter_ctx filter, int family, int type);
static int allow_resolver(scmp_filter_ctx filter);
static void release_filter(scmp_filter_ctx *filter);

int sandbox_drop_privileges(const char *user, bool files)
{
	uid_t uid = geteuid();
	gid_t gid = getegid();
	bool root = uid == 0;
	int r = 0;

	if (user)
		r = look_up_user(user, &uid, &gid);
	if (r == 0 && root && !files)
		r = enter_empty_root();
	if (r < 0)
		return r;
	drop_bounding_set();
	if (root && user)
		r = become_user(uid, gid);
	if (r == 0)
		r = drop_capabilities();
	if (r == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		r = -errno;
	/* After the change of user, which sets the dumpable flag to fs.suid_dumpable. */
	if (r == 0)
		r = sandbox_forbid_dumps();
	if (r < 0)
		log_error("cannot drop privileges: %s", strerror(-r));
	return r;
}

int sandbox_forbid_dumps(void)
{
	struct rlimit none = {0, 0};

	if (setrlimit(RLIMIT_CORE, &none) < 0)
		return -errno;
	if (!SANITIZED && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return -errno;
	return 0;
}

/* A list of what is forbidden: a token's module may need all the rest, and inherits this. */
int sandbox_supervisor(void)
{
	static const int calls[] = {
		/* other processes' memory and descriptors */
		SCMP_SYS(ptrace), SCMP_SYS(process_vm_readv), SCMP_SYS(process_vm_writev),
		SCMP_SYS(pidfd_getfd), SCMP_SYS(kcmp), SCMP_SYS(process_madvise),
		/* code for the kernel, but for BPF */
		SCMP_SYS(init_module), SCMP_SYS(finit_module), SCMP_SYS(delete_module),
		SCMP_SYS(kexec_load), SCMP_SYS(kexec_file_load), SCMP_SYS(perf_event_open),
		/* mounts and namespaces */
		SCMP_SYS(mount), SCMP_SYS(umount2), SCMP_SYS(pivot_root), SCMP_SYS(move_mount),
		SCMP_SYS(open_tree), SCMP_SYS(fsopen), SCMP_SYS(fsconfig), SCMP_SYS(fsmount),
		SCMP_SYS(fspick), SCMP_SYS(mount_setattr), SCMP_SYS(unshare), SCMP_SYS(setns),
		SCMP_SYS(open_by_handle_at), SCMP_SYS(name_to_handle_at),
		/* the machine */
		SCMP_SYS(reboot), SCMP_SYS(swapon), SCMP_SYS(swapoff), SCMP_SYS(settimeofday),
		SCMP_SYS(clock_settime), SCMP_SYS(adjtimex), SCMP_SYS(clock_adjtime),
		SCMP_SYS(sethostname), SCMP_SYS(setdomainname), SCMP_SYS(acct), SCMP_SYS(quotactl),
		SCMP_SYS(syslog), SCMP_SYS(iopl), SCMP_SYS(ioperm), SCMP_SYS(mknod),
		SCMP_SYS(mknodat), SCMP_SYS(personality), SCMP_SYS(userfaultfd),
		/* keyrings */
		SCMP_SYS(add_key), SCMP_SYS(request_key), SCMP_SYS(keyctl)};
	scmp_filter_ctx filter __attribute__((cleanup(release_filter))) = NULL;
	int r;

	if (SANITIZED)
		return 0;
	r = new_filter(SCMP_ACT_ALLOW, NULL, 0, &filter);
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(calls); i++)
		r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), calls[i], 0);
	if (r == 0)
		r = seccomp_attr_set(filter, SCMP_FLTATR_CTL_LOG, 1);
	/* A tree instead of a list: the processes that are started pass by here as well. */
	if (r == 0)
		r = seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	return load_filter(filter, r);
}

int sandbox_keep_only(int *keep, unsigned n)
{
	unsigned from = 3;

	qsort(keep, n, sizeof(*keep), compare_ints);
	for (unsigned i = 0; i < n; i++) {
		if (keep[i] < (int)from)
			continue;
		if (keep[i] > (int)from && close_range(from, (unsigned)keep[i] - 1, 0) < 0)
			return -errno;
		from = (unsigned)keep[i] + 1;
	}
	return close_range(from, ~0U, 0) < 0 ? -errno : 0;
}

int sandbox_signer(bool token)
{
	static const int calls[] = {
		/* messages and log lines; the descriptors are those it has, their number cannot
		   grow */
		SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(recvfrom), SCMP_SYS(recvmsg),
		SCMP_SYS(sendto), SCMP_SYS(sendmsg), SCMP_SYS(close), SCMP_SYS(poll),
		SCMP_SYS(ppoll), SCMP_SYS(epoll_wait), SCMP_SYS(epoll_pwait), SCMP_SYS(epoll_ctl),
		SCMP_SYS(fdatasync),
		/* randomness and time */
		SCMP_SYS(getrandom), SCMP_SYS(clock_gettime), SCMP_SYS(gettimeofday),
		SCMP_SYS(time),
		/* memory; mmap and mprotect: see allow_memory() */
		SCMP_SYS(brk), SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise),
		/* the C library's own */
		SCMP_SYS(futex), SCMP_SYS(getpid), SCMP_SYS(gettid), SCMP_SYS(rt_sigaction),
		SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn), SCMP_SYS(restart_syscall),
		SCMP_SYS(exit), SCMP_SYS(exit_group)};
	scmp_filter_ctx filter __attribute__((cleanup(release_filter))) = NULL;
	struct rlimit none = {0, 0};
	int r;

	if (SANITIZED) {
		log_warn("no system call filter: built with a sanitizer");
		return 0;
	}
	if (!token && setrlimit(RLIMIT_NOFILE, &none) < 0)
		return -errno;
	r = new_filter(SCMP_ACT_KILL_PROCESS, calls, ARRAY_SIZE(calls), &filter);
	if (r == 0)
		r = allow_memory(filter);
	if (r == 0 && token)
		r = allow_token(filter);
	return load_filter(filter, r);
}

int sandbox_data(bool unix_sockets, bool maps)
{
	static const int calls[] = {
		/* flows: most goes through the rings, which are restricted in ring.c */
		SCMP_SYS(io_uring_enter), SCMP_SYS(recvfrom), SCMP_SYS(recvmsg), SCMP_SYS(sendto),
		SCMP_SYS(sendmsg), SCMP_SYS(splice), SCMP_SYS(pipe2), SCMP_SYS(poll),
		SCMP_SYS(ppoll), SCMP_SYS(getpeername), SCMP_SYS(getsockname), SCMP_SYS(shutdown),
		SCMP_SYS(close),
		/* commands to workers, log lines */
		SCMP_SYS(read), SCMP_SYS(write),
		/* the kernel's counters of TLS, again and again */
		SCMP_SYS(pread64),
		/* randomness and time */
		SCMP_SYS(getrandom), SCMP_SYS(clock_gettime), SCMP_SYS(gettimeofday),
		SCMP_SYS(time),
		/* threads: all there are run already */
		SCMP_SYS(sched_getaffinity), SCMP_SYS(sched_yield), SCMP_SYS(futex),
		/* memory; mmap and mprotect: see allow_data() */
		SCMP_SYS(brk), SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise),
		/* the C library's own */
		SCMP_SYS(getpid), SCMP_SYS(gettid), SCMP_SYS(rt_sigaction),
		SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn), SCMP_SYS(restart_syscall),
		SCMP_SYS(exit), SCMP_SYS(exit_group)};
	/* A map's descriptor says what may be done to it. */
	static const struct exact elements[] = {
		{SCMP_SYS(bpf), 0, BPF_MAP_LOOKUP_ELEM},
		{SCMP_SYS(bpf), 0, BPF_MAP_UPDATE_ELEM},
		{SCMP_SYS(bpf), 0, BPF_MAP_DELETE_ELEM},
	};
	scmp_filter_ctx filter __attribute__((cleanup(release_filter))) = NULL;
	int r;

	if (SANITIZED) {
		log_warn("no system call filter: built with a sanitizer");
		return 0;
	}
	r = new_filter(SCMP_ACT_KILL_PROCESS, calls, ARRAY_SIZE(calls), &filter);
	if (r == 0)
		r = allow_data(filter);
	if (r == 0 && unix_sockets)
		r = allow_stream(filter, AF_UNIX);
	if (r == 0 && maps)
		r = allow_exact(filter, elements, ARRAY_SIZE(elements));
	/* For the workers too, whose rings are made and restricted. */
	if (r == 0)
		r = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
	return load_filter(filter, r);
}

int sandbox_check(bool token)
{
	/* Name services, and what the kernel says of our addresses. */
	static const struct {
		int family, type;
	} sockets[] = {{AF_UNIX, SOCK_STREAM}, {AF_UNIX, SOCK_DGRAM}, {AF_NETLINK, SOCK_RAW}};
	/* For keys, and limits that follow from the machine's. */
	static const struct exact own_limits[] = {{SCMP_SYS(prlimit64), 0, 0}};
	static const int also[] = {SCMP_SYS(mlock), SCMP_SYS(getrlimit)};
	scmp_filter_ctx filter __attribute__((cleanup(release_filter))) = NULL;
	int r = keep_reading_rights(token);

	if (r == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		r = -errno;
	if (r == 0)
		r = sandbox_forbid_dumps();
	if (r < 0) {
		log_error("cannot drop privileges: %s", strerror(-r));
		return r;
	}
	if (SANITIZED)
		return 0;
	r = new_filter(SCMP_ACT_ERRNO(EPERM), name_services, ARRAY_SIZE(name_services), &filter);
	if (r == 0)
		r = allow_reading(filter);
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(sockets); i++)
		r = allow_socket(filter, sockets[i].family, sockets[i].type);
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(also); i++)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, also[i], 0);
	if (r == 0)
		r = allow_exact(filter, own_limits, ARRAY_SIZE(own_limits));
	if (r == 0 && token)
		r = allow_token(filter);
	/* Its module may have threads. */
	if (r == 0 && token)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(clone), 0);
	if (r == 0 && token)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(clone3), 0);
	return load_filter(filter, r);
}

int sandbox_resolver(void)
{
	scmp_filter_ctx filter __attribute__((cleanup(release_filter))) = NULL;
	int r;

	if (SANITIZED) {
		log_warn("no system call filter: built with a sanitizer");
		return 0;
	}
	r = new_filter(SCMP_ACT_ERRNO(EPERM), name_services, ARRAY_SIZE(name_services), &filter);
	if (r == 0)
		r = allow_resolver(filter);
	/* For the thread that looks up, too. */
	if (r == 0)
		r = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
	return load_filter(filter, r);
}

static int look_up_user(const char *user, uid_t *uid, gid_t *gid)
{
	struct passwd entry, *found = NULL;
	char buf[4096];
	int r = getpwnam_r(user, &entry, buf, sizeof(buf), &found);

	if (!found) {
		log_error("cannot become user %s: %s", user, r ? strerror(r) : "no such user");
		return r ? -r : -ENOENT;
	}
	*uid = found->pw_uid;
	*gid = found->pw_gid;
	return 0;
}

static int become_user(uid_t uid, gid_t gid)
{
	if (setgroups(1, &gid) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0)
		return -errno;
	/* What cannot be undone is done. */
	if (uid != 0 && setresuid(0, 0, 0) == 0)
		return -EPERM;
	return 0;
}

/* A directory that nobody can put anything into, since it is removed. -1 with errno. */
static int removed_directory(void)
{
	static const char *const places[] = {"/run/ktlsgate", "/run", "/tmp"};

	for (unsigned i = 0; i < ARRAY_SIZE(places); i++) {
		char path[64];
		int fd;

		snprintf(path, sizeof(path), "%s/empty.XXXXXX", places[i]);
		if (!mkdtemp(path))
			continue;
		fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (!rmdir(path) || fd < 0)
			return fd;
		close(fd);
	}
	return -1;
}

/* Root without the right to do so is not held up: it is a restriction more, not the only one. */
static int enter_empty_root(void)
{
	scoped_fd empty = SANITIZED ? -1 : removed_directory();

	if (SANITIZED)
		return 0;
	if (empty >= 0 && !fchdir(empty) && !chroot(".") && !chdir("/"))
		return 0;
	if (errno == EPERM) {
		log_warn("all files stay in sight: CAP_SYS_CHROOT is missing");
		return 0;
	}
	log_error("cannot have an empty root directory: %s", strerror(errno));
	return -errno;
}

/* Needs CAP_SETPCAP, so comes first. Who lacks it loses nothing: no_new_privs. */
static void drop_bounding_set(void)
{
	for (cap_value_t c = 0; c < cap_max_bits(); c++)
		cap_drop_bound(c);
	cap_reset_ambient();
}

static int drop_capabilities(void)
{
	cap_t none = cap_init();
	int r = 0;

	if (!none)
		return -ENOMEM;
	if (cap_set_proc(none) < 0)
		r = -errno;
	cap_free(none);
	return r;
}

static int compare_ints(const void *a, const void *b)
{
	int x = *(const int *)a, y = *(const int *)b;

	return (x > y) - (x < y);
}

static int new_filter(uint32_t otherwise, const int *calls, size_t n, scmp_filter_ctx *out)
{
	int r;

	*out = seccomp_init(otherwise);
	if (!*out)
		return -ENOMEM;
	r = seccomp_attr_set(*out, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	for (size_t i = 0; r == 0 && i < n; i++)
		r = seccomp_rule_add(*out, SCMP_ACT_ALLOW, calls[i], 0);
	return r;
}

static int load_filter(scmp_filter_ctx filter, int r)
{
	if (r == 0)
		r = seccomp_load(filter);
	if (r < 0)
		log_error("cannot install the system call filter: %s", strerror(-r));
	return r;
}

/*
 * No executable memory, no sockets but TCP's and of those the options that flows need, two ioctls,
 * no signals to others (not even by F_SETOWN: the signer may be of the same
 * user).
 */
static int allow_data(scmp_filter_ctx filter)
{
	/* What stands in setsockopt() or getsockopt() in what a data process runs. */
	static const struct option set[] = {
		{SOL_SOCKET, SO_KEEPALIVE},
		{SOL_SOCKET, SO_LINGER},
		{SOL_SOCKET, SO_OOBINLINE},
		{SOL_SOCKET, SO_RCVBUF},
		{SOL_SOCKET, SO_SNDBUF},
		{IPPROTO_TCP, TCP_CONGESTION},
		{IPPROTO_TCP, TCP_KEEPCNT},
		{IPPROTO_TCP, TCP_KEEPIDLE},
		{IPPROTO_TCP, TCP_KEEPINTVL},
		{IPPROTO_TCP, TCP_NODELAY},
		{IPPROTO_TCP, TCP_NOTSENT_LOWAT},
		{IPPROTO_TCP, TCP_ULP},
		{SOL_TLS, TLS_RX},
		{SOL_TLS, TLS_TX},
	};
	static const struct option get[] = {
		{SOL_SOCKET, SO_COOKIE},	  {SOL_SOCKET, SO_ERROR}, {IPPROTO_TCP, TCP_INFO},
		{IPPROTO_TCP, TCP_NOTSENT_LOWAT}, {SOL_TLS, TLS_RX},	  {SOL_TLS, TLS_TX},
	};
	const struct exact exact[] = {
		{SCMP_SYS(ioctl), 1, SIOCINQ},	    {SCMP_SYS(ioctl), 1, SIOCOUTQ},
		{SCMP_SYS(fcntl), 1, F_GETFL},	    {SCMP_SYS(fcntl), 1, F_SETFL},
		{SCMP_SYS(fcntl), 1, F_GETPIPE_SZ}, {SCMP_SYS(tgkill), 0, (scmp_datum_t)getpid()},
	};
	int r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
				 SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));

	if (r == 0)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
				     SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	/* The C library looks for files it can do without (number of CPUs, time zone). */
	if (r == 0)
		r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EACCES), SCMP_SYS(openat), 0);
	if (r == 0)
		r = allow_exact(filter, exact, ARRAY_SIZE(exact));
	if (r == 0)
		r = allow_options(filter, SCMP_SYS(setsockopt), set, ARRAY_SIZE(set));
	if (r == 0)
		r = allow_options(filter, SCMP_SYS(getsockopt), get, ARRAY_SIZE(get));
	if (r == 0)
		r = allow_stream(filter, AF_INET);
	return r == 0 ? allow_stream(filter, AF_INET6) : r;
}

/*
 * What a PKCS#11 module does at each signature is its own business: files and
 * locks (SoftHSM2), a UNIX socket (pcscd, p11-kit), a device. No other sockets, no programs.
 */
static int allow_token(scmp_filter_ctx filter)
{
	static const int calls[] = {
		SCMP_SYS(openat),      SCMP_SYS(open),	    SCMP_SYS(stat),
		SCMP_SYS(fstat),       SCMP_SYS(lstat),	    SCMP_SYS(newfstatat),
		SCMP_SYS(statx),       SCMP_SYS(access),    SCMP_SYS(faccessat),
		SCMP_SYS(lseek),       SCMP_SYS(pread64),   SCMP_SYS(readv),
		SCMP_SYS(writev),      SCMP_SYS(fcntl),	    SCMP_SYS(flock),
		SCMP_SYS(ftruncate),   SCMP_SYS(fsync),	    SCMP_SYS(getdents64),
		SCMP_SYS(readlink),    SCMP_SYS(connect),   SCMP_SYS(getpeername),
		SCMP_SYS(getuid),      SCMP_SYS(geteuid),   SCMP_SYS(getgid),
		SCMP_SYS(getegid),     SCMP_SYS(nanosleep), SCMP_SYS(clock_nanosleep),
		SCMP_SYS(ioctl),       SCMP_SYS(select),    SCMP_SYS(pselect6),
		SCMP_SYS(sched_yield),
	};
	int r = 0;

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(calls); i++)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, calls[i], 0);
	if (r < 0)
		return r;
	return seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1,
				SCMP_A0(SCMP_CMP_EQ, AF_UNIX, 0));
}

static int allow_exact(scmp_filter_ctx filter, const struct exact *list, size_t n)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < n; i++)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, list[i].call, 1,
				     SCMP_CMP(list[i].arg, SCMP_CMP_EQ, list[i].value, 0));
	return r;
}

/* The kernel takes the lower half of a register as an int: the upper one may hold anything. */
static int allow_options(scmp_filter_ctx filter, int call, const struct option *list, size_t n)
{
	const scmp_datum_t lower = UINT32_MAX;
	int r = 0;

	for (size_t i = 0; r == 0 && i < n; i++)
		r = seccomp_rule_add(
			filter, SCMP_ACT_ALLOW, call, 2,
			SCMP_A1(SCMP_CMP_MASKED_EQ, lower, (scmp_datum_t)list[i].level),
			SCMP_A2(SCMP_CMP_MASKED_EQ, lower, (scmp_datum_t)list[i].name));
	return r;
}

/*
 * What there is is read, never written. Name services are libraries, loaded when they are first
 * asked: memory may be executed, but none that can be, or could be, written.
 */
static int allow_reading(scmp_filter_ctx filter)
{
	const scmp_datum_t how = O_ACCMODE | O_CREAT | O_TRUNC, both = PROT_WRITE | PROT_EXEC;
	const scmp_datum_t prot[] = {0, PROT_WRITE, PROT_EXEC};
	const struct exact exact[] = {
		{SCMP_SYS(ioctl), 1, FIONREAD},
		{SCMP_SYS(fcntl), 1, F_GETFD},
		{SCMP_SYS(fcntl), 1, F_SETFD},
		{SCMP_SYS(fcntl), 1, F_GETFL},
		{SCMP_SYS(fcntl), 1, F_SETFL},
		{SCMP_SYS(fcntl), 1, F_DUPFD_CLOEXEC},
		{SCMP_SYS(fcntl), 1, F_SETLK},
		{SCMP_SYS(fcntl), 1, F_SETLKW},
		{SCMP_SYS(tgkill), 0, (scmp_datum_t)getpid()},
	};
	int r = allow_exact(filter, exact, ARRAY_SIZE(exact));

	if (r == 0)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(openat), 1,
				     SCMP_A2(SCMP_CMP_MASKED_EQ, how, O_RDONLY));
	if (r == 0)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(open), 1,
				     SCMP_A1(SCMP_CMP_MASKED_EQ, how, O_RDONLY));
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(prot); i++)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
				     SCMP_A2(SCMP_CMP_MASKED_EQ, both, prot[i]));
	if (r == 0)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
				     SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	return r;
}

/* Protocol 0: UDP, TCP, or NETLINK_ROUTE. */
static int allow_socket(scmp_filter_ctx filter, int family, int type)
{
	const scmp_datum_t flags = SOCK_CLOEXEC | SOCK_NONBLOCK;

	return seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 3,
				SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)family, 0),
				SCMP_A1(SCMP_CMP_MASKED_EQ, ~flags, (scmp_datum_t)type),
				SCMP_A2(SCMP_CMP_EQ, 0, 0));
}

/* The kernel's list of our addresses, by netlink, is for their order (RFC 6724). */
static int allow_resolver(scmp_filter_ctx filter)
{
	static const struct {
		int family, type;
	} sockets[] = {
		{AF_INET, SOCK_DGRAM},	 {AF_INET, SOCK_STREAM},   {AF_INET6, SOCK_DGRAM},
		{AF_INET6, SOCK_STREAM}, {AF_UNIX, SOCK_STREAM},   {AF_UNIX, SOCK_DGRAM},
		{AF_NETLINK, SOCK_RAW},	 {AF_NETLINK, SOCK_DGRAM},
	};
	int r = allow_reading(filter);

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(sockets); i++)
		r = allow_socket(filter, sockets[i].family, sockets[i].type);
	return r;
}

/* Protocol 0 is TCP, or the only one there is; by number there would be SCTP, MPTCP and others. */
static int allow_stream(scmp_filter_ctx filter, int family)
{
	const scmp_datum_t flags = SOCK_CLOEXEC | SOCK_NONBLOCK;

	return seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 3,
				SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)family, 0),
				SCMP_A1(SCMP_CMP_MASKED_EQ, ~flags, SOCK_STREAM),
				SCMP_A2(SCMP_CMP_EQ, 0, 0));
}

/* Anonymous memory only, and never executable. */
static int allow_memory(scmp_filter_ctx filter)
{
	int r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 2,
				 SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0),
				 SCMP_A3(SCMP_CMP_MASKED_EQ, MAP_ANONYMOUS, MAP_ANONYMOUS));

	if (r < 0)
		return r;
	return seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
				SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
}

static void release_filter(scmp_filter_ctx *filter)
{
	if (*filter)
		seccomp_release(*filter);
}
