// SPDX-License-Identifier: Apache-2.0
/*
 * The signer process: what it is prepared with, and a loop over the workers' sockets. Knows no
 * client and no backend.
 */
#include "signer/signer_internal.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/rand.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include "signer/audit.h"
#include "base/log.h"
#include "pki/pkcs11.h"
#include "base/provider.h"
#include "base/sandbox.h"
#include "signer/signer.h"
#include "tls/token.h"
#include "pki/verify.h"

#define SKEW 300 /* seconds a backend's clock may be behind ours */

/*
 * Where cores are few, workers go first: a signer that has more to do than it can leaves nine
 * tenths of a core to a worker that wants it (weights 1024 and 110), and whoever needs no new
 * certificate is not slowed down.
 */
#define NICE 10

/* Of a worker's socket; it may have been shut down in one direction only. */
#define HUNG_UP (EPOLLHUP | EPOLLERR | EPOLLRDHUP)

_Static_assert(REPLAY_DIGEST_LEN == TRANSCRIPT_DIGEST_LEN, "transcripts are what is replayed");

_Static_assert(REPLAY_SECRET_LEN == TOKEN_KEY_LEN, "the tokens' keys are kept there");

_Static_assert(REPLAY_SECRET_LEN == FRESH_SECRET_LEN, "the secret makes fresh values");

_Static_assert(FINGERPRINT_LEN == TRANSCRIPT_SERVER_LEN, "servers are known by fingerprint");

static int keep_descriptors(const int *fds, unsigned n, int ready_fd, int stop_fd);
static int prepare(struct signer *s, const struct config *cfg);
static bool prepare_forging(struct signer *s, struct forging *out, const struct cfg_profile *p);
static bool prepare_issuer(struct issuer *out, const struct cfg_vserver *v);
static bool forges(const struct cfg_vserver *v);
static int watch(struct signer *s, int stop_fd);
static void lock_memory(void);
static int rehearse(struct signer *s);
static void publish(struct signer *s);
static int serve(struct signer *s);
static void answer(struct signer *s, unsigned worker, bool hung_up);
static bool append_issued(struct signer_response *r, const struct request *req, const EVP_PKEY *key,
			  X509 *cert, size_t space);
static void log_verdict(const struct signer *s, unsigned worker, const struct request *req,
			const struct signer_response *r, X509 *cert);

static void signer_free(struct signer *s)
{
	if (s->epoll >= 0)
		close(s->epoll);
	for (unsigned i = 0; i < s->n_issuers; i++) {
		verifier_free(s->issuers[i].verifier);
		free(s->issuers[i].servers);
	}
	free(s->issuers);
	for (unsigned i = 0; i < s->n_forgings; i++) {
		free(s->forgings[i].cas);
		OPENSSL_cleanse(&s->forgings[i].policy, sizeof(s->forgings[i].policy));
	}
	free(s->forgings);
	audit_free(s->audit);
	free(s->policies);
	for (unsigned i = 0; s->unsent && i < s->n; i++)
		OPENSSL_clear_free(s->unsent[i].answer, s->unsent[i].len);
	free(s->unsent);
	OPENSSL_cleanse(s->serial_key, sizeof(s->serial_key));
}

#define scoped_signer __attribute__((cleanup(signer_free))) struct signer

static bool uses_token(const struct config *cfg)
{
	for (unsigned i = 0; i < cfg->n_certkeys; i++) {
		if (cfg->certkeys[i]->forging && pkcs11_uri(cfg->certkeys[i]->key_file))
			return true;
	}
	return false;
}

