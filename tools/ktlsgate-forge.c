// SPDX-License-Identifier: Apache-2.0
/*
 * ktlsgate-forge: verifies a client's chain and prints the certificate that
 * would be forged from it, offline. Knows no daemon and no configuration file.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdbool.h>
#include <string.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include "forging/certreq.h"
#include "base/escape.h"
#include "forge/forge.h"
#include "pki/pem.h"
#include "pki/verify.h"

#define DEFAULT_LIFESPAN 86400
#define SKEW		 300
#define CAS_MAX		 16

enum {
	EXIT_FORGED = 0,
	EXIT_REFUSED = 1,
	EXIT_USAGE = 2,
	EXIT_INPUT = 3
};

SCOPED_DEFINE(verifier, struct verifier, verifier_free)
#define scoped_verifier __attribute__((cleanup(scoped_verifier_free_))) struct verifier

struct options {
	const char *client_ca, *key, *key_out, *chain, *request;
	const char *cas[CAS_MAX], *ca; /* ca: the one that is used */
	unsigned n_cas;
	time_t now;
	long lifespan;
	struct forge_rules *rules;
	STACK_OF(X509) * sid_issuers;
	struct forge_urls urls;
	enum cfg_forge_key key_type;
	bool explain, with_chain;
	STACK_OF(X509_CRL) * crls;
};

/* What ktlsgatectl requests prints. */
struct request {
	struct certreq said;
	char names[64][256];
	unsigned n_names;
};

static const char help[] =
	"Usage: ktlsgate-forge --client-ca FILE --ca FILE --key FILE [OPTION]... CHAIN.pem\n"
	"       ktlsgate-forge --client-ca FILE --ca FILE --explain [OPTION]... CHAIN.pem\n"
	"       ktlsgate-forge --rules\n"
	"Verify a client certificate chain (leaf first, then intermediates) and print the\n"
	"certificate that ktlsgate would forge from it.\n"
	"\n"
	"      --client-ca FILE  trust anchors for the client's chain, PEM\n"
	"      --ca FILE         forging CA, PEM; CAs above it may follow; given several times\n"
	"                        with --request, the request chooses\n"
	"      --key FILE        private key of the forging CA, PEM; without one --explain\n"
	"                        shows all but a signature of worth\n"
	"      --time T          pretend it is T seconds since the epoch\n"
	"      --lifespan N      seconds the forged certificate lives at most (default 86400)\n"
	"      --crl FILE        revocation lists, PEM or DER; may be given again. Then there\n"
	"                        has to be a valid one of each CA in the chain\n"
	"      --set NAME=VALUE  a rule, as profile.<name>.forge.NAME: start, copy, drop, map,\n"
	"                        add, eku, policies, sid_issuers, trust_domains, provenance,\n"
	"                        key; or as certkey.<name>.NAME: ocsp, ca_issuers, crl\n"
	"      --request FILE    what ktlsgatectl requests SERVICE printed: with it, key and CA\n"
	"                        are what the backend asked for, and are explained\n"
	"      --explain         first show original and forged fields with the rule for each\n"
	"      --rules           only print the table of rules: number, field, what happens,\n"
	"                        settings\n"
	"      --chain           also print the forging CA's certificates\n"
	"      --key-out FILE    write the new private key to FILE, which must not exist\n"
	"  -h, --help            show this help\n"
	"  -V, --version         show the version\n"
	"\n"
	"The forged certificate is for a key made for it and thrown away, unless --key-out\n"
	"is given: P-256, or RSA with --set key=rsa-2048 or if the request wants it. The key\n"
	"is never printed.\n"
	"Exit status: 0 forged, 1 the chain was refused (and why), 2 usage, 3 a file cannot\n"
	"be used.\n";

enum {
	OPT_CLIENT_CA = 256,
	OPT_CA,
	OPT_KEY,
	OPT_TIME,
	OPT_LIFESPAN,
	OPT_SET,
	OPT_RULES,
	OPT_CRL,
	OPT_REQUEST,
	OPT_KEY_OUT
};

/* A whole non-negative decimal number, or -EINVAL. */
static int parse_seconds(const char *option, const char *text, long *out)
{
	char *end;

	errno = 0;
	*out = strtol(text, &end, 10);
	if (!errno && *text >= '0' && *text <= '9' && !*end)
		return 0;
	fprintf(stderr, "ktlsgate-forge: --%s %s: not a number of seconds\n", option, text);
	return -EINVAL;
}

