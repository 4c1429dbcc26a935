/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files types_*.c share. Nobody else includes this.
 */
#ifndef KTLSGATE_TYPES_INTERNAL_H
#define KTLSGATE_TYPES_INTERNAL_H

#include "config/config_types.h"

/* ---- types_scalar.c ---- */

int printf_like(2, 3) type_wrong(char *why, const char *fmt, ...);
int type_wrong_value(const struct cfg_key *k, char *why, const char *what);
int type_set_string(void *member, const char *text, char *why);
bool type_read_digits(const char **p, uint64_t *out);

/* ---- types_text.c ---- */

void type_print_string(const struct cfg_key *k, const void *member, FILE *out);
bool type_hostname_valid(const char *s);

#endif
