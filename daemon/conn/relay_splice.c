/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ktls engine: splice(2) from one kernel TLS socket into a pipe and out of
 * it into the other. Plaintext stays in the kernel, as long as the kernel gives
 * pipes. Knows those and how bytes get lost in them; what records mean is
 * relay.c's.
 *
 * What keeps every byte (docs/design.md names the tests):
 *  - a pipe is refilled only when it is empty: below 7.2 splicing from a TLS
 *    socket into a pipe that is not corrupts the stream in silence;
 *  - it has at least 8 slots; an unprivileged user over
 *    fs.pipe-user-pages-soft gets 2, such a pipe is thrown away and the record
 *    goes by recv(2) and send(2);
 *  - out of it exactly what is in it is asked for, never more: 16 full
 *    buffers and a larger length leave the record open (6.12 and later);
 *  - SPLICE_F_MORE is never used: its tail is lost at close;
 *  - a pipe with bytes left over from an aborted flow is destroyed.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/param.h>
#include <sys/socket.h>
#include "base/log.h"
#include "conn/relay.h"

#define PIPE_SLOTS_MIN	8
#define PIPE_FREE_MAX	64  /* per worker; more are closed when they come back */
#define PIPE_PLENTY	256 /* borrowed; above, a receiver must be writable first */
#define RECORDS_PER_RUN 16  /* then the other flows have their turn */

struct pipe {
	int read_end, write_end;
	struct pipe *next;
};

/* ---- the pool ---- */

static void pipe_destroy(struct pipe *p)
{
	close(p->read_end);
	close(p->write_end);
	free(p);
}

static struct pipe *pipe_create(void)
{
	struct pipe *p = calloc(1, sizeof(*p));
	int fds[2], size;

	if (!p)
		return NULL;
	if (pipe2(fds, O_CLOEXEC | O_NONBLOCK)) {
		free(p);
		return NULL;
	}
	p->read_end = fds[0];
	p->write_end = fds[1];
	size = fcntl(p->write_end, F_GETPIPE_SZ);
	if (size < PIPE_SLOTS_MIN * (int)sysconf(_SC_PAGESIZE)) {
		pipe_destroy(p);
		return NULL;
	}
	return p;
}

/* False: the kernel gives no more. */
static bool borrow_pipe(struct half *h)
{
	struct pipe_pool *pool = &h->relay->env->pipes;

	if (pool->free) {
		h->pipe = pool->free;
		pool->free = h->pipe->next;
		pool->n_free--;
	} else {
		h->pipe = pipe_create();
		if (!h->pipe)
			return false;
	}
	pool->borrowed++;
	stat_inc(h->relay->env->stats, pipes_active);
	return true;
}

static void return_pipe(struct half *h)
{
	struct relay_env *env = h->relay->env;
	struct pipe *p = TAKE_PTR(h->pipe);

	if (!p)
		return;
	env->pipes.borrowed--;
	stat_dec(env->stats, pipes_active);
	if (h->in_flight || env->pipes.n_free >= PIPE_FREE_MAX) {
		pipe_destroy(p);
	} else {
		p->next = env->pipes.free;
		env->pipes.free = p;
		env->pipes.n_free++;
	}
}

int relay_env_init(struct relay_env *env)
{
	LIST_INIT(&env->ready);
	TAILQ_INIT(&env->by_idleness);
	env->in = malloc(RELAY_SCRATCH_SLACK + RELAY_SCRATCH_IN);
	if (!env->in)
		return -ENOMEM;
	env->in += RELAY_SCRATCH_SLACK;
	return 0;
}

void relay_env_free(struct relay_env *env)
{
	struct pipe *p;

	while ((p = env->pipes.free)) {
		env->pipes.free = p->next;
		pipe_destroy(p);
	}
	if (!env->in)
		return;
	env->in -= RELAY_SCRATCH_SLACK;
	OPENSSL_cleanse(env->in, RELAY_SCRATCH_SLACK + RELAY_SCRATCH_IN);
	free(env->in);
	env->in = NULL;
}

/*
 * Stalled receivers must not tie up the pipes of everybody else: with many
 * borrowed, bytes are only taken for a receiver that has room for them.
 */
static bool receiver_has_room(struct half *h)
{
	struct pollfd p = {.fd = h->to->fd, .events = POLLOUT};

	if (h->relay->env->pipes.borrowed <= PIPE_PLENTY)
		return true;
	if (poll(&p, 1, 0) < 0 || p.revents)
		return true;
	h->to->writable = false;
	return false;
}

/* ---- in flight: in the pipe or, where there is none, copied ---- */

static void free_copied(struct half *h)
{
	if (h->copied)
		OPENSSL_cleanse(h->copied, h->copied_off + h->in_flight);
	free(TAKE_PTR(h->copied));
	h->copied_off = 0;
}

