/* SPDX-License-Identifier: Apache-2.0 */
/* The data process: the clients' and the backends' connections, and the serving keys. */
#ifndef KTLSGATE_DATA_H
#define KTLSGATE_DATA_H

#include "process/brief.h"
#include "config/config.h"

/* Its whole life, with the descriptors and numbers of its brief. Returns the exit status. */
int data_run(const struct brief *b, struct config *cfg);

#endif
