/* SPDX-License-Identifier: Apache-2.0 */
/* How a thread begins; see thread.h. Knows nothing of what it does. */
#include "thread.h"

#include <string.h>
#include "log.h"
#include "provider.h"

struct beginning {
	void (*run)(void *arg);
	void *arg;
	pthread_barrier_t set_up;
};

static void *begin(void *start)
{
	struct beginning *b = start, copy = {.run = b->run, .arg = b->arg};

	provider_use();
	pthread_barrier_wait(&b->set_up); /* and *b is gone */
	copy.run(copy.arg);
	return NULL;
}

int thread_start(pthread_t *thread, const char *name, void (*run)(void *arg), void *arg)
{
	struct beginning b = {.run = run, .arg = arg};
	int ret;

	pthread_barrier_init(&b.set_up, NULL, 2);
	ret = pthread_create(thread, NULL, begin, &b);
	if (ret)
		log_error("the thread of %s: %s", name, strerror(ret));
	else
		pthread_barrier_wait(&b.set_up);
	pthread_barrier_destroy(&b.set_up);
	return -ret;
}
