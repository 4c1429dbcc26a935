/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Original and forged certificate side by side, with the rule behind each field.
 */
#ifndef KTLSGATE_FORGE_EXPLAIN_H
#define KTLSGATE_FORGE_EXPLAIN_H

#include <stdio.h>
#include <openssl/x509.h>
#include "forge/forge_rules.h"
#include "base/scoped.h"

/* One block per field: its name, both values, the rule's number and text. */
void forge_explain(FILE *out, const struct forge_rules *rules, X509 *original, X509 *forged);

#endif
