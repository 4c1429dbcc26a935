// SPDX-License-Identifier: Apache-2.0
/* The table of configuration keys, their types and printers. Knows no files or certificates. */
#include "config_table.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <sched.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>
#include <sys/un.h>
#include "names.h"
#include "path.h"

#define MINUTE 60u
#define HOUR   (60 * MINUTE)
#define DAY    (24 * HOUR)

#define WORKERS_MAX 256

_Static_assert(sizeof(enum cfg_engine) == sizeof(unsigned), "choices are stored as unsigned");

/* ---- helpers of the types ---- */

static int printf_like(2, 3) wrong(char *why, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, CFG_WHY_MAX, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

/* The range as text, for why. */
static const char *range_text(const struct cfg_key *k, char *buf, size_t len)
{
	scoped_file *f = fmemopen(buf, len, "w");

	buf[0] = '\0';
	if (f)
		k->type->range(k, f);
	return buf;
}

static int wrong_value(const struct cfg_key *k, char *why, const char *what)
{
	char range[200];

	return wrong(why, "%s; use %s", what, range_text(k, range, sizeof(range)));
}

static int set_string(void *member, const char *text, char *why)
{
	char **s = member, *copy = strdup(text);

	if (!copy)
		return wrong(why, "out of memory");
	free(*s);
	*s = copy;
	return 0;
}

/* Decimal digits only; moves *p behind them. Saturates, so that "too large" stays too large. */
static bool read_digits(const char **p, uint64_t *out)
{
	const char *start = *p;
	uint64_t v = 0;

	for (; isdigit((unsigned char)**p); (*p)++)
		v = v > UINT32_MAX ? v : v * 10 + (**p - '0');
	*out = v;
	return *p != start;
}

/* ---- choice ---- */

static void print_choices(const struct cfg_key *k, FILE *out)
{
	const char *separator = "";

	for (const struct cfg_choice *c = k->choices; c->word; c++) {
		fprintf(out, "%s%s", separator, c->word);
		separator = " | ";
	}
}

static int parse_choice(const struct cfg_key *k, const char *text, void *member, char *why)
{
	for (const struct cfg_choice *c = k->choices; c->word; c++) {
		if (strcasecmp(c->word, text))
			continue;
		*(unsigned *)member = c->value;
		return 0;
	}
	return wrong_value(k, why, "is none of the possible values");
}

static void print_choice(const struct cfg_key *k, const void *member, FILE *out)
{
	for (const struct cfg_choice *c = k->choices; c->word; c++) {
		if (c->value == *(const unsigned *)member) {
			fputs(c->word, out);
			return;
		}
	}
}

static const struct cfg_type type_choice = {
	.name = "choice",
	.parse = parse_choice,
	.print = print_choice,
	.range = print_choices,
};

/* ---- boolean ---- */

static const struct {
	const char *on, *off;
} boolean_words[] = {
	{"on", "off"}, {"enabled", "disabled"}, {"yes", "no"}, {"true", "false"}, {"1", "0"}};

static int parse_boolean(const struct cfg_key *k, const char *text, void *member, char *why)
{
	for (unsigned i = 0; i < ARRAY_SIZE(boolean_words); i++) {
		bool on = !strcasecmp(text, boolean_words[i].on);

		if (on || !strcasecmp(text, boolean_words[i].off)) {
			*(bool *)member = on;
			return 0;
		}
	}
	return wrong_value(k, why, "is not a boolean");
}

/* In the words of the default. */
static void print_boolean(const struct cfg_key *k, const void *member, FILE *out)
{
	for (unsigned i = 0; i < ARRAY_SIZE(boolean_words); i++) {
		if (!strcmp(k->value, boolean_words[i].off) ||
		    !strcmp(k->value, boolean_words[i].on)) {
			fputs(*(const bool *)member ? boolean_words[i].on : boolean_words[i].off,
			      out);
			return;
		}
	}
}

static void range_boolean(const struct cfg_key *k, FILE *out)
{
	fputs(strcmp(k->value, "disabled") ? "on | off" : "enabled | disabled", out);
}

static const struct cfg_type type_boolean = {
	.name = "boolean",
	.parse = parse_boolean,
	.print = print_boolean,
	.range = range_boolean,
};

/* ---- number ---- */

static int parse_number(const struct cfg_key *k, const char *text, void *member, char *why)
{
	uint64_t v;

	if (!read_digits(&text, &v) || *text)
		return wrong_value(k, why, "is not a number");
	if (v < k->min || v > k->max)
		return wrong_value(k, why, "is out of range");
	*(unsigned *)member = v;
	return 0;
}

static void print_number(const struct cfg_key *k, const void *member, FILE *out)
{
	(void)k;
	fprintf(out, "%u", *(const unsigned *)member);
}

static void range_number(const struct cfg_key *k, FILE *out)
{
	if (k->word)
		fprintf(out, "%s | ", k->word);
	fprintf(out, "%u..%u", k->min, k->max);
}

static const struct cfg_type type_number = {
	.name = "number",
	.parse = parse_number,
	.print = print_number,
	.range = range_number,
};

/* ---- workers: a number, or as many as we may run on ---- */

static unsigned usable_cpus(void)
{
	cpu_set_t set;
	int n = sched_getaffinity(0, sizeof(set), &set) < 0 ? 1 : CPU_COUNT(&set);

	return n < 1 ? 1 : n > WORKERS_MAX ? WORKERS_MAX : n;
}

static int parse_workers(const struct cfg_key *k, const char *text, void *member, char *why)
{
	if (strcasecmp(text, k->word))
		return parse_number(k, text, member, why);
	*(unsigned *)member = usable_cpus();
	return 0;
}

static const struct cfg_type type_workers = {
	.name = "number",
	.parse = parse_workers,
	.print = print_number,
	.range = range_number,
};

/* ---- duration ---- */

static const struct {
	char letter;
	unsigned seconds;
} time_units[] = {{'d', DAY}, {'h', HOUR}, {'m', MINUTE}, {'s', 1}};

/* Seconds per unit; 0: no such unit. */
static unsigned time_unit(const char *letter)
{
	if (!*letter)
		return 1;
	for (unsigned i = 0; i < ARRAY_SIZE(time_units); i++) {
		if (letter[0] == time_units[i].letter && !letter[1])
			return time_units[i].seconds;
	}
	return 0;
}

static int parse_duration(const struct cfg_key *k, const char *text, void *member, char *why)
{
	unsigned unit;
	uint64_t v;

	if (k->word && !strcasecmp(text, k->word)) {
		*(unsigned *)member = 0;
		return 0;
	}
	if (!read_digits(&text, &v))
		return wrong_value(k, why, "is not a time");
	unit = time_unit(text);
	if (!unit)
		return wrong_value(k, why, "has no unit of time we know (s, m, h, d)");
	v *= unit;
	if (v < k->min || v > k->max)
		return wrong_value(k, why, "is out of range");
	*(unsigned *)member = v;
	return 0;
}

/* In the largest unit that is exact. */
static void print_seconds(unsigned seconds, FILE *out)
{
	for (unsigned i = 0; i < ARRAY_SIZE(time_units) && seconds; i++) {
		if (seconds % time_units[i].seconds)
			continue;
		fprintf(out, "%u%c", seconds / time_units[i].seconds, time_units[i].letter);
		return;
	}
	fputc('0', out);
}

static void print_duration(const struct cfg_key *k, const void *member, FILE *out)
{
	unsigned seconds = *(const unsigned *)member;

	if (k->word && !seconds)
		fputs(k->word, out);
	else
		print_seconds(seconds, out);
}

static void range_duration(const struct cfg_key *k, FILE *out)
{
	if (k->word)
		fprintf(out, "%s | ", k->word);
	print_seconds(k->min, out);
	fputs("..", out);
	print_seconds(k->max, out);
}

static const struct cfg_type type_duration = {
	.name = "duration",
	.parse = parse_duration,
	.print = print_duration,
	.range = range_duration,
};

/* ---- strings: files, paths, users, host names ---- */

static void print_string(const struct cfg_key *k, const void *member, FILE *out)
{
	(void)k;
	fputs(*(char *const *)member, out);
}

/* Whether it can be read is seen when it is read. */
static int parse_file(const struct cfg_key *k, const char *text, void *member, char *why)
{
	(void)k;
	return set_string(member, text, why);
}

static void range_file(const struct cfg_key *k, FILE *out)
{
	(void)k;
	fputs("a PEM file", out);
}

static const struct cfg_type type_file = {
	.name = "file",
	.parse = parse_file,
	.print = print_string,
	.range = range_file,
	.owns_string = true,
};

static void range_der_file(const struct cfg_key *k, FILE *out)
{
	(void)k;
	fputs("a DER file", out);
}

static const struct cfg_type type_der_file = {
	.name = "file",
	.parse = parse_file,
	.print = print_string,
	.range = range_der_file,
	.owns_string = true,
};

static void range_files(const struct cfg_key *k, FILE *out)
{
	(void)k;
	fputs("files, PEM or DER", out);
}

static const struct cfg_type type_files = {
	.name = "files",
	.parse = parse_file,
	.print = print_string,
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

static const struct cfg_type type_secret_file = {
	.name = "file",
	.parse = parse_file,
	.print = print_string,
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
		return wrong_value(k, why, "is not an absolute path");
	if (strlen(text) > k->max)
		return wrong(why, "is too long; use at most %u bytes", k->max);
	return set_string(member, text, why);
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

static const struct cfg_type type_path = {
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
		return wrong_value(k, why, "is no user of this system");
	return set_string(member, text, why);
}

static void range_user(const struct cfg_key *k, FILE *out)
{
	(void)k;
	fputs("the name of a user, e.g. ktlsgate", out);
}

static const struct cfg_type type_user = {
	.name = "user",
	.parse = parse_user,
	.print = print_string,
	.range = range_user,
	.owns_string = true,
};

static int parse_group(const struct cfg_key *k, const char *text, void *member, char *why)
{
	if (!getgrnam(text))
		return wrong_value(k, why, "is no group of this system");
	return set_string(member, text, why);
}

static void range_group(const struct cfg_key *k, FILE *out)
{
	(void)k;
	fputs("the name of a group, e.g. adm", out);
}

static const struct cfg_type type_group = {
	.name = "group",
	.parse = parse_group,
	.print = print_string,
	.range = range_group,
	.owns_string = true,
};

/* Letters, digits, '-' and (found inside of companies) '_'; 1..63 bytes between the dots. */
static bool hostname_valid(const char *s)
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
		return wrong_value(k, why, "is an address, and SNI carries names only (RFC 6066)");
	if (!hostname_valid(text))
		return wrong_value(k, why, "is not a DNS name");
	return set_string(member, text, why);
}

static void range_hostname(const struct cfg_key *k, FILE *out)
{
	(void)k;
	fputs("a DNS name, e.g. backend.example", out);
}

static const struct cfg_type type_hostname = {
	.name = "name",
	.parse = parse_hostname,
	.print = print_string,
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
	return set_string(member, text, why);
}

static void range_rule(const struct cfg_key *k, FILE *out)
{
	fputs(forge_setting_range(forge_setting_of(k)), out);
}

static const struct cfg_type type_rule = {
	.name = "rule",
	.parse = parse_rule,
	.print = print_string,
	.range = range_rule,
	.owns_string = true,
};

static int parse_patterns(const struct cfg_key *k, const char *text, void *member, char *why)
{
	for (const char *p = text + strspn(text, " \t"); *p; p += strspn(p, " \t")) {
		size_t len = strcspn(p, " \t");

		if (!names_kind_known(p, len))
			return wrong_value(k, why, "holds a pattern of no kind of name");
		p += len;
	}
	return set_string(member, text, why);
}

static void range_patterns(const struct cfg_key *k, FILE *out)
{
	(void)k;
	fputs("KIND:PATTERN ..., e.g. email:*@example.org; KIND: subject dns email uri ip upn dir "
	      "other; PATTERN: * ? [a-z]",
	      out);
}

static const struct cfg_type type_patterns = {
	.name = "patterns",
	.parse = parse_patterns,
	.print = print_string,
	.range = range_patterns,
	.owns_string = true,
};

static int parse_domains(const struct cfg_key *k, const char *text, void *member, char *why)
{
	(void)k;
	if (forge_rules_set(NULL, FORGE_SET_TRUST_DOMAINS, text, why))
		return -EINVAL;
	return set_string(member, text, why);
}

static void range_domains(const struct cfg_key *k, FILE *out)
{
	(void)k;
	fputs(forge_setting_range(FORGE_SET_TRUST_DOMAINS), out);
}

static const struct cfg_type type_domains = {
	.name = "trust domains",
	.parse = parse_domains,
	.print = print_string,
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
			return wrong(why, "holds a URI of %zu bytes; use at most %u", len, k->max);
		if (!uri_valid(p, len))
			return wrong_value(k, why, "holds what is no such URI");
		p += len;
	}
	return set_string(member, text, why);
}

static void range_uris(const struct cfg_key *k, FILE *out)
{
	(void)k;
	fputs("URIs with http://, https:// or ldap://", out);
}

static const struct cfg_type type_uris = {
	.name = "URIs",
	.parse = parse_uris,
	.print = print_string,
	.range = range_uris,
	.owns_string = true,
};

/* ---- address ---- */

static bool parse_port(const char *text, in_port_t *out)
{
	uint64_t port;

	if (!read_digits(&text, &port) || *text || port < 1 || port > 65535)
		return false;
	*out = htons(port);
	return true;
}

static int parse_ipv6(const struct cfg_key *k, const char *host, in_port_t port,
		      struct cfg_address *out, char *why)
{
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&out->ss;

	if (inet_pton(AF_INET6, host, &in6->sin6_addr) != 1)
		return wrong_value(k, why, "holds no IPv6 address in the brackets");
	if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr))
		return wrong(why, "is an IPv4 address in IPv6 clothes; write it as IPv4");
	in6->sin6_family = AF_INET6;
	in6->sin6_port = port;
	out->len = sizeof(*in6);
	return 0;
}

