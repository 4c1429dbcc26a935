/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel's TLS can do, tried on pairs of loopback sockets. Knows no flow. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <string.h>
#include <arpa/inet.h>
#include <linux/tcp.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include "tls/ktls_probe.h"

#ifndef SOL_TCP
#define SOL_TCP 6
#endif
#ifndef SOL_TLS
#define SOL_TLS 282
#endif
/* Linux 7.x; not in the headers of Debian 12. */
#ifndef TLS_TX_MAX_PAYLOAD_LEN
#define TLS_TX_MAX_PAYLOAD_LEN 5
#endif

enum {
	RECORD_MAX = 16384,
	PAGE = 4096,
	TYPE_HANDSHAKE = 22,
	ARRIVES_MS = 500, /* loopback, on a busy machine */
	REST_MS = 20,	  /* of a record that has arrived */
};

/* ---- answers ---- */

static struct ktls_answer yes(void)
{
	return (struct ktls_answer){0};
}

static struct ktls_answer printf_like(2, 3) no(int error, const char *fmt, ...)
{
	struct ktls_answer a = {.error = error};
	va_list args;

	va_start(args, fmt);
	vsnprintf(a.why, sizeof(a.why), fmt, args);
	va_end(args);
	return a;
}

/* ret is 0, or -errno of what was tried. */
static struct ktls_answer tried(const char *what, int ret)
{
	return ret ? no(-ret, "%s: %s", what, strerror(-ret)) : yes();
}

/* ---- a pair ---- */

struct pair {
	int tx, rx;
};

static void pair_close(struct pair *p)
{
	scoped_close_(&p->tx);
	scoped_close_(&p->rx);
}
#define scoped_pair __attribute__((cleanup(pair_close))) struct pair

static int pair_connect(struct pair *p)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr *sa = (struct sockaddr *)&sin;
	socklen_t len = sizeof(sin);
	scoped_fd listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (listener < 0 || bind(listener, sa, len) || listen(listener, 1) ||
	    getsockname(listener, sa, &len))
		return -errno;
	p->tx = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (p->tx < 0 || connect(p->tx, sa, len))
		return -errno;
	p->rx = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	return p->rx < 0 ? -errno : 0;
}

static int attach(int fd)
{
	return setsockopt(fd, SOL_TCP, TCP_ULP, "tls", sizeof("tls")) ? -errno : 0;
}

/* generation changes the key: both ends of a pair use the same one. */
static int set_keys(int fd, int direction, uint16_t version, enum tls_cipher cipher,
		    uint8_t generation)
{
	const struct tls_keys keys = {
		.version = version, .cipher = cipher, .key = {generation}, .seq = 1};
	uint8_t info[KEYS_CRYPTO_INFO_MAX];
	size_t len = keys_to_crypto_info(&keys, info);

	return setsockopt(fd, SOL_TLS, direction, info, (socklen_t)len) ? -errno : 0;
}

/* Sends in the kernel at p->tx and receives at p->rx. */
static int pair_key(struct pair *p, uint16_t version, enum tls_cipher cipher)
{
	int ret = pair_connect(p);

	if (!ret)
		ret = attach(p->tx);
	if (!ret)
		ret = attach(p->rx);
	if (!ret)
		ret = set_keys(p->tx, TLS_TX, version, cipher, 0);
	if (!ret)
		ret = set_keys(p->rx, TLS_RX, version, cipher, 0);
	return ret;
}

static const uint16_t versions[] = {TLS_12, TLS_13};

/* With the newest version and the first cipher that work. *cipher, if given: TLS 1.3 only. */
static int pair_any(struct pair *p, enum tls_cipher *cipher)
{
	int ret = -ENOENT;

	for (int v = ARRAY_SIZE(versions) - 1; v >= (cipher ? 1 : 0); v--) {
		for (int c = 0; c < TLS_CIPHERS; c++) {
			ret = pair_key(p, versions[v], (enum tls_cipher)c);
			if (!ret && cipher)
				*cipher = (enum tls_cipher)c;
			if (!ret)
				return 0;
			pair_close(p);
			*p = (struct pair){-1, -1};
		}
	}
	return ret;
}

