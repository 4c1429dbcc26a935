/* SPDX-License-Identifier: Apache-2.0 */
/* Draws what both ends of a flow do, and judges what they saw. Knows no socket and no TLS. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <openssl/tls1.h>
#include "plan.h"

const char *const kind_words[KIND_COUNT] = {
#define X(name, word, help) word,
	KINDS(X)
#undef X
};

const char *const kind_helps[KIND_COUNT] = {
#define X(name, word, help) help,
	KINDS(X)
#undef X
};

const char *const role_words[2] = {"client", "backend"};

/* ---- drawing ---- */

/* splitmix64 */
static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return x ^ x >> 31;
}

uint64_t draw(uint64_t *state)
{
	return mix(*state += 0x9e3779b97f4a7c15);
}

uint64_t draw_below(uint64_t *state, uint64_t n)
{
	return n ? draw(state) % n : 0;
}

static bool chance(uint64_t *state, unsigned per_cent)
{
	return draw_below(state, 100) < per_cent;
}

/* 1 … n, each order of magnitude as likely as the next. */
static uint64_t draw_magnitude(uint64_t *state, uint64_t n)
{
	unsigned bits = 1;

	while (bits < 63 && n >> bits)
		bits++;
	n = n < 1 ? 1 : n;
	for (;;) {
		uint64_t v = 1 + draw_below(state, 1ull << (1 + draw_below(state, bits)));

		if (v <= n)
			return v;
	}
}

size_t draw_size(uint64_t *state, enum sizes sizes)
{
	if (sizes == SIZES_MIXED)
		sizes = SIZES_MIXED + 1 + draw_below(state, SIZES_COUNT - 1);
	switch (sizes) {
	case SIZES_ONES:
		return 1 + draw_below(state, 3);
	case SIZES_SMALL:
		return 1 + draw_below(state, 400);
	case SIZES_HUGE:
		return 65536 + draw_below(state, (1 << 20) - 65535);
	case SIZES_MAXIMUM:
		return 16384 * (1 + draw_below(state, 8));
	default:
		return draw_magnitude(state, 65536) | 1;
	}
}

/* ---- planning ---- */

static void plan_end(struct end_plan *e, uint64_t *state, uint64_t bytes)
{
	static const int buffers[] = {0, 0, 0, 4096, 16384, 4 << 20};

	memset(e, 0, sizeof(*e));
	e->total = NUMBER_LEN + draw_magnitude(state, bytes) - 1;
	e->when = WHEN_BOTH;
	e->fin_at_once = chance(state, 50);
	e->sizes = draw_below(state, SIZES_COUNT);
	e->sndbuf = buffers[draw_below(state, sizeof(buffers) / sizeof(buffers[0]))];
	e->rcvbuf = buffers[draw_below(state, sizeof(buffers) / sizeof(buffers[0]))];
	if (chance(state, 15))
		e->padding = 2u << draw_below(state, 13);
	if (chance(state, 15))
		e->fragment = 512 + draw_below(state, 16384 - 512);
	if (chance(state, 20)) {
		e->stall_at = draw_below(state, bytes);
		e->stall_ms = 1 + draw_below(state, 300);
	}
	if (chance(state, 25))
		e->pauses = 1 + draw_below(state, 100);
}

static void close_anyhow(struct end_plan *e, uint64_t *state)
{
	e->when = chance(state, 50) ? WHEN_SENT : WHEN_PEER_ENDED;
}

static void plan_half_close(struct plan *p, enum role first, uint64_t *state)
{
	p->end[first].when = WHEN_SENT;
	p->end[!first].when = WHEN_PEER_ENDED;
	p->end[!first].after_peer = chance(state, 70);
}

static void plan_abort(struct plan *p, enum role by, enum finish finish, uint64_t *state)
{
	struct end_plan *e = &p->end[by];

	e->finish = finish;
	e->when = WHEN_SENT;
	if (finish == BY_RST && chance(state, 50)) {
		e->when = WHEN_RECEIVED;
		e->stop_at = draw_below(state, p->end[!by].total);
	}
	p->end[!by].when = WHEN_PEER_ENDED;
}

static void plan_early(struct plan *p, enum role by, uint64_t *state)
{
	struct end_plan *e = &p->end[by];

	e->finish = chance(state, 50) ? BY_CLOSE : BY_CLOSE_NOTIFY_CLOSE;
	e->when = WHEN_RECEIVED;
	e->stop_at = draw_below(state, p->end[!by].total);
	p->end[!by].when = WHEN_PEER_ENDED;
}

