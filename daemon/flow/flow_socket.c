// SPDX-License-Identifier: Apache-2.0
/* What each socket of a flow is set to before its handshake: options of TCP, and the kernel's TLS
 * layer. */
#include "flow/flow_internal.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include "flow/flow.h"

/* A backend there: no TCP, so no kernel TLS. */
bool flow_side_is_unix(const struct side *s)
{
	return s->role == SIDE_BACKEND && s->flow->service->address.ss.ss_family == AF_UNIX;
}

/*
 * At once, not at the hand-over: the kernel attaches the ULP to an established
 * connection only, and a peer may have sent its FIN by then. Without keys the
 * socket stays an ordinary TCP socket.
 */
void flow_socket_attach_ulp(struct side *s)
{
	const struct gate *gate = s->flow->worker->gate;

	s->ulp = gate->cfg->engine != ENGINE_USER && !gate->ktls.error && !flow_side_is_unix(s) &&
		 !ktls_attach(s);
}

#define KEEPALIVE_PROBES 4

/*
 * A peer may be gone without a word, or with a word that was lost: TCP ignores a
 * RST outside of the window, so behind data that was dropped for lack of memory.
 */
void flow_socket_tune(int fd, const struct config *cfg)
{
	int one = 1, probes = KEEPALIVE_PROBES, idle = (int)cfg->keepalive;
	int interval = idle < KEEPALIVE_PROBES ? 1 : idle / KEEPALIVE_PROBES;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	/* Else TCP takes bytes that the sender calls urgent out of the middle of a record. */
	setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &one, sizeof(one));
	if (!idle)
		return;
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
}
