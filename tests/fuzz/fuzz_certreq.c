// SPDX-License-Identifier: Apache-2.0
/*
 * What a backend asks for in its CertificateRequest, looked at in the middle of a real handshake.
 * Input: version, which signature algorithms, number of CA names, how long and how many RDNs each.
 */
#include "fuzz.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include "forging/certreq.h"

static const struct fuzz_bound bound = {.base_us = 10000, .byte_ns = 1000};

static struct cfg_certkey certkey;
static void *certkeys[] = {&certkey};
static const struct cfg_list cas = {.items = certkeys, .n = 1};
static X509 *cert;
static bool looked;
static size_t names_len;

static void begin(void)
{
	const unsigned char *p;
	struct der d;

	der_begin(&d, 10000);
	fuzz_anchor(&d);
	p = d.p;
	cert = d2i_X509(NULL, &p, (long)d.len);
	ENSURE(cert);
	certkey.cert = cert;
	der_free(&d);
}

static void run(void *arg)
{
	static struct cfg_service service = {.index = 0};
	static const struct config cfg = {.n_services = 1};
	struct certreq_memory *memory = certreq_memory_new(&cfg);
	char *text = NULL;
	SSL *ssl = arg;
	struct certreq r;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	ENSURE(memory && out);
	certreq_read(ssl, &r);
	ENSURE(r.n_sigalgs <= CERTREQ_SIGALGS_MAX && r.n_types <= CERTREQ_TYPES_MAX);
	ENSURE(certreq_key_type(&r, FORGE_KEY_AUTO) <= KEY_TYPES);
	ENSURE(certreq_choose_ca(ssl, &cas) <= 0);
	certreq_remember(memory, &service, ssl, 1);
	certreq_write(memory, &service, 2, out);
	ENSURE(!fclose(out));
	for (size_t i = 0; i < len; i++)
		ENSURE(text[i] == '\n' || (text[i] >= ' ' && text[i] != 0x7f));
	free(text);
	certreq_memory_free(memory);
}

static int look(SSL *ssl, void *arg)
{
	(void)arg;
	looked = true;
	fuzz_bounded(&bound, names_len, run, ssl);
	return 0;
}

static STACK_OF(X509_NAME) * names(struct fuzz_input *in)
{
	unsigned n = fuzz_word(in), kind = fuzz_byte(in);
	STACK_OF(X509_NAME) *list = sk_X509_NAME_new_null();
	struct der d;

	ENSURE(list);
	names_len = 0;
	for (unsigned i = 0; i < n && names_len < 60000; i++) {
		const unsigned char *p;
		X509_NAME *name;
		size_t got;

		der_begin(&d, 4000);
		if (kind & 0x80) {
			p = fuzz_bytes(in, kind & 0x7f, &got);
			der_value(&d, TAG_SEQUENCE, p, got);
		} else {
			fuzz_name(&d, i + kind);
		}
		p = d.p;
		name = d2i_X509_NAME(NULL, &p, (long)d.len);
		names_len += d.len;
		der_free(&d);
		if (name)
			ENSURE(sk_X509_NAME_push(list, name));
	}
	return list;
}

static SSL_CTX *context(bool server, unsigned version)
{
	SSL_CTX *ctx = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());

	ENSURE(ctx && SSL_CTX_set_min_proto_version(ctx, (int)version) &&
	       SSL_CTX_set_max_proto_version(ctx, (int)version));
	SSL_CTX_set_max_cert_list(ctx, 65536);
	if (server)
		ENSURE(SSL_CTX_use_certificate(ctx, cert) &&
		       SSL_CTX_use_PrivateKey(ctx, fuzz_key(0)));
	else
		SSL_CTX_set_cert_cb(ctx, look, NULL);
	return ctx;
}

static SSL *side(bool server, bool tls12)
{
	static SSL_CTX *contexts[2][2];
	SSL_CTX **ctx = &contexts[server][tls12];
	SSL *ssl;

	if (!*ctx)
		*ctx = context(server, tls12 ? TLS1_2_VERSION : TLS1_3_VERSION);
	ssl = SSL_new(*ctx);
	ENSURE(ssl);
	return ssl;
}

static void handshake(SSL *client, SSL *server)
{
	BIO *a, *b;

	ENSURE(BIO_new_bio_pair(&a, 200000, &b, 200000) == 1);
	SSL_set_bio(client, a, a);
	SSL_set_bio(server, b, b);
	looked = false;
	for (int i = 0; i < 4 && !looked; i++) {
		(void)SSL_connect(client);
		(void)SSL_accept(server);
	}
	SSL_free(client);
	SSL_free(server);
	ERR_clear_error();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const sigalgs[] = {
		"ed25519:RSA+SHA256", "ECDSA+SHA256:ed25519", "rsa_pss_rsae_sha256",
		"ECDSA+SHA1:RSA+SHA1:RSA+SHA512:rsa_pss_pss_sha256:ed448:ed25519"};
	struct fuzz_input in = {data, size};
	unsigned how = fuzz_byte(&in);
	SSL *client, *server;

	if (!cert)
		begin();
	client = side(false, how & 1);
	server = side(true, how & 1);
	SSL_set_verify(server, SSL_VERIFY_PEER, NULL);
	SSL_set0_CA_list(server, names(&in));
	ENSURE(SSL_set1_client_sigalgs_list(server, sigalgs[how >> 1 & 3]));
	handshake(client, server);
	return 0;
}
