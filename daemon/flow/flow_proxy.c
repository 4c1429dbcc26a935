// SPDX-License-Identifier: Apache-2.0
/* The headers of the PROXY protocol: the one a proxy in front of us sends, and the one a backend is
 * sent. */
#include "flow/flow_internal.h"

#include <errno.h>
#include <string.h>
#include "flow/flow.h"
#include "pki/names.h"

/* ---- what a proxy tells of its client ---- */

static enum reason proxy_reason(enum proxy_error error)
{
	switch (error) {
	case PROXY_ABSENT:
		return REASON_proxy_absent;
	case PROXY_VERSION_1:
		return REASON_proxy_version;
	default:
		return REASON_proxy_malformed;
	}
}

static void proxy_header_complete(struct flow *f)
{
	struct proxy_addresses a;
	enum proxy_error error = proxy_parse(f->proxy->bytes, f->proxy->have, &a);

	free(TAKE_PTR(f->proxy));
	if (error) {
		flow_fail(f, proxy_reason(error), NULL);
		return;
	}
	/* LOCAL: the proxy speaks for itself. */
	if (a.source.sin6_family != AF_UNSPEC) {
		f->peer = a.source;
		f->hs->local = a.destination;
	}
	flow_await_client(f);
}

/* Exactly the header, first what tells its length: what is behind belongs to the handshake. */
static void proxy_header_read(struct ring_op *op, int res)
{
	struct flow *f = container_of(op, struct side, rx)->flow;
	struct proxy_header *p = f->proxy;
	enum proxy_error error;
	size_t body = 0;

	if (f->stage != FLOW_STAGE_HANDSHAKE)
		return;
	if (res <= 0 && res != -EINTR) {
		flow_fail(f, REASON_client_gone, res ? strerror(-res) : NULL);
		return;
	}
	p->have += res > 0 ? (size_t)res : 0;
	error = p->have < PROXY_HEAD ? proxy_check(p->bytes, p->have)
				     : proxy_body_len(p->bytes, &body);
	if (error)
		flow_fail(f, proxy_reason(error), NULL);
	else if (p->have == PROXY_HEAD + body)
		proxy_header_complete(f);
	else
		ring_recv(f->worker->ring, op, f->client.fd, p->bytes + p->have,
			  PROXY_HEAD + body - p->have);
}

void flow_await_proxy_header(struct flow *f)
{
	f->proxy = calloc(1, sizeof(*f->proxy));
	if (!f->proxy) {
		flow_fail(f, REASON_no_memory, NULL);
		return;
	}
	f->client.rx.done = proxy_header_read;
	ring_recv(f->worker->ring, &f->client.rx, f->client.fd, f->proxy->bytes, PROXY_HEAD);
}

/* ---- what the backend is told of the client ---- */

static void client_addresses(struct flow *f, struct proxy_addresses *a)
{
	socklen_t len = sizeof(a->destination);

	a->source = f->peer;
	a->destination = f->hs->local;
	/* Else a proxy in front has told. */
	if (a->destination.sin6_family == AF_UNSPEC)
		getsockname(f->client.fd, (struct sockaddr *)&a->destination, &len);
}

/* The subject's CN as UTF-8, to be freed with OPENSSL_free(), and its length; 0: there is none. */
static size_t common_name(X509 *cert, unsigned char **out)
{
	X509_NAME *subject = cert ? X509_get_subject_name(cert) : NULL;
	int at = subject ? X509_NAME_get_index_by_NID(subject, NID_commonName, -1) : -1, len;

	*out = NULL;
	if (at < 0)
		return 0;
	len = names_utf8(X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)), out);
	return len > 0 ? (size_t)len : 0;
}

static size_t build_proxy_header(struct flow *f, uint8_t *out)
{
	SSL *ssl = f->client.hs->ssl;
	X509 *cert = SSL_get0_peer_certificate(ssl);
	bool tell_tls = f->service->send_proxy == SEND_PROXY_TLS;
	unsigned char *name;
	size_t name_len = common_name(tell_tls ? cert : NULL, &name);
	struct proxy_tls tls = {
		.version = SSL_get_version(ssl),
		.cipher = SSL_get_cipher_name(ssl),
		.common_name = name,
		.common_name_len = name_len,
		.certificate = cert,
		.verified = true, /* or we would not be here */
	};
	struct proxy_addresses a;
	const uint8_t *alpn;
	unsigned alpn_len;
	size_t n;

	client_addresses(f, &a);
	SSL_get0_alpn_selected(ssl, &alpn, &alpn_len);
	n = proxy_build(&a, f->client.hs->server_name, alpn, alpn_len, tell_tls ? &tls : NULL, out);
	OPENSSL_free(name);
	return n;
}

static void proxy_header_sent(struct ring_op *op, int res)
{
	struct flow *f = container_of(op, struct side, tx)->flow;
	struct proxy_header *p = f->proxy;

	if (f->stage != FLOW_STAGE_HANDSHAKE || f->hs->switching)
		return;
	if (res < 0 && res != -EINTR) {
		flow_backend_unreachable(f, REASON_backend_gone, strerror(-res));
		return;
	}
	p->sent += res > 0 ? (size_t)res : 0;
	if (p->sent < p->have) {
		ring_send(f->worker->ring, op, f->backend.fd, p->bytes + p->sent,
			  p->have - p->sent);
		return;
	}
	free(TAKE_PTR(f->proxy));
	flow_start_backend_handshake(f);
}

/* In front of all else (section 2): the backend's handshake waits for it. */
void flow_send_proxy_header(struct flow *f)
{
	f->proxy = calloc(1, sizeof(*f->proxy));
	if (!f->proxy) {
		flow_fail(f, REASON_no_memory, NULL);
		return;
	}
	f->proxy->have = build_proxy_header(f, f->proxy->bytes);
	f->backend.tx.done = proxy_header_sent;
	ring_send(f->worker->ring, &f->backend.tx, f->backend.fd, f->proxy->bytes, f->proxy->have);
}
