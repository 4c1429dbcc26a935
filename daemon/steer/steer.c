// SPDX-License-Identifier: Apache-2.0
/* Loads and feeds bpf/steer.bpf.c; knows listening sockets, not what is accepted from them. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include "steer/bpf_dir.h"
#include "steer/bpf_load.h"
#include "config/config.h"
#include "base/log.h"
#include "maps.h"
#include "steer/steer.h"
#include "steer.skel.h"

struct steer {
	struct steer_bpf *skel;
	char *bpf_dir;			 /* NULL: nothing pinned */
	struct steer_listener_key *keys; /* by group: where it listened when last added */
	unsigned n_groups;
	unsigned workers;
	unsigned n_cpus; /* that the machine can have */
	bool *drained;	 /* by worker */
	enum steer_mode mode;
};

static int set_sizes(struct steer *steer)
{
	struct steer_bpf *skel = steer->skel;
	const struct {
		struct bpf_map *map;
		unsigned entries;
	} sizes[] = {
		{skel->maps.steer_listeners, steer->n_groups},
		{skel->maps.steer_sockets, steer->n_groups * steer->workers},
		{skel->maps.steer_workers, steer->workers},
		{skel->maps.steer_cpus, steer->n_cpus},
		{skel->maps.steer_load, steer->workers},
		{skel->maps.steer_stats, steer->workers},
	};
	int err = 0;

	for (unsigned i = 0; !err && i < ARRAY_SIZE(sizes); i++)
		err = bpf_load_size(sizes[i].map, sizes[i].entries);
	return err;
}

static int load(struct steer *steer)
{
	int err;

	bpf_load_messages();
	steer->skel = steer_bpf__open();
	if (!steer->skel)
		return -errno;
	err = set_sizes(steer);
	return err ? err : steer_bpf__load(steer->skel);
}

static int put(struct bpf_map *map, const void *key, const void *value)
{
	return bpf_map_update_elem(bpf_map__fd(map), key, value, BPF_ANY) ? -errno : 0;
}

/* The list of the active ones before their number, so that the program never reads beyond it. */
static int tell_workers(struct steer *steer)
{
	struct steer_config config = {.mode = steer->mode};
	uint32_t zero = 0;
	int err = 0;

	for (uint32_t w = 0, next = 0; !err && w < steer->workers; w++) {
		struct steer_worker entry = {.drained = steer->drained[w]};

		while (next < steer->workers && steer->drained[next])
			next++;
		entry.next = next < steer->workers ? next++ : 0;
		config.active += !steer->drained[w];
		err = put(steer->skel->maps.steer_workers, &w, &entry);
	}
	return err ? err : put(steer->skel->maps.steer_config, &zero, &config);
}

/* The worker that is pinned to the CPU; those without one are shared out. */
static uint32_t worker_of(const struct steer *steer, const struct cfg_cpus *cpus, uint32_t cpu)
{
	for (uint32_t w = 0; w < cpus->n; w++) {
		if (cpus->list[w] == cpu)
			return w;
	}
	return cpu % steer->workers;
}

static int tell_cpus(const struct steer *steer, const struct cfg_cpus *cpus)
{
	int err = 0;

	for (uint32_t cpu = 0; !err && cpu < steer->n_cpus; cpu++) {
		uint32_t worker = worker_of(steer, cpus, cpu);

		err = put(steer->skel->maps.steer_cpus, &cpu, &worker);
	}
	return err;
}

static int pin(struct steer *steer, const char *bpf_dir)
{
	struct bpf_map *map = NULL;
	int err;

	err = bpf_dir_make(bpf_dir);
	if (err)
		return err;
	steer->bpf_dir = strdup(bpf_dir);
	if (!steer->bpf_dir)
		return -ENOMEM;
	while (!err && (map = bpf_object__next_map(steer->skel->obj, map))) {
		if (!bpf_map__is_internal(map))
			err = bpf_dir_pin(bpf_dir, bpf_map__name(map), bpf_map__fd(map));
	}
	return err;
}

static void unpin(const struct steer *steer)
{
	struct bpf_map *map = NULL;

	while ((map = bpf_object__next_map(steer->skel->obj, map))) {
		if (!bpf_map__is_internal(map))
			bpf_dir_unpin(steer->bpf_dir, bpf_map__name(map));
	}
	bpf_dir_remove(steer->bpf_dir);
}

int steer_take_over(struct steer *steer, struct steer *before, const char *bpf_dir)
{
	steer_close(before);
	return pin(steer, bpf_dir);
}

int steer_open(unsigned n_groups, unsigned workers, const struct cfg_cpus *cpus,
	       enum steer_mode mode, const struct steer *before, struct steer **out)
{
	scoped_steer *steer = calloc(1, sizeof(*steer));
	int err, n_cpus = libbpf_num_possible_cpus();

	*out = NULL;
	if (!steer)
		return -ENOMEM;
	if (n_cpus < 0)
		return n_cpus;
	steer->n_cpus = (unsigned)n_cpus;
	steer->n_groups = n_groups;
	steer->workers = workers;
	steer->mode = mode;
	steer->keys = calloc(n_groups, sizeof(*steer->keys));
	steer->drained = calloc(workers, sizeof(*steer->drained));
	if (!steer->keys || !steer->drained)
		return -ENOMEM;
	if (before)
		memcpy(steer->drained, before->drained, workers * sizeof(*steer->drained));
	err = load(steer);
	if (!err)
		err = tell_workers(steer);
	if (!err)
		err = tell_cpus(steer, cpus);
	if (err) {
		log_warn("steer: cannot load the program: %s%s", strerror(-err), bpf_dir_hint(err));
		return err;
	}
	*out = TAKE_PTR(steer);
	return 0;
}

