/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The TLS handshake of one side, driven through memory BIOs and the ring.
 *
 * Nothing behind the handshake is taken off the socket: records are read
 * one by one, header first, so that the engine which follows starts on a
 * record boundary; and the records of each direction are counted from the key
 * change on, which gives the sequence numbers to install.
 */
#ifndef KTLSGATE_HANDSHAKE_H
#define KTLSGATE_HANDSHAKE_H

#include <openssl/ssl.h>
#include <time.h>
#include "tls/alpn.h"
#include "conn/side.h"
#include "tls/token.h"
#include "pki/verify.h"
#include "pki/verify.h"

enum handshake_event {
	HANDSHAKE_HELLO,     /* server side: a ClientHello was accepted */
	HANDSHAKE_HELD,	     /* TLS 1.2 server side: the client's ChangeCipherSpec is withheld, all
				before it is verified */
	HANDSHAKE_SUSPENDED, /* client side: waits at the CertificateRequest */
	HANDSHAKE_DONE,	     /* complete, all output accepted by TCP */
	HANDSHAKE_FAILED,    /* handshake.failure tells */
};

enum handshake_failure {
	HANDSHAKE_OK,
	HANDSHAKE_EOF,		  /* FIN */
	HANDSHAKE_RESET,	  /* RST or another socket error; .error is the errno */
	HANDSHAKE_NOT_TLS,	  /* a record header that is none */
	HANDSHAKE_PEER_ALERT,	  /* .alert */
	HANDSHAKE_VERIFY,	  /* the peer's certificate; .error is that of a verify_result */
	HANDSHAKE_NO_CERTIFICATE, /* mandatory and not sent */
	HANDSHAKE_VERSION,	  /* no common version */
	HANDSHAKE_CIPHER,	  /* no common cipher, group or signature algorithm */
	HANDSHAKE_SIGNATURE,	  /* CertificateVerify is wrong */
	HANDSHAKE_SERVER_NAME,	  /* refused by hello: a name that is not ours; .detail has it */
	HANDSHAKE_ALPN,		  /* refused by hello: no common protocol; .detail has the peer's */
	HANDSHAKE_LOOP,		  /* refused by hello: it is our own; .detail has the service */
	HANDSHAKE_TOO_LONG,	  /* more than max_received */
	HANDSHAKE_NO_MEMORY,	  /* ours */
	HANDSHAKE_PROTOCOL,	  /* any other refusal by OpenSSL; .detail is its text */
};

/* Secrets of the key schedule, from the keylog callback (TLS 1.3). */
struct handshake_secrets {
	uint8_t client_handshake[48], server_handshake[48];
	uint8_t client_traffic[48], server_traffic[48];
	uint8_t have; /* bit per member, in that order */
	uint8_t len;
};

struct handshake {
	struct side *side;
	struct ring *ring;
	/* Only DONE and FAILED may free the handshake; others may stop it. */
	void (*event)(struct handshake *hs, enum handshake_event ev);
	/*
	 * Server side, set before the start or NULL: looks at the ClientHello, and at another one
	 * behind a HelloRetryRequest. As SSL_CTX_set_client_hello_cb() wants it; ERROR: with
	 * hs->refused set and the alert that OpenSSL is to send; RETRY: reported as
	 * HANDSHAKE_HELLO, and asked again after handshake_resume().
	 */
	int (*hello)(struct handshake *hs, int *alert);
	/* Server side, what hello found: */
	char server_name[256];	     /* asked for by the client, lower case; or empty */
	struct alpn alpn;	     /* the protocol to choose */
	bool alpn_known;	     /* nothing is left to wait for */
	bool extended_master_secret; /* of TLS 1.2, offered; OpenSSL never says no */
	/* Server side: what a session was resumed with, if SSL_session_reused(). */
	STACK_OF(X509) * resumed_chain; /* verified anew; NULL: the client had no certificate */
	uint8_t resumed_token[TOKEN_LEN];
	/* Server side: what stands in a ticket, as in ticket.h; owned. */
	uint8_t *ticket_data;
	size_t ticket_data_len;
	time_t ticket_end; /* no ticket is good for longer */
	SSL *ssl;
	BIO *in, *out; /* owned by ssl */
	struct handshake_secrets secrets;

	uint32_t max_received; /* set before the start: bytes the peer may send; 0: any number */
	bool hold_change_cipher_spec; /* set before the start: report HANDSHAKE_HELD */
	bool held, suspended, finished;
	bool resume; /* the certificate callback may go on */
	bool hello_seen, hello_told;
	uint8_t last_received; /* type of the newest whole handshake message */
	bool released;	       /* the withheld record was fed */
	bool stopped;

