// SPDX-License-Identifier: Apache-2.0
/* Schedules and their verdicts; see schedule.h. */
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "schedule.h"
#include "wire.h"

#define TLS12_CLOSE_MS	   2000 /* as relay.c has it */
#define LINGER_MS	   1900 /* as flow.c has it, less what two clocks read apart may differ by */
#define NUL_SAFE(i, names) ((unsigned)(i) < sizeof(names) / sizeof((names)[0]) ? (names)[i] : "?")

static const char *const kinds[] = {
#define X(name, word, weight) [KIND_##name] = (word),
	KINDS(X)
#undef X
};
static const unsigned weights[] = {
#define X(name, word, weight) [KIND_##name] = (weight),
	KINDS(X)
#undef X
};
static const struct {
	const char *name;
	int versions, alert, ktls_alert;
	char roles;
} breaks[] = {
#define X(name, versions, roles, alert, ktls) {#name, versions, alert, ktls, roles},
	BREAKS(X)
#undef X
};
static const char *const finishes[] = {"close_notify", "fin", "cut",  "alert",
				       "break",	       "rst", "close"};
static const char *const whens[] = {"sent", "received", "peer-ended", "abort"};
static const char *const endeds[] = {"nothing", "close_notify", "alert", "FIN", "RST"};
static const char *const roles[] = {"client", "backend"};

int schedule_kind(const char *word)
{
	for (int i = 0; i < KIND_COUNT; i++) {
		if (!strcmp(word, kinds[i]))
			return i;
	}
	return -1;
}

int schedule_broken(const char *word)
{
	for (int i = 0; i < BREAK_COUNT; i++) {
		if (!strcmp(word, breaks[i].name))
			return i;
	}
	return -1;
}

/* ---- chance ---- */

/* The finaliser of MurmurHash3: a bijection, so that pattern_trace() can run it backwards. */
static uint64_t mix(uint64_t x)
{
	x ^= x >> 33;
	x *= 0xff51afd7ed558ccdULL;
	x ^= x >> 33;
	x *= 0xc4ceb9fe1a85ec53ULL;
	return x ^ x >> 33;
}

static uint64_t inverse(uint64_t odd)
{
	uint64_t x = odd;

	for (int i = 0; i < 6; i++) /* Newton: each step doubles the right bits */
		x *= 2 - odd * x;
	return x;
}

static uint64_t unmix(uint64_t x)
{
	x ^= x >> 33;
	x *= inverse(0xc4ceb9fe1a85ec53ULL);
	x ^= x >> 33;
	x *= inverse(0xff51afd7ed558ccdULL);
	return x ^ x >> 33;
}

uint64_t draw(uint64_t *state)
{
	*state += 0x9e3779b97f4a7c15ULL;
	return mix(*state);
}

uint64_t draw_below(uint64_t *state, uint64_t n)
{
	return draw(state) % n;
}

bool draw_chance(uint64_t *state, unsigned per_mille)
{
	return draw_below(state, 1000) < per_mille;
}

uint64_t draw_log(uint64_t *state, uint64_t min, uint64_t max)
{
	double span = log2((double)max + 1) - log2((double)min);
	double x = (double)(draw(state) >> 11) / (double)(1ULL << 53);
	uint64_t v = (uint64_t)exp2(log2((double)min) + x * span);

	return v < min ? min : v > max ? max : v;
}

size_t draw_record(uint64_t *state, enum sizes sizes)
{
	switch (sizes) {
	case SIZES_SMALL:
		return draw_log(state, 1, 300);
	case SIZES_ONES:
		return 1 + draw_below(state, 3);
	case SIZES_MAXIMUM:
		return WIRE_PLAIN;
	default:
		return draw_chance(state, 300) ? WIRE_PLAIN : draw_log(state, 1, WIRE_PLAIN);
	}
}

/* ---- the bytes ---- */

/* A word of the stream names its flow, direction and place. */
static uint64_t word(uint64_t seed, uint32_t flow, enum role role, uint64_t index)
{
	return mix((uint64_t)flow << 32 | (uint64_t)role << 31 | index) ^ seed;
}

