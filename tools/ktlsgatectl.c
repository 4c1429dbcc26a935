/* SPDX-License-Identifier: Apache-2.0 */
/* ktlsgatectl: asks a running ktlsgated over its control socket and prints the answer. */
#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include "ctl.h"

#define DEFAULT_SOCKET "/run/ktlsgate/control.sock"

static const char usage[] =
	"usage: ktlsgatectl [-s SOCKET] [--json] stats [NAME...]\n"
	"       ktlsgatectl [-s SOCKET] [--json] flows\n"
	"       ktlsgatectl [-s SOCKET] metrics\n"
	"       ktlsgatectl [-s SOCKET] requests SERVICE\n"
	"       ktlsgatectl [-s SOCKET] explain SERVICE CHAIN.pem\n"
	"       ktlsgatectl [-s SOCKET | -f FILE] forged SERIAL\n"
	"       ktlsgatectl [-s SOCKET] [-n | --json] -a | KEY...\n"
	"Asks a running ktlsgated.\n"
	"\n"
	"  stats [NAME...]     counters; with names only these\n"
	"  flows               connections with their stage, engine and bytes\n"
	"  metrics             counters in the text format of Prometheus\n"
	"  requests SERVICE    what its backend last asked for in a CertificateRequest\n"
	"  explain SERVICE CHAIN.pem\n"
	"                      what would be forged from the chain for it, explained by\n"
	"                      ktlsgate-forge with its rules and its backend's last request\n"
	"  forged SERIAL       lines of the audit log about the certificate that a backend saw\n"
	"  KEY...              effective value of configuration keys\n"
	"  -a, --all           all of them\n"
	"  -n, --values        values only, no keys\n"
	"  -f, --file FILE     another audit log than the daemon's\n"
	"  -s, --socket PATH   control socket (default " DEFAULT_SOCKET ")\n"
	"      --json          as JSON: an array of flows, or an object\n"
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

	if (strlen(socket_path) >= sizeof(sun.sun_path)) {
		fprintf(stderr, "ktlsgatectl: %s: path is too long\n", socket_path);
		return -1;
	}
	strcpy(sun.sun_path, socket_path);
	if (fd < 0 || connect(fd, (struct sockaddr *)&sun, sizeof(sun))) {
		fprintf(stderr, "ktlsgatectl: %s: %s%s\n", socket_path, strerror(errno),
			errno == ENOENT || errno == ECONNREFUSED ? "; is ktlsgated running?" : "");
		return -1;
	}
	return TAKE_FD(fd);
}

FILE *ask(const char *request)
{
	int fd = connect_daemon();
	char line[1024];
	FILE *in;

	if (fd < 0)
		return NULL;
	in = fdopen(fd, "r+");
	if (!in || dprintf(fd, "%s\n", request) < 0 || !fgets(line, sizeof(line), in)) {
		fprintf(stderr, "ktlsgatectl: %s: no answer\n", socket_path);
	} else if (!strcmp(line, "ok\n")) {
		return in;
	} else {
		fprintf(stderr, "ktlsgatectl: %s", line);
	}
	if (in)
		fclose(in);
	else
		close(fd);
	return NULL;
}

/* ---- stats ---- */

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
		if (sscanf(line, "%127s %63s", name, value) != 2 || !wanted(name, names, n))
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
static bool is_number(const char *field)
{
	static const char *const numbers[] = {"id", "age_ms", "bytes_from_client",
					      "bytes_from_backend"};

	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		if (!strcmp(field, numbers[i]))
			return true;
	}
	return false;
}

static void json_string(const char *s)
{
	putchar('"');
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			printf("\\%c", *s);
		else if ((unsigned char)*s < 0x20)
			printf("\\u%04x", *s);
		else
			putchar(*s);
	}
	putchar('"');
}

