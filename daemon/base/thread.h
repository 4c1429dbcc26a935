/* SPDX-License-Identifier: Apache-2.0 */
/* A thread of a process that is about to give up most system calls. */
#ifndef KTLSGATE_THREAD_H
#define KTLSGATE_THREAD_H

#include <pthread.h>
#include "base/scoped.h"

/*
 * Starts run(arg) and waits until the thread is there, since what a thread does at its
 * start is forbidden afterwards. OpenSSL is what provider_use() makes of it. name: for the
 * log. Returns 0 or -errno, logged.
 */
int thread_start(pthread_t *thread, const char *name, void (*run)(void *arg), void *arg) must_check;

#endif
