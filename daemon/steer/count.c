// SPDX-License-Identifier: Apache-2.0
/* Loads and reads bpf/count.bpf.c on a cgroup of our own; knows sockets, not the daemon's flows. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <mntent.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include "steer/bpf_dir.h"
#include "steer/bpf_load.h"
#include "steer/count.h"
#include "count.skel.h"
#include "base/log.h"

/* How long the processes of a killed predecessor may take to die. */
#define CGROUP_BUSY_TRIES 40
#define CGROUP_BUSY_US	  (50 * 1000)

struct count {
	struct count_bpf *skel; /* NULL: made by count_use() */
	int flows, flow_info;	/* maps, see count_flows_map(); owned if there is a skeleton */
	char *bpf_dir;		/* NULL: nothing pinned */
	char *home;		/* the cgroup we came from */
	char *cgroup;		/* our own; NULL: not made */
	bool moved;
};

/* ---- the cgroup ---- */

/* Where cgroup2 is mounted: /sys/fs/cgroup, or beside version 1 /sys/fs/cgroup/unified. */
static int find_mount(char *out, size_t len)
{
	FILE *mounts = setmntent("/proc/self/mounts", "re");
	const struct mntent *entry;
	int err = -ENODEV;

	if (!mounts)
		return -errno;
	while (err && (entry = getmntent(mounts))) {
		if (strcmp(entry->mnt_type, "cgroup2"))
			continue;
		err = snprintf(out, len, "%s", entry->mnt_dir) < (int)len ? 0 : -ENAMETOOLONG;
	}
	endmntent(mounts);
	return err;
}

/* Our place in it, the line "0::/path" (cgroups(7)); "" is the root. */
static int find_place(char *out, size_t len)
{
	scoped_file *file = fopen("/proc/self/cgroup", "re");
	char line[PATH_MAX];

	if (!file)
		return -errno;
	while (fgets(line, sizeof(line), file)) {
		if (strncmp(line, "0::/", 4))
			continue;
		line[strcspn(line, "\n")] = '\0';
		snprintf(out, len, "%s", line[4] ? line + 3 : "");
		return 0;
	}
	return -ENODEV;
}

static int find_home(struct count *count)
{
	char mount[PATH_MAX], place[PATH_MAX];
	int err;

	err = find_mount(mount, sizeof(mount));
	if (!err)
		err = find_place(place, sizeof(place));
	if (err) {
		log_warn("count: no cgroup version 2: %s; mount -t cgroup2 none /sys/fs/cgroup",
			 strerror(-err));
		return err;
	}
	return asprintf(&count->home, "%s%s", mount, place) < 0 ? -ENOMEM : 0;
}

/* An empty cgroup under our name is a killed predecessor's: gone with all that hangs on it. */
static int remove_stale(const char *path)
{
	for (unsigned tries = 0; rmdir(path); tries++) {
		if (errno == ENOENT)
			return 0;
		if (errno != EBUSY || tries == CGROUP_BUSY_TRIES)
			return -errno;
		usleep(CGROUP_BUSY_US);
	}
	return 0;
}

static int make_cgroup(struct count *count, const char *name)
{
	scoped_mem char *path = NULL;
	int err;

	if (asprintf(&path, "%s/%s", count->home, name) < 0) {
		path = NULL;
		return -ENOMEM;
	}
	err = remove_stale(path);
	if (err == -EBUSY) {
		log_warn("count: processes live in the cgroup %s; is another daemon running with "
			 "this name?",
			 path);
		return err;
	}
	if (!err && mkdir(path, 0755))
		err = -errno;
	if (err) {
		log_warn("count: cannot make the cgroup %s: %s%s", path, strerror(-err),
			 bpf_dir_hint(err));
		return err;
	}
	count->cgroup = TAKE_PTR(path);
	return 0;
}

