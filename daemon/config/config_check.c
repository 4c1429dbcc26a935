// SPDX-License-Identifier: Apache-2.0
/* Which settings belong together, and what follows from them: bindings of sockets, the number of
 * workers. */
#include "config/config_internal.h"

#include <arpa/inet.h>
#include <stdarg.h>
#include <string.h>
#include <strings.h>
#include "config/config.h"
#include "forge/forge.h"
#include "config/machine.h"
#include "config/own.h"

/* ---- checks of what belongs together ---- */

static void check_forging_ca(struct loader *l, const struct cfg_profile *p,
			     const struct cfg_certkey *ca)
{
	const struct cfg_key *forging = cfg_row("profile.<name>.forging_certkey");
	const char *unfit = NULL;
	char why[FORGE_WHY_MAX];

	if (ca->cert)
		unfit = forge_ca_unfit(&(struct forge_ca){.cert = ca->cert, .chain = ca->chain},
				       why);
	if (unfit)
		cfg_complain_at(l, forging, p->index,
				"%s cannot be a forging CA: %s; use a CA certificate that may "
				"sign client certificates, then the CAs above it in order",
				ca->cert_file, unfit);
	/* The data process holds serving keys; forging keys are to stay in the signer. */
	if (ca->serving)
		cfg_complain_at(
			l, forging, p->index,
			"%s is also the certkey of a vserver; the forging key needs a certkey "
			"of its own",
			ca->name);
}

static void check_ocsp(struct loader *l, const struct cfg_profile *p)
{
	const struct cfg_key *ocsp = cfg_row("profile.<name>.client_ocsp");

	if (p->client_ocsp != REVOCATION_OFF && !cfg_said(l, ocsp, p->index)->wrong &&
	    !cfg_said(l, cfg_row("profile.<name>.ocsp_responder"), p->index)->value &&
	    !cfg_said(l, cfg_row("profile.<name>.ocsp_aia"), p->index)->value)
		cfg_complain_at(
			l, ocsp, p->index,
			"nobody is there to be asked; set profile.%s.ocsp_responder or ocsp_aia",
			p->name);
}

void cfg_check_profiles(struct loader *l)
{
	const struct cfg_key *client_auth = cfg_row("profile.<name>.client_auth");
	const struct cfg_key *client_ca = cfg_row("profile.<name>.client_ca");
	const struct cfg_key *dynamic = cfg_row("profile.<name>.dynamic_client_cert");
	const struct cfg_key *forging = cfg_row("profile.<name>.forging_certkey");

	for_each_object (l->cfg, SCOPE_PROFILE, i) {
		const struct cfg_profile *p = l->cfg->profiles[i];

		cfg_check_fallback(l, p);
		if (p->tls_min > p->tls_max)
			cfg_complain_at(l, cfg_row("profile.<name>.tls_min"), i,
					"is newer than profile.%s.tls_max; no version is left, set "
					"tls_min = 1.2 or tls_max = 1.3",
					p->name);
		check_ocsp(l, p);
		if (p->client_auth != CLIENT_AUTH_OFF && !cfg_said(l, client_auth, i)->wrong &&
		    !cfg_said(l, client_ca, i)->value)
			cfg_complain_at(l, client_auth, i,
					"no CA to verify clients against; set profile.%s.client_ca",
					p->name);
		if (p->dynamic_client_cert && !cfg_said(l, dynamic, i)->wrong &&
		    !cfg_said(l, forging, i)->value)
			cfg_complain_at(l, dynamic, i,
					"no CA to forge with; set profile.%s.forging_certkey",
					p->name);
		for (unsigned c = 0; c < p->forging_certkeys.n; c++)
			check_forging_ca(l, p, p->forging_certkeys.items[c]);
	}
}

/* The data process holds its key: it must not be the signer's. */
static void check_monitor(struct loader *l, const struct cfg_service *s)
{
	const struct cfg_key *key = cfg_row("service.<name>.check_certkey");

	if (!s->check_certkey)
		return;
	if (s->check_certkey->forging)
		cfg_complain_at(
			l, key, s->index,
			"is a forging CA; the monitor needs a client certificate of its own");
	else if (s->check != CHECK_TLS)
		cfg_complain_at(l, key, s->index,
				"is shown by no check; set service.%s.check = tls, or leave it out",
				s->name);
}

