// SPDX-License-Identifier: Apache-2.0
/*
 * Issues the certificate that stands for a verified client towards a backend:
 * who may have one, and under whom. Its extensions are written elsewhere.
 */
#include "forge.h"

#include <stdbool.h>
#include <string.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include "forge_explain.h"
#include "forge_extensions.h"

#define SERIAL_LEN 20 /* RFC 5280 section 4.1.2.2: at most */

SCOPED_DEFINE(name_constraints, NAME_CONSTRAINTS, NAME_CONSTRAINTS_free)
SCOPED_DEFINE(store_ctx, X509_STORE_CTX, X509_STORE_CTX_free)
SCOPED_DEFINE(borrowed, STACK_OF(X509), sk_X509_free) /* not the certificates in it */

#define scoped_store_ctx __attribute__((cleanup(scoped_store_ctx_free_))) X509_STORE_CTX
#define scoped_borrowed	 __attribute__((cleanup(scoped_borrowed_free_))) STACK_OF(X509)
#define scoped_name_constraints                                                                    \
	__attribute__((cleanup(scoped_name_constraints_free_))) NAME_CONSTRAINTS

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

/* ---- rule 3: is the CA fit, and the file it is in? ---- */

static const char *cert_unfit(X509 *ca)
{
	uint32_t flags = X509_get_extension_flags(ca);

	if (flags & EXFLAG_INVALID)
		return "has an extension that cannot be parsed, or twice the same";
	if (flags & EXFLAG_CRITICAL)
		return "has an unknown critical extension";
	if (!(flags & EXFLAG_CA))
		return "is no CA certificate (basicConstraints CA:TRUE)";
	/* UINT32_MAX, hence all bits, without the extension */
	if (!(X509_get_key_usage(ca) & KU_KEY_CERT_SIGN))
		return "has a key usage without keyCertSign";
	if (!(X509_get_extended_key_usage(ca) & XKU_SSL_CLIENT))
		return "has an extended key usage without clientAuth";
	if (!X509_NAME_entry_count(X509_get_subject_name(ca)))
		return "has an empty subject";

	/*
	 * RFC 5280 section 4.2.1 wants these of every CA. Strict backends
	 * refuse what such a CA issues, and so would check_issued().
	 */
	if (!(flags & EXFLAG_BCONS_CRITICAL))
		return "has basicConstraints that are not critical";
	if (!(flags & EXFLAG_KUSAGE))
		return "has no key usage";
	if (!X509_get0_subject_key_id(ca))
		return "has no subject key identifier";
	return NULL;
}

/* How many certificates the file has, and the i-th: 0 is the forging CA. */
static int file_len(const struct forge_ca *ca)
{
	return ca->chain ? 1 + sk_X509_num(ca->chain) : 1;
}

static X509 *file_cert(const struct forge_ca *ca, int i)
{
	return i ? sk_X509_value(ca->chain, i - 1) : ca->cert;
}

static int name_constraints_error(X509 *cert, X509 *ca)
{
	int critical; /* -1: no such extension */
	scoped_name_constraints *nc = X509_get_ext_d2i(ca, NID_name_constraints, &critical, NULL);

	if (!nc)
		return critical == -1 ? X509_V_OK : X509_V_ERR_INVALID_EXTENSION;
	return NAME_CONSTRAINTS_check(cert, nc);
}

/* RFC 5280 section 6.1: neither path lengths nor name constraints count those but the last. */
static bool self_issued(X509 *cert)
{
	return X509_get_extension_flags(cert) & EXFLAG_SI;
}

/* Nothing is above a self-signed certificate, but for another with the same name and key. */
static bool issued(X509 *ca, X509 *cert)
{
	bool ok = X509_check_issued(ca, cert) == X509_V_OK && !X509_self_signed(cert, 1) &&
		  X509_verify(cert, X509_get0_pubkey(ca)) == 1;

	ERR_clear_error();
	return ok;
}

/*
 * Why not the i-th certificate of the file, a CA above the forging one. Less is
 * asked of it: old roots lack what RFC 5280 wants, and most backends accept them.
 */
static const char *above_unfit(const struct forge_ca *ca, int i)
{
	X509 *cert = file_cert(ca, i);
	long pathlen = X509_get_pathlen(cert), below = 0;

	if (!issued(cert, file_cert(ca, i - 1)))
		return "did not issue the one before it";
	if (X509_get_extension_flags(cert) & EXFLAG_CRITICAL)
		return "has an unknown critical extension";
	if (X509_check_purpose(cert, X509_PURPOSE_SSL_CLIENT, 1) <= 0)
		return "is no CA for clients (CA:TRUE, keyCertSign, clientAuth or no EKU)";
	for (int j = 0; j < i; j++) {
		X509 *under = file_cert(ca, j);

		if (self_issued(under))
			continue;
		below++;
		if (name_constraints_error(under, cert) != X509_V_OK)
			return "has name constraints that a CA before it does not satisfy";
	}
	/* -1 without one */
	return pathlen >= 0 && below > pathlen ? "has a path length too short for those before it"
					       : NULL;
}

