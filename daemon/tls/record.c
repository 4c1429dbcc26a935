// SPDX-License-Identifier: Apache-2.0
/*
 * Seals and opens TLS records and says what those that are not data mean.
 * Knows no socket and no connection: the caller brings whole records and acts.
 */
#include "tls/record.h"

#include <endian.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/params.h>

#define TAG_LEN		   16
#define NONCE_LEN	   12
#define SALT_LEN	   4 /* TLS 1.2 GCM: nonce = salt, explicit nonce */
#define EXPLICIT_NONCE_LEN 8
#define AAD_LEN_MAX	   13

/* Handshake message types, RFC 8446 section 4 and RFC 5246 section 7.4. */
enum message_type {
	MESSAGE_HELLO_REQUEST = 0,
	MESSAGE_CERTIFICATE_REQUEST = 13,
	MESSAGE_CLIENT_HELLO = 1,
	MESSAGE_NEW_SESSION_TICKET = 4,
	MESSAGE_KEY_UPDATE = 24,
};

#define MESSAGE_HEADER 4
#define MESSAGE_MAX    65536 /* our limit: TLS itself has none below 2^24 */

static const char *const alert_names[] = {
	/* Numbers: those we never send. */
	[ALERT_CLOSE_NOTIFY] = "close_notify",
	[ALERT_UNEXPECTED_MESSAGE] = "unexpected_message",
	[ALERT_BAD_RECORD_MAC] = "bad_record_mac",
	[21] = "decryption_failed",
	[ALERT_RECORD_OVERFLOW] = "record_overflow",
	[30] = "decompression_failure",
	[ALERT_HANDSHAKE_FAILURE] = "handshake_failure",
	[41] = "no_certificate",
	[ALERT_BAD_CERTIFICATE] = "bad_certificate",
	[ALERT_UNSUPPORTED_CERTIFICATE] = "unsupported_certificate",
	[ALERT_CERTIFICATE_REVOKED] = "certificate_revoked",
	[ALERT_CERTIFICATE_EXPIRED] = "certificate_expired",
	[ALERT_CERTIFICATE_UNKNOWN] = "certificate_unknown",
	[ALERT_ILLEGAL_PARAMETER] = "illegal_parameter",
	[ALERT_UNKNOWN_CA] = "unknown_ca",
	[ALERT_ACCESS_DENIED] = "access_denied",
	[ALERT_DECODE_ERROR] = "decode_error",
	[ALERT_DECRYPT_ERROR] = "decrypt_error",
	[60] = "export_restriction",
	[ALERT_PROTOCOL_VERSION] = "protocol_version",
	[ALERT_INSUFFICIENT_SECURITY] = "insufficient_security",
	[ALERT_INTERNAL_ERROR] = "internal_error",
	[86] = "inappropriate_fallback",
	[ALERT_USER_CANCELED] = "user_canceled",
	[ALERT_NO_RENEGOTIATION] = "no_renegotiation",
	[ALERT_MISSING_EXTENSION] = "missing_extension",
	[ALERT_UNSUPPORTED_EXTENSION] = "unsupported_extension",
	[111] = "certificate_unobtainable",
	[ALERT_UNRECOGNIZED_NAME] = "unrecognized_name",
	[ALERT_BAD_CERTIFICATE_STATUS_RESPONSE] = "bad_certificate_status_response",
	[114] = "bad_certificate_hash_value",
	[115] = "unknown_psk_identity",
	[ALERT_CERTIFICATE_REQUIRED] = "certificate_required",
	[ALERT_NO_APPLICATION_PROTOCOL] = "no_application_protocol",
};

const char *alert_name(int alert)
{
	if (alert < 0 || (size_t)alert >= ARRAY_SIZE(alert_names))
		return NULL;
	return alert_names[alert];
}

/* ---- headers ---- */

static int refuse(int *alert, int why, int error)
{
	*alert = why;
	return error;
}

