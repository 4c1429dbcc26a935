// SPDX-License-Identifier: Apache-2.0
/*
 * What all workers of the data process share, made before they start; and what a worker may log.
 * Knows no loop.
 */
#include "flow/gate.h"

#include <errno.h>
#include "flow/flowlog.h"
#include "base/log.h"
#include "flow/worker.h"

/* ---- what all workers share ---- */

/* Surely, and not only if a backend wants it. */
static bool needs_rsa(const struct config *cfg)
{
	for (unsigned i = 0; i < cfg->n_profiles; i++) {
		if (cfg->profiles[i]->dynamic_client_cert &&
		    cfg->profiles[i]->forge.key == FORGE_KEY_RSA2048)
			return true;
	}
	return false;
}

static bool reuses_sessions(const struct config *cfg)
{
	for (unsigned i = 0; i < cfg->n_profiles; i++) {
		if (cfg->profiles[i]->session_reuse)
			return true;
	}
	return false;
}

int gate_init(struct gate *gate)
{
	const struct config *cfg = gate->cfg;
	const struct limits_flows flows = {
		.own = gate->stats,
		.workers = gate->n_workers,
		.others = gate->flows,
		.slot = gate->slot,
	};
	int ret;

	gate->fronts = calloc(cfg->n_vservers, sizeof(*gate->fronts));
	gate->backs = calloc(cfg->n_services, sizeof(*gate->backs));
	gate->workers = calloc(gate->n_workers, sizeof(*gate->workers));
	gate->cache = forge_cache_new(cfg->forge_cache);
	gate->sessions = session_cache_new(reuses_sessions(cfg) ? cfg->session_cache : 0);
	gate->keys = keymaker_new(cfg->forge_rsa_keys, needs_rsa(cfg));
	gate->certreqs = certreq_memory_new(cfg);
	gate->limits = limits_new(cfg, &flows);
	gate->hellos = hellos_new();
	gate->services = services_new(cfg, gate->resolved);
	gate->tables = calloc(cfg->n_vservers, sizeof(*gate->tables));
	if (!gate->fronts || !gate->backs || !gate->workers || !gate->cache || !gate->sessions ||
	    !gate->keys || !gate->certreqs || !gate->limits || !gate->hellos || !gate->services ||
	    !gate->tables)
		return -ENOMEM;
	for (unsigned i = 0; i < cfg->n_vservers; i++) {
		ret = front_init(&gate->fronts[i], cfg->vservers[i], gate->fresh);
		if (!ret)
			ret = balance_tables_init(&gate->tables[i], cfg->vservers[i]);
		if (ret)
			return ret;
	}
	for (unsigned i = 0; i < cfg->n_services; i++) {
		ret = back_init(&gate->backs[i], cfg->services[i]);
		if (ret)
			return ret;
	}
	return flowlog_open(cfg->log_flows, &gate->stats[0].flow_log_lost, &gate->flowlog);
}

void gate_free(struct gate *gate)
{
	flowlog_close(gate->flowlog);
	for (unsigned i = 0; gate->fronts && i < gate->cfg->n_vservers; i++)
		front_free(&gate->fronts[i]);
	for (unsigned i = 0; gate->backs && i < gate->cfg->n_services; i++)
		back_free(&gate->backs[i]);
	for (unsigned i = 0; gate->tables && i < gate->cfg->n_vservers; i++)
		balance_tables_free(&gate->tables[i]);
	free(gate->tables);
	services_free(gate->services);
	free(gate->fronts);
	free(gate->backs);
	free(gate->workers);
	forge_cache_free(gate->cache);
	session_cache_free(gate->sessions);
	keymaker_free(gate->keys);
	certreq_memory_free(gate->certreqs);
	limits_free(gate->limits);
	hellos_free(gate->hellos);
}

/* The listeners' retries, the checks. */
unsigned worker_timers(const struct worker *w)
{
	const struct config *cfg = w->gate->cfg;

	/* Of listeners, checks (rounded up), of what the log left out, and of OCSP. */
	return cfg->n_bindings + cfg->n_services / w->gate->n_workers + 4;
}

/* ---- logging ---- */

#define LEFT_OUT_MS 1000

/* At the end of the second in which lines were left out. */
void worker_tell_left_out(struct timer *t)
{
	struct worker *w = container_of(t, struct worker, tell_left_out);

	for (unsigned kind = 0; kind <= REASON_COUNT; kind++) {
		struct log_window *win = &w->logged[kind];

		if (win->left_out)
			log_info("%u lines about flows left out by log.rate: %s", win->left_out,
				 kind < REASON_COUNT ? reasons[kind].name : "established");
		win->left_out = 0;
	}
}

bool worker_may_log(struct worker *w, unsigned kind)
{
	struct log_window *win = &w->logged[kind];
	uint64_t second = w->timers.now / 1000;

	if (win->second != second) {
		win->second = second;
		win->lines = 0;
	}
	if (win->lines++ < w->gate->cfg->log_rate || !w->gate->cfg->log_rate)
		return true;
	stat_inc(w->stats, log_lines_left_out);
	if (!w->tell_left_out.slot)
		timer_set(&w->timers, &w->tell_left_out, LEFT_OUT_MS);
	win->left_out++;
	return false;
}
