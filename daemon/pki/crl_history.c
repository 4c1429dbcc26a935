// SPDX-License-Identifier: Apache-2.0
/* CRLs in force to lines, and a list against such lines. Knows no file and no configuration. */
#include "pki/crl_history.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509v3.h>
#include "pki/crl.h"
#include "pki/identity.h"

#define DIGEST_HEX    (2 * FINGERPRINT_LEN + 1)
#define NUMBER_BITS   160 /* RFC 5280 5.2.3: 20 octets */
#define NUMBER_HEX    (NUMBER_BITS / 4 + 2)
#define NO_NUMBER     "none"
#define LIST_NAME_MAX 256
#define ISSUER_MAX    256

/* What a line says. */
struct entry {
	char list[LIST_NAME_MAX];
	char files[DIGEST_HEX]; /* as configured */
	char place[DIGEST_HEX]; /* issuer, key identifier and scope */
	int64_t made;		/* thisUpdate */
	char number[NUMBER_HEX];
	char issuer[ISSUER_MAX];
};

/* ---- a CRL ---- */

static int digest_files(const char *files, char out[DIGEST_HEX])
{
	uint8_t print[FINGERPRINT_LEN];

	if (!EVP_Digest(files, strlen(files), print, NULL, EVP_sha256(), NULL))
		return -ENOMEM;
	identity_hex(print, sizeof(print), out);
	return 0;
}

/* A length in front of each, so that no two differ only in where one begins. */
static bool add_octets(EVP_MD_CTX *md, const uint8_t *octets, size_t len)
{
	uint64_t n = len;

	return EVP_DigestUpdate(md, &n, sizeof(n)) && EVP_DigestUpdate(md, octets, len);
}

static bool add_extension(EVP_MD_CTX *md, const X509_CRL *crl, int nid)
{
	X509_EXTENSION *ext = X509_CRL_get_ext(crl, X509_CRL_get_ext_by_NID(crl, nid, -1));
	const ASN1_OCTET_STRING *value = ext ? X509_EXTENSION_get_data(ext) : NULL;

	return value ? add_octets(md, ASN1_STRING_get0_data(value),
				  (size_t)ASN1_STRING_length(value))
		     : add_octets(md, NULL, 0);
}

static int digest_place(const X509_CRL *crl, char out[DIGEST_HEX])
{
	scoped_mdctx *md = EVP_MD_CTX_new();
	uint8_t print[FINGERPRINT_LEN];
	const uint8_t *name;
	size_t len;

	if (!md || !X509_NAME_get0_der(X509_CRL_get_issuer(crl), &name, &len) ||
	    !EVP_DigestInit_ex(md, EVP_sha256(), NULL) || !add_octets(md, name, len) ||
	    !add_extension(md, crl, NID_authority_key_identifier) ||
	    !add_extension(md, crl, NID_issuing_distribution_point) ||
	    !EVP_DigestFinal_ex(md, print, NULL))
		return -ENOMEM;
	identity_hex(print, sizeof(print), out);
	return 0;
}

/* NO_NUMBER: there is none that can be compared. */
static void number_of(const X509_CRL *crl, char out[NUMBER_HEX])
{
	ASN1_INTEGER *number = X509_CRL_get_ext_d2i(crl, NID_crl_number, NULL, NULL);
	scoped_bn *bn = number ? ASN1_INTEGER_to_BN(number, NULL) : NULL;
	char *hex =
		bn && !BN_is_negative(bn) && BN_num_bits(bn) <= NUMBER_BITS ? BN_bn2hex(bn) : NULL;

	snprintf(out, NUMBER_HEX, "%s", hex ? hex : NO_NUMBER);
	OPENSSL_free(hex);
	ASN1_INTEGER_free(number);
	ERR_clear_error();
}

/* False as well if one is NO_NUMBER, of which no digit can be read. */
static bool is_less(const char *number, const char *than)
{
	scoped_bn *a = NULL, *b = NULL;
	bool both = BN_hex2bn(&a, number) > 0 && BN_hex2bn(&b, than) > 0;

	ERR_clear_error();
	return both && BN_cmp(a, b) < 0;
}

/* ---- lines ---- */

/*
 * Of a CRL that nobody could verify yet the number is not kept, nor a date to come: else a forged
 * one would keep out those that follow it.
 */
