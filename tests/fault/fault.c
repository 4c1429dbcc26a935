// SPDX-License-Identifier: Apache-2.0
/* Plans of faults and what came of them; see fault.h. Knows no call. */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include "fault.h"

#define PLANS	   4096 /* flows at a time */
#define FD_MAX	   65536
#define ERRORS_MAX 3

static const struct site_desc {
	const char *word;
	unsigned where, soft, most;
	int errors[ERRORS_MAX];
} sites[] = {
#define X(name, word, where, soft, most, ...) {word, where, soft, most, {__VA_ARGS__}},
	SITES(X)
#undef X
};

struct fault_plan {
	uint64_t seed;
	unsigned per_mille[2]; /* chance of a soft fault: SHORT; all others */
	bool no_again, closes;
	/* the hard one */
	int site; /* -1: none */
	int error;
	unsigned before, times; /* calls let through, then made to fail */
	unsigned again;		/* chance in 1000 calls of another one; a thread's plan */
	uint32_t calls[SITE_COUNT];
	_Atomic unsigned fired; /* enum fault_fired */
};

static struct fault_options options = {.site = -1};
static struct fault_plan plans[PLANS]; /* by flow */
static uint32_t flow_of_fd[FD_MAX];    /* + 1; 0: no flow's */
static _Atomic uint64_t counts[SITE_COUNT][2];
static _Atomic unsigned threads;

static _Thread_local enum {
	NO_WORKER,
	STARTING,
	WORKING
} thread;
static _Thread_local struct fault_plan thread_plan, *here;
static _Thread_local bool worker;

/* ---- chance: the n-th call of a site in a flow has always the same fate ---- */

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return x ^ x >> 31;
}

static uint64_t draw(uint64_t *state)
{
	*state += 0x9e3779b97f4a7c15;
	return mix(*state);
}

static uint64_t draw_below(uint64_t *state, uint64_t n)
{
	return draw(state) % n;
}

static bool chance(uint64_t *r, unsigned per_mille)
{
	return draw_below(r, 1000) < per_mille;
}

static uint64_t state_of_call(struct fault_plan *p, enum site site)
{
	return mix(p->seed ^ mix((uint64_t)site << 32 | ++p->calls[site]));
}

/* 1 ... n, each power of two as likely as the next. */
static uint64_t draw_magnitude(uint64_t *r, uint64_t n)
{
	unsigned bits = 1;

	while (bits < 63 && n >> bits)
		bits++;
	for (;;) {
		uint64_t v = 1 + draw_below(r, 1ull << draw_below(r, bits + 1));

		if (v <= n)
			return v;
	}
}

/* ---- plans ---- */

static bool can_be_hard(int site)
{
	const struct site_desc *s = &sites[site];

	return s->errors[0] && !(s->soft & FAILS) && s->where & options.where &&
	       (options.site < 0 || options.site == site);
}

static int draw_error(const struct site_desc *s, uint64_t *r)
{
	int n = 0;

	while (n < ERRORS_MAX && s->errors[n])
		n++;
	return s->errors[draw_below(r, (uint64_t)n)];
}

static void draw_hard(struct fault_plan *p, uint64_t *r)
{
	const struct site_desc *s;
	uint64_t dice = draw_below(r, 10);

	do
		p->site = (int)draw_below(r, SITE_COUNT);
	while (!can_be_hard(p->site));
	s = &sites[p->site];
	p->error = draw_error(s, r);
	p->before = (unsigned)draw_magnitude(r, s->most) - 1;
	/* Once, a few times, or for good; not so what is asked again until it answers. */
	p->times = dice < 6 ? 1 : 1 + (unsigned)draw_below(r, 6);
	if (dice > 7 && p->site != SITE_GETSOCKOPT && p->site != SITE_IOCTL)
		p->times = ~0u;
}

static void draw_plan(struct fault_plan *p, uint64_t seed)
{
	uint64_t r = seed;
	bool many = options.mode == FAULTS_SOFT;

	p->seed = seed;
	p->site = -1;
	for (int i = 0; i < 2; i++)
		p->per_mille[i] = many || draw_below(&r, 2)
					  ? (unsigned)draw_magnitude(&r, many ? 500 : 60)
					  : 0;
	if (options.mode == FAULTS_HARD)
		draw_hard(p, &r);
	/* Memory is needed above all where the kernel takes no more. */
	if (p->site == SITE_MALLOC)
		p->per_mille[1] = (unsigned)draw_magnitude(&r, 500);
}

void fault_setup(const struct fault_options *o)
{
	options = *o;
}

bool fault_on(void)
{
	return options.mode != FAULTS_OFF;
}

int fault_site(const char *word)
{
	for (int i = 0; i < SITE_COUNT; i++) {
		if (!strcmp(word, sites[i].word))
			return i;
	}
	return -1;
}

/* ---- threads ---- */

void fault_thread_begins(void)
{
	worker = true;
	if (!fault_on())
		return;
	thread = STARTING;
	thread_plan.site = -1;
	if (options.by_flow)
		return;
	draw_plan(&thread_plan, mix(options.seed + atomic_fetch_add(&threads, 1)));
	thread_plan.times = 0;
	if (options.mode == FAULTS_HARD)
		thread_plan.again = options.site < 0 ? 5 : 50;
}

