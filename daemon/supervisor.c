// SPDX-License-Identifier: Apache-2.0
/* Starts, watches, replaces and stops the other processes. Knows no TLS and no flow. */
#include "supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include "bpf_dir.h"
#include "log.h"
#include "lookup.h"
#include "notify.h"
#include "requests.h"
#include "sandbox.h"
#include "shared_memory.h"
#include "steer.h"

#define RETIRE_MS     2000
#define CHECK_SECONDS 60	  /* a configuration that takes longer to check is refused */
#define SAID_MAX      (16u << 20) /* bytes that a check may say; more is refused as well */
#define FLOWS_MS      100 /* how often limit.flows hears of retired generations' connections */
#define LOOK_MS	      1000 /* between two looks at the listening sockets, with a retired generation */
#define MAX_FLOWS     65536 /* entries of the BPF flow maps */

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

static int check_ktls(const struct supervisor *s, const struct config *cfg, FILE *errors)
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
static void open_count(struct supervisor *s, const struct config *cfg)
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

static int open_once(struct supervisor *s, const struct config *cfg)
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

/* ---- checking a configuration ---- */

/* What the process writes until it ends, or is late. */
static void pass_on(int fd, FILE *said)
{
	uint64_t end = timer_clock() + CHECK_SECONDS * 1000ull;
	size_t all = 0;
	char buf[4096];

	while (all < SAID_MAX) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		uint64_t now = timer_clock();
		ssize_t n;

		if (now >= end || poll(&p, 1, (int)(end - now)) <= 0)
			return;
		n = read(fd, buf, sizeof(buf));
		if (n <= 0)
			return;
		fwrite(buf, 1, (size_t)n, said);
		all += (size_t)n;
	}
}

static pid_t start_check(int sealed, int said_fd)
{
	scoped_mem struct brief *b = brief_new(ROLE_CHECK, 0, 0);

	if (!b)
		return -ENOMEM;
	b->fd[BRIEF_TEXTS] = sealed;
	b->fd[BRIEF_SAID] = said_fd;
	return brief_execute(b);
}

/*
 * In a process of its own, which sees the keys and all that is in the files, and then ends. What
 * it says is in *said, to be freed, whatever is returned.
 */
static int run_check(const char *path, int sealed, FILE *errors, char **said)
{
	int fds[2], status = -1;
	size_t len;
	FILE *out = open_memstream(said, &len);
	pid_t pid;

	if (!out)
		return -ENOMEM;
	if (pipe2(fds, O_CLOEXEC)) {
		fclose(out);
		return -errno;
	}
	pid = start_check(sealed, fds[1]);
	close(fds[1]);
	if (pid > 0)
		pass_on(fds[0], out);
	close(fds[0]);
	if (fclose(out))
		return -ENOMEM;
	if (pid < 0) {
		fprintf(errors, "%s: cannot be checked: %s\n", path, strerror(-pid));
		return -EAGAIN;
	}
	/* Done, unless it was late. */
	kill(pid, SIGKILL);
	if (waitpid(pid, &status, 0) < 0 || WIFSIGNALED(status)) {
		fprintf(errors, "%s: cannot be checked: killed by signal %d\n", path,
			WTERMSIG(status));
		return -EINVAL;
	}
	return status ? -EINVAL : 0;
}

/* If it is good, texts have the history that it makes. */
static int check_apart(const char *path, struct cfg_texts *texts, int sealed, FILE *errors)
{
	scoped_mem char *said = NULL;
	int err = run_check(path, sealed, errors, &said);

	if (err) {
		fputs(said ? said : "out of memory\n", errors);
		return err;
	}
	free(texts->crl_history);
	texts->crl_history = TAKE_PTR(said);
	return 0;
}

static int check_sealed(const struct supervisor *s, struct cfg_texts *texts, int sealed,
			FILE *errors, struct config **out)
{
	int err = check_apart(s->path, texts, sealed, errors);

	if (!err)
		err = config_load_names(texts, errors, out);
	if (!err && s->current)
		err = config_check_change(s->current->cfg, *out, errors);
	if (!err && s->current)
		err = check_ktls(s, *out, errors);
	return err;
}

/*
 * Checks everything that can be; what is returned differs from what runs in nothing fixed.
 * *sealed: what was checked.
 */
