// SPDX-License-Identifier: Apache-2.0
/* PEM files in, certificates and private keys out. Does not know what they are for. */
#include "pki/pem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/pkcs12.h>
#include "pki/crl.h"
#include "base/log.h"

#define PASSPHRASE_FILE_MAX 65536
#define PEM_FILE_MAX	    (8 << 20)	/* the largest public CA bundles have a tenth of it */
#define CRL_FILE_MAX	    (256 << 20) /* some ten million certificates */

/* A file's content, wiped when it goes: it may be a key. */
struct content {
	char *text;
	size_t len;
	struct stat st;
};

static void content_wipe(struct content *c)
{
	OPENSSL_clear_free(c->text, c->len);
}
#define scoped_content __attribute__((cleanup(content_wipe))) struct content

static int read_fully(int fd, struct content *c)
{
	size_t have = 0;

	while (have < c->len) {
		ssize_t n = read(fd, c->text + have, c->len - have);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			return -EIO; /* it shrank while we read */
		have += n;
	}
	return 0;
}

static int too_large(off_t size, off_t max, char *why, size_t why_len)
{
	if (size <= max)
		return 0;
	snprintf(why, why_len, "is larger than %d MiB; give a PEM file", (int)(max >> 20));
	return -EFBIG;
}

/* O_NONBLOCK: a FIFO by mistake must not hang the start. */
static int content_read(const char *path, off_t max, struct content *c, char *why, size_t why_len)
{
	scoped_fd fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	int err;

	if (fd < 0 || fstat(fd, &c->st) < 0) {
		err = errno;
		snprintf(why, why_len, "cannot be opened: %s; give a PEM file we may read",
			 strerror(err));
		return -err;
	}
	if (!S_ISREG(c->st.st_mode)) {
		snprintf(why, why_len, "is %s; give a PEM file",
			 S_ISDIR(c->st.st_mode) ? "a directory" : "not a regular file");
		return -EINVAL;
	}
	err = too_large(c->st.st_size, max, why, why_len);
	if (err < 0)
		return err;
	if (!c->st.st_size) {
		snprintf(why, why_len, "is empty; give a PEM file");
		return -EINVAL;
	}
	c->text = OPENSSL_malloc(c->st.st_size);
	c->len = c->text ? c->st.st_size : 0;
	err = c->text ? read_fully(fd, c) : -ENOMEM;
	if (err < 0)
		snprintf(why, why_len, "cannot be read: %s; give a PEM file we may read",
			 strerror(-err));
	return err;
}

static bool contains(const void *text, size_t len, const char *what)
{
	return text && memmem(text, len, what, strlen(what)) != NULL;
}

static int parse_certs(BIO *bio, STACK_OF(X509) * certs, char *why, size_t why_len)
{
	char text[200];

	ERR_clear_error();
	for (;;) {
		scoped_x509 *cert = PEM_read_bio_X509(bio, NULL, NULL, NULL);

		if (!cert)
			break;
		if (!sk_X509_push(certs, cert)) {
			snprintf(why, why_len, "out of memory");
			return -ENOMEM;
		}
		cert = NULL; /* the stack's */
	}
	if (ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE) {
		snprintf(why, why_len,
			 "certificate %d of the file is malformed: %s; try openssl x509",
			 sk_X509_num(certs) + 1, log_openssl(text, sizeof(text)));
		return -EINVAL;
	}
	ERR_clear_error();
	if (sk_X509_num(certs))
		return 0;
	snprintf(why, why_len, "holds no certificate; a block BEGIN CERTIFICATE is needed");
	return -EINVAL;
}

int pem_parse_certs(const void *text, size_t len, STACK_OF(X509) * *out, char *why, size_t why_len)
{
	scoped_certs *certs = NULL;
	scoped_bio *bio = NULL;
	int err = too_large((off_t)len, PEM_FILE_MAX, why, why_len);

	if (err < 0)
		return err;
	if (contains(text, len, "PRIVATE KEY-----")) {
		snprintf(why, why_len,
			 "holds a private key; keep certificates and keys in files of their own");
		return -EINVAL;
	}
	if (!contains(text, len, "-----BEGIN ")) {
		snprintf(why, why_len, "is not PEM; convert it, e.g. openssl x509 -inform DER");
		return -EINVAL;
	}
	bio = BIO_new_mem_buf(text, (int)len);
	certs = sk_X509_new_null();
	if (!bio || !certs) {
		snprintf(why, why_len, "out of memory");
		return -ENOMEM;
	}
	err = parse_certs(bio, certs, why, why_len);
	if (err < 0)
		return err;
	*out = TAKE_PTR(certs);
	return 0;
}

int pem_load_certs(const char *path, STACK_OF(X509) * *out, char *why, size_t why_len)
{
	scoped_content c = {0};
	int err = content_read(path, PEM_FILE_MAX, &c, why, why_len);

	return err < 0 ? err : pem_parse_certs(c.text, c.len, out, why, why_len);
}

