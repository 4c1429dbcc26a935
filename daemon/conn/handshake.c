/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One side's TLS handshake: SSL object, exact-record reads, counted writes.
 * Knows neither forging nor the other side: it reports events and is resumed.
 */
#include <errno.h>
#include <string.h>
#include <openssl/err.h>
#include "conn/handshake.h"
#include "base/log.h"
#include "tls/transcript.h"

#define CA_NAMES_MAX 65536 /* bytes of a backend's CertificateRequest */

static void step(struct handshake *hs);

/* ---- contexts and callbacks ---- */

static int unhex(const char *hex, uint8_t *out, size_t max)
{
	size_t n = 0;

	for (; n < max && hex[0] && hex[1]; hex += 2, n++) {
		int high = OPENSSL_hexchar2int((unsigned char)hex[0]);
		int low = OPENSSL_hexchar2int((unsigned char)hex[1]);

		if (high < 0 || low < 0)
			break;
		out[n] = (uint8_t)(high << 4 | low);
	}
	return (int)n;
}

/* NSS key log format: "LABEL client_random secret". */
static void keylog_cb(const SSL *ssl, const char *line)
{
	static const char *const labels[] = {
		"CLIENT_HANDSHAKE_TRAFFIC_SECRET ",
		"SERVER_HANDSHAKE_TRAFFIC_SECRET ",
		"CLIENT_TRAFFIC_SECRET_0 ",
		"SERVER_TRAFFIC_SECRET_0 ",
	};
	struct handshake *hs = SSL_get_app_data(ssl);
	uint8_t *const slots[] = {
		hs->secrets.client_handshake,
		hs->secrets.server_handshake,
		hs->secrets.client_traffic,
		hs->secrets.server_traffic,
	};
	const char *secret = strrchr(line, ' ');

	for (size_t i = 0; secret && i < ARRAY_SIZE(labels); i++) {
		if (strncmp(line, labels[i], strlen(labels[i])))
			continue;
		hs->secrets.len = (uint8_t)unhex(secret + 1, slots[i], 48);
		hs->secrets.have |= (uint8_t)(1u << i);
	}
}

static int client_hello_cb(SSL *ssl, int *alert, void *arg)
{
	struct handshake *hs = SSL_get_app_data(ssl);

	(void)arg;
	hs->hello_seen = true;
	return hs->hello ? hs->hello(hs, alert) : SSL_CLIENT_HELLO_SUCCESS;
}

static int alpn_select_cb(SSL *ssl, const unsigned char **out, unsigned char *out_len,
			  const unsigned char *in, unsigned in_len, void *arg)
{
	const struct handshake *hs = SSL_get_app_data(ssl);

	(void)in;
	(void)in_len;
	(void)arg;
	*out = hs->alpn.entry + 1;
	*out_len = (unsigned char)alpn_len(&hs->alpn);
	return *out_len ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_NOACK;
}

/*
 * The client side's certificate is not known before the client of the other
 * side is verified: -1 suspends the handshake here (SSL_ERROR_WANT_X509_LOOKUP).
 */
static int cert_cb(SSL *ssl, void *arg)
{
	struct handshake *hs = SSL_get_app_data(ssl);

	(void)arg;
	return hs->resume ? 1 : -1;
}

/* Alerts received are told to the info callback only. */
static void info_cb(const SSL *ssl, int where, int value)
{
	struct handshake *hs = SSL_get_app_data(ssl);

	if (where == SSL_CB_READ_ALERT && value >> 8 == SSL3_AL_FATAL)
		hs->alert = value & 0xff;
}

static void transcript_add(struct handshake *hs, const uint8_t *msg, size_t len)
{
	uint8_t *grown;

	if (hs->transcript_len + len > TRANSCRIPT_MAX) {
		hs->transcript_on = false;
		return;
	}
	grown = realloc(hs->transcript, hs->transcript_len + len);
	if (!grown) {
		hs->transcript_on = false;
		hs->transcript_no_memory = true;
		return;
	}
	memcpy(grown + hs->transcript_len, msg, len);
	hs->transcript = grown;
	hs->transcript_len += (uint32_t)len;
}

/* The entries of a Certificate message's list, as far as it is one: OpenSSL will judge its form. */
static unsigned count_certificates(const uint8_t *list, const uint8_t *end, bool tls13)
{
	unsigned n = 0;
	size_t len;

	for (; end - list > 3; list += len, n++) {
		len = 3 + ((size_t)list[0] << 16 | (size_t)list[1] << 8 | list[2]);
		if (tls13 && (size_t)(end - list) >= len + 2)
			len += 2 + ((size_t)list[len] << 8 | list[len + 1]);
		if ((size_t)(end - list) < len)
			break;
	}
	return n;
}

