/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The configuration: one table of keys (config_table.c), one immutable struct.
 *
 * Text format as in sysctl.conf(5): `a.b.c = value`, '#' starts a comment at
 * the start of a line or after white space, a later assignment replaces.
 * Object names are [A-Za-z0-9_-]+. Read are FILE, then, of a FILE that is named
 * X.conf, X.d/ *.conf in the order of strcmp(3), then what is assigned at run time.
 *
 * Everything here is public data except struct cfg_certkey.pkey. Keys of
 * forging certkeys are only ever loaded by the signer, and by a process that
 * checks the configuration and ends: see config_check().
 */
#ifndef KTLSGATE_CONFIG_H
#define KTLSGATE_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <openssl/ssl.h>
#include "tls/alpn.h"
#include "forge/forge_rules.h"
#include "base/log.h"
#include "base/sockopt.h"
#include "pki/staple.h"
#include "pki/verify.h"

/* Where a value was assigned; file is owned by the struct config. line 0: a default. */
struct cfg_where {
	const char *file;
	unsigned source; /* position among the texts read, in their order */
	unsigned line;
};

/* A connection beyond limit.flows is reset, left in the backlog, or takes an idle one's place;
 * one beyond limit.memory is reset or left there. */
enum cfg_when_full {
	WHEN_FULL_REFUSE,
	WHEN_FULL_QUEUE,
	WHEN_FULL_CLOSE_IDLE,
};

/* A limit that the machine decides; only until the configuration is loaded. */
#define CFG_AUTO UINT32_MAX

enum cfg_engine {
	ENGINE_AUTO,
	ENGINE_KTLS,
	ENGINE_USER
};
enum cfg_relay {
	RELAY_SPLICE,
	RELAY_COPY
};
enum cfg_steering {
	STEERING_CPU,
	STEERING_HASH,
	STEERING_LOAD
};
enum cfg_audit_sync {
	AUDIT_SYNC_NONE,
	AUDIT_SYNC_EACH
};
enum cfg_client_auth {
	CLIENT_AUTH_OFF,
	CLIENT_AUTH_OPTIONAL,
	CLIENT_AUTH_MANDATORY
};
enum cfg_connect {
	CONNECT_EARLY,
	CONNECT_VERIFIED
};
enum cfg_send_proxy {
	SEND_PROXY_OFF,
	SEND_PROXY_ON,
	SEND_PROXY_TLS
};
enum cfg_check {
	CHECK_OFF,
	CHECK_CONNECT,
	CHECK_TLS
};
enum cfg_balance {
	BALANCE_ROUND_ROBIN,
	BALANCE_LEAST_CONNECTIONS,
	BALANCE_SOURCE_HASH
};

enum cfg_sni {
	SNI_FIXED,
	SNI_MIRROR
};
/* Which keys the forged certificates of a profile may have; AUTO: what the backend accepts. */
enum cfg_forge_key {
	FORGE_KEY_AUTO,
	FORGE_KEY_P256,
	FORGE_KEY_RSA2048
};
/* The backend's CA names hold none of the forging CAs. */
enum cfg_no_matching_ca {
	NO_MATCHING_CA_SEND,
	NO_MATCHING_CA_FAIL
};

/* profile.<name>.forge.* */
struct cfg_forge {
	unsigned lifespan; /* seconds; 0: forge.lifespan */
	enum forge_start start;
	enum cfg_forge_key key;
	enum cfg_no_matching_ca no_matching_ca;
	char *text[FORGE_SETTINGS]; /* as written; NULL: unset */
	char *sid_issuers_file;
	struct cfg_where sid_issuers_where;
	STACK_OF(X509) * sid_issuers;
	struct forge_rules *rules; /* all of that */
};

/* Socket address with its length; len 0: not set. */
struct cfg_address {
	struct sockaddr_storage ss;
	socklen_t len;
};

/* What a list of references names, in its order; the objects are borrowed. */
struct cfg_list {
	void **items;
	unsigned n;
};

/*
 * Where a vserver listens: a local address, or with prefix or ports more of them. One address and
 * one port, or any address and one port, is a socket's to bind; the rest is found by sk_lookup.
 */