static bool readable(int fd, int ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, ms) == 1;
}

static struct ktls_answer transfer(const struct pair *p, const char *failure)
{
	char out[] = "ktlsgate", in[sizeof(out)] = "";

	if (send(p->tx, out, sizeof(out), MSG_NOSIGNAL) != sizeof(out))
		return tried("send", -errno);
	if (!readable(p->rx, ARRIVES_MS) ||
	    recv(p->rx, in, sizeof(in), MSG_DONTWAIT) != sizeof(in) || memcmp(out, in, sizeof(in)))
		return no(EIO, "%s", failure);
	return yes();
}

/* ---- keys ---- */

struct ktls_answer ktls_try_ulp(void)
{
	scoped_pair p = {-1, -1};
	int ret = pair_connect(&p);

	if (ret)
		return tried("loopback connection", ret);
	ret = attach(p.tx);
	if (ret == -ENOENT)
		return no(ENOENT, "module tls is not loaded: modprobe tls (CONFIG_TLS)");
	return tried("TCP_ULP", ret);
}

struct ktls_answer ktls_try_keys(bool tx, uint16_t version, enum tls_cipher cipher)
{
	scoped_pair p = {-1, -1};
	int ret = pair_connect(&p);

	if (!ret)
		ret = attach(p.tx);
	if (ret)
		return tried("tls_ulp", ret);
	ret = set_keys(p.tx, tx ? TLS_TX : TLS_RX, version, cipher, 0);
	if (ret == -ENOENT)
		return no(ENOENT, "cipher module missing: modprobe %s",
			  cipher == TLS_CHACHA20_POLY1305 ? "chacha20poly1305" : "gcm");
	return tried(tx ? "TLS_TX" : "TLS_RX", ret);
}

struct ktls_answer ktls_try_cipher(uint16_t version, enum tls_cipher cipher)
{
	scoped_pair p = {-1, -1};
	int ret = pair_key(&p, version, cipher);

	if (!ret) /* both directions of one socket */
		ret = set_keys(p.tx, TLS_RX, version, cipher, 0);
	if (ret)
		return tried("keys", ret);
	return transfer(&p, "what was sent did not arrive");
}

struct ktls_answer ktls_try_rekey(void)
{
	enum tls_cipher cipher = TLS_AES_128_GCM;
	scoped_pair p = {-1, -1};
	int ret = pair_any(&p, &cipher);

	if (ret)
		return tried("kTLS", ret);
	ret = set_keys(p.tx, TLS_TX, TLS_13, cipher, 1);
	if (ret)
		return tried("second TLS_TX", ret);
	ret = set_keys(p.rx, TLS_RX, TLS_13, cipher, 1);
	if (ret)
		return tried("second TLS_RX", ret);
	return transfer(&p, "nothing arrives under a second key");
}

/* ---- records that are not data ---- */

static int send_control(int fd, uint8_t type, void *data, size_t len)
{
	char control[CMSG_SPACE(sizeof(type))] = {0};
	struct iovec iov = {.iov_base = data, .iov_len = len};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = CMSG_LEN(sizeof(type))};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

	cmsg->cmsg_level = SOL_TLS;
	cmsg->cmsg_type = TLS_SET_RECORD_TYPE;
	cmsg->cmsg_len = CMSG_LEN(sizeof(type));
	*CMSG_DATA(cmsg) = type;
	return sendmsg(fd, &msg, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* The type of the next record, or -errno. */
static int recv_control(int fd)
{
	char control[CMSG_SPACE(1)] = {0}, data[64];
	struct iovec iov = {.iov_base = data, .iov_len = sizeof(data)};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = sizeof(control)};
	const struct cmsghdr *cmsg;

	if (recvmsg(fd, &msg, MSG_DONTWAIT) < 0)
		return -errno;
	cmsg = CMSG_FIRSTHDR(&msg);
	if (!cmsg || cmsg->cmsg_level != SOL_TLS || cmsg->cmsg_type != TLS_GET_RECORD_TYPE)
		return -ENOMSG;
	return *CMSG_DATA(cmsg);
}

