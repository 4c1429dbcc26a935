/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the signers of all generations share, and no other process maps: a secret, the keys of
 * identity tokens, and the digests of the handshakes that certificates were issued for. It outlives
 * a signer that dies; several may use it at once.
 *
 * Time is counted in epochs. A digest stays until its epoch has left the window, and is never
 * pushed out by others: when there is no room, nothing is taken.
 */
#ifndef KTLSGATE_REPLAY_H
#define KTLSGATE_REPLAY_H

#include <stdbool.h>
#include <stdint.h>
#include "base/scoped.h"

#define REPLAY_DIGEST_LEN 32
#define REPLAY_SECRET_LEN 32
#define REPLAY_EPOCH_MS	  5000
/*
 * Handshakes of one window. A signer makes 2,000 certificates a second; with the default
 * timeout.handshake of 120 s this is room for 4,194 a second. 40 bytes each, taken as they come.
 */
#define REPLAY_ENTRIES 524288

struct replay;

/* Makes the memory; a descriptor for the signers, or -errno. */
int replay_make(void) must_check;
/* fd stays the caller's. NULL: errno says why. */
struct replay *replay_map(int fd) must_check;
void replay_free(struct replay *r); /* what is in the memory lives on; NULL-safe */

/* A secret of all processes that share it, of REPLAY_SECRET_LEN bytes. */
const uint8_t *replay_secret(const struct replay *r);
/* Keys for tokens that are good for at most `period` seconds: one to make them with, and the one
 * before. False: no randomness. */
bool replay_token_keys(struct replay *r, unsigned period,
		       uint8_t keys[2][REPLAY_SECRET_LEN]) must_check;

/* Of now. Never goes back, and goes on while the machine sleeps; where it begins is random. */
uint64_t replay_epoch(const struct replay *r);
/* Digests are kept for at least so many epochs behind their own. It only ever grows. */
void replay_window(struct replay *r, unsigned epochs);

enum replay_verdict {
	REPLAY_NEW,
	REPLAY_SEEN, /* it is in the set */
	REPLAY_FULL, /* it is not, and there is no room */
};
enum replay_verdict replay_look(struct replay *r, const uint8_t digest[REPLAY_DIGEST_LEN]);
/* REPLAY_NEW: it is in the set now. epoch: of the window. */
enum replay_verdict replay_add(struct replay *r, const uint8_t digest[REPLAY_DIGEST_LEN],
			       uint64_t epoch) must_check;

#endif
