/* SPDX-License-Identifier: Apache-2.0 */
/* ktlsgatectl: asks a running ktlsgated over its control socket and prints the answer. */
#include <errno.h>
#include <fnmatch.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include "ctl.h"
#include "base/escape.h"

#define DEFAULT_SOCKET "/run/ktlsgate/control.sock"
#define ANSWER_MAX     (1u << 30) /* bytes; beyond it something is wrong */

static const char usage[] =
	"usage: ktlsgatectl [-s SOCKET] [--json] stats [NAME...]\n"
	"       ktlsgatectl [-s SOCKET] [--json] flows [FIELD=GLOB...]\n"
	"       ktlsgatectl [-s SOCKET] metrics | status | reload | requests SERVICE\n"
	"       ktlsgatectl [-s SOCKET] [--json] services\n"
	"       ktlsgatectl [-s SOCKET] services drain | undrain SERVICE\n"
	"       ktlsgatectl [-s SOCKET] kill ID...\n"
	"       ktlsgatectl [-s SOCKET] drain worker N | undrain worker N\n"
	"       ktlsgatectl [-s SOCKET] shield show | deny PREFIX | allow PREFIX |\n"
	"                   limit PREFIX RATE [BURST] | reset PREFIX\n"
	"       ktlsgatectl [-s SOCKET] explain SERVICE CHAIN.pem\n"
	"       ktlsgatectl [-s SOCKET | -f FILE] forged SERIAL\n"
	"       ktlsgatectl [-s SOCKET] [-n | --json] -a | KEY...\n"
	"       ktlsgatectl [-s SOCKET] [-n] -w KEY=VALUE...\n"
	"       ktlsgatectl [-s SOCKET] -p FILE | -T\n"
	"Asks a running ktlsgated, or changes its configuration.\n"
	"\n"
	"  stats [NAME...]     counters; with names only these\n"
	"  flows [FIELD=GLOB]  connections with their stage, engine and bytes; those that match "
	"all\n"
	"  metrics             counters in the text format of Prometheus\n"
	"  requests SERVICE    what its backend last asked for in a CertificateRequest\n"
	"  services            services with their state, flows, failures and checks\n"
	"  explain SERVICE CHAIN.pem\n"
	"                      what would be forged from the chain for it, explained by\n"
	"                      ktlsgate-forge with its rules and its backend's last request\n"
	"  forged SERIAL       lines of the audit log about the certificate that a backend saw\n"
	"  status              the configuration that runs, and older ones that still have flows\n"
	"  KEY...              effective value of configuration keys\n"
	"  -a, --all           all of them\n"
	"  -T, --origins       all of them with the file and line each came from\n"
	"  -n, --values        values only, no keys\n"
	"  -f, --file FILE     another audit log than the daemon's\n"
	"Changes, for root only; all of one call, or nothing and why. New connections see them:\n"
	"  -w, --write         assign until the next reload or restart\n"
	"  -p, --load FILE     the same with the assignments of a file; -: standard input\n"
	"  reload              read the configuration files again, as SIGHUP does\n"
	"  kill ID...          end flows\n"
	"  services drain SERVICE\n"
	"                      gives it no new connection; undrain: again\n"
	"  drain worker N      no new connections for it, until undrain\n"
	"  shield ...          rules for sources, by prefix: the longest decides; they stay until "
	"the end\n"
	"\n"
	"  -s, --socket PATH   control socket (default " DEFAULT_SOCKET ")\n"
	"      --json          as JSON: an array of flows or services, or an object\n"
	"  -V, --version       version\n"
	"  -h, --help          this text\n"
	"\n"
	"Exit status: 0 success, 1 the daemon is out of reach or refuses, 2 wrong usage.\n";

static bool json, values_only;
static const char *socket_path = DEFAULT_SOCKET;

/* ---- the daemon's answer ---- */

static int connect_daemon(void)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	scoped_fd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", socket_path) >=
	    (int)sizeof(sun.sun_path)) {
		fprintf(stderr, "ktlsgatectl: %s: path is too long\n", socket_path);
		return -1;
	}
	if (fd < 0 || connect(fd, (struct sockaddr *)&sun, sizeof(sun))) {
		fprintf(stderr, "ktlsgatectl: %s: %s%s\n", socket_path, strerror(errno),
			errno == ENOENT || errno == ECONNREFUSED ? "; is ktlsgated running?" : "");
		return -1;
	}
	return TAKE_FD(fd);
}

