/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the signer process share. Nobody else includes this.
 */
#ifndef KTLSGATE_SIGNER_INTERNAL_H
#define KTLSGATE_SIGNER_INTERNAL_H

#include <stddef.h>
#include "signer/audit.h"
#include "signer/ca_policy.h"
#include "forge/forge.h"
#include "signer/signer.h"
#include "pki/verify.h"

#define REQUEST_HEAD offsetof(struct signer_request, data)

#define RESPONSE_HEAD offsetof(struct signer_response, data)

/* What one vserver's clients are checked against. verifier NULL: it does not forge. */
struct issuer {
	const struct cfg_vserver *vserver;
	struct verifier *verifier;
	X509 *server; /* the first of the vserver's certificates; borrowed */
	uint8_t (*servers)[TRANSCRIPT_SERVER_LEN]; /* what each of them is known by */
	unsigned n_servers;
};

/* How is forged for the services of one profile. */
struct forging {
	struct forge_ca *cas;
	unsigned n_cas; /* 0: nothing is */
	struct forge_policy policy;
};

/* An answer that its worker had no room for; NULL: none. */
struct unsent {
	uint8_t *answer;
	size_t len;
};

struct signer {
	const struct config *cfg; /* borrowed */
	struct issuer *issuers;	  /* by vserver index */
	unsigned n_issuers;
	struct forging *forgings; /* by profile index */
	unsigned n_forgings;
	uint8_t serial_key[FORGE_SERIAL_KEY_LEN];
	struct audit *audit;	    /* NULL: off */
	struct ca_policy *policies; /* by certkey index */
	struct signer_memory memory;
	uint64_t epoch;	     /* published last */
	uint64_t window;     /* epochs: so old may a handshake be */
	unsigned token_life; /* seconds: the longest of all vservers' */
	int epoll;
	const int *fds;
	struct unsent *unsent; /* by worker */
	unsigned n;
};

struct verdict {
	enum signer_status status;
	int detail;
};

/* A request's parts, inside the message. */
struct request {
	const uint8_t *key, *signature, *transcript, *ocsp;
	struct signer_request head; /* last: it ends in data[] */
};

/* ---- signer_decide.c ---- */

struct verdict signer_decide(struct signer *s, const struct request *req, time_t now,
			     struct signer_response *out, EVP_PKEY **key, X509 **cert);
EVP_PKEY *signer_parse_key(const uint8_t *der, size_t len);
bool signer_key_is_fit(EVP_PKEY *key);

/* ---- wire.c ---- */

bool signer_parse_request(const uint8_t *message, size_t len, struct request *req);

#endif
