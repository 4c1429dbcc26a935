// SPDX-License-Identifier: Apache-2.0
/* A flow in words, for people and programs; see flow_show.h. Changes nothing of it. */
#include "flow/flow_show.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>
#include "base/escape.h"
#include "flow/flowlog.h"
#include "pki/identity.h"

const char *flow_client_text(const struct flow *f, char buf[CFG_ADDRESS_TEXT])
{
	return cfg_address_text(&f->peer, buf);
}

static const char *backend_text(const struct cfg_service *service,
				const struct sockaddr_in6 *resolved, char buf[CFG_ADDRESS_TEXT])
{
	if (!service)
		return "-";
	if (!service->host[0])
		return cfg_address_text(&service->address.ss, buf);
	if (resolved->sin6_family == AF_UNSPEC)
		return service->host;
	return cfg_address_text(resolved, buf);
}

const char *flow_backend_text(const struct flow *f, char buf[CFG_ADDRESS_TEXT])
{
	return backend_text(f->service, &f->resolved, buf);
}

const char *flow_service_name(const struct flow *f)
{
	return f->service ? f->service->name : "-";
}

static const char *engine_name(const struct flow *f)
{
	return f->relay.engine ? f->relay.engine->name : "none";
}

static const char *records_name(uint8_t records)
{
	static const char *const names[] = {
		[FLOW_RECORDS_NONE] = "none",		[FLOW_RECORDS_UNKNOWN] = "unknown",
		[FLOW_RECORDS_USER] = "user",		[FLOW_RECORDS_SOFTWARE] = "software",
		[FLOW_RECORDS_DEVICE] = "device",	[FLOW_RECORDS_DEVICE_TX] = "device-tx",
		[FLOW_RECORDS_DEVICE_RX] = "device-rx",
	};

	return names[records];
}

/* ---- for the control socket ---- */

static void copy(const struct flow *f, struct flow_shown *out)
{
	*out = (struct flow_shown){
		.id = f->id,
		.age = f->worker->timers.now - f->since,
		.vserver = f->vserver,
		.service = f->service,
		.engine = engine_name(f),
		.peer = f->peer,
		.resolved = f->resolved,
		.from_client = f->relay.from_client.bytes,
		.from_backend = f->relay.from_backend.bytes,
		.stage = f->stage,
		.records = {f->client.records, f->backend.records},
		.forged = f->forged,
		.fallback = f->fallback,
		.identified = f->identified,
	};
	memcpy(out->fingerprint, f->fingerprint, sizeof(out->fingerprint));
	memcpy(out->alpn, f->alpn, sizeof(out->alpn));
}

unsigned flow_cursor_copy(struct worker *w, struct flow_cursor *c, struct flow_shown *out,
			  unsigned n)
{
	unsigned i;

	if (!c->open) {
		*c = (struct flow_cursor){.next = LIST_FIRST(&w->flows), .open = true};
		LIST_INSERT_HEAD(&w->cursors, c, link);
	}
	for (i = 0; i < n && c->next; i++) {
		copy(c->next, &out[i]);
		c->next = LIST_NEXT(c->next, link);
	}
	if (!i)
		flow_cursor_close(c);
	return i;
}

void flow_cursor_close(struct flow_cursor *c)
{
	if (c->open)
		LIST_REMOVE(c, link);
	*c = (struct flow_cursor){0};
}

void flow_cursors_skip(const struct worker *w, const struct flow *f)
{
	struct flow_cursor *c;

	LIST_FOREACH (c, &w->cursors, link) {
		if (c->next == f)
			c->next = LIST_NEXT(f, link);
	}
}

