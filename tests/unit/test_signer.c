// SPDX-License-Identifier: Apache-2.0
/*
 * The signer as its workers see it: a real process, real handshakes, real
 * sockets. Also what the sandbox takes away, and the set of digests.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/tcp.h>
#include <linux/tls.h>
#include <netdb.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <openssl/ocsp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include "signer/replay.h"
#include "base/sandbox.h"
#include "signer/signer.h"
#include "unit.h"
#include "unit_tls.h"
#include "pki/verify.h"

#ifndef SOL_TLS
#define SOL_TLS 282
#endif
#define WORKERS	   2
#define TIMEOUT_MS 20000

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

static struct party client_ca, other_ca, web, web2, forge, narrow, client, revoked;
static EVP_PKEY *new_key;
static unsigned issued, refused; /* requests answered or to be answered so */
static char dir[] = "/tmp/test_signer.XXXXXX";

/* ---- the world ---- */

static const char *in_dir(const char *name)
{
	static char path[256];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

static void write_party(const char *name, const struct party *p)
{
	char file[64];
	FILE *f;

	snprintf(file, sizeof(file), "%s.pem", name);
	f = fopen(in_dir(file), "w");
	MUST(f && PEM_write_X509(f, p->cert));
	fclose(f);
	snprintf(file, sizeof(file), "%s.key", name);
	f = fopen(in_dir(file), "w");
	MUST(f && PEM_write_PrivateKey(f, p->key, NULL, NULL, 0, NULL, NULL));
	fclose(f);
	MUST(chmod(in_dir(file), 0600) == 0);
}

/* Of client_ca: `revoked` is on it. */
static void write_crl(void)
{
	X509_REVOKED *entry = X509_REVOKED_new();
	X509_CRL *crl = X509_CRL_new();
	ASN1_TIME *t = ASN1_TIME_new();
	FILE *f = fopen(in_dir("crl"), "w");

	MUST(crl && entry && t && f && X509_CRL_set_version(crl, X509_CRL_VERSION_2));
	MUST(X509_CRL_set_issuer_name(crl, X509_get_subject_name(client_ca.cert)));
	MUST(X509_gmtime_adj(t, -60) && X509_CRL_set1_lastUpdate(crl, t));
	MUST(X509_REVOKED_set_serialNumber(entry, X509_get_serialNumber(revoked.cert)));
	MUST(X509_REVOKED_set_revocationDate(entry, t) && X509_CRL_add0_revoked(crl, entry));
	MUST(X509_gmtime_adj(t, 3600) && X509_CRL_set1_nextUpdate(crl, t));
	MUST(X509_CRL_sign(crl, client_ca.key, EVP_sha256()) && PEM_write_X509_CRL(f, crl));
	fclose(f);
	ASN1_TIME_free(t);
	X509_CRL_free(crl);
}

static void add_extension(struct party *p, const struct party *issuer, int nid, const char *value)
{
	unit_extension(p->cert, issuer->cert, nid, value);
	unit_sign(p->cert, issuer->key);
}

static void make_world(void)
{
	MUST(mkdtemp(dir));
	client_ca = unit_party("P-256", "client CA", NULL, -60, 3600);
	other_ca = unit_party("P-256", "other CA", NULL, -60, 3600);
	web = unit_party("P-256", "web", &other_ca, -60, 3600);
	web2 = unit_party("RSA", "web", &other_ca, -60, 3600);
	forge = unit_party("RSA", "forging CA", NULL, -60, 3600);
	narrow = unit_party("ED25519", "narrow CA", NULL, -60, 3600);
	add_extension(&narrow, &narrow, NID_name_constraints,
		      "critical,permitted;email:good.example");
	client = unit_party("P-256", "Alice", &client_ca, -60, 3600);
	revoked = unit_party("P-256", "Alice", &client_ca, -60, 3600);
	new_key = unit_key("P-256");
	write_party("client_ca", &client_ca);
	write_party("other_ca", &other_ca);
	write_party("web", &web);
	write_party("web2", &web2);
	write_party("forge", &forge);
	write_party("narrow", &narrow);
	write_crl();
}

static void remove_world(void)
{
	static const char *const names[] = {"client_ca", "other_ca", "web",
					    "web2",	 "forge",    "narrow"};
	struct party *parties[] = {&client_ca, &other_ca, &web,	   &web2,
				   &forge,     &narrow,	  &client, &revoked};
	char file[64];

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(file, sizeof(file), "%s.pem", names[i]);
		unlink(in_dir(file));
		snprintf(file, sizeof(file), "%s.key", names[i]);
		unlink(in_dir(file));
	}
	unlink(in_dir("crl"));
	unlink(in_dir("conf"));
	unlink(in_dir("log"));
	rmdir(dir);
	for (size_t i = 0; i < ARRAY_SIZE(parties); i++)
		unit_party_free(parties[i]);
	EVP_PKEY_free(new_key);
}

static const char vservers[] =
	/* name, certkey, front, back */
	"V(app,web,front,back)V(second,web2,front,back)V(plain,web,off,dull)"
	"V(tickets,web,resume,back)V(tickets2,web,resume,back)"
	"V(listed,web,listed,back)V(asked,web,asked,back)V(others,web,other,back)V(narrow,web,"
	"front,tight)V(noforge,web,"
	"front,dull)";

#define VSERVERS 10 /* as many */

static void write_config(const char *more)
{
	FILE *f = fopen(in_dir("conf"), "w");
	char name[32], certkey[32], front[32], back[32];
	unsigned port = 8000;

	MUST(f);
	for (const char *const *n = (const char *const[]){"web", "web2", "forge", "narrow", NULL};
	     *n; n++)
		fprintf(f, "certkey.%s.cert = %s/%s.pem\ncertkey.%s.key = %s/%s.key\n", *n, dir, *n,
			*n, dir, *n);
	fprintf(f,
		"profile.front.client_auth = mandatory\nprofile.front.client_ca = "
		"%s/client_ca.pem\n"
		"profile.resume.client_auth = mandatory\nprofile.resume.client_ca = "
		"%s/client_ca.pem\nprofile.resume.session_tickets = on\n"
		"profile.listed.client_auth = mandatory\nprofile.listed.client_ca = "
		"%s/client_ca.pem\n"
		"profile.listed.client_crl = %s/crl\nprofile.listed.client_crl_check = mandatory\n"
		"profile.asked.client_auth = mandatory\nprofile.asked.client_ca = "
		"%s/client_ca.pem\n"
		"profile.asked.ocsp_responder = http://127.0.0.1\n"
		"profile.asked.client_ocsp = mandatory\n"
		"profile.other.client_auth = optional\nprofile.other.client_ca = %s/other_ca.pem\n"
		"profile.off.client_auth = off\n",
		dir, dir, dir, dir, dir, dir);
	for (const char *const *n = (const char *const[]){"back", "tight", "dull", NULL}; *n; n++)
		fprintf(f,
			"profile.%s.server_ca = %s/other_ca.pem\nservice.%s.profile = %s\n"
			"service.%s.address = 127.0.0.1:1\nservice.%s.server_name = b.example\n",
			*n, dir, *n, *n, *n, *n);
	fprintf(f,
		"profile.back.dynamic_client_cert = on\nprofile.back.forging_certkey = forge\n"
		"profile.tight.dynamic_client_cert = on\nprofile.tight.forging_certkey = narrow\n");
	for (const char *p = vservers; p; p = strchr(p + 1, 'V')) {
		MUST(sscanf(p, "V(%30[^,],%30[^,],%30[^,],%30[^)])", name, certkey, front, back) ==
		     4);
		fprintf(f,
			"vserver.%s.listen = 127.0.0.1:%u\nvserver.%s.certkey = %s\n"
			"vserver.%s.profile = %s\nvserver.%s.service = %s\n",
			name, port++, name, certkey, name, front, name, back);
	}
	fprintf(f, "forge.lifespan = 10m\nbpf.dir = off\nlog.level = debug\n%s\n", more);
	fclose(f);
}

static unsigned vserver(const struct config *cfg, const char *name)
{
	for (unsigned i = 0; i < cfg->n_vservers; i++)
		if (strcmp(cfg->vservers[i]->name, name) == 0)
			return i;
	MUST(!"no such vserver");
	return 0;
}

static unsigned service(const struct config *cfg, const char *name)
{
	for (unsigned i = 0; i < cfg->n_services; i++)
		if (strcmp(cfg->services[i]->name, name) == 0)
			return i;
	MUST(!"no such service");
	return 0;
}

/* ---- the signer ---- */

struct process {
	struct config *cfg;
	struct signer_memory memory;
	pid_t pid;
	int worker[WORKERS];
	int ready, stop;
};

static struct process start_with(const char *more, const struct signer_memory *memory)
{
	struct process p = {.memory = *memory};
	int pairs[WORKERS][2], fds[WORKERS], ready[2], stop[2], status;

	write_config(more);
	MUST(config_load(in_dir("conf"), stderr, &p.cfg) == 0);
	MUST(pipe(ready) == 0 && pipe(stop) == 0);
	for (int i = 0; i < WORKERS; i++) {
		MUST(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pairs[i]) == 0);
		p.worker[i] = pairs[i][0];
		fds[i] = pairs[i][1];
	}
	p.ready = ready[0];
	p.stop = stop[1];
	fflush(stdout);
	p.pid = fork();
	MUST(p.pid >= 0);
	if (p.pid == 0) {
		MUST(dup2(open(in_dir("log"), O_WRONLY | O_CREAT | O_TRUNC, 0600), 2) == 2);
		status = signer_run(p.cfg, fds, WORKERS, ready[1], stop[0], memory);
		config_free(p.cfg);
		/* With a leak checker, let it look; the parent's own things are reachable. */
		SANITIZED ? exit(status) : _exit(status);
	}
	for (int i = 0; i < WORKERS; i++)
		close(fds[i]);
	close(ready[1]);
	close(stop[0]);
	return p;
}

