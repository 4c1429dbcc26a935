/* SPDX-License-Identifier: Apache-2.0 */
/* The types of configuration values, for the table of keys. What may be written, `range` says. */
#ifndef KTLSGATE_CONFIG_TYPES_H
#define KTLSGATE_CONFIG_TYPES_H

#include "config/config_table.h"

#define MINUTE 60u
#define HOUR   (60 * MINUTE)
#define DAY    (24 * HOUR)

#define WORKERS_MAX 256 /* `auto` is no more either */

extern const struct cfg_type type_choice, type_boolean, type_number, type_workers, type_limit,
	type_cpus, type_duration, type_file, type_der_file, type_files, type_secret_file, type_path,
	type_user, type_group, type_rcvbuf, type_sndbuf, type_backlog, type_congestion_control,
	type_hostname, type_rule, type_patterns, type_domains, type_uris, type_address,
	type_backend, type_listens, type_words, type_alpn, type_prefixes, type_http_url, type_aia;
extern const struct cfg_type cfg_type_reference;  /* the member is a pointer to an object */
extern const struct cfg_type cfg_type_references; /* the member is a struct cfg_list */

/* Cuts the next of a list of files, separated by white space, off *text; NULL: there is none. */
char *cfg_next_file(char **text);

/* ADDRESS or ADDRESS/LENGTH. 0, or -EINVAL with "what is wrong; what would be right" in why. */
int cfg_parse_prefix(const char *text, struct cfg_prefix *out, char why[CFG_WHY_MAX]) must_check;
void cfg_print_prefix(const struct cfg_prefix *p, FILE *out);

#endif
