// SPDX-License-Identifier: Apache-2.0
/*
 * Writes the extensions of a forged certificate, each by its rule. Decides
 * nothing about the original but what of it may be passed on.
 */
#include "forge/forge_extensions.h"

#include <string.h>
#include <strings.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>

#define KEY_ID_LEN 20

SCOPED_DEFINE(bcons, BASIC_CONSTRAINTS, BASIC_CONSTRAINTS_free)
SCOPED_DEFINE(eku, EXTENDED_KEY_USAGE, EXTENDED_KEY_USAGE_free)
SCOPED_DEFINE(akid, AUTHORITY_KEYID, AUTHORITY_KEYID_free)
SCOPED_DEFINE(octets, ASN1_OCTET_STRING, ASN1_OCTET_STRING_free)
SCOPED_DEFINE(bits, ASN1_BIT_STRING, ASN1_BIT_STRING_free)
SCOPED_DEFINE(policies, CERTIFICATEPOLICIES, CERTIFICATEPOLICIES_free)
SCOPED_DEFINE(aia, AUTHORITY_INFO_ACCESS, AUTHORITY_INFO_ACCESS_free)
SCOPED_DEFINE(points, CRL_DIST_POINTS, CRL_DIST_POINTS_free)
SCOPED_DEFINE(extension, X509_EXTENSION, X509_EXTENSION_free)

#define scoped_bcons	 __attribute__((cleanup(scoped_bcons_free_))) BASIC_CONSTRAINTS
#define scoped_eku	 __attribute__((cleanup(scoped_eku_free_))) EXTENDED_KEY_USAGE
#define scoped_akid	 __attribute__((cleanup(scoped_akid_free_))) AUTHORITY_KEYID
#define scoped_octets	 __attribute__((cleanup(scoped_octets_free_))) ASN1_OCTET_STRING
#define scoped_bits	 __attribute__((cleanup(scoped_bits_free_))) ASN1_BIT_STRING
#define scoped_policies	 __attribute__((cleanup(scoped_policies_free_))) CERTIFICATEPOLICIES
#define scoped_aia	 __attribute__((cleanup(scoped_aia_free_))) AUTHORITY_INFO_ACCESS
#define scoped_points	 __attribute__((cleanup(scoped_points_free_))) CRL_DIST_POINTS
#define scoped_extension __attribute__((cleanup(scoped_extension_free_))) X509_EXTENSION

static X509_EXTENSION *find(const X509 *cert, const ASN1_OBJECT *oid)
{
	int at = X509_get_ext_by_OBJ(cert, oid, -1);

	return at < 0 ? NULL : X509_get_ext(cert, at);
}

static X509_EXTENSION *find_nid(const X509 *cert, int nid)
{
	int at = X509_get_ext_by_NID(cert, nid, -1);

	return at < 0 ? NULL : X509_get_ext(cert, at);
}

X509_EXTENSION *forge_find_san(const X509 *cert)
{
	return find_nid(cert, NID_subject_alt_name);
}

/* ---- rules 6 to 8: what a subjectAltName may hold ---- */

static bool has_prefix(const char *uri, size_t len, const char *prefix)
{
	size_t n = strlen(prefix);

	return len >= n && !strncasecmp(uri, prefix, n);
}

/* No control bytes, least of all NUL: readers disagree on where such a name ends. */
static bool text_clean(const char *s, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)s[i] < 0x20 || s[i] == 0x7f)
			return false;
	return len > 0;
}

/* SPIFFE-ID 2.2: segments of letters, digits and .-_, none empty, none of them . or .. */
static bool spiffe_path_valid(const char *p, const char *end)
{
	while (p < end) {
		const char *segment = ++p; /* behind the '/' */

		while (p < end && *p != '/') {
			if (!memchr("-._0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvw"
				    "xyz",
				    *p, 65))
				return false;
			p++;
		}
		if (p == segment || (p - segment == 1 && *segment == '.') ||
		    (p - segment == 2 && !memcmp(segment, "..", 2)))
			return false;
	}
	return true;
}

