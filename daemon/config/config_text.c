// SPDX-License-Identifier: Apache-2.0
/* The texts of a configuration: files in their order, then what was added. Knows no key. */
#include "config/config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include "base/shared_memory.h"

#define TEXT_MAX (64u << 20) /* bytes of all texts together */
#define READABLE "make it a file that we may read, or name another with -c"

static int append(struct cfg_texts *t, const char *name, char *text, size_t len)
{
	struct cfg_text *more = reallocarray(t->list, t->n + 1, sizeof(*more));
	char *copy = strdup(name);

	if (more)
		t->list = more;
	if (!more || !copy) {
		free(copy);
		free(text);
		return -ENOMEM;
	}
	more[t->n++] = (struct cfg_text){copy, text, len};
	return 0;
}

int config_texts_add(struct cfg_texts *t, const char *name, const char *text, size_t len)
{
	char *copy = malloc(len + 1);

	if (!copy)
		return -ENOMEM;
	memcpy(copy, text, len);
	copy[len] = '\0';
	return append(t, name, copy, len);
}

int config_texts_copy(const struct cfg_texts *t, struct cfg_texts *out)
{
	int err = 0;

	*out = (struct cfg_texts){0};
	if (t->crl_history) {
		out->crl_history = strdup(t->crl_history);
		err = out->crl_history ? 0 : -ENOMEM;
	}
	for (unsigned i = 0; !err && i < t->n; i++)
		err = config_texts_add(out, t->list[i].name, t->list[i].text, t->list[i].len);
	if (err)
		config_texts_free(out);
	return err;
}

void config_texts_free(struct cfg_texts *t)
{
	for (unsigned i = 0; i < t->n; i++) {
		free(t->list[i].name);
		free(t->list[i].text);
	}
	free(t->list);
	free(t->crl_history);
	free(t->files);
	shared_memory_unmap(t->sealed, t->sealed_len);
	*t = (struct cfg_texts){0};
}

/* Until its end: it may be a pipe. */
static int read_file(const char *path, char **text, size_t *len)
{
	scoped_fd fd = open(path, O_RDONLY | O_CLOEXEC);
	scoped_mem char *buf = NULL;
	size_t have = 0, size = 0;
	ssize_t n;

	if (fd < 0)
		return -errno;
	do {
		if (size - have < 2) {
			char *more = realloc(buf, size ? 2 * size : 16384);

			if (!more)
				return -ENOMEM;
			buf = more;
			size = size ? 2 * size : 16384;
		}
		n = TEMP_FAILURE_RETRY(read(fd, buf + have, size - have - 1));
		if (n < 0)
			return -errno;
		have += (size_t)n;
		if (have > TEXT_MAX)
			return -EFBIG;
	} while (n);
	buf[have] = '\0';
	*text = TAKE_PTR(buf);
	*len = have;
	return 0;
}

static int add_file(struct cfg_texts *t, const char *path, FILE *errors)
{
	size_t len = 0;
	char *text = NULL;
	int err = read_file(path, &text, &len);

	if (!err)
		err = append(t, path, text, len);
	if (err == -EISDIR)
		fprintf(errors, "%s: cannot be read: %s; " READABLE "\n", path, strerror(-err));
	else if (err)
		fprintf(errors, "%s: cannot be opened: %s; " READABLE "\n", path, strerror(-err));
	return err ? -EINVAL : 0;
}

static int is_conf(const struct dirent *e)
{
	const char *dot = strrchr(e->d_name, '.');

	return dot && dot != e->d_name && !strcmp(dot, ".conf") && e->d_name[0] != '.';
}

/* By bytes, whatever the locale. */
static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

/* Of "X.conf" the directory is "X.d"; a name without the ending has none. */
static bool directory_of(const char *path, char *dir, size_t len)
{
	const char *dot = strrchr(path, '.');

	if (!dot || strcmp(dot, ".conf") || (size_t)(dot - path) + sizeof(".d") > len)
		return false;
	snprintf(dir, len, "%.*s.d", (int)(dot - path), path);
	return true;
}

static int add_directory(struct cfg_texts *t, const char *path, FILE *errors)
{
	char dir[PATH_MAX], file[PATH_MAX + NAME_MAX + 2];
	struct dirent **entries;
	int n, err = 0;

	if (!directory_of(path, dir, sizeof(dir)))
		return 0;
	n = scandir(dir, &entries, is_conf, by_name);
	if (n < 0 && errno != ENOENT && errno != ENOTDIR) {
		fprintf(errors, "%s: cannot be read: %s; make it a directory that we may read\n",
			dir, strerror(errno));
		return -EINVAL;
	}
	for (int i = 0; i < n; i++) {
		snprintf(file, sizeof(file), "%s/%s", dir, entries[i]->d_name);
		if (add_file(t, file, errors))
			err = -EINVAL;
		free(entries[i]);
	}
	if (n >= 0)
		free(entries);
	return err;
}

int config_read(const char *path, FILE *errors, struct cfg_texts *out)
{
	int err;

	*out = (struct cfg_texts){0};
	err = add_file(out, path, errors);
	if (!err)
		err = add_directory(out, path, errors);
	if (err)
		config_texts_free(out);
	return err;
}