static struct replay *new_set(void)
{
	scoped_fd fd = replay_make();
	struct replay *r = replay_map(fd);

	MUST(r);
	return r;
}

static struct fresh *new_page(unsigned n)
{
	scoped_fd fd = fresh_new(n);
	struct fresh *f = fresh_map_writable(fd, n);

	MUST(f);
	return f;
}

static struct process start(const char *more)
{
	const struct signer_memory memory = {
		.seen = new_set(), .fresh = new_page(VSERVERS), .generation = 1};

	return start_with(more, &memory);
}

static bool is_ready(const struct process *p)
{
	char byte = 'x';

	return read(p->ready, &byte, 1) == 1 && byte == 0;
}

/* Returns the wait status; the memory is left. */
static int end(struct process *p)
{
	int status;

	close(p->stop);
	MUST(waitpid(p->pid, &status, 0) == p->pid);
	for (int i = 0; i < WORKERS; i++)
		if (p->worker[i] >= 0)
			close(p->worker[i]);
	close(p->ready);
	config_free(p->cfg);
	return status;
}

static int stop(struct process *p)
{
	int status = end(p);

	replay_free(p->memory.seen);
	fresh_unmap(p->memory.fresh, VSERVERS);
	return status;
}

/* The answer to whatever was asked; NULL if it is malformed. */
static const struct signer_response *receive(const struct process *p, unsigned worker)
{
	static _Alignas(struct signer_response) uint8_t buf[SIGNER_MESSAGE_MAX];
	struct pollfd pfd = {.fd = p->worker[worker], .events = POLLIN};
	const struct signer_response *r;
	ssize_t n;

	/* A signer that died or hangs: thousands of further failures would say no more. */
	MUST(poll(&pfd, 1, TIMEOUT_MS) == 1);
	n = recv(p->worker[worker], buf, sizeof(buf), 0);
	MUST(n > 0);
	r = signer_parse_response(buf, (size_t)n);
	issued += r && r->status == SIGNER_OK;
	refused += r && r->status != SIGNER_OK;
	return r;
}

static const struct signer_response *ask_bytes(const struct process *p, unsigned worker,
					       const uint8_t *request, size_t len)
{
	MUST(send(p->worker[worker], request, len, MSG_NOSIGNAL) == (ssize_t)len);
	return receive(p, worker);
}

/* The request an honest worker makes for a vserver. */
static ssize_t build(const struct process *p, uint64_t id, unsigned vs, EVP_PKEY *key,
		     const struct transcript_copy *t, uint8_t *buf)
{
	struct signer_ask a = {
		.vserver = vs, .key = key, .transcript = t->bytes, .transcript_len = t->len};

	if (vs < p->cfg->n_vservers)
		a.service = cfg_service_at(p->cfg->vservers[vs], 0)->index;
	return signer_build_request(id, &a, buf);
}

static const struct signer_response *ask(const struct process *p, unsigned worker, unsigned vs,
					 EVP_PKEY *key, const struct transcript_copy *t)
{
	static uint8_t buf[SIGNER_MESSAGE_MAX];
	static uint64_t id = 1ull << 40;
	const struct signer_response *r;
	ssize_t len = build(p, ++id, vs, key, t, buf);

	MUST(len > 0);
	r = ask_bytes(p, worker, buf, (size_t)len);
	CHECK(r && r->id == id);
	return r;
}

#define CHECK_REFUSED(r, want_status, want_detail)                                                 \
	do {                                                                                       \
		const struct signer_response *r_ = (r);                                            \
		CHECK(r_);                                                                         \
		CHECK_INT(r_ ? (int)r_->status : -1, want_status);                                 \
		CHECK_INT(r_ ? (int)r_->detail : -1, want_detail);                                 \
	} while (0)

static bool signs_for(EVP_PKEY *private, EVP_PKEY *public)
{
	EVP_MD_CTX *sign = EVP_MD_CTX_new(), *check = EVP_MD_CTX_new();
	uint8_t sig[256];
	size_t len = sizeof(sig);
	bool ok = EVP_DigestSignInit(sign, NULL, EVP_sha256(), NULL, private) == 1 &&
		  EVP_DigestSign(sign, sig, &len, (const uint8_t *)"x", 1) == 1 &&
		  EVP_DigestVerifyInit(check, NULL, EVP_sha256(), NULL, public) == 1 &&
		  EVP_DigestVerify(check, sig, len, (const uint8_t *)"x", 1) == 1;

	EVP_MD_CTX_free(sign);
	EVP_MD_CTX_free(check);
	return ok;
}

/* Where handshakes take place: whose fresh value they show. */
static struct fresh_source here;

static void go_to(const struct process *p, const char *name)
{
	here = (struct fresh_source){p->memory.fresh, vserver(p->cfg, name)};
}

static void handshake(const struct party *who, int version, bool retry, struct transcript_copy *t)
{
	struct handshake_case c = {.server = &web,
				   .client = who,
				   .version = version,
				   .retry = retry,
				   .fresh = here.values ? &here : NULL};

	unit_handshake(&c, t);
}

static void alice(struct transcript_copy *t)
{
	handshake(&client, TLS1_3_VERSION, false, t);
}

/* ---- what is issued ---- */

/* key NULL: the signer's. */
static bool has_key(const struct signer_response *r, X509 *cert, EVP_PKEY *key)
{
	EVP_PKEY *made = r->key_len ? new_key_restore(cert, r->data) : NULL;
	bool ok = !key == (r->key_len == NEW_KEY_SCALAR_LEN);

	/* Not what is said about it, but what it can do. */
	ok = ok && (key ? EVP_PKEY_eq(X509_get0_pubkey(cert), key) == 1
			: made && signs_for(made, X509_get0_pubkey(cert)));
	EVP_PKEY_free(made);
	return ok;
}

static void check_issued(const struct signer_response *r, X509 *original, EVP_PKEY *key,
			 const struct party *ca)
{
	X509_STORE *store = X509_STORE_new();
	X509_STORE_CTX *ctx = X509_STORE_CTX_new();
	const uint8_t *p;
	X509 *cert;

	CHECK(r && r->status == SIGNER_OK);
	if (r && r->status == SIGNER_OK) {
		p = r->data + r->key_len;
		cert = d2i_X509(NULL, &p, r->cert_len);
		CHECK(cert && p == r->data + r->key_len + r->cert_len);
		X509_STORE_add_cert(store, ca->cert);
		X509_STORE_CTX_init(ctx, store, cert, NULL);
		X509_STORE_CTX_set_purpose(ctx, X509_PURPOSE_SSL_CLIENT);
		X509_VERIFY_PARAM_set_flags(X509_STORE_CTX_get0_param(ctx),
					    X509_V_FLAG_X509_STRICT);
		CHECK_INT(X509_verify_cert(ctx), 1);
		CHECK(X509_NAME_cmp(X509_get_subject_name(cert), X509_get_subject_name(original)) ==
		      0);
		CHECK(has_key(r, cert, key));
		CHECK(X509_cmp_time(X509_get0_notAfter(cert), &(time_t){time(NULL) + 601}) < 0);
		X509_free(cert);
	}
	X509_STORE_CTX_free(ctx);
	X509_STORE_free(store);
}

static void test_issue(struct process *p)
{
	static const char *const kinds[] = {"RSA",   "RSA-PSS", "P-256", "P-384",
					    "P-521", "ED25519", "ED448"};
	static struct transcript_copy t;
	EVP_PKEY *rsa = unit_key("RSA");

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		struct party who = unit_party(kinds[i], "Alice", &client_ca, -60, 3600);

		for (int variant = 0; variant < 3; variant++) {
			handshake(&who, variant ? TLS1_3_VERSION : TLS1_2_VERSION, variant == 2,
				  &t);
			check_issued(ask(p, i % WORKERS, vserver(p->cfg, "app"), NULL, &t),
				     who.cert, NULL, &forge);
		}
		unit_party_free(&who);
	}
	alice(&t);
	check_issued(ask(p, 0, vserver(p->cfg, "app"), rsa, &t), client.cert, rsa, &forge);
	EVP_PKEY_free(rsa);
}

static void test_replay(struct process *p)
{
	static struct transcript_copy t;

	alice(&t);
	check_issued(ask(p, 0, vserver(p->cfg, "app"), NULL, &t), client.cert, NULL, &forge);
	CHECK_REFUSED(ask(p, 0, vserver(p->cfg, "app"), NULL, &t), SIGNER_REPLAY, 0);
	CHECK_REFUSED(ask(p, 1, vserver(p->cfg, "app"), NULL, &t), SIGNER_REPLAY, 0);
	/* The last bytes are the signature: another one names the same handshake. */
	t.bytes[t.len - 1] ^= 1;
	CHECK_REFUSED(ask(p, 0, vserver(p->cfg, "app"), NULL, &t), SIGNER_REPLAY, 0);
	alice(&t);
	check_issued(ask(p, 0, vserver(p->cfg, "app"), NULL, &t), client.cert, NULL, &forge);
}

/* ---- fresh values ---- */

/* Alice's handshake with a gate that shows this. */
static void alice_sees(const uint8_t value[FRESH_LEN], int version, struct transcript_copy *t)
{
	struct fresh *values = new_page(1);
	struct handshake_case c = {.server = &web, .client = &client, .version = version};
	const struct fresh_source source = {values, 0};

	if (value) {
		fresh_write(values, 1, 0, value);
		fresh_publish(values, 1);
		c.fresh = &source;
	}
	unit_handshake(&c, t);
	fresh_unmap(values, 1);
}

static void make_value(const struct process *p, uint64_t epochs_ago, uint64_t generation,
		       const char *name, uint8_t out[FRESH_LEN])
{
	const struct fresh_place place = {.epoch = replay_epoch(p->memory.seen) - epochs_ago,
					  .generation = generation,
					  .vserver = name};

	MUST(fresh_make(replay_secret(p->memory.seen), &place, out));
}

