// SPDX-License-Identifier: Apache-2.0
/*
 * Checks a client's CertificateVerify from the handshake messages alone. Knows
 * neither trust anchors nor time: whose chain it is, verify.c says.
 */
#include <stdbool.h>
#include <string.h>
#include <openssl/err.h>
#include <openssl/rsa.h>
#include <openssl/ssl.h>
#include "tls/transcript.h"
#include "pki/verify.h"
#include "pki/verify_rules.h"

SCOPED_DEFINE(md, EVP_MD, EVP_MD_free)
#define scoped_md __attribute__((cleanup(scoped_md_free_))) EVP_MD

/* Bytes not yet read. A read_*() that returns false leaves it in no particular state. */
struct reader {
	const uint8_t *p;
	size_t left;
};

struct transcript {
	const uint8_t *messages;
	bool tls13;
	const char *digest; /* TLS 1.3: the suite's */
	size_t hello1_len; /* TLS 1.3: of the ClientHello that a HelloRetryRequest answered, or 0 */
	size_t signed_len; /* of everything before the client's CertificateVerify */
	uint16_t scheme;
	struct reader signature;
	const uint8_t (*servers)[TRANSCRIPT_SERVER_LEN];
	size_t n_servers;
	uint8_t fresh[FRESH_LEN]; /* all zero: there is none */
};

struct server_hello {
	struct reader session_id;
	bool retry;
	bool tls13;
	uint16_t suite;
};

/* RFC 8446 section 4.2.3. What is not in this table is refused. */
static const struct scheme {
	uint16_t id;
	const char *key;    /* as EVP_PKEY_is_a() takes it */
	const char *digest; /* NULL: the algorithm has its own */
	const char *group;  /* TLS 1.3: the only curve */
	bool pss;
	bool tls12_only;
} schemes[] = {
	{.id = 0x0401, .key = "RSA", .digest = "SHA2-256", .tls12_only = true},
	{.id = 0x0501, .key = "RSA", .digest = "SHA2-384", .tls12_only = true},
	{.id = 0x0601, .key = "RSA", .digest = "SHA2-512", .tls12_only = true},
	{.id = 0x0403, .key = "EC", .digest = "SHA2-256", .group = "prime256v1"},
	{.id = 0x0503, .key = "EC", .digest = "SHA2-384", .group = "secp384r1"},
	{.id = 0x0603, .key = "EC", .digest = "SHA2-512", .group = "secp521r1"},
	{.id = 0x0804, .key = "RSA", .digest = "SHA2-256", .pss = true},
	{.id = 0x0805, .key = "RSA", .digest = "SHA2-384", .pss = true},
	{.id = 0x0806, .key = "RSA", .digest = "SHA2-512", .pss = true},
	{.id = 0x0807, .key = "ED25519"},
	{.id = 0x0808, .key = "ED448"},
	{.id = 0x0809, .key = "RSA-PSS", .digest = "SHA2-256", .pss = true},
	{.id = 0x080a, .key = "RSA-PSS", .digest = "SHA2-384", .pss = true},
	{.id = 0x080b, .key = "RSA-PSS", .digest = "SHA2-512", .pss = true},
};

const char transcript_sigalgs[] =
	"ECDSA+SHA256:ECDSA+SHA384:ECDSA+SHA512:ed25519:ed448:"
	"rsa_pss_rsae_sha256:rsa_pss_rsae_sha384:rsa_pss_rsae_sha512:"
	"rsa_pss_pss_sha256:rsa_pss_pss_sha384:rsa_pss_pss_sha512:RSA+SHA256:RSA+SHA384:RSA+SHA512";

static enum transcript_error verify(struct transcript *t, struct reader in, X509 **leaf,
				    STACK_OF(X509) * untrusted);
static bool read_hellos(struct reader *in, struct transcript *t);
static bool read_server_hello(struct reader *in, struct server_hello *hello);
static bool read_supported_version(struct reader *extensions, bool *tls13);
static const char *suite_digest(uint16_t suite);
static bool read_server_flight(struct reader *in, struct transcript *t, struct reader *certificate);
static bool begins_with_ours(const struct transcript *t, struct reader list, bool *ours);
static enum transcript_error read_client_certificates(struct reader *in, bool tls13, X509 **leaf,
						      STACK_OF(X509) * untrusted);
