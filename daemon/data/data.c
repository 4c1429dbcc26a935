// SPDX-License-Identifier: Apache-2.0
/*
 * The life of the data process: it maps what it shares, loads the serving keys, starts its workers,
 * gives up its rights, and answers until it is to end.
 */
#include "data/data.h"

#include <errno.h>
#include <string.h>
#include <sys/prctl.h>
#include "data/answer.h"
#include "process/brief.h"
#include "base/log.h"
#include "flow/offload.h"
#include "base/provider.h"
#include "base/sandbox.h"
#include "base/shared_memory.h"
#include "steer/shield.h"
#include "steer/steer.h"
#include "flow/worker.h"

static bool has_unix_backends(const struct config *cfg)
{
	for (unsigned i = 0; i < cfg->n_services; i++) {
		if (cfg->services[i]->address.ss.ss_family == AF_UNIX)
			return true;
	}
	return false;
}

static bool has_maps(const struct brief *b)
{
	return b->fd[BRIEF_FLOWS] >= 0 || b->fd[BRIEF_SHIELD_STATS] >= 0;
}

/* Its descriptor is needed no more. */
static int close_mapped(int fd, const void *memory, const char *what)
{
	if (!memory)
		log_error("cannot map %s: %s", what, strerror(errno));
	close(fd);
	return memory ? 0 : -ENOMEM;
}

/* What is shared with other processes. */
static int map_shared(struct gate *gate, const struct brief *b)
{
	int err;

	gate->stats = shared_memory_map_writable(b->fd[BRIEF_COUNTERS],
						 gate->n_workers * sizeof(*gate->stats));
	err = close_mapped(b->fd[BRIEF_COUNTERS], gate->stats, "the counters");
	if (err)
		return err;
	gate->flows = shared_memory_map(b->fd[BRIEF_CONNECTIONS], sizeof(*gate->flows));
	err = close_mapped(b->fd[BRIEF_CONNECTIONS], gate->flows, "the numbers of connections");
	if (!err) {
		gate->fresh = fresh_map(b->fd[BRIEF_FRESH], gate->cfg->n_vservers);
		err = close_mapped(b->fd[BRIEF_FRESH], gate->fresh, "the fresh values");
	}
	if (!err && b->fd[BRIEF_RESOLVED] >= 0) {
		gate->resolved = resolved_map(b->fd[BRIEF_RESOLVED], gate->cfg->n_services);
		err = close_mapped(b->fd[BRIEF_RESOLVED], gate->resolved, "the addresses");
	}
	if (!err && b->fd[BRIEF_STEER_LOAD] >= 0) {
		gate->load = steer_load_map(b->fd[BRIEF_STEER_LOAD], gate->n_workers);
		err = close_mapped(b->fd[BRIEF_STEER_LOAD], gate->load, MAP_STEER_LOAD);
	}
	if (!err && b->fd[BRIEF_FLOWS] >= 0)
		err = count_use(b->fd[BRIEF_FLOWS], b->fd[BRIEF_FLOW_INFO], &gate->count);
	return err;
}

int data_run(const struct brief *b, struct config *cfg)
{
	struct gate gate = {
		.cfg = cfg,
		.ktls = b->ktls,
		.tls_counters = offload_counters(),
		.channel = b->fd[BRIEF_CHANNEL],
		.shield_stats = b->fd[BRIEF_SHIELD_STATS],
		.n_workers = cfg->workers,
		.generation = b->generation,
		.slot = b->slot,
		.signer_fds = b->list,
		.listeners = b->list + b->n_sockets,
	};

	if (map_shared(&gate, b))
		return EXIT_FAILURE;
	shield_prepare();
	if (config_load_keys(cfg, CFG_KEYS_SERVING, stderr))
		return EXIT_FAILURE;
	provider_use();
	if (gate_init(&gate) || sandbox_drop_privileges(cfg->user, has_unix_backends(cfg)) ||
	    workers_start(&gate) || answer_yield() || limits_check_memory(gate.limits) ||
	    sandbox_data(has_unix_backends(cfg), has_maps(b)))
		return EXIT_FAILURE;
	workers_go(&gate);
	if (write(b->fd[BRIEF_READY], "", 1) != 1)
		return EXIT_FAILURE;
	close(b->fd[BRIEF_READY]);
	answer_run(&gate, gate.channel);
	workers_stop(&gate);
	gate_free(&gate);
	count_close(gate.count);
	return EXIT_SUCCESS;
}
