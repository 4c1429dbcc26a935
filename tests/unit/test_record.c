// SPDX-License-Identifier: Apache-2.0
/*
 * The record layer against OpenSSL's: after a real handshake one end's SSL is
 * replaced by record.c with the same keys. Then every way to be refused.
 * `test_record --bench` prints what sealing and opening cost.
 */
#include "unit.h"
#include "tls/record.h"

#include <errno.h>
#include <time.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#define BUF_LEN (4 * RECORD_MAX)

/* ---- a handshake between two SSL objects ---- */

static const struct suite {
	uint16_t version;
	enum tls_cipher cipher;
	const char *name;
} suites[] = {
	{TLS_13, TLS_AES_128_GCM, "TLS_AES_128_GCM_SHA256"},
	{TLS_13, TLS_AES_256_GCM, "TLS_AES_256_GCM_SHA384"},
	{TLS_13, TLS_CHACHA20_POLY1305, "TLS_CHACHA20_POLY1305_SHA256"},
	{TLS_12, TLS_AES_128_GCM, "ECDHE-ECDSA-AES128-GCM-SHA256"},
	{TLS_12, TLS_AES_256_GCM, "ECDHE-ECDSA-AES256-GCM-SHA384"},
	{TLS_12, TLS_CHACHA20_POLY1305, "ECDHE-ECDSA-CHACHA20-POLY1305"},
};

struct secret {
	uint8_t bytes[TLS_SECRET_MAX];
	size_t len;
};

/* A finished handshake: what both ends have, and the keys of both directions. */
struct connection {
	const struct suite *suite;
	SSL *client, *server;
	const char *digest;
	struct secret client_secret, server_secret;
	struct tls_keys client_write, server_write;
};

/* One SSL object of it and ourselves in the place of the other. */
struct session {
	struct connection c;
	SSL *peer;
	bool peer_is_server;
	struct record_cipher tx, rx;
	struct secret *tx_secret, *rx_secret;
	struct record_control control;
};

static EVP_PKEY *key;
static X509 *cert;

static void make_certificate(void)
{
	X509_NAME *name;

	key = EVP_EC_gen("P-256");
	cert = X509_new();
	X509_gmtime_adj(X509_getm_notBefore(cert), -60);
	X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
	name = X509_get_subject_name(cert);
	X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const uint8_t *)"test", -1, -1, 0);
	X509_set_issuer_name(cert, name);
	X509_set_pubkey(cert, key);
	CHECK(X509_sign(cert, key, EVP_sha256()) > 0);
}

static void keylog(const SSL *ssl, const char *line)
{
	struct connection *c = SSL_get_app_data(ssl);
	char label[64], random[65], hex[2 * TLS_SECRET_MAX + 1];
	struct secret *s;

	if (sscanf(line, "%63s %64s %128s", label, random, hex) != 3)
		return;
	if (strcmp(label, "CLIENT_TRAFFIC_SECRET_0") == 0)
		s = &c->client_secret;
	else if (strcmp(label, "SERVER_TRAFFIC_SECRET_0") == 0)
		s = &c->server_secret;
	else
		return;
	OPENSSL_hexstr2buf_ex(s->bytes, sizeof(s->bytes), &s->len, hex, '\0');
}

