// SPDX-License-Identifier: Apache-2.0
/*
 * Types of configuration values that are one number or one word: choices, booleans, numbers, CPUs,
 * durations, sizes. One section each: parse, print, range. Knows no key.
 */
#include "config/types_internal.h"

#include <ctype.h>
#include <errno.h>
#include <sched.h>
#include <stdarg.h>
#include <string.h>
#include <strings.h>
#include "config/config_types.h"

/* ---- helpers of the types ---- */

int printf_like(2, 3) type_wrong(char *why, const char *fmt, ...)
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

int type_wrong_value(const struct cfg_key *k, char *why, const char *what)
{
	char range[200];

	return type_wrong(why, "%s; use %s", what, range_text(k, range, sizeof(range)));
}

int type_set_string(void *member, const char *text, char *why)
{
	char **s = member, *copy = strdup(text);

	if (!copy)
		return type_wrong(why, "out of memory");
	free(*s);
	*s = copy;
	return 0;
}

/* Decimal digits only; moves *p behind them. Saturates, so that "too large" stays too large. */
bool type_read_digits(const char **p, uint64_t *out)
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
	return type_wrong_value(k, why, "is none of the possible values");
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
	return type_wrong_value(k, why, "is not a boolean");
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

	if (!type_read_digits(&text, &v) || *text)
		return type_wrong_value(k, why, "is not a number");
	if (v < k->min || v > k->max)
		return type_wrong_value(k, why, "is out of range");
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

/* ---- a limit: a number, off, or as the machine is; config_check.c settles that ---- */

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
		return type_wrong(why, "CPU %u is none that we may run on; use some of %s", cpu,
				  text);
	}
	for (unsigned i = 0; i < cpus->n; i++) {
		if (cpus->list[i] == cpu)
			return type_wrong(why, "names CPU %u twice; once is enough", cpu);
	}
	if (cpus->n == WORKERS_MAX)
		return type_wrong(why,
				  "names more than %u CPUs, which is the most workers there can be",
				  WORKERS_MAX);
	more = reallocarray(cpus->list, cpus->n + 1, sizeof(*more));
	if (!more)
		return type_wrong(why, "out of memory");
	cpus->list = more;
	more[cpus->n++] = cpu;
	return 0;
}

/* FIRST or FIRST-LAST; moves *p behind it. */
static int add_range(const struct cfg_key *k, const char **p, struct cfg_cpus *cpus,
		     const cpu_set_t *usable, char *why)
{
	uint64_t first, last;

	if (!type_read_digits(p, &first))
		return type_wrong_value(k, why, "is no list of CPUs");
	last = first;
	if (**p == '-') {
		++*p;
		if (!type_read_digits(p, &last))
			return type_wrong_value(k, why, "has a range without an end");
	}
	if (**p && !strchr(CPU_SEPARATORS, **p))
		return type_wrong_value(k, why, "is no list of CPUs");
	if (last < first)
		return type_wrong(why, "has a range that ends before it begins; use %u-%u",
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
		return type_wrong(why, "cannot be checked: %s", strerror(errno));
	for (const char *p = text + strspn(text, CPU_SEPARATORS); !err && *p;
	     p += strspn(p, CPU_SEPARATORS))
		err = add_range(k, &p, cpus, &usable, why);
	if (!err && !cpus->n)
		err = type_wrong_value(k, why, "is no list of CPUs");
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
	if (!type_read_digits(&text, &v))
		return type_wrong_value(k, why, "is not a time");
	unit = time_unit(text);
	if (!unit)
		return type_wrong_value(k, why, "has no unit of time we know (s, m, h, d)");
	v *= unit;
	if (v < k->min || v > k->max)
		return type_wrong_value(k, why, "is out of range");
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
	if (!type_read_digits(&text, &v))
		return type_wrong_value(k, why, "is not a size");
	unit = size_unit(text);
	if (!unit)
		return type_wrong_value(k, why, "has no unit of size we know (K, M)");
	v *= unit;
	if (v < k->min || v > k->max)
		return type_wrong_value(k, why, "is out of range");
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
		return type_wrong(why,
				  "is more than the kernel gives a socket; raise the sysctl "
				  "net.core.%s, or use %s or %u at most",
				  which == SOCKOPT_RCVBUF ? "rmem_max" : "wmem_max", k->word,
				  given);
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
		return type_wrong(why,
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
			return type_wrong_value(k, why,
						"holds a word that is none of the possible ones");
		if (strlen(joined) + 1 + len >= sizeof(joined))
			return type_wrong_value(k, why, "names some twice");
		if (joined[0])
			strcat(joined, ":");
		strcat(joined, word);
	}
	return type_set_string(member, joined, why);
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
