// SPDX-License-Identifier: Apache-2.0
/*
 * Types of configuration values that are text: files, paths, users, host names, rules for forged
 * certificates, application protocols, references to objects. Knows no key.
 */
#include "config/types_internal.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdarg.h>
#include <string.h>
#include <strings.h>
#include "config/config_types.h"
#include "pki/name_pattern.h"

/* ---- strings: files, paths, users, host names ---- */

void type_print_string(const struct cfg_key *k, const void *member, FILE *out)
{
	(void)k;
	fputs(*(char *const *)member, out);
}

/* Whether it can be read is seen when it is read. */
static int parse_file(const struct cfg_key *k, const char *text, void *member, char *why)
{
	(void)k;
	return type_set_string(member, text, why);
}

static void range_file(const struct cfg_key *k, FILE *out)
{
	(void)k;
	fputs("a PEM file", out);
}

const struct cfg_type type_file = {
	.name = "file",
	.parse = parse_file,
	.print = type_print_string,
	.range = range_file,
	.owns_string = true,
};

static void range_der_file(const struct cfg_key *k, FILE *out)
{
	(void)k;
	fputs("a DER file", out);
}

const struct cfg_type type_der_file = {
	.name = "file",
	.parse = parse_file,
	.print = type_print_string,
	.range = range_der_file,
	.owns_string = true,
};

static void range_files(const struct cfg_key *k, FILE *out)
{
	(void)k;
	fputs("files, PEM or DER", out);
}

const struct cfg_type type_files = {
	.name = "files",
	.parse = parse_file,
	.print = type_print_string,
	.range = range_files,
	.owns_string = true,
};

char *cfg_next_file(char **text)
{
	char *file;

	do
		file = strsep(text, " \t");
	while (file && !*file);
	return file;
}

static void range_secret_file(const struct cfg_key *k, FILE *out)
{
	(void)k;
	fputs("a file | credential:NAME (of systemd)", out);
}

const struct cfg_type type_secret_file = {
	.name = "file",
	.parse = parse_file,
	.print = type_print_string,
	.range = range_secret_file,
	.owns_string = true,
};

static int parse_path(const struct cfg_key *k, const char *text, void *member, char *why)
{
	char **path = member;

	if (k->word && !strcasecmp(text, k->word)) {
		free(*path);
		*path = NULL;
		return 0;
	}
	if (text[0] != '/')
		return type_wrong_value(k, why, "is not an absolute path");
	if (strlen(text) > k->max)
		return type_wrong(why, "is too long; use at most %u bytes", k->max);
	return type_set_string(member, text, why);
}

static void print_path(const struct cfg_key *k, const void *member, FILE *out)
{
	const char *path = *(char *const *)member;

	fputs(path ? path : k->word, out);
}

static void range_path(const struct cfg_key *k, FILE *out)
{
	fprintf(out, "%s%san absolute path", k->word ? k->word : "", k->word ? " | " : "");
}

const struct cfg_type type_path = {
	.name = "path",
	.parse = parse_path,
	.print = print_path,
	.range = range_path,
	.owns_string = true,
};

static int parse_user(const struct cfg_key *k, const char *text, void *member, char *why)
{
	errno = 0;
	if (!getpwnam(text))
		return type_wrong_value(k, why, "is no user of this system");
	return type_set_string(member, text, why);
}

static void range_user(const struct cfg_key *k, FILE *out)
{
	(void)k;
	fputs("the name of a user, e.g. ktlsgate", out);
}

const struct cfg_type type_user = {
	.name = "user",
	.parse = parse_user,
	.print = type_print_string,
	.range = range_user,
	.owns_string = true,
};

static int parse_group(const struct cfg_key *k, const char *text, void *member, char *why)
{
	if (!getgrnam(text))
		return type_wrong_value(k, why, "is no group of this system");
	return type_set_string(member, text, why);
}

static void range_group(const struct cfg_key *k, FILE *out)
{
	(void)k;
	fputs("the name of a group, e.g. adm", out);
}

const struct cfg_type type_group = {
	.name = "group",
	.parse = parse_group,
	.print = type_print_string,
	.range = range_group,
	.owns_string = true,
};

static int parse_congestion_control(const struct cfg_key *k, const char *text, void *member,
				    char *why)
{
	(void)k;
	if (sockopt_congestion_check(text, why, CFG_WHY_MAX))
		return -EINVAL;
	return type_set_string(member, text, why);
}

