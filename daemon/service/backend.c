/* SPDX-License-Identifier: Apache-2.0 */
/* Client-side SSL_CTX of a service and the verification of backends. Knows no client. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <time.h>
#include <openssl/x509v3.h>
#include "service/backend.h"
#include "base/log.h"
#include "pki/verify.h"

/* The name that back_expect_name() set; RFC 9525: names are in the SAN, a wildcard is a whole
 * label. */
static int name_error(X509_STORE_CTX *ctx)
{
	X509_VERIFY_PARAM *param = X509_STORE_CTX_get0_param(ctx);
	X509 *leaf = X509_STORE_CTX_get0_cert(ctx);
	const char *name = X509_VERIFY_PARAM_get0_host(param, 0);
	char *address = X509_VERIFY_PARAM_get1_ip_asc(param);
	unsigned flags = X509_CHECK_FLAG_NEVER_CHECK_SUBJECT | X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS;
	int error = X509_V_OK;

	if (address && X509_check_ip_asc(leaf, address, flags) != 1)
		error = X509_V_ERR_IP_ADDRESS_MISMATCH;
	else if (!address && (!name || X509_check_host(leaf, name, 0, flags, NULL) != 1))
		error = X509_V_ERR_HOSTNAME_MISMATCH;
	OPENSSL_free(address);
	return error;
}

static int verify_cb(X509_STORE_CTX *ctx, void *arg)
{
	const struct back *back = arg;
	struct verify_result result;
	int ret = verify_chain(back->verifier, VERIFY_SERVER, X509_STORE_CTX_get0_cert(ctx),
			       X509_STORE_CTX_get0_untrusted(ctx), time(NULL), &result);

	if (!ret)
		result.error = name_error(ctx);
	handshake_verdict(ctx, &result);
	X509_STORE_CTX_set0_verified_chain(ctx, result.chain);
	return result.error == X509_V_OK;
}

int back_init(struct back *back, const struct cfg_service *service)
{
	const struct cfg_profile *profile = service->profile;
	struct verify_policy policy = config_policy(profile, &profile->server_revocation);

	back->service = service;
	back->ctx = handshake_ctx_new(false, profile);
	back->verifier = verifier_new(profile->server_ca, &policy);
	if (!back->ctx || !back->verifier) {
		log_error("service %s: out of memory", service->name);
		return -ENOMEM;
	}
	/* The sessions themselves are in a cache of ours: see reuse.h. */
	if (profile->session_reuse)
		SSL_CTX_clear_options(back->ctx, SSL_OP_NO_TICKET);
	SSL_CTX_set_verify(back->ctx, SSL_VERIFY_PEER, NULL);
	SSL_CTX_set_cert_verify_callback(back->ctx, verify_cb, back);
	/* Judged by the flow, which can wait for an answer. */
	if (profile->server_ocsp != REVOCATION_OFF)
		SSL_CTX_set_tlsext_status_type(back->ctx, TLSEXT_STATUSTYPE_ocsp);
	return 0;
}

void back_free(struct back *back)
{
	SSL_CTX_free(back->ctx);
	verifier_free(back->verifier);
	back->ctx = NULL;
	back->verifier = NULL;
}

int back_socket(sa_family_t family)
{
	scoped_fd fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	return TAKE_FD(fd);
}

bool back_error_is_ours(int error)
{
	switch (error) {
	case EADDRNOTAVAIL: /* every local port is in use */
	case EMFILE:
	case ENFILE:
	case ENOBUFS:
	case ENOMEM:
		return true;
	default:
		return false;
	}
}

static bool is_address(const char *name)
{
	uint8_t addr[16];

	return inet_pton(AF_INET, name, addr) == 1 || inet_pton(AF_INET6, name, addr) == 1;
}

/* What the backend is asked for does not change who it must be. */
int back_expect_name(const struct back *back, SSL *ssl, const char *client_name)
{
	const char *name = back->service->server_name, *asked = name;

	if (back->service->sni == SNI_MIRROR && client_name[0])
		asked = client_name;
	/* RFC 6066 3: an address is no server name. */
	if (!is_address(asked) && !SSL_set_tlsext_host_name(ssl, asked))
		return -ENOMEM;
	if (is_address(name))
		return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name) ? 0 : -ENOMEM;
	return SSL_set1_host(ssl, name) ? 0 : -ENOMEM;
}

int back_offer(SSL *ssl, const uint8_t *list, size_t len)
{
	return !len || !SSL_set_alpn_protos(ssl, list, (unsigned)len) ? 0 : -ENOMEM;
}

bool backend_alert_is_refusal(int alert)
{
	switch (alert) {
	case ALERT_BAD_CERTIFICATE:
	case ALERT_UNSUPPORTED_CERTIFICATE:
	case ALERT_CERTIFICATE_REVOKED:
	case ALERT_CERTIFICATE_EXPIRED:
	case ALERT_CERTIFICATE_UNKNOWN:
	case ALERT_UNKNOWN_CA:
	case ALERT_ACCESS_DENIED:
	case ALERT_CERTIFICATE_REQUIRED:
		return true;
	default:
		return false;
	}
}

static enum reason verify_reason(int error)
{
	switch (error) {
	case X509_V_ERR_HOSTNAME_MISMATCH:
	case X509_V_ERR_IP_ADDRESS_MISMATCH:
		return REASON_backend_cert_name;
	case X509_V_ERR_CERT_HAS_EXPIRED:
	case X509_V_ERR_CERT_NOT_YET_VALID:
		return REASON_backend_cert_expired;
	case X509_V_ERR_CERT_REVOKED:
		return REASON_backend_cert_revoked;
	case VERIFY_ERR_CRL_MISSING:
	case VERIFY_ERR_CRL_INVALID:
		return REASON_backend_crl_missing;
	case VERIFY_ERR_CRL_EXPIRED:
		return REASON_backend_crl_expired;
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
	case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
	case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
	case X509_V_ERR_CERT_UNTRUSTED:
		return REASON_backend_cert_untrusted;
	default:
		return REASON_backend_cert_invalid;
	}
}

static enum reason alert_reason(const struct handshake *hs, bool presented)
{
	switch (hs->alert) {
	case ALERT_PROTOCOL_VERSION:
		return REASON_backend_version;
	case ALERT_NO_APPLICATION_PROTOCOL:
		return REASON_backend_alpn;
	case ALERT_UNRECOGNIZED_NAME:
		return REASON_backend_server_name;
	case ALERT_HANDSHAKE_FAILURE:
	case ALERT_INSUFFICIENT_SECURITY:
		/* In place of a ServerHello (RFC 8446 4.1.1); later it is about something else. */
		return hs->last_received ? REASON_backend_refused : REASON_backend_cipher;
	default:
		return presented && backend_alert_is_refusal(hs->alert)
			       ? REASON_backend_refused_certificate
			       : REASON_backend_refused;
	}
}

enum reason backend_failure(const struct handshake *hs, bool presented)
{
	switch (hs->failure) {
	case HANDSHAKE_EOF:
	case HANDSHAKE_RESET:
		return REASON_backend_gone;
	case HANDSHAKE_NOT_TLS:
		return REASON_backend_not_tls;
	case HANDSHAKE_PEER_ALERT:
		return alert_reason(hs, presented);
	case HANDSHAKE_VERIFY:
		return verify_reason(hs->error);
	case HANDSHAKE_VERSION:
		return REASON_backend_version;
	case HANDSHAKE_CIPHER:
		return REASON_backend_cipher;
	case HANDSHAKE_NO_MEMORY:
		return REASON_no_memory;
	default:
		return REASON_backend_protocol;
	}
}
