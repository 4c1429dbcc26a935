// SPDX-License-Identifier: Apache-2.0
/*
 * ktlsgate-verify-cases DIR: the verdict of daemon/pki/verify.c on every case of
 * DIR/cases, one line each:
 *     NAME client|server TIME DEPTH PARTIAL_CHAIN CRL_CHECK
 * NAME/anchors.pem and NAME/chain.pem (leaf first) belong to it and, unless
 * CRL_CHECK is 0, NAME/crls.pem. Prints
 *     NAME ERROR DEPTH CHAIN_LENGTH CANDIDATES SIGNATURES TEXT
 * with ERROR -1 if the CRLs are unfit.
 */
#include <inttypes.h>
#include <string.h>
#include "pki/pem.h"
#include "pki/verify.h"

struct crls {
	STACK_OF(X509_CRL) * list;
};

static void crls_free(struct crls *c)
{
	sk_X509_CRL_pop_free(c->list, X509_CRL_free);
}

static STACK_OF(X509) * load(const char *dir, const char *name, const char *file)
{
	STACK_OF(X509) *certs = NULL;
	char path[4096], why[512];

	snprintf(path, sizeof(path), "%s/%s/%s", dir, name, file);
	if (pem_load_certs(path, &certs, why, sizeof(why))) {
		fprintf(stderr, "%s: %s\n", path, why);
		exit(2);
	}
	return certs;
}

static void print_verdict(const char *name, const struct verify_result *r)
{
	printf("%s %d %d %d %u %u %s\n", name, r->error, r->depth,
	       r->chain ? sk_X509_num(r->chain) : 0, r->candidates, r->signatures,
	       verify_error_text(r->error));
}

static void judge(const char *dir, const char *name, enum verify_purpose purpose, time_t now,
		  struct verify_policy policy)
{
	scoped_certs *anchors = load(dir, name, "anchors.pem");
	scoped_certs *chain = load(dir, name, "chain.pem");
	__attribute__((cleanup(crls_free))) struct crls crls = {sk_X509_CRL_new_null()};
	char path[4096], why[512];
	struct verify_result r;
	struct verifier *v;
	int ret;

	snprintf(path, sizeof(path), "%s/%s/crls.pem", dir, name);
	if (policy.crl_check && pem_load_crls(path, crls.list, why, sizeof(why))) {
		printf("%s -1 0 0 0 0 %s\n", name, why);
		return;
	}
	policy.crls = crls.list;
	v = verifier_new(anchors, &policy);
	if (!v)
		exit(2);
	ret = verify_chain(v, purpose, sk_X509_value(chain, 0), chain, now, &r);
	if (!ret != !r.error || !ret != !!r.chain)
		exit(2);
	print_verdict(name, &r);
	sk_X509_pop_free(r.chain, X509_free);
	verifier_free(v);
}

int main(int argc, char **argv)
{
	char path[4096], name[256], purpose[16];
	unsigned depth, partial, crl_check;
	scoped_file *f = NULL;
	int64_t now;

	if (argc != 2)
		return 2;
	snprintf(path, sizeof(path), "%s/cases", argv[1]);
	f = fopen(path, "re");
	if (!f)
		return 2;
	while (fscanf(f, "%255s %15s %" SCNd64 " %u %u %u", name, purpose, &now, &depth, &partial,
		      &crl_check) == 6) {
		struct verify_policy policy = VERIFY_POLICY_DEFAULT;

		policy.depth = depth;
		policy.partial_chain = partial;
		policy.crl_check = crl_check;
		judge(argv[1], name, strcmp(purpose, "server") ? VERIFY_CLIENT : VERIFY_SERVER, now,
		      policy);
	}
	return 0;
}
