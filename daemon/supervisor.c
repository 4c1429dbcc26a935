/* SPDX-License-Identifier: Apache-2.0 */
/* Starts, watches and stops the other processes. Knows no TLS and no flow. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include "bpf_dir.h"
#include "control.h"
#include "log.h"
#include "notify.h"
#include "sandbox.h"
#include "signer.h"
#include "steer.h"
#include "supervisor.h"
#include "watchdog.h"

#define START_TIMEOUT_MS 20000
#define RESTART_PAUSE_MS 1000
#define STOP_SECONDS	 5
#define BACKLOG		 4096
#define MAX_FLOWS	 65536 /* entries of the BPF flow maps */

enum child_kind {
	CHILD_SIGNER,
	CHILD_DATA,
	CHILDREN
};
static const char *const child_names[CHILDREN] = {"signer", "data process"};

struct supervisor {
	struct config *cfg;
	struct ktls_caps ktls;
	struct count *count;
	struct steer *steer;
	int *listeners;			/* [binding * workers + worker] */
	int *worker_ends, *signer_ends; /* of the socket pairs, by worker */
	struct replay *seen;		/* the signers' memory of used transcripts */
	int control_fd;
	int stop_read, stop_write; /* children end when the write end closes */
	int signal_fd;
	pid_t children[CHILDREN];
	struct watchdog watchdog;
};

/* ---- what needs rights ---- */

static void raise_descriptor_limit(void)
{
	struct rlimit lim;

	if (getrlimit(RLIMIT_NOFILE, &lim))
		return;
	lim.rlim_cur = lim.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &lim))
		log_warn("RLIMIT_NOFILE: %s", strerror(errno));
}

static int check_ktls(struct supervisor *s)
{
	ktls_probe(&s->ktls);
	if (s->cfg->engine == ENGINE_USER || !s->ktls.error)
		return 0;
	if (s->cfg->engine == ENGINE_KTLS) {
		log_error("dataplane.engine = ktls, but this kernel has no kernel TLS: %s; "
			  "`modprobe tls`, or set dataplane.engine = auto",
			  strerror(s->ktls.error));
		return -ENOTSUP;
	}
	log_warn("this kernel has no kernel TLS (%s): bytes are relayed in user space",
		 strerror(s->ktls.error));
	return 0;
}

_Static_assert((int)STEERING_CPU == (int)STEER_BY_CPU && (int)STEERING_HASH == (int)STEER_BY_HASH &&
		       (int)STEERING_LOAD == (int)STEER_BY_LOAD,
	       "dataplane.steering and enum steer_mode are not the same");

/* BPF is a help, not a need: without it plain sockets do. */
static void open_bpf(struct supervisor *s)
{
	const struct config *cfg = s->cfg;
	scoped_lookup_plan *plan = NULL;
	const char *name;

	if (!cfg->bpf_dir || bpf_dir_make(cfg->bpf_dir))
		return;
	name = strrchr(cfg->bpf_dir, '/');
	name = name ? name + 1 : cfg->bpf_dir;
	if (count_open(cfg->bpf_dir, name, MAX_FLOWS, &s->count))
		log_warn("flows are not counted by BPF");
	if (lookup_plan_new(cfg, &plan) ||
	    steer_open(cfg->bpf_dir, cfg->n_bindings, cfg->workers, (enum steer_mode)cfg->steering,
		       plan, &s->steer))
		log_warn("connections are not steered by BPF: the kernel chooses the worker");
	bpf_dir_remove(cfg->bpf_dir); /* if nothing is pinned there */
}

/* Says which vserver's address it is. */
static int not_bound(const struct cfg_binding *b)
{
	int err = errno;

	log_error("vserver.%s.listen: %s", b->vserver->name, strerror(err));
	return -err;
}

