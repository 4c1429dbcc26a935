/* SPDX-License-Identifier: Apache-2.0 */
/* Kernel TLS sockets: install, control records, TX accounting. Knows no flow. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <linux/tls.h>
#include <sys/ioctl.h>
#include "conn/ktls.h"
#include "base/log.h"
#include "base/sockopt.h"

#ifndef SOL_TCP
#define SOL_TCP 6
#endif
#ifndef SOL_TLS
#define SOL_TLS 282
#endif

/* ---- installing ---- */

static int set_keys(int fd, int direction, const struct tls_keys *keys)
{
	uint8_t info[KEYS_CRYPTO_INFO_MAX];
	size_t len = keys_to_crypto_info(keys, info);
	int ret = setsockopt(fd, SOL_TLS, direction, info, (socklen_t)len) ? -errno : 0;

	OPENSSL_cleanse(info, sizeof(info));
	return ret;
}

static int attach_ulp(int fd)
{
	return setsockopt(fd, SOL_TCP, TCP_ULP, "tls", sizeof("tls")) ? -errno : 0;
}

/* Everything TCP was ever given on this socket, less a constant; -errno if it cannot be told. */
static int64_t given_to_tcp(int fd)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);
	int queued;

	/* In this order: an ACK in between makes the sum too small, never too large. */
	memset(&info, 0, sizeof(info));
	if (getsockopt(fd, SOL_TCP, TCP_INFO, &info, &len) || ioctl(fd, SIOCOUTQ, &queued))
		return -errno;
	return (int64_t)info.tcpi_bytes_acked + queued;
}

/* As a base it must be exact: one too small would tell "drained" too early. */
static int64_t given_exactly(int fd)
{
	int64_t given = given_to_tcp(fd), again;

	/* An ACK in between only ever takes away from the sum. */
	while (given >= 0 && (again = given_to_tcp(fd)) > given)
		given = again;
	return given;
}

int ktls_attach(struct side *side)
{
	return attach_ulp(side->fd);
}

int ktls_install(struct side *side, const struct tls_keys *rx, const struct tls_keys *tx)
{
	int64_t base = given_exactly(side->fd);
	int flags = fcntl(side->fd, F_GETFL);
	int ret;

	if (base < 0)
		return (int)base;
	/* splice(2) to a socket heeds O_NONBLOCK only, not SPLICE_F_NONBLOCK. */
	if (flags < 0 || fcntl(side->fd, F_SETFL, flags | O_NONBLOCK))
		return -errno;
	ret = set_keys(side->fd, TLS_TX, tx);
	if (ret)
		return ret;
	side->keyed = true;
	side->tx_base = (uint64_t)base;
	side->tx_plain = 0;
	side->tx_records = 0;
	side->tx_seq0 = tx->seq;
	return set_keys(side->fd, TLS_RX, rx);
}

/* ---- TX accounting ---- */

/* The sequence number of the next record to be sent. */
static int tx_sequence(const struct side *side, uint64_t *out)
{
	union {
		struct tls12_crypto_info_aes_gcm_128 gcm128;
		struct tls12_crypto_info_aes_gcm_256 gcm256;
		struct tls12_crypto_info_chacha20_poly1305 chacha;
	} info;
	const uint8_t *seq;
	socklen_t len;
	uint64_t value = 0;

	switch (side->cipher) {
	case TLS_AES_128_GCM:
		len = sizeof(info.gcm128);
		seq = info.gcm128.rec_seq;
		break;
	case TLS_AES_256_GCM:
		len = sizeof(info.gcm256);
		seq = info.gcm256.rec_seq;
		break;
	default:
		len = sizeof(info.chacha);
		seq = info.chacha.rec_seq;
		break;
	}
	if (getsockopt(side->fd, SOL_TLS, TLS_TX, &info, &len)) {
		OPENSSL_cleanse(&info, sizeof(info));
		return -errno;
	}
	for (int i = 0; i < 8; i++)
		value = value << 8 | seq[i];
	OPENSSL_cleanse(&info, sizeof(info));
	*out = value;
	return 0;
}

static uint64_t overhead(const struct side *side)
{
	if (side->version == TLS_13)
		return RECORD_HEADER + 1 + 16;
	return side->cipher == TLS_CHACHA20_POLY1305 ? RECORD_HEADER + 16 : RECORD_HEADER + 8 + 16;
}

int ktls_tx_drained(struct side *side)
{
	uint64_t seq = 0, records, expected;
	int64_t given;

	if (tx_sequence(side, &seq))
		return 0;
	given = given_to_tcp(side->fd);
	if (given < 0)
		return 0;
	records = side->tx_records + (seq - side->tx_seq0);
	expected = side->tx_base + side->tx_plain + records * overhead(side);
	if ((uint64_t)given >= expected)
		return 1;
	/* Reset, and TCP has thrown away what it had: the sum will never be reached. */
	if (sockopt_tcp_closed(side->fd))
		return -EPIPE;
	return 0;
}

