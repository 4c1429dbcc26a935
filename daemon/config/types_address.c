// SPDX-License-Identifier: Apache-2.0
/* Types of configuration values that are addresses: of listeners and backends, prefixes, URLs.
 * Knows no key. */
#include "config/types_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <strings.h>
#include <sys/un.h>
#include "config/config_types.h"

/* ---- address ---- */

static bool parse_port(const char *text, in_port_t *out)
{
	uint64_t port;

	if (!type_read_digits(&text, &port) || *text || port < 1 || port > 65535)
		return false;
	*out = htons(port);
	return true;
}

static int parse_ipv6(const struct cfg_key *k, const char *host, in_port_t port,
		      struct cfg_address *out, char *why)
{
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&out->ss;

	if (inet_pton(AF_INET6, host, &in6->sin6_addr) != 1)
		return type_wrong_value(k, why, "holds no IPv6 address in the brackets");
	if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr))
		return type_wrong(why, "is an IPv4 address in IPv6 clothes; write it as IPv4");
	in6->sin6_family = AF_INET6;
	in6->sin6_port = port;
	out->len = sizeof(*in6);
	return 0;
}

static int parse_address(const struct cfg_key *k, const char *text, void *member, char *why)
{
	struct cfg_address a = {0};
	struct sockaddr_in *in = (struct sockaddr_in *)&a.ss;
	const char *colon = strrchr(text, ':');
	char host[INET6_ADDRSTRLEN + 2]; /* with brackets */
	in_port_t port;
	size_t len;

	if (!colon || (text[0] == '[' && colon[-1] != ']'))
		return type_wrong_value(k, why, "has no port");
	if (!parse_port(colon + 1, &port))
		return type_wrong_value(k, why, "has no port in 1..65535");
	len = colon - text;
	if (len >= sizeof(host))
		return type_wrong_value(k, why, "is no address");
	memcpy(host, text, len);
	host[len] = '\0';
	if (host[0] == '[') {
		host[len - 1] = '\0';
		if (parse_ipv6(k, host + 1, port, &a, why) < 0)
			return -EINVAL;
	} else if (inet_pton(AF_INET, host, &in->sin_addr) == 1) {
		in->sin_family = AF_INET;
		in->sin_port = port;
		a.len = sizeof(*in);
	} else if (inet_pton(AF_INET6, host, &(struct in6_addr){0}) == 1) {
		return type_wrong_value(k, why, "is an IPv6 address without brackets");
	} else {
		return type_wrong_value(k, why, "is no IPv4 address");
	}
	*(struct cfg_address *)member = a;
	return 0;
}

const char *cfg_address_text(const void *sockaddr, char out[CFG_ADDRESS_TEXT])
{
	const struct sockaddr *sa = sockaddr;
	const struct sockaddr_in *in = sockaddr;
	const struct sockaddr_in6 *in6 = sockaddr;
	const struct sockaddr_un *un = sockaddr;
	char host[INET6_ADDRSTRLEN] = "?";

	if (sa->sa_family == AF_UNIX) {
		snprintf(out, CFG_ADDRESS_TEXT, "unix:%s", un->sun_path);
	} else if (sa->sa_family == AF_INET6) {
		inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
		snprintf(out, CFG_ADDRESS_TEXT, "[%s]:%u", host, ntohs(in6->sin6_port));
	} else {
		inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
		snprintf(out, CFG_ADDRESS_TEXT, "%s:%u", host, ntohs(in->sin_port));
	}
	return out;
}

static void print_address(const struct cfg_key *k, const void *member, FILE *out)
{
	const struct cfg_address *a = member;
	char text[CFG_ADDRESS_TEXT];

	(void)k;
	fputs(cfg_address_text(&a->ss, text), out);
}

static void range_address(const struct cfg_key *k, FILE *out)
{
	(void)k;
	fputs("IPv4:PORT | [IPv6]:PORT", out);
}

const struct cfg_type type_address = {
	.name = "address",
	.parse = parse_address,
	.print = print_address,
	.range = range_address,
};

/* ---- backends: an address, a name, or a UNIX socket: of a service's address ---- */

#define UNIX_PREFIX "unix:"

