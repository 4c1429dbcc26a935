// SPDX-License-Identifier: Apache-2.0
/*
 * A parser with faults, which tests/test_fuzz.py wants to be found: the first byte says which.
 */
#include "fuzz.h"

static const struct fuzz_bound bound = {.base_us = 2000, .byte_ns = 1000};

static volatile unsigned sum;

static void linear(const struct fuzz_input *in)
{
	for (size_t i = 0; i < in->left; i++)
		sum += in->p[i];
}

static void quadratic(const struct fuzz_input *in)
{
	for (size_t i = 0; i < in->left; i++)
		linear(in);
}

static void run(void *arg)
{
	const struct fuzz_input *in = arg;

	if (in->p[0] == 'q')
		quadratic(in);
	else
		linear(in);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};
	uint8_t *copy = malloc(size + 1);

	if (size)
		fuzz_bounded(&bound, size, run, &in);
	sum += copy[size && data[0] == 'o' ? size + 1 : 0];
	if (!size || data[0] != 'l')
		free(copy);
	return 0;
}
