// SPDX-License-Identifier: Apache-2.0
/* Loads and feeds bpf/lookup.bpf.c; see lookup.h. Does not know what a rule of the shield means. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include "steer/bpf_dir.h"
#include "steer/bpf_load.h"
#include "base/log.h"
#include "steer/lookup.h"
#include "lookup.skel.h"
#include "steer/shield.h"

#define STATS_MIN 64 /* places for vservers, so that most new configurations keep the counters */

typedef char vserver_name[STEER_TEXT];

struct lookup {
	char *bpf_dir;
	struct lookup_bpf *skel; /* in force; NULL: none yet */
	struct bpf_link *link;
	vserver_name *names; /* by place in shield_stats; "" behind the last */
	unsigned n_names;
	int stats; /* see lookup_stats_map(); -1: none */
};

/* ---- counters: a vserver of the same name keeps its place ---- */

static unsigned place_of(const vserver_name *names, unsigned n, const char *name)
{
	unsigned i = 0;

	while (i < n && names[i][0] && strncmp(names[i], name, STEER_TEXT - 1))
		i++;
	return i;
}

static bool add_names(vserver_name *names, unsigned n, const struct config *cfg)
{
	for (unsigned v = 0; v < cfg->n_vservers; v++) {
		unsigned i = place_of(names, n, cfg->vservers[v]->name);

		if (i == n)
			return false;
		snprintf(names[i], STEER_TEXT, "%s", cfg->vservers[v]->name);
	}
	return true;
}

/* The names with the new ones behind them, or, if there is no room, only the new ones. */
static vserver_name *new_names(const struct lookup *lookup, const struct config *cfg, unsigned *n,
			       bool *kept)
{
	vserver_name *names;

	*n = lookup->n_names ? lookup->n_names : STATS_MIN;
	names = calloc(*n, sizeof(*names));
	if (!names)
		return NULL;
	if (lookup->names)
		memcpy(names, lookup->names, *n * sizeof(*names));
	*kept = add_names(names, *n, cfg);
	if (*kept)
		return names;
	free(names);
	*n = 2 * cfg->n_vservers;
	names = calloc(*n, sizeof(*names));
	if (names)
		add_names(names, *n, cfg);
	return names;
}

/* ---- one program ---- */

static unsigned count_addresses(const struct lookup_plan *plan, int family)
{
	unsigned n = 0;

	for (unsigned i = 0; i < plan->n_addresses; i++)
		n += plan->addresses[i].family == family;
	return n;
}

static int set_sizes(struct lookup_bpf *skel, const struct config *cfg,
		     const struct lookup_plan *plan, unsigned n_names)
{
	const struct {
		struct bpf_map *map;
		unsigned entries;
	} sizes[] = {
		{skel->maps.lookup_addr4, count_addresses(plan, AF_INET)},
		{skel->maps.lookup_addr6, count_addresses(plan, AF_INET6)},
		{skel->maps.lookup_ports, plan->n_ports},
		{skel->maps.shield_sources, cfg->shield_rate ? cfg->shield_sources : 1},
		{skel->maps.shield_stats, n_names},
	};
	int err = 0;

	for (unsigned i = 0; !err && i < ARRAY_SIZE(sizes); i++)
		err = bpf_load_size(sizes[i].map, sizes[i].entries);
	return err;
}

/* What the operator has edited, who was heard of and what was counted outlives a configuration. */
static int take_over(struct lookup_bpf *skel, const struct lookup_bpf *old, bool keep_stats)
{
	struct bpf_map *sources = skel->maps.shield_sources;
	int err = bpf_map__reuse_fd(skel->maps.shield_rules4, bpf_map__fd(old->maps.shield_rules4));

	if (!err)
		err = bpf_map__reuse_fd(skel->maps.shield_rules6,
					bpf_map__fd(old->maps.shield_rules6));
	if (!err && bpf_map__max_entries(sources) == bpf_map__max_entries(old->maps.shield_sources))
		err = bpf_map__reuse_fd(sources, bpf_map__fd(old->maps.shield_sources));
	if (!err && keep_stats)
		err = bpf_map__reuse_fd(skel->maps.shield_stats,
					bpf_map__fd(old->maps.shield_stats));
	return err;
}

static int put(struct bpf_map *map, const void *key, const void *value)
{
	return bpf_map_update_elem(bpf_map__fd(map), key, value, BPF_ANY) ? -errno : 0;
}

static int fill(const struct lookup_bpf *skel, const struct lookup_plan *plan,
		const vserver_name *names, unsigned n_names)
{
	int err = 0;

	for (unsigned i = 0; !err && i < plan->n_addresses; i++) {
		const struct lookup_address *a = &plan->addresses[i];

		err = a->family == AF_INET ? put(skel->maps.lookup_addr4, &a->key4, &a->areas)
					   : put(skel->maps.lookup_addr6, &a->key6, &a->areas);
	}
	for (unsigned i = 0; !err && i < plan->n_ports; i++) {
		struct lookup_target target = plan->ports[i].target;

		target.stats = place_of(names, n_names, target.vserver);
		err = put(skel->maps.lookup_ports, &plan->ports[i].key, &target);
	}
	return err;
}

/* For whoever dumps the map: the values of all CPUs have the name. */
static int name_stats(const struct lookup_bpf *skel, const vserver_name *names, unsigned n,
		      const vserver_name *named, unsigned n_named)
{
	int cpus = libbpf_num_possible_cpus(), fd = bpf_map__fd(skel->maps.shield_stats);
	scoped_mem struct shield_stats *values =
		calloc(cpus > 0 ? (size_t)cpus : 1, sizeof(*values));

	if (!values || cpus < 0)
		return values ? cpus : -ENOMEM;
	for (uint32_t i = 0; i < n && names[i][0]; i++) {
		if (i < n_named && named[i][0])
			continue;
		for (int cpu = 0; cpu < cpus; cpu++)
			memcpy(values[cpu].vserver, names[i], sizeof(names[i]));
		if (bpf_map_update_elem(fd, &i, values, BPF_ANY))
			return -errno;
	}
	return 0;
}

