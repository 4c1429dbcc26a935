// SPDX-License-Identifier: Apache-2.0
/*
 * config_load.c, config_files.c, config_check.c, config_table.c, types_*.c, pem.c and log.c.
 * Without arguments: the checks.
 *   --no-scan            as without, but not the search of all memory (for valgrind)
 *   --example            prints what config/ktlsgate.conf must be
 *   --table              prints the table of keys
 *   --check FILE         config_check(), as ktlsgated -t does
 *   --print FILE [KEY]   config_print()
 */
#include "unit.h"

#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include "config/config.h"
#include "config/config_table.h"
#include "pki/pem.h"

static char dir[] = "/tmp/test_config.XXXXXX";

static const char *in_dir(const char *name)
{
	static char path[4][PATH_MAX];
	static unsigned next;
	char *p = path[next++ % 4];

	snprintf(p, PATH_MAX, "%s/%s", dir, name);
	return p;
}

static void write_bytes(const char *name, const void *data, size_t len)
{
	scoped_file *f = fopen(in_dir(name), "w");

	if (!f || fwrite(data, 1, len, f) != len)
		abort();
}

/* ---- PKI: a self-signed CA and its key, made in a child so that this process never saw it ---- */

#define NEEDLES	   3
#define NEEDLE_LEN 28

/* Parts of the key file and the secret itself, each byte inverted: the search must not find itself.
 */
struct needles {
	uint8_t bytes[NEEDLES][NEEDLE_LEN];
};

static void add_extension(X509 *cert, int nid, const char *value)
{
	X509V3_CTX ctx;
	X509_EXTENSION *ext;

	X509V3_set_ctx(&ctx, cert, cert, NULL, NULL, 0);
	ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
	X509_add_ext(cert, ext, -1);
	X509_EXTENSION_free(ext);
}

static X509 *make_ca(EVP_PKEY *key)
{
	X509 *ca = X509_new();
	X509_NAME *name = X509_get_subject_name(ca);

	X509_set_version(ca, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(ca), 1);
	X509_gmtime_adj(X509_getm_notBefore(ca), -60);
	X509_gmtime_adj(X509_getm_notAfter(ca), 3600);
	X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const uint8_t *)"test CA", -1, -1, 0);
	X509_set_issuer_name(ca, name);
	X509_set_pubkey(ca, key);
	add_extension(ca, NID_basic_constraints, "critical,CA:TRUE");
	add_extension(ca, NID_key_usage, "critical,keyCertSign,cRLSign");
	add_extension(ca, NID_subject_key_identifier, "hash");
	X509_sign(ca, key, EVP_sha256());
	return ca;
}

static void take_needle(struct needles *n, unsigned i, const void *data)
{
	for (unsigned k = 0; k < NEEDLE_LEN; k++)
		n->bytes[i][k] = ~((const uint8_t *)data)[k];
}

/* Writes <name>.pem, <name>.key (PKCS #8) and <name>.enc (encrypted). */
static void make_pki(const char *name, struct needles *n)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *ca = make_ca(key);
	char file[80], text[1024] = "";
	FILE *f;

	snprintf(file, sizeof(file), "%s.pem", name);
	f = fopen(in_dir(file), "w");
	PEM_write_X509(f, ca);
	fclose(f);
	snprintf(file, sizeof(file), "%s.enc", name);
	f = fopen(in_dir(file), "w");
	PEM_write_PKCS8PrivateKey(f, key, EVP_aes_128_cbc(), "secret", 6, NULL, NULL);
	fclose(f);
	snprintf(file, sizeof(file), "%s.key", name);
	f = fopen(in_dir(file), "w+");
	PEM_write_PKCS8PrivateKey(f, key, NULL, NULL, 0, NULL, NULL);
	rewind(f);
	if (!fread(text, 1, sizeof(text) - 1, f))
		abort();
	fclose(f);
	chmod(in_dir(file), 0600);
	/* 64 bytes of base64 a line; OpenSSL treats the last line differently. */
	take_needle(n, 0, strchr(text, '\n') + 1 + 30);
	take_needle(n, 1, strchr(text, '\n') + 1 + 65);
	take_needle(n, 2, strstr(text, "\n-----END") - NEEDLE_LEN);
	X509_free(ca);
	EVP_PKEY_free(key);
}