void pattern(uint64_t seed, uint32_t flow, enum role role, uint64_t at, uint8_t *buf, size_t n)
{
	while (n) {
		uint64_t w = word(seed, flow, role, at / 8);
		size_t off = at % 8, len = n < 8 - off ? n : 8 - off;

		memcpy(buf, (uint8_t *)&w + off, len);
		buf += len;
		at += len;
		n -= len;
	}
}

void pattern_trace(uint64_t seed, const uint8_t *p, size_t n, char *buf, size_t len)
{
	for (size_t off = 0; off < 8 && off + 16 <= n; off++) {
		uint64_t w[2], a, b;

		memcpy(w, p + off, sizeof(w));
		a = unmix(w[0] ^ seed);
		b = unmix(w[1] ^ seed);
		if (b != a + 1)
			continue;
		snprintf(buf, len, "these are flow %" PRIu64 "'s %s's bytes from %" PRIu64 " on",
			 a >> 32, roles[a >> 31 & 1], (a & 0x7fffffff) * 8 - (uint64_t)off);
		return;
	}
	snprintf(buf, len, "these are nobody's bytes");
}

/* ---- making ---- */

static enum kind draw_kind(uint64_t *r)
{
	unsigned at = (unsigned)draw_below(r, 100);
	int k = 0;

	while (k < KIND_COUNT - 1 && at >= weights[k])
		at -= weights[k++];
	return (enum kind)k;
}

static uint64_t draw_total(uint64_t *r, uint64_t min, uint64_t max)
{
	unsigned dice = (unsigned)draw_below(r, 1000);
	uint64_t total;

	if (dice < 60)
		total = draw_below(r, 4);
	else if (dice < 880)
		total = draw_log(r, 1, 65536);
	else if (dice < 985)
		total = draw_log(r, 16384, 512 << 10);
	else
		total = draw_log(r, 512 << 10, 4 << 20);
	if (total < min)
		total = min + draw_below(r, max - min + 1);
	return total < max ? total : max;
}

static int draw_buffer(const struct schedule_options *o, uint64_t *r, bool *tiny)
{
	switch (o->tiny ? 0 : draw_below(r, 12)) {
	case 0:
		if (o->faults)
			return 16384;
		*tiny = true;
		return 1; /* the kernel makes it its minimum */
	case 1:
		return (int)draw_log(r, 8192, 65536);
	case 2:
		return 4 << 20;
	default:
		return 0;
	}
}

static void draw_end(struct end_plan *e, const struct schedule_options *o, uint64_t *r)
{
	static const uint64_t seqs[] = {0, 1, 2, 6, 255, 0xffffffff};
	bool tiny = false;
	uint8_t can;

	memset(e, 0, sizeof(*e));
	e->random = draw(r);
	e->version = draw_chance(r, 600) ? WIRE_TLS13 : WIRE_TLS12;
	can = o->ciphers[e->version == WIRE_TLS13];
	do
		e->cipher = (uint8_t)draw_below(r, WIRE_CIPHERS);
	while (!(can & 1u << e->cipher));
	e->seq[0] = seqs[draw_below(r, sizeof(seqs) / sizeof(seqs[0]))];
	e->seq[1] = seqs[draw_below(r, sizeof(seqs) / sizeof(seqs[0]))];
	e->total = draw_total(r, o->least, o->bytes);
	e->sizes = draw_chance(r, 500) ? SIZES_MIXED : (enum sizes)draw_below(r, SIZES_COUNT);
	e->writes = draw_chance(r, 400) ? WRITES_WHOLE : (enum writes)draw_below(r, WRITES_COUNT);
	if (o->whole_writes)
		e->writes = WRITES_WHOLE;
	e->padded = e->version == WIRE_TLS13 && draw_chance(r, 250) ? 500 : 0;
	e->extra = draw_chance(r, 400) ? (unsigned)draw_log(r, 10, 600) : 0;
	if (o->rekey && e->version == WIRE_TLS13 && draw_chance(r, 300))
		e->key_updates = (unsigned)draw_log(r, 10, 400);
	e->pauses = draw_chance(r, 200) ? 100 : 0;
	e->read_max = draw_chance(r, 700) ? 65536 : draw_log(r, 1, 8192);
	e->sndbuf = draw_buffer(o, r, &tiny);
	e->rcvbuf = draw_buffer(o, r, &tiny);
	e->gate_sndbuf = draw_buffer(o, r, &tiny);
	e->gate_rcvbuf = draw_buffer(o, r, &tiny);
	if (tiny || draw_chance(r, 100))
		e->mss = (int)draw_log(r, 500, 1460);
	if (tiny && e->total > 16384)
		e->total = 16384;
	if (e->sizes == SIZES_ONES && e->total > 3000)
		e->total = 3000;
	if (e->sizes == SIZES_SMALL && e->total > 100000)
		e->total = 100000;
	if (e->read_max < 100)
		e->read_max += 100;
	if (draw_chance(r, o->stalls)) {
		e->stall_ms = (unsigned)draw_log(r, 5, draw_chance(r, 50) ? 1500 : 150);
		e->stall_at = draw_below(r, 40000);
	}
	e->fin_at_once = draw_chance(r, 500);
}

