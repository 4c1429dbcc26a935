/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this kernel's TLS can do, found by trying on loopback sockets and never by version number:
 * for the daemon, which takes the engine from it, and for ktlsgate-probe. Knows no flow.
 */
#ifndef KTLSGATE_KTLS_PROBE_H
#define KTLSGATE_KTLS_PROBE_H

#include "tls/keys.h"

struct ktls_caps {
	int error;	    /* 0: kernel TLS works; else the errno of the first refusal */
	uint8_t ciphers[2]; /* bit per enum tls_cipher that works in both directions; [0] TLS 1.2,
			       [1] TLS 1.3 */
	bool rekey;	    /* KeyUpdate: TLS_TX and TLS_RX can be set again */
	bool control;	    /* records that are not data come with their type; without: error */
	bool refill;	    /* splice into a pipe that is not empty loses nothing: only told by -V,
			       the relay never does it */
};

void ktls_probe(struct ktls_caps *caps);

/* ---- one by one ---- */

struct ktls_answer {
	int error; /* 0: yes; else an errno */
	char why[160];
};

struct ktls_answer ktls_try_ulp(void);
/* Only whether the kernel takes keys for this direction, TLS_TX (tx) or TLS_RX. */
struct ktls_answer ktls_try_keys(bool tx, uint16_t version, enum tls_cipher cipher);
/* A few bytes through a pair: what was taken must also work. */
struct ktls_answer ktls_try_cipher(uint16_t version, enum tls_cipher cipher);
struct ktls_answer ktls_try_rekey(void);
struct ktls_answer ktls_try_control_records(void);
struct ktls_answer ktls_try_refill(void);
/*
 * Is a record's header read right of which TCP received a part twice, in segments that overlap
 * (retransmissions can be cut in another way than what they repeat)? Kernels with the flaw look at
 * bytes of both segments, the repeated ones among them: the stream then ends with EINVAL, EMSGSIZE
 * or EBADMSG, or stalls; no wrong byte is given out (net/tls/tls_strp.c, tls_strp_read_sock). Needs
 * CAP_NET_ADMIN for TCP_REPAIR; EPERM without.
 */
struct ktls_answer ktls_try_overlap(void);
struct ktls_answer ktls_try_no_pad(void);
struct ktls_answer ktls_try_max_payload(void);

#endif
