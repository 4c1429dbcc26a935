// SPDX-License-Identifier: Apache-2.0
/* A worker's loop, its listeners and its command queue. What a flow is, flow.c knows. */
#include "flow/worker.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/eventfd.h>
#include "flow/flow.h"
#include "flow/flowlog.h"
#include "base/log.h"
#include "base/provider.h"

#define RING_ENTRIES	1024
#define ACCEPT_RETRY_MS 100

/* ---- accepting ---- */

/* A socket that the next generation does not have must not take connections for nobody. */
static void close_retired(struct listener *l)
{
	if (l->op.armed || l->fd < 0)
		return;
	close(l->fd);
	l->fd = -1;
}

/* limit.when_full = queue */
static bool must_wait(const struct worker *w)
{
	struct limits *l = w->gate->limits;

	return w->gate->cfg->limit_when_full == WHEN_FULL_QUEUE &&
	       (limits_full(l) || limits_memory_full(l));
}

/* At the limit: what comes now waits in the backlogs until accept_again() finds room. */
static void pause_accepting(struct worker *w)
{
	bool first = false;

	for (unsigned b = 0; b < w->gate->cfg->n_bindings; b++) {
		first = first || w->listeners[b].op.armed;
		ring_cancel(w->ring, &w->listeners[b].op);
	}
	if (first)
		stat_inc(w->stats, accept_pauses);
}

static void accepted(struct ring_op *op, int res)
{
	struct listener *l = container_of(op, struct listener, op);
	struct worker *w = l->worker;

	if (res >= 0 && w->stopping) {
		close(res);
	} else if (res >= 0) {
		flow_accept(w, l->vserver, res);
		if (op->armed && must_wait(w))
			pause_accepting(w);
	} else if (res != -ECANCELED && res != -ECONNABORTED && res != -EINTR) {
		stat_inc(w->stats, accept_errors);
		log_warn("vserver %s: accept: %s", l->vserver->name, strerror(-res));
	}
	if (w->retired)
		close_retired(l);
	if (op->armed || w->retired)
		return;
	/* Out of descriptors or memory: the backlog keeps the connections for a moment. */
	if (res < 0 || must_wait(w))
		timer_set(&w->timers, &l->retry, ACCEPT_RETRY_MS);
	else
		ring_accept_multishot(w->ring, &l->op, l->fd);
}

static void accept_again(struct timer *t)
{
	struct listener *l = container_of(t, struct listener, retry);

	if (must_wait(l->worker))
		timer_set(&l->worker->timers, t, ACCEPT_RETRY_MS);
	else if (!l->op.armed && !l->worker->retired)
		ring_accept_multishot(l->worker->ring, &l->op, l->fd);
}

static int prepare_listeners(struct worker *w)
{
	const struct config *cfg = w->gate->cfg;

	w->listeners = calloc(cfg->n_bindings, sizeof(*w->listeners));
	if (!w->listeners || timers_reserve(&w->timers, worker_timers(w)))
		return -ENOMEM;
	for (unsigned b = 0; b < cfg->n_bindings; b++) {
		struct listener *l = &w->listeners[b];

		l->worker = w;
		l->vserver = cfg->bindings[b].vserver;
		l->fd = w->gate->listeners[b * cfg->workers + w->index];
		l->op.done = accepted;
		l->retry.expired = accept_again;
	}
	return 0;
}

static int prepare_balances(struct worker *w)
{
	const struct config *cfg = w->gate->cfg;
	int ret = 0;

	w->balances = calloc(cfg->n_vservers, sizeof(*w->balances));
	if (!w->balances)
		return -ENOMEM;
	for (unsigned v = 0; !ret && v < cfg->n_vservers; v++)
		ret = balance_init(&w->balances[v], cfg->vservers[v], &w->gate->tables[v],
				   w->gate->services);
	return ret;
}

static void free_balances(struct worker *w)
{
	for (unsigned v = 0; w->balances && v < w->gate->cfg->n_vservers; v++)
		balance_free(&w->balances[v]);
	free(w->balances);
}

static void wake(const struct worker *w)
{
	uint64_t one = 1;

	if (write(w->wake_fd, &one, sizeof(one)) < 0)
		log_warn("worker %u: eventfd: %s", w->index, strerror(errno));
}

/* ---- health checks ---- */

#define CHECK_STAGGER_MS 50