typedef int pipe_fds[2];
static void pipe_close(pipe_fds *p)
{
	scoped_close_(&(*p)[0]);
	scoped_close_(&(*p)[1]);
}
#define scoped_pipe __attribute__((cleanup(pipe_close))) pipe_fds

struct ktls_answer ktls_try_control_records(void)
{
	char ticket[] = {4, 0, 0, 1, 0};
	scoped_pipe fds = {-1, -1};
	scoped_pair p = {-1, -1};
	int ret = pair_any(&p, NULL), type;
	ssize_t n;

	if (ret)
		return tried("kTLS", ret);
	if (pipe2(fds, O_CLOEXEC))
		return tried("pipe", -errno);
	ret = send_control(p.tx, TYPE_HANDSHAKE, ticket, sizeof(ticket));
	if (ret)
		return tried("TLS_SET_RECORD_TYPE", ret);
	if (!readable(p.rx, ARRIVES_MS))
		return no(EPROTO, "a control record did not wake poll");
	n = splice(p.rx, NULL, fds[1], NULL, RECORD_MAX, SPLICE_F_NONBLOCK);
	if (n >= 0 || errno != EINVAL)
		return no(EPROTO, "splice of a control record gave %zd, not EINVAL", n);
	type = recv_control(p.rx);
	if (type != TYPE_HANDSHAKE)
		return no(EPROTO, "TLS_GET_RECORD_TYPE gave %d, not 22", type);
	return yes();
}

/* ---- pipes ---- */

/* One byte in each of count slots: pages given by vmsplice do not merge. */
static int occupy(int pipe_in, int count, char *pages)
{
	for (int i = 0; i < count; i++) {
		struct iovec page = {.iov_base = pages + (size_t)i * PAGE, .iov_len = 1};

		if (vmsplice(pipe_in, &page, 1, SPLICE_F_NONBLOCK) != 1)
			return -EPIPE;
	}
	return 0;
}

/*
 * A full record spliced into a pipe with one free slot, again and again. Kernels with the flaw lose
 * bytes between two calls, silently; the reader here sees which arrived.
 */
struct ktls_answer ktls_try_refill(void)
{
	enum {
		TAKEN = 15
	};
	scoped_mem char *sent = malloc(RECORD_MAX), *got = malloc(RECORD_MAX + TAKEN);
	scoped_mem char *pages = calloc(TAKEN, PAGE);
	scoped_pipe fds = {-1, -1};
	scoped_pair p = {-1, -1};
	int ret = pair_any(&p, NULL), wait = ARRIVES_MS;
	size_t total = 0;

	if (ret)
		return tried("kTLS", ret);
	if (!sent || !got || !pages || pipe2(fds, O_CLOEXEC | O_NONBLOCK))
		return tried("pipe", -errno);
	if (fcntl(fds[1], F_SETPIPE_SZ, (TAKEN + 1) * PAGE) != (TAKEN + 1) * PAGE)
		return no(EPERM, "cannot try: no pipe of 16 slots");
	for (int i = 0; i < RECORD_MAX; i++)
		sent[i] = (char)(i * 7 + i / 251);
	if (send(p.tx, sent, RECORD_MAX, MSG_NOSIGNAL) != RECORD_MAX)
		return tried("send", -errno);