/* timeout.handshake: 120 s, so an age of 25 epochs is the last one that is good. */
static void test_fresh(struct process *p)
{
	static struct transcript_copy t;
	unsigned app = vserver(p->cfg, "app");
	uint8_t value[FRESH_LEN];

	for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
		alice_sees(NULL, version, &t);
		CHECK_REFUSED(ask(p, 0, app, NULL, &t), SIGNER_STALE, STALE_FOREIGN);
		make_value(p, 26, 1, "app", value);
		alice_sees(value, version, &t);
		CHECK_REFUSED(ask(p, 0, app, NULL, &t), SIGNER_STALE, STALE_OLD);
		make_value(p, 0, 2, "app", value);
		alice_sees(value, version, &t);
		CHECK_REFUSED(ask(p, 0, app, NULL, &t), SIGNER_STALE, STALE_FOREIGN);
		make_value(p, 0, 1, "listed", value);
		alice_sees(value, version, &t);
		CHECK_REFUSED(ask(p, 0, app, NULL, &t), SIGNER_STALE, STALE_FOREIGN);
		make_value(p, 0, 1, "app", value);
		for (int i = 0; i < FRESH_LEN; i++) {
			value[i] ^= 1;
			alice_sees(value, version, &t);
			CHECK_REFUSED(ask(p, 0, app, NULL, &t), SIGNER_STALE, STALE_FOREIGN);
			value[i] ^= 1;
		}
		make_value(p, 24, 1, "app", value);
		alice_sees(value, version, &t);
		check_issued(ask(p, 0, app, NULL, &t), client.cert, NULL, &forge);
	}
}

/* What is shown now is of now, and goes on. */
static void test_published(struct process *p)
{
	uint8_t first[FRESH_LEN], next[FRESH_LEN];
	struct fresh_place place = {.generation = 1, .vserver = "app"};
	unsigned app = vserver(p->cfg, "app");

	fresh_read(p->memory.fresh, app, first);
	CHECK(fresh_check(replay_secret(p->memory.seen), &place, first));
	CHECK(replay_epoch(p->memory.seen) - place.epoch <= 1);
	for (int i = 0; i < 400; i++) {
		fresh_read(p->memory.fresh, app, next);
		if (memcmp(first, next, FRESH_LEN))
			break;
		usleep(50000);
	}
	CHECK(fresh_check(replay_secret(p->memory.seen), &place, next));
	CHECK(memcmp(first, next, FRESH_LEN));
	/* One that does not forge has nothing to show. */
	fresh_read(p->memory.fresh, vserver(p->cfg, "noforge"), next);
	for (int i = 0; i < FRESH_LEN; i++)
		CHECK_INT(next[i], 0);
}

static void number_digest(unsigned n, uint8_t out[REPLAY_DIGEST_LEN])
{
	EVP_Digest(&n, sizeof(n), out, NULL, EVP_sha256(), NULL);
}

/* n digests of so long ago, as from other handshakes. Returns how many were taken. */
static unsigned fill(struct replay *r, unsigned from, unsigned n, uint64_t epochs_ago)
{
	uint8_t d[REPLAY_DIGEST_LEN];
	unsigned taken = 0;

	for (unsigned i = from; i < from + n; i++) {
		number_digest(i, d);
		taken += replay_add(r, d, replay_epoch(r) - epochs_ago) == REPLAY_NEW;
	}
	return taken;
}

/*
 * A recording of somebody else is not made new by handshakes of one's own, however many; nor by
 * a signer's death, nor by another generation.
 */
static void test_recording(void)
{
	static struct transcript_copy used, unused, t;
	struct process p = start(""), next;
	struct signer_memory second;
	unsigned app = vserver(p.cfg, "app");
	int status;

	MUST(is_ready(&p));
	go_to(&p, "app");
	alice(&used);
	alice(&unused);
	check_issued(ask(&p, 0, app, NULL, &used), client.cert, NULL, &forge);
	CHECK_INT(fill(p.memory.seen, 0, 100000, 0), 100000);
	CHECK_REFUSED(ask(&p, 0, app, NULL, &used), SIGNER_REPLAY, 0);

	/* Nor when there is no room for one more: then nobody gets any. */
	CHECK_INT(fill(p.memory.seen, 100000, REPLAY_ENTRIES, 0), REPLAY_ENTRIES - 100001);
	CHECK_REFUSED(ask(&p, 0, app, NULL, &used), SIGNER_REPLAY, 0);
	CHECK_REFUSED(ask(&p, 0, app, NULL, &unused), SIGNER_FULL, 0);
	CHECK_INT(stop(&p), 0);

	p = start("");
	MUST(is_ready(&p));
	go_to(&p, "app");
	alice(&used);
	alice(&unused);
	check_issued(ask(&p, 0, app, NULL, &used), client.cert, NULL, &forge);
	/* The next generation runs beside it, with what all of them share. */
	second = p.memory;
	second.fresh = new_page(VSERVERS);
	second.generation = 2;
	next = start_with("", &second);
	MUST(is_ready(&next));
	CHECK_REFUSED(ask(&next, 0, app, NULL, &used), SIGNER_REPLAY, 0);
	CHECK_REFUSED(ask(&next, 0, app, NULL, &unused), SIGNER_STALE, STALE_FOREIGN);
	CHECK_INT(end(&next), 0);
	fresh_unmap(second.fresh, VSERVERS);

	MUST(kill(p.pid, SIGKILL) == 0);
	status = end(&p);
	CHECK(WIFSIGNALED(status));
	next = start_with("", &p.memory);
	MUST(is_ready(&next));
	go_to(&next, "app");
	CHECK_REFUSED(ask(&next, 0, app, NULL, &used), SIGNER_REPLAY, 0);
	check_issued(ask(&next, 0, app, NULL, &unused), client.cert, NULL, &forge);
	alice(&t);
	check_issued(ask(&next, 0, app, NULL, &t), client.cert, NULL, &forge);
	CHECK_INT(stop(&next), 0);
	here = (struct fresh_source){0};
	issued = refused = 0; /* whoever counts lines of the log has another one */
}

static void test_vserver(struct process *p)
{
	static struct transcript_copy t;

	alice(&t);
	CHECK_REFUSED(ask(p, 0, vserver(p->cfg, "second"), NULL, &t), SIGNER_NO_PROOF,
		      TRANSCRIPT_NOT_OUR_SERVER);
	CHECK_REFUSED(ask(p, 0, vserver(p->cfg, "plain"), NULL, &t), SIGNER_BAD_REQUEST, 0);
	CHECK_REFUSED(ask(p, 0, vserver(p->cfg, "noforge"), NULL, &t), SIGNER_BAD_REQUEST, 0);
	CHECK_REFUSED(ask(p, 0, p->cfg->n_vservers, NULL, &t), SIGNER_BAD_REQUEST, 0);
	CHECK_REFUSED(ask(p, 0, UINT32_MAX, NULL, &t), SIGNER_BAD_REQUEST, 0);
	/* The same certificate, but other clients, and other lists of those revoked. */
	CHECK_REFUSED(ask(p, 0, vserver(p->cfg, "others"), NULL, &t), SIGNER_STALE, STALE_FOREIGN);
	CHECK_REFUSED(ask(p, 0, vserver(p->cfg, "listed"), NULL, &t), SIGNER_STALE, STALE_FOREIGN);
	/* No refusal has used it up. */
	check_issued(ask(p, 0, vserver(p->cfg, "app"), NULL, &t), client.cert, NULL, &forge);
	go_to(p, "others");
	alice(&t);
	CHECK_REFUSED(ask(p, 0, vserver(p->cfg, "others"), NULL, &t), SIGNER_CHAIN,
		      X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY);
	go_to(p, "app");
}

/* A worker that asks for what is not its vserver's: other services, other CAs. */
static void test_foreign(struct process *p)
{
	static struct transcript_copy t;
	static uint8_t buf[SIGNER_MESSAGE_MAX];
	struct signer_ask a = {.vserver = vserver(p->cfg, "app")};
	ssize_t len;

	alice(&t);
	a.transcript = t.bytes;
	a.transcript_len = t.len;
	for (unsigned s = 0; s <= p->cfg->n_services; s++) {
		if (s == service(p->cfg, "back"))
			continue;
		a.service = s;
		len = signer_build_request(1, &a, buf);
		MUST(len > 0);
		CHECK_REFUSED(ask_bytes(p, 0, buf, (size_t)len), SIGNER_BAD_REQUEST, 0);
	}
	a.service = service(p->cfg, "back");
	for (unsigned ca = 1; ca < 4; ca++) {
		a.ca = ca == 3 ? UINT32_MAX : ca;
		len = signer_build_request(1, &a, buf);
		CHECK_REFUSED(ask_bytes(p, 0, buf, (size_t)len), SIGNER_BAD_REQUEST, 0);
	}
	a.ca = 0;
	len = signer_build_request(1, &a, buf);
	check_issued(ask_bytes(p, 0, buf, (size_t)len), client.cert, NULL, &forge);
}

/*
 * A worker in a flood: it gets its answers as it takes them, and the other one does
 * not wait for more than the request that is being worked on.
 */
static void test_flood(struct process *p)
{
	static struct transcript_copy t;
	static uint8_t buf[SIGNER_MESSAGE_MAX];
	const struct signer_response *r;
	unsigned sent = 0, received = 0;
	ssize_t len;

	alice(&t);
	t.bytes[20] ^= 1; /* refused, after the whole work of a signature */
	len = build(p, 1, vserver(p->cfg, "app"), NULL, &t, buf);
	while (send(p->worker[0], buf, (size_t)len, MSG_DONTWAIT | MSG_NOSIGNAL) == len)
		sent++;
	CHECK(sent > 8);
	alice(&t);
	check_issued(ask(p, 1, vserver(p->cfg, "app"), NULL, &t), client.cert, NULL, &forge);
	/* Others may have had to wait for it; none is lost. */
	for (; received < sent; received++) {
		r = receive(p, 0);
		CHECK(r && r->status == SIGNER_NO_PROOF);
	}
}

