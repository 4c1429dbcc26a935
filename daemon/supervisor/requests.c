// SPDX-License-Identifier: Apache-2.0
/* Answers the control socket, or finds the generation that does; see requests.h. Knows no flow. */
#include "supervisor/requests.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include "base/log.h"
#include "steer/shield.h"
#include "base/timer.h"

static bool begins(const char *line, const char *word)
{
	size_t len = strlen(word);

	return !strncmp(line, word, len) && (line[len] == ' ' || !line[len]);
}

static void answer_and_free(struct control_client *c, char *text)
{
	control_answer(c, text ? text : "error out of memory\n");
	free(text);
}

/* ---- status ---- */

/* What `status` says of a generation. */
static void print_generation(const struct supervisor *s, const struct generation *g, FILE *out)
{
	fprintf(out,
		"generation=%u\tstate=%s\tage_s=%" PRIu64 "\tflows=%" PRIu64
		"\tvservers=%u\tdata_pid=%d\tsigner_pid=%d\n",
		g->number, g == s->current ? "current" : "retired",
		(timer_clock() - g->since) / 1000, generation_flows(g), g->cfg->n_vservers,
		g->children[ROLE_DATA], g->children[ROLE_SIGNER]);
}

static char *status_text(const struct supervisor *s)
{
	const struct generation *g;
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	if (!out)
		return NULL;
	fputs("ok\n", out);
	for (g = supervisor_newest_below(s, UINT_MAX); g; g = supervisor_newest_below(s, g->number))
		print_generation(s, g, out);
	return fclose(out) ? NULL : text;
}

/* ---- reload, set ---- */

static void change_requested(struct supervisor *s, struct control_client *c)
{
	char name[REQUEST_MAX], *answer;
	const char *length = strrchr(c->line, ' ');

	if (!strcmp(c->line, "reload")) {
		log_info("reload: asked for on the control socket");
		supervisor_reload(s, NULL, NULL, 0, &answer);
	} else {
		snprintf(name, sizeof(name), "%.*s", (int)(length - c->line - 4), c->line + 4);
		log_info("set: assignments from the control socket (%s)", name);
		supervisor_reload(s, name, c->body, c->body_len, &answer);
	}
	answer_and_free(c, answer);
}

/* ---- in the kernel's maps: drain, undrain, shield ---- */

/* "drain worker N" or "undrain worker N" */
static void drain_requested(const struct supervisor *s, const char *line, FILE *out)
{
	bool drain = *line == 'd';
	const char *number = strchr(line, ' ');
	unsigned long worker = 0;
	char *end = NULL;
	int err;

	number = number && !strncmp(number, " worker ", 8) ? number + 8 : "";
	if (*number >= '0' && *number <= '9')
		worker = strtoul(number, &end, 10);
	if (!end || *end) {
		fprintf(out, "error want %s worker N\n", drain ? "drain" : "undrain");
		return;
	}
	err = s->shared.steer && worker < s->listeners.workers
		      ? steer_drain(s->shared.steer, (unsigned)worker, drain)
		      : -ENOENT;
	if (!err)
		fputs("ok\n", out);
	else if (!s->shared.steer)
		fputs("error workers are drained by BPF, which there is none of; see the log of "
		      "the start\n",
		      out);
	else if (err == -EBUSY)
		fprintf(out, "error worker %lu is the last that is not drained\n", worker);
	else if (err == -ENOENT)
		fprintf(out, "error there is no worker %lu: there are 0 to %u\n", worker,
			s->listeners.workers - 1);
	else
		fprintf(out, "error %s\n", strerror(-err));
	if (!err)
		log_info("worker %lu is %s", worker, drain ? "drained" : "not drained any more");
}

static char *our_answer(const struct supervisor *s, const char *line)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	if (!out)
		return NULL;
	if (begins(line, "shield"))
		shield_command(s->shared.lookup, line + strlen("shield"), out);
	else
		drain_requested(s, line, out);
	return fclose(out) ? NULL : text;
}

/* ---- by the data processes ---- */

/* The newest with a data process and a number below limit; NULL: none. */
static struct generation *next_asked(const struct supervisor *s, unsigned limit)
{
	struct generation *g = supervisor_newest_below(s, limit);

	while (g && g->channel < 0)
		g = supervisor_newest_below(s, g->number);
	return g;
}

