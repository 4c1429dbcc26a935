// SPDX-License-Identifier: Apache-2.0
/* Asks, and passes on that there was an answer; see watchdog.h. */
#include "supervisor/watchdog.h"

#include <errno.h>
#include <limits.h>
#include <sys/socket.h>
#include "data/channel.h"
#include "base/log.h"
#include "base/notify.h"
#include "base/timer.h"

void watchdog_init(struct watchdog *w)
{
	unsigned ms = notify_watchdog_ms();

	*w = (struct watchdog){.fd = -1};
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
	w->asked = false;
}

/* The other end goes to the data process. */
static void meet(struct watchdog *w, int channel)
{
	int pair[2];

	if (channel < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return;
	w->fd = pair[0];
	if (answer_tell_watch(channel, pair[1]))
		watchdog_close(w);
	close(pair[1]);
}

static void hear(struct watchdog *w, bool well)
{
	char answer;
	ssize_t n = recv(w->fd, &answer, 1, MSG_DONTWAIT);
	bool wanted = n == 1 && w->asked;

	if (n <= 0 && (!n || errno != EAGAIN))
		watchdog_close(w);
	if (!wanted)
		return;
	w->asked = false;
	if (!well)
		return;
	if (w->silent)
		log_info("watchdog: the workers answer again");
	w->silent = false;
	notify_send("WATCHDOG=1");
}

static void ask(struct watchdog *w)
{
	if (send(w->fd, "?", 1, MSG_DONTWAIT | MSG_NOSIGNAL) == 1)
		w->asked = true;
	else
		watchdog_close(w);
}

void watchdog_turn(struct watchdog *w, bool readable, bool well, int channel)
{
	if (readable && w->fd >= 0)
		hear(w, well);
	if (!w->period || timer_clock() < w->next)
		return;
	w->next = timer_clock() + w->period;
	if (w->asked && !w->silent) {
		log_error("watchdog: the workers did not answer for %u ms", w->period);
		w->silent = true;
	}
	/* What is asked is still to be answered, and a late answer is one. */
	if (w->asked)
		return;
	if (w->fd < 0)
		meet(w, channel);
	if (w->fd >= 0)
		ask(w);
}
