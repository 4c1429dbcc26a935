// SPDX-License-Identifier: Apache-2.0
/* A flow in words, for people and programs; see flow_show.h. Changes nothing of it. */
#include "flow_show.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>
#include "escape.h"
#include "flowlog.h"
#include "identity.h"

const char *flow_client_text(const struct flow *f, char buf[CFG_ADDRESS_TEXT])
{
	return cfg_address_text(&f->peer, buf);
}

const char *flow_backend_text(const struct flow *f, char buf[CFG_ADDRESS_TEXT])
{
	if (!f->service)
		return "-";
	if (!f->service->host[0])
		return cfg_address_text(&f->service->address.ss, buf);
	if (f->resolved.sin6_family == AF_UNSPEC)
		return f->service->host;
	return cfg_address_text(&f->resolved, buf);
}

const char *flow_service_name(const struct flow *f)
{
	return f->service ? f->service->name : "-";
}

static const char *engine_name(const struct flow *f)
{
	return f->relay.engine ? f->relay.engine->name : "none";
}

static const char *records_name(const struct side *s)
{
	static const char *const names[] = {
		[FLOW_RECORDS_NONE] = "none",		[FLOW_RECORDS_UNKNOWN] = "unknown",
		[FLOW_RECORDS_USER] = "user",		[FLOW_RECORDS_SOFTWARE] = "software",
		[FLOW_RECORDS_DEVICE] = "device",	[FLOW_RECORDS_DEVICE_TX] = "device-tx",
		[FLOW_RECORDS_DEVICE_RX] = "device-rx",
	};

	return names[s->records];
}

/* ---- for the control socket ---- */

void flow_print(const struct flow *f, FILE *out)
{
	static const char *const stages[FLOW_STAGES] = {"handshake", "relay", "closing"};
	char client[CFG_ADDRESS_TEXT], backend[CFG_ADDRESS_TEXT],
		hex[2 * sizeof(f->fingerprint) + 1] = "";

	if (f->identified)
		identity_hex(f->fingerprint, sizeof(f->fingerprint), hex);
	fprintf(out, "id=%" PRIu64 "\tstage=%s\tage_ms=%" PRIu64, f->id, stages[f->stage],
		f->worker->timers.now - f->since);
	fprintf(out, "\tvserver=%s\tclient=%s\tservice=%s\tbackend=%s", f->vserver->name,
		flow_client_text(f, client), flow_service_name(f), flow_backend_text(f, backend));
	fprintf(out, "\tengine=%s\tclient_records=%s\tbackend_records=%s", engine_name(f),
		records_name(&f->client), records_name(&f->backend));
	fputs("\talpn=", out);
	escape_put(f->alpn, strlen(f->alpn), out);
	fprintf(out, "\tforged=%s\tidentity=%s",
		f->forged     ? "yes"
		: f->fallback ? "fallback"
			      : "no",
		hex);
	fprintf(out, "\tbytes_from_client=%" PRIu64 "\tbytes_from_backend=%" PRIu64 "\n",
		f->relay.from_client.bytes, f->relay.from_backend.bytes);
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
		records_name(&f->client), records_name(&f->backend));
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