/* A DNS name and a port; what could be an address is none. */
static bool parse_host(struct cfg_service *service, const char *text)
{
	const char *colon = strrchr(text, ':');
	size_t len = colon ? (size_t)(colon - text) : 0;

	if (!len || len >= sizeof(service->host) || strspn(text, "0123456789.") >= len ||
	    !parse_port(colon + 1, &service->port))
		return false;
	memcpy(service->host, text, len);
	service->host[len] = '\0';
	if (!type_hostname_valid(service->host)) {
		service->host[0] = '\0';
		return false;
	}
	service->address = (struct cfg_address){.len = sizeof(sa_family_t)}; /* AF_UNSPEC */
	return true;
}

static int parse_backend(const struct cfg_key *k, const char *text, void *member, char *why)
{
	struct cfg_address a = {.len = sizeof(struct sockaddr_un)};
	struct sockaddr_un *un = (struct sockaddr_un *)&a.ss;
	const char *path = text + strlen(UNIX_PREFIX);
	struct cfg_service *service =
		container_of((struct cfg_address *)member, struct cfg_service, address);

	service->host[0] = '\0';
	if (strncmp(text, UNIX_PREFIX, strlen(UNIX_PREFIX)) != 0)
		return parse_host(service, text) ? 0 : parse_address(k, text, member, why);
	if (path[0] != '/')
		return type_wrong_value(k, why, "has no absolute path");
	/* It stands in lines of fields and in JSON. */
	if (strpbrk(path, " \t\"\\"))
		return type_wrong(why,
				  "has a blank, quote or backslash in its path; use another path");
	if (strlen(path) >= sizeof(un->sun_path))
		return type_wrong(why, "is too long; a UNIX socket's path has at most %zu bytes",
				  sizeof(un->sun_path) - 1);
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path, path, strlen(path) + 1);
	*(struct cfg_address *)member = a;
	return 0;
}

static void print_backend(const struct cfg_key *k, const void *member, FILE *out)
{
	const struct cfg_service *service =
		container_of((const struct cfg_address *)member, const struct cfg_service, address);

	if (service->host[0])
		fprintf(out, "%s:%u", service->host, ntohs(service->port));
	else
		print_address(k, member, out);
}

static void range_backend(const struct cfg_key *k, FILE *out)
{
	range_address(k, out);
	fputs(" | NAME:PORT | " UNIX_PREFIX "/PATH", out);
}

const struct cfg_type type_backend = {
	.name = "address",
	.parse = parse_backend,
	.print = print_backend,
	.range = range_backend,
};

/* ---- listens: addresses, prefixes of them, ranges of ports ---- */

#define LISTEN_MAX 128 /* bytes of one, and the NUL */

/* A port range's end behind the '-'; without one, the first port. */
static int cut_range(const struct cfg_key *k, char *text, struct cfg_listen *l, char *why)
{
	char *colon = strrchr(text, ':'), *dash = colon ? strchr(colon, '-') : NULL;
	in_port_t last;

	if (!dash)
		return 0;
	if (!parse_port(dash + 1, &last))
		return type_wrong_value(k, why, "has no last port in 1..65535 behind the '-'");
	l->last_port = ntohs(last);
	*dash = '\0';
	return 0;
}

static int cut_prefix(char *text, bool ipv6, struct cfg_listen *l, char *why)
{
	char *slash = strchr(text, '/'), *colon = strrchr(text, ':');
	const char *p;
	uint64_t len;

	l->prefix_len = ipv6 ? 128 : 32;
	if (!slash || !colon || slash > colon)
		return 0;
	p = slash + 1;
	if (!type_read_digits(&p, &len) || *p != ':' || len > l->prefix_len)
		return type_wrong(why, "has no prefix length in 0..%u behind the '/'; use %s",
				  l->prefix_len, ipv6 ? "[IPv6]/LENGTH:PORT" : "IPv4/LENGTH:PORT");
	l->prefix_len = (unsigned)len;
	l->looked_up = true;
	memmove(slash, colon, strlen(colon) + 1);
	return 0;
}

static uint8_t *address_bytes(struct cfg_address *a, unsigned *len)
{
	if (a->ss.ss_family == AF_INET6) {
		*len = sizeof(struct in6_addr);
		return ((struct sockaddr_in6 *)&a->ss)->sin6_addr.s6_addr;
	}
	*len = sizeof(struct in_addr);
	return (uint8_t *)&((struct sockaddr_in *)&a->ss)->sin_addr;
}