static void test_proof(struct process *p)
{
	static struct transcript_copy t;
	struct handshake_case nobody = {.server = &web, .version = TLS1_3_VERSION};

	alice(&t);
	t.bytes[20] ^= 1;
	CHECK_REFUSED(ask(p, 0, vserver(p->cfg, "app"), NULL, &t), SIGNER_NO_PROOF,
		      TRANSCRIPT_BAD_SIGNATURE);
	t.bytes[20] ^= 1;
	t.len--;
	CHECK_REFUSED(ask(p, 0, vserver(p->cfg, "app"), NULL, &t), SIGNER_NO_PROOF,
		      TRANSCRIPT_MALFORMED);
	t.len = 0;
	CHECK_REFUSED(ask(p, 0, vserver(p->cfg, "app"), NULL, &t), SIGNER_NO_PROOF,
		      TRANSCRIPT_MALFORMED);
	unit_handshake(&nobody, &t);
	CHECK_REFUSED(ask(p, 0, vserver(p->cfg, "app"), NULL, &t), SIGNER_NO_PROOF,
		      TRANSCRIPT_NO_CERTIFICATE);
}

/* What the CA itself says of who, in buf. */
static size_t ocsp_response(const struct party *who, int status, uint8_t *buf)
{
	OCSP_CERTID *id = OCSP_cert_to_id(EVP_sha1(), who->cert, client_ca.cert);
	OCSP_BASICRESP *basic = OCSP_BASICRESP_new();
	ASN1_TIME *now = X509_gmtime_adj(NULL, 0), *end = X509_gmtime_adj(NULL, 600);
	OCSP_RESPONSE *response;
	uint8_t *p = buf;
	int len;

	MUST(id && basic && now && end);
	MUST(OCSP_basic_add1_status(basic, id, status, 0, now, now, end));
	MUST(OCSP_basic_sign(basic, client_ca.cert, client_ca.key, EVP_sha256(), NULL, 0));
	response = OCSP_response_create(OCSP_RESPONSE_STATUS_SUCCESSFUL, basic);
	MUST(response);
	len = i2d_OCSP_RESPONSE(response, &p);
	MUST(len > 0 && len <= OCSP_RESPONSE_MAX);
	OCSP_RESPONSE_free(response);
	OCSP_BASICRESP_free(basic);
	OCSP_CERTID_free(id);
	ASN1_TIME_free(now);
	ASN1_TIME_free(end);
	return (size_t)len;
}

/* A worker cannot leave the responder's answer out, nor put another one in its place. */
static void test_ocsp(struct process *p)
{
	static struct transcript_copy t;
	static uint8_t buf[SIGNER_MESSAGE_MAX], response[OCSP_RESPONSE_MAX];
	struct signer_ask a = {
		.vserver = vserver(p->cfg, "asked"), .transcript = t.bytes, .ocsp = response};
	const struct {
		const struct party *about;
		int status, error;
	} answers[] = {
		{NULL, 0, VERIFY_ERR_OCSP},
		{&revoked, V_OCSP_CERTSTATUS_GOOD, VERIFY_ERR_OCSP}, /* is another one */
		{&client, V_OCSP_CERTSTATUS_UNKNOWN, VERIFY_ERR_OCSP},
		{&client, V_OCSP_CERTSTATUS_REVOKED, X509_V_ERR_CERT_REVOKED},
		{&client, V_OCSP_CERTSTATUS_GOOD, X509_V_OK},
	};
	const struct signer_response *r = NULL;

	go_to(p, "asked");
	alice(&t);
	go_to(p, "app");
	a.service = cfg_service_at(p->cfg->vservers[a.vserver], 0)->index;
	a.transcript_len = t.len;
	for (size_t i = 0; i < ARRAY_SIZE(answers); i++) {
		ssize_t len;

		a.ocsp_len = answers[i].about
				     ? ocsp_response(answers[i].about, answers[i].status, response)
				     : 0;
		len = signer_build_request(i + 1, &a, buf);
		MUST(len > 0);
		r = ask_bytes(p, 0, buf, (size_t)len);
		if (answers[i].error)
			CHECK_REFUSED(r, SIGNER_CHAIN, answers[i].error);
	}
	check_issued(r, client.cert, NULL, &forge);
}

/* The signer looks at the lists itself. */
static void test_revoked(struct process *p)
{
	static struct transcript_copy t;

	go_to(p, "listed");
	handshake(&revoked, TLS1_3_VERSION, false, &t);
	CHECK_REFUSED(ask(p, 0, vserver(p->cfg, "listed"), NULL, &t), SIGNER_CHAIN,
		      X509_V_ERR_CERT_REVOKED);
	go_to(p, "app");
	handshake(&revoked, TLS1_3_VERSION, false, &t);
	check_issued(ask(p, 0, vserver(p->cfg, "app"), NULL, &t), revoked.cert, NULL, &forge);
	go_to(p, "listed");
	alice(&t);
	go_to(p, "app");
	check_issued(ask(p, 0, vserver(p->cfg, "listed"), NULL, &t), client.cert, NULL, &forge);
}

/* The handshakes succeed here: the "worker" accepts any chain. */
static void test_chain(struct process *p)
{
	static struct transcript_copy t;
	struct party expired = unit_party("P-256", "Alice", &client_ca, -3600, -60);
	struct party early = unit_party("P-256", "Alice", &client_ca, 1800, 3600);
	struct party alien = unit_party("P-256", "Alice", &other_ca, -60, 3600);
	struct party bad_mail = unit_party("P-256", "Alice", &client_ca, -60, 3600);

	handshake(&expired, TLS1_3_VERSION, false, &t);
	CHECK_REFUSED(ask(p, 0, vserver(p->cfg, "app"), NULL, &t), SIGNER_CHAIN,
		      X509_V_ERR_CERT_HAS_EXPIRED);
	handshake(&early, TLS1_2_VERSION, false, &t);
	CHECK_REFUSED(ask(p, 0, vserver(p->cfg, "app"), NULL, &t), SIGNER_CHAIN,
		      X509_V_ERR_CERT_NOT_YET_VALID);
	handshake(&alien, TLS1_3_VERSION, false, &t);
	CHECK_REFUSED(ask(p, 0, vserver(p->cfg, "app"), NULL, &t), SIGNER_CHAIN,
		      X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY);
	go_to(p, "others");
	handshake(&alien, TLS1_3_VERSION, false, &t);
	check_issued(ask(p, 0, vserver(p->cfg, "others"), NULL, &t), alien.cert, NULL, &forge);

	add_extension(&bad_mail, &client_ca, NID_subject_alt_name, "email:alice@bad.example");
	go_to(p, "narrow");
	handshake(&bad_mail, TLS1_3_VERSION, false, &t);
	go_to(p, "app");
	CHECK_REFUSED(ask(p, 0, vserver(p->cfg, "narrow"), NULL, &t), SIGNER_RULE,
		      FORGE_CA_CONSTRAINT);
	unit_party_free(&expired);
	unit_party_free(&early);
	unit_party_free(&alien);
	unit_party_free(&bad_mail);
}

/* ---- what is malformed ---- */

/* A request with a key and a signature of any kind. */
static const struct signer_response *ask_der(struct process *p, const uint8_t *key, size_t key_len,
					     const uint8_t *sig, size_t sig_len,
					     const struct transcript_copy *t)
{
	static uint8_t buf[SIGNER_MESSAGE_MAX];
	struct signer_request head = {.id = 7,
				      .vserver = vserver(p->cfg, "app"),
				      .service = service(p->cfg, "back"),
				      .key_len = (uint32_t)key_len,
				      .signature_len = (uint32_t)sig_len,
				      .transcript_len = (uint32_t)t->len};
	size_t at = offsetof(struct signer_request, data);

	memcpy(buf, &head, at);
	memcpy(buf + at, key, key_len);
	memcpy(buf + at + key_len, sig, sig_len);
	memcpy(buf + at + key_len + sig_len, t->bytes, t->len);
	return ask_bytes(p, 0, buf, at + key_len + sig_len + t->len);
}

/* Only RSA keys are brought by the asker. */
static void test_new_key(struct process *p)
{
	static struct transcript_copy t;
	EVP_PKEY *unfit[] = {new_key, unit_key("P-384"), unit_key("ED25519"), unit_key("RSA-PSS"),
			     NULL};
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
	uint8_t der[1024], sig[NEW_KEY_SIGNATURE_MAX] = {1};

	alice(&t);
	EVP_PKEY_keygen_init(ctx);
	EVP_PKEY_CTX_set_rsa_keygen_bits(ctx, 1024);
	EVP_PKEY_generate(ctx, &unfit[4]);
	EVP_PKEY_CTX_free(ctx);
	for (size_t i = 0; i < ARRAY_SIZE(unfit); i++) {
		uint8_t *out = der;
		int len = i2d_PUBKEY(unfit[i], &out);

		CHECK_REFUSED(ask_der(p, der, (size_t)len, sig, 64, &t), SIGNER_BAD_REQUEST, 0);
		if (i)
			EVP_PKEY_free(unfit[i]);
	}
	check_issued(ask(p, 0, vserver(p->cfg, "app"), NULL, &t), client.cert, NULL, &forge);
}