static void make_pki_in_child(const char *name, struct needles *n)
{
	int fd[2], status = 1;
	pid_t pid;

	if (pipe(fd) < 0)
		abort();
	pid = fork();
	if (!pid) {
		make_pki(name, n);
		_exit(write(fd[1], n, sizeof(*n)) != sizeof(*n));
	}
	if (read(fd[0], n, sizeof(*n)) != sizeof(*n))
		abort();
	waitpid(pid, &status, 0);
	CHECK_INT(status, 0);
	close(fd[0]);
	close(fd[1]);
}

/* ---- loading from text ---- */

#define OBJECTS                                                                                    \
	"certkey.web.cert = DIR/web.pem\ncertkey.web.key = DIR/web.key\n"                          \
	"certkey.forge.cert = DIR/forge.pem\ncertkey.forge.key = DIR/forge.key\n"                  \
	"profile.front.client_auth = mandatory\nprofile.front.client_ca = DIR/web.pem\n"           \
	"profile.back.dynamic_client_cert = ENABLED\nprofile.back.forging_certkey = forge\n"       \
	"profile.back.server_ca = DIR/web.pem\n"                                                   \
	"vserver.app.listen = 0.0.0.0:8443\nvserver.app.certkey = web\n"                           \
	"vserver.app.profile = front\nvserver.app.service = app1\n"                                \
	"service.app1.address = [::1]:9443\nservice.app1.server_name = backend.example\n"          \
	"service.app1.profile = back\n"

/* Replaces DIR, loads; the error lines are in *errors, to be freed. */
static struct config *load_text(const char *text, char **errors)
{
	struct config *cfg = NULL;
	size_t size = 0;
	FILE *f = fopen(in_dir("test.conf"), "w"), *e;
	const char *mark;

	for (; (mark = strstr(text, "DIR")); text = mark + 3)
		fprintf(f, "%.*s%s", (int)(mark - text), text, dir);
	fputs(text, f);
	fclose(f);
	e = open_memstream(errors, &size);
	if (config_load(in_dir("test.conf"), e, &cfg) != (cfg ? 0 : -EINVAL))
		abort();
	fclose(e);
	return cfg;
}

static struct config *load_good(const char *text)
{
	char *errors = NULL;
	struct config *cfg = load_text(text, &errors);

	CHECK(cfg);
	if (*errors)
		printf("%s", errors);
	free(errors);
	return cfg;
}

/* The first error line of setting up text after good objects must hold want. */
static void check_error(const char *text, const char *want)
{
	char *errors = NULL, *all = NULL;
	struct config *cfg;

	if (asprintf(&all, "%s%s", OBJECTS, text) < 0)
		abort();
	cfg = load_text(all, &errors);
	CHECK(!cfg);
	CHECK(strstr(errors, want));
	if (!strstr(errors, want))
		printf("  %s\n  has no '%s', but:\n%s", text, want, errors);
	config_free(cfg);
	free(errors);
	free(all);
}

static void check_prints(const struct config *cfg, const char *key, const char *want)
{
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	CHECK_INT(config_print(cfg, key, f), *want ? 1 : 0);
	fclose(f);
	CHECK(!strcmp(text, want));
	if (strcmp(text, want))
		printf("  got %s, want %s", text, want);
	free(text);
}

/* ---- checks ---- */

