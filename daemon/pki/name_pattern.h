/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Patterns for the names in a certificate, "KIND:PATTERN": certkey.<name>.policy.names. A name is
 * compared part by part, never as one text: docs/forging.md has the rules.
 */
#ifndef KTLSGATE_NAME_PATTERN_H
#define KTLSGATE_NAME_PATTERN_H

#include <stdbool.h>
#include <stddef.h>
#include <openssl/x509v3.h>
#include "base/scoped.h"

#define NAME_PATTERN_MAX     1024 /* bytes of one */
#define NAME_PATTERN_WHY_MAX 160

/*
 * Is each of the patterns, separated by blanks, well formed? Returns 0, or -EINVAL with the first
 * that is not, "the pattern ... what is wrong; what would be right", or -ENOMEM.
 */
int name_patterns_check(const char *patterns, char why[NAME_PATTERN_WHY_MAX]) must_check;

/* Is there one for subjects? */
bool name_patterns_have_subject(const char *patterns) must_check;

/* Does one fit? 1, 0, or -ENOMEM. patterns: well formed. */
int name_patterns_fit(const char *patterns, const GENERAL_NAME *name) must_check;
int name_patterns_fit_subject(const char *patterns, const X509_NAME *subject) must_check;

#endif
