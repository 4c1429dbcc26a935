/* SPDX-License-Identifier: Apache-2.0 */
/* The control socket, served by the data process's main thread; see control.h. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include "control.h"
#include "flow.h"
#include "log.h"

#define REQUEST_MAX	512
#define ACCEPT_RETRY_MS 100
#define CLIENT_MS	5000 /* a client that neither writes nor reads is left after this */

static int unix_address(const char *path, struct sockaddr_un *sun)
{
	memset(sun, 0, sizeof(*sun));
	sun->sun_family = AF_UNIX;
	if (strlen(path) >= sizeof(sun->sun_path)) {
		log_error("control.socket = %s: path is longer than %zu bytes", path,
			  sizeof(sun->sun_path) - 1);
		return -ENAMETOOLONG;
	}
	strcpy(sun->sun_path, path);
	return 0;
}

/* True if somebody answers there: then it is not ours to replace. */
static bool in_use(const struct sockaddr_un *sun)
{
	scoped_fd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	return fd >= 0 && !connect(fd, (const struct sockaddr *)sun, sizeof(*sun));
}

static void make_directory_of(const char *path)
{
	char dir[sizeof(((struct sockaddr_un *)0)->sun_path)];
	char *slash;

	snprintf(dir, sizeof(dir), "%s", path);
	slash = strrchr(dir, '/');
	if (!slash || slash == dir)
		return;
	*slash = '\0';
	if (mkdir(dir, 0755) && errno != EEXIST)
		log_warn("mkdir %s: %s", dir, strerror(errno));
}

int control_listen(const char *path)
{
	struct sockaddr_un sun;
	scoped_fd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	mode_t old;
	int ret = unix_address(path, &sun);

	if (ret)
		return ret;
	if (fd < 0)
		return -errno;
	if (in_use(&sun)) {
		log_error("control.socket = %s: another ktlsgated is listening there", path);
		return -EADDRINUSE;
	}
	make_directory_of(path);
	unlink(path);
	old = umask(0117);
	ret = bind(fd, (struct sockaddr *)&sun, sizeof(sun)) || listen(fd, 16) ? -errno : 0;
	umask(old);
	if (ret) {
		log_error("control.socket = %s: %s", path, strerror(-ret));
		return ret;
	}
	return TAKE_FD(fd);
}

/* ---- requests ---- */

static void write_stats(struct gate *gate, bool metrics, FILE *out)
{
	struct stats *blocks[256];
	unsigned n = gate->n_workers < ARRAY_SIZE(blocks) ? gate->n_workers : ARRAY_SIZE(blocks);
	struct gauges gauges = {
		.forge_cache_entries = forge_cache_entries(gate->cache),
		.forge_keys_ready = keymaker_ready(gate->keys),
		.workers = gate->n_workers,
	};

	for (unsigned i = 0; i < n; i++)
		blocks[i] = &gate->workers[i].stats;
	if (metrics)
		stats_write_metrics(blocks, n, &gauges, out);
	else
		stats_write(blocks, n, &gauges, out);
}

static void print_flows(struct worker *w, void *arg)
{
	struct flow *f;

	LIST_FOREACH (f, &w->flows, link)
		flow_print(f, arg);
}

static void write_flows(struct gate *gate, FILE *out)
{
	for (unsigned i = 0; i < gate->n_workers; i++)
		worker_call(&gate->workers[i], print_flows, out);
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

/* What the service's backend asked for last, when it asked for a certificate. */
static void write_request(struct gate *gate, const char *service, FILE *out)
{
	for (unsigned i = 0; i < gate->cfg->n_services; i++) {
		if (strcmp(gate->cfg->services[i]->name, service) != 0)
			continue;
		fputs("ok\n", out);
		certreq_write(gate->certreqs, gate->cfg->services[i], timer_clock(), out);
		return;
	}
	fprintf(out, "error there is no service \"%s\"\n", service);
}

static void do_nothing(struct worker *w, void *arg)
{
	(void)w;
	(void)arg;
}

/* Returns when the loop of each worker has come round: the supervisor's watchdog. */
static void ping(struct gate *gate)
{
	for (unsigned i = 0; i < gate->n_workers; i++)
		worker_call(&gate->workers[i], do_nothing, NULL);
}

/* The whole answer is built in memory: a slow reader must not hold up a worker. */
static void answer(struct gate *gate, const char *request, FILE *out)
{
	if (!strcmp(request, "stats")) {
		fputs("ok\n", out);
		write_stats(gate, false, out);
	} else if (!strcmp(request, "metrics")) {
		fputs("ok\n", out);
		write_stats(gate, true, out);
	} else if (!strcmp(request, "flows")) {
		fputs("ok\n", out);
		write_flows(gate, out);
	} else if (!strcmp(request, "ping")) {
		ping(gate);
		fputs("ok\n", out);
	} else if (!strcmp(request, "config")) {
		fputs("ok\n", out);
		config_print(gate->cfg, NULL, out);
	} else if (!strncmp(request, "requests ", 9)) {
		write_request(gate, request + 9, out);
	} else if (!strncmp(request, "config ", 7)) {
		write_setting(gate->cfg, request + 7, out);
	} else {
		fprintf(out,
			"error unknown request \"%s\": want stats, metrics, flows, ping, "
			"requests SERVICE or config [KEY]\n",
			request);
	}
}

static void send_all(int fd, const char *buf, size_t len)
{
	while (len) {
		ssize_t n = send(fd, buf, len, MSG_NOSIGNAL);

		if (n <= 0)
			return;
		buf += n;
		len -= (size_t)n;
	}
}

static void serve(struct gate *gate, int fd)
{
	struct timeval patience = {.tv_sec = CLIENT_MS / 1000};
	char request[REQUEST_MAX];
	char *text = NULL;
	size_t len = 0, have = 0;
	uint64_t deadline = timer_clock() + CLIENT_MS;
	FILE *out;

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	while (have < sizeof(request) - 1) {
		ssize_t n = recv(fd, request + have, sizeof(request) - 1 - have, 0);

		/* One client at a time is served: none may take its time byte by byte. */
		if (n <= 0 || timer_clock() > deadline)
			return;
		have += (size_t)n;
		if (memchr(request, '\n', have))
			break;
	}
	request[have] = '\0';
	request[strcspn(request, "\r\n")] = '\0';
	out = open_memstream(&text, &len);
	if (!out)
		return;
	answer(gate, request, out);
	if (!fclose(out))
		send_all(fd, text, len);
	free(text);
}

void control_run(struct gate *gate, int listen_fd, int stop_fd)
{
	struct pollfd fds[] = {
		{.fd = stop_fd, .events = POLLIN},
		{.fd = listen_fd, .events = POLLIN},
	};

	for (;;) {
		scoped_fd fd = -1;

		if (poll(fds, ARRAY_SIZE(fds), -1) < 0 && errno != EINTR)
			return;
		if (fds[0].revents)
			return;
		if (!fds[1].revents)
			continue;
		fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
		if (fd >= 0)
			serve(gate, fd);
		else
			(void)!poll(NULL, 0, ACCEPT_RETRY_MS); /* out of descriptors */
	}
}
