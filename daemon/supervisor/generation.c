// SPDX-License-Identifier: Apache-2.0
/* Starts, retires and ends the two processes of a configuration; see generation.h. */
#include "supervisor/generation.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include "data/channel.h"
#include "base/log.h"
#include "steer/lookup.h"
#include "base/notify.h"
#include "base/shared_memory.h"
#include "tls/fresh.h"
#include "base/timer.h"

#define START_TIMEOUT_MS 20000
#define RESTART_PAUSE_MS 1000
#define STOP_SECONDS	 5
#define SETTLE_MS	 1000 /* what a clock of ours and one of a worker's may differ */

static const char *const child_names[GENERATION_ROLES] = {"signer", "resolver", "data process"};

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

/* One of its ends was: nothing makes it whole again. */
static bool is_shut_down(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLRDHUP};

	return poll(&p, 1, 0) != 0;
}

/* Options that a data process can set on its end, as the signer's has them. */
static void reset_signer_socket(int fd, int untouched)
{
	struct timeval for_ever = {0};
	int size = 0;
	socklen_t len = sizeof(size);

	(void)fcntl(fd, F_SETFL, O_NONBLOCK);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &for_ever, sizeof(for_ever));
	if (getsockopt(untouched, SOL_SOCKET, SO_SNDBUF, &size, &len))
		return;
	size /= 2; /* the kernel tells, and keeps, twice of what it is given */
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
}

