/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files flow_*.c share: the state of the handshake stage, and the functions through which
 * a stage is entered from another one. Nobody else includes this.
 */
#ifndef KTLSGATE_FLOW_INTERNAL_H
#define KTLSGATE_FLOW_INTERNAL_H

#include <netinet/in.h>
#include "flow/flow.h"

#define RECONNECTS_MAX 3

/*
 * A handshake takes the CPU for as long as some 200 messages of established flows do, and when more
 * connect than can be served, all of them begun at once would be done too late for each. So a
 * client waits, without an SSL object, until it has said something and everything else that has
 * happened was looked at: established flows first, then handshakes that have begun, then one more.
 */
#define TURN_PATIENCE_MS 500

/* What only the handshake stage needs. */
struct flow_handshake {
	struct flow *flow;
	TAILQ_ENTRY(flow_handshake) turn;  /* while waiting */
	bool waiting;			   /* for its turn */
	uint64_t waiting_since;		   /* ms */
	TAILQ_ENTRY(flow_handshake) early; /* while listed */
	bool early_listed;		   /* in worker.early */
	bool awaits_early;	/* a client that waits for its protocol, see await_early() */
	bool hello_done;	/* its ClientHello was accepted */
	bool client_verified;	/* as far as OpenSSL and the policy go */
	bool client_done;	/* and all output is with TCP: `finished` alone does not say that */
	bool backend_suspended; /* at its CertificateRequest */
	bool backend_resumed;
	bool backend_asked;	 /* for a certificate */
	bool backend_given_none; /* though it asked */
	bool backend_trusted;	 /* not known to be revoked, as far as OCSP is asked */
	bool backend_done;
	struct sockaddr_in6
		local;	      /* where the client connected to, as a proxy told; or AF_UNSPEC */
	bool reconnect;	      /* as soon as the poll has come back */
	bool without_session; /* the backend failed on one */
	uint8_t reconnects;
	bool switching;		     /* to another service, as soon as nothing is armed */
	struct hello hello;	     /* ours to the backend */
	struct balance_tried tried;  /* services, the present one among them */
	unsigned address_turn;	     /* which of the addresses of its name */
	uint64_t suspended_at;	     /* ms */
	struct timer backend_timer;  /* connecting, handshaking, forging: one after the other */
	enum reason backend_timeout; /* what its expiry means */
	struct identity *identity;
	struct ocsp_wait ocsp_waits[2]; /* by enum side_role */
	struct ocsp_answer *ocsp;	/* of the client; NULL: not asked, or none that helps */
	struct forging forging;
	struct forging_ask ask;
	uint8_t *proof; /* of a client that resumed: see ticket.h */
	size_t proof_len;
	char detail[160]; /* for the log line */
};

struct flow_keys {
	struct tls_keys rx, tx;
};

static inline struct flow *flow_of(const struct handshake *hs)
{
	return hs->side->flow;
}

/* All services of a vserver agree. */
static inline const struct cfg_profile *flow_back_profile(const struct flow *f)
{
	return cfg_service_at(f->vserver, 0)->profile;
}

static inline bool flow_forges(const struct flow *f)
{
	return flow_back_profile(f)->dynamic_client_cert;
}

/* ---- flow.c ---- */

void flow_fail(struct flow *f, enum reason reason, const char *detail);
uint64_t flow_handshake_left(const struct flow *f);
void flow_client_deadline(struct flow *f, uint64_t ms);
void flow_hello_deadline(struct flow *f);
struct flow *flow_new(struct worker *w, const struct cfg_vserver *vserver, int fd);
void flow_proceed(struct flow *f);
void flow_handshake_free(struct flow *f);
void flow_free(struct flow *f);

/* ---- flow_turn.c ---- */

void flow_end_waiting(struct flow_handshake *h);
void flow_await_turn(struct flow_handshake *h);
struct flow_handshake *flow_next_turn(const struct worker *w);

/* ---- flow_socket.c ---- */

bool flow_side_is_unix(const struct side *s);
void flow_socket_attach_ulp(struct side *s);
void flow_socket_tune(int fd, const struct config *cfg);

/* ---- flow_client.c ---- */

void flow_client_expired(struct timer *t);
void flow_await_client(struct flow *f);
void flow_client_cert_absent(struct flow *f);
bool flow_give_ticket(struct flow *f);
void flow_release_client(struct flow *f);

/* ---- flow_proxy.c ---- */

void flow_await_proxy_header(struct flow *f);
void flow_send_proxy_header(struct flow *f);

/* ---- flow_service.c ---- */

bool flow_before_server_hello(const struct flow *f);
bool flow_choose_service(struct flow *f);
void flow_unlist_early(struct flow_handshake *h);
void flow_end_early(struct flow *f);
void flow_list_early(struct flow *f);
void flow_connect_service(struct flow *f);
void flow_connect_chosen(struct flow *f);
void flow_release_service(struct flow *f);
void flow_backend_unreachable(struct flow *f, enum reason reason, const char *detail);

/* ---- flow_backend.c ---- */

void flow_backend_expired(struct timer *t);
void flow_backend_deadline(struct flow *f, uint64_t ms, enum reason reason);
void flow_start_backend_handshake(struct flow *f);
void flow_connect_backend(struct flow *f);
void flow_connect_when_free(struct flow *f);
void flow_reconnect(struct flow *f);
void flow_client_known(struct flow *f);

/* ---- flow_revocation.c ---- */

void flow_ask_about_client(struct flow *f);
void flow_ask_about_backend(struct flow *f);

/* ---- flow_forge.c ---- */

void flow_answer_certificate_request(struct flow *f);

/* ---- flow_handover.c ---- */

const struct engine *flow_choose_engine(struct flow *f);
int flow_install(const struct engine *engine, struct side *s, const struct flow_keys *k);
void flow_side_ready(struct ring_op *op, int res);
void flow_side_poll(struct side *s);
void flow_tell_bpf(const struct flow *f);
void flow_forget_session(struct flow *f);
void flow_hand_over(struct flow *f);
void flow_relay_ended(struct relay *r, enum reason reason, int client_alert, int backend_alert);

/* ---- flow_close.c ---- */

void flow_close(struct flow *f, enum reason reason, int client_alert, int backend_alert,
		const char *detail);
const struct engine *flow_closing_engine(const struct flow *f);
void flow_closing_tick(struct timer *t);

#endif