static int unusable(const char *path, const char *why)
{
	fprintf(stderr, "ktlsgate-forge: %s: %s\n", path, why);
	return -EINVAL;
}

static int load_certs(const char *path, STACK_OF(X509) * *out)
{
	char why[256];

	return pem_load_certs(path, out, why, sizeof(why)) ? unusable(path, why) : 0;
}

static int load_crls(struct options *o, const char *path)
{
	char why[256];

	if (!o->crls)
		o->crls = sk_X509_CRL_new_null();
	if (!o->crls)
		return unusable(path, "out of memory");
	return pem_load_crls(path, o->crls, why, sizeof(why)) ? unusable(path, why) : 0;
}

static const struct {
	const char *name, *value;
	unsigned number;
} choices[] = {
	{"start", "now", FORGE_START_NOW},	{"start", "original", FORGE_START_ORIGINAL},
	{"key", "auto", FORGE_KEY_AUTO},	{"key", "p-256", FORGE_KEY_P256},
	{"key", "rsa-2048", FORGE_KEY_RSA2048},
};

/* 1: name is none of those that take one of few words. */
static int set_choice(struct options *o, const char *name, const char *value)
{
	bool known = false;

	for (size_t i = 0; i < ARRAY_SIZE(choices); i++) {
		if (strcmp(choices[i].name, name) != 0)
			continue;
		known = true;
		if (strcmp(choices[i].value, value) != 0)
			continue;
		if (!strcmp(name, "key"))
			o->key_type = choices[i].number;
		else
			o->rules->start = choices[i].number;
		return 0;
	}
	if (!known)
		return 1;
	fprintf(stderr, "ktlsgate-forge: --set %s=%s: use", name, value);
	for (size_t i = 0; i < ARRAY_SIZE(choices); i++) {
		if (!strcmp(choices[i].name, name))
			fprintf(stderr, "%s %s",
				i && !strcmp(choices[i - 1].name, name) ? " or" : "",
				choices[i].value);
	}
	fputc('\n', stderr);
	return -EINVAL;
}

/* 1: name is no URL of the forging CA. */
static int set_url(struct options *o, const char *name, const char *value)
{
	if (!strcmp(name, "ocsp"))
		o->urls.ocsp = value;
	else if (!strcmp(name, "ca_issuers"))
		o->urls.ca_issuers = value;
	else if (!strcmp(name, "crl"))
		o->urls.crl = value;
	else
		return 1;
	return 0;
}

static int set_rule(struct options *o, char *text)
{
	char *equals = strchr(text, '='), *value = equals ? equals + 1 : text;
	char why[FORGE_WHY_MAX];
	enum forge_setting s;
	int ret;

	if (!equals) {
		fprintf(stderr, "ktlsgate-forge: --set %s: write NAME=VALUE\n", text);
		return -EINVAL;
	}
	*equals = '\0';
	if (!strcmp(text, "sid_issuers"))
		return load_certs(value, &o->sid_issuers);
	ret = set_choice(o, text, value);
	if (ret == 1)
		ret = set_url(o, text, value);
	if (ret != 1)
		return ret;
	s = forge_setting_find(text);
	if (s == FORGE_SETTINGS) {
		fprintf(stderr, "ktlsgate-forge: --set %s: there is no such rule\n", text);
		return -EINVAL;
	}
	if (forge_rules_set(o->rules, s, value, why)) {
		fprintf(stderr, "ktlsgate-forge: --set %s=%s: %s\n", text, value, why);
		return -EINVAL;
	}
	return 0;
}

static int parse_option(int c, struct options *o)
{
	long seconds;

	switch (c) {
	case OPT_CLIENT_CA:
		o->client_ca = optarg;
		return 0;
	case OPT_CA:
		if (o->n_cas == CAS_MAX) {
			fprintf(stderr, "ktlsgate-forge: --ca: at most %d\n", CAS_MAX);
			return -EINVAL;
		}
		o->cas[o->n_cas++] = optarg;
		return 0;
	case OPT_REQUEST:
		o->request = optarg;
		return 0;
	case OPT_KEY:
		o->key = optarg;
		return 0;
	case OPT_KEY_OUT:
		o->key_out = optarg;
		return 0;
	case OPT_CRL:
		if (load_crls(o, optarg))
			exit(EXIT_INPUT);
		return 0;
	case OPT_TIME:
		if (parse_seconds("time", optarg, &seconds))
			return -EINVAL;
		o->now = seconds;
		return 0;
	case OPT_SET:
		return set_rule(o, optarg);
	case OPT_LIFESPAN:
		return parse_seconds("lifespan", optarg, &o->lifespan);
	default:
		return -EINVAL; /* getopt_long() has said why, or did what it names */
	}
}