static void drop_in_flight(struct half *h)
{
	free_copied(h);
	return_pipe(h);
	h->in_flight = 0;
}

/* Each call ends its record, so that none is longer than the receiver takes. */
static ssize_t send_some(struct side *to, const uint8_t *p, size_t n)
{
	return send(to->fd, p, MIN(n, relay_max_fragment(to)), MSG_DONTWAIT | MSG_NOSIGNAL);
}

static ssize_t give(struct half *h)
{
	if (h->copied)
		return send_some(h->to, h->copied + h->copied_off, h->in_flight);
	return splice(h->pipe->read_end, NULL, h->to->fd, NULL,
		      MIN(h->in_flight, relay_max_fragment(h->to)),
		      SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
}

/*
 * n is what giving bytes to the receiver returned. Returns how many it took, 0 to try again, or -1:
 * it takes no more for now, or is gone.
 */
static ssize_t taken(struct half *h, ssize_t n)
{
	if (n > 0) {
		h->to->writable = true;
		h->to->tx_plain += (uint64_t)n;
		relay_moved(h, (size_t)n);
		return n;
	}
	if (n < 0 && (errno == EINTR || ktls_take_receive_error(h->to, errno)))
		return 0;
	if (n < 0 && errno == EAGAIN)
		h->to->writable = false;
	else
		relay_send_failed(h, n ? -errno : -EPIPE);
	return -1;
}

/* Gives what is in flight to the receiver. False: it takes no more, or is gone. */
static bool deliver(struct half *h)
{
	while (h->in_flight) {
		ssize_t n = taken(h, give(h));

		if (n < 0)
			return false;
		if (h->copied)
			h->copied_off += (uint32_t)n;
		h->in_flight -= (uint32_t)n;
	}
	free_copied(h);
	return true;
}

/* ---- moving ---- */

/*
 * Linux 6.14 and later take each handshake record whose first byte is 24 for a KeyUpdate
 * (tls_check_pending_rekey()), the rest of a message that was cut there, too. TLS 1.3 goes on; in
 * TLS 1.2 they want new keys, and take none. False: the half ended.
 */
static bool keep_keys(struct half *h)
{
	int ret = ktls_keep_rx(h->from);

	if (ret == -EBUSY && h->from->version == TLS_12)
		relay_fail(h, REASON_taken_for_key_update, REASON_taken_for_key_update,
			   ALERT_INTERNAL_ERROR);
	else if (ret)
		relay_read_end(h, ret);
	return !ret;
}

/* False: the half ended. */
static bool may_be_data(struct half *h)
{
	if (!record_control_pending(&h->from->control))
		return true;
	relay_fail(h, REASON_client_illegal, REASON_backend_illegal, ALERT_UNEXPECTED_MESSAGE);
	return false;
}

/* Keeps what the receiver does not take at once. False: the half ended. */
static bool copy(struct half *h, const uint8_t *p, size_t n)
{
	size_t done = 0;

	if (!may_be_data(h))
		return false;
	stat_inc(h->relay->env->stats, reads_copied);
	while (done < n) {
		ssize_t more = taken(h, send_some(h->to, p + done, n - done));

		if (more < 0)
			break;
		done += (size_t)more;
	}
	if (done == n || h->end || h->to->broken)
		return !h->end;
	h->copied = malloc(n - done);
	if (!h->copied) {
		relay_fail(h, REASON_no_memory, REASON_no_memory, ALERT_INTERNAL_ERROR);
		return false;
	}
	memcpy(h->copied, p + done, n - done);
	h->in_flight = (uint32_t)(n - done);
	return true;
}

/* False: stop reading for now. */
static bool nothing_there(struct half *h, int error)
{
	h->from->readable = false;
	if (error)
		relay_read_end(h, -error);
	return false;
}

/*
 * Takes one record of any type, or the data of several; error is what it means if there is none.
 * False: stop for now. Empty records among data are not seen: the kernel skips them.
 */
static bool take_record(struct half *h, int error)
{
	uint8_t *buf = h->relay->env->in, type;
	ssize_t n = ktls_recv(h->from, buf, RELAY_READ, &type);
	bool go_on;

	if (n == -EAGAIN)
		return nothing_there(h, error);
	if (n == -EKEYEXPIRED)
		return keep_keys(h);
	if (n < 0 || (n == 0 && !type)) {
		relay_read_end(h, n ? (int)n : -error);
		return false;
	}
	if (type != RECORD_APPLICATION_DATA)
		go_on = relay_control(h, type, buf, (size_t)n);
	else
		go_on = n ? copy(h, buf, (size_t)n) : relay_empty_record(h);
	explicit_bzero(buf, (size_t)n);
	return go_on;
}

/* splice() said 0: FIN, or only an empty record. False: it was FIN. */
static bool was_empty_record(struct half *h)
{
	int ended = ktls_ended(h->from);

	if (!ended)
		return relay_empty_record(h);
	relay_read_end(h, ended < 0 ? ended : -h->from->rx_error);
	return false;
}

/* Takes one record into the empty pipe. False: stop for now. */
static bool splice_in(struct half *h)
{
	ssize_t n = splice(h->from->fd, NULL, h->pipe->write_end, NULL, RECORD_PLAIN_MAX,
			   SPLICE_F_NONBLOCK | SPLICE_F_MOVE);

	if (n > 0) {
		h->in_flight = (uint32_t)n;
		if (may_be_data(h))
			return true;
		drop_in_flight(h);
		return false;
	}
	if (n == 0)
		return was_empty_record(h);
	switch (errno) {
	case EINTR:
		return true;
	case EAGAIN:
		return nothing_there(h, h->from->rx_error);
	case EINVAL: /* the next record is not data; if there is none, the parser saw no TLS */
		return take_record(h, EINVAL);
	case EKEYEXPIRED:
		return keep_keys(h);
	default:
		relay_read_end(h, -errno);
		return false;
	}
}

/*
 * Without a pipe the data comes through user space, rather than wait for others to end; so it does
 * with dataplane.relay = copy.
 */
static bool take_next(struct half *h)
{
	if (!h->relay->env->copy && (h->pipe || borrow_pipe(h)))
		return splice_in(h);
	return take_record(h, h->from->rx_error);
}

static bool ktls_move(struct half *h)
{
	for (int i = 0; i < RECORDS_PER_RUN; i++) {
		if (!deliver(h))
			return false;
		if (!h->from->readable || h->to->pending_len || relay_key_worn_out(h) ||
		    !receiver_has_room(h))
			break;
		if (!take_next(h))
			break;
	}
	if (!deliver(h))
		return false;
	return_pipe(h);
	return h->from->readable && h->to->writable && !h->to->pending_len;
}

/* ---- records of our own ---- */

/*
 * In s->pending: records the kernel had no room for, and the keys that follow
 * a KeyUpdate among them.
 */
struct queued {
	uint8_t type; /* of the record, or QUEUED_KEYS */
	uint8_t len[2];
};
#define QUEUED_KEYS 0

static int send_queued(struct side *s, uint8_t type, const uint8_t *p, size_t len)
{
	struct tls_keys keys;
	int ret;

	if (type != QUEUED_KEYS)
		return ktls_send_record(s, type, p, len);
	memcpy(&keys, p, sizeof(keys));
	ret = ktls_rekey_tx(s, &keys);
	keys_wipe(&keys);
	return ret;
}

static int ktls_flush(struct side *s)
{
	while (s->pending_len) {
		const uint8_t *p = s->pending + s->pending_off;
		size_t len = (size_t)(p[1] << 8 | p[2]);
		int ret = send_queued(s, p[0], p + sizeof(struct queued), len);

		if (ret)
			return ret;
		s->pending_off += (uint32_t)(sizeof(struct queued) + len);
		if (s->pending_off == s->pending_len)
			side_pending_free(s);
	}
	return 0;
}

static int queue(struct side *s, uint8_t type, const void *buf, size_t len)
{
	struct queued q = {.type = type, .len = {(uint8_t)(len >> 8), (uint8_t)len}};
	int ret;

	if (!s->pending_len) {
		ret = send_queued(s, type, buf, len);
		if (ret != -EAGAIN)
			return ret;
	}
	ret = side_pending_add(s, &q, sizeof(q));
	if (ret)
		return ret;
	ret = side_pending_add(s, buf, len);
	if (ret) /* no header without its record */
		s->pending_len -= (uint32_t)sizeof(q);
	return ret;
}

static int queue_keys(struct side *s, const struct tls_keys *keys)
{
	return queue(s, QUEUED_KEYS, keys, sizeof(*keys));
}

static int ktls_drained(struct side *s)
{
	return s->pending_len ? 0 : ktls_tx_drained(s);
}

static void ktls_release_half(struct half *h)
{
	drop_in_flight(h);
}

static void ktls_release_side(struct side *s)
{
	side_pending_free(s);
}

const struct engine engine_ktls = {
	.name = "ktls",
	.move = ktls_move,
	.send_record = queue,
	.flush = ktls_flush,
	.drained = ktls_drained,
	.rekey_rx = ktls_rekey_rx,
	.rekey_tx = queue_keys,
	.release_half = ktls_release_half,
	.release_side = ktls_release_side,
};