/*
 * OpenSSL reads all certificates, at 40 us each, before it asks anybody, and a list as long as we
 * take has room for hundreds. This is the only place where a message is seen before that, and no
 * return value stops the handshake. So the list's length, in OpenSSL's buffer, is made a wrong one.
 */
static void look_at_certificates(struct handshake *hs, uint8_t *message, size_t len)
{
	bool tls13 = SSL_version(hs->ssl) == TLS1_3_VERSION;
	size_t at = SSL3_HM_HEADER_LENGTH + (tls13 ? 1 : 0); /* context, which is empty */
	struct verify_result too_many = {.error = VERIFY_ERR_CERTIFICATES,
					 .excess = {.max = VERIFY_SENT_MAX}};

	if (len < at + 3)
		return;
	too_many.excess.n = count_certificates(message + at + 3, message + len, tls13);
	if (too_many.excess.n <= VERIFY_SENT_MAX)
		return;
	hs->refused = HANDSHAKE_VERIFY;
	hs->verdict = too_many.error;
	verify_result_text(&too_many, hs->detail, sizeof(hs->detail));
	memset(message + at, 0xff, 3);
}

static void message_cb(int sent, int version, int content_type, const void *buf, size_t len,
		       SSL *ssl, void *arg)
{
	struct handshake *hs = SSL_get_app_data(ssl);

	(void)version;
	(void)arg;
	if (content_type != SSL3_RT_HANDSHAKE || !len)
		return;
	if (!sent)
		hs->last_received = *(const uint8_t *)buf;
	if (!sent && hs->last_received == SSL3_MT_CERTIFICATE)
		look_at_certificates(hs, (uint8_t *)buf, len);
	if (!hs->transcript_on || hs->transcript_done)
		return;
	transcript_add(hs, buf, len);
	if (!sent && *(const uint8_t *)buf == SSL3_MT_CERTIFICATE_VERIFY)
		hs->transcript_done = hs->transcript_on;
}

/*
 * RFC 8879, which OpenSSL 3.2 and later negotiate unasked. The signer has to read the certificates
 * in the handshake messages, and what a peer has compressed may be a thousand times as large: so
 * neither direction offers it. Peers fall back to Certificate, whatever they would have liked.
 */
static void refuse_compressed_certificates(SSL_CTX *ctx)
{
#ifdef SSL_OP_NO_RX_CERTIFICATE_COMPRESSION
	SSL_CTX_set_options(ctx, SSL_OP_NO_RX_CERTIFICATE_COMPRESSION |
					 SSL_OP_NO_TX_CERTIFICATE_COMPRESSION);
#else
	(void)ctx;
#endif
}

SSL_CTX *handshake_ctx_new(bool server, const struct cfg_profile *profile)
{
	SSL_CTX *ctx = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());

	if (!ctx)
		return NULL;
	if (!SSL_CTX_set_min_proto_version(ctx, (int)profile->tls_min) ||
	    !SSL_CTX_set_max_proto_version(ctx, (int)profile->tls_max) ||
	    !SSL_CTX_set_cipher_list(ctx, profile->ciphers) ||
	    !SSL_CTX_set_ciphersuites(ctx, profile->ciphersuites) ||
	    !SSL_CTX_set1_groups_list(ctx, profile->groups)) {
		SSL_CTX_free(ctx);
		return NULL;
	}
	SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION |
					 SSL_OP_NO_COMPRESSION | SSL_OP_PRIORITIZE_CHACHA |
					 (server ? SSL_OP_CIPHER_SERVER_PREFERENCE : 0));
	refuse_compressed_certificates(ctx);
	/* A backend's list of CA names, which it limits too, may be longer than a certificate list.
	 */
	SSL_CTX_set_max_cert_list(ctx, server ? VERIFY_BYTES_MAX : CA_NAMES_MAX);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_num_tickets(ctx, 0);
	/* A peer may take its time: meanwhile there are none of OpenSSL's, of 17 KiB each. */
	SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_keylog_callback(ctx, keylog_cb);
	SSL_CTX_set_info_callback(ctx, info_cb);
	if (server) {
		SSL_CTX_set_client_hello_cb(ctx, client_hello_cb, NULL);
		SSL_CTX_set_alpn_select_cb(ctx, alpn_select_cb, NULL);
	} else {
		SSL_CTX_set_cert_cb(ctx, cert_cb, NULL);
	}
	return ctx;
}

/* ---- life ---- */