static void test_table(void)
{
	struct config cfg = {0};
	enum cfg_scope scope = SCOPE_GLOBAL;

	for (const struct cfg_key *k = cfg_keys; k < cfg_keys + cfg_n_keys; k++) {
		CHECK(k->scope >= scope); /* grouped */
		scope = k->scope;
		CHECK(strlen(k->pattern) - strlen("<name>") + CFG_NAME_MAX < CFG_KEY_MAX);
		CHECK(k->help && k->type && k->type->parse && k->type->print && k->type->range);
		CHECK(!k->mandatory || !k->value);
	}
	CHECK_INT(cfg_set_defaults(SCOPE_GLOBAL, &cfg), 0);
	for (scope = SCOPE_CERTKEY; scope < SCOPES; scope++)
		CHECK(cfg_object_add(&cfg, scope, "x"));
	for (scope = SCOPE_GLOBAL; scope < SCOPES; scope++)
		CHECK_INT(cfg_count(&cfg, scope), 1);
	for (const struct cfg_key *k = cfg_keys; k < cfg_keys + cfg_n_keys; k++)
		if (k->type->owns_string)
			free(cfg_get_pointer(cfg_member(cfg_object(&cfg, k->scope, 0), k->offset)));
	for (scope = SCOPE_CERTKEY; scope < SCOPES; scope++) {
		struct cfg_head *head = cfg_object(&cfg, scope, 0);

		free(head->name);
		free(head);
		free(cfg_get_pointer(cfg_member(&cfg, cfg_scopes[scope].list)));
	}
}

static void test_defaults(void)
{
	struct config *cfg = load_good(OBJECTS);

	if (!cfg)
		return;
	CHECK_INT(cfg->engine, ENGINE_AUTO);
	CHECK_INT(cfg->relay, RELAY_SPLICE);
	CHECK(cfg->workers >= 1 && cfg->workers <= 256);
	CHECK(!cfg->user);
	CHECK(!strcmp(cfg->bpf_dir, "/sys/fs/bpf/ktlsgate"));
	CHECK(!strcmp(cfg->control_socket, "/run/ktlsgate/control.sock"));
	CHECK_INT(cfg->log_level, LOG_LEVEL_INFO);
	CHECK_INT(cfg->handshake_timeout, 120);
	CHECK_INT(cfg->backend_handshake_timeout, 20);
	CHECK_INT(cfg->connect_timeout, 5);
	CHECK_INT(cfg->idle_timeout, 3600);
	CHECK_INT(cfg->drain_timeout, 30);
	CHECK_INT(cfg->forge_lifespan, 86400);
	CHECK_INT(cfg->forge_cache, 4096);
	CHECK_INT(cfg->services[0]->connect, CONNECT_EARLY);
	CHECK(!cfg->profiles[1]->require_certificate_request);
	config_free(cfg);
}

static void test_objects(void)
{
	struct config *cfg = load_good(OBJECTS);
	const struct cfg_vserver *v;
	const struct cfg_certkey *ck;

	if (!cfg)
		return;
	CHECK_INT(cfg->n_vservers, 1);
	CHECK_INT(cfg->n_certkeys, 2);
	v = cfg->vservers[0];
	CHECK(!strcmp(v->name, "app"));
	CHECK_INT(v->listen.n, 1);
	CHECK_INT(v->listen.list[0].address.ss.ss_family, AF_INET);
	CHECK_INT(cfg_service_at(v, 0)->address.ss.ss_family, AF_INET6);
	CHECK_INT(v->certkeys.n, 1);
	ck = v->certkeys.items[0];
	CHECK(ck == cfg->certkeys[0] && v->profile == cfg->profiles[0]);
	CHECK(cfg_service_at(v, 0)->profile == cfg->profiles[1]);
	CHECK(cfg_service_at(v, 0)->profile->dynamic_client_cert);
	CHECK(cfg_service_at(v, 0)->profile->forging_certkeys.items[0] == cfg->certkeys[1]);
	CHECK(ck->serving && !ck->forging);
	CHECK_INT(v->services.n, 1);
	CHECK(!cfg->certkeys[1]->serving && cfg->certkeys[1]->forging);
	CHECK(ck->cert && !sk_X509_num(ck->chain));
	CHECK_INT(sk_X509_num(v->profile->client_ca), 1);
	CHECK_INT(ck->key_where.line, 2);
	CHECK_INT(cfg_service_at(v, 0)->profile->dynamic_client_cert_where.line, 7);
	CHECK_INT(cfg_service_at(v, 0)->profile->client_auth_where.line, 0);
	/* Only the wanted kind of keys. */
	CHECK_INT(config_load_keys(cfg, CFG_KEYS_SERVING, stdout), 0);
	CHECK(cfg->certkeys[0]->pkey && !cfg->certkeys[1]->pkey);
	CHECK_INT(config_load_keys(cfg, CFG_KEYS_SERVING | CFG_KEYS_FORGING, stdout), 0);
	CHECK(cfg->certkeys[1]->pkey);
	config_free(cfg);
}

