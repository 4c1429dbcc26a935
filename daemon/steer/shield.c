// SPDX-License-Identifier: Apache-2.0
/* Rules, limits and counters of the shield, as text and in the maps; see shield.h. */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include "config/config_types.h"
#include "steer/lookup.h"
#include "steer/shield.h"

#define RATE_MAX 1000000

static const char *const actions[] = {
	[SHIELD_DENY] = "deny", [SHIELD_ALLOW] = "allow", [SHIELD_LIMIT] = "limit"};

/* A key of either trie: both begin with the prefix's length. */
union rule_key {
	struct lookup_key4 four;
	struct lookup_key6 six;
};

static void set_key(union rule_key *key, const struct cfg_prefix *p)
{
	memset(key, 0, sizeof(*key));
	key->four.prefixlen = p->len;
	if (p->family == AF_INET)
		memcpy(key->four.address, p->address, sizeof(key->four.address));
	else
		memcpy(key->six.address, p->address, sizeof(key->six.address));
}

static struct cfg_prefix prefix_of(const union rule_key *key, int family)
{
	struct cfg_prefix p = {.family = family, .len = key->four.prefixlen};

	memcpy(p.address, key->six.address, family == AF_INET ? 4 : 16);
	return p;
}

static size_t key_size(int family)
{
	return family == AF_INET ? sizeof(struct lookup_key4) : sizeof(struct lookup_key6);
}

/* ---- configuration ---- */

static bool is_denied(const struct config *cfg, int family, const union rule_key *key)
{
	for (unsigned i = 0; i < cfg->shield_deny.n; i++) {
		union rule_key k;

		set_key(&k, &cfg->shield_deny.list[i]);
		if (cfg->shield_deny.list[i].family == family && !memcmp(&k, key, key_size(family)))
			return true;
	}
	return false;
}

/* The one behind key, NULL being before the first; false: none. */
static bool next_rule(int map, const union rule_key *key, union rule_key *next)
{
	memset(next, 0, sizeof(*next));
	return !bpf_map_get_next_key(map, key, next);
}

/*
 * The rule of exactly this prefix: a trie's lookup finds shorter ones too, and its flags for new
 * entries only do nothing before Linux 6.13.
 */
static bool find_rule(int map, int family, const union rule_key *wanted, struct shield_rule *rule)
{
	union rule_key key, next;

	for (bool any = next_rule(map, NULL, &next); any; any = next_rule(map, &key, &next)) {
		key = next;
		if (!memcmp(&key, wanted, key_size(family)))
			return !bpf_map_lookup_elem(map, &key, rule);
	}
	return false;
}

/* Configured once and no more. Deleting while walking may begin anew: again until none is found. */
static int forget_old(int map, int family, const struct config *cfg)
{
	union rule_key key, next;
	bool any = next_rule(map, NULL, &next);

	while (any) {
		struct shield_rule rule;

		key = next;
		any = next_rule(map, &key, &next);
		if (bpf_map_lookup_elem(map, &key, &rule) || rule.origin != SHIELD_CONFIGURED ||
		    is_denied(cfg, family, &key))
			continue;
		if (bpf_map_delete_elem(map, &key))
			return -errno;
	}
	return 0;
}

static int add_denied(int rules4, int rules6, const struct config *cfg)
{
	for (unsigned i = 0; i < cfg->shield_deny.n; i++) {
		const struct cfg_prefix *p = &cfg->shield_deny.list[i];
		struct shield_rule rule = {.action = SHIELD_DENY, .origin = SHIELD_CONFIGURED}, old;
		int map = p->family == AF_INET ? rules4 : rules6;
		union rule_key key;

		set_key(&key, p);
		if (find_rule(map, p->family, &key, &old))
			continue;
		if (bpf_map_update_elem(map, &key, &rule, BPF_ANY))
			return -errno;
	}
	return 0;
}