struct handshake *handshake_new(struct side *side, struct ring *ring, SSL_CTX *ctx, bool server,
				void (*event)(struct handshake *, enum handshake_event))
{
	struct handshake *hs = calloc(1, sizeof(*hs));

	if (!hs)
		return NULL;
	hs->side = side;
	hs->ring = ring;
	hs->event = event;
	hs->alert = ALERT_NONE;
	hs->ssl = SSL_new(ctx);
	hs->in = BIO_new(BIO_s_mem());
	hs->out = BIO_new(BIO_s_mem());
	if (!hs->ssl || !hs->in || !hs->out) {
		BIO_free(hs->in);
		BIO_free(hs->out);
		SSL_free(hs->ssl);
		free(hs);
		return NULL;
	}
	BIO_set_mem_eof_return(hs->in, -1);
	BIO_set_mem_eof_return(hs->out, -1);
	SSL_set_bio(hs->ssl, hs->in, hs->out);
	SSL_set_app_data(hs->ssl, hs);
	SSL_set_msg_callback(hs->ssl, message_cb);
	if (server)
		SSL_set_accept_state(hs->ssl);
	else
		SSL_set_connect_state(hs->ssl);
	return hs;
}

void handshake_free(struct handshake *hs)
{
	if (!hs)
		return;
	SSL_free(hs->ssl);
	OPENSSL_cleanse(&hs->secrets, sizeof(hs->secrets));
	free(hs->record);
	free(hs->output);
	free(hs->transcript);
	free(hs->ticket_data);
	sk_X509_pop_free(hs->resumed_chain, X509_free);
	free(hs);
}

/* ---- failure ---- */

static void fail(struct handshake *hs, enum handshake_failure failure, int error)
{
	if (!hs->failure) {
		hs->failure = failure;
		hs->error = error;
	}
	hs->event(hs, HANDSHAKE_FAILED);
}

/* Of an operation of the ring. */
static void fail_operation(struct handshake *hs, int error)
{
	bool memory = error == ENOMEM || error == ENOBUFS;

	fail(hs, memory ? HANDSHAKE_NO_MEMORY : HANDSHAKE_RESET, error);
}

/* A Certificate message that SSL_CTX_set_max_cert_list() does not let in. */
static enum handshake_failure excessive(struct handshake *hs, int *error)
{
	OSSL_HANDSHAKE_STATE state = SSL_get_state(hs->ssl);

	if (state != TLS_ST_SR_CERT && state != TLS_ST_CR_CERT)
		return HANDSHAKE_PROTOCOL;
	*error = hs->verdict = VERIFY_ERR_BYTES;
	snprintf(hs->detail, sizeof(hs->detail), "more than %ld bytes of certificates",
		 SSL_get_max_cert_list(hs->ssl));
	return HANDSHAKE_VERIFY;
}

/* OpenSSL's reason codes, grouped into what an operator can act on. */
static enum handshake_failure classify(struct handshake *hs, int *error)
{
	unsigned long e = ERR_peek_last_error();
	int reason = ERR_GET_LIB(e) == ERR_LIB_SSL ? ERR_GET_REASON(e) : 0;
	bool memory = ERR_GET_REASON(e) == ERR_R_MALLOC_FAILURE;
	const char *text = ERR_reason_error_string(e);

	if (hs->refused) {
		*error = hs->verdict;
		return hs->refused;
	}
	if (!hs->detail[0])
		snprintf(hs->detail, sizeof(hs->detail), "%s", text ? text : "unknown error");
	if (hs->alert != ALERT_NONE)
		return HANDSHAKE_PEER_ALERT;
	if (memory)
		return HANDSHAKE_NO_MEMORY;
	switch (reason) {
	case SSL_R_CERTIFICATE_VERIFY_FAILED:
		*error = (int)SSL_get_verify_result(hs->ssl);
		return HANDSHAKE_VERIFY;
	case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
		return HANDSHAKE_NO_CERTIFICATE;
	case SSL_R_UNSUPPORTED_PROTOCOL:
	case SSL_R_WRONG_SSL_VERSION:
	case SSL_R_WRONG_VERSION_NUMBER:
	case SSL_R_VERSION_TOO_LOW:
	case SSL_R_UNKNOWN_PROTOCOL:
		return HANDSHAKE_VERSION;
	case SSL_R_NO_SHARED_CIPHER:
	case SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM:
	case SSL_R_NO_SHARED_SIGNATURE_ALGORITHMS:
	case SSL_R_NO_SUITABLE_KEY_SHARE:
	case SSL_R_NO_SHARED_GROUPS:
	case SSL_R_NO_CIPHERS_AVAILABLE:
		return HANDSHAKE_CIPHER;
	case SSL_R_BAD_SIGNATURE:
		return HANDSHAKE_SIGNATURE;
	case SSL_R_EXCESSIVE_MESSAGE_SIZE:
		return excessive(hs, error);
	default:
		return HANDSHAKE_PROTOCOL;
	}
}

