// SPDX-License-Identifier: Apache-2.0
/* Owners and modes of a file and of its directories. Knows not what is in the file. */
#include "base/file_trust.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool is_ours(uid_t owner)
{
	return owner == 0 || owner == geteuid();
}

/* What st's mode must not have. */
static mode_t forbidden(enum file_use use)
{
	switch (use) {
	case FILE_OF_OWNER:
		return 077;
	case FILE_OF_GROUP:
		return 037;
	case FILE_LOG:
		return 02;
	}
	return 077;
}

static const char *cure(enum file_use use)
{
	return use == FILE_OF_OWNER ? "600" : use == FILE_OF_GROUP ? "640" : "o-w";
}

static int check_file(const struct stat *st, enum file_use use, char *why, size_t why_len)
{
	if (!is_ours(st->st_uid)) {
		snprintf(why, why_len,
			 "belongs to user %u; chown it to root, or to who starts "
			 "ktlsgated",
			 (unsigned)st->st_uid);
		return -EPERM;
	}
	if (st->st_mode & forbidden(use)) {
		snprintf(why, why_len,
			 "others than its owner may use this file (mode %04o); chmod %s it",
			 (unsigned)st->st_mode & 07777, cure(use));
		return -EPERM;
	}
	return 0;
}

static int check_directory(const char *dir, char *why, size_t why_len)
{
	struct stat st;
	bool others_write;

	if (stat(dir, &st)) {
		snprintf(why, why_len, "is in %.100s, which cannot be looked at: %s", dir,
			 strerror(errno));
		return -EPERM;
	}
	others_write = st.st_mode & S_IWOTH || (st.st_mode & S_IWGRP && st.st_gid != 0);
	if (is_ours(st.st_uid) && (!others_write || st.st_mode & S_ISVTX))
		return 0;
	snprintf(why, why_len,
		 "is in or below %.100s, where user %u, or others (mode %04o), can replace it; "
		 "chown "
		 "it to root and chmod go-w it",
		 dir, (unsigned)st.st_uid, (unsigned)st.st_mode & 07777);
	return -EPERM;
}

/* All directories of a path without symbolic links, which is cut. */
static int check_directories(char *path, char *why, size_t why_len)
{
	int err;
	char *slash;

	while ((slash = strrchr(path, '/')) && slash != path) {
		*slash = '\0';
		err = check_directory(path, why, why_len);
		if (err)
			return err;
	}
	return check_directory("/", why, why_len);
}

int file_trust(const char *path, const struct stat *st, enum file_use use, char *why,
	       size_t why_len)
{
	char dir[PATH_MAX], *slash;
	scoped_mem char *file = realpath(path, NULL);
	scoped_mem char *link = NULL;
	int err = check_file(st, use, why, why_len);

	if (err)
		return err;
	snprintf(dir, sizeof(dir), "%s", path);
	slash = strrchr(dir, '/');
	if (slash)
		slash[1] = '\0';
	/* Where a symbolic link is, and where it leads. */
	link = realpath(slash ? dir : ".", NULL);
	if (!file || !link) {
		snprintf(why, why_len, "cannot be found: %s; is it being replaced?",
			 strerror(errno));
		return -EPERM;
	}
	err = check_directories(file, why, why_len);
	if (!err)
		err = check_directory(link, why, why_len);
	return err ? err : check_directories(link, why, why_len);
}