int shield_configure(int config, int rules4, int rules6, const struct config *cfg)
{
	struct shield_config value = {
		.rate = cfg->shield_rate,
		.burst = cfg->shield_burst,
		.prefix4 = cfg->shield_prefix4,
		.prefix6 = cfg->shield_prefix6,
		.mask4 = UINT32_MAX,
	};
	uint32_t zero = 0;
	int err;

	cfg_mask_bits((uint8_t *)&value.mask4, sizeof(value.mask4), cfg->shield_prefix4);
	memset(value.mask6, 0xff, sizeof(value.mask6));
	cfg_mask_bits((uint8_t *)value.mask6, sizeof(value.mask6), cfg->shield_prefix6);
	err = forget_old(rules4, AF_INET, cfg);
	if (!err)
		err = forget_old(rules6, AF_INET6, cfg);
	if (!err)
		err = add_denied(rules4, rules6, cfg);
	if (err)
		return err;
	return bpf_map_update_elem(config, &zero, &value, BPF_ANY) ? -errno : 0;
}

/* ---- an operator's word ---- */

static void show_rules(const struct lookup *lookup, int family, FILE *out)
{
	int map = lookup_map(lookup, family == AF_INET ? MAP_SHIELD_RULES4 : MAP_SHIELD_RULES6);
	union rule_key key, next;

	for (bool any = next_rule(map, NULL, &next); any; any = next_rule(map, &key, &next)) {
		struct shield_rule rule;
		struct cfg_prefix p;

		key = next;
		if (bpf_map_lookup_elem(map, &key, &rule))
			continue;
		p = prefix_of(&key, family);
		fputs("rule ", out);
		cfg_print_prefix(&p, out);
		fprintf(out, " %s", rule.action < ARRAY_SIZE(actions) ? actions[rule.action] : "?");
		if (rule.action == SHIELD_LIMIT)
			fprintf(out, " %u/s burst %u", rule.rate, rule.burst ? rule.burst : 1);
		fprintf(out, " %s dropped %" PRIu64 "\n",
			rule.origin == SHIELD_CONFIGURED ? "configured" : "run-time",
			(uint64_t)rule.dropped);
	}
}

static void show(const struct lookup *lookup, FILE *out)
{
	int map = lookup_map(lookup, MAP_SHIELD_CONFIG);
	int map_of_stats = lookup_map(lookup, MAP_SHIELD_STATS);
	struct shield_config config;
	struct shield_stats stats = {0}; /* the analyser does not know that errno is set */
	uint32_t zero = 0;

	fputs("ok\n", out);
	if (!bpf_map_lookup_elem(map, &zero, &config)) {
		if (config.rate)
			fprintf(out, "source limit %u/s burst %u per /%u and /%u\n", config.rate,
				config.burst, config.prefix4, config.prefix6);
		else
			fputs("source limit none\n", out);
	}
	show_rules(lookup, AF_INET, out);
	show_rules(lookup, AF_INET6, out);
	for (unsigned i = 0; !shield_read(map_of_stats, i, &stats); i++)
		fprintf(out,
			"vserver %s admitted %" PRIu64 " denied %" PRIu64
			" over_prefix_limit %" PRIu64 " over_source_limit %" PRIu64 "\n",
			stats.vserver, (uint64_t)stats.admitted, (uint64_t)stats.denied,
			(uint64_t)stats.over_prefix_limit, (uint64_t)stats.over_source_limit);
}

void shield_write_metrics(int stats, FILE *out)
{
	struct shield_stats of = {0};

	for (unsigned i = 0; !shield_read(stats, i, &of); i++) {
		const struct {
			const char *name;
			uint64_t n;
		} outcomes[] = {
			{"admitted", of.admitted},
			{"denied", of.denied},
			{"over_prefix_limit", of.over_prefix_limit},
			{"over_source_limit", of.over_source_limit},
		};

		if (!i)
			fputs("# HELP ktlsgate_shield_connections_total connections that the "
			      "shield "
			      "let through or not, by vserver\n"
			      "# TYPE ktlsgate_shield_connections_total counter\n",
			      out);
		for (size_t o = 0; o < ARRAY_SIZE(outcomes); o++)
			fprintf(out,
				"ktlsgate_shield_connections_total{vserver=\"%s\",outcome=\"%s\"} "
				"%" PRIu64 "\n",
				of.vserver, outcomes[o].name, outcomes[o].n);
	}
}

static bool read_number(const char *text, unsigned *out)
{
	char *end;
	unsigned long n;

	if (!text || *text < '0' || *text > '9')
		return false;
	n = strtoul(text, &end, 10);
	*out = (unsigned)n;
	return !*end && n >= 1 && n <= RATE_MAX;
}