static bool read_certificate_verify(struct reader *in, struct transcript *t);
static enum transcript_error check_signature(const struct transcript *t, EVP_PKEY *key);
static bool tls13_content(const struct transcript *t, uint8_t *content, size_t *len);
static bool transcript_hash(const struct transcript *t, uint8_t *out, unsigned *len);
static bool read_certificate_list(struct reader *in, bool tls13, struct reader *list);
static bool read_certificate(struct reader *list, bool tls13, struct reader *der);
static bool read_message(struct reader *in, uint8_t type, struct reader *body);
static bool skip_message(struct reader *in, uint8_t type);
static bool read_number(struct reader *in, unsigned bytes, uint32_t *out);
static bool read_bytes(struct reader *in, size_t len, struct reader *out);
static bool read_vector(struct reader *in, unsigned len_bytes, struct reader *out);

enum transcript_error transcript_verify(const uint8_t *messages, size_t len,
					const uint8_t (*servers)[TRANSCRIPT_SERVER_LEN], size_t n,
					X509 **leaf, STACK_OF(X509) * *untrusted,
					uint8_t fresh[FRESH_LEN])
{
	struct transcript t = {.messages = messages, .servers = servers, .n_servers = n};
	scoped_certs *rest = NULL;
	scoped_x509 *first = NULL;
	enum transcript_error e;

	*leaf = NULL;
	*untrusted = NULL;
	if (!messages || len > TRANSCRIPT_MAX)
		return TRANSCRIPT_MALFORMED;
	rest = sk_X509_new_null();
	if (!rest)
		return TRANSCRIPT_MEMORY;
	/* A refusal is an answer and not an error for whoever looks into OpenSSL's queue next. */
	ERR_set_mark();
	e = verify(&t, (struct reader){messages, len}, &first, rest);
	ERR_pop_to_mark();
	if (e != TRANSCRIPT_OK)
		return e;
	*leaf = TAKE_PTR(first);
	*untrusted = TAKE_PTR(rest);
	memcpy(fresh, t.fresh, FRESH_LEN);
	return TRANSCRIPT_OK;
}

bool transcript_digest(const uint8_t *messages, size_t len, uint8_t out[TRANSCRIPT_DIGEST_LEN])
{
	struct reader in = {messages, len};
	size_t last = 0, at = 0;
	uint32_t type;
	struct reader body;

	while (in.left) {
		last = at;
		if (!read_number(&in, 1, &type) || !read_vector(&in, 3, &body))
			return false;
		at = len - in.left;
	}
	return EVP_Digest(messages, last, out, NULL, EVP_sha256(), NULL) == 1;
}

const char *transcript_error_text(enum transcript_error e)
{
	static const char *const texts[TRANSCRIPT_ERRORS] = {
		[TRANSCRIPT_OK] = "the client proved possession of its key",
		[TRANSCRIPT_MALFORMED] = "the handshake messages are malformed",
		[TRANSCRIPT_NOT_OUR_SERVER] = "the handshake was with another server",
		[TRANSCRIPT_NO_CERTIFICATE] = "the client sent no certificate",
		[TRANSCRIPT_BAD_SIGNATURE] = "the client's signature does not verify",
		[TRANSCRIPT_TOO_MUCH] = "the client sent too many certificates, or too long ones",
		[TRANSCRIPT_WEAK] = "the client's signature scheme is not accepted",
		[TRANSCRIPT_MEMORY] = "out of memory",
	};

	return (unsigned)e < TRANSCRIPT_ERRORS ? texts[e] : "unknown error";
}

/*
 * The bodies of messages not read here (ClientHello, key exchange, the server's
 * own proof) matter only as bytes that the client has signed.
 */
static enum transcript_error verify(struct transcript *t, struct reader in, X509 **leaf,
				    STACK_OF(X509) * untrusted)
{
	struct reader server_certificates;
	enum transcript_error e;
	bool ours;

	if (!read_hellos(&in, t) || !read_server_flight(&in, t, &server_certificates))
		return TRANSCRIPT_MALFORMED;
	if (!begins_with_ours(t, server_certificates, &ours))
		return TRANSCRIPT_MALFORMED;
	if (!ours)
		return TRANSCRIPT_NOT_OUR_SERVER;

	e = read_client_certificates(&in, t->tls13, leaf, untrusted);
	if (e != TRANSCRIPT_OK)
		return e;
	if (!t->tls13 && !skip_message(&in, SSL3_MT_CLIENT_KEY_EXCHANGE))
		return TRANSCRIPT_MALFORMED;
	t->signed_len = (size_t)(in.p - t->messages);
	if (!read_certificate_verify(&in, t) || in.left)
		return TRANSCRIPT_MALFORMED;
	return check_signature(t, X509_get0_pubkey(*leaf));
}

