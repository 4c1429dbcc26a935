/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fresh values: what a signer publishes for each vserver in each epoch, and a client's signature
 * must cover. A worker puts the newest into each full handshake that asks for a certificate; so a
 * handshake tells the signer when it was, and with which vserver of which generation.
 *
 * The values are no secret: clients see them. What counts is that nobody but a signer knows them
 * before their time.
 */
#ifndef KTLSGATE_FRESH_H
#define KTLSGATE_FRESH_H

#include <stdbool.h>
#include <stdint.h>
#include "base/scoped.h"

#define FRESH_SECRET_LEN 32
#define FRESH_LEN	 24 /* the epoch, 8 bytes in network order, and 16 of an HMAC-SHA256 */

/*
 * Where it stands. In TLS 1.2 in front of the ServerHello's session_id, with 8 random bytes behind
 * it: a client may show that id again, and must not take the next ServerHello for a resumption. In
 * TLS 1.3 it is an extension of the CertificateRequest, which clients ignore (RFC 8446 section
 * 4.3.2), of a number that RFC 8447 leaves for private use.
 */
#define FRESH_SESSION_ID_LEN 32
#define FRESH_EXTENSION	     0xff4b

/* Where and when a value is for. */
struct fresh_place {
	uint64_t epoch;
	uint64_t generation;
	const char *vserver; /* its name */
};

/* False: out of memory. */
bool fresh_make(const uint8_t secret[FRESH_SECRET_LEN], const struct fresh_place *place,
		uint8_t out[FRESH_LEN]) must_check;
/* Is it ours, and for this vserver and generation? place->epoch is set from it. */
bool fresh_check(const uint8_t secret[FRESH_SECRET_LEN], struct fresh_place *place,
		 const uint8_t value[FRESH_LEN]) must_check;

/*
 * The newest values of one generation, by vserver. The signer writes and never reads them; the
 * data process reads. Neither ever waits, whatever becomes of the other.
 */
struct fresh;

/* Makes the memory. A descriptor, or -errno. */
int fresh_new(unsigned n_vservers) must_check;
/* fd stays the caller's. NULL: errno says why. */
const struct fresh *fresh_map(int fd, unsigned n_vservers) must_check;
struct fresh *fresh_map_writable(int fd, unsigned n_vservers) must_check;
void fresh_unmap(const struct fresh *f, unsigned n_vservers); /* NULL-safe */

/* The signer, for each epoch: first each vserver's value, then the epoch. */
void fresh_write(struct fresh *f, uint64_t epoch, unsigned vserver, const uint8_t value[FRESH_LEN]);
void fresh_publish(struct fresh *f, uint64_t epoch);
/* A worker: the newest published. All zero: nothing was. */
void fresh_read(const struct fresh *f, unsigned vserver, uint8_t out[FRESH_LEN]);

#endif
