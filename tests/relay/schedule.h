/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What happens in one flow, drawn from a seed, and what each far end must then
 * see (docs/design.md, "Ends"). Knows no socket and no key.
 *
 *   the other end              this end must see
 *   close_notify               every byte, close_notify, FIN
 *   FIN, between or in records every byte of whole records, FIN alone
 *   fatal alert N              every byte, alert N, FIN
 *   breaks a rule              every byte, internal_error; and is told why itself
 *   RST                        a prefix, RST
 *   close(), unread or not     a prefix, FIN or RST; with a close_notify in front of it as
 *                              that, or every byte and close_notify
 *
 * An end that sent an alert, broke a rule or closed sees a prefix of the other's
 * bytes. TLS 1.2: who closes first has closed both ways and may see a prefix once
 * the gate's two seconds are over (RFC 5246 7.2.1).
 */
#ifndef RELAY_SCHEDULE_H
#define RELAY_SCHEDULE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "conn/reason.h"

enum role {
	CLIENT,
	BACKEND
};

/* X(name, word, weight): what the acting end does; the other one then ends as suits. */
#define KINDS(X)                                                                                   \
	X(CLOSE, "close", 40)                                                                      \
	X(FIN, "fin", 10)                                                                          \
	X(CUT, "cut", 6)                                                                           \
	X(ALERT, "alert", 8)                                                                       \
	X(RST, "rst", 10)                                                                          \
	X(EARLY, "early", 10)                                                                      \
	X(BREAK, "break", 16)

enum kind {
#define X(name, word, weight) KIND_##name,
	KINDS(X)
#undef X
	KIND_COUNT
};

enum finish {
	BY_CLOSE_NOTIFY,
	BY_FIN,
	BY_CUT, /* FIN inside a record */
	BY_ALERT,
	BY_BREAK,
	BY_RST,
	BY_CLOSE, /* close(), whatever is unread */
};

enum when {
	WHEN_SENT,	 /* its last byte is sent */
	WHEN_RECEIVED,	 /* and the other's last byte received */
	WHEN_PEER_ENDED, /* and the other has ended */
	WHEN_ABORT,	 /* abort_sent and abort_received bytes are */
};

/*
 * X(name, versions, roles, alert, alert of the ktls engine): ways to break the
 * protocol and what the culprit is told. Versions 2, 3, or 5 for both; roles
 * 'c', 'b', or '*'. Where the kernel tells fewer errors apart than RFC 8446
 * does, the alert differs.
 */
#define BREAKS(X)                                                                                  \
	X(BAD_MAC, 5, '*', 20, 20)                                                                 \
	X(SHORT_RECORD, 5, '*', 20, 20)	  /* no room for a tag */                                  \
	X(LONG_HEADER, 5, '*', 22, 22)	  /* a length no record has */                             \
	X(LONG_PLAINTEXT, 5, '*', 22, 22) /* 2^14 + 1 bytes, authentic */                          \
	X(UNKNOWN_TYPE, 5, '*', 10, 10)                                                            \
	X(CHANGE_CIPHER_SPEC, 5, '*', 10, 10)                                                      \
	X(NOT_TLS, 5, '*', 10, 70)  /* plain text: the kernel looks at the version only */         \
	X(NO_TYPE, 3, '*', 10, 20)  /* nothing but padding */                                      \
	X(FINISHED, 5, '*', 10, 10) /* a handshake message with no place here */                   \
	X(EMPTY_HANDSHAKE, 5, '*', 10, 10)                                                         \
	X(LONE_BYTE_ALERT, 5, '*', 50, 50)                                                         \
	X(DOUBLE_ALERT, 5, '*', 50, 50)                                                            \
	X(KEY_UPDATE_2, 3, '*', 47, 47)	     /* neither requested nor not */                       \
	X(KEY_UPDATE_BEHIND, 3, '*', 10, 10) /* something follows it in its record */              \
	X(KEY_UPDATE_LONG, 3, '*', 50, 50)                                                         \
	X(KEY_UPDATE, 3, '*', 80, 80) /* only where the engine cannot re-key */                    \
	X(OLD_KEYS, 3, '*', 20, 20)   /* KeyUpdate, and on with the old ones */                    \
	X(CLIENT_TICKET, 3, 'c', 10, 10)                                                           \
	X(DATA_IN_MESSAGE, 3, 'b', 10, 10) /* data between the parts of a ticket */                \
	X(TICKET_12, 2, 'b', 10, 10)                                                               \
	X(EMPTY_FLOOD, 5, '*', 80, 80)                                                             \
	X(KEY_UPDATE_FLOOD, 3, '*', 80, 80)                                                        \
	X(TICKET_FLOOD, 3, 'b', 80, 80)

enum broken {
#define X(name, versions, roles, alert, ktls) BREAK_##name,
	BREAKS(X)
#undef X
	BREAK_COUNT
};

enum sizes {
	SIZES_MIXED,
	SIZES_SMALL,
	SIZES_ONES,
	SIZES_MAXIMUM,
	SIZES_COUNT
};
enum writes {
	WRITES_WHOLE,
	WRITES_ODD,
	WRITES_ONES,
	WRITES_HUGE,
	WRITES_COUNT
};

