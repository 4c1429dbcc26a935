// SPDX-License-Identifier: Apache-2.0
/*
 * A data process or resolver that somebody has captured, for tests/test_captured.py: linked in
 * front of the daemon's own functions (--wrap, see the Makefile), it behaves until the file
 * KTLSGATE_CAPTURED, which all processes map, names its process id. Then its main thread does what
 * an attacker could do to the other processes, drawn from a seed, after everything was given up
 * that the process gives up. Its other threads go on as ever.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define LOOK_MS	      10
#define SPIN_SECONDS  120
#define FDS	      1024 /* numbers that are tried as descriptors */
#define MAPPINGS      64
#define SCRATCH_BYTES 65536

/* As tests/harness/captured.py has it. */
static struct order {
	_Atomic uint32_t pid;	/* who; 0: nobody */
	_Atomic uint32_t steps; /* of each kind */
	_Atomic uint64_t seed;
	_Atomic uint32_t kinds; /* bits: enum kind */
	_Atomic uint32_t end;	/* enum end */
	/* what came of it */
	_Atomic uint32_t done[8]; /* by kind: steps */
	_Atomic uint32_t opened;  /* mappings made writable that are for reading only */
	_Atomic uint32_t finished;
} * order;

enum kind {
	MEMORY,	  /* every word that is shared and can be written */
	MESSAGES, /* on every descriptor, with descriptors of ours */
	MAPS,	  /* BPF maps: elements put and deleted */
	CALLS,	  /* system calls that the filter lets through */
	RINGS,	  /* the memory that is shared with the kernel */
	KINDS
};

enum end {
	END_NOT, /* goes on as if nothing had been */
	END_EXIT,
	END_CRASH,
	END_FORBIDDEN, /* a system call that kills */
	END_SPIN,
	END_SHUT, /* all its sockets, and exits */
	END_HALF, /* the same in one direction, and spins */
};

static int maps_fd;
static uint64_t state;
static uint8_t scratch[SCRATCH_BYTES];
static _Thread_local bool mine; /* this thread is the one that is captured */

/* ---- chance ---- */

static uint64_t draw(void)
{
	uint64_t x = state += 0x9e3779b97f4a7c15;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return x ^ x >> 31;
}

static uint64_t draw_below(uint64_t n)
{
	return draw() % n;
}

/* Numbers that are likely to hurt, and any. */
static uint64_t draw_number(void)
{
	switch (draw_below(8)) {
	case 0:
		return 0;
	case 1:
		return draw_below(16);
	case 2:
		return UINT64_MAX - draw_below(4);
	case 3:
		return UINT32_MAX - draw_below(2);
	case 4:
		return 1ull << draw_below(64);
	case 5:
		return 0x100000001ull * draw_below(1 << 16) | 1;
	default:
		return draw();
	}
}

static void fill(size_t len)
{
	for (size_t i = 0; i < len; i += sizeof(uint64_t)) {
		uint64_t n = draw_number();

		memcpy(scratch + i, &n, sizeof(n));
	}
}

static int draw_fd(void)
{
	return draw_below(50) ? (int)draw_below(80) : (int)draw_below(FDS);
}

/* A line for the log about what should have been refused, and was not. */
static void __attribute__((format(printf, 1, 2))) tell(const char *format, ...)
{
	va_list ap;

	order->opened++;
	va_start(ap, format);
	fputs("captured: ", stderr);
	vfprintf(stderr, format, ap);
	fputc('\n', stderr);
	va_end(ap);
}

/* ---- memory ---- */

struct mapping {
	uint64_t *start;
	size_t words;
	bool writable, ring;
};

/* One line of /proc/self/maps. False: it is not shared, or it is how we are told what to do. */
static bool read_mapping(const char *line, struct mapping *m)
{
	unsigned long from, to;
	char mode[5], name[256] = "";

	if (sscanf(line, "%lx-%lx %4s %*s %*s %*s %255[^\n]", &from, &to, mode, name) < 3)
		return false;
	m->start = (uint64_t *)from;
	m->words = (to - from) / sizeof(uint64_t);
	m->writable = mode[1] == 'w';
	m->ring = strstr(name, "io_uring");
	return mode[3] == 's' && from != (unsigned long)order;
}

