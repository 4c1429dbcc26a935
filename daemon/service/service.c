/* SPDX-License-Identifier: Apache-2.0 */
/* Successes and failures of services and what follows; see service.h. Knows no flow and no worker.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/escape.h"
#include "base/log.h"
#include "service/service.h"

#define LOAD(member)	 atomic_load_explicit(&(member), memory_order_relaxed)
#define STORE(member, v) atomic_store_explicit(&(member), (v), memory_order_relaxed)
#define ADD(member, v)	 atomic_fetch_add_explicit(&(member), (v), memory_order_relaxed)
#define SLOW_START_LEAST (SERVICE_WHOLE / 10)
#define EJECT_DOUBLINGS	 16
#define TELL_MS		 60000

static const char *const state_names[SERVICE_STATES] = {"up", "down", "ejected", "draining"};

struct service *services_new(const struct config *cfg, const struct resolved *resolved)
{
	struct service *services = calloc(cfg->n_services + 1, sizeof(*services));

	for (unsigned i = 0; services && i < cfg->n_services; i++) {
		services[i].cfg = cfg->services[i];
		services[i].resolved = cfg->services[i]->host[0] ? resolved : NULL;
		STORE(services[i].draining, cfg->services[i]->drain);
		pthread_mutex_init(&services[i].lock, NULL);
	}
	return services;
}

void services_free(struct service *services)
{
	free(services);
}

bool service_address(const struct service *s, unsigned turn, struct cfg_address *out)
{
	struct resolved_addresses a;

	if (!s->resolved) {
		*out = s->cfg->address;
		return !turn;
	}
	resolved_get(s->resolved, s->cfg, &a, NULL);
	if (turn >= a.n)
		return false;
	*out = (struct cfg_address){.len = a.list[turn].sin6_family == AF_INET6
						   ? sizeof(struct sockaddr_in6)
						   : sizeof(struct sockaddr_in)};
	memcpy(&out->ss, &a.list[turn], sizeof(a.list[turn]));
	return true;
}

enum service_state service_state(const struct service *s, uint64_t now)
{
	if (LOAD(s->draining))
		return SERVICE_DRAINING;
	if (LOAD(s->down))
		return SERVICE_DOWN;
	return LOAD(s->ejected_until) > now ? SERVICE_EJECTED : SERVICE_UP;
}

uint64_t service_weight(const struct service *s, uint64_t now)
{
	uint64_t since = LOAD(s->up_since), whole = s->cfg->slow_start * 1000ull, part;

	if (!since || now - since >= whole)
		return (uint64_t)s->cfg->weight * SERVICE_WHOLE;
	part = SERVICE_WHOLE * (now - since) / whole;
	return s->cfg->weight * (part > SLOW_START_LEAST ? part : SLOW_START_LEAST);
}

void service_acquire(struct service *s)
{
	ADD(s->flows, 1);
	ADD(s->connections, 1);
}

void service_release(struct service *s)
{
	ADD(s->flows, (uint64_t)-1);
}

bool service_take_early(struct service *s)
{
	uint32_t most = s->cfg->early_connects;

	if (ADD(s->early, 1) < most || !most)
		return true;
	ADD(s->early, (uint32_t)-1);
	return false;
}

void service_end_early(struct service *s)
{
	ADD(s->early, (uint32_t)-1);
}

void service_early_waits(struct service *s)
{
	ADD(s->early_waits, 1);
}

static void note_error(struct service *s, const char *why)
{
	pthread_mutex_lock(&s->lock);
	snprintf(s->last_error, sizeof(s->last_error), "%s", why);
	pthread_mutex_unlock(&s->lock);
}

/* ---- what flows meet ---- */

void service_worked(struct service *s, uint64_t now)
{
	/* Mostly zero already: then nobody's cache line is taken away. */
	if (!LOAD(s->streak) && !LOAD(s->suspicion_row))
		return;
	STORE(s->streak, 0);
	STORE(s->suspicion_row, 0);
	if (atomic_exchange(&s->told, false))
		log_info("service %s: answers again", s->cfg->name);
	if (atomic_exchange(&s->ejected_in_row, 0))
		STORE(s->up_since, now);
	STORE(s->ejected_until, 0);
}