int record_parse_header(const uint8_t p[RECORD_HEADER], uint16_t version, struct record_header *out,
			int *alert)
{
	size_t max = version == TLS_13 ? RECORD_CIPHER_MAX : RECORD_MAX - RECORD_HEADER;

	out->type = p[0];
	out->length = (uint16_t)(p[3] << 8 | p[4]);
	if (out->type < RECORD_CHANGE_CIPHER_SPEC || out->type > RECORD_APPLICATION_DATA)
		return refuse(alert, ALERT_UNEXPECTED_MESSAGE, -EPROTO);
	/* The minor version means nothing: RFC 8446 5.1. */
	if (p[1] != TLS_12 >> 8)
		return refuse(alert, ALERT_PROTOCOL_VERSION, -EPROTO);
	if (out->length > max)
		return refuse(alert, ALERT_RECORD_OVERFLOW, -EMSGSIZE);
	return 0;
}

static void put_header(uint8_t *p, uint8_t type, size_t length)
{
	p[0] = type;
	p[1] = TLS_12 >> 8;
	p[2] = TLS_12 & 0xff;
	p[3] = (uint8_t)(length >> 8);
	p[4] = (uint8_t)length;
}

/* ---- sealing and opening ---- */

/* Fetched once and kept for the life of the process. */
static EVP_CIPHER *evp_ciphers[TLS_CIPHERS];
static pthread_once_t evp_ciphers_once = PTHREAD_ONCE_INIT;

static void fetch_ciphers(void)
{
	for (unsigned c = 0; c < TLS_CIPHERS; c++)
		evp_ciphers[c] = EVP_CIPHER_fetch(NULL, tls_cipher_desc(c)->evp_name, NULL);
}

static int set_keys(struct record_cipher *c, const struct tls_keys *keys, bool seal, uint64_t seq)
{
	pthread_once(&evp_ciphers_once, fetch_ciphers);
	if (!evp_ciphers[keys->cipher] ||
	    EVP_CipherInit_ex2(c->ctx, evp_ciphers[keys->cipher], keys->key, NULL, seal, NULL) != 1)
		return -EIO;
	c->version = keys->version;
	c->cipher = (uint8_t)keys->cipher;
	memcpy(c->iv, keys->iv, sizeof(c->iv));
	c->seq = seq;
	c->explicit_nonce = keys->explicit_nonce;
	return 0;
}

int record_cipher_init(struct record_cipher *c, const struct tls_keys *keys, bool seal)
{
	memset(c, 0, sizeof(*c));
	c->ctx = EVP_CIPHER_CTX_new();
	if (!c->ctx)
		return -EIO;
	if (set_keys(c, keys, seal, keys->seq)) {
		record_cipher_free(c);
		return -EIO;
	}
	return 0;
}

int record_cipher_rekey(struct record_cipher *c, const struct tls_keys *keys, bool seal)
{
	return set_keys(c, keys, seal, 0);
}

void record_cipher_free(struct record_cipher *c)
{
	if (!c)
		return;
	EVP_CIPHER_CTX_free(c->ctx); /* wipes the key */
	OPENSSL_cleanse(c, sizeof(*c));
}

static size_t explicit_nonce_len(const struct record_cipher *c)
{
	return c->version == TLS_12 && c->cipher != TLS_CHACHA20_POLY1305 ? EXPLICIT_NONCE_LEN : 0;
}

size_t record_headroom(const struct record_cipher *c)
{
	return RECORD_HEADER + explicit_nonce_len(c);
}

size_t record_tailroom(const struct record_cipher *c)
{
	return (c->version == TLS_13) + TAG_LEN;
}

static void put_be64(uint8_t *p, uint64_t v)
{
	uint64_t be = htobe64(v);

	memcpy(p, &be, sizeof(be));
}

/* explicit_nonce: the eight bytes behind the header, looked at only where there are any. */
static void build_nonce(const struct record_cipher *c, const uint8_t *explicit_nonce,
			uint8_t nonce[NONCE_LEN])
{
	uint8_t seq[8];

	memcpy(nonce, c->iv, NONCE_LEN);
	if (explicit_nonce_len(c)) {
		memcpy(nonce + SALT_LEN, explicit_nonce, EXPLICIT_NONCE_LEN);
		return;
	}
	put_be64(seq, c->seq);
	for (unsigned i = 0; i < sizeof(seq); i++)
		nonce[NONCE_LEN - sizeof(seq) + i] ^= seq[i];
}

/* n: length of the TLS 1.2 plaintext, which TLS 1.3 does not authenticate apart. */
static size_t build_aad(const struct record_cipher *c, const uint8_t *header, size_t n,
			uint8_t aad[AAD_LEN_MAX])
{
	if (c->version == TLS_13) {
		memcpy(aad, header, RECORD_HEADER);
		return RECORD_HEADER;
	}
	put_be64(aad, c->seq);
	memcpy(aad + 8, header, 3);
	aad[11] = (uint8_t)(n >> 8);
	aad[12] = (uint8_t)n;
	return AAD_LEN_MAX;
}

