// SPDX-License-Identifier: Apache-2.0
/* Keys in tokens, through an engine: Debian 12 has no PKCS#11 provider. Knows no configuration. */
#define OPENSSL_SUPPRESS_DEPRECATED
#include "pki/pkcs11.h"

#include <errno.h>
#include <string.h>
#include <strings.h>
#include <openssl/engine.h>
#include <openssl/err.h>
#include "base/log.h"
#include "pki/pem.h"

#define SCHEME	"pkcs11:"
#define MODULE	"module-path="
#define PACKAGE "install libengine-pkcs11-openssl"

SCOPED_DEFINE(engine, ENGINE, ENGINE_free)
#define scoped_engine __attribute__((cleanup(scoped_engine_free_))) ENGINE

bool pkcs11_uri(const char *name)
{
	return !strncmp(name, SCHEME, strlen(SCHEME));
}

static int failed(char *why, size_t why_len, const char *what, const char *instead)
{
	char text[200];

	snprintf(why, why_len, "%s: %s; %s", what, log_openssl(text, sizeof(text)), instead);
	ERR_clear_error();
	return -EIO;
}

/* The query attribute module-path (RFC 7512, 2.4), percent-decoded; NULL: there is none. */
static char *module_path(const char *uri)
{
	const char *p = strchr(uri, '?');
	char *path, *end;

	p = p ? strstr(p, MODULE) : NULL;
	if (!p)
		return NULL;
	p += strlen(MODULE);
	path = strndup(p, strcspn(p, "&"));
	if (!path)
		return NULL;
	end = path;
	for (const char *c = path; *c; c++) {
		char hex[3] = {c[0], c[0] == '%' ? c[1] : '\0', c[1] ? c[2] : '\0'};

		if (*c == '%' && strlen(hex + 1) == 2) {
			*end++ = (char)strtoul(hex + 1, NULL, 16);
			c += 2;
		} else {
			*end++ = *c;
		}
	}
	*end = '\0';
	return path;
}

/* The engine refuses attributes that it does not know: the URI without module-path. */
static char *engine_uri(const char *uri)
{
	char *copy = strdup(uri), *p = copy ? strchr(copy, '?') : NULL;
	size_t len;

	p = p ? strstr(p, MODULE) : NULL;
	if (!p)
		return copy;
	len = strcspn(p, "&");
	if (p[len])
		memmove(p, p + len + 1, strlen(p + len + 1) + 1);
	else
		p[-1] = '\0'; /* the '?' or '&' before it, too */
	return copy;
}

static int open_engine(ENGINE *e, const char *uri, const char *pin_file, char *why, size_t why_len)
{
	scoped_mem char *module = module_path(uri);
	char pin[PEM_PASSPHRASE_MAX];
	int ret = 0;

	if (module && ENGINE_ctrl_cmd_string(e, "MODULE_PATH", module, 0) != 1)
		return failed(why, why_len, "the engine takes no module-path", PACKAGE);
	if (!ENGINE_init(e))
		return failed(why, why_len, "the token's module cannot be opened",
			      "check module-path");
	if (!pin_file)
		return 0;
	ret = pem_load_passphrase(pin_file, FILE_OF_OWNER, pin, why, why_len);
	if (!ret && ENGINE_ctrl_cmd_string(e, "PIN", pin, 0) != 1)
		ret = failed(why, why_len, "the engine takes no PIN", PACKAGE);
	OPENSSL_cleanse(pin, sizeof(pin));
	if (ret)
		ENGINE_finish(e);
	return ret;
}

int pkcs11_load_key(const char *uri, const char *pin_file, EVP_PKEY **out, char *why,
		    size_t why_len)
{
	scoped_mem char *name = engine_uri(uri);
	scoped_engine *e = NULL;
	int ret;

	if (!name) {
		snprintf(why, why_len, "out of memory");
		return -ENOMEM;
	}
	ENGINE_load_dynamic();
	e = ENGINE_by_id("pkcs11");
	if (!e)
		return failed(why, why_len, "OpenSSL has no engine for PKCS#11", PACKAGE);
	ret = open_engine(e, uri, pin_file, why, why_len);
	if (ret)
		return ret;
	/* The key holds on to the engine. */
	*out = ENGINE_load_private_key(e, name, NULL, NULL);
	ENGINE_finish(e);
	if (*out) {
		ERR_clear_error();
		return 0;
	}
	return failed(why, why_len, "the token has no such key, or wants another PIN",
		      "compare p11tool --list-all, and set key_passphrase_file");
}
