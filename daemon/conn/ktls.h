/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kernel TLS sockets: installing keys, records that are not data, and the proof that all has
 * left. What this kernel can do at all is ktls_probe.h's.
 */
#ifndef KTLSGATE_KTLS_H
#define KTLSGATE_KTLS_H

#include <errno.h>
#include "tls/ktls_probe.h"
#include "conn/side.h"

static inline bool ktls_can(const struct ktls_caps *caps, uint16_t version, uint8_t cipher)
{
	return !caps->error && caps->ciphers[version == TLS_13] & (1u << cipher);
}

/*
 * Attaches the ULP to side->fd, which must be ESTABLISHED (net/tls/tls_main.c,
 * tls_init). -errno, with the socket unchanged, when the kernel refuses.
 * Without keys the socket goes on as an ordinary TCP socket.
 */
int ktls_attach(struct side *side) must_check;
/*
 * Installs both directions and begins the TX accounting. On -errno the socket goes on as an
 * ordinary TCP socket, unless side->keyed: then only ktls_send_record() can say a last word.
 */
int ktls_install(struct side *side, const struct tls_keys *rx,
		 const struct tls_keys *tx) must_check;

/* New keys for one direction after a KeyUpdate. 0 or -errno (-EBUSY: this kernel cannot). */
int ktls_rekey_rx(struct side *side, const struct tls_keys *rx) must_check;
int ktls_rekey_tx(struct side *side, const struct tls_keys *tx) must_check;

/*
 * After -EKEYEXPIRED, no KeyUpdate having come: the kernel (6.14 and later)
 * takes each handshake record that begins with a 24 for one and then waits for
 * new keys, but it was a part of a message. Gives it the old ones again.
 * 0 or -errno (-EBUSY: it is TLS 1.2, where the kernel waits in the same way and
 * takes none).
 */
int ktls_keep_rx(struct side *side) must_check;

/*
 * Takes one record of any type, or data; never waits. Returns its length with
 * *type set (0 at the end of the stream, and on a socket without keys), or -errno.
 */
ssize_t ktls_recv(struct side *side, void *buf, size_t len, uint8_t *type) must_check;
/*
 * When splice(2) or recv(2) has said 0: was it the end of the stream, or an
 * empty record? Only a record has a type. 1, 0 or -errno.
 */
int ktls_ended(struct side *side) must_check;
/* An errno that a received record leaves which cannot be opened, or is none. */
static inline bool ktls_is_bad_record(int error)
{
	return error == EBADMSG || error == EMSGSIZE || error == EINVAL;
}

/*
 * A bad record that came leaves its error on the socket (tls_err_abort), and sending reports it
 * too, though nothing is wrong with sending. True: error was such a one; it is in side->rx_error
 * now, for the reader, and the send can be tried again.
 */
bool ktls_take_receive_error(struct side *side, int error) must_check;

/*
 * The same where nothing more is sent. The kernel goes on with records that wait in the tx list
 * when TCP has room again (tls_write_space, tx_work_handler), but a receive error makes that fail,
 * once and for all: takes the error away and has it tried again. Nothing may be read afterwards.
 */
void ktls_resume_tx(struct side *side);

/* Sends one record of the given type; never waits. Returns 0 or -errno. */
int ktls_send_record(struct side *side, uint8_t type, const void *buf, size_t len) must_check;

/*
 * Has everything the TLS layer accepted been given to TCP? Encrypted records
 * can wait in the socket's tx list, which shutdown() and close() drop in
 * silence (net/tls/tls_sw.c, tls_sw_release_resources_tx) and SIOCOUTQ does
 * not see. So the bytes given to TCP (acked + queued) are compared with what
 * the accepted plaintext must have become: its length plus the overhead of as
 * many records as the kernel's own record sequence number tells. 1: yes, 0: not
 * yet, -EPIPE: never, the connection is gone.
 */
int ktls_tx_drained(struct side *side) must_check;

#endif