	while (total < RECORD_MAX && readable(p.rx, wait)) {
		ssize_t n, left;

		wait = REST_MS;
		if (occupy(fds[1], TAKEN, pages))
			return no(EPIPE, "cannot try: the pipe filled early");
		n = splice(p.rx, NULL, fds[1], NULL, RECORD_MAX, SPLICE_F_NONBLOCK);
		if (n <= 0)
			break;
		left = read(fds[0], got, RECORD_MAX + TAKEN);
		if (left != n + TAKEN || (size_t)n > RECORD_MAX - total ||
		    memcmp(got + TAKEN, sent + total, (size_t)n))
			return no(EIO, "wrong bytes after %zu of %d", total, RECORD_MAX);
		total += (size_t)n;
	}
	if (total != RECORD_MAX)
		return no(EIO, "%zu of %d bytes arrived: refill only an empty pipe", total,
			  RECORD_MAX);
	return yes();
}

/* ---- TCP segments that overlap ---- */

static int repair_seq(int fd, int queue, uint32_t *seq)
{
	socklen_t len = sizeof(*seq);

	return setsockopt(fd, SOL_TCP, TCP_REPAIR_QUEUE, &queue, sizeof(queue)) ||
	       getsockopt(fd, SOL_TCP, TCP_QUEUE_SEQ, seq, &len);
}

static int repair_set_seq(int fd, int queue, uint32_t seq)
{
	return setsockopt(fd, SOL_TCP, TCP_REPAIR_QUEUE, &queue, sizeof(queue)) ||
	       setsockopt(fd, SOL_TCP, TCP_QUEUE_SEQ, &seq, sizeof(seq));
}

/* Puts a socket in place of *fd that will send its last bytes, count of them, once more. */
static int repeat_last(int *fd, uint32_t count)
{
	struct sockaddr_in local, peer;
	struct tcp_repair_window window;
	socklen_t len = sizeof(local), window_len = sizeof(window);
	int next, on = TCP_REPAIR_ON, off = TCP_REPAIR_OFF_NO_WP;
	uint32_t sent, received;

	if (getsockname(*fd, (struct sockaddr *)&local, &len) ||
	    getpeername(*fd, (struct sockaddr *)&peer, &len) ||
	    setsockopt(*fd, SOL_TCP, TCP_REPAIR, &on, sizeof(on)) ||
	    repair_seq(*fd, TCP_SEND_QUEUE, &sent) || repair_seq(*fd, TCP_RECV_QUEUE, &received) ||
	    getsockopt(*fd, SOL_TCP, TCP_REPAIR_WINDOW, &window, &window_len))
		return -errno;
	next = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (next < 0)
		return -errno;
	close(*fd); /* under repair: its peer does not notice */
	*fd = next;
	if (setsockopt(next, SOL_TCP, TCP_REPAIR, &on, sizeof(on)) ||
	    bind(next, (struct sockaddr *)&local, len) ||
	    repair_set_seq(next, TCP_SEND_QUEUE, sent - count) ||
	    repair_set_seq(next, TCP_RECV_QUEUE, received) ||
	    connect(next, (struct sockaddr *)&peer, len) ||
	    setsockopt(next, SOL_TCP, TCP_REPAIR_WINDOW, &window, sizeof(window)) ||
	    setsockopt(next, SOL_TCP, TCP_REPAIR, &off, sizeof(off)))
		return -errno;
	return 0;
}

/* A record, as it goes over the wire, or -errno. */
static ssize_t wire_record(enum tls_cipher cipher, const char *text, size_t text_len, uint8_t *out,
			   size_t len)
{
	scoped_pair p = {-1, -1};
	ssize_t n;
	int ret = pair_connect(&p);

	if (!ret)
		ret = attach(p.tx);
	if (!ret)
		ret = set_keys(p.tx, TLS_TX, TLS_13, cipher, 0);
	if (ret)
		return ret;
	if (send(p.tx, text, text_len, MSG_NOSIGNAL) != (ssize_t)text_len ||
	    !readable(p.rx, ARRIVES_MS))
		return -EIO;
	n = recv(p.rx, out, len, MSG_DONTWAIT);
	return n < 0 ? -errno : n;
}

