// SPDX-License-Identifier: Apache-2.0
/* ktlsgatectl forged and explain: what was, and would be, forged. Reads files, not certificates. */
#include "ctl.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>

#define SERIAL_MAX 64 /* hexadecimal digits: RFC 5280 allows 40 */
#define ARGS_MAX   64

static int printf_like(1, 2) fail(const char *fmt, ...)
{
	va_list ap;

	fputs("ktlsgatectl: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	return EXIT_FAILURE;
}

/* ---- the daemon's settings ---- */

struct settings {
	char **lines; /* "key = value" */
	unsigned n;
};

static void settings_free(struct settings *s)
{
	for (unsigned i = 0; i < s->n; i++)
		free(s->lines[i]);
	free(s->lines);
}
#define scoped_settings __attribute__((cleanup(settings_free))) struct settings

static int settings_read(struct settings *s)
{
	scoped_file *in = ask("config");
	scoped_mem char *line = NULL;
	size_t size = 0;

	if (!in)
		return -1;
	while (getline(&line, &size, in) > 0) {
		char **more = reallocarray(s->lines, s->n + 1, sizeof(*more));

		if (!more)
			return -1;
		s->lines = more;
		line[strcspn(line, "\n")] = '\0';
		s->lines[s->n++] = TAKE_PTR(line);
		size = 0;
	}
	return 0;
}

/* The value of SCOPE.NAME.KEY, NULL if there is none. */
static const char *get(const struct settings *s, const char *scope, const char *name,
		       const char *key)
{
	char wanted[256];
	size_t len;

	len = (size_t)snprintf(wanted, sizeof(wanted), "%s.%s.%s = ", scope, name, key);
	for (unsigned i = 0; i < s->n; i++) {
		if (!strncmp(s->lines[i], wanted, len))
			return s->lines[i] + len;
	}
	return NULL;
}

/* ---- forged ---- */

/* Upper-case digits without leading zeros and separators; false: it is no serial number. */
static bool normalize(const char *text, char out[SERIAL_MAX + 1])
{
	size_t n = 0;

	if (text[0] == '0' && (text[1] | 0x20) == 'x')
		text += 2;
	for (; *text; text++) {
		if (*text == ':' || (*text == '0' && !n))
			continue;
		if (!isxdigit((unsigned char)*text) || n == SERIAL_MAX)
			return false;
		out[n++] = (char)toupper((unsigned char)*text);
	}
	out[n] = '\0';
	return n;
}

static char *daemon_log(void)
{
	scoped_file *in = ask("config audit.log");
	char line[8192], *value;

	if (!in || !fgets(line, sizeof(line), in))
		return NULL;
	line[strcspn(line, "\n")] = '\0';
	value = strstr(line, " = ");
	if (!value || !strcmp(value + 3, "off")) {
		fail("audit.log is off; name the file with -f");
		return NULL;
	}
	return strdup(value + 3);
}

int ctl_forged(const char *serial, const char *path)
{
	char wanted[SERIAL_MAX + 32], digits[SERIAL_MAX + 1];
	scoped_mem char *own = path ? NULL : daemon_log();
	scoped_mem char *line = NULL;
	scoped_file *in = NULL;
	bool found = false;
	size_t size = 0;

	if (!path && !own)
		return EXIT_FAILURE;
	path = path ? path : own;
	if (!normalize(serial, digits))
		return fail("%s: not a serial number; write its hexadecimal digits", serial);
	in = fopen(path, "re");
	if (!in)
		return fail("%s: %s", path, strerror(errno));
	/* A quote inside of a string is escaped: this is found where it is meant. */
	snprintf(wanted, sizeof(wanted), "\"forged\":{\"serial\":\"%s\"", digits);
	while (getline(&line, &size, in) > 0) {
		if (!strstr(line, wanted))
			continue;
		put_text(line, strlen(line), stdout);
		found = true;
	}
	return found ? EXIT_SUCCESS
		     : fail("%s: no certificate with serial number %s", path, digits);
}

/* ---- explain ---- */

struct args {
	char *argv[ARGS_MAX + 1];
	unsigned n;
};

static void args_free(struct args *a)
{
	for (unsigned i = 0; i < a->n; i++)
		free(a->argv[i]);
}
#define scoped_args __attribute__((cleanup(args_free))) struct args

static void printf_like(2, 3) add(struct args *a, const char *fmt, ...)
{
	va_list ap;

	if (a->n == ARGS_MAX)
		return;
	va_start(ap, fmt);
	if (vasprintf(&a->argv[a->n], fmt, ap) >= 0)
		a->n++;
	va_end(ap);
}

/* Is name one of the blank-separated list? */
static bool listed(const char *list, const char *name)
{
	size_t len = strlen(name);

	for (list += strspn(list, " \t"); *list; list += strspn(list, " \t")) {
		size_t n = strcspn(list, " \t");

		if (n == len && !memcmp(list, name, n))
			return true;
		list += n;
	}
	return false;
}

/* The CAs of the clients of the first vserver that leads to the service. */
static const char *client_ca(const struct settings *s, const char *service)
{
	for (unsigned i = 0; i < s->n; i++) {
		char name[64];
		int value = 0;
		const char *profile;

		if (sscanf(s->lines[i], "vserver.%63[^.].service = %n", name, &value) != 1 ||
		    !value || !listed(s->lines[i] + value, service))
			continue;
		profile = get(s, "vserver", name, "profile");
		return profile ? get(s, "profile", profile, "client_ca") : NULL;
	}
	return NULL;
}

/* "24h" in seconds */
static long seconds(const char *text)
{
	char *unit;
	long v = strtol(text, &unit, 10);

	switch (*unit) {
	case 'd':
		return v * 86400;
	case 'h':
		return v * 3600;
	case 'm':
		return v * 60;
	default:
		return v;
	}
}

static const char *lifespan(const struct settings *s, const char *profile)
{
	const char *own = get(s, "profile", profile, "forge.lifespan");

	if (own && strcmp(own, "inherit") != 0)
		return own;
	for (unsigned i = 0; i < s->n; i++) {
		if (!strncmp(s->lines[i], "forge.lifespan = ", 17))
			return s->lines[i] + 17;
	}
	return "24h";
}

/* Of several CAs the request chooses; their URLs are shown only where there is one. */
static void add_cas(struct args *a, const struct settings *s, const char *list)
{
	static const char *const urls[] = {"ocsp", "ca_issuers", "crl"};
	bool one = !strpbrk(list, " \t");

	for (list += strspn(list, " \t"); *list; list += strspn(list, " \t")) {
		char name[64];
		size_t n = strcspn(list, " \t");

		snprintf(name, sizeof(name), "%.*s", (int)n, list);
		list += n;
		add(a, "--ca");
		add(a, "%s", get(s, "certkey", name, "cert"));
		for (size_t i = 0; one && i < ARRAY_SIZE(urls); i++) {
			const char *value = get(s, "certkey", name, urls[i]);

			if (!value)
				continue;
			add(a, "--set");
			add(a, "%s=%s", urls[i], value);
		}
	}
}

static void add_rules(struct args *a, const struct settings *s, const char *profile)
{
	static const char *const rules[] = {"start",	   "key",	    "copy",	 "drop",
					    "map",	   "add",	    "eku",	 "policies",
					    "sid_issuers", "trust_domains", "provenance"};

	for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
		char key[64];
		const char *value;

		snprintf(key, sizeof(key), "forge.%s", rules[i]);
		value = get(s, "profile", profile, key);
		if (!value)
			continue;
		add(a, "--set");
		add(a, "%s=%s", rules[i], value);
	}
}