static int parse_address(const struct cfg_key *k, const char *text, void *member, char *why)
{
	struct cfg_address a = {0};
	struct sockaddr_in *in = (struct sockaddr_in *)&a.ss;
	const char *colon = strrchr(text, ':');
	char host[INET6_ADDRSTRLEN + 2]; /* with brackets */
	in_port_t port;
	size_t len;

	if (!colon || (text[0] == '[' && colon[-1] != ']'))
		return wrong_value(k, why, "has no port");
	if (!parse_port(colon + 1, &port))
		return wrong_value(k, why, "has no port in 1..65535");
	len = colon - text;
	if (len >= sizeof(host))
		return wrong_value(k, why, "is no address");
	memcpy(host, text, len);
	host[len] = '\0';
	if (host[0] == '[') {
		host[len - 1] = '\0';
		if (parse_ipv6(k, host + 1, port, &a, why) < 0)
			return -EINVAL;
	} else if (inet_pton(AF_INET, host, &in->sin_addr) == 1) {
		in->sin_family = AF_INET;
		in->sin_port = port;
		a.len = sizeof(*in);
	} else if (inet_pton(AF_INET6, host, &(struct in6_addr){0}) == 1) {
		return wrong_value(k, why, "is an IPv6 address without brackets");
	} else {
		return wrong_value(k, why, "is no IPv4 address");
	}
	*(struct cfg_address *)member = a;
	return 0;
}

const char *cfg_address_text(const void *sockaddr, char out[CFG_ADDRESS_TEXT])
{
	const struct sockaddr *sa = sockaddr;
	const struct sockaddr_in *in = sockaddr;
	const struct sockaddr_in6 *in6 = sockaddr;
	const struct sockaddr_un *un = sockaddr;
	char host[INET6_ADDRSTRLEN] = "?";

	if (sa->sa_family == AF_UNIX) {
		snprintf(out, CFG_ADDRESS_TEXT, "unix:%s", un->sun_path);
	} else if (sa->sa_family == AF_INET6) {
		inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
		snprintf(out, CFG_ADDRESS_TEXT, "[%s]:%u", host, ntohs(in6->sin6_port));
	} else {
		inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
		snprintf(out, CFG_ADDRESS_TEXT, "%s:%u", host, ntohs(in->sin_port));
	}
	return out;
}

static void print_address(const struct cfg_key *k, const void *member, FILE *out)
{
	const struct cfg_address *a = member;
	char text[CFG_ADDRESS_TEXT];

	(void)k;
	fputs(cfg_address_text(&a->ss, text), out);
}

static void range_address(const struct cfg_key *k, FILE *out)
{
	(void)k;
	fputs("IPv4:PORT | [IPv6]:PORT", out);
}

static const struct cfg_type type_address = {
	.name = "address",
	.parse = parse_address,
	.print = print_address,
	.range = range_address,
};

/* ---- backends: an address, a name, or a UNIX socket: of a service's address ---- */

#define UNIX_PREFIX "unix:"

/* A DNS name and a port; what could be an address is none. */
static bool parse_host(struct cfg_service *service, const char *text)
{
	const char *colon = strrchr(text, ':');
	size_t len = colon ? (size_t)(colon - text) : 0;

	if (!len || len >= sizeof(service->host) || strspn(text, "0123456789.") >= len ||
	    !parse_port(colon + 1, &service->port))
		return false;
	memcpy(service->host, text, len);
	service->host[len] = '\0';
	if (!hostname_valid(service->host)) {
		service->host[0] = '\0';
		return false;
	}
	service->address = (struct cfg_address){.len = sizeof(sa_family_t)}; /* AF_UNSPEC */
	return true;
}

static int parse_backend(const struct cfg_key *k, const char *text, void *member, char *why)
{
	struct cfg_address a = {.len = sizeof(struct sockaddr_un)};
	struct sockaddr_un *un = (struct sockaddr_un *)&a.ss;
	const char *path = text + strlen(UNIX_PREFIX);
	struct cfg_service *service =
		container_of((struct cfg_address *)member, struct cfg_service, address);

	service->host[0] = '\0';
	if (strncmp(text, UNIX_PREFIX, strlen(UNIX_PREFIX)) != 0)
		return parse_host(service, text) ? 0 : parse_address(k, text, member, why);
	if (path[0] != '/')
		return wrong_value(k, why, "has no absolute path");
	/* It stands in lines of fields and in JSON. */
	if (strpbrk(path, " \t\"\\"))
		return wrong(why, "has a blank, quote or backslash in its path; use another path");
	if (strlen(path) >= sizeof(un->sun_path))
		return wrong(why, "is too long; a UNIX socket's path has at most %zu bytes",
			     sizeof(un->sun_path) - 1);
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path, path, strlen(path) + 1);
	*(struct cfg_address *)member = a;
	return 0;
}

static void print_backend(const struct cfg_key *k, const void *member, FILE *out)
{
	const struct cfg_service *service =
		container_of((const struct cfg_address *)member, const struct cfg_service, address);

	if (service->host[0])
		fprintf(out, "%s:%u", service->host, ntohs(service->port));
	else
		print_address(k, member, out);
}

static void range_backend(const struct cfg_key *k, FILE *out)
{
	range_address(k, out);
	fputs(" | NAME:PORT | " UNIX_PREFIX "/PATH", out);
}

static const struct cfg_type type_backend = {
	.name = "address",
	.parse = parse_backend,
	.print = print_backend,
	.range = range_backend,
};

/* ---- listens: addresses, prefixes of them, ranges of ports ---- */

#define LISTEN_MAX 128 /* bytes of one, and the NUL */

/* A port range's end behind the '-'; without one, the first port. */
static int cut_range(const struct cfg_key *k, char *text, struct cfg_listen *l, char *why)
{
	char *colon = strrchr(text, ':'), *dash = colon ? strchr(colon, '-') : NULL;
	in_port_t last;

	if (!dash)
		return 0;
	if (!parse_port(dash + 1, &last))
		return wrong_value(k, why, "has no last port in 1..65535 behind the '-'");
	l->last_port = ntohs(last);
	*dash = '\0';
	return 0;
}

