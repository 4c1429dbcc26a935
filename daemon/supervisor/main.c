/* SPDX-License-Identifier: Apache-2.0 */
/* ktlsgated's command line. */
#include <getopt.h>
#include <string.h>
#include <openssl/crypto.h>
#include "config/config.h"
#include "conn/ktls.h"
#include "base/log.h"
#include "base/ring.h"
#include "supervisor/role.h"
#include "conn/stats.h"
#include "supervisor/supervisor.h"

#define DEFAULT_CONFIG "/etc/ktlsgate/ktlsgate.conf"

static const char usage[] =
	"usage: ktlsgated [-c FILE] [-t | -V | -h]\n"
	"TLS forwarding appliance: mTLS in front, forged client certificates behind.\n"
	"\n"
	"  -c, --config FILE   configuration (default " DEFAULT_CONFIG ")\n"
	"  -t, --test          check the configuration, certificates and keys, then exit\n"
	"  -V, --version       version, and what this kernel offers\n"
	"  -h, --help          this text\n"
	"      --keys          every configuration key with type, default and meaning\n"
	"      --counters      every counter of ktlsgatectl stats with kind and meaning\n"
	"      --example       an example configuration\n"
	"\n"
	"Runs in the foreground and logs to standard error. SIGTERM stops it, SIGHUP reads the\n"
	"configuration again: FILE, and if it is X.conf then X.d/*.conf in their order.\n"
	"Exit status: 0 success, 1 failure, 2 wrong usage.\n";

static void print_ciphers(const char *name, uint8_t mask)
{
	printf("  %-8s", name);
	for (int c = 0; c < TLS_CIPHERS; c++) {
		if (mask & (1u << c))
			printf(" %s", tls_cipher_desc((enum tls_cipher)c)->name);
	}
	printf("%s\n", mask ? "" : " none");
}

static void print_ability(const char *name, bool can)
{
	printf("  %s: %s\n", name, can ? "yes" : "no");
}

static void print_ktls(void)
{
	struct ktls_answer overlap;
	struct ktls_caps caps;

	ktls_probe(&caps);
	if (caps.error) {
		struct ktls_answer ulp = ktls_try_ulp();

		printf("kernel TLS: no (%s); the user engine carries all flows\n",
		       ulp.error ? ulp.why : strerror(caps.error));
		return;
	}
	printf("kernel TLS: yes\n");
	print_ciphers("TLS 1.2", caps.ciphers[0]);
	print_ciphers("TLS 1.3", caps.ciphers[1]);
	print_ability("control records", caps.control);
	print_ability("re-key (KeyUpdate)", caps.rekey);
	print_ability("safe refill of a pipe that is not empty (never done)", caps.refill);
	overlap = ktls_try_overlap();
	printf("  headers in TCP segments that overlap: %s%s%s%s\n", overlap.error ? "no" : "yes",
	       overlap.error ? " (" : "", overlap.why, overlap.error ? ")" : "");
}

static void print_ring(void)
{
	const char *failed;
	int ret = ring_probe(&failed);

	if (!ret)
		printf("io_uring: yes\n");
	else
		printf("io_uring: no (%s%s%s)\n", failed ? failed : "", failed ? ": " : "",
		       strerror(-ret));
}

static int print_version(void)
{
	printf("ktlsgated %s, %s\n", KTLSGATE_VERSION, OpenSSL_version(OPENSSL_VERSION));
	print_ktls();
	print_ring();
	return EXIT_SUCCESS;
}

static int test_config(const char *path)
{
	if (config_check(path, stderr))
		return EXIT_FAILURE;
	printf("%s: configuration is valid\n", path);
	return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
	enum {
		OPT_KEYS = 256,
		OPT_COUNTERS,
		OPT_EXAMPLE,
		OPT_ROLE, /* these two are for the processes that ktlsgated starts itself */
		OPT_BRIEF,
	};
	static const struct option options[] = {
		{"config", required_argument, NULL, 'c'},
		{"test", no_argument, NULL, 't'},
		{"version", no_argument, NULL, 'V'},
		{"help", no_argument, NULL, 'h'},
		{"keys", no_argument, NULL, OPT_KEYS},
		{"counters", no_argument, NULL, OPT_COUNTERS},
		{"example", no_argument, NULL, OPT_EXAMPLE},
		{"role", required_argument, NULL, OPT_ROLE},
		{"brief", required_argument, NULL, OPT_BRIEF},
		{NULL, 0, NULL, 0},
	};
	const char *path = DEFAULT_CONFIG, *role = NULL;
	bool test = false;
	int opt, brief = -1;

	while ((opt = getopt_long(argc, argv, "c:tVh", options, NULL)) != -1) {
		switch (opt) {
		case 'c':
			path = optarg;
			break;
		case 't':
			test = true;
			break;
		case 'V':
			return print_version();
		case 'h':
			fputs(usage, stdout);
			return EXIT_SUCCESS;
		case OPT_KEYS:
			config_print_table(stdout);
			return EXIT_SUCCESS;
		case OPT_COUNTERS:
			stats_print_table(stdout);
			return EXIT_SUCCESS;
		case OPT_EXAMPLE:
			return config_print_example(stdout) ? EXIT_FAILURE : EXIT_SUCCESS;
		case OPT_ROLE:
			role = optarg;
			break;
		case OPT_BRIEF:
			brief = atoi(optarg);
			break;
		default:
			fputs(usage, stderr);
			return 2;
		}
	}
	if (optind != argc) {
		fprintf(stderr, "ktlsgated: unexpected argument \"%s\"\n%s", argv[optind], usage);
		return 2;
	}
	log_open("ktlsgated", LOG_LEVEL_INFO);
	if (role)
		return role_run(role, brief);
	return test ? test_config(path) : supervisor_run(path);
}
