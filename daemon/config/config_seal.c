// SPDX-License-Identifier: Apache-2.0
/*
 * A configuration from process to process: its texts, and the files that they name, in sealed
 * memory. Does not know what is in these files, nor has a byte of them in memory of its own.
 */
#include "config/config.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include "base/shared_memory.h"

#define FILE_MAX (256 << 20) /* the largest that is ever loaded: a CRL, see pem.c */

/* In front of each, which follows its name; both end with a NUL, which is not counted. */
struct sealed_head {
	uint64_t name_len, len;
	uint64_t kind;
};

enum kind {
	TEXT,
	FILE_NAMED, /* by the texts */
	CRL_HISTORY,
};

/* ---- writing ---- */

static int write_all(int to, const void *data, size_t len)
{
	const char *p = data;

	while (len) {
		ssize_t n = TEMP_FAILURE_RETRY(write(to, p, len));

		if (n < 0)
			return -errno;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

static int write_head(int to, enum kind kind, const char *name, size_t len)
{
	struct sealed_head head = {strlen(name), len, kind};
	int err = write_all(to, &head, sizeof(head));

	return err ? err : write_all(to, name, head.name_len + 1);
}

static int write_texts(int to, const struct cfg_texts *t)
{
	int err = 0;

	for (unsigned i = 0; !err && i < t->n; i++) {
		err = write_head(to, TEXT, t->list[i].name, t->list[i].len);
		if (!err)
			err = write_all(to, t->list[i].text, t->list[i].len + 1);
	}
	return err;
}

static int write_history(int to, const char *history)
{
	size_t len = history ? strlen(history) : 0;
	int err = history ? write_head(to, CRL_HISTORY, "", len) : 0;

	return err || !history ? err : write_all(to, history, len + 1);
}

/* Within the kernel. */
static int pass_on(int to, int from, size_t len)
{
	while (len) {
		ssize_t n = TEMP_FAILURE_RETRY(sendfile(to, from, NULL, len));

		if (n < 0)
			return -errno;
		if (!n)
			return -EIO; /* it shrank meanwhile */
		len -= (size_t)n;
	}
	return write_all(to, "", 1);
}

/* One that cannot be had is left out: who loads it tries again, and says why. */
static int write_file(int to, const char *path)
{
	scoped_fd from = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	off_t begin = lseek(to, 0, SEEK_CUR);
	struct stat st;
	int err;

	if (from < 0 || fstat(from, &st) || !S_ISREG(st.st_mode) || !st.st_size ||
	    st.st_size > FILE_MAX)
		return 0;
	err = write_head(to, FILE_NAMED, path, (size_t)st.st_size);
	if (err)
		return err;
	if (!pass_on(to, from, (size_t)st.st_size))
		return 0;
	return ftruncate(to, begin) || lseek(to, begin, SEEK_SET) < 0 ? -errno : 0;
}

struct paths {
	char **list;
	unsigned n;
	bool no_memory;
};

static void add_path(void *arg, const char *path)
{
	struct paths *p = arg;
	char **more = reallocarray(p->list, p->n + 1, sizeof(*more));

	if (more)
		p->list = more;
	if (more)
		more[p->n] = strdup(path);
	if (!more || !more[p->n])
		p->no_memory = true;
	else
		p->n++;
}

static int by_path(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Each once, in order. */
static int write_files(int to, const struct config *cfg)
{
	struct paths paths = {0};
	int err;

	config_public_files(cfg, add_path, &paths);
	err = paths.no_memory ? -ENOMEM : 0;
	if (paths.n)
		qsort(paths.list, paths.n, sizeof(*paths.list), by_path);
	for (unsigned i = 0; !err && i < paths.n; i++) {
		if (!i || strcmp(paths.list[i], paths.list[i - 1]) != 0)
			err = write_file(to, paths.list[i]);
	}
	for (unsigned i = 0; i < paths.n; i++)
		free(paths.list[i]);
	free(paths.list);
	return err;
}

int config_texts_seal(const struct cfg_texts *t)
{
	struct config *cfg = config_glance(t);
	scoped_fd fd = shared_memory_begin_copy("ktlsgate-config");
	int err = !cfg ? -ENOMEM : fd < 0 ? fd : write_texts(fd, t);

	if (!err)
		err = write_history(fd, t->crl_history);
	if (!err)
		err = write_files(fd, cfg);
	if (!err)
		err = shared_memory_end_copy(fd);
	config_free(cfg);
	return err ? err : TAKE_FD(fd);
}

/* ---- reading ---- */

static int add_file(struct cfg_texts *t, const char *path, const void *data, size_t len)
{
	struct cfg_file *more = reallocarray(t->files, t->n_files + 1, sizeof(*more));

	if (!more)
		return -ENOMEM;
	t->files = more;
	more[t->n_files++] = (struct cfg_file){path, data, len};
	return 0;
}

/* Of what is between *p and end; *p is then behind it. */
static int unseal_one(const char **p, const char *end, struct cfg_texts *out)
{
	struct sealed_head head;
	const char *name, *data;

	if ((size_t)(end - *p) < sizeof(head))
		return -EINVAL;
	memcpy(&head, *p, sizeof(head));
	name = *p + sizeof(head);
	if (head.name_len > FILE_MAX || head.len > FILE_MAX ||
	    head.name_len + head.len + 2 > (size_t)(end - name))
		return -EINVAL;
	data = name + head.name_len + 1;
	*p = data + head.len + 1;
	if (head.kind == FILE_NAMED)
		return add_file(out, name, data, head.len);
	if (head.kind == CRL_HISTORY) {
		free(out->crl_history);
		out->crl_history = strndup(data, head.len);
		return out->crl_history ? 0 : -ENOMEM;
	}
	return config_texts_add(out, name, data, head.len);
}

int config_texts_unseal(int fd, struct cfg_texts *out)
{
	scoped_fd ours = fd;
	const char *p, *end;
	int err = 0;

	*out = (struct cfg_texts){0};
	out->sealed = shared_memory_map_copy(ours, &out->sealed_len);
	if (!out->sealed)
		return -errno;
	p = out->sealed;
	end = p + out->sealed_len;
	while (!err && p < end)
		err = unseal_one(&p, end, out);
	if (!err && !out->n)
		err = -EINVAL;
	if (err)
		config_texts_free(out);
	return err;
}

static int has_path(const void *path, const void *file)
{
	return strcmp(path, ((const struct cfg_file *)file)->path);
}

const struct cfg_file *config_texts_file(const struct cfg_texts *t, const char *path)
{
	return t->n_files ? bsearch(path, t->files, t->n_files, sizeof(*t->files), has_path) : NULL;
}
