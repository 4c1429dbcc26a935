/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS records: sealing and opening them with our own keys, and what the
 * records that are not data mean. Used by both engines; knows no socket.
 * RFC 8446 section 5, RFC 5246 section 6, RFC 5288, RFC 7905.
 */
#ifndef KTLSGATE_RECORD_H
#define KTLSGATE_RECORD_H

#include "tls/keys.h"

enum record_type {
	RECORD_CHANGE_CIPHER_SPEC = 20,
	RECORD_ALERT = 21,
	RECORD_HANDSHAKE = 22,
	RECORD_APPLICATION_DATA = 23,
};

#define RECORD_HEADER	  5
#define RECORD_PLAIN_MAX  16384			   /* 2^14 */
#define RECORD_CIPHER_MAX (RECORD_PLAIN_MAX + 256) /* TLSCiphertext.length, TLS 1.3 */
/* TLS 1.2 allows 2048 bytes of expansion. */
#define RECORD_MAX (RECORD_HEADER + RECORD_PLAIN_MAX + 2048)
/* What sealing adds at most: header, explicit nonce, content type, tag. */
#define RECORD_HEADROOM_MAX (RECORD_HEADER + 8)
#define RECORD_TAILROOM_MAX (1 + 16)
#define RECORD_OVERHEAD_MAX (RECORD_HEADROOM_MAX + RECORD_TAILROOM_MAX)

/* Alert descriptions, RFC 8446 section 6 and the IANA registry; values are the wire's. */
enum tls_alert {
	ALERT_CLOSE_NOTIFY = 0,
	ALERT_UNEXPECTED_MESSAGE = 10,
	ALERT_BAD_RECORD_MAC = 20,
	ALERT_RECORD_OVERFLOW = 22,
	ALERT_HANDSHAKE_FAILURE = 40,
	ALERT_BAD_CERTIFICATE = 42,
	ALERT_UNSUPPORTED_CERTIFICATE = 43,
	ALERT_CERTIFICATE_REVOKED = 44,
	ALERT_CERTIFICATE_EXPIRED = 45,
	ALERT_CERTIFICATE_UNKNOWN = 46,
	ALERT_ILLEGAL_PARAMETER = 47,
	ALERT_UNKNOWN_CA = 48,
	ALERT_ACCESS_DENIED = 49,
	ALERT_DECODE_ERROR = 50,
	ALERT_DECRYPT_ERROR = 51,
	ALERT_PROTOCOL_VERSION = 70,
	ALERT_INSUFFICIENT_SECURITY = 71,
	ALERT_INTERNAL_ERROR = 80,
	ALERT_USER_CANCELED = 90,
	ALERT_NO_RENEGOTIATION = 100,
	ALERT_MISSING_EXTENSION = 109,
	ALERT_UNSUPPORTED_EXTENSION = 110,
	ALERT_UNRECOGNIZED_NAME = 112,
	ALERT_BAD_CERTIFICATE_STATUS_RESPONSE = 113,
	ALERT_CERTIFICATE_REQUIRED = 116,
	ALERT_NO_APPLICATION_PROTOCOL = 120,
	ALERT_NONE = -1, /* say nothing */
};

/* "unknown_ca"; "alert 200" style text for unknown ones is the caller's: NULL then. */
const char *alert_name(int alert);

/* ---- headers ---- */

struct record_header {
	uint8_t type;
	uint16_t length; /* of what follows the header */
};

/*
 * Parses the five bytes at p. Returns 0, or a negative errno with *alert set:
 * -EPROTO (no TLS record: unknown type or major version), -EMSGSIZE (longer
 * than encrypted records of this version may be; version 0: TLS 1.2's limit).
 */
int record_parse_header(const uint8_t p[RECORD_HEADER], uint16_t version, struct record_header *out,
			int *alert) must_check;

/* ---- sealing and opening ---- */

/* One direction's AEAD state: 8 + sizeof(tls_keys) bytes and one EVP_CIPHER_CTX. */
struct record_cipher {
	EVP_CIPHER_CTX *ctx;
	uint16_t version;
	uint8_t cipher; /* enum tls_cipher */
	uint8_t iv[12];
	uint64_t seq;
	uint64_t explicit_nonce;
};

