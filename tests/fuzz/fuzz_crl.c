// SPDX-License-Identifier: Apache-2.0
/*
 * A certificate revocation list, as it is read and as chains are held against it.
 * Input: issuer's name and signer's key, version, number of entries and how long their serial
 * numbers are, extensions of each entry, then programs of the list's extensions (cert.c).
 */
#include "fuzz.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>
#include "pki/crl.h"

#define CRL_MAX 200000

static const struct fuzz_bound bound = {.base_us = 10000, .byte_ns = 400};

struct list {
	const uint8_t *der;
	size_t len;
};

static STACK_OF(X509) * cas;
static X509 *ca, *leaf;

static X509 *certificate(const uint8_t *program, size_t len)
{
	struct fuzz_input in = {program, len};
	const unsigned char *p;
	struct der d;
	size_t from;
	X509 *cert;

	der_begin(&d, 10000);
	if (program)
		ENSURE(fuzz_certificate(&d, &in, &from, 1) == 1);
	else
		fuzz_anchor(&d);
	p = d.p;
	cert = d2i_X509(NULL, &p, (long)d.len);
	ENSURE(cert);
	der_free(&d);
	return cert;
}

static void begin(void)
{
	/* N1 by N0, with a distribution point for IDPs to be about */
	static const uint8_t program[] = {1, 1, 1, 12, 0, 0, 0, 3, 0};

	cas = sk_X509_new_null();
	ca = certificate(NULL, 0);
	leaf = certificate(program, sizeof(program));
	ENSURE(cas && sk_X509_push(cas, ca));
}

static void use(X509_CRL *crl)
{
	STACK_OF(X509_CRL) *crls = sk_X509_CRL_new_null();
	struct crl_set *set;
	int verdict;

	ENSURE(crls && sk_X509_CRL_push(crls, crl));
	ENSURE(!crl_superseded(crls, crl));
	set = crl_set_new(crls, cas);
	ENSURE(set);
	verdict = crl_set_check(set, leaf, ca, FUZZ_NOW);
	ENSURE(verdict == crl_set_check(set, leaf, ca, FUZZ_NOW));
	crl_set_free(set);
	sk_X509_CRL_free(crls);
}

static void run(void *arg)
{
	const struct list *list = arg;
	const unsigned char *p = list->der;
	X509_CRL *crl = d2i_X509_CRL(NULL, &p, (long)list->len);

	if (crl && !crl_unfit(crl))
		use(crl);
	X509_CRL_free(crl);
	ERR_clear_error();
}

static void entries(struct der *d, struct fuzz_input *in)
{
	unsigned n = fuzz_word(in), serial_len = fuzz_byte(in), kinds = fuzz_byte(in);
	uint8_t serial[256] = {1};

	if (!n)
		return;
	der_open(d, TAG_SEQUENCE);
	for (unsigned i = 0; i < n && !d->full; i++) {
		serial[1] = (uint8_t)(i >> 8);
		serial[2] = (uint8_t)i;
		der_open(d, TAG_SEQUENCE);
		der_value(d, TAG_INTEGER, serial, serial_len);
		der_text(d, TAG_UTC_TIME, "200101000000Z");
		if (kinds & 3) {
			der_open(d, TAG_SEQUENCE);
			for (unsigned k = 0; k < (kinds & 15); k++) {
				der_open(d, TAG_SEQUENCE);
				der_oid(d, k & 1 ? "2.5.29.21" : "1.3.6.1.4.1.99999.6");
				if (kinds & 16)
					der_true(d);
				der_value(d, TAG_OCTETS, "\x0a\x01\x01", 3);
				der_close(d);
			}
			der_close(d);
		}
		der_close(d);
	}
	der_close(d);
}

static void unknown_extensions(struct der *d, unsigned n)
{
	char oid[64];

	for (unsigned i = 0; i < n && !d->full; i++) {
		snprintf(oid, sizeof(oid), "1.3.6.1.4.1.99999.5.%u", i);
		der_open(d, TAG_SEQUENCE);
		der_oid(d, oid);
		der_value(d, TAG_OCTETS, "", 0);
		der_close(d);
	}
}

static void extensions(struct der *d, struct fuzz_input *in)
{
	unsigned n = fuzz_word(in);

	if (!n && !in->left)
		return;
	der_open(d, TAG_EXPLICIT);
	der_open(d, TAG_SEQUENCE);
	unknown_extensions(d, n);
	while (in->left && !d->full)
		fuzz_extension(d, in);
	der_close(d);
	der_close(d);
}

static void write_list(struct der *d, struct fuzz_input *in)
{
	unsigned who = fuzz_byte(in), how = fuzz_byte(in);
	size_t tbs;

	der_open(d, TAG_SEQUENCE);
	tbs = d->len;
	der_open(d, TAG_SEQUENCE);
	der_number(d, TAG_INTEGER, how & 3);
	der_open(d, TAG_SEQUENCE);
	der_oid(d, "1.3.101.112");
	der_close(d);
	fuzz_name(d, who & 7);
	der_text(d, TAG_UTC_TIME, "200101000000Z");
	if (how & 4)
		der_text(d, TAG_UTC_TIME, how & 8 ? "210101000000Z" : "491231235959Z");
	entries(d, in);
	extensions(d, in);
	der_close(d);
	if (!d->full)
		fuzz_sign(d, tbs, who >> 3, how >> 4 & 1);
	der_close(d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};
	struct list list;
	struct der d;

	if (!ca)
		begin();
	der_begin(&d, CRL_MAX);
	write_list(&d, &in);
	list = (struct list){d.p, d.len};
	if (!d.full)
		fuzz_bounded(&bound, d.len, run, &list);
	der_free(&d);
	return 0;
}