#define SPIFFE	   "spiffe://"
#define SPIFFE_MAX 2048

/* Rule 7. An identity names a workload: a path is needed (X509-SVID, 5.2). */
static bool spiffe_trusted(const char *uri, size_t len, const struct forge_rules *rules)
{
	const char *domain = uri + strlen(SPIFFE), *end = uri + len, *slash;

	if (len <= strlen(SPIFFE) || len > SPIFFE_MAX || memcmp(uri, SPIFFE, strlen(SPIFFE)) != 0)
		return false;
	slash = memchr(domain, '/', (size_t)(end - domain));
	return slash && forge_trusts_domain(rules, domain, (size_t)(slash - domain)) &&
	       spiffe_path_valid(slash, end);
}

#define SID_TAG "tag:microsoft.com,2022-09-14:sid:"

static bool uri_copyable(const char *uri, size_t len, const struct forge_rules *rules,
			 bool sid_trusted)
{
	if (memchr(uri, ' ', len))
		return false;
	if (has_prefix(uri, len, "spiffe:"))
		return spiffe_trusted(uri, len, rules);
	return sid_trusted || !has_prefix(uri, len, SID_TAG);
}

static bool general_name_copyable(const GENERAL_NAME *name, const struct forge_rules *rules,
				  bool sid_trusted)
{
	const ASN1_IA5STRING *ia5 = name->d.ia5;
	const char *text;
	size_t len;

	if (name->type == GEN_OTHERNAME)
		return sid_trusted || !forge_has_oid(name->d.otherName->type_id, FORGE_OID_SAN_SID);
	if (name->type != GEN_URI && name->type != GEN_DNS && name->type != GEN_EMAIL)
		return true;
	text = (const char *)ASN1_STRING_get0_data(ia5);
	len = (size_t)ASN1_STRING_length(ia5);
	if (!text_clean(text, len))
		return false;
	return name->type != GEN_URI || uri_copyable(text, len, rules, sid_trusted);
}

/* Rule 7: an X509-SVID holds exactly one URI (X509-SVID, 2). */
static bool uris_copyable(const GENERAL_NAMES *names)
{
	bool spiffe = false;
	int uris = 0;

	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);

		if (name->type != GEN_URI)
			continue;
		uris++;
		spiffe |= has_prefix((const char *)ASN1_STRING_get0_data(name->d.ia5),
				     (size_t)ASN1_STRING_length(name->d.ia5), "spiffe:");
	}
	return !spiffe || uris == 1;
}

bool forge_san_copyable(const X509_EXTENSION *san, const struct forge_rules *rules,
			bool sid_trusted)
{
	const ASN1_OCTET_STRING *value = X509_EXTENSION_get_data((X509_EXTENSION *)san);
	const unsigned char *p = ASN1_STRING_get0_data(value);
	const unsigned char *end = p + ASN1_STRING_length(value);
	scoped_names *names = d2i_GENERAL_NAMES(NULL, &p, end - p);

	if (!names || p != end || !sk_GENERAL_NAME_num(names))
		return false;
	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++)
		if (!general_name_copyable(sk_GENERAL_NAME_value(names, i), rules, sid_trusted))
			return false;
	return uris_copyable(names);
}

/* By name and key: an authority's certificate may have been renewed. */
bool forge_sid_trusted(const struct forge_rules *rules, const struct identity *id)
{
	X509 *issuer = sk_X509_num(id->chain) > 1 ? sk_X509_value(id->chain, 1) : NULL;

	for (int i = 0; issuer && rules->sid_issuers && i < sk_X509_num(rules->sid_issuers); i++) {
		X509 *named = sk_X509_value(rules->sid_issuers, i);

		if (!X509_NAME_cmp(X509_get_subject_name(named), X509_get_subject_name(issuer)) &&
		    EVP_PKEY_eq(X509_get0_pubkey(named), X509_get0_pubkey(issuer)) == 1)
			return true;
	}
	ERR_clear_error();
	return false;
}

