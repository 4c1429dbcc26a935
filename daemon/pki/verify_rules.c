// SPDX-License-Identifier: Apache-2.0
/* RFC 5280 where X509_verify_cert() is lenient, and the policy on keys. Knows one certificate at a
 * time. */
#include "pki/verify_rules.h"

#include <ctype.h>
#include <string.h>
#include <openssl/core_names.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>
#include "pki/names.h"

#define SECURITY_BITS	  112
#define SERIAL_MAX	  20   /* octets; RFC 5280 4.1.2.2 */
#define RSA_BITS_MAX	  8192 /* a larger one only makes a signature slow to check */
#define RSA_EXPONENT_BITS 64   /* likewise */

SCOPED_DEFINE(nc, NAME_CONSTRAINTS, NAME_CONSTRAINTS_free)
#define scoped_nc __attribute__((cleanup(scoped_nc_free_))) NAME_CONSTRAINTS

/* ---- keys ---- */

static int too_small(int depth)
{
	return depth ? X509_V_ERR_CA_KEY_TOO_SMALL : X509_V_ERR_EE_KEY_TOO_SMALL;
}

static int rsa_error(const EVP_PKEY *key, int depth, const struct verify_policy *policy)
{
	scoped_bn *e = NULL;
	int bits = EVP_PKEY_get_bits(key);

	if (bits < (int)policy->rsa_bits)
		return too_small(depth);
	if (bits > RSA_BITS_MAX || EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_RSA_E, &e) != 1)
		return VERIFY_ERR_KEY;
	/* With an exponent of 1 anybody signs. */
	if (!BN_is_odd(e) || BN_is_one(e) || BN_num_bits(e) > RSA_EXPONENT_BITS)
		return VERIFY_ERR_KEY;
	return X509_V_OK;
}

static int ec_error(const EVP_PKEY *key, int depth, const struct verify_policy *policy)
{
	int explicit_curve = 0;
	char group[64];

	EVP_PKEY_get_int_param(key, OSSL_PKEY_PARAM_EC_DECODED_FROM_EXPLICIT_PARAMS,
			       &explicit_curve);
	if (explicit_curve || EVP_PKEY_get_group_name(key, group, sizeof(group), NULL) != 1)
		return X509_V_ERR_EC_KEY_EXPLICIT_PARAMS;
	return EVP_PKEY_get_bits(key) < (int)policy->ec_bits ? too_small(depth) : X509_V_OK;
}

int verify_rules_key(const EVP_PKEY *key, int depth, const struct verify_policy *policy)
{
	if (!key)
		return X509_V_ERR_UNABLE_TO_DECODE_ISSUER_PUBLIC_KEY;
	if (EVP_PKEY_is_a(key, "RSA") || EVP_PKEY_is_a(key, "RSA-PSS"))
		return rsa_error(key, depth, policy);
	if (EVP_PKEY_is_a(key, "EC"))
		return ec_error(key, depth, policy);
	if (EVP_PKEY_is_a(key, "ED25519") || EVP_PKEY_is_a(key, "ED448"))
		return X509_V_OK;
	return VERIFY_ERR_KEY;
}

unsigned verify_rules_cost(const EVP_PKEY *key)
{
	unsigned bits = (unsigned)EVP_PKEY_get_bits(key), kbits = (bits + 1023) / 1024;
	scoped_bn *e = NULL;

	if (EVP_PKEY_is_a(key, "ED25519") || (EVP_PKEY_is_a(key, "EC") && bits <= 256))
		return 110;
	if (EVP_PKEY_is_a(key, "ED448"))
		return 200;
	if (EVP_PKEY_is_a(key, "EC") || EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_RSA_E, &e) != 1)
		return 1300;
	/* With 65537, 17 multiplications. */
	return kbits * kbits * 7 * (1 + (unsigned)BN_num_bits(e)) / 17;
}

/* ---- signatures ---- */