static int add_crl(X509_CRL *crl, STACK_OF(X509_CRL) * out, int number, char *why, size_t why_len)
{
	const char *unfit = crl_unfit(crl);

	if (unfit) {
		snprintf(why, why_len, "CRL %d of the file %s", number, unfit);
	} else if (sk_X509_CRL_push(out, crl)) {
		return 0;
	} else {
		snprintf(why, why_len, "out of memory");
	}
	X509_CRL_free(crl);
	return unfit ? -EINVAL : -ENOMEM;
}

/* The next CRL of the file's text from *at on, and *at behind it; NULL with an error in the queue:
 * it is malformed, without: there is none. */
static X509_CRL *next_crl(BIO *pem, const unsigned char *text, size_t len, size_t *at)
{
	const unsigned char *p = text + *at;
	X509_CRL *crl;

	ERR_clear_error();
	if (pem) {
		crl = PEM_read_bio_X509_CRL(pem, NULL, NULL, NULL);
		if (ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE)
			ERR_clear_error();
		return crl;
	}
	crl = *at < len ? d2i_X509_CRL(NULL, &p, (long)(len - *at)) : NULL;
	*at = (size_t)(p - text);
	return crl;
}

int pem_parse_crls(const void *text, size_t len, STACK_OF(X509_CRL) * out, char *why,
		   size_t why_len)
{
	scoped_bio *pem = NULL;
	int err = too_large((off_t)len, CRL_FILE_MAX, why, why_len), n = 0;
	X509_CRL *crl;
	size_t at = 0;
	char openssl[200];

	if (err < 0)
		return err;
	if (contains(text, len, "-----BEGIN ")) {
		pem = BIO_new_mem_buf(text, (int)len);
		if (!pem) {
			snprintf(why, why_len, "out of memory");
			return -ENOMEM;
		}
	}
	while ((crl = next_crl(pem, text, len, &at))) {
		err = add_crl(crl, out, ++n, why, why_len);
		if (err < 0)
			return err;
	}
	if (ERR_peek_last_error()) {
		snprintf(why, why_len, "CRL %d of the file is malformed: %s; try openssl crl",
			 n + 1, log_openssl(openssl, sizeof(openssl)));
		return -EINVAL;
	}
	if (n)
		return 0;
	snprintf(why, why_len, "holds no CRL; a block BEGIN X509 CRL is needed, or DER");
	return -EINVAL;
}

int pem_load_crls(const char *path, STACK_OF(X509_CRL) * out, char *why, size_t why_len)
{
	scoped_content c = {0};
	int err = content_read(path, CRL_FILE_MAX, &c, why, why_len);

	return err < 0 ? err : pem_parse_crls(c.text, c.len, out, why, why_len);
}

/* One PEM block, in memory that is wiped. */
struct block {
	char *name, *header;
	unsigned char *der;
	long len;
};

static void block_wipe(struct block *b)
{
	OPENSSL_secure_free(b->name);
	OPENSSL_secure_free(b->header);
	OPENSSL_secure_clear_free(b->der, b->len);
}
#define scoped_block __attribute__((cleanup(block_wipe))) struct block

#define CREDENTIAL "credential:"

/* The path that a name stands for; false: there are no credentials. */
static bool passphrase_path(const char *file, char path[4096])
{
	const char *directory = getenv("CREDENTIALS_DIRECTORY");

	if (strncmp(file, CREDENTIAL, strlen(CREDENTIAL)) != 0)
		snprintf(path, 4096, "%s", file);
	else if (directory)
		snprintf(path, 4096, "%s/%s", directory, file + strlen(CREDENTIAL));
	else
		return false;
	return true;
}

int pem_load_passphrase(const char *file, enum file_use use, char out[PEM_PASSPHRASE_MAX],
			char *why, size_t why_len)
{
	scoped_content c = {0};
	char path[4096], text[200];
	size_t n;
	int err;

	if (!passphrase_path(file, path)) {
		snprintf(why, why_len,
			 "%s: systemd gave no credentials (CREDENTIALS_DIRECTORY is not set); use "
			 "LoadCredential= or name a file",
			 file);
		return -ENOENT;
	}
	err = content_read(path, PASSPHRASE_FILE_MAX, &c, text, sizeof(text));
	if (err < 0) {
		/* What content_read() asks for is PEM, which this is not. */
		snprintf(why, why_len, "the passphrase's file %s %.*s; name one we may read", path,
			 (int)strcspn(text, ";"), text);
		return err;
	}
	err = file_trust(path, &c.st, use, text, sizeof(text));
	if (err) {
		snprintf(why, why_len, "the passphrase's file %s: %s", path, text);
		return err;
	}
	for (n = 0; n < c.len && c.text[n] != '\n' && c.text[n] != '\r'; n++)
		;
	if (!n || n >= PEM_PASSPHRASE_MAX) {
		snprintf(why, why_len,
			 "the passphrase's file %s begins with a line of %zu bytes; use 1 to %d",
			 path, n, PEM_PASSPHRASE_MAX - 1);
		return -EINVAL;
	}
	memcpy(out, c.text, n);
	out[n] = '\0';
	return 0;
}

