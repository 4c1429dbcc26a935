/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The data process's main thread: answers what the supervisor hands over from the control socket,
 * each request with the connection that the answer goes to; see channel.h.
 */
#ifndef KTLSGATE_ANSWER_H
#define KTLSGATE_ANSWER_H

#include "flow/worker.h"

/* Of this thread and the workers the latter come first: whoever asks must not slow flows down. */
int answer_yield(void) must_check;
/* Returns when the channel ends, or when it was to retire and its last flow has ended. */
void answer_run(struct gate *gate, int channel);

#endif