/* listen() is left to the caller; share: with the other workers' sockets. */
static int bind_socket(const struct cfg_binding *b, const struct cfg_address *address, bool share)
{
	int one = 1, family = address->ss.ss_family;
	bool ipv6 = family == AF_INET6;
	scoped_fd fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
	    (share && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one))) ||
	    (ipv6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one))) ||
	    (b->looked_up && setsockopt(fd, ipv6 ? IPPROTO_IPV6 : IPPROTO_IP,
					ipv6 ? IPV6_FREEBIND : IP_FREEBIND, &one, sizeof(one))) ||
	    bind(fd, (const struct sockaddr *)&address->ss, address->len))
		return not_bound(b);
	return TAKE_FD(fd);
}

/* One for each worker, at the same address and port. */
static int listen_on(const struct cfg_binding *b, int *fds, unsigned workers)
{
	struct cfg_address address = b->address;

	for (unsigned w = 0; w < workers; w++) {
		fds[w] = bind_socket(b, &address, true);
		if (fds[w] < 0)
			return fds[w];
		/* The kernel may have chosen the port. */
		if (listen(fds[w], BACKLOG) ||
		    getsockname(fds[w], (struct sockaddr *)&address.ss, &address.len))
			return not_bound(b);
	}
	return 0;
}

/*
 * SO_REUSEPORT lets a second daemon of the same user take a share of our
 * connections in silence. A bind without it finds out.
 */
static int check_addresses(const struct config *cfg)
{
	for (unsigned i = 0; i < cfg->n_bindings; i++) {
		const struct cfg_binding *b = &cfg->bindings[i];
		scoped_fd fd = b->looked_up ? -1 : bind_socket(b, &b->address, false);

		if (fd < 0 && !b->looked_up)
			return fd;
	}
	return 0;
}

/* n descriptors that are not open yet; NULL: out of memory */
static int *no_descriptors(size_t n)
{
	int *fds = calloc(n, sizeof(*fds));

	for (size_t i = 0; fds && i < n; i++)
		fds[i] = -1;
	return fds;
}

/* The first vserver that needs sk_lookup, or NULL. */
static const struct cfg_vserver *needs_lookup(const struct config *cfg)
{
	for (unsigned i = 0; i < cfg->n_bindings; i++) {
		if (cfg->bindings[i].looked_up)
			return cfg->bindings[i].vserver;
	}
	return NULL;
}

static int start_lookup(struct supervisor *s)
{
	const struct cfg_vserver *v = needs_lookup(s->cfg);

	if (!v || (s->steer && !steer_attach(s->steer)))
		return 0;
	log_error("%s:%u: vserver.%s.listen: a prefix or a range of ports needs BPF (sk_lookup), "
		  "which is %s; or name each address and port",
		  v->listen_where.file, v->listen_where.line, v->name,
		  s->cfg->bpf_dir ? "not to be had, see above" : "switched off by bpf.dir = off");
	return -ENOTSUP;
}

static int open_listeners(struct supervisor *s)
{
	const struct config *cfg = s->cfg;
	unsigned n = cfg->n_bindings;

	s->listeners = no_descriptors((size_t)cfg->workers * n);
	if (!s->listeners)
		return -ENOMEM;
	for (unsigned b = 0; b < n; b++) {
		const struct cfg_binding *binding = &cfg->bindings[b];
		int *fds = s->listeners + (size_t)b * cfg->workers;
		int ret = listen_on(binding, fds, cfg->workers);

		if (ret)
			return ret;
		if (s->steer && steer_add(s->steer, b, fds, cfg->workers))
			log_warn("vserver %s: not steered", binding->vserver->name);
	}
	return start_lookup(s);
}

static int open_signer_sockets(struct supervisor *s)
{
	unsigned n = s->cfg->workers;

	s->worker_ends = no_descriptors(n);
	s->signer_ends = no_descriptors(n);
	if (!s->worker_ends || !s->signer_ends)
		return -ENOMEM;
	for (unsigned i = 0; i < n; i++) {
		int pair[2];

		/* Both ends stay here: a restarted process finds the same socket, no worker
		 * notices. */
		if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair))
			return -errno;
		s->worker_ends[i] = pair[0];
		s->signer_ends[i] = pair[1];
	}
	return 0;
}

