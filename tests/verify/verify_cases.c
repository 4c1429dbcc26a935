// SPDX-License-Identifier: Apache-2.0
/*
 * ktlsgate-verify-cases DIR: the verdict of daemon/verify.c on every case of
 * DIR/cases, one line each:
 *     NAME client|server TIME DEPTH PARTIAL_CHAIN
 * NAME/anchors.pem and NAME/chain.pem (leaf first) belong to it. Prints
 *     NAME ERROR DEPTH CHAIN_LENGTH CANDIDATES SIGNATURES TEXT
 */
#include <inttypes.h>
#include <string.h>
#include "pem.h"
#include "verify.h"

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

int main(int argc, char **argv)
{
	char path[4096], name[256], purpose[16];
	unsigned depth, partial;
	int64_t now;
	FILE *f;

	if (argc != 2)
		return 2;
	snprintf(path, sizeof(path), "%s/cases", argv[1]);
	f = fopen(path, "re");
	if (!f)
		return 2;
	while (fscanf(f, "%255s %15s %" SCNd64 " %u %u", name, purpose, &now, &depth, &partial) ==
	       5) {
		struct verify_policy policy = VERIFY_POLICY_DEFAULT;
		scoped_certs *anchors = load(argv[1], name, "anchors.pem");
		scoped_certs *chain = load(argv[1], name, "chain.pem");
		struct verify_result r;
		struct verifier *v;
		int n;

		policy.depth = depth;
		policy.partial_chain = partial;
		v = verifier_new(anchors, &policy);
		if (!v)
			return 2;
		if (verify_chain(v, strcmp(purpose, "server") ? VERIFY_CLIENT : VERIFY_SERVER,
				 sk_X509_value(chain, 0), chain, now, &r) == 0 &&
		    r.error)
			return 2;
		n = r.chain ? sk_X509_num(r.chain) : 0;
		printf("%s %d %d %d %u %u %s\n", name, r.error, r.depth, n, r.candidates,
		       r.signatures, verify_error_text(r.error));
		sk_X509_pop_free(r.chain, X509_free);
		verifier_free(v);
	}
	fclose(f);
	return 0;
}
