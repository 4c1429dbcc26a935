/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which addresses are our own: where a vserver listens. A service there would connect the gate to
 * itself, each connection making the next.
 */
#ifndef KTLSGATE_OWN_H
#define KTLSGATE_OWN_H

#include "config/config.h"

/*
 * The vserver that takes a connection to the address (AF_INET or AF_INET6, with port), or NULL.
 * Where a vserver listens on any address or on a prefix, the kernel is asked (rtnetlink) whether it
 * delivers the address here; if it does not answer, the address counts as another machine's.
 */
const struct cfg_vserver *own_vserver(const struct config *cfg, const struct sockaddr *address);

#endif
