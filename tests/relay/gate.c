// SPDX-License-Identifier: Apache-2.0
/*
 * A gate whose flows begin at the hand-over, without handshakes in front of it. Everything after
 * the hand-over, to the close, is the daemon's own.
 */
#include "gate.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include "fault.h"
#include "flow/flow_internal.h"

#define RING_ENTRIES 1024

struct test_gate {
	struct gate gate;
	struct config cfg;
	struct cfg_profile profile;
	struct cfg_service service;
	void *services[1];
	struct cfg_vserver vserver;
	struct worker worker;
	struct stats stats;
	int pipe[2]; /* of pointers to gate_flow; NULL: stop */
	struct ring_op handed;
	struct gate_flow *next;
	uint32_t held; /* most bytes taken from a sender and not yet with its receiver's kernel */
};

/* ---- a flow begins ---- */

/* Which gate_flow a flow is of: found by its number, for a struct flow is all the daemon's. */
static struct gate_flow *owners[1 << 16];

static struct gate_flow **owner_of(const struct flow *f)
{
	return &owners[f->id % ARRAY_SIZE(owners)];
}

/* What is called meanwhile, memory above all, is this flow's. */
static void closing_step(struct timer *t)
{
	const struct flow *f = container_of(t, struct flow, timer);

	(void)fault_plan_of(f->client.fd >= 0 ? f->client.fd : f->backend.fd);
	flow_closing_tick(t);
}

static void told(struct flow *f, struct gate_flow *owner, enum reason reason)
{
	f->timer.expired = closing_step;
	fault_flow_closes(owner->number);
	atomic_store(&owner->reason, (int)reason);
}

static void tell_and_close(struct relay *r, enum reason reason, int client_alert, int backend_alert)
{
	struct gate_flow *owner = TAKE_PTR(*owner_of(container_of(r, struct flow, relay)));

	if (owner) {
		owner->ended_at = r->env->timers->now;
		owner->quiet = owner->ended_at - r->last_move;
	}
	flow_relay_ended(r, reason, client_alert, backend_alert);
	if (owner)
		told(container_of(r, struct flow, relay), owner, reason);
}

static int install_side(const struct engine *engine, struct side *s, const struct gate_side *from)
{
	const struct flow_keys keys = {.rx = from->rx, .tx = from->tx};

	memcpy(s->secrets.rx, from->rx_secret, sizeof(s->secrets.rx));
	memcpy(s->secrets.tx, from->tx_secret, sizeof(s->secrets.tx));
	s->secrets.len = from->secret_len;
	return flow_install(engine, s, &keys);
}

/* As flow_accept() does. */
static void refuse(struct gate_flow *from)
{
	close(from->side[SIDE_CLIENT].fd);
	close(from->side[SIDE_BACKEND].fd);
	atomic_store(&from->reason, REASON_no_memory);
}

static void begin_flow(struct test_gate *g, struct gate_flow *from)
{
	struct worker *w = &g->worker;
	const struct engine *engine;
	struct flow *f;
	int fds[2], ret;

	/* This load pairs with the owner's store: not every checker sees the pipe's order. */
	if (atomic_load(&from->reason) >= 0)
		abort();
	fds[SIDE_CLIENT] = from->side[SIDE_CLIENT].fd;
	fds[SIDE_BACKEND] = from->side[SIDE_BACKEND].fd;
	fault_flow(from->number, fds, from->breaks);
	f = flow_new(w, &g->vserver, fds[SIDE_CLIENT]);
	if (!f) {
		refuse(from);
		return;
	}
	f->backend.fd = fds[SIDE_BACKEND];
	f->client.version = from->side[SIDE_CLIENT].rx.version;
	f->client.cipher = (uint8_t)from->side[SIDE_CLIENT].rx.cipher;
	f->backend.version = from->side[SIDE_BACKEND].rx.version;
	f->backend.cipher = (uint8_t)from->side[SIDE_BACKEND].rx.cipher;
	flow_socket_tune(f->client.fd, &g->cfg);
	flow_socket_tune(f->backend.fd, &g->cfg);
	f->client.ulp = f->backend.ulp = g->cfg.engine == ENGINE_KTLS;
	engine = flow_choose_engine(f);
	ret = engine == (g->cfg.engine == ENGINE_KTLS ? &engine_ktls : &engine_user) ? 0 : -ENOTSUP;
	if (!ret)
		ret = install_side(engine, &f->client, &from->side[SIDE_CLIENT]);
	if (!ret)
		ret = install_side(engine, &f->backend, &from->side[SIDE_BACKEND]);
	if (ret) {
		if (!fault_on())
			fprintf(stderr, "gate: the %s engine refuses: %s\n", engine->name,
				strerror(-ret));
		engine->release_side(&f->client);
		flow_fail(f, REASON_engine_failed, strerror(-ret));
		told(f, from, REASON_engine_failed);
		return;
	}
	*owner_of(f) = from;
	/* As start_relay() of flow_handover.c does, but without handshakes. */
	flow_handshake_free(f);
	f->stage = FLOW_STAGE_RELAY;
	stat_inc(w->stats, flows_relaying_active);
	f->relay.engine = engine;
	flow_side_poll(&f->client);
	flow_side_poll(&f->backend);
	relay_start(&f->relay, &w->env, engine, &f->client, &f->backend, tell_and_close);
}

