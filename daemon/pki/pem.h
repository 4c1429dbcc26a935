/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PEM files in, certificates and private keys out. On failure why holds "what
 * is wrong; what would be right", fit for the end of an error line.
 */
#ifndef KTLSGATE_PEM_H
#define KTLSGATE_PEM_H

#include "base/file_trust.h"
#include "base/scoped.h"

/*
 * All certificates of the file in its order, at least one. A file that holds a
 * private key as well is refused: processes that must never see the key read
 * it. Returns 0 or -errno; *out is the caller's.
 */
int pem_load_certs(const char *path, STACK_OF(X509) * *out, char *why, size_t why_len) must_check;
/* The same with a file that was read already. */
int pem_parse_certs(const void *text, size_t len, STACK_OF(X509) * *out, char *why,
		    size_t why_len) must_check;

/*
 * Adds all CRLs of the file, PEM or DER, at least one; each is fit (crl.h). Returns 0 or
 * -errno; *out is the caller's.
 */
int pem_load_crls(const char *path, STACK_OF(X509_CRL) * out, char *why, size_t why_len) must_check;
int pem_parse_crls(const void *text, size_t len, STACK_OF(X509_CRL) * out, char *why,
		   size_t why_len) must_check;

/*
 * The first private key of the file. passphrase_file: what an encrypted key is
 * opened with, the first line of that file; NULL: none. Either file is refused if others may use
 * it, see file_trust(). Every copy of the file's text is wiped; OpenSSL 3.0's decoder leaves one
 * copy of the decoded secret on the heap, so only a process that may hold the key may call this.
 */
int pem_load_key(const char *path, const char *passphrase_file, enum file_use use, EVP_PKEY **out,
		 char *why, size_t why_len) must_check;

/*
 * The first line of a file into out, without its end: a passphrase or a PIN. "credential:NAME" is
 * a credential of systemd's, $CREDENTIALS_DIRECTORY/NAME. The caller wipes out.
 * Returns 0 or -errno.
 */
#define PEM_PASSPHRASE_MAX 1024
int pem_load_passphrase(const char *file, enum file_use use, char out[PEM_PASSPHRASE_MAX],
			char *why, size_t why_len) must_check;

#endif