static bool send_all(int fd, const char *text, size_t len)
{
	while (len) {
		ssize_t n = send(fd, text, len, MSG_NOSIGNAL);

		if (n < 0)
			return false;
		text += n;
		len -= (size_t)n;
	}
	return true;
}

static void copy_lines(FILE *in, FILE *out)
{
	char line[8192];

	while (fgets(line, sizeof(line), in))
		fputs(line, out);
}

/* All that comes until the end of the stream, or -1. */
static ssize_t receive(int fd, char **text)
{
	char buf[65536];
	size_t len = 0;
	ssize_t n = 0;
	FILE *out = open_memstream(text, &len);

	while (out && len <= ANSWER_MAX && (n = recv(fd, buf, sizeof(buf), 0)) > 0)
		if (fwrite(buf, 1, (size_t)n, out) != (size_t)n || fflush(out))
			break;
	if (!out || fclose(out) || n || len > ANSWER_MAX)
		return -1;
	return (ssize_t)len;
}

void put_text(const char *text, size_t len, FILE *out)
{
	while (len) {
		size_t n = 0;

		while (n < len && text[n] != '\t' && text[n] != '\n')
			n++;
		escape_put(text, n, out);
		if (n < len)
			putc(text[n++], out);
		text += n;
		len -= n;
	}
}

/* The answer in a file without a name, fit for a terminal; NULL after a message. */
static FILE *keep(const char *text, ssize_t len)
{
	scoped_file *out = fdopen(memfd_create("answer", MFD_CLOEXEC), "w+");

	if (!out || len <= 0) {
		fprintf(stderr, "ktlsgatectl: %s: no answer\n", socket_path);
		return NULL;
	}
	/* The daemon never stops at the end of a line. */
	if (text[len - 1] != '\n') {
		fprintf(stderr, "ktlsgatectl: %s: the answer is cut short\n", socket_path);
		return NULL;
	}
	put_text(text, (size_t)len, out);
	rewind(out);
	return TAKE_PTR(out);
}

/*
 * The lines behind "ok", as a stream; NULL after a message. body: what follows the request. All of
 * it is read first: the daemon does not wait long for a reader, and a pager does.
 */
static FILE *ask_with(const char *request, const char *body, size_t len)
{
	scoped_fd fd = connect_daemon();
	scoped_mem char *text = NULL;
	scoped_file *in = NULL;
	ssize_t answer;
	char line[1024];

	if (fd < 0)
		return NULL;
	/* A daemon that refuses does not read what it is asked. */
	if (send_all(fd, request, strlen(request)) && send_all(fd, "\n", 1))
		(void)!send_all(fd, body, len);
	answer = receive(fd, &text);
	in = keep(text, answer);
	if (!in || !fgets(line, sizeof(line), in))
		return NULL;
	if (!strcmp(line, "ok\n"))
		return TAKE_PTR(in);
	fprintf(stderr, "ktlsgatectl: %s", line);
	copy_lines(in, stderr);
	return NULL;
}

FILE *ask(const char *request)
{
	return ask_with(request, NULL, 0);
}

/* For requests whose answer is printed as it is. */
static int show(const char *request)
{
	scoped_file *in = ask(request);

	if (!in)
		return EXIT_FAILURE;
	copy_lines(in, stdout);
	return EXIT_SUCCESS;
}

/* ---- stats ---- */

static bool is_digits(const char *text)
{
	return *text && strspn(text, "0123456789") == strlen(text);
}

static bool wanted(const char *name, char **names, int n)
{
	for (int i = 0; i < n; i++) {
		if (!strcmp(name, names[i]))
			return true;
	}
	return n == 0;
}

static bool known(const char *name, bool *seen, char **names, int n)
{
	bool found = false;

	for (int i = 0; i < n; i++) {
		if (!strcmp(name, names[i]))
			seen[i] = found = true;
	}
	return found;
}

static bool read_counter(const char *line, char name[128], char value[64])
{
	return sscanf(line, "%127s %63s", name, value) == 2 && is_digits(value) &&
	       strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") == strlen(name);
}