static int load(const struct lookup *lookup, const struct config *cfg,
		const struct lookup_plan *plan, const struct steer *steer, unsigned n_names,
		bool keep_stats, struct lookup_bpf **out)
{
	struct lookup_bpf *skel;
	int err;

	bpf_load_messages();
	skel = *out = lookup_bpf__open();
	if (!skel)
		return -errno;
	err = set_sizes(skel, cfg, plan, n_names);
	if (!err && lookup->skel)
		err = take_over(skel, lookup->skel, keep_stats);
	if (!err)
		err = bpf_map__reuse_fd(skel->maps.steer_sockets,
					steer_map(steer, MAP_STEER_SOCKETS));
	if (!err)
		err = bpf_map__reuse_fd(skel->maps.steer_workers,
					steer_map(steer, MAP_STEER_WORKERS));
	if (err)
		return err;
	skel->rodata->slots_of_group = cfg->workers;
	return lookup_bpf__load(skel);
}

/* ---- in force ---- */

static int attach(struct lookup *lookup, const struct lookup_bpf *skel)
{
	scoped_fd netns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);

	if (lookup->link)
		return bpf_link__update_program(lookup->link, skel->progs.lookup);
	if (netns < 0)
		return -errno;
	lookup->link = bpf_program__attach_netns(skel->progs.lookup, netns);
	return lookup->link ? 0 : -errno;
}

/* steer.c pins its own. */
static bool is_ours(const struct bpf_map *map)
{
	return !bpf_map__is_internal(map) && strncmp(bpf_map__name(map), "steer_", 6);
}

static int pin(const struct lookup *lookup, const struct lookup_bpf *skel)
{
	struct bpf_map *map = NULL;
	int err = bpf_dir_make(lookup->bpf_dir);

	while (!err && (map = bpf_object__next_map(skel->obj, map))) {
		if (is_ours(map))
			err = bpf_dir_pin(lookup->bpf_dir, bpf_map__name(map), bpf_map__fd(map));
	}
	return err;
}

static void unpin(const struct lookup *lookup)
{
	struct bpf_map *map = NULL;

	while ((map = bpf_object__next_map(lookup->skel->obj, map))) {
		if (is_ours(map))
			bpf_dir_unpin(lookup->bpf_dir, bpf_map__name(map));
	}
	bpf_dir_remove(lookup->bpf_dir);
}

int lookup_open(const char *bpf_dir, struct lookup **out)
{
	scoped_lookup *lookup = calloc(1, sizeof(*lookup));

	*out = NULL;
	if (lookup) {
		lookup->bpf_dir = strdup(bpf_dir);
		lookup->stats = -1;
	}
	if (!lookup || !lookup->bpf_dir)
		return -ENOMEM;
	*out = TAKE_PTR(lookup);
	return 0;
}

static void close_stats(struct lookup *lookup)
{
	if (lookup->stats >= 0)
		close(lookup->stats);
	lookup->stats = -1;
}

static int open_stats(struct lookup *lookup)
{
	close_stats(lookup);
	lookup->stats = bpf_dir_open(lookup->bpf_dir, MAP_SHIELD_STATS, BPF_F_RDONLY);
	return lookup->stats < 0 ? lookup->stats : 0;
}

int lookup_set(struct lookup *lookup, const struct config *cfg, const struct lookup_plan *plan,
	       const struct steer *steer)
{
	unsigned n_names;
	bool keep;
	scoped_mem vserver_name *names = new_names(lookup, cfg, &n_names, &keep);
	struct lookup_bpf *skel = NULL, *old = lookup->skel;
	int err = names ? load(lookup, cfg, plan, steer, n_names, keep, &skel) : -ENOMEM;

	if (!err)
		err = name_stats(skel, names, n_names, keep ? lookup->names : NULL,
				 keep ? lookup->n_names : 0);
	if (!err)
		err = fill(skel, plan, names, n_names);
	if (!err)
		err = shield_configure(bpf_map__fd(skel->maps.shield_config),
				       bpf_map__fd(skel->maps.shield_rules4),
				       bpf_map__fd(skel->maps.shield_rules6), cfg);
	if (!err)
		err = attach(lookup, skel);
	if (err) {
		log_warn("lookup: cannot load and attach the program: %s%s", strerror(-err),
			 bpf_dir_hint(err));
		lookup_bpf__destroy(skel);
		return err;
	}
	lookup->skel = skel;
	lookup_bpf__destroy(old);
	free(lookup->names);
	lookup->names = TAKE_PTR(names);
	lookup->n_names = n_names;
	err = pin(lookup, skel);
	return err ? err : open_stats(lookup);
}

int lookup_stats_map(const struct lookup *lookup)
{
	return lookup ? lookup->stats : -1;
}

int lookup_map(const struct lookup *lookup, const char *name)
{
	if (!lookup->skel)
		return -ENOENT;
	return bpf_object__find_map_fd_by_name(lookup->skel->obj, name);
}

void lookup_close(struct lookup *lookup)
{
	if (!lookup)
		return;
	/* By force: children hold copies of the link's descriptor. */
	if (lookup->link) {
		bpf_link__detach(lookup->link);
		bpf_link__destroy(lookup->link);
	}
	if (lookup->skel)
		unpin(lookup);
	close_stats(lookup);
	lookup_bpf__destroy(lookup->skel);
	free(lookup->bpf_dir);
	free(lookup->names);
	free(lookup);
}