static unsigned list_mappings(struct mapping *out)
{
	static char text[1 << 20];
	size_t len = 0;
	ssize_t n;
	unsigned found = 0;

	while (len < sizeof(text) - 1 &&
	       (n = pread(maps_fd, text + len, sizeof(text) - 1 - len, (off_t)len)) > 0)
		len += (size_t)n;
	text[len] = '\0';
	for (char *line = text; *line && found < MAPPINGS;
	     line += strcspn(line, "\n"), line += !!*line)
		found += read_mapping(line, &out[found]);
	return found;
}

static void write_words(const struct mapping *m, uint32_t steps)
{
	for (uint32_t i = 0; i < steps; i++)
		atomic_store((_Atomic uint64_t *)&m->start[draw_below(m->words)], draw_number());
	/* Every one of them is a bound or a lock to somebody, perhaps. */
	for (size_t i = 0; i < m->words; i++)
		atomic_store((_Atomic uint64_t *)&m->start[i], draw_number() | 1);
}

static void write_memory(uint32_t steps, bool rings, bool first)
{
	struct mapping list[MAPPINGS];
	unsigned n = list_mappings(list);

	for (unsigned i = 0; i < n; i++) {
		const struct mapping *m = &list[i];

		if (m->ring != rings)
			continue;
		/* Later there may be memory that it has made itself. */
		if (first && !m->writable &&
		    !mprotect(m->start, m->words * sizeof(*m->start), PROT_READ | PROT_WRITE))
			tell("made shared memory writable: %zu words", m->words);
		if (m->writable) {
			order->done[rings ? RINGS : MEMORY] += steps;
			write_words(m, steps);
		}
	}
}

/* ---- messages ---- */

#define RIGHTS_MAX 4

static void add_rights(struct msghdr *msg, unsigned n)
{
	static _Alignas(struct cmsghdr) char space[CMSG_SPACE(RIGHTS_MAX * sizeof(int))];
	struct cmsghdr *c = (struct cmsghdr *)space;
	int fds[RIGHTS_MAX];

	for (unsigned i = 0; i < n; i++)
		fds[i] = draw_fd();
	*c = (struct cmsghdr){.cmsg_level = SOL_SOCKET,
			      .cmsg_type = SCM_RIGHTS,
			      .cmsg_len = CMSG_LEN(n * sizeof(int))};
	memcpy(CMSG_DATA(c), fds, n * sizeof(int));
	msg->msg_control = space;
	msg->msg_controllen = CMSG_SPACE(n * sizeof(int));
}

/* Lengths of messages that there are, and of none. */
static size_t draw_length(void)
{
	static const size_t lengths[] = {0,   1,   4,	8,   12,   16,
					 136, 144, 152, 160, 4096, SCRATCH_BYTES};
	uint64_t n = draw_below(2 * sizeof(lengths) / sizeof(*lengths));

	return n < sizeof(lengths) / sizeof(*lengths) ? lengths[n] : draw_below(512);
}