void handshake_verdict(X509_STORE_CTX *ctx, const struct verify_result *verdict)
{
	SSL *ssl = X509_STORE_CTX_get_ex_data(ctx, SSL_get_ex_data_X509_STORE_CTX_idx());
	struct handshake *hs = SSL_get_app_data(ssl);

	X509_STORE_CTX_set_error(ctx, verdict->error);
	X509_STORE_CTX_set_error_depth(ctx, verdict->depth);
	if (verdict->error == X509_V_OK)
		return;
	hs->verdict = verdict->error;
	verify_result_text(verdict, hs->detail, sizeof(hs->detail));
}

const char *handshake_failure_detail(const struct handshake *hs, char *buf, size_t len)
{
	switch (hs->failure) {
	case HANDSHAKE_PEER_ALERT:
		if (alert_name(hs->alert))
			snprintf(buf, len, "%s", alert_name(hs->alert));
		else
			snprintf(buf, len, "alert %d", hs->alert);
		return buf;
	case HANDSHAKE_VERIFY:
		return hs->verdict ? hs->detail : verify_error_text(hs->error);
	case HANDSHAKE_RESET:
		return strerror(hs->error);
	case HANDSHAKE_EOF:
	case HANDSHAKE_NOT_TLS:
	case HANDSHAKE_NO_CERTIFICATE:
	case HANDSHAKE_NO_MEMORY:
		return NULL;
	default:
		return hs->detail[0] ? hs->detail : NULL;
	}
}

/* ---- output ---- */

static void sent(struct ring_op *op, int res);

static void send_output(struct handshake *hs)
{
	if (hs->side->tx.armed || hs->output_off == hs->output_len)
		return;
	hs->side->tx.done = sent;
	ring_send(hs->ring, &hs->side->tx, hs->side->fd, hs->output + hs->output_off,
		  hs->output_len - hs->output_off);
}

/* Looks at each record that is about to leave: it is counted, and its explicit nonce kept. */
static void count_records(struct handshake *hs, const uint8_t *p, size_t n)
{
	while (n >= RECORD_HEADER) {
		size_t len = RECORD_HEADER + (size_t)(p[3] << 8 | p[4]);

		if (len > n)
			break;
		hs->tx_step_records++;
		if (p[0] == RECORD_APPLICATION_DATA ||
		    (p[0] == RECORD_CHANGE_CIPHER_SPEC && SSL_version(hs->ssl) == TLS1_2_VERSION))
			hs->tx_encrypted = true;
		if (len >= RECORD_HEADER + sizeof(hs->last_explicit_nonce))
			memcpy(hs->last_explicit_nonce, p + RECORD_HEADER,
			       sizeof(hs->last_explicit_nonce));
		p += len;
		n -= len;
	}
}

/* Takes what OpenSSL wrote in this step; that of the step before is sent. False: no memory. */
static bool collect_output(struct handshake *hs)
{
	char *data;
	long n = BIO_get_mem_data(hs->out, &data);

	hs->tx_step_records = 0;
	if (n <= 0)
		return true;
	hs->output = malloc((size_t)n);
	if (!hs->output)
		return false;
	memcpy(hs->output, data, (size_t)n);
	hs->output_off = 0;
	hs->output_len = (uint32_t)n;
	count_records(hs, hs->output, hs->output_len);
	(void)BIO_reset(hs->out);
	return true;
}

static void sent(struct ring_op *op, int res)
{
	struct side *side = container_of(op, struct side, tx);
	struct handshake *hs = side->hs;

	if (!hs)
		return;
	/* Also when stopped: the closing code sends what is left, and nothing twice. */
	if (res > 0)
		hs->output_off += (uint32_t)res;
	if (hs->stopped)
		return;
	if (res < 0 && res != -EINTR) {
		fail_operation(hs, -res);
		return;
	}
	if (hs->output_off < hs->output_len) {
		send_output(hs);
		return;
	}
	free(hs->output);
	hs->output = NULL;
	hs->output_off = hs->output_len = 0;
	/* Steps wait for their output, so there is always one to take here. */
	step(hs);
}

/* ---- input: one whole record, and not a byte more ---- */

static void received(struct ring_op *op, int res);