/* ---- re-keying ---- */

int ktls_rekey_rx(struct side *side, const struct tls_keys *rx)
{
	return set_keys(side->fd, TLS_RX, rx);
}

int ktls_keep_rx(struct side *side)
{
	uint8_t info[KEYS_CRYPTO_INFO_MAX];
	struct tls_keys any = {.version = side->version, .cipher = side->cipher};
	socklen_t len = (socklen_t)keys_to_crypto_info(&any, info);
	int ret = 0;

	if (getsockopt(side->fd, SOL_TLS, TLS_RX, info, &len) ||
	    setsockopt(side->fd, SOL_TLS, TLS_RX, info, len))
		ret = -errno;
	OPENSSL_cleanse(info, sizeof(info));
	return ret;
}

int ktls_rekey_tx(struct side *side, const struct tls_keys *tx)
{
	uint64_t seq = 0;
	int ret = tx_sequence(side, &seq);

	if (!ret)
		ret = set_keys(side->fd, TLS_TX, tx);
	if (ret)
		return ret;
	side->tx_records += seq - side->tx_seq0;
	side->tx_seq0 = 0;
	return 0;
}

/* ---- records ---- */

static ssize_t recv_record(const struct side *side, void *buf, size_t len, int flags, uint8_t *type)
{
	union {
		char buf[CMSG_SPACE(sizeof(unsigned char))];
		struct cmsghdr align;
	} control;
	struct iovec iov = {.iov_base = buf, .iov_len = len};
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf),
	};
	struct cmsghdr *cmsg;
	ssize_t n = TEMP_FAILURE_RETRY(recvmsg(side->fd, &msg, MSG_DONTWAIT | flags));

	if (n < 0)
		return -errno;
	*type = 0;
	cmsg = CMSG_FIRSTHDR(&msg);
	if (cmsg && cmsg->cmsg_level == SOL_TLS && cmsg->cmsg_type == TLS_GET_RECORD_TYPE)
		*type = *CMSG_DATA(cmsg);
	return n;
}

ssize_t ktls_recv(struct side *side, void *buf, size_t len, uint8_t *type)
{
	return recv_record(side, buf, len, 0, type);
}

int ktls_ended(struct side *side)
{
	uint8_t byte, type = 0;
	ssize_t n = recv_record(side, &byte, sizeof(byte), MSG_PEEK, &type);

	if (n == -EAGAIN || n == -EKEYEXPIRED)
		return 0;
	return n < 0 ? (int)n : n == 0 && !type;
}

bool ktls_take_receive_error(struct side *side, int error)
{
	int left = 0;
	socklen_t len = sizeof(left);

	if (!ktls_is_bad_record(error))
		return false;
	/* None there: it was about the send after all. */
	if (getsockopt(side->fd, SOL_SOCKET, SO_ERROR, &left, &len) || !left)
		return false;
	side->rx_error = left;
	side->readable = true;
	return true;
}

void ktls_resume_tx(struct side *side)
{
	int value;
	socklen_t len = sizeof(value);

	getsockopt(side->fd, SOL_SOCKET, SO_ERROR, &value, &len);
	/* Any value, the present one too, ends in sk_write_space(). */
	len = sizeof(value);
	if (!getsockopt(side->fd, SOL_TCP, TCP_NOTSENT_LOWAT, &value, &len))
		setsockopt(side->fd, SOL_TCP, TCP_NOTSENT_LOWAT, &value, sizeof(value));
}

int ktls_send_record(struct side *side, uint8_t type, const void *buf, size_t len)
{
	union {
		char buf[CMSG_SPACE(sizeof(unsigned char))];
		struct cmsghdr align;
	} control = {{0}};
	struct iovec iov = {.iov_base = (void *)(uintptr_t)buf, .iov_len = len};
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
	ssize_t n;

	cmsg->cmsg_level = SOL_TLS;
	cmsg->cmsg_type = TLS_SET_RECORD_TYPE;
	cmsg->cmsg_len = CMSG_LEN(sizeof(unsigned char));
	*CMSG_DATA(cmsg) = type;
	do {
		n = TEMP_FAILURE_RETRY(sendmsg(side->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL));
	} while (n < 0 && ktls_take_receive_error(side, errno));
	if (n < 0)
		return -errno;
	side->tx_plain += (uint64_t)n;
	return (size_t)n == len ? 0 : -EIO;
}
