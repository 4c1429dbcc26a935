// SPDX-License-Identifier: Apache-2.0
/* Counts what certificates hold. Knows DER and a table of limits, and no rule on what is in there.
 */
#include "pki/verify_limits.h"

#include <stdint.h>
#include <openssl/x509v3.h>

/*
 * Elements of an extension's value, at so many levels below its outermost SEQUENCE. The numbers are
 * several times what certificates in use have.
 */
static const struct limit {
	int nid, level;
	int error;
	unsigned max;
} limits[] = {
	{NID_subject_alt_name, 1, VERIFY_ERR_NAMES, VERIFY_NAMES_MAX},
	{NID_issuer_alt_name, 1, VERIFY_ERR_NAMES, VERIFY_NAMES_MAX},
	{NID_ext_key_usage, 1, VERIFY_ERR_PURPOSES, VERIFY_PURPOSES_MAX},
	{NID_certificate_policies, 1, VERIFY_ERR_POLICIES, VERIFY_POLICIES_MAX},
	{NID_policy_mappings, 1, VERIFY_ERR_POLICIES, VERIFY_POLICIES_MAX},
	{NID_crl_distribution_points, 1, VERIFY_ERR_POINTS, VERIFY_POINTS_MAX},
	{NID_freshest_crl, 1, VERIFY_ERR_POINTS, VERIFY_POINTS_MAX},
	{NID_name_constraints, 2, VERIFY_ERR_CONSTRAINTS, VERIFY_CONSTRAINTS_MAX},
	{NID_sbgp_ipAddrBlock, 3, VERIFY_ERR_RESOURCES, VERIFY_RESOURCES_MAX},
	{NID_sbgp_autonomousSysNum, 3, VERIFY_ERR_RESOURCES, VERIFY_RESOURCES_MAX},
};

/* What the numbers are of, as it stands behind them. */
static const struct {
	int error;
	const char *of, *text;
} texts[] = {
	{VERIFY_ERR_CERTIFICATES, "certificates", "too many certificates were sent"},
	{VERIFY_ERR_BYTES, "bytes of certificates", "the certificates that were sent are too long"},
	{VERIFY_ERR_EXTENSIONS, "extensions", "certificate has too many extensions"},
	{VERIFY_ERR_NAMES, "alternative names", "certificate has too many alternative names"},
	{VERIFY_ERR_RDNS, "attributes in a distinguished name",
	 "certificate has a distinguished name of too many attributes"},
	{VERIFY_ERR_PURPOSES, "extended key usages",
	 "certificate has too many extended key usages"},
	{VERIFY_ERR_POLICIES, "certificate policies",
	 "certificate has too many policies or policy mappings"},
	{VERIFY_ERR_POINTS, "CRL distribution points",
	 "certificate has too many CRL distribution points"},
	{VERIFY_ERR_COPIES, "CRL distribution points times attributes of the issuers' names",
	 "too many CRL distribution points of too long an issuer's name"},
	{VERIFY_ERR_CONSTRAINTS, "name constraints", "certificate has too many name constraints"},
	{VERIFY_ERR_RESOURCES, "IP address and AS resources",
	 "certificate has too many IP address and AS resources"},
	{VERIFY_ERR_COMPARISONS, "comparisons of names with name constraints",
	 "too many names under too many name constraints"},
};

/* ---- counting ---- */

/*
 * The elements at level below der[0..len). What is no DER ends the count: OpenSSL reads no further
 * either. It does read indefinite lengths, whose contents are taken to go on to the end.
 */
static unsigned count_elements(const uint8_t *der, long len, int level)
{
	const uint8_t *end = der + len;
	unsigned n = 0;

	while (der < end) {
		int tag, class, flags;
		long inner;

		flags = ASN1_get_object(&der, &inner, &tag, &class, end - der);
		if (flags & 0x80)
			break;
		if (flags & 1)
			inner = end - der;
		if (!level)
			n++;
		else if (flags & V_ASN1_CONSTRUCTED)
			n += count_elements(der, inner, level - 1);
		der += inner;
	}
	return n;
}

static unsigned count_in(X509_EXTENSION *ext, int level)
{
	const ASN1_OCTET_STRING *value = X509_EXTENSION_get_data(ext);

	return count_elements(ASN1_STRING_get0_data(value), ASN1_STRING_length(value), level);
}

/* All of that kind: one that occurs twice is refused only later. */
static unsigned count_by_nid(const X509 *cert, int nid, int level)
{
	unsigned n = 0;

	for (int i = -1; (i = X509_get_ext_by_NID(cert, nid, i)) >= 0;)
		n += count_in(X509_get_ext(cert, i), level);
	return n;
}