/* RFC 1421's "Proc-Type: 4,ENCRYPTED", as OpenSSL wrote keys before PKCS#8: decrypts in place. */
static bool decrypt_traditional(struct block *b, const char *passphrase)
{
	EVP_CIPHER_INFO cipher;

	return PEM_get_EVP_CIPHER_INFO(b->header, &cipher) &&
	       PEM_do_header(&cipher, b->der, &b->len, NULL, (void *)passphrase);
}

/* PKCS#8. What it decrypts OpenSSL wipes. */
static EVP_PKEY *decrypt_pkcs8(const struct block *b, const char *passphrase)
{
	const unsigned char *p = b->der;
	X509_SIG *sealed = d2i_X509_SIG(NULL, &p, b->len);
	PKCS8_PRIV_KEY_INFO *opened =
		sealed ? PKCS8_decrypt(sealed, passphrase, (int)strlen(passphrase)) : NULL;
	EVP_PKEY *key = opened ? EVP_PKCS82PKEY(opened) : NULL;

	PKCS8_PRIV_KEY_INFO_free(opened);
	X509_SIG_free(sealed);
	return key;
}

static EVP_PKEY *parse_key(struct block *b, const char *passphrase)
{
	const unsigned char *p = b->der;

	if (!strncmp(b->name, "ENCRYPTED", 9))
		return passphrase ? decrypt_pkcs8(b, passphrase) : NULL;
	if (strstr(b->header, "ENCRYPTED") && !decrypt_traditional(b, passphrase))
		return NULL;
	p = b->der;
	return d2i_AutoPrivateKey(NULL, &p, b->len);
}

/* 1: the block is the key, in *out; 0: it is something else, e.g. EC PARAMETERS. */
static int parse_block(struct block *b, const char *passphrase, EVP_PKEY **out, char *why,
		       size_t why_len)
{
	bool encrypted = !strncmp(b->name, "ENCRYPTED", 9) || strstr(b->header, "ENCRYPTED");
	char text[200];

	if (!strstr(b->name, "PRIVATE KEY"))
		return 0;
	if (encrypted && !passphrase) {
		snprintf(why, why_len,
			 "is encrypted; name the file with its passphrase: key_passphrase_file");
		return -EINVAL;
	}
	*out = parse_key(b, passphrase);
	if (*out) {
		ERR_clear_error(); /* of the key types it tried in vain */
		return 1;
	}
	if (encrypted)
		snprintf(why, why_len,
			 "cannot be decrypted: %s; is this passphrase another key's? Try openssl "
			 "pkey",
			 log_openssl(text, sizeof(text)));
	else
		snprintf(why, why_len, "holds a malformed key: %s; try openssl pkey",
			 log_openssl(text, sizeof(text)));
	return -EINVAL;
}

static int find_key(BIO *bio, const char *passphrase, EVP_PKEY **out, char *why, size_t why_len)
{
	for (;;) {
		scoped_block b = {0};
		int err;

		/* Not PEM_read_bio_PrivateKey(): it leaves a line of the text on the heap. */
		if (!PEM_read_bio_ex(bio, &b.name, &b.header, &b.der, &b.len,
				     PEM_FLAG_SECURE | PEM_FLAG_EAY_COMPATIBLE))
			break;
		err = parse_block(&b, passphrase, out, why, why_len);
		if (err)
			return err < 0 ? err : 0;
	}
	ERR_clear_error();
	snprintf(why, why_len, "holds no private key in PEM; a block BEGIN PRIVATE KEY is needed");
	return -EINVAL;
}

int pem_load_key(const char *path, const char *passphrase_file, enum file_use use, EVP_PKEY **out,
		 char *why, size_t why_len)
{
	char passphrase[PEM_PASSPHRASE_MAX];
	scoped_content c = {0};
	scoped_pkey *key = NULL;
	scoped_bio *bio = NULL;
	int err = content_read(path, PEM_FILE_MAX, &c, why, why_len);

	if (err < 0)
		return err;
	bio = BIO_new_mem_buf(c.text, c.len);
	if (!bio) {
		snprintf(why, why_len, "out of memory");
		return -ENOMEM;
	}
	if (passphrase_file)
		err = pem_load_passphrase(passphrase_file, use, passphrase, why, why_len);
	if (!err)
		err = find_key(bio, passphrase_file ? passphrase : NULL, &key, why, why_len);
	OPENSSL_cleanse(passphrase, sizeof(passphrase));
	if (!err)
		err = file_trust(path, &c.st, use, why, why_len);
	if (!err)
		*out = TAKE_PTR(key);
	return err;
}