/* RFC 4055 3.1: SHA-1 if it does not say. */
static int pss_digest(const X509_ALGOR *alg)
{
	RSA_PSS_PARAMS *p =
		ASN1_TYPE_unpack_sequence(ASN1_ITEM_rptr(RSA_PSS_PARAMS), alg->parameter);
	int nid = p && p->hashAlgorithm ? OBJ_obj2nid(p->hashAlgorithm->algorithm) : NID_sha1;

	RSA_PSS_PARAMS_free(p);
	return nid;
}

bool verify_rules_strong(const X509_ALGOR *alg)
{
	int nid = OBJ_obj2nid(alg->algorithm), digest;
	const EVP_MD *md;

	if (nid == NID_rsassaPss)
		digest = pss_digest(alg);
	else if (!OBJ_find_sigid_algs(nid, &digest, NULL))
		return false;
	else if (digest == NID_undef)
		return nid == NID_ED25519 || nid == NID_ED448;
	md = EVP_get_digestbynid(digest);
	return md && EVP_MD_get_size(md) * 4 >= SECURITY_BITS;
}

/* ---- form ---- */

/* OpenSSL sees this only of the extensions it reads itself. Quadratic: verify_limits.h goes before.
 */
static bool repeats_extension(const X509 *cert)
{
	int n = X509_get_ext_count(cert);

	for (int i = 0; i < n; i++) {
		const ASN1_OBJECT *oid = X509_EXTENSION_get_object(X509_get_ext(cert, i));

		if (X509_get_ext_by_OBJ(cert, oid, i) >= 0)
			return true;
	}
	return false;
}

/* Extensions that decide about a path: one of them that is misread is worse than one refused. */
static bool decides(const X509_EXTENSION *ext)
{
	static const int nids[] = {
		NID_basic_constraints,
		NID_key_usage,
		NID_ext_key_usage,
		NID_subject_alt_name,
		NID_name_constraints,
		NID_certificate_policies,
		NID_policy_mappings,
		NID_policy_constraints,
		NID_inhibit_any_policy,
		NID_subject_key_identifier,
		NID_authority_key_identifier,
		NID_crl_distribution_points,
		NID_netscape_cert_type,
	};
	int nid = OBJ_obj2nid(X509_EXTENSION_get_object((X509_EXTENSION *)ext));

	for (size_t i = 0; i < ARRAY_SIZE(nids); i++)
		if (nids[i] == nid)
			return true;
	return false;
}

/* Nothing but the value: X509V3_EXT_d2i() does not mind what stands behind it. */
static bool is_well_formed(X509_EXTENSION *ext)
{
	const X509V3_EXT_METHOD *method = X509V3_EXT_get(ext);
	const ASN1_OCTET_STRING *octets = X509_EXTENSION_get_data(ext);
	const unsigned char *p = ASN1_STRING_get0_data(octets),
			    *end = p + ASN1_STRING_length(octets);
	ASN1_VALUE *value;

	if (!method || !method->it)
		return true;
	value = ASN1_item_d2i(NULL, &p, end - p, ASN1_ITEM_ptr(method->it));
	ASN1_item_free(value, ASN1_ITEM_ptr(method->it));
	return value && p == end;
}

static int extensions_error(X509 *cert)
{
	if (repeats_extension(cert))
		return X509_V_ERR_INVALID_EXTENSION;
	for (int i = 0; i < X509_get_ext_count(cert); i++) {
		X509_EXTENSION *ext = X509_get_ext(cert, i);

		if (decides(ext) && !is_well_formed(ext))
			return X509_V_ERR_INVALID_EXTENSION;
	}
	return X509_get_extension_flags(cert) & (EXFLAG_INVALID | EXFLAG_INVALID_POLICY)
		       ? X509_V_ERR_INVALID_EXTENSION
		       : X509_V_OK;
}