static SSL *make_ssl(struct connection *c, bool server)
{
	SSL_CTX *ctx = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
	SSL *ssl;

	SSL_CTX_set_min_proto_version(ctx, c->suite->version);
	SSL_CTX_set_max_proto_version(ctx, c->suite->version);
	if (c->suite->version == TLS_13)
		CHECK_INT(SSL_CTX_set_ciphersuites(ctx, c->suite->name), 1);
	else
		CHECK_INT(SSL_CTX_set_cipher_list(ctx, c->suite->name), 1);
	SSL_CTX_set_keylog_callback(ctx, keylog);
	if (server) {
		SSL_CTX_use_certificate(ctx, cert);
		SSL_CTX_use_PrivateKey(ctx, key);
		SSL_CTX_set_session_id_context(ctx, (const uint8_t *)"t", 1);
	} else {
		SSL_CTX_set_post_handshake_auth(ctx, 1);
	}
	ssl = SSL_new(ctx);
	SSL_CTX_free(ctx);
	SSL_set_app_data(ssl, c);
	SSL_set_bio(ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
	if (server)
		SSL_set_accept_state(ssl);
	else
		SSL_set_connect_state(ssl);
	return ssl;
}

static size_t take_output(SSL *ssl, uint8_t *buf)
{
	int n = BIO_read(SSL_get_wbio(ssl), buf, BUF_LEN);

	return n > 0 ? (size_t)n : 0;
}

static void give_input(SSL *ssl, const uint8_t *buf, size_t n)
{
	CHECK_INT(BIO_write(SSL_get_rbio(ssl), buf, (int)n), n);
}

/* A TLS 1.3 server's tickets stay in its output. */
static void shake_hands(struct connection *c)
{
	static uint8_t buf[BUF_LEN];

	for (int i = 0; i < 10; i++) {
		SSL_do_handshake(c->client);
		give_input(c->server, buf, take_output(c->client, buf));
		SSL_do_handshake(c->server);
		if (SSL_is_init_finished(c->client) && SSL_is_init_finished(c->server))
			return;
		give_input(c->client, buf, take_output(c->server, buf));
	}
	printf("%s: no handshake\n", c->suite->name);
	CHECK(false);
}

static void derive(struct connection *c)
{
	const SSL_CIPHER *cipher = SSL_get_current_cipher(c->client);
	uint8_t master[48], client_random[32], server_random[32];
	enum tls_cipher found = TLS_CIPHERS;

	CHECK_INT(tls_cipher_from_nid(SSL_CIPHER_get_cipher_nid(cipher), &found), 0);
	CHECK_INT(found, c->suite->cipher);
	c->digest = EVP_MD_get0_name(SSL_CIPHER_get_handshake_digest(cipher));
	if (c->suite->version == TLS_13) {
		CHECK_INT(keys_tls13(found, c->digest, c->client_secret.bytes, c->client_secret.len,
				     &c->client_write),
			  0);
		CHECK_INT(keys_tls13(found, c->digest, c->server_secret.bytes, c->server_secret.len,
				     &c->server_write),
			  0);
		return;
	}
	CHECK_INT(SSL_SESSION_get_master_key(SSL_get_session(c->client), master, 48), 48);
	SSL_get_client_random(c->client, client_random, 32);
	SSL_get_server_random(c->client, server_random, 32);
	CHECK_INT(keys_tls12(found, c->digest, master, client_random, server_random,
			     &c->client_write, &c->server_write),
		  0);
	/* Both Finished were number 0. */
	c->client_write.seq = c->server_write.seq = 1;
	c->client_write.explicit_nonce = 0x1122334455667788;
	c->server_write.explicit_nonce = UINT64_MAX;
}

static void session_start(struct session *s, const struct suite *suite, bool peer_is_server)
{
	const struct tls_keys *tx, *rx;

	memset(s, 0, sizeof(*s));
	s->c.suite = suite;
	s->c.client = make_ssl(&s->c, false);
	s->c.server = make_ssl(&s->c, true);
	shake_hands(&s->c);
	derive(&s->c);
	s->peer_is_server = peer_is_server;
	s->peer = peer_is_server ? s->c.server : s->c.client;
	s->tx_secret = peer_is_server ? &s->c.client_secret : &s->c.server_secret;
	s->rx_secret = peer_is_server ? &s->c.server_secret : &s->c.client_secret;
	tx = peer_is_server ? &s->c.client_write : &s->c.server_write;
	rx = peer_is_server ? &s->c.server_write : &s->c.client_write;
	CHECK_INT(record_cipher_init(&s->tx, tx, true), 0);
	CHECK_INT(record_cipher_init(&s->rx, rx, false), 0);
}

static void session_end(struct session *s)
{
	record_cipher_free(&s->tx);
	record_cipher_free(&s->rx);
	SSL_free(s->c.client);
	SSL_free(s->c.server);
}

/* ---- our end of it ---- */

static void send_record(struct session *s, uint8_t type, const void *data, size_t n)
{
	static uint8_t buf[RECORD_MAX];
	size_t headroom = record_headroom(&s->tx);
	ssize_t len;

	if (n)
		memcpy(buf + headroom, data, n);
	len = record_seal(&s->tx, type, buf, n);
	CHECK_INT(len, headroom + n + record_tailroom(&s->tx));
	if (len > 0)
		give_input(s->peer, buf, (size_t)len);
}

enum open_where {
	APART,
	IN_PLACE,
	OVERLAPPING
};

/* Takes the first record off what the peer sent; the plaintext is at *plain. */
static ssize_t open_first(struct session *s, uint8_t **p, size_t *n, enum open_where where,
			  uint8_t **plain, uint8_t *type)
{
	static uint8_t apart[RECORD_MAX];
	uint8_t *rec = *p;
	struct record_header h;
	int alert = ALERT_NONE;
	ssize_t len;

	CHECK_INT(record_parse_header(rec, s->c.suite->version, &h, &alert), 0);
	*plain = where == APART ? apart : where == IN_PLACE ? rec + record_headroom(&s->rx) : rec;
	*p += RECORD_HEADER + h.length;
	*n -= RECORD_HEADER + h.length;
	len = record_open(&s->rx, rec, RECORD_HEADER + (size_t)h.length, *plain, type, &alert);
	CHECK_INT(alert, ALERT_NONE);
	return len;
}

/* The peer's next record must be one that is not data, with just this event. */
static struct record_event only_event(struct session *s, uint8_t **p, size_t *n)
{
	struct record_event ev = {.kind = EVENT_ILLEGAL}, more;
	const uint8_t *body;
	uint8_t *plain, type = 0;
	size_t len;
	ssize_t r;

	CHECK(*n >= RECORD_HEADER);
	if (*n < RECORD_HEADER)
		return ev;
	r = open_first(s, p, n, APART, &plain, &type);
	CHECK(r >= 0);
	if (r < 0)
		return ev;
	body = plain;
	len = (size_t)r;
	CHECK_INT(record_control_next(&s->control, s->c.suite->version, s->peer_is_server, type,
				      &body, &len, &ev),
		  1);
	CHECK_INT(record_control_next(&s->control, s->c.suite->version, s->peer_is_server, type,
				      &body, &len, &more),
		  0);
	return ev;
}

static void rekey(struct session *s, struct record_cipher *c, struct secret *secret, bool seal)
{
	struct tls_keys k = {0};

	CHECK_INT(keys_tls13_next_secret(s->c.digest, secret->bytes, secret->len, secret->bytes),
		  0);
	CHECK_INT(keys_tls13(s->c.suite->cipher, s->c.digest, secret->bytes, secret->len, &k), 0);
	k.seq = 99; /* not what counts */
	CHECK_INT(record_cipher_rekey(c, &k, seal), 0);
	CHECK_INT(c->seq, 0);
	keys_wipe(&k);
}

/* ---- interoperation ---- */

static const size_t sizes[] = {1, 2, 15, 16, 17, 64, 100, 1000, 16383, 16384};

static void fill(uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)(i * 31 + n);
}

static void peer_to_us(struct session *s)
{
	static uint8_t data[RECORD_PLAIN_MAX], wire[BUF_LEN];

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		for (enum open_where where = APART; where <= OVERLAPPING; where++) {
			uint8_t *p = wire, *plain, type = 0;
			size_t n;

			fill(data, sizes[i]);
			CHECK_INT(SSL_write(s->peer, data, (int)sizes[i]), sizes[i]);
			n = take_output(s->peer, wire);
			CHECK_INT(open_first(s, &p, &n, where, &plain, &type), sizes[i]);
			CHECK_INT(type, RECORD_APPLICATION_DATA);
			CHECK(memcmp(plain, data, sizes[i]) == 0);
			CHECK_INT(n, 0);
		}
	}
}

static void us_to_peer(struct session *s)
{
	static uint8_t data[RECORD_PLAIN_MAX], got[RECORD_PLAIN_MAX + 1];

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		fill(data, sizes[i]);
		send_record(s, RECORD_APPLICATION_DATA, NULL, 0);
		send_record(s, RECORD_APPLICATION_DATA, data, sizes[i]);
		CHECK_INT(SSL_read(s->peer, got, sizeof(got)), sizes[i]);
		CHECK(memcmp(got, data, sizes[i]) == 0);
	}
}