static int cut_prefix(char *text, bool ipv6, struct cfg_listen *l, char *why)
{
	char *slash = strchr(text, '/'), *colon = strrchr(text, ':');
	const char *p = slash + 1;
	uint64_t len;

	l->prefix_len = ipv6 ? 128 : 32;
	if (!slash || !colon || slash > colon)
		return 0;
	if (!read_digits(&p, &len) || *p != ':' || len > l->prefix_len)
		return wrong(why, "has no prefix length in 0..%u behind the '/'; use %s",
			     l->prefix_len, ipv6 ? "[IPv6]/LENGTH:PORT" : "IPv4/LENGTH:PORT");
	l->prefix_len = (unsigned)len;
	l->looked_up = true;
	memmove(slash, colon, strlen(colon) + 1);
	return 0;
}

static uint8_t *address_bytes(struct cfg_address *a, unsigned *len)
{
	if (a->ss.ss_family == AF_INET6) {
		*len = sizeof(struct in6_addr);
		return ((struct sockaddr_in6 *)&a->ss)->sin6_addr.s6_addr;
	}
	*len = sizeof(struct in_addr);
	return (uint8_t *)&((struct sockaddr_in *)&a->ss)->sin_addr;
}

static bool all_zero(const uint8_t *bytes, unsigned len)
{
	while (len && !bytes[len - 1])
		len--;
	return !len;
}

bool cfg_mask_bits(uint8_t *bytes, unsigned len, unsigned prefix_len)
{
	bool found = false;

	for (unsigned i = prefix_len / 8; i < len; i++) {
		uint8_t behind = i == prefix_len / 8 ? 0xff >> prefix_len % 8 : 0xff;

		found = found || bytes[i] & behind;
		bytes[i] &= (uint8_t)~behind;
	}
	return found;
}

static void print_listen(const struct cfg_listen *l, FILE *out)
{
	unsigned len;
	const uint8_t *bytes = address_bytes((struct cfg_address *)&l->address, &len);
	char host[INET6_ADDRSTRLEN] = "?";
	bool ipv6 = l->address.ss.ss_family == AF_INET6;
	in_port_t first = ntohs(((const struct sockaddr_in *)&l->address.ss)->sin_port);

	inet_ntop(l->address.ss.ss_family, bytes, host, sizeof(host));
	fprintf(out, ipv6 ? "[%s]" : "%s", host);
	/* Any address is written without, be it a socket's. */
	if (l->prefix_len ? l->prefix_len != len * 8 : l->looked_up && l->last_port == first)
		fprintf(out, "/%u", l->prefix_len);
	fprintf(out, ":%u", first);
	if (l->last_port != first)
		fprintf(out, "-%u", l->last_port);
}

static int wrong_host_bits(struct cfg_listen *l, char *why)
{
	char right[LISTEN_MAX + 8] = "";
	scoped_file *f = fmemopen(right, sizeof(right), "w");

	if (f) {
		print_listen(l, f);
		fflush(f);
	}
	return wrong(why, "has bits of the address set behind the prefix; use %s", right);
}

static int parse_listen(const struct cfg_key *k, const char *word, struct cfg_listen *l, char *why)
{
	char text[LISTEN_MAX];
	unsigned len, first;
	uint8_t *bytes;
	int err;

	if (strlen(word) >= sizeof(text))
		return wrong_value(k, why, "is no address");
	strcpy(text, word);
	err = cut_range(k, text, l, why);
	if (!err)
		err = cut_prefix(text, text[0] == '[', l, why);
	if (!err)
		err = parse_address(k, text, &l->address, why);
	if (err)
		return err;
	first = ntohs(((const struct sockaddr_in *)&l->address.ss)->sin_port);
	if (!l->last_port)
		l->last_port = first;
	if (l->last_port < first)
		return wrong(why, "has a last port before its first; use %u-%u", l->last_port,
			     first);
	bytes = address_bytes(&l->address, &len);
	if (cfg_mask_bits(bytes, len, l->prefix_len))
		return wrong_host_bits(l, why);
	if (!l->looked_up && all_zero(bytes, len))
		l->prefix_len = 0;
	/* A prefix that leaves nothing open is an address. */
	l->looked_up = l->last_port > first || (l->looked_up && l->prefix_len < len * 8);
	return 0;
}

static int parse_listens(const struct cfg_key *k, const char *text, void *member, char *why)
{
	struct cfg_listens *listens = member;
	scoped_mem char *copy = strdup(text);
	char what[CFG_WHY_MAX], *rest = NULL;

	free(listens->list);
	*listens = (struct cfg_listens){0};
	for (char *word = copy ? strtok_r(copy, CFG_BLANK, &rest) : NULL; word;
	     word = strtok_r(NULL, CFG_BLANK, &rest)) {
		struct cfg_listen *more =
			reallocarray(listens->list, listens->n + 1, sizeof(*more));

		if (!more)
			return wrong(why, "out of memory");
		listens->list = more;
		more[listens->n] = (struct cfg_listen){0};
		if (!parse_listen(k, word, &more[listens->n], what))
			listens->n++;
		else if (strcmp(word, text))
			return wrong(why, "%s %.400s", word, what);
		else
			return wrong(why, "%.500s", what);
	}
	return listens->n ? 0 : wrong(why, "out of memory");
}

static void print_listens(const struct cfg_key *k, const void *member, FILE *out)
{
	const struct cfg_listens *listens = member;

	(void)k;
	for (unsigned i = 0; i < listens->n; i++) {
		fputs(i ? " " : "", out);
		print_listen(&listens->list[i], out);
	}
}

static void range_listens(const struct cfg_key *k, FILE *out)
{
	(void)k;
	fputs("IPv4:PORT | [IPv6]:PORT, with /PREFIX behind the address, -LAST behind the port, or "
	      "both; several: separated by blanks",
	      out);
}

static const struct cfg_type type_listens = {
	.name = "addresses",
	.parse = parse_listens,
	.print = print_listens,
	.range = range_listens,
	.owns_string = true,
};

/* ---- words: some of the choices, in the order that is preferred; kept with colons between ---- */

static const char *find_word(const struct cfg_key *k, const char *text, size_t len)
{
	for (const struct cfg_choice *c = k->choices; c->word; c++) {
		if (strlen(c->word) == len && !strncasecmp(c->word, text, len))
			return c->word;
	}
	return NULL;
}

static int parse_words(const struct cfg_key *k, const char *text, void *member, char *why)
{
	char joined[512] = "";
	const char *word;
	size_t len;

	for (text += strspn(text, CFG_BLANK); *text; text += len, text += strspn(text, CFG_BLANK)) {
		len = strcspn(text, CFG_BLANK);
		word = find_word(k, text, len);
		if (!word)
			return wrong_value(k, why,
					   "holds a word that is none of the possible ones");
		if (strlen(joined) + 1 + len >= sizeof(joined))
			return wrong_value(k, why, "names some twice");
		if (joined[0])
			strcat(joined, ":");
		strcat(joined, word);
	}
	return set_string(member, joined, why);
}

static void print_words(const struct cfg_key *k, const void *member, FILE *out)
{
	(void)k;
	for (const char *p = *(char *const *)member; *p; p++)
		fputc(*p == ':' ? ' ' : *p, out);
}

static void range_words(const struct cfg_key *k, FILE *out)
{
	fputs("some of ", out);
	for (const struct cfg_choice *c = k->choices; c->word; c++)
		fprintf(out, "%s%s", c == k->choices ? "" : " ", c->word);
}

