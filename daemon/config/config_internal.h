/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What config_load.c, config_files.c and config_check.c share: the loader and the report of its
 * errors. Nobody else includes this.
 */
#ifndef KTLSGATE_CONFIG_INTERNAL_H
#define KTLSGATE_CONFIG_INTERNAL_H

#include "config/config_table.h"

#define for_each_object(cfg, s, i) for (unsigned i = 0; i < cfg_count(cfg, s); i++)

struct complaint {
	struct cfg_where at; /* line 0: about the configuration as a whole */
	unsigned number;     /* order of finding, among those of one line */
	char *text;
};

struct report {
	const char *path; /* of the first text */
	struct complaint *complaints;
	unsigned n;
	bool out_of_memory;
};

/* The last assignment to one key of one object. */
struct said {
	char *value; /* NULL: no text says */
	struct cfg_where at;
	bool wrong; /* complained about: nothing can be concluded from the member */
};

struct notes {
	struct cfg_where at; /* where the object was first named */
	struct said *said;   /* by row of the table */
};

/* What is looked at, each with all before it. */
enum depth {
	TEXTS,
	CERTIFICATES,
	KEYS
};

struct loader {
	const struct cfg_texts *texts;
	struct config *cfg;
	enum depth depth; /* KEYS: all that can be, signatures of CRLs, too */
	const char *crl_history;
	struct report report;
	struct notes *notes[SCOPES]; /* by index of the object */
	unsigned n_notes[SCOPES];
};

/* ---- config_load.c ---- */

void printf_like(3, 4) cfg_complain(struct report *r, struct cfg_where at, const char *fmt, ...);
int cfg_report_end(struct report *r, FILE *errors);
struct said *cfg_said(const struct loader *l, const struct cfg_key *k, unsigned object);
const struct cfg_key *cfg_row(const char *pattern);
void printf_like(4, 5) cfg_complain_at(struct loader *l, const struct cfg_key *k, unsigned object,
				       const char *fmt, ...);

/* ---- config_files.c ---- */

struct crl_list cfg_crls_of(const struct cfg_profile *p, const struct cfg_revocation *r,
			    char name[CFG_KEY_MAX]);
void cfg_load_certificates(struct loader *l);
void cfg_make_rules(struct loader *l, struct cfg_profile *p);
void cfg_check_fallback(struct loader *l, const struct cfg_profile *p);
void cfg_check_certkeys(struct loader *l);
void cfg_check_keys(struct loader *l);

/* ---- config_check.c ---- */

void cfg_check_profiles(struct loader *l);
void cfg_check_services(struct loader *l);
void cfg_check_own_addresses(struct loader *l);
void cfg_check_vservers(struct loader *l);
void cfg_settle_workers(struct loader *l);
void cfg_settle_limits(struct config *cfg);
void cfg_derive_bindings(struct loader *l);

#endif
