/* SPDX-License-Identifier: Apache-2.0 */
/* What every BPF object of ours needs while it is loaded. Knows none of them. */
#ifndef KTLSGATE_BPF_LOAD_H
#define KTLSGATE_BPF_LOAD_H

#include "base/scoped.h"

struct bpf_map;

/* From here on libbpf's messages go to log_debug(). */
void bpf_load_messages(void);

/* Room for n entries, or one: a map cannot be empty. Before it is loaded; -errno. */
int bpf_load_size(struct bpf_map *map, unsigned n) must_check;

#endif