static int move_to(const char *cgroup)
{
	scoped_mem char *path = NULL;
	scoped_fd fd = -1;

	if (asprintf(&path, "%s/cgroup.procs", cgroup) < 0) {
		path = NULL;
		return -ENOMEM;
	}
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "0", 1) != 1) /* 0: whoever writes */
		return -errno;
	return 0;
}

static int enter_cgroup(struct count *count)
{
	int err = move_to(count->cgroup);

	if (err) {
		log_warn("count: cannot move into the cgroup %s: %s", count->cgroup,
			 strerror(-err));
		return err;
	}
	count->moved = true;
	return 0;
}

/* ---- programs and maps ---- */

static int load(struct count *count, unsigned max_flows)
{
	struct count_bpf *skel;
	int err;

	bpf_load_messages();
	skel = count->skel = count_bpf__open();
	if (!skel)
		return -errno;
	err = bpf_map__set_max_entries(skel->maps.flows, max_flows);
	if (!err)
		err = bpf_map__set_max_entries(skel->maps.flow_info, max_flows);
	return err ? err : count_bpf__load(skel);
}

static int attach_to(struct count_bpf *skel, int cgroup)
{
	skel->links.count_ingress = bpf_program__attach_cgroup(skel->progs.count_ingress, cgroup);
	if (!skel->links.count_ingress)
		return -errno;
	skel->links.count_egress = bpf_program__attach_cgroup(skel->progs.count_egress, cgroup);
	if (!skel->links.count_egress)
		return -errno;
	/* Last: it makes the entries, and an entry must miss no packet. */
	skel->links.count_sock = bpf_program__attach_cgroup(skel->progs.count_sock, cgroup);
	return skel->links.count_sock ? 0 : -errno;
}

