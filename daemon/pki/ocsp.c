// SPDX-License-Identifier: Apache-2.0
/* Builds OCSP requests and judges responses. Believes its caller that the issuer's certificate is
 * good. */
#include "pki/ocsp.h"

#include <errno.h>
#include <openssl/ocsp.h>
#include <openssl/x509v3.h>
#include "pki/identity.h"
#include "pki/verify.h"
#include "pki/verify_limits.h"
#include "pki/verify_rules.h"

#define SKEW	300  /* seconds that the responder's clock may be wrong */
#define UNDATED 60   /* seconds that a response without nextUpdate is relied upon */
#define LONGEST 3600 /* seconds that any is */

SCOPED_DEFINE(request, OCSP_REQUEST, OCSP_REQUEST_free)
#define scoped_request __attribute__((cleanup(scoped_request_free_))) OCSP_REQUEST

/* SHA-1 only names the issuer here, and is what every responder knows (RFC 5019 2.1.1). */
static OCSP_CERTID *id_of(X509 *cert, X509 *issuer)
{
	return OCSP_cert_to_id(EVP_sha1(), cert, issuer);
}

int ocsp_request(X509 *cert, X509 *issuer, uint8_t **der)
{
	scoped_request *request = OCSP_REQUEST_new();
	OCSP_CERTID *id = id_of(cert, issuer);
	int len;

	if (!request || !id || !OCSP_request_add0_id(request, id)) {
		OCSP_CERTID_free(id);
		return -ENOMEM;
	}
	*der = NULL;
	len = i2d_OCSP_REQUEST(request, der);
	return len > 0 ? len : -ENOMEM;
}

/* RFC 6960 4.2.2.2: issued by the CA in question itself, for this and nothing less. */
static const char *delegate_unfit(X509 *delegate, X509 *issuer, time_t now)
{
	struct verify_policy policy = VERIFY_POLICY_DEFAULT;

	if (X509_NAME_cmp(X509_get_issuer_name(delegate), X509_get_subject_name(issuer)) ||
	    X509_verify(delegate, X509_get0_pubkey(issuer)) != 1)
		return "is signed by somebody else";
	if (!(X509_get_extension_flags(delegate) & EXFLAG_XKUSAGE) ||
	    !(X509_get_extended_key_usage(delegate) & XKU_OCSP_SIGN) ||
	    !(X509_get_key_usage(delegate) & (KU_DIGITAL_SIGNATURE | KU_NON_REPUDIATION)))
		return "is signed with a certificate that is not for OCSP";
	if (X509_cmp_time(X509_get0_notBefore(delegate), &now) > 0 ||
	    X509_cmp_time(X509_get0_notAfter(delegate), &now) < 0)
		return "is signed with a certificate that has expired or is not yet valid";
	if (X509_get_extension_flags(delegate) & EXFLAG_CRITICAL ||
	    verify_rules_key(X509_get0_pubkey(delegate), 1, &policy) || verify_rules_form(delegate))
		return "is signed with a certificate that is refused";
	return NULL;
}

static const char *signature_unfit(OCSP_BASICRESP *basic, X509 *issuer, time_t now)
{
	STACK_OF(X509) *own = sk_X509_new_null();
	struct verify_excess excess;
	const char *unfit = NULL;
	X509 *signer = NULL;

	/* The issuer first: a certificate that came along cannot stand in for it. */
	if (!own || !sk_X509_push(own, issuer) || !OCSP_resp_get0_signer(basic, &signer, own))
		unfit = "names a responder whose certificate is not there";
	/* Before X509_cmp(), which makes OpenSSL look at every extension. */
	else if (signer != issuer && verify_limits_certificate(signer, &excess))
		unfit = "is signed with a certificate that holds too much";
	else if (X509_cmp(signer, issuer))
		unfit = delegate_unfit(signer, issuer, now);
	if (!unfit && !verify_rules_strong(OCSP_resp_get0_tbs_sigalg(basic)))
		unfit = "is signed with MD5 or SHA-1";
	if (!unfit) {
		(void)sk_X509_set(own, 0, signer);
		if (OCSP_basic_verify(basic, own, NULL, OCSP_TRUSTOTHER | OCSP_NOVERIFY) != 1)
			unfit = "has a wrong signature";
	}
	sk_X509_free(own);
	return unfit;
}

static const char *dates_unfit(const ASN1_GENERALIZEDTIME *this_update,
			       const ASN1_GENERALIZEDTIME *next_update, time_t now, time_t *until)
{
	time_t begin, end;

	if (identity_time(this_update, &begin) || begin > now + SKEW)
		return "is not yet valid";
	end = begin + SKEW;
	if (next_update && identity_time(next_update, &end))
		return "has a malformed date";
	if (end < now)
		return "is out of date";
	*until = next_update ? end : now + UNDATED;
	if (*until > now + LONGEST)
		*until = now + LONGEST;
	return NULL;
}

enum ocsp_verdict ocsp_judge(const uint8_t *der, size_t len, X509 *cert, X509 *issuer, time_t now,
			     time_t *until, const char **why)
{
	const unsigned char *p = der;
	scoped_response *response = d2i_OCSP_RESPONSE(NULL, &p, (long)len);
	scoped_basic *basic = response ? OCSP_response_get1_basic(response) : NULL;
	ASN1_GENERALIZEDTIME *this_update, *next_update;
	scoped_certid *id = id_of(cert, issuer);
	int status;

	*until = now;
	*why = "is malformed";
	if (!response || p != der + len || !id)
		return OCSP_NO_ANSWER;
	*why = "is an error";
	if (OCSP_response_status(response) != OCSP_RESPONSE_STATUS_SUCCESSFUL)
		return OCSP_NO_ANSWER;
	*why = "is malformed";
	if (!basic)
		return OCSP_NO_ANSWER;
	*why = signature_unfit(basic, issuer, now);
	if (*why)
		return OCSP_NO_ANSWER;
	*why = "is about another certificate";
	if (OCSP_resp_find_status(basic, id, &status, NULL, NULL, &this_update, &next_update) != 1)
		return OCSP_NO_ANSWER;
	*why = dates_unfit(this_update, next_update, now, until);
	if (*why)
		return OCSP_NO_ANSWER;
	*why = "says that the certificate is unknown";
	if (status == V_OCSP_CERTSTATUS_REVOKED)
		return OCSP_REVOKED;
	return status == V_OCSP_CERTSTATUS_GOOD ? OCSP_GOOD : OCSP_NO_ANSWER;
}
