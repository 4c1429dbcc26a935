// SPDX-License-Identifier: Apache-2.0
/*
 * The unencrypted part of a handshake, on a real socket and ring: what a client or a backend may
 * send before anything is known of it. In TLS 1.2 that goes on to its certificates and their
 * verification.
 * Input: role and size of records, then items up to the end:
 *   0 bytes as they are      1 a ClientHello or ServerHello, with further extensions
 *   2 certificates (cert.c)  3 any message     4 a record of any type
 */
#include "fuzz.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <unistd.h>
#include "conn/handshake.h"
#include "pki/verify.h"

#define STREAM_MAX	 120000
#define CERTIFICATES_MAX 600

static const struct fuzz_bound bound = {.base_us = 60000, .byte_ns = 2000};

static struct ring *ring;
static const struct cfg_profile profile = {
	.tls_min = TLS1_2_VERSION,
	.tls_max = TLS1_3_VERSION,
	.ciphers = (char *)"ECDHE+AESGCM:ECDHE+CHACHA20",
	.ciphersuites = (char *)"TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256",
	.groups = (char *)"X25519:P-256",
};
static SSL_CTX *server, *client;
static STACK_OF(X509) * anchors;
static bool ended;

/* ---- our side ---- */

static int judge(X509_STORE_CTX *ctx, void *arg)
{
	const struct verify_policy policy = VERIFY_POLICY_DEFAULT;
	struct verifier *v = verifier_new(anchors, &policy);
	enum verify_purpose purpose = arg ? VERIFY_CLIENT : VERIFY_SERVER;
	struct verify_result r;
	int ret;

	ENSURE(v);
	ret = verify_chain(v, purpose, X509_STORE_CTX_get0_cert(ctx),
			   X509_STORE_CTX_get0_untrusted(ctx), FUZZ_NOW, &r);
	verifier_free(v);
	X509_STORE_CTX_set_error(ctx, r.error);
	if (ret)
		return 0;
	X509_STORE_CTX_set0_verified_chain(ctx, r.chain);
	return 1;
}

static X509 *anchor(void)
{
	const unsigned char *p;
	struct der d;
	X509 *cert;

	der_begin(&d, 10000);
	fuzz_anchor(&d);
	p = d.p;
	cert = d2i_X509(NULL, &p, (long)d.len);
	der_free(&d);
	return cert;
}

static void begin(void)
{
	X509 *cert = anchor();

	anchors = sk_X509_new_null();
	server = handshake_ctx_new(true, &profile);
	client = handshake_ctx_new(false, &profile);
	ENSURE(cert && anchors && sk_X509_push(anchors, cert) && server && client);
	ENSURE(SSL_CTX_use_certificate(server, cert) &&
	       SSL_CTX_use_PrivateKey(server, fuzz_key(0)));
	SSL_CTX_set_verify(server, SSL_VERIFY_PEER, NULL);
	SSL_CTX_set_verify(client, SSL_VERIFY_PEER, NULL);
	SSL_CTX_set_cert_verify_callback(server, judge, server);
	SSL_CTX_set_cert_verify_callback(client, judge, NULL);
	ENSURE(!ring_new(16, &ring));
}

static void on_event(struct handshake *hs, enum handshake_event event)
{
	char detail[256];

	if (event == HANDSHAKE_HELD)
		handshake_release(hs);
	if (event == HANDSHAKE_SUSPENDED || event == HANDSHAKE_HELLO)
		handshake_resume(hs);
	/* Nobody here knows a key. */
	ENSURE(event != HANDSHAKE_DONE);
	if (event != HANDSHAKE_FAILED)
		return;
	ENSURE(hs->failure != HANDSHAKE_OK);
	(void)handshake_failure_detail(hs, detail, sizeof(detail));
	ended = true;
}

/* What is out is completed: its buffers are the handshake's. */
static void settle(struct side *s)
{
	for (unsigned i = 0; i < 1000 && (s->rx.armed || s->tx.armed); i++) {
		ENSURE(!ring_wait(ring, 100));
		ring_complete(ring);
	}
	ENSURE(!s->rx.armed && !s->tx.armed);
}

struct stream {
	const uint8_t *p;
	size_t len;
	bool from_backend;
};