static bool all_zero(const uint8_t *bytes, unsigned len)
{
	while (len && !bytes[len - 1])
		len--;
	return !len;
}

bool cfg_mask_bits(uint8_t *bytes, unsigned len, unsigned prefix_len)
{
	bool found = false;

	for (unsigned i = prefix_len / 8; i < len; i++) {
		uint8_t behind = i == prefix_len / 8 ? 0xff >> prefix_len % 8 : 0xff;

		found = found || bytes[i] & behind;
		bytes[i] &= (uint8_t)~behind;
	}
	return found;
}

static void print_listen(const struct cfg_listen *l, FILE *out)
{
	unsigned len;
	const uint8_t *bytes = address_bytes((struct cfg_address *)&l->address, &len);
	char host[INET6_ADDRSTRLEN] = "?";
	bool ipv6 = l->address.ss.ss_family == AF_INET6;
	in_port_t first = ntohs(((const struct sockaddr_in *)&l->address.ss)->sin_port);

	inet_ntop(l->address.ss.ss_family, bytes, host, sizeof(host));
	fprintf(out, ipv6 ? "[%s]" : "%s", host);
	/* Any address is written without, be it a socket's. */
	if (l->prefix_len ? l->prefix_len != len * 8 : l->looked_up && l->last_port == first)
		fprintf(out, "/%u", l->prefix_len);
	fprintf(out, ":%u", first);
	if (l->last_port != first)
		fprintf(out, "-%u", l->last_port);
}

static int wrong_host_bits(struct cfg_listen *l, char *why)
{
	char right[LISTEN_MAX + 8] = "";
	scoped_file *f = fmemopen(right, sizeof(right), "w");

	if (f) {
		print_listen(l, f);
		fflush(f);
	}
	return type_wrong(why, "has bits of the address set behind the prefix; use %s", right);
}

static int parse_listen(const struct cfg_key *k, const char *word, struct cfg_listen *l, char *why)
{
	char text[LISTEN_MAX];
	unsigned len, first;
	uint8_t *bytes;
	int err;

	if (strlen(word) >= sizeof(text))
		return type_wrong_value(k, why, "is no address");
	strcpy(text, word);
	err = cut_range(k, text, l, why);
	if (!err)
		err = cut_prefix(text, text[0] == '[', l, why);
	if (!err)
		err = parse_address(k, text, &l->address, why);
	if (err)
		return err;
	first = ntohs(((const struct sockaddr_in *)&l->address.ss)->sin_port);
	if (!l->last_port)
		l->last_port = first;
	if (l->last_port < first)
		return type_wrong(why, "has a last port before its first; use %u-%u", l->last_port,
				  first);
	bytes = address_bytes(&l->address, &len);
	if (cfg_mask_bits(bytes, len, l->prefix_len))
		return wrong_host_bits(l, why);
	if (!l->looked_up && all_zero(bytes, len))
		l->prefix_len = 0;
	/* A prefix that leaves nothing open is an address. */
	l->looked_up = l->last_port > first || (l->looked_up && l->prefix_len < len * 8);
	return 0;
}

static int parse_listens(const struct cfg_key *k, const char *text, void *member, char *why)
{
	struct cfg_listens *listens = member;
	scoped_mem char *copy = strdup(text);
	char what[CFG_WHY_MAX], *rest = NULL;

	free(listens->list);
	*listens = (struct cfg_listens){0};
	for (char *word = copy ? strtok_r(copy, CFG_BLANK, &rest) : NULL; word;
	     word = strtok_r(NULL, CFG_BLANK, &rest)) {
		struct cfg_listen *more =
			reallocarray(listens->list, listens->n + 1, sizeof(*more));

		if (!more)
			return type_wrong(why, "out of memory");
		listens->list = more;
		more[listens->n] = (struct cfg_listen){0};
		if (!parse_listen(k, word, &more[listens->n], what))
			listens->n++;
		else if (strcmp(word, text))
			return type_wrong(why, "%s %.400s", word, what);
		else
			return type_wrong(why, "%.500s", what);
	}
	return listens->n ? 0 : type_wrong(why, "out of memory");
}

static void print_listens(const struct cfg_key *k, const void *member, FILE *out)
{
	const struct cfg_listens *listens = member;

	(void)k;
	for (unsigned i = 0; i < listens->n; i++) {
		fputs(i ? " " : "", out);
		print_listen(&listens->list[i], out);
	}
}