static void tickets_from_peer(struct session *s)
{
	static uint8_t wire[BUF_LEN];
	uint8_t *p = wire;
	size_t n = take_output(s->peer, wire);

	if (s->c.suite->version != TLS_13 || !s->peer_is_server) {
		CHECK_INT(n, 0);
		return;
	}
	CHECK_INT(only_event(s, &p, &n).kind, EVENT_TICKET);
	CHECK_INT(only_event(s, &p, &n).kind, EVENT_TICKET);
	CHECK_INT(n, 0);
}

static void key_update_by_peer(struct session *s)
{
	static uint8_t wire[BUF_LEN];
	uint8_t *p = wire, message[5], *plain, type = 0;
	struct record_event ev;
	char got[16];
	size_t n;

	CHECK_INT(SSL_key_update(s->peer, SSL_KEY_UPDATE_REQUESTED), 1);
	CHECK_INT(SSL_write(s->peer, "new keys", 8), 8);
	n = take_output(s->peer, wire);
	ev = only_event(s, &p, &n);
	CHECK_INT(ev.kind, EVENT_KEY_UPDATE);
	CHECK(ev.requested);
	rekey(s, &s->rx, s->rx_secret, false);
	CHECK_INT(open_first(s, &p, &n, IN_PLACE, &plain, &type), 8);
	CHECK(memcmp(plain, "new keys", 8) == 0);

	send_record(s, RECORD_HANDSHAKE, message, record_key_update(false, message));
	rekey(s, &s->tx, s->tx_secret, true);
	send_record(s, RECORD_APPLICATION_DATA, "answer", 6);
	CHECK_INT(SSL_read(s->peer, got, sizeof(got)), 6);
	CHECK_INT(take_output(s->peer, wire), 0);
}

static void key_update_by_us(struct session *s)
{
	static uint8_t wire[BUF_LEN];
	uint8_t *p = wire, message[5], *plain, type = 0;
	struct record_event ev;
	char got[16];
	size_t n;

	send_record(s, RECORD_HANDSHAKE, message, record_key_update(true, message));
	rekey(s, &s->tx, s->tx_secret, true);
	send_record(s, RECORD_APPLICATION_DATA, "ours", 4);
	CHECK_INT(SSL_read(s->peer, got, sizeof(got)), 4);
	CHECK_INT(SSL_write(s->peer, "theirs", 6), 6);
	n = take_output(s->peer, wire);
	ev = only_event(s, &p, &n);
	CHECK_INT(ev.kind, EVENT_KEY_UPDATE);
	CHECK(!ev.requested);
	rekey(s, &s->rx, s->rx_secret, false);
	CHECK_INT(open_first(s, &p, &n, IN_PLACE, &plain, &type), 6);
	CHECK_INT(n, 0);
}

/* Any record of a 1.3 peer, padded to blocks, is opened to just its content. */
static void padding_from_peer(struct session *s)
{
	static uint8_t data[RECORD_PLAIN_MAX], wire[BUF_LEN];

	SSL_set_block_padding(s->peer, 512);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		uint8_t *p = wire, *plain, type = 0;
		size_t n;

		memset(data, 0, sizes[i]); /* zeros: not to be taken for padding */
		CHECK_INT(SSL_write(s->peer, data, (int)sizes[i]), sizes[i]);
		n = take_output(s->peer, wire);
		if (sizes[i] < 16000)
			CHECK_INT((n - RECORD_HEADER - 16) % 512, 0);
		CHECK_INT(open_first(s, &p, &n, IN_PLACE, &plain, &type), sizes[i]);
		CHECK_INT(type, RECORD_APPLICATION_DATA);
	}
	SSL_set_block_padding(s->peer, 1);
}

static void close_by_peer(struct session *s)
{
	static uint8_t wire[BUF_LEN];
	uint8_t *p = wire;
	char got[16];
	size_t n;

	SSL_shutdown(s->peer);
	n = take_output(s->peer, wire);
	CHECK_INT(only_event(s, &p, &n).kind, EVENT_CLOSE_NOTIFY);
	send_record(s, RECORD_ALERT, "\1\0", 2);
	CHECK_INT(SSL_read(s->peer, got, sizeof(got)), 0);
	CHECK_INT(SSL_get_shutdown(s->peer), SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
}

static void alert_by_us(struct session *s)
{
	char got[16];

	send_record(s, RECORD_ALERT, (const uint8_t[]){2, ALERT_UNKNOWN_CA}, 2);
	CHECK(SSL_read(s->peer, got, sizeof(got)) <= 0);
	CHECK_INT(ERR_GET_REASON(ERR_get_error()), SSL_R_TLSV1_ALERT_UNKNOWN_CA);
	ERR_clear_error();
}

/* A real peer's fatal alert: it got a record that it cannot open. */
static void alert_by_peer(struct session *s)
{
	static uint8_t wire[BUF_LEN];
	uint8_t *p = wire;
	struct record_event ev;
	char got[16];
	size_t n;

	s->tx.seq++;
	send_record(s, RECORD_APPLICATION_DATA, "x", 1);
	CHECK_INT(SSL_read(s->peer, got, sizeof(got)), -1);
	ERR_clear_error();
	n = take_output(s->peer, wire);
	ev = only_event(s, &p, &n);
	CHECK_INT(ev.kind, EVENT_FATAL);
	CHECK_INT(ev.alert, ALERT_BAD_RECORD_MAC);
}

static void renegotiation_by_peer(struct session *s)
{
	static uint8_t wire[BUF_LEN];
	uint8_t *p = wire;
	size_t n;

	CHECK_INT(SSL_renegotiate(s->peer), 1);
	SSL_do_handshake(s->peer);
	n = take_output(s->peer, wire);
	CHECK_INT(only_event(s, &p, &n).kind, EVENT_RENEGOTIATION);
	CHECK_INT(n, 0);
	ERR_clear_error();
}

static void late_certificate_request(struct session *s)
{
	static uint8_t wire[BUF_LEN];
	uint8_t *p = wire;
	struct record_event ev;
	size_t n;

	SSL_set_verify(s->peer, SSL_VERIFY_PEER, NULL);
	CHECK_INT(SSL_verify_client_post_handshake(s->peer), 1);
	SSL_do_handshake(s->peer);
	n = take_output(s->peer, wire);
	ev = only_event(s, &p, &n);
	CHECK_INT(ev.kind, EVENT_ILLEGAL);
	CHECK_INT(ev.alert, ALERT_UNEXPECTED_MESSAGE);
}

static void test_interoperation(const struct suite *suite, bool peer_is_server)
{
	static void (*const ends[])(struct session *) = {close_by_peer, alert_by_us, alert_by_peer};
	struct session s;

	session_start(&s, suite, peer_is_server);
	tickets_from_peer(&s);
	peer_to_us(&s);
	us_to_peer(&s);
	if (suite->version == TLS_13) {
		key_update_by_peer(&s);
		key_update_by_us(&s);
		key_update_by_peer(&s);
		padding_from_peer(&s);
		peer_to_us(&s);
		us_to_peer(&s);
	}
	session_end(&s);

	for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
		session_start(&s, suite, peer_is_server);
		tickets_from_peer(&s);
		ends[i](&s);
		session_end(&s);
	}
	if (suite->version == TLS_13 && !peer_is_server)
		return;
	session_start(&s, suite, peer_is_server);
	tickets_from_peer(&s);
	if (suite->version == TLS_12)
		renegotiation_by_peer(&s);
	else
		late_certificate_request(&s);
	session_end(&s);
}

