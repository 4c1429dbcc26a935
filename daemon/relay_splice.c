/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ktls engine: splice(2) from one kernel TLS socket into a pipe and out of
 * it into the other. Plaintext stays in the kernel. Knows pipes and how the
 * kernel loses bytes; what records mean is relay.c's.
 *
 * What keeps every byte (docs/design.md names the tests):
 *  - a pipe is refilled only when it is empty: below 7.2 splicing from a TLS
 *    socket into a pipe that is not corrupts the stream in silence;
 *  - it has at least 8 slots; an unprivileged user over
 *    fs.pipe-user-pages-soft gets 2, such a pipe is thrown away;
 *  - out of it exactly what is in it is asked for, never more: 16 full
 *    buffers and a larger length leave the record open (6.12 and later);
 *  - SPLICE_F_MORE is never used: its tail is lost at close;
 *  - a pipe with bytes left over from an aborted flow is destroyed.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include "log.h"
#include "relay.h"

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

static void wait_for_pipe(struct half *h)
{
	struct relay_env *env = h->relay->env;

	if (h->waiting)
		return;
	h->waiting = true;
	TAILQ_INSERT_TAIL(&env->pipes.waiting, h, wait_link);
	stat_inc(env->stats, pipe_waits);
}

static void stop_waiting(struct half *h)
{
	if (!h->waiting)
		return;
	h->waiting = false;
	TAILQ_REMOVE(&h->relay->env->pipes.waiting, h, wait_link);
}

static bool borrow_pipe(struct half *h)
{
	struct relay_env *env = h->relay->env;
	struct pipe_pool *pool = &env->pipes;
	struct pipe *p = pool->free;

	if (p) {
		pool->free = p->next;
		pool->n_free--;
	} else {
		p = pipe_create();
		if (!p) {
			pool->exhausted_at = pool->borrowed;
			wait_for_pipe(h);
			/* Nobody here will give one back: others have them all. */
			if (!pool->borrowed)
				h->relay->tick_wanted = true;
			return false;
		}
	}
	stop_waiting(h);
	pool->borrowed++;
	stat_inc(env->stats, pipes_active);
	h->pipe = p;
	return true;
}

/* Somebody waits and may get one: put the first on the ready list, its turn comes right after. */
static void wake_waiter(struct relay_env *env)
{
	struct half *h = TAILQ_FIRST(&env->pipes.waiting);
	struct relay *r;

	if (!h || (!env->pipes.free && env->pipes.borrowed >= env->pipes.exhausted_at))
		return;
	stop_waiting(h);
	r = h->relay;
	if (!r->ready) {
		r->ready = true;
		LIST_INSERT_HEAD(&env->ready, r, ready_link);
	}
}

static void return_pipe(struct half *h)
{
	struct relay_env *env = h->relay->env;
	struct pipe *p = TAKE_PTR(h->pipe);

	if (!p) {
		/* Woken for a pipe and had no use for it: the next one's turn. */
		wake_waiter(env);
		return;
	}
	env->pipes.borrowed--;
	stat_dec(env->stats, pipes_active);
	if (h->pipe_len || env->pipes.n_free >= PIPE_FREE_MAX) {
		h->pipe_len = 0;
		pipe_destroy(p);
	} else {
		p->next = env->pipes.free;
		env->pipes.free = p;
		env->pipes.n_free++;
	}
	wake_waiter(env);
}

int relay_env_init(struct relay_env *env)
{
	TAILQ_INIT(&env->pipes.waiting);
	LIST_INIT(&env->ready);
	env->in = malloc(RELAY_SCRATCH_IN);
	env->out = malloc(RELAY_SCRATCH_OUT);
	return env->in && env->out ? 0 : -ENOMEM;
}

void relay_env_free(struct relay_env *env)
{
	struct pipe *p;

	while ((p = env->pipes.free)) {
		env->pipes.free = p->next;
		pipe_destroy(p);
	}
	if (env->in)
		OPENSSL_cleanse(env->in, RELAY_SCRATCH_IN);
	if (env->out)
		OPENSSL_cleanse(env->out, RELAY_SCRATCH_OUT);
	free(env->in);
	free(env->out);
}

/*
 * Stalled receivers must not tie up the pipes of everybody else: with many
 * borrowed, bytes are only taken for a receiver that has room for them.
 */