/* RFC 5280 4.2.1.6: IA5String, and no name is empty. A NUL would end it for some readers only. */
static bool is_text(const ASN1_STRING *s)
{
	const unsigned char *p = ASN1_STRING_get0_data(s);
	int n = ASN1_STRING_length(s);

	for (int i = 0; i < n; i++)
		if (p[i] < 0x20 || p[i] > 0x7e)
			return false;
	return n > 0;
}

static bool is_name(const GENERAL_NAME *name)
{
	int len;

	switch (name->type) {
	case GEN_EMAIL:
	case GEN_DNS:
	case GEN_URI:
		return is_text(name->d.ia5);
	case GEN_IPADD:
		len = ASN1_STRING_length(name->d.ip);
		return len == 4 || len == 16;
	default:
		return names_readable_general(name);
	}
}

static int names_error(X509 *cert)
{
	scoped_names *san = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);

	if (!names_readable(X509_get_subject_name(cert)))
		return X509_V_ERR_UNSUPPORTED_NAME_SYNTAX;
	for (int i = 0; i < sk_GENERAL_NAME_num(san); i++)
		if (!is_name(sk_GENERAL_NAME_value(san, i)))
			return X509_V_ERR_UNSUPPORTED_NAME_SYNTAX;
	return X509_V_OK;
}

/* SEQUENCE SIZE (1..MAX), RFC 5280 4.2.1.10 and 4.2.1.12. */
static bool has_empty_list(X509 *cert)
{
	EXTENDED_KEY_USAGE *eku = X509_get_ext_d2i(cert, NID_ext_key_usage, NULL, NULL);
	scoped_nc *nc = X509_get_ext_d2i(cert, NID_name_constraints, NULL, NULL);
	bool empty = eku && !sk_ASN1_OBJECT_num(eku);

	sk_ASN1_OBJECT_pop_free(eku, ASN1_OBJECT_free);
	return empty || (nc && sk_GENERAL_SUBTREE_num(nc->permittedSubtrees) <= 0 &&
			 sk_GENERAL_SUBTREE_num(nc->excludedSubtrees) <= 0);
}

/* RFC 5280 4.1.2.1 and 4.1.2.8. */
static bool version_fits(const X509 *cert)
{
	const ASN1_BIT_STRING *issuer_uid, *subject_uid;
	long version = X509_get_version(cert);

	X509_get0_uids(cert, &issuer_uid, &subject_uid);
	if (version == X509_VERSION_1 && (issuer_uid || subject_uid))
		return false;
	return version == X509_VERSION_3 ||
	       ((version == X509_VERSION_1 || version == X509_VERSION_2) &&
		!X509_get0_extensions(cert));
}

int verify_rules_form(X509 *cert)
{
	int error;

	if (!version_fits(cert))
		return X509_V_ERR_EXTENSIONS_REQUIRE_VERSION_3;
	/* A negative number or 0 is to be borne (RFC 5280 4.1.2.2): both identify. */
	if (ASN1_STRING_length(X509_get0_serialNumber(cert)) > SERIAL_MAX)
		return VERIFY_ERR_SERIAL;
	/*
	 * With constraints on policies and none to begin with no policy is left. OpenSSL 3.0
	 * knows, but leaks the extension's value (policy_cache_new()), for each connection.
	 */
	if (X509_get_ext_by_NID(cert, NID_policy_constraints, -1) >= 0 &&
	    X509_get_ext_by_NID(cert, NID_certificate_policies, -1) < 0)
		return X509_V_ERR_NO_EXPLICIT_POLICY;
	error = extensions_error(cert);
	if (error == X509_V_OK && has_empty_list(cert))
		error = X509_V_ERR_INVALID_EXTENSION;
	return error == X509_V_OK ? names_error(cert) : error;
}

/* ---- purpose ---- */

/*
 * What the purpose checks of OpenSSL let pass in a leaf and we do not: a client's
 * that is a CA, and a key that may agree on keys but not sign.
 */