/* ---- sealing and opening by themselves ---- */

static struct tls_keys some_keys(const struct suite *suite)
{
	struct tls_keys k = {
		.version = suite->version,
		.cipher = suite->cipher,
		.seq = 7,
		.explicit_nonce = 0x0102030405060708,
	};

	fill(k.key, tls_cipher_desc(suite->cipher)->key_len);
	fill(k.iv, sizeof(k.iv));
	return k;
}

/* RFC 8448 section 3, the client's application data record. */
static void test_published_record(void)
{
	static const uint8_t want[] = {
		0x17, 0x03, 0x03, 0x00, 0x43, 0xa2, 0x3f, 0x70, 0x54, 0xb6, 0x2c, 0x94,
		0xd0, 0xaf, 0xfa, 0xfe, 0x82, 0x28, 0xba, 0x55, 0xcb, 0xef, 0xac, 0xea,
		0x42, 0xf9, 0x14, 0xaa, 0x66, 0xbc, 0xab, 0x3f, 0x2b, 0x98, 0x19, 0xa8,
		0xa5, 0xb4, 0x6b, 0x39, 0x5b, 0xd5, 0x4a, 0x9a, 0x20, 0x44, 0x1e, 0x2b,
		0x62, 0x97, 0x4e, 0x1f, 0x5a, 0x62, 0x92, 0xa2, 0x97, 0x70, 0x14, 0xbd,
		0x1e, 0x3d, 0xea, 0xe6, 0x3a, 0xee, 0xbb, 0x21, 0x69, 0x49, 0x15, 0xe4,
	};
	struct tls_keys k = {
		.version = TLS_13,
		.cipher = TLS_AES_128_GCM,
		.key = {0x17, 0x42, 0x2d, 0xda, 0x59, 0x6e, 0xd5, 0xd9, 0xac, 0xd8, 0x90, 0xe3,
			0xc6, 0x3f, 0x50, 0x51},
		.iv = {0x5b, 0x78, 0x92, 0x3d, 0xee, 0x08, 0x57, 0x90, 0x33, 0xe5, 0x23, 0xd9},
	};
	struct record_cipher tx, rx;
	uint8_t buf[100], type = 0;
	int alert = ALERT_NONE;

	CHECK_INT(record_cipher_init(&tx, &k, true), 0);
	CHECK_INT(record_cipher_init(&rx, &k, false), 0);
	for (uint8_t i = 0; i < 50; i++)
		buf[RECORD_HEADER + i] = i;
	CHECK_INT(record_seal(&tx, RECORD_APPLICATION_DATA, buf, 50), sizeof(want));
	CHECK(memcmp(buf, want, sizeof(want)) == 0);
	CHECK_INT(record_open(&rx, want, sizeof(want), buf, &type, &alert), 50);
	CHECK_INT(type, RECORD_APPLICATION_DATA);
	CHECK_INT(buf[49], 49);
	record_cipher_free(&tx);
	record_cipher_free(&rx);
}

static void test_explicit_nonce(void)
{
	struct tls_keys k = some_keys(&suites[3]);
	struct record_cipher tx;
	uint8_t buf[100];

	CHECK_INT(record_cipher_init(&tx, &k, true), 0);
	for (uint8_t i = 0; i < 3; i++) {
		const uint8_t want[] = {23, 3, 3, 0, 8 + 20 + 16, 1, 2, 3, 4, 5, 6, 7, 8 + i};

		CHECK_INT(record_seal(&tx, RECORD_APPLICATION_DATA, buf, 20), 13 + 20 + 16);
		CHECK(memcmp(buf, want, sizeof(want)) == 0);
	}
	record_cipher_free(&tx);
}

/*
 * Seals what record_seal() would not: any inner plaintext of TLS 1.3, too long
 * a one of TLS 1.2 (always number 7, by some_keys()). Written apart from record.c.
 */
static size_t seal_raw(const struct tls_keys *k, uint8_t type, const uint8_t *inner, size_t n,
		       uint8_t *rec)
{
	bool gcm12 = k->version == TLS_12 && k->cipher != TLS_CHACHA20_POLY1305;
	size_t head = gcm12 ? 13 : 5, length = head - 5 + n + 16;
	uint8_t header[5] = {type, 3, 3, (uint8_t)(length >> 8), (uint8_t)length};
	uint8_t aad12[13] = {0, 0, 0, 0, 0, 0, 0, 7, type, 3, 3, (uint8_t)(n >> 8), (uint8_t)n};
	bool v13 = k->version == TLS_13;
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	const EVP_CIPHER *evp = k->cipher == TLS_AES_128_GCM   ? EVP_aes_128_gcm()
				: k->cipher == TLS_AES_256_GCM ? EVP_aes_256_gcm()
							       : EVP_chacha20_poly1305();
	uint8_t nonce[12];
	int len, ok;

	memcpy(rec, header, 5);
	memcpy(nonce, k->iv, 12);
	if (gcm12) {
		memset(nonce + 4, 0x55, 8);
		memcpy(rec + 5, nonce + 4, 8);
	} else {
		nonce[11] ^= 7;
	}
	ok = EVP_EncryptInit_ex(ctx, evp, NULL, k->key, nonce) == 1 &&
	     EVP_EncryptUpdate(ctx, NULL, &len, v13 ? header : aad12, v13 ? 5 : 13) == 1 &&
	     EVP_EncryptUpdate(ctx, rec + head, &len, inner, (int)n) == 1 &&
	     EVP_EncryptFinal_ex(ctx, rec + head + n, &len) == 1 &&
	     EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, 16, rec + head + n) == 1;
	CHECK(ok);
	EVP_CIPHER_CTX_free(ctx);
	return 5 + length;
}