static int start_checks(struct worker *w)
{
	const struct gate *gate = w->gate;
	unsigned n = gate->cfg->n_services;

	w->checks = calloc(n / gate->n_workers + 1, sizeof(*w->checks));
	if (!w->checks)
		return -ENOMEM;
	/* Spread over a second: backends and we are spared a burst. */
	for (unsigned i = w->index; i < n; i += gate->n_workers)
		check_start(&w->checks[w->n_checks++], &gate->services[i], &gate->backs[i], w->ring,
			    &w->timers, i * CHECK_STAGGER_MS % 1000);
	return 0;
}

static bool checks_stopped(struct worker *w)
{
	bool all = true;

	for (unsigned i = 0; i < w->n_checks; i++)
		all = check_stop(&w->checks[i]) && all;
	return all;
}

void workers_suspect(const struct gate *gate, const struct service *s)
{
	wake(&gate->workers[s->cfg->index % gate->n_workers]);
}

static void check_suspects(struct worker *w)
{
	for (unsigned i = 0; i < w->n_checks && !w->stopping; i++)
		check_suspected(&w->checks[i]);
}

/* ---- commands from other threads ---- */

/* Those that are there now; what comes meanwhile has its turn when flows have had theirs. */
static void run_commands(struct worker *w)
{
	struct command *c = atomic_exchange(&w->commands, NULL), *next;

	for (; c; c = next) {
		next = c->next;
		c->run(w, c->arg);
		sem_post(&c->done); /* and *c is gone */
	}
}

static void woken(struct ring_op *op, int res)
{
	struct worker *w = container_of(op, struct worker, wake);

	if (res == -ECANCELED)
		return;
	run_commands(w);
	forger_woken(&w->forger);
	check_suspects(w);
	ring_read(w->ring, &w->wake, w->wake_fd, &w->wake_value, sizeof(w->wake_value));
}

void worker_call(struct worker *w, void (*run)(struct worker *, void *), void *arg)
{
	struct command c = {.run = run, .arg = arg};

	sem_init(&c.done, 0, 0);
	/* No lock that a worker could have to wait for. */
	c.next = atomic_load(&w->commands);
	while (!atomic_compare_exchange_weak(&w->commands, &c.next, &c))
		;
	wake(w);
	while (sem_wait(&c.done) && errno == EINTR)
		;
	sem_destroy(&c.done);
}

/* ---- the loop ---- */

static int forger_setup(struct worker *w)
{
	w->forger.cache = w->gate->cache;
	w->forger.keys = w->gate->keys;
	w->forger.stats = w->stats;
	w->forger.wake_fd = w->wake_fd;
	return forger_init(&w->forger, w->ring, w->gate->signer_fds[w->index],
			   w->gate->cfg->forge_queue);
}

static int worker_setup(struct worker *w)
{
	const struct config *cfg = w->gate->cfg;
	int ret = ring_new(RING_ENTRIES, &w->ring);

	if (ret)
		return ret;
	w->timers.now = timer_clock();
	w->env.ring = w->ring;
	w->env.timers = &w->timers;
	w->env.stats = w->stats;
	w->env.caps = &w->gate->ktls;
	w->env.copy = cfg->relay == RELAY_COPY;
	w->env.key_limit = (uint64_t)cfg->key_limit << 20;
	w->env.idle_timeout = cfg->idle_timeout * 1000ull;
	ret = relay_env_init(&w->env);
	responder_init(&w->responder, w->ring, &w->timers, w->stats);
	if (!ret)
		ret = forger_setup(w);
	if (!ret)
		ret = prepare_listeners(w);
	if (!ret)
		ret = prepare_balances(w);
	if (!ret)
		ret = start_checks(w);
	if (ret) {
		log_error("worker %u: %s", w->index, strerror(-ret));
		return ret;
	}
	w->tell_left_out.expired = worker_tell_left_out;
	w->wake.done = woken;
	ring_read(w->ring, &w->wake, w->wake_fd, &w->wake_value, sizeof(w->wake_value));
	return 0;
}

static void worker_loop(struct worker *w)
{
	while (!w->stopping || w->n_flows || !checks_stopped(w)) {
		bool more = relay_run_ready(&w->env);
		int ret;

		more = flows_begin(w) || more;
		ret = ring_wait(w->ring, more ? 0 : timers_next(&w->timers));

		if (ret) {
			log_error("worker %u: io_uring: %s", w->index, strerror(-ret));
			abort();
		}
		/* Before the completions: deadlines they set begin now, not when the wait began. */
		w->timers.now = timer_clock();
		ring_complete(w->ring);
		timers_run(&w->timers);
	}
	worker_tell_left_out(&w->tell_left_out);
	/* A caller that came last must not wait for ever. */
	run_commands(w);
}

