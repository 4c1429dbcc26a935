/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The supervisor: opens what needs rights (BPF, sockets), starts the signer
 * and the data process, restarts what dies, and otherwise sits still. It never
 * loads a private key.
 */
#ifndef KTLSGATE_SUPERVISOR_H
#define KTLSGATE_SUPERVISOR_H

#include "config.h"

/* Runs until SIGTERM or SIGINT. Returns the exit status. */
int supervisor_run(struct config *cfg);

#endif