struct opened {
	ssize_t r;
	uint8_t type;
	int alert;
};

/* Opens rec as the first record under the keys. */
static struct opened open_fresh(const struct tls_keys *k, const uint8_t *rec, size_t len)
{
	static uint8_t out[RECORD_MAX + 1000];
	struct opened o = {.alert = ALERT_NONE};
	struct record_cipher rx;

	CHECK_INT(record_cipher_init(&rx, k, false), 0);
	o.r = record_open(&rx, rec, len, out, &o.type, &o.alert);
	record_cipher_free(&rx);
	return o;
}

#define CHECK_REFUSED(o, error, why)                                                               \
	do {                                                                                       \
		struct opened o_ = (o);                                                            \
		CHECK_INT(o_.r, error);                                                            \
		CHECK_INT(o_.alert, why);                                                          \
	} while (0)

#define CHECK_OPENED(o, length, what)                                                              \
	do {                                                                                       \
		struct opened o_ = (o);                                                            \
		CHECK_INT(o_.r, length);                                                           \
		CHECK_INT(o_.type, what);                                                          \
		CHECK_INT(o_.alert, ALERT_NONE);                                                   \
	} while (0)

/* A change of any bit makes it another record, and none is authentic. */
static void test_tampered(const struct suite *suite)
{
	const struct tls_keys k = some_keys(suite);
	uint8_t inner[41], rec[128], copy[128];
	size_t len;

	fill(inner, 40);
	inner[40] = RECORD_APPLICATION_DATA;
	len = seal_raw(&k, RECORD_APPLICATION_DATA, inner, suite->version == TLS_13 ? 41 : 40, rec);
	CHECK_OPENED(open_fresh(&k, rec, len), 40, RECORD_APPLICATION_DATA);
	for (size_t bit = 8 * RECORD_HEADER; bit < 8 * len; bit++) {
		memcpy(copy, rec, len);
		copy[bit / 8] ^= (uint8_t)(1 << bit % 8);
		CHECK_REFUSED(open_fresh(&k, copy, len), -EBADMSG, ALERT_BAD_RECORD_MAC);
	}
	/* The header is authenticated too: type (TLS 1.2), version, length. */
	memcpy(copy, rec, len);
	copy[2] ^= 1;
	CHECK_REFUSED(open_fresh(&k, copy, len), -EBADMSG, ALERT_BAD_RECORD_MAC);
	memcpy(copy, rec, len);
	copy[0] = RECORD_ALERT;
	if (suite->version == TLS_13)
		CHECK_REFUSED(open_fresh(&k, copy, len), -EPROTO, ALERT_UNEXPECTED_MESSAGE);
	else
		CHECK_REFUSED(open_fresh(&k, copy, len), -EBADMSG, ALERT_BAD_RECORD_MAC);
	for (size_t cut = 1; cut <= len - RECORD_HEADER; cut++) {
		memcpy(copy, rec, len);
		copy[4] = (uint8_t)(len - cut - RECORD_HEADER);
		CHECK_REFUSED(open_fresh(&k, copy, len - cut), -EBADMSG, ALERT_BAD_RECORD_MAC);
	}
}

/* Nothing unauthentic is left behind for the caller to use by mistake. */
static void test_wiped(const struct suite *suite)
{
	const struct tls_keys k = some_keys(suite);
	uint8_t inner[64], rec[128], out[128], type = 0;
	struct record_cipher rx;
	int alert = ALERT_NONE;
	size_t len, left = 0;

	memset(inner, 'S', sizeof(inner));
	len = seal_raw(&k, RECORD_APPLICATION_DATA, inner, sizeof(inner), rec);
	rec[len - 1] ^= 1;
	memset(out, 0, sizeof(out));
	CHECK_INT(record_cipher_init(&rx, &k, false), 0);
	CHECK_INT(record_open(&rx, rec, len, out, &type, &alert), -EBADMSG);
	for (size_t i = 0; i < sizeof(out); i++)
		left += out[i] == 'S';
	CHECK_INT(left, 0);
	CHECK_INT(rx.seq, 7);
	CHECK_INT(ERR_peek_error(), 0);
	record_cipher_free(&rx);
}

static void test_replay_and_order(const struct suite *suite)
{
	const struct tls_keys k = some_keys(suite);
	struct record_cipher tx, rx;
	uint8_t first[64], second[64], out[64], type = 0;
	size_t headroom;
	ssize_t len;
	int alert = ALERT_NONE;

	CHECK_INT(record_cipher_init(&tx, &k, true), 0);
	CHECK_INT(record_cipher_init(&rx, &k, false), 0);
	headroom = record_headroom(&tx);
	memcpy(first + headroom, "first", 5);
	memcpy(second + headroom, "other", 5);
	len = record_seal(&tx, RECORD_APPLICATION_DATA, first, 5);
	CHECK(len > 0);
	CHECK_INT(record_seal(&tx, RECORD_APPLICATION_DATA, second, 5), len);
	CHECK_INT(record_open(&rx, second, (size_t)len, out, &type, &alert), -EBADMSG);
	CHECK_INT(record_open(&rx, first, (size_t)len, out, &type, &alert), 5);
	CHECK_INT(record_open(&rx, first, (size_t)len, out, &type, &alert), -EBADMSG);
	CHECK_INT(record_open(&rx, second, (size_t)len, out, &type, &alert), 5);
	record_cipher_free(&tx);
	record_cipher_free(&rx);
}

