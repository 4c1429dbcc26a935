// SPDX-License-Identifier: Apache-2.0
/* Starts, watches, replaces and stops the other processes. Knows no TLS and no flow. */
#include "supervisor/supervisor.h"
#include "supervisor/reload.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include "steer/bpf_dir.h"
#include "base/log.h"
#include "steer/lookup.h"
#include "base/notify.h"
#include "supervisor/requests.h"
#include "base/sandbox.h"
#include "base/shared_memory.h"
#include "steer/steer.h"
#include "base/timer.h"

#define FLOWS_MS  100	/* how often limit.flows hears of retired generations' connections */
#define LOOK_MS	  1000	/* between two looks at the listening sockets, with a retired generation */
#define MAX_FLOWS 65536 /* entries of the BPF flow maps */

/* ---- what needs rights, once ---- */

static void raise_descriptor_limit(void)
{
	struct rlimit lim;

	if (getrlimit(RLIMIT_NOFILE, &lim))
		return;
	lim.rlim_cur = lim.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &lim))
		log_warn("RLIMIT_NOFILE: %s", strerror(errno));
}

int supervisor_check_ktls(const struct supervisor *s, const struct config *cfg, FILE *errors)
{
	const struct ktls_caps *caps = &s->shared.ktls;

	if (cfg->engine == ENGINE_USER)
		return 0;
	if (!caps->error) {
		if (!s->current && ktls_try_overlap().error == EBADMSG)
			log_warn("this kernel's TLS misreads a record header that came in TCP "
				 "segments that overlap: on a network that loses packets flows may "
				 "end with client_bad_record or backend_bad_record, or stall; a "
				 "newer kernel, or dataplane.engine = user");
		return 0;
	}
	if (cfg->engine == ENGINE_KTLS) {
		fprintf(errors,
			"dataplane.engine = ktls, but this kernel has no kernel TLS: %s; "
			"`modprobe tls`, or set dataplane.engine = auto\n",
			strerror(caps->error));
		return -ENOTSUP;
	}
	if (!s->current)
		log_warn("this kernel has no kernel TLS (%s): bytes are relayed in user space",
			 strerror(caps->error));
	return 0;
}

/* BPF is a help, not a need: without it plain sockets do. */
void supervisor_open_count(struct supervisor *s, const struct config *cfg)
{
	const char *name;

	if (!cfg->bpf_dir || bpf_dir_make(cfg->bpf_dir))
		return;
	s->bpf = true;
	name = strrchr(cfg->bpf_dir, '/');
	name = name ? name + 1 : cfg->bpf_dir;
	if (count_open(cfg->bpf_dir, name, MAX_FLOWS, &s->shared.count))
		log_warn("flows are not counted by BPF");
	bpf_dir_remove(cfg->bpf_dir); /* if nothing is pinned there */
}

/* Mapped here alone for writing. */
static int open_flow_counts(struct shared *sh)
{
	sh->flows_fd = shared_memory_new("ktlsgate-flows", sizeof(*sh->flows));
	if (sh->flows_fd < 0)
		return sh->flows_fd;
	sh->flows = shared_memory_map_writable(sh->flows_fd, sizeof(*sh->flows));
	if (!sh->flows)
		return -errno;
	return shared_memory_forbid_writers(sh->flows_fd);
}