/* ---- those written anew ---- */

static bool add_extension(X509 *cert, int nid, void *value, bool critical)
{
	return X509_add1_ext_i2d(cert, nid, value, critical, X509V3_ADD_APPEND) == 1;
}

/* Rule 11 */
static bool add_basic_constraints(X509 *cert)
{
	scoped_bcons *bcons = BASIC_CONSTRAINTS_new(); /* CA:FALSE is the default */

	return bcons && add_extension(cert, NID_basic_constraints, bcons, true);
}

/* Rule 10 */
static bool add_key_usage(X509 *cert, X509 *leaf)
{
	scoped_bits *usage = ASN1_BIT_STRING_new();
	bool encipher = EVP_PKEY_is_a(X509_get0_pubkey(cert), "RSA") &&
			X509_get_extension_flags(leaf) & EXFLAG_KUSAGE &&
			X509_get_key_usage(leaf) & KU_KEY_ENCIPHERMENT;

	/* RFC 5280 section 4.2.1.3: bit 0 is digitalSignature, bit 2 keyEncipherment. */
	if (!usage || !ASN1_BIT_STRING_set_bit(usage, 0, 1) ||
	    (encipher && !ASN1_BIT_STRING_set_bit(usage, 2, 1)))
		return false;
	return add_extension(cert, NID_key_usage, usage, true);
}

static bool eku_holds(EXTENDED_KEY_USAGE *eku, const ASN1_OBJECT *purpose)
{
	for (int i = 0; i < sk_ASN1_OBJECT_num(eku); i++)
		if (!OBJ_cmp(sk_ASN1_OBJECT_value(eku, i), purpose))
			return true;
	return false;
}

static bool usage_in(X509 *ca, const ASN1_OBJECT *purpose)
{
	scoped_eku *bound = X509_get_ext_d2i(ca, NID_ext_key_usage, NULL, NULL);

	return !bound || eku_holds(bound, purpose) ||
	       eku_holds(bound, OBJ_nid2obj(NID_anyExtendedKeyUsage));
}

/* Rule 3: a CA's usages bound those below it. */
bool forge_usage_allowed(const struct forge_ca *ca, const ASN1_OBJECT *purpose)
{
	bool allowed = usage_in(ca->cert, purpose);

	for (int i = 0; allowed && i < sk_X509_num(ca->chain); i++)
		allowed = usage_in(sk_X509_value(ca->chain, i), purpose);
	return allowed;
}

static bool push_purpose(EXTENDED_KEY_USAGE *eku, const ASN1_OBJECT *purpose)
{
	ASN1_OBJECT *copy = OBJ_dup(purpose);

	if (copy && sk_ASN1_OBJECT_push(eku, copy))
		return true;
	ASN1_OBJECT_free(copy);
	return false;
}

/* Rule 9: clientAuth, then what the list allows, in its order. */
static bool add_extended_key_usage(X509 *cert, const struct forge_ca *ca, X509 *leaf,
				   const struct forge_rules *rules)
{
	const struct forge_list *allowed = &rules->lists[FORGE_SET_EKU];
	scoped_eku *original = X509_get_ext_d2i(leaf, NID_ext_key_usage, NULL, NULL);
	scoped_eku *eku = EXTENDED_KEY_USAGE_new();
	X509_EXTENSION *ext = find_nid(leaf, NID_ext_key_usage);

	if (!eku || !push_purpose(eku, OBJ_nid2obj(NID_client_auth)))
		return false;
	for (unsigned i = 0; i < allowed->n; i++) {
		const ASN1_OBJECT *purpose = allowed->items[i].oid;

		if (eku_holds(eku, purpose) || !eku_holds(original, purpose) ||
		    !forge_usage_allowed(ca, purpose))
			continue;
		if (!push_purpose(eku, purpose))
			return false;
	}
	return add_extension(cert, NID_ext_key_usage, eku, ext && X509_EXTENSION_get_critical(ext));
}

