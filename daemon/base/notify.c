// SPDX-License-Identifier: Apache-2.0
/* Datagrams to the service manager; see notify.h. */
#include "base/notify.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include "base/log.h"

/* Length of the address, or 0 if there is nobody to tell. */
static socklen_t manager_address(struct sockaddr_un *sun)
{
	const char *path = getenv("NOTIFY_SOCKET");
	size_t len = path ? strlen(path) : 0;

	if (len < 2 || len >= sizeof(sun->sun_path) || (path[0] != '/' && path[0] != '@'))
		return 0;
	memset(sun, 0, sizeof(*sun));
	sun->sun_family = AF_UNIX;
	memcpy(sun->sun_path, path, len);
	if (path[0] == '@')
		sun->sun_path[0] = '\0';
	/* An abstract name is as long as it is; a path ends with its NUL. */
	return offsetof(struct sockaddr_un, sun_path) + len + (path[0] == '/');
}

void notify_send(const char *fmt, ...)
{
	struct sockaddr_un sun;
	socklen_t len = manager_address(&sun);
	scoped_fd fd = -1;
	char text[512];
	va_list ap;

	if (!len)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || sendto(fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT,
			     (struct sockaddr *)&sun, len) < 0)
		log_warn("NOTIFY_SOCKET: %s", strerror(errno));
}

/* Decimal and nothing else; 0: it is not. */
static unsigned long long number(const char *name)
{
	const char *text = getenv(name);
	char *end;
	unsigned long long n;

	if (!text || *text < '0' || *text > '9')
		return 0;
	n = strtoull(text, &end, 10);
	return *end ? 0 : n;
}

unsigned notify_watchdog_ms(void)
{
	unsigned long long ms = number("WATCHDOG_USEC") / 1000;

	/* Inherited from who started us, and meant for it. */
	if (getenv("WATCHDOG_PID") && number("WATCHDOG_PID") != (unsigned long long)getpid())
		return 0;
	return ms < INT_MAX ? (unsigned)ms : INT_MAX;
}