static bool arrived(int fd, int count)
{
	int there = 0;

	for (int ms = 0; ms < ARRIVES_MS && there < count; ms++) {
		if (ioctl(fd, FIONREAD, &there))
			return false;
		if (there < count)
			poll(NULL, 0, 1);
	}
	return there >= count;
}

struct ktls_answer ktls_try_overlap(void)
{
	enum {
		FIRST = 2 /* bytes of the header */
	};
	const char text[] = "ktlsgate";
	enum tls_cipher cipher = TLS_AES_128_GCM;
	scoped_pair p = {-1, -1}, any = {-1, -1};
	uint8_t record[128];
	char in[sizeof(text)] = "";
	ssize_t len;
	int ret = pair_any(&any, &cipher);

	if (ret)
		return tried("kTLS", ret);
	len = wire_record(cipher, text, sizeof(text), record, sizeof(record));
	if (len < 0)
		return tried("a record", (int)len);
	ret = pair_connect(&p);
	if (!ret)
		ret = attach(p.rx);
	if (!ret)
		ret = set_keys(p.rx, TLS_RX, TLS_13, cipher, 0);
	if (ret)
		return tried("TLS_RX", ret);
	if (send(p.tx, record, FIRST, MSG_NOSIGNAL) != FIRST || !arrived(p.rx, FIRST))
		return no(EIO, "cannot try: %d bytes did not arrive", FIRST);
	ret = repeat_last(&p.tx, FIRST);
	if (ret)
		return no(EPERM, "cannot try: TCP_REPAIR: %s", strerror(-ret));
	if (send(p.tx, record, (size_t)len, MSG_NOSIGNAL) != len)
		return tried("send", -errno);
	if (!readable(p.rx, ARRIVES_MS) ||
	    recv(p.rx, in, sizeof(in), MSG_DONTWAIT) != sizeof(text) ||
	    memcmp(text, in, sizeof(in)))
		return no(EBADMSG, "a header in TCP segments that overlap is misread");
	return yes();
}

/* ---- options ---- */

struct ktls_answer ktls_try_no_pad(void)
{
	enum tls_cipher cipher;
	scoped_pair p = {-1, -1};
	int ret = pair_any(&p, &cipher);

	if (ret)
		return tried("kTLS", ret);
	if (setsockopt(p.rx, SOL_TLS, TLS_RX_EXPECT_NO_PAD, &(int){1}, sizeof(int)))
		return tried("TLS_RX_EXPECT_NO_PAD", -errno);
	return yes();
}

struct ktls_answer ktls_try_max_payload(void)
{
	scoped_pair p = {-1, -1};
	int ret = pair_any(&p, NULL);
	uint16_t len = 4096;

	if (ret)
		return tried("kTLS", ret);
	if (setsockopt(p.tx, SOL_TLS, TLS_TX_MAX_PAYLOAD_LEN, &len, sizeof(len)))
		return tried("TLS_TX_MAX_PAYLOAD_LEN", -errno);
	return yes();
}

/* ---- all that the daemon wants to know ---- */

void ktls_probe(struct ktls_caps *caps)
{
	memset(caps, 0, sizeof(*caps));
	for (int v = 0; v < 2; v++) {
		for (int c = 0; c < TLS_CIPHERS; c++) {
			int error = ktls_try_cipher(versions[v], (enum tls_cipher)c).error;

			if (!error)
				caps->ciphers[v] |= (uint8_t)(1u << c);
			else if (!caps->error)
				caps->error = error;
		}
	}
	if (!(caps->ciphers[0] | caps->ciphers[1]))
		return;
	/* Without their types a ticket could not be told from data. */
	caps->error = ktls_try_control_records().error;
	caps->control = !caps->error;
	if (caps->error)
		return;
	caps->rekey = !ktls_try_rekey().error;
	caps->refill = !ktls_try_refill().error;
}
