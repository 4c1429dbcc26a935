/* SPDX-License-Identifier: Apache-2.0 */
/* Unit tests in C: CHECK() counts and goes on; the exit status tells. One program per module. */
#ifndef KTLSGATE_UNIT_H
#define KTLSGATE_UNIT_H

#include <stdio.h>
#include <string.h>

static int unit_checks, unit_failures;

#define CHECK(cond)                                                                                \
	do {                                                                                       \
		unit_checks++;                                                                     \
		if (!(cond)) {                                                                     \
			unit_failures++;                                                           \
			printf("%s:%d: failed: %s\n", __FILE__, __LINE__, #cond);                  \
		}                                                                                  \
	} while (0)

#define CHECK_INT(got, want)                                                                       \
	do {                                                                                       \
		long long got_ = (long long)(got), want_ = (long long)(want);                      \
		unit_checks++;                                                                     \
		if (got_ != want_) {                                                               \
			unit_failures++;                                                           \
			printf("%s:%d: %s is %lld, want %lld\n", __FILE__, __LINE__, #got, got_,   \
			       want_);                                                             \
		}                                                                                  \
	} while (0)

static inline int unit_end(void)
{
	printf("%d checks, %d failed\n", unit_checks, unit_failures);
	return unit_failures || !unit_checks;
}

#endif
