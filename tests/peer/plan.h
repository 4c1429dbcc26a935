/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the two ends of a flow do, drawn from a seed, and what each must then see.
 *
 *   the sender ends with        the receiver must see
 *   close_notify                every byte, then close_notify
 *   bare FIN                    every byte, then FIN
 *   fatal alert N               every byte before it, then alert N
 *   RST                         a prefix of the bytes, then RST
 *   early close()               a prefix of the bytes, then FIN or RST
 *   close_notify and close()    as the last, or every byte and close_notify
 *
 * An end that resets, sends an alert or closes early sees a prefix, and
 * close_notify only behind every byte. TLS 1.2 on either side: an end that says
 * close_notify while the other still sends has closed both directions, and sees a
 * prefix and any end but an alert (RFC 5246 7.2.1). No byte may ever be different.
 */
#ifndef PEER_PLAN_H
#define PEER_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* X(name, word, help); drawn by "mixed" up to and including KIND_TINY. */
#define KINDS(X)                                                                                   \
	X(CLOSE, "close", "both send all, receive all, then close_notify")                         \
	X(HALF_CLIENT, "half-client",                                                              \
	  "TLS 1.3: the client closes its direction, the other goes on")                           \
	X(HALF_BACKEND, "half-backend", "TLS 1.3: the backend closes its direction")               \
	X(BOTH, "both", "each says close_notify behind its own last byte")                         \
	X(RST_CLIENT, "rst-client", "the client resets in mid-transfer")                           \
	X(RST_BACKEND, "rst-backend", "the backend resets in mid-transfer")                        \
	X(EARLY_CLIENT, "early-client", "the client closes without reading everything")            \
	X(EARLY_BACKEND, "early-backend", "the backend closes without reading everything")         \
	X(FIN_CLIENT, "fin-client", "the client sends FIN without close_notify")                   \
	X(FIN_BACKEND, "fin-backend", "the backend sends FIN without close_notify")                \
	X(ALERT_CLIENT, "alert-client", "the client sends a fatal alert")                          \
	X(ALERT_BACKEND, "alert-backend", "the backend sends a fatal alert")                       \
	X(STALL, "stall", "a reader pauses with full buffers; then as close")                      \
	X(ONES, "ones", "records of one to a few bytes, many to a segment")                        \
	X(PADDED, "padded", "TLS 1.3: padded records")                                             \
	X(MAXIMUM, "maximum", "records of 16384 bytes only")                                       \
	X(TINY, "tiny", "the smallest socket buffers")                                             \
	X(REKEY, "rekey", "TLS 1.3: KeyUpdates in both directions")                                \
	X(HOLD, "hold", "a little, then nothing until told (--idle, --counts)")                    \
	X(STALLED, "stalled", "the client reads nothing until told (--stall)")                     \
	X(QUICK, "quick", "eight bytes each way (--rate)")                                         \
	X(BULK, "bulk", "as much as told both ways at once (--bulk)")                              \
	X(STREAM, "stream", "from the backend only, in whole records (--steps)")                   \
	X(PING, "ping", "64 bytes there and back, one after the other (--steps)")

enum kind {
#define X(name, word, help) KIND_##name,
	KINDS(X)
#undef X
	KIND_COUNT
};

extern const char *const kind_words[KIND_COUNT];
extern const char *const kind_helps[KIND_COUNT];

enum role {
	CLIENT,
	BACKEND
};
extern const char *const role_words[2];

enum finish {
	BY_CLOSE_NOTIFY,
	BY_FIN,
	BY_RST,
	BY_ALERT,
	BY_CLOSE,	       /* close(), whatever is unread or unsent */
	BY_CLOSE_NOTIFY_CLOSE, /* close_notify, then the same */
};

enum when {
	WHEN_SENT,	 /* its last byte is with the kernel */
	WHEN_BOTH,	 /* and everything of the other end was received */
	WHEN_PEER_ENDED, /* its last byte is sent and the other end has ended */
	WHEN_RECEIVED,	 /* stop_at bytes were received, whatever is still to be sent */
	WHEN_TOLD,
};