/* Every content type and the limits of length, as the sender may choose them. */
static void test_inner_plaintext(const struct suite *suite)
{
	static uint8_t inner[RECORD_MAX], rec[RECORD_MAX + 1000];
	const struct tls_keys k = some_keys(suite);
	size_t len;

	memset(inner, 0, sizeof(inner));
	if (suite->version == TLS_12) {
		len = seal_raw(&k, RECORD_HANDSHAKE, inner, 0, rec);
		CHECK_OPENED(open_fresh(&k, rec, len), 0, RECORD_HANDSHAKE);
		len = seal_raw(&k, RECORD_ALERT, inner, 16384, rec);
		CHECK_OPENED(open_fresh(&k, rec, len), 16384, RECORD_ALERT);
		len = seal_raw(&k, RECORD_APPLICATION_DATA, inner, 16385, rec);
		CHECK_REFUSED(open_fresh(&k, rec, len), -EMSGSIZE, ALERT_RECORD_OVERFLOW);
		return;
	}
	/* No content type at all. */
	len = seal_raw(&k, 23, inner, 0, rec);
	CHECK_REFUSED(open_fresh(&k, rec, len), -EPROTO, ALERT_UNEXPECTED_MESSAGE);
	len = seal_raw(&k, 23, inner, 1, rec);
	CHECK_REFUSED(open_fresh(&k, rec, len), -EPROTO, ALERT_UNEXPECTED_MESSAGE);
	len = seal_raw(&k, 23, inner, 16385, rec);
	CHECK_REFUSED(open_fresh(&k, rec, len), -EPROTO, ALERT_UNEXPECTED_MESSAGE);
	/* Padding only behind the type, and it counts. */
	inner[0] = RECORD_HANDSHAKE;
	len = seal_raw(&k, 23, inner, 1, rec);
	CHECK_OPENED(open_fresh(&k, rec, len), 0, RECORD_HANDSHAKE);
	len = seal_raw(&k, 23, inner, 16385, rec);
	CHECK_OPENED(open_fresh(&k, rec, len), 0, RECORD_HANDSHAKE);
	len = seal_raw(&k, 23, inner, 16386, rec);
	CHECK_REFUSED(open_fresh(&k, rec, len), -EMSGSIZE, ALERT_RECORD_OVERFLOW);
	inner[16384] = RECORD_ALERT;
	len = seal_raw(&k, 23, inner, 16385, rec);
	CHECK_OPENED(open_fresh(&k, rec, len), 16384, RECORD_ALERT);
	inner[16385] = RECORD_APPLICATION_DATA;
	len = seal_raw(&k, 23, inner, 16386, rec);
	CHECK_REFUSED(open_fresh(&k, rec, len), -EMSGSIZE, ALERT_RECORD_OVERFLOW);
	/* TLS 1.3 shows none of its types outside. */
	inner[0] = RECORD_ALERT;
	len = seal_raw(&k, RECORD_ALERT, inner, 1, rec);
	CHECK_REFUSED(open_fresh(&k, rec, len), -EPROTO, ALERT_UNEXPECTED_MESSAGE);
}

static void test_limits(const struct suite *suite)
{
	static uint8_t buf[RECORD_MAX];
	const struct tls_keys k = some_keys(suite);
	struct record_cipher c;
	uint8_t type = 0;
	int alert = ALERT_NONE;
	size_t len;

	CHECK_INT(record_cipher_init(&c, &k, true), 0);
	CHECK_INT(record_seal(&c, RECORD_APPLICATION_DATA, buf, RECORD_PLAIN_MAX + 1), -EIO);
	c.seq = UINT64_MAX - 1;
	CHECK(record_seal(&c, RECORD_APPLICATION_DATA, buf, 1) > 0);
	CHECK_INT(record_seal(&c, RECORD_APPLICATION_DATA, buf, 1), -EOVERFLOW);
	CHECK_INT(c.seq, UINT64_MAX);
	record_cipher_free(&c);
	record_cipher_free(&c);
	record_cipher_free(NULL);

	CHECK_INT(record_cipher_init(&c, &k, false), 0);
	c.seq = UINT64_MAX;
	len = seal_raw(&k, RECORD_APPLICATION_DATA, (const uint8_t *)"x\27", 2, buf);
	CHECK_INT(record_open(&c, buf, len, buf, &type, &alert), -EOVERFLOW);
	CHECK_INT(alert, ALERT_INTERNAL_ERROR);
	CHECK_INT(record_open(&c, buf, 4, buf, &type, &alert), -EPROTO);
	CHECK_INT(alert, ALERT_DECODE_ERROR);
	CHECK_INT(record_open(&c, buf, len + 1, buf, &type, &alert), -EPROTO);
	CHECK_INT(alert, ALERT_DECODE_ERROR);
	record_cipher_free(&c);
}

static void check_header(const char *bytes, uint16_t version, int want, int want_alert)
{
	struct record_header h;
	int alert = ALERT_NONE;

	CHECK_INT(record_parse_header((const uint8_t *)bytes, version, &h, &alert), want);
	CHECK_INT(alert, want_alert);
}

static void test_headers(void)
{
	struct record_header h;
	uint8_t buf[7];
	int alert = ALERT_NONE;

	check_header("\x16\x03\x01\x02\x00", 0, 0, ALERT_NONE);
	check_header("\x14\x03\x03\x00\x01", TLS_12, 0, ALERT_NONE);
	check_header("\x17\x03\x03\x41\x00", TLS_13, 0, ALERT_NONE);
	check_header("\x17\x03\x03\x41\x01", TLS_13, -EMSGSIZE, ALERT_RECORD_OVERFLOW);
	check_header("\x17\x03\x03\x48\x00", TLS_12, 0, ALERT_NONE);
	check_header("\x17\x03\x03\x48\x01", TLS_12, -EMSGSIZE, ALERT_RECORD_OVERFLOW);
	check_header("\x17\x03\x03\x48\x00", 0, 0, ALERT_NONE);
	check_header("\x17\x03\x03\xff\xff", 0, -EMSGSIZE, ALERT_RECORD_OVERFLOW);
	check_header("\x13\x03\x03\x00\x01", 0, -EPROTO, ALERT_UNEXPECTED_MESSAGE);
	check_header("\x18\x03\x03\x00\x01", 0, -EPROTO, ALERT_UNEXPECTED_MESSAGE);
	check_header("GET /", 0, -EPROTO, ALERT_UNEXPECTED_MESSAGE);
	check_header("\x16\x02\x00\x00\x01", 0, -EPROTO, ALERT_PROTOCOL_VERSION);
	CHECK_INT(record_parse_header((const uint8_t *)"\x16\x03\x01\x12\x34", 0, &h, &alert), 0);
	CHECK_INT(h.type, RECORD_HANDSHAKE);
	CHECK_INT(h.length, 0x1234);

	CHECK_INT(record_plain_alert(ALERT_UNKNOWN_CA, buf), 7);
	CHECK(memcmp(buf, "\x15\x03\x03\x00\x02\x02\x30", 7) == 0);
	CHECK(strcmp(alert_name(ALERT_UNKNOWN_CA), "unknown_ca") == 0);
	CHECK(strcmp(alert_name(0), "close_notify") == 0);
	CHECK(strcmp(alert_name(120), "no_application_protocol") == 0);
	CHECK(!alert_name(1));
	CHECK(!alert_name(121));
	CHECK(!alert_name(255));
	CHECK(!alert_name(ALERT_NONE));
}

