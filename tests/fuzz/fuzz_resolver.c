// SPDX-License-Identifier: Apache-2.0
/*
 * The table that the resolver's process writes and a worker reads: any bytes in it, which is what
 * a captured resolver can do. DNS answers themselves are read by glibc, in that process.
 */
#include <string.h>
#include "service/resolved.h"

#include "fuzz.h"

static const struct fuzz_bound bound = {.base_us = 2000, .byte_ns = 100};

/* What connect(2) is handed: a host that can be a backend, at the port of the configuration. */
static void check(const struct sockaddr_in6 *a)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)a;

	ENSURE(a->sin6_family == AF_INET || a->sin6_family == AF_INET6);
	ENSURE(a->sin6_port == htons(443) && in->sin_port == htons(443));
	if (a->sin6_family == AF_INET)
		ENSURE(in->sin_addr.s_addr != INADDR_ANY);
	else
		ENSURE(!IN6_IS_ADDR_UNSPECIFIED(&a->sin6_addr) &&
		       !IN6_IS_ADDR_V4MAPPED(&a->sin6_addr));
}

static void run(void *arg)
{
	const struct cfg_service service = {.port = htons(443)};
	struct resolved_addresses a;
	uint64_t failures;

	resolved_get(arg, &service, &a, &failures);
	ENSURE(a.n <= RESOLVED_MAX);
	for (unsigned i = 0; i < a.n; i++)
		check(&a.list[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct resolved table = {0};

	memcpy(&table, data, size < sizeof(table) ? size : sizeof(table));
	fuzz_bounded(&bound, size, run, &table);
	return 0;
}
