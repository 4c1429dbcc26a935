// SPDX-License-Identifier: Apache-2.0
/* Requests about flows, counters and settings, answered in the data process; see answer.h. */
#include "data/answer.h"
#include "data/channel.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include "config/expiry.h"
#include "base/log.h"
#include "data/reply.h"
#include "steer/shield.h"

#define RETIRED_LOOK_MS 100  /* between two looks whether the last flow has ended */
#define RETIRE_MS	1000 /* accepts are cancelled long before */
#define NICE		10

/* ---- requests ---- */

/* Of all vservers. */
static void add_shield(const struct gate *gate, struct gauges *gauges)
{
	struct shield_stats stats = {0};

	for (unsigned i = 0; !shield_read(gate->shield_stats, i, &stats); i++) {
		gauges->shield_denied += stats.denied;
		gauges->shield_over_prefix_limit += stats.over_prefix_limit;
		gauges->shield_over_source_limit += stats.over_source_limit;
	}
}

static void write_stats(struct gate *gate, const struct message *m, bool metrics, FILE *out)
{
	struct stats_sums sums = m->others;
	struct gauges gauges = {
		.forge_cache_entries = forge_cache_entries(gate->cache),
		.backend_sessions_kept = session_cache_entries(gate->sessions),
		.forge_keys_ready = keymaker_ready(gate->keys),
		.memory_bytes = limits_memory_shown(gate->limits),
		.crl_next_update = expiry_first(gate->cfg),
		.workers = gate->n_workers,
		.generations = m->generations,
		.generation = gate->generation,
	};

	stats_add(&sums, gate->stats, gate->n_workers);
	add_shield(gate, &gauges);
	if (!metrics) {
		stats_write(&sums, &gauges, out);
		return;
	}
	stats_write_metrics(&sums, &gauges, out);
	services_write_metrics(gate->services, gate->cfg->n_services, timer_clock(), out);
	shield_write_metrics(gate->shield_stats, out);
}

struct kill {
	uint64_t id;
	bool found;
};

static void kill_flow(struct worker *w, void *arg)
{
	struct kill *k = arg;

	if (flow_kill(w, k->id))
		k->found = true;
}

/* Nothing written unless it is ours: another generation may have it. */
static enum outcome answer_kill(struct gate *gate, const char *text, FILE *out)
{
	char *end;
	struct kill k = {.id = strtoull(text, &end, 10)};

	for (unsigned i = 0; i < gate->n_workers && *text && !*end; i++)
		worker_call(&gate->workers[i], kill_flow, &k);
	if (!k.found)
		return OUTCOME_NONE;
	fputs("ok\n", out);
	return OUTCOME_DONE;
}

static void write_setting(const struct config *cfg, const char *key, FILE *out)
{
	fputs("ok\n", out);
	if (config_print(cfg, key, out))
		return;
	rewind(out);
	if (config_has(cfg, key))
		fprintf(out, "error %s is not set\n", key);
	else
		fprintf(out, "error unknown key \"%s\"\n", key);
}

/* Begins the answer about the service of this name; NULL: there is none, and that is the answer. */
static const struct cfg_service *begin_service(const struct gate *gate, const char *name, FILE *out)
{
	for (unsigned i = 0; i < gate->cfg->n_services; i++) {
		if (strcmp(gate->cfg->services[i]->name, name) != 0)
			continue;
		fputs("ok\n", out);
		return gate->cfg->services[i];
	}
	fprintf(out, "error there is no service \"%s\"\n", name);
	return NULL;
}

/* What the service's backend asked for last, when it asked for a certificate. */
static void write_request(struct gate *gate, const char *name, FILE *out)
{
	const struct cfg_service *service = begin_service(gate, name, out);

	if (service)
		certreq_write(gate->certreqs, service, timer_clock(), out);
}

static void drain(struct gate *gate, const char *name, bool draining, FILE *out)
{
	const struct cfg_service *service = begin_service(gate, name, out);

	if (service)
		service_drain(&gate->services[service->index], draining);
}

static void do_nothing(struct worker *w, void *arg)
{
	(void)w;
	(void)arg;
}

/* Returns when the loop of each worker has come round. */
static void ping(struct gate *gate)
{
	for (unsigned i = 0; i < gate->n_workers; i++)
		worker_call(&gate->workers[i], do_nothing, NULL);
}

/* *flows: they are to be listed behind what is written. */
static enum outcome answer(struct gate *gate, const struct message *m, FILE *out, bool *flows)
{
	const char *request = m->line;

	if (!strcmp(request, "stats")) {
		fputs("ok\n", out);
		write_stats(gate, m, false, out);
	} else if (!strcmp(request, "metrics")) {
		fputs("ok\n", out);
		write_stats(gate, m, true, out);
	} else if (!strcmp(request, "flows")) {
		if (m->first)
			fputs("ok\n", out);
		*flows = true;
		return OUTCOME_MORE;
	} else if (!strncmp(request, "kill ", 5)) {
		return answer_kill(gate, request + 5, out);
	} else if (!strcmp(request, "services")) {
		fputs("ok\n", out);
		services_print(gate->services, gate->cfg->n_services, timer_clock(), out);
	} else if (!strncmp(request, "services drain ", 15)) {
		drain(gate, request + 15, true, out);
	} else if (!strncmp(request, "services undrain ", 17)) {
		drain(gate, request + 17, false, out);
	} else if (!strcmp(request, "ping")) {
		ping(gate);
		fputs("ok\n", out);
	} else if (!strcmp(request, "config")) {
		fputs("ok\n", out);
		config_print(gate->cfg, NULL, out);
	} else if (!strcmp(request, "origins")) {
		fputs("ok\n", out);
		config_print_origins(gate->cfg, out);
	} else if (!strncmp(request, "requests ", 9)) {
		write_request(gate, request + 9, out);
	} else if (!strncmp(request, "config ", 7)) {
		write_setting(gate->cfg, request + 7, out);
	} else {
		return OUTCOME_NONE;
	}
	return OUTCOME_DONE;
}