static void receive(struct handshake *hs)
{
	struct side *side = hs->side;
	uint8_t *at = hs->record_len ? hs->record : hs->header;
	uint32_t want = hs->record_len ? hs->record_len : RECORD_HEADER;

	if (side->rx.armed)
		return;
	side->rx.done = received;
	ring_recv(hs->ring, &side->rx, side->fd, at + hs->record_have, want - hs->record_have);
}

/* The others that it takes are bounded by OpenSSL. */
static bool may_be_long(uint8_t message)
{
	return message == SSL3_MT_CLIENT_HELLO || message == SSL3_MT_CERTIFICATE;
}

/*
 * OpenSSL makes room for a whole message as soon as it knows its length: 128 KiB for a ClientHello
 * of which four bytes have come. So the length is looked at here, as long as it can be read: until
 * TLS 1.3 seals the records, TLS 1.2 after its ChangeCipherSpec.
 */
static bool claims_too_much(struct handshake *hs)
{
	const uint8_t *p = hs->record + RECORD_HEADER, *end = hs->record + hs->record_len;

	if (!hs->max_received || hs->released || hs->record[0] != RECORD_HANDSHAKE)
		return false;
	while (p < end) {
		uint32_t skip = (uint32_t)(end - p);

		if (hs->message_left) {
			skip = skip < hs->message_left ? skip : hs->message_left;
			hs->message_left -= skip;
			p += skip;
			continue;
		}
		hs->message[hs->message_have++] = *p++;
		if (hs->message_have < sizeof(hs->message))
			continue;
		hs->message_have = 0;
		hs->message_left =
			(uint32_t)(hs->message[1] << 16 | hs->message[2] << 8 | hs->message[3]);
		if (may_be_long(hs->message[0]) && hs->message_left > hs->max_received)
			return true;
	}
	return false;
}

static void feed(struct handshake *hs)
{
	bool fed = BIO_write(hs->in, hs->record, (int)hs->record_len) == (int)hs->record_len;

	free(hs->record);
	hs->record = NULL;
	hs->record_len = hs->record_have = 0;
	if (fed)
		step(hs);
	else
		fail(hs, HANDSHAKE_NO_MEMORY, ENOMEM);
}

/* All that authenticates the client has been processed, whether it showed a certificate or not. */
static bool client_proven(const struct handshake *hs)
{
	if (SSL_get0_peer_certificate(hs->ssl))
		return hs->last_received == SSL3_MT_CERTIFICATE_VERIFY;
	return hs->last_received == SSL3_MT_CLIENT_KEY_EXCHANGE;
}

/* A ChangeCipherSpec that comes too early, in place of the proof, is OpenSSL's to refuse. */
static bool must_hold(const struct handshake *hs)
{
	return hs->hold_change_cipher_spec && !hs->held &&
	       hs->header[0] == RECORD_CHANGE_CIPHER_SPEC &&
	       SSL_version(hs->ssl) == TLS1_2_VERSION && client_proven(hs);
}

static int header_complete(struct handshake *hs)
{
	struct record_header h;
	int alert, ret;

	ret = record_parse_header(hs->header, 0, &h, &alert);
	if (ret < 0)
		return ret;
	hs->record_len = RECORD_HEADER + h.length;
	hs->received_bytes += hs->record_len;
	if (hs->max_received && hs->received_bytes > hs->max_received)
		return -EMSGSIZE;
	hs->record = malloc(hs->record_len);
	if (!hs->record)
		return -ENOMEM;
	memcpy(hs->record, hs->header, RECORD_HEADER);
	hs->record_have = RECORD_HEADER;
	return 0;
}

static void received(struct ring_op *op, int res)
{
	struct side *side = container_of(op, struct side, rx);
	struct handshake *hs = side->hs;
	int ret;

	if (!hs || hs->stopped)
		return;
	if (res == -EINTR) {
		receive(hs);
		return;
	}
	if (res < 0) {
		fail_operation(hs, -res);
		return;
	}
	if (res == 0) {
		fail(hs, HANDSHAKE_EOF, 0);
		return;
	}
	hs->record_have += (uint32_t)res;
	if (!hs->record_len && hs->record_have == RECORD_HEADER) {
		ret = header_complete(hs);
		if (ret == -ENOMEM || ret == -EMSGSIZE) {
			fail(hs, ret == -ENOMEM ? HANDSHAKE_NO_MEMORY : HANDSHAKE_TOO_LONG, -ret);
			return;
		}
		if (ret < 0) {
			fail(hs, HANDSHAKE_NOT_TLS, 0);
			return;
		}
	}
	if (!hs->record_len || hs->record_have < hs->record_len) {
		receive(hs);
		return;
	}
	if (claims_too_much(hs)) {
		fail(hs, HANDSHAKE_TOO_LONG, EMSGSIZE);
		return;
	}
	if (must_hold(hs)) {
		hs->held = true;
		hs->event(hs, HANDSHAKE_HELD);
		return;
	}
	feed(hs);
}