/* Printed as it was written, or shorter. */
static void check_listen(const char *value, const char *printed, unsigned bindings)
{
	char text[2048], want[256];
	struct config *cfg;

	snprintf(text, sizeof(text), "%svserver.app.listen = %s\n", OBJECTS, value);
	cfg = load_good(text);
	if (!cfg)
		return;
	snprintf(want, sizeof(want), "vserver.app.listen = %s\n", printed);
	check_prints(cfg, "vserver.app.listen", want);
	CHECK_INT(cfg->n_bindings, bindings);
	config_free(cfg);
}

static void test_listens(void)
{
	static const struct {
		const char *value, *printed;
		unsigned bindings;
	} cases[] = {
		{"10.1.2.3:443", "10.1.2.3:443", 1},
		{"10.1.2.3/32:443", "10.1.2.3:443", 1},
		{"10.1.2.3/32:443-444", "10.1.2.3:443-444", 1},
		{"10.1.2.3:443-443", "10.1.2.3:443", 1},
		{"0.0.0.0:443", "0.0.0.0:443", 1},
		{"0.0.0.0/0:443", "0.0.0.0/0:443", 1},
		{"0.0.0.0/0:443-444", "0.0.0.0:443-444", 1},
		{"[::]:443", "[::]:443", 1},
		{"[::]/0:443", "[::]/0:443", 1},
		{"[2001:db8::]/33:1-65535", "[2001:db8::]/33:1-65535", 1},
		{"10.0.0.0/8:443\t 10.1.2.3:443  10.0.0.0/9:1 [::1]:443 [fd00::]/8:443",
		 "10.0.0.0/8:443 10.1.2.3:443 10.0.0.0/9:1 [::1]:443 [fd00::]/8:443", 4},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++)
		check_listen(cases[i].value, cases[i].printed, cases[i].bindings);
}

static void test_form(void)
{
	struct config *cfg = load_good(
		"\n# c\n; c\n  # c\n\t\n" OBJECTS
		"timeout.idle=0\ntimeout.idle \t=\t90  # trailing\r\n  timeout.drain = 2m\r\n"
		"dataplane.workers = 3\nbpf.dir = OFF\nlog.level = debug\n"
		"certkey.web.cert = DIR/web.pem # a#b\nforge.lifespan = 365d");

	if (!cfg)
		return;
	CHECK_INT(cfg->idle_timeout, 90);
	CHECK_INT(cfg->drain_timeout, 120);
	CHECK_INT(cfg->workers, 3);
	CHECK_INT(cfg->forge_lifespan, 365 * 86400);
	CHECK(!cfg->bpf_dir);
	CHECK(!strcmp(cfg->certkeys[0]->cert_file, in_dir("web.pem")));
	check_prints(cfg, "timeout.idle", "timeout.idle = 90s\n");
	check_prints(cfg, "timeout.drain", "timeout.drain = 2m\n");
	check_prints(cfg, "bpf.dir", "bpf.dir = off\n");
	check_prints(cfg, "dataplane.workers", "dataplane.workers = 3\n");
	check_prints(cfg, "dataplane.user", "");
	check_prints(cfg, "no.such.key", "");
	check_prints(cfg, "vserver.app.certkey", "vserver.app.certkey = web\n");
	check_prints(cfg, "profile.back.dynamic_client_cert",
		     "profile.back.dynamic_client_cert = enabled\n");
	check_prints(cfg, "profile.front.require_certificate_request",
		     "profile.front.require_certificate_request = off\n");
	check_prints(cfg, "service.app1.address", "service.app1.address = [::1]:9443\n");
	config_free(cfg);
}

