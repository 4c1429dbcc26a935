/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The relay: two halves, each moving plaintext from one side to the other and
 * passing on how the sender ended. What moves the bytes is an engine: kernel
 * TLS and splice (relay_splice.c) or our own record layer (relay_user.c). What
 * records mean and how ends are kept apart is here, for both.
 *
 * Readiness comes from edge-triggered polls in the ring; the engine then moves
 * with non-blocking calls until one says EAGAIN. (IORING_OP_SPLICE always runs
 * in an io-wq thread, see docs/design.md.)
 */
#ifndef KTLSGATE_RELAY_H
#define KTLSGATE_RELAY_H

#include <sys/queue.h>
#include "conn/ktls.h"
#include "conn/reason.h"
#include "conn/stats.h"
#include "base/timer.h"

struct relay;

/* One direction. */
struct half {
	struct side *from, *to;
	struct relay *relay;
	uint8_t end;	      /* enum side_end: how the sender ended; END_NONE: not yet */
	uint8_t end_reason;   /* enum reason: what that means for the flow */
	int16_t end_alert;    /* to pass on, END_ALERT */
	int16_t own_alert;    /* to tell the sender, ALERT_NONE: nothing */
	bool end_sent;	      /* passed on to the receiver */
	uint8_t idle_records; /* records without data since the bucket was full */
	uint64_t idle_refill; /* ms, when it was last refilled */
	uint64_t bytes;	      /* plaintext moved */
	struct pipe *pipe;    /* borrowed while bytes are in flight */
	uint8_t *copied;      /* in place of a pipe where the kernel gives none */
	uint32_t copied_off;  /* bytes of it already delivered */
	uint32_t in_flight;   /* plaintext bytes taken and not yet delivered, in either of them */
};

struct engine {
	const char *name;
	/*
	 * Moves data until it would block, the half ends, or a fair share is used up.
	 * Returns true if there may be more to do at once.
	 */
	bool (*move)(struct half *h);
	/* Queues one record for the peer of s. Returns 0 or -errno, and nothing was queued. */
	int (*send_record)(struct side *s, uint8_t type, const void *buf, size_t len);
	/* Hands queued bytes to the kernel. 0: all accepted, -EAGAIN: wait; else the side is
	 * broken. */
	int (*flush)(struct side *s);
	/* Has everything accepted reached TCP (1)? Then shutdown() loses nothing. 0: not yet;
	 * -errno: never. */
	int (*drained)(struct side *s);
	/* KeyUpdate: next keys for receiving; and for sending, right behind a KeyUpdate record. */
	int (*rekey_rx)(struct side *s, const struct tls_keys *keys);
	int (*rekey_tx)(struct side *s, const struct tls_keys *keys);
	/* Gives back what the half and the side hold. */
	void (*release_half)(struct half *h);
	void (*release_side)(struct side *s);
};

extern const struct engine engine_ktls, engine_user, engine_raw;

/* Pipes of a worker, borrowed while bytes are in flight. See relay_splice.c. */
struct pipe_pool {
	struct pipe *free;
	unsigned n_free, borrowed;
};

/* What a worker lends to its relays. */
struct relay_env {
	struct ring *ring;
	struct timers *timers;
	struct stats *stats;
	const struct ktls_caps *caps;
	uint8_t *in; /* RELAY_SCRATCH_IN bytes, and RELAY_SCRATCH_SLACK in front of them */
	struct pipe_pool pipes;
	LIST_HEAD(, relay) ready;		    /* relays with more to do at once */
	TAILQ_HEAD(relay_queue, relay) by_idleness; /* all, the idlest first, see relay_idlest() */
	bool copy;	       /* ktls: recv(2) and send(2) in place of splice(2) */
	uint64_t key_limit;    /* bytes sent under one AES-GCM key, 0: any number */
	uint64_t idle_timeout; /* ms, 0: never */
};

#define RELAY_READ	 (65536 + RECORD_MAX) /* at most, of who may not be busy */
#define RELAY_SCRATCH_IN (131072 + RECORD_MAX)
/*
 * The user engine seals over what it has opened. Two records in a row that do not become one are
 * longer than one at its longest, and none grows by more than its overhead; but for a receiver of
 * small fragments each becomes many.
 */
