// SPDX-License-Identifier: Apache-2.0
/* Rule 3: is a CA fit to forge with, is the file it is in, and does an issued certificate satisfy
 * it? */
#include "forge/forge_internal.h"

#include <stdbool.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include "forge/forge.h"

SCOPED_DEFINE(name_constraints, NAME_CONSTRAINTS, NAME_CONSTRAINTS_free)
SCOPED_DEFINE(store_ctx, X509_STORE_CTX, X509_STORE_CTX_free)
SCOPED_DEFINE(borrowed, STACK_OF(X509), sk_X509_free) /* not the certificates in it */

#define scoped_store_ctx __attribute__((cleanup(scoped_store_ctx_free_))) X509_STORE_CTX
#define scoped_borrowed	 __attribute__((cleanup(scoped_borrowed_free_))) STACK_OF(X509)

#define scoped_name_constraints                                                                    \
	__attribute__((cleanup(scoped_name_constraints_free_))) NAME_CONSTRAINTS

/* ---- rule 3: is the CA fit, and the file it is in? ---- */

const char *forge_cert_unfit(X509 *ca)
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
	 * refuse what such a CA issues, and so would forge_check_issued().
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
int forge_file_len(const struct forge_ca *ca)
{
	return ca->chain ? 1 + sk_X509_num(ca->chain) : 1;
}

X509 *forge_file_cert(const struct forge_ca *ca, int i)
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
	X509 *cert = forge_file_cert(ca, i);
	long pathlen = X509_get_pathlen(cert), below = 0;

	if (!issued(cert, forge_file_cert(ca, i - 1)))
		return "did not issue the one before it";
	if (X509_get_extension_flags(cert) & EXFLAG_CRITICAL)
		return "has an unknown critical extension";
	if (X509_check_purpose(cert, X509_PURPOSE_SSL_CLIENT, 1) <= 0)
		return "is no CA for clients (CA:TRUE, keyCertSign, clientAuth or no EKU)";
	for (int j = 0; j < i; j++) {
		X509 *under = forge_file_cert(ca, j);

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
	const char *unfit = forge_cert_unfit(ca->cert);

	if (unfit) {
		snprintf(why, FORGE_WHY_MAX, "%s", unfit);
		return why;
	}
	for (int i = 1; i < forge_file_len(ca); i++) {
		unfit = above_unfit(ca, i);
		if (!unfit)
			continue;
		snprintf(why, FORGE_WHY_MAX, "certificate %d %s", i + 1, unfit);
		return why;
	}
	return NULL;
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
	return path_error(cert, file, forge_file_cert(ca, forge_file_len(ca) - 1), 0, now);
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
	for (int i = 0; error == X509_V_OK && i < forge_file_len(ca); i++)
		error = name_constraints_error(cert, forge_file_cert(ca, i));
	if (error == X509_V_OK)
		error = path_error(cert, NULL, ca->cert, X509_V_FLAG_X509_STRICT, now);
	if (error == X509_V_OK && ca->chain)
		error = file_error(ca, cert, now);
	return error == X509_V_OK ? signature_error(ca, cert) : error;
}

enum forge_error forge_check_issued(const struct forge_ca *ca, X509 *cert, time_t now,
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
