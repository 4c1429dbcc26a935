/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How configurations come into force, for the supervisor's loop.
 */
#ifndef KTLSGATE_RELOAD_H
#define KTLSGATE_RELOAD_H

#include "supervisor/supervisor.h"

/* ---- reload.c ---- */

void supervisor_tell_flows(struct supervisor *s);
void supervisor_drop(struct supervisor *s, struct generation *g);
void supervisor_add_sockets(struct steer *steer, const struct generation *g);
bool supervisor_all_alive(const struct supervisor *s);
void supervisor_tell_state(const struct supervisor *s, const char *also);
int supervisor_start(struct supervisor *s);

/* ---- supervisor.c ---- */

int supervisor_check_ktls(const struct supervisor *s, const struct config *cfg, FILE *errors);
void supervisor_open_count(struct supervisor *s, const struct config *cfg);
int supervisor_open_once(struct supervisor *s, const struct config *cfg);

#endif