/* A certificate in the client's name for a key that the asker only knows of. */
static void test_foreign_key(struct process *p)
{
	static struct transcript_copy t, other;
	EVP_PKEY *theirs = unit_key("RSA"), *ours = unit_key("RSA");
	uint8_t der[1024], sig[NEW_KEY_SIGNATURE_MAX], *out = der;
	size_t len = (size_t)i2d_PUBKEY(theirs, &out), sig_len;
	struct new_key_claim claim = {.vserver = vserver(p->cfg, "app"),
				      .service = service(p->cfg, "back")};
	struct new_key_claim others[4];

	alice(&t);
	alice(&other);
	claim.proof = t.bytes;
	claim.proof_len = t.len;
	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		others[i] = claim;
	others[0].vserver++;
	others[1].service++;
	others[2].ca++;
	others[3].proof = other.bytes;
	others[3].proof_len = other.len;

	CHECK_REFUSED(ask_der(p, der, len, sig, 0, &t), SIGNER_KEY, 0);
	sig_len = new_key_sign(ours, &claim, sig);
	CHECK_REFUSED(ask_der(p, der, len, sig, sig_len, &t), SIGNER_KEY, 0);
	for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
		sig_len = new_key_sign(theirs, &others[i], sig);
		CHECK_REFUSED(ask_der(p, der, len, sig, sig_len, &t), SIGNER_KEY, 0);
	}
	sig_len = new_key_sign(theirs, &claim, sig);
	CHECK_REFUSED(ask_der(p, der, len, sig, sig_len - 1, &t), SIGNER_KEY, 0);
	CHECK_REFUSED(ask_der(p, der, 0, sig, sig_len, &t), SIGNER_BAD_REQUEST, 0);
	CHECK_REFUSED(ask_der(p, der, len - 1, sig, sig_len, &t), SIGNER_BAD_REQUEST, 0);
	sig[10] ^= 1;
	CHECK_REFUSED(ask_der(p, der, len, sig, sig_len, &t), SIGNER_KEY, 0);
	sig[10] ^= 1;
	check_issued(ask_der(p, der, len, sig, sig_len, &t), client.cert, theirs, &forge);
	EVP_PKEY_free(theirs);
	EVP_PKEY_free(ours);
}

static void test_garbage(struct process *p)
{
	static struct transcript_copy t;
	static uint8_t buf[SIGNER_MESSAGE_MAX + 1024];
	ssize_t len;

	for (size_t n = 0; n < 400; n++) {
		RAND_bytes(buf, (int)n);
		CHECK_REFUSED(ask_bytes(p, n % WORKERS, buf, n), SIGNER_BAD_REQUEST, 0);
	}
	memset(buf, 0, sizeof(buf));
	for (size_t n = 400; n <= sizeof(buf); n += 997)
		CHECK_REFUSED(ask_bytes(p, 0, buf, n), SIGNER_BAD_REQUEST, 0);
	CHECK_REFUSED(ask_bytes(p, 0, buf, sizeof(buf)), SIGNER_BAD_REQUEST, 0);

	alice(&t);
	len = build(p, 9, vserver(p->cfg, "app"), NULL, &t, buf);
	MUST(len > 0);
	for (size_t n = 0; n < (size_t)len; n += n < 200 ? 1 : 31)
		CHECK_REFUSED(ask_bytes(p, 0, buf, n), SIGNER_BAD_REQUEST, 0);
	CHECK_REFUSED(ask_bytes(p, 0, buf, (size_t)len + 1), SIGNER_BAD_REQUEST, 0);
	/* Lengths that only add up modulo 2^32. */
	((struct signer_request *)buf)->signature_len -= 1000;
	((struct signer_request *)buf)->transcript_len += 1000;
	((struct signer_request *)buf)->signature_len -= (uint32_t)t.len;
	((struct signer_request *)buf)->transcript_len += (uint32_t)t.len;
	CHECK_REFUSED(ask_bytes(p, 0, buf, (size_t)len), SIGNER_BAD_REQUEST, 0);
	check_issued(ask(p, 0, vserver(p->cfg, "app"), NULL, &t), client.cert, NULL, &forge);
}

/* ---- workers that misbehave ---- */

static void test_worker_does_not_read(struct process *p)
{
	static struct transcript_copy t;
	const struct signer_response *r;
	struct pollfd more = {.fd = p->worker[0], .events = POLLIN};
	unsigned asked = 0, answers = 0;
	uint8_t byte = 0;

	/* Until neither its own queue nor the one of answers takes any more. */
	for (int rest = 0; rest < 20; usleep(5000), rest++) {
		for (; send(p->worker[0], &byte, 1, MSG_NOSIGNAL | MSG_DONTWAIT) == 1; asked++)
			rest = 0;
	}
	refused += asked;
	alice(&t);
	check_issued(ask(p, 1, vserver(p->cfg, "app"), NULL, &t), client.cert, NULL, &forge);
	/* More than one queue's worth, and no answer is lost. */
	while (answers < asked && poll(&more, 1, 5000) > 0)
		answers += recv(p->worker[0], &(char[64]){0}, 64, MSG_DONTWAIT) > 0;
	CHECK(asked > 100);
	CHECK_INT(answers, asked);
	alice(&t);
	r = ask(p, 0, vserver(p->cfg, "app"), NULL, &t);
	check_issued(r, client.cert, NULL, &forge);
}

static unsigned long cpu_ticks(pid_t pid)
{
	char path[64], text[1024];
	unsigned long user = 0, sys = 0;
	FILE *f;
	size_t n;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "r");
	MUST(f);
	n = fread(text, 1, sizeof(text) - 1, f);
	fclose(f);
	text[n] = 0;
	MUST(sscanf(strrchr(text, ')'), ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
		    &user, &sys) == 2);
	return user + sys;
}

static void test_worker_dies(struct process *p)
{
	static struct transcript_copy t;
	unsigned long before;

	close(p->worker[0]);
	p->worker[0] = -1;
	alice(&t);
	check_issued(ask(p, 1, vserver(p->cfg, "app"), NULL, &t), client.cert, NULL, &forge);
	before = cpu_ticks(p->pid);
	usleep(500000);
	CHECK(cpu_ticks(p->pid) - before < 10); /* does not spin on the dead socket */
}

/* ---- what the process has given up ---- */

static bool status_has(pid_t pid, const char *line)
{
	char path[64], text[8192];
	FILE *f;
	size_t n;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	f = fopen(path, "r");
	MUST(f);
	n = fread(text, 1, sizeof(text) - 1, f);
	fclose(f);
	text[n] = 0;
	return strstr(text, line);
}

static bool can_lift_memlock(void)
{
	struct rlimit old, all = {RLIM_INFINITY, RLIM_INFINITY};
	bool can;

	getrlimit(RLIMIT_MEMLOCK, &old);
	can = setrlimit(RLIMIT_MEMLOCK, &all) == 0;
	setrlimit(RLIMIT_MEMLOCK, &old);
	return can;
}

static void test_process(struct process *p)
{
	struct stat st;
	char path[64];

	CHECK(status_has(p->pid, "NoNewPrivs:\t1\n"));
	CHECK(status_has(p->pid, "CapEff:\t0000000000000000\n"));
	CHECK(status_has(p->pid, "CapPrm:\t0000000000000000\n"));
	CHECK(status_has(p->pid, "Threads:\t1\n"));
	if (geteuid() == 0) {
		CHECK(status_has(p->pid, "CapBnd:\t0000000000000000\n"));
		CHECK(status_has(p->pid, "Uid:\t65534\t65534\t65534\t65534\n"));
		CHECK(status_has(p->pid, "Gid:\t65534\t65534\t65534\t65534\n"));
		CHECK(status_has(p->pid, "Groups:\t65534 \n"));
	}
	if (SANITIZED)
		return;
	CHECK(status_has(p->pid, "Seccomp:\t2\n"));
	if (can_lift_memlock())
		CHECK(!status_has(p->pid, "VmLck:\t       0 kB\n"));
	else
		printf("locked memory: not tested, RLIMIT_MEMLOCK cannot be lifted here\n");
	/* Files of a process that may not be dumped belong to root. */
	snprintf(path, sizeof(path), "/proc/%d/environ", p->pid);
	CHECK(stat(path, &st) == 0 && st.st_uid == 0);
}

static void do_open(void)
{
	open("/dev/null", O_RDONLY);
}
static void do_socket(void)
{
	socket(AF_INET, SOCK_STREAM, 0);
}
static void do_connect(void)
{
	connect(1, NULL, 0);
}
static void do_execve(void)
{
	execl("/bin/true", "true", NULL);
}
static void do_fork(void)
{
	fork();
}
static void do_exec_memory(void)
{
	mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}
static void do_map_file(void)
{
	mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, 0, 0);
}
static void do_mprotect(void)
{
	static _Alignas(4096) char page[4096];

	mprotect(page, sizeof(page), PROT_READ | PROT_EXEC);
}
static void do_kill(void)
{
	kill(getppid(), 0);
}
static void do_tgkill(void)
{
	syscall(SYS_tgkill, getppid(), getppid(), 0);
}
static void do_set_owner(void)
{
	fcntl(0, F_SETOWN, getppid());
}
static void do_ring(void)
{
	struct {
		uint32_t words[30]; /* struct io_uring_params */
	} params = {{0}};

	syscall(SYS_io_uring_setup, 1, &params);
}
static void do_what_it_may(void)
{
	void *big = malloc(8 << 20);
	uint8_t random[16];
	EVP_PKEY *key = unit_key("P-256");

	if (!big || RAND_bytes(random, sizeof(random)) != 1 || !key || write(-1, "", 1) == 1)
		_exit(3);
	free(big);
}

static void do_udp(void)
{
	socket(AF_INET, SOCK_DGRAM, 0);
}
static void do_udp6_with_flags(void)
{
	socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}
static void do_raw(void)
{
	socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
}
static void do_sctp(void)
{
	socket(AF_INET6, SOCK_STREAM, IPPROTO_SCTP);
}
static void do_unix(void)
{
	socket(AF_UNIX, SOCK_STREAM, 0);
}
static void do_packet(void)
{
	socket(AF_PACKET, SOCK_STREAM, 0);
}
static void do_tcp(void)
{
	static const int families[] = {AF_INET, AF_INET6};
	static const int flags[] = {0, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_CLOEXEC | SOCK_NONBLOCK};

	for (size_t i = 0; i < ARRAY_SIZE(families); i++)
		for (size_t j = 0; j < ARRAY_SIZE(flags); j++)
			if (socket(families[i], SOCK_STREAM | flags[j], 0) < 0 &&
			    errno != EAFNOSUPPORT)
				_exit(3);
}