static int get_option(int fd, int option, int *value)
{
	socklen_t len = sizeof(*value);

	return getsockopt(fd, SOL_SOCKET, option, value, &len) ? -errno : 0;
}

/* As the program will see it: the kernel's view of the socket, not the configuration's. */
static int describe(int fd, struct steer_listener_key *key, struct steer_listener *value)
{
	struct sockaddr_storage ss = {0};
	const struct sockaddr_in *sin = (const struct sockaddr_in *)&ss;
	const struct sockaddr_in6 *sin6 = (const struct sockaddr_in6 *)&ss;
	socklen_t len = sizeof(ss);
	char text[CFG_ADDRESS_TEXT];
	int device = 0, err;

	if (getsockname(fd, (struct sockaddr *)&ss, &len))
		return -errno;
	err = get_option(fd, SO_BINDTOIFINDEX, &device);
	if (err)
		return err;
	if (ss.ss_family != AF_INET && ss.ss_family != AF_INET6)
		return -EAFNOSUPPORT;
	key->device = device;
	key->family = ss.ss_family;
	key->port = ntohs(sin->sin_port); /* at the same place in sockaddr_in6 */
	if (ss.ss_family == AF_INET)
		key->address[0] = sin->sin_addr.s_addr;
	else
		memcpy(key->address, &sin6->sin6_addr, sizeof(key->address));
	snprintf(value->listen, sizeof(value->listen), "%s", cfg_address_text(&ss, text));
	return 0;
}

static int fill_slots(const struct steer *steer, uint32_t base, const int *listen_fds, unsigned n)
{
	int map = bpf_map__fd(steer->skel->maps.steer_sockets);

	for (uint32_t i = 0; i < n; i++) {
		uint32_t slot = base + i;
		uint64_t fd = listen_fds[i];

		if (bpf_map_update_elem(map, &slot, &fd, BPF_ANY))
			return -errno;
	}
	return 0;
}

static int attach(const struct steer *steer, int fd)
{
	int prog = bpf_program__fd(steer->skel->progs.steer);

	/* One socket speaks for its whole group. */
	if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF, &prog, sizeof(prog)))
		return -errno;
	return 0;
}

static int add(struct steer *steer, struct steer_listener *value, const int *listen_fds)
{
	struct steer_listener_key key = {0};
	int err, map = bpf_map__fd(steer->skel->maps.steer_listeners);

	err = describe(listen_fds[0], &key, value);
	if (err)
		return err;
	err = fill_slots(steer, value->base, listen_fds, value->workers);
	if (err)
		return err;
	bpf_map_delete_elem(map, &steer->keys[value->group]);
	if (bpf_map_update_elem(map, &key, value, BPF_ANY))
		return -errno;
	steer->keys[value->group] = key;
	return attach(steer, listen_fds[0]);
}

int steer_add(struct steer *steer, unsigned group, const int *listen_fds, unsigned n)
{
	struct steer_listener value = {
		.group = group,
		.base = group * steer->workers,
		.workers = n,
	};
	int err = -EINVAL;

	if (group < steer->n_groups && n >= 1 && n <= steer->workers)
		err = add(steer, &value, listen_fds);
	if (err)
		log_warn("steer: cannot steer the sockets of %s (%u): %s%s",
			 value.listen[0] ? value.listen : "a vserver", n, strerror(-err),
			 err == -EINVAL
				 ? "; is SO_REUSEPORT set before bind, and do all sockets listen?"
				 : bpf_dir_hint(err));
	return err;
}

int steer_drain(struct steer *steer, unsigned worker, bool drain)
{
	unsigned active = 0;
	int err;

	if (worker >= steer->workers)
		return -ENOENT;
	for (unsigned w = 0; w < steer->workers; w++)
		active += w != worker && !steer->drained[w];
	if (drain && !active)
		return -EBUSY;
	steer->drained[worker] = drain;
	err = tell_workers(steer);
	if (err)
		log_warn("steer: cannot %s worker %u: %s", drain ? "drain" : "undrain", worker,
			 strerror(-err));
	return err;
}

int steer_map(const struct steer *steer, const char *name)
{
	return bpf_object__find_map_fd_by_name(steer->skel->obj, name);
}

uint64_t *steer_load_map(int map, unsigned workers)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t size = (workers * sizeof(uint64_t) + page - 1) / page * page;
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, map, 0);

	return memory == MAP_FAILED ? NULL : memory;
}

/* Now: the array itself goes when the last program that uses it does. */
static void release_sockets(const struct steer *steer)
{
	int map = steer->skel ? bpf_map__fd(steer->skel->maps.steer_sockets) : -1;

	for (uint32_t slot = 0; map >= 0 && slot < steer->n_groups * steer->workers; slot++)
		bpf_map_delete_elem(map, &slot);
}

void steer_close(struct steer *steer)
{
	if (!steer)
		return;
	if (steer->bpf_dir)
		unpin(steer);
	release_sockets(steer);
	steer_bpf__destroy(steer->skel);
	free(steer->bpf_dir);
	free(steer->keys);
	free(steer->drained);
	free(steer);
}