/* What config_print() writes can be loaded and says the same again. */
static void test_round_trip(void)
{
	struct config *cfg = load_good(OBJECTS "timeout.idle = 0\nbpf.dir = off\n"), *again;
	char *first = NULL, *second = NULL;
	size_t size;
	FILE *f;

	if (!cfg)
		return;
	f = open_memstream(&first, &size);
	CHECK(config_print(cfg, NULL, f) > 30);
	fclose(f);
	again = load_good(first);
	f = open_memstream(&second, &size);
	if (again)
		config_print(again, NULL, f);
	fclose(f);
	CHECK(!strcmp(first, second));
	free(first);
	free(second);
	config_free(cfg);
	config_free(again);
}

static void test_values(void)
{
	static const struct {
		const char *line, *want;
	} bad[] = {
		{"timeout.idle = 366d", "is out of range; use 0..365d"},
		{"timeout.idle = 99999999999999999999d", "is out of range"},
		{"timeout.idle = 4294967297", "is out of range"},
		{"timeout.idle = 5ms", "unit of time"},
		{"timeout.idle = -1", "is not a time"},
		{"timeout.idle = ", "the value is missing"},
		{"forge.lifespan = 59", "is out of range; use 1m..365d"},
		{"forge.cache = 0", "is out of range; use 1..1000000"},
		{"forge.cache = 1000001", "is out of range"},
		{"forge.cache = 18446744073709551617", "is out of range"},
		{"forge.cache = 0x10", "is not a number"},
		{"dataplane.workers = 257", "use auto | 1..256"},
		{"dataplane.workers = many", "is not a number"},
		{"dataplane.user = no-such-user-here", "is no user"},
		{"control.socket = run/x", "is not an absolute path"},
		{"bpf.dir = of", "off | an absolute path"},
		{"service.app1.address = 127.0.0.1", "has no port"},
		{"service.app1.address = 127.0.0.1:0", "1..65535"},
		{"service.app1.address = 127.0.0.1:65536", "1..65535"},
		{"service.app1.address = 127.0.0.1:+80", "1..65535"},
		{"service.app1.address = 300.0.0.1:80", "no IPv4 address"},
		{"service.app1.address = ::1:80", "without brackets"},
		{"service.app1.address = [::1]", "has no port"},
		{"service.app1.address = [::g]:80", "no IPv6 address"},
		{"service.app1.address = [", "has no port"},
		{"service.app1.address = [:1", "has no port"},
		{"service.app1.address = :", "1..65535"},
		{"service.app1.address = :80", "no IPv4 address"},
		{"service.app1.address = [::ffff:1.2.3.4]:80", "write it as IPv4"},
		{"service.app1.server_name = 127.0.0.1", "is an address"},
		{"service.app1.server_name = a..b", "not a DNS name"},
		{"service.app1.server_name = a.", "not a DNS name"},
		{"service.app1.server_name = -a", "not a DNS name"},
		{"service.app1.server_name = a-.b", "not a DNS name"},
		{"service.app1.server_name = b\xc3\xbc.example", "not a DNS name"},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		check_error(bad[i].line, bad[i].want);
}

static void test_nearest(void)
{
	char near[CFG_KEY_MAX];

	CHECK(cfg_nearest("timeout.idel", near) && !strcmp(near, "timeout.idle"));
	CHECK(cfg_nearest("vservr.app.listn", near) && !strcmp(near, "vserver.app.listen"));
	CHECK(cfg_nearest("certkey.cert", near) && !strcmp(near, "certkey.<name>.cert"));
	CHECK(cfg_nearest("profile.x.client-ca", near) && !strcmp(near, "profile.x.client_ca"));
	CHECK(!cfg_nearest("frobnicate", near));
	CHECK(!cfg_nearest("x", near));
	CHECK(!cfg_nearest("", near));
}

/* ---- the text of key files leaves no trace ---- */

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED true
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(memory_sanitizer)
#define SANITIZED true
#endif
#endif
#ifndef SANITIZED
#define SANITIZED false
#endif

static bool matches(const volatile uint8_t *p, const uint8_t *inverted)
{
	for (unsigned i = 0; i < NEEDLE_LEN; i++) {
		if ((p[i] ^ inverted[i]) != 0xff)
			return false;
	}
	return true;
}

/* How many of the needles lie anywhere in our writable memory. Prints where. */
static unsigned traces(const struct needles *n)
{
	scoped_file *maps = fopen("/proc/self/maps", "r");
	char line[512], perms[8];
	unsigned long from, to;
	unsigned found = 0;

	while (maps && fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%lx-%lx %7s", &from, &to, perms) != 3 || perms[0] != 'r' ||
		    perms[1] != 'w')
			continue;
		for (unsigned long a = from; a + NEEDLE_LEN <= to; a++) {
			for (unsigned i = 0; i < NEEDLES; i++) {
				if (!matches((const volatile uint8_t *)a, n->bytes[i]))
					continue;
				printf("  part %u of the key lies at %lx in %s", i, a, line);
				found++;
			}
		}
	}
	return found;
}

