// SPDX-License-Identifier: Apache-2.0
/* Starts, retires and ends the two processes of a configuration; see generation.h. */
#include "generation.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include "answer.h"
#include "log.h"
#include "notify.h"
#include "offload.h"
#include "provider.h"
#include "sandbox.h"
#include "shared_memory.h"
#include "signer.h"
#include "worker.h"

#define START_TIMEOUT_MS 20000
#define RESTART_PAUSE_MS 1000
#define STOP_SECONDS	 5

static const char *const child_names[CHILDREN] = {"signer", "resolver", "data process"};

/* ---- what it has ---- */

/* n descriptors that are not open yet; NULL: out of memory */
static int *no_descriptors(size_t n)
{
	int *fds = calloc(n, sizeof(*fds));

	for (size_t i = 0; fds && i < n; i++)
		fds[i] = -1;
	return fds;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void close_all(int *fds, unsigned n)
{
	for (unsigned i = 0; fds && i < n; i++)
		close_fd(&fds[i]);
}

/* Both ends stay here: a restarted process finds the same socket, no worker notices. */
static int open_signer_sockets(struct generation *g)
{
	for (unsigned i = 0; i < g->cfg->workers; i++) {
		int pair[2];

		if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair))
			return -errno;
		g->worker_ends[i] = pair[0];
		g->signer_ends[i] = pair[1];
	}
	return 0;
}

static int open_stop(struct generation *g)
{
	int stop[2];

	if (pipe2(stop, O_CLOEXEC))
		return -errno;
	g->stop_read = stop[0];
	g->stop_write = stop[1];
	return 0;
}

static int open_resolved(struct generation *g)
{
	if (!resolver_needed(g->cfg))
		return 0;
	g->resolved_write = resolved_new(g->cfg->n_services);
	if (g->resolved_write < 0)
		return g->resolved_write;
	g->resolved_read = shared_memory_read_only(g->resolved_write);
	return g->resolved_read < 0 ? g->resolved_read : 0;
}

struct generation *generation_new(struct config *cfg, unsigned number, unsigned slot)
{
	struct generation *g = calloc(1, sizeof(*g));

	if (!g) {
		config_free(cfg);
		return NULL;
	}
	g->cfg = cfg;
	g->number = number;
	g->slot = slot;
	g->since = timer_clock();
	g->stop_read = g->stop_write = g->channel = -1;
	g->resolved_write = g->resolved_read = -1;
	g->flows_most = UINT32_MAX;
	g->listeners = no_descriptors((size_t)cfg->workers * cfg->n_bindings);
	g->worker_ends = no_descriptors(cfg->workers);
	g->signer_ends = no_descriptors(cfg->workers);
	if (g->listeners && g->worker_ends && g->signer_ends && !open_signer_sockets(g) &&
	    !open_stop(g) && !open_resolved(g))
		return g;
	generation_free(g);
	return NULL;
}

static size_t counted_size(const struct generation *g)
{
	return g->cfg->workers * sizeof(*g->counted);
}

void generation_free(struct generation *g)
{
	if (!g)
		return;
	close_all(g->worker_ends, g->cfg->workers);
	close_all(g->signer_ends, g->cfg->workers);
	close_fd(&g->stop_read);
	close_fd(&g->stop_write);
	close_fd(&g->channel);
	close_fd(&g->resolved_write);
	close_fd(&g->resolved_read);
	shared_memory_unmap(g->counted, counted_size(g));
	free(g->listeners);
	free(g->worker_ends);
	free(g->signer_ends);
	config_free(g->cfg);
	free(g);
}

/* ---- what its data process counts ---- */

void generation_add_counted(const struct generation *g, struct stats_sums *sums)
{
	if (g->counted)
		stats_add(sums, g->counted, g->cfg->workers);
}

void generation_forget_counted(struct generation *g, struct shared *sh)
{
	if (g->counted)
		stats_add_ended(&sh->ended, g->counted, g->cfg->workers);
	shared_memory_unmap(g->counted, counted_size(g));
	g->counted = NULL;
}

