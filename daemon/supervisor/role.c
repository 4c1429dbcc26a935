// SPDX-License-Identifier: Apache-2.0
/* What a process that was executed for a role begins with; see role.h. Starts no other. */
#include "supervisor/role.h"

#include <errno.h>
#include <string.h>
#include <sys/prctl.h>
#include "process/brief.h"
#include "data/data.h"
#include "base/log.h"
#include "pki/pkcs11.h"
#include "base/sandbox.h"
#include "signer/signer.h"
#include "service/resolver.h"

static const char *const log_names[ROLES] = {"ktlsgated[signer]", "ktlsgated[resolver]",
					     "ktlsgated[data]", "ktlsgated[check]"};

/* ---- what it was given ---- */

/*
 * The texts are those that were checked. What else has a part in the numbers, such as how many CPUs
 * there are, may have changed since.
 */
static bool agrees(const struct brief *b, const struct config *cfg)
{
	bool all = b->n_sockets == (b->role == ROLE_RESOLVER ? 0 : cfg->workers) &&
		   (b->role != ROLE_DATA || b->n_listeners == cfg->workers * cfg->n_bindings);

	if (!all)
		log_error("the configuration is not what it was when it was checked; reload it");
	return all;
}

static int unseal(struct brief *b, struct cfg_texts *texts)
{
	int err = config_texts_unseal(TAKE_FD(b->fd[BRIEF_TEXTS]), texts);

	if (err)
		log_error("the configuration cannot be read: %s", strerror(-err));
	return err;
}

static struct config *load(struct brief *b)
{
	struct config *cfg = NULL;
	struct cfg_texts texts;
	int err = unseal(b, &texts);

	if (err)
		return NULL;
	err = config_load_texts(&texts, stderr, &cfg);
	config_texts_free(&texts);
	if (err || agrees(b, cfg))
		return cfg;
	config_free(cfg);
	return NULL;
}

/* ---- the others ---- */

static int run_signer(const struct brief *b, struct config *cfg)
{
	struct signer_memory memory = {
		.seen = replay_map(b->fd[BRIEF_SEEN]),
		.fresh = fresh_map_writable(b->fd[BRIEF_FRESH], cfg->n_vservers),
		.generation = b->generation,
	};
	int status = EXIT_FAILURE;

	if (memory.seen && memory.fresh)
		status = signer_run(cfg, b->list, b->n_sockets, b->fd[BRIEF_READY],
				    b->fd[BRIEF_STOP], &memory);
	else
		log_error("cannot map the signers' memory: %s", strerror(errno));
	replay_free(memory.seen);
	fresh_unmap(memory.fresh, cfg->n_vservers);
	return status;
}

/* Of any certkey, used or not: all are checked. */
static bool names_token(const struct cfg_texts *texts)
{
	struct config *cfg = config_glance(texts);
	bool found = false;

	for (unsigned i = 0; cfg && i < cfg->n_certkeys; i++) {
		const char *key = cfg->certkeys[i]->key_file;

		found = found || (key && pkcs11_uri(key));
	}
	config_free(cfg);
	return found;
}

/*
 * It writes either errors or, with status 0, the history of CRLs for the next check. The end of the
 * pipe is the end of the process, so nothing is closed before.
 */
_Noreturn static void run_check(struct brief *b)
{
	FILE *out = fdopen(b->fd[BRIEF_SAID], "w");
	struct cfg_texts texts;
	int err;

	if (!out || unseal(b, &texts))
		_exit(EXIT_FAILURE);
	err = sandbox_check(names_token(&texts));
	if (!err)
		err = config_check_texts(&texts, out, out);
	_exit(fflush(out) || err ? EXIT_FAILURE : EXIT_SUCCESS);
}

static int run(struct brief *b)
{
	int status = EXIT_FAILURE;
	struct config *cfg;

	if (b->role == ROLE_CHECK)
		run_check(b);
	cfg = load(b);
	if (!cfg)
		return EXIT_FAILURE;
	log_open(log_names[b->role], cfg->log_level);
	if (b->role == ROLE_SIGNER)
		status = run_signer(b, cfg);
	else if (b->role == ROLE_RESOLVER)
		status = resolver_run(cfg, b->fd[BRIEF_RESOLVED], b->fd[BRIEF_READY],
				      b->fd[BRIEF_STOP]);
	else
		status = data_run(b, cfg);
	config_free(cfg);
	return status;
}

int role_run(const char *name, int brief)
{
	scoped_mem struct brief *b = brief_read(brief);

	if (!b || strcmp(name, role_name(b->role)) != 0) {
		log_error("--role is for ktlsgated itself, when it starts its processes");
		return 2;
	}
	/* Else it would be "exe", after the file that was executed. */
	(void)prctl(PR_SET_NAME, "ktlsgated");
	log_open(log_names[b->role], LOG_LEVEL_INFO);
	return run(b);
}