static void flow_json(char *line, bool first)
{
	const char *separator = "";

	printf("%s\n  {", first ? "" : ",");
	for (char *field = strtok(line, "\t\n"); field; field = strtok(NULL, "\t\n")) {
		char *value = strchr(field, '=');

		if (!value)
			continue;
		*value++ = '\0';
		printf("%s\"%s\": ", separator, field);
		if (is_number(field))
			fputs(value, stdout);
		else
			json_string(value);
		separator = ", ";
	}
	printf("}");
}

/* Columns as in the daemon's line; the header comes from its names. */
static void flow_row(char *line, bool first)
{
	static const int widths[] = {6, 10, 9, 12, 22, 12, 22, 7, 7, 17, 18, 19};
	char *copy = first ? strdup(line) : NULL;
	int column = 0;

	if (copy) {
		for (char *f = strtok(copy, "\t\n"); f; f = strtok(NULL, "\t\n"), column++) {
			f[strcspn(f, "=")] = '\0';
			printf("%-*s ", column < 12 ? widths[column] : 0, f);
		}
		printf("\n");
		free(copy);
		column = 0;
	}
	for (char *f = strtok(line, "\t\n"); f; f = strtok(NULL, "\t\n"), column++)
		printf("%-*s ", column < 12 ? widths[column] : 0, f + strcspn(f, "=") + 1);
	printf("\n");
}

static int flows(void)
{
	scoped_file *in = ask("flows");
	char line[2048];
	bool first = true;

	if (!in)
		return EXIT_FAILURE;
	if (json)
		printf("[");
	while (fgets(line, sizeof(line), in)) {
		if (json)
			flow_json(line, first);
		else
			flow_row(line, first);
		first = false;
	}
	if (json)
		printf("%s]\n", first ? "" : "\n");
	return EXIT_SUCCESS;
}

/* ---- metrics, requests ---- */

static int print_answer(const char *request)
{
	scoped_file *in = ask(request);
	char line[1024];

	if (!in)
		return EXIT_FAILURE;
	while (fgets(line, sizeof(line), in))
		fputs(line, stdout);
	return EXIT_SUCCESS;
}

static int requests(const char *service)
{
	char request[256];

	snprintf(request, sizeof(request), "requests %s", service);
	return print_answer(request);
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
	json_string(line);
	fputs(": ", stdout);
	json_string(value);
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

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"socket", required_argument, NULL, 's'}, {"file", required_argument, NULL, 'f'},
		{"all", no_argument, NULL, 'a'},	  {"values", no_argument, NULL, 'n'},
		{"json", no_argument, NULL, 'j'},	  {"version", no_argument, NULL, 'V'},
		{"help", no_argument, NULL, 'h'},	  {NULL, 0, NULL, 0},
	};
	const char *file = NULL;
	bool all = false;
	int opt;

	while ((opt = getopt_long(argc, argv, "s:f:anVh", options, NULL)) != -1) {
		switch (opt) {
		case 's':
			socket_path = optarg;
			break;
		case 'f':
			file = optarg;
			break;
		case 'a':
			all = true;
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
	if (all && optind == argc)
		return config(NULL, 0);
	if (all || optind == argc) {
		fputs(usage, stderr);
		return 2;
	}
	if (!strcmp(argv[optind], "stats"))
		return stats(argv + optind + 1, argc - optind - 1);
	if (!strcmp(argv[optind], "flows") && optind + 1 == argc)
		return flows();
	if (!strcmp(argv[optind], "metrics") && optind + 1 == argc)
		return print_answer("metrics");
	if (!strcmp(argv[optind], "requests") && optind + 2 == argc)
		return requests(argv[optind + 1]);
	if (!strcmp(argv[optind], "forged") && optind + 2 == argc)
		return ctl_forged(argv[optind + 1], file);
	if (!strcmp(argv[optind], "explain") && optind + 3 == argc)
		return ctl_explain(argv[optind + 1], argv[optind + 2]);
	return config(argv + optind, argc - optind);
}