uint64_t generation_flows(const struct generation *g)
{
	uint64_t flows = g->counted ? stats_flows(g->counted, g->cfg->workers) : 0;

	return flows < g->flows_most ? flows : g->flows_most;
}

uint64_t generation_flows_left(struct generation *g)
{
	uint64_t flows = generation_flows(g);

	if (g->retired)
		g->flows_most = flows;
	return flows;
}

/* New memory for each data process: what the last one had may be written still, by whoever has it.
 */
static int open_counters(struct generation *g)
{
	scoped_fd fd = shared_memory_new("ktlsgate-counters", counted_size(g));

	if (fd < 0)
		return fd;
	g->counted = shared_memory_map(fd, counted_size(g));
	return g->counted ? TAKE_FD(fd) : -errno;
}

/* ---- in the children ---- */

/* What a child is given by the one who starts it; -1: this kind has none. */
struct given {
	int ready;    /* it writes a byte there */
	int channel;  /* see answer.h */
	int counters; /* memory for them */
};

static bool has_unix_backends(const struct config *cfg)
{
	for (unsigned i = 0; i < cfg->n_services; i++) {
		if (cfg->services[i]->address.ss.ss_family == AF_UNIX)
			return true;
	}
	return false;
}

static int run_data(struct generation *g, struct shared *sh, const struct given *given)
{
	struct config *cfg = g->cfg;
	struct gate gate = {
		.cfg = cfg,
		.count = sh->count,
		.lookup = sh->lookup,
		.load = steer_load(sh->steer),
		.ktls = sh->ktls,
		.tls_counters = offload_counters(),
		.channel = given->channel,
		.n_workers = cfg->workers,
		.stats = shared_memory_map_writable(given->counters, counted_size(g)),
		.flows = shared_memory_map(sh->flows_fd, sizeof(*sh->flows)),
		.generation = g->number,
		.slot = g->slot,
		.listeners = g->listeners,
		.signer_fds = g->worker_ends,
	};

	log_open("ktlsgated[data]", cfg->log_level);
	close_all(g->signer_ends, cfg->workers);
	close_fd(&g->stop_read);
	close(given->counters);
	close_fd(&sh->flows_fd);
	if (g->resolved_read >= 0)
		gate.resolved = resolved_map(g->resolved_read, cfg->n_services);
	if (!gate.stats || !gate.flows || (g->resolved_read >= 0 && !gate.resolved)) {
		log_error("shared memory: %s", strerror(errno));
		return EXIT_FAILURE;
	}
	close_fd(&g->resolved_write);
	close_fd(&g->resolved_read);
	if (config_load_keys(cfg, CFG_KEYS_SERVING, stderr))
		return EXIT_FAILURE;
	provider_use();
	if (gate_init(&gate) || sandbox_drop_privileges(cfg->user) || workers_start(&gate) ||
	    limits_check_memory(gate.limits) || sandbox_data(has_unix_backends(cfg)))
		return EXIT_FAILURE;
	workers_go(&gate);
	if (write(given->ready, "", 1) != 1)
		return EXIT_FAILURE;
	close(given->ready);
	answer_run(&gate, given->channel);
	workers_stop(&gate);
	gate_free(&gate);
	return EXIT_SUCCESS;
}

/* Nothing of the supervisor's, and of this generation's nothing that another process has to do. */
static void leave(struct generation *g, struct shared *sh, enum child_kind kind)
{
	sh->leave(sh, g);
	close_fd(&g->stop_write);
	close_fd(&g->channel);
	shared_memory_unmap(TAKE_PTR(g->counted), counted_size(g));
	if (kind != CHILD_SIGNER)
		replay_free(TAKE_PTR(sh->seen));
}

