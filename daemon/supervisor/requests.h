/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The requests of the control socket (control.h lists them): answered here from what
 * the supervisor knows, or by the data processes, the newest first and then
 * the older ones, until one says that it is done.
 */
#ifndef KTLSGATE_REQUESTS_H
#define KTLSGATE_REQUESTS_H

#include "supervisor/supervisor.h"

/* struct control's `request`; arg: the supervisor. */
void requests_take(void *arg, struct control_client *c);
/* Reads what g's data process has done with a request; false: there is nothing more to read now. */
bool requests_outcome(struct supervisor *s, struct generation *g);
/* g's data process is gone: what it was asked, the next one may know. */
void requests_lost(struct supervisor *s, const struct generation *g);

#endif
