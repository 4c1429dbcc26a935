// SPDX-License-Identifier: Apache-2.0
/* Measures what an input costs, and writes DER. Knows no certificate and no target. */
#include "fuzz.h"

#include <openssl/evp.h>
#include <time.h>

/* ---- the cost ---- */

/* What reference() takes on the machine that the bounds were measured on. */
#define FUZZ_NOMINAL_NS 1000000
#define REFERENCES	7
#define AGAIN		9

static uint64_t cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t stopped_at, not_counted;

void fuzz_clock_stop(void)
{
	stopped_at = cpu_ns();
}

void fuzz_clock_go_on(void)
{
	not_counted += cpu_ns() - stopped_at;
}

static uint64_t cost_of(void (*run)(void *), void *arg)
{
	uint64_t before = cpu_ns();

	not_counted = 0;
	run(arg);
	return cpu_ns() - before - not_counted;
}

/* Half of it in OpenSSL, which has no sanitizer in it, half in code that has. */
static void reference(void *arg)
{
	static uint8_t block[65536];
	uint8_t digest[32];
	volatile unsigned *sum = arg;

	for (unsigned i = 0; i < 4; i++)
		ENSURE(EVP_Digest(block, sizeof(block), digest, NULL, EVP_sha256(), NULL) == 1);
	for (unsigned i = 0; i < 200000; i++)
		*sum += block[(i * 7 + *sum) % sizeof(block)];
}

static uint64_t least_cost(void (*run)(void *), void *arg, unsigned times, uint64_t enough)
{
	uint64_t least = UINT64_MAX, cost;

	for (unsigned i = 0; i < times && least > enough; i++) {
		cost = cost_of(run, arg);
		if (cost < least)
			least = cost;
	}
	return least;
}

/* In percent of the nominal machine, never below 100. */
static uint64_t slowness(void)
{
	static uint64_t percent;
	unsigned sum = 0;

	if (!percent) {
		percent = least_cost(reference, &sum, REFERENCES, 0) * 100 / FUZZ_NOMINAL_NS;
		if (getenv("FUZZ_SHOW_COST"))
			fprintf(stderr, "cost: this machine takes %llu %% of the nominal time\n",
				(unsigned long long)percent);
		percent = percent < 100 ? 100 : percent;
	}
	return percent;
}

/* One is set for each input: libFuzzer keeps what reaches a new one, and so climbs. */
__attribute__((section("__libfuzzer_extra_counters"))) static uint8_t heights[32];

static void tell_fuzzer(uint64_t cost, uint64_t allowed)
{
	size_t height = (size_t)(cost * 16 / allowed);

	heights[height < sizeof(heights) ? height : sizeof(heights) - 1] = 1;
}

/* FUZZ_SHOW_COST in the environment: prints each input that comes nearer to its bound. */
static void show(uint64_t cost, uint64_t allowed, size_t n)
{
	static double nearest;
	double share = (double)cost / (double)allowed;

	if (share <= nearest || !getenv("FUZZ_SHOW_COST"))
		return;
	nearest = share;
	fprintf(stderr, "cost: %zu bytes took %llu us, %.0f %% of the bound\n", n,
		(unsigned long long)cost / 1000, share * 100);
}

void fuzz_bounded(const struct fuzz_bound *bound, size_t n, void (*run)(void *arg), void *arg)
{
	uint64_t allowed =
		(bound->base_us * 1000ull + (uint64_t)bound->byte_ns * n) * slowness() / 100;
	uint64_t cost = cost_of(run, arg);

	/* A busy machine makes it a few times slower, and not more. */
	if (cost > allowed)
		cost = least_cost(run, arg, cost > 8 * allowed ? 1 : AGAIN, allowed);
	show(cost, allowed, n);
	tell_fuzzer(cost, allowed);
	if (cost <= allowed)
		return;
	fprintf(stderr, "too slow: %zu bytes took %llu us of CPU time, allowed are %llu us\n", n,
		(unsigned long long)cost / 1000, (unsigned long long)allowed / 1000);
	abort();
}

/* ---- DER ---- */

void der_begin(struct der *d, size_t max)
{
	*d = (struct der){.p = malloc(max + 16), .max = max};
	ENSURE(d->p);
}

void der_free(struct der *d)
{
	free(d->p);
	*d = (struct der){0};
}

void der_bytes(struct der *d, const void *p, size_t n)
{
	if (d->full || n > d->max - d->len) {
		d->full = true;
		return;
	}
	if (n)
		memcpy(d->p + d->len, p, n);
	d->len += n;
}

void der_open(struct der *d, uint8_t tag)
{
	ENSURE(d->depth < DER_DEPTH_MAX);
	der_bytes(d, &tag, 1);
	d->open[d->depth++] = d->len;
}

void der_close(struct der *d)
{
	size_t at = d->open[--d->depth], n = d->len - at, head = 1;
	uint8_t length[5];

	length[0] = (uint8_t)n;
	if (n > 127) {
		unsigned bytes = n > 0xffff ? 3 : n > 0xff ? 2 : 1;

		length[0] = (uint8_t)(0x80 | bytes);
		for (unsigned i = 0; i < bytes; i++)
			length[1 + i] = (uint8_t)(n >> 8 * (bytes - 1 - i));
		head = 1 + bytes;
	}
	if (d->full || head > d->max - d->len) {
		d->full = true;
		return;
	}
	memmove(d->p + at + head, d->p + at, n);
	memcpy(d->p + at, length, head);
	d->len += head;
}

void der_value(struct der *d, uint8_t tag, const void *p, size_t n)
{
	der_open(d, tag);
	der_bytes(d, p, n);
	der_close(d);
}

void der_text(struct der *d, uint8_t tag, const char *text)
{
	der_value(d, tag, text, strlen(text));
}

void der_number(struct der *d, uint8_t tag, unsigned n)
{
	uint8_t bytes[] = {0, (uint8_t)(n >> 24), (uint8_t)(n >> 16), (uint8_t)(n >> 8),
			   (uint8_t)n};
	size_t skip = 0;

	while (skip < 4 && !bytes[skip] && bytes[skip + 1] < 0x80)
		skip++;
	der_value(d, tag, bytes + skip, sizeof(bytes) - skip);
}

void der_true(struct der *d)
{
	der_value(d, TAG_BOOLEAN, "\xff", 1);
}

static void oid_arc(struct der *d, unsigned long arc)
{
	uint8_t bytes[5];
	unsigned n = 0;

	do {
		bytes[4 - n] = (uint8_t)((arc & 0x7f) | (n ? 0x80 : 0));
		arc >>= 7;
	} while (++n < 5 && arc);
	der_bytes(d, bytes + 5 - n, n);
}

void der_oid(struct der *d, const char *oid)
{
	char *p;
	unsigned long first = strtoul(oid, &p, 10);

	der_open(d, TAG_OID);
	first = first * 40 + strtoul(p + 1, &p, 10);
	oid_arc(d, first);
	while (*p == '.')
		oid_arc(d, strtoul(p + 1, &p, 10));
	der_close(d);
}
