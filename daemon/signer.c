// SPDX-License-Identifier: Apache-2.0
/*
 * The signer process: a loop over the workers' sockets, and what a request must
 * prove before a certificate is issued. Knows no client and no backend, and
 * believes a worker nothing.
 */
#include <errno.h>
#include <netinet/in.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/rand.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include "audit.h"
#include "ca_policy.h"
#include "log.h"
#include "pkcs11.h"
#include "provider.h"
#include "sandbox.h"
#include "signer.h"
#include "timer.h"
#include "token.h"
#include "verify.h"

#define SKEW	      300 /* seconds a backend's clock may be behind ours */
#define RSA_MIN_BITS  2048
#define RSA_MAX_BITS  4096 /* a larger key only costs time */
#define KEY_MAX	      1024 /* DER of a public RSA key: one of 4096 bits has 550 bytes */
#define REQUEST_HEAD  offsetof(struct signer_request, data)
#define RESPONSE_HEAD offsetof(struct signer_response, data)
#define TOKEN_USES    8 /* in an epoch, beyond one for each worker */
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

/* What one vserver's clients are checked against. verifier NULL: it does not forge. */
struct issuer {
	const struct cfg_vserver *vserver;
	struct verifier *verifier;
	X509 *server; /* the first of the vserver's certificates; borrowed */
	uint8_t (*servers)[TRANSCRIPT_SERVER_LEN]; /* what each of them is known by */
	unsigned n_servers;
};

/* How is forged for the services of one profile. */
struct forging {
	struct forge_ca *cas;
	unsigned n_cas; /* 0: nothing is */
	struct forge_policy policy;
};

/* An answer that its worker had no room for; NULL: none. */
struct unsent {
	uint8_t *answer;
	size_t len;
};

struct signer {
	const struct config *cfg; /* borrowed */
	struct issuer *issuers;	  /* by vserver index */
	unsigned n_issuers;
	struct forging *forgings; /* by profile index */
	unsigned n_forgings;
	uint8_t serial_key[FORGE_SERIAL_KEY_LEN];
	struct audit *audit;	    /* NULL: off */
	struct ca_policy *policies; /* by certkey index */
	struct signer_memory memory;
	uint64_t epoch;	     /* published last */
	uint64_t window;     /* epochs: so old may a handshake be */
	unsigned token_life; /* seconds: the longest of all vservers' */
	int epoll;
	const int *fds;
	struct unsent *unsent; /* by worker */
	unsigned n;
};

struct verdict {
	enum signer_status status;
	int detail;
};

/* Who the client is, as far as it was proved to us. */
struct proof {
	X509 *leaf;
	STACK_OF(X509) * untrusted;
	uint8_t digest[TRANSCRIPT_DIGEST_LEN]; /* of the transcript, if it is one */
	uint64_t epoch;			       /* of the transcript */
	bool has_token;
	uint8_t token[TOKEN_LEN];
};

/* A request's parts, inside the message. */
struct request {
	const uint8_t *key, *signature, *transcript, *ocsp;
	struct signer_request head; /* last: it ends in data[] */
};

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
static void proof_free(struct proof *p)
{
	X509_free(p->leaf);
	sk_X509_pop_free(p->untrusted, X509_free);
}
#define scoped_proof __attribute__((cleanup(proof_free))) struct proof

#define scoped_signer __attribute__((cleanup(signer_free))) struct signer

static int keep_descriptors(const int *fds, unsigned n, int ready_fd, int stop_fd);
static int prepare(struct signer *s, const struct config *cfg);
static bool prepare_issuer(struct issuer *out, const struct cfg_vserver *v);
static bool prepare_forging(struct signer *s, struct forging *out, const struct cfg_profile *p);
static bool forges(const struct cfg_vserver *v);
static int watch(struct signer *s, int stop_fd);
static void lock_memory(void);
static int rehearse(struct signer *s);
static void publish(struct signer *s);
static int serve(struct signer *s);
static void answer(struct signer *s, unsigned worker, bool hung_up);
static bool parse_request(const uint8_t *message, size_t len, struct request *req);
static struct verdict decide(struct signer *s, const struct request *req, time_t now,
			     struct signer_response *out, EVP_PKEY **key, X509 **cert);