/* Returns 0 or -EIO. Takes a copy of what it needs; the caller wipes keys. */
int record_cipher_init(struct record_cipher *c, const struct tls_keys *keys, bool seal) must_check;
/* New keys, sequence number 0 (KeyUpdate); keeps the EVP_CIPHER_CTX. */
int record_cipher_rekey(struct record_cipher *c, const struct tls_keys *keys, bool seal) must_check;
/* NULL-safe and safe on a zeroed struct; wipes. */
void record_cipher_free(struct record_cipher *c);

/* Bytes in front of and behind the payload of a sealed record. */
size_t record_headroom(const struct record_cipher *c);
size_t record_tailroom(const struct record_cipher *c);

/*
 * Seals n <= RECORD_PLAIN_MAX bytes in place: the payload stands at
 * buf + record_headroom(c), the record begins at buf; record_tailroom(c) bytes
 * behind the payload must be writable. Returns the record's length (header
 * included), or -EIO, or -EOVERFLOW when the sequence number is used up.
 */
ssize_t record_seal(struct record_cipher *c, uint8_t type, uint8_t *buf, size_t n) must_check;

/*
 * Opens the whole record rec (header included; len = 5 + its length). The
 * plaintext goes to out, which must hold len bytes and may be anywhere in
 * front of or apart from rec's payload (out == rec + record_headroom(c) opens in place).
 * Padding and the inner content type are taken off.
 * Returns the plaintext's length (0 is a valid record) with *type set, or a
 * negative errno with *alert set: -EBADMSG (bad_record_mac), -EPROTO
 * (unexpected_message, decode_error, protocol_version), -EMSGSIZE
 * (record_overflow), -EOVERFLOW.
 */
ssize_t record_open(struct record_cipher *c, const uint8_t *rec, size_t len, uint8_t *out,
		    uint8_t *type, int *alert) must_check;

/* An unprotected fatal alert record; returns its length (7). */
size_t record_plain_alert(int alert, uint8_t buf[7]);

/* ---- records that are not data ---- */

/* Reassembly of handshake messages after the handshake; zero it to begin. 12 bytes. */
struct record_control {
	uint8_t have; /* header bytes of the current message seen so far, 0..4 */
	uint8_t header[4];
	uint32_t left; /* body bytes still to come */
};

enum record_event_kind {
	EVENT_CLOSE_NOTIFY,
	EVENT_WARNING,	     /* alert that does not end the connection; .alert */
	EVENT_FATAL,	     /* the peer ended the connection; .alert */
	EVENT_TICKET,	     /* TLS 1.3 NewSessionTicket from a server; dropped here */
	EVENT_KEY_UPDATE,    /* TLS 1.3; .requested; always the last event of its record */
	EVENT_RENEGOTIATION, /* TLS 1.2 HelloRequest or ClientHello: answer no_renegotiation */
	EVENT_ILLEGAL,	     /* the peer broke the protocol: send .alert and close */
};

struct record_event {
	enum record_event_kind kind;
	int alert;
	bool requested;	   /* KeyUpdate: update_requested */
	bool late_request; /* ILLEGAL: a server's TLS 1.3 CertificateRequest after the handshake */
};

/*
 * Takes the next event from a decrypted record that is not application data.
 * Call until it returns 0 (nothing left in this record); 1: *ev is set and
 * *p, *n moved on; *p becomes NULL when the record is used up, so that an empty
 * record (*p not NULL, *n 0) is not mistaken for one. EVENT_ILLEGAL and alerts
 * use up their record. from_server: the sender is the TLS server of its connection.
 * Handshake messages may be split over records and coalesced (RFC 8446 5.1);
 * a KeyUpdate not at the end of its record, an empty handshake or alert
 * record, alerts of any other length than 2, messages over 64 KiB, unknown
 * message or content types, ChangeCipherSpec, application data and, in TLS 1.3,
 * alerts inside an unfinished handshake message are EVENT_ILLEGAL. In TLS 1.3
 * every alert but close_notify and user_canceled is fatal whatever its level
 * (RFC 8446 section 6).
 * A TLS 1.2 NewSessionTicket after the handshake is illegal.
 */
int record_control_next(struct record_control *rc, uint16_t version, bool from_server, uint8_t type,
			const uint8_t **p, size_t *n, struct record_event *ev) must_check;

/* True while a handshake message is unfinished: a data record is illegal then. */
static inline bool record_control_pending(const struct record_control *rc)
{
	return rc->have != 0;
}

/* TLS 1.3 KeyUpdate message (5 bytes), to be sent as a handshake record. */
size_t record_key_update(bool request, uint8_t buf[5]);

#endif
