// SPDX-License-Identifier: Apache-2.0
/*
 * A configuration comes into force: it is checked by a process of its own, its sockets are opened,
 * its processes started, and the generation before it retires. Any failure leaves everything as it
 * was.
 */
#include "supervisor/reload.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include "steer/bpf_dir.h"
#include "base/log.h"
#include "steer/lookup.h"
#include "base/notify.h"
#include "supervisor/requests.h"
#include "steer/steer.h"
#include "supervisor/supervisor.h"
#include "base/timer.h"

#define RETIRE_MS     2000
#define CHECK_SECONDS 60	  /* a configuration that takes longer to check is refused */
#define SAID_MAX      (16u << 20) /* bytes that a check may say; more is refused as well */

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
		err = supervisor_check_ktls(s, *out, errors);
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
void supervisor_tell_flows(struct supervisor *s)
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

void supervisor_drop(struct supervisor *s, struct generation *g)
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
	supervisor_drop(s, oldest);
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

void supervisor_add_sockets(struct steer *steer, const struct generation *g)
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

/* What could not be had at the supervisor_start is not tried, and told, each time. */
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
	supervisor_add_sockets(*out, g);
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
		supervisor_tell_flows(s);
		generation_retire(s->current);
		await_retirement(s, s->current);
		supervisor_tell_flows(s);
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
	supervisor_tell_flows(s);
	err = prepare(s, g, errors, &steer);
	if (!err) {
		take_over(s, g, steer);
		return 0;
	}
	/* As it was, before what the new program leads to is gone. */
	if (s->current)
		supervisor_add_sockets(s->shared.steer, s->current);
	if (s->current && s->shared.lookup && s->shared.steer &&
	    set_lookup(s, s->current->cfg, s->shared.steer))
		log_error("connections for prefixes and the shield are those of the refused "
			  "configuration: reload a good one");
	steer_close(steer);
	generation_stop(g);
	(void)!generation_wait(g);
	supervisor_drop(s, g);
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

bool supervisor_all_alive(const struct supervisor *s)
{
	for (unsigned i = 0; i < GENERATIONS_MAX; i++) {
		if (s->generations[i] && !generation_runs(s->generations[i]))
			return false;
	}
	return true;
}

/* The state in one line, for `systemctl status`. */
void supervisor_tell_state(const struct supervisor *s, const char *also)
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
	int err = supervisor_open_once(s, cfg);

	if (!err)
		err = supervisor_check_ktls(s, cfg, errors);
	if (err) {
		config_free(cfg);
		close(sealed);
		return err;
	}
	/* Sockets made from here on belong to the cgroup that is counted. */
	supervisor_open_count(s, cfg);
	return start_generation(s, cfg, sealed, errors);
}

int supervisor_start(struct supervisor *s)
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
	supervisor_tell_state(s, "READY=1\n");
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
	supervisor_tell_state(s, "READY=1\n");
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
