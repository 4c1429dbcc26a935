/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The signer: the only process that holds forging CA keys. It is asked for
 * whole certificates over SOCK_SEQPACKET sockets (one per worker), verifies
 * the client's proof of possession and chain again itself, applies the issuing
 * policy and answers. It opens no file and no socket after it is ready.
 */
#ifndef KTLSGATE_SIGNER_H
#define KTLSGATE_SIGNER_H

#include "config/config.h"
#include "forge/forge.h"
#include "tls/fresh.h"
#include "signer/new_key.h"
#include "pki/ocsp.h"
#include "signer/replay.h"
#include "tls/ticket.h"
#include "tls/transcript.h"

#define SIGNER_MESSAGE_MAX (TRANSCRIPT_MAX + OCSP_RESPONSE_MAX + 4096)

/* Wire format; both ends are the same binary. */
struct signer_request {
	uint64_t id;	  /* the caller's, echoed */
	uint64_t flow;	  /* for the audit log only, like peer: nobody checks it */
	uint32_t vserver; /* index: names client_ca and the server's certificate */
	uint32_t service; /* index of one of the vserver's: names the rules and the forging CAs */
	uint32_t ca;	  /* index among the forging CAs of the service's profile */
	uint32_t key_len; /* DER SubjectPublicKeyInfo of the new key, RSA; 0: a P-256 key is to be
			     made */
	uint32_t signature_len; /* new_key_sign() with that key; 0 without one */
	uint32_t transcript_len;
	uint32_t ocsp_len; /* DER of an OCSP response about the client's certificate; 0: none */
	uint32_t resumed;  /* transcript is a ticket_proof() instead */
	uint16_t family;   /* of peer: AF_INET or AF_INET6 */
	uint16_t port;	   /* network byte order */
	uint8_t peer[16];
	uint8_t data[]; /* key, signature, transcript, OCSP response */
};

/* What a worker asks for. Everything is borrowed. */
struct signer_ask {
	unsigned vserver, service, ca;
	uint64_t flow;
	const struct sockaddr *peer; /* NULL: unknown */
	EVP_PKEY *key;		     /* the new one, RSA; NULL: the signer makes one, P-256 */
	const uint8_t *transcript;
	size_t transcript_len;
	bool resumed;	     /* transcript is a ticket_proof() instead */
	const uint8_t *ocsp; /* an OCSP response, or NULL */
	size_t ocsp_len;
};

enum signer_status {
	SIGNER_OK,
	SIGNER_BAD_REQUEST, /* malformed; unknown vserver, service or CA, or none that forges */
	SIGNER_NO_PROOF,    /* detail: enum transcript_error */
	SIGNER_CHAIN,	    /* detail: verify_result.error */
	SIGNER_RULE,	    /* detail: enum forge_error */
	SIGNER_REPLAY,	    /* this transcript was used before */
	SIGNER_AUDIT,	    /* the audit log could not be written */
	SIGNER_TOKEN,	    /* detail: enum signer_token */
	SIGNER_POLICY,	    /* detail: enum ca_refusal */
	SIGNER_RATE,	    /* the CA's rate is used up */
	SIGNER_STALE,	    /* detail: enum signer_stale */
	SIGNER_FULL,	    /* no room to remember that this transcript was used */
	SIGNER_KEY,	    /* nothing shows that the new key is the asker's */
	SIGNER_STATUSES
};

enum signer_token {
	TOKEN_INVALID,	/* not ours, too old, or for something else */
	TOKEN_EXHAUSTED /* good for no more certificates now */
};

/* What is wrong with the fresh value in a handshake. */
enum signer_stale {
	STALE_FOREIGN, /* none, or of another vserver or generation */
	STALE_OLD,
};

struct signer_response {
	uint64_t id;
	uint32_t status; /* enum signer_status */
	int32_t detail;
	uint32_t key_len;  /* NEW_KEY_SCALAR_LEN if the signer made the key, else 0 */
	uint32_t cert_len; /* DER of the forged certificate, when SIGNER_OK */
	bool has_token;	   /* of the client's identity, if the vserver gives session tickets */
	uint8_t token[TOKEN_LEN];
	uint8_t data[]; /* private key, certificate */
};

/* What outlives a signer. All borrowed. */
struct signer_memory {
	struct replay *seen; /* of all generations' signers, and nobody else's */
	struct fresh *fresh; /* of one generation; what is published for its workers */
	uint64_t generation;
};

/* "the client's chain was refused: certificate has expired" */
void signer_status_text(const struct signer_response *r, char *buf, size_t len);

/*
 * The signer's whole life, in its own process: loads the forging keys
 * (config_load_keys), hardens itself, writes one byte to ready_fd, serves
 * requests arriving on fds[0..n), returns only on a fatal error or when stop_fd
 * becomes readable. memory: the supervisor's, so that a signer's death does not make used
 * transcripts new. Closes every other descriptor but 0, 1, 2. Returns the exit status.
 */
int signer_run(struct config *cfg, const int *fds, unsigned n, int ready_fd, int stop_fd,
	       const struct signer_memory *memory) must_check;

/*
 * Serialises a request into buf (SIGNER_MESSAGE_MAX bytes). Returns the length,
 * -EMSGSIZE, or -EINVAL when OpenSSL cannot encode the key or sign with it.
 */
ssize_t signer_build_request(uint64_t id, const struct signer_ask *ask, uint8_t *buf) must_check;

/* Checks lengths; returns the response inside buf (aligned as by malloc) or NULL. Who has taken a
 * private key out wipes buf. */
const struct signer_response *signer_parse_response(const uint8_t *buf, size_t len);

#endif