enum sizes {
	SIZES_MIXED,
	SIZES_ONES,
	SIZES_SMALL,
	SIZES_ODD,
	SIZES_HUGE,
	SIZES_MAXIMUM,
	SIZES_COUNT
};

struct end_plan {
	uint64_t total; /* bytes to be sent, the flow's number included */
	enum finish finish;
	enum when when;
	uint64_t stop_at; /* WHEN_RECEIVED */
	bool after_peer;  /* but for its number it sends only when the other end has ended */
	bool fin_at_once; /* FIN right behind close_notify, not when both have closed */
	enum sizes sizes;
	int sndbuf, rcvbuf;   /* 0: the kernel's default */
	int mss;	      /* the same; of what it receives */
	unsigned padding;     /* SSL_set_block_padding(), 0: none */
	unsigned fragment;    /* largest record, 0: 16384 */
	uint64_t stall_at;    /* bytes received when it stops reading */
	unsigned stall_ms;    /* 0: does not */
	unsigned pauses;      /* chance in 1000 of one before a write */
	unsigned key_updates; /* chance in 1000 of one before a write */
	uint32_t turn;	      /* bytes of a message; the client's first, each waits for the other */
	uint64_t pattern;     /* of the bytes it sends */
	uint64_t random;      /* state, for what is drawn on the way */
};

struct plan {
	enum kind kind;
	uint32_t flow;
	uint16_t version[2]; /* what each end offers; 0: both */
	unsigned pair;	     /* of addresses */
	struct end_plan end[2];
};

struct plan_options {
	uint64_t seed;
	int kind;	 /* enum kind, or -1: mixed */
	bool rekey;	 /* mixed draws KIND_REKEY too */
	uint64_t bytes;	 /* most bytes in a direction */
	const char *tls; /* "1.2", "1.3", "mixed" */
	unsigned pairs;	 /* with two, the second one's backend speaks TLS 1.2 only */
};

/* The same plan for the same flow and options, always. */
void plan_make(struct plan *p, const struct plan_options *o, uint32_t flow);
bool plan_tls12(const struct plan *p);

#define NUMBER_LEN 8 /* the first bytes each end sends: a magic number and the flow's */
#define PING_LEN   64

/* n bytes from position at on of what end sends. */
void plan_bytes(const struct plan *p, enum role end, uint64_t at, uint8_t *buf, size_t n);
/* The flow's number in the first NUMBER_LEN bytes; -1 if it is none. */
int64_t plan_number(const uint8_t *buf);

uint64_t draw(uint64_t *state);
uint64_t draw_below(uint64_t *state, uint64_t n);
size_t draw_size(uint64_t *state, enum sizes sizes);

/* ---- what came of it ---- */

enum ended {
	ENDED_NOT,
	ENDED_CLOSE_NOTIFY,
	ENDED_FIN,
	ENDED_RST,
	ENDED_ALERT,
	ENDED_ERROR, /* of OpenSSL's, not an alert: a broken record */
};

struct seen {
	uint64_t sent, received;
	int64_t different_at; /* first byte that was not the one sent, -1: none */
	enum ended ended;     /* how the other end closed */
	int alert;	      /* ENDED_ALERT */
	int alert_sent;
	bool closed_early; /* it said close_notify before it had received everything */
	bool said_goodbye; /* it said close_notify */
	bool undue;	   /* it saw a close_notify that the other end had not said */
};

/* Is what end saw right? If not, expected and what was seen are described in text. */
bool plan_judge(const struct plan *p, enum role end, const struct seen seen[2], char *text,
		size_t len);
/* The same of a gate that passes an end on as another: every byte, and some end. */
bool plan_judge_bytes(const struct plan *p, enum role end, const struct seen seen[2], char *text,
		      size_t len);
/* The same where the gate may give flows up: a prefix, and no end that looks like an orderly one.
 */
bool plan_judge_given_up(const struct plan *p, enum role end, const struct seen seen[2], char *text,
			 size_t len);

#endif
