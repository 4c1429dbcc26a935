/* SPDX-License-Identifier: Apache-2.0 */
/* The table of reasons; see reason.h. */
#include "conn/reason.h"

const struct reason_desc reasons[REASON_COUNT] = {
#define X(name, client, backend, text) [REASON_##name] = {#name, client, backend, text},
	REASONS(X)
#undef X
};