/* What the client's handshake decides is not known when the connection is made early. */
static void check_send_proxy(struct loader *l, const struct cfg_service *s)
{
	if (s->send_proxy == SEND_PROXY_TLS && s->connect == CONNECT_EARLY)
		cfg_complain_at(l, cfg_row("service.<name>.send_proxy"), s->index,
				"the client's certificate is not known at its ClientHello; set "
				"service.%s.connect = verified, or send_proxy = on",
				s->name);
}

/* Which session may be offered is known when the client is verified, and the ClientHello has it. */
static void check_session_reuse(struct loader *l, const struct cfg_service *s)
{
	if (s->profile && s->profile->session_reuse && s->connect == CONNECT_EARLY)
		cfg_complain_at(
			l, cfg_row("service.<name>.profile"), s->index,
			"profile.%s.session_reuse is on, but who the client is is not known at "
			"its ClientHello; set service.%s.connect = verified, or session_reuse "
			"= off",
			s->profile->name, s->name);
	/* Who resumes shows no certificate to ask about. */
	if (s->profile && s->profile->session_reuse && s->profile->server_ocsp != REVOCATION_OFF)
		cfg_complain_at(
			l, cfg_row("service.<name>.profile"), s->index,
			"profile.%s.session_reuse does not go with server_ocsp, since a backend "
			"that resumes shows no certificate; set one of them to off",
			s->profile->name);
}

/* Kernel TLS is of TCP. */
static void check_unix(struct loader *l, const struct cfg_service *s)
{
	if (s->address.ss.ss_family == AF_UNIX && l->cfg->engine == ENGINE_KTLS)
		cfg_complain_at(
			l, cfg_row("service.<name>.address"), s->index,
			"kernel TLS does not exist on UNIX sockets; set dataplane.engine = auto");
}

void cfg_check_services(struct loader *l)
{
	const struct cfg_key *profile = cfg_row("service.<name>.profile");
	const struct cfg_key *server_ca = cfg_row("profile.<name>.server_ca");

	for_each_object (l->cfg, SCOPE_SERVICE, i) {
		const struct cfg_profile *p = l->cfg->services[i]->profile;

		if (p && !cfg_said(l, server_ca, p->index)->value)
			cfg_complain_at(l, profile, i,
					"this profile has no CA to verify the backend against; set "
					"profile.%s.server_ca",
					p->name);
		check_monitor(l, l->cfg->services[i]);
		check_send_proxy(l, l->cfg->services[i]);
		check_session_reuse(l, l->cfg->services[i]);
		check_unix(l, l->cfg->services[i]);
	}
}

static unsigned first_port(const struct cfg_listen *l)
{
	return ntohs(((const struct sockaddr_in *)&l->address.ss)->sin_port); /* in both families */
}

/* The same addresses, whatever the ports; of nested prefixes the longer one wins. */
static bool same_addresses(const struct cfg_listen *a, const struct cfg_listen *b)
{
	const struct sockaddr_in *a4 = (const struct sockaddr_in *)&a->address.ss,
				 *b4 = (const struct sockaddr_in *)&b->address.ss;
	const struct sockaddr_in6 *a6 = (const struct sockaddr_in6 *)&a->address.ss,
				  *b6 = (const struct sockaddr_in6 *)&b->address.ss;

	if (a->address.ss.ss_family != b->address.ss.ss_family || a->prefix_len != b->prefix_len)
		return false;
	if (a->address.ss.ss_family == AF_INET)
		return a4->sin_addr.s_addr == b4->sin_addr.s_addr;
	return IN6_ARE_ADDR_EQUAL(&a6->sin6_addr, &b6->sin6_addr);
}

static bool overlap(const struct cfg_listen *a, const struct cfg_listen *b)
{
	return same_addresses(a, b) && first_port(a) <= b->last_port &&
	       first_port(b) <= a->last_port;
}

/* The vserver, i or one before it, that takes what the n-th element of i's list would. */
static const struct cfg_vserver *listens_there(const struct loader *l, unsigned i, unsigned n)
{
	const struct cfg_listen *wanted = &l->cfg->vservers[i]->listen.list[n];

	for (unsigned j = 0; j <= i; j++) {
		const struct cfg_listens *taken = &l->cfg->vservers[j]->listen;

		for (unsigned m = 0; m < (j == i ? n : taken->n); m++) {
			if (overlap(wanted, &taken->list[m]))
				return l->cfg->vservers[j];
		}
	}
	return NULL;
}