void fault_thread_waits(void)
{
	if (thread == STARTING)
		thread = WORKING;
}

void fault_thread_ends(void)
{
	worker = false;
	thread = NO_WORKER;
}

bool fault_worker(void)
{
	return worker;
}

bool fault_thread(void)
{
	return thread != NO_WORKER;
}

/* ---- flows ---- */

void fault_flow(uint32_t flow, const int fds[2], bool no_again)
{
	struct fault_plan *p = &plans[flow % PLANS];

	if (!fault_on())
		return;
	memset(p, 0, sizeof(*p));
	draw_plan(p, mix(mix(options.seed) + flow));
	p->no_again = no_again;
	for (int i = 0; i < 2; i++) {
		if (fds[i] < FD_MAX)
			flow_of_fd[fds[i]] = flow + 1;
	}
	here = p;
}

void fault_flow_closes(uint32_t flow)
{
	plans[flow % PLANS].closes = true;
}

unsigned fault_fired(uint32_t flow)
{
	return fault_on() ? atomic_load(&plans[flow % PLANS].fired) : 0;
}

void fault_print(uint32_t flow, char *buf, size_t len)
{
	const struct fault_plan *p = &plans[flow % PLANS];
	int n = snprintf(buf, len, "faults: %u in 1000 calls short, %u otherwise", p->per_mille[0],
			 p->per_mille[1]);

	if (p->site >= 0)
		snprintf(buf + n, len - (size_t)n, "; a hard one in %s, %s: %s",
			 sites[p->site].word, strerror(p->error),
			 p->fired & FIRED_OPEN	    ? "happened"
			 : p->fired & FIRED_CLOSING ? "happened while it closed"
						    : "did not happen");
}

void fault_report(char *buf, size_t len)
{
	int n = 0;

	buf[0] = 0;
	for (int i = 0; i < SITE_COUNT; i++) {
		uint64_t soft = counts[i][0], hard = counts[i][1];

		if ((soft || hard) && (size_t)n < len)
			n += snprintf(buf + n, len - (size_t)n, " %s %lu+%lu", sites[i].word, soft,
				      hard);
	}
}

/* ---- a call ---- */

struct fault_plan *fault_plan_of(int fd)
{
	if (thread != WORKING)
		return NULL;
	here = fd >= 0 && fd < FD_MAX && flow_of_fd[fd] ? &plans[(flow_of_fd[fd] - 1) % PLANS]
							: &thread_plan;
	return here;
}

struct fault_plan *fault_plan_here(void)
{
	if (thread != WORKING)
		return NULL;
	return here ? here : &thread_plan;
}

/* A thread has no end: one hard fault after the other, each up to six times. */
static void draw_another(struct fault_plan *p, enum site site)
{
	uint64_t r = state_of_call(p, site);

	if (p->times || !can_be_hard((int)site) || !chance(&r, p->again))
		return;
	p->site = (int)site;
	p->error = draw_error(&sites[site], &r);
	p->times = 1 + (draw_below(&r, 2) ? (unsigned)draw_below(&r, 6) : 0);
}

/* 0: not now. */
static int hard_error(struct fault_plan *p, enum site site)
{
	if (p->again)
		draw_another(p, site);
	if ((int)site != p->site || !p->times)
		return 0;
	if (p->before) {
		p->before--;
		return 0;
	}
	if (p->times != ~0u)
		p->times--;
	atomic_fetch_or(&p->fired, p->closes ? FIRED_CLOSING : FIRED_OPEN);
	counts[site][1]++;
	return p->error;
}

int fault_draw(struct fault_plan *p, enum site site)
{
	const struct site_desc *s = &sites[site];
	int error = hard_error(p, site);
	uint64_t r;

	if (error)
		return error;
	r = state_of_call(p, site);
	if (!(s->soft & (AGAIN | INTR | FAILS)) || !chance(&r, p->per_mille[1]))
		return 0;
	if (s->soft & FAILS)
		error = draw_error(s, &r);
	else if (s->soft & AGAIN && (!(s->soft & INTR) || draw_below(&r, 2)))
		error = EAGAIN;
	else
		error = EINTR;
	if (error == EAGAIN && p->no_again && (site == SITE_SPLICE_IN || site == SITE_RECVMSG))
		return 0;
	counts[site][0]++;
	return error;
}

size_t fault_shorten(struct fault_plan *p, enum site site, size_t len)
{
	uint64_t r = ~state_of_call(p, site);

	if (len < 2 || !(sites[site].soft & SHORT) || !chance(&r, p->per_mille[0]))
		return len;
	counts[site][0]++;
	return (size_t)draw_magnitude(&r, len - 1);
}

bool fault_ends(struct fault_plan *p, enum site site)
{
	uint64_t r = ~state_of_call(p, site);

	if (!chance(&r, p->per_mille[1]))
		return false;
	counts[site][0]++;
	return true;
}