static uint64_t eject_ms(const struct service *s, uint32_t in_row)
{
	uint64_t ms = s->cfg->eject_time * 1000ull, most = s->cfg->eject_time_max * 1000ull;

	ms <<= in_row < EJECT_DOUBLINGS ? in_row : EJECT_DOUBLINGS;
	return ms < most ? ms : most;
}

/* One of the workers that meet the limit at the same time does it. */
static void eject(struct service *s, const char *why, uint64_t now)
{
	uint64_t until = LOAD(s->ejected_until), ms;

	if (until > now)
		return;
	ms = eject_ms(s, LOAD(s->ejected_in_row));
	if (!atomic_compare_exchange_strong(&s->ejected_until, &until, now + ms))
		return;
	ADD(s->ejected_in_row, 1);
	ADD(s->ejections, 1);
	log_warn("service %s: ejected for %" PRIu64 " s after %u failures in a row: %s",
		 s->cfg->name, ms / 1000, LOAD(s->streak) + LOAD(s->suspicion_row), why);
}

void service_failed(struct service *s, const char *why, uint64_t now)
{
	uint32_t streak = ADD(s->streak, 1) + 1;

	ADD(s->failures, 1);
	note_error(s, why);
	if (streak == 1 && !atomic_exchange(&s->told, true))
		log_warn("service %s: %s", s->cfg->name, why);
	if (s->cfg->eject_after && streak >= s->cfg->eject_after)
		eject(s, why, now);
}

/* Clients can cause them, with successes in between: so not every row of them is logged. */
static void tell_suspicion(struct service *s, const char *why, uint64_t now)
{
	uint64_t last = LOAD(s->told_at);

	if ((last && now - last < TELL_MS) ||
	    !atomic_compare_exchange_strong(&s->told_at, &last, now))
		return;
	if (!atomic_exchange(&s->told, true))
		log_warn("service %s: %s", s->cfg->name, why);
}

bool service_suspected(struct service *s, const char *why, uint64_t now)
{
	uint32_t row = ADD(s->suspicion_row, 1) + 1;

	ADD(s->failures, 1);
	ADD(s->suspicions, 1);
	note_error(s, why);
	tell_suspicion(s, why, now);
	return s->cfg->eject_after && row >= s->cfg->eject_after &&
	       !atomic_exchange(&s->suspected, true);
}

void service_confirmed(struct service *s, const char *why, uint64_t now)
{
	ADD(s->checks, 1);
	if (!why) {
		STORE(s->suspicion_row, 0);
		return;
	}
	ADD(s->checks_failed, 1);
	note_error(s, why);
	eject(s, why, now);
}

/* ---- what checks find ---- */

/* The first check decides alone: a gate that starts does not send clients to the dead. */
static bool changes_verdict(struct service *s, bool well)
{
	bool first = !s->checked;

	s->checked = true;
	if (well != LOAD(s->down)) {
		s->check_row = 0;
		return false;
	}
	s->check_row++;
	return first || s->check_row >= (well ? s->cfg->check_rise : s->cfg->check_fall);
}

void service_checked(struct service *s, const char *why, uint64_t now)
{
	ADD(s->checks, 1);
	if (why) {
		ADD(s->checks_failed, 1);
		note_error(s, why);
	}
	if (!changes_verdict(s, !why))
		return;
	s->check_row = 0;
	if (!why)
		STORE(s->up_since, now);
	STORE(s->down, why != NULL);
	if (why)
		log_warn("service %s: down: %s", s->cfg->name, why);
	else
		log_info("service %s: up", s->cfg->name);
}

void service_drain(struct service *s, bool drain)
{
	if (atomic_exchange(&s->draining, drain) != drain)
		log_info("service %s: %s", s->cfg->name,
			 drain ? "draining: no new connections" : "no longer draining");
}

/* ---- for the control socket ---- */

static uint64_t resolve_failures(const struct service *s, uint64_t now)
{
	struct resolved_addresses ignored;
	uint64_t n = 0;

	(void)now;
	if (s->resolved)
		resolved_get(s->resolved, s->cfg, &ignored, &n);
	return n;
}

static uint64_t own_addresses(const struct service *s, uint64_t now)
{
	(void)now;
	return s->resolved ? resolved_own(s->resolved, s->cfg) : 0;
}

