// SPDX-License-Identifier: Apache-2.0
/* Sends answers and lists flows, a little of each in turn; see reply.h. Knows no request. */
#include "data/reply.h"

#include <string.h>
#include "flow/worker.h"

#define PORTION 64 /* flows, copied by a worker between two turns of its loop: some 30 us */

void replies_init(struct replies *r)
{
	for (unsigned i = 0; i < REPLIES; i++)
		r->list[i].fd = -1;
}

bool replies_full(const struct replies *r)
{
	return r->n == REPLIES;
}

/* ---- flows ---- */

struct portion {
	struct flow_cursor *cursor;
	unsigned n;
	struct flow_shown flows[PORTION];
};

static void copy_portion(struct worker *w, void *arg)
{
	struct portion *p = arg;

	p->n = flow_cursor_copy(w, p->cursor, p->flows, PORTION);
}

static void close_cursor(struct worker *w, void *arg)
{
	(void)w;
	flow_cursor_close(arg);
}

/* The next portion, which may be empty; false: no memory. */
static bool list_more(struct replies *r, struct reply *one)
{
	struct portion p = {.cursor = &one->cursor};
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	if (!out)
		return false;
	worker_call(&r->gate->workers[one->worker], copy_portion, &p);
	for (unsigned i = 0; i < p.n; i++)
		flow_print(&p.flows[i], out);
	if (!p.n)
		one->worker++;
	one->out.more = one->worker < r->gate->n_workers;
	if (fclose(out)) {
		free(text);
		return false;
	}
	return !outbox_add(&one->out, text, len, timer_clock());
}

/* ---- answers ---- */

static void leave(struct replies *r, struct reply *one)
{
	if (one->cursor.open)
		worker_call(&r->gate->workers[one->worker], close_cursor, &one->cursor);
	outbox_close(one->fd);
	outbox_free(&one->out);
	r->n--;
	*one = (struct reply){.fd = -1};
}

static void finish(struct replies *r, struct reply *one)
{
	uint32_t id = one->id;
	unsigned outcome = one->outcome;

	leave(r, one);
	r->over(r->arg, id, outcome);
}

void replies_free(struct replies *r)
{
	for (unsigned i = 0; i < REPLIES; i++) {
		if (r->list[i].fd >= 0)
			leave(r, &r->list[i]);
	}
}

void replies_add(struct replies *r, int fd, uint32_t id, unsigned outcome, char *text, size_t len,
		 bool flows)
{
	struct reply *one = r->list;

	while (one->fd >= 0)
		one++;
	*one = (struct reply){.fd = fd, .id = id, .outcome = outcome, .out.more = flows};
	r->n++;
	if (outbox_add(&one->out, text, len, timer_clock()))
		finish(r, one);
}

unsigned replies_poll(const struct replies *r, struct pollfd *p)
{
	unsigned n = 0;

	for (unsigned i = 0; i < REPLIES; i++) {
		if (r->list[i].fd >= 0)
			p[n++] = (struct pollfd){.fd = r->list[i].fd, .events = POLLOUT};
	}
	return n;
}

int replies_wait(const struct replies *r)
{
	uint64_t now = timer_clock(), first = UINT64_MAX;

	for (unsigned i = 0; i < REPLIES; i++) {
		if (r->list[i].fd >= 0 && outbox_deadline(&r->list[i].out) < first)
			first = outbox_deadline(&r->list[i].out);
	}
	if (first == UINT64_MAX)
		return -1;
	return first > now ? (int)(first - now) : 0;
}

static void go_on(struct replies *r, struct reply *one)
{
	enum outbox_state state = outbox_send(&one->out, one->fd, timer_clock());

	if (state == OUTBOX_FULL)
		return;
	if (state == OUTBOX_SENT && one->out.more && list_more(r, one))
		return;
	finish(r, one);
}

static const struct pollfd *find(const struct pollfd *p, unsigned n, int fd)
{
	for (unsigned k = 0; k < n; k++) {
		if (p[k].fd == fd)
			return &p[k];
	}
	return NULL;
}

void replies_turn(struct replies *r, const struct pollfd *p, unsigned n)
{
	uint64_t now = timer_clock();

	for (unsigned i = 0; i < REPLIES; i++) {
		struct reply *one = &r->list[i];
		const struct pollfd *ready = one->fd >= 0 ? find(p, n, one->fd) : NULL;

		if (one->fd >= 0 && (!ready || ready->revents || outbox_deadline(&one->out) <= now))
			go_on(r, one);
	}
}
