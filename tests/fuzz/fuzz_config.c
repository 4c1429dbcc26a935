// SPDX-License-Identifier: Apache-2.0
/*
 * Any bytes as a configuration file. What is accepted must print, and what is
 * printed must be accepted again and print the same.
 */
#include "fuzz.h"

#include <openssl/pem.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "config/config.h"

static const struct fuzz_bound bound = {.base_us = 20000, .byte_ns = 4000};

static struct config *load(const void *data, size_t len)
{
	scoped_fd fd = memfd_create("fuzz", MFD_CLOEXEC);
	char path[40], *errors = NULL;
	struct config *cfg = NULL;
	size_t size = 0;
	FILE *e;

	if (fd < 0 || write(fd, data, len) != (ssize_t)len)
		abort();
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	e = open_memstream(&errors, &size);
	if (!e)
		abort();
	if (config_load(path, e, &cfg) != (cfg ? 0 : -22))
		abort();
	fclose(e);
	if (!cfg != (size > 0)) /* errors are told, and only errors */
		abort();
	free(errors);
	return cfg;
}

static char *print(const struct config *cfg, size_t *size)
{
	char *text = NULL;
	FILE *f = open_memstream(&text, size);

	if (!f || !config_print(cfg, NULL, f))
		abort();
	fclose(f);
	return text;
}

/* A certificate and its key under names that the seeds know: /proc/self/fd/100 and 101. */
static void lay_out_files(void)
{
	int cert_fd = memfd_create("cert", 0), key_fd = memfd_create("key", 0);
	BIO *cert_file = BIO_new_fd(cert_fd, BIO_NOCLOSE),
	    *key_file = BIO_new_fd(key_fd, BIO_NOCLOSE);
	const unsigned char *p;
	struct der d;
	X509 *cert;

	der_begin(&d, 10000);
	fuzz_anchor(&d);
	p = d.p;
	cert = d2i_X509(NULL, &p, (long)d.len);
	ENSURE(cert && PEM_write_bio_X509(cert_file, cert) == 1);
	ENSURE(PEM_write_bio_PrivateKey(key_file, fuzz_key(0), NULL, NULL, 0, NULL, NULL) == 1);
	ENSURE(!fchmod(key_fd, 0600) && dup2(cert_fd, 100) == 100 && dup2(key_fd, 101) == 101);
	X509_free(cert);
	BIO_free(cert_file);
	BIO_free(key_file);
	der_free(&d);
}

static void run(void *arg)
{
	const struct fuzz_input *in = arg;
	struct config *cfg = load(in->p, in->left), *again;
	size_t size = 0, size_again = 0;
	char *text, *text_again;

	if (!cfg)
		return;
	text = print(cfg, &size);
	again = load(text, size);
	if (!again)
		abort();
	text_again = print(again, &size_again);
	if (size != size_again || memcmp(text, text_again, size))
		abort();
	free(text);
	free(text_again);
	config_free(cfg);
	config_free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static bool begun;
	struct fuzz_input in = {data, size};

	if (!begun)
		lay_out_files();
	begun = true;
	fuzz_bounded(&bound, size, run, &in);
	return 0;
}