/* ---- steps ---- */

/*
 * One step of OpenSSL, then its output is sent whole before the next: the
 * peer waits for it anyway, and DONE then means that TCP has everything.
 */
static void step(struct handshake *hs)
{
	int ret, ssl_error, error = 0;

	if (hs->finished) {
		hs->event(hs, HANDSHAKE_DONE);
		return;
	}
	ERR_clear_error();
	ret = SSL_do_handshake(hs->ssl);
	ssl_error = ret == 1 ? SSL_ERROR_NONE : SSL_get_error(hs->ssl, ret);
	if (ssl_error == SSL_ERROR_SSL || ssl_error == SSL_ERROR_SYSCALL)
		hs->failure = classify(hs, &error);
	ERR_clear_error();
	if (!collect_output(hs)) {
		fail(hs, HANDSHAKE_NO_MEMORY, ENOMEM);
		return;
	}
	if (hs->failure) {
		/* The output holds OpenSSL's alert: the closing code sends it. */
		fail(hs, hs->failure, hs->error = error);
		return;
	}
	hs->finished = ssl_error == SSL_ERROR_NONE;
	hs->suspended = ssl_error == SSL_ERROR_WANT_X509_LOOKUP ||
			ssl_error == SSL_ERROR_WANT_CLIENT_HELLO_CB;
	if (hs->hello_seen && !hs->hello_told) {
		hs->hello_told = true;
		hs->event(hs, HANDSHAKE_HELLO);
		if (hs->stopped)
			return;
	}
	if (hs->output_len) {
		send_output(hs);
	} else if (hs->finished) {
		hs->event(hs, HANDSHAKE_DONE);
	} else if (hs->suspended) {
		hs->event(hs, HANDSHAKE_SUSPENDED);
	} else {
		receive(hs);
	}
}

void handshake_ticket(struct handshake *hs)
{
	ERR_clear_error();
	if (!SSL_new_session_ticket(hs->ssl) || SSL_do_handshake(hs->ssl) != 1 ||
	    !collect_output(hs) || !hs->output_len) {
		ERR_clear_error();
		(void)BIO_reset(hs->out);
		fail(hs, HANDSHAKE_NO_MEMORY, ENOMEM);
		return;
	}
	ERR_clear_error();
	/* The number of the next record is now theirs: see keys_13(). */
	send_output(hs);
}

void handshake_start(struct handshake *hs)
{
	step(hs);
}

void handshake_stop(struct handshake *hs)
{
	hs->stopped = true;
	ring_cancel(hs->ring, &hs->side->rx);
	ring_cancel(hs->ring, &hs->side->tx);
}

void handshake_release(struct handshake *hs)
{
	hs->released = true;
	feed(hs);
}

void handshake_resume(struct handshake *hs)
{
	hs->resume = true;
	hs->suspended = false;
	step(hs);
}

/* ---- keys ---- */

static int keys_13(struct handshake *hs, enum tls_cipher cipher, const char *digest,
		   struct tls_keys *rx, struct tls_keys *tx)
{
	bool server = SSL_is_server(hs->ssl);
	const uint8_t *rx_secret = server ? hs->secrets.client_traffic : hs->secrets.server_traffic;
	const uint8_t *tx_secret = server ? hs->secrets.server_traffic : hs->secrets.client_traffic;
	struct side_secrets *kept = &hs->side->secrets;
	int ret;

	if ((hs->secrets.have & 0xc) != 0xc)
		return -EIO;
	ret = keys_tls13(cipher, digest, rx_secret, hs->secrets.len, rx);
	if (!ret)
		ret = keys_tls13(cipher, digest, tx_secret, hs->secrets.len, tx);
	if (ret)
		return ret;
	/* A server's records after the client's Finished (tickets) are under this key already. */
	tx->seq = server ? hs->tx_step_records : 0;
	memcpy(kept->rx, rx_secret, hs->secrets.len);
	memcpy(kept->tx, tx_secret, hs->secrets.len);
	kept->len = hs->secrets.len;
	return 0;
}

static int keys_12(struct handshake *hs, enum tls_cipher cipher, const char *digest,
		   struct tls_keys *rx, struct tls_keys *tx)
{
	bool server = SSL_is_server(hs->ssl);
	uint8_t master[48], client_random[32], server_random[32];
	uint64_t nonce = 0;
	int ret;

