// SPDX-License-Identifier: Apache-2.0
/*
 * libFuzzer: what a peer may put into records. Arbitrary bytes as records, as
 * the (authentic) content of records, and as the records of a handshake stream.
 */
#include "tls/record.h"

#include <string.h>

#include "fuzz.h"

/* control_splits() hands over one byte at a time. */
static const struct fuzz_bound bound = {.base_us = 5000, .byte_ns = 4000};

#define FIRST_SEQ 7

static struct record_cipher tx, rx;

/* By turns every version and cipher. */
static void begin(uint8_t choice)
{
	struct tls_keys k = {
		.version = choice & 1 ? TLS_13 : TLS_12,
		.cipher = (choice >> 1) % TLS_CIPHERS,
		.key = {1, 2, 3},
		.iv = {4, 5, 6},
		.seq = FIRST_SEQ,
	};

	ENSURE(record_cipher_init(&tx, &k, true) == 0);
	ENSURE(record_cipher_init(&rx, &k, false) == 0);
}

static void end(void)
{
	record_cipher_free(&tx);
	record_cipher_free(&rx);
}

/* Without the key no bytes are a record; the buffers are just as long as promised. */
static void open_arbitrary(const uint8_t *data, size_t size)
{
	struct record_header h;
	uint8_t *rec = malloc(size + 1), *out = malloc(size + 1), type;
	int alert = ALERT_NONE;

	ENSURE(rec && out);
	memcpy(rec, data, size);
	ENSURE(record_open(&rx, rec, size, out, &type, &alert) < 0);
	ENSURE(alert_name(alert) && rx.seq == FIRST_SEQ);
	/* Once more with a length that is right, so that it comes to the cipher. */
	if (size >= RECORD_HEADER && size - RECORD_HEADER <= UINT16_MAX) {
		rec[0] = RECORD_APPLICATION_DATA;
		rec[1] = 3;
		rec[3] = (uint8_t)((size - RECORD_HEADER) >> 8);
		rec[4] = (uint8_t)(size - RECORD_HEADER);
		ENSURE(record_open(&rx, rec, size, out, &type, &alert) < 0);
		ENSURE(rx.seq == FIRST_SEQ);
	}
	if (size >= RECORD_HEADER && record_parse_header(data, rx.version, &h, &alert) == 0)
		ENSURE(h.length <= RECORD_MAX - RECORD_HEADER);
	free(rec);
	free(out);
}

/* A peer with the key says what it likes. Sealed as type 0, data holds the TLS 1.3 type and
 * padding. */
static void open_authentic(uint8_t type, const uint8_t *data, size_t size)
{
	uint8_t *buf = malloc(size + RECORD_OVERHEAD_MAX), opened = 0;
	size_t want = size;
	int alert = ALERT_NONE;
	ssize_t len, n;

	ENSURE(buf);
	memcpy(buf + record_headroom(&tx), data, size);
	len = record_seal(&tx, type, buf, size);
	if (size > RECORD_PLAIN_MAX) {
		ENSURE(len < 0);
		free(buf);
		return;
	}
	ENSURE(len == (ssize_t)(record_headroom(&tx) + size + record_tailroom(&tx)));
	n = record_open(&rx, buf, (size_t)len, buf, &opened, &alert);
	if (rx.version == TLS_13 && type == 0) {
		while (want && data[want - 1] == 0)
			want--;
		if (!want) {
			ENSURE(n < 0 && alert == ALERT_UNEXPECTED_MESSAGE);
			free(buf);
			return;
		}
		type = data[--want];
	}
	/* TLS 1.2 shows its type outside, where only the four known ones pass. */
	if (rx.version == TLS_12 && (type < 20 || type > 23))
		ENSURE(n < 0 && alert == ALERT_UNEXPECTED_MESSAGE);
	else
		ENSURE(n == (ssize_t)want && opened == type && memcmp(buf, data, want) == 0);
	free(buf);
}

struct seen {
	unsigned events;
	uint32_t digest; /* of kinds and alerts, in order */
	bool illegal, pending;
};

/* One record; its bytes in a buffer of their own, so that reading past them is found. */
static void control_record(struct record_control *rc, uint16_t version, bool from_server,
			   uint8_t type, const uint8_t *data, size_t size, struct seen *seen)
{
	uint8_t *copy = malloc(size + 1);
	const uint8_t *p = copy;
	struct record_event ev;
	size_t n = size, events = 0;

	ENSURE(copy);
	memcpy(copy, data, size);
	while (!seen->illegal && record_control_next(rc, version, from_server, type, &p, &n, &ev)) {
		ENSURE(++events <= size + 1);
		ENSURE(!p || (p > copy && p + n == copy + size && n > 0));
		ENSURE(ev.kind != EVENT_ILLEGAL || (!p && alert_name(ev.alert)));
		ENSURE(ev.kind != EVENT_KEY_UPDATE || (!p && version == TLS_13));
		seen->events++;
		seen->digest = seen->digest * 31 + ev.kind * 1024 + (uint32_t)(ev.alert + 1) * 2 +
			       ev.requested;
		seen->illegal = ev.kind == EVENT_ILLEGAL;
	}
	ENSURE(seen->illegal || (!p && n == 0));
	ENSURE(type != RECORD_HANDSHAKE || size || seen->illegal);
	seen->pending = record_control_pending(rc);
	free(copy);
}

/* Type and length of each record come from the input. */
static void control_arbitrary(uint16_t version, bool from_server, const uint8_t *data, size_t size)
{
	struct record_control rc = {0};
	struct seen seen = {0};

	while (size >= 2 && !seen.illegal) {
		uint8_t type = 20 + data[0] % 5;
		size_t n = data[1] < size - 2 ? data[1] : size - 2;

		control_record(&rc, version, from_server, type, data + 2, n, &seen);
		data += 2 + n;
		size -= 2 + n;
	}
}

/*
 * A handshake stream byte by byte and whole must mean the same, but for a
 * KeyUpdate in the middle, legal only if its record ends there.
 */
static void control_splits(uint16_t version, bool from_server, const uint8_t *data, size_t size)
{
	struct record_control whole_rc = {0}, split_rc = {0};
	struct seen whole = {0}, split = {0};

	if (!size)
		return;
	control_record(&whole_rc, version, from_server, RECORD_HANDSHAKE, data, size, &whole);
	for (size_t i = 0; i < size; i++)
		control_record(&split_rc, version, from_server, RECORD_HANDSHAKE, data + i, 1,
			       &split);
	if (!whole.illegal)
		ENSURE(split.events == whole.events && split.digest == whole.digest &&
		       split.pending == whole.pending);
	else
		ENSURE(split.illegal || version == TLS_13);
}

static void run(void *arg)
{
	struct fuzz_input in = *(struct fuzz_input *)arg;
	uint8_t choice = (uint8_t)fuzz_byte(&in), type = (uint8_t)fuzz_byte(&in);

	begin(choice);
	open_arbitrary(in.p, in.left);
	open_authentic(type, in.p, in.left);
	control_arbitrary(rx.version, choice & 0x80, in.p, in.left);
	control_splits(rx.version, choice & 0x80, in.p, in.left);
	end();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};

	if (size >= 2)
		fuzz_bounded(&bound, size, run, &in);
	return 0;
}