struct cfg_listen {
	struct cfg_address address; /* with the first port; no bit behind the prefix is set */
	unsigned prefix_len;	    /* of 32 or 128; 0 for any address */
	in_port_t last_port;	    /* host order */
	bool looked_up;		    /* by sk_lookup, so needs BPF */
};

struct cfg_listens {
	struct cfg_listen *list;
	unsigned n;
};

/* Of source addresses; no bit behind the prefix is set. */
struct cfg_prefix {
	int family;
	unsigned len;
	uint8_t address[16]; /* network order; IPv4: the first four */
};

/* In the order of the workers, each pinned to one. n 0: they are not pinned. */
struct cfg_cpus {
	unsigned *list;
	unsigned n;
};

struct cfg_prefixes {
	struct cfg_prefix *list;
	unsigned n;
};

/* One socket per worker. Derived from what the vservers listen on. */
struct cfg_binding {
	struct cfg_vserver *vserver;
	struct cfg_address address;
	bool looked_up; /* no packet is for this address: those for the vserver are brought here */
	unsigned group; /* number of its sockets, the same in each configuration: see listener.h */
};

/* certkey.<name>.policy.*: for whom a forging CA may be used. NULL and 0: no restriction. */
struct cfg_ca_policy {
	char *client_ca_file;
	struct cfg_where client_ca_where;
	STACK_OF(X509) * client_ca;
	char *names;	     /* patterns, see name_pattern.h, separated by blanks */
	char *trust_domains; /* separated by blanks */
	unsigned lifespan;   /* seconds */
	unsigned rate;	     /* certificates a minute */
};

struct cfg_certkey {
	char *name;
	unsigned index;	 /* position in config.certkeys */
	char *cert_file; /* PEM: leaf first, then the chain to send */
	char *key_file;	 /* PEM private key, or a PKCS#11 URI */
	char *passphrase_file;
	char *ocsp_response_file; /* DER */
	struct cfg_where cert_where, key_where;
	X509 *cert;		/* leaf */
	STACK_OF(X509) * chain; /* the rest of cert_file, in order */
	struct staple staple;	/* ocsp_response_file */
	EVP_PKEY *pkey;		/* NULL until config_load_keys() */
	bool forging;		/* named by some profile.<n>.forging_certkey */
	bool serving;		/* named by some vserver.<n>.certkey */
	bool monitor;		/* named by some service.<n>.check_certkey */
	/* what its forged certificates say of it: URIs separated by blanks, or NULL */
	char *ocsp, *ca_issuers, *crl;
	struct cfg_ca_policy policy;
};

/* Application protocols. list NULL and no mirror: off. */
struct cfg_alpn {
	uint8_t *list; /* as in alpn.h */
	unsigned len;
	bool mirror;
};

/* How it is found out whether certificates of one side were revoked. */
struct cfg_revocation {
	char *crl_files; /* separated by white space */
	struct cfg_where crl_where, crl_check_where;
	enum verify_revocation crl_check;
	STACK_OF(X509_CRL) * crls; /* of all files */
};

struct cfg_profile {
	char *name;
	unsigned index;
	struct verify_policy verify; /* of whom the profile is about; see config_policy() */
	struct cfg_revocation client_revocation, server_revocation;
	/* both sides */
	unsigned tls_min, tls_max; /* TLS1_2_VERSION, TLS1_3_VERSION */
	struct cfg_where tls_min_where;
	/* As OpenSSL takes them: names between colons. */
	char *ciphers;	    /* TLS 1.2 */
	char *ciphersuites; /* TLS 1.3 */
	char *groups;
	enum verify_revocation client_ocsp, server_ocsp;
	struct cfg_where client_ocsp_where;
	char *ocsp_responder;  /* URL, see cfg_http_address() */
	char *ocsp_aia;	       /* see cfg_aia_address(); NULL: no certificate says who is asked */
	unsigned ocsp_timeout; /* seconds */
	unsigned ticket_lifetime; /* seconds */
	/* front */
	enum cfg_client_auth client_auth;
	struct cfg_where client_auth_where;
	char *client_ca_file; /* PEM bundle */
	struct cfg_where client_ca_where;
	STACK_OF(X509) * client_ca;
	bool announce_ca_names;
	bool session_tickets;
	struct cfg_alpn alpn;
	struct cfg_where alpn_where;
	/* back */
	bool session_reuse;
	bool dynamic_client_cert;
	struct cfg_where dynamic_client_cert_where;
	struct cfg_list forging_certkeys; /* struct cfg_certkey */
	char *server_ca_file;
	struct cfg_where server_ca_where;
	STACK_OF(X509) * server_ca;
	bool require_certificate_request;
	struct cfg_certkey *fallback_certkey; /* shown where nothing can be forged; or NULL */
	struct cfg_forge forge;
};

