/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process that the supervisor has executed: reads its brief and the configuration, and is from
 * then on the signer, the resolver, the data process, or the one that checks the configuration.
 */
#ifndef KTLSGATE_ROLE_H
#define KTLSGATE_ROLE_H

/*
 * The whole life of the process of this name ("signer", "resolver", "data", "check"), whose brief
 * is at descriptor brief. Returns the exit status.
 */
int role_run(const char *name, int brief);

#endif
