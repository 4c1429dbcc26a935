/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of configuration keys: what config_load.c, the printers and the example
 * file have in common. Internal to config*.c.
 */
#ifndef KTLSGATE_CONFIG_TABLE_H
#define KTLSGATE_CONFIG_TABLE_H

#include "config/config.h"

#define CFG_NAME_MAX 63
#define CFG_KEY_MAX  128 /* a key with an object's name in it, and the NUL */
#define CFG_WHY_MAX  512
#define CFG_BLANK    " \t" /* what separates the elements of a list */

enum cfg_scope {
	SCOPE_GLOBAL,
	SCOPE_CERTKEY,
	SCOPE_PROFILE,
	SCOPE_SERVICE,
	SCOPE_VSERVER,
	SCOPES
};

struct cfg_key;

/* How the values of a kind look. */
struct cfg_type {
	const char *name;
	/* text to *member. Returns 0, or -EINVAL with "what is wrong; what would be right" in why.
	 */
	int (*parse)(const struct cfg_key *k, const char *text, void *member, char *why);
	/* NULL: nothing is set, or config_load.c knows better (references) */
	void (*print)(const struct cfg_key *k, const void *member, FILE *out);
	/* What may be written, in one phrase. */
	void (*range)(const struct cfg_key *k, FILE *out);
	bool owns_string; /* the member is, or begins with, a pointer to be freed */
};

struct cfg_choice {
	const char *word;
	unsigned value;
};

struct cfg_key {
	const char *pattern; /* "vserver.<name>.listen" */
	enum cfg_scope scope;
	const struct cfg_type *type;
	size_t offset; /* of the member in the scope's struct */
	size_t where;  /* offset of its struct cfg_where; 0: has none */
	const char *unit;
	unsigned min, max; /* numbers: the values; strings: max bytes */
	const char *word;  /* stands for 0 (numbers) or NULL (paths) */
	const struct cfg_choice *choices;
	enum cfg_scope refers; /* references: to what */
	bool mandatory;
	bool fixed;	   /* cannot change while the daemon runs */
	const char *value; /* the default; NULL: none */
	const char *help;  /* one line */
};

/* An assignment that counts; in the order of scopes, objects and rows. */
struct cfg_origin {
	const struct cfg_key *key;
	unsigned object;
	struct cfg_where where;
};

extern const struct cfg_key cfg_keys[];
extern const unsigned cfg_n_keys;

/* A kind of object: where struct config lists them. */
struct cfg_scope_desc {
	const char *name;
	const char *help;
	size_t size;	    /* of one object */
	size_t list, count; /* offsets in struct config */
};

extern const struct cfg_scope_desc cfg_scopes[SCOPES];

/* What every object's struct begins with. */
struct cfg_head {
	char *name;
	unsigned index;
};

/* Objects of a scope; SCOPE_GLOBAL has one, the struct config itself. */
unsigned cfg_count(const struct config *cfg, enum cfg_scope scope);
void *cfg_object(const struct config *cfg, enum cfg_scope scope, unsigned i);
/* Appends a new object with all defaults; NULL: out of memory. */
void *cfg_object_add(struct config *cfg, enum cfg_scope scope, const char *name) must_check;
int cfg_set_defaults(enum cfg_scope scope, void *object) must_check;

/* Pointer members of whatever type, without breaking aliasing rules. */
void *cfg_get_pointer(const void *member);
void cfg_set_pointer(void *member, void *value);

static inline void *cfg_member(const void *object, size_t offset)
{
	return (char *)object + offset;
}

/*
 * The row of a key as written in a file, or NULL; *name and *name_len: the
 * object's name in it, of any form.
 */
const struct cfg_key *cfg_find(const char *text, const char **name, size_t *name_len);

/* Pattern and object name (NULL for globals) to a key. */
void cfg_key_text(const struct cfg_key *k, const char *name, char out[CFG_KEY_MAX]);

/* The key nearest to a misspelt one; false: none is near. */
bool cfg_nearest(const char *text, char out[CFG_KEY_MAX]);

bool cfg_name_valid(const char *name, size_t len);

/* Has the object's member a value to print? */
bool cfg_is_set(const struct cfg_key *k, const void *member);
/* "key = value"; name: the object's, NULL for globals. */
void cfg_print_line(const struct cfg_key *k, const char *name, const void *member, FILE *out);

#endif
