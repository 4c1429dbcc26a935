/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which CRLs are in force, as lines of text, for the next configuration to be held against: it must
 * not go back behind them. Whoever keeps the text between two configurations need not read it.
 */
#ifndef KTLSGATE_CRL_HISTORY_H
#define KTLSGATE_CRL_HISTORY_H

#include <stdio.h>
#include <openssl/x509.h>
#include "base/scoped.h"

/* The CRLs of one setting. */
struct crl_list {
	const char *name;		 /* of the setting, without blanks; the same next time */
	const char *files;		 /* as configured */
	const STACK_OF(X509_CRL) * crls; /* fit (crl.h) */
	const STACK_OF(X509) * cas;	 /* those that are known */
};

/* A line for each CRL that is not superseded. Returns 0 or -ENOMEM. */
int crl_history_write(const struct crl_list *l, FILE *out) must_check;

/*
 * Calls complain for each CRL of the text of that list's name in whose place (issuer, key
 * identifier and scope) the list has an older one; or none, though the same files were read. what
 * is fit for the end of an error line. Returns 0 or -ENOMEM.
 */
int crl_history_check(const char *history, const struct crl_list *l,
		      void (*complain)(void *arg, const char *what), void *arg) must_check;

#endif