static unsigned count_data_processes(const struct supervisor *s)
{
	unsigned n = 0;

	for (unsigned i = 0; i < GENERATIONS_MAX; i++)
		n += s->generations[i] && s->generations[i]->counted;
	return n;
}

static int hand_over(const struct supervisor *s, const struct control_client *c,
		     const struct generation *g)
{
	struct stats_sums others = supervisor_sums_without(s, g);
	struct handed handed = {
		.id = c->id,
		.first = !c->answered,
		.line = c->line,
		.others = &others,
		.generations = count_data_processes(s),
	};

	return answer_hand_over(g->channel, &handed, c->fd);
}

/* Asks the next older generation, if there is one; below: the number of the last asked. */
static void ask_below(struct supervisor *s, struct control_client *c, unsigned below)
{
	struct generation *g;
	char text[REQUEST_MAX + 256];

	if (c->fd < 0) { /* who asked has left */
		control_answer(c, NULL);
		return;
	}
	while ((g = next_asked(s, below))) {
		below = g->number;
		c->asked = g->number;
		if (!hand_over(s, c, g))
			return;
		if (errno == EAGAIN) {
			control_answer(c, "error the data process is busy: try again\n");
			return;
		}
	}
	if (c->answered) {
		control_answer(c, NULL);
		return;
	}
	if (!strncmp(c->line, "kill ", 5))
		snprintf(text, sizeof(text), "error there is no flow %s\n", c->line + 5);
	else if (!next_asked(s, UINT_MAX))
		snprintf(text, sizeof(text), "error the data process is being started again\n");
	else
		snprintf(text, sizeof(text),
			 "error unknown request \"%s\": want stats, metrics, flows, kill ID, ping, "
			 "status, config [KEY], origins, requests SERVICE, "
			 "services [drain | undrain SERVICE], reload, set NAME LENGTH, "
			 "drain worker N, undrain worker N or shield COMMAND\n",
			 c->line);
	control_answer(c, text);
}

bool requests_outcome(struct supervisor *s, struct generation *g)
{
	struct control_client *c;
	struct offload_question question;
	struct offload_answer answer;
	enum outcome outcome;
	uint32_t id;

	if (!answer_outcome(g->channel, &id, &outcome, &question))
		return false;
	if (outcome == OUTCOME_ASKS) {
		offload_look(&question, &answer);
		/* A channel that is full: it stays unknown. */
		(void)!answer_tell_offload(g->channel, &answer);
		return true;
	}
	if (id == RETIRED_ID)
		g->accepts_nothing = true;
	if (id == SETTLED_ID)
		generation_settle(g);
	c = control_find(&s->control, id);
	if (!c || c->asked != g->number)
		return true;
	if (outcome != OUTCOME_NONE)
		c->answered = true;
	if (outcome == OUTCOME_DONE)
		control_answer(c, NULL);
	else
		ask_below(s, c, g->number);
	return true;
}

void requests_lost(struct supervisor *s, const struct generation *g)
{
	for (unsigned i = 0; i < CONTROL_CLIENTS; i++) {
		struct control_client *c = &s->control.clients[i];

		if (!c->stage || c->asked != g->number)
			continue;
		/* A list may have begun, and must not go on within a line. */
		if (!strcmp(c->line, "flows"))
			control_answer(c, NULL);
		else
			ask_below(s, c, g->number);
	}
}

/* ---- who answers what ---- */

/* What is done in the kernel's maps, so here. */
static bool is_ours(const char *line)
{
	return begins(line, "drain") || begins(line, "undrain") || begins(line, "shield");
}

/* Changes in the data process, which the configuration knows nothing of. */
static bool changes_at_once(const char *line)
{
	return !strncmp(line, "kill ", 5) || !strncmp(line, "services ", 9);
}

static bool changes(const char *line)
{
	return !strcmp(line, "reload") || !strncmp(line, "set ", 4) || changes_at_once(line) ||
	       (is_ours(line) && strcmp(line, "shield show"));
}

void requests_take(void *arg, struct control_client *c)
{
	struct supervisor *s = arg;

	if (changes(c->line) && !c->privileged)
		control_answer(c, "error this is for root only\n");
	else if (!strcmp(c->line, "status"))
		answer_and_free(c, status_text(s));
	else if (is_ours(c->line))
		answer_and_free(c, our_answer(s, c->line));
	else if (changes(c->line) && !changes_at_once(c->line))
		change_requested(s, c);
	else
		ask_below(s, c, UINT_MAX);
}
