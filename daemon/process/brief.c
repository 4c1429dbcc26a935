// SPDX-License-Identifier: Apache-2.0
/* Executes this program anew for a role; see brief.h. Does not know what a role does. */
#include "process/brief.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <linux/close_range.h>
#include "base/log.h"
#include "base/shared_memory.h"

#define MAGIC "ktlsgate brief 1"

static const char *const names[ROLES] = {"signer", "resolver", "data", "check"};

const char *role_name(enum role role)
{
	return names[role];
}

static size_t size_of(const struct brief *b)
{
	return sizeof(*b) + ((size_t)b->n_sockets + b->n_listeners) * sizeof(b->list[0]);
}

struct brief *brief_new(enum role role, unsigned n_sockets, unsigned n_listeners)
{
	size_t n = (size_t)n_sockets + n_listeners;
	struct brief *b = calloc(1, sizeof(*b) + n * sizeof(b->list[0]));

	if (!b)
		return NULL;
	memcpy(b->magic, MAGIC, sizeof(MAGIC));
	b->role = role;
	b->n_sockets = n_sockets;
	b->n_listeners = n_listeners;
	for (unsigned i = 0; i < BRIEF_FDS; i++)
		b->fd[i] = -1;
	for (size_t i = 0; i < n; i++)
		b->list[i] = -1;
	return b;
}

static void pass(int fd)
{
	if (fd >= 0)
		(void)fcntl(fd, F_SETFD, 0);
}

/* Nothing but these. */
static int pass_descriptors(const struct brief *b, int sealed)
{
	if (close_range(3, ~0U, CLOSE_RANGE_CLOEXEC))
		return -errno;
	pass(sealed);
	for (unsigned i = 0; i < BRIEF_FDS; i++)
		pass(b->fd[i]);
	for (size_t i = 0; i < (size_t)b->n_sockets + b->n_listeners; i++)
		pass(b->list[i]);
	return 0;
}

/* ^C goes to the whole group, systemd's SIGTERM to the whole cgroup: the supervisor decides. */
static void leave_signals(void)
{
	sigset_t none;

	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

_Noreturn static void execute(const struct brief *b, int sealed)
{
	char number[16];
	char *argv[] = {"ktlsgated", "--role", (char *)role_name(b->role), "--brief", number, NULL};

	snprintf(number, sizeof(number), "%d", sealed);
	leave_signals();
	unsetenv("NOTIFY_SOCKET");
	unsetenv("WATCHDOG_PID");
	unsetenv("WATCHDOG_USEC");
	if (!pass_descriptors(b, sealed) && !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		execv("/proc/self/exe", argv);
	log_error("cannot execute /proc/self/exe: %s", strerror(errno));
	_exit(EXIT_FAILURE);
}

pid_t brief_execute(const struct brief *b)
{
	scoped_fd sealed = shared_memory_copy("ktlsgate-brief", b, size_of(b));
	pid_t pid;

	if (sealed < 0)
		return sealed;
	fflush(NULL);
	pid = fork();
	if (!pid)
		execute(b, sealed);
	return pid < 0 ? -errno : pid;
}

static struct brief *copy(const struct brief *sealed, size_t len)
{
	struct brief *b;

	if (len < sizeof(*b) || memcmp(sealed->magic, MAGIC, sizeof(MAGIC)) != 0 ||
	    sealed->role >= ROLES || len != size_of(sealed))
		return NULL;
	b = malloc(len);
	if (b)
		memcpy(b, sealed, len);
	return b;
}

struct brief *brief_read(int fd)
{
	scoped_fd ours = fd;
	size_t len = 0;
	const void *sealed = shared_memory_map_copy(ours, &len);
	struct brief *b;

	if (!sealed)
		return NULL;
	b = copy(sealed, len);
	munmap((void *)sealed, len);
	return b;
}