static unsigned rdns(const X509 *cert)
{
	int subject = X509_NAME_entry_count(X509_get_subject_name(cert));
	int issuer = X509_NAME_entry_count(X509_get_issuer_name(cert));

	return (unsigned)(subject > issuer ? subject : issuer);
}

unsigned verify_limits_names(const X509 *cert)
{
	/* A subject counts once, each address in it (PKCS #9) too. */
	return 1 + (unsigned)X509_NAME_entry_count(X509_get_subject_name(cert)) +
	       count_by_nid(cert, NID_subject_alt_name, 1);
}

unsigned verify_limits_constraints(const X509 *cert)
{
	return count_by_nid(cert, NID_name_constraints, 2);
}

/* ---- judging ---- */

static int judge(int error, size_t n, unsigned max, struct verify_excess *excess)
{
	if (n <= max)
		return X509_V_OK;
	*excess = (struct verify_excess){(unsigned)n, max};
	return error;
}

static int extension_error(X509_EXTENSION *ext, struct verify_excess *excess)
{
	int nid = OBJ_obj2nid(X509_EXTENSION_get_object(ext));

	for (size_t i = 0; nid != NID_undef && i < ARRAY_SIZE(limits); i++)
		if (limits[i].nid == nid)
			return judge(limits[i].error, count_in(ext, limits[i].level), limits[i].max,
				     excess);
	return X509_V_OK;
}

int verify_limits_certificate(const X509 *cert, struct verify_excess *excess)
{
	int n = X509_get_ext_count(cert);
	int error = judge(VERIFY_ERR_EXTENSIONS, (size_t)n, VERIFY_EXTENSIONS_MAX, excess);

	if (error == X509_V_OK)
		error = judge(VERIFY_ERR_RDNS, rdns(cert), VERIFY_RDNS_MAX, excess);
	for (int i = 0; error == X509_V_OK && i < n; i++)
		error = extension_error(X509_get_ext(cert, i), excess);
	return error;
}

/*
 * Of a point that is named relative to the issuer OpenSSL makes the whole name as soon as it looks
 * at any extension: 1500 points below 1500 attributes take five seconds.
 */
static size_t copies(const X509 *cert)
{
	size_t points = count_by_nid(cert, NID_crl_distribution_points, 1) +
			count_by_nid(cert, NID_freshest_crl, 1);

	return points * (size_t)X509_NAME_entry_count(X509_get_issuer_name(cert));
}

static size_t encoded_len(X509 *cert)
{
	int len = i2d_X509(cert, NULL);

	return len > 0 ? (size_t)len : 0;
}

/* All that was sent as one: how many, how long, and what must be added up. */
static int sum_error(X509 *leaf, const STACK_OF(X509) * sent, struct verify_excess *excess)
{
	int n = sent ? sk_X509_num(sent) : 0;
	int error = judge(VERIFY_ERR_CERTIFICATES, (size_t)n, VERIFY_SENT_MAX, excess);
	size_t bytes = encoded_len(leaf), copied = copies(leaf);

	for (int i = 0; error == X509_V_OK && i < n; i++) {
		X509 *cert = sk_X509_value(sent, i);

		bytes += cert == leaf ? 0 : encoded_len(cert);
		copied += cert == leaf ? 0 : copies(cert);
	}
	if (error == X509_V_OK)
		error = judge(VERIFY_ERR_BYTES, bytes, VERIFY_BYTES_MAX, excess);
	return error == X509_V_OK ? judge(VERIFY_ERR_COPIES, copied, VERIFY_COPIES_MAX, excess)
				  : error;
}

static bool is_too_much(X509 *cert, int depth, struct verify_result *out)
{
	out->error = verify_limits_certificate(cert, &out->excess);
	if (out->error == X509_V_OK)
		return false;
	out->at = cert;
	out->depth = depth;
	return true;
}

void verify_limits_sent(X509 *leaf, const STACK_OF(X509) * sent, struct verify_result *out)
{
	int n = sent ? sk_X509_num(sent) : 0;
	int first = n && sk_X509_value(sent, 0) == leaf ? 0 : 1;

	out->error = sum_error(leaf, sent, &out->excess);
	if (out->error != X509_V_OK || is_too_much(leaf, 0, out))
		return;
	for (int i = 0; i < n; i++)
		if (is_too_much(sk_X509_value(sent, i), first + i, out))
			return;
}

/* ---- saying ---- */

void verify_limits_text(int error, const struct verify_excess *excess, char *buf, size_t len)
{
	const char *of = "";

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		if (texts[i].error == error)
			of = texts[i].of;
	snprintf(buf, len, "%u %s, at most %u", excess->n, of, excess->max);
}

const char *verify_limits_error_text(int error)
{
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		if (texts[i].error == error)
			return texts[i].text;
	return NULL;
}