static bool receiver_has_room(struct half *h)
{
	struct pipe_pool *pool = &h->relay->env->pipes;
	unsigned plenty = pool->exhausted_at && pool->exhausted_at / 2 < PIPE_PLENTY
				  ? pool->exhausted_at / 2
				  : PIPE_PLENTY;
	struct pollfd p = {.fd = h->to->fd, .events = POLLOUT};

	if (pool->borrowed <= plenty)
		return true;
	if (poll(&p, 1, 0) < 0 || p.revents)
		return true;
	h->to->writable = false;
	return false;
}

/* ---- moving ---- */

/* Empties the pipe into the receiver. False: it is full, or gone. */
static bool splice_out(struct half *h)
{
	while (h->pipe_len) {
		ssize_t n = splice(h->pipe->read_end, NULL, h->to->fd, NULL, h->pipe_len,
				   SPLICE_F_NONBLOCK | SPLICE_F_MOVE);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			h->to->writable = false;
			return false;
		}
		if (n <= 0) {
			h->to->broken = true;
			return_pipe(h);
			return false;
		}
		h->pipe_len -= (uint32_t)n;
		h->to->tx_plain += (uint64_t)n;
		relay_moved(h, (size_t)n);
	}
	return true;
}

/* False: the half ended. */
static bool keep_keys(struct half *h)
{
	int ret = ktls_keep_rx(h->from);

	if (ret)
		relay_read_end(h, ret);
	return !ret;
}

/* splice() said EINVAL: the next record is not data. False: stop reading for now. */
static bool take_record(struct half *h)
{
	uint8_t *buf = h->relay->env->in, type;
	ssize_t n = ktls_recv(h->from, buf, RECORD_PLAIN_MAX, &type);
	bool go_on;

	if (n == -EKEYEXPIRED)
		return keep_keys(h);
	/* There is none: it was the parser's EINVAL, for a version that is no TLS. */
	if (n == -EAGAIN || (n == 0 && !type)) {
		relay_fail(h, REASON_client_bad_record, REASON_backend_bad_record,
			   ALERT_PROTOCOL_VERSION);
		return false;
	}
	if (n < 0) {
		relay_read_end(h, (int)n);
		return false;
	}
	if (type == RECORD_APPLICATION_DATA && n == 0)
		return relay_empty_record(h);
	if (type == RECORD_APPLICATION_DATA) {
		/* Not expected (it was no data a moment ago), but never to be lost. */
		relay_moved(h, (size_t)n);
		if (engine_ktls.send_record(h->to, type, buf, (size_t)n))
			h->to->broken = true;
		return false;
	}
	go_on = relay_control(h, type, buf, (size_t)n);
	OPENSSL_cleanse(buf, (size_t)n);
	return go_on;
}

/* splice() said 0: FIN, or only an empty record. False: it was FIN. */
static bool was_empty_record(struct half *h)
{
	int ended = ktls_ended(h->from);

	if (!ended)
		return relay_empty_record(h);
	relay_read_end(h, ended < 0 ? ended : 0);
	return false;
}

/* Takes one record into the empty pipe. False: stop reading for now. */
static bool splice_in(struct half *h)
{
	ssize_t n = splice(h->from->fd, NULL, h->pipe->write_end, NULL, RECORD_PLAIN_MAX,
			   SPLICE_F_NONBLOCK | SPLICE_F_MOVE);

	if (n > 0) {
		h->pipe_len = (uint32_t)n;
		if (!record_control_pending(&h->from->control))
			return true;
		relay_fail(h, REASON_client_illegal, REASON_backend_illegal,
			   ALERT_UNEXPECTED_MESSAGE);
		return_pipe(h);
		return false;
	}
	if (n == 0)
		return was_empty_record(h);
	switch (errno) {
	case EINTR:
		return true;
	case EAGAIN:
		h->from->readable = false;
		return false;
	case EINVAL:
		return take_record(h);
	case EKEYEXPIRED:
		return keep_keys(h);
	default:
		relay_read_end(h, -errno);
		return false;
	}
}

static bool ktls_move(struct half *h)
{
	for (int i = 0; i < RECORDS_PER_RUN; i++) {
		if (h->pipe_len && !splice_out(h))
			return false;
		if (!h->from->readable || h->to->pending_len || !receiver_has_room(h) ||
		    (!h->pipe && !borrow_pipe(h)))
			break;
		if (!splice_in(h))
			break;
	}
	if (h->pipe_len && !splice_out(h))
		return false;
	return_pipe(h);
	return h->from->readable && h->to->writable && !h->waiting && !h->to->pending_len;
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
	stop_waiting(h);
	return_pipe(h);
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