static bool read_hellos(struct reader *in, struct transcript *t)
{
	struct server_hello hello, retry;

	if (!skip_message(in, SSL3_MT_CLIENT_HELLO))
		return false;
	t->hello1_len = (size_t)(in->p - t->messages);
	if (!read_server_hello(in, &hello))
		return false;
	if (!hello.retry) {
		t->hello1_len = 0;
	} else {
		retry = hello;
		if (!retry.tls13 || !skip_message(in, SSL3_MT_CLIENT_HELLO) ||
		    !read_server_hello(in, &hello) || hello.retry || !hello.tls13 ||
		    hello.suite != retry.suite)
			return false;
	}
	t->tls13 = hello.tls13;
	/* In TLS 1.3 it is the client's own. */
	if (!t->tls13 && hello.session_id.left == FRESH_SESSION_ID_LEN)
		memcpy(t->fresh, hello.session_id.p, FRESH_LEN);
	t->digest = suite_digest(hello.suite);
	return !t->tls13 || t->digest;
}

static bool read_server_hello(struct reader *in, struct server_hello *hello)
{
	/* RFC 8446 section 4.1.3: SHA-256 of "HelloRetryRequest". */
	static const uint8_t retry_random[SSL3_RANDOM_SIZE] = {
		0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c,
		0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb,
		0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
	};
	struct reader body, random, extensions = {0};
	uint32_t version, suite, compression;

	if (!read_message(in, SSL3_MT_SERVER_HELLO, &body))
		return false;
	if (!read_number(&body, 2, &version) || version != TLS1_2_VERSION ||
	    !read_bytes(&body, SSL3_RANDOM_SIZE, &random) ||
	    !read_vector(&body, 1, &hello->session_id) ||
	    hello->session_id.left > SSL_MAX_SSL_SESSION_ID_LENGTH ||
	    !read_number(&body, 2, &suite) || !read_number(&body, 1, &compression) ||
	    compression != 0)
		return false;
	/* A TLS 1.2 server without extensions leaves out their length too. */
	if (body.left && (!read_vector(&body, 2, &extensions) || body.left))
		return false;
	hello->suite = (uint16_t)suite;
	hello->retry = memcmp(random.p, retry_random, sizeof(retry_random)) == 0;
	return read_supported_version(&extensions, &hello->tls13);
}

static bool read_supported_version(struct reader *extensions, bool *tls13)
{
	uint32_t type, version;
	struct reader data;

	*tls13 = false;
	while (extensions->left) {
		if (!read_number(extensions, 2, &type) || !read_vector(extensions, 2, &data))
			return false;
		if (type != TLSEXT_TYPE_supported_versions)
			continue;
		if (*tls13 || !read_number(&data, 2, &version) || data.left ||
		    version != TLS1_3_VERSION)
			return false;
		*tls13 = true;
	}
	return true;
}

static const char *suite_digest(uint16_t suite)
{
	switch (suite) {
	case 0x1301: /* TLS_AES_128_GCM_SHA256 */
	case 0x1303: /* TLS_CHACHA20_POLY1305_SHA256 */
		return "SHA2-256";
	case 0x1302: /* TLS_AES_256_GCM_SHA384 */
		return "SHA2-384";
	default:
		return NULL;
	}
}

/* RFC 8446 section 4.3.2. */
static bool read_request_13(struct reader *in, uint8_t fresh[FRESH_LEN])
{
	struct reader body, context, extensions, data;
	bool found = false;
	uint32_t type;

	if (!read_message(in, SSL3_MT_CERTIFICATE_REQUEST, &body) ||
	    !read_vector(&body, 1, &context) || context.left ||
	    !read_vector(&body, 2, &extensions) || body.left)
		return false;
	while (extensions.left) {
		if (!read_number(&extensions, 2, &type) || !read_vector(&extensions, 2, &data))
			return false;
		if (type != FRESH_EXTENSION)
			continue;
		if (found || data.left != FRESH_LEN)
			return false;
		memcpy(fresh, data.p, FRESH_LEN);
		found = true;
	}
	return true;
}