	enum handshake_failure refused; /* why we did, where OpenSSL would not say */
	int verdict;			/* that of a verify_result; .detail is its text */
	enum handshake_failure failure;
	int error;
	int alert; /* received */
	char detail[256];

	uint8_t header[RECORD_HEADER];
	uint8_t *record;		  /* being read: header included */
	uint32_t record_len, record_have; /* 0: the header is being read */

	uint32_t received_bytes; /* records, those being read included */
	/* Of the plaintext handshake message that comes: its header, and what is still to come. */
	uint8_t message[4], message_have;
	uint32_t message_left;

	uint8_t *output; /* being sent */
	uint32_t output_off, output_len;
	uint64_t tx_step_records;	/* records of the newest step's output */
	bool tx_encrypted;		/* a record went out under handshake or traffic keys */
	uint8_t last_explicit_nonce[8]; /* TLS 1.2 GCM: of the newest record sent */

	uint8_t *transcript; /* handshake messages up to the client's CertificateVerify */
	uint32_t transcript_len;
	bool transcript_on, transcript_done;
	bool transcript_no_memory; /* why it is no longer on; else it was too long */
	uint64_t ticket_records;   /* fed by handshake_ticket_received() */
};

/*
 * Prepares an SSL_CTX for handshakes run by this file: versions, AEAD suites
 * with forward secrecy, callbacks, no resumption, no renegotiation.
 */
SSL_CTX *handshake_ctx_new(bool server, const struct cfg_profile *profile) must_check;

/* ctx from handshake_ctx_new(). Takes side->fd's I/O over until DONE or FAILED. NULL: out of
 * memory. */
struct handshake *handshake_new(struct side *side, struct ring *ring, SSL_CTX *ctx, bool server,
				void (*event)(struct handshake *, enum handshake_event)) must_check;
void handshake_start(struct handshake *hs);

/* No event comes any more; cancels I/O. Free it when side->rx and side->tx are no longer armed. */
void handshake_stop(struct handshake *hs);

/* Server side after HANDSHAKE_HELD: feeds the withheld record. */
void handshake_release(struct handshake *hs);
/*
 * Client side after HANDSHAKE_SUSPENDED: go on with the certificate set on hs->ssl.
 * Server side after HANDSHAKE_HELLO, when suspended: ask hello again.
 */
void handshake_resume(struct handshake *hs);

/*
 * Server side, TLS 1.3, after HANDSHAKE_DONE: sends a ticket with ticket_data in
 * it; HANDSHAKE_DONE, or FAILED, comes once more. In TLS 1.2 a ticket is part of the
 * handshake, and its data must be there before handshake_release().
 */
void handshake_ticket(struct handshake *hs);

/*
 * Client side, TLS 1.3, after the hand-over: a handshake kept for the tickets that still come. p
 * holds n bytes of handshake messages as they came, cut anywhere. *session: the newest ticket's, as
 * long as hs, or NULL if there was no whole one. Returns 0 or -EPROTO: no more may come.
 */
int handshake_ticket_received(struct handshake *hs, const uint8_t *p, size_t n,
			      SSL_SESSION **session) must_check;

/*
 * After HANDSHAKE_DONE: the keys of both directions with the sequence numbers
 * of the next records, as seen by us (tx: what we send). The TLS 1.3 traffic
 * secrets go to side->secrets. Returns 0 or -errno; the caller wipes the keys.
 */
int handshake_keys(struct handshake *hs, struct tls_keys *rx, struct tls_keys *tx) must_check;

/* Server side after HANDSHAKE_DONE: bytes a record to the client may hold, as it has asked for with
 * max_fragment_length (RFC 6066 4); 0: it has not. OpenSSL grants it, and no option says otherwise.
 */
uint16_t handshake_max_fragment(const struct handshake *hs);

/*
 * The record that tells the peer about a failure of ours in the present state
 * of the handshake: plaintext, or under the right key. Returns its length, 0 if
 * nothing can be said. Uses up the handshake.
 */
size_t handshake_alert(struct handshake *hs, int alert, uint8_t buf[64]) must_check;

/* For SSL_CTX_set_cert_verify_callback(): keeps the verdict for what is told to peer and log. */
void handshake_verdict(X509_STORE_CTX *ctx, const struct verify_result *verdict);

/* What HANDSHAKE_FAILED was about, beyond the kind of failure; NULL: no more is known. */
const char *handshake_failure_detail(const struct handshake *hs, char *buf, size_t len);

/* Only when neither side->rx nor side->tx is armed. NULL-safe; wipes secrets. */
void handshake_free(struct handshake *hs);

#endif