#define RELAY_FRAGMENT_MIN 512 /* RFC 6066 4 */
#define RELAY_SCRATCH_SLACK                                                                        \
	((2 * RELAY_SCRATCH_IN / RECORD_PLAIN_MAX + 1 + RELAY_SCRATCH_IN / RELAY_FRAGMENT_MIN) *   \
	 RECORD_OVERHEAD_MAX)

struct relay {
	struct relay_env *env;
	const struct engine *engine;
	struct half from_client, from_backend;
	struct half *first_end; /* the half that ended first: its reason is the flow's */
	struct timer timer;
	LIST_ENTRY(relay) ready_link;
	TAILQ_ENTRY(relay) idle_link;
	bool ready;
	bool ended;
	uint64_t last_move; /* ms: newest data */
	uint64_t ranked_at; /* ms: when it came last in env->by_idleness */
	uint64_t close_by;  /* ms: TLS 1.2 close; 0: none */
	bool tick_wanted;   /* a FIN waits for the TLS layer to drain */
	uint32_t tick;	    /* ms until that is looked at again */
	/* Called once: the flow is to be closed; alerts are enum tls_alert. */
	void (*end)(struct relay *r, enum reason reason, int client_alert, int backend_alert);
};

int relay_env_init(struct relay_env *env) must_check;
void relay_env_free(struct relay_env *env);

/* Both sides are keyed in engine. May call r->end. */
void relay_start(struct relay *r, struct relay_env *env, const struct engine *engine,
		 struct side *client, struct side *backend,
		 void (*end)(struct relay *, enum reason, int, int));
/* Goes on after readiness of a side, or a turn in the ready list. */
void relay_run(struct relay *r);
/* Runs what stands in env->ready; true if there is still more. */
bool relay_run_ready(struct relay_env *env);
/*
 * The relay that has moved no data for the longest time, to the second, if that is ms at least;
 * NULL: there is none.
 */
struct relay *relay_idlest(const struct relay_env *env, uint64_t ms);
/* Ends it for a reason that is neither end's. */
void relay_abort(struct relay *r, enum reason reason);
/* The same when a side's readiness cannot be learned; error: -errno. */
void relay_poll_failed(struct relay *r, const struct side *s, int error);
/* No call of end any more; pipes and timer are given back. The sides stay. */
void relay_stop(struct relay *r);

/* ---- for the engines ---- */

/* The other direction of the same flow. */
static inline struct half *half_other(struct half *h)
{
	return h == &h->relay->from_client ? &h->relay->from_backend : &h->relay->from_client;
}

/* A record that is not data. False: the half ended, read no more. */
bool relay_control(struct half *h, uint8_t type, const uint8_t *p, size_t n) must_check;
/* A data record without data: costs a token like a control record. False: too many. */
bool relay_empty_record(struct half *h) must_check;
/*
 * The receiver's key has sealed as much as it may. Nothing must be in flight when it is renewed, so
 * an engine that keeps bytes in flight returns to the relay when nothing is.
 */
bool relay_key_worn_out(const struct half *h);
/* Bytes that one record to this side may hold. */
static inline size_t relay_max_fragment(const struct side *to)
{
	return to->max_fragment ? to->max_fragment : RECORD_PLAIN_MAX;
}
/* Reading stopped with -errno, or 0 for FIN. */
void relay_read_end(struct half *h, int error);
/*
 * Sending to the receiver failed with -errno. It is gone, and the other half will read so; or the
 * failure is ours. What is in flight is lost.
 */
void relay_send_failed(struct half *h, int error);
/* The sender broke a rule: it is told own_alert. */
void relay_fail(struct half *h, enum reason client, enum reason backend, int own_alert);
/* n bytes were accepted by the receiving side. */
void relay_moved(struct half *h, size_t n);

/* Appends to s->pending. Returns 0 or -ENOMEM. */
int side_pending_add(struct side *s, const void *buf, size_t len) must_check;
/* send(2) of s->pending; as engine.flush. */
int side_pending_send(struct side *s) must_check;
void side_pending_free(struct side *s);

/* Takes over the keys; on failure nothing is held. */
int user_side_new(struct side *s, const struct tls_keys *rx, const struct tls_keys *tx) must_check;

#endif