/* Rule 12. RFC 7093 section 2, method 1: like RFC 5280's, without SHA-1. */
static bool add_subject_key_id(X509 *cert)
{
	scoped_octets *id = ASN1_OCTET_STRING_new();
	unsigned char hash[EVP_MAX_MD_SIZE];

	return id && X509_pubkey_digest(cert, EVP_sha256(), hash, NULL) &&
	       ASN1_OCTET_STRING_set(id, hash, KEY_ID_LEN) &&
	       add_extension(cert, NID_subject_key_identifier, id, false);
}

static bool add_authority_key_id(X509 *cert, X509 *ca)
{
	const ASN1_OCTET_STRING *id = X509_get0_subject_key_id(ca);
	scoped_akid *akid = AUTHORITY_KEYID_new();

	if (!id || !akid)
		return false;
	akid->keyid = ASN1_OCTET_STRING_dup(id);
	return akid->keyid && add_extension(cert, NID_authority_key_identifier, akid, false);
}

/* ---- rule 14: where the forging CA's state can be asked ---- */

/* A blank-separated list's next item, copied to out; false: there is none. */
static bool next_uri(const char **list, char out[FORGE_URI_MAX + 1])
{
	size_t len;

	if (!*list)
		return false;
	*list += strspn(*list, " \t");
	len = strcspn(*list, " \t");
	if (!len || len > FORGE_URI_MAX)
		return false;
	memcpy(out, *list, len);
	out[len] = '\0';
	*list += len;
	return true;
}

static bool set_uri(GENERAL_NAME *name, const char *uri)
{
	ASN1_IA5STRING *ia5 = ASN1_IA5STRING_new();

	if (!ia5 || !ASN1_STRING_set(ia5, uri, -1)) {
		ASN1_IA5STRING_free(ia5);
		return false;
	}
	GENERAL_NAME_set0_value(name, GEN_URI, ia5);
	return true;
}

static bool push_access(AUTHORITY_INFO_ACCESS *aia, int method, const char *uri)
{
	ACCESS_DESCRIPTION *d = ACCESS_DESCRIPTION_new();

	if (d && set_uri(d->location, uri) && sk_ACCESS_DESCRIPTION_push(aia, d)) {
		ASN1_OBJECT_free(d->method);
		d->method = OBJ_nid2obj(method);
		return true;
	}
	ACCESS_DESCRIPTION_free(d);
	return false;
}

static bool add_aia(X509 *cert, const struct forge_urls *urls)
{
	scoped_aia *aia = AUTHORITY_INFO_ACCESS_new();
	const char *ocsp = urls->ocsp, *issuers = urls->ca_issuers;
	char uri[FORGE_URI_MAX + 1];
	bool ok = aia != NULL;

	while (ok && next_uri(&ocsp, uri))
		ok = push_access(aia, NID_ad_OCSP, uri);
	while (ok && next_uri(&issuers, uri))
		ok = push_access(aia, NID_ad_ca_issuers, uri);
	if (!ok || !sk_ACCESS_DESCRIPTION_num(aia))
		return ok;
	return add_extension(cert, NID_info_access, aia, false);
}

static bool push_point(GENERAL_NAMES *full, const char *uri)
{
	GENERAL_NAME *name = GENERAL_NAME_new();

	if (name && set_uri(name, uri) && sk_GENERAL_NAME_push(full, name))
		return true;
	GENERAL_NAME_free(name);
	return false;
}