/* Of a socket that the process has, each way; one number in ten has an upper half, too. */
static void do_option(int call, int level, int name)
{
	static unsigned turn;
	char value[256] = {0};
	socklen_t len = sizeof(value);
	long upper = ++turn % 10 ? 0 : 1L << 32;

	syscall(call, 0, level | upper, name | upper, value,
		call == SYS_getsockopt ? (long)&len : (long)sizeof(int));
}
static void do_options_of_flows(void)
{
	static const int set[][2] = {
		{SOL_SOCKET, SO_KEEPALIVE}, {SOL_SOCKET, SO_LINGER},	 {SOL_SOCKET, SO_RCVBUF},
		{IPPROTO_TCP, TCP_NODELAY}, {IPPROTO_TCP, TCP_KEEPIDLE}, {IPPROTO_TCP, TCP_ULP},
		{SOL_TLS, TLS_TX},	    {SOL_TLS, TLS_RX},
	};
	static const int get[][2] = {
		{SOL_SOCKET, SO_COOKIE}, {SOL_SOCKET, SO_ERROR}, {IPPROTO_TCP, TCP_INFO}};

	for (int round = 0; round < 10; round++) {
		for (size_t i = 0; i < ARRAY_SIZE(set); i++)
			do_option(SYS_setsockopt, set[i][0], set[i][1]);
		for (size_t i = 0; i < ARRAY_SIZE(get); i++)
			do_option(SYS_getsockopt, get[i][0], get[i][1]);
	}
}
static void do_attach_filter(void)
{
	do_option(SYS_setsockopt, SOL_SOCKET, SO_ATTACH_FILTER);
}
static void do_attach_bpf(void)
{
	do_option(SYS_setsockopt, SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF);
}
static void do_detach_bpf(void)
{
	do_option(SYS_setsockopt, SOL_SOCKET, SO_DETACH_REUSEPORT_BPF);
}
static void do_repair(void)
{
	do_option(SYS_setsockopt, IPPROTO_TCP, TCP_REPAIR);
}
static void do_zerocopy_receive(void)
{
	do_option(SYS_getsockopt, IPPROTO_TCP, TCP_ZEROCOPY_RECEIVE);
}
static void do_ip_option(void)
{
	do_option(SYS_setsockopt, IPPROTO_IP, SO_KEEPALIVE);
}
static void do_netfilter(void)
{
	do_option(SYS_setsockopt, IPPROTO_IP, 64 /* IPT_SO_SET_REPLACE */);
}
static void do_read_netfilter(void)
{
	do_option(SYS_getsockopt, IPPROTO_IPV6, 64 /* IP6T_SO_GET_INFO */);
}
static void do_read_filter(void)
{
	do_option(SYS_getsockopt, SOL_SOCKET, SO_GET_FILTER);
}
static void do_make_map(void)
{
	char attr[128] = {0};

	syscall(SYS_bpf, BPF_MAP_CREATE, attr, sizeof(attr));
}
static void do_map_by_id(void)
{
	char attr[128] = {0};

	syscall(SYS_bpf, BPF_MAP_GET_FD_BY_ID, attr, sizeof(attr));
}
static void do_pinned_map(void)
{
	char attr[128] = {0};

	syscall(SYS_bpf, BPF_OBJ_GET, attr, sizeof(attr));
}
static void do_next_key(void)
{
	char attr[128] = {0};

	syscall(SYS_bpf, BPF_MAP_GET_NEXT_KEY, attr, sizeof(attr));
}
static void do_elements(void)
{
	static const int commands[] = {BPF_MAP_LOOKUP_ELEM, BPF_MAP_UPDATE_ELEM,
				       BPF_MAP_DELETE_ELEM};
	char attr[128] = {0};

	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		syscall(SYS_bpf, commands[i], attr, sizeof(attr));
}
static void do_accept(void)
{
	accept4(0, NULL, NULL, 0);
}

static int strict_signer(void)
{
	return sandbox_signer(false);
}

static int sandboxed(int (*sandbox)(void), void (*what)(void))
{
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		if (sandbox() < 0)
			_exit(4);
		what();
		_exit(0);
	}
	MUST(waitpid(pid, &status, 0) == pid);
	return status;
}

static int data_sandbox(void)
{
	return sandbox_data(false, true);
}

static int unix_data_sandbox(void)
{
	return sandbox_data(true, false);
}

static int resolver_sandbox(void)
{
	return sandbox_resolver();
}

static void do_unix_stream(void)
{
	if (socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0) < 0)
		_exit(3);
}

static long try_execve(void)
{
	return execl("/bin/true", "true", NULL);
}
static long try_fork(void)
{
	return fork();
}
static long try_ptrace(void)
{
	return syscall(SYS_ptrace, 0 /* PTRACE_TRACEME */, 0, 0, 0);
}
static long try_mount(void)
{
	return syscall(SYS_mount, "none", "/nowhere", "tmpfs", 0, NULL);
}
static long try_module(void)
{
	return syscall(SYS_init_module, NULL, 0, "");
}
static long try_bpf(void)
{
	return syscall(SYS_bpf, 0, NULL, 0);
}
static long try_ring(void)
{
	return syscall(SYS_io_uring_setup, 1, NULL);
}
static long try_setuid(void)
{
	return syscall(SYS_setuid, getuid());
}
static long try_unshare(void)
{
	return syscall(SYS_unshare, 0);
}
static long try_kill(void)
{
	return kill(getppid(), 0);
}
static long try_set_owner(void)
{
	return fcntl(0, F_SETOWN, getppid());
}
static long try_write(void)
{
	return open("/dev/null", O_WRONLY);
}
static long try_create(void)
{
	return open("/dev/null", O_RDONLY | O_CREAT, 0600);
}
static long try_unlink(void)
{
	return unlink("/nowhere/at/all");
}
static long try_listen(void)
{
	return listen(0, 1);
}
static long try_raw(void)
{
	return socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
}
static long try_packet(void)
{
	return socket(AF_PACKET, SOCK_DGRAM, 0);
}
static long try_netlink(void)
{
	return socket(AF_NETLINK, SOCK_RAW, 12 /* NETLINK_NETFILTER */);
}
static long try_exec_memory(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS,
		       -1, 0);

	return p == MAP_FAILED ? -1 : 0;
}
static long try_make_executable(void)
{
	static _Alignas(4096) char page[4096];

	return mprotect(page, sizeof(page), PROT_READ | PROT_EXEC);
}

/* Refused with EPERM, each: the status is the number of the first that was not, from 1. */
static void do_what_a_resolver_must_not(void)
{
	static long (*const tries[])(void) = {
		try_execve, try_fork,	 try_ptrace,	  try_mount,	       try_module,
		try_bpf,    try_ring,	 try_setuid,	  try_unshare,	       try_kill,
		try_write,  try_create,	 try_unlink,	  try_listen,	       try_raw,
		try_packet, try_netlink, try_exec_memory, try_make_executable, try_set_owner,
	};

	for (size_t i = 0; i < ARRAY_SIZE(tries); i++) {
		errno = 0;
		if (tries[i]() != -1 || errno != EPERM)
			_exit((int)i + 1);
	}
}

/* In a thread that was there before the filter. */
static void *look_up_elsewhere(void *arg)
{
	sem_t *filtered = arg;

	sem_wait(filtered);
	return (void *)(intptr_t)(try_bpf() == -1 && errno == EPERM);
}

static void do_what_a_resolver_may(void)
{
	struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *list;
	int fd = open("/etc/hosts", O_RDONLY | O_CLOEXEC);

	if (fd < 0 || getaddrinfo("localhost", NULL, &hints, &list) ||
	    socket(AF_INET6, SOCK_DGRAM, 0) < 0)
		_exit(3);
	freeaddrinfo(list);
}

static void test_resolver(void)
{
	int status;
	pid_t pid;

	if (SANITIZED)
		return;
	CHECK_INT(sandboxed(resolver_sandbox, do_what_a_resolver_may), 0);
	CHECK_INT(sandboxed(resolver_sandbox, do_what_a_resolver_must_not), 0);
	fflush(stdout);
	pid = fork();
	if (!pid) {
		pthread_t thread;
		void *held;
		sem_t filtered;

		if (sem_init(&filtered, 0, 0) ||
		    pthread_create(&thread, NULL, look_up_elsewhere, &filtered) ||
		    sandbox_resolver() || sem_post(&filtered) || pthread_join(thread, &held))
			_exit(2);
		_exit(held ? 0 : 1);
	}
	MUST(waitpid(pid, &status, 0) == pid);
	CHECK_INT(status, 0);
}

static void check_killed(int status, size_t row)
{
	bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS;

	CHECK(killed);
	if (!killed)
		printf("  row %zu: status %x\n", row, (unsigned)status);
}