static const struct cfg_type type_words = {
	.name = "words",
	.parse = parse_words,
	.print = print_words,
	.range = range_words,
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
			return wrong_value(k, why, "is no list of protocol names");
		copy = malloc((size_t)len);
		if (!copy)
			return wrong(why, "out of memory");
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

static const struct cfg_type type_alpn = {
	.name = "protocols",
	.parse = parse_alpn,
	.print = print_alpn,
	.range = range_alpn,
	.owns_string = true,
};

/* ---- prefixes ---- */

void cfg_print_prefix(const struct cfg_prefix *p, FILE *out)
{
	char host[INET6_ADDRSTRLEN] = "?";

	inet_ntop(p->family, p->address, host, sizeof(host));
	fprintf(out, "%s/%u", host, p->len);
}

static int wrong_prefix_bits(const struct cfg_prefix *p, char *why)
{
	char right[INET6_ADDRSTRLEN + 8] = "";
	scoped_file *f = fmemopen(right, sizeof(right), "w");

	if (f) {
		cfg_print_prefix(p, f);
		fflush(f);
	}
	return wrong(why, "has bits of the address set behind the prefix; use %s", right);
}

int cfg_parse_prefix(const char *text, struct cfg_prefix *out, char why[CFG_WHY_MAX])
{
	struct cfg_prefix p = {.family = strchr(text, ':') ? AF_INET6 : AF_INET};
	unsigned bits = p.family == AF_INET6 ? 128 : 32;
	const char *slash = strchr(text, '/'), *digits = slash ? slash + 1 : NULL;
	char host[INET6_ADDRSTRLEN];
	size_t host_len = strcspn(text, "/");
	uint64_t len = bits;

	if (host_len < sizeof(host))
		memcpy(host, text, host_len);
	host[host_len < sizeof(host) ? host_len : 0] = '\0';
	if (inet_pton(p.family, host, p.address) != 1)
		return wrong(why, "is no address or prefix; use 192.0.2.0/24 or 2001:db8::/32");
	if (digits && (!read_digits(&digits, &len) || *digits || len > bits))
		return wrong(why, "has no prefix length in 0..%u", bits);
	p.len = (unsigned)len;
	if (cfg_mask_bits(p.address, bits / 8, p.len))
		return wrong_prefix_bits(&p, why);
	*out = p;
	return 0;
}

static int parse_prefixes(const struct cfg_key *k, const char *text, void *member, char *why)
{
	struct cfg_prefixes *prefixes = member;
	scoped_mem char *copy = strdup(text);
	char what[CFG_WHY_MAX], *rest = NULL;

	(void)k;
	free(prefixes->list);
	*prefixes = (struct cfg_prefixes){0};
	for (char *word = copy ? strtok_r(copy, CFG_BLANK, &rest) : NULL; word;
	     word = strtok_r(NULL, CFG_BLANK, &rest)) {
		struct cfg_prefix *more =
			reallocarray(prefixes->list, prefixes->n + 1, sizeof(*more));

		if (!more)
			return wrong(why, "out of memory");
		prefixes->list = more;
		if (cfg_parse_prefix(word, &more[prefixes->n], what))
			return wrong(why, "%.80s %.400s", word, what);
		prefixes->n++;
	}
	return copy ? 0 : wrong(why, "out of memory");
}

static void print_prefixes(const struct cfg_key *k, const void *member, FILE *out)
{
	const struct cfg_prefixes *prefixes = member;

	(void)k;
	for (unsigned i = 0; i < prefixes->n; i++) {
		fputs(i ? " " : "", out);
		cfg_print_prefix(&prefixes->list[i], out);
	}
}

static void range_prefixes(const struct cfg_key *k, FILE *out)
{
	(void)k;
	fputs("ADDRESS[/LENGTH], separated by blanks", out);
}

static const struct cfg_type type_prefixes = {
	.name = "prefixes",
	.parse = parse_prefixes,
	.print = print_prefixes,
	.range = range_prefixes,
	.owns_string = true,
};

/* ---- URL of HTTP, numeric ---- */

int cfg_http_address(const char *url, struct cfg_address *out)
{
	const struct cfg_key none = {.type = &type_address};
	const char *host = url + strlen(CFG_HTTP);
	char text[INET6_ADDRSTRLEN + 16], why[CFG_WHY_MAX];
	size_t len;

	if (strncmp(url, CFG_HTTP, strlen(CFG_HTTP)))
		return -EINVAL;
	len = strcspn(host, "/");
	if (len + sizeof(":80") > sizeof(text))
		return -EINVAL;
	memcpy(text, host, len);
	/* An IPv6 address has colons inside of its brackets. */
	strcpy(text + len, memchr(host, ':', len) && host[len - 1] != ']' ? "" : ":80");
	return parse_address(&none, text, out, why);
}

static int parse_http_url(const struct cfg_key *k, const char *text, void *member, char *why)
{
	struct cfg_address ignored;

	for (const char *p = text; *p; p++)
		if (*p <= ' ' || *p > '~')
			return wrong_value(k, why, "has a character that is none of a URL's");
	if (cfg_http_address(text, &ignored) < 0)
		return wrong_value(k, why, "is no http URL with a numeric address");
	return set_string(member, text, why);
}

static void range_http_url(const struct cfg_key *k, FILE *out)
{
	(void)k;
	fputs("http://IPv4[:PORT][/PATH] | http://[IPv6][:PORT][/PATH]", out);
}

static const struct cfg_type type_http_url = {
	.name = "URL",
	.parse = parse_http_url,
	.print = print_string,
	.range = range_http_url,
	.owns_string = true,
};

static bool prefix_holds(const struct cfg_prefix *p, const uint8_t *ip)
{
	if (memcmp(p->address, ip, p->len / 8) != 0)
		return false;
	return !(p->len % 8) || !((p->address[p->len / 8] ^ ip[p->len / 8]) >> (8 - p->len % 8));
}

bool cfg_prefixes_hold(const struct cfg_prefixes *p, const struct sockaddr *sa)
{
	const uint8_t *ip = sa->sa_family == AF_INET6
				    ? ((const struct sockaddr_in6 *)sa)->sin6_addr.s6_addr
				    : (const uint8_t *)&((const struct sockaddr_in *)sa)->sin_addr;

	for (unsigned i = 0; i < p->n; i++) {
		if (p->list[i].family == sa->sa_family && prefix_holds(&p->list[i], ip))
			return true;
	}
	return false;
}

/* ---- reference: the text is checked here, the object found by config.c ---- */

static int parse_reference(const struct cfg_key *k, const char *text, void *member, char *why)
{
	const char *kind = cfg_scopes[k->refers].name;

	(void)member;
	if (strpbrk(text, " \t"))
		return wrong(why, "names several; use one %s", kind);
	if (!cfg_name_valid(text, strlen(text)))
		return wrong_value(k, why, "is no valid name");
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
			return wrong_value(k, why, "holds what is no valid name");
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

/* ---- the table ---- */

static const struct cfg_choice engines[] = {
	{"auto", ENGINE_AUTO}, {"ktls", ENGINE_KTLS}, {"user", ENGINE_USER}, {0}};
static const struct cfg_choice relays[] = {{"splice", RELAY_SPLICE}, {"copy", RELAY_COPY}, {0}};
static const struct cfg_choice steerings[] = {
	{"cpu", STEERING_CPU}, {"load", STEERING_LOAD}, {"hash", STEERING_HASH}, {0}};
static const struct cfg_choice control_modes[] = {
	{"0600", 0600}, {"0660", 0660}, {"0666", 0666}, {NULL, 0}};
static const struct cfg_choice full_actions[] = {{"refuse", 0}, {"queue", 1}, {NULL, 0}};
static const struct cfg_choice log_levels[] = {{"error", LOG_LEVEL_ERROR},
					       {"warn", LOG_LEVEL_WARN},
					       {"info", LOG_LEVEL_INFO},
					       {"debug", LOG_LEVEL_DEBUG},
					       {0}};
static const struct cfg_choice client_auths[] = {{"off", CLIENT_AUTH_OFF},
						 {"optional", CLIENT_AUTH_OPTIONAL},
						 {"mandatory", CLIENT_AUTH_MANDATORY},
						 {0}};
static const struct cfg_choice versions[] = {{"1.2", TLS1_2_VERSION}, {"1.3", TLS1_3_VERSION}, {0}};
/* Forward secrecy and AEAD, and within the power of both engines: see the table in keys.c. */
static const struct cfg_choice ciphers[] = {{"ECDHE-ECDSA-AES256-GCM-SHA384", 0},
					    {"ECDHE-RSA-AES256-GCM-SHA384", 0},
					    {"ECDHE-ECDSA-AES128-GCM-SHA256", 0},
					    {"ECDHE-RSA-AES128-GCM-SHA256", 0},
					    {"ECDHE-ECDSA-CHACHA20-POLY1305", 0},
					    {"ECDHE-RSA-CHACHA20-POLY1305", 0},
					    {0}};
static const struct cfg_choice ciphersuites[] = {{"TLS_AES_256_GCM_SHA384", 0},
						 {"TLS_CHACHA20_POLY1305_SHA256", 0},
						 {"TLS_AES_128_GCM_SHA256", 0},
						 {0}};
static const struct cfg_choice groups[] = {{"X25519", 0},    {"P-256", 0},     {"X448", 0},
					   {"P-521", 0},     {"P-384", 0},     {"ffdhe2048", 0},
					   {"ffdhe3072", 0}, {"ffdhe4096", 0}, {0}};
static const struct cfg_choice snis[] = {{"fixed", SNI_FIXED}, {"mirror", SNI_MIRROR}, {0}};
static const struct cfg_choice revocations[] = {{"off", REVOCATION_OFF},
						{"optional", REVOCATION_OPTIONAL},
						{"mandatory", REVOCATION_MANDATORY},
						{0}};
static const struct cfg_choice connects[] = {
	{"early", CONNECT_EARLY}, {"verified", CONNECT_VERIFIED}, {0}};
static const struct cfg_choice checks[] = {
	{"off", CHECK_OFF}, {"connect", CHECK_CONNECT}, {"tls", CHECK_TLS}, {0}};
static const struct cfg_choice send_proxies[] = {
	{"off", SEND_PROXY_OFF}, {"on", SEND_PROXY_ON}, {"tls", SEND_PROXY_TLS}, {0}};
static const struct cfg_choice balances[] = {{"round-robin", BALANCE_ROUND_ROBIN},
					     {"least-connections", BALANCE_LEAST_CONNECTIONS},
					     {"source-hash", BALANCE_SOURCE_HASH},
					     {0}};

static const struct cfg_choice audit_syncs[] = {
	{"none", AUDIT_SYNC_NONE}, {"each", AUDIT_SYNC_EACH}, {0}};
static const struct cfg_choice forge_starts[] = {
	{"now", FORGE_START_NOW}, {"original", FORGE_START_ORIGINAL}, {0}};
static const struct cfg_choice forge_keys[] = {
	{"auto", FORGE_KEY_AUTO}, {"p-256", FORGE_KEY_P256}, {"rsa-2048", FORGE_KEY_RSA2048}, {0}};
static const struct cfg_choice no_matching_cas[] = {
	{"send", NO_MATCHING_CA_SEND}, {"fail", NO_MATCHING_CA_FAIL}, {0}};

#define GLOBAL(m)  .scope = SCOPE_GLOBAL, .offset = offsetof(struct config, m)
#define CERTKEY(m) .scope = SCOPE_CERTKEY, .offset = offsetof(struct cfg_certkey, m)
#define PROFILE(m) .scope = SCOPE_PROFILE, .offset = offsetof(struct cfg_profile, m)
#define RULE(s)                                                                                    \
	.type = &type_rule, .scope = SCOPE_PROFILE,                                                \
	.offset = offsetof(struct cfg_profile, forge.text[s])
#define SERVICE(m) .scope = SCOPE_SERVICE, .offset = offsetof(struct cfg_service, m)
#define VSERVER(m) .scope = SCOPE_VSERVER, .offset = offsetof(struct cfg_vserver, m)

/* clang-format off */
/* Grouped by scope, in the order of enum cfg_scope. */
const struct cfg_key cfg_keys[] = {
	{"dataplane.engine", GLOBAL(engine), .type = &type_choice, .choices = engines, .value = "auto",
	 .help = "record layer: in the kernel, in user space, or the kernel where it can"},
	{"dataplane.relay", GLOBAL(relay), .type = &type_choice, .choices = relays, .value = "splice",
	 .help = "how bytes move between two sockets of the kernel's record layer"},
	{"dataplane.workers", GLOBAL(workers), .fixed = true, .type = &type_workers, .word = "auto", .min = 1,
	 .max = WORKERS_MAX, .unit = "threads", .value = "auto",
	 .help = "threads of the data process; auto: one per CPU we may use"},
	{"dataplane.steering", GLOBAL(steering), .type = &type_choice, .choices = steerings, .value = "cpu",
	 .help = "the worker of a new connection: that of the CPU it came in on, the less loaded of two, or by hash; needs BPF"},
	{"dataplane.key_limit", GLOBAL(key_limit), .type = &type_number, .unit = "MiB", .min = 1,
	 .max = 262144, .value = "262144",
	 .help = "sent under one AES-GCM key before a KeyUpdate; TLS 1.2, which has none, is warned of"},
	{"dataplane.user", GLOBAL(user), .type = &type_user,
	 .help = "user the data and signer processes run as; unset: the one we were started as"},
	{"bpf.dir", GLOBAL(bpf_dir), .fixed = true, .type = &type_path, .word = "off", .max = 3000,
	 .value = "/sys/fs/bpf/ktlsgate",
	 .help = "where BPF maps are pinned; off: no BPF"},
	{"control.socket", GLOBAL(control_socket), .fixed = true, .type = &type_path,
	 .max = sizeof(((struct sockaddr_un *)0)->sun_path) - 1, .value = "/run/ktlsgate/control.sock",
	 .help = "UNIX socket of ktlsgatectl"},
	{"control.mode", GLOBAL(control_mode), .fixed = true, .type = &type_choice,
	 .choices = control_modes, .value = "0660",
	 .help = "who may connect to it and see everything but secrets; only root may change anything"},
	{"control.group", GLOBAL(control_group), .fixed = true, .type = &type_group,
	 .help = "its group; unset: the group we were started as"},
	{"config.watch", GLOBAL(watch), .type = &type_duration, .unit = "s, m, h, d", .min = 0,
	 .max = DAY, .value = "30s",
	 .help = "how often changed CRLs are looked for, and the configuration loaded anew then; 0: never"},
	{"log.level", GLOBAL(log_level), .type = &type_choice, .choices = log_levels, .value = "info",
	 .help = "the least important lines that are still logged"},
	{"log.rate", GLOBAL(log_rate), .type = &type_number, .unit = "lines a second", .min = 0,
	 .max = 1000000, .value = "100",
	 .help = "lines about flows, by reason and worker; how many were left out is said; 0: all are logged"},
	{"limit.flows", GLOBAL(limit_flows), .type = &type_number, .unit = "connections", .min = 0,
	 .max = 10000000, .value = "0",
	 .help = "connections at a time in all, those of older configurations too; 0: no limit"},
	{"limit.when_full", GLOBAL(limit_queues), .type = &type_choice, .choices = full_actions,
	 .value = "refuse",
	 .help = "at limit.flows: reset new connections, or let them wait in the kernel's backlog"},
	{"limit.handshakes", GLOBAL(limit_handshakes), .type = &type_number, .unit = "connections",
	 .min = 0, .max = 10000000, .value = "0",
	 .help = "connections in the handshake at a time; those beyond are reset; 0: no limit"},
	{"limit.flows_per_source", GLOBAL(limit_flows_per_source), .type = &type_number,
	 .unit = "connections", .min = 0, .max = 10000000, .value = "0",
	 .help = "connections at a time from one source; those beyond are reset; 0: no limit"},
	{"limit.source_prefix4", GLOBAL(limit_prefix4), .type = &type_number, .unit = "bits", .min = 1,
	 .max = 32, .value = "32",
	 .help = "how much of an IPv4 address makes a source"},
	{"limit.source_prefix6", GLOBAL(limit_prefix6), .type = &type_number, .unit = "bits", .min = 1,
	 .max = 128, .value = "64",
	 .help = "how much of an IPv6 address makes a source"},
	{"log.flows", GLOBAL(log_flows), .type = &type_path, .word = "off", .max = 4000, .value = "off",
	 .help = "append a line of JSON for each flow at its end; lines that cannot be written at once are lost, and counted"},
	{"timeout.handshake", GLOBAL(handshake_timeout), .type = &type_duration, .unit = "s, m, h, d",
	 .min = 1, .max = HOUR, .value = "120s",
	 .help = "client: from accept to the last handshake message; typing a PIN takes a while"},
	{"timeout.backend_handshake", GLOBAL(backend_handshake_timeout), .type = &type_duration,
	 .unit = "s, m, h, d", .min = 1, .max = HOUR, .value = "20s",
	 .help = "backend: from connect to the last handshake message, without waits for the client"},
	{"timeout.connect", GLOBAL(connect_timeout), .type = &type_duration, .unit = "s, m, h, d", .min = 1,
	 .max = HOUR, .value = "5s",
	 .help = "backend: until the TCP connection stands"},
	{"timeout.idle", GLOBAL(idle_timeout), .type = &type_duration, .unit = "s, m, h, d", .min = 0,
	 .max = 365 * DAY, .value = "1h",
	 .help = "no byte in either direction; 0: never"},
	{"timeout.keepalive", GLOBAL(keepalive), .type = &type_duration, .unit = "s, m, h, d", .min = 0,
	 .max = 32767, .value = "60s",
	 .help = "TCP keepalive: a peer silent for so long is probed, and given up after as long again; 0: never"},
	{"timeout.drain", GLOBAL(drain_timeout), .type = &type_duration, .unit = "s, m, h, d", .min = 1,
	 .max = HOUR, .value = "30s",
	 .help = "at close: how long accepted bytes may take to leave"},
	{"forge.lifespan", GLOBAL(forge_lifespan), .type = &type_duration, .unit = "s, m, h, d",
	 .min = MINUTE, .max = 365 * DAY, .value = "24h",
	 .help = "how long a forged certificate is valid at most"},
	{"forge.cache", GLOBAL(forge_cache), .type = &type_number, .unit = "entries", .min = 1,
	 .max = 1000000, .value = "4096",
	 .help = "forged certificates kept for the next connection of the same client"},

	{"forge.rsa_keys", GLOBAL(forge_rsa_keys), .type = &type_number, .unit = "keys", .min = 1,
	 .max = 1024, .value = "8",
	 .help = "RSA keys made ahead of need, from the first on that a backend wants"},
	{"shield.rate", GLOBAL(shield_rate), .type = &type_number, .unit = "connections per second",
	 .min = 0, .max = 1000000, .value = "0",
	 .help = "of each source, before a socket exists; 0: no limit; needs BPF, like all of the shield"},
	{"shield.burst", GLOBAL(shield_burst), .type = &type_number, .unit = "connections", .min = 1,
	 .max = 1000000, .value = "20",
	 .help = "that a source may make at once after a while without any"},
	{"shield.prefix4", GLOBAL(shield_prefix4), .type = &type_number, .unit = "bits", .min = 1,
	 .max = 32, .value = "32",
	 .help = "of an IPv4 address that make a source"},
	{"shield.prefix6", GLOBAL(shield_prefix6), .type = &type_number, .unit = "bits", .min = 1,
	 .max = 128, .value = "64",
	 .help = "of an IPv6 address that make a source"},
	{"shield.sources", GLOBAL(shield_sources), .type = &type_number, .unit = "entries", .min = 64,
	 .max = 16777216, .value = "65536",
	 .help = "sources that are kept in mind, some 100 bytes each; the least recent is forgotten"},
	{"shield.deny", GLOBAL(shield_deny), .type = &type_prefixes,
	 .help = "sources that get no connection; ktlsgatectl shield has more, at run time"},

	{"forge.queue", GLOBAL(forge_queue), .type = &type_number, .unit = "requests", .min = 1,
	 .max = 65536, .value = "1024",
	 .help = "requests for the signer that a worker keeps; the client network with the most loses first"},
	{"audit.log", GLOBAL(audit_log), .type = &type_path, .word = "off", .max = 4000,
	 .value = "off",
	 .help = "append a line of JSON for each forged certificate; none is handed out whose line is not written"},
	{"audit.sync", GLOBAL(audit_sync), .type = &type_choice, .choices = audit_syncs,
	 .value = "none",
	 .help = "fdatasync: leave it to the kernel, or after each line, for machines that lose power"},

	{"certkey.<name>.cert", CERTKEY(cert_file), .where = offsetof(struct cfg_certkey, cert_where),
	 .type = &type_file, .mandatory = true,
	 .help = "the certificate, then the chain to send with it"},
	{"certkey.<name>.key", CERTKEY(key_file), .where = offsetof(struct cfg_certkey, key_where),
	 .type = &type_file, .mandatory = true,
	 .help = "its private key, a file or, of a forging CA, in a token: pkcs11:URI"},
	{"certkey.<name>.key_passphrase_file", CERTKEY(passphrase_file), .type = &type_secret_file,
	 .help = "file whose first line opens the key: its passphrase, or the token's PIN"},
	{"certkey.<name>.ocsp_response", CERTKEY(ocsp_response_file), .type = &type_der_file,
	 .help = "an OCSP response to staple: sent to clients that ask, until its nextUpdate"},

	{"certkey.<name>.ocsp", CERTKEY(ocsp), .type = &type_uris, .max = FORGE_URI_MAX,
	 .help = "a forging CA: where its OCSP responder is asked about forged certificates"},
	{"certkey.<name>.ca_issuers", CERTKEY(ca_issuers), .type = &type_uris, .max = FORGE_URI_MAX,
	 .help = "a forging CA: where its own certificate is fetched"},
	{"certkey.<name>.crl", CERTKEY(crl), .type = &type_uris, .max = FORGE_URI_MAX,
	 .help = "a forging CA: where its CRL is fetched"},

	{"certkey.<name>.policy.client_ca", CERTKEY(policy.client_ca_file),
	 .where = offsetof(struct cfg_certkey, policy.client_ca_where), .type = &type_file,
	 .help = "a forging CA, held by the signer: only for clients of these CAs (anchors)"},
	{"certkey.<name>.policy.names", CERTKEY(policy.names), .type = &type_patterns,
	 .help = "a forging CA, held by the signer: each name of a client must fit one of these"},
	{"certkey.<name>.policy.trust_domains", CERTKEY(policy.trust_domains), .type = &type_domains,
	 .help = "a forging CA, held by the signer: only SPIFFE IDs of these trust domains"},
	{"certkey.<name>.policy.lifespan", CERTKEY(policy.lifespan), .type = &type_duration,
	 .unit = "s, m, h, d", .word = "off", .min = MINUTE, .max = 365 * DAY, .value = "off",
	 .help = "a forging CA, held by the signer: no certificate is valid for longer"},
	{"certkey.<name>.policy.rate", CERTKEY(policy.rate), .type = &type_number,
	 .unit = "certificates a minute", .min = 0, .max = 10000000, .value = "0",
	 .help = "a forging CA, held by the signer: at most so many; 0: no bound"},

	{"profile.<name>.tls_min", PROFILE(tls_min), .where = offsetof(struct cfg_profile, tls_min_where),
	 .type = &type_choice, .choices = versions, .value = "1.2",
	 .help = "both: the oldest TLS version that is spoken"},
	{"profile.<name>.tls_max", PROFILE(tls_max), .type = &type_choice, .choices = versions,
	 .value = "1.3",
	 .help = "both: the newest TLS version that is spoken"},
	{"profile.<name>.ciphers", PROFILE(ciphers), .type = &type_words, .choices = ciphers,
	 .value = "ECDHE-ECDSA-AES256-GCM-SHA384 ECDHE-RSA-AES256-GCM-SHA384 "
		  "ECDHE-ECDSA-AES128-GCM-SHA256 ECDHE-RSA-AES128-GCM-SHA256 "
		  "ECDHE-ECDSA-CHACHA20-POLY1305 ECDHE-RSA-CHACHA20-POLY1305",
	 .help = "both: ciphers of TLS 1.2, the preferred first"},
	{"profile.<name>.ciphersuites", PROFILE(ciphersuites), .type = &type_words,
	 .choices = ciphersuites,
	 .value = "TLS_AES_256_GCM_SHA384 TLS_CHACHA20_POLY1305_SHA256 TLS_AES_128_GCM_SHA256",
	 .help = "both: cipher suites of TLS 1.3, the preferred first"},
	{"profile.<name>.groups", PROFILE(groups), .type = &type_words, .choices = groups,
	 .value = "X25519 P-256 X448 P-521 P-384",
	 .help = "both: groups of the key exchange, the preferred first"},
	{"profile.<name>.client_auth", PROFILE(client_auth),
	 .where = offsetof(struct cfg_profile, client_auth_where), .type = &type_choice,
	 .choices = client_auths, .value = "off",
	 .help = "vserver: whether clients are asked for a certificate and must have one"},
	{"profile.<name>.client_ca", PROFILE(client_ca_file),
	 .where = offsetof(struct cfg_profile, client_ca_where), .type = &type_file,
	 .help = "vserver: the CAs that client certificates are verified against"},
	{"profile.<name>.announce_ca_names", PROFILE(announce_ca_names), .type = &type_boolean,
	 .value = "on",
	 .help = "vserver: the names of client_ca in the CertificateRequest, for clients to choose by"},
	{"profile.<name>.session_tickets", PROFILE(session_tickets), .type = &type_boolean,
	 .value = "off",
	 .help = "vserver: clients may resume, without proving anew who they are; their certificate is looked at again"},
	{"profile.<name>.ticket_lifetime", PROFILE(ticket_lifetime), .type = &type_duration,
	 .unit = "s, m, h, d", .min = 1, .max = 7 * DAY, .value = "2h",
	 .help = "vserver: how long a client's proof is good for; resuming does not lengthen it"},
	{"profile.<name>.alpn", PROFILE(alpn), .where = offsetof(struct cfg_profile, alpn_where),
	 .type = &type_alpn, .word = "off", .value = "off",
	 .help = "vserver: protocols on both sides: what the backend chooses (mirror), or the first of a list that the client has"},
	{"profile.<name>.dynamic_client_cert", PROFILE(dynamic_client_cert),
	 .where = offsetof(struct cfg_profile, dynamic_client_cert_where), .type = &type_boolean,
	 .value = "disabled",
	 .help = "service: show the backend a certificate forged from the client's"},
	{"profile.<name>.forging_certkey", PROFILE(forging_certkeys), .type = &cfg_type_references,
	 .refers = SCOPE_CERTKEY,
	 .help = "service: the CAs that issue the forged certificates; the backend's CA names choose"},
	{"profile.<name>.forge.no_matching_ca", PROFILE(forge.no_matching_ca), .type = &type_choice,
	 .choices = no_matching_cas, .value = "send",
	 .help = "the backend's CA names hold none of these CAs: send the first one's certificate, or fail"},
	{"profile.<name>.fallback_certkey", PROFILE(fallback_certkey), .type = &cfg_type_reference,
	 .refers = SCOPE_CERTKEY,
	 .help = "service: shown to the backend for clients without a certificate (client_auth = optional); unset: they fail"},
	{"profile.<name>.server_ca", PROFILE(server_ca_file),
	 .where = offsetof(struct cfg_profile, server_ca_where), .type = &type_file,
	 .help = "service: the CAs that the backend's certificate is verified against"},
	{"profile.<name>.require_certificate_request", PROFILE(require_certificate_request),
	 .type = &type_boolean, .value = "off",
	 .help = "service: fail if the backend asks for no certificate"},

	{"profile.<name>.forge.lifespan", PROFILE(forge.lifespan), .type = &type_duration,
	 .unit = "s, m, h, d", .word = "inherit", .min = MINUTE, .max = 365 * DAY, .value = "inherit",
	 .help = "how long a forged certificate is valid at most; inherit: forge.lifespan"},
	{"profile.<name>.forge.start", PROFILE(forge.start), .type = &type_choice,
	 .choices = forge_starts, .value = "now",
	 .help = "when its validity begins: now, or with the original's"},
	{"profile.<name>.forge.key", PROFILE(forge.key), .type = &type_choice, .choices = forge_keys,
	 .value = "auto",
	 .help = "its key; auto: P-256, or RSA where the backend's signature algorithms want it"},
	{"profile.<name>.forge.copy", RULE(FORGE_SET_COPY),
	 .help = "extensions of the original that are passed on as they are"},
	{"profile.<name>.forge.drop", RULE(FORGE_SET_DROP),
	 .help = "extensions that are left out though they were copied (subjectAltName) or critical"},
	{"profile.<name>.forge.map", RULE(FORGE_SET_MAP),
	 .help = "extensions of the original that are passed on under another OID"},
	{"profile.<name>.forge.add", RULE(FORGE_SET_ADD),
	 .help = "extensions that every forged certificate gets"},
	{"profile.<name>.forge.eku", RULE(FORGE_SET_EKU), .value = FORGE_EKU_DEFAULT,
	 .help = "key purposes of the original that are kept beside clientAuth"},
	{"profile.<name>.forge.policies", RULE(FORGE_SET_POLICIES), .value = FORGE_POLICY_DEFAULT,
	 .help = "certificate policies: dropped, copied, or those listed replaced and the others dropped"},
	{"profile.<name>.forge.sid_issuers", PROFILE(forge.sid_issuers_file),
	 .where = offsetof(struct cfg_profile, forge.sid_issuers_where), .type = &type_file,
	 .help = "the CAs whose Windows SIDs (a privilege) are passed on; unset: none"},
	{"profile.<name>.forge.trust_domains", RULE(FORGE_SET_TRUST_DOMAINS),
	 .help = "the SPIFFE trust domains whose identities are passed on; unset: none"},
	{"profile.<name>.forge.provenance", RULE(FORGE_SET_PROVENANCE), .value = FORGE_OFF,
	 .help = "extension that names the original: its SHA-256, issuer and serial number"},
	{"profile.<name>.client_crl", PROFILE(client_revocation.crl_files),
	 .where = offsetof(struct cfg_profile, client_revocation.crl_where), .type = &type_files,
	 .help = "vserver: certificate revocation lists of the clients' CAs"},
	{"profile.<name>.client_crl_check", PROFILE(client_revocation.crl_check),
	 .where = offsetof(struct cfg_profile, client_revocation.crl_check_where),
	 .type = &type_choice, .choices = revocations, .value = "off",
	 .help = "vserver: whether a client is refused if a CRL lists it; mandatory: or if no valid CRL can tell"},
	{"profile.<name>.client_ocsp", PROFILE(client_ocsp),
	 .where = offsetof(struct cfg_profile, client_ocsp_where), .type = &type_choice,
	 .choices = revocations, .value = "off",
	 .help = "vserver: whether a client is refused if the OCSP responder says so; mandatory: or if it says nothing"},
	{"profile.<name>.ocsp_responder", PROFILE(ocsp_responder), .type = &type_http_url,
	 .help = "vserver: who is asked about the clients' certificates"},
	{"profile.<name>.ocsp_timeout", PROFILE(ocsp_timeout), .type = &type_duration,
	 .unit = "s, m, h, d", .min = 1, .max = MINUTE, .value = "5s",
	 .help = "vserver: how long the OCSP responder may take"},
	{"profile.<name>.server_crl", PROFILE(server_revocation.crl_files),
	 .where = offsetof(struct cfg_profile, server_revocation.crl_where), .type = &type_files,
	 .help = "service: certificate revocation lists of the backends' CAs"},
	{"profile.<name>.server_crl_check", PROFILE(server_revocation.crl_check),
	 .where = offsetof(struct cfg_profile, server_revocation.crl_check_where),
	 .type = &type_choice, .choices = revocations, .value = "off",
	 .help = "service: the same for backends' certificates"},
	{"profile.<name>.verify.depth", PROFILE(verify.depth), .type = &type_number,
	 .unit = "certificates", .min = 0, .max = PATH_DEPTH_MAX, .value = "10",
	 .help = "CA certificates between the peer's and the trusted one at most"},
	{"profile.<name>.verify.rsa_bits", PROFILE(verify.rsa_bits), .type = &type_number,
	 .unit = "bits", .min = 2048, .max = 8192, .value = "2048",
	 .help = "size of an RSA key at least, in any certificate of a chain"},
	{"profile.<name>.verify.ec_bits", PROFILE(verify.ec_bits), .type = &type_number,
	 .unit = "bits", .min = 224, .max = 521, .value = "256",
	 .help = "size of an elliptic curve at least, in any certificate of a chain"},
	{"profile.<name>.verify.partial_chain", PROFILE(verify.partial_chain), .type = &type_boolean,
	 .value = "off",
	 .help = "trust every certificate of client_ca or server_ca, not the self-signed only"},

	{"service.<name>.address", SERVICE(address), .type = &type_backend, .mandatory = true,
	 .help = "where the backend listens"},
	{"service.<name>.resolve_interval", SERVICE(resolve_interval), .type = &type_duration,
	 .unit = "s, m, h, d", .min = 1, .max = DAY, .value = "30s",
	 .help = "address = NAME:PORT: how often the name is looked up again"},
	{"service.<name>.server_name", SERVICE(server_name), .type = &type_hostname, .mandatory = true,
	 .help = "the name the backend's certificate must have; also sent as SNI"},
	{"service.<name>.sni", SERVICE(sni), .type = &type_choice, .choices = snis, .value = "fixed",
	 .help = "the server name asked for: server_name, or what the client asked for"},
	{"service.<name>.profile", SERVICE(profile), .type = &cfg_type_reference,
	 .refers = SCOPE_PROFILE, .mandatory = true,
	 .help = "the profile of the backend side"},
	{"service.<name>.connect", SERVICE(connect), .type = &type_choice, .choices = connects,
	 .value = "early",
	 .help = "connect at the ClientHello, or when the client is verified"},
	{"service.<name>.weight", SERVICE(weight), .type = &type_number, .min = 1, .max = 256,
	 .value = "1",
	 .help = "its share of the connections, beside the other services of a vserver"},
	{"service.<name>.backup", SERVICE(backup), .type = &type_boolean, .value = "off",
	 .help = "used only when no other service of the vserver can be"},
	{"service.<name>.send_proxy", SERVICE(send_proxy), .type = &type_choice, .choices = send_proxies,
	 .value = "off",
	 .help = "tell the backend the client's address by PROXY protocol version 2; tls: and its TLS and certificate"},
	{"service.<name>.drain", SERVICE(drain), .type = &type_boolean, .value = "off",
	 .help = "gets no new connection; those it has go on"},
	{"service.<name>.check", SERVICE(check), .type = &type_choice, .choices = checks, .value = "off",
	 .help = "whether the backend is tried by and by: by a connection, or by a TLS handshake"},
	{"service.<name>.check_certkey", SERVICE(check_certkey), .type = &cfg_type_reference,
	 .refers = SCOPE_CERTKEY,
	 .help = "check = tls: shown to a backend that asks for a certificate; without, its asking is enough"},
	{"service.<name>.check_interval", SERVICE(check_interval), .type = &type_duration,
	 .unit = "s, m, h, d", .min = 1, .max = DAY, .value = "5s",
	 .help = "from the end of a check to the next one"},
	{"service.<name>.check_timeout", SERVICE(check_timeout), .type = &type_duration,
	 .unit = "s, m, h, d", .min = 1, .max = HOUR, .value = "3s",
	 .help = "how long a check may take"},
	{"service.<name>.check_rise", SERVICE(check_rise), .type = &type_number, .unit = "checks",
	 .min = 1, .max = 100, .value = "2",
	 .help = "good ones in a row, until a service that is down is up"},
	{"service.<name>.check_fall", SERVICE(check_fall), .type = &type_number, .unit = "checks",
	 .min = 1, .max = 100, .value = "3",
	 .help = "bad ones in a row, until a service that is up is down; the first check decides alone"},
	{"service.<name>.eject_after", SERVICE(eject_after), .type = &type_number, .unit = "failures",
	 .min = 0, .max = 1000, .value = "5",
	 .help = "failed connects of clients in a row, until a service is avoided for a time; 0: never"},
	{"service.<name>.eject_time", SERVICE(eject_time), .type = &type_duration,
	 .unit = "s, m, h, d", .min = 1, .max = DAY, .value = "10s",
	 .help = "for how long, the first time; doubled each time in a row"},
	{"service.<name>.eject_time_max", SERVICE(eject_time_max), .type = &type_duration,
	 .unit = "s, m, h, d", .min = 1, .max = DAY, .value = "5m",
	 .help = "for how long at most"},
	{"service.<name>.slow_start", SERVICE(slow_start), .type = &type_duration,
	 .unit = "s, m, h, d", .min = 0, .max = HOUR, .value = "0",
	 .help = "how long its share grows from a tenth, when it is up again; 0: whole at once"},

	{"vserver.<name>.listen", VSERVER(listen), .where = offsetof(struct cfg_vserver, listen_where),
	 .type = &type_listens, .mandatory = true,
	 .help = "where clients connect to; a prefix or a range of ports needs BPF"},
	{"vserver.<name>.certkey", VSERVER(certkeys),
	 .where = offsetof(struct cfg_vserver, certkeys_where), .type = &cfg_type_references,
	 .refers = SCOPE_CERTKEY, .mandatory = true,
	 .help = "the certificates shown to clients: the server name (SNI) chooses, the first is the default"},
	{"vserver.<name>.allow_unknown_sni", VSERVER(allow_unknown_sni), .type = &type_boolean,
	 .value = "on",
	 .help = "clients that name no server, or one that no certkey is for, get the default; off: are refused"},
	{"vserver.<name>.shield", VSERVER(shield), .type = &type_boolean, .value = "on",
	 .help = "whether shield.* and the rules of ktlsgatectl shield apply"},
	{"vserver.<name>.profile", VSERVER(profile), .type = &cfg_type_reference,
	 .refers = SCOPE_PROFILE, .mandatory = true,
	 .help = "the profile of the client side"},
	{"vserver.<name>.service", VSERVER(services), .type = &cfg_type_references,
	 .refers = SCOPE_SERVICE, .mandatory = true,
	 .help = "where the connections go: one service, or several to balance between"},
	{"vserver.<name>.balance", VSERVER(balance), .type = &type_choice, .choices = balances,
	 .value = "round-robin",
	 .help = "how a connection's service is chosen: in turn, the least busy, or by the client's address"},
	{"vserver.<name>.max_flows", VSERVER(max_flows), .type = &type_number, .unit = "connections",
	 .min = 0, .max = 10000000, .value = "0",
	 .help = "connections at a time; those beyond are reset; 0: no limit"},
	{"vserver.<name>.accept_proxy", VSERVER(accept_proxy), .type = &type_boolean, .value = "off",
	 .help = "proxies in proxy_from tell the client's address, by PROXY protocol version 2, or are refused"},
	{"vserver.<name>.proxy_from", VSERVER(proxy_from), .type = &type_prefixes,
	 .help = "accept_proxy: the proxies; who comes from elsewhere is a client itself"},
	{"vserver.<name>.retries", VSERVER(retries), .type = &type_number, .min = 0, .max = 16,
	 .value = "2",
	 .help = "how often another service is tried when one cannot be connected to"},
};
/* clang-format on */
const unsigned cfg_n_keys = ARRAY_SIZE(cfg_keys);

#define LISTED(type, list_, count_)                                                                \
	.size = sizeof(type), .list = offsetof(struct config, list_),                              \
	.count = offsetof(struct config, count_)

const struct cfg_scope_desc cfg_scopes[SCOPES] = {
	[SCOPE_GLOBAL] = {.name = "", .help = "for all"},
	[SCOPE_CERTKEY] = {"certkey", "a certificate and its private key",
			   LISTED(struct cfg_certkey, certkeys, n_certkeys)},
	[SCOPE_PROFILE] = {"profile", "how TLS is spoken, with clients or with backends",
			   LISTED(struct cfg_profile, profiles, n_profiles)},
	[SCOPE_SERVICE] = {"service", "a backend",
			   LISTED(struct cfg_service, services, n_services)},
	[SCOPE_VSERVER] = {"vserver", "what clients connect to",
			   LISTED(struct cfg_vserver, vservers, n_vservers)},
};

#define ASSERT_HEAD(type)                                                                          \
	_Static_assert(offsetof(type, name) == offsetof(struct cfg_head, name) &&                  \
			       offsetof(type, index) == offsetof(struct cfg_head, index),          \
		       #type " does not begin like struct cfg_head")
ASSERT_HEAD(struct cfg_certkey);
ASSERT_HEAD(struct cfg_profile);
ASSERT_HEAD(struct cfg_service);
ASSERT_HEAD(struct cfg_vserver);

/* ---- objects ---- */

void *cfg_get_pointer(const void *member)
{
	void *p;

	memcpy(&p, member, sizeof(p));
	return p;
}

void cfg_set_pointer(void *member, void *value)
{
	memcpy(member, &value, sizeof(value));
}

unsigned cfg_count(const struct config *cfg, enum cfg_scope scope)
{
	if (scope == SCOPE_GLOBAL)
		return 1;
	return *(const unsigned *)cfg_member(cfg, cfg_scopes[scope].count);
}

void *cfg_object(const struct config *cfg, enum cfg_scope scope, unsigned i)
{
	char *list;

	if (scope == SCOPE_GLOBAL)
		return (void *)cfg;
	list = cfg_get_pointer(cfg_member(cfg, cfg_scopes[scope].list));
	return cfg_get_pointer(list + i * sizeof(void *));
}

int cfg_set_defaults(enum cfg_scope scope, void *object)
{
	char why[CFG_WHY_MAX];

	for (const struct cfg_key *k = cfg_keys; k < cfg_keys + cfg_n_keys; k++) {
		if (k->scope != scope || !k->value)
			continue;
		if (k->type->parse(k, k->value, cfg_member(object, k->offset), why) < 0)
			return -ENOMEM; /* the tests parse every default */
	}
	return 0;
}

void *cfg_object_add(struct config *cfg, enum cfg_scope scope, const char *name)
{
	const struct cfg_scope_desc *s = &cfg_scopes[scope];
	unsigned *count = cfg_member(cfg, s->count);
	void *list_member = cfg_member(cfg, s->list);
	char *list = reallocarray(cfg_get_pointer(list_member), *count + 1, sizeof(void *));
	struct cfg_head *head;

	if (!list)
		return NULL;
	cfg_set_pointer(list_member, list);
	head = calloc(1, s->size);
	if (!head)
		return NULL;
	/* From here on config_free() finds it. */
	cfg_set_pointer(list + *count * sizeof(void *), head);
	head->index = (*count)++;
	head->name = strdup(name);
	if (!head->name || cfg_set_defaults(scope, head) < 0)
		return NULL;
	return head;
}

/* ---- keys as text ---- */

bool cfg_name_valid(const char *name, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (!isalnum((unsigned char)name[i]) && name[i] != '_' && name[i] != '-')
			return false;
	}
	return len && len <= CFG_NAME_MAX;
}

#define NAME_MARK "<name>"

const struct cfg_key *cfg_find(const char *text, const char **name, size_t *name_len)
{
	size_t len = strlen(text);

	*name = text;
	*name_len = 0;
	for (const struct cfg_key *k = cfg_keys; k < cfg_keys + cfg_n_keys; k++) {
		const char *mark = strstr(k->pattern, NAME_MARK), *tail;
		size_t head_len, tail_len;

		if (!mark && !strcmp(text, k->pattern))
			return k;
		if (!mark)
			continue;
		head_len = mark - k->pattern;
		tail = mark + strlen(NAME_MARK);
		tail_len = strlen(tail);
		if (len < head_len + tail_len || strncmp(text, k->pattern, head_len) ||
		    strcmp(text + len - tail_len, tail))
			continue;
		*name = text + head_len;
		*name_len = len - head_len - tail_len;
		return k;
	}
	return NULL;
}

void cfg_key_text(const struct cfg_key *k, const char *name, char out[CFG_KEY_MAX])
{
	const char *mark = strstr(k->pattern, NAME_MARK);

	if (!mark || !name)
		snprintf(out, CFG_KEY_MAX, "%s", k->pattern);
	else
		snprintf(out, CFG_KEY_MAX, "%.*s%.*s%s", (int)(mark - k->pattern), k->pattern,
			 CFG_NAME_MAX, name, mark + strlen(NAME_MARK));
}

/* Levenshtein; both shorter than CFG_KEY_MAX. */
static unsigned edit_distance(const char *a, const char *b)
{
	unsigned row[CFG_KEY_MAX], left, diagonal;

	for (unsigned j = 0; j < CFG_KEY_MAX; j++)
		row[j] = j;
	for (unsigned i = 0; a[i]; i++) {
		diagonal = i;
		row[0] = i + 1;
		for (unsigned j = 0; b[j]; j++) {
			unsigned change = diagonal + (a[i] != b[j]);

			diagonal = row[j + 1];
			left = row[j];
			row[j + 1] = (diagonal < left ? diagonal : left) + 1;
			if (change < row[j + 1])
				row[j + 1] = change;
		}
	}
	return row[strlen(b)];
}

bool cfg_nearest(const char *text, char out[CFG_KEY_MAX])
{
	const char *first = strchr(text, '.'), *last = first ? strchr(first + 1, '.') : NULL;
	char name[CFG_NAME_MAX + 1] = "", key[CFG_KEY_MAX];
	long best, d;

	if (strlen(text) >= CFG_KEY_MAX)
		return false;
	best = strlen(text) / 3 + 1; /* further off, it is another word */
	out[0] = '\0';
	if (first && cfg_name_valid(first + 1, last > first ? last - first - 1 : 0))
		snprintf(name, sizeof(name), "%.*s", (int)(last - first - 1), first + 1);
	for (const struct cfg_key *k = cfg_keys; k < cfg_keys + cfg_n_keys; k++) {
		cfg_key_text(k, name, key);
		if (labs((long)strlen(text) - (long)strlen(key)) >= best)
			continue;
		d = edit_distance(text, key);
		if (d >= best)
			continue;
		best = d;
		cfg_key_text(k, *name ? name : NULL, out);
	}
	return out[0];
}

/* ---- printers ---- */

bool cfg_is_set(const struct cfg_key *k, const void *member)
{
	if (k->type == &type_address || k->type == &type_backend)
		return ((const struct cfg_address *)member)->len;
	if (k->type == &cfg_type_reference || (k->type->owns_string && !k->word))
		return cfg_get_pointer(member);
	return true;
}

bool config_has(const struct config *cfg, const char *key)
{
	const char *name;
	size_t len;
	const struct cfg_key *k = cfg_find(key, &name, &len);

	if (!k || k->scope == SCOPE_GLOBAL)
		return k;
	for (unsigned i = 0; i < cfg_count(cfg, k->scope); i++) {
		const struct cfg_head *head = cfg_object(cfg, k->scope, i);

		if (strlen(head->name) == len && !memcmp(head->name, name, len))
			return true;
	}
	return false;
}

/* tell(): each setting in order. Returns how many there are; key: only that one. */
static int for_each_setting(const struct config *cfg, const char *key,
			    void (*tell)(const struct cfg_key *k, unsigned object, const char *text,
					 const void *member, void *arg),
			    void *arg)
{
	int n = 0;

	for (enum cfg_scope scope = 0; scope < SCOPES; scope++) {
		for (unsigned i = 0; i < cfg_count(cfg, scope); i++) {
			const void *object = cfg_object(cfg, scope, i);
			const char *name = scope ? ((const struct cfg_head *)object)->name : NULL;

			for (const struct cfg_key *k = cfg_keys; k < cfg_keys + cfg_n_keys; k++) {
				const void *member = cfg_member(object, k->offset);
				char text[CFG_KEY_MAX];

				if (k->scope != scope || !cfg_is_set(k, member))
					continue;
				cfg_key_text(k, name, text);
				if (key && strcmp(key, text))
					continue;
				tell(k, i, text, member, arg);
				n++;
			}
		}
	}
	return n;
}

static void print_setting(const struct cfg_key *k, unsigned object, const char *text,
			  const void *member, void *arg)
{
	FILE *out = arg;

	(void)object;
	fprintf(out, "%s = ", text);
	k->type->print(k, member, out);
	fputc('\n', out);
}

int config_print(const struct config *cfg, const char *key, FILE *out)
{
	return for_each_setting(cfg, key, print_setting, out);
}

struct origins {
	const struct config *cfg;
	unsigned next;
	FILE *out;
};

static bool before(const struct cfg_origin *o, const struct cfg_key *k, unsigned object)
{
	if (o->key->scope != k->scope)
		return o->key->scope < k->scope;
	if (o->object != object)
		return o->object < object;
	return o->key < k;
}

/* Both lists are in the same order, so one walk through each does. */
static void print_origin(const struct cfg_key *k, unsigned object, const char *text,
			 const void *member, void *arg)
{
	struct origins *o = arg;
	const struct cfg_origin *from = o->cfg->origins + o->next;
	const struct cfg_origin *end = o->cfg->origins + o->cfg->n_origins;

	/* What was assigned but is not printed: "off" and the like. */
	while (from < end && before(from, k, object))
		from++;
	o->next = (unsigned)(from - o->cfg->origins);
	fprintf(o->out, "%s = ", text);
	k->type->print(k, member, o->out);
	if (from < end && from->key == k && from->object == object)
		fprintf(o->out, " # %s:%u\n", from->where.file, from->where.line);
	else
		fputs(" # default\n", o->out);
}

void config_print_origins(const struct config *cfg, FILE *out)
{
	struct origins o = {.cfg = cfg, .out = out};

	for_each_setting(cfg, NULL, print_origin, &o);
}

void config_print_table(FILE *out)
{
	fputs("key\ttype\tunit\trange\tdefault\truntime\thelp\n", out);
	for (const struct cfg_key *k = cfg_keys; k < cfg_keys + cfg_n_keys; k++) {
		fprintf(out, "%s\t%s\t%s\t", k->pattern, k->type->name, k->unit ? k->unit : "-");
		k->type->range(k, out);
		fprintf(out, "\t%s\t%s\t%s\n",
			k->value       ? k->value
			: k->mandatory ? "mandatory"
				       : "unset",
			k->fixed ? "no" : "yes", k->help);
	}
}

/* What the example sets: one vserver that forges for one backend, and no root beside it. */
static const char *const sample[] = {
	"dataplane.user = ktlsgate",
	"certkey.web.cert = /etc/ktlsgate/pki/web.pem",
	"certkey.web.key = /etc/ktlsgate/pki/web.key",
	"certkey.forge.cert = /etc/ktlsgate/pki/forge-ca.pem",
	"certkey.forge.key = /etc/ktlsgate/pki/forge-ca.key",
	"profile.front.client_auth = mandatory",
	"profile.front.client_ca = /etc/ktlsgate/pki/client-ca.pem",
	"profile.back.dynamic_client_cert = enabled",
	"profile.back.forging_certkey = forge",
	"profile.back.server_ca = /etc/ktlsgate/pki/server-ca.pem",
	"service.app1.address = 127.0.0.1:9443",
	"service.app1.server_name = backend.example",
	"service.app1.profile = back",
	"vserver.app.listen = 0.0.0.0:8443",
	"vserver.app.certkey = web",
	"vserver.app.profile = front",
	"vserver.app.service = app1",
};

static void print_help(const struct cfg_key *k, FILE *out)
{
	fprintf(out, "# %s: %s.\n#   ", k->pattern, k->help);
	k->type->range(k, out);
	fprintf(out, "%s\n", k->mandatory ? "; mandatory" : "");
}

/* pattern NULL: of all keys of the scope */
static void print_sample(enum cfg_scope scope, const char *pattern, FILE *out)
{
	const char *name;
	size_t len;

	for (unsigned i = 0; i < ARRAY_SIZE(sample); i++) {
		char key[CFG_KEY_MAX];

		snprintf(key, sizeof(key), "%.*s", (int)strcspn(sample[i], " "), sample[i]);
		if (cfg_find(key, &name, &len)->scope == scope &&
		    (!pattern || !strcmp(key, pattern)))
			fprintf(out, "%s\n", sample[i]);
	}
}

int config_print_example(FILE *out)
{
	fputs("# SPDX-License-Identifier: Apache-2.0\n"
	      "# ktlsgate.conf: KEY = VALUE, one per line; a later line replaces an earlier one.\n"
	      "# Comments are lines that begin with # or ; and the rest of a line from a # that\n"
	      "# stands after white space. Times take s, m, h or d (none: seconds). <name> is of\n"
	      "# letters, digits, _ and -. What is commented out here is the default.\n"
	      "# Generated from the table in daemon/config_table.c: do not edit.\n",
	      out);
	for (const struct cfg_key *k = cfg_keys; k < cfg_keys + cfg_n_keys; k++) {
		if (k->scope != SCOPE_GLOBAL)
			continue;
		fputc('\n', out);
		print_help(k, out);
		if (k->value)
			fprintf(out, "#%s = %s\n", k->pattern, k->value);
		print_sample(SCOPE_GLOBAL, k->pattern, out);
	}
	for (enum cfg_scope scope = SCOPE_GLOBAL + 1; scope < SCOPES; scope++) {
		fprintf(out, "\n# A %s: %s.\n", cfg_scopes[scope].name, cfg_scopes[scope].help);
		for (const struct cfg_key *k = cfg_keys; k < cfg_keys + cfg_n_keys; k++) {
			if (k->scope != scope)
				continue;
			print_help(k, out);
			if (k->value)
				fprintf(out, "#   default: %s\n", k->value);
		}
		print_sample(scope, NULL, out);
	}
	return ferror(out) ? -EIO : 0;
}
