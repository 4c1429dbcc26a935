// SPDX-License-Identifier: Apache-2.0
/*
 * Issues the certificate that stands for a verified client towards a backend:
 * who may have one, and under whom. Its extensions are written elsewhere.
 */
#include "forge/forge_internal.h"

#include <stdbool.h>
#include <string.h>
#include <openssl/x509v3.h>
#include "forge/forge.h"
#include "forge/forge_explain.h"
#include "forge/forge_extensions.h"

#define SERIAL_LEN 20 /* RFC 5280 section 4.1.2.2: at most */

static const char *const error_texts[FORGE_ERRORS] = {
	[FORGE_OK] = "forged",
	[FORGE_NO_CLIENT_AUTH] = "the extended key usage lacks clientAuth",
	[FORGE_ORIGINAL_IS_CA] = "the original is a CA certificate",
	[FORGE_UNKNOWN_CRITICAL] = "the original has an unknown critical or a broken extension",
	[FORGE_NOT_YET_OR_EXPIRED] = "nothing is left of the validity",
	[FORGE_CA_CONSTRAINT] = "the forging CA may not issue such a certificate",
	[FORGE_NO_NAME] = "empty subject without a critical subject alternative name",
	[FORGE_BAD_SAN] = "the subject alternative name is malformed or holds a privilege",
	[FORGE_MEMORY] = "out of memory",
	[FORGE_SIGN] = "the forging CA's key did not sign",
};

const char *forge_error_text(enum forge_error e)
{
	return (unsigned)e < FORGE_ERRORS ? error_texts[e] : "unknown error";
}

/* ---- is the original fit to be forged? ---- */

/*
 * A critical extension restricts what its certificate is good for. Dropping
 * one is only right where its meaning was enforced before (basicConstraints,
 * usages), is passed on (SAN), speaks of the original's issuer alone, or was decided
 * upon by who wrote the configuration.
 */
static bool critical_extension_known(const X509_EXTENSION *ext, const struct forge_rules *rules)
{
	const ASN1_OBJECT *oid = X509_EXTENSION_get_object((X509_EXTENSION *)ext);

	if (forge_list_find(&rules->lists[FORGE_SET_COPY], oid) ||
	    forge_list_find(&rules->lists[FORGE_SET_DROP], oid) ||
	    forge_list_find(&rules->lists[FORGE_SET_MAP], oid))
		return true;
	switch (OBJ_obj2nid(oid)) {
	case NID_basic_constraints:
	case NID_key_usage:
	case NID_ext_key_usage:
	case NID_subject_alt_name:
	case NID_certificate_policies:
	case NID_crl_distribution_points:
		return true;
	default:
		return false;
	}
}

static bool critical_extensions_known(const X509 *leaf, const struct forge_rules *rules)
{
	for (int i = 0; i < X509_get_ext_count(leaf); i++) {
		X509_EXTENSION *ext = X509_get_ext(leaf, i);

		if (X509_EXTENSION_get_critical(ext) && !critical_extension_known(ext, rules))
			return false;
	}
	return true;
}

/* Rule 1 again, though the chain was verified: who forges trusts no caller. */
static enum forge_error check_original(const struct identity *id, const struct forge_rules *rules)
{
	const ASN1_OBJECT *san_oid = OBJ_nid2obj(NID_subject_alt_name);
	X509 *leaf = id->leaf;
	X509_EXTENSION *san = NULL;

	if (X509_get_extension_flags(leaf) & EXFLAG_INVALID)
		return FORGE_UNKNOWN_CRITICAL;
	/* X509_check_ca() overlooks CA:TRUE with a key usage that lacks keyCertSign. */
	if (X509_check_ca(leaf) || X509_get_extension_flags(leaf) & EXFLAG_CA)
		return FORGE_ORIGINAL_IS_CA;
	if (!critical_extensions_known(leaf, rules))
		return FORGE_UNKNOWN_CRITICAL;
	/* UINT32_MAX without the extension */
	if (!(X509_get_extended_key_usage(leaf) & XKU_SSL_CLIENT))
		return FORGE_NO_CLIENT_AUTH;

	if (!forge_list_find(&rules->lists[FORGE_SET_DROP], san_oid))
		san = forge_find_san(leaf);
	if (san && !forge_san_copyable(san, rules, forge_sid_trusted(rules, id)))
		return FORGE_BAD_SAN;
	if (!X509_NAME_entry_count(X509_get_subject_name(leaf)) &&
	    (!san || !X509_EXTENSION_get_critical(san)))
		return FORGE_NO_NAME;
	return FORGE_OK;
}

static enum forge_error check_ca(X509 *ca, FILE *explain)
{
	const char *unfit = forge_cert_unfit(ca);

	if (unfit && explain)
		fprintf(explain, "The forging CA's certificate %s\n", unfit);
	return unfit ? FORGE_CA_CONSTRAINT : FORGE_OK;
}

/* ---- the new certificate, field by field ---- */

struct validity {
	time_t not_before, not_after;
};

static time_t earlier(time_t a, time_t b)
{
	return a < b ? a : b;
}

static time_t later(time_t a, time_t b)
{
	return a > b ? a : b;
}

static bool clamp_to(struct validity *v, X509 *cert)
{
	struct validity bound;

	if (identity_time(X509_get0_notBefore(cert), &bound.not_before) ||
	    identity_time(X509_get0_notAfter(cert), &bound.not_after))
		return false;
	v->not_before = later(v->not_before, bound.not_before);
	v->not_after = earlier(v->not_after, bound.not_after);
	return true;
}