static void check_listens(struct loader *l, const struct cfg_key *listen, unsigned i)
{
	const struct cfg_vserver *v = l->cfg->vservers[i], *other = NULL;

	if (cfg_said(l, listen, i)->wrong)
		return;
	for (unsigned n = 0; n < v->listen.n && !other; n++)
		other = listens_there(l, i, n);
	if (other == v)
		cfg_complain_at(l, listen, i, "names an address and port twice; once is enough");
	else if (other)
		cfg_complain_at(l, listen, i,
				"vserver.%s listens there already; use another address or port",
				other->name);
}

/* By which profile a service forges; NULL: it does not. */
static const struct cfg_profile *forging_profile(const struct cfg_service *s)
{
	return s->profile && s->profile->dynamic_client_cert ? s->profile : NULL;
}

static void complain_disagreement(struct loader *l, const struct cfg_vserver *v,
				  const struct cfg_service *forges, const struct cfg_service *other)
{
	const struct cfg_profile *p = forging_profile(other);

	cfg_complain_at(
		l, cfg_row("vserver.<name>.service"), v->index,
		"service.%s forges by profile.%s, and service.%s %s%s; give all services of a "
		"vserver the same forging profile, or make another vserver",
		forges->name, forges->profile->name, other->name, p ? "by profile." : "does not",
		p ? p->name : "");
}

/* A certificate that was forged for one service is shown to another, should that one fail. */
static void check_agreement(struct loader *l, const struct cfg_vserver *v)
{
	for (unsigned i = 1; i < v->services.n; i++) {
		const struct cfg_service *first = cfg_service_at(v, 0), *s = cfg_service_at(v, i);
		bool first_forges = forging_profile(first);

		if (!first->profile || !s->profile || forging_profile(s) == forging_profile(first))
			continue;
		complain_disagreement(l, v, first_forges ? first : s, first_forges ? s : first);
		return;
	}
}

/* A service that forges needs clients with a certificate. */
static void check_forging(struct loader *l, const struct cfg_vserver *v)
{
	const struct cfg_service *first = v->services.n ? cfg_service_at(v, 0) : NULL;
	const struct cfg_profile *back = first ? first->profile : NULL;

	check_agreement(l, v);
	if (!v->profile || !back || !back->dynamic_client_cert ||
	    v->profile->client_auth != CLIENT_AUTH_OFF ||
	    cfg_said(l, cfg_row("profile.<name>.client_auth"), v->profile->index)->wrong)
		return;
	cfg_complain_at(
		l, cfg_row("vserver.<name>.profile"), v->index,
		"profile.%s.client_auth is off, but profile.%s of service.%s forges from client "
		"certificates (dynamic_client_cert); set profile.%s.client_auth = mandatory",
		v->profile->name, back->name, first->name, v->profile->name);
}

/* The client's ClientHello waits for the backend's choice: there must be a backend by then. */
static void check_mirror(struct loader *l, const struct cfg_vserver *v)
{
	for (unsigned i = 0; v->profile && v->profile->alpn.mirror && i < v->services.n; i++) {
		const struct cfg_service *s = cfg_service_at(v, i);

		if (s->connect == CONNECT_EARLY)
			continue;
		cfg_complain_at(
			l, cfg_row("vserver.<name>.profile"), v->index,
			"profile.%s.alpn is mirror, but service.%s.connect is verified: the "
			"backend's choice comes too late; set service.%s.connect = early, or "
			"alpn to a list",
			v->profile->name, s->name, s->name);
		return;
	}
}

/* Anybody could claim to be anybody. */
static void check_accept_proxy(struct loader *l, const struct cfg_vserver *v)
{
	if (v->accept_proxy && !cfg_said(l, cfg_row("vserver.<name>.proxy_from"), v->index)->value)
		cfg_complain_at(
			l, cfg_row("vserver.<name>.accept_proxy"), v->index,
			"nobody is trusted to tell; set vserver.%s.proxy_from to the addresses "
			"of the proxies",
			v->name);
}