struct end_plan {
	uint16_t version;
	uint8_t cipher;
	uint64_t seq[2]; /* of the first record it sends, receives */
	uint64_t total;	 /* bytes to be sent */
	enum finish finish;
	enum when when;
	uint64_t abort_sent, abort_received;
	uint8_t alert;	    /* BY_ALERT */
	enum broken broken; /* BY_BREAK */
	bool said_goodbye;  /* BY_CLOSE: a close_notify goes in front */
	bool fin_at_once; /* FIN right behind its last record, else when the gate has sent its own;
			     RST: at once, else when its bytes are with the kernel */
	bool after_peer;  /* sends nothing before the other has ended */
	enum sizes sizes;
	enum writes writes;
	unsigned padded;      /* chance in 1000 per record */
	unsigned extra;	      /* chance in 1000, before a record, of one that is no data */
	unsigned key_updates; /* the same of a KeyUpdate */
	unsigned pauses;      /* chance in 1000 of a pause behind a write */
	size_t read_max;
	uint64_t stall_at; /* bytes received when it stops reading */
	unsigned stall_ms;
	int sndbuf, rcvbuf, mss;      /* 0: the kernel's */
	int gate_sndbuf, gate_rcvbuf; /* of the gate's socket facing it */
	uint64_t random;	      /* state, for what is drawn on the way */
};

struct schedule {
	uint32_t flow;
	enum kind kind;
	enum role actor;
	struct end_plan end[2];
};

struct schedule_options {
	uint64_t seed;
	int kind;	 /* -1: any */
	int broken;	 /* -1: any */
	uint64_t bytes;	 /* most in one direction */
	uint64_t least;	 /* drawn for one; slow ends are spared */
	unsigned stalls; /* chance in 1000 that an end stops reading for a while */
	bool ktls;
	bool rekey;	    /* the engine can */
	bool faults;	    /* no tiny buffers: short sends through them take minutes */
	bool tiny;	    /* buffers, all of them */
	bool whole_writes;  /* no write ends inside a record */
	bool few_pipes;	    /* records may come by recv(2), where empty ones are not seen */
	bool copy;	    /* all do */
	uint8_t ciphers[2]; /* bits of those the engine can; TLS 1.2, TLS 1.3 */
	uint64_t key_limit; /* bytes after which the gate sends a KeyUpdate of its own; 0: never */
	unsigned patience;  /* factor for slow machines */
};

/* The same schedule for the same flow and options, always. */
void schedule_make(struct schedule *s, const struct schedule_options *o, uint32_t flow);
void schedule_print(const struct schedule *s, char *buf, size_t len);
/* -1: no such kind */
int schedule_kind(const char *word);
int schedule_broken(const char *word);

/* n bytes from position at on of what end role of flow sends under seed. */
void pattern(uint64_t seed, uint32_t flow, enum role role, uint64_t at, uint8_t *buf, size_t n);
/* Says whose bytes these are, if they are anybody's. */
void pattern_trace(uint64_t seed, const uint8_t *p, size_t n, char *buf, size_t len);

uint64_t draw(uint64_t *state);
uint64_t draw_below(uint64_t *state, uint64_t n);
bool draw_chance(uint64_t *state, unsigned per_mille);
/* Evenly over the orders of magnitude. */
uint64_t draw_log(uint64_t *state, uint64_t min, uint64_t max);
size_t draw_record(uint64_t *state, enum sizes sizes);

/* ---- what came of it ---- */

enum ended {
	ENDED_NOT,
	ENDED_CLOSE_NOTIFY,
	ENDED_ALERT,
	ENDED_FIN,
	ENDED_RST
};

struct seen {
	uint64_t sent, received;
	int64_t different_at;		  /* first byte that was not the one sent; -1: none */
	const char *garbage;		  /* what came was no valid record stream; NULL: it was */
	bool cut;			  /* garbage, and only for its FIN inside a record */
	char trace[128];		  /* of what came instead */
	enum ended ended;		  /* how the other end's stream ended */
	int alert;			  /* ENDED_ALERT */
	enum ended tail;		  /* FIN or RST, behind it */
	bool finished;			  /* its own end was sent */
	uint64_t finished_at;		  /* ms */
	unsigned updates_wanted, updates; /* KeyUpdates it requested, and the answers */
	unsigned renegotiations_wanted, renegotiations; /* the same of no_renegotiation */
};

/* What the gate says. */
struct told {
	enum reason reason;
	uint64_t ended_at; /* ms */
	uint64_t quiet;	   /* ms: nothing had moved for so long by then */
};

/* Is it as it must be? If not, text says what is wrong. */
bool schedule_judge(const struct schedule *s, const struct schedule_options *o,
		    const struct seen seen[2], const struct told *told, char *text, size_t len);
/*
 * The same where the gate had to give the flow up: each end sees a prefix and an end that cannot be
 * taken for an orderly one, but for what had come to its orderly end before. closing: it happened
 * behind the reason.
 */
bool schedule_judge_given_up(const struct schedule *s, const struct schedule_options *o,
			     const struct seen seen[2], const struct told *told, bool closing,
			     char *text, size_t len);

#endif
