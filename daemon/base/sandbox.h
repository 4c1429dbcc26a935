/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a process gives up for good. Every function is called once, at start,
 * by a process that still has one thread.
 */
#ifndef KTLSGATE_SANDBOX_H
#define KTLSGATE_SANDBOX_H

#include <stdbool.h>

#include "base/scoped.h"

/*
 * Becomes user (NULL, or not started as root: stays who it is) without
 * supplementary groups, without any capability and without a way to gain
 * one, and does sandbox_forbid_dumps() again: a change of user undoes it.
 * Without files it gets an empty root directory, if we may change it.
 * Returns 0, or -errno after a log line.
 */
int sandbox_drop_privileges(const char *user, bool files) must_check;

/*
 * The supervisor gives up, for itself and all processes that it starts, what none of them needs:
 * tracing others, loading modules, mounting, namespaces, setting clocks, keyrings, restarting the
 * machine. Each such call fails with EPERM and is written to the kernel's audit log; calls of
 * another architecture kill. Returns as sandbox_signer().
 */
int sandbox_supervisor(void) must_check;

/*
 * No core dumps, and no ptrace or /proc/<pid>/mem for other processes of the
 * same user. Returns 0 or -errno.
 */
int sandbox_forbid_dumps(void) must_check;

/*
 * Closes every descriptor but 0, 1, 2 and keep[0..n), which is sorted in the
 * course. Returns 0 or -errno.
 */
int sandbox_keep_only(int *keep, unsigned n) must_check;

/*
 * No descriptor beyond those it has, and the signer's system calls and no
 * others: computing, memory that cannot be executed, messages. Anything else
 * kills the process. token: a key is in a token; then files that its user may
 * open, and UNIX sockets, are open to it, too. Returns 0, or -errno after a log line. Does nothing
 * but say so in a build with sanitizers.
 */
int sandbox_signer(bool token) must_check;

/*
 * The data process's system calls and no others, for all its threads to come:
 * TCP sockets and those options of them that it uses, rings, pipes, elements of the BPF maps that
 * it was given, if there are any; no file, no program, no other kind of socket but, if there are
 * backends behind them, UNIX stream sockets. Returns as sandbox_signer().
 */
int sandbox_data(bool unix_sockets, bool maps) must_check;

/*
 * Of a process that checks a configuration, and is root, since keys are root's: it keeps the right
 * to read files, can gain no other, and has files to be read, name services by UNIX sockets, the
 * kernel's list of addresses, memory, and no other system calls; what else it asks for fails with
 * EPERM. token: a key is in a token; then files may be written and memory executed as its module
 * likes. Returns as sandbox_signer().
 */
int sandbox_check(bool token) must_check;

/*
 * The resolver's, for all its threads: files to be read, the libraries of name services among
 * them, UDP and TCP, UNIX sockets, the kernel's list of addresses; no program, no process, nothing
 * written. Which modules there are /etc/nsswitch.conf says: what one asks for
 * beyond that fails with EPERM and kills nobody, so that it can do without. Returns as
 * sandbox_signer().
 */
int sandbox_resolver(void) must_check;

#endif