int supervisor_open_once(struct supervisor *s, const struct config *cfg)
{
	int ret;

	raise_descriptor_limit();
	ktls_probe(&s->shared.ktls);
	/* A daemon that runs already is noticed before anything of its own is touched. */
	ret = control_open(&s->control, cfg->control_socket, cfg->control_mode, cfg->control_group);
	if (ret)
		return ret;
	s->listeners.workers = cfg->workers;
	s->shared.seen = replay_make();
	if (s->shared.seen < 0)
		return s->shared.seen;
	return open_flow_counts(&s->shared);
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

/* ---- watching ---- */

static void mend_listeners(struct supervisor *s, bool all)
{
	if (listeners_mend(&s->listeners, s->current->cfg, all))
		supervisor_add_sockets(s->shared.steer, s->current);
}

static void reap(struct supervisor *s)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		for (unsigned i = 0; i < GENERATIONS_MAX; i++) {
			struct generation *g = s->generations[i];

			if (!g || !generation_reap(g, &s->shared, pid, status))
				continue;
			if (g->channel < 0) {
				requests_lost(s, g);
				mend_listeners(s, true);
			}
			if (!generation_over(g))
				break;
			log_info("generation %u has ended: its last flow has", g->number);
			supervisor_drop(s, g);
			break;
		}
	}
}

static void start_missing(struct supervisor *s)
{
	for (unsigned i = 0; i < GENERATIONS_MAX; i++) {
		struct generation *g = s->generations[i];

		if (g && !generation_runs(g) && timer_clock() >= g->pause_end)
			(void)!generation_start(g, &s->shared);
	}
	if (supervisor_all_alive(s))
		supervisor_tell_state(s, "");
}

/* Nobody waits for an answer. anew: reads the files again, else only what they name. */
static void reload_and_forget(struct supervisor *s, bool anew)
{
	char *answer;

	supervisor_reload(s, anew ? NULL : "", NULL, 0, &answer);
	free(answer);
}

/* What a signal asks for. True: to end. */
static bool obey(struct supervisor *s, unsigned signal_number)
{
	switch (signal_number) {
	case SIGHUP:
		log_info("SIGHUP: reading %s again", s->path);
		reload_and_forget(s, true);
		return false;
	case SIGCHLD:
		reap(s);
		return false;
	default:
		log_info("stopping: signal %u", signal_number);
		return true;
	}
}

static int earlier(int a, int b)
{
	if (a < 0 || b < 0)
		return a < 0 ? b : a;
	return a < b ? a : b;
}

/* Its successor may be waiting for the end of its connections. */
static bool has_flows_to_tell(const struct supervisor *s, const struct generation *g)
{
	return g->retired && g->flows_most && s->current->cfg->limit_flows;
}

/* A retired data process has the sockets of the one that accepts. */
static void look_at_listeners(struct supervisor *s)
{
	uint64_t now = timer_clock();

	if (now < s->next_look)
		return;
	s->next_look = now + LOOK_MS;
	if (supervisor_newest_below(s, s->current->number))
		mend_listeners(s, false);
}

/* Milliseconds until something is due; -1: for ever. */
static int patience(const struct supervisor *s)
{
	int ms = earlier(watchdog_wait(&s->watchdog), control_wait(&s->control));
	uint64_t now = timer_clock();

	ms = earlier(ms, changes_wait(&s->changes));
	for (unsigned i = 0; i < GENERATIONS_MAX; i++) {
		const struct generation *g = s->generations[i];

		if (g && g->retired)
			ms = earlier(ms, LOOK_MS);
		if (g)
			ms = earlier(ms, generation_due(g));
		if (g && has_flows_to_tell(s, g))
			ms = earlier(ms, FLOWS_MS);
		if (g && !generation_runs(g))
			ms = earlier(ms, g->pause_end > now ? (int)(g->pause_end - now) : 0);
	}
	return ms;
}

static bool take_signal(struct supervisor *s)
{
	struct signalfd_siginfo si;

	return read(s->signal_fd, &si, sizeof(si)) != sizeof(si) || obey(s, si.ssi_signo);
}

