/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preloaded into ktlsgated: system calls that fail when a test says so, in the
 * file KTLSGATE_FAULT, which all its processes share. See tests/harness/fault.py.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#ifndef SOL_TLS
#define SOL_TLS 282
#endif

enum call {
	NONE,
	ATTACH, /* setsockopt(TCP_ULP) */
	TX_KEYS,
	RX_KEYS,
	READ,	    /* the relay's, from a socket: splice, or recv of the user engine */
	CONGESTION, /* setsockopt(TCP_CONGESTION) */
	DEVICE, /* the kernel's word on who does TLS; error: 1 what is sent, 2 received, 3 both */
};

static struct fault {
	_Atomic int32_t call;	/* enum call */
	_Atomic int32_t cipher; /* TLS_CIPHER_*, 0: any */
	_Atomic int32_t skip;	/* calls that pass before */
	_Atomic int32_t times;	/* calls that fail then */
	_Atomic int32_t error;	/* their errno; 0: the kernel refuses, given a key it cannot know */
} * fault;

static int (*next_setsockopt)(int, int, int, const void *, socklen_t);
static ssize_t (*next_recv)(int, void *, size_t, int);
static ssize_t (*next_pread)(int, void *, size_t, off_t);
static ssize_t (*next_splice)(int, off64_t *, int, off64_t *, size_t, unsigned);

static void *next(const char *name)
{
	void *p = dlsym(RTLD_NEXT, name);

	if (!p)
		abort();
	return p;
}

/* Before the daemon's main(): later its processes may neither open nor look up anything. */
static void __attribute__((constructor)) prepare(void)
{
	const char *path = getenv("KTLSGATE_FAULT");
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	void *p = mmap(NULL, sizeof(*fault), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	next_setsockopt = next("setsockopt");
	next_recv = next("recv");
	next_pread = next("pread");
	next_splice = next("splice");
	if (p == MAP_FAILED)
		abort();
	fault = p;
	close(fd);
}

static bool due(int32_t call, int32_t cipher)
{
	if (fault->call != call || (fault->cipher && fault->cipher != cipher))
		return false;
	if (fault->skip > 0) {
		fault->skip--;
		return false;
	}
	if (fault->times <= 0)
		return false;
	fault->times--;
	return true;
}

int setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
	struct tls_crypto_info unknown = {.version = TLS_1_3_VERSION, .cipher_type = 0xffff};
	const struct tls_crypto_info *info = value;
	int32_t call = NONE;

	if (level == IPPROTO_TCP && name == TCP_ULP)
		call = ATTACH;
	else if (level == IPPROTO_TCP && name == TCP_CONGESTION)
		call = CONGESTION;
	else if (level == SOL_TLS && (name == TLS_TX || name == TLS_RX))
		call = name == TLS_TX ? TX_KEYS : RX_KEYS;
	if (call == NONE || !due(call, level == SOL_TLS ? info->cipher_type : 0))
		return next_setsockopt(fd, level, name, value, len);
	if (!fault->error)
		return next_setsockopt(fd, level, name, &unknown, sizeof(unknown));
	errno = fault->error;
	return -1;
}

/* In sock_diag's answer: TLS_INFO_TXCONF and RXCONF of two bytes, software. */
static void put_device(uint8_t *p, ssize_t n, int32_t which)
{
	uint8_t conf[] = {6, 0, TLS_INFO_TXCONF, 0, TLS_CONF_SW, 0};

	for (ssize_t i = 0; i + (ssize_t)sizeof(conf) <= n; i += 4) {
		for (int bit = 1; bit <= 2; bit++) {
			conf[2] = bit == 1 ? TLS_INFO_TXCONF : TLS_INFO_RXCONF;
			if (which & bit && !memcmp(p + i, conf, sizeof(conf)))
				p[i + 4] = TLS_CONF_HW;
		}
	}
}

/* The signer may not even ask what its descriptors are. */
static bool is_sock_diag(const void *answer, ssize_t n)
{
	struct nlmsghdr head;

	if (n < (ssize_t)sizeof(head))
		return false;
	memcpy(&head, answer, sizeof(head)); /* records are read through here, too, to anywhere */
	return head.nlmsg_len == (uint32_t)n && head.nlmsg_type == SOCK_DIAG_BY_FAMILY;
}

/* What is read so is /proc/net/tls_stat: a device has had keys. */
ssize_t pread(int fd, void *buf, size_t n, off_t at)
{
	ssize_t len = next_pread(fd, buf, n, at);
	char *zero = len > 0 ? memmem(buf, (size_t)len, "TlsTxDevice", 11) : NULL;

	if (fault->call == DEVICE && zero && (zero = strpbrk(zero, "0123456789")))
		*zero = '1';
	return len;
}

ssize_t recv(int fd, void *buf, size_t n, int flags)
{
	if (fault->call == DEVICE) {
		ssize_t len = next_recv(fd, buf, n, flags);

		if (is_sock_diag(buf, len))
			put_device(buf, len, fault->error);
		return len;
	}
	if (flags != MSG_DONTWAIT || !due(READ, 0))
		return next_recv(fd, buf, n, flags);
	errno = fault->error;
	return -1;
}

ssize_t splice(int in, off64_t *in_at, int out, off64_t *out_at, size_t n, unsigned flags)
{
	if (!due(READ, 0))
		return next_splice(in, in_at, out, out_at, n, flags);
	errno = fault->error;
	return -1;
}
