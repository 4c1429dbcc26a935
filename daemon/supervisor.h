/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The supervisor: opens what needs rights (BPF, sockets), starts the processes
 * of a configuration and restarts what dies, reloads, and otherwise sits still.
 * It never loads a private key.
 */
#ifndef KTLSGATE_SUPERVISOR_H
#define KTLSGATE_SUPERVISOR_H

/*
 * Runs with the configuration of path until SIGTERM or SIGINT; SIGHUP reads it
 * again. Returns the exit status.
 */
int supervisor_run(const char *path);

#endif