int signer_run(struct config *cfg, const int *fds, unsigned n, int ready_fd, int stop_fd,
	       const struct signer_memory *memory)
{
	scoped_signer s = {.epoll = -1, .fds = fds, .n = n, .memory = *memory};

	log_open("ktlsgated[signer]", cfg->log_level);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* a limit on files ends a line of the audit log, not us */
	(void)!nice(NICE);
	if (keep_descriptors(fds, n, ready_fd, stop_fd) < 0 || sandbox_forbid_dumps() < 0)
		return EXIT_FAILURE;
	if (config_load_keys(cfg, CFG_KEYS_FORGING, stderr) < 0)
		return EXIT_FAILURE;
	provider_use();
	if (prepare(&s, cfg) < 0 || watch(&s, stop_fd) < 0)
		return EXIT_FAILURE;
	if (cfg->audit_log &&
	    audit_open(cfg->audit_log, cfg->audit_sync == AUDIT_SYNC_EACH, &s.audit) < 0)
		return EXIT_FAILURE;
	lock_memory();
	if (sandbox_drop_privileges(config_user(cfg, cfg->signer_user), uses_token(cfg)) < 0 ||
	    rehearse(&s) < 0 || sandbox_signer(uses_token(cfg)) < 0)
		return EXIT_FAILURE;
	publish(&s);
	if (write(ready_fd, "", 1) != 1) {
		log_error("the supervisor is gone: %s", strerror(errno));
		return EXIT_FAILURE;
	}
	close(ready_fd);
	return serve(&s) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* What the supervisor had open is no business of ours: sockets, maps, the other workers' ends. */
static int keep_descriptors(const int *fds, unsigned n, int ready_fd, int stop_fd)
{
	scoped_mem int *keep = calloc(n + 2, sizeof(*keep));
	int r;

	if (!keep)
		return -ENOMEM;
	memcpy(keep, fds, n * sizeof(*keep));
	keep[n] = ready_fd;
	keep[n + 1] = stop_fd;
	r = sandbox_keep_only(keep, n + 2);
	if (r < 0)
		log_error("cannot close inherited descriptors: %s", strerror(-r));
	return r;
}

static int prepare(struct signer *s, const struct config *cfg)
{
	s->cfg = cfg;
	/* A handshake is over when timeout.handshake is, and began with a value up to an epoch old.
	 */
	s->window = (cfg->handshake_timeout * 1000ull + REPLAY_EPOCH_MS - 1) / REPLAY_EPOCH_MS + 1;
	replay_window(s->memory.seen, (unsigned)s->window);
	s->issuers = calloc(cfg->n_vservers + 1, sizeof(*s->issuers));
	s->forgings = calloc(cfg->n_profiles + 1, sizeof(*s->forgings));
	s->policies = calloc(cfg->n_certkeys + 1, sizeof(*s->policies));
	s->unsent = calloc(s->n, sizeof(*s->unsent));
	if (!s->issuers || !s->forgings || !s->unsent || !s->policies ||
	    RAND_priv_bytes(s->serial_key, sizeof(s->serial_key)) != 1) {
		log_error("cannot start: no memory or no randomness");
		return -ENOMEM;
	}
	for (unsigned i = 0; i < cfg->n_certkeys; i++)
		s->policies[i].cfg = &cfg->certkeys[i]->policy;
	for (; s->n_forgings < cfg->n_profiles; s->n_forgings++)
		if (!prepare_forging(s, &s->forgings[s->n_forgings], cfg->profiles[s->n_forgings]))
			return -EINVAL;
	for (; s->n_issuers < cfg->n_vservers; s->n_issuers++)
		if (!prepare_issuer(&s->issuers[s->n_issuers], cfg->vservers[s->n_issuers]))
			return -EINVAL;
	for (unsigned i = 0; i < cfg->n_profiles; i++)
		if (cfg->profiles[i]->session_tickets &&
		    s->token_life < cfg->profiles[i]->ticket_lifetime)
			s->token_life = cfg->profiles[i]->ticket_lifetime;
	return 0;
}

static bool prepare_ca(struct forge_ca *out, const struct cfg_certkey *ck)
{
	char why[FORGE_WHY_MAX];

	*out = (struct forge_ca){.cert = ck->cert,
				 .key = ck->pkey,
				 .chain = ck->chain,
				 .urls = {ck->ocsp, ck->ca_issuers, ck->crl}};
	if (!forge_ca_unfit(out, why))
		return true;
	log_error("certkey %s cannot be a forging CA: %s", ck->name, why);
	return false;
}

static bool prepare_forging(struct signer *s, struct forging *out, const struct cfg_profile *p)
{
	const struct cfg_list *list = &p->forging_certkeys;

	if (!p->dynamic_client_cert || !list->n)
		return true;
	out->policy = (struct forge_policy){.rules = p->forge.rules,
					    .lifespan = p->forge.lifespan ? p->forge.lifespan
									  : s->cfg->forge_lifespan,
					    .skew = SKEW};
	memcpy(out->policy.serial_key, s->serial_key, sizeof(s->serial_key));
	out->cas = calloc(list->n, sizeof(*out->cas));
	if (!out->cas) {
		log_error("cannot start: out of memory");
		return false;
	}
	for (; out->n_cas < list->n; out->n_cas++)
		if (!prepare_ca(&out->cas[out->n_cas], list->items[out->n_cas]))
			return false;
	return true;
}

/* Whatever certificate the server name chose, it is this vserver that the client signed for. */
static bool prepare_servers(struct issuer *out, const struct cfg_list *certkeys)
{
	out->server = ((const struct cfg_certkey *)certkeys->items[0])->cert;
	out->servers = calloc(certkeys->n, sizeof(*out->servers));
	for (; out->servers && out->n_servers < certkeys->n; out->n_servers++) {
		const struct cfg_certkey *ck = certkeys->items[out->n_servers];

		if (identity_fingerprint(ck->cert, out->servers[out->n_servers]))
			return false;
	}
	return out->servers;
}

static bool prepare_issuer(struct issuer *out, const struct cfg_vserver *v)
{
	struct verify_policy policy;

	out->vserver = v;
	if (!forges(v))
		return true;
	policy = config_policy(v->profile, &v->profile->client_revocation);
	out->verifier = verifier_new(v->profile->client_ca, &policy);
	if (out->verifier && prepare_servers(out, &v->certkeys))
		return true;
	log_error("cannot start: out of memory");
	return false;
}

static bool forges(const struct cfg_vserver *v)
{
	const struct cfg_profile *back = v->services.n ? cfg_service_at(v, 0)->profile : NULL;

	return v->certkeys.n && v->profile && v->profile->client_auth != CLIENT_AUTH_OFF &&
	       v->profile->client_ca && back && back->dynamic_client_cert &&
	       back->forging_certkeys.n;
}

static int watch(struct signer *s, int stop_fd)
{
	struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP};

	s->epoll = epoll_create1(EPOLL_CLOEXEC);
	for (unsigned i = 0; s->epoll >= 0 && i <= s->n; i++) {
		event.data.u32 = i; /* s->n stands for stop_fd */
		if (epoll_ctl(s->epoll, EPOLL_CTL_ADD, i < s->n ? s->fds[i] : stop_fd, &event) == 0)
			continue;
		log_error("cannot watch socket %u: %s", i, strerror(errno));
		return -EINVAL;
	}
	return s->epoll >= 0 ? 0 : -errno;
}

