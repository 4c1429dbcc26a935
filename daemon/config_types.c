// SPDX-License-Identifier: Apache-2.0
/* The types of configuration values, one section each: parse, print, range. Knows no key. */
#include "config_types.h"

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
#include "name_pattern.h"

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

const struct cfg_type type_choice = {
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

const struct cfg_type type_boolean = {
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

const struct cfg_type type_number = {
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

const struct cfg_type type_workers = {
	.name = "number",
	.parse = parse_workers,
	.print = print_number,
	.range = range_number,
};

/* ---- a limit: a number, off, or as the machine is; config.c settles that ---- */

static int parse_limit(const struct cfg_key *k, const char *text, void *member, char *why)
{
	if (!strcasecmp(text, k->word))
		*(unsigned *)member = CFG_AUTO;
	else if (!strcasecmp(text, "off"))
		*(unsigned *)member = 0;
	else
		return parse_number(k, text, member, why);
	return 0;
}

static void print_limit(const struct cfg_key *k, const void *member, FILE *out)
{
	if (*(const unsigned *)member)
		print_number(k, member, out);
	else
		fputs("off", out);
}

static void range_limit(const struct cfg_key *k, FILE *out)
{
	fputs("off | ", out);
	range_number(k, out);
}

const struct cfg_type type_limit = {
	.name = "number",
	.parse = parse_limit,
	.print = print_limit,
	.range = range_limit,
};

/* ---- CPUs: numbers and ranges of them, in the workers' order ---- */

#define CPU_SEPARATORS "," CFG_BLANK

/* As cpuset(7) writes lists, in our order. */
static void print_cpu_list(const struct cfg_cpus *cpus, FILE *out)
{
	for (unsigned i = 0, n; i < cpus->n; i += n) {
		for (n = 1; i + n < cpus->n && cpus->list[i + n] == cpus->list[i] + n; n++)
			;
		fprintf(out, n > 1 ? "%s%u-%u" : "%s%u", i ? "," : "", cpus->list[i],
			cpus->list[i] + n - 1);
	}
}

static int add_cpu(struct cfg_cpus *cpus, unsigned cpu, const cpu_set_t *usable, char *why)
{
	unsigned *more;

	if (cpu >= CPU_SETSIZE || !CPU_ISSET(cpu, usable)) {
		struct cfg_cpus all = {0};
		char text[200] = "";
		scoped_file *f = fmemopen(text, sizeof(text), "w");

		for (unsigned i = 0; i < CPU_SETSIZE; i++) {
			if (CPU_ISSET(i, usable) && add_cpu(&all, i, usable, why))
				break;
		}
		if (f) {
			print_cpu_list(&all, f);
			fflush(f);
		}
		free(all.list);
		return wrong(why, "CPU %u is none that we may run on; use some of %s", cpu, text);
	}
	for (unsigned i = 0; i < cpus->n; i++) {
		if (cpus->list[i] == cpu)
			return wrong(why, "names CPU %u twice; once is enough", cpu);
	}
	if (cpus->n == WORKERS_MAX)
		return wrong(why, "names more than %u CPUs, which is the most workers there can be",
			     WORKERS_MAX);
	more = reallocarray(cpus->list, cpus->n + 1, sizeof(*more));
	if (!more)
		return wrong(why, "out of memory");
	cpus->list = more;
	more[cpus->n++] = cpu;
	return 0;
}

/* FIRST or FIRST-LAST; moves *p behind it. */
static int add_range(const struct cfg_key *k, const char **p, struct cfg_cpus *cpus,
		     const cpu_set_t *usable, char *why)
{
	uint64_t first, last;

	if (!read_digits(p, &first))
		return wrong_value(k, why, "is no list of CPUs");
	last = first;
	if (**p == '-') {
		++*p;
		if (!read_digits(p, &last))
			return wrong_value(k, why, "has a range without an end");
	}
	if (**p && !strchr(CPU_SEPARATORS, **p))
		return wrong_value(k, why, "is no list of CPUs");
	if (last < first)
		return wrong(why, "has a range that ends before it begins; use %u-%u",
			     (unsigned)last, (unsigned)first);
	for (uint64_t cpu = first; cpu <= last; cpu++) {
		if (add_cpu(cpus, (unsigned)cpu, usable, why))
			return -EINVAL;
	}
	return 0;
}

static int parse_cpus(const struct cfg_key *k, const char *text, void *member, char *why)
{
	struct cfg_cpus *cpus = member;
	cpu_set_t usable;
	int err = 0;

	free(cpus->list);
	*cpus = (struct cfg_cpus){0};
	if (!strcasecmp(text, k->word))
		return 0;
	if (sched_getaffinity(0, sizeof(usable), &usable) < 0)
		return wrong(why, "cannot be checked: %s", strerror(errno));
	for (const char *p = text + strspn(text, CPU_SEPARATORS); !err && *p;
	     p += strspn(p, CPU_SEPARATORS))
		err = add_range(k, &p, cpus, &usable, why);
	if (!err && !cpus->n)
		err = wrong_value(k, why, "is no list of CPUs");
	return err;
}

static void print_cpus(const struct cfg_key *k, const void *member, FILE *out)
{
	const struct cfg_cpus *cpus = member;

	if (cpus->n)
		print_cpu_list(cpus, out);
	else
		fputs(k->word, out);
}

static void range_cpus(const struct cfg_key *k, FILE *out)
{
	fprintf(out, "%s | numbers and ranges, e.g. 0-3,8", k->word);
}

const struct cfg_type type_cpus = {
	.name = "CPUs",
	.parse = parse_cpus,
	.print = print_cpus,
	.range = range_cpus,
	.owns_string = true,
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

const struct cfg_type type_duration = {
	.name = "duration",
	.parse = parse_duration,
	.print = print_duration,
	.range = range_duration,
};

/* ---- buffers of sockets: a size, or as the kernel sees fit ---- */

static const struct {
	char letter;
	unsigned bytes;
} size_units[] = {{'M', 1024 * 1024}, {'K', 1024}};

/* Bytes per unit; 0: no such unit. */
static unsigned size_unit(const char *letter)
{
	if (!*letter)
		return 1;
	for (unsigned i = 0; i < ARRAY_SIZE(size_units); i++) {
		if (toupper((unsigned char)letter[0]) == size_units[i].letter && !letter[1])
			return size_units[i].bytes;
	}
	return 0;
}

/* In the largest unit that is exact. */
static void print_bytes(unsigned bytes, FILE *out)
{
	for (unsigned i = 0; i < ARRAY_SIZE(size_units); i++) {
		if (bytes % size_units[i].bytes)
			continue;
		fprintf(out, "%u%c", bytes / size_units[i].bytes, size_units[i].letter);
		return;
	}
	fprintf(out, "%u", bytes);
}

static int parse_size(const struct cfg_key *k, const char *text, void *member, char *why)
{
	unsigned unit;
	uint64_t v;

	if (!strcasecmp(text, k->word)) {
		*(unsigned *)member = 0;
		return 0;
	}
	if (!read_digits(&text, &v))
		return wrong_value(k, why, "is not a size");
	unit = size_unit(text);
	if (!unit)
		return wrong_value(k, why, "has no unit of size we know (K, M)");
	v *= unit;
	if (v < k->min || v > k->max)
		return wrong_value(k, why, "is out of range");
	*(unsigned *)member = (unsigned)v;
	return 0;
}

/* The kernel would make less of it without a word. */
static int parse_buffer(const struct cfg_key *k, const char *text, void *member,
			enum sockopt_buffer which, char *why)
{
	unsigned size = 0, given;
	int err = parse_size(k, text, &size, why);

	if (err)
		return err;
	given = sockopt_buffer_given(which, size);
	if (given < size)
		return wrong(why,
			     "is more than the kernel gives a socket; raise the sysctl "
			     "net.core.%s, or use %s or %u at most",
			     which == SOCKOPT_RCVBUF ? "rmem_max" : "wmem_max", k->word, given);
	*(unsigned *)member = size;
	return 0;
}

static int parse_rcvbuf(const struct cfg_key *k, const char *text, void *member, char *why)
{
	return parse_buffer(k, text, member, SOCKOPT_RCVBUF, why);
}

static int parse_sndbuf(const struct cfg_key *k, const char *text, void *member, char *why)
{
	return parse_buffer(k, text, member, SOCKOPT_SNDBUF, why);
}

static void print_size(const struct cfg_key *k, const void *member, FILE *out)
{
	unsigned bytes = *(const unsigned *)member;

	if (bytes)
		print_bytes(bytes, out);
	else
		fputs(k->word, out);
}

static void range_size(const struct cfg_key *k, FILE *out)
{
	fprintf(out, "%s | ", k->word);
	print_bytes(k->min, out);
	fputs("..", out);
	print_bytes(k->max, out);
}

const struct cfg_type type_rcvbuf = {
	.name = "size",
	.parse = parse_rcvbuf,
	.print = print_size,
	.range = range_size,
};

const struct cfg_type type_sndbuf = {
	.name = "size",
	.parse = parse_sndbuf,
	.print = print_size,
	.range = range_size,
};

static int parse_backlog(const struct cfg_key *k, const char *text, void *member, char *why)
{
	unsigned max = sockopt_backlog_max(), backlog = 0;
	int err = parse_number(k, text, &backlog, why);

	if (!err && backlog > max)
		return wrong(why,
			     "is more than the kernel lets wait; raise the sysctl "
			     "net.core.somaxconn, or use %u at most",
			     max);
	if (!err)
		*(unsigned *)member = backlog;
	return err;
}

const struct cfg_type type_backlog = {
	.name = "number",
	.parse = parse_backlog,
	.print = print_number,
	.range = range_number,
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

const struct cfg_type type_file = {
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

const struct cfg_type type_der_file = {
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

const struct cfg_type type_files = {
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

const struct cfg_type type_secret_file = {
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
		return wrong_value(k, why, "is no user of this system");
	return set_string(member, text, why);
}

static void range_user(const struct cfg_key *k, FILE *out)
{
	(void)k;
	fputs("the name of a user, e.g. ktlsgate", out);
}

const struct cfg_type type_user = {
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

const struct cfg_type type_group = {
	.name = "group",
	.parse = parse_group,
	.print = print_string,
	.range = range_group,
	.owns_string = true,
};

static int parse_congestion_control(const struct cfg_key *k, const char *text, void *member,
				    char *why)
{
	(void)k;
	if (sockopt_congestion_check(text, why, CFG_WHY_MAX))
		return -EINVAL;
	return set_string(member, text, why);
}

static void range_congestion_control(const struct cfg_key *k, FILE *out)
{
	(void)k;
	fputs("a name of the sysctl net.ipv4.tcp_allowed_congestion_control", out);
}

const struct cfg_type type_congestion_control = {
	.name = "name",
	.parse = parse_congestion_control,
	.print = print_string,
	.range = range_congestion_control,
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

const struct cfg_type type_hostname = {
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

const struct cfg_type type_rule = {
	.name = "rule",
	.parse = parse_rule,
	.print = print_string,
	.range = range_rule,
	.owns_string = true,
};

static int parse_patterns(const struct cfg_key *k, const char *text, void *member, char *why)
{
	char what[NAME_PATTERN_WHY_MAX];
	int err = name_patterns_check(text, what);

	(void)k;
	if (err)
		return wrong(why, "%s", err == -EINVAL ? what : "out of memory");
	return set_string(member, text, why);
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

const struct cfg_type type_domains = {
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

const struct cfg_type type_uris = {
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

const struct cfg_type type_address = {
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

const struct cfg_type type_backend = {
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
	const char *p;
	uint64_t len;

	l->prefix_len = ipv6 ? 128 : 32;
	if (!slash || !colon || slash > colon)
		return 0;
	p = slash + 1;
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

const struct cfg_type type_listens = {
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

const struct cfg_type type_words = {
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

const struct cfg_type type_alpn = {
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

const struct cfg_type type_prefixes = {
	.name = "prefixes",
	.parse = parse_prefixes,
	.print = print_prefixes,
	.range = range_prefixes,
	.owns_string = true,
};

/* ---- URL of HTTP, numeric ---- */

/* ADDRESS[:PORT], as in a URL. */
static int http_host(const char *host, size_t len, struct cfg_address *out)
{
	const struct cfg_key none = {.type = &type_address};
	char text[INET6_ADDRSTRLEN + 16], why[CFG_WHY_MAX];

	if (len + sizeof(":80") > sizeof(text))
		return -EINVAL;
	memcpy(text, host, len);
	/* An IPv6 address has colons inside of its brackets. */
	strcpy(text + len, memchr(host, ':', len) && host[len - 1] != ']' ? "" : ":80");
	return parse_address(&none, text, out, why);
}

int cfg_http_address(const char *url, struct cfg_address *out)
{
	const char *host = url + strlen(CFG_HTTP);

	if (strncmp(url, CFG_HTTP, strlen(CFG_HTTP)))
		return -EINVAL;
	return http_host(host, strcspn(host, "/"), out);
}

int cfg_aia_address(const char *list, const char *url, struct cfg_address *out)
{
	const char *host = url + strlen(CFG_HTTP), *word, *address;
	size_t len, address_len;

	if (strncmp(url, CFG_HTTP, strlen(CFG_HTTP)))
		return -EINVAL;
	len = strcspn(host, "/");
	for (word = list + strspn(list, CFG_BLANK); *word;
	     word = address + address_len + strspn(address + address_len, CFG_BLANK)) {
		address = word + strcspn(word, "=") + 1;
		address_len = strcspn(address, CFG_BLANK);
		if ((size_t)(address - 1 - word) == len && !strncasecmp(word, host, len))
			return http_host(address, address_len, out);
	}
	return -ENOENT;
}

/* As cfg_aia_address() reads it. */
static int parse_aia(const struct cfg_key *k, const char *text, void *member, char *why)
{
	struct cfg_address ignored;
	size_t host, len;

	for (const char *p = text + strspn(text, CFG_BLANK); *p;
	     p += len + strspn(p + len, CFG_BLANK)) {
		len = strcspn(p, CFG_BLANK);
		host = strspn(p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				 "0123456789.-_:[]");
		if (!host || p[host] != '=')
			return wrong_value(k, why, "has no host of a URL in front of a =");
		if (http_host(p + host + 1, len - host - 1, &ignored) < 0)
			return wrong_value(k, why, "has no numeric address behind a =");
	}
	return set_string(member, text, why);
}

static void range_aia(const struct cfg_key *k, FILE *out)
{
	(void)k;
	fputs("HOST[:PORT]=ADDRESS[:PORT], separated by blanks", out);
}

const struct cfg_type type_aia = {
	.name = "hosts",
	.parse = parse_aia,
	.print = print_string,
	.range = range_aia,
	.owns_string = true,
};

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

const struct cfg_type type_http_url = {
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