static void plan_fin(struct plan *p, enum role by, uint64_t *state)
{
	p->end[by].finish = BY_FIN;
	p->end[by].when = WHEN_SENT;
	/* A TLS 1.2 close_notify in front of the FIN would end both directions. */
	if (plan_tls12(p))
		p->end[!by].when = WHEN_PEER_ENDED;
	else
		close_anyhow(&p->end[!by], state);
}

static void plan_ones(struct end_plan *e)
{
	e->sizes = SIZES_ONES;
	if (e->total > 8192)
		e->total = 8192;
}

static void plan_hold(struct plan *p, uint64_t bytes)
{
	for (int i = 0; i < 2; i++) {
		p->end[i].when = WHEN_TOLD;
		p->end[i].sizes = SIZES_ODD;
		p->end[i].sndbuf = p->end[i].rcvbuf = 0;
		p->end[i].pauses = p->end[i].stall_ms = 0;
	}
	if (p->kind != KIND_STALLED)
		return;
	p->end[CLIENT].when = WHEN_PEER_ENDED;
	p->end[CLIENT].total = NUMBER_LEN;
	/* Loopback's segments of 64 KiB would let some thousand of these fill TCP's memory. */
	p->end[CLIENT].rcvbuf = 4096;
	p->end[CLIENT].mss = 1000;
	p->end[BACKEND].sndbuf = 32768;
	p->end[BACKEND].total = bytes;
	p->end[BACKEND].sizes = SIZES_MIXED;
}

static void plan_plain(struct plan *p, uint64_t total)
{
	for (int i = 0; i < 2; i++) {
		struct end_plan *e = &p->end[i];
		uint64_t pattern = e->pattern, random = e->random;

		memset(e, 0, sizeof(*e));
		e->total = total;
		e->when = WHEN_BOTH;
		e->fin_at_once = true;
		e->sizes = SIZES_HUGE;
		e->pattern = pattern;
		e->random = random;
	}
}

/* Closed when told, so that what is measured ends with the last byte. */
static void plan_load(struct plan *p, uint64_t bytes)
{
	plan_plain(p, bytes);
	for (int i = 0; i < 2; i++) {
		p->end[i].when = WHEN_TOLD;
		p->end[i].sizes = SIZES_MAXIMUM;
	}
	if (p->kind == KIND_STREAM) {
		p->end[CLIENT].total = NUMBER_LEN;
		return;
	}
	for (int i = 0; i < 2; i++) {
		p->end[i].turn = PING_LEN;
		p->end[i].total = NUMBER_LEN + (bytes + PING_LEN - 1) / PING_LEN * PING_LEN;
	}
}

static void plan_kind(struct plan *p, uint64_t *state, uint64_t bytes)
{
	struct end_plan *c = &p->end[CLIENT], *b = &p->end[BACKEND];

	switch (p->kind) {
	case KIND_HALF_CLIENT:
		plan_half_close(p, CLIENT, state);
		break;
	case KIND_HALF_BACKEND:
		plan_half_close(p, BACKEND, state);
		break;
	case KIND_BOTH:
		c->when = b->when = WHEN_SENT;
		break;
	case KIND_RST_CLIENT:
	case KIND_RST_BACKEND:
		plan_abort(p, p->kind - KIND_RST_CLIENT, BY_RST, state);
		break;
	case KIND_EARLY_CLIENT:
	case KIND_EARLY_BACKEND:
		plan_early(p, p->kind - KIND_EARLY_CLIENT, state);
		break;
	case KIND_FIN_CLIENT:
	case KIND_FIN_BACKEND:
		plan_fin(p, p->kind - KIND_FIN_CLIENT, state);
		break;
	case KIND_ALERT_CLIENT:
	case KIND_ALERT_BACKEND:
		plan_abort(p, p->kind - KIND_ALERT_CLIENT, BY_ALERT, state);
		break;
	case KIND_STALL:
		c->stall_at = draw_below(state, b->total = bytes);
		b->stall_at = draw_below(state, c->total = bytes);
		c->stall_ms = 200 + draw_below(state, 1000);
		b->stall_ms = chance(state, 50) ? 200 + draw_below(state, 1000) : 0;
		c->rcvbuf = b->rcvbuf = 16384;
		break;
	case KIND_ONES:
		plan_ones(c);
		plan_ones(b);
		break;
	case KIND_PADDED:
		c->padding = 2u << draw_below(state, 13);
		b->padding = 2u << draw_below(state, 13);
		break;
	case KIND_MAXIMUM:
		c->sizes = b->sizes = SIZES_MAXIMUM;
		c->fragment = b->fragment = c->padding = b->padding = 0;
		c->total = b->total = bytes;
		break;
	case KIND_TINY:
		/* Over loopback's large segments such windows crawl, from one probe to the next. */
		c->sndbuf = c->rcvbuf = b->sndbuf = b->rcvbuf = 1;
		c->total = NUMBER_LEN + draw_below(state, 4096);
		b->total = NUMBER_LEN + draw_below(state, 4096);
		break;
	case KIND_REKEY:
		c->key_updates = draw_below(state, 300);
		b->key_updates = draw_below(state, 300);
		break;
	case KIND_HOLD:
	case KIND_STALLED:
		plan_hold(p, bytes);
		break;
	case KIND_QUICK:
		plan_plain(p, NUMBER_LEN);
		break;
	case KIND_BULK:
		plan_plain(p, bytes);
		break;
	case KIND_STREAM:
	case KIND_PING:
		plan_load(p, bytes);
		break;
	default:
		break;
	}
}

