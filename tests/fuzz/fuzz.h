/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the fuzz targets have in common: an input that is read as a program, DER whose lengths
 * are always right, and a bound on the CPU time that a parser may take for its bytes.
 */
#ifndef KTLSGATE_FUZZ_H
#define KTLSGATE_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A promise of the code under test; a broken one is a finding. */
#define ENSURE(cond)                                                                               \
	do {                                                                                       \
		if (!(cond)) {                                                                     \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #cond);         \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

/* ---- the cost ---- */

/*
 * CPU time that n bytes may take: base_us + n * byte_ns, in a build with sanitizers on the machine
 * that FUZZ_NOMINAL_NS (fuzz.c) was measured on; on a slower one in proportion more. Chosen as a
 * few times of what honest inputs take: it is there for what grows with the square of n.
 */
struct fuzz_bound {
	unsigned base_us, byte_ns;
};

/*
 * Calls run(arg). Aborts if that took longer than n bytes may: then it is called again several
 * times, and the fastest counts. So run() frees what it makes, and does the same each time.
 */
void fuzz_bounded(const struct fuzz_bound *bound, size_t n, void (*run)(void *arg), void *arg);

/* In run(): what comes in between is not counted. For what OpenSSL does whatever we do. */
void fuzz_clock_stop(void);
void fuzz_clock_go_on(void);

/* ---- the input as a program; behind its end there are zeros ---- */

struct fuzz_input {
	const uint8_t *p;
	size_t left;
};

static inline unsigned fuzz_byte(struct fuzz_input *in)
{
	if (!in->left)
		return 0;
	in->left--;
	return *in->p++;
}

static inline unsigned fuzz_word(struct fuzz_input *in)
{
	unsigned high = fuzz_byte(in);

	return high << 8 | fuzz_byte(in);
}

/* Up to n bytes; *got of them are there. */
static inline const uint8_t *fuzz_bytes(struct fuzz_input *in, size_t n, size_t *got)
{
	const uint8_t *p = in->p;

	*got = n < in->left ? n : in->left;
	in->p += *got;
	in->left -= *got;
	return p;
}

/* ---- DER ---- */

#define DER_DEPTH_MAX 16

/* All zero to begin with. What goes beyond max is left out, and full set. */
struct der {
	uint8_t *p; /* owned */
	size_t len, max;
	size_t open[DER_DEPTH_MAX];
	unsigned depth;
	bool full;
};

void der_begin(struct der *d, size_t max);
void der_free(struct der *d);
void der_bytes(struct der *d, const void *p, size_t n);
/* A value between the two, whose length is known when it is closed. */
void der_open(struct der *d, uint8_t tag);
void der_close(struct der *d);
/* A whole value. */
void der_value(struct der *d, uint8_t tag, const void *p, size_t n);
void der_text(struct der *d, uint8_t tag, const char *text);
void der_number(struct der *d, uint8_t tag, unsigned n); /* INTEGER or ENUMERATED */
void der_true(struct der *d);
/* Dotted. */
void der_oid(struct der *d, const char *oid);

/* ---- certificates: see cert.c for what a program says ---- */

#define FUZZ_NOW 1750000000 /* June 2025: what is made here is good from 2020 to 2049 */

enum {
	TAG_BOOLEAN = 1,
	TAG_INTEGER = 2,
	TAG_BITS = 3,
	TAG_OCTETS = 4,
	TAG_NULL = 5,
	TAG_OID = 6,
	TAG_ENUMERATED = 10,
	TAG_UTF8 = 12,
	TAG_IA5 = 22,
	TAG_UTC_TIME = 23,
	TAG_TIME = 24,
	TAG_SEQUENCE = 0x30,
	TAG_SET = 0x31,
	TAG_CONTEXT = 0x80,
	TAG_EXPLICIT = 0xa0
};

#define FUZZ_KEYS 8

struct evp_pkey_st;
/* Ed25519, always the same ones; never freed. */
struct evp_pkey_st *fuzz_key(unsigned n);

/* CN=N0, CN=N1, ... */
void fuzz_name(struct der *d, unsigned n);
/* AlgorithmIdentifier and BIT STRING behind the tbs that begins at from; flipped: a wrong one. */
void fuzz_sign(struct der *d, size_t from, unsigned key, bool flipped);
void fuzz_public_key(struct der *d, unsigned key);
/* One extension of a certificate or CRL as the program says. */
void fuzz_extension(struct der *d, struct fuzz_input *in);
/* Appends one certificate as the program says, perhaps several times (with other serial numbers):
 * returns how often. from[i]: where each begins in d.
 */
unsigned fuzz_certificate(struct der *d, struct fuzz_input *in, size_t *from, unsigned max);
/* A CA that signs itself: name 0, key 0; the issuer of everything that is good. */
void fuzz_anchor(struct der *d);

#endif