static void range_congestion_control(const struct cfg_key *k, FILE *out)
{
	(void)k;
	fputs("a name of the sysctl net.ipv4.tcp_allowed_congestion_control", out);
}

const struct cfg_type type_congestion_control = {
	.name = "name",
	.parse = parse_congestion_control,
	.print = type_print_string,
	.range = range_congestion_control,
	.owns_string = true,
};

/* Letters, digits, '-' and (found inside of companies) '_'; 1..63 bytes between the dots. */
bool type_hostname_valid(const char *s)
{
	size_t label = 0, len = strlen(s);

	for (const char *p = s; *p; p++) {
		if (*p == '.' ? !label || p[-1] == '-'
			      : !isalnum((unsigned char)*p) && *p != '_' && (*p != '-' || !label))
			return false;
		label = *p == '.' ? 0 : label + 1;
		if (label > 63)
			return false;
	}
	return label && s[len - 1] != '-' && len <= 253;
}

static int parse_hostname(const struct cfg_key *k, const char *text, void *member, char *why)
{
	struct in6_addr a;

	if (inet_pton(AF_INET, text, &a) == 1 || inet_pton(AF_INET6, text, &a) == 1)
		return type_wrong_value(k, why,
					"is an address, and SNI carries names only (RFC 6066)");
	if (!type_hostname_valid(text))
		return type_wrong_value(k, why, "is not a DNS name");
	return type_set_string(member, text, why);
}

static void range_hostname(const struct cfg_key *k, FILE *out)
{
	(void)k;
	fputs("a DNS name, e.g. backend.example", out);
}

const struct cfg_type type_hostname = {
	.name = "name",
	.parse = parse_hostname,
	.print = type_print_string,
	.range = range_hostname,
	.owns_string = true,
};

/* ---- rules for forged certificates: forge_rules.c knows them ---- */

static enum forge_setting forge_setting_of(const struct cfg_key *k)
{
	return forge_setting_find(strrchr(k->pattern, '.') + 1);
}

static int parse_rule(const struct cfg_key *k, const char *text, void *member, char *why)
{
	if (forge_rules_set(NULL, forge_setting_of(k), text, why))
		return -EINVAL;
	return type_set_string(member, text, why);
}

static void range_rule(const struct cfg_key *k, FILE *out)
{
	fputs(forge_setting_range(forge_setting_of(k)), out);
}

const struct cfg_type type_rule = {
	.name = "rule",
	.parse = parse_rule,
	.print = type_print_string,
	.range = range_rule,
	.owns_string = true,
};

static int parse_patterns(const struct cfg_key *k, const char *text, void *member, char *why)
{
	char what[NAME_PATTERN_WHY_MAX];
	int err = name_patterns_check(text, what);

	(void)k;
	if (err)
		return type_wrong(why, "%s", err == -EINVAL ? what : "out of memory");
	return type_set_string(member, text, why);
}

static void range_patterns(const struct cfg_key *k, FILE *out)
{
	(void)k;
	fputs("KIND:PATTERN ..., e.g. email:*@example.org subject:CN=*,O=Corp ip:192.0.2.0/24 "
	      "other:OID=PATTERN; KIND: subject dir dns email upn uri ip other rid; see "
	      "docs/forging.md",
	      out);
}

const struct cfg_type type_patterns = {
	.name = "patterns",
	.parse = parse_patterns,
	.print = type_print_string,
	.range = range_patterns,
	.owns_string = true,
};

static int parse_domains(const struct cfg_key *k, const char *text, void *member, char *why)
{
	(void)k;
	if (forge_rules_set(NULL, FORGE_SET_TRUST_DOMAINS, text, why))
		return -EINVAL;
	return type_set_string(member, text, why);
}

static void range_domains(const struct cfg_key *k, FILE *out)
{
	(void)k;
	fputs(forge_setting_range(FORGE_SET_TRUST_DOMAINS), out);
}

const struct cfg_type type_domains = {
	.name = "trust domains",
	.parse = parse_domains,
	.print = type_print_string,
	.range = range_domains,
	.owns_string = true,
};

static bool uri_valid(const char *uri, size_t len)
{
	static const char *const schemes[] = {"http://", "https://", "ldap://"};
	size_t scheme = 0;

	for (size_t i = 0; i < ARRAY_SIZE(schemes); i++) {
		if (!strncmp(uri, schemes[i], strlen(schemes[i])))
			scheme = strlen(schemes[i]);
	}
	for (size_t i = 0; i < len; i++) {
		if (!isgraph((unsigned char)uri[i]))
			return false;
	}
	return scheme && len > scheme;
}

