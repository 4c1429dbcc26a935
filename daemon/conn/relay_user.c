/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The user engine: our own record layer between two sockets, for kernels or
 * ciphers without kernel TLS. An idle side holds two AEAD contexts and no
 * buffer; what is read is opened, and sealed where it lies, in the worker's
 * scratch memory, and only an unfinished record or unsent bytes are kept. What
 * records mean is relay.c's.
 */
#include <errno.h>
#include <string.h>
#include <sys/param.h>
#include <sys/socket.h>
#include "conn/relay.h"

#define READS_PER_RUN 4 /* then the other flows have their turn */

struct user_side {
	struct record_cipher open, seal;
	uint8_t *partial; /* beginning of a record not yet whole */
	uint32_t partial_len;
};

int user_side_new(struct side *s, const struct tls_keys *rx, const struct tls_keys *tx)
{
	struct user_side *u = calloc(1, sizeof(*u));
	int ret;

	if (!u)
		return -ENOMEM;
	ret = record_cipher_init(&u->open, rx, false);
	if (!ret)
		ret = record_cipher_init(&u->seal, tx, true);
	if (ret) {
		record_cipher_free(&u->open);
		free(u);
		return ret;
	}
	s->user = u;
	return 0;
}

static void user_release_side(struct side *s)
{
	side_pending_free(s);
	if (!s->user)
		return;
	record_cipher_free(&s->user->open);
	record_cipher_free(&s->user->seal);
	free(s->user->partial);
	free(s->user);
	s->user = NULL;
}

/* ---- sealing ---- */

static size_t overhead(const struct record_cipher *c)
{
	return record_headroom(c) + record_tailroom(c);
}

/*
 * Sealed records, and plaintext still to be sealed: data records in a row become one. Lies over
 * the records that were read, never behind the one that is opened next.
 */
struct batch {
	struct record_cipher *seal;
	size_t max_fragment;
	uint8_t *buf;
	size_t sealed; /* bytes of finished records */
	size_t plain;  /* bytes at plain_at(), not yet sealed */
};

static uint8_t *plain_at(const struct batch *b)
{
	return b->buf + b->sealed + record_headroom(b->seal) + b->plain;
}

/* Makes room for a header in front of each fragment, and a tail behind it. */
static void spread(struct batch *b, size_t step)
{
	uint8_t *p = b->buf + b->sealed + record_headroom(b->seal);

	for (size_t i = (b->plain - 1) / b->max_fragment; i; i--) {
		size_t at = i * b->max_fragment;

		memmove(p + i * step, p + at, MIN(b->plain - at, b->max_fragment));
	}
}

static int batch_seal(struct batch *b)
{
	if (b->plain > b->max_fragment)
		spread(b, b->max_fragment + overhead(b->seal));
	while (b->plain) {
		size_t len = MIN(b->plain, b->max_fragment);
		ssize_t n = record_seal(b->seal, RECORD_APPLICATION_DATA, b->buf + b->sealed, len);

		if (n < 0)
			return (int)n;
		b->sealed += (size_t)n;
		b->plain -= len;
	}
	return 0;
}

/* ---- one read ---- */

/* A record that would not fit behind what is already there begins a record of its own. */
static int make_room(struct batch *b, size_t record_len)
{
	return b->plain + record_len > RECORD_PLAIN_MAX ? batch_seal(b) : 0;
}

/* Opens one whole record into the batch. False: the half ended. */
static bool take_record(struct half *h, const uint8_t *rec, size_t len, struct batch *b)
{
	uint8_t type;
	int alert = ALERT_INTERNAL_ERROR;
	ssize_t n;

	if (make_room(b, len - RECORD_HEADER)) {
		relay_fail(h, REASON_io_error, REASON_io_error, ALERT_INTERNAL_ERROR);
		return false;
	}
	n = record_open(&h->from->user->open, rec, len, plain_at(b), &type, &alert);
	if (n < 0) {
		relay_fail(h, REASON_client_bad_record, REASON_backend_bad_record, alert);
		return false;
	}
	if (type != RECORD_APPLICATION_DATA)
		return relay_control(h, type, plain_at(b), (size_t)n);
	if (record_control_pending(&h->from->control)) {
		relay_fail(h, REASON_client_illegal, REASON_backend_illegal,
			   ALERT_UNEXPECTED_MESSAGE);
		return false;
	}
	if (n == 0)
		return relay_empty_record(h);
	b->plain += (size_t)n;
	relay_moved(h, (size_t)n);
	return true;
}

/* Takes the whole records in in[0..n); returns how many bytes they were. */
static size_t take_records(struct half *h, const uint8_t *in, size_t n, struct batch *b)
{
	size_t done = 0;
	int alert;

	while (!h->end && n - done >= RECORD_HEADER) {
		struct record_header header;
		size_t len;

		if (record_parse_header(in + done, h->from->version, &header, &alert)) {
			relay_fail(h, REASON_client_bad_record, REASON_backend_bad_record, alert);
			break;
		}
		len = RECORD_HEADER + header.length;
		if (len > n - done)
			break;
		done += len;
		if (!take_record(h, in + done - len, len, b))
			break;
	}
	return done;
}