static int load_checked(const struct supervisor *s, struct cfg_texts *texts, FILE *errors,
			struct config **out, int *sealed)
{
	scoped_fd fd = config_texts_seal(texts);
	int err = 0;

	*out = NULL;
	*sealed = -1;
	if (fd < 0) {
		fprintf(errors, "%s: cannot be kept: %s\n", s->path, strerror(-fd));
		return fd;
	}
	err = check_sealed(s, texts, fd, errors, out);
	if (err) {
		config_free(*out);
		*out = NULL;
		return err;
	}
	*sealed = TAKE_FD(fd);
	return 0;
}

/* ---- generations ---- */

struct stats_sums supervisor_sums_without(const struct supervisor *s,
					  const struct generation *asked)
{
	struct stats_sums sums = s->shared.ended;

	for (unsigned i = 0; i < GENERATIONS_MAX; i++) {
		if (s->generations[i] && s->generations[i] != asked)
			generation_add_counted(s->generations[i], &sums);
	}
	return sums;
}

/* For limit.flows of whoever accepts. */
static void tell_flows(struct supervisor *s)
{
	for (unsigned i = 0; i < GENERATIONS_MAX; i++) {
		struct generation *g = s->generations[i];

		atomic_store_explicit(&s->shared.flows->by_slot[i],
				      g ? generation_flows_left(g) : 0, memory_order_relaxed);
	}
}

static int free_slot(const struct supervisor *s)
{
	for (unsigned i = 0; i < GENERATIONS_MAX; i++) {
		if (!s->generations[i])
			return (int)i;
	}
	return -1;
}

struct generation *supervisor_newest_below(const struct supervisor *s, unsigned limit)
{
	struct generation *newest = NULL;

	for (unsigned i = 0; i < GENERATIONS_MAX; i++) {
		struct generation *g = s->generations[i];

		if (g && g->number < limit && (!newest || g->number > newest->number))
			newest = g;
	}
	return newest;
}

static void drop(struct supervisor *s, struct generation *g)
{
	generation_forget_counted(g, &s->shared);
	s->generations[g->slot] = NULL;
	generation_free(g);
}

/*
 * The flows of the oldest have had their time: a new configuration, say a revocation,
 * has not. Returns a slot that is free now.
 */
static int make_room(struct supervisor *s)
{
	struct generation *oldest = s->current, *g;

	while ((g = supervisor_newest_below(s, oldest->number)))
		oldest = g;
	log_warn("%u configurations still have flows, the most there may be: the flows of the "
		 "oldest, generation %u, are ended",
		 GENERATIONS_MAX, oldest->number);
	generation_stop(oldest);
	(void)!generation_wait(oldest);
	drop(s, oldest);
	return free_slot(s);
}

/* Until g accepts nothing more, but for no longer than that can take. */
static void await_retirement(struct supervisor *s, struct generation *g)
{
	uint64_t end = timer_clock() + RETIRE_MS;

	while (!g->accepts_nothing && g->channel >= 0) {
		struct pollfd p = {.fd = g->channel, .events = POLLIN};
		uint64_t now = timer_clock();

		if (now >= end || poll(&p, 1, (int)(end - now)) <= 0 || !requests_outcome(s, g))
			return;
	}
}

_Static_assert((int)STEERING_CPU == (int)STEER_BY_CPU && (int)STEERING_HASH == (int)STEER_BY_HASH &&
		       (int)STEERING_LOAD == (int)STEER_BY_LOAD,
	       "dataplane.steering and enum steer_mode are not the same");

static void add_sockets(struct steer *steer, const struct generation *g)
{
	const struct config *cfg = g->cfg;

	for (unsigned i = 0; steer && i < cfg->n_bindings; i++) {
		const struct cfg_binding *b = &cfg->bindings[i];

		if (steer_add(steer, b->group, g->listeners + (size_t)i * cfg->workers,
			      cfg->workers))
			log_warn("vserver %s: not steered", b->vserver->name);
	}
}