/* First of all, so that what it works on is allocated near its CPU. */
static int pin(const struct worker *w)
{
	const struct cfg_cpus *cpus = &w->gate->cfg->cpus;
	cpu_set_t set;
	int err;

	if (!cpus->n)
		return 0;
	CPU_ZERO(&set);
	CPU_SET(cpus->list[w->index], &set);
	err = pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
	if (err)
		log_error("worker %u: cannot stay on CPU %u: %s", w->index, cpus->list[w->index],
			  strerror(err));
	return -err;
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;

	provider_use();
	/* The ring belongs to the thread that made it. */
	w->error = pin(w);
	if (!w->error)
		w->error = worker_setup(w);
	pthread_barrier_wait(&w->gate->set_up);
	pthread_barrier_wait(&w->gate->go);
	for (unsigned b = 0; b < w->gate->cfg->n_bindings; b++)
		ring_accept_multishot(w->ring, &w->listeners[b].op, w->listeners[b].fd);
	worker_loop(w);
	ring_free(w->ring);
	forger_free(&w->forger);
	responder_free(&w->responder);
	relay_env_free(&w->env);
	free(w->listeners);
	free_balances(w);
	free(w->checks);
	free(w->timers.heap);
	return NULL;
}

int workers_start(struct gate *gate)
{
	int error = 0;

	pthread_barrier_init(&gate->set_up, NULL, gate->n_workers + 1);
	pthread_barrier_init(&gate->go, NULL, gate->n_workers + 1);
	for (unsigned i = 0; i < gate->n_workers; i++) {
		struct worker *w = &gate->workers[i];
		int ret;

		w->index = i;
		w->gate = gate;
		w->stats = &gate->stats[i];
		TAILQ_INIT(&w->turns);
		TAILQ_INIT(&w->early);
		LIST_INIT(&w->flows);
		LIST_INIT(&w->cursors);
		w->wake_fd = eventfd(0, EFD_CLOEXEC);
		if (w->wake_fd < 0)
			return -errno;
		ret = pthread_create(&w->thread, NULL, worker_main, w);
		if (ret) {
			log_error("worker %u: %s", i, strerror(ret));
			return -ret;
		}
	}
	error = keymaker_start(gate->keys);
	if (!error)
		error = flowlog_start(gate->flowlog);
	pthread_barrier_wait(&gate->set_up);
	for (unsigned i = 0; i < gate->n_workers && !error; i++)
		error = gate->workers[i].error;
	return error;
}

void workers_go(struct gate *gate)
{
	pthread_barrier_wait(&gate->go);
}

/* ---- stopping ---- */

static void retire(struct worker *w, void *arg)
{
	(void)arg;
	if (w->retired)
		return;
	w->retired = true;
	for (unsigned b = 0; b < w->gate->cfg->n_bindings; b++) {
		timer_clear(&w->timers, &w->listeners[b].retry);
		ring_cancel(w->ring, &w->listeners[b].op);
		close_retired(&w->listeners[b]);
	}
}

void workers_retire(struct gate *gate)
{
	for (unsigned i = 0; i < gate->n_workers; i++)
		worker_call(&gate->workers[i], retire, NULL);
}

static void look(struct worker *w, void *arg)
{
	bool *accepting = arg;

	for (unsigned b = 0; b < w->gate->cfg->n_bindings; b++) {
		if (w->listeners[b].op.armed)
			*accepting = true;
	}
}

bool workers_accepting(const struct gate *gate)
{
	bool accepting = false;

	for (unsigned i = 0; !accepting && i < gate->n_workers; i++)
		worker_call(&gate->workers[i], look, &accepting);
	return accepting;
}

static void stop(struct worker *w, void *arg)
{
	retire(w, arg);
	w->stopping = true;
	flows_shutdown(w);
}

void workers_stop(struct gate *gate)
{
	for (unsigned i = 0; i < gate->n_workers; i++)
		worker_call(&gate->workers[i], stop, NULL);
	for (unsigned i = 0; i < gate->n_workers; i++)
		pthread_join(gate->workers[i].thread, NULL);
	/* Not before: they wake each other. */
	for (unsigned i = 0; i < gate->n_workers; i++)
		close(gate->workers[i].wake_fd);
}
