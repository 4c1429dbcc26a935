/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Says in time that a CRL in use is about to expire: once when the last tenth of
 * its time begins, once when it has ended. Without keys or state but the time up to
 * which all has been said.
 */
#ifndef KTLSGATE_EXPIRY_H
#define KTLSGATE_EXPIRY_H

#include <stdint.h>
#include "config/config.h"

struct expiry {
	time_t told; /* 0: nothing has been said about this configuration */
};

/* What poll(2) shall wait at most, ms; -1: for ever. */
int expiry_wait(const struct expiry *e, const struct config *cfg);
/* After each poll(2). */
void expiry_turn(struct expiry *e, const struct config *cfg);

/* The first nextUpdate of the CRLs that are looked at, seconds since the epoch; 0: there is none.
 */
uint64_t expiry_first(const struct config *cfg) must_check;

#endif