static int load_and_attach(struct count *count, unsigned max_flows)
{
	scoped_fd cgroup = open(count->cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int err;

	if (cgroup < 0)
		return -errno;
	err = load(count, max_flows);
	if (!err)
		err = attach_to(count->skel, cgroup);
	if (err)
		log_warn("count: cannot load and attach the programs (max_flows %u): %s%s",
			 max_flows, strerror(-err), bpf_dir_hint(err));
	return err;
}

static int pin(struct count *count, const char *bpf_dir)
{
	struct bpf_map *map = NULL;
	int err;

	err = bpf_dir_make(bpf_dir);
	if (err)
		return err;
	count->bpf_dir = strdup(bpf_dir);
	if (!count->bpf_dir)
		return -ENOMEM;
	while (!err && (map = bpf_object__next_map(count->skel->obj, map))) {
		if (!bpf_map__is_internal(map))
			err = bpf_dir_pin(bpf_dir, bpf_map__name(map), bpf_map__fd(map));
	}
	return err;
}

static void unpin(const struct count *count)
{
	struct bpf_map *map = NULL;

	while ((map = bpf_object__next_map(count->skel->obj, map))) {
		if (!bpf_map__is_internal(map))
			bpf_dir_unpin(count->bpf_dir, bpf_map__name(map));
	}
	bpf_dir_remove(count->bpf_dir);
}

/* What a data process is given: it can change no counter, and read nobody's description. */
static int open_maps(struct count *count)
{
	count->flows = bpf_dir_open(count->bpf_dir, MAP_FLOWS, BPF_F_RDONLY);
	if (count->flows < 0)
		return count->flows;
	count->flow_info = bpf_dir_open(count->bpf_dir, MAP_FLOW_INFO, BPF_F_WRONLY);
	return count->flow_info < 0 ? count->flow_info : 0;
}

int count_open(const char *bpf_dir, const char *cgroup_name, unsigned max_flows, struct count **out)
{
	scoped_count *count = calloc(1, sizeof(*count));
	int err;

	*out = NULL;
	if (!count)
		return -ENOMEM;
	count->flows = count->flow_info = -1;
	err = find_home(count);
	if (err)
		return err;
	err = make_cgroup(count, cgroup_name);
	if (err)
		return err;
	err = load_and_attach(count, max_flows);
	if (err)
		return err;
	err = pin(count, bpf_dir);
	if (err)
		return err;
	err = enter_cgroup(count);
	if (err)
		return err;
	err = open_maps(count);
	if (err)
		return err;
	*out = TAKE_PTR(count);
	return 0;
}

int count_flows_map(const struct count *count)
{
	return count ? count->flows : -1;
}

int count_flow_info_map(const struct count *count)
{
	return count ? count->flow_info : -1;
}

int count_use(int flows, int flow_info, struct count **out)
{
	*out = calloc(1, sizeof(**out));
	if (!*out)
		return -ENOMEM;
	(*out)->flows = flows;
	(*out)->flow_info = flow_info;
	return 0;
}

void count_forget_invented(const struct count *count)
{
	int flows = bpf_map__fd(count->skel->maps.flows);
	int infos = bpf_map__fd(count->skel->maps.flow_info);
	unsigned left = 2 * bpf_map__max_entries(count->skel->maps.flow_info);
	uint64_t key, next;
	bool any = !bpf_map_get_next_key(infos, NULL, &next);
	struct flow_value flow;

	/* Walking begins anew when the kernel deletes an entry at that moment: not for ever. */
	while (any && left--) {
		key = next;
		any = !bpf_map_get_next_key(infos, &key, &next);
		if (bpf_map_lookup_elem(flows, &key, &flow))
			bpf_map_delete_elem(infos, &key);
	}
}

/* ---- one flow ---- */

static int cookie_of(int fd, uint64_t *cookie)
{
	socklen_t len = sizeof(*cookie);

	return getsockopt(fd, SOL_SOCKET, SO_COOKIE, cookie, &len) ? -errno : 0;
}

static int read_flow(const struct count *count, uint64_t cookie, struct flow_value *out)
{
	return bpf_map_lookup_elem(count->flows, &cookie, out) ? -errno : 0;
}

void count_flow_info(const struct count *count, int fd, const struct flow_info *info)
{
	struct flow_value flow;
	uint64_t cookie;
	int err;

	err = cookie_of(fd, &cookie);
	if (!err && bpf_map_update_elem(count->flow_info, &cookie, info, BPF_ANY))
		err = -errno;
	if (err) {
		log_debug("count: no flow_info for flow %llu: %s",
			  (unsigned long long)info->flow_id, strerror(-err));
		return;
	}
	/*
	 * The kernel deletes both entries when the socket closes, this one last: if
	 * the first is still there the second will go with it, if not nobody would.
	 */
	if (read_flow(count, cookie, &flow))
		bpf_map_delete_elem(count->flow_info, &cookie);
}

int count_read_flow(const struct count *count, int fd, struct flow_value *out)
{
	uint64_t cookie;
	int err;

	err = cookie_of(fd, &cookie);
	return err ? err : read_flow(count, cookie, out);
}

static void detach(struct bpf_link *link)
{
	if (link)
		bpf_link__detach(link);
}

static void unload(struct count_bpf *skel)
{
	if (!skel)
		return;
	detach(skel->links.count_sock);
	detach(skel->links.count_ingress);
	detach(skel->links.count_egress);
	count_bpf__destroy(skel);
}

void count_close(struct count *count)
{
	if (!count)
		return;
	if (count->bpf_dir)
		unpin(count);
	if (count->flows >= 0)
		close(count->flows);
	if (count->flow_info >= 0)
		close(count->flow_info);
	unload(count->skel);
	if (count->moved && move_to(count->home))
		log_debug("count: cannot move back to %s: %s", count->home, strerror(errno));
	if (count->cgroup && rmdir(count->cgroup))
		log_debug("count: cannot remove %s: %s", count->cgroup, strerror(errno));
	free(count->bpf_dir);
	free(count->cgroup);
	free(count->home);
	free(count);
}