/*
 * What gets through a receive buffer within the patience, and well: with a window
 * below one segment, and loopback's are of 64 KiB, TCP sends at its persist timer
 * only, five windows a second.
 */
static uint64_t spared(int rcvbuf)
{
	const int smallest = 2304; /* SOCK_MIN_RCVBUF */

	if (!rcvbuf || rcvbuf > 131072)
		return UINT64_MAX;
	return 8 * (uint64_t)(rcvbuf < smallest ? smallest : rcvbuf);
}

static void spare_readers(struct end_plan *sender, const struct end_plan *reader)
{
	uint64_t most = reader->read_max < 2000 ? 100000 : UINT64_MAX;

	if (spared(sender->gate_rcvbuf) < most)
		most = spared(sender->gate_rcvbuf);
	if (spared(reader->rcvbuf) < most)
		most = spared(reader->rcvbuf);
	if (most == UINT64_MAX)
		return;
	sender->padded = 0;
	if (sender->total > most)
		sender->total = most;
}

static bool engine_allows(const struct schedule_options *o, int broken)
{
	switch (broken) {
	case BREAK_KEY_UPDATE:
		return !o->rekey;
	case BREAK_OLD_KEYS:
	case BREAK_KEY_UPDATE_FLOOD:
		return o->rekey;
	case BREAK_EMPTY_FLOOD:
		return !o->few_pipes && !o->copy;
	default:
		return true;
	}
}

static enum broken draw_broken(uint64_t *r, const struct schedule_options *o,
			       const struct end_plan *e, enum role role)
{
	for (;;) {
		int b = o->broken >= 0 ? o->broken : (int)draw_below(r, BREAK_COUNT);
		int versions = breaks[b].versions;
		bool version = versions == 5 || versions == (e->version == WIRE_TLS13 ? 3 : 2);
		bool right =
			breaks[b].roles == '*' || breaks[b].roles == (role == CLIENT ? 'c' : 'b');

		if (version && right && engine_allows(o, b))
			return (enum broken)b;
		if (o->broken >= 0) /* not in this version, or not by this end */
			return BREAK_BAD_MAC;
	}
}

static void draw_ends(struct schedule *s, const struct schedule_options *o, uint64_t *r)
{
	static const uint8_t alerts[] = {10, 20, 42, 45, 48, 80, 112, 200};
	struct end_plan *a = &s->end[s->actor], *b = &s->end[!s->actor];

	/* What the other end does unless told otherwise: it answers. */
	b->finish = BY_CLOSE_NOTIFY;
	b->when = WHEN_PEER_ENDED;
	a->when = WHEN_SENT;
	switch (s->kind) {
	case KIND_CLOSE:
		a->when = draw_chance(r, 500) ? WHEN_SENT : WHEN_RECEIVED;
		if (draw_chance(r, 500))
			b->when = WHEN_SENT;
		else
			b->after_peer = a->when == WHEN_SENT && draw_chance(r, 500);
		break;
	case KIND_FIN:
	case KIND_CUT:
		a->finish = s->kind == KIND_FIN ? BY_FIN : BY_CUT;
		a->when = draw_chance(r, 500) ? WHEN_SENT : WHEN_RECEIVED;
		if (draw_chance(r, 500))
			b->finish = BY_FIN;
		if (draw_chance(r, 300))
			b->when = WHEN_SENT;
		else
			b->after_peer = a->when == WHEN_SENT && draw_chance(r, 300);
		break;
	case KIND_ALERT:
		a->finish = BY_ALERT;
		a->alert = alerts[draw_below(r, sizeof(alerts))];
		if (draw_chance(r, 300))
			b->when = WHEN_SENT;
		break;
	case KIND_BREAK:
		a->finish = BY_BREAK;
		a->broken = draw_broken(r, o, a, s->actor);
		/* With its FIN there the kernel takes all empty records for the end at once. */
		if (a->broken == BREAK_EMPTY_FLOOD)
			a->fin_at_once = false;
		break;
	case KIND_RST:
	case KIND_EARLY:
		a->finish = s->kind == KIND_RST ? BY_RST : BY_CLOSE;
		a->when = WHEN_ABORT;
		a->said_goodbye = s->kind == KIND_EARLY && draw_chance(r, 300);
		if (draw_chance(r, 700))
			a->abort_sent = draw_below(r, a->total + 1);
		if (draw_chance(r, 500))
			a->abort_received = draw_below(r, b->total + 1);
		if (a->said_goodbye) /* behind its last byte */
			a->abort_sent = a->total;
		break;
	default:
		break;
	}
}