static void test_system_calls(void)
{
	static void (*const forbidden[])(void) = {do_open,     do_socket,   do_connect,
						  do_execve,   do_fork,	    do_exec_memory,
						  do_map_file, do_mprotect, do_kill};
	/* A second ring, which nothing would restrict; and ways to reach a process of the same
	 * user.
	 */
	static void (*const not_data[])(void) = {
		do_udp,
		do_udp6_with_flags,
		do_raw,
		do_sctp,
		do_unix,
		do_packet,
		do_ring,
		do_fork,
		do_kill,
		do_tgkill,
		do_set_owner,
		do_exec_memory,
		do_execve,
		do_mprotect,
		do_attach_filter,
		do_attach_bpf,
		do_detach_bpf,
		do_repair,
		do_zerocopy_receive,
		do_ip_option,
		do_netfilter,
		do_read_netfilter,
		do_read_filter,
		do_make_map,
		do_map_by_id,
		do_pinned_map,
		do_next_key,
		do_accept,
	};

	if (SANITIZED) {
		printf("system calls: not tested, a sanitizer needs them\n");
		return;
	}
	CHECK_INT(sandboxed(strict_signer, do_what_it_may), 0);
	for (size_t i = 0; i < ARRAY_SIZE(forbidden); i++)
		check_killed(sandboxed(strict_signer, forbidden[i]), i);
	CHECK_INT(sandboxed(data_sandbox, do_tcp), 0);
	CHECK_INT(sandboxed(data_sandbox, do_options_of_flows), 0);
	CHECK_INT(sandboxed(data_sandbox, do_elements), 0);
	check_killed(sandboxed(unix_data_sandbox, do_elements), 0);
	for (size_t i = 0; i < ARRAY_SIZE(not_data); i++)
		check_killed(sandboxed(data_sandbox, not_data[i]), i);
	CHECK_INT(sandboxed(unix_data_sandbox, do_unix_stream), 0);
	check_killed(sandboxed(data_sandbox, do_unix_stream), 0);
	check_killed(sandboxed(unix_data_sandbox, do_udp), 1);
}

static void test_drop(void)
{
	int status, keep[3], pipes[4], r;
	pid_t pid;

	MUST(pipe(pipes) == 0 && pipe(pipes + 2) == 0);
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		r = sandbox_drop_privileges("no-such-user", true) == -ENOENT ? 0 : 1;
		keep[0] = pipes[3];
		keep[1] = 1;
		keep[2] = pipes[1];
		r |= sandbox_keep_only(keep, 3) == 0 ? 0 : 2;
		r |= fcntl(pipes[0], F_GETFD) < 0 && fcntl(pipes[2], F_GETFD) < 0 ? 0 : 4;
		r |= fcntl(pipes[1], F_GETFD) >= 0 && fcntl(pipes[3], F_GETFD) >= 0 ? 0 : 8;
		r |= fcntl(2, F_GETFD) >= 0 ? 0 : 16;
		_exit(r);
	}
	MUST(waitpid(pid, &status, 0) == pid);
	CHECK_INT(status, 0);
	for (int i = 0; i < 4; i++)
		close(pipes[i]);
}

static unsigned count_in_log(const char *text)
{
	char line[4096];
	unsigned n = 0;
	FILE *f = fopen(in_dir("log"), "r");

	MUST(f);
	while (fgets(line, sizeof(line), f))
		n += strstr(line, text) != NULL;
	fclose(f);
	return n;
}

/* Without a user to become, root keeps its name and nothing else. */
static void test_drop_capabilities(void)
{
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		if (sandbox_drop_privileges(NULL, true) < 0)
			_exit(1);
		_exit(status_has(getpid(), "CapEff:\t0000000000000000\n") &&
				      status_has(getpid(), "CapPrm:\t0000000000000000\n") &&
				      status_has(getpid(), "NoNewPrivs:\t1\n")
			      ? 0
			      : 2);
	}
	MUST(waitpid(pid, &status, 0) == pid);
	CHECK_INT(status, 0);
}

/* One line for each answer, with its reason. */
static void test_log(void)
{
	CHECK_INT(count_in_log(": issued for CN=Alice"), issued);
	CHECK_INT(count_in_log(": nothing issued: "), refused);
	CHECK(count_in_log("vserver app, worker 0: nothing issued: the client's chain was refused: "
			   "certificate has expired") >= 1);
	CHECK_INT(count_in_log(" is lost: "), 0);
	CHECK_INT(count_in_log("worker 0 closed its socket"), 1);
}

/* A key that is not the certificate's: no byte on ready_fd, an exit status. */
static void test_wrong_key(void)
{
	struct party wrong = {new_key, forge.cert};
	struct process p;
	int status;

	write_party("forge", &wrong);
	p = start("");
	CHECK(!is_ready(&p));
	status = stop(&p);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == EXIT_FAILURE);
	CHECK_INT(count_in_log("is not the key of the certificate"), 1);
	write_party("forge", &forge);
}

/* ---- the worker's side of the protocol ---- */

static void test_messages(void)
{
	static uint8_t transcript[TRANSCRIPT_MAX + 1], buf[SIGNER_MESSAGE_MAX];
	static _Alignas(struct signer_response) uint8_t in[128];
	struct signer_response *r = (struct signer_response *)in;
	struct signer_ask a = {.transcript = transcript, .transcript_len = TRANSCRIPT_MAX};
	size_t head = offsetof(struct signer_response, data);
	char text[128];

	CHECK(signer_build_request(1, &a, buf) > TRANSCRIPT_MAX);
	a.transcript_len++;
	CHECK_INT(signer_build_request(1, &a, buf), -EMSGSIZE);

	*r = (struct signer_response){.id = 1, .status = SIGNER_OK, .cert_len = 10};
	CHECK(signer_parse_response(in, head + 10) == r);
	CHECK(!signer_parse_response(in, head + 9) && !signer_parse_response(in, head + 11));
	CHECK(!signer_parse_response(in, head - 1) && !signer_parse_response(in, 0));
	r->cert_len = 0;
	CHECK(!signer_parse_response(in, head)); /* issued, but nothing there */
	r->status = SIGNER_REPLAY;
	CHECK(signer_parse_response(in, head) == r);
	r->cert_len = 10;
	CHECK(!signer_parse_response(in, head + 10));
	*r = (struct signer_response){.status = SIGNER_STATUSES};
	CHECK(!signer_parse_response(in, head));

	*r = (struct signer_response){.key_len = NEW_KEY_SCALAR_LEN, .cert_len = 10};
	CHECK(signer_parse_response(in, head + NEW_KEY_SCALAR_LEN + 10) == r);
	CHECK(!signer_parse_response(in, head + NEW_KEY_SCALAR_LEN));
	r->key_len--;
	CHECK(!signer_parse_response(in, head + NEW_KEY_SCALAR_LEN + 9));
	*r = (struct signer_response){.key_len = UINT32_MAX, .cert_len = 11};
	CHECK(!signer_parse_response(in, head + 10));
	*r = (struct signer_response){.status = SIGNER_REPLAY, .key_len = NEW_KEY_SCALAR_LEN};
	CHECK(!signer_parse_response(in, head + NEW_KEY_SCALAR_LEN));

	*r = (struct signer_response){.status = SIGNER_CHAIN,
				      .detail = X509_V_ERR_CERT_HAS_EXPIRED};
	signer_status_text(r, text, sizeof(text));
	CHECK(strcmp(text, "the client's chain was refused: certificate has expired") == 0);
	for (uint32_t s = 0; s <= SIGNER_STATUSES; s++) {
		*r = (struct signer_response){.status = s, .detail = -5};
		text[0] = 0;
		signer_status_text(r, text, sizeof(text));
		CHECK(strlen(text) > 5);
	}
}

/* The token that came with an answer, and a proof made with it. */
static size_t make_proof(const uint8_t *token, const struct party *who, struct transcript_copy *out)
{
	STACK_OF(X509) *chain = sk_X509_new_null();
	uint8_t *proof;
	size_t len;

	MUST(chain && sk_X509_push(chain, who->cert) && sk_X509_push(chain, client_ca.cert));
	len = ticket_proof(chain, token, &proof);
	MUST(len && len <= sizeof(out->bytes));
	memcpy(out->bytes, proof, len);
	out->len = len;
	free(proof);
	sk_X509_free(chain);
	return len;
}

static const struct signer_response *ask_resumed(const struct process *p, unsigned vs,
						 const struct transcript_copy *t)
{
	static uint8_t buf[SIGNER_MESSAGE_MAX];
	struct signer_ask a = {.vserver = vs,
			       .service = cfg_service_at(p->cfg->vservers[vs], 0)->index,
			       .transcript = t->bytes,
			       .transcript_len = t->len,
			       .resumed = true};
	ssize_t len = signer_build_request(1, &a, buf);

	MUST(len > 0);
	return ask_bytes(p, 0, buf, (size_t)len);
}

/* In place of a handshake: the signer's own word, for this client, vserver and time only. */
static void test_token(struct process *p)
{
	static struct transcript_copy t;
	unsigned app = vserver(p->cfg, "app"), other = vserver(p->cfg, "tickets2");
	unsigned tickets = vserver(p->cfg, "tickets");
	struct party stranger = unit_party("P-256", "somebody else", &client_ca, -60, 3600);
	const struct signer_response *r;
	uint8_t token[TOKEN_LEN], again[TOKEN_LEN];

	alice(&t);
	r = ask(p, 0, app, NULL, &t);
	CHECK(r && r->status == SIGNER_OK && !r->has_token); /* session_tickets is off there */
	go_to(p, "tickets");
	alice(&t);
	r = ask(p, 0, tickets, NULL, &t);
	CHECK(r && r->status == SIGNER_OK && r->has_token);
	memcpy(token, r->token, TOKEN_LEN);
	CHECK(token_end(token) - time(NULL) <= 7200 && token_end(token) - time(NULL) > 7100);

	for (int i = 0; i < 2; i++) { /* as often as the client resumes */
		make_proof(token, &client, &t);
		r = ask_resumed(p, tickets, &t);
		check_issued(r, client.cert, NULL, &forge);
		CHECK(r && r->has_token && !memcmp(r->token, token, TOKEN_LEN));
	}
	CHECK_REFUSED(ask_resumed(p, app, &t), SIGNER_TOKEN, TOKEN_INVALID);
	CHECK_REFUSED(ask_resumed(p, other, &t), SIGNER_TOKEN, TOKEN_INVALID);
	for (int i = 0; i < TOKEN_LEN; i++) {
		memcpy(again, token, TOKEN_LEN);
		again[i] ^= 1;
		make_proof(again, &client, &t);
		CHECK_REFUSED(ask_resumed(p, tickets, &t), SIGNER_TOKEN, 0);
	}
	make_proof(token, &stranger, &t);
	CHECK_REFUSED(ask_resumed(p, tickets, &t), SIGNER_TOKEN, 0);
	make_proof(token, &client, &t);
	for (size_t len = t.len - 1; len < t.len; len -= 17) {
		struct transcript_copy cut = t;

		cut.len = len;
		CHECK_REFUSED(ask_resumed(p, tickets, &cut), SIGNER_TOKEN, 0);
	}
	/* A proof is no transcript, nor the other way round. */
	CHECK_REFUSED(ask(p, 0, tickets, NULL, &t), SIGNER_NO_PROOF, TRANSCRIPT_MALFORMED);
	alice(&t);
	CHECK_REFUSED(ask_resumed(p, tickets, &t), SIGNER_TOKEN, 0);
	go_to(p, "app");
	unit_party_free(&stranger);
}