static uint16_t draw_version(const char *tls, uint64_t *state)
{
	bool coin = chance(state, 50);

	if (!strcmp(tls, "1.2"))
		return TLS1_2_VERSION;
	return !strcmp(tls, "1.3") || coin ? TLS1_3_VERSION : TLS1_2_VERSION;
}

static enum kind draw_kind(const struct plan_options *o, uint64_t *state)
{
	uint64_t drawn = draw_below(state, o->rekey ? KIND_REKEY + 1 : KIND_REKEY);

	return o->kind < 0 ? (enum kind)drawn : (enum kind)o->kind;
}

void plan_make(struct plan *p, const struct plan_options *o, uint32_t flow)
{
	uint64_t state = mix(o->seed * 0x2545f4914f6cdd1d + flow);

	memset(p, 0, sizeof(*p));
	p->flow = flow;
	p->kind = draw_kind(o, &state);
	p->pair = draw_below(&state, o->pairs);
	p->version[CLIENT] = draw_version(o->tls, &state);
	p->version[BACKEND] =
		p->pair == 1 || !strcmp(o->tls, "1.2") ? TLS1_2_VERSION : TLS1_3_VERSION;
	if (plan_tls12(p) && (p->kind == KIND_HALF_CLIENT || p->kind == KIND_HALF_BACKEND))
		p->kind = KIND_CLOSE;
	for (int i = 0; i < 2; i++) {
		plan_end(&p->end[i], &state, o->bytes);
		p->end[i].pattern = draw(&state);
		p->end[i].random = draw(&state);
	}
	plan_kind(p, &state, o->bytes);
	for (int i = 0; i < 2; i++) {
		/* One byte a record: cheap enough only for a few. */
		if (p->end[i].sizes == SIZES_ONES && p->end[i].total > 8192)
			p->end[i].sizes = SIZES_MIXED;
	}
}

bool plan_tls12(const struct plan *p)
{
	return p->version[CLIENT] == TLS1_2_VERSION || p->version[BACKEND] == TLS1_2_VERSION;
}

/* ---- the bytes ---- */

static const uint8_t magic[4] = {'f', 'l', 'o', 'w'};

static void number_bytes(uint32_t flow, uint8_t out[NUMBER_LEN])
{
	memcpy(out, magic, sizeof(magic));
	for (int i = 0; i < 4; i++)
		out[4 + i] = (uint8_t)(flow >> (24 - 8 * i));
}

int64_t plan_number(const uint8_t *buf)
{
	uint32_t n = 0;

	if (memcmp(buf, magic, sizeof(magic)))
		return -1;
	for (int i = 4; i < NUMBER_LEN; i++)
		n = n << 8 | buf[i];
	return n;
}

static void whole_words(uint64_t pattern, uint64_t at, uint8_t *buf, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint64_t word = mix(pattern + (at + i) * 0x9e3779b97f4a7c15);

		memcpy(buf + 8 * i, &word, sizeof(word));
	}
}

/* Every eight bytes are one mixed counter. */
void plan_bytes(const struct plan *p, enum role end, uint64_t at, uint8_t *buf, size_t n)
{
	while (n) {
		if (at >= NUMBER_LEN && at % 8 == 0 && n >= 8) {
			whole_words(p->end[end].pattern, at / 8, buf, n / 8);
			at += n - n % 8;
			buf += n - n % 8;
			n %= 8;
			continue;
		}
		size_t skip = at % 8, take = 8 - skip < n ? 8 - skip : n;
		uint8_t block[8];

		if (at < NUMBER_LEN) {
			number_bytes(p->flow, block);
		} else {
			uint64_t word = mix(p->end[end].pattern + at / 8 * 0x9e3779b97f4a7c15);

			memcpy(block, &word, sizeof(block));
		}
		memcpy(buf, block + skip, take);
		at += take;
		buf += take;
		n -= take;
	}
}