static int run_child(struct generation *g, struct shared *sh, enum child_kind kind,
		     const struct given *given)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	/* ^C goes to the whole group, systemd's SIGTERM to the whole cgroup: the supervisor
	 * decides. */
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	leave(g, sh, kind);
	if (kind == CHILD_DATA)
		return run_data(g, sh, given);
	if (kind == CHILD_RESOLVER)
		return resolver_run(g->cfg, g->resolved_write, given->ready, g->stop_read);
	return signer_run(g->cfg, g->signer_ends, g->cfg->workers, given->ready, g->stop_read,
			  sh->seen);
}

_Noreturn static void become_child(struct generation *g, struct shared *sh, enum child_kind kind,
				   const struct given *given)
{
	int status = run_child(g, sh, kind, given);

	config_free(g->cfg);
	fflush(NULL);
	exit(status);
}

/* ---- starting ---- */

/* Until it says that it is ready. */
static int await_child(struct generation *g, enum child_kind kind, int ready_fd)
{
	struct pollfd p = {.fd = ready_fd, .events = POLLIN};
	pid_t pid = g->children[kind];
	char byte;

	while (poll(&p, 1, START_TIMEOUT_MS) < 0 && errno == EINTR)
		;
	if (p.revents & POLLIN && read(ready_fd, &byte, 1) == 1)
		return 0;
	log_error("%s (pid %d) did not start", child_names[kind], pid);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	g->children[kind] = 0;
	return -ECHILD;
}

/* One end of what a child is given stays here: *ready and g->channel. */
static int open_given(struct generation *g, enum child_kind kind, struct given *given, int *ready)
{
	int pair[2];

	if (pipe2(pair, O_CLOEXEC))
		return -errno;
	*ready = pair[0];
	given->ready = pair[1];
	if (kind != CHILD_DATA)
		return 0;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return -errno;
	g->channel = pair[0];
	given->channel = pair[1];
	given->counters = open_counters(g);
	return given->counters < 0 ? given->counters : 0;
}

static void close_given(struct given *given)
{
	close_fd(&given->ready);
	close_fd(&given->channel);
	close_fd(&given->counters);
}

static int fork_child(struct generation *g, struct shared *sh, enum child_kind kind,
		      const struct given *given, int ready)
{
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (!pid) {
		close(ready);
		become_child(g, sh, kind, given);
	}
	if (pid < 0)
		return -errno;
	g->children[kind] = pid;
	return 0;
}

static int start_child(struct generation *g, struct shared *sh, enum child_kind kind)
{
	struct given given = {-1, -1, -1};
	scoped_fd ready = -1;
	int err = open_given(g, kind, &given, &ready);

	if (!err)
		err = fork_child(g, sh, kind, &given, ready);
	close_given(&given);
	if (!err)
		err = await_child(g, kind, ready);
	if (err && kind == CHILD_DATA) {
		close_fd(&g->channel);
		generation_forget_counted(g, sh);
	}
	return err;
}

/* A retired data process that has died has no flows left to serve; its signer then neither. */
static bool should_run(const struct generation *g, enum child_kind kind)
{
	if (kind == CHILD_RESOLVER && g->resolved_write < 0)
		return false;
	return !g->retired || (kind != CHILD_DATA && g->children[CHILD_DATA]);
}

int generation_start(struct generation *g, struct shared *sh)
{
	int err = 0;

	for (int kind = 0; !err && kind < CHILDREN; kind++) {
		if (!g->children[kind] && should_run(g, (enum child_kind)kind))
			err = start_child(g, sh, (enum child_kind)kind);
	}
	g->pause_end = timer_clock() + RESTART_PAUSE_MS;
	return err;
}

bool generation_runs(const struct generation *g)
{
	for (int kind = 0; kind < CHILDREN; kind++) {
		if (!g->children[kind] && should_run(g, (enum child_kind)kind))
			return false;
	}
	return true;
}

/* ---- ending ---- */

