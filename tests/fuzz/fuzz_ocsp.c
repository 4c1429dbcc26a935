// SPDX-License-Identifier: Apache-2.0
/*
 * An OCSP response: about a peer's certificate (ocsp.c, in worker and signer) and about our own
 * (staple.c).
 * Input: status, responder and signer, number of answers, which of them is about our certificate
 * and what it says, and programs of the certificates that come along (cert.c). A first byte with
 * bit 7: what follows is the response as it is.
 */
#include "fuzz.h"

#include <openssl/err.h>
#include <openssl/ocsp.h>
#include <sys/mman.h>
#include <unistd.h>
#include "pki/ocsp.h"
#include "pki/staple.h"

#define CERTIFICATES_MAX 16

static const struct fuzz_bound bound = {.base_us = 20000, .byte_ns = 1000};

struct response {
	const uint8_t *der;
	size_t len;
};

static X509 *issuer, *leaf;
static STACK_OF(X509) * chain;
static uint8_t *id_der;
static int id_len;

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
	static const uint8_t program[] = {1, 1, 0}; /* N1 with key 1, by N0 with key 0 */
	OCSP_CERTID *id;

	issuer = certificate(NULL, 0);
	leaf = certificate(program, sizeof(program));
	chain = sk_X509_new_null();
	id = OCSP_cert_to_id(EVP_sha1(), leaf, issuer);
	id_len = i2d_OCSP_CERTID(id, &id_der);
	ENSURE(chain && sk_X509_push(chain, issuer) && id_len > 0);
	OCSP_CERTID_free(id);
}

static void load_staple(const struct response *r)
{
	scoped_fd fd = memfd_create("fuzz", MFD_CLOEXEC);
	char path[40], why[256] = "";
	struct staple s = {0};

	ENSURE(fd >= 0 && write(fd, r->der, r->len) == (ssize_t)r->len);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (staple_load(path, leaf, chain, FUZZ_NOW, &s, why, sizeof(why)))
		ENSURE(why[0]);
	else
		ENSURE(s.der && s.len == r->len && !memcmp(s.der, r->der, r->len));
	staple_free(&s);
}

static void run(void *arg)
{
	const struct response *r = arg;
	const char *why = NULL;
	enum ocsp_verdict verdict;
	time_t until;

	verdict = ocsp_judge(r->der, r->len, leaf, issuer, FUZZ_NOW, &until, &why);
	ENSURE(verdict != OCSP_NO_ANSWER ? until >= FUZZ_NOW && until <= FUZZ_NOW + 3600 : !!why);
	load_staple(r);
	ERR_clear_error();
}

static void answer(struct der *d, unsigned i, bool ours, unsigned says)
{
	static const char *const dates[] = {"20250615140000Z", "20200101000000Z", "20300101000000Z",
					    "2025061514Z"};
	uint8_t number[4] = {1, (uint8_t)(i >> 16), (uint8_t)(i >> 8), (uint8_t)i};

	der_open(d, TAG_SEQUENCE);
	if (ours) {
		der_bytes(d, id_der, (size_t)id_len);
	} else {
		der_open(d, TAG_SEQUENCE);
		der_open(d, TAG_SEQUENCE);
		der_oid(d, says & 0x40 ? "2.16.840.1.101.3.4.2.1" : "1.3.14.3.2.26");
		der_close(d);
		der_value(d, TAG_OCTETS, "12345678901234567890", 20);
		der_value(d, TAG_OCTETS, "12345678901234567890", 20);
		der_value(d, TAG_INTEGER, number, sizeof(number));
		der_close(d);
	}
	if ((says & 3) == 1) {
		der_open(d, 0xa1);
		der_text(d, TAG_TIME, dates[0]);
		der_close(d);
	} else {
		der_value(d, TAG_CONTEXT | (says & 3), NULL, 0);
	}
	der_text(d, TAG_TIME, dates[says >> 2 & 3]);
	if (says & 0x10) {
		der_open(d, TAG_EXPLICIT);
		der_text(d, TAG_TIME, dates[says & 0x20 ? 1 : 2]);
		der_close(d);
	}
	der_close(d);
}

static void responder(struct der *d, unsigned who)
{
	if (who & 0x40) {
		der_open(d, 0xa2);
		der_value(d, TAG_OCTETS, "12345678901234567890", 20);
	} else {
		der_open(d, 0xa1);
		fuzz_name(d, who & 7);
	}
	der_close(d);
}

static void write_basic(struct der *d, struct fuzz_input *in)
{
	unsigned who = fuzz_byte(in), n = fuzz_word(in), ours = fuzz_word(in), says = fuzz_byte(in);
	size_t tbs, from[CERTIFICATES_MAX];

	der_open(d, TAG_SEQUENCE);
	tbs = d->len;
	der_open(d, TAG_SEQUENCE);
	responder(d, who);
	der_text(d, TAG_TIME, "20250615140000Z");
	der_open(d, TAG_SEQUENCE);
	for (unsigned i = 0; i <= n && !d->full; i++)
		answer(d, i, i == ours, says);
	der_close(d);
	der_close(d);
	if (!d->full)
		fuzz_sign(d, tbs, who >> 3 & 7, who >> 7);
	if (in->left) {
		der_open(d, TAG_EXPLICIT);
		der_open(d, TAG_SEQUENCE);
		for (unsigned i = 0; in->left && i < CERTIFICATES_MAX && !d->full;)
			i += fuzz_certificate(d, in, from, CERTIFICATES_MAX - i);
		der_close(d);
		der_close(d);
	}
	der_close(d);
}

static void write_response(struct der *d, struct fuzz_input *in, unsigned status)
{
	der_open(d, TAG_SEQUENCE);
	der_number(d, TAG_ENUMERATED, status & 7);
	der_open(d, TAG_EXPLICIT);
	der_open(d, TAG_SEQUENCE);
	der_oid(d, "1.3.6.1.5.5.7.48.1.1");
	der_open(d, TAG_OCTETS);
	write_basic(d, in);
	der_close(d);
	der_close(d);
	der_close(d);
	der_close(d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};
	struct response r;
	unsigned status;
	struct der d;

	if (!issuer)
		begin();
	status = fuzz_byte(&in);
	/* A worker takes less; a staple may be as long as this. */
	der_begin(&d, STAPLE_MAX);
	if (status & 0x80)
		der_bytes(&d, in.p, in.left);
	else
		write_response(&d, &in, status);
	r = (struct response){d.p, d.len};
	if (!d.full)
		fuzz_bounded(&bound, d.len, run, &r);
	der_free(&d);
	return 0;
}