/* ---- records that are not data ---- */

static void append_event(char *text, size_t size, const struct record_event *ev)
{
	static const char *const names[] = {
		[EVENT_CLOSE_NOTIFY] = "close", [EVENT_WARNING] = "warning",
		[EVENT_FATAL] = "fatal",	[EVENT_TICKET] = "ticket",
		[EVENT_KEY_UPDATE] = "update",	[EVENT_RENEGOTIATION] = "renegotiation",
		[EVENT_ILLEGAL] = "illegal",
	};
	size_t n = strlen(text);

	n += (size_t)snprintf(text + n, size - n, "%s%s", n ? " " : "", names[ev->kind]);
	if (ev->requested)
		snprintf(text + n, size - n, "-requested");
	else if (ev->alert > 0)
		snprintf(text + n, size - n, "-%d", ev->alert);
}

static void append_events(struct record_control *rc, uint16_t version, bool from_server,
			  uint8_t type, const uint8_t *p, size_t n, char *text, size_t size)
{
	struct record_event ev;

	while (record_control_next(rc, version, from_server, type, &p, &n, &ev))
		append_event(text, size, &ev);
	CHECK_INT(n, 0);
	CHECK(!p);
}

enum sender {
	CLIENT,
	SERVER
};

/*
 * records: "16 0400|15 0100": type and content in hex, `|` between records.
 * want: the events, "..." behind them when a message is unfinished (once
 * something was illegal that no longer matters).
 */
static void check_events(uint16_t version, enum sender sender, const char *records,
			 const char *want)
{
	struct record_control rc = {0};
	char text[512] = "";

	while (*records) {
		uint8_t content[64];
		unsigned type = 0, byte;
		size_t n = 0;

		sscanf(records, "%2x", &type);
		for (records += 2; *records && *records != '|'; records++) {
			if (*records == ' ')
				continue;
			sscanf(records++, "%2x", &byte);
			content[n++] = (uint8_t)byte;
		}
		records += *records == '|';
		append_events(&rc, version, sender == SERVER, (uint8_t)type, content, n, text,
			      sizeof(text));
	}
	if (record_control_pending(&rc) && !strstr(text, "illegal"))
		strcat(text, "...");
	unit_checks++;
	if (strcmp(text, want) == 0)
		return;
	unit_failures++;
	printf("events are '%s', want '%s'\n", text, want);
}

static void test_alerts(void)
{
	for (enum sender s = CLIENT; s <= SERVER; s++) {
		check_events(TLS_13, s, "15 0100", "close");
		check_events(TLS_13, s, "15 0200", "close");
		check_events(TLS_13, s, "15 015a", "warning-90");
		check_events(TLS_13, s, "15 0130", "fatal-48");
		check_events(TLS_13, s, "15 0230", "fatal-48");
		check_events(TLS_13, s, "15 ffff", "fatal-255");
		check_events(TLS_12, s, "15 0100", "close");
		check_events(TLS_12, s, "15 0200", "fatal");
		check_events(TLS_12, s, "15 015a", "warning-90");
		check_events(TLS_12, s, "15 0164", "warning-100");
		check_events(TLS_12, s, "15 0230", "fatal-48");
		check_events(TLS_12, s, "15 0000", "illegal-47");
		check_events(TLS_12, s, "15 0330", "illegal-47");
		for (uint16_t v = TLS_12; v <= TLS_13; v++) {
			check_events(v, s, "15", "illegal-10");
			check_events(v, s, "15 01", "illegal-50");
			check_events(v, s, "15 010001", "illegal-50");
			check_events(v, s, "15 01000100", "illegal-50");
			check_events(v, s, "15 015a|15 0100", "warning-90 close");
		}
	}
}

static void test_messages(void)
{
	/* TLS 1.3 */
	check_events(TLS_13, SERVER, "16 04000002aabb", "ticket");
	check_events(TLS_13, SERVER, "16 04000000|16 0400000155", "ticket ticket");
	check_events(TLS_13, SERVER, "16 04000002aabb04000001cc", "ticket ticket");
	check_events(TLS_13, SERVER, "16 04000002aabb1800000101", "ticket update-requested");
	check_events(TLS_13, SERVER, "16 04000002aabb18000001|16 00", "ticket update");
	check_events(TLS_13, CLIENT, "16 04000002aabb", "illegal-10");
	for (enum sender s = CLIENT; s <= SERVER; s++) {
		check_events(TLS_13, s, "16 1800000100", "update");
		check_events(TLS_13, s, "16 1800000101", "update-requested");
		check_events(TLS_13, s, "16 18|16 000001|16 01", "update-requested");
		check_events(TLS_13, s, "16 1800000102", "illegal-47");
		check_events(TLS_13, s, "16 18000000", "illegal-50");
		check_events(TLS_13, s, "16 180000020000", "illegal-50");
		check_events(TLS_13, s, "16 18ffffff", "illegal-50");
		/* The keys change behind it: nothing may follow in its record. */
		check_events(TLS_13, s, "16 180000010018", "illegal-10");
		check_events(TLS_13, s, "16 18000001001800000100", "illegal-10");
		check_events(TLS_13, s, "16 18000001|16 0018", "illegal-10");
		check_events(TLS_13, s, "16 0d000000", "illegal-10"); /* CertificateRequest */
		check_events(TLS_13, s, "16 0d", "illegal-10");
		check_events(TLS_13, s, "16 00000000", "illegal-10");
		check_events(TLS_13, s, "16 01000000", "illegal-10");
		check_events(TLS_13, s, "16 14", "illegal-10");
		check_events(TLS_13, s, "16 fe", "illegal-10");
	}
	/* TLS 1.2 */
	check_events(TLS_12, SERVER, "16 00000000", "renegotiation");
	check_events(TLS_12, SERVER, "16 0000000000000000", "renegotiation renegotiation");
	check_events(TLS_12, SERVER, "16 0000000100", "illegal-50");
	check_events(TLS_12, CLIENT, "16 00000000", "illegal-10");
	check_events(TLS_12, CLIENT, "16 010000020303", "renegotiation");
	check_events(TLS_12, CLIENT, "16 0100000203|16 03", "renegotiation");
	check_events(TLS_12, SERVER, "16 010000020303", "illegal-10");
	check_events(TLS_12, SERVER, "16 04000002aabb", "illegal-10");
	check_events(TLS_12, SERVER, "16 1800000100", "illegal-10");
	check_events(TLS_12, CLIENT, "16 1800000100", "illegal-10");
}

