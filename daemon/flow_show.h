/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a flow is shown: the names of its ends in log lines, the line of `ktlsgatectl flows`, and
 * that of the flow log.
 */
#ifndef KTLSGATE_FLOW_SHOW_H
#define KTLSGATE_FLOW_SHOW_H

#include "flow.h"

const char *flow_client_text(const struct flow *f, char buf[CFG_ADDRESS_TEXT]);
/* Of its service: the address or the name; "-": none was chosen yet. */
const char *flow_backend_text(const struct flow *f, char buf[CFG_ADDRESS_TEXT]);
const char *flow_service_name(const struct flow *f); /* "-": the same */

/* One line, tab-separated key=value. */
void flow_print(const struct flow *f, FILE *out);
/* A closed flow's line for log.flows, if there is one. */
void flow_log(const struct flow *f);

#endif
