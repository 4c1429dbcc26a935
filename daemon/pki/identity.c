// SPDX-License-Identifier: Apache-2.0
/*
 * Reads out of a verified chain what later stages need: fingerprint, validity
 * and a printable name. Knows nothing of how the chain was verified.
 */
#include "pki/identity.h"

#include <errno.h>
#include <string.h>

/* Narrows id's validity: the leaf's beginning, the earliest end of the chain. */
static int identity_validity(struct identity *id)
{
	time_t end;

	if (identity_time(X509_get0_notBefore(id->leaf), &id->not_before) ||
	    identity_time(X509_get0_notAfter(id->leaf), &id->not_after))
		return -EINVAL;
	for (int i = 1; i < sk_X509_num(id->chain); i++) {
		if (identity_time(X509_get0_notAfter(sk_X509_value(id->chain, i)), &end))
			return -EINVAL;
		if (end < id->not_after)
			id->not_after = end;
	}
	return 0;
}

struct identity *identity_new(STACK_OF(X509) * chain)
{
	scoped_mem struct identity *id = calloc(1, sizeof(*id));

	if (!id || sk_X509_num(chain) < 1)
		return NULL;
	id->chain = chain;
	id->leaf = sk_X509_value(chain, 0);
	if (identity_validity(id) || identity_fingerprint(id->leaf, id->fingerprint))
		return NULL;
	identity_subject(X509_get_subject_name(id->leaf), id->subject, sizeof(id->subject));
	return TAKE_PTR(id);
}

void identity_free(struct identity *id)
{
	if (!id)
		return;
	sk_X509_pop_free(id->chain, X509_free);
	free(id);
}

int identity_time(const ASN1_TIME *t, time_t *out)
{
	struct tm tm;

	/* ASN1_TIME_to_tm(NULL) would be the current time. */
	if (!t || ASN1_TIME_to_tm(t, &tm) != 1)
		return -EINVAL;
	*out = timegm(&tm);
	return 0;
}

int identity_fingerprint(X509 *cert, uint8_t out[FINGERPRINT_LEN])
{
	return X509_digest(cert, EVP_sha256(), out, NULL) == 1 ? 0 : -ENOMEM;
}

int identity_chain_digest(const struct identity *id, uint8_t out[FINGERPRINT_LEN])
{
	scoped_mdctx *md = EVP_MD_CTX_new();
	uint8_t print[FINGERPRINT_LEN];

	if (!md || !EVP_DigestInit_ex(md, EVP_sha256(), NULL))
		return -ENOMEM;
	for (int i = 0; i < sk_X509_num(id->chain); i++) {
		if (identity_fingerprint(sk_X509_value(id->chain, i), print) ||
		    !EVP_DigestUpdate(md, print, sizeof(print)))
			return -ENOMEM;
	}
	return EVP_DigestFinal_ex(md, out, NULL) ? 0 : -ENOMEM;
}

void identity_hex(const uint8_t *in, size_t n, char *out)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < n; i++) {
		*out++ = digits[in[i] >> 4];
		*out++ = digits[in[i] & 15];
	}
	*out = '\0';
}

void identity_subject(const X509_NAME *name, char *out, size_t len)
{
	scoped_bio *bio = BIO_new(BIO_s_mem());
	char *text;
	size_t n;

	if (!len)
		return;
	out[0] = '\0';
	/* XN_FLAG_RFC2253 escapes control bytes and everything beyond ASCII. */
	if (!bio || X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253) < 0)
		return;
	n = (size_t)BIO_get_mem_data(bio, &text);
	if (n >= len)
		n = len - 1;
	if (n)
		memcpy(out, text, n);
	out[n] = '\0';
}