static void test_record_types(void)
{
	for (uint16_t v = TLS_12; v <= TLS_13; v++) {
		check_events(v, SERVER, "16", "illegal-10");
		check_events(v, SERVER, "14 01", "illegal-10");
		check_events(v, SERVER, "14", "illegal-10");
		check_events(v, SERVER, "17 41", "illegal-10");
		check_events(v, SERVER, "18 00", "illegal-10");
		check_events(v, SERVER, "00", "illegal-10");
		check_events(v, SERVER, "ff 15", "illegal-10");
	}
	/* Inside a message. */
	check_events(TLS_13, SERVER, "16 04", "...");
	check_events(TLS_13, SERVER, "16 040000", "...");
	check_events(TLS_13, SERVER, "16 04000001", "...");
	check_events(TLS_13, SERVER, "16 0400000155", "ticket");
	check_events(TLS_13, SERVER, "16 040000015504", "ticket...");
	check_events(TLS_13, SERVER, "16 04|16", "illegal-10");
	check_events(TLS_13, SERVER, "16 04|17 41", "illegal-10");
	check_events(TLS_13, SERVER, "16 04000001|14 01", "illegal-10");
	check_events(TLS_13, SERVER, "16 04000001|15 0100", "illegal-10");
	check_events(TLS_12, CLIENT, "16 01000002|17 41", "illegal-10");
	check_events(TLS_12, CLIENT, "16 01000002|14 01", "illegal-10");
	/* TLS 1.2 does not forbid an alert there. */
	check_events(TLS_12, CLIENT, "16 01000002|15 0100|16 0303", "close renegotiation");
}

/* However a stream of messages is cut, the events are the same. */
static void test_splits(void)
{
	static const uint8_t stream[] = {4, 0, 0, 3, 9,	 9,  9, 4, 0, 0, 0,
					 4, 0, 0, 1, 24, 24, 0, 0, 1, 1};
	const size_t n = sizeof(stream);

	for (size_t a = 1; a < n; a++) {
		for (size_t b = a; b < n; b++) {
			const size_t cuts[] = {0, a, b, n};
			struct record_control rc = {0};
			char text[128] = "";

			for (int i = 0; i < 3; i++)
				if (cuts[i] < cuts[i + 1])
					append_events(&rc, TLS_13, true, RECORD_HANDSHAKE,
						      stream + cuts[i], cuts[i + 1] - cuts[i], text,
						      sizeof(text));
			CHECK(strcmp(text, "ticket ticket ticket update-requested") == 0);
			CHECK(!record_control_pending(&rc));
		}
	}
}

static void test_long_messages(void)
{
	static uint8_t body[16384];
	const uint8_t longest[] = {4, 1, 0, 0}, too_long[] = {4, 1, 0, 1};
	struct record_control rc = {0};
	char text[64] = "";

	append_events(&rc, TLS_13, true, RECORD_HANDSHAKE, longest, 4, text, sizeof(text));
	for (int i = 0; i < 4; i++) {
		CHECK(record_control_pending(&rc));
		CHECK(strcmp(text, "") == 0);
		append_events(&rc, TLS_13, true, RECORD_HANDSHAKE, body, sizeof(body), text,
			      sizeof(text));
	}
	CHECK(strcmp(text, "ticket") == 0);
	CHECK(!record_control_pending(&rc));
	append_events(&rc, TLS_13, true, RECORD_HANDSHAKE, too_long, 4, text, sizeof(text));
	CHECK(strcmp(text, "ticket illegal-50") == 0);
}

/* ---- what it costs ---- */

static double cpu_seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* CPU seconds to seal and open one record of n bytes; the best of several rounds. */
static double bench(const struct suite *suite, size_t n, unsigned count)
{
	static uint8_t buf[RECORD_MAX];
	const struct tls_keys k = some_keys(suite);
	struct record_cipher tx, rx;
	double best = 1e9;
	uint8_t type;
	int alert;

	CHECK_INT(record_cipher_init(&tx, &k, true), 0);
	CHECK_INT(record_cipher_init(&rx, &k, false), 0);
	for (int round = 0; round < 7; round++) {
		double start = cpu_seconds(), each;
		bool ok = true;

		for (unsigned i = 0; i < count; i++) {
			ssize_t len = record_seal(&tx, RECORD_APPLICATION_DATA, buf, n);

			ok &= len > 0 &&
			      record_open(&rx, buf, (size_t)len, buf + record_headroom(&rx), &type,
					  &alert) == (ssize_t)n;
		}
		each = (cpu_seconds() - start) / count;
		best = each < best ? each : best;
		CHECK(ok);
	}
	record_cipher_free(&tx);
	record_cipher_free(&rx);
	return best;
}

static void print_bench(void)
{
	puts("seal + open                     16 KiB: CPU s/GiB    64 bytes: us/record");
	for (size_t i = 0; i < ARRAY_SIZE(suites); i++)
		printf("%-32s %17.3f %22.3f\n", suites[i].name,
		       bench(&suites[i], 16384, 2000) * 65536, bench(&suites[i], 64, 100000) * 1e6);
}

int main(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "--bench") == 0) {
		print_bench();
		return unit_end();
	}
	make_certificate();
	test_headers();
	test_published_record();
	test_explicit_nonce();
	for (size_t i = 0; i < ARRAY_SIZE(suites); i++) {
		test_interoperation(&suites[i], true);
		test_interoperation(&suites[i], false);
		test_tampered(&suites[i]);
		test_wiped(&suites[i]);
		test_replay_and_order(&suites[i]);
		test_inner_plaintext(&suites[i]);
		test_limits(&suites[i]);
	}
	test_alerts();
	test_messages();
	test_record_types();
	test_splits();
	test_long_messages();
	X509_free(cert);
	EVP_PKEY_free(key);
	return unit_end();
}