static int open_everything(struct supervisor *s)
{
	int stop[2], ret;

	raise_descriptor_limit();
	ret = check_ktls(s);
	if (ret)
		return ret;
	/* A daemon that runs already is noticed before anything of its own is touched. */
	s->control_fd = control_listen(s->cfg->control_socket);
	if (s->control_fd < 0)
		return s->control_fd;
	ret = check_addresses(s->cfg);
	if (ret)
		return ret;
	/* Sockets made from here on belong to the cgroup that is counted. */
	open_bpf(s);
	ret = open_listeners(s);
	if (!ret)
		ret = open_signer_sockets(s);
	if (ret)
		return ret;
	s->seen = replay_new();
	if (!s->seen)
		return -ENOMEM;
	if (pipe2(stop, O_CLOEXEC))
		return -errno;
	s->stop_read = stop[0];
	s->stop_write = stop[1];
	return 0;
}

/* ---- the children ---- */

/* In the child: the descriptors of the other process are not its business. */
static void close_ends(const int *ends, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		if (ends[i] >= 0)
			close(ends[i]);
	}
}

static int run_data(struct supervisor *s, int ready_fd)
{
	struct config *cfg = s->cfg;
	struct gate gate = {
		.cfg = cfg,
		.count = s->count,
		.load = steer_load(s->steer),
		.ktls = s->ktls,
		.n_workers = cfg->workers,
		.listeners = s->listeners,
		.signer_fds = s->worker_ends,
	};

	log_open("ktlsgated[data]", cfg->log_level);
	close_ends(s->signer_ends, cfg->workers);
	replay_free(TAKE_PTR(s->seen));
	if (config_load_keys(cfg, CFG_KEYS_SERVING, stderr) || gate_init(&gate) ||
	    sandbox_drop_privileges(cfg->user) || workers_start(&gate) || sandbox_data())
		return EXIT_FAILURE;
	workers_go(&gate);
	if (write(ready_fd, "", 1) != 1)
		return EXIT_FAILURE;
	close(ready_fd);
	control_run(&gate, s->control_fd, s->stop_read);
	workers_stop(&gate);
	gate_free(&gate);
	return EXIT_SUCCESS;
}

static int run_child(struct supervisor *s, enum child_kind kind, int ready_fd)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	/* ^C goes to the whole group, systemd's SIGTERM to the whole cgroup: the supervisor
	 * decides. */
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	close(s->stop_write);
	close(s->signal_fd);
	watchdog_close(&s->watchdog);
	if (kind == CHILD_DATA)
		return run_data(s, ready_fd);
	return signer_run(s->cfg, s->signer_ends, s->cfg->workers, ready_fd, s->stop_read, s->seen);
}

/* Starts a child and waits until it says that it is ready. */
static int start_child(struct supervisor *s, enum child_kind kind)
{
	struct pollfd p = {.events = POLLIN};
	int ready[2];
	pid_t pid;
	char byte;

	if (pipe2(ready, O_CLOEXEC))
		return -errno;
	fflush(NULL);
	pid = fork();
	if (pid < 0) {
		close(ready[0]);
		close(ready[1]);
		return -errno;
	}
	if (!pid) {
		int status;

		close(ready[0]);
		status = run_child(s, kind, ready[1]);
		config_free(s->cfg);
		fflush(NULL);
		exit(status);
	}
	close(ready[1]);
	s->children[kind] = pid;
	p.fd = ready[0];
	while (poll(&p, 1, START_TIMEOUT_MS) < 0 && errno == EINTR)
		;
	if (!(p.revents & POLLIN) || read(ready[0], &byte, 1) != 1) {
		close(ready[0]);
		log_error("%s (pid %d) did not start", child_names[kind], pid);
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		s->children[kind] = 0;
		return -ECHILD;
	}
	close(ready[0]);
	return 0;
}

/* ---- watching ---- */

static enum child_kind kind_of(const struct supervisor *s, pid_t pid)
{
	int kind = 0;

	while (kind < CHILDREN && s->children[kind] != pid)
		kind++;
	return (enum child_kind)kind;
}