static int stats(char **names, int n)
{
	scoped_file *in = ask("stats");
	scoped_mem bool *seen = calloc((size_t)n + 1, sizeof(*seen));
	char name[128], value[64], line[256];
	const char *separator = "\n";
	int status = EXIT_SUCCESS;

	if (!in || !seen)
		return EXIT_FAILURE;
	if (json)
		printf("{");
	while (fgets(line, sizeof(line), in)) {
		if (!read_counter(line, name, value) || !wanted(name, names, n))
			continue;
		known(name, seen, names, n);
		if (json)
			printf("%s  \"%s\": %s", separator, name, value);
		else if (values_only)
			printf("%s\n", value);
		else
			printf("%s %s\n", name, value);
		separator = ",\n";
	}
	if (json)
		printf("\n}\n");
	for (int i = 0; i < n; i++) {
		if (seen[i])
			continue;
		fprintf(stderr, "ktlsgatectl: no counter named \"%s\"\n", names[i]);
		status = EXIT_FAILURE;
	}
	return status;
}

/* ---- flows ---- */

/* All others are text, also where they look like numbers. */
static bool is_number(const char *field, const char *value)
{
	static const char *const numbers[] = {
		"id",	  "age_ms",	   "bytes_from_client", "bytes_from_backend",
		"weight", "flows",	   "connections",	"failures",
		"early",  "early_waits",   "suspicions",	"ejections",
		"checks", "checks_failed", "resolve_failures",	"own_addresses"};

	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		if (!strcmp(field, numbers[i]))
			return is_digits(value);
	}
	return false;
}

static void row_json(char *line, bool first)
{
	const char *separator = "";

	printf("%s\n  {", first ? "" : ",");
	for (char *field = strtok(line, "\t\n"); field; field = strtok(NULL, "\t\n")) {
		char *value = strchr(field, '=');

		if (!value)
			continue;
		*value++ = '\0';
		fputs(separator, stdout);
		escape_json(field, stdout);
		fputs(": ", stdout);
		if (is_number(field, value))
			fputs(value, stdout);
		else
			escape_json(value, stdout);
		separator = ", ";
	}
	printf("}");
}

/* Columns as in the daemon's line; the header comes from its names. */
#define COLUMNS 13

static void row_text(const int *widths, char *line, bool first)
{
	char *copy = first ? strdup(line) : NULL;
	int column = 0;

	if (copy) {
		for (char *f = strtok(copy, "\t\n"); f; f = strtok(NULL, "\t\n"), column++) {
			f[strcspn(f, "=")] = '\0';
			printf("%-*s ", column < COLUMNS ? widths[column] : 0, f);
		}
		printf("\n");
		free(copy);
		column = 0;
	}
	for (char *f = strtok(line, "\t\n"); f; f = strtok(NULL, "\t\n"), column++)
		printf("%-*s ", column < COLUMNS ? widths[column] : 0, f + strcspn(f, "=") + 1);
	printf("\n");
}

/* Has the line a field that the term FIELD=GLOB describes? */
static bool matches(const char *line, const char *term)
{
	size_t name = strcspn(term, "=") + 1;
	scoped_mem char *copy = strdup(line);

	if (!copy)
		return false;
	for (char *f = strtok(copy, "\t\n"); f; f = strtok(NULL, "\t\n")) {
		if (!strncmp(f, term, name))
			return !fnmatch(term + name, f + name, 0);
	}
	return false;
}

static bool matches_all(const char *line, char **terms, int n)
{
	for (int i = 0; i < n; i++) {
		if (!matches(line, terms[i]))
			return false;
	}
	return true;
}

/* The daemon's lines about things of one kind, those that match all terms. */
static int table(const char *request, const int *widths, char **terms, int n)
{
	scoped_file *in = NULL;
	char line[2048];
	bool first = true;

	for (int i = 0; i < n; i++) {
		if (!strchr(terms[i], '=')) {
			fprintf(stderr, "ktlsgatectl: %s: want FIELD=GLOB, say vserver=app\n",
				terms[i]);
			return 2;
		}
	}
	in = ask(request);

	if (!in)
		return EXIT_FAILURE;
	if (json)
		printf("[");
	while (fgets(line, sizeof(line), in)) {
		if (!matches_all(line, terms, n))
			continue;
		if (json)
			row_json(line, first);
		else
			row_text(widths, line, first);
		first = false;
	}
	if (json)
		printf("%s]\n", first ? "" : "\n");
	return EXIT_SUCCESS;
}