	if (SSL_SESSION_get_master_key(SSL_get_session(hs->ssl), master, sizeof(master)) != 48)
		return -EIO;
	SSL_get_client_random(hs->ssl, client_random, sizeof(client_random));
	SSL_get_server_random(hs->ssl, server_random, sizeof(server_random));
	ret = keys_tls12(cipher, digest, master, client_random, server_random, server ? rx : tx,
			 server ? tx : rx);
	OPENSSL_cleanse(master, sizeof(master));
	if (ret)
		return ret;
	/* Each side has sent one record under these keys: its Finished. */
	rx->seq = tx->seq = 1;
	for (int i = 0; i < 8; i++)
		nonce = nonce << 8 | hs->last_explicit_nonce[i];
	tx->explicit_nonce = nonce + 1;
	return 0;
}

int handshake_keys(struct handshake *hs, struct tls_keys *rx, struct tls_keys *tx)
{
	const SSL_CIPHER *suite = SSL_get_current_cipher(hs->ssl);
	const char *digest;
	enum tls_cipher cipher;
	int ret;

	if (!suite)
		return -EIO;
	ret = tls_cipher_from_nid(SSL_CIPHER_get_cipher_nid(suite), &cipher);
	if (ret)
		return ret;
	digest = EVP_MD_get0_name(SSL_CIPHER_get_handshake_digest(suite));
	hs->side->version = (uint16_t)SSL_version(hs->ssl);
	hs->side->cipher = (uint8_t)cipher;
	return hs->side->version == TLS_13 ? keys_13(hs, cipher, digest, rx, tx)
					   : keys_12(hs, cipher, digest, rx, tx);
}

/* ---- tickets ---- */

/* As the server sealed its first records, whatever came between them since. */
static int reseal(struct handshake *hs, const uint8_t *p, size_t n, uint8_t *buf)
{
	const SSL_CIPHER *suite = SSL_get_current_cipher(hs->ssl);
	struct record_cipher seal = {0};
	struct tls_keys keys;
	enum tls_cipher cipher;
	ssize_t len = -EIO;

	if (!tls_cipher_from_nid(SSL_CIPHER_get_cipher_nid(suite), &cipher) &&
	    !keys_tls13(cipher, EVP_MD_get0_name(SSL_CIPHER_get_handshake_digest(suite)),
			hs->secrets.server_traffic, hs->secrets.len, &keys)) {
		keys.seq = hs->ticket_records++;
		if (!record_cipher_init(&seal, &keys, true)) {
			memcpy(buf + record_headroom(&seal), p, n);
			len = record_seal(&seal, RECORD_HANDSHAKE, buf, n);
		}
		record_cipher_free(&seal);
		keys_wipe(&keys);
	}
	return (int)len;
}

/* OpenSSL has no other way to make a session of a ticket: the resumption secret stays inside. */
int handshake_ticket_received(struct handshake *hs, const uint8_t *p, size_t n,
			      SSL_SESSION **session)
{
	const SSL_SESSION *before = SSL_get0_session(hs->ssl);
	scoped_mem uint8_t *record = malloc(n + RECORD_OVERHEAD_MAX);
	int len = record ? reseal(hs, p, n, record) : -1, ret;
	uint8_t none;

	*session = NULL;
	if (len < 0 || BIO_write(hs->in, record, len) != len)
		return -EPROTO;
	ERR_clear_error();
	ret = SSL_read(hs->ssl, &none, sizeof(none));
	if (SSL_get_error(hs->ssl, ret) != SSL_ERROR_WANT_READ) {
		ERR_clear_error();
		return -EPROTO;
	}
	/* Each ticket makes another one of what there was. */
	if (SSL_get0_session(hs->ssl) != before)
		*session = SSL_get0_session(hs->ssl);
	return 0;
}

/* ---- an alert of ours ---- */

static size_t seal_alert(const struct tls_keys *keys, int alert, uint8_t *buf)
{
	struct record_cipher seal = {0};
	uint8_t *payload;
	ssize_t n = -1;

	if (!record_cipher_init(&seal, keys, true)) {
		payload = buf + record_headroom(&seal);
		payload[0] = 2; /* fatal */
		payload[1] = (uint8_t)alert;
		n = record_seal(&seal, RECORD_ALERT, buf, 2);
	}
	record_cipher_free(&seal);
	return n > 0 ? (size_t)n : 0;
}