void schedule_make(struct schedule *s, const struct schedule_options *o, uint32_t flow)
{
	uint64_t r = mix(o->seed) ^ mix(flow + 1);

	memset(s, 0, sizeof(*s));
	s->flow = flow;
	s->kind = o->kind >= 0 ? (enum kind)o->kind : draw_kind(&r);
	s->actor = (enum role)draw_below(&r, 2);
	draw_end(&s->end[CLIENT], o, &r);
	draw_end(&s->end[BACKEND], o, &r);
	spare_readers(&s->end[CLIENT], &s->end[BACKEND]);
	spare_readers(&s->end[BACKEND], &s->end[CLIENT]);
	draw_ends(s, o, &r);
}

static void print_end(const struct end_plan *e, char *buf, size_t len)
{
	static const char *const ciphers[] = {"aes128", "aes256", "chacha20"};

	snprintf(buf, len,
		 "%s/%s %" PRIu64
		 " bytes, %s when %s%s%s%s alert %u, records %d writes %d padded %u "
		 "extra %u updates %u pauses %u, reads %zu, stalls %u ms at %" PRIu64
		 ", buffers %d/%d gate %d/%d mss %d",
		 e->version == WIRE_TLS13 ? "1.3" : "1.2", ciphers[e->cipher], e->total,
		 e->finish == BY_BREAK ? breaks[e->broken].name : NUL_SAFE(e->finish, finishes),
		 NUL_SAFE(e->when, whens), e->fin_at_once ? ", FIN at once" : "",
		 e->after_peer ? ", after the other" : "",
		 e->said_goodbye ? ", close_notify first" : "", e->alert, e->sizes, e->writes,
		 e->padded, e->extra, e->key_updates, e->pauses, e->read_max, e->stall_ms,
		 e->stall_at, e->sndbuf, e->rcvbuf, e->gate_sndbuf, e->gate_rcvbuf, e->mss);
}

void schedule_print(const struct schedule *s, char *buf, size_t len)
{
	char end[2][400];

	print_end(&s->end[CLIENT], end[CLIENT], sizeof(end[CLIENT]));
	print_end(&s->end[BACKEND], end[BACKEND], sizeof(end[BACKEND]));
	snprintf(buf, len, "%s by the %s\n    client  %s\n    backend %s", kinds[s->kind],
		 roles[s->actor], end[CLIENT], end[BACKEND]);
}

/* ---- judging ---- */

struct verdict {
	const struct schedule *s;
	const struct schedule_options *o;
	const struct seen *seen;
	const struct told *told;
	bool given_up;
	char *text;
	size_t len;
};

__attribute__((format(printf, 3, 4))) static bool wrong(struct verdict *v, enum role r,
							const char *fmt, ...)
{
	int n = snprintf(v->text, v->len, "the %s ", roles[r]);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(v->text + n, v->len - (size_t)n, fmt, ap);
	va_end(ap);
	return false;
}

/* It closed first in TLS 1.2, and the gate's patience with the other end was over. */
static bool gave_up(const struct verdict *v, enum role r)
{
	return v->s->end[r].version == WIRE_TLS12 && v->s->end[r].finish == BY_CLOSE_NOTIFY &&
	       v->seen[r].finished && v->told->quiet >= TLS12_CLOSE_MS;
}

