// SPDX-License-Identifier: Apache-2.0
/* Reads and checks an OCSP response from a file. Knows no configuration and asks nobody. */
#include "pki/staple.h"

#include <errno.h>
#include <string.h>
#include <openssl/err.h>
#include <openssl/ocsp.h>
#include "pki/identity.h"

#define TOO_LARGE "is too large; use at most %d bytes"
#define SKEW	  300 /* seconds a responder's clock may be ahead of ours */

static int printf_like(3, 4) wrong(char *why, size_t len, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, len, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

static int read_der(const char *path, struct staple *out, char *why, size_t why_len)
{
	scoped_file *f = fopen(path, "re");

	if (!f)
		return wrong(why, why_len, "cannot be opened: %s; give a DER file that we may read",
			     strerror(errno));
	out->der = malloc(STAPLE_MAX + 1);
	if (!out->der)
		return wrong(why, why_len, "out of memory");
	out->len = fread(out->der, 1, STAPLE_MAX + 1, f);
	if (ferror(f))
		return wrong(why, why_len, "cannot be read: %s; give a DER file that we may read",
			     strerror(errno));
	if (out->len > STAPLE_MAX)
		return wrong(why, why_len, TOO_LARGE, STAPLE_MAX);
	return 0;
}

/* The answer about cert, whatever digest names it; NULL: there is none. */
static OCSP_SINGLERESP *answer_about(OCSP_BASICRESP *basic, X509 *cert, X509 *issuer)
{
	for (int i = 0; i < OCSP_resp_count(basic); i++) {
		OCSP_SINGLERESP *single = OCSP_resp_get0(basic, i);
		OCSP_CERTID *named = (OCSP_CERTID *)OCSP_SINGLERESP_get0_id(single);
		scoped_certid *ours = NULL;
		ASN1_OBJECT *digest;
		const EVP_MD *md;

		if (!OCSP_id_get0_info(NULL, &digest, NULL, NULL, named))
			continue;
		md = EVP_get_digestbyobj(digest);
		ours = md ? OCSP_cert_to_id(md, cert, issuer) : NULL;
		if (ours && !OCSP_id_cmp(ours, named))
			return single;
	}
	return NULL;
}

/* Signed by the issuer or by whom the issuer let sign: what a client will ask for. */
static bool signed_by(OCSP_BASICRESP *basic, X509 *issuer, STACK_OF(X509) * chain)
{
	scoped_store *store = X509_STORE_new();

	return store && X509_STORE_add_cert(store, issuer) &&
	       X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN) &&
	       OCSP_basic_verify(basic, chain, store, 0) == 1;
}

static int check_answer(OCSP_SINGLERESP *single, time_t now, struct staple *out, char *why,
			size_t why_len)
{
	ASN1_GENERALIZEDTIME *this_update, *next_update;
	int status = OCSP_single_get0_status(single, NULL, NULL, &this_update, &next_update);
	time_t from;

	if (status != V_OCSP_CERTSTATUS_GOOD)
		return wrong(why, why_len,
			     "says that the certificate is %s; use one that says it is good",
			     status == V_OCSP_CERTSTATUS_REVOKED ? "revoked" : "unknown");
	if (identity_time(this_update, &from) ||
	    (next_update && identity_time(next_update, &out->expires)))
		return wrong(why, why_len, "has no readable date; ask the responder again");
	if (from > now + SKEW)
		return wrong(why, why_len, "is from the future; look at the clock");
	return 0;
}

static int check(const struct staple *s, X509 *cert, STACK_OF(X509) * chain, time_t now,
		 struct staple *out, char *why, size_t why_len)
{
	const uint8_t *p = s->der;
	scoped_response *response = d2i_OCSP_RESPONSE(NULL, &p, (long)s->len);
	scoped_basic *basic = NULL;
	X509 *issuer = sk_X509_num(chain) ? sk_X509_value(chain, 0) : NULL;
	OCSP_SINGLERESP *single;

	if (!response || p != s->der + s->len)
		return wrong(why, why_len,
			     "is no OCSP response in DER; fetch one with `openssl ocsp -respout`");
	if (OCSP_response_status(response) != OCSP_RESPONSE_STATUS_SUCCESSFUL)
		return wrong(why, why_len,
			     "holds no answer, but the error %s; ask the responder again",
			     OCSP_response_status_str(OCSP_response_status(response)));
	basic = OCSP_response_get1_basic(response);
	if (!basic)
		return wrong(why, why_len, "has no basic response; use one of RFC 6960");
	if (!issuer || X509_check_issued(issuer, cert) != X509_V_OK)
		return wrong(why, why_len,
			     "cannot be checked: the certificate's issuer is missing; put it "
			     "behind the certificate in certkey.<name>.cert");
	single = answer_about(basic, cert, issuer);
	if (!single)
		return wrong(why, why_len,
			     "is about another certificate; use the one for this certificate");
	if (!signed_by(basic, issuer, chain))
		return wrong(
			why, why_len,
			"is not signed by the certificate's issuer, nor by a responder of its; "
			"use one that is");
	return check_answer(single, now, out, why, why_len);
}

/* What is in out; freed if it is wrong. */
static int accept(int ret, X509 *cert, STACK_OF(X509) * chain, time_t now, struct staple *out,
		  char *why, size_t why_len)
{
	ERR_set_mark();
	if (!ret)
		ret = check(out, cert, chain, now, out, why, why_len);
	ERR_pop_to_mark();
	if (ret)
		staple_free(out);
	return ret;
}

int staple_load(const char *path, X509 *cert, STACK_OF(X509) * chain, time_t now,
		struct staple *out, char *why, size_t why_len)
{
	*out = (struct staple){0};
	return accept(read_der(path, out, why, why_len), cert, chain, now, out, why, why_len);
}

int staple_parse(const void *der, size_t len, X509 *cert, STACK_OF(X509) * chain, time_t now,
		 struct staple *out, char *why, size_t why_len)
{
	*out = (struct staple){0};
	if (len > STAPLE_MAX)
		return wrong(why, why_len, TOO_LARGE, STAPLE_MAX);
	out->der = malloc(len);
	if (!out->der)
		return wrong(why, why_len, "out of memory");
	memcpy(out->der, der, len);
	out->len = len;
	return accept(0, cert, chain, now, out, why, why_len);
}

void staple_free(struct staple *s)
{
	free(s->der);
	*s = (struct staple){0};
}
