/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a flow is shown: the names of its ends in log lines, the line of `ktlsgatectl flows`, and
 * that of the flow log.
 *
 * For `ktlsgatectl flows` a worker only copies what is shown, so many flows between two turns of
 * its loop; whoever asks makes text of it. Flows come and go meanwhile: each that is there all the
 * time is shown once, one that ends may be missing, and so is one that begins.
 */
#ifndef KTLSGATE_FLOW_SHOW_H
#define KTLSGATE_FLOW_SHOW_H

#include "flow/flow.h"

const char *flow_client_text(const struct flow *f, char buf[CFG_ADDRESS_TEXT]);
/* Of its service: the address or the name; "-": none was chosen yet. */
const char *flow_backend_text(const struct flow *f, char buf[CFG_ADDRESS_TEXT]);
const char *flow_service_name(const struct flow *f); /* "-": the same */

/* What is shown of a flow; it may be gone. The pointers are to the configuration. */
struct flow_shown {
	uint64_t id, age; /* ms */
	const struct cfg_vserver *vserver;
	const struct cfg_service *service;
	const char *engine;
	struct sockaddr_in6 peer, resolved;
	uint64_t from_client, from_backend; /* bytes */
	uint8_t stage, records[2];	    /* by side role */
	bool forged, fallback, identified;
	uint8_t fingerprint[8];
	char alpn[24];
};

/* A place among a worker's flows. In the worker's thread, as all that is done with it. */
struct flow_cursor {
	struct flow *next; /* NULL: there are no more */
	bool open;
	LIST_ENTRY(flow_cursor) link;
};
/* At most n that come next, and how many there are. It opens by itself; 0: it is closed. */
unsigned flow_cursor_copy(struct worker *w, struct flow_cursor *c, struct flow_shown *out,
			  unsigned n);
/* Also of one that is not open. */
void flow_cursor_close(struct flow_cursor *c);
/* The flow is leaving the list. */
void flow_cursors_skip(const struct worker *w, const struct flow *f);

/* One line, tab-separated key=value. */
void flow_print(const struct flow_shown *f, FILE *out);
/* A closed flow's line for log.flows, if there is one. */
void flow_log(const struct flow *f);

#endif