/*
 * The keys must not reach a swap device; what is not used yet need not be there. Only without a
 * limit: under one, the first growth of the locked stack or heap after the capability to lock is
 * gone would end the process.
 */
static void lock_memory(void)
{
	struct rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};

	if (setrlimit(RLIMIT_MEMLOCK, &limit) < 0)
		getrlimit(RLIMIT_MEMLOCK, &limit);
	if (limit.rlim_cur != RLIM_INFINITY || mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) < 0)
		log_warn("the forging keys can be swapped out; set LimitMEMLOCK=infinity");
}

static bool sign_and_verify(const struct forge_ca *ca)
{
	static const uint8_t text[] = "ktlsgate signer rehearsal";
	scoped_mdctx *sign = EVP_MD_CTX_new(), *check = EVP_MD_CTX_new();
	uint8_t sig[1024];
	size_t len = sizeof(sig);

	/* No digest named: the key's own choice, for Ed25519 none. */
	return sign && check && EVP_DigestSignInit(sign, NULL, NULL, NULL, ca->key) == 1 &&
	       EVP_DigestSign(sign, sig, &len, text, sizeof(text)) == 1 &&
	       EVP_DigestVerifyInit(check, NULL, NULL, NULL, X509_get0_pubkey(ca->cert)) == 1 &&
	       EVP_DigestVerify(check, sig, len, text, sizeof(text)) == 1;
}