struct cfg_service {
	char *name;
	unsigned index;
	struct cfg_address address;
	char host[254];		   /* in its place: to be resolved; or empty */
	in_port_t port;		   /* network order; of host */
	unsigned resolve_interval; /* seconds */
	char *server_name; /* verified (RFC 9525) and, unless the client's is, sent as SNI */
	enum cfg_sni sni;
	struct cfg_profile *profile;
	enum cfg_connect connect;
	unsigned early_connects; /* for clients not verified yet, at a time; 0: no limit */
	unsigned weight;
	bool backup; /* for when no other service of the vserver can be used */
	bool drain;  /* gets no new connection */
	enum cfg_send_proxy send_proxy;
	enum cfg_check check;
	struct cfg_certkey *check_certkey; /* shown to a backend that asks; or NULL */
	unsigned check_rise, check_fall;   /* checks in a row that change the verdict */
	unsigned eject_after;		   /* failed connects in a row; 0: never */
	/* seconds */
	unsigned check_interval, check_timeout;
	unsigned eject_time, eject_time_max; /* out for so long, doubled each time in a row */
	unsigned slow_start;		     /* from up again to its full share */
};

struct cfg_vserver {
	char *name;
	unsigned index;
	struct cfg_listens listen;
	struct cfg_where listen_where;
	bool shield;
	struct cfg_list certkeys; /* struct cfg_certkey; the first is the default */
	struct cfg_where certkeys_where;
	bool allow_unknown_sni;
	struct cfg_profile *profile;
	/* At least one; all forge by the same profile, or none does. */
	struct cfg_list services; /* of struct cfg_service */
	enum cfg_balance balance;
	unsigned retries;   /* on another service, after a failed connect */
	unsigned max_flows; /* 0: no limit */
	bool accept_proxy;
	struct cfg_prefixes proxy_from;
};

/* Is the address, AF_INET or AF_INET6, in one of the prefixes? */
bool cfg_prefixes_hold(const struct cfg_prefixes *p, const struct sockaddr *sa);

/* Clears the bits behind a prefix, of an address of len bytes. True if one was set. */
bool cfg_mask_bits(uint8_t *bytes, unsigned len, unsigned prefix_len);

/* "192.0.2.1:443", "[2001:db8::1]:443", "unix:/path" */
#define CFG_ADDRESS_TEXT 128
const char *cfg_address_text(const void *sockaddr, char out[CFG_ADDRESS_TEXT]);

static inline struct cfg_service *cfg_service_at(const struct cfg_vserver *v, unsigned i)
{
	return v->services.items[i];
}

struct cfg_origin; /* config_load.c's notes for config_print_origins() */