static int flows(char **terms, int n)
{
	static const int widths[COLUMNS] = {6, 10, 9, 12, 22, 12, 22, 7, 7, 17, 18, 19};

	return table("flows", widths, terms, n);
}

static bool is_draining(char **words, int n)
{
	return n == 2 && (!strcmp(words[0], "drain") || !strcmp(words[0], "undrain"));
}

static int services(char **words, int n)
{
	static const int widths[COLUMNS] = {12, 22, 8, 6, 6, 11, 8, 9, 7, 13, 16};
	char request[512];

	if (!n)
		return table("services", widths, NULL, 0);
	snprintf(request, sizeof(request), "services %s %s", words[0], words[1]);
	return show(request);
}

/* Each is asked for by itself: one that is not there keeps no other one alive. */
static int kill_flows(char **ids, int n)
{
	int status = EXIT_SUCCESS;

	for (int i = 0; i < n; i++) {
		char request[64];

		snprintf(request, sizeof(request), "kill %.40s", ids[i]);
		if (show(request))
			status = EXIT_FAILURE;
	}
	return status;
}

static int requests(const char *service)
{
	char request[256];

	snprintf(request, sizeof(request), "requests %s", service);
	return show(request);
}

static int wrong_usage(void)
{
	fputs(usage, stderr);
	return 2;
}

/* The words as a request. */
static int say(int n, char **words)
{
	char request[512] = "";
	size_t len = 0;

	for (int i = 0; i < n; i++) {
		len += (size_t)snprintf(request + len, sizeof(request) - len, "%s%s", i ? " " : "",
					words[i]);
		if (len >= sizeof(request))
			return wrong_usage();
	}
	return show(request);
}

/* ---- configuration ---- */

/* "key = value"; *separator goes in front. */
static void print_setting(char *line, const char **separator)
{
	char *value = strstr(line, " = ");

	if (!value)
		return;
	if (!json) {
		fputs(values_only ? value + 3 : line, stdout);
		return;
	}
	*value = '\0';
	value += 3;
	value[strcspn(value, "\n")] = '\0';
	fputs(*separator, stdout);
	escape_json(line, stdout);
	fputs(": ", stdout);
	escape_json(value, stdout);
	*separator = ",\n  ";
}

/* key NULL: all of them. */
static int print_settings(const char *key, const char **separator)
{
	char request[512], line[8192];
	FILE *in;

	snprintf(request, sizeof(request), "config%s%s", key ? " " : "", key ? key : "");
	in = ask(request);
	if (!in)
		return EXIT_FAILURE;
	while (fgets(line, sizeof(line), in))
		print_setting(line, separator);
	fclose(in);
	return EXIT_SUCCESS;
}

/* As JSON one object, whatever the number of keys. */
static int config(char **keys, int n)
{
	static const char first[] = "{\n  ";
	const char *separator = first;
	int status = n ? EXIT_SUCCESS : print_settings(NULL, &separator);

	for (int i = 0; i < n; i++) {
		if (print_settings(keys[i], &separator))
			status = EXIT_FAILURE;
	}
	if (separator != first)
		printf("\n}\n");
	return status;
}

/* All of text, or nothing. name: what errors in it begin with. */
static int set(const char *name, const char *text, size_t len)
{
	scoped_file *in = NULL;
	char request[512];

	snprintf(request, sizeof(request), "set %.400s %zu", name, len);
	in = ask_with(request, text, len);
	return in ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* -w KEY=VALUE...; what is set is shown, as sysctl(8) does. */
static int write_keys(char **assignments, int n)
{
	scoped_mem char *text = NULL;
	const char *separator = "";
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);
	int status;

	if (!out)
		return EXIT_FAILURE;
	for (int i = 0; i < n; i++) {
		if (!strchr(assignments[i], '=') || strchr(assignments[i], '\n')) {
			fprintf(stderr, "ktlsgatectl: %s: want KEY=VALUE\n", assignments[i]);
			fclose(out);
			return 2;
		}
		fprintf(out, "%s\n", assignments[i]);
	}
	fclose(out);
	status = set("-w", text, len);
	for (int i = 0; i < n && !status; i++) {
		char *key = assignments[i];

		key[strcspn(key, "= \t")] = '\0';
		status = print_settings(key, &separator);
	}
	return status;
}