/* Rule 5. False when nothing is left of it, or now lies outside. */
static bool clamp_validity(const struct forge_ca *ca, const struct identity *id,
			   const struct forge_policy *policy, time_t now, struct validity *out)
{
	time_t oldest, end;

	if (__builtin_sub_overflow(now, policy->skew, &oldest) ||
	    __builtin_add_overflow(now, policy->lifespan, &end))
		return false;
	out->not_before = id->not_before;
	if (policy->rules->start == FORGE_START_NOW)
		out->not_before = later(out->not_before, oldest);
	out->not_after = earlier(id->not_after, end);
	for (int i = 0; i < forge_file_len(ca); i++) {
		if (!clamp_to(out, forge_file_cert(ca, i)))
			return false;
	}
	return out->not_before <= now && now < out->not_after;
}

/* Subject, issuer, validity, key: everything but the serial number and the extensions. */
static bool set_fields(X509 *cert, const struct forge_ca *ca, X509 *leaf, EVP_PKEY *new_key,
		       const struct validity *v)
{
	/* OpenSSL keeps the DER a name was read from; the copies are byte-exact. */
	return X509_set_version(cert, X509_VERSION_3) &&
	       X509_set_subject_name(cert, X509_get_subject_name(leaf)) &&
	       X509_set_issuer_name(cert, X509_get_subject_name(ca->cert)) &&
	       ASN1_TIME_set(X509_getm_notBefore(cert), v->not_before) &&
	       ASN1_TIME_set(X509_getm_notAfter(cert), v->not_after) &&
	       X509_set_pubkey(cert, new_key);
}

static bool hash_der(EVP_MD_CTX *ctx, const unsigned char *der, int len)
{
	return len > 0 && EVP_DigestSignUpdate(ctx, der, (size_t)len) == 1;
}

/*
 * Rule 4. HMAC over the original and all that may differ between two
 * certificates made of it under this CA: notBefore alone would not do, since
 * it may be the original's, while notAfter moves on. Last, since it covers the rest.
 */
static bool set_serial(X509 *cert, const struct identity *id, const struct forge_policy *policy,
		       const struct validity *v)
{
	scoped_pkey *key = EVP_PKEY_new_raw_private_key(EVP_PKEY_HMAC, NULL, policy->serial_key,
							sizeof(policy->serial_key));
	scoped_mdctx *ctx = EVP_MD_CTX_new();
	scoped_der *spki = NULL;
	scoped_der *extensions = NULL;
	int spki_len = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(cert), &spki);
	int extensions_len = i2d_X509_EXTENSIONS(X509_get0_extensions(cert), &extensions);
	int64_t times[2] = {v->not_before, v->not_after};
	unsigned char mac[EVP_MAX_MD_SIZE];
	size_t mac_len = sizeof(mac);

	if (!key || !ctx || EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, key) != 1 ||
	    !hash_der(ctx, id->fingerprint, sizeof(id->fingerprint)) ||
	    !hash_der(ctx, spki, spki_len) ||
	    EVP_DigestSignUpdate(ctx, times, sizeof(times)) != 1 ||
	    !hash_der(ctx, extensions, extensions_len) ||
	    EVP_DigestSignFinal(ctx, mac, &mac_len) != 1)
		return false;

	mac[0] = (mac[0] & 0x7f) | 0x40; /* positive, and always SERIAL_LEN octets */
	return ASN1_STRING_set(X509_get_serialNumber(cert), mac, SERIAL_LEN);
}

/* As strong as the key; NULL where the key's algorithm brings its own (Ed25519). */
static const EVP_MD *signature_digest(const EVP_PKEY *key)
{
	char name[32] = "";

	/* 2: the key allows only this one */
	if (EVP_PKEY_get_default_digest_name((EVP_PKEY *)key, name, sizeof(name)) == 2)
		return strcmp(name, "UNDEF") ? EVP_get_digestbyname(name) : NULL;
	if (!EVP_PKEY_is_a(key, "EC") || EVP_PKEY_get_bits(key) < 384)
		return EVP_sha256();
	return EVP_PKEY_get_bits(key) == 384 ? EVP_sha384() : EVP_sha512();
}

static enum forge_error issue(const struct forge_ca *ca, const struct identity *id,
			      EVP_PKEY *new_key, const struct forge_policy *policy, time_t now,
			      X509 **out)
{
	scoped_x509 *cert = X509_new();
	struct validity v;

	if (!clamp_validity(ca, id, policy, now, &v))
		return FORGE_NOT_YET_OR_EXPIRED;
	if (!cert || !set_fields(cert, ca, id->leaf, new_key, &v) ||
	    !forge_add_extensions(cert, ca, id, policy->rules) || !set_serial(cert, id, policy, &v))
		return FORGE_MEMORY;
	if (!X509_sign(cert, ca->key, signature_digest(ca->key)))
		return FORGE_SIGN;
	*out = TAKE_PTR(cert);
	return FORGE_OK;
}

/* ---- rule 3: does the result satisfy the forging CA? ---- */

enum forge_error forge_certificate(const struct forge_ca *ca, const struct identity *id,
				   EVP_PKEY *new_key, const struct forge_policy *policy, time_t now,
				   FILE *explain, X509 **out)
{
	scoped_x509 *cert = NULL;
	enum forge_error e;

	*out = NULL;
	e = check_ca(ca->cert, explain);
	if (e != FORGE_OK)
		return e;
	e = check_original(id, policy->rules);
	if (e != FORGE_OK)
		return e;
	e = issue(ca, id, new_key, policy, now, &cert);
	if (e != FORGE_OK)
		return e;
	if (explain)
		forge_explain(explain, policy->rules, id->leaf, cert);
	e = forge_check_issued(ca, cert, now, explain);
	if (e == FORGE_OK)
		*out = TAKE_PTR(cert);
	return e;
}
