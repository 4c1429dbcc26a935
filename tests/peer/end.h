/* SPDX-License-Identifier: Apache-2.0 */
/* One end of a flow: a socket and an SSL object that do what the plan says and note what they see.
 */
#ifndef PEER_END_H
#define PEER_END_H

#include <sys/queue.h>
#include <openssl/ssl.h>
#include "plan.h"

struct end;

struct flow {
	struct plan plan;
	struct seen seen[2];
	struct end *end[2]; /* while they live */
	bool met;	    /* the backend's end has read the number */
	bool over[2];
	bool wrong;
	EVP_MD_CTX *digest[2][2]; /* --bulk: by sending end; sent and received */
	uint64_t asked_at;	  /* ns: connected, later the newest ping; 0: nothing is timed */
};

enum end_state {
	END_CONNECTING,
	END_HANDSHAKE,
	END_OPEN,
	END_DRAINING, /* after our alert: nothing that comes is looked at */
};

/* What the ends of a run share. */
struct world {
	int epoll;
	uint64_t now;	   /* ms */
	uint64_t wake;	   /* ms: when some end is to be looked at, UINT64_MAX: never */
	uint64_t patience; /* ms without an end's progress before the flow is given up */
	bool told;	   /* WHEN_TOLD may close */
	bool hold;	   /* nothing but its number is sent by any end */
	uint64_t bytes;	   /* received and compared */
	unsigned quits;	   /* chance in 1000 that an end leaves in the middle of its handshake */
	uint64_t random;   /* state, for those */
	LIST_HEAD(, end) ends;
	/* The client's end of f has waited so long for the first byte of an answer. NULL: nobody
	 * asks. */
	void (*took)(const struct flow *f, uint64_t ns);
	/* A backend's end has read a number: its flow, or NULL. */
	struct flow *(*meet)(struct end *e, int64_t number);
	/* The end is over, and freed afterwards. trouble: it did not get as far as to be judged. */
	void (*finished)(struct end *e, const char *trouble);
};

struct end {
	struct world *world;
	struct flow *flow; /* NULL: a backend's that has not read the number */
	enum role role;
	enum end_state state;
	int fd;
	uint32_t interest; /* epoll's */
	SSL *ssl;
	struct end_plan *plan;
	uint64_t moved_at; /* ms */

	uint8_t *out; /* sealed, not yet accepted by the kernel */
	size_t out_off, out_len, out_size;
	uint64_t write_left;		  /* of the write under way */
	uint64_t read_sleep, write_sleep; /* ms: until when; 0: awake */
	bool stalled;			  /* the pause of stall_at is over, or under way */
	bool closed;			  /* our own end of the stream is sent */
	bool fin_sent;
	bool send_broken; /* a send said that the connection is gone */
	bool reset, eof;  /* what recv said */
	bool inject;	  /* reads get rubbish: OpenSSL then sends a fatal alert */
	size_t injected;
	uint64_t handshaken;	    /* bytes of the handshake, sent and received */
	uint64_t quit_at;	    /* of those; UINT64_MAX: it stays */
	int alert_in;		    /* level << 8 | description, -1: none */
	uint8_t number[NUMBER_LEN]; /* first bytes, while there is no flow */
	unsigned number_len;
	LIST_ENTRY(end) link;
};

/* Takes over fd and ssl. For a client's end the flow is known. */
struct end *end_new(struct world *w, enum role role, int fd, SSL *ssl, struct flow *flow);
/* Does whatever can be done now; may end in w->finished(). */
void end_run(struct end *e);
/* For SSL_CTX_set_info_callback(). */
void end_info(const SSL *ssl, int where, int value);
/* The world has been told: its patience begins anew, and stalled readers make haste. */
void end_told(struct end *e);
void end_set_buffers(int fd, const struct end_plan *plan);
int end_init(void);	  /* once */
uint64_t end_clock(void); /* ns */

extern const char end_impatient[], end_quits[]; /* troubles */

#endif