static void print_service(struct service *s, uint64_t now, FILE *out)
{
	char text[CFG_ADDRESS_TEXT] = "unresolved", last_error[sizeof(s->last_error)];
	struct cfg_address address;

	if (service_address(s, 0, &address))
		cfg_address_text(&address.ss, text);
	fprintf(out, "service=%s\taddress=%s", s->cfg->name, text);
	fprintf(out, "\tstate=%s\tweight=%u\tflows=%" PRIu64 "\tconnections=%" PRIu64,
		state_names[service_state(s, now)], s->cfg->weight, LOAD(s->flows),
		LOAD(s->connections));
	fprintf(out, "\tearly=%" PRIu32 "\tearly_waits=%" PRIu64, LOAD(s->early),
		LOAD(s->early_waits));
	fprintf(out, "\tfailures=%" PRIu64 "\tsuspicions=%" PRIu64 "\tejections=%" PRIu64,
		LOAD(s->failures), LOAD(s->suspicions), LOAD(s->ejections));
	fprintf(out, "\tchecks=%" PRIu64 "\tchecks_failed=%" PRIu64, LOAD(s->checks),
		LOAD(s->checks_failed));
	fprintf(out, "\tresolve_failures=%" PRIu64 "\town_addresses=%" PRIu64,
		resolve_failures(s, now), own_addresses(s, now));
	/* A worker must not wait until it is written. */
	pthread_mutex_lock(&s->lock);
	memcpy(last_error, s->last_error, sizeof(last_error));
	pthread_mutex_unlock(&s->lock);
	fputs("\tlast_error=", out);
	escape_put(last_error, strlen(last_error), out);
	putc('\n', out);
}

void services_print(struct service *services, unsigned n, uint64_t now, FILE *out)
{
	for (unsigned i = 0; i < n; i++)
		print_service(&services[i], now, out);
}

static uint64_t usable(const struct service *s, uint64_t now)
{
	return service_state(s, now) == SERVICE_UP;
}

#define COUNTER(name)                                                                              \
	static uint64_t get_##name(const struct service *s, uint64_t now)                          \
	{                                                                                          \
		(void)now;                                                                         \
		return LOAD(s->name);                                                              \
	}
COUNTER(flows)
COUNTER(connections)
COUNTER(early)
COUNTER(early_waits)
COUNTER(failures)
COUNTER(suspicions)
COUNTER(ejections)
COUNTER(checks)
COUNTER(checks_failed)
#undef COUNTER

void services_write_metrics(const struct service *services, unsigned n, uint64_t now, FILE *out)
{
	static const struct {
		const char *name, *kind, *help;
		uint64_t (*get)(const struct service *s, uint64_t now);
	} families[] = {
		{"usable", "gauge", "1: up, and neither ejected nor draining", usable},
		{"flows", "gauge", "connections of flows to the service now", get_flows},
		{"connections_total", "counter", "connections begun for flows", get_connections},
		{"early", "gauge", "of those now: for clients that are not verified yet",
		 get_early},
		{"early_waits_total", "counter",
		 "flows that had to wait, for service.<n>.early_connects", get_early_waits},
		{"failures_total", "counter", "connections that came to nothing", get_failures},
		{"suspicions_total", "counter",
		 "of those: connected, and no ServerHello, which a client can cause",
		 get_suspicions},
		{"ejections_total", "counter", "times it was avoided for a while", get_ejections},
		{"checks_total", "counter", "health checks", get_checks},
		{"checks_failed_total", "counter", "health checks that failed", get_checks_failed},
		{"resolve_failures_total", "counter", "failed look-ups of its name",
		 resolve_failures},
		{"own_addresses_total", "counter",
		 "addresses of its name left out, since this gate listens there", own_addresses},
	};

	for (size_t f = 0; f < ARRAY_SIZE(families); f++) {
		fprintf(out, "# HELP ktlsgate_service_%s %s\n# TYPE ktlsgate_service_%s %s\n",
			families[f].name, families[f].help, families[f].name, families[f].kind);
		for (unsigned i = 0; i < n; i++)
			fprintf(out, "ktlsgate_service_%s{service=\"%s\"} %" PRIu64 "\n",
				families[f].name, services[i].cfg->name,
				families[f].get(&services[i], now));
	}
}