static size_t sealed_alert(struct handshake *hs, const uint8_t *secret, int alert, uint8_t *buf)
{
	const SSL_CIPHER *suite = SSL_get_current_cipher(hs->ssl);
	struct tls_keys keys;
	enum tls_cipher cipher;
	size_t n;

	if (!suite || tls_cipher_from_nid(SSL_CIPHER_get_cipher_nid(suite), &cipher) ||
	    keys_tls13(cipher, EVP_MD_get0_name(SSL_CIPHER_get_handshake_digest(suite)), secret,
		       hs->secrets.len, &keys))
		return 0;
	keys.seq = hs->finished && SSL_is_server(hs->ssl) ? hs->tx_step_records : 0;
	n = seal_alert(&keys, alert, buf);
	keys_wipe(&keys);
	return n;
}

/* Behind our ChangeCipherSpec; the Finished, sent or about to be, is the only record under its key.
 */
static size_t tls12_alert(struct handshake *hs, int alert, uint8_t *buf)
{
	struct tls_keys rx, tx;
	size_t n;

	if (handshake_keys(hs, &rx, &tx))
		return 0;
	n = seal_alert(&tx, alert, buf);
	keys_wipe(&rx);
	keys_wipe(&tx);
	return n;
}

/* Feeds one record if all of it is there; nothing waits here. */
static bool feed_now(struct handshake *hs)
{
	uint8_t header[RECORD_HEADER];
	struct record_header h;
	uint8_t *record;
	ssize_t len;
	int alert;

	if (recv(hs->side->fd, header, sizeof(header), MSG_PEEK | MSG_DONTWAIT) !=
		    (ssize_t)sizeof(header) ||
	    record_parse_header(header, 0, &h, &alert))
		return false;
	len = RECORD_HEADER + h.length;
	record = malloc((size_t)len);
	if (!record)
		return false;
	if (recv(hs->side->fd, record, (size_t)len, MSG_DONTWAIT) != len)
		len = 0;
	if (len)
		BIO_write(hs->in, record, (int)len);
	free(record);
	return len > 0;
}

/* Certificate, CertificateVerify and Finished, cut as the backend likes. */
#define LAST_FLIGHT_RECORDS 16

/*
 * TLS 1.3, waiting at the CertificateRequest: OpenSSL makes the client
 * handshake key only when it goes on, behind the backend's Finished. It goes on
 * with nothing, its output (an empty Certificate) is thrown away, and the alert
 * is the first record under that key. Go refuses a plaintext alert here,
 * everybody takes this one.
 */
static size_t suspended_alert(struct handshake *hs, int alert, uint8_t *buf)
{
	int ret, left = LAST_FLIGHT_RECORDS;

	hs->resume = true;
	do {
		ERR_clear_error();
		ret = SSL_do_handshake(hs->ssl);
	} while (!(hs->secrets.have & 1) && left-- &&
		 SSL_get_error(hs->ssl, ret) == SSL_ERROR_WANT_READ && feed_now(hs));
	ERR_clear_error();
	(void)BIO_reset(hs->out);
	if (!(hs->secrets.have & 1))
		return record_plain_alert(alert, buf);
	return sealed_alert(hs, hs->secrets.client_handshake, alert, buf);
}

uint16_t handshake_max_fragment(const struct handshake *hs)
{
	const SSL_SESSION *session = SSL_get0_session(hs->ssl);
	uint8_t code = session ? SSL_SESSION_get_max_fragment_length(session) : 0;

	return code ? (uint16_t)(256u << code) : 0;
}

size_t handshake_alert(struct handshake *hs, int alert, uint8_t buf[64])
{
	bool tls13 = SSL_version(hs->ssl) == TLS1_3_VERSION && SSL_get_current_cipher(hs->ssl);

	/* Output not yet sent goes in front of ours; after a failure it is OpenSSL's own alert. */
	if (alert == ALERT_NONE || (hs->failure && hs->output_off < hs->output_len))
		return 0;
	/* There was no memory to take it: nothing can follow. */
	if (BIO_pending(hs->out))
		return 0;
	if (!tls13)
		return hs->tx_encrypted ? tls12_alert(hs, alert, buf)
					: record_plain_alert(alert, buf);
	if (SSL_is_server(hs->ssl)) {
		if (hs->secrets.have & 8)
			return sealed_alert(hs, hs->secrets.server_traffic, alert, buf);
		return hs->tx_encrypted ? 0 : record_plain_alert(alert, buf);
	}
	if (hs->suspended)
		return suspended_alert(hs, alert, buf);
	if (hs->finished)
		return sealed_alert(hs, hs->secrets.client_traffic, alert, buf);
	return hs->tx_encrypted ? 0 : record_plain_alert(alert, buf);
}
