// SPDX-License-Identifier: Apache-2.0
/* The pin directory: makes, fills and empties it; does not know what is pinned there. */
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <linux/bpf.h>
#include <linux/magic.h>
#include "base/log.h"
#include "steer/bpf_dir.h"

static bool on_bpffs(const char *path)
{
	struct statfs fs;

	return !statfs(path, &fs) && fs.f_type == BPF_FS_MAGIC;
}

/* What an operator has to do, in one line. */
static int not_made(const char *dir, int err)
{
	const char *slash = strrchr(dir, '/');
	char parent[PATH_MAX];

	snprintf(parent, sizeof(parent), "%.*s", slash && slash > dir ? (int)(slash - dir) : 1,
		 slash ? dir : ".");
	if (on_bpffs(parent))
		log_warn("bpf.dir = %s: cannot make it: %s%s; going on without BPF", dir,
			 strerror(-err), bpf_dir_hint(err));
	else
		log_warn("bpf.dir = %s: there is no BPF file system on %s; `mount -t bpf bpf %s`; "
			 "going on without BPF",
			 dir, parent, parent);
	return err;
}

static int check_dir(const char *dir)
{
	struct stat st;

	if (lstat(dir, &st)) {
		int err = -errno;

		log_warn("bpf.dir = %s: %s; going on without BPF", dir, strerror(-err));
		return err;
	}
	if (!on_bpffs(dir))
		return not_made(dir, -EMEDIUMTYPE);
	/* /sys/fs/bpf may be mounted writable for everyone. */
	if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid()) {
		log_warn("bpf.dir = %s: not a directory of user %u; remove it; going on without "
			 "BPF",
			 dir, geteuid());
		return -EPERM;
	}
	return 0;
}

static int path_of(char *path, size_t len, const char *dir, const char *name)
{
	return snprintf(path, len, "%s/%s", dir, name) < (int)len ? 0 : -ENAMETOOLONG;
}

static int obj_pin(const char *path, int fd)
{
	union bpf_attr attr = {.pathname = (uintptr_t)path, .bpf_fd = fd};

	return syscall(__NR_bpf, BPF_OBJ_PIN, &attr, sizeof(attr)) ? -errno : 0;
}

int bpf_dir_make(const char *dir)
{
	bool made = !mkdir(dir, 0700);
	int err;

	if (!made && errno != EEXIST)
		return not_made(dir, -errno);
	err = check_dir(dir);
	if (err && made)
		rmdir(dir);
	return err;
}

int bpf_dir_pin(const char *dir, const char *name, int fd)
{
	char path[PATH_MAX];
	int err;

	err = path_of(path, sizeof(path), dir, name);
	if (!err) {
		unlink(path);
		err = obj_pin(path, fd);
	}
	if (err)
		log_warn("bpf: cannot pin %s in %s: %s%s", name, dir, strerror(-err),
			 bpf_dir_hint(err));
	return err;
}

int bpf_dir_open(const char *dir, const char *name, unsigned access)
{
	union bpf_attr attr = {.file_flags = access};
	char path[PATH_MAX];
	int fd, err = path_of(path, sizeof(path), dir, name);

	attr.pathname = (uintptr_t)path;
	fd = err ? err : (int)syscall(__NR_bpf, BPF_OBJ_GET, &attr, sizeof(attr));
	if (fd >= 0)
		return fd;
	err = err ? err : -errno;
	log_warn("bpf: cannot open %s in %s: %s%s", name, dir, strerror(-err), bpf_dir_hint(err));
	return err;
}

void bpf_dir_unpin(const char *dir, const char *name)
{
	char path[PATH_MAX];

	if (!path_of(path, sizeof(path), dir, name))
		unlink(path);
}

void bpf_dir_remove(const char *dir)
{
	rmdir(dir);
}

const char *bpf_dir_hint(int err)
{
	switch (err) {
	case -EPERM:
	case -EACCES:
		return "; needs root (CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON)";
	case -ENOMEM:
		return "; the maps do not fit into the memory this service may use";
	case -EINVAL:
	case -ENOSYS:
	case -EOPNOTSUPP:
		return "; this kernel lacks what is needed (CONFIG_BPF_SYSCALL, CONFIG_CGROUP_BPF, "
		       "Linux 6.1)";
	}
	return "";
}