static bool read_server_flight(struct reader *in, struct transcript *t, struct reader *certificates)
{
	if (t->tls13)
		return skip_message(in, SSL3_MT_ENCRYPTED_EXTENSIONS) &&
		       read_request_13(in, t->fresh) &&
		       read_certificate_list(in, t->tls13, certificates) &&
		       skip_message(in, SSL3_MT_CERTIFICATE_VERIFY) &&
		       skip_message(in, SSL3_MT_FINISHED);

	if (!read_certificate_list(in, t->tls13, certificates))
		return false;
	if (in->left && in->p[0] == SSL3_MT_CERTIFICATE_STATUS &&
	    !skip_message(in, SSL3_MT_CERTIFICATE_STATUS))
		return false;
	/* Always a ServerKeyExchange: suites without forward secrecy are not ours. */
	return skip_message(in, SSL3_MT_SERVER_KEY_EXCHANGE) &&
	       skip_message(in, SSL3_MT_CERTIFICATE_REQUEST) &&
	       skip_message(in, SSL3_MT_SERVER_DONE);
}

/* Returns false if the list is malformed. */
static bool begins_with_ours(const struct transcript *t, struct reader list, bool *ours)
{
	uint8_t digest[TRANSCRIPT_SERVER_LEN];
	struct reader first, other;

	if (!read_certificate(&list, t->tls13, &first))
		return false;
	while (list.left)
		if (!read_certificate(&list, t->tls13, &other))
			return false;
	*ours = false;
	if (EVP_Digest(first.p, first.left, digest, NULL, EVP_sha256(), NULL) != 1)
		return true;
	for (size_t i = 0; i < t->n_servers && !*ours; i++)
		*ours = memcmp(digest, t->servers[i], sizeof(digest)) == 0;
	return true;
}

static enum transcript_error read_client_certificates(struct reader *in, bool tls13, X509 **leaf,
						      STACK_OF(X509) * untrusted)
{
	struct reader list, der;
	const uint8_t *p;
	unsigned n;

	if (!read_certificate_list(in, tls13, &list))
		return TRANSCRIPT_MALFORMED;
	if (!list.left)
		return TRANSCRIPT_NO_CERTIFICATE;
	if (list.left > VERIFY_BYTES_MAX)
		return TRANSCRIPT_TOO_MUCH;
	for (n = 0; list.left; n++) {
		scoped_x509 *cert = NULL;

		if (n == VERIFY_SENT_MAX)
			return TRANSCRIPT_TOO_MUCH;
		if (!read_certificate(&list, tls13, &der))
			return TRANSCRIPT_MALFORMED;
		p = der.p;
		cert = d2i_X509(NULL, &p, (long)der.left);
		if (!cert || p != der.p + der.left)
			return TRANSCRIPT_MALFORMED;
		if (!*leaf)
			*leaf = TAKE_PTR(cert);
		else if (sk_X509_push(untrusted, cert))
			TAKE_PTR(cert);
		else
			return TRANSCRIPT_MEMORY;
	}
	return TRANSCRIPT_OK;
}

static bool read_certificate_verify(struct reader *in, struct transcript *t)
{
	struct reader body;
	uint32_t scheme;

	if (!read_message(in, SSL3_MT_CERTIFICATE_VERIFY, &body) ||
	    !read_number(&body, 2, &scheme) || !read_vector(&body, 2, &t->signature) || body.left)
		return false;
	t->scheme = (uint16_t)scheme;
	return true;
}

static const struct scheme *find_scheme(const struct transcript *t)
{
	for (size_t i = 0; i < ARRAY_SIZE(schemes); i++)
		if (schemes[i].id == t->scheme)
			return t->tls13 && schemes[i].tls12_only ? NULL : &schemes[i];
	return NULL;
}

static bool key_fits(const struct scheme *s, bool tls13, EVP_PKEY *key)
{
	char group[64];

	if (!key || !EVP_PKEY_is_a(key, s->key))
		return false;
	if (!s->group || !tls13)
		return true;
	return EVP_PKEY_get_group_name(key, group, sizeof(group), NULL) == 1 &&
	       strcmp(group, s->group) == 0;
}

#define TLS13_CONTENT_MAX (64 + 34 + EVP_MAX_MD_SIZE)

static enum transcript_error check_signature(const struct transcript *t, EVP_PKEY *key)
{
	/* Of a size that takes no time to compute with; the chain's verification is stricter. */
	static const struct verify_policy any_size;
	const struct scheme *s = find_scheme(t);
	scoped_mdctx *ctx = NULL;
	EVP_PKEY_CTX *pctx;
	uint8_t content[TLS13_CONTENT_MAX];
	const uint8_t *signed_bytes = t->messages;
	size_t signed_len = t->signed_len;

