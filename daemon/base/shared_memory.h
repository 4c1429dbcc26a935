/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that one process writes and others read, as a descriptor. Its size cannot change, so that
 * no reader gets SIGBUS. Each process maps it for itself, as what it is: a writer or a reader.
 * Whoever reads what a less trusted process writes keeps every bound elsewhere.
 */
#ifndef KTLSGATE_SHARED_MEMORY_H
#define KTLSGATE_SHARED_MEMORY_H

#include <stddef.h>
#include "base/scoped.h"

/* len bytes of zeros; /proc/PID/maps shows them under this name. A descriptor, or -errno. */
int shared_memory_new(const char *name, size_t len) must_check;

/* A copy of len bytes that nobody can ever change. A descriptor, or -errno. */
int shared_memory_copy(const char *name, const void *data, size_t len) must_check;
/* The same in steps: an empty file to be written, or -errno; and the end of that, 0 or -errno. */
int shared_memory_begin_copy(const char *name) must_check;
int shared_memory_end_copy(int fd) must_check;
/* Maps such a copy, and only such; *len is its size. NULL: errno says why. */
const void *shared_memory_map_copy(int fd, size_t *len) must_check;

/*
 * Another descriptor of the same memory, which can only be mapped for reading. It is for a process
 * that the first one must not come to. A descriptor, or -errno.
 */
int shared_memory_read_only(int fd) must_check;

/* From here on no mapping that can be written is made; those that are there stay. 0 or -errno. */
int shared_memory_forbid_writers(int fd) must_check;

/* NULL: errno says why. */
const void *shared_memory_map(int fd, size_t len) must_check;
void *shared_memory_map_writable(int fd, size_t len) must_check;
void shared_memory_unmap(const void *memory, size_t len); /* NULL-safe */

#endif