/* Their numbers may have gaps. */
static unsigned count_groups(const struct config *cfg)
{
	unsigned n = 0;

	for (unsigned i = 0; i < cfg->n_bindings; i++) {
		if (cfg->bindings[i].group >= n)
			n = cfg->bindings[i].group + 1;
	}
	return n;
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

/* Why a configuration that needs it cannot be had. */
static int no_lookup(const struct config *cfg, const struct cfg_vserver *v, FILE *errors)
{
	fprintf(errors,
		"%s:%u: vserver.%s.listen: a prefix or a range of ports needs BPF (sk_lookup), "
		"which is %s; or name each address and port\n",
		v->listen_where.file, v->listen_where.line, v->name,
		cfg->bpf_dir ? "not to be had, see above" : "switched off by bpf.dir = off");
	return -ENOTSUP;
}

/* What could not be had at the start is not tried, and told, each time. */
static bool tries_bpf(const struct supervisor *s, const void *there)
{
	return s->bpf && (!s->current || there);
}

/* What chooses among g's sockets; *out NULL: the kernel alone. */
static void open_steer(const struct supervisor *s, const struct generation *g, struct steer **out)
{
	const struct config *cfg = g->cfg;

	*out = NULL;
	if (!tries_bpf(s, s->shared.steer))
		return;
	if (steer_open(count_groups(cfg), cfg->workers, &cfg->cpus, (enum steer_mode)cfg->steering,
		       s->shared.steer, out))
		log_warn("connections are not steered by BPF: the kernel chooses the worker");
	add_sockets(*out, g);
	bpf_dir_remove(cfg->bpf_dir); /* if nothing is pinned there */
}

/* Leads connections to cfg's sockets, in steer, from here on; and the shield is as cfg says. */
static int set_lookup(struct supervisor *s, const struct config *cfg, const struct steer *steer)
{
	scoped_lookup_plan *plan = NULL;
	int err = s->shared.lookup ? 0 : lookup_open(cfg->bpf_dir, &s->shared.lookup);

	if (!err)
		err = lookup_plan_new(cfg, &plan);
	return err ? err : lookup_set(s->shared.lookup, cfg, plan, steer);
}

static int open_lookup(struct supervisor *s, const struct config *cfg, const struct steer *steer,
		       FILE *errors)
{
	const struct cfg_vserver *v = needs_lookup(cfg);
	bool tried = steer && tries_bpf(s, s->shared.lookup);
	int err = tried ? set_lookup(s, cfg, steer) : -ENOTSUP;

	if (!err)
		return 0;
	if (tried && s->current) {
		fprintf(errors, "sk_lookup cannot be changed, see the log: %s\n", strerror(-err));
		return err;
	}
	lookup_close(TAKE_PTR(s->shared.lookup));
	if (cfg->shield_rate || cfg->shield_deny.n)
		log_warn("shield.*: not in force without BPF (sk_lookup)");
	return v ? no_lookup(cfg, v, errors) : 0;
}

/* From here on there is no way back. */
static void take_over(struct supervisor *s, struct generation *g, struct steer *steer)
{
	s->last_number = g->number;
	listeners_tune(&s->listeners, g->cfg);
	if (s->shared.steer && !steer)
		steer_close(TAKE_PTR(s->shared.steer));
	if (steer && steer_take_over(steer, s->shared.steer, g->cfg->bpf_dir))
		log_warn("the maps of steering are not pinned");
	s->shared.steer = steer;
	if (s->current) {
		tell_flows(s);
		generation_retire(s->current);
		await_retirement(s, s->current);
		tell_flows(s);
	}
	s->current = g;
	watchdog_close(&s->watchdog);
	listeners_keep(&s->listeners, g->cfg);
}

/* Listening and steered, its processes started: what can be undone. */
static int prepare(struct supervisor *s, struct generation *g, FILE *errors, struct steer **steer)
{
	struct steer *before = s->shared.steer;
	int err = listeners_open(&s->listeners, g->cfg, g->listeners, errors);

	*steer = NULL;
	if (err)
		return err;
	open_steer(s, g, steer);
	err = open_lookup(s, g->cfg, *steer, errors);
	if (err)
		return err;
	/* The data process tells its load where the new programs look. */
	s->shared.steer = *steer;
	err = generation_start(g, &s->shared);
	s->shared.steer = before;
	if (err)
		fprintf(errors, "the new processes did not start; their log lines say why\n");
	return err;
}

/* Takes cfg and what it is made of. On failure nothing is left of it, and what ran goes on. */
static int start_generation(struct supervisor *s, struct config *cfg, int sealed, FILE *errors)
{
	struct generation *g;
	struct steer *steer;
	int err, slot = free_slot(s);

	if (slot < 0)
		slot = make_room(s);
	g = generation_new(cfg, sealed, s->last_number + 1, (unsigned)slot);
	if (!g) {
		fprintf(errors, "out of memory or descriptors\n");
		return -ENOMEM;
	}
	s->generations[g->slot] = g;
	tell_flows(s);
	err = prepare(s, g, errors, &steer);
	if (!err) {
		take_over(s, g, steer);
		return 0;
	}
	/* As it was, before what the new program leads to is gone. */
	if (s->current)
		add_sockets(s->shared.steer, s->current);
	if (s->current && s->shared.lookup && s->shared.steer &&
	    set_lookup(s, s->current->cfg, s->shared.steer))
		log_error("connections for prefixes and the shield are those of the refused "
			  "configuration: reload a good one");
	steer_close(steer);
	generation_stop(g);
	(void)!generation_wait(g);
	drop(s, g);
	listeners_keep(&s->listeners, s->current ? s->current->cfg : NULL);
	return err;
}

/* ---- starting and reloading ---- */

static const char *plural(unsigned n)
{
	return n == 1 ? "" : "s";
}

static const char *limit_text(unsigned limit, char out[16])
{
	snprintf(out, 16, limit ? "%u" : "off", limit);
	return out;
}

/* Those that are derived from the machine above all: nobody has written them down. */
static void log_limits(const struct config *cfg)
{
	char flows[16], handshakes[16], memory[16];

	log_info("limits: limit.flows = %s, limit.handshakes = %s, limit.memory = %s (MiB)",
		 limit_text(cfg->limit_flows, flows), limit_text(cfg->limit_handshakes, handshakes),
		 limit_text(cfg->limit_memory, memory));
}

static const char *engine_name(const struct supervisor *s)
{
	return s->current->cfg->engine == ENGINE_USER || s->shared.ktls.error ? "user" : "ktls";
}

static bool all_alive(const struct supervisor *s)
{
	for (unsigned i = 0; i < GENERATIONS_MAX; i++) {
		if (s->generations[i] && !generation_runs(s->generations[i]))
			return false;
	}
	return true;
}

/* The state in one line, for `systemctl status`. */
static void tell_state(const struct supervisor *s, const char *also)
{
	const struct config *cfg = s->current->cfg;

	notify_send("%sSTATUS=%u vserver%s, %u worker%s, engine %s", also, cfg->n_vservers,
		    plural(cfg->n_vservers), cfg->workers, plural(cfg->workers), engine_name(s));
}

static void log_lines(const char *text)
{
	while (*text) {
		size_t len = strcspn(text, "\n");

		log_error("%.*s", (int)len, text);
		text += len + (text[len] == '\n');
	}
}

static void warn_of_root(const struct config *cfg)
{
	if (geteuid() == 0 && !cfg->user)
		log_warn("dataplane.user is not set: the processes that face the network and hold "
			 "the keys run as root; set it to an unprivileged user, e.g. ktlsgate");
}

/* Takes cfg and what it is made of. */
static int start_first(struct supervisor *s, struct config *cfg, int sealed, FILE *errors)
{
	int err = open_once(s, cfg);

	if (!err)
		err = check_ktls(s, cfg, errors);
	if (err) {
		config_free(cfg);
		close(sealed);
		return err;
	}
	/* Sockets made from here on belong to the cgroup that is counted. */
	open_count(s, cfg);
	return start_generation(s, cfg, sealed, errors);
}

static int start(struct supervisor *s)
{
	struct timespec since = changes_now();
	scoped_mem char *why = NULL;
	struct config *cfg;
	size_t len = 0;
	FILE *errors;
	int sealed, err = config_read(s->path, stderr, &s->texts);

	if (!err)
		err = load_checked(s, &s->texts, stderr, &cfg, &sealed);
	if (err)
		return err;
	log_open("ktlsgated", cfg->log_level);
	warn_of_root(cfg);
	errors = open_memstream(&why, &len);
	if (!errors) {
		config_free(cfg);
		close(sealed);
		return -ENOMEM;
	}
	err = start_first(s, cfg, sealed, errors);
	if (!fclose(errors))
		log_lines(why);
	if (err)
		return err;
	changes_watch(&s->changes, s->current->cfg, since);
	cfg = s->current->cfg;
	log_info("ktlsgated: ready, version %s, %u vserver%s, %u worker%s, engine %s",
		 KTLSGATE_VERSION, cfg->n_vservers, plural(cfg->n_vservers), cfg->workers,
		 plural(cfg->workers), engine_name(s));
	log_limits(cfg);
	tell_state(s, "READY=1\n");
	return 0;
}

/* Takes texts when they come into force. */
static int change(struct supervisor *s, struct cfg_texts *texts, FILE *errors)
{
	struct generation *before = s->current;
	struct timespec since = changes_now();
	struct config *cfg;
	int sealed, err = load_checked(s, texts, errors, &cfg, &sealed);

	if (!err)
		err = start_generation(s, cfg, sealed, errors);
	if (err)
		return err;
	changes_watch(&s->changes, s->current->cfg, since);
	config_texts_free(&s->texts);
	s->texts = *texts;
	*texts = (struct cfg_texts){0};
	log_open("ktlsgated", s->current->cfg->log_level);
	warn_of_root(cfg);
	log_info("reloaded: generation %u, %u vserver%s; generation %u goes on with %" PRIu64
		 " flow%s",
		 s->current->number, cfg->n_vservers, plural(cfg->n_vservers), before->number,
		 generation_flows(before), plural((unsigned)generation_flows(before)));
	log_limits(s->current->cfg);
	return 0;
}

/* The files as they are now, with the history of what runs. */
static int read_anew(const struct supervisor *s, FILE *errors, struct cfg_texts *out)
{
	int err = config_read(s->path, errors, out);

	if (err || !s->texts.crl_history)
		return err;
	out->crl_history = strdup(s->texts.crl_history);
	return out->crl_history ? 0 : -ENOMEM;
}

void supervisor_reload(struct supervisor *s, const char *name, const char *text, size_t len,
		       char **answer)
{
	struct cfg_texts texts = {0};
	char *why = NULL;
	size_t why_len = 0;
	FILE *errors = open_memstream(&why, &why_len);
	int err;

	*answer = NULL;
	if (!errors)
		return;
	notify_send("RELOADING=1\nMONOTONIC_USEC=%" PRIu64, timer_clock() * 1000);
	if (!name)
		err = read_anew(s, errors, &texts);
	else
		err = config_texts_copy(&s->texts, &texts);
	if (!err && text)
		err = config_texts_add(&texts, name, text, len);
	if (err == -ENOMEM)
		fprintf(errors, "out of memory\n");
	if (!err)
		err = change(s, &texts, errors);
	config_texts_free(&texts);
	tell_state(s, "READY=1\n");
	if (err)
		s->shared.ended.value[STATS_INDEX(reloads_refused)]++;
	if (!fclose(errors) && err) {
		log_error("configuration refused, nothing has changed:");
		log_lines(why);
	}
	if (asprintf(answer, err ? "error refused, nothing has changed:\n%s" : "ok\n%s", why) < 0)
		*answer = NULL;
	free(why);
}

/* ---- watching ---- */

static void mend_listeners(struct supervisor *s, bool all)
{
	if (listeners_mend(&s->listeners, s->current->cfg, all))
		add_sockets(s->shared.steer, s->current);
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
			drop(s, g);
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
	if (all_alive(s))
		tell_state(s, "");
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
		watchdog_turn(&s->watchdog, p[1].revents, all_alive(s), s->current->channel);
		control_turn(&s->control, clients, n);
		if (p[0].revents && take_signal(s))
			return;
		if (changes_turn(&s->changes))
			reload_and_forget(s, false);
		tell_flows(s);
		look_at_listeners(s);
		for (unsigned i = 0; i < GENERATIONS_MAX; i++) {
			if (s->generations[i])
				generation_turn(s->generations[i]);
		}
		if (!all_alive(s))
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
		drop(s, s->generations[i]);
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
	if (s.signal_fd >= 0 && !start(&s)) {
		watch(&s);
		tell_end(&s);
		status = EXIT_SUCCESS;
	}
	if (stop_all(&s))
		status = EXIT_FAILURE;
	close_everything(&s);
	return status;
}
