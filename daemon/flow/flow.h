/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A flow: one client connection and its backend connection, from accept to
 * close. flow.c is the only writer of the stage and the only place that closes.
 */
#ifndef KTLSGATE_FLOW_CORE_H
#define KTLSGATE_FLOW_CORE_H

#include <netinet/in.h>
#include "flow/offload.h"
#include "service/proxy.h"
#include "flow/gate.h"

/* In this order and never back. */
enum flow_stage {
	FLOW_STAGE_HANDSHAKE, /* both handshakes, interlocked; forging in between */
	FLOW_STAGE_RELAY,     /* keys installed, bytes move */
	FLOW_STAGE_CLOSING,   /* told why, drained, FIN sent */
	FLOW_STAGES
};

struct flow_handshake;
struct flowlog_wire;

/* Of the PROXY protocol: received in front of the client's handshake, or sent before the backend's.
 */
struct proxy_header {
	size_t have, sent;
	uint8_t bytes[PROXY_HEAD + PROXY_BODY_MAX];
};

struct flow {
	struct worker *worker;
	const struct cfg_vserver *vserver;
	const struct cfg_service *service; /* NULL: none was chosen yet */
	struct service *acquired;	   /* counts this flow's connection; NULL: there is none */
	bool early;			   /* it counts as begun before the client was verified */
	uint64_t id;
	LIST_ENTRY(flow) link;
	uint8_t stage;		      /* enum flow_stage */
	uint8_t reason;		      /* enum reason, from CLOSING on */
	bool forged;		      /* the backend was shown a forged certificate */
	bool fallback;		      /* or the fallback certificate */
	uint32_t tick;		      /* ms between looks at a closing flow */
	uint64_t accepted;	      /* ms */
	uint64_t since;		      /* ms: accepted; from CLOSING on: closed */
	struct flowlog_wire *wire;    /* of both sides once closed, for the flow log; or NULL */
	int16_t alert[2];	      /* CLOSING: to be told, by side role */
	uint8_t end[2];		      /* CLOSING: enum side_end, by side role */
	struct sockaddr_in6 peer;     /* the client; AF_INET fits too */
	struct sockaddr_in6 resolved; /* the backend, if its service has a name; AF_INET too */
	struct limits_share share;
	bool identified;	/* the client has a certificate */
	char alpn[24];		/* the protocol both sides speak, cut; or empty */
	uint8_t fingerprint[8]; /* of it, its first bytes */
	struct timer timer;	/* handshake deadline, closing tick */
	struct side client, backend;
	struct flow_handshake *hs;  /* HANDSHAKE only */
	struct proxy_header *proxy; /* while one is under way; outlives hs, the ring writes to it */
	struct reuse *
		reuse; /* until its session is stored, or will not be; NULL: session_reuse is off */
	struct relay relay; /* RELAY only */
};

/* Takes fd, a connection just accepted for vserver. */
void flow_accept(struct worker *w, const struct cfg_vserver *vserver, int fd);
/* One more client's handshake, if one waits for its turn; true: others still do. */
bool flows_begin(struct worker *w);
/* Ends every flow of the worker with REASON_shutdown. */
void flows_shutdown(struct worker *w);
/* Which worker has the flow of this id. */
static inline unsigned flow_worker(uint64_t id)
{
	return id >> 48 & 0xff;
}
/* What the supervisor says of a flow's sockets. */
void flow_records(struct worker *w, const struct offload_answer *answer);
/* Ends the flow of this id with REASON_killed; false: the worker has none. */
bool flow_kill(struct worker *w, uint64_t id);

#endif
