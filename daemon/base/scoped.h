/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cleanup attributes for locals, so that a function can be cleared of leaks
 * without opening its callees. A descriptor starts at -1, a pointer at NULL;
 * TAKE_* moves ownership out of the local.
 */
#ifndef KTLSGATE_SCOPED_H
#define KTLSGATE_SCOPED_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/ocsp.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#define must_check		      __attribute__((warn_unused_result))
#define printf_like(a, b)	      __attribute__((format(printf, a, b)))
#define ARRAY_SIZE(a)		      (sizeof(a) / sizeof((a)[0]))
#define container_of(p, type, member) ((type *)((char *)(p)-offsetof(type, member)))

static inline void scoped_close_(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}
#define scoped_fd __attribute__((cleanup(scoped_close_))) int

static inline int scoped_take_fd_(int *fd)
{
	int v = *fd;

	*fd = -1;
	return v;
}
#define TAKE_FD(fd) scoped_take_fd_(&(fd))

#define TAKE_PTR(p)                                                                                \
	__extension__({                                                                            \
		__typeof__(p) taken_ = (p);                                                        \
		(p) = NULL;                                                                        \
		taken_;                                                                            \
	})

/* SCOPED_DEFINE(name, type, free function): declares scoped_<name>. */
#define SCOPED_DEFINE(name, type, fn)                                                              \
	static inline void scoped_##name##_free_(type **p)                                         \
	{                                                                                          \
		if (*p)                                                                            \
			fn(*p);                                                                    \
	}

SCOPED_DEFINE(file, FILE, fclose)
SCOPED_DEFINE(bio, BIO, BIO_free_all)
SCOPED_DEFINE(x509, X509, X509_free)
SCOPED_DEFINE(pkey, EVP_PKEY, EVP_PKEY_free)
SCOPED_DEFINE(mdctx, EVP_MD_CTX, EVP_MD_CTX_free)
SCOPED_DEFINE(pkey_ctx, EVP_PKEY_CTX, EVP_PKEY_CTX_free)
SCOPED_DEFINE(store, X509_STORE, X509_STORE_free)
SCOPED_DEFINE(names, GENERAL_NAMES, GENERAL_NAMES_free)
SCOPED_DEFINE(bn, BIGNUM, BN_free)
SCOPED_DEFINE(response, OCSP_RESPONSE, OCSP_RESPONSE_free)
SCOPED_DEFINE(basic, OCSP_BASICRESP, OCSP_BASICRESP_free)
SCOPED_DEFINE(certid, OCSP_CERTID, OCSP_CERTID_free)
SCOPED_DEFINE(der, unsigned char, OPENSSL_free) /* from an i2d function */

#define scoped_file	__attribute__((cleanup(scoped_file_free_))) FILE
#define scoped_bio	__attribute__((cleanup(scoped_bio_free_))) BIO
#define scoped_x509	__attribute__((cleanup(scoped_x509_free_))) X509
#define scoped_pkey	__attribute__((cleanup(scoped_pkey_free_))) EVP_PKEY
#define scoped_mdctx	__attribute__((cleanup(scoped_mdctx_free_))) EVP_MD_CTX
#define scoped_pkey_ctx __attribute__((cleanup(scoped_pkey_ctx_free_))) EVP_PKEY_CTX
#define scoped_store	__attribute__((cleanup(scoped_store_free_))) X509_STORE
#define scoped_names	__attribute__((cleanup(scoped_names_free_))) GENERAL_NAMES
#define scoped_bn	__attribute__((cleanup(scoped_bn_free_))) BIGNUM
#define scoped_response __attribute__((cleanup(scoped_response_free_))) OCSP_RESPONSE
#define scoped_basic	__attribute__((cleanup(scoped_basic_free_))) OCSP_BASICRESP
#define scoped_certid	__attribute__((cleanup(scoped_certid_free_))) OCSP_CERTID
#define scoped_der	__attribute__((cleanup(scoped_der_free_))) unsigned char

static inline void scoped_mem_free_(void *p)
{
	free(*(void **)p);
}
#define scoped_mem __attribute__((cleanup(scoped_mem_free_)))

static inline void scoped_certs_free_(STACK_OF(X509) * *chain)
{
	sk_X509_pop_free(*chain, X509_free);
}
#define scoped_certs __attribute__((cleanup(scoped_certs_free_))) STACK_OF(X509)

#endif