static _Noreturn void print_and_exit(const char *text)
{
	exit(fputs(text, stdout) < 0 || fflush(stdout) ? EXIT_INPUT : EXIT_FORGED);
}

static int parse_options(int argc, char **argv, struct options *o)
{
	const struct option longs[] = {
		{"client-ca", required_argument, NULL, OPT_CLIENT_CA},
		{"ca", required_argument, NULL, OPT_CA},
		{"key", required_argument, NULL, OPT_KEY},
		{"crl", required_argument, NULL, OPT_CRL},
		{"time", required_argument, NULL, OPT_TIME},
		{"lifespan", required_argument, NULL, OPT_LIFESPAN},
		{"key-out", required_argument, NULL, OPT_KEY_OUT},
		{"set", required_argument, NULL, OPT_SET},
		{"rules", no_argument, NULL, OPT_RULES},
		{"request", required_argument, NULL, OPT_REQUEST},
		{"explain", no_argument, NULL, 'e'},
		{"chain", no_argument, NULL, 'c'},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},
		{NULL, 0, NULL, 0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "hV", longs, NULL)) != -1) {
		if (c == 'h')
			print_and_exit(help);
		if (c == 'V')
			print_and_exit("ktlsgate-forge " KTLSGATE_VERSION "\n");
		if (c == OPT_RULES) {
			forge_rules_print(stdout);
			print_and_exit("");
		}
		if (c == 'e')
			o->explain = true;
		else if (c == 'c')
			o->with_chain = true;
		else if (parse_option(c, o))
			return -EINVAL;
	}
	o->ca = o->cas[0];
	if (!o->client_ca || !o->ca || (!o->key && !o->explain)) {
		fprintf(stderr, "ktlsgate-forge: --client-ca, --ca and --key are needed\n");
		return -EINVAL;
	}
	if (o->n_cas > 1 && (o->key || !o->request)) {
		fprintf(stderr, "ktlsgate-forge: several --ca need --request, and no --key\n");
		return -EINVAL;
	}
	if (!o->key && (o->with_chain || o->key_out)) {
		fprintf(stderr, "ktlsgate-forge: without --key nothing is forged\n");
		return -EINVAL;
	}
	if (optind != argc - 1) {
		fprintf(stderr, "ktlsgate-forge: exactly one CHAIN.pem is needed\n");
		return -EINVAL;
	}
	o->chain = argv[optind];
	return 0;
}

static int load_key(const char *path, EVP_PKEY **out)
{
	char why[256];

	return pem_load_key(path, NULL, FILE_OF_OWNER, out, why, sizeof(why)) ? unusable(path, why)
									      : 0;
}

static int check_ca(const struct options *o, const struct forge_ca *ca)
{
	enum forge_setting s;
	char why[FORGE_WHY_MAX];

	if (forge_ca_unfit(ca, why))
		return unusable(o->ca, why);
	if (forge_rules_contradiction(o->rules, &s, why)) {
		fprintf(stderr, "ktlsgate-forge: --set %s: %s\n", forge_setting_name(s), why);
		return -EINVAL;
	}
	if (o->key && X509_check_private_key(ca->cert, ca->key) != 1)
		return unusable(o->key, "is not the key of the forging CA's certificate");
	return 0;
}

/*
 * To explain without the forging CA's key: one made for it takes its place, in a
 * copy of its certificate. The signature is worth nothing, all else is the same.
 */
static int stand_in(struct forge_ca *ca, X509 **cert, EVP_PKEY **key)
{
	*cert = X509_dup(ca->cert);
	*key = EVP_EC_gen("P-256");
	if (!*cert || !*key || !X509_set_pubkey(*cert, *key) ||
	    !X509_sign(*cert, *key, EVP_sha256()))
		return unusable("--explain", "out of memory");
	ca->cert = *cert;
	ca->key = *key;
	ca->chain = NULL;
	return 0;
}

static int refused(const char *why, int depth, const X509 *cert)
{
	char subject[256] = "(none)";

	if (cert)
		identity_subject(X509_get_subject_name(cert), subject, sizeof(subject));
	fprintf(stderr, "refused: %s (depth %d, subject %s)\n", why, depth, subject);
	return EXIT_REFUSED;
}