/* Encrypts n bytes in place; the tag goes behind them. The header stands at rec already. */
static bool aead_seal(const struct record_cipher *c, const uint8_t *rec, uint8_t *p, size_t n)
{
	uint8_t nonce[NONCE_LEN], aad[AAD_LEN_MAX];
	OSSL_PARAM tag[] = {
		OSSL_PARAM_construct_octet_string(OSSL_CIPHER_PARAM_AEAD_TAG, p + n, TAG_LEN),
		OSSL_PARAM_construct_end(),
	};
	size_t aad_len = build_aad(c, rec, n, aad);
	int len = 0;

	build_nonce(c, rec + RECORD_HEADER, nonce);
	return EVP_EncryptInit_ex2(c->ctx, NULL, NULL, nonce, NULL) == 1 &&
	       EVP_EncryptUpdate(c->ctx, NULL, &len, aad, (int)aad_len) == 1 &&
	       EVP_EncryptUpdate(c->ctx, p, &len, p, (int)n) == 1 &&
	       EVP_EncryptFinal_ex(c->ctx, p + n, &len) == 1 &&
	       EVP_CIPHER_CTX_get_params(c->ctx, tag) == 1;
}

/* Decrypts n bytes from p, whose tag follows them, to out: p itself or apart from it. */
static bool aead_open(const struct record_cipher *c, const uint8_t *rec, const uint8_t *p, size_t n,
		      uint8_t *out)
{
	uint8_t nonce[NONCE_LEN], aad[AAD_LEN_MAX];
	OSSL_PARAM tag[] = {
		OSSL_PARAM_construct_octet_string(OSSL_CIPHER_PARAM_AEAD_TAG, (void *)(p + n),
						  TAG_LEN),
		OSSL_PARAM_construct_end(),
	};
	size_t aad_len = build_aad(c, rec, n, aad);
	int len = 0;

	build_nonce(c, rec + RECORD_HEADER, nonce);
	return EVP_DecryptInit_ex2(c->ctx, NULL, NULL, nonce, tag) == 1 &&
	       EVP_DecryptUpdate(c->ctx, NULL, &len, aad, (int)aad_len) == 1 &&
	       EVP_DecryptUpdate(c->ctx, out, &len, p, (int)n) == 1 &&
	       EVP_DecryptFinal_ex(c->ctx, out + n, &len) == 1;
}

ssize_t record_seal(struct record_cipher *c, uint8_t type, uint8_t *buf, size_t n)
{
	size_t headroom = record_headroom(c), body;
	uint8_t *payload = buf + headroom;

	if (n > RECORD_PLAIN_MAX)
		return -EIO;
	if (c->seq == UINT64_MAX)
		return -EOVERFLOW;
	if (c->version == TLS_13) {
		payload[n++] = type;
		type = RECORD_APPLICATION_DATA;
	}
	body = headroom - RECORD_HEADER + n + TAG_LEN;
	put_header(buf, type, body);
	if (explicit_nonce_len(c))
		put_be64(buf + RECORD_HEADER, c->explicit_nonce);
	if (!aead_seal(c, buf, payload, n))
		return -EIO;
	c->seq++;
	c->explicit_nonce++;
	return (ssize_t)(RECORD_HEADER + body);
}

/* RFC 8446 section 5.4: the last byte that is not zero is the type. */
static ssize_t strip_padding(const uint8_t *p, size_t n, uint8_t *type, int *alert)
{
	while (n > 0 && p[n - 1] == 0)
		n--;
	if (n == 0)
		return refuse(alert, ALERT_UNEXPECTED_MESSAGE, -EPROTO);
	*type = p[n - 1];
	return (ssize_t)(n - 1);
}

static bool overlap(const uint8_t *a, const uint8_t *b, size_t n)
{
	return (uintptr_t)a < (uintptr_t)b + n && (uintptr_t)b < (uintptr_t)a + n;
}