/* ---- judging ---- */

static void describe(const struct seen *s, char *text, size_t len)
{
	static const char *const words[] = {"no end", "close_notify", "FIN",
					    "RST",    "alert",	      "a broken record"};
	int n = snprintf(text, len, "%s", words[s->ended]);

	if (s->ended == ENDED_ALERT)
		n += snprintf(text + n, len - (size_t)n, " %d", s->alert);
	n += snprintf(text + n, len - (size_t)n, " after %" PRIu64 " bytes", s->received);
	if (s->different_at >= 0)
		snprintf(text + n, len - (size_t)n, ", other bytes than sent from %" PRId64 " on",
			 s->different_at);
}

static bool aborts(enum finish f)
{
	return f != BY_CLOSE_NOTIFY && f != BY_FIN;
}

/* What the receiver must see, as text; sets *good. */
static const char *expectation(const struct plan *p, enum role end, const struct seen *s,
			       const struct seen *sender, bool *good)
{
	enum finish own = p->end[end].finish, by = p->end[!end].finish;
	uint64_t total = p->end[!end].total;
	bool all = s->received == total, prefix = s->received <= total;
	bool cut = s->ended == ENDED_FIN || s->ended == ENDED_RST;

	if (aborts(own)) {
		*good = prefix && (all || s->ended != ENDED_CLOSE_NOTIFY || s->closed_early);
		return "a prefix";
	}
	if (plan_tls12(p) && s->closed_early) {
		*good = prefix && s->ended != ENDED_ALERT && s->ended != ENDED_ERROR;
		return "a prefix and no alert";
	}
	switch (by) {
	case BY_CLOSE_NOTIFY:
		*good = all && s->ended == ENDED_CLOSE_NOTIFY;
		return "every byte and close_notify";
	case BY_FIN:
		*good = all && s->ended == ENDED_FIN;
		return "every byte and FIN";
	case BY_ALERT:
		*good = all && s->ended == ENDED_ALERT && s->alert == sender->alert_sent;
		return "every byte and the alert";
	case BY_RST:
		*good = prefix && s->ended == ENDED_RST;
		return "a prefix and RST";
	case BY_CLOSE:
		*good = prefix && cut;
		return "a prefix and FIN or RST";
	case BY_CLOSE_NOTIFY_CLOSE:
		*good = s->ended == ENDED_CLOSE_NOTIFY ? s->received == sender->sent
						       : prefix && cut;
		return "every byte sent and close_notify, or a prefix and FIN or RST";
	}
	return "?";
}

bool plan_judge(const struct plan *p, enum role end, const struct seen seen[2], char *text,
		size_t len)
{
	const struct seen *s = &seen[end], *sender = &seen[!end];
	bool good = false;
	const char *expected = expectation(p, end, s, sender, &good);
	char saw[128];

	if (good && s->different_at < 0)
		return true;
	describe(s, saw, sizeof(saw));
	snprintf(text, len,
		 "%s expected %s (planned %" PRIu64 ", sent %" PRIu64 ", alert %d), saw %s",
		 role_words[end], expected, p->end[!end].total, sender->sent, sender->alert_sent,
		 saw);
	return false;
}

bool plan_judge_bytes(const struct plan *p, enum role end, const struct seen seen[2], char *text,
		      size_t len)
{
	const struct seen *s = &seen[end];
	bool good = s->different_at < 0 && s->received == p->end[!end].total && s->ended &&
		    s->ended != ENDED_ERROR;
	char saw[128];

	if (good)
		return true;
	describe(s, saw, sizeof(saw));
	snprintf(text, len, "%s expected %" PRIu64 " bytes and some end, saw %s", role_words[end],
		 p->end[!end].total, saw);
	return false;
}

bool plan_judge_given_up(const struct plan *p, enum role end, const struct seen seen[2], char *text,
			 size_t len)
{
	const struct seen *s = &seen[end], *sender = &seen[!end];
	bool whole = s->received == sender->sent || (plan_tls12(p) && s->closed_early);
	bool good = s->different_at < 0 && s->received <= sender->sent && s->ended != ENDED_ERROR &&
		    (s->ended != ENDED_CLOSE_NOTIFY || (whole && !s->undue));
	char saw[128];

	if (good || plan_judge(p, end, seen, text, len))
		return true;
	describe(s, saw, sizeof(saw));
	snprintf(text, len,
		 "%s expected a prefix and no close_notify that was not due (sent %" PRIu64
		 "), saw %s%s",
		 role_words[end], sender->sent, saw, s->undue ? ", said by nobody" : "");
	return false;
}