struct config {
	char **files; /* names of the texts read: the main file first */
	unsigned n_files;
	struct cfg_origin *origins;
	unsigned n_origins;
	enum cfg_engine engine;
	enum cfg_relay relay;
	unsigned workers; /* resolved: never 0 */
	struct cfg_cpus cpus;
	enum cfg_steering steering;
	/* NULL: keep the user we were started as; see config_user() */
	char *user, *signer_user, *resolver_user;
	char *bpf_dir;	      /* where maps are pinned; NULL: off */
	char *control_socket; /* path */
	unsigned control_mode;
	char *control_group; /* NULL: our own */
	enum log_level log_level;
	unsigned watch;	 /* seconds between two looks at files that others change; 0: none */
	char *log_flows; /* path; NULL: off */
	/* seconds */
	unsigned handshake_timeout;	    /* client: accept to last handshake message */
	unsigned hello_timeout;		    /* client: to the end of its ClientHello */
	unsigned backend_handshake_timeout; /* backend: connect to last handshake message, waits for
					       the client excluded */
	unsigned connect_timeout;
	unsigned key_limit;	/* MiB sent under one AES-GCM key */
	unsigned idle_timeout;	/* no byte in either direction; 0: never */
	unsigned keepalive;	/* silence before a peer is probed; 0: never */
	unsigned drain_timeout; /* at close: how long accepted bytes may take to leave */
	struct sockopt client_socket, backend_socket;
	unsigned backlog; /* of each listening socket */
	/* connections at a time; 0: no limit */
	unsigned limit_flows;
	unsigned limit_when_full; /* enum cfg_when_full */
	unsigned limit_memory;	  /* MiB allocated; 0: no limit */
	unsigned limit_idle;	  /* s: who has been idle for less is not ended for others */
	unsigned limit_handshakes;
	unsigned limit_handshakes_per_source;
	unsigned limit_handshake_size; /* KiB of a client's handshake */
	unsigned limit_flows_per_source;
	unsigned limit_prefix4, limit_prefix6; /* bits of an address that make a source */
	unsigned log_rate;	 /* lines a second, of one kind, of one worker; 0: all */
	unsigned forge_lifespan; /* seconds a forged certificate lives at most */
	unsigned forge_cache;	 /* entries */
	unsigned session_cache;	 /* entries */
	unsigned forge_rsa_keys; /* kept ready */
	unsigned forge_queue;	 /* requests a worker keeps for the signer */
	char *audit_log;	 /* path; NULL: off */
	enum cfg_audit_sync audit_sync;
	unsigned shield_rate; /* connections per second of a source; 0: no limit */
	unsigned shield_burst;
	unsigned shield_prefix4, shield_prefix6; /* bits of an address that make a source */
	unsigned shield_sources;		 /* entries */
	struct cfg_prefixes shield_deny;

	struct cfg_certkey **certkeys;
	unsigned n_certkeys;
	struct cfg_profile **profiles;
	unsigned n_profiles;
	struct cfg_service **services;
	unsigned n_services;
	struct cfg_vserver **vservers;
	unsigned n_vservers;
	struct cfg_binding *bindings;
	unsigned n_bindings;
};

/*
 * The texts of a configuration, each with the name that errors in it begin with.
 * They are kept, so that what is checked is what is loaded, and that an
 * assignment at run time changes what runs and not what was edited since.
 */
struct cfg_text {
	char *name;
	char *text; /* NUL-terminated; may hold others, which are then complained about */
	size_t len;
};
/* A file of certificates, CRLs or an OCSP response that the texts name, as it was read. */
struct cfg_file {
	const char *path;
	const void *data;
	size_t len;
};
struct cfg_texts {
	struct cfg_text *list;
	unsigned n;
	char *crl_history; /* of what ran before, see crl_history.h; NULL: nothing did */
	/* By path, of config_texts_unseal(). Others are read when the texts are loaded. */
	struct cfg_file *files;
	unsigned n_files;
	const void *sealed; /* where files[].data is */
	size_t sealed_len;
};

/* Reads path and the files of its directory. Errors as in config_load(). NUL-safe to free then. */
int config_read(const char *path, FILE *errors, struct cfg_texts *out) must_check;
/* Copies name and text to the end. -ENOMEM */
int config_texts_add(struct cfg_texts *t, const char *name, const char *text,
		     size_t len) must_check;
int config_texts_copy(const struct cfg_texts *t, struct cfg_texts *out) must_check;
void config_texts_free(struct cfg_texts *t);
/* The file that was read from path; NULL: none was. */
const struct cfg_file *config_texts_file(const struct cfg_texts *t, const char *path);
/*
 * All of them in sealed memory, for processes that are executed, with each readable file that they
 * name but those of keys: its descriptor, or -errno. No byte of these files comes into
 * memory of ours. And what is in there; fd is closed. -errno
 */
int config_texts_seal(const struct cfg_texts *t) must_check;
int config_texts_unseal(int fd, struct cfg_texts *out) must_check;