static int parse_uris(const struct cfg_key *k, const char *text, void *member, char *why)
{
	for (const char *p = text + strspn(text, " \t"); *p; p += strspn(p, " \t")) {
		size_t len = strcspn(p, " \t");

		if (len > k->max)
			return type_wrong(why, "holds a URI of %zu bytes; use at most %u", len,
					  k->max);
		if (!uri_valid(p, len))
			return type_wrong_value(k, why, "holds what is no such URI");
		p += len;
	}
	return type_set_string(member, text, why);
}

static void range_uris(const struct cfg_key *k, FILE *out)
{
	(void)k;
	fputs("URIs with http://, https:// or ldap://", out);
}

const struct cfg_type type_uris = {
	.name = "URIs",
	.parse = parse_uris,
	.print = type_print_string,
	.range = range_uris,
	.owns_string = true,
};

/* ---- application protocols ---- */

static int parse_alpn(const struct cfg_key *k, const char *text, void *member, char *why)
{
	struct cfg_alpn *alpn = member;
	bool off = !strcasecmp(text, k->word), mirror = !strcasecmp(text, "mirror");
	uint8_t list[ALPN_LIST_MAX], *copy = NULL;
	int len = 0;

	if (!off && !mirror) {
		len = alpn_parse(text, list);
		if (len < 0)
			return type_wrong_value(k, why, "is no list of protocol names");
		copy = malloc((size_t)len);
		if (!copy)
			return type_wrong(why, "out of memory");
		memcpy(copy, list, (size_t)len);
	}
	free(alpn->list);
	*alpn = (struct cfg_alpn){copy, (unsigned)len, mirror};
	return 0;
}

static void print_alpn(const struct cfg_key *k, const void *member, FILE *out)
{
	const struct cfg_alpn *alpn = member;
	char text[ALPN_LIST_MAX + 1];

	alpn_text(alpn->list, alpn->len, text, sizeof(text));
	fputs(alpn->mirror ? "mirror" : alpn->list ? text : k->word, out);
}

static void range_alpn(const struct cfg_key *k, FILE *out)
{
	fprintf(out, "%s | mirror | names of protocols (RFC 7301), separated by blanks", k->word);
}

const struct cfg_type type_alpn = {
	.name = "protocols",
	.parse = parse_alpn,
	.print = print_alpn,
	.range = range_alpn,
	.owns_string = true,
};

/* ---- reference: the text is checked here, the object found by config_load.c ---- */

static int parse_reference(const struct cfg_key *k, const char *text, void *member, char *why)
{
	const char *kind = cfg_scopes[k->refers].name;

	(void)member;
	if (strpbrk(text, " \t"))
		return type_wrong(why, "names several; use one %s", kind);
	if (!cfg_name_valid(text, strlen(text)))
		return type_wrong_value(k, why, "is no valid name");
	return 0;
}

static void print_reference(const struct cfg_key *k, const void *member, FILE *out)
{
	const struct cfg_head *head = cfg_get_pointer(member);

	(void)k;
	fputs(head->name, out);
}

static void range_reference(const struct cfg_key *k, FILE *out)
{
	fprintf(out, "the name of a %s", cfg_scopes[k->refers].name);
}

const struct cfg_type cfg_type_reference = {
	.name = "reference",
	.parse = parse_reference,
	.print = print_reference,
	.range = range_reference,
};

static int parse_references(const struct cfg_key *k, const char *text, void *member, char *why)
{
	size_t len;

	(void)member;
	for (text += strspn(text, CFG_BLANK); *text; text += len, text += strspn(text, CFG_BLANK)) {
		len = strcspn(text, CFG_BLANK);
		if (!cfg_name_valid(text, len))
			return type_wrong_value(k, why, "holds what is no valid name");
	}
	return 0;
}

static void print_references(const struct cfg_key *k, const void *member, FILE *out)
{
	const struct cfg_list *list = member;

	(void)k;
	for (unsigned i = 0; i < list->n; i++)
		fprintf(out, "%s%s", i ? " " : "", ((const struct cfg_head *)list->items[i])->name);
}

static void range_references(const struct cfg_key *k, FILE *out)
{
	fprintf(out, "names of %ss, separated by blanks", cfg_scopes[k->refers].name);
}

const struct cfg_type cfg_type_references = {
	.name = "references",
	.parse = parse_references,
	.print = print_references,
	.range = range_references,
	.owns_string = true,
};