static void send_messages(uint32_t steps)
{
	for (uint32_t i = 0; i < steps; i++) {
		struct iovec iov = {scratch, draw_length()};
		struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

		fill(256);
		if (!draw_below(4))
			add_rights(&msg, 1 + (unsigned)draw_below(RIGHTS_MAX));
		(void)!sendmsg(3 + (int)draw_below(61), &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
		order->done[MESSAGES]++;
	}
}

/* ---- BPF maps ---- */

static void change_maps(uint32_t steps)
{
	static const int commands[] = {BPF_MAP_UPDATE_ELEM, BPF_MAP_DELETE_ELEM,
				       BPF_MAP_LOOKUP_ELEM};

	for (uint32_t i = 0; i < steps; i++) {
		union bpf_attr attr = {
			.map_fd = 3 + (uint32_t)draw_below(61),
			.key = (uintptr_t)scratch,
			.value = (uintptr_t)scratch + 512,
		};

		fill(1024);
		/* An index, or the prefix of a rule for everybody, or anything. */
		if (draw_below(2))
			memset(scratch, 0, 32);
		if (draw_below(2))
			memset(scratch + 512, 0, 64);
		scratch[0] = (uint8_t)draw_below(33);
		syscall(SYS_bpf, commands[draw_below(3)], &attr, sizeof(attr));
		order->done[MAPS]++;
	}
}

/* ---- system calls ---- */

/*
 * Calls that a filter lets through, and their arguments: f descriptor, p memory, n any number,
 * l length, o option of a socket (two arguments), z nothing, w and b flags that do not let it
 * wait.
 */
static const struct call {
	long number;
	const char *arguments;
} calls[] = {
	{SYS_recvfrom, "fplwzz"},
	{SYS_recvmsg, "fpw"},
	{SYS_sendto, "fplwzz"},
	{SYS_splice, "fzfzlw"},
	{SYS_pipe2, "pb"},
	{SYS_poll, "pzz"},
	{SYS_getpeername, "fpp"},
	{SYS_getsockname, "fpp"},
	{SYS_shutdown, "fn"},
	{SYS_close, "f"},
	{SYS_read, "fpl"},
	{SYS_write, "fpl"},
	{SYS_pread64, "fpln"},
	{SYS_getrandom, "plz"},
	{SYS_clock_gettime, "np"},
	{SYS_sched_getaffinity, "npp"},
	{SYS_sched_yield, ""},
	{SYS_mmap, "zlzn"},
	{SYS_mmap, "zlzwfn"},
	{SYS_munmap, "nl"},
	{SYS_mprotect, "nlz"},
	{SYS_mremap, "nlnzz"},
	{SYS_madvise, "nln"},
	{SYS_getpid, ""},
	{SYS_rt_sigprocmask, "npzn"},
	{SYS_socket, "z"},
	{SYS_setsockopt, "fopl"},
	{SYS_getsockopt, "fopp"},
	{SYS_io_uring_enter, "fnzzzz"},
	{SYS_openat, "npz"},
};

/* What would take the process further. */
static const long forbidden[] = {
	SYS_execve,
	SYS_clone,
	SYS_ptrace,
	SYS_kill,
	SYS_pidfd_open,
	SYS_pidfd_getfd,
	SYS_process_vm_readv,
	SYS_process_vm_writev,
	SYS_mount,
	SYS_unshare,
	SYS_setns,
	SYS_io_uring_setup,
	SYS_userfaultfd,
	SYS_perf_event_open,
	SYS_memfd_create,
	SYS_unlinkat,
	SYS_open_by_handle_at,
	SYS_io_uring_register,
	SYS_setuid,
	SYS_seccomp,
	SYS_keyctl,
	SYS_init_module,
	SYS_memfd_secret,
	SYS_prlimit64,
};

static const int options[][2] = {
	{SOL_SOCKET, SO_KEEPALIVE}, {SOL_SOCKET, SO_LINGER}, {SOL_SOCKET, SO_RCVBUF},
	{SOL_SOCKET, SO_ERROR},	    {6 /* TCP */, 1},	     {6, 4},
};

static void make_call(void)
{
	const struct call *c = &calls[draw_below(sizeof(calls) / sizeof(*calls))];
	/* Of those both ways of an option are allowed only for some. */
	const int *option = c->number == SYS_getsockopt ? options[3] : options[draw_below(3)];
	long a[6] = {0};
	unsigned n = 0;

	for (const char *p = c->arguments; *p; p++) {
		switch (*p) {
		case 'f':
			a[n++] = 3 + (long)draw_below(61);
			break;
		case 'p':
			a[n++] = draw_below(8) ? (long)scratch : (long)draw_number();
			break;
		case 'l':
			a[n++] = (long)draw_below(SCRATCH_BYTES);
			break;
		case 'o':
			a[n++] = option[0];
			a[n++] = option[1];
			break;
		case 'w':
			a[n++] = MSG_DONTWAIT | MSG_NOSIGNAL;
			break;
		case 'b':
			a[n++] = O_NONBLOCK;
			break;
		case 'z':
			a[n++] = 0;
			break;
		default:
			a[n++] = (long)draw_number();
		}
	}
	if (c->number == SYS_socket) {
		a[0] = AF_INET;
		a[1] = SOCK_STREAM | SOCK_NONBLOCK;
	}
	syscall(c->number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* A read that waits for ever would end the test's patience, and nothing else. */
static void never_wait(void)
{
	for (int fd = 3; fd < FDS; fd++) {
		int flags = fcntl(fd, F_GETFL);

		if (flags >= 0)
			(void)fcntl(fd, F_SETFL, flags | O_NONBLOCK);
	}
}

static void make_calls(uint32_t steps)
{
	never_wait();
	for (uint32_t i = 0; i < steps; i++) {
		fill(64);
		make_call();
		order->done[CALLS]++;
	}
}

static void make_forbidden_call(void)
{
	long number = forbidden[draw_below(sizeof(forbidden) / sizeof(*forbidden))];

	fprintf(stderr, "captured: makes call %ld, which is forbidden\n", number);
	if (syscall(number, 0, 0, 0, 0, 0, 0) != -1 || errno != EPERM)
		tell("call %ld was not refused: %s", number, strerror(errno));
}

static void shut_down(int how)
{
	for (int fd = 3; fd < FDS; fd++)
		(void)shutdown(fd, how);
}

/* ---- captured ---- */

/* Not for ever: a test that failed may have nobody left to end it. */
_Noreturn static void spin(void)
{
	struct timespec start, now;

	clock_gettime(CLOCK_MONOTONIC, &start);
	do
		clock_gettime(CLOCK_MONOTONIC, &now);
	while (now.tv_sec < start.tv_sec + SPIN_SECONDS);
	_exit(EXIT_FAILURE);
}

static void act(void)
{
	uint32_t steps = order->steps, kinds = order->kinds;
	enum end end = order->end;

	state = order->seed;
	if (kinds & 1 << MEMORY)
		write_memory(steps, false, true);
	if (kinds & 1 << MESSAGES)
		send_messages(steps);
	if (kinds & 1 << MAPS)
		change_maps(steps);
	if (kinds & 1 << CALLS)
		make_calls(steps);
	/* What the calls have changed. */
	if (kinds & 1 << MEMORY)
		write_memory(steps, false, false);
	if (kinds & 1 << RINGS)
		write_memory(steps, true, false);
	order->pid = 0;
	order->finished = 1;
	switch (end) {
	case END_NOT:
		return;
	case END_EXIT:
		_exit((int)draw_below(256));
	case END_CRASH:
		__builtin_trap();
	case END_FORBIDDEN:
		make_forbidden_call();
		return;
	case END_SHUT:
		shut_down(SHUT_RDWR);
		_exit(EXIT_FAILURE);
	case END_HALF:
		shut_down(SHUT_WR);
		/* fall through */
	case END_SPIN:
		spin();
	}
}

/* ---- what is linked in front ---- */

int __real_poll(struct pollfd *fds, nfds_t n, int timeout);
int __wrap_poll(struct pollfd *fds, nfds_t n, int timeout);
int __wrap___poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t len);
void __real_answer_run(void *gate, int channel);
void __wrap_answer_run(void *gate, int channel);
int __real_resolver_run(const void *cfg, void *table, int ready, int stop);
int __wrap_resolver_run(const void *cfg, void *table, int ready, int stop);

__attribute__((constructor)) static void prepare(void)
{
	const char *path = getenv("KTLSGATE_CAPTURED");
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	void *p = mmap(NULL, sizeof(*order), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	maps_fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	if (p == MAP_FAILED || maps_fd < 0) {
		fprintf(stderr, "KTLSGATE_CAPTURED: %s\n", strerror(errno));
		exit(2);
	}
	order = p;
	close(fd);
}

void __wrap_answer_run(void *gate, int channel)
{
	mine = true;
	__real_answer_run(gate, channel);
}

int __wrap_resolver_run(const void *cfg, void *table, int ready, int stop)
{
	mine = true;
	return __real_resolver_run(cfg, table, ready, stop);
}

int __wrap_poll(struct pollfd *fds, nfds_t n, int timeout)
{
	int left = timeout, ready;

	if (!mine)
		return __real_poll(fds, n, timeout);
	for (;;) {
		int wait = timeout < 0 || left > LOOK_MS ? LOOK_MS : left;

		if (order->pid == (uint32_t)getpid())
			act();
		ready = __real_poll(fds, n, wait);
		left -= wait;
		if (ready || (timeout >= 0 && left <= 0))
			return ready;
	}
}

/* What poll() is where the compiler knows how many there can be (_FORTIFY_SOURCE). */
int __wrap___poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t len)
{
	(void)len;
	return __wrap_poll(fds, n, timeout);
}
