// SPDX-License-Identifier: Apache-2.0
/* Asks, and passes on that there was an answer; see watchdog.h. */
#include "watchdog.h"

#include <limits.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include "log.h"
#include "notify.h"
#include "timer.h"

#define QUESTION "ping\n"
#define ANSWER	 "ok\n"

void watchdog_init(struct watchdog *w, const char *socket)
{
	unsigned ms = notify_watchdog_ms();

	*w = (struct watchdog){.socket = socket, .fd = -1};
	if (!ms)
		return;
	w->period = ms / 3 ? ms / 3 : 1;
	w->next = timer_clock();
}

int watchdog_wait(const struct watchdog *w)
{
	uint64_t now = timer_clock();

	if (!w->period)
		return -1;
	if (w->next <= now)
		return 0;
	return w->next - now < INT_MAX ? (int)(w->next - now) : INT_MAX;
}

void watchdog_close(struct watchdog *w)
{
	if (w->fd >= 0)
		close(w->fd);
	w->fd = -1;
}

/* Never blocks: a full backlog is an answer, too. */
static int ask(const char *path)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	scoped_fd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	/* control.c has bound it, so it fits. */
	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", path);
	if (fd < 0 || connect(fd, (struct sockaddr *)&sun, sizeof(sun)) ||
	    send(fd, QUESTION, strlen(QUESTION), MSG_NOSIGNAL) < 0)
		return -1;
	return TAKE_FD(fd);
}

static bool answered(int fd)
{
	char text[16];
	ssize_t n = recv(fd, text, sizeof(text), 0);

	return n == (ssize_t)strlen(ANSWER) && !memcmp(text, ANSWER, (size_t)n);
}

static void hear(struct watchdog *w, bool well)
{
	bool good = answered(w->fd);

	watchdog_close(w);
	if (!good || !well)
		return;
	if (w->silent)
		log_info("watchdog: the workers answer again");
	w->silent = false;
	notify_send("WATCHDOG=1");
}

void watchdog_turn(struct watchdog *w, bool readable, bool well)
{
	if (readable && w->fd >= 0)
		hear(w, well);
	if (!w->period || timer_clock() < w->next)
		return;
	if (w->fd >= 0 && !w->silent) {
		log_error("watchdog: the workers did not answer for %u ms", w->period);
		w->silent = true;
	}
	watchdog_close(w);
	w->fd = ask(w->socket);
	w->next = timer_clock() + w->period;
}
