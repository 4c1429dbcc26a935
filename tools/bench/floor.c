// SPDX-License-Identifier: Apache-2.0
/*
 * The floor that the ktls engine is measured against: two kernel AES-GCM passes, recv(2) and
 * send(2), and nothing else. One flow, blocking calls, no events, no counters, no care for how
 * streams end. The handshakes are the daemon's, so that the same keys come into the kernel the same
 * way.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include "config/config_table.h"
#include "conn/handshake.h"
#include "conn/ktls.h"

#define BUFFER (256 << 10)

static const char *shown_cert, *shown_key;
static struct ring *ring;

static void __attribute__((noreturn)) die(const char *what)
{
	fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
	ERR_print_errors_fp(stderr);
	exit(2);
}

static void event(struct handshake *hs, enum handshake_event ev)
{
	if (ev == HANDSHAKE_FAILED)
		die(side_name(hs->side));
	if (ev != HANDSHAKE_SUSPENDED)
		return;
	if (SSL_use_certificate_chain_file(hs->ssl, shown_cert) != 1 ||
	    SSL_use_PrivateKey_file(hs->ssl, shown_key, SSL_FILETYPE_PEM) != 1)
		die(shown_cert);
	handshake_resume(hs);
}

/* To its end, and the keys into the kernel. */
static void secure(struct side *s, SSL_CTX *ctx, bool server)
{
	struct tls_keys rx, tx;
	int one = 1;

	setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (ktls_attach(s))
		die("TCP_ULP");
	s->hs = handshake_new(s, ring, ctx, server, event);
	if (!s->hs)
		die("handshake");
	handshake_start(s->hs);
	while (!s->hs->finished || s->hs->output_len) {
		if (ring_wait(ring, -1))
			die("io_uring");
		ring_complete(ring);
	}
	if (handshake_keys(s->hs, &rx, &tx) || ktls_install(s, &rx, &tx) ||
	    fcntl(s->fd, F_SETFL, O_RDWR)) /* ktls_install() made it non-blocking */
		die("keys");
	keys_wipe(&rx);
	keys_wipe(&tx);
	handshake_free(s->hs);
}

/* False: the stream has ended, somehow. */
static bool relay(struct side *from, const struct side *to)
{
	static uint8_t buf[BUFFER];
	ssize_t n = recv(from->fd, buf, sizeof(buf), 0), sent;
	uint8_t type;

	/* No data: a backend's tickets. */
	if (n < 0 && errno == EIO)
		return ktls_recv(from, buf, sizeof(buf), &type) > 0 && type == RECORD_HANDSHAKE;
	if (n <= 0)
		return false;
	for (ssize_t off = 0; off < n; off += sent) {
		sent = send(to->fd, buf + off, (size_t)(n - off), MSG_NOSIGNAL);
		if (sent <= 0)
			return false;
	}
	return true;
}

static void say_goodbye(struct side *s)
{
	static const uint8_t close_notify[2] = {1, ALERT_CLOSE_NOTIFY};

	if (ktls_send_record(s, RECORD_ALERT, close_notify, sizeof(close_notify)))
		die("close_notify");
	shutdown(s->fd, SHUT_WR);
}

static void carry(struct side *client, struct side *backend)
{
	struct pollfd p[2] = {{.fd = client->fd, .events = POLLIN},
			      {.fd = backend->fd, .events = POLLIN}};
	bool goes_on = true;

	while (goes_on) {
		if (poll(p, 2, -1) < 0)
			die("poll");
		if (p[0].revents)
			goes_on = relay(client, backend);
		if (goes_on && p[1].revents)
			goes_on = relay(backend, client);
	}
	say_goodbye(client);
	say_goodbye(backend);
	close(client->fd);
	close(backend->fd);
}

static struct sockaddr_in loopback(const char *port)
{
	return (struct sockaddr_in){.sin_family = AF_INET,
				    .sin_port = htons((uint16_t)atoi(port)),
				    .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static SSL_CTX *context(bool server, const char *ca)
{
	struct cfg_profile defaults = {0};
	SSL_CTX *ctx;

	if (cfg_set_defaults(SCOPE_PROFILE, &defaults))
		die("defaults");
	ctx = handshake_ctx_new(server, &defaults);

	if (!ctx || SSL_CTX_load_verify_locations(ctx, ca, NULL) != 1)
		die(ca);
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	return ctx;
}

int main(int argc, char **argv)
{
	struct sockaddr_in front, back;
	SSL_CTX *server, *client;
	int one = 1, listener;

	if (argc != 9) {
		fputs("floor LISTEN-PORT BACKEND-PORT CERT KEY CLIENT-CA SHOWN-CERT SHOWN-KEY "
		      "BACKEND-CA\n",
		      stderr);
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	front = loopback(argv[1]);
	back = loopback(argv[2]);
	server = context(true, argv[5]);
	if (SSL_CTX_use_certificate_chain_file(server, argv[3]) != 1 ||
	    SSL_CTX_use_PrivateKey_file(server, argv[4], SSL_FILETYPE_PEM) != 1)
		die(argv[3]);
	shown_cert = argv[6];
	shown_key = argv[7];
	client = context(false, argv[8]);
	listener = socket(AF_INET, SOCK_STREAM, 0);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(listener, (struct sockaddr *)&front, sizeof(front)) || listen(listener, 16) ||
	    ring_new(64, &ring))
		die("listen");
	puts("ready");
	fflush(stdout);
	for (;;) {
		struct side c = {.role = SIDE_CLIENT}, b = {.role = SIDE_BACKEND};

		c.fd = accept(listener, NULL, NULL);
		b.fd = socket(AF_INET, SOCK_STREAM, 0);
		if (c.fd < 0 || connect(b.fd, (struct sockaddr *)&back, sizeof(back)))
			die("connect");
		secure(&c, server, true);
		secure(&b, client, false);
		carry(&c, &b);
	}
}