const char *forge_ca_unfit(const struct forge_ca *ca, char why[FORGE_WHY_MAX])
{
	const char *unfit = cert_unfit(ca->cert);

	if (unfit) {
		snprintf(why, FORGE_WHY_MAX, "%s", unfit);
		return why;
	}
	for (int i = 1; i < file_len(ca); i++) {
		unfit = above_unfit(ca, i);
		if (!unfit)
			continue;
		snprintf(why, FORGE_WHY_MAX, "certificate %d %s", i + 1, unfit);
		return why;
	}
	return NULL;
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
	const char *unfit = cert_unfit(ca);

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
	for (int i = 0; i < file_len(ca); i++) {
		if (!clamp_to(out, file_cert(ca, i)))
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

/* In place of OpenSSL's look at signatures and dates. */
static int is_known(X509_STORE_CTX *ctx)
{
	(void)ctx;
	return 1;
}

/*
 * The path from cert by way of those between, if it needs them, to the anchor. Dates are left
 * out, since clamp_validity() kept to all of them, and signatures, which others have verified.
 */
static int path_error(X509 *cert, STACK_OF(X509) * between, X509 *anchor, unsigned long flags,
		      time_t now)
{
	scoped_store *store = X509_STORE_new();
	scoped_store_ctx *ctx = X509_STORE_CTX_new();
	X509_VERIFY_PARAM *param;
	int error;

	if (!store || !ctx || !X509_STORE_add_cert(store, anchor))
		return X509_V_ERR_OUT_OF_MEM;
	X509_STORE_set_verify(store, is_known);
	if (!X509_STORE_CTX_init(ctx, store, cert, between) ||
	    !X509_STORE_CTX_set_purpose(ctx, X509_PURPOSE_SSL_CLIENT))
		return X509_V_ERR_OUT_OF_MEM;
	param = X509_STORE_CTX_get0_param(ctx);
	X509_VERIFY_PARAM_set_time(param, now);
	if (!X509_VERIFY_PARAM_set_flags(param, X509_V_FLAG_PARTIAL_CHAIN | flags))
		return X509_V_ERR_OUT_OF_MEM;
	if (X509_verify_cert(ctx) == 1)
		return X509_V_OK;
	error = X509_STORE_CTX_get_error(ctx);
	return error == X509_V_OK ? X509_V_ERR_UNSPECIFIED : error;
}

/* To the last certificate of the file: path lengths, usages and name constraints on the way. */
static int file_error(const struct forge_ca *ca, X509 *cert, time_t now)
{
	scoped_borrowed *file = sk_X509_dup(ca->chain);

	if (!file || !sk_X509_unshift(file, ca->cert))
		return X509_V_ERR_OUT_OF_MEM;
	return path_error(cert, file, file_cert(ca, file_len(ca) - 1), 0, now);
}

/*
 * One that is wrong does not get out. Not only is it good for nothing: who has seen what a key
 * signs with one of its bits flipped (by Rowhammer, say) knows that bit. Those above were
 * verified by forge_ca_unfit().
 */
static int signature_error(const struct forge_ca *ca, X509 *cert)
{
	return X509_verify(cert, X509_get0_pubkey(ca->cert)) == 1
		       ? X509_V_OK
		       : X509_V_ERR_CERT_SIGNATURE_FAILURE;
}

/*
 * Verifies what was issued as a strict backend would with the forging CA as
 * anchor, and as any would with the file's last certificate. The name constraints
 * of all are asked directly too: RFC 5280 section 6.1 lets a verifier ignore an
 * anchor's, and whoever configured them did not mean that.
 */
static int issued_error(const struct forge_ca *ca, X509 *cert, time_t now)
{
	int error = X509_V_OK;

	/* Makes OpenSSL read the extensions: NAME_CONSTRAINTS_check() sees no SAN before. */
	if (X509_check_purpose(cert, -1, 0) != 1)
		return X509_V_ERR_INVALID_EXTENSION;
	for (int i = 0; error == X509_V_OK && i < file_len(ca); i++)
		error = name_constraints_error(cert, file_cert(ca, i));
	if (error == X509_V_OK)
		error = path_error(cert, NULL, ca->cert, X509_V_FLAG_X509_STRICT, now);
	if (error == X509_V_OK && ca->chain)
		error = file_error(ca, cert, now);
	return error == X509_V_OK ? signature_error(ca, cert) : error;
}

static enum forge_error check_issued(const struct forge_ca *ca, X509 *cert, time_t now,
				     FILE *explain)
{
	int error = issued_error(ca, cert, now);

	if (error == X509_V_OK)
		return FORGE_OK;
	if (explain)
		fprintf(explain, "The forging CA may not issue this: %s\n",
			X509_verify_cert_error_string(error));
	if (error == X509_V_ERR_OUT_OF_MEM)
		return FORGE_MEMORY;
	return error == X509_V_ERR_CERT_SIGNATURE_FAILURE ? FORGE_SIGN : FORGE_CA_CONSTRAINT;
}

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
	e = check_issued(ca, cert, now, explain);
	if (e == FORGE_OK)
		*out = TAKE_PTR(cert);
	return e;
}
