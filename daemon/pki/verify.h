/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Verification of a peer's certificate chain: the same code in the worker, in
 * the signer and in ktlsgate-forge, for clients and for backends. Pure:
 * certificates in, verdict out. docs/verify.md has the rules.
 */
#ifndef KTLSGATE_VERIFY_H
#define KTLSGATE_VERIFY_H

#include <stdbool.h>
#include <time.h>
#include <openssl/x509.h>
#include "base/scoped.h"

enum verify_purpose {
	VERIFY_CLIENT,
	VERIFY_SERVER
};

/* Verdicts that OpenSSL has no X509_V_ERR_* for. */
enum verify_error {
	VERIFY_ERR_KEY = 0x1000, /* a kind of key that is refused, or one that is no good */
	VERIFY_ERR_SERIAL,
	VERIFY_ERR_BUDGET,
	VERIFY_ERR_CRL_MISSING,
	VERIFY_ERR_CRL_EXPIRED,
	VERIFY_ERR_OCSP, /* of the signer: it was shown no answer that it believes */
	/* More than is taken; verify_result.excess has the numbers. */
	VERIFY_ERR_CERTIFICATES,
	VERIFY_ERR_BYTES,
	VERIFY_ERR_EXTENSIONS,
	VERIFY_ERR_NAMES,
	VERIFY_ERR_RDNS,
	VERIFY_ERR_PURPOSES,
	VERIFY_ERR_POLICIES,
	VERIFY_ERR_POINTS,
	VERIFY_ERR_COPIES,
	VERIFY_ERR_CONSTRAINTS,
	VERIFY_ERR_RESOURCES,
	VERIFY_ERR_COMPARISONS,
	VERIFY_ERR_CRL_INVALID /* there is a CRL in the issuer's name, but it is not valid */
};

/* Whether an answer about revocation is looked for, and whether a path is refused without one. */
enum verify_revocation {
	REVOCATION_OFF,
	REVOCATION_OPTIONAL,
	REVOCATION_MANDATORY
};

/* What is refused, beyond RFC 5280. */
struct verify_policy {
	unsigned depth;	    /* intermediates at most, up to PATH_DEPTH_MAX */
	unsigned rsa_bits;  /* RSA keys at least */
	unsigned ec_bits;   /* EC keys at least */
	bool partial_chain; /* an anchor need not be self-signed */
	enum verify_revocation crl_check;
	const STACK_OF(X509_CRL) * crls; /* borrowed; fit (crl.h) */
};

#define VERIFY_POLICY_DEFAULT                                                                      \
	((struct verify_policy){.depth = 10, .rsa_bits = 2048, .ec_bits = 256})

/* What a peer may send, leaf included. One limit for libssl, the worker and the signer. */
#define VERIFY_SENT_MAX	 64    /* certificates: reading one costs 40 us */
#define VERIFY_BYTES_MAX 32768 /* of DER */
/* What one certificate may hold. */
#define VERIFY_EXTENSIONS_MAX  64
#define VERIFY_NAMES_MAX       1024 /* in a subjectAltName */
#define VERIFY_RDNS_MAX	       64   /* attributes in subject or issuer */
#define VERIFY_PURPOSES_MAX    64
#define VERIFY_POLICIES_MAX    64
#define VERIFY_POINTS_MAX      32 /* CRL distribution points */
#define VERIFY_CONSTRAINTS_MAX 512
#define VERIFY_RESOURCES_MAX   512 /* RFC 3779 */
/* What one verification may cost. */
#define VERIFY_COPIES_MAX      1024 /* OpenSSL copies the issuer's attributes for each point */
#define VERIFY_CANDIDATES_MAX  16
#define VERIFY_SIGNATURES_MAX  100
#define VERIFY_COMPARISONS_MAX 32768 /* of a name with a constraint, in one candidate */
/* No further candidate is begun behind either: the first is always judged. */
#define VERIFY_SIGNATURES_US_MAX 6000 /* of signature checks, as verify_rules_cost() estimates */
#define VERIFY_CPU_MS_MAX	 250  /* of this thread: whatever nobody has thought of */

struct verifier;

struct verify_excess {
	unsigned n, max;
};

struct verify_result {
	int error; /* X509_V_OK, or the X509_V_ERR_* or enum verify_error of the refusal */
	int depth; /* of the certificate at fault; 0 is the leaf */
	X509 *at;  /* that certificate, borrowed from what was given; NULL: unknown */
	unsigned candidates, signatures; /* what it took */
	struct verify_excess excess;	 /* of the errors that say that something is too much */
	STACK_OF(X509) *
		chain; /* leaf first, anchor last; owned by the caller; NULL unless verified */
};

/*
 * What the chains of one profile's peers are verified against. Of cas, the
 * self-signed are trust anchors, with partial_chain all; the others may stand in a
 * path. Copies nothing but references. NULL on allocation failure. Shared between
 * threads read-only.
 */
struct verifier *verifier_new(const STACK_OF(X509) * cas,
			      const struct verify_policy *policy) must_check;
void verifier_free(struct verifier *v); /* NULL-safe */

/*
 * Verifies leaf at time now (seconds since the epoch) as RFC 5280 section 6
 * wants it: every path that can be built from untrusted (what the peer sent, may
 * be NULL) to an anchor is tried within a fixed budget, the likeliest first, until
 * X509_verify_cert() with X509_V_FLAG_X509_STRICT and our own rules take one.
 * The budget: the limits above and path.h's, whatever is sent. Certificates that hold more than
 * they may are refused before anything is computed. If no candidate is taken, the verdict is that
 * of the one that came nearest.
 *
 * A client's leaf must be for clientAuth and signing and no CA; a server's for serverAuth.
 * Returns 0 with out->error == X509_V_OK and the verified chain, -EACCES with
 * the verdict in out, or -ENOMEM.
 */
int verify_chain(const struct verifier *v, enum verify_purpose purpose, X509 *leaf,
		 const STACK_OF(X509) * untrusted, time_t now,
		 struct verify_result *out) must_check;

/* Of a verify_result's error. */
const char *verify_error_text(int error);

/* The same, with the numbers and the certificate if something was too much. */
void verify_result_text(const struct verify_result *r, char *buf, size_t len);

#endif