static void run(void *arg)
{
	const struct stream *stream = arg;
	struct side side = {.role = stream->from_backend ? SIDE_BACKEND : SIDE_CLIENT};
	int pair[2], size = 1 << 20;
	struct handshake *hs;
	uint8_t record[64];

	ENSURE(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	(void)!send(pair[0], stream->p, stream->len, MSG_DONTWAIT);
	shutdown(pair[0], SHUT_WR);
	side.fd = pair[1];
	hs = handshake_new(&side, ring, stream->from_backend ? client : server,
			   !stream->from_backend, on_event);
	ENSURE(hs);
	side.hs = hs;
	ended = false;
	handshake_start(hs);
	for (unsigned i = 0; i < STREAM_MAX && !ended; i++) {
		ENSURE(!ring_wait(ring, 100));
		ring_complete(ring);
	}
	ENSURE(ended);
	(void)!handshake_alert(hs, ALERT_INTERNAL_ERROR, record);
	handshake_stop(hs);
	settle(&side);
	handshake_free(hs);
	close(pair[0]);
	close(pair[1]);
	ERR_clear_error();
}

/* ---- what the peer sends ---- */

static void number(struct der *d, unsigned bytes, size_t n)
{
	uint8_t be[4] = {(uint8_t)(n >> 24), (uint8_t)(n >> 16), (uint8_t)(n >> 8), (uint8_t)n};

	der_bytes(d, be + 4 - bytes, bytes);
}

/* Cut into records of a size. */
static void records(struct der *d, unsigned type, const uint8_t *p, size_t n, size_t size)
{
	do {
		size_t part = n < size ? n : size;

		number(d, 1, type);
		number(d, 2, 0x0303);
		number(d, 2, part);
		der_bytes(d, p, part);
		p += part;
		n -= part;
	} while (n && !d->full);
}

static void message(struct der *d, unsigned type, const struct der *body, size_t size)
{
	struct der m;

	der_begin(&m, STREAM_MAX);
	number(&m, 1, type);
	number(&m, 3, body->len);
	der_bytes(&m, body->p, body->len);
	records(d, 22, m.p, m.len, size);
	der_free(&m);
}

static const uint8_t client_extensions[] = {
	0, 10, 0, 4, 0, 2, 0, 29,	/* supported_groups: x25519 */
	0, 13, 0, 6, 0, 4, 8, 7,  4, 3, /* signature_algorithms: ed25519, P-256 */
	0, 23, 0, 0,			/* extended_master_secret */
	0, 11, 0, 2, 1, 0,		/* ec_point_formats */
};
static const uint8_t server_extensions[] = {
	0xff, 1,  0, 1, 0, /* renegotiation_info */
	0,    23, 0, 0,
};

static void hello(struct der *d, struct fuzz_input *in, bool from_backend, size_t size)
{
	size_t n, len = fuzz_byte(in);
	const uint8_t *more = fuzz_bytes(in, len, &n);
	const uint8_t *known = from_backend ? server_extensions : client_extensions;
	size_t n_known = from_backend ? sizeof(server_extensions) : sizeof(client_extensions);
	uint8_t random[32] = "the random of a fuzzed handshake";
	struct der body;

	der_begin(&body, STREAM_MAX);
	number(&body, 2, 0x0303);
	der_bytes(&body, random, sizeof(random));
	number(&body, 1, 0);
	if (!from_backend)
		number(&body, 2, 4);
	number(&body, 2, 0xc02b);
	if (!from_backend)
		number(&body, 2, 0xcca9);
	number(&body, from_backend ? 1 : 2, from_backend ? 0 : 0x100);
	number(&body, 2, n_known + n);
	der_bytes(&body, known, n_known);
	der_bytes(&body, more, n);
	message(d, from_backend ? 2 : 1, &body, size);
	der_free(&body);
}

/* Programs, as many as a byte says. */
static void certificates(struct der *d, struct fuzz_input *in, size_t size)
{
	size_t from[CERTIFICATES_MAX + 1];
	unsigned programs = fuzz_byte(in), n = 0;
	struct der certs, body;

	der_begin(&certs, STREAM_MAX);
	der_begin(&body, STREAM_MAX);
	for (; programs && n < CERTIFICATES_MAX && !certs.full; programs--)
		n += fuzz_certificate(&certs, in, from + n, CERTIFICATES_MAX - n);
	if (!certs.full)
		from[n] = certs.len;
	number(&body, 3, n ? from[n] - from[0] + 3 * n : 0);
	for (unsigned i = 0; i < n; i++) {
		number(&body, 3, from[i + 1] - from[i]);
		der_bytes(&body, certs.p + from[i], from[i + 1] - from[i]);
	}
	message(d, 11, &body, size);
	der_free(&certs);
	der_free(&body);
}

static void any_message(struct der *d, struct fuzz_input *in, size_t size)
{
	unsigned type = fuzz_byte(in), len = fuzz_word(in);
	size_t n;
	const uint8_t *p = fuzz_bytes(in, len & 0xff, &n);
	struct der body;

	der_begin(&body, STREAM_MAX);
	der_bytes(&body, p, n);
	for (; n < len && !body.full; n++)
		number(&body, 1, 0);
	message(d, type, &body, size);
	der_free(&body);
}

static void item(struct der *d, struct fuzz_input *in, bool from_backend, size_t size)
{
	unsigned op = fuzz_byte(in), type;
	const uint8_t *p;
	size_t n, len;

	switch (op % 5) {
	case 1:
		hello(d, in, from_backend, size);
		return;
	case 2:
		certificates(d, in, size);
		return;
	case 3:
		any_message(d, in, size);
		return;
	case 4:
		type = fuzz_byte(in);
		len = fuzz_byte(in);
		p = fuzz_bytes(in, len, &n);
		records(d, type, p, n, size);
		return;
	default:
		len = fuzz_byte(in);
		p = fuzz_bytes(in, len, &n);
		der_bytes(d, p, n);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};
	unsigned how = fuzz_byte(&in);
	struct stream stream;
	struct der d;

	if (!ring)
		begin();
	der_begin(&d, STREAM_MAX);
	while (in.left && !d.full)
		item(&d, &in, how & 1, how >> 1 ? (how >> 1) * 128u : 1);
	stream = (struct stream){d.p, d.len, how & 1};
	fuzz_bounded(&bound, d.len, run, &stream);
	der_free(&d);
	return 0;
}