/* What has died is started again after a pause, and again after each failure. */
static void watch(struct supervisor *s)
{
	struct pollfd p[2 + GENERATIONS_MAX + 1 + CONTROL_CLIENTS];

	watchdog_init(&s->watchdog);
	for (;;) {
		struct pollfd *channels = p + 2, *clients = channels + GENERATIONS_MAX;
		unsigned n;

		p[0] = (struct pollfd){.fd = s->signal_fd, .events = POLLIN};
		p[1] = (struct pollfd){.fd = s->watchdog.fd, .events = POLLIN};
		for (unsigned i = 0; i < GENERATIONS_MAX; i++)
			channels[i] = (struct pollfd){
				.fd = s->generations[i] ? s->generations[i]->channel : -1,
				.events = POLLIN};
		n = control_poll(&s->control, clients);
		if (poll(p, 2 + GENERATIONS_MAX + n, patience(s)) < 0)
			continue;
		for (unsigned i = 0; i < GENERATIONS_MAX; i++) {
			if (channels[i].revents & POLLIN)
				requests_outcome(s, s->generations[i]);
		}
		watchdog_turn(&s->watchdog, p[1].revents, supervisor_all_alive(s),
			      s->current->channel);
		control_turn(&s->control, clients, n);
		if (p[0].revents && take_signal(s))
			return;
		if (changes_turn(&s->changes))
			reload_and_forget(s, false);
		supervisor_tell_flows(s);
		look_at_listeners(s);
		for (unsigned i = 0; i < GENERATIONS_MAX; i++) {
			if (s->generations[i])
				generation_turn(s->generations[i]);
		}
		if (!supervisor_all_alive(s))
			start_missing(s);
	}
}

/* ---- ending ---- */

/* The manager must not lose patience before we do. */
static void tell_end(const struct supervisor *s)
{
	unsigned seconds = 1;

	for (unsigned i = 0; i < GENERATIONS_MAX; i++) {
		if (s->generations[i] && generation_patience(s->generations[i]) >= seconds)
			seconds = generation_patience(s->generations[i]) + 1;
	}
	notify_send("STOPPING=1\nEXTEND_TIMEOUT_USEC=%llu\nSTATUS=ending all flows",
		    seconds * 1000000ull);
}

/* All at once are told, then each is waited for. Returns the exit status. */
static int stop_all(struct supervisor *s)
{
	int status = EXIT_SUCCESS;

	for (unsigned i = 0; i < GENERATIONS_MAX; i++) {
		if (s->generations[i])
			generation_stop(s->generations[i]);
	}
	for (unsigned i = 0; i < GENERATIONS_MAX; i++) {
		if (!s->generations[i])
			continue;
		if (!generation_wait(s->generations[i]))
			status = EXIT_FAILURE;
		supervisor_drop(s, s->generations[i]);
	}
	return status;
}

static void close_everything(struct supervisor *s)
{
	changes_free(&s->changes);
	watchdog_close(&s->watchdog);
	listeners_keep(&s->listeners, NULL);
	lookup_close(s->shared.lookup);
	steer_close(s->shared.steer);
	count_close(s->shared.count);
	control_close(&s->control);
	if (s->signal_fd >= 0)
		close(s->signal_fd);
	if (s->shared.seen >= 0)
		close(s->shared.seen);
	shared_memory_unmap(s->shared.flows, sizeof(*s->shared.flows));
	if (s->shared.flows_fd >= 0)
		close(s->shared.flows_fd);
	config_texts_free(&s->texts);
}

int supervisor_run(const char *path)
{
	struct supervisor s = {
		.shared = {.seen = -1, .flows_fd = -1},
		.path = path,
		.control = {.fd = -1, .request = requests_take, .arg = &s},
		.signal_fd = -1,
		.watchdog.fd = -1,
	};
	int status = EXIT_FAILURE;

	/* The log's reader may go away; the daemon stays. */
	signal(SIGPIPE, SIG_IGN);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || sandbox_supervisor())
		return EXIT_FAILURE;
	s.signal_fd = open_signals();
	if (s.signal_fd >= 0 && !supervisor_start(&s)) {
		watch(&s);
		tell_end(&s);
		status = EXIT_SUCCESS;
	}
	if (stop_all(&s))
		status = EXIT_FAILURE;
	close_everything(&s);
	return status;
}
