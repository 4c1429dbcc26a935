// SPDX-License-Identifier: Apache-2.0
/*
 * A signer and its only worker: handshakes made beforehand are asked for, first as fast as they
 * are answered, then as they happen to come. Prints what each way has cost. Knows no gate; see
 * "signer" in tools/bench/bench.
 */
#include <fcntl.h>
#include <math.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <poll.h>
#include <glob.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include "base/provider.h"
#include "signer/signer.h"
#include "../../tests/unit/unit_tls.h"

#define OUTSTANDING 8 /* as many as a worker has on their way */
#define RSA_KEYS    10

struct request {
	uint8_t *bytes;
	size_t len;
	uint64_t due, took; /* ns; of "load" only */
};

static struct config *cfg;
static struct {
	pid_t pid;
	int fd, ready, stop;
} signer;
static struct signer_memory memory = {.generation = 1};
static struct party *clients;
static X509 *intermediate;
static size_t n_clients;

static uint64_t ns(clockid_t clock)
{
	struct timespec t;

	MUST(clock_gettime(clock, &t) == 0);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static uint64_t signer_ns(void)
{
	clockid_t clock;

	MUST(clock_getcpuclockid(signer.pid, &clock) == 0);
	return ns(clock);
}

/* ---- setting up ---- */

static void start_signer(void)
{
	int pair[2], ready[2], stop[2];
	char byte;

	memory.seen = replay_map(replay_make());
	memory.fresh = fresh_map_writable(fresh_new(cfg->n_vservers), cfg->n_vservers);
	MUST(memory.seen && memory.fresh);
	MUST(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0 && pipe(ready) == 0 &&
	     pipe(stop) == 0);
	signer.pid = fork();
	MUST(signer.pid >= 0);
	if (!signer.pid) {
		close(stop[1]);
		_exit(signer_run(cfg, &pair[1], 1, ready[1], stop[0], &memory));
	}
	close(pair[1]);
	close(ready[1]);
	close(stop[0]);
	signer.fd = pair[0];
	signer.stop = stop[1];
	MUST(read(ready[0], &byte, 1) == 1);
}

static void stop_signer(void)
{
	int status;

	close(signer.stop);
	MUST(waitpid(signer.pid, &status, 0) == signer.pid && status == 0);
}

/* x.pem, the chain behind the client's own, and x.key */
static struct party read_client(const char *name)
{
	struct party p;
	char path[512];
	FILE *f = fopen(name, "r");

	MUST(f);
	p.cert = PEM_read_X509(f, NULL, NULL, NULL);
	X509_free(intermediate);
	intermediate = PEM_read_X509(f, NULL, NULL, NULL);
	fclose(f);
	snprintf(path, sizeof(path), "%.*s.key", (int)(strlen(name) - strlen(".pem")), name);
	f = fopen(path, "r");
	MUST(f);
	p.key = PEM_read_PrivateKey(f, NULL, NULL, NULL);
	fclose(f);
	MUST(p.cert && intermediate && p.key);
	return p;
}

static void read_clients(const char *directory)
{
	char pattern[512];
	glob_t found;

	snprintf(pattern, sizeof(pattern), "%s/*.pem", directory);
	MUST(glob(pattern, 0, NULL, &found) == 0);
	clients = calloc(found.gl_pathc, sizeof(*clients));
	MUST(clients);
	for (; n_clients < found.gl_pathc; n_clients++)
		clients[n_clients] = read_client(found.gl_pathv[n_clients]);
	globfree(&found);
}

/* For the first vserver; the key is the signer's to make. */
static struct signer_ask ask_of(const struct transcript_copy *t)
{
	return (struct signer_ask){.service = cfg_service_at(cfg->vservers[0], 0)->index,
				   .transcript = t->bytes,
				   .transcript_len = t->len};
}

static struct request make_request(size_t i)
{
	static uint8_t buf[SIGNER_MESSAGE_MAX];
	static struct transcript_copy transcript;
	const struct cfg_certkey *web = cfg->vservers[0]->certkeys.items[0];
	struct party server = {web->pkey, web->cert};
	const struct fresh_source fresh = {memory.fresh, 0};
	struct handshake_case c = {.version = TLS1_3_VERSION,
				   .server = &server,
				   .client = &clients[i % n_clients],
				   .extra = intermediate,
				   .extras = 1,
				   .fresh = &fresh};
	struct request r = {0};
	struct signer_ask ask;
	ssize_t len;

	unit_handshake(&c, &transcript);
	MUST(transcript.done);
	ask = ask_of(&transcript);
	len = signer_build_request(i, &ask, buf);
	MUST(len > 0);
	r.len = (size_t)len;
	r.bytes = malloc(r.len);
	MUST(r.bytes);
	memcpy(r.bytes, buf, r.len);
	return r;
}

static struct request *make_requests(size_t n)
{
	struct request *requests = calloc(n, sizeof(*requests));

	MUST(requests);
	for (size_t i = 0; i < n; i++)
		requests[i] = make_request(i);
	return requests;
}

static void free_requests(struct request *requests, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(requests[i].bytes);
	free(requests);
}

/* ---- asking ---- */

static void send_request(const struct request *r)
{
	MUST(send(signer.fd, r->bytes, r->len, MSG_NOSIGNAL) == (ssize_t)r->len);
}

/* Which it was; what was asked for must have been issued. */
static size_t receive(void)
{
	static _Alignas(struct signer_response) uint8_t buf[SIGNER_MESSAGE_MAX];
	const struct signer_response *r;
	ssize_t n = recv(signer.fd, buf, sizeof(buf), 0);
	char text[256];

	MUST(n > 0);
	r = signer_parse_response(buf, (size_t)n);
	MUST(r);
	signer_status_text(r, text, sizeof(text));
	if (r->status != SIGNER_OK)
		printf("%s\n", text);
	MUST(r->status == SIGNER_OK);
	return (size_t)r->id;
}

/* As fast as it goes; returns wall time in ns. */
static uint64_t rush(const struct request *requests, size_t n)
{
	uint64_t began = ns(CLOCK_MONOTONIC), cpu = signer_ns();
	size_t sent = 0;

	for (size_t answered = 0; answered < n; answered++) {
		while (sent < n && sent - answered < OUTSTANDING)
			send_request(&requests[sent++]);
		receive();
	}
	began = ns(CLOCK_MONOTONIC) - began;
	printf("rush n %zu signer_ns %" PRIu64 " wall_ns %" PRIu64 "\n", n, signer_ns() - cpu,
	       began);
	return began;
}

static int by_size(const void *a, const void *b)
{
	const struct request *x = a, *y = b;

	return (x->took > y->took) - (x->took < y->took);
}

static bool answer_before(uint64_t due)
{
	uint64_t now = ns(CLOCK_MONOTONIC);
	struct timespec left = {0};
	struct pollfd p = {.fd = signer.fd, .events = POLLIN};

	if (due > now)
		left = (struct timespec){.tv_sec = (time_t)((due - now) / 1000000000),
					 .tv_nsec = (long)((due - now) % 1000000000)};
	return ppoll(&p, 1, due == UINT64_MAX ? NULL : &left, NULL) == 1;
}

/*
 * Independent of each other, with `gap` ns between two on average: waiting counts from when one
 * was due, even if it could not be sent by then.
 */
static void load(struct request *requests, size_t n, double gap, const char *name)
{
	double at = (double)ns(CLOCK_MONOTONIC);
	size_t sent = 0, answered = 0;

	srand48(1);
	for (size_t i = 0; i < n; i++)
		requests[i].due = (uint64_t)(at -= gap * log(1 - drand48()));
	while (answered < n) {
		bool full = sent == n || sent - answered == OUTSTANDING;

		if (answer_before(full ? UINT64_MAX : requests[sent].due)) {
			struct request *r = &requests[receive()];

			r->took = ns(CLOCK_MONOTONIC) - r->due;
			answered++;
		} else if (!full) {
			send_request(&requests[sent++]);
		}
	}
	qsort(requests, n, sizeof(*requests), by_size);
	printf("%s n %zu p50_ns %" PRIu64 " p99_ns %" PRIu64 "\n", name, n, requests[n / 2].took,
	       requests[n * 99 / 100].took);
}

/* ---- RSA keys, which the data process makes ---- */

static EVP_PKEY *rsa2048(void)
{
	return EVP_RSA_gen(2048);
}

static void make_keys(const char *name, EVP_PKEY *(*make)(void), size_t n)
{
	uint64_t began = ns(CLOCK_PROCESS_CPUTIME_ID);

	for (size_t i = 0; i < n; i++)
		EVP_PKEY_free(make());
	printf("%s n %zu cpu_ns %" PRIu64 "\n", name, n, ns(CLOCK_PROCESS_CPUTIME_ID) - began);
}

int main(int argc, char **argv)
{
	size_t n = argc == 4 ? strtoul(argv[3], NULL, 10) : 0;
	struct request *requests;
	double gap;

	if (!n) {
		fputs("usage: signer CONFIGURATION CLIENTS REQUESTS\n", stderr);
		return 2;
	}
	MUST(config_load(argv[1], stderr, &cfg) == 0);
	start_signer();
	MUST(config_load_keys(cfg, CFG_KEYS_SERVING, stderr) == 0);
	read_clients(argv[2]);
	requests = make_requests(n);
	gap = (double)rush(requests, n) / (double)n;
	free_requests(requests, n);
	requests = make_requests(n); /* a transcript is good for once */
	load(requests, n, gap * 2, "half");
	free_requests(requests, n);
	requests = make_requests(n);
	load(requests, n, gap * 1.25, "four_fifths");
	free_requests(requests, n);
	provider_use();
	make_keys("rsa2048", rsa2048, RSA_KEYS);
	stop_signer();
	return 0;
}