/* The last request in a file without a name, left open for who we become; 0: there was none. */
static int last_request(const char *service)
{
	char request[256], line[1024];
	scoped_file *in = NULL;
	int fd = memfd_create("request", 0);
	bool some = false;

	snprintf(request, sizeof(request), "requests %s", service);
	in = ask(request);
	if (!in || fd < 0)
		return -1;
	while (fgets(line, sizeof(line), in)) {
		if (!strcmp(line, "none\n"))
			continue;
		some = true;
		if (write(fd, line, strlen(line)) < 0)
			return -1;
	}
	return some ? fd : 0;
}

/* ktlsgate-forge from where we are, else from the PATH. */
static void become_forge(char **argv)
{
	char path[4096];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 32);
	char *slash;

	if (n > 0) {
		path[n] = '\0';
		slash = strrchr(path, '/');
		strcpy(slash + 1, "ktlsgate-forge");
		execv(path, argv);
	}
	execvp("ktlsgate-forge", argv);
}

int ctl_explain(const char *service, const char *chain)
{
	scoped_settings s = {0};
	scoped_args a = {0};
	const char *profile, *cas, *clients;
	int request;

	if (settings_read(&s))
		return EXIT_FAILURE;
	profile = get(&s, "service", service, "profile");
	if (!profile)
		return fail("there is no service \"%s\"", service);
	cas = get(&s, "profile", profile, "forging_certkey");
	clients = client_ca(&s, service);
	if (!cas || !clients)
		return fail("nothing is forged for service %s", service);
	request = last_request(service);
	if (request < 0)
		return EXIT_FAILURE;
	add(&a, "ktlsgate-forge");
	add(&a, "--explain");
	add(&a, "--client-ca");
	add(&a, "%s", clients);
	add(&a, "--lifespan");
	add(&a, "%ld", seconds(lifespan(&s, profile)));
	if (request) {
		add(&a, "--request");
		add(&a, "/dev/fd/%d", request);
	} else {
		puts("The backend has not asked for a certificate yet: shown is its first CA's.");
		cas = strndupa(cas, strcspn(cas, " \t"));
	}
	add_cas(&a, &s, cas);
	add_rules(&a, &s, profile);
	add(&a, "%s", chain);
	fflush(stdout);
	become_forge(a.argv);
	return fail("ktlsgate-forge: %s", strerror(errno));
}
