/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The directory in bpffs where maps are pinned for bpftool, and the words an
 * operator needs when the kernel refuses; for steer.c, count.c and who calls them. A pin
 * is a window, nothing the daemon needs: whatever is found under one of our
 * names was left by a killed predecessor and is replaced.
 */
#ifndef KTLSGATE_BPF_DIR_H
#define KTLSGATE_BPF_DIR_H

#include "base/scoped.h"

/* Makes dir, one level, unless it is there. One log line on error: what to mount or remove. */
int bpf_dir_make(const char *dir) must_check;

/* Pins the object behind fd as dir/name. Logs why not. */
int bpf_dir_pin(const char *dir, const char *name, int fd) must_check;

/*
 * Another descriptor of the map that is pinned there, for a process that may only do so much with
 * it: BPF_F_RDONLY or BPF_F_WRONLY. A descriptor, or -errno after a log line.
 */
int bpf_dir_open(const char *dir, const char *name, unsigned access) must_check;

void bpf_dir_unpin(const char *dir, const char *name);

/* Removes dir unless something is still pinned there. */
void bpf_dir_remove(const char *dir);

/* What to do about a negative errno of bpf(2), to be put behind strerror()'s text; may be "". */
const char *bpf_dir_hint(int err);

#endif