ssize_t record_open(struct record_cipher *c, const uint8_t *rec, size_t len, uint8_t *out,
		    uint8_t *type, int *alert)
{
	size_t headroom = record_headroom(c), n;
	const uint8_t *payload = rec + headroom;
	struct record_header h;
	uint8_t *plain = out;
	int r;

	if (len < RECORD_HEADER)
		return refuse(alert, ALERT_DECODE_ERROR, -EPROTO);
	r = record_parse_header(rec, c->version, &h, alert);
	if (r)
		return r;
	if (len != RECORD_HEADER + (size_t)h.length)
		return refuse(alert, ALERT_DECODE_ERROR, -EPROTO);
	if (c->version == TLS_13 && h.type != RECORD_APPLICATION_DATA)
		return refuse(alert, ALERT_UNEXPECTED_MESSAGE, -EPROTO);
	/* What cannot be deprotected is bad_record_mac, for want of length too. */
	if (len < headroom + TAG_LEN)
		return refuse(alert, ALERT_BAD_RECORD_MAC, -EBADMSG);
	n = len - headroom - TAG_LEN;
	/* TLS 1.3 counts the inner type and padding: RFC 8446 section 5.4. */
	if (n > RECORD_PLAIN_MAX + (size_t)(c->version == TLS_13))
		return refuse(alert, ALERT_RECORD_OVERFLOW, -EMSGSIZE);
	if (c->seq == UINT64_MAX)
		return refuse(alert, ALERT_INTERNAL_ERROR, -EOVERFLOW);

	/* Ciphers work in place or apart only. What overlaps out is the caller's to be written. */
	if (overlap(out, payload, n))
		plain = (uint8_t *)payload;
	if (!aead_open(c, rec, payload, n, plain)) {
		OPENSSL_cleanse(plain, n); /* nobody may use what is not authentic */
		return refuse(alert, ALERT_BAD_RECORD_MAC, -EBADMSG);
	}
	if (plain != out)
		memmove(out, plain, n);
	c->seq++;
	*type = h.type;
	if (c->version == TLS_13)
		return strip_padding(out, n, type, alert);
	return (ssize_t)n;
}

size_t record_plain_alert(int alert, uint8_t buf[7])
{
	put_header(buf, RECORD_ALERT, 2);
	buf[5] = 2; /* fatal */
	buf[6] = (uint8_t)alert;
	return 7;
}

/* ---- records that are not data ---- */

/* What may come after the handshake; everything else is unexpected_message. */
static const struct message_rule {
	uint16_t version;
	uint8_t type;
	bool from_client, from_server;
	uint32_t min, max; /* of the body */
	enum record_event_kind event;
} message_rules[] = {
	{TLS_13, MESSAGE_NEW_SESSION_TICKET, false, true, 0, MESSAGE_MAX, EVENT_TICKET},
	{TLS_13, MESSAGE_KEY_UPDATE, true, true, 1, 1, EVENT_KEY_UPDATE},
	{TLS_12, MESSAGE_HELLO_REQUEST, false, true, 0, 0, EVENT_RENEGOTIATION},
	{TLS_12, MESSAGE_CLIENT_HELLO, true, false, 0, MESSAGE_MAX, EVENT_RENEGOTIATION},
};

static const struct message_rule *find_rule(uint16_t version, bool from_server, uint8_t type)
{
	for (size_t i = 0; i < ARRAY_SIZE(message_rules); i++) {
		const struct message_rule *m = &message_rules[i];

		if (m->version == version && m->type == type &&
		    (from_server ? m->from_server : m->from_client))
			return m;
	}
	return NULL;
}

static struct record_event event(enum record_event_kind kind, int alert)
{
	return (struct record_event){.kind = kind, .alert = alert};
}

static struct record_event illegal(int alert)
{
	return event(EVENT_ILLEGAL, alert);
}

/* Alerts are neither split nor coalesced, in no version we speak. */
static struct record_event parse_alert(uint16_t version, const uint8_t *p, size_t n)
{
	if (n != 2)
		return illegal(n ? ALERT_DECODE_ERROR : ALERT_UNEXPECTED_MESSAGE);
	if (version == TLS_13) {
		if (p[1] == ALERT_CLOSE_NOTIFY)
			return event(EVENT_CLOSE_NOTIFY, p[1]);
		return event(p[1] == ALERT_USER_CANCELED ? EVENT_WARNING : EVENT_FATAL, p[1]);
	}
	switch (p[0]) {
	case 1:
		return event(p[1] == ALERT_CLOSE_NOTIFY ? EVENT_CLOSE_NOTIFY : EVENT_WARNING, p[1]);
	case 2:
		return event(EVENT_FATAL, p[1]);
	default:
		return illegal(ALERT_ILLEGAL_PARAMETER);
	}
}