static int write_entry(const struct crl_list *l, const char *files, X509_CRL *crl, FILE *out)
{
	char place[DIGEST_HEX], number[NUMBER_HEX] = NO_NUMBER, issuer[ISSUER_MAX];
	int64_t made = crl_this_update(crl), now = time(NULL);

	if (digest_place(crl, place))
		return -ENOMEM;
	if (crl_signer(crl, l->cas) == CRL_SIGNER_KNOWN)
		number_of(crl, number);
	else if (made > now)
		made = now;
	identity_subject(X509_CRL_get_issuer(crl), issuer, sizeof(issuer));
	fprintf(out, "%s %s %s %" PRId64 " %s %s\n", l->name, files, place, made, number, issuer);
	return 0;
}

int crl_history_write(const struct crl_list *l, FILE *out)
{
	char files[DIGEST_HEX];
	int err = digest_files(l->files, files);

	for (int i = 0; !err && i < sk_X509_CRL_num(l->crls); i++) {
		X509_CRL *crl = sk_X509_CRL_value(l->crls, i);

		if (!crl_superseded(l->crls, crl))
			err = write_entry(l, files, crl, out);
	}
	return err;
}

/* The widths below. */
_Static_assert(DIGEST_HEX == 65 && NUMBER_HEX == 42, "of digits");
_Static_assert(LIST_NAME_MAX == 256, "of a list's name");
_Static_assert(ISSUER_MAX == 256, "of an issuer");

static bool read_entry(const char *line, struct entry *out)
{
	*out->issuer = '\0';
	return sscanf(line, "%255s %64s %64s %" SCNd64 " %41s %255[^\n]", out->list, out->files,
		      out->place, &out->made, out->number, out->issuer) >= 5;
}

/* ---- comparing ---- */

/* The newest in that place; *out NULL: there is none. */
static int find_newest(const struct crl_list *l, const char *place, const X509_CRL **out)
{
	char its[DIGEST_HEX];

	*out = NULL;
	for (int i = 0; i < sk_X509_CRL_num(l->crls); i++) {
		const X509_CRL *crl = sk_X509_CRL_value(l->crls, i);

		if (digest_place(crl, its))
			return -ENOMEM;
		if (!strcmp(its, place) && (!*out || crl_this_update(crl) > crl_this_update(*out)))
			*out = crl;
	}
	return 0;
}

static void date(int64_t seconds, char out[32])
{
	time_t t = (time_t)seconds;
	struct tm tm;

	if (!gmtime_r(&t, &tm) || !strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &tm))
		snprintf(out, 32, "?");
}

#define CURE "; give the newest one, or restart ktlsgated if this is meant"

static void compare(const struct entry *e, const X509_CRL *newest,
		    void (*complain)(void *arg, const char *what), void *arg)
{
	char what[ISSUER_MAX + 200], is[32], was[32], number[NUMBER_HEX];

	number_of(newest, number);
	date(crl_this_update(newest), is);
	date(e->made, was);
	if (crl_this_update(newest) < e->made)
		snprintf(what, sizeof(what), "the CRL of %s is of %s, and that in force of %s" CURE,
			 e->issuer, is, was);
	else if (is_less(number, e->number))
		snprintf(what, sizeof(what),
			 "the CRL of %s has the number %s, and that in force %s (hexadecimal)" CURE,
			 e->issuer, number, e->number);
	else
		return;
	complain(arg, what);
}

static int check_entry(const struct entry *e, const struct crl_list *l, const char *files,
		       void (*complain)(void *arg, const char *what), void *arg)
{
	char what[ISSUER_MAX + 160];
	const X509_CRL *newest;
	int err = find_newest(l, e->place, &newest);

	if (err)
		return err;
	if (newest) {
		compare(e, newest, complain, arg);
	} else if (!strcmp(e->files, files)) {
		snprintf(what, sizeof(what),
			 "there is no CRL of %s any more, and one is in force" CURE, e->issuer);
		complain(arg, what);
	}
	return 0;
}

int crl_history_check(const char *history, const struct crl_list *l,
		      void (*complain)(void *arg, const char *what), void *arg)
{
	char files[DIGEST_HEX];
	int err = digest_files(l->files, files);
	struct entry e;

	while (!err && history && *history) {
		if (read_entry(history, &e) && !strcmp(e.list, l->name))
			err = check_entry(&e, l, files, complain, arg);
		history += strcspn(history, "\n");
		history += *history == '\n';
	}
	return err;
}