/* One point with several names: all lead to the same CRL (RFC 5280 section 4.2.1.13). */
static bool add_crl_points(X509 *cert, const struct forge_urls *urls)
{
	scoped_points *points = CRL_DIST_POINTS_new();
	DIST_POINT *point = DIST_POINT_new();
	const char *crl = urls->crl;
	char uri[FORGE_URI_MAX + 1];
	bool ok;

	if (!points || !point || !sk_DIST_POINT_push(points, point)) {
		DIST_POINT_free(point);
		return false;
	}
	point->distpoint = DIST_POINT_NAME_new();
	ok = point->distpoint && (point->distpoint->name.fullname = GENERAL_NAMES_new());
	if (ok)
		point->distpoint->type = 0; /* fullName */
	while (ok && next_uri(&crl, uri))
		ok = push_point(point->distpoint->name.fullname, uri);
	return ok && add_extension(cert, NID_crl_distribution_points, points, false);
}

static bool add_urls(X509 *cert, const struct forge_urls *urls)
{
	return add_aia(cert, urls) && (!urls->crl || add_crl_points(cert, urls));
}

/* ---- those that come from the original ---- */

static bool copy(X509 *cert, X509_EXTENSION *ext)
{
	return !ext || X509_add_ext(cert, ext, -1);
}

/* Rule 6: the extension's octets and its criticality as they are. */
static bool add_san(X509 *cert, const X509 *leaf, const struct forge_rules *rules)
{
	const ASN1_OBJECT *san = OBJ_nid2obj(NID_subject_alt_name);

	return forge_list_find(&rules->lists[FORGE_SET_DROP], san) ||
	       copy(cert, forge_find_san(leaf));
}

static bool add_sid(X509 *cert, const struct identity *id, const struct forge_rules *rules)
{
	ASN1_OBJECT *oid = OBJ_txt2obj(FORGE_OID_SID, 1);
	X509_EXTENSION *ext = oid ? find(id->leaf, oid) : NULL;
	bool ok = oid && (!ext || !forge_sid_trusted(rules, id) || copy(cert, ext));

	ASN1_OBJECT_free(oid);
	return ok;
}

static bool policies_hold(const CERTIFICATEPOLICIES *policies, const ASN1_OBJECT *oid)
{
	for (int i = 0; i < sk_POLICYINFO_num(policies); i++)
		if (!OBJ_cmp(sk_POLICYINFO_value(policies, i)->policyid, oid))
			return true;
	return false;
}

static bool push_policy(CERTIFICATEPOLICIES *policies, const ASN1_OBJECT *oid)
{
	POLICYINFO *info = POLICYINFO_new();
	ASN1_OBJECT *copied = OBJ_dup(oid);

	if (info && copied && sk_POLICYINFO_push(policies, info)) {
		ASN1_OBJECT_free(info->policyid);
		info->policyid = copied;
		return true;
	}
	POLICYINFO_free(info);
	ASN1_OBJECT_free(copied);
	return false;
}

/* Rule 13. Mapped policies lose their qualifiers: those are another authority's words. */
static bool add_policies(X509 *cert, X509 *leaf, const struct forge_rules *rules)
{
	const struct forge_list *map = &rules->lists[FORGE_SET_POLICIES];
	X509_EXTENSION *ext = find_nid(leaf, NID_certificate_policies);
	scoped_policies *original = NULL;
	scoped_policies *mapped = NULL;

	if (!ext || rules->copy_policies)
		return copy(cert, ext);
	if (!map->n)
		return true;
	original = X509V3_EXT_d2i(ext);
	mapped = CERTIFICATEPOLICIES_new();
	if (!original || !mapped)
		return false;
	for (int i = 0; i < sk_POLICYINFO_num(original); i++) {
		const struct forge_item *item =
			forge_list_find(map, sk_POLICYINFO_value(original, i)->policyid);

		if (item && !policies_hold(mapped, item->to) && !push_policy(mapped, item->to))
			return false;
	}
	return !sk_POLICYINFO_num(mapped) || add_extension(cert, NID_certificate_policies, mapped,
							   X509_EXTENSION_get_critical(ext));
}

/* ---- those of the lists ---- */

