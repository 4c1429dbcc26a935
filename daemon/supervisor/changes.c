// SPDX-License-Identifier: Apache-2.0
/* Looks at files from time to time; see changes.h. Knows no process and no certificate. */
#include "supervisor/changes.h"

#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include "base/timer.h"

/* What tells one state of a file from another; all zero: it is not there. */
struct state {
	dev_t dev;
	ino_t ino;
	off_t size;
	struct timespec modified;
};

struct changes_file {
	char *path;
	struct state loaded, seen;
};

static struct state look_at(const char *path)
{
	struct state s = {0};
	struct stat st;

	if (!stat(path, &st)) {
		s.dev = st.st_dev;
		s.ino = st.st_ino;
		s.size = st.st_size;
		s.modified = st.st_mtim;
	}
	return s;
}

static bool same(const struct state *a, const struct state *b)
{
	return a->dev == b->dev && a->ino == b->ino && a->size == b->size &&
	       a->modified.tv_sec == b->modified.tv_sec &&
	       a->modified.tv_nsec == b->modified.tv_nsec;
}

static bool later(struct timespec a, struct timespec b)
{
	return a.tv_sec > b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec > b.tv_nsec);
}

struct timespec changes_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME_COARSE, &now); /* the clock of st_mtim */
	return now;
}

struct collecting {
	struct changes *c;
	struct timespec since;
	bool no_memory;
};

static void add(void *arg, const char *path)
{
	struct collecting *collecting = arg;
	struct changes *c = collecting->c;
	struct changes_file *more = reallocarray(c->files, c->n + 1, sizeof(*more));
	struct changes_file *f;

	if (!more) {
		collecting->no_memory = true;
		return;
	}
	c->files = more;
	f = &more[c->n];
	f->path = strdup(path);
	if (!f->path) {
		collecting->no_memory = true;
		return;
	}
	c->n++;
	f->loaded = f->seen = look_at(path);
	/* It may have been read before it was written. */
	if (later(f->loaded.modified, collecting->since))
		f->loaded = (struct state){0};
}

void changes_watch(struct changes *c, const struct config *cfg, struct timespec since)
{
	struct collecting collecting = {.c = c, .since = since};

	changes_free(c);
	c->period = cfg->watch * 1000;
	c->next = timer_clock() + c->period;
	if (c->period)
		config_changing_files(cfg, add, &collecting);
	if (collecting.no_memory)
		log_warn("out of memory: changed files are not noticed");
}

void changes_free(struct changes *c)
{
	for (unsigned i = 0; i < c->n; i++)
		free(c->files[i].path);
	free(c->files);
	*c = (struct changes){0};
}

int changes_wait(const struct changes *c)
{
	uint64_t now = timer_clock();

	if (!c->n)
		return -1;
	return c->next > now ? (int)(c->next - now) : 0;
}

bool changes_turn(struct changes *c)
{
	bool changed = false;

	if (!c->n || timer_clock() < c->next)
		return false;
	c->next = timer_clock() + c->period;
	for (unsigned i = 0; i < c->n; i++) {
		struct changes_file *f = &c->files[i];
		struct state now = look_at(f->path);

		if (same(&now, &f->seen) && !same(&now, &f->loaded)) {
			log_info("%s has changed", f->path);
			f->loaded = now;
			changed = true;
		}
		f->seen = now;
	}
	return changed;
}