/* -p FILE */
static int load(const char *path)
{
	bool standard = !strcmp(path, "-");
	scoped_file *in = fopen(standard ? "/dev/stdin" : path, "re");
	scoped_mem char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);
	int c;

	if (!in || !out) {
		fprintf(stderr, "ktlsgatectl: %s: %s\n", path, strerror(errno));
		if (out)
			fclose(out);
		return EXIT_FAILURE;
	}
	while ((c = getc(in)) != EOF)
		putc(c, out);
	if (fclose(out) || ferror(in)) {
		fprintf(stderr, "ktlsgatectl: %s: cannot be read\n", path);
		return EXIT_FAILURE;
	}
	return set(standard ? "stdin" : path, text, len);
}

/* ---- the command line ---- */

/* audit: a file to look at instead of the daemon's, or NULL. */
static int command(int argc, char **argv, const char *audit)
{
	const char *name = argv[0];

	if (!strcmp(name, "stats"))
		return stats(argv + 1, argc - 1);
	if (!strcmp(name, "flows"))
		return flows(argv + 1, argc - 1);
	if (!strcmp(name, "services"))
		return argc == 1 || is_draining(argv + 1, argc - 1) ? services(argv + 1, argc - 1)
								    : wrong_usage();
	if (!strcmp(name, "kill"))
		return argc > 1 ? kill_flows(argv + 1, argc - 1) : wrong_usage();
	if (!strcmp(name, "requests"))
		return argc == 2 ? requests(argv[1]) : wrong_usage();
	if (!strcmp(name, "drain") || !strcmp(name, "undrain"))
		return argc == 3 ? say(argc, argv) : wrong_usage();
	if (!strcmp(name, "shield"))
		return argc > 1 ? say(argc, argv) : wrong_usage();
	if (!strcmp(name, "forged"))
		return argc == 2 ? ctl_forged(argv[1], audit) : wrong_usage();
	if (!strcmp(name, "explain"))
		return argc == 3 ? ctl_explain(argv[1], argv[2]) : wrong_usage();
	if (!strcmp(name, "metrics") || !strcmp(name, "status") || !strcmp(name, "reload"))
		return argc == 1 ? show(name) : wrong_usage();
	return config(argv, argc);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"socket", required_argument, NULL, 's'},
		{"all", no_argument, NULL, 'a'},
		{"origins", no_argument, NULL, 'T'},
		{"write", no_argument, NULL, 'w'},
		{"load", required_argument, NULL, 'p'},
		{"values", no_argument, NULL, 'n'},
		{"json", no_argument, NULL, 'j'},
		{"version", no_argument, NULL, 'V'},
		{"file", required_argument, NULL, 'f'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	bool all = false, origins = false, assign = false;
	const char *file = NULL, *audit = NULL;
	int opt, modes;

	while ((opt = getopt_long(argc, argv, "s:f:anTwp:Vh", options, NULL)) != -1) {
		switch (opt) {
		case 's':
			socket_path = optarg;
			break;
		case 'f':
			audit = optarg;
			break;
		case 'a':
			all = true;
			break;
		case 'T':
			origins = true;
			break;
		case 'w':
			assign = true;
			break;
		case 'p':
			file = optarg;
			break;
		case 'n':
			values_only = true;
			break;
		case 'j':
			json = true;
			break;
		case 'V':
			printf("ktlsgatectl %s\n", KTLSGATE_VERSION);
			return EXIT_SUCCESS;
		case 'h':
			fputs(usage, stdout);
			return EXIT_SUCCESS;
		default:
			fputs(usage, stderr);
			return 2;
		}
	}
	argc -= optind;
	argv += optind;
	modes = all + origins + assign + (file != NULL);
	if (modes > 1 || (argc > 0) != (!modes || assign))
		return wrong_usage();
	if (all)
		return config(NULL, 0);
	if (origins)
		return show("origins");
	if (file)
		return load(file);
	return assign ? write_keys(argv, argc) : command(argc, argv, audit);
}