	if (!s)
		return TRANSCRIPT_WEAK;
	if (!key_fits(s, t->tls13, key) || verify_rules_key(key, 0, &any_size) != X509_V_OK)
		return TRANSCRIPT_BAD_SIGNATURE;
	if (t->tls13) {
		if (!tls13_content(t, content, &signed_len))
			return TRANSCRIPT_MEMORY;
		signed_bytes = content;
	}
	ctx = EVP_MD_CTX_new();
	if (!ctx)
		return TRANSCRIPT_MEMORY;
	if (EVP_DigestVerifyInit_ex(ctx, &pctx, s->digest, NULL, NULL, key, NULL) != 1)
		return TRANSCRIPT_BAD_SIGNATURE;
	if (s->pss && (EVP_PKEY_CTX_set_rsa_padding(pctx, RSA_PKCS1_PSS_PADDING) != 1 ||
		       EVP_PKEY_CTX_set_rsa_pss_saltlen(pctx, RSA_PSS_SALTLEN_DIGEST) != 1))
		return TRANSCRIPT_BAD_SIGNATURE;
	if (EVP_DigestVerify(ctx, t->signature.p, t->signature.left, signed_bytes, signed_len) != 1)
		return TRANSCRIPT_BAD_SIGNATURE;
	return TRANSCRIPT_OK;
}

/* RFC 8446 section 4.4.3. */
static bool tls13_content(const struct transcript *t, uint8_t *content, size_t *len)
{
	static const char context[] =
		"TLS 1.3, client CertificateVerify"; /* the NUL is signed too */
	unsigned hash_len;

	_Static_assert(64 + sizeof(context) + EVP_MAX_MD_SIZE == TLS13_CONTENT_MAX, "content");
	memset(content, ' ', 64);
	memcpy(content + 64, context, sizeof(context));
	if (!transcript_hash(t, content + 64 + sizeof(context), &hash_len))
		return false;
	*len = 64 + sizeof(context) + hash_len;
	return true;
}

/* RFC 8446 section 4.4.1: after a HelloRetryRequest the first ClientHello counts as its hash. */
static bool transcript_hash(const struct transcript *t, uint8_t *out, unsigned *len)
{
	uint8_t message_hash[4 + EVP_MAX_MD_SIZE] = {SSL3_MT_MESSAGE_HASH};
	scoped_md *md = EVP_MD_fetch(NULL, t->digest, NULL);
	scoped_mdctx *ctx = EVP_MD_CTX_new();
	unsigned hello_len;

	if (!md || !ctx || EVP_DigestInit_ex(ctx, md, NULL) != 1)
		return false;
	if (t->hello1_len) {
		if (EVP_Digest(t->messages, t->hello1_len, message_hash + 4, &hello_len, md,
			       NULL) != 1)
			return false;
		message_hash[3] = (uint8_t)hello_len;
		if (EVP_DigestUpdate(ctx, message_hash, 4 + hello_len) != 1)
			return false;
	}
	return EVP_DigestUpdate(ctx, t->messages + t->hello1_len, t->signed_len - t->hello1_len) ==
		       1 &&
	       EVP_DigestFinal_ex(ctx, out, len) == 1;
}

static bool read_certificate_list(struct reader *in, bool tls13, struct reader *list)
{
	struct reader body, context;

	if (!read_message(in, SSL3_MT_CERTIFICATE, &body))
		return false;
	/* Only post-handshake authentication has a context. */
	if (tls13 && (!read_vector(&body, 1, &context) || context.left))
		return false;
	return read_vector(&body, 3, list) && !body.left;
}

static bool read_certificate(struct reader *list, bool tls13, struct reader *der)
{
	struct reader extensions;

	if (!read_vector(list, 3, der) || !der->left)
		return false;
	return !tls13 || read_vector(list, 2, &extensions);
}

static bool read_message(struct reader *in, uint8_t type, struct reader *body)
{
	uint32_t got;

	return read_number(in, 1, &got) && got == type && read_vector(in, 3, body);
}

static bool skip_message(struct reader *in, uint8_t type)
{
	struct reader body;

	return read_message(in, type, &body);
}

static bool read_number(struct reader *in, unsigned bytes, uint32_t *out)
{
	struct reader field;

	if (!read_bytes(in, bytes, &field))
		return false;
	*out = 0;
	for (unsigned i = 0; i < bytes; i++)
		*out = *out << 8 | field.p[i];
	return true;
}

static bool read_bytes(struct reader *in, size_t len, struct reader *out)
{
	if (in->left < len)
		return false;
	*out = (struct reader){in->p, len};
	in->p += len;
	in->left -= len;
	return true;
}

static bool read_vector(struct reader *in, unsigned len_bytes, struct reader *out)
{
	uint32_t len;

	return read_number(in, len_bytes, &len) && read_bytes(in, len, out);
}