static void describe(int status, char *buf, size_t len)
{
	if (WIFSIGNALED(status))
		snprintf(buf, len, "killed by signal %d (%s)", WTERMSIG(status),
			 strsignal(WTERMSIG(status)));
	else
		snprintf(buf, len, "exit status %d", WEXITSTATUS(status));
}

static void reap(struct supervisor *s)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		enum child_kind kind = kind_of(s, pid);
		char how[64];

		if (kind == CHILDREN)
			continue;
		describe(status, how, sizeof(how));
		log_error("%s (pid %d) died: %s; starting it again", child_names[kind], pid, how);
		notify_send("STATUS=%s died: %s; starting it again", child_names[kind], how);
		s->children[kind] = 0;
	}
}

static const char *engine_name(const struct supervisor *s)
{
	return s->cfg->engine == ENGINE_USER || s->ktls.error ? "user" : "ktls";
}

static bool all_alive(const struct supervisor *s)
{
	for (int kind = 0; kind < CHILDREN; kind++) {
		if (!s->children[kind])
			return false;
	}
	return true;
}

/* The state in one line, for `systemctl status`. */
static void tell_state(const struct supervisor *s, const char *also)
{
	const struct config *cfg = s->cfg;

	notify_send("%sSTATUS=%u vserver%s, %u worker%s, engine %s", also, cfg->n_vservers,
		    cfg->n_vservers == 1 ? "" : "s", cfg->workers, cfg->workers == 1 ? "" : "s",
		    engine_name(s));
}

static void start_missing(struct supervisor *s)
{
	for (int kind = 0; kind < CHILDREN; kind++) {
		if (!s->children[kind])
			(void)!start_child(s, (enum child_kind)kind);
	}
	if (all_alive(s))
		tell_state(s, "");
}

static int open_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGCHLD);
	if (sigprocmask(SIG_BLOCK, &set, NULL))
		return -errno;
	return signalfd(-1, &set, SFD_CLOEXEC);
}

/* What a signal asks for. True: to end. */
static bool obey(struct supervisor *s, unsigned signal_number)
{
	switch (signal_number) {
	case SIGHUP:
		log_warn("SIGHUP ignored: a new configuration takes a restart");
		return false;
	case SIGCHLD:
		reap(s);
		return false;
	default:
		log_info("stopping: signal %u", signal_number);
		return true;
	}
}

/* Milliseconds until the watchdog or, if a child is missing, pause_end; -1: for ever. */
static int patience(const struct supervisor *s, uint64_t pause_end)
{
	int ms = watchdog_wait(&s->watchdog);
	uint64_t now = timer_clock();
	int pause = pause_end > now ? (int)(pause_end - now) : 0;

	if (all_alive(s) || (ms >= 0 && ms < pause))
		return ms;
	return pause;
}

/* What has died is started again after a pause, and again after each failure. */
static void watch(struct supervisor *s)
{
	struct signalfd_siginfo si;
	uint64_t pause_end = 0;

	watchdog_init(&s->watchdog, s->cfg->control_socket);
	for (;;) {
		struct pollfd p[] = {
			{.fd = s->signal_fd, .events = POLLIN},
			{.fd = s->watchdog.fd, .events = POLLIN},
		};

		if (poll(p, ARRAY_SIZE(p), patience(s, pause_end)) < 0)
			continue;
		if (p[0].revents) {
			if (read(s->signal_fd, &si, sizeof(si)) != sizeof(si) ||
			    obey(s, si.ssi_signo))
				return;
			pause_end = timer_clock() + RESTART_PAUSE_MS;
		} else if (!all_alive(s) && timer_clock() >= pause_end) {
			start_missing(s);
			pause_end = timer_clock() + RESTART_PAUSE_MS;
		}
		watchdog_turn(&s->watchdog, p[1].revents, all_alive(s));
	}
}

/* The data process gives its flows timeout.drain, each after its last word. */
static unsigned seconds_to_end(const struct supervisor *s, enum child_kind kind)
{
	return STOP_SECONDS + (kind == CHILD_DATA ? 2 * s->cfg->drain_timeout : 0);
}