static int rehearse_cas(struct signer *s)
{
	char why[128];

	for (unsigned i = 0; i < s->n_forgings; i++) {
		for (unsigned c = 0; c < s->forgings[i].n_cas; c++) {
			if (sign_and_verify(&s->forgings[i].cas[c]))
				continue;
			log_error("profile %s: forging key %u does not sign: %s",
				  s->cfg->profiles[i]->name, c + 1, log_openssl(why, sizeof(why)));
			return -EKEYREJECTED;
		}
	}
	return 0;
}

/* Each key works, and what libraries load at first use is there before the filter. */
static int rehearse(struct signer *s)
{
	struct verify_result ignored;
	unsigned forging = 0;
	int ret;

	tzset();
	ret = rehearse_cas(s);
	for (unsigned i = 0; !ret && i < s->n_issuers; i++) {
		const struct issuer *is = &s->issuers[i];

		if (!is->verifier)
			continue;
		if (verify_chain(is->verifier, VERIFY_CLIENT, is->server, NULL, time(NULL),
				 &ignored) == 0)
			sk_X509_pop_free(ignored.chain, X509_free);
		forging++;
	}
	ERR_clear_error();
	log_debug("ready: %u of %u vservers forge", forging, s->n_issuers);
	return ret;
}

/* A new epoch's values, before that epoch is over. */
static void publish(struct signer *s)
{
	const struct signer_memory *m = &s->memory;
	uint64_t epoch = replay_epoch(m->seen);
	uint8_t value[FRESH_LEN];

	if (epoch == s->epoch)
		return;
	for (unsigned i = 0; i < s->n_issuers; i++) {
		const struct issuer *is = &s->issuers[i];
		const struct fresh_place place = {epoch, m->generation, is->vserver->name};

		/* Without memory the last one goes on for an epoch more. */
		if (is->verifier && !fresh_make(replay_secret(m->seen), &place, value))
			return;
		if (is->verifier)
			fresh_write(m->fresh, epoch, i, value);
	}
	fresh_publish(m->fresh, epoch);
	s->epoch = epoch;
}

static int serve(struct signer *s)
{
	struct epoll_event events[16];
	int n;

	for (;;) {
		n = epoll_wait(s->epoll, events, ARRAY_SIZE(events), REPLAY_EPOCH_MS);
		publish(s);
		if (n < 0 && errno != EINTR) {
			log_error("epoll_wait: %s", strerror(errno));
			return -errno;
		}
		for (int i = 0; i < n; i++) {
			if (events[i].data.u32 == s->n)
				return 0;
			answer(s, events[i].data.u32, events[i].events & HUNG_UP);
		}
	}
}

static void wait_for(struct signer *s, unsigned worker, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.u32 = worker};

	epoll_ctl(s->epoll, EPOLL_CTL_MOD, s->fds[worker], &event);
}

/*
 * A worker in a burst asks more than it reads. The answer it has no room for is
 * kept, and nothing more is taken from it before: a lost answer is a lost flow.
 */