/*
 * Loads every certificate and CA file that is named (no private key)
 * and checks everything that can be checked without keys. Each error is
 * printed to errors as one line
 *     FILE:LINE: KEY = VALUE: what is wrong; what would be right
 * and all errors are found in one run. Returns 0, or -EINVAL after at least
 * one line was printed. *out is to be freed with config_free().
 */
int config_load_texts(const struct cfg_texts *t, FILE *errors, struct config **out) must_check;
/*
 * The same for who must not look at what is in other files: no certificate is loaded, nor checked.
 */
int config_load_names(const struct cfg_texts *t, FILE *errors, struct config **out) must_check;
/* What can be made of the texts in that way, whatever is wrong with them. NULL: no memory. */
struct config *config_glance(const struct cfg_texts *t) must_check;
/* config_read() and that. */
int config_load(const char *path, FILE *errors, struct config **out) must_check;

/*
 * The same with the private key of every certkey, used or not, and with the signatures of CRLs, in
 * the same report: what there is to be said about a configuration. The keys are wiped, but OpenSSL
 * leaves traces of them (pem.h): for a process that then ends. crl_history, may be NULL: on success
 * is written there what the next configuration's texts have to hold.
 */
int config_check_texts(const struct cfg_texts *t, FILE *errors, FILE *crl_history) must_check;
int config_check(const char *path, FILE *errors) must_check;

/*
 * Does next differ from now in a key that cannot change while the daemon runs?
 * Then one line for each, as in config_load(), and -EBUSY.
 */
int config_check_change(const struct config *now, const struct config *next,
			FILE *errors) must_check;

enum cfg_keys {
	CFG_KEYS_SERVING = 1,
	CFG_KEYS_FORGING = 2
};

/*
 * Loads the private keys of the wanted kinds of certkeys into cfg->pkey and
 * checks each against its certificate; errors as in config_load().
 */
int config_load_keys(struct config *cfg, unsigned kinds, FILE *errors) must_check;

/* Who a process runs as, whose own user (NULL: unset) is the data process's by default. Or NULL. */
static inline const char *config_user(const struct config *cfg, const char *own)
{
	return own ? own : cfg->user;
}

/*
 * What a verifier of clients (&p->client_revocation) or backends
 * (&p->server_revocation) is to be made with. Borrows the CRLs of p.
 */
struct verify_policy config_policy(const struct cfg_profile *p, const struct cfg_revocation *r);

/* Calls found for each file that is named, but those of keys; some perhaps more than once. */
void config_public_files(const struct config *cfg, void (*found)(void *arg, const char *path),
			 void *arg);

/*
 * Calls found for each file that others change while we run, so that a change
 * is a reason to load the configuration anew: those of CRLs.
 */
void config_changing_files(const struct config *cfg, void (*found)(void *arg, const char *path),
			   void *arg);

#define CFG_HTTP "http://"
/* The address in http://ADDRESS[:PORT][/PATH]: 0, or -EINVAL. */
int cfg_http_address(const char *url, struct cfg_address *out) must_check;
/*
 * The address that list (HOST[:PORT]=ADDRESS[:PORT] ...) has for the host of url, which may be
 * anybody's. Returns 0, -EINVAL: it is no http URL, -ENOENT.
 */
int cfg_aia_address(const char *list, const char *url, struct cfg_address *out) must_check;

/* Frees cfg and wipes keys. NULL-safe. */
void config_free(struct config *cfg);

/* Prints every key of the table with type, unit, range, default and help; the man page's source. */
void config_print_table(FILE *out);

/*
 * Writes all effective settings, one "key = value" line each in the order of
 * the table; with key, only that one. Returns the number of lines written.
 * Never prints key material (the table holds file names only).
 */
int config_print(const struct config *cfg, const char *key, FILE *out);

/* All settings as config_print(), each with " # FILE:LINE" or " # default" behind it. */
void config_print_origins(const struct config *cfg, FILE *out);

/* Is key in the table, and of an object there is? config_print() has no line for an unset one. */
bool config_has(const struct config *cfg, const char *key);

/* Writes config/ktlsgate.conf: every key explained, and the objects of a small gate. 0 or -EIO. */
int config_print_example(FILE *out);

#endif
