// SPDX-License-Identifier: Apache-2.0
/* Lines from many threads to one file, without waiting for it; see flowlog.h. Knows no flow. */
#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include "base/file_trust.h"
#include "flow/flowlog.h"
#include "base/log.h"
#include "base/thread.h"

#define BUFFER_SIZE (512 * 1024)

struct flowlog {
	int fd;
	_Atomic uint64_t *lost;
	bool cut; /* the last write ended inside of a line */
	bool running;
	pthread_t thread;
	pthread_mutex_t lock; /* what follows; never held while writing */
	pthread_cond_t filled;
	char *fill, *drain; /* each BUFFER_SIZE; drain is the thread's */
	size_t len;	    /* of fill */
	bool stop;
};

/* Appending: rotated by copytruncate, and shared with the generation before. */
static int open_log(const char *path)
{
	scoped_fd fd =
		open(path,
		     O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK | O_CLOEXEC | O_NOCTTY | O_NOFOLLOW,
		     0640);
	char why[256];
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		return -errno;
	/* /dev/null, say: everybody may write to it. */
	if (S_ISCHR(st.st_mode))
		return TAKE_FD(fd);
	if (!S_ISREG(st.st_mode) && !S_ISFIFO(st.st_mode))
		return -EINVAL;
	if (!file_trust(path, &st, FILE_LOG, why, sizeof(why)))
		return TAKE_FD(fd);
	log_error("log.flows = %s: %s", path, why);
	return -EPERM;
}

int flowlog_open(const char *path, _Atomic uint64_t *lost, struct flowlog **out)
{
	struct flowlog *log;

	*out = NULL;
	if (!path)
		return 0;
	log = calloc(1, sizeof(*log));
	if (!log)
		return -ENOMEM;
	log->lost = lost;
	pthread_mutex_init(&log->lock, NULL);
	pthread_cond_init(&log->filled, NULL);
	log->fill = malloc(BUFFER_SIZE);
	log->drain = malloc(BUFFER_SIZE);
	log->fd = open_log(path);
	if (log->fd < 0 || !log->fill || !log->drain) {
		int err = log->fd < 0 ? log->fd : -ENOMEM;

		log_error("log.flows = %s: %s", path, strerror(-err));
		flowlog_close(log);
		return err;
	}
	*out = log;
	return 0;
}

static void count_lost(struct flowlog *log, const char *text, size_t len)
{
	for (const char *p = text; (p = memchr(p, '\n', (size_t)(text + len - p))); p++)
		atomic_fetch_add_explicit(log->lost, 1, memory_order_relaxed);
}

/* A pipe may be full, a disk too: what does not go at once goes never. */
static void write_lines(struct flowlog *log, const char *text, size_t len)
{
	if (log->cut && write(log->fd, "\n", 1) == 1)
		log->cut = false;
	while (len && !log->cut) {
		ssize_t n = write(log->fd, text, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		text += n;
		len -= (size_t)n;
		log->cut = len && text[-1] != '\n';
	}
	count_lost(log, text, len);
}

static void run(void *arg)
{
	struct flowlog *log = arg;

	pthread_mutex_lock(&log->lock);
	while (log->len || !log->stop) {
		size_t len = log->len;
		char *text = log->fill;

		if (!len) {
			pthread_cond_wait(&log->filled, &log->lock);
			continue;
		}
		log->fill = log->drain;
		log->drain = text;
		log->len = 0;
		pthread_mutex_unlock(&log->lock);
		write_lines(log, text, len);
		pthread_mutex_lock(&log->lock);
	}
	pthread_mutex_unlock(&log->lock);
}

int flowlog_start(struct flowlog *log)
{
	int ret;

	if (!log)
		return 0;
	ret = thread_start(&log->thread, "the flow log", run, log);
	log->running = !ret;
	return ret;
}

void flowlog_add(struct flowlog *log, const char *line, size_t len)
{
	bool fits;

	if (!log)
		return;
	pthread_mutex_lock(&log->lock);
	fits = log->len + len <= BUFFER_SIZE;
	if (fits) {
		memcpy(log->fill + log->len, line, len);
		log->len += len;
		pthread_cond_signal(&log->filled);
	}
	pthread_mutex_unlock(&log->lock);
	if (!fits)
		count_lost(log, line, len);
}

void flowlog_close(struct flowlog *log)
{
	if (!log)
		return;
	pthread_mutex_lock(&log->lock);
	log->stop = true;
	pthread_cond_signal(&log->filled);
	pthread_mutex_unlock(&log->lock);
	if (log->running)
		pthread_join(log->thread, NULL);
	if (log->fd >= 0)
		close(log->fd);
	free(log->fill);
	free(log->drain);
	free(log);
}

void flowlog_look(int fd, struct flowlog_wire *out)
{
	struct tcp_info info = {0};
	socklen_t len = sizeof(info);

	if (fd < 0 || getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len))
		return;
	*out = (struct flowlog_wire){
		.bytes_rx = info.tcpi_bytes_received,
		.bytes_tx = info.tcpi_bytes_acked,
		.packets_rx = info.tcpi_segs_in,
		.packets_tx = info.tcpi_segs_out,
		.retransmits = info.tcpi_total_retrans,
		.rtt_us = info.tcpi_rtt,
	};
}
