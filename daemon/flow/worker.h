/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A worker: one thread with its own ring, listening sockets and flows. What
 * workers share is read-only, but for the caches of forged certificates and sessions.
 */
#ifndef KTLSGATE_WORKER_H
#define KTLSGATE_WORKER_H

#include "flow/gate.h"

/*
 * Starts the threads and sets up their rings; fails as a whole, and then the
 * process must end. They accept nothing before workers_go(): in between system
 * calls that are needed no more can be given up, for all threads.
 */
int workers_start(struct gate *gate) must_check;
void workers_go(struct gate *gate);
/* Stops accepting; flows go on. */
void workers_retire(struct gate *gate);
/* One more connection may come. */
bool workers_accepting(const struct gate *gate);
/* Stops accepting, ends all flows (bounded by timeout.drain), joins the threads. */
void workers_stop(struct gate *gate);
/* Runs run(worker, arg) in worker w's thread and waits for it. From other threads only. */
void worker_call(struct worker *w, void (*run)(struct worker *, void *), void *arg);

#endif