static EVP_PKEY *parse_key(const uint8_t *der, size_t len);
static struct verdict take_key(const struct request *req, EVP_PKEY **key);
static bool key_is_fit(EVP_PKEY *key);
static bool append_issued(struct signer_response *r, const struct request *req, const EVP_PKEY *key,
			  X509 *cert, size_t space);
static void log_verdict(const struct signer *s, unsigned worker, const struct request *req,
			const struct signer_response *r, X509 *cert);

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

static void put_peer(struct signer_request *head, const struct sockaddr *peer)
{
	if (peer && peer->sa_family == AF_INET6) {
		const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)peer;

		head->family = AF_INET6;
		head->port = in6->sin6_port;
		memcpy(head->peer, &in6->sin6_addr, sizeof(in6->sin6_addr));
	} else if (peer && peer->sa_family == AF_INET) {
		const struct sockaddr_in *in4 = (const struct sockaddr_in *)peer;

		head->family = AF_INET;
		head->port = in4->sin_port;
		memcpy(head->peer, &in4->sin_addr, sizeof(in4->sin_addr));
	}
}

/* The key and the proof that it is ours, at *p, which moves behind them. */
static int put_key(struct signer_request *head, const struct signer_ask *ask, uint8_t **p)
{
	const struct new_key_claim claim = {.vserver = ask->vserver,
					    .service = ask->service,
					    .ca = ask->ca,
					    .proof = ask->transcript,
					    .proof_len = ask->transcript_len};
	int len;

	if (!ask->key)
		return 0;
	len = i2d_PUBKEY(ask->key, NULL);
	if (len <= 0)
		return -EINVAL;
	if (len > KEY_MAX)
		return -EMSGSIZE;
	head->key_len = (uint32_t)i2d_PUBKEY(ask->key, p);
	head->signature_len = (uint32_t)new_key_sign(ask->key, &claim, *p);
	*p += head->signature_len;
	return head->signature_len ? 0 : -EINVAL;
}

ssize_t signer_build_request(uint64_t id, const struct signer_ask *ask, uint8_t *buf)
{
	struct signer_request head = {.id = id,
				      .flow = ask->flow,
				      .vserver = ask->vserver,
				      .service = ask->service,
				      .ca = ask->ca,
				      .resumed = ask->resumed,
				      .transcript_len = (uint32_t)ask->transcript_len,
				      .ocsp_len = (uint32_t)ask->ocsp_len};
	uint8_t *p = buf + REQUEST_HEAD;
	int ret;

	if (ask->transcript_len > TRANSCRIPT_MAX || ask->ocsp_len > OCSP_RESPONSE_MAX)
		return -EMSGSIZE;
	ret = put_key(&head, ask, &p);
	if (ret)
		return ret;
	put_peer(&head, ask->peer);
	memcpy(buf, &head, REQUEST_HEAD);
	memcpy(p, ask->transcript, ask->transcript_len);
	if (ask->ocsp_len)
		memcpy(p + ask->transcript_len, ask->ocsp, ask->ocsp_len);
	return p - buf + (ssize_t)(ask->transcript_len + ask->ocsp_len);
}

const struct signer_response *signer_parse_response(const uint8_t *buf, size_t len)
{
	const struct signer_response *r = (const struct signer_response *)buf;

	if (len < RESPONSE_HEAD || (uintptr_t)buf % _Alignof(struct signer_response))
		return NULL;
	if (r->status >= SIGNER_STATUSES ||
	    (uint64_t)r->key_len + r->cert_len != len - RESPONSE_HEAD ||
	    (r->cert_len != 0) != (r->status == SIGNER_OK))
		return NULL;
	if (r->key_len && (r->key_len != NEW_KEY_SCALAR_LEN || !r->cert_len))
		return NULL;
	return r;
}