/* The manager must not lose patience before we do. */
static void tell_end(const struct supervisor *s)
{
	unsigned seconds = 1;

	for (int kind = 0; kind < CHILDREN; kind++)
		seconds += seconds_to_end(s, (enum child_kind)kind);
	notify_send("STOPPING=1\nEXTEND_TIMEOUT_USEC=%llu\nSTATUS=ending all flows",
		    seconds * 1000000ull);
}

/* One that hangs must not keep us from ending. */
static void kill_late(const struct supervisor *s, enum child_kind kind)
{
	scoped_fd fd = (int)syscall(SYS_pidfd_open, s->children[kind], 0);
	struct pollfd p = {.fd = fd, .events = POLLIN};
	unsigned seconds = seconds_to_end(s, kind);

	if (fd < 0 || poll(&p, 1, (int)seconds * 1000) != 0)
		return;
	log_error("%s (pid %d) did not end within %u s: killed", child_names[kind],
		  s->children[kind], seconds);
	kill(s->children[kind], SIGKILL);
}

/* The data process first: it may still need the signer. Returns the exit status. */
static int stop_children(struct supervisor *s)
{
	int worst = EXIT_SUCCESS;

	if (s->stop_write >= 0)
		close(s->stop_write);
	s->stop_write = -1;
	for (int kind = CHILD_DATA; kind >= 0; kind--) {
		int status;

		if (s->children[kind] <= 0)
			continue;
		kill_late(s, (enum child_kind)kind);
		if (waitpid(s->children[kind], &status, 0) < 0)
			continue;
		if (!WIFEXITED(status) || WEXITSTATUS(status)) {
			char how[64];

			describe(status, how, sizeof(how));
			log_error("%s (pid %d) ended badly: %s", child_names[kind],
				  s->children[kind], how);
			worst = EXIT_FAILURE;
		}
	}
	return worst;
}

static void close_everything(struct supervisor *s)
{
	unsigned n = s->cfg->workers;

	watchdog_close(&s->watchdog);
	steer_close(s->steer);
	count_close(s->count);
	if (s->control_fd >= 0) {
		close(s->control_fd);
		unlink(s->cfg->control_socket);
	}
	if (s->stop_read >= 0)
		close(s->stop_read);
	if (s->signal_fd >= 0)
		close(s->signal_fd);
	if (s->listeners)
		close_ends(s->listeners, n * s->cfg->n_bindings);
	if (s->worker_ends && s->signer_ends) {
		close_ends(s->worker_ends, n);
		close_ends(s->signer_ends, n);
	}
	replay_free(s->seen);
	free(s->listeners);
	free(s->worker_ends);
	free(s->signer_ends);
}

int supervisor_run(struct config *cfg)
{
	struct supervisor s = {
		.cfg = cfg,
		.control_fd = -1,
		.stop_read = -1,
		.stop_write = -1,
		.signal_fd = -1,
		.watchdog.fd = -1,
	};
	int status = EXIT_FAILURE;

	/* The log's reader may go away; the daemon stays. */
	signal(SIGPIPE, SIG_IGN);
	s.signal_fd = open_signals();
	if (s.signal_fd < 0 || open_everything(&s)) {
		close_everything(&s);
		return EXIT_FAILURE;
	}
	if (!start_child(&s, CHILD_SIGNER) && !start_child(&s, CHILD_DATA)) {
		log_info("ktlsgated: ready, version %s, %u vserver%s, %u worker%s, engine %s",
			 KTLSGATE_VERSION, cfg->n_vservers, cfg->n_vservers == 1 ? "" : "s",
			 cfg->workers, cfg->workers == 1 ? "" : "s", engine_name(&s));
		tell_state(&s, "READY=1\n");
		watch(&s);
		tell_end(&s);
		status = EXIT_SUCCESS;
	}
	if (stop_children(&s))
		status = EXIT_FAILURE;
	close_everything(&s);
	return status;
}
