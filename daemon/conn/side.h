/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One end of a flow: its socket, what is negotiated on it, and the state that
 * outlives the handshake. The two sides of a flow are alike but for their role.
 */
#ifndef KTLSGATE_SIDE_H
#define KTLSGATE_SIDE_H

#include "config/config.h"
#include "tls/record.h"
#include "base/ring.h"

enum side_role {
	SIDE_CLIENT,
	SIDE_BACKEND
}; /* who is at the other end of this socket */

/* How a side's sending ended or is to end; all are different things on the wire. */
enum side_end {
	END_NONE,
	END_CLOSE_NOTIFY, /* close_notify */
	END_FIN,	  /* FIN; after a close_notify an orderly end, without one a truncation */
	END_ALERT,	  /* a fatal alert, then FIN */
	END_RST,
};

/* Kept for KeyUpdate (TLS 1.3 only; empty otherwise). Wiped with the side. */
struct side_secrets {
	uint8_t rx[48], tx[48];
	uint8_t len;
};

struct flow;
struct handshake;
struct user_side;

struct side {
	struct flow *flow;     /* owner */
	int fd;		       /* -1: not connected */
	uint8_t role;	       /* enum side_role */
	uint8_t cipher;	       /* enum tls_cipher, once negotiated */
	bool ulp;	       /* kernel TLS can be installed */
	uint8_t records;       /* enum flow_records */
	uint16_t max_fragment; /* bytes that a record to it may hold (RFC 6066 4); 0: 2^14 */
	bool keyed;	       /* the kernel seals all that is sent from now on */
	uint16_t version;      /* TLS_12, TLS_13; 0: not yet */
	struct ring_op poll;   /* readiness in the relay; RDHUP watch while suspended */
	struct ring_op rx, tx; /* handshake I/O; rx: connect too */
	struct handshake *hs;  /* until the hand-over */

	/* relay */
	bool readable, writable; /* edge-triggered: true until a call said EAGAIN */
	bool hung_up;		 /* a FIN or reset has come, perhaps behind data not yet read */
	bool urgent;		 /* such data came: recv() stops in front of it, not empty */
	bool tx_closed;		 /* close_notify or a fatal alert was sent */
	bool fin_sent;		 /* shutdown(SHUT_WR) was done */
	uint64_t acked_at;	 /* ms: since when, while closing, its kernel has all of ours */
	bool broken;		 /* the socket is dead: reset, or a send failed */
	struct record_control control; /* handshake messages received after the hand-over */
	/* Who wants them, n bytes, as long as they are tickets; NULL for p: others came. Or NULL.
	 */
	void (*tickets)(struct side *s, const uint8_t *p, size_t n);
	struct side_secrets secrets;
	struct user_side *user; /* user engine only */
	uint8_t *pending;	/* sealed bytes (user) or control records (ktls) not yet accepted */
	uint32_t pending_off, pending_len;
	uint8_t answers; /* among them: to KeyUpdates and renegotiations */

	uint64_t key_used; /* bytes sent under the present key, see relay_moved() */
	int rx_error; /* ktls: errno of a bad record that a send, or closing, met; see ktls.h */
	/* ktls: what the tx accounting needs, see ktls_tx_drained() */
	uint64_t tx_base;    /* bytes TCP had been given when the keys were installed */
	uint64_t tx_plain;   /* plaintext accepted by the TLS layer since then, control records
				included */
	uint64_t tx_seq0;    /* record sequence number at the last TX key change */
	uint64_t tx_records; /* records under earlier TX keys */
};

static inline const char *side_name(const struct side *s)
{
	return s->role == SIDE_CLIENT ? "client" : "backend";
}

/* The sender on this socket is the TLS server of its connection. */
static inline bool side_peer_is_server(const struct side *s)
{
	return s->role == SIDE_BACKEND;
}

#endif