/* A worker that was captured has no use for more than one that was not. */
static void test_token_storm(struct process *p)
{
	static struct transcript_copy t;
	unsigned tickets = vserver(p->cfg, "tickets"), good = 0, exhausted = 0;
	uint64_t first = replay_epoch(p->memory.seen), epochs;
	const struct signer_response *r;

	go_to(p, "tickets");
	handshake(&revoked, TLS1_3_VERSION, false, &t); /* here nobody has a list */
	go_to(p, "app");
	r = ask(p, 0, tickets, NULL, &t);
	MUST(r && r->has_token);
	make_proof(r->token, &revoked, &t);
	for (int i = 0; i < 200; i++) {
		r = ask_resumed(p, tickets, &t);
		good += r && r->status == SIGNER_OK;
		exhausted += r && r->status == SIGNER_TOKEN && r->detail == TOKEN_EXHAUSTED;
	}
	epochs = replay_epoch(p->memory.seen) - first + 1;
	CHECK_INT(good + exhausted, 200);
	CHECK(good >= 10 && good <= 10 * epochs); /* one for each worker, and eight more */
}

/* Under another configuration, which may trust others, the client proves itself anew. */
static void test_token_of_another_generation(void)
{
	static struct transcript_copy t;
	struct process p = start(""), next;
	struct signer_memory second = p.memory;
	unsigned tickets = vserver(p.cfg, "tickets");
	const struct signer_response *r;

	MUST(is_ready(&p));
	go_to(&p, "tickets");
	alice(&t);
	r = ask(&p, 0, tickets, NULL, &t);
	MUST(r && r->has_token);
	make_proof(r->token, &client, &t);
	second.fresh = new_page(VSERVERS);
	second.generation = 2;
	next = start_with("", &second);
	MUST(is_ready(&next));
	CHECK_REFUSED(ask_resumed(&next, tickets, &t), SIGNER_TOKEN, 0);
	check_issued(ask_resumed(&p, tickets, &t), client.cert, NULL, &forge);
	CHECK_INT(end(&next), 0);
	fresh_unmap(second.fresh, VSERVERS);
	/* A signer that was started again knows it. */
	CHECK_INT(end(&p), 0);
	next = start_with("", &p.memory);
	MUST(is_ready(&next));
	check_issued(ask_resumed(&next, tickets, &t), client.cert, NULL, &forge);
	CHECK_INT(stop(&next), 0);
	here = (struct fresh_source){0};
	issued = refused = 0;
}

static void test_token_ends(void)
{
	static const uint8_t key[TOKEN_KEY_LEN] = {1}, other[TOKEN_KEY_LEN] = {2};
	struct token_claim claim = {.generation = 7, .vserver = "app", .fingerprint = {3}}, is;
	uint8_t token[TOKEN_LEN];

	CHECK(token_make(key, &claim, 1000, token));
	CHECK_INT(token_end(token), 1000);
	CHECK(token_check(key, &claim, 999, token));
	CHECK(!token_check(key, &claim, 1000, token));
	CHECK(!token_check(other, &claim, 999, token));
	is = claim;
	is.vserver = "ap";
	CHECK(!token_check(key, &is, 999, token));
	is = claim;
	is.generation = 8;
	CHECK(!token_check(key, &is, 999, token));
	is = claim;
	is.fingerprint[0] = 4;
	CHECK(!token_check(key, &is, 999, token));
}

static uint64_t milliseconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* Each key serves for a period, and is known for one more. */
static void test_token_keys(void)
{
	uint8_t first[2][REPLAY_SECRET_LEN], keys[2][REPLAY_SECRET_LEN];
	struct replay *r = new_set();
	uint64_t began = milliseconds();

	CHECK(replay_token_keys(r, 1, first) && replay_token_keys(r, 1, keys));
	CHECK(!memcmp(first, keys, sizeof(keys)) || milliseconds() - began >= 1000);
	CHECK(memcmp(first[0], first[1], REPLAY_SECRET_LEN));
	for (int i = 0; i < 200 && !memcmp(first[0], keys[0], REPLAY_SECRET_LEN); i++) {
		usleep(20000);
		CHECK(replay_token_keys(r, 1, keys));
	}
	CHECK(memcmp(first[0], keys[0], REPLAY_SECRET_LEN));
	/* A machine that let us wait for longer has made both of them new. */
	CHECK(!memcmp(first[0], keys[1], REPLAY_SECRET_LEN) || milliseconds() - began >= 2000);
	/* What another generation needs for longer is kept for longer. */
	CHECK(replay_token_keys(r, 3600, first) && replay_token_keys(r, 1, keys));
	CHECK(!memcmp(first, keys, sizeof(keys)));
	replay_free(r);
}

static void test_replay_set(void)
{
	scoped_fd fd = replay_make();
	struct replay *r = replay_map(fd), *same;
	uint8_t d[REPLAY_DIGEST_LEN];
	unsigned wrong = 0;

	MUST(r);
	replay_window(r, 10);
	replay_window(r, 5); /* it never shrinks */
	for (unsigned n = 0; n < 1000; n++) {
		number_digest(n, d);
		wrong += replay_look(r, d) != REPLAY_NEW;
		wrong += replay_add(r, d, replay_epoch(r) - 8) != REPLAY_NEW;
		wrong += replay_add(r, d, replay_epoch(r)) != REPLAY_SEEN;
	}
	/* Full, and it forgets nothing. */
	CHECK_INT(fill(r, 1000, REPLAY_ENTRIES, 0), REPLAY_ENTRIES - 1000);
	number_digest(2 * REPLAY_ENTRIES, d);
	CHECK_INT(replay_look(r, d), REPLAY_FULL);
	CHECK_INT(replay_add(r, d, replay_epoch(r)), REPLAY_FULL);
	for (unsigned n = 0; n < REPLAY_ENTRIES; n++) {
		number_digest(n, d);
		wrong += replay_look(r, d) != REPLAY_SEEN;
	}
	CHECK_INT(wrong, 0);
	/* The same memory, as another process maps it. */
	same = replay_map(fd);
	MUST(same);
	CHECK_INT(replay_look(same, d), REPLAY_SEEN);
	CHECK(!memcmp(replay_secret(r), replay_secret(same), REPLAY_SECRET_LEN));
	CHECK_INT(replay_epoch(r), replay_epoch(same));
	replay_free(same);
	replay_free(r);

	/* What has left the window makes room. */
	r = new_set();
	replay_window(r, 2);
	CHECK_INT(fill(r, 0, 3 * REPLAY_ENTRIES + 7, 5), 3 * REPLAY_ENTRIES + 7);
	replay_free(r);
	/* Digests that share all a hash could look at. */
	r = new_set();
	memset(d, 0, sizeof(d));
	for (unsigned n = 0; n < 256; n++) {
		d[31] = (uint8_t)n;
		wrong += replay_look(r, d) != REPLAY_NEW;
		CHECK_INT(replay_add(r, d, replay_epoch(r)), REPLAY_NEW);
	}
	CHECK_INT(wrong, 0);
	replay_free(r);
	replay_free(NULL);
}

static void test_fresh_page(void)
{
	scoped_fd fd = fresh_new(3);
	struct fresh *f = fresh_map_writable(fd, 3);
	const struct fresh *same = fresh_map(fd, 3);
	uint8_t a[FRESH_LEN], b[FRESH_LEN], got[FRESH_LEN];

	MUST(f && same);
	memset(a, 1, sizeof(a));
	memset(b, 2, sizeof(b));
	fresh_write(f, 6, 2, a);
	fresh_publish(f, 6);
	fresh_write(f, 7, 2, b); /* not there before it is published */
	fresh_read(same, 2, got);
	CHECK(!memcmp(got, a, FRESH_LEN));
	fresh_publish(f, 7);
	fresh_read(same, 2, got);
	CHECK(!memcmp(got, b, FRESH_LEN));
	fresh_read(same, 1, got);
	CHECK(memcmp(got, a, FRESH_LEN) && memcmp(got, b, FRESH_LEN));
	fresh_unmap(same, 3);
	fresh_unmap(f, 3);
	fresh_unmap(NULL, 3);
}

int main(void)
{
	struct process p;

	make_world();
	test_messages();
	test_replay_set();
	test_fresh_page();
	test_token_ends();
	test_token_keys();
	test_system_calls();
	test_resolver();
	test_drop();
	test_drop_capabilities();
	test_wrong_key();
	test_recording();
	test_token_of_another_generation();

	p = start(geteuid() == 0 ? "dataplane.user = nobody" : "");
	CHECK(is_ready(&p));
	go_to(&p, "app");
	test_process(&p);
	test_issue(&p);
	test_replay(&p);
	test_fresh(&p);
	test_published(&p);
	test_token(&p);
	test_token_storm(&p);
	test_vserver(&p);
	test_foreign(&p);
	test_flood(&p);
	test_proof(&p);
	test_chain(&p);
	test_revoked(&p);
	test_ocsp(&p);
	test_new_key(&p);
	test_foreign_key(&p);
	test_garbage(&p);
	test_worker_does_not_read(&p);
	test_worker_dies(&p);
	CHECK_INT(stop(&p), 0);
	test_log();

	remove_world();
	return unit_end();
}