static int leaf_error(X509 *leaf, enum verify_purpose purpose)
{
	bool client = purpose == VERIFY_CLIENT;
	uint32_t usage = client ? XKU_SSL_CLIENT : XKU_SSL_SERVER;

	/* X509_check_ca() overlooks CA:TRUE with a key usage that lacks keyCertSign. */
	if (client && (X509_check_ca(leaf) || X509_get_extension_flags(leaf) & EXFLAG_CA))
		return X509_V_ERR_INVALID_NON_CA;
	/* Both are UINT32_MAX, hence allow everything, without the extension. */
	if (!(X509_get_key_usage(leaf) & KU_DIGITAL_SIGNATURE) ||
	    !(X509_get_extended_key_usage(leaf) & usage))
		return X509_V_ERR_INVALID_PURPOSE;
	return X509_V_OK;
}

int verify_rules_purpose(X509 *cert, int depth, enum verify_purpose purpose)
{
	int id = purpose == VERIFY_CLIENT ? X509_PURPOSE_SSL_CLIENT : X509_PURPOSE_SSL_SERVER;
	uint32_t flags = X509_get_extension_flags(cert);
	bool any = flags & EXFLAG_XKUSAGE && X509_get_extended_key_usage(cert) & XKU_ANYEKU;

	/* A CA for any purpose is one for ours, which OpenSSL overlooks. */
	if (X509_check_purpose(cert, id, depth > 0) != 1 &&
	    !(depth && any && !(flags & EXFLAG_NSCERT)))
		return X509_V_ERR_INVALID_PURPOSE;
	return depth ? X509_V_OK : leaf_error(cert, purpose);
}

/* ---- URIs under constraints ---- */

static bool constrains_uris(const STACK_OF(GENERAL_SUBTREE) * trees)
{
	for (int i = 0; i < sk_GENERAL_SUBTREE_num(trees); i++)
		if (sk_GENERAL_SUBTREE_value(trees, i)->base->type == GEN_URI)
			return true;
	return false;
}

static bool under_uri_constraint(STACK_OF(X509) * chain)
{
	for (int i = 1; i < sk_X509_num(chain); i++) {
		scoped_nc *nc =
			X509_get_ext_d2i(sk_X509_value(chain, i), NID_name_constraints, NULL, NULL);

		if (nc && (constrains_uris(nc->permittedSubtrees) ||
			   constrains_uris(nc->excludedSubtrees)))
			return true;
	}
	return false;
}

/*
 * scheme://host[:port][/...] with a host of letters: OpenSSL compares what it
 * takes for the host, which with user information in front of it is another,
 * and an address is under no name.
 */
static bool has_plain_host(const ASN1_IA5STRING *uri)
{
	const char *text = (const char *)ASN1_STRING_get0_data(uri);
	const char *end = text + ASN1_STRING_length(uri), *host;
	bool letter = false;

	host = memmem(text, (size_t)(end - text), "://", 3);
	if (!host)
		return false;
	for (host += 3; host < end && !strchr(":/?#", *host); host++) {
		if (!isalnum((unsigned char)*host) && !strchr("-._", *host))
			return false;
		letter |= isalpha((unsigned char)*host) != 0;
	}
	if (host < end && *host == ':')
		for (host++; host < end && isdigit((unsigned char)*host);)
			host++;
	return letter && (host == end || *host == '/');
}

int verify_rules_uris(X509 *leaf, STACK_OF(X509) * chain)
{
	scoped_names *san = X509_get_ext_d2i(leaf, NID_subject_alt_name, NULL, NULL);
	bool constrained = false;

	for (int i = 0; i < sk_GENERAL_NAME_num(san); i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(san, i);

		if (name->type != GEN_URI || has_plain_host(name->d.uniformResourceIdentifier))
			continue;
		constrained = constrained || under_uri_constraint(chain);
		if (constrained)
			return X509_V_ERR_UNSUPPORTED_NAME_SYNTAX;
	}
	return X509_V_OK;
}