static void test_wiped(const struct needles *n)
{
	struct config *cfg = load_good(OBJECTS);
	char copy[NEEDLE_LEN];

	if (!cfg)
		return;
	/* The search finds what is there. */
	for (unsigned i = 0; i < NEEDLE_LEN; i++)
		((volatile char *)copy)[i] = ~n->bytes[1][i];
	printf("expected: ");
	CHECK(traces(n) >= 1);
	OPENSSL_cleanse(copy, sizeof(copy));
	CHECK_INT(traces(n), 0);
	CHECK_INT(config_load_keys(cfg, CFG_KEYS_FORGING, stdout), 0);
	config_free(cfg);
	CHECK_INT(traces(n), 0);
}

static void check_key_file(const char *name, const char *want)
{
	char why[CFG_WHY_MAX] = "";
	EVP_PKEY *key = NULL;

	CHECK(pem_load_key(in_dir(name), NULL, FILE_OF_OWNER, &key, why, sizeof(why)) < 0);
	CHECK(!key && strstr(why, want));
	if (!strstr(why, want))
		printf("  %s: %s\n", name, why);
	CHECK_INT(ERR_peek_error(), 0);
}

static void check_cert_file(const char *name, const char *want)
{
	char why[CFG_WHY_MAX] = "";
	STACK_OF(X509) *certs = NULL;

	CHECK(pem_load_certs(in_dir(name), &certs, why, sizeof(why)) < 0);
	CHECK(!certs && strstr(why, want));
	if (!strstr(why, want))
		printf("  %s: %s\n", name, why);
	CHECK_INT(ERR_peek_error(), 0);
}

static void test_pem(void)
{
	static const char broken[] =
		"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
	static const char key[] = "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n";
	static const char other[] = "-----BEGIN X-----\nMIIB\n-----END X-----\n";

	write_bytes("empty", "", 0);
	write_bytes("text", "hello\n", 6);
	write_bytes("broken", broken, sizeof(broken) - 1);
	write_bytes("broken.key", key, sizeof(key) - 1);
	write_bytes("other", other, sizeof(other) - 1);
	mkfifo(in_dir("fifo"), 0600);
	check_cert_file("missing", "No such file");
	check_cert_file("", "is a directory");
	check_cert_file("fifo", "not a regular file");
	check_cert_file("empty", "is empty");
	check_cert_file("text", "is not PEM");
	check_cert_file("other", "holds no certificate");
	check_cert_file("broken", "certificate 1 of the file is malformed");
	check_cert_file("web.key", "holds a private key");
	check_key_file("missing", "No such file");
	check_key_file("", "is a directory");
	check_key_file("fifo", "not a regular file");
	check_key_file("text", "holds no private key");
	check_key_file("web.pem", "holds no private key");
	check_key_file("broken.key", "malformed key");
	check_key_file("web.enc", "key_passphrase_file");
}

/* ---- log.c: what arrives on standard error ---- */