/* The other end has closed in TLS 1.2, and this one's answer came when the gate had gone. */
static bool answered_late(const struct verdict *v, enum role r)
{
	const struct seen *s = &v->seen[r];

	return gave_up(v, !r) && s->finished && s->finished_at >= v->told->ended_at + LINGER_MS;
}

static bool saw_all(const struct verdict *v, enum role r)
{
	return v->seen[r].received == v->s->end[!r].total;
}

static bool must_see(struct verdict *v, enum role r, bool all, enum ended ended, int alert)
{
	const struct seen *s = &v->seen[r];

	if (all && !saw_all(v, r))
		return wrong(v, r, "got %" PRIu64 " of %" PRIu64 " bytes, then %s %d", s->received,
			     v->s->end[!r].total, NUL_SAFE(s->ended, endeds), s->alert);
	if (s->ended != ended || (ended == ENDED_ALERT && s->alert != alert))
		return wrong(v, r, "saw %s %d after %" PRIu64 " of %" PRIu64 " bytes, not %s %d",
			     NUL_SAFE(s->ended, endeds), s->alert, s->received, v->s->end[!r].total,
			     NUL_SAFE(ended, endeds), alert);
	return true;
}

/* What no end may ever see, whatever the schedule. */
static bool never(struct verdict *v, enum role r)
{
	const struct end_plan *own = &v->s->end[r], *other = &v->s->end[!r];
	const struct seen *s = &v->seen[r];
	bool goodbye = other->finish == BY_CLOSE_NOTIFY || other->said_goodbye;

	if (s->different_at >= 0)
		return wrong(v, r, "got a wrong byte at %" PRId64 " of %" PRIu64 ": %s",
			     s->different_at, other->total, s->trace);
	if (s->garbage && !(v->given_up && s->cut))
		return wrong(v, r, "got %s behind %" PRIu64 " bytes", s->garbage, s->received);
	if (s->received > other->total)
		return wrong(v, r, "got %" PRIu64 " bytes too many", s->received - other->total);
	if (s->ended == ENDED_CLOSE_NOTIFY && !(goodbye && saw_all(v, r)) && !gave_up(v, r))
		return wrong(v, r, "saw a close_notify behind %" PRIu64 " of %" PRIu64 " bytes",
			     s->received, other->total);
	if (s->ended == ENDED_ALERT && other->finish != BY_ALERT && other->finish != BY_BREAK &&
	    own->finish != BY_BREAK && !(v->given_up && s->alert == ALERT_INTERNAL_ERROR))
		return wrong(v, r, "saw alert %d, which nobody sent", s->alert);
	if ((s->updates > s->updates_wanted && !v->o->key_limit) ||
	    s->renegotiations > s->renegotiations_wanted)
		return wrong(
			v, r,
			"got %u KeyUpdates and %u no_renegotiation, having asked for %u and %u",
			s->updates, s->renegotiations, s->updates_wanted, s->renegotiations_wanted);
	return true;
}

static int told_alert(const struct verdict *v, const struct end_plan *e)
{
	return v->o->ktls ? breaks[e->broken].ktls_alert : breaks[e->broken].alert;
}

/* Its stream may have been cut, for its own end was no orderly one. */
static bool judge_culprit(struct verdict *v, enum role r)
{
	const struct end_plan *own = &v->s->end[r];
	const struct seen *s = &v->seen[r];

	if (own->finish == BY_BREAK)
		return must_see(v, r, false, ENDED_ALERT, told_alert(v, own));
	if (s->ended == ENDED_CLOSE_NOTIFY) /* it was faster; never() has looked at the bytes */
		return true;
	return must_see(v, r, false, ENDED_FIN, 0);
}