static void send_answer(struct signer *s, unsigned worker, const uint8_t *answer, size_t len)
{
	struct unsent *u = &s->unsent[worker];

	if (send(s->fds[worker], answer, len, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
		return;
	if (errno == EAGAIN)
		u->answer = OPENSSL_malloc(len);
	if (!u->answer) {
		log_warn("an answer to worker %u is lost: %s", worker, strerror(errno));
		return;
	}
	memcpy(u->answer, answer, len);
	u->len = len;
	wait_for(s, worker, EPOLLOUT);
}

static void send_unsent(struct signer *s, unsigned worker)
{
	struct unsent *u = &s->unsent[worker];
	uint8_t *answer = TAKE_PTR(u->answer);
	size_t len = u->len;

	wait_for(s, worker, EPOLLIN | EPOLLRDHUP);
	send_answer(s, worker, answer, len);
	OPENSSL_clear_free(answer, len);
}

/* One message: level-triggered epoll gives every worker its turn. */
static void answer(struct signer *s, unsigned worker, bool hung_up)
{
	_Alignas(struct signer_response) uint8_t in[SIGNER_MESSAGE_MAX], out[SIGNER_MESSAGE_MAX];
	struct signer_response *r = (struct signer_response *)out;
	scoped_x509 *cert = NULL;
	scoped_pkey *key = NULL;
	struct request req;
	struct verdict v = {.status = SIGNER_BAD_REQUEST};
	ssize_t got;

	if (s->unsent[worker].answer) {
		send_unsent(s, worker);
		return;
	}
	got = recv(s->fds[worker], in, sizeof(in), MSG_DONTWAIT | MSG_TRUNC);
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	/* An empty message reads like the end; only the latter comes with a hang-up. */
	if (got < 0 || (got == 0 && hung_up)) {
		log_warn("worker %u closed its socket to the signer", worker);
		epoll_ctl(s->epoll, EPOLL_CTL_DEL, s->fds[worker], NULL);
		return;
	}
	*r = (struct signer_response){0};
	if (signer_parse_request(in, (size_t)got, &req))
		v = signer_decide(s, &req, time(NULL), r, &key, &cert);
	ERR_clear_error();
	r->id = req.head.id;
	r->status = v.status;
	r->detail = v.detail;
	if (cert && !append_issued(r, &req, key, cert, sizeof(out) - RESPONSE_HEAD))
		*r = (struct signer_response){.id = req.head.id, .status = SIGNER_BAD_REQUEST};
	log_verdict(s, worker, &req, r, cert);
	send_answer(s, worker, out, RESPONSE_HEAD + r->key_len + r->cert_len);
	OPENSSL_cleanse(r->data, NEW_KEY_SCALAR_LEN);
}

/* The certificate, behind its key if that was made here. False: it does not fit. */
static bool append_issued(struct signer_response *r, const struct request *req, const EVP_PKEY *key,
			  X509 *cert, size_t space)
{
	size_t key_len = req->head.key_len ? 0 : NEW_KEY_SCALAR_LEN;
	uint8_t *p = r->data + key_len;
	int len = i2d_X509(cert, NULL);

	if (len <= 0 || key_len + (size_t)len > space || (key_len && !new_key_scalar(key, r->data)))
		return false;
	r->key_len = (uint32_t)key_len;
	r->cert_len = (uint32_t)i2d_X509(cert, &p);
	return true;
}

static void log_verdict(const struct signer *s, unsigned worker, const struct request *req,
			const struct signer_response *r, X509 *cert)
{
	const char *vserver = req->head.vserver < s->n_issuers
				      ? s->issuers[req->head.vserver].vserver->name
				      : "?";
	char text[256];

	if (r->status == SIGNER_OK) {
		identity_subject(X509_get_subject_name(cert), text, sizeof(text));
		log_debug("vserver %s, worker %u: issued for %s", vserver, worker, text);
		return;
	}
	signer_status_text(r, text, sizeof(text));
	log_info("vserver %s, worker %u: nothing issued: %s", vserver, worker, text);
}