/* It would connect to itself, and that connection to itself again. */
void cfg_check_own_addresses(struct loader *l)
{
	const struct cfg_key *address = cfg_row("service.<name>.address");

	for_each_object (l->cfg, SCOPE_SERVICE, i) {
		const struct cfg_address *a = &l->cfg->services[i]->address;
		const struct cfg_vserver *v = own_vserver(l->cfg, (const struct sockaddr *)&a->ss);

		if (v && !cfg_said(l, address, i)->wrong)
			cfg_complain_at(
				l, address, i,
				"vserver.%s listens there, so connections would come back to this "
				"gate; name the address of the backend itself",
				v->name);
	}
}

void cfg_check_vservers(struct loader *l)
{
	const struct cfg_key *listen = cfg_row("vserver.<name>.listen");

	if (!l->cfg->n_vservers)
		cfg_complain(&l->report, (struct cfg_where){0},
			     "there is no vserver; define at least one: %s = 0.0.0.0:8443 ...",
			     listen->pattern);
	for_each_object (l->cfg, SCOPE_VSERVER, i) {
		check_listens(l, listen, i);
		check_accept_proxy(l, l->cfg->vservers[i]);
		check_forging(l, l->cfg->vservers[i]);
		check_mirror(l, l->cfg->vservers[i]);
	}
}

/* ---- workers ---- */

/* One for each CPU that is named. */
void cfg_settle_workers(struct loader *l)
{
	const struct cfg_key *workers = cfg_row("dataplane.workers");
	const char *value = cfg_said(l, workers, 0)->value;
	struct config *cfg = l->cfg;

	if (!cfg->cpus.n || cfg_said(l, workers, 0)->wrong ||
	    cfg_said(l, cfg_row("dataplane.cpus"), 0)->wrong)
		return;
	if (!value || !strcasecmp(value, workers->word))
		cfg->workers = cfg->cpus.n;
	else if (cfg->workers != cfg->cpus.n)
		cfg_complain_at(
			l, workers, 0,
			"dataplane.cpus has %u CPU%s, each of which gets one worker; set it to "
			"auto",
			cfg->cpus.n, cfg->cpus.n == 1 ? "" : "s");
}

/* ---- limits ---- */

void cfg_settle_limits(struct config *cfg)
{
	struct machine m;

	machine_look(&m);
	machine_settle_limits(&m, cfg);
}

/* ---- sockets ---- */

/*
 * What is looked up needs a socket that only sk_lookup leads to: it is bound where no packet can
 * be addressed to, IPv4's dummy address (RFC 7600) and IPv6's discard prefix (RFC 6666), at a port
 * that the kernel chooses.
 */
static struct cfg_address nowhere(int family)
{
	struct cfg_address a = {.len = sizeof(struct sockaddr_in)};

	if (family == AF_INET6) {
		a.len = sizeof(struct sockaddr_in6);
		inet_pton(family, "100::1", &((struct sockaddr_in6 *)&a.ss)->sin6_addr);
	} else {
		inet_pton(family, "192.0.0.8", &((struct sockaddr_in *)&a.ss)->sin_addr);
	}
	a.ss.ss_family = family;
	return a;
}

static bool bind_to(struct config *cfg, struct cfg_vserver *v, const struct cfg_address *address,
		    bool looked_up)
{
	struct cfg_binding *more = reallocarray(cfg->bindings, cfg->n_bindings + 1, sizeof(*more));

	if (!more)
		return false;
	cfg->bindings = more;
	more[cfg->n_bindings++] = (struct cfg_binding){v, *address, looked_up, 0};
	return true;
}

/* For all of a vserver's looked-up addresses of a family one binding does. */
static bool bind_vserver(struct config *cfg, struct cfg_vserver *v)
{
	bool four = false, six = false;

	for (unsigned i = 0; i < v->listen.n; i++) {
		const struct cfg_listen *l = &v->listen.list[i];
		int family = l->address.ss.ss_family;
		bool *done = family == AF_INET6 ? &six : &four;
		struct cfg_address address = l->looked_up ? nowhere(family) : l->address;

		if (l->looked_up && *done)
			continue;
		*done = *done || l->looked_up;
		if (!bind_to(cfg, v, &address, l->looked_up))
			return false;
	}
	return true;
}

void cfg_derive_bindings(struct loader *l)
{
	for_each_object (l->cfg, SCOPE_VSERVER, i) {
		if (!bind_vserver(l->cfg, l->cfg->vservers[i]))
			l->report.out_of_memory = true;
	}
}
