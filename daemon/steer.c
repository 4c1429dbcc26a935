// SPDX-License-Identifier: Apache-2.0
/* Loads and feeds bpf/steer.bpf.c; knows listening sockets, not what is accepted from them. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include "bpf_dir.h"
#include "log.h"
#include "maps.h"
#include "steer.h"
#include "steer.skel.h"

struct steer {
	struct steer_bpf *skel;
	char *bpf_dir;			 /* NULL: nothing pinned */
	struct steer_listener_key *keys; /* by vserver: where it listened when last added */
	unsigned n_vservers;
	unsigned workers;
};

static int printf_like(2, 0)
	log_libbpf(enum libbpf_print_level level, const char *fmt, va_list args)
{
	(void)level;
	return bpf_dir_debug(fmt, args);
}

static int load(struct steer *steer)
{
	struct steer_bpf *skel;
	int err;

	libbpf_set_print(log_libbpf);
	skel = steer->skel = steer_bpf__open();
	if (!skel)
		return -errno;
	err = bpf_map__set_max_entries(skel->maps.steer_listeners, steer->n_vservers);
	if (!err)
		err = bpf_map__set_max_entries(skel->maps.steer_sockets,
					       steer->n_vservers * steer->workers);
	if (!err)
		err = bpf_map__set_max_entries(skel->maps.steer_stats, steer->workers);
	return err ? err : steer_bpf__load(skel);
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
	while (!err && (map = bpf_object__next_map(steer->skel->obj, map)))
		err = bpf_dir_pin(bpf_dir, bpf_map__name(map), bpf_map__fd(map));
	return err;
}

static void unpin(const struct steer *steer)
{
	struct bpf_map *map = NULL;

	while ((map = bpf_object__next_map(steer->skel->obj, map)))
		bpf_dir_unpin(steer->bpf_dir, bpf_map__name(map));
	bpf_dir_remove(steer->bpf_dir);
}

int steer_open(const char *bpf_dir, unsigned n_vservers, unsigned workers, struct steer **out)
{
	scoped_steer *steer = calloc(1, sizeof(*steer));
	int err;

	*out = NULL;
	if (!steer)
		return -ENOMEM;
	steer->n_vservers = n_vservers;
	steer->workers = workers;
	steer->keys = calloc(n_vservers, sizeof(*steer->keys));
	if (!steer->keys)
		return -ENOMEM;
	err = load(steer);
	if (err) {
		log_warn("steer: cannot load the program: %s%s", strerror(-err), bpf_dir_hint(err));
		return err;
	}
	err = pin(steer, bpf_dir);
	if (err)
		return err;
	*out = TAKE_PTR(steer);
	return 0;
}

static int get_option(int fd, int option, int *value)
{
	socklen_t len = sizeof(*value);

	return getsockopt(fd, SOL_SOCKET, option, value, &len) ? -errno : 0;
}

static void key_ipv4(const struct sockaddr_in *sin, struct steer_listener_key *key,
		     struct steer_listener *value)
{
	char text[INET_ADDRSTRLEN] = "";

	key->port = ntohs(sin->sin_port);
	key->address[0] = sin->sin_addr.s_addr;
	inet_ntop(AF_INET, &sin->sin_addr, text, sizeof(text));
	snprintf(value->listen, sizeof(value->listen), "%s:%u", text, key->port);
}

static void key_ipv6(const struct sockaddr_in6 *sin6, struct steer_listener_key *key,
		     struct steer_listener *value)
{
	char text[INET6_ADDRSTRLEN] = "";

	key->port = ntohs(sin6->sin6_port);
	memcpy(key->address, &sin6->sin6_addr, sizeof(key->address));
	inet_ntop(AF_INET6, &sin6->sin6_addr, text, sizeof(text));
	snprintf(value->listen, sizeof(value->listen), "[%s]:%u", text, key->port);
}

/* As the program will see it: the kernel's view of the socket, not the configuration's. */
static int describe(int fd, struct steer_listener_key *key, struct steer_listener *value)
{
	struct sockaddr_storage ss = {0};
	socklen_t len = sizeof(ss);
	int device = 0, err;

	if (getsockname(fd, (struct sockaddr *)&ss, &len))
		return -errno;
	err = get_option(fd, SO_BINDTOIFINDEX, &device);
	if (err)
		return err;
	key->device = device;
	key->family = ss.ss_family;
	if (ss.ss_family == AF_INET)
		key_ipv4((struct sockaddr_in *)&ss, key, value);
	else if (ss.ss_family == AF_INET6)
		key_ipv6((struct sockaddr_in6 *)&ss, key, value);
	else
		return -EAFNOSUPPORT;
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
	bpf_map_delete_elem(map, &steer->keys[value->vserver]);
	if (bpf_map_update_elem(map, &key, value, BPF_ANY))
		return -errno;
	steer->keys[value->vserver] = key;
	return attach(steer, listen_fds[0]);
}

int steer_add(struct steer *steer, unsigned vserver, const int *listen_fds, unsigned n)
{
	struct steer_listener value = {
		.vserver = vserver,
		.base = vserver * steer->workers,
		.workers = n,
	};
	int err = -EINVAL;

	if (vserver < steer->n_vservers && n >= 1 && n <= steer->workers)
		err = add(steer, &value, listen_fds);
	if (err)
		log_warn("steer: cannot steer vserver %u (%s, %u sockets): %s%s", vserver,
			 value.listen, n, strerror(-err),
			 err == -EINVAL
				 ? "; is SO_REUSEPORT set before bind, and do all sockets listen?"
				 : bpf_dir_hint(err));
	return err;
}

void steer_close(struct steer *steer)
{
	if (!steer)
		return;
	if (steer->bpf_dir)
		unpin(steer);
	steer_bpf__destroy(steer->skel);
	free(steer->bpf_dir);
	free(steer->keys);
	free(steer);
}
