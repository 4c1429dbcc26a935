/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who else could read or replace a file that we use as root. Looks at owners and modes: of the file
 * as it was opened, and of the directories that lead to it.
 */
#ifndef KTLSGATE_FILE_TRUST_H
#define KTLSGATE_FILE_TRUST_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>
#include "base/scoped.h"

enum file_use {
	FILE_OF_OWNER, /* nobody but its owner may read it: a forging key */
	FILE_OF_GROUP, /* its group may read it, too: a serving key */
	FILE_LOG       /* we write to it; who may read it is its owner's choice */
};

/*
 * Is the file at path, of which st is the fstat(2), the owner's alone as the use wants? The owner
 * is root, or who we run as; and nobody else can put another file in its place: each directory of
 * the path is theirs, and others cannot write to it, or only to their own files (the sticky bit).
 * Returns 0, or -EPERM with "what is wrong; what would be right" in why.
 */
int file_trust(const char *path, const struct stat *st, enum file_use use, char *why,
	       size_t why_len) must_check;

#endif