/* False: they are of no use any more. */
static bool mend_signer_sockets(struct generation *g)
{
	for (unsigned i = 0; i < g->cfg->workers; i++) {
		if (is_shut_down(g->worker_ends[i]) || is_shut_down(g->signer_ends[i]))
			return false;
		reset_signer_socket(g->worker_ends[i], g->signer_ends[i]);
	}
	return true;
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

static int open_fresh(struct generation *g)
{
	g->fresh_write = fresh_new(g->cfg->n_vservers);
	if (g->fresh_write < 0)
		return g->fresh_write;
	g->fresh_read = shared_memory_read_only(g->fresh_write);
	return g->fresh_read < 0 ? g->fresh_read : 0;
}

struct generation *generation_new(struct config *cfg, int texts, unsigned number, unsigned slot)
{
	struct generation *g = calloc(1, sizeof(*g));

	if (!g) {
		config_free(cfg);
		close(texts);
		return NULL;
	}
	g->cfg = cfg;
	g->texts = texts;
	g->number = number;
	g->slot = slot;
	g->since = timer_clock();
	g->stop_read = g->stop_write = g->channel = -1;
	g->resolved_write = g->resolved_read = -1;
	g->fresh_write = g->fresh_read = -1;
	g->flows_most = UINT32_MAX;
	g->listeners = no_descriptors((size_t)cfg->workers * cfg->n_bindings);
	g->worker_ends = no_descriptors(cfg->workers);
	g->signer_ends = no_descriptors(cfg->workers);
	if (g->listeners && g->worker_ends && g->signer_ends && !open_signer_sockets(g) &&
	    !open_stop(g) && !open_resolved(g) && !open_fresh(g))
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
	close_fd(&g->texts);
	close_fd(&g->resolved_write);
	close_fd(&g->resolved_read);
	close_fd(&g->fresh_write);
	close_fd(&g->fresh_read);
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

/* ---- what its processes are told ---- */

/* What a child is given by the one who starts it; -1: this kind has none. */
struct given {
	int ready;    /* it writes a byte there */
	int channel;  /* see answer.h */
	int counters; /* memory for them */
};

static void tell_signer(const struct generation *g, const struct shared *sh, struct brief *b)
{
	b->fd[BRIEF_STOP] = g->stop_read;
	b->fd[BRIEF_SEEN] = sh->seen;
	b->fd[BRIEF_FRESH] = g->fresh_write;
	memcpy(b->list, g->signer_ends, b->n_sockets * sizeof(*b->list));
}

static void tell_resolver(const struct generation *g, struct brief *b)
{
	b->fd[BRIEF_STOP] = g->stop_read;
	b->fd[BRIEF_RESOLVED] = g->resolved_write;
}

static void tell_data(const struct generation *g, const struct shared *sh,
		      const struct given *given, struct brief *b)
{
	b->ktls = sh->ktls;
	b->fd[BRIEF_CHANNEL] = given->channel;
	b->fd[BRIEF_COUNTERS] = given->counters;
	b->fd[BRIEF_CONNECTIONS] = sh->flows_fd;
	b->fd[BRIEF_RESOLVED] = g->resolved_read;
	b->fd[BRIEF_FRESH] = g->fresh_read;
	b->fd[BRIEF_FLOWS] = count_flows_map(sh->count);
	b->fd[BRIEF_FLOW_INFO] = count_flow_info_map(sh->count);
	b->fd[BRIEF_SHIELD_STATS] = lookup_stats_map(sh->lookup);
	b->fd[BRIEF_STEER_LOAD] = sh->steer ? steer_map(sh->steer, MAP_STEER_LOAD) : -1;
	memcpy(b->list, g->worker_ends, b->n_sockets * sizeof(*b->list));
	memcpy(b->list + b->n_sockets, g->listeners, b->n_listeners * sizeof(*b->list));
}

static struct brief *brief_for(const struct generation *g, const struct shared *sh, enum role role,
			       const struct given *given)
{
	unsigned workers = g->cfg->workers;
	struct brief *b = brief_new(role, role == ROLE_RESOLVER ? 0 : workers,
				    role == ROLE_DATA ? workers * g->cfg->n_bindings : 0);

	if (!b)
		return NULL;
	b->generation = g->number;
	b->slot = g->slot;
	b->fd[BRIEF_TEXTS] = g->texts;
	b->fd[BRIEF_READY] = given->ready;
	if (role == ROLE_SIGNER)
		tell_signer(g, sh, b);
	else if (role == ROLE_RESOLVER)
		tell_resolver(g, b);
	else
		tell_data(g, sh, given, b);
	return b;
}

/* ---- starting ---- */

/* Until it says that it is ready. */
static int await_child(struct generation *g, enum role kind, int ready_fd)
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
static int open_given(struct generation *g, enum role kind, struct given *given, int *ready)
{
	int pair[2];

	if (pipe2(pair, O_CLOEXEC))
		return -errno;
	*ready = pair[0];
	given->ready = pair[1];
	if (kind != ROLE_DATA)
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

static int execute(struct generation *g, const struct shared *sh, enum role role,
		   const struct given *given)
{
	scoped_mem struct brief *b = brief_for(g, sh, role, given);
	pid_t pid = b ? brief_execute(b) : -ENOMEM;

	if (pid < 0) {
		log_error("%s cannot be started: %s", child_names[role], strerror(-pid));
		return pid;
	}
	g->children[role] = pid;
	return 0;
}

static int start_child(struct generation *g, struct shared *sh, enum role kind)
{
	struct given given = {-1, -1, -1};
	scoped_fd ready = -1;
	int err = open_given(g, kind, &given, &ready);

	if (!err)
		err = execute(g, sh, kind, &given);
	close_given(&given);
	if (!err)
		err = await_child(g, kind, ready);
	if (err && kind == ROLE_DATA) {
		close_fd(&g->channel);
		generation_forget_counted(g, sh);
	}
	return err;
}

/*
 * A retired data process that has died has no flows left to serve, its signer then neither; nor
 * when there is no handshake left.
 */
static bool should_run(const struct generation *g, enum role kind)
{
	if (kind == ROLE_RESOLVER && g->resolved_write < 0)
		return false;
	return !g->retired || (kind != ROLE_DATA && g->children[ROLE_DATA] && !g->settled);
}

int generation_start(struct generation *g, struct shared *sh)
{
	int err = 0;

	for (int kind = 0; !err && kind < GENERATION_ROLES; kind++) {
		if (!g->children[kind] && should_run(g, (enum role)kind))
			err = start_child(g, sh, (enum role)kind);
	}
	g->pause_end = timer_clock() + RESTART_PAUSE_MS;
	return err;
}

bool generation_runs(const struct generation *g)
{
	for (int kind = 0; kind < GENERATION_ROLES; kind++) {
		if (!g->children[kind] && should_run(g, (enum role)kind))
			return false;
	}
	return true;
}

/* ---- ending ---- */

/* From the last accept to the end of both handshakes, with all that may be tried again, ms. */
static uint64_t longest_handshake(const struct config *cfg)
{
	unsigned retries = 0;

	for (unsigned i = 0; i < cfg->n_vservers; i++) {
		if (cfg->vservers[i]->retries > retries)
			retries = cfg->vservers[i]->retries;
	}
	return 1000ull *
	       (cfg->handshake_timeout +
		(retries + 1ull) * (cfg->connect_timeout + cfg->backend_handshake_timeout));
}

void generation_retire(struct generation *g)
{
	g->retired = true;
	g->settle_by = timer_clock() + longest_handshake(g->cfg) + SETTLE_MS;
	if (g->channel >= 0 && answer_tell_retire(g->channel))
		log_error("generation %u cannot be told to retire: %s", g->number, strerror(errno));
}

void generation_settle(struct generation *g)
{
	/* Who still accepts has nothing to say about its end. */
	if (!g->retired || g->settled)
		return;
	g->settled = true;
	g->kill_at = timer_clock() + STOP_SECONDS * 1000;
	close_fd(&g->stop_write);
}

static void kill_hung(struct generation *g)
{
	static const enum role roles[] = {ROLE_SIGNER, ROLE_RESOLVER};

	g->kill_at = 0;
	for (unsigned i = 0; i < ARRAY_SIZE(roles); i++) {
		if (g->children[roles[i]] > 0)
			kill(g->children[roles[i]], SIGKILL);
	}
}

void generation_turn(struct generation *g)
{
	uint64_t now = timer_clock();

	if (g->retired && !g->settled && now >= g->settle_by)
		generation_settle(g);
	if (g->kill_at && now >= g->kill_at)
		kill_hung(g);
}

int generation_due(const struct generation *g)
{
	uint64_t now = timer_clock(), due = UINT64_MAX;

	if (g->retired && !g->settled)
		due = g->settle_by;
	else if (g->kill_at)
		due = g->kill_at;
	if (due == UINT64_MAX)
		return -1;
	return due > now ? (int)(due - now) : 0;
}

void generation_stop(struct generation *g)
{
	g->retired = true;
	close_fd(&g->channel);
	/* A signer is stopped after its data process, which may still need it. */
	if (!g->children[ROLE_DATA])
		close_fd(&g->stop_write);
}

/* The data process gives its flows timeout.drain, each after its last word. */
static unsigned seconds_to_end(const struct generation *g, enum role kind)
{
	return STOP_SECONDS + (kind == ROLE_DATA ? 2 * g->cfg->drain_timeout : 0);
}

unsigned generation_patience(const struct generation *g)
{
	return seconds_to_end(g, ROLE_SIGNER) + seconds_to_end(g, ROLE_DATA);
}

/* One that hangs must not keep us from ending. */
static void kill_late(const struct generation *g, enum role kind)
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

	for (int kind = ROLE_DATA; kind >= 0; kind--) {
		int status;

		if (kind < ROLE_DATA)
			close_fd(&g->stop_write);
		if (g->children[kind] <= 0)
			continue;
		kill_late(g, (enum role)kind);
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

/* For the next data process, whatever the last one did to what they share. */
static void mend_after_data(struct generation *g, const struct shared *sh)
{
	if (sh->count)
		count_forget_invented(sh->count);
	if (g->retired || mend_signer_sockets(g))
		return;
	log_error("the data process had shut down its sockets to the signer: both begin anew");
	close_all(g->worker_ends, g->cfg->workers);
	close_all(g->signer_ends, g->cfg->workers);
	if (open_signer_sockets(g))
		log_error("sockets to the signer: %s", strerror(errno));
	if (g->children[ROLE_SIGNER])
		kill(g->children[ROLE_SIGNER], SIGKILL);
}

static enum role kind_of(const struct generation *g, pid_t pid)
{
	int kind = 0;

	while (kind < GENERATION_ROLES && g->children[kind] != pid)
		kind++;
	return (enum role)kind;
}

static void tell_death(const struct generation *g, enum role kind, int status)
{
	const char *again = should_run(g, kind) ? "; starting it again" : "";
	char how[64];

	describe(status, how, sizeof(how));
	log_error("%s (pid %d) died: %s%s", child_names[kind], g->children[kind], how, again);
	notify_send("STATUS=%s died: %s%s", child_names[kind], how, again);
}

bool generation_reap(struct generation *g, struct shared *sh, pid_t pid, int status)
{
	enum role kind = kind_of(g, pid);
	bool expected = g->retired && !status && (kind == ROLE_DATA || g->stop_write < 0);

	if (kind == GENERATION_ROLES)
		return false;
	if (!expected)
		tell_death(g, kind, status);
	g->children[kind] = 0;
	g->pause_end = timer_clock() + RESTART_PAUSE_MS;
	if (kind == ROLE_DATA) {
		generation_forget_counted(g, sh);
		close_fd(&g->channel);
		mend_after_data(g, sh);
	}
	if (kind == ROLE_DATA && g->retired)
		close_fd(&g->stop_write);
	return true;
}

bool generation_over(const struct generation *g)
{
	return g->retired && !g->children[ROLE_SIGNER] && !g->children[ROLE_RESOLVER] &&
	       !g->children[ROLE_DATA];
}
