/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a forged certificate takes over from its original, as data: the rules
 * (numbers as in docs/forging.md), the extensions each is about, and what the
 * settings profile.<name>.forge.* change. Knows no certificate but those of
 * named issuers, and no configuration file.
 */
#ifndef KTLSGATE_FORGE_RULES_H
#define KTLSGATE_FORGE_RULES_H

#include <stdbool.h>
#include <stdio.h>
#include "base/scoped.h"

#define FORGE_WHY_MAX	     128
#define FORGE_URI_MAX	     1024 /* bytes of one URI */
#define FORGE_EKU_DEFAULT    "msSmartcardLogin pkInitClientAuth"
#define FORGE_POLICY_DEFAULT "drop"
#define FORGE_OFF	     "off"

/* The settings that are text. In the order of the documentation. */
enum forge_setting {
	FORGE_SET_COPY,
	FORGE_SET_DROP,
	FORGE_SET_MAP,
	FORGE_SET_ADD,
	FORGE_SET_EKU,
	FORGE_SET_POLICIES,
	FORGE_SET_TRUST_DOMAINS,
	FORGE_SET_PROVENANCE,
	FORGE_SETTINGS
};

enum forge_start {
	FORGE_START_NOW,     /* notBefore: now less the skew, or later */
	FORGE_START_ORIGINAL /* notBefore: the original's, or later */
};

/* An OID, and what belongs to it: another OID, or a value (of an extension: its DER). */
struct forge_item {
	ASN1_OBJECT *oid, *to;
	ASN1_OCTET_STRING *value;
	char *text; /* of settings that list no OIDs */
};
struct forge_list {
	struct forge_item *items;
	unsigned n;
};

struct forge_rules {
	enum forge_start start;
	struct forge_list lists[FORGE_SETTINGS]; /* of FORGE_SET_PROVENANCE at most one item */
	bool copy_policies;			 /* forge.policies = copy */
	STACK_OF(X509) * sid_issuers;		 /* borrowed; NULL: none */
};

/*
 * Rules without any setting: safe for whoever has not decided. NULL: out of
 * memory.
 */
struct forge_rules *forge_rules_new(void) must_check;
void forge_rules_free(struct forge_rules *r); /* NULL-safe */

/* "copy" for FORGE_SET_COPY; what may be written, in one phrase. */
const char *forge_setting_name(enum forge_setting s);
const char *forge_setting_range(enum forge_setting s);
/* By its name; FORGE_SETTINGS: there is none. */
enum forge_setting forge_setting_find(const char *name);

/*
 * Sets s to text, which replaces what was set before. Returns 0, or -EINVAL with
 * "what is wrong; what would be right" in why, or -ENOMEM. On failure r is not
 * changed. r NULL: text is only checked.
 */
int forge_rules_set(struct forge_rules *r, enum forge_setting s, const char *text,
		    char why[FORGE_WHY_MAX]) must_check;

/*
 * What contradicts itself among several settings: two that write the same
 * extension. NULL, or the end of a sentence that begins with the setting.
 */
const char *forge_rules_contradiction(const struct forge_rules *r, enum forge_setting *where,
				      char why[FORGE_WHY_MAX]) must_check;

/* The item of oid; NULL: it is not in the list. to: looks for item->to instead. */
const struct forge_item *forge_list_find(const struct forge_list *list, const ASN1_OBJECT *oid);
const struct forge_item *forge_list_find_to(const struct forge_list *list, const ASN1_OBJECT *oid);

/* Is the trust domain of n bytes in the list? */
bool forge_trusts_domain(const struct forge_rules *r, const char *domain, size_t n);

/* ---- the table ---- */

struct forge_rule {
	unsigned number;
	const char *field; /* of a certificate */
	const char *text;  /* what happens to it, and why */
	const char *key;   /* the setting that has a say; NULL: none */
};

extern const struct forge_rule forge_rule_table[];
extern const unsigned forge_rule_count;

/* The rule an extension falls under, never NULL. */
const struct forge_rule *forge_rule_of_extension(const ASN1_OBJECT *oid);
const struct forge_rule *forge_rule_by_number(unsigned number);

/* "rule TAB field TAB text TAB setting" lines. */
void forge_rules_print(FILE *out);

/* Does obj have this dotted OID? */
bool forge_has_oid(const ASN1_OBJECT *obj, const char *oid);

#define FORGE_OID_SID	  "1.3.6.1.4.1.311.25.2"   /* szOID_NTDS_CA_SECURITY_EXT */
#define FORGE_OID_SAN_SID "1.3.6.1.4.1.311.25.2.1" /* szOID_NTDS_OBJECTSID */

#endif
