// SPDX-License-Identifier: Apache-2.0
/*
 * The injector in a whole daemon, build/tests/ktlsgated-faults: told by the
 * environment, KTLSGATE_FAULTS="soft|hard SEED [SITE]" or "off"; without it there are no
 * faults. What was done, and the memory still in use at the end of each process,
 * are the last lines of the log.
 */
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "fault.h"
#include "base/log.h"

static uint64_t seed;
const bool fault_sandboxed = true;

__attribute__((constructor)) static void read_environment(void)
{
	const char *text = getenv("KTLSGATE_FAULTS");
	struct fault_options o = {.where = ANYWHERE, .site = -1};
	char mode[8] = "", site[32] = "";

	if (!text || !strcmp(text, "off"))
		return;
	if (sscanf(text, "%7s %" SCNu64 " %31s", mode, &o.seed, site) < 2 ||
	    (strcmp(mode, "soft") && strcmp(mode, "hard")) ||
	    (site[0] && (o.site = fault_site(site)) < 0)) {
		fprintf(stderr, "KTLSGATE_FAULTS=%s: not understood\n", text);
		exit(2);
	}
	o.mode = strcmp(mode, "soft") ? FAULTS_HARD : FAULTS_SOFT;
	seed = o.seed;
	fault_setup(&o);
}

__attribute__((destructor)) static void report(void)
{
	char text[1024];

	fault_report(text, sizeof(text));
	if (text[0])
		log_info("faults, seed %" PRIu64 ":%s", seed, text);
	log_info("heap at the end: %zu", mallinfo2().uordblks);
}