static bool add_value(X509 *cert, const ASN1_OBJECT *oid, ASN1_OCTET_STRING *value, bool critical)
{
	scoped_extension *ext = X509_EXTENSION_create_by_OBJ(NULL, oid, critical, value);

	return ext && X509_add_ext(cert, ext, -1);
}

static bool add_listed(X509 *cert, X509 *leaf, const struct forge_rules *rules)
{
	const struct forge_list *list = &rules->lists[FORGE_SET_COPY];

	for (unsigned i = 0; i < list->n; i++)
		if (!copy(cert, find(leaf, list->items[i].oid)))
			return false;
	list = &rules->lists[FORGE_SET_MAP];
	for (unsigned i = 0; i < list->n; i++) {
		X509_EXTENSION *ext = find(leaf, list->items[i].oid);

		if (ext && !add_value(cert, list->items[i].to, X509_EXTENSION_get_data(ext),
				      X509_EXTENSION_get_critical(ext)))
			return false;
	}
	list = &rules->lists[FORGE_SET_ADD];
	for (unsigned i = 0; i < list->n; i++)
		if (!add_value(cert, list->items[i].oid, list->items[i].value, false))
			return false;
	return true;
}

/*
 * What tells an auditor which certificate this one stands for:
 *   SEQUENCE { sha256 OCTET STRING, issuer Name, serialNumber INTEGER }
 * of the original. In no URI SAN: some readers take each of those for a name.
 */
static int provenance_body(const struct identity *id, ASN1_OCTET_STRING *print, unsigned char **out)
{
	int len = i2d_ASN1_OCTET_STRING(print, out), n = 0;

	if (len > 0)
		n = i2d_X509_NAME(X509_get_issuer_name(id->leaf), out);
	if (n > 0) {
		len += n;
		n = i2d_ASN1_INTEGER(X509_get0_serialNumber(id->leaf), out);
	}
	return n > 0 ? len + n : -1;
}

static bool add_provenance(X509 *cert, const struct identity *id, const struct forge_rules *rules)
{
	const struct forge_list *list = &rules->lists[FORGE_SET_PROVENANCE];
	scoped_octets *print = ASN1_OCTET_STRING_new();
	scoped_octets *value = ASN1_OCTET_STRING_new();
	scoped_der *der = NULL;
	unsigned char *p;
	int body;

	if (!list->n)
		return true;
	if (!print || !value ||
	    !ASN1_OCTET_STRING_set(print, id->fingerprint, sizeof(id->fingerprint)))
		return false;
	/* The lengths first: with NULL the encoders only count. */
	body = i2d_ASN1_OCTET_STRING(print, NULL) +
	       i2d_X509_NAME(X509_get_issuer_name(id->leaf), NULL) +
	       i2d_ASN1_INTEGER(X509_get0_serialNumber(id->leaf), NULL);
	der = p = OPENSSL_malloc((size_t)ASN1_object_size(1, body, V_ASN1_SEQUENCE));
	if (!der)
		return false;
	ASN1_put_object(&p, 1, body, V_ASN1_SEQUENCE, V_ASN1_UNIVERSAL);
	return provenance_body(id, print, &p) == body &&
	       ASN1_OCTET_STRING_set(value, der, (int)(p - der)) &&
	       add_value(cert, list->items[0].oid, value, false);
}

bool forge_add_extensions(X509 *cert, const struct forge_ca *ca, const struct identity *id,
			  const struct forge_rules *rules)
{
	X509 *leaf = id->leaf;

	return add_basic_constraints(cert) && add_key_usage(cert, leaf) &&
	       add_extended_key_usage(cert, ca, leaf, rules) && add_subject_key_id(cert) &&
	       add_authority_key_id(cert, ca->cert) && add_san(cert, leaf, rules) &&
	       add_policies(cert, leaf, rules) && add_urls(cert, &ca->urls) &&
	       add_sid(cert, id, rules) && add_listed(cert, leaf, rules) &&
	       add_provenance(cert, id, rules);
}