static int write_key(const char *path, EVP_PKEY *key)
{
	scoped_fd fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	scoped_file *f = fd < 0 ? NULL : fdopen(fd, "w");

	if (!f)
		return unusable(path, strerror(errno));
	TAKE_FD(fd);
	if (!PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL) || fflush(f))
		return unusable(path, "cannot be written");
	return 0;
}

static int write_certs(const struct options *o, X509 *forged, const struct forge_ca *ca)
{
	bool ok = PEM_write_X509(stdout, forged);

	if (o->with_chain)
		ok = ok && PEM_write_X509(stdout, ca->cert);
	for (int i = 0; ok && o->with_chain && i < sk_X509_num(ca->chain); i++)
		ok = PEM_write_X509(stdout, sk_X509_value(ca->chain, i));
	return ok && !fflush(stdout) ? 0 : unusable("standard output", "cannot be written");
}

static int forge(const struct options *o, const struct identity *id, const struct forge_ca *ca)
{
	scoped_pkey *new_key =
		o->key_type == FORGE_KEY_RSA2048 ? EVP_RSA_gen(2048) : EVP_EC_gen("P-256");
	scoped_x509 *forged = NULL;
	struct forge_policy policy = {.rules = o->rules, .lifespan = o->lifespan, .skew = SKEW};
	enum forge_error e = FORGE_MEMORY;

	if (new_key && RAND_bytes(policy.serial_key, sizeof(policy.serial_key)) == 1)
		e = forge_certificate(ca, id, new_key, &policy, o->now, o->explain ? stdout : NULL,
				      &forged);
	OPENSSL_cleanse(&policy, sizeof(policy));

	if (e != FORGE_OK) {
		fflush(stdout);
		return refused(forge_error_text(e), 0, id->leaf);
	}
	if (!o->key)
		return fflush(stdout) ? unusable("standard output", "cannot be written")
				      : EXIT_FORGED;
	if ((o->key_out && write_key(o->key_out, new_key)) || write_certs(o, forged, ca))
		return EXIT_INPUT;
	return EXIT_FORGED;
}

/* ---- what a backend asked for ---- */

/* The numbers behind "name=", to out; how many. */
static unsigned read_numbers(const char *text, int base, unsigned max, uint16_t *out)
{
	unsigned n = 0;
	char *end;

	while (n < max) {
		unsigned long v = strtoul(text, &end, base);

		if (end == text)
			break;
		out[n++] = (uint16_t)v;
		text = end;
	}
	return n;
}

static void read_line(struct request *r, char *line)
{
	uint16_t types[CERTREQ_TYPES_MAX];
	char *value = strchr(line, '=');

	line[strcspn(line, "\n")] = '\0';
	if (!value)
		return;
	*value++ = '\0';
	if (!strcmp(line, "version"))
		r->said.version = strcmp(value, "TLSv1.2") ? TLS1_3_VERSION : TLS1_2_VERSION;
	else if (!strcmp(line, "sigalgs"))
		r->said.n_sigalgs = read_numbers(value, 16, CERTREQ_SIGALGS_MAX, r->said.sigalgs);
	else if (!strcmp(line, "ca_name") && r->n_names < ARRAY_SIZE(r->names))
		snprintf(r->names[r->n_names++], sizeof(r->names[0]), "%s", value);
	if (strcmp(line, "key_types") != 0)
		return;
	r->said.n_types = read_numbers(value, 10, CERTREQ_TYPES_MAX, types);
	for (unsigned i = 0; i < r->said.n_types; i++)
		r->said.types[i] = (uint8_t)types[i];
}

static int read_request(const char *path, struct request *r)
{
	scoped_file *f = fopen(path, "re");
	char line[1024];

	if (!f)
		return unusable(path, strerror(errno));
	while (fgets(line, sizeof(line), f))
		read_line(r, line);
	return r->said.version ? 0 : unusable(path, "is no request of ktlsgatectl requests");
}

static bool name_asked_for(const struct request *r, const X509_NAME *name)
{
	char text[sizeof(r->names[0])];

	identity_subject(name, text, sizeof(text));
	for (unsigned i = 0; i < r->n_names; i++) {
		if (!strcmp(r->names[i], text))
			return true;
	}
	return false;
}

/* As certreq_choose_ca(), of which the names are text here. */
static bool file_asked_for(const struct request *r, const STACK_OF(X509) * file)
{
	for (int i = 0; i < sk_X509_num(file); i++) {
		X509 *cert = sk_X509_value(file, i);

		if (name_asked_for(r, X509_get_subject_name(cert)) ||
		    name_asked_for(r, X509_get_issuer_name(cert)))
			return true;
	}
	return false;
}