void flow_print(const struct flow_shown *f, FILE *out)
{
	static const char *const stages[FLOW_STAGES] = {"handshake", "relay", "closing"};
	char client[CFG_ADDRESS_TEXT], backend[CFG_ADDRESS_TEXT],
		hex[2 * sizeof(f->fingerprint) + 1] = "";

	if (f->identified)
		identity_hex(f->fingerprint, sizeof(f->fingerprint), hex);
	fprintf(out, "id=%" PRIu64 "\tstage=%s\tage_ms=%" PRIu64, f->id, stages[f->stage], f->age);
	fprintf(out, "\tvserver=%s\tclient=%s\tservice=%s\tbackend=%s", f->vserver->name,
		cfg_address_text(&f->peer, client), f->service ? f->service->name : "-",
		backend_text(f->service, &f->resolved, backend));
	fprintf(out, "\tengine=%s\tclient_records=%s\tbackend_records=%s", f->engine,
		records_name(f->records[SIDE_CLIENT]), records_name(f->records[SIDE_BACKEND]));
	fputs("\talpn=", out);
	escape_put(f->alpn, strlen(f->alpn), out);
	fprintf(out, "\tforged=%s\tidentity=%s",
		f->forged     ? "yes"
		: f->fallback ? "fallback"
			      : "no",
		hex);
	fprintf(out, "\tbytes_from_client=%" PRIu64 "\tbytes_from_backend=%" PRIu64 "\n",
		f->from_client, f->from_backend);
}

/* ---- the flow log ---- */

static const char *version_name(const struct side *s)
{
	return s->version == TLS_13 ? "TLSv1.3" : s->version == TLS_12 ? "TLSv1.2" : "";
}

static void write_wire(const char *side, const struct flowlog_wire *w, FILE *out)
{
	fprintf(out,
		",\"%s_packets_rx\":%u,\"%s_packets_tx\":%u,\"%s_bytes_rx\":%" PRIu64
		",\"%s_bytes_tx\":%" PRIu64 ",\"%s_retransmits\":%u,\"%s_rtt_us\":%u",
		side, w->packets_rx, side, w->packets_tx, side, w->bytes_rx, side, w->bytes_tx,
		side, w->retransmits, side, w->rtt_us);
}

static void write_flow(const struct flow *f, FILE *out)
{
	static const struct flowlog_wire none[2];
	const struct flowlog_wire *wire = f->wire ? f->wire : none;
	char client[CFG_ADDRESS_TEXT], backend[CFG_ADDRESS_TEXT],
		hex[2 * sizeof(f->fingerprint) + 1] = "";
	struct timespec now;
	uint64_t end;

	clock_gettime(CLOCK_REALTIME, &now);
	end = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
	if (f->identified)
		identity_hex(f->fingerprint, sizeof(f->fingerprint), hex);
	fprintf(out, "{\"id\":%" PRIu64 ",\"start_ms\":%" PRIu64 ",\"end_ms\":%" PRIu64, f->id,
		end - (f->worker->timers.now - f->accepted), end);
	fprintf(out, ",\"vserver\":\"%s\",\"client\":\"%s\",\"service\":\"%s\",\"backend\":\"%s\"",
		f->vserver->name, flow_client_text(f, client), flow_service_name(f),
		f->service ? flow_backend_text(f, backend) : "");
	fprintf(out,
		",\"reason\":\"%s\",\"engine\":\"%s\",\"client_tls\":\"%s\",\"backend_tls\":\"%s\"",
		reasons[f->reason].name, engine_name(f), version_name(&f->client),
		version_name(&f->backend));
	fprintf(out, ",\"client_records\":\"%s\",\"backend_records\":\"%s\"",
		records_name(f->client.records), records_name(f->backend.records));
	fputs(",\"alpn\":", out);
	escape_json(f->alpn, out); /* a peer's bytes */
	fprintf(out,
		",\"identity\":\"%s\",\"forged\":%s,\"bytes_from_client\":%" PRIu64
		",\"bytes_from_backend\":%" PRIu64,
		hex, f->forged ? "true" : "false", f->relay.from_client.bytes,
		f->relay.from_backend.bytes);
	write_wire("client", &wire[SIDE_CLIENT], out);
	write_wire("backend", &wire[SIDE_BACKEND], out);
	fputs("}\n", out);
}

void flow_log(const struct flow *f)
{
	struct flowlog *log = f->worker->gate->flowlog;
	char line[2048];
	FILE *out;

	if (!log)
		return;
	out = fmemopen(line, sizeof(line), "w");
	if (!out)
		return;
	write_flow(f, out);
	fflush(out);
	flowlog_add(log, line, (size_t)ftell(out));
	fclose(out);
}