static int keep_partial(struct user_side *u, const uint8_t *p, size_t n)
{
	uint8_t *kept = NULL;

	if (n) {
		kept = malloc(n);
		if (!kept)
			return -ENOMEM;
		memcpy(kept, p, n);
	}
	free(u->partial);
	u->partial = kept;
	u->partial_len = (uint32_t)n;
	return 0;
}

/* Sends the batch; what the kernel does not take is kept. Returns 0 or -errno. */
static int send_batch(struct side *to, struct batch *b)
{
	size_t off = 0;
	ssize_t n;
	int ret = 0;

	/* Answers of ours (KeyUpdate) may have been sealed in front of this batch. */
	while (!to->pending_len && off < b->sealed && !ret) {
		n = TEMP_FAILURE_RETRY(
			send(to->fd, b->buf + off, b->sealed - off, MSG_DONTWAIT | MSG_NOSIGNAL));
		if (n < 0)
			ret = -errno;
		else
			off += (size_t)n;
	}
	if (side_pending_add(to, b->buf + off, b->sealed - off)) {
		/* Nothing can follow a record that is lost. */
		to->broken = true;
		return -ENOMEM;
	}
	return ret == -EAGAIN ? 0 : ret;
}

/* Where a batch begins: records that keep their length are opened and sealed without being moved.
 */
static uint8_t *batch_buffer(const struct half *h)
{
	bool grows = h->to->max_fragment ||
		     overhead(&h->to->user->seal) > overhead(&h->from->user->open);

	return h->relay->env->in - (grows ? RELAY_SCRATCH_SLACK : 0);
}

/* At most max bytes. False: nothing more to read for now. */
static bool read_once(struct half *h, size_t max)
{
	struct relay_env *env = h->relay->env;
	struct user_side *u = h->from->user;
	struct batch b = {.seal = &h->to->user->seal,
			  .max_fragment = relay_max_fragment(h->to),
			  .buf = batch_buffer(h)};
	size_t room = max - u->partial_len, have, done;
	ssize_t n;
	int ret;

	n = TEMP_FAILURE_RETRY(recv(h->from->fd, env->in + u->partial_len, room, MSG_DONTWAIT));
	if (n < 0 && errno == EAGAIN) {
		h->from->readable = false;
		return false;
	}
	if (n <= 0) {
		relay_read_end(h, n ? -errno : 0);
		return false;
	}
	/*
	 * A short read emptied the socket: the poll is edge-triggered and tells of more.
	 * But the end may have come in one event with the data in front of it, and urgent
	 * data makes reads short.
	 */
	if ((size_t)n < room && !h->from->hung_up && !h->from->urgent)
		h->from->readable = false;
	if (u->partial_len)
		memcpy(env->in, u->partial, u->partial_len);
	have = u->partial_len + (size_t)n;
	done = take_records(h, env->in, have, &b);
	if (batch_seal(&b))
		relay_fail(h, REASON_io_error, REASON_io_error, ALERT_INTERNAL_ERROR);
	/* Whatever has failed: what is sealed has its place in the stream, in front of an alert. */
	ret = send_batch(h->to, &b);
	if (ret)
		relay_send_failed(h, ret);
	if (keep_partial(u, env->in + done, h->end ? 0 : have - done))
		relay_fail(h, REASON_no_memory, REASON_no_memory, ALERT_INTERNAL_ERROR);
	if (h->to->pending_len)
		h->to->writable = false;
	return h->from->readable && h->to->writable && !h->to->broken && !h->end;
}

static bool user_move(struct half *h)
{
	if (!h->from->readable)
		return false;
	for (int i = 0; i < READS_PER_RUN; i++) {
		/* Bytes are still coming, and the receiver has taken all: worth larger steps. */
		if (!read_once(h, i ? RELAY_SCRATCH_IN : RELAY_READ))
			return false;
	}
	return true;
}

/* ---- records of our own ---- */

static int user_send_record(struct side *s, uint8_t type, const void *buf, size_t len)
{
	struct record_cipher *seal = &s->user->seal;
	size_t total = record_headroom(seal) + len + record_tailroom(seal);
	uint8_t rec[RECORD_OVERHEAD_MAX + 64] = {0};
	ssize_t n;
	int ret;

	if (len > sizeof(rec) - RECORD_OVERHEAD_MAX)
		return -EMSGSIZE;
	memcpy(rec + record_headroom(seal), buf, len);
	/* Sealed where it stays: a sequence number once used up must reach the peer. */
	ret = side_pending_add(s, rec, total);
	if (ret)
		return ret;
	n = record_seal(seal, type, s->pending + s->pending_len - total, len);
	if (n < 0)
		s->pending_len -= (uint32_t)total;
	return n < 0 ? (int)n : 0;
}

static int user_drained(struct side *s)
{
	return !s->pending_len;
}

static int user_rekey_rx(struct side *s, const struct tls_keys *keys)
{
	return record_cipher_rekey(&s->user->open, keys, false);
}

static int user_rekey_tx(struct side *s, const struct tls_keys *keys)
{
	return record_cipher_rekey(&s->user->seal, keys, true);
}

static void user_release_half(struct half *h)
{
	(void)h;
}

const struct engine engine_user = {
	.name = "user",
	.move = user_move,
	.send_record = user_send_record,
	.flush = side_pending_send,
	.drained = user_drained,
	.rekey_rx = user_rekey_rx,
	.rekey_tx = user_rekey_tx,
	.release_half = user_release_half,
	.release_side = user_release_side,
};
