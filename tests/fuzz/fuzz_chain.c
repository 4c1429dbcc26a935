// SPDX-License-Identifier: Apache-2.0
/*
 * A client's chain, as worker and signer judge it, and what is forged from one that is good.
 * Input: a program for each certificate (cert.c), the leaf's first. The anchor is N0 with key 0.
 */
#include "fuzz.h"

#include <openssl/err.h>
#include "signer/ca_policy.h"
#include "forge/forge.h"
#include "pki/identity.h"
#include "pki/verify.h"

#define CERTIFICATES_MAX 600
#define CHAIN_MAX	 100000

/* The first term: VERIFY_SIGNATURES_MAX of them. */
static const struct fuzz_bound bound = {.base_us = 30000, .byte_ns = 400};

struct chain {
	const uint8_t *der[CERTIFICATES_MAX];
	size_t len[CERTIFICATES_MAX];
	unsigned n;
};

static STACK_OF(X509) * anchors;
static struct forge_rules *rules;

static X509 *parse(const uint8_t *p, size_t len)
{
	return d2i_X509(NULL, &p, (long)len);
}

static void begin(void)
{
	struct der d;

	der_begin(&d, 10000);
	fuzz_anchor(&d);
	anchors = sk_X509_new_null();
	rules = forge_rules_new();
	ENSURE(anchors && rules && sk_X509_push(anchors, parse(d.p, d.len)));
	der_free(&d);
}

static void forge(const struct identity *id)
{
	static const struct cfg_ca_policy allowed = {
		.names = (char *)"dns:*.*.example email:*@*.example uri:spiffe://* subject:CN=N*",
		.trust_domains = (char *)"d0.example d1.example",
	};
	const struct ca_policy policy = {.cfg = &allowed};
	const struct forge_ca ca = {.cert = sk_X509_value(anchors, 0), .key = fuzz_key(0)};
	const struct forge_policy how = {.rules = rules, .lifespan = 600, .skew = 300};
	scoped_x509 *forged = NULL;

	ENSURE((unsigned)ca_policy_check(&policy, id) < CA_REFUSALS);
	ENSURE(!forge_certificate(&ca, id, fuzz_key(7), &how, FUZZ_NOW, NULL, &forged) == !!forged);
}

static void verify(X509 *leaf, const STACK_OF(X509) * sent)
{
	const struct verify_policy policy = VERIFY_POLICY_DEFAULT;
	struct verifier *v = verifier_new(anchors, &policy);
	scoped_identity *id = NULL;
	struct verify_result r;

	ENSURE(v);
	if (!verify_chain(v, VERIFY_CLIENT, leaf, sent, FUZZ_NOW, &r)) {
		ENSURE(r.error == X509_V_OK && r.chain && sk_X509_value(r.chain, 0) == leaf);
		id = identity_new(r.chain);
		if (!id)
			sk_X509_pop_free(r.chain, X509_free);
	} else {
		ENSURE(r.error != X509_V_OK && !r.chain && verify_error_text(r.error));
	}
	ENSURE(r.candidates <= VERIFY_CANDIDATES_MAX && r.signatures <= VERIFY_SIGNATURES_MAX);
	if (id)
		forge(id);
	verifier_free(v);
}

/* NULL: OpenSSL ends a handshake with a Certificate message that it cannot read. */
static STACK_OF(X509) * parse_all(const struct chain *c)
{
	STACK_OF(X509) *sent = sk_X509_new_null();

	ENSURE(sent);
	for (unsigned i = 0; i < c->n; i++) {
		X509 *cert = parse(c->der[i], c->len[i]);

		if (!cert) {
			sk_X509_pop_free(sent, X509_free);
			return NULL;
		}
		ENSURE(sk_X509_push(sent, cert));
	}
	return sent;
}

static void run(void *arg)
{
	scoped_certs *sent = NULL;

	fuzz_clock_stop();
	sent = parse_all(arg);
	fuzz_clock_go_on();
	/* As SSL_get_peer_cert_chain() has them: the leaf first. */
	if (sent)
		verify(sk_X509_value(sent, 0), sent);
	ERR_clear_error();
	fuzz_clock_stop();
	sk_X509_pop_free(sent, X509_free);
	sent = NULL;
	fuzz_clock_go_on();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};
	size_t from[CERTIFICATES_MAX + 1];
	struct chain c = {.n = 0};
	struct der d;

	if (!anchors)
		begin();
	der_begin(&d, CHAIN_MAX);
	while (in.left && c.n < CERTIFICATES_MAX && !d.full)
		c.n += fuzz_certificate(&d, &in, from + c.n, CERTIFICATES_MAX - c.n);
	if (!d.full) /* else the last one did not fit, and begins there */
		from[c.n] = d.len;
	for (unsigned i = 0; i < c.n; i++) {
		c.der[i] = d.p + from[i];
		c.len[i] = from[i + 1] - from[i];
	}
	if (c.n)
		fuzz_bounded(&bound, from[c.n], run, &c);
	der_free(&d);
	return 0;
}