static void reply_over(void *channel, uint32_t id, unsigned outcome)
{
	channel_tell_outcome(*(int *)channel, id, (enum outcome)outcome);
}

/* What is asked for is built in memory, but for flows: a slow reader must not hold up a worker. */
static void serve(struct gate *gate, struct replies *replies, const struct message *m, int *fd)
{
	enum outcome outcome;
	char *text = NULL;
	size_t len = 0;
	bool flows = false;
	FILE *out = open_memstream(&text, &len);

	if (!out) {
		reply_over(replies->arg, m->id, OUTCOME_DONE);
		return;
	}
	outcome = answer(gate, m, out, &flows);
	if (fclose(out)) {
		free(text);
		reply_over(replies->arg, m->id, OUTCOME_DONE);
		return;
	}
	replies_add(replies, TAKE_FD(*fd), m->id, outcome, text, len, flows);
}

/* Answers when the next connection is surely the next generation's. */
static void retire(struct gate *gate, int channel)
{
	workers_retire(gate);
	for (int ms = 0; ms < RETIRE_MS && workers_accepting(gate); ms++)
		(void)!poll(NULL, 0, 1);
	channel_tell_outcome(channel, RETIRED_ID, OUTCOME_DONE);
}

static void tell_flow(struct worker *w, void *arg)
{
	flow_records(w, arg);
}

static void tell_worker(struct gate *gate, struct offload_answer *answer)
{
	unsigned worker = flow_worker(answer->flow);

	if (worker < gate->n_workers)
		worker_call(&gate->workers[worker], tell_flow, answer);
}

static bool idle(const struct gate *gate)
{
	return !stats_flows(gate->stats, gate->n_workers) && !workers_accepting(gate);
}

/* The watchdog's question, whatever else there is to be done; -1: it asks no more. */
static void answer_watchdog(struct gate *gate, int *watch)
{
	char question;
	ssize_t n = recv(*watch, &question, 1, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n == 1) {
		ping(gate);
		n = send(*watch, &question, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
	}
	if (n == 1)
		return;
	close(*watch);
	*watch = -1;
}

/* What the main thread has to do with. */
struct answering {
	struct gate *gate;
	int channel, watch;
	bool retired, settled;
	struct expiry expiry; /* of the CRLs */
	struct replies replies;
};

/* False: the supervisor has gone. */
static bool obey(struct answering *a)
{
	struct message m;
	scoped_fd fd = -1;

	if (!channel_receive(a->channel, &m, &fd))
		return false;
	m.line[sizeof(m.line) - 1] = '\0';
	if (m.retire) {
		a->retired = true;
		retire(a->gate, a->channel);
	} else if (m.watch) {
		if (a->watch >= 0)
			close(a->watch);
		a->watch = TAKE_FD(fd);
	} else if (m.offload.flow) {
		tell_worker(a->gate, &m.offload);
	} else if (fd >= 0) {
		serve(a->gate, &a->replies, &m, &fd);
	}
	return true;
}

/* Of what poll(2) may wait; -1: for ever. */
static int earlier(int a, int b)
{
	return a < 0 || (b >= 0 && b < a) ? b : a;
}

/* Has the last handshake ended? Then the supervisor hears of it. Asked when retired. */
static bool settle(const struct answering *a)
{
	if (limits_handshakes(a->gate->limits) || workers_accepting(a->gate))
		return false;
	channel_tell_outcome(a->channel, SETTLED_ID, OUTCOME_DONE);
	return true;
}

/* The watchdog first, then one message, then a little of each answer. False: it is time to end. */
static bool turn(struct answering *a)
{
	struct pollfd p[2 + REPLIES] = {
		{.fd = replies_full(&a->replies) ? -1 : a->channel, .events = POLLIN},
		{.fd = a->watch, .events = POLLIN}};
	unsigned n = replies_poll(&a->replies, p + 2);
	int wait = replies_wait(&a->replies), ready;

	if (a->retired && (wait < 0 || wait > RETIRED_LOOK_MS))
		wait = RETIRED_LOOK_MS;
	if (!a->retired)
		wait = earlier(wait, expiry_wait(&a->expiry, a->gate->cfg));
	ready = poll(p, 2 + n, wait);
	if (ready < 0)
		return errno == EINTR;
	/* The CRLs of a retired configuration are nobody's concern. */
	if (!a->retired)
		expiry_turn(&a->expiry, a->gate->cfg);
	if (p[1].revents)
		answer_watchdog(a->gate, &a->watch);
	if (p[0].revents && !obey(a))
		return false;
	replies_turn(&a->replies, p + 2, n);
	if (a->retired && !a->settled)
		a->settled = settle(a);
	return ready || !a->retired || a->replies.n || !idle(a->gate);
}

int answer_yield(void)
{
	/* Of this thread only: on Linux each has its own. */
	if (!setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0) + NICE))
		return 0;
	log_error("setpriority: %s", strerror(errno));
	return -errno;
}

void answer_run(struct gate *gate, int channel)
{
	struct answering a = {
		.gate = gate,
		.channel = channel,
		.watch = -1,
		.replies = {.gate = gate, .over = reply_over, .arg = &a.channel},
	};

	replies_init(&a.replies);
	while (turn(&a))
		;
	replies_free(&a.replies);
	if (a.watch >= 0)
		close(a.watch);
}