static uint32_t message_length(const struct record_control *rc)
{
	return (uint32_t)rc->header[1] << 16 | (uint32_t)rc->header[2] << 8 | rc->header[3];
}

/* Takes what there is of the header; false while some is missing. */
static bool take_header(struct record_control *rc, const uint8_t **p, size_t *n)
{
	if (rc->have == MESSAGE_HEADER)
		return true;
	while (rc->have<MESSAGE_HEADER && * n> 0) {
		rc->header[rc->have++] = *(*p)++;
		(*n)--;
	}
	if (rc->have < MESSAGE_HEADER)
		return false;
	rc->left = message_length(rc);
	return true;
}

/* Skips what there is of the body; false while some is missing. */
static bool skip_body(struct record_control *rc, const uint8_t **p, size_t *n)
{
	size_t take = *n < rc->left ? *n : rc->left;

	*p += take;
	*n -= take;
	rc->left -= (uint32_t)take;
	return rc->left == 0;
}

/* behind: bytes in the record after it. They would be sealed with keys that are void already. */
static struct record_event parse_key_update(uint8_t request, size_t behind)
{
	struct record_event ev = event(EVENT_KEY_UPDATE, ALERT_NONE);

	if (behind)
		return illegal(ALERT_UNEXPECTED_MESSAGE);
	if (request > 1)
		return illegal(ALERT_ILLEGAL_PARAMETER);
	ev.requested = request;
	return ev;
}

/* Takes one message from a record that is not empty; false when the record ends inside it. */
static bool next_message(struct record_control *rc, uint16_t version, bool from_server,
			 const uint8_t **p, size_t *n, struct record_event *ev)
{
	bool complete = take_header(rc, p, n);
	const struct message_rule *rule = find_rule(version, from_server, rc->header[0]);

	/* The first byte will do: who sends no more than that is not waited for. */
	if (!rule) {
		*ev = illegal(ALERT_UNEXPECTED_MESSAGE);
		ev->late_request = version == TLS_13 && from_server &&
				   rc->header[0] == MESSAGE_CERTIFICATE_REQUEST;
		return true;
	}
	if (!complete)
		return false;
	/* Too long for us is decode_error too: "out of the specified range" (RFC 8446 6.2). */
	if (message_length(rc) < rule->min || message_length(rc) > rule->max) {
		*ev = illegal(ALERT_DECODE_ERROR);
		return true;
	}
	if (!skip_body(rc, p, n))
		return false;
	rc->have = 0;
	/* A KeyUpdate's one byte has just been skipped. */
	*ev = rule->event == EVENT_KEY_UPDATE ? parse_key_update((*p)[-1], *n)
					      : event(rule->event, ALERT_NONE);
	return true;
}

static bool next_event(struct record_control *rc, uint16_t version, bool from_server, uint8_t type,
		       const uint8_t **p, size_t *n, struct record_event *ev)
{
	if (type == RECORD_HANDSHAKE && *n > 0)
		return next_message(rc, version, from_server, p, n, ev);

	/* TLS 1.3 lets nothing at all between the parts of a message: RFC 8446 5.1. */
	if (type == RECORD_ALERT && !(version == TLS_13 && record_control_pending(rc)))
		*ev = parse_alert(version, *p, *n);
	else
		*ev = illegal(ALERT_UNEXPECTED_MESSAGE);
	*n = 0;
	return true;
}

int record_control_next(struct record_control *rc, uint16_t version, bool from_server, uint8_t type,
			const uint8_t **p, size_t *n, struct record_event *ev)
{
	bool found;

	/* NULL tells a record that is used up from one that came empty. */
	if (!*p)
		return 0;
	found = next_event(rc, version, from_server, type, p, n, ev);
	if (found && ev->kind == EVENT_ILLEGAL)
		*n = 0;
	if (*n == 0)
		*p = NULL;
	return found;
}

size_t record_key_update(bool request, uint8_t buf[5])
{
	const uint8_t message[5] = {MESSAGE_KEY_UPDATE, 0, 0, 1, request};

	memcpy(buf, message, sizeof(message));
	return sizeof(message);
}