static void explain_choice(const struct options *o, const struct request *r, bool named,
			   enum key_type key)
{
	static const char *const keys[] = {[KEY_P256] = "P-256",
					   [KEY_RSA2048] = "RSA, 2048 bits",
					   [KEY_TYPES] = "none: the flow fails (backend_key_type)"};

	printf("The backend's last request\n    version   %s\n",
	       r->said.version == TLS1_2_VERSION ? "TLSv1.2" : "TLSv1.3");
	for (unsigned i = 0; i < r->n_names; i++) {
		fputs("    CA name   ", stdout);
		escape_put(r->names[i], strlen(r->names[i]), stdout);
		putchar('\n');
	}
	printf("    CA        %s%s\n    key       %s\n    rule 16   %s\n    rule 17   %s\n", o->ca,
	       !r->n_names ? " (the backend names none)"
	       : named	   ? ""
			   : " (none is named: forge.no_matching_ca decides)",
	       keys[key], forge_rule_by_number(16)->text, forge_rule_by_number(17)->text);
}

static int obey_request(struct options *o)
{
	struct request r = {0};
	enum key_type key;
	bool named = false;

	if (read_request(o->request, &r))
		return -EINVAL;
	for (unsigned i = 0; i < o->n_cas && !named && r.n_names; i++) {
		scoped_certs *file = NULL;

		if (load_certs(o->cas[i], &file))
			return -EINVAL;
		named = file_asked_for(&r, file);
		if (named)
			o->ca = o->cas[i];
	}
	key = certreq_key_type(&r.said, o->key_type);
	if (o->explain)
		explain_choice(o, &r, named, key);
	if (key == KEY_TYPES && !o->explain)
		return unusable(o->request, "the backend accepts no key type we can forge with");
	o->key_type = key == KEY_RSA2048 ? FORGE_KEY_RSA2048 : FORGE_KEY_P256;
	return 0;
}

static int run(struct options *o)
{
	scoped_certs *anchors = NULL, *above = NULL, *sent = NULL;
	scoped_x509 *ca_cert = NULL, *ca_copy = NULL;
	scoped_pkey *ca_key = NULL, *made_key = NULL;
	struct forge_ca ca;
	struct verify_policy policy = VERIFY_POLICY_DEFAULT;
	scoped_verifier *verifier = NULL;
	scoped_identity *id = NULL;
	struct verify_result result;

	if (o->request && obey_request(o))
		return EXIT_INPUT;
	if (load_certs(o->client_ca, &anchors) || load_certs(o->ca, &above) ||
	    (o->key && load_key(o->key, &ca_key)))
		return EXIT_INPUT;
	ca_cert = sk_X509_shift(above);
	ca = (struct forge_ca){ca_cert, ca_key, above, o->urls};
	if (check_ca(o, &ca) || load_certs(o->chain, &sent) ||
	    (!o->key && stand_in(&ca, &ca_copy, &made_key)))
		return EXIT_INPUT;

	policy.crls = o->crls;
	policy.crl_check = o->crls ? REVOCATION_MANDATORY : REVOCATION_OFF;
	verifier = verifier_new(anchors, &policy);
	if (!verifier)
		return EXIT_INPUT;
	if (verify_chain(verifier, VERIFY_CLIENT, sk_X509_value(sent, 0), sent, o->now, &result))
		return refused(verify_error_text(result.error), result.depth, result.at);
	id = identity_new(result.chain);
	if (!id) {
		sk_X509_pop_free(result.chain, X509_free);
		return refused("out of memory", 0, NULL);
	}
	return forge(o, id, &ca);
}

int main(int argc, char **argv)
{
	struct options o = {
		.now = time(NULL), .lifespan = DEFAULT_LIFESPAN, .rules = forge_rules_new()};
	int status = EXIT_USAGE;

	if (!o.rules)
		return EXIT_INPUT;
	if (parse_options(argc, argv, &o)) {
		fprintf(stderr, "Try 'ktlsgate-forge --help'.\n");
	} else {
		o.rules->sid_issuers = o.sid_issuers;
		status = run(&o);
	}
	sk_X509_pop_free(o.sid_issuers, X509_free);
	sk_X509_CRL_pop_free(o.crls, X509_CRL_free);
	forge_rules_free(o.rules);
	return status;
}