static void range_listens(const struct cfg_key *k, FILE *out)
{
	(void)k;
	fputs("IPv4:PORT | [IPv6]:PORT, with /PREFIX behind the address, -LAST behind the port, or "
	      "both; several: separated by blanks",
	      out);
}

const struct cfg_type type_listens = {
	.name = "addresses",
	.parse = parse_listens,
	.print = print_listens,
	.range = range_listens,
	.owns_string = true,
};

/* ---- prefixes ---- */

void cfg_print_prefix(const struct cfg_prefix *p, FILE *out)
{
	char host[INET6_ADDRSTRLEN] = "?";

	inet_ntop(p->family, p->address, host, sizeof(host));
	fprintf(out, "%s/%u", host, p->len);
}

static int wrong_prefix_bits(const struct cfg_prefix *p, char *why)
{
	char right[INET6_ADDRSTRLEN + 8] = "";
	scoped_file *f = fmemopen(right, sizeof(right), "w");

	if (f) {
		cfg_print_prefix(p, f);
		fflush(f);
	}
	return type_wrong(why, "has bits of the address set behind the prefix; use %s", right);
}

int cfg_parse_prefix(const char *text, struct cfg_prefix *out, char why[CFG_WHY_MAX])
{
	struct cfg_prefix p = {.family = strchr(text, ':') ? AF_INET6 : AF_INET};
	unsigned bits = p.family == AF_INET6 ? 128 : 32;
	const char *slash = strchr(text, '/'), *digits = slash ? slash + 1 : NULL;
	char host[INET6_ADDRSTRLEN];
	size_t host_len = strcspn(text, "/");
	uint64_t len = bits;

	if (host_len < sizeof(host))
		memcpy(host, text, host_len);
	host[host_len < sizeof(host) ? host_len : 0] = '\0';
	if (inet_pton(p.family, host, p.address) != 1)
		return type_wrong(why,
				  "is no address or prefix; use 192.0.2.0/24 or 2001:db8::/32");
	if (digits && (!type_read_digits(&digits, &len) || *digits || len > bits))
		return type_wrong(why, "has no prefix length in 0..%u", bits);
	p.len = (unsigned)len;
	if (cfg_mask_bits(p.address, bits / 8, p.len))
		return wrong_prefix_bits(&p, why);
	*out = p;
	return 0;
}

static int parse_prefixes(const struct cfg_key *k, const char *text, void *member, char *why)
{
	struct cfg_prefixes *prefixes = member;
	scoped_mem char *copy = strdup(text);
	char what[CFG_WHY_MAX], *rest = NULL;

	(void)k;
	free(prefixes->list);
	*prefixes = (struct cfg_prefixes){0};
	for (char *word = copy ? strtok_r(copy, CFG_BLANK, &rest) : NULL; word;
	     word = strtok_r(NULL, CFG_BLANK, &rest)) {
		struct cfg_prefix *more =
			reallocarray(prefixes->list, prefixes->n + 1, sizeof(*more));

		if (!more)
			return type_wrong(why, "out of memory");
		prefixes->list = more;
		if (cfg_parse_prefix(word, &more[prefixes->n], what))
			return type_wrong(why, "%.80s %.400s", word, what);
		prefixes->n++;
	}
	return copy ? 0 : type_wrong(why, "out of memory");
}

static void print_prefixes(const struct cfg_key *k, const void *member, FILE *out)
{
	const struct cfg_prefixes *prefixes = member;

	(void)k;
	for (unsigned i = 0; i < prefixes->n; i++) {
		fputs(i ? " " : "", out);
		cfg_print_prefix(&prefixes->list[i], out);
	}
}

static void range_prefixes(const struct cfg_key *k, FILE *out)
{
	(void)k;
	fputs("ADDRESS[/LENGTH], separated by blanks", out);
}

const struct cfg_type type_prefixes = {
	.name = "prefixes",
	.parse = parse_prefixes,
	.print = print_prefixes,
	.range = range_prefixes,
	.owns_string = true,
};

/* ---- URL of HTTP, numeric ---- */

