/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private keys that are not in a file but in a token (an HSM, a smart card,
 * SoftHSM2), named by a PKCS#11 URI (RFC 7512), by way of OpenSSL's pkcs11 engine
 * (libengine-pkcs11-openssl). The key does its work there and never leaves it.
 */
#ifndef KTLSGATE_PKCS11_H
#define KTLSGATE_PKCS11_H

#include <stdbool.h>
#include "base/scoped.h"

/* Is this the name of a key in a token, not of a file? */
bool pkcs11_uri(const char *name);

/*
 * pin_file: as in pem_load_passphrase(), NULL: the URI has it or none is needed. The module is the
 * URI's module-path, else the engine's default (p11-kit, which asks its configuration).
 * On failure why holds "what is wrong; what would be right". Returns 0 or -errno.
 */
int pkcs11_load_key(const char *uri, const char *pin_file, EVP_PKEY **out, char *why,
		    size_t why_len) must_check;

#endif