/* ---- the loop, as worker.c's ---- */

static void read_next(struct test_gate *g)
{
	ring_read(g->worker.ring, &g->handed, g->pipe[0], &g->next, sizeof(g->next));
}

static void handed_over(struct ring_op *op, int res)
{
	struct test_gate *g = container_of(op, struct test_gate, handed);

	if (res != sizeof(g->next))
		abort();
	if (!g->next) {
		g->worker.stopping = true;
		return;
	}
	begin_flow(g, g->next);
	read_next(g);
}

static void measure_held(struct test_gate *g)
{
	const struct flow *f;

	LIST_FOREACH (f, &g->worker.flows, link) {
		const struct half *halves[2] = {&f->relay.from_client, &f->relay.from_backend};

		if (f->stage != FLOW_STAGE_RELAY)
			continue;
		for (int i = 0; i < 2; i++) {
			const struct half *h = halves[i];
			uint32_t held = h->in_flight + h->to->pending_len - h->to->pending_off;

			if (held > g->held)
				g->held = held;
		}
	}
}

static void *gate_main(void *arg)
{
	struct test_gate *g = arg;
	struct worker *w = &g->worker;

	if (ring_new(RING_ENTRIES, &w->ring))
		abort();
	w->timers.now = timer_clock();
	w->env.ring = w->ring;
	if (relay_env_init(&w->env))
		abort();
	g->handed.done = handed_over;
	read_next(g);
	while (!w->stopping || w->n_flows) {
		bool more = relay_run_ready(&w->env);

		if (ring_wait(w->ring, more ? 0 : timers_next(&w->timers)))
			abort();
		w->timers.now = timer_clock();
		ring_complete(w->ring);
		timers_run(&w->timers);
		measure_held(g);
	}
	ring_free(w->ring);
	relay_env_free(&w->env);
	free(w->timers.heap);
	return NULL;
}

/* ---- for the other thread ---- */

struct test_gate *test_gate_start(const struct gate_options *o, const struct ktls_caps *caps)
{
	struct test_gate *g = calloc(1, sizeof(*g));
	struct worker *w;

	if (!g || pipe2(g->pipe, O_CLOEXEC))
		abort();
	w = &g->worker;
	g->cfg.engine = o->ktls ? ENGINE_KTLS : ENGINE_USER;
	g->cfg.drain_timeout = o->drain_seconds;
	g->cfg.keepalive = 2;
	g->service.name = g->vserver.name = (char *)"test";
	g->service.profile = g->vserver.profile = &g->profile;
	g->services[0] = &g->service;
	g->vserver.services = (struct cfg_list){g->services, 1};
	g->gate.cfg = &g->cfg;
	g->gate.ktls = *caps;
	g->gate.tls_counters = offload_counters();
	g->gate.channel = -1;
	g->gate.workers = w;
	g->gate.n_workers = 1;
	w->gate = &g->gate;
	w->stats = &g->stats;
	w->env.timers = &w->timers;
	w->env.stats = w->stats;
	w->env.key_limit = o->key_limit;
	w->env.copy = o->copy;
	w->env.caps = &g->gate.ktls;
	LIST_INIT(&w->flows);
	if (pthread_create(&w->thread, NULL, gate_main, g))
		abort();
	return g;
}

void test_gate_hand_over(struct test_gate *g, struct gate_flow *flow)
{
	if (write(g->pipe[1], &flow, sizeof(flow)) != sizeof(flow))
		abort();
}

static unsigned left(const char *what, uint64_t n)
{
	if (n)
		printf("left behind: %" PRIu64 " %s\n", n, what);
	return n != 0;
}

unsigned test_gate_stop(struct test_gate *g)
{
	struct stats *s = g->worker.stats;
	struct timespec until;
	unsigned count;

	test_gate_hand_over(g, NULL);
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 2 * g->cfg.drain_timeout + 10;
	if (pthread_timedjoin_np(g->worker.thread, NULL, &until)) {
		printf("left behind: the gate, with %u flows that do not end\n", g->worker.n_flows);
		return 1;
	}
	count = left("flows", s->flows_active) + left("relays", s->flows_relaying_active) +
		left("pipes", s->pipes_active) +
		left("sides not drained in time", s->drain_timeouts);
	printf("reads copied %" PRIu64 "\n", (uint64_t)s->reads_copied);
	printf("held %u bytes for one receiver at most\n", g->held);
	close(g->pipe[0]);
	close(g->pipe[1]);
	if (g->gate.tls_counters >= 0)
		close(g->gate.tls_counters);
	free(g);
	return count;
}
