// SPDX-License-Identifier: Apache-2.0
/* OpenSSL's callbacks that put a fresh value into a handshake. Knows no vserver and no signer. */
#include "tls/fresh_tls.h"

#include <errno.h>
#include <openssl/rand.h>

/*
 * TLS 1.2, in front of the ServerHello: OpenSSL sends the session's id, unless the session is
 * resumed. With a ticket to come it has made none, and takes ours (RFC 5077 section 3.4 lets it).
 */
static int set_session_id(SSL *ssl, void *arg)
{
	const struct fresh_source *source = arg;
	SSL_SESSION *session = SSL_get_session(ssl);
	uint8_t id[FRESH_SESSION_ID_LEN];

	if (SSL_version(ssl) != TLS1_2_VERSION)
		return 1;
	fresh_read(source->values, source->vserver, id);
	return session && RAND_bytes(id + FRESH_LEN, FRESH_SESSION_ID_LEN - FRESH_LEN) == 1 &&
	       SSL_SESSION_set1_id(session, id, sizeof(id)) == 1;
}

static int add_extension(SSL *ssl, unsigned type, unsigned context, const unsigned char **out,
			 size_t *len, X509 *cert, size_t chain_index, int *alert, void *arg)
{
	const struct fresh_source *source = arg;
	uint8_t *value = OPENSSL_malloc(FRESH_LEN);

	(void)ssl;
	(void)type;
	(void)context;
	(void)cert;
	(void)chain_index;
	if (!value) {
		*alert = SSL_AD_INTERNAL_ERROR;
		return -1;
	}
	fresh_read(source->values, source->vserver, value);
	*out = value;
	*len = FRESH_LEN;
	return 1;
}

static void free_extension(SSL *ssl, unsigned type, unsigned context, const unsigned char *out,
			   void *arg)
{
	(void)ssl;
	(void)type;
	(void)context;
	(void)arg;
	OPENSSL_free((void *)out);
}

int fresh_tls_use(SSL_CTX *ctx, const struct fresh_source *source)
{
	/* Of the ClientHello, too: a client that uses this number for something else is let. */
	const unsigned where = SSL_EXT_TLS1_3_CERTIFICATE_REQUEST | SSL_EXT_CLIENT_HELLO;

	/* Without the cache's mode no id is sent; nothing is ever kept, nor found. */
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_SERVER | SSL_SESS_CACHE_NO_INTERNAL |
						    SSL_SESS_CACHE_NO_AUTO_CLEAR);
	SSL_CTX_set_cert_cb(ctx, set_session_id, (void *)source);
	if (!SSL_CTX_add_custom_ext(ctx, FRESH_EXTENSION, where, add_extension, free_extension,
				    (void *)source, NULL, NULL))
		return -ENOMEM;
	return 0;
}
