/* SPDX-License-Identifier: Apache-2.0 */
/* How a thread begins; see thread.h. Knows nothing of what it does. */
#include "base/thread.h"

#include <errno.h>
#include <semaphore.h>
#include <string.h>
#include "base/log.h"
#include "base/provider.h"

struct beginning {
	void (*run)(void *arg);
	void *arg;
	sem_t set_up;
};

static void *begin(void *start)
{
	struct beginning *b = start, copy = {.run = b->run, .arg = b->arg};

	provider_use();
	sem_post(&b->set_up); /* and *b is gone */
	copy.run(copy.arg);
	return NULL;
}

int thread_start(pthread_t *thread, const char *name, void (*run)(void *arg), void *arg)
{
	struct beginning b = {.run = run, .arg = arg};
	int ret;

	sem_init(&b.set_up, 0, 0);
	ret = pthread_create(thread, NULL, begin, &b);
	if (ret)
		log_error("the thread of %s: %s", name, strerror(ret));
	else
		while (sem_wait(&b.set_up) && errno == EINTR)
			;
	sem_destroy(&b.set_up);
	return -ret;
}