static bool judge_witness(struct verdict *v, enum role r)
{
	const struct end_plan *other = &v->s->end[!r];
	const struct seen *s = &v->seen[r];

	switch (other->finish) {
	case BY_CLOSE_NOTIFY:
		if (!must_see(v, r, true, ENDED_CLOSE_NOTIFY, 0))
			return false;
		if (s->tail != ENDED_FIN && !answered_late(v, r))
			return wrong(v, r, "saw RST behind the close_notify");
		if (other->when == WHEN_PEER_ENDED &&
		    (s->updates < s->updates_wanted ||
		     s->renegotiations != s->renegotiations_wanted))
			return wrong(v, r, "got %u of %u KeyUpdates and %u of %u no_renegotiation",
				     s->updates, s->updates_wanted, s->renegotiations,
				     s->renegotiations_wanted);
		return true;
	case BY_FIN:
	case BY_CUT:
		return must_see(v, r, true, ENDED_FIN, 0);
	case BY_ALERT:
		return must_see(v, r, true, ENDED_ALERT, other->alert);
	case BY_BREAK:
		return must_see(v, r, true, ENDED_ALERT, ALERT_INTERNAL_ERROR);
	case BY_RST:
		return must_see(v, r, false, ENDED_RST, 0);
	case BY_CLOSE:
		if (s->ended == ENDED_NOT || s->ended == ENDED_ALERT)
			return wrong(v, r, "saw %s %d", NUL_SAFE(s->ended, endeds), s->alert);
		return true; /* close_notify: never() has looked at the bytes */
	}
	return false;
}

static bool judge_end(struct verdict *v, enum role r)
{
	if (!never(v, r))
		return false;
	switch (v->s->end[r].finish) {
	case BY_RST:
	case BY_CLOSE: /* it has not stayed to see */
		return true;
	case BY_ALERT:
	case BY_BREAK:
		return judge_culprit(v, r);
	default:
		return gave_up(v, r) ? true : judge_witness(v, r);
	}
}

/* The reason in the log, where only one is right. */
static bool judge_reason(struct verdict *v)
{
	enum reason reason = v->told->reason;
	bool client = v->s->actor == CLIENT;
	bool right = true;

	switch (v->s->kind) {
	case KIND_CLOSE:
		right = reason == REASON_done || (reason == REASON_half_close_timeout &&
						  (gave_up(v, CLIENT) || gave_up(v, BACKEND)));
		break;
	case KIND_ALERT:
		right = reason == (client ? REASON_client_alert : REASON_backend_alert) ||
			gave_up(v, !v->s->actor);
		break;
	case KIND_RST:
		right = reason == (client ? REASON_client_reset : REASON_backend_reset);
		break;
	case KIND_BREAK:
		right = reason == (client ? REASON_client_bad_record : REASON_backend_bad_record) ||
			reason == (client ? REASON_client_illegal : REASON_backend_illegal) ||
			reason == (client ? REASON_client_flood : REASON_backend_flood) ||
			(reason == REASON_rekey_unsupported &&
			 v->s->end[v->s->actor].broken == BREAK_KEY_UPDATE);
		break;
	default:
		break;
	}
	return right ||
	       wrong(v, v->s->actor, "acted so, but the log says %s", reasons[reason].name);
}

bool schedule_judge(const struct schedule *s, const struct schedule_options *o,
		    const struct seen seen[2], const struct told *told, char *text, size_t len)
{
	struct verdict v = {.s = s, .o = o, .seen = seen, .told = told, .text = text, .len = len};

	return judge_end(&v, CLIENT) && judge_end(&v, BACKEND) && judge_reason(&v);
}

bool schedule_judge_given_up(const struct schedule *s, const struct schedule_options *o,
			     const struct seen seen[2], const struct told *told, bool closing,
			     char *text, size_t len)
{
	enum reason reason = told->reason;
	struct verdict v = {.s = s,
			    .o = o,
			    .seen = seen,
			    .told = told,
			    .given_up = true,
			    .text = text,
			    .len = len};

	for (int r = 0; r < 2; r++) {
		enum finish own = s->end[r].finish;

		if (!never(&v, (enum role)r))
			return false;
		if (seen[r].ended == ENDED_NOT && !seen[r].garbage && own != BY_RST &&
		    own != BY_CLOSE)
			return wrong(&v, (enum role)r, "saw no end");
	}
	if (closing || reason == REASON_no_memory || reason == REASON_io_error ||
	    reason == REASON_engine_failed || reason == REASON_rekey_unsupported)
		return true;
	return wrong(&v, s->actor, "acted while calls failed, but the log says %s",
		     reasons[reason].name);
}