static void answer(int err, FILE *out)
{
	if (!err)
		fputs("ok\n", out);
	else if (err == -ENOENT)
		fputs("error there is no rule for exactly this prefix; see `shield show`\n", out);
	else if (err == -ENOSPC)
		fprintf(out, "error there are %d rules already\n", SHIELD_RULES_MAX);
	else
		fprintf(out, "error %s\n", strerror(-err));
}

#define USAGE                                                                                      \
	"want deny PREFIX, allow PREFIX, limit PREFIX RATE [BURST] (each 1..1000000), reset "      \
	"PREFIX or show"

/* "deny", "allow" or "limit RATE [BURST]" to a rule; the words behind the prefix. */
static bool read_rule(const char *verb, char *const *word, unsigned n, struct shield_rule *rule)
{
	unsigned action = 0;

	while (action < ARRAY_SIZE(actions) && strcmp(actions[action], verb))
		action++;
	rule->action = (enum shield_action)action;
	if (action != SHIELD_LIMIT)
		return action < ARRAY_SIZE(actions) && n == 0;
	if (n < 1 || n > 2 || !read_number(word[0], &rule->rate))
		return false;
	rule->burst = rule->rate;
	return n == 1 || read_number(word[1], &rule->burst);
}

/* word[0]: the verb, word[1]: the prefix */
static void change(const struct lookup *lookup, char *const *word, unsigned n, FILE *out)
{
	struct shield_rule rule = {.origin = SHIELD_AT_RUN_TIME};
	bool reset = !strcmp(word[0], "reset");
	struct cfg_prefix prefix;
	char why[CFG_WHY_MAX];
	union rule_key key;
	int map, ret;

	if (n < 2 || (reset ? n > 2 : !read_rule(word[0], word + 2, n - 2, &rule))) {
		fputs("error " USAGE "\n", out);
		return;
	}
	if (cfg_parse_prefix(word[1], &prefix, why)) {
		fprintf(out, "error %s %s\n", word[1], why);
		return;
	}
	set_key(&key, &prefix);
	map = lookup_map(lookup, prefix.family == AF_INET ? MAP_SHIELD_RULES4 : MAP_SHIELD_RULES6);
	ret = reset ? bpf_map_delete_elem(map, &key)
		    : bpf_map_update_elem(map, &key, &rule, BPF_ANY);
	answer(ret ? -errno : 0, out);
}

void shield_command(const struct lookup *lookup, const char *command, FILE *out)
{
	scoped_mem char *copy = strdup(command);
	char *rest = NULL, *word[5] = {0};
	unsigned n = 0;

	for (char *w = copy ? strtok_r(copy, CFG_BLANK, &rest) : NULL; w && n < ARRAY_SIZE(word);
	     w = strtok_r(NULL, CFG_BLANK, &rest))
		word[n++] = w;
	if (!lookup || lookup_map(lookup, MAP_SHIELD_CONFIG) < 0)
		fputs("error there is no shield: it needs BPF, see the log of the start\n", out);
	else if (n == 1 && !strcmp(word[0], "show"))
		show(lookup, out);
	else if (n)
		change(lookup, word, n, out);
	else
		fputs("error " USAGE "\n", out);
}

/* ---- counters ---- */

void shield_prepare(void)
{
	(void)libbpf_num_possible_cpus(); /* kept by libbpf */
}

int shield_read(int stats, unsigned place, struct shield_stats *out)
{
	int cpus = libbpf_num_possible_cpus();
	scoped_mem struct shield_stats *values =
		calloc(cpus > 0 ? (size_t)cpus : 1, sizeof(*values));

	if (stats < 0)
		return -ENOENT;
	if (cpus < 0 || !values)
		return -ENOMEM;
	if (bpf_map_lookup_elem(stats, &place, values))
		return -errno;
	if (!values[0].vserver[0])
		return -ENOENT;
	*out = values[0];
	for (int i = 1; i < cpus; i++) {
		out->admitted += values[i].admitted;
		out->denied += values[i].denied;
		out->over_prefix_limit += values[i].over_prefix_limit;
		out->over_source_limit += values[i].over_source_limit;
	}
	return 0;
}