void signer_status_text(const struct signer_response *r, char *buf, size_t len)
{
	switch (r->status) {
	case SIGNER_OK:
		snprintf(buf, len, "issued");
		return;
	case SIGNER_BAD_REQUEST:
		snprintf(buf, len, "the request to the signer was malformed");
		return;
	case SIGNER_NO_PROOF:
		snprintf(buf, len, "no proof of possession: %s",
			 transcript_error_text((enum transcript_error)r->detail));
		return;
	case SIGNER_CHAIN:
		snprintf(buf, len, "the client's chain was refused: %s",
			 verify_error_text(r->detail));
		return;
	case SIGNER_RULE:
		snprintf(buf, len, "the client's certificate cannot be forged: %s",
			 forge_error_text((enum forge_error)r->detail));
		return;
	case SIGNER_REPLAY:
		snprintf(buf, len, "the handshake was used for a certificate before");
		return;
	case SIGNER_POLICY:
		snprintf(buf, len, "%s", ca_refusal_text((enum ca_refusal)r->detail));
		return;
	case SIGNER_RATE:
		snprintf(buf, len, "policy.rate is used up");
		return;
	case SIGNER_AUDIT:
		snprintf(buf, len, "the audit log cannot be written");
		return;
	case SIGNER_TOKEN:
		snprintf(buf, len, "the identity token is %s",
			 r->detail == TOKEN_EXHAUSTED ? "used too often" : "not valid");
		return;
	case SIGNER_STALE:
		snprintf(buf, len, "the handshake %s",
			 r->detail == STALE_OLD
				 ? "is older than timeout.handshake"
				 : "holds no fresh value of the signer's for this vserver");
		return;
	case SIGNER_FULL:
		snprintf(buf, len, "too many certificates within timeout.handshake");
		return;
	case SIGNER_KEY:
		snprintf(buf, len, "the new key was not proved to be the asker's");
		return;
	default:
		snprintf(buf, len, "unknown answer %u of the signer", r->status);
	}
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
	if (parse_request(in, (size_t)got, &req))
		v = decide(s, &req, time(NULL), r, &key, &cert);
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

/* req->head is set, as far as it goes, even if the rest is malformed. */
static bool parse_request(const uint8_t *message, size_t len, struct request *req)
{
	struct signer_request *head = &req->head;

	*req = (struct request){.head.vserver = UINT32_MAX};
	if (len < REQUEST_HEAD)
		return false;
	memcpy(head, message, REQUEST_HEAD);
	if (len > SIGNER_MESSAGE_MAX || head->transcript_len > TRANSCRIPT_MAX ||
	    head->ocsp_len > OCSP_RESPONSE_MAX ||
	    (uint64_t)head->key_len + head->signature_len + head->transcript_len + head->ocsp_len !=
		    len - REQUEST_HEAD)
		return false;
	req->key = message + REQUEST_HEAD;
	req->signature = req->key + head->key_len;
	req->transcript = req->signature + head->signature_len;
	req->ocsp = req->transcript + head->transcript_len;
	return true;
}

static const struct cfg_service *find_service(const struct cfg_vserver *v, uint32_t index)
{
	for (unsigned i = 0; i < v->services.n; i++) {
		if (cfg_service_at(v, i)->index == index)
			return cfg_service_at(v, i);
	}
	return NULL;
}

/* Who may ask: a forging vserver, for a service of its own, with one of that service's CAs. */
static const struct forging *find_forging(const struct signer *s, const struct signer_request *head)
{
	const struct cfg_service *service;
	const struct forging *forging;

	if (head->vserver >= s->n_issuers || !s->issuers[head->vserver].verifier)
		return NULL;
	service = find_service(s->issuers[head->vserver].vserver, head->service);
	if (!service)
		return NULL;
	forging = &s->forgings[service->profile->index];
	return head->ca < forging->n_cas ? forging : NULL;
}

/* Of a request that find_forging() has found good. */
static const struct cfg_certkey *ca_of(const struct signer *s, const struct signer_request *head)
{
	const struct cfg_profile *profile = s->cfg->services[head->service]->profile;

	return profile->forging_certkeys.items[head->ca];
}

/* In the log before it is in anybody's hands. */
static int audit_issued(struct signer *s, const struct signer_request *head, X509 *original,
			X509 *forged)
{
	const struct cfg_service *service = s->cfg->services[head->service];
	const struct audit_entry entry = {
		.vserver = s->issuers[head->vserver].vserver,
		.service = service,
		.ca = ca_of(s, head),
		.flow = head->flow,
		.family = head->family,
		.port = head->port,
		.peer = head->peer,
		.original = original,
		.forged = forged,
	};

	return audit_write(s->audit, &entry);
}

/* What the worker found out; it is believed no more than what the responder has signed. */
static int ocsp_error(const struct issuer *is, const struct request *req, STACK_OF(X509) * chain,
		      time_t now)
{
	enum verify_revocation mode = is->vserver->profile->client_ocsp;
	enum ocsp_verdict verdict = OCSP_NO_ANSWER;
	const char *why;
	time_t until;

	if (mode != REVOCATION_OFF && req->head.ocsp_len && sk_X509_num(chain) > 1)
		verdict = ocsp_judge(req->ocsp, req->head.ocsp_len, sk_X509_value(chain, 0),
				     sk_X509_value(chain, 1), now, &until, &why);
	if (verdict == OCSP_REVOKED)
		return X509_V_ERR_CERT_REVOKED;
	return mode == REVOCATION_MANDATORY && verdict != OCSP_GOOD ? VERIFY_ERR_OCSP : X509_V_OK;
}

/* When and where the client signed: recently, and here. */
static struct verdict check_fresh(const struct signer *s, const struct issuer *is,
				  const uint8_t *value, uint64_t *epoch)
{
	struct fresh_place place = {.generation = s->memory.generation,
				    .vserver = is->vserver->name};

	if (!fresh_check(replay_secret(s->memory.seen), &place, value))
		return (struct verdict){SIGNER_STALE, STALE_FOREIGN};
	*epoch = place.epoch;
	if (replay_epoch(s->memory.seen) - place.epoch > s->window)
		return (struct verdict){SIGNER_STALE, STALE_OLD};
	return (struct verdict){SIGNER_OK, 0};
}

static struct verdict replay_verdict(enum replay_verdict v)
{
	static const enum signer_status statuses[] = {[REPLAY_NEW] = SIGNER_OK,
						      [REPLAY_SEEN] = SIGNER_REPLAY,
						      [REPLAY_FULL] = SIGNER_FULL};

	return (struct verdict){statuses[v], 0};
}

/* A handshake of its own, signed by the client, fresh, and not used before. */
static struct verdict prove_by_transcript(struct signer *s, const struct issuer *is,
					  const struct request *req, struct proof *out)
{
	uint8_t fresh[FRESH_LEN];
	enum transcript_error proof;
	struct verdict v;

	if (!transcript_digest(req->transcript, req->head.transcript_len, out->digest))
		return (struct verdict){SIGNER_NO_PROOF, TRANSCRIPT_MALFORMED};
	v = replay_verdict(replay_look(s->memory.seen, out->digest));
	if (v.status != SIGNER_OK)
		return v;
	proof = transcript_verify(req->transcript, req->head.transcript_len,
				  (const uint8_t(*)[TRANSCRIPT_SERVER_LEN])is->servers,
				  is->n_servers, &out->leaf, &out->untrusted, fresh);
	if (proof != TRANSCRIPT_OK)
		return (struct verdict){SIGNER_NO_PROOF, proof};
	return check_fresh(s, is, fresh, &out->epoch);
}

/* Whom a token is for. False: no memory. */
static bool token_claim(const struct signer *s, const struct cfg_vserver *v, X509 *leaf,
			struct token_claim *out)
{
	out->generation = s->memory.generation;
	out->vserver = v->name;
	return !identity_fingerprint(leaf, out->fingerprint);
}

static bool is_our_token(const struct signer *s, const struct token_claim *claim, time_t now,
			 const uint8_t *token)
{
	uint8_t keys[2][TOKEN_KEY_LEN];
	bool ours = replay_token_keys(s->memory.seen, s->token_life, keys) &&
		    (token_check(keys[0], claim, now, token) ||
		     token_check(keys[1], claim, now, token));

	OPENSSL_cleanse(keys, sizeof(keys));
	return ours;
}

/* Our own word that the client did so to this vserver, a while ago. */
static struct verdict prove_by_token(struct signer *s, const struct issuer *is,
				     const struct request *req, time_t now, struct proof *out)
{
	const struct cfg_vserver *v = is->vserver;
	struct token_claim claim;
	const uint8_t *token;

	if (!v->profile->session_tickets ||
	    !ticket_proof_read(req->transcript, req->head.transcript_len, &token, &out->leaf,
			       &out->untrusted) ||
	    !token_claim(s, v, out->leaf, &claim) || !is_our_token(s, &claim, now, token))
		return (struct verdict){SIGNER_TOKEN, TOKEN_INVALID};
	/* As it is: to resume does not make the proof any younger. */
	memcpy(out->token, token, TOKEN_LEN);
	out->has_token = true;
	return (struct verdict){SIGNER_OK, 0};
}

static void give_token(struct signer *s, const struct cfg_vserver *v, time_t now,
		       struct proof *proof)
{
	uint8_t keys[2][TOKEN_KEY_LEN];
	struct token_claim claim;

	if (proof->has_token || !v->profile->session_tickets)
		return;
	proof->has_token = token_claim(s, v, proof->leaf, &claim) &&
			   replay_token_keys(s->memory.seen, s->token_life, keys) &&
			   token_make(keys[0], &claim, now + (time_t)v->profile->ticket_lifetime,
				      proof->token);
	OPENSSL_cleanse(keys, sizeof(keys));
}

/* What a token was used for: the nth time in an epoch, for a service, a CA and a kind of key. */
static bool token_use(const struct signer_request *head, const uint8_t *token, uint64_t epoch,
		      unsigned n, uint8_t out[REPLAY_DIGEST_LEN])
{
	struct {
		char label[24];
		uint64_t epoch;
		uint32_t service, ca, rsa, n;
		uint8_t token[TOKEN_LEN];
	} text = {.label = "ktlsgate token use",
		  .epoch = epoch,
		  .service = head->service,
		  .ca = head->ca,
		  .rsa = head->key_len != 0,
		  .n = n};

	memcpy(text.token, token, TOKEN_LEN);
	return EVP_Digest(&text, sizeof(text), out, NULL, EVP_sha256(), NULL) == 1;
}

/*
 * A token is for as many certificates as it takes, but not for a storm: what has been issued is in
 * the workers' cache. Each of them may miss it there once at the same time.
 */
static struct verdict take_token(struct signer *s, const struct request *req, const uint8_t *token)
{
	uint64_t epoch = replay_epoch(s->memory.seen);
	uint8_t digest[REPLAY_DIGEST_LEN];

	for (unsigned n = 0; n < s->n + TOKEN_USES; n++) {
		enum replay_verdict v;

		if (!token_use(&req->head, token, epoch, n, digest))
			return (struct verdict){SIGNER_RULE, FORGE_MEMORY};
		v = replay_add(s->memory.seen, digest, epoch);
		if (v != REPLAY_SEEN)
			return replay_verdict(v);
	}
	return (struct verdict){SIGNER_TOKEN, TOKEN_EXHAUSTED};
}

static struct verdict take_place(struct signer *s, const struct request *req,
				 const struct proof *proof)
{
	if (req->head.resumed)
		return take_token(s, req, proof->token);
	return replay_verdict(replay_add(s->memory.seen, proof->digest, proof->epoch));
}

/* out: only the token is set */
static struct verdict decide(struct signer *s, const struct request *req, time_t now,
			     struct signer_response *out, EVP_PKEY **key, X509 **cert)
{
	scoped_proof proof = {0};
	scoped_certs *chain = NULL;
	scoped_identity *id = NULL;
	struct verify_result chain_verdict;
	const struct forging *forging = find_forging(s, &req->head);
	const struct cfg_certkey *ca;
	const struct issuer *is;
	struct forge_policy policy;
	enum ca_refusal refusal;
	enum forge_error forged;
	struct verdict v;
	int revoked;

	if (!forging)
		return (struct verdict){SIGNER_BAD_REQUEST, 0};
	is = &s->issuers[req->head.vserver];
	v = take_key(req, key);
	if (v.status != SIGNER_OK)
		return v;

	v = req->head.resumed ? prove_by_token(s, is, req, now, &proof)
			      : prove_by_transcript(s, is, req, &proof);
	if (v.status != SIGNER_OK)
		return v;
	if (verify_chain(is->verifier, VERIFY_CLIENT, proof.leaf, proof.untrusted, now,
			 &chain_verdict) < 0)
		return (struct verdict){SIGNER_CHAIN, chain_verdict.error};
	chain = chain_verdict.chain;
	revoked = ocsp_error(is, req, chain, now);
	if (revoked != X509_V_OK)
		return (struct verdict){SIGNER_CHAIN, revoked};
	id = identity_new(chain);
	if (!id)
		return (struct verdict){SIGNER_RULE, FORGE_MEMORY};
	TAKE_PTR(chain);

	ca = ca_of(s, &req->head);
	refusal = ca_policy_check(&s->policies[ca->index], id);
	if (refusal != CA_MAY)
		return (struct verdict){SIGNER_POLICY, refusal};

	policy = forging->policy;
	if (ca->policy.lifespan && ca->policy.lifespan < policy.lifespan)
		policy.lifespan = ca->policy.lifespan;
	forged = forge_certificate(&forging->cas[req->head.ca], id, *key, &policy, now, NULL, cert);
	OPENSSL_cleanse(&policy, sizeof(policy));
	if (forged != FORGE_OK)
		return (struct verdict){SIGNER_RULE, forged};
	/* Last: what is refused for another reason uses nothing up. */
	if (!ca_policy_take(&s->policies[ca->index], timer_clock())) {
		X509_free(TAKE_PTR(*cert));
		return (struct verdict){SIGNER_RATE, 0};
	}
	/* Here at last it takes a place: what is refused for another reason takes none. */
	v = take_place(s, req, &proof);
	if (v.status != SIGNER_OK) {
		X509_free(TAKE_PTR(*cert));
		return v;
	}
	if (s->audit && audit_issued(s, &req->head, id->leaf, *cert) < 0) {
		X509_free(TAKE_PTR(*cert));
		return (struct verdict){SIGNER_AUDIT, 0};
	}
	give_token(s, is->vserver, now, &proof);
	out->has_token = proof.has_token;
	memcpy(out->token, proof.token, TOKEN_LEN);
	return (struct verdict){SIGNER_OK, 0};
}

/* Made here, or proved to be the asker's: never anybody else's. */
static struct verdict take_key(const struct request *req, EVP_PKEY **key)
{
	const struct signer_request *head = &req->head;
	const struct new_key_claim claim = {.vserver = head->vserver,
					    .service = head->service,
					    .ca = head->ca,
					    .proof = req->transcript,
					    .proof_len = head->transcript_len};

	if (!head->key_len && !head->signature_len)
		*key = EVP_EC_gen("P-256");
	else
		*key = parse_key(req->key, head->key_len);
	if (!*key)
		return (struct verdict){SIGNER_BAD_REQUEST, 0};
	if (head->key_len && !new_key_verify(*key, &claim, req->signature, head->signature_len))
		return (struct verdict){SIGNER_KEY, 0};
	return (struct verdict){SIGNER_OK, 0};
}

/* NULL unless der is exactly one public key of a kind that an asker may bring. */
static EVP_PKEY *parse_key(const uint8_t *der, size_t len)
{
	const uint8_t *p = der;
	scoped_pkey *key = d2i_PUBKEY(NULL, &p, (long)len);

	if (!key || p != der + len || !key_is_fit(key))
		return NULL;
	return TAKE_PTR(key);
}

static bool key_is_fit(EVP_PKEY *key)
{
	scoped_pkey_ctx *ctx = NULL;
	int bits = EVP_PKEY_get_bits(key);

	if (!EVP_PKEY_is_a(key, "RSA") || bits < RSA_MIN_BITS || bits > RSA_MAX_BITS)
		return false;
	ctx = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);
	return ctx && EVP_PKEY_public_check_quick(ctx) == 1;
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