void generation_retire(struct generation *g)
{
	g->retired = true;
	if (g->channel >= 0 && answer_tell_retire(g->channel))
		log_error("generation %u cannot be told to retire: %s", g->number, strerror(errno));
}

void generation_stop(struct generation *g)
{
	g->retired = true;
	close_fd(&g->channel);
	/* A signer is stopped after its data process, which may still need it. */
	if (!g->children[CHILD_DATA])
		close_fd(&g->stop_write);
}

/* The data process gives its flows timeout.drain, each after its last word. */
static unsigned seconds_to_end(const struct generation *g, enum child_kind kind)
{
	return STOP_SECONDS + (kind == CHILD_DATA ? 2 * g->cfg->drain_timeout : 0);
}

unsigned generation_patience(const struct generation *g)
{
	return seconds_to_end(g, CHILD_SIGNER) + seconds_to_end(g, CHILD_DATA);
}

/* One that hangs must not keep us from ending. */
static void kill_late(const struct generation *g, enum child_kind kind)
{
	scoped_fd fd = (int)syscall(SYS_pidfd_open, g->children[kind], 0);
	struct pollfd p = {.fd = fd, .events = POLLIN};
	unsigned seconds = seconds_to_end(g, kind);

	if (fd < 0 || poll(&p, 1, (int)seconds * 1000) != 0)
		return;
	log_error("%s (pid %d) did not end within %u s: killed", child_names[kind],
		  g->children[kind], seconds);
	kill(g->children[kind], SIGKILL);
}

static void describe(int status, char *buf, size_t len)
{
	if (WIFSIGNALED(status))
		snprintf(buf, len, "killed by signal %d (%s)", WTERMSIG(status),
			 strsignal(WTERMSIG(status)));
	else
		snprintf(buf, len, "exit status %d", WEXITSTATUS(status));
}

bool generation_wait(struct generation *g)
{
	bool well = true;

	for (int kind = CHILD_DATA; kind >= 0; kind--) {
		int status;

		if (kind < CHILD_DATA)
			close_fd(&g->stop_write);
		if (g->children[kind] <= 0)
			continue;
		kill_late(g, (enum child_kind)kind);
		if (waitpid(g->children[kind], &status, 0) >= 0 && status) {
			char how[64];

			describe(status, how, sizeof(how));
			log_error("%s (pid %d) ended badly: %s", child_names[kind],
				  g->children[kind], how);
			well = false;
		}
		g->children[kind] = 0;
	}
	return well;
}

static enum child_kind kind_of(const struct generation *g, pid_t pid)
{
	int kind = 0;

	while (kind < CHILDREN && g->children[kind] != pid)
		kind++;
	return (enum child_kind)kind;
}

static void tell_death(const struct generation *g, enum child_kind kind, int status)
{
	const char *again = should_run(g, kind) ? "; starting it again" : "";
	char how[64];

	describe(status, how, sizeof(how));
	log_error("%s (pid %d) died: %s%s", child_names[kind], g->children[kind], how, again);
	notify_send("STATUS=%s died: %s%s", child_names[kind], how, again);
}

bool generation_reap(struct generation *g, struct shared *sh, pid_t pid, int status)
{
	enum child_kind kind = kind_of(g, pid);
	bool expected = g->retired && !status && (kind == CHILD_DATA || g->stop_write < 0);

	if (kind == CHILDREN)
		return false;
	if (!expected)
		tell_death(g, kind, status);
	g->children[kind] = 0;
	g->pause_end = timer_clock() + RESTART_PAUSE_MS;
	if (kind == CHILD_DATA) {
		generation_forget_counted(g, sh);
		close_fd(&g->channel);
	}
	if (kind == CHILD_DATA && g->retired)
		close_fd(&g->stop_write);
	return true;
}

bool generation_over(const struct generation *g)
{
	return g->retired && !g->children[CHILD_SIGNER] && !g->children[CHILD_RESOLVER] &&
	       !g->children[CHILD_DATA];
}