/* ADDRESS[:PORT], as in a URL. */
static int http_host(const char *host, size_t len, struct cfg_address *out)
{
	const struct cfg_key none = {.type = &type_address};
	char text[INET6_ADDRSTRLEN + 16], why[CFG_WHY_MAX];

	if (len + sizeof(":80") > sizeof(text))
		return -EINVAL;
	memcpy(text, host, len);
	/* An IPv6 address has colons inside of its brackets. */
	strcpy(text + len, memchr(host, ':', len) && host[len - 1] != ']' ? "" : ":80");
	return parse_address(&none, text, out, why);
}

int cfg_http_address(const char *url, struct cfg_address *out)
{
	const char *host = url + strlen(CFG_HTTP);

	if (strncmp(url, CFG_HTTP, strlen(CFG_HTTP)))
		return -EINVAL;
	return http_host(host, strcspn(host, "/"), out);
}

int cfg_aia_address(const char *list, const char *url, struct cfg_address *out)
{
	const char *host = url + strlen(CFG_HTTP), *word, *address;
	size_t len, address_len;

	if (strncmp(url, CFG_HTTP, strlen(CFG_HTTP)))
		return -EINVAL;
	len = strcspn(host, "/");
	for (word = list + strspn(list, CFG_BLANK); *word;
	     word = address + address_len + strspn(address + address_len, CFG_BLANK)) {
		address = word + strcspn(word, "=") + 1;
		address_len = strcspn(address, CFG_BLANK);
		if ((size_t)(address - 1 - word) == len && !strncasecmp(word, host, len))
			return http_host(address, address_len, out);
	}
	return -ENOENT;
}

/* As cfg_aia_address() reads it. */
static int parse_aia(const struct cfg_key *k, const char *text, void *member, char *why)
{
	struct cfg_address ignored;
	size_t host, len;

	for (const char *p = text + strspn(text, CFG_BLANK); *p;
	     p += len + strspn(p + len, CFG_BLANK)) {
		len = strcspn(p, CFG_BLANK);
		host = strspn(p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				 "0123456789.-_:[]");
		if (!host || p[host] != '=')
			return type_wrong_value(k, why, "has no host of a URL in front of a =");
		if (http_host(p + host + 1, len - host - 1, &ignored) < 0)
			return type_wrong_value(k, why, "has no numeric address behind a =");
	}
	return type_set_string(member, text, why);
}

static void range_aia(const struct cfg_key *k, FILE *out)
{
	(void)k;
	fputs("HOST[:PORT]=ADDRESS[:PORT], separated by blanks", out);
}

const struct cfg_type type_aia = {
	.name = "hosts",
	.parse = parse_aia,
	.print = type_print_string,
	.range = range_aia,
	.owns_string = true,
};

static int parse_http_url(const struct cfg_key *k, const char *text, void *member, char *why)
{
	struct cfg_address ignored;

	for (const char *p = text; *p; p++)
		if (*p <= ' ' || *p > '~')
			return type_wrong_value(k, why, "has a character that is none of a URL's");
	if (cfg_http_address(text, &ignored) < 0)
		return type_wrong_value(k, why, "is no http URL with a numeric address");
	return type_set_string(member, text, why);
}

static void range_http_url(const struct cfg_key *k, FILE *out)
{
	(void)k;
	fputs("http://IPv4[:PORT][/PATH] | http://[IPv6][:PORT][/PATH]", out);
}

const struct cfg_type type_http_url = {
	.name = "URL",
	.parse = parse_http_url,
	.print = type_print_string,
	.range = range_http_url,
	.owns_string = true,
};

static bool prefix_holds(const struct cfg_prefix *p, const uint8_t *ip)
{
	if (memcmp(p->address, ip, p->len / 8) != 0)
		return false;
	return !(p->len % 8) || !((p->address[p->len / 8] ^ ip[p->len / 8]) >> (8 - p->len % 8));
}

bool cfg_prefixes_hold(const struct cfg_prefixes *p, const struct sockaddr *sa)
{
	const uint8_t *ip = sa->sa_family == AF_INET6
				    ? ((const struct sockaddr_in6 *)sa)->sin6_addr.s6_addr
				    : (const uint8_t *)&((const struct sockaddr_in *)sa)->sin_addr;

	for (unsigned i = 0; i < p->n; i++) {
		if (p->list[i].family == sa->sa_family && prefix_holds(&p->list[i], ip))
			return true;
	}
	return false;
}
