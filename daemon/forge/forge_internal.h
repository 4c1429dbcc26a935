/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What forge.c and forge_ca.c share. Nobody else includes this.
 */
#ifndef KTLSGATE_FORGE_INTERNAL_H
#define KTLSGATE_FORGE_INTERNAL_H

#include "forge/forge.h"

/* ---- forge_ca.c ---- */

const char *forge_cert_unfit(X509 *ca);
int forge_file_len(const struct forge_ca *ca);
X509 *forge_file_cert(const struct forge_ca *ca, int i);
enum forge_error forge_check_issued(const struct forge_ca *ca, X509 *cert, time_t now,
				    FILE *explain);

#endif
