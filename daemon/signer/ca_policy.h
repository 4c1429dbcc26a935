/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For whom a forging CA may be used, whatever profile or worker asks for it:
 * certkey.<name>.policy.*. Held by the signer alone.
 */
#ifndef KTLSGATE_CA_POLICY_H
#define KTLSGATE_CA_POLICY_H

#include "config/config.h"
#include "pki/identity.h"

enum ca_refusal {
	CA_MAY,
	CA_OTHER_CLIENT_CA, /* the client's chain ends in an anchor that is not policy.client_ca's
			     */
	CA_NAME,	    /* a name that no pattern of policy.names fits */
	CA_TRUST_DOMAIN,    /* a SPIFFE ID of a domain that is not in policy.trust_domains */
	CA_MEMORY,
	CA_REFUSALS
};

const char *ca_refusal_text(enum ca_refusal r);

/* A CA's policy and how much of its rate is used up. All zero but cfg to begin with. */
struct ca_policy {
	const struct cfg_ca_policy *cfg; /* borrowed */
	double tokens;
	uint64_t at_ms; /* when tokens was right; 0: never */
};

enum ca_refusal ca_policy_check(const struct ca_policy *p, const struct identity *id) must_check;

/* Is there one left of policy.rate at now_ms, a clock that only goes on? Takes it. */
bool ca_policy_take(struct ca_policy *p, uint64_t now_ms) must_check;

#endif