static void captured(const char *journal, enum log_level max, char *out, size_t size)
{
	int fd[2], saved = dup(STDERR_FILENO);
	struct stat st;
	char stream[64];
	ssize_t n;

	if (pipe(fd) < 0 || dup2(fd[1], STDERR_FILENO) < 0 || fstat(fd[1], &st) < 0)
		abort();
	snprintf(stream, sizeof(stream), "%llu:%llu", (unsigned long long)st.st_dev,
		 (unsigned long long)st.st_ino);
	setenv("JOURNAL_STREAM", journal ? journal : stream, 1);
	log_open("unit", max);
	errno = EPERM;
	log_debug("debugging");
	log_info("a\nb\x1b[31m%s", "\xc2\x9b\x7f\\");
	log_error("%0*d", 5000, 1);
	CHECK_INT(errno, EPERM);
	close(fd[1]);
	dup2(saved, STDERR_FILENO);
	close(saved);
	n = read(fd[0], out, size - 1);
	out[n < 0 ? 0 : n] = '\0';
	close(fd[0]);
}

static void test_log(void)
{
	char out[8192], text[100], *second;

	captured("1:1", LOG_LEVEL_INFO, out, sizeof(out));
	second = strchr(out, '\n') + 1;
	CHECK(!strncmp(out, "20", 2) && out[10] == 'T' && out[23] == 'Z');
	*second = '\0';
	CHECK(!strcmp(out + 24, " unit info: a\\x0ab\\x1b[31m\\xc2\\x9b\\x7f\\\n"));
	*second = '2';
	CHECK(!strncmp(second + 24, " unit error: 000", 16));
	CHECK(strlen(second) < 1200 && !strcmp(second + strlen(second) - 5, "0...\n"));
	captured(NULL, LOG_LEVEL_ERROR, out, sizeof(out));
	CHECK(!strncmp(out, "<3>unit: 000", 12));
	captured(NULL, LOG_LEVEL_DEBUG, out, sizeof(out));
	CHECK(!strncmp(out, "<7>unit: debugging\n<6>unit: a", 29));
	log_open("unit", LOG_LEVEL_WARN);
	CHECK(log_enabled(LOG_LEVEL_WARN) && !log_enabled(LOG_LEVEL_INFO));

	ERR_clear_error();
	CHECK(!strcmp(log_openssl(text, sizeof(text)), "no OpenSSL error"));
	ERR_raise_data(ERR_LIB_PEM, PEM_R_NO_START_LINE, "Expecting: X");
	CHECK(!strcmp(log_openssl(text, sizeof(text)), "no start line: Expecting: X"));
	CHECK_INT(ERR_peek_error(), 0);
	ERR_raise(ERR_LIB_SYS, ENOENT);
	CHECK(!strcmp(log_openssl(text, sizeof(text)), "No such file or directory"));
}

static int check_file(const char *path)
{
	if (config_check(path, stderr))
		return 1;
	printf("%s: configuration is valid\n", path);
	return 0;
}

static int print_file(const char *path, const char *key)
{
	struct config *cfg = NULL;
	int lines;

	if (config_load(path, stderr, &cfg) < 0)
		return 1;
	lines = config_print(cfg, key, stdout);
	config_free(cfg);
	return lines ? 0 : 1;
}

static void remove_dir(void)
{
	char command[100];

	snprintf(command, sizeof(command), "rm -r %s", dir);
	CHECK_INT(system(command), 0);
}

int main(int argc, char **argv)
{
	bool no_scan = argc == 2 && !strcmp(argv[1], "--no-scan");
	struct needles web, forge;

	if (argc == 2 && !strcmp(argv[1], "--example"))
		return config_print_example(stdout) ? 1 : 0;
	if (argc == 2 && !strcmp(argv[1], "--table")) {
		config_print_table(stdout);
		return 0;
	}
	if (argc == 3 && !strcmp(argv[1], "--check"))
		return check_file(argv[2]);
	if (argc >= 3 && !strcmp(argv[1], "--print"))
		return print_file(argv[2], argv[3]);
	if (!mkdtemp(dir))
		abort();
	make_pki_in_child("web", &web);
	make_pki_in_child("forge", &forge);
	test_table();
	test_defaults();
	test_objects();
	test_listens();
	test_form();
	test_round_trip();
	test_values();
	test_nearest();
	test_pem();
	test_log();
	if (SANITIZED || no_scan)
		printf("not searched for traces of keys: %s\n",
		       no_scan ? "--no-scan" : "the sanitizer's own memory");
	else
		test_wiped(&forge);
	remove_dir();
	return unit_end();
}
