// SPDX-License-Identifier: Apache-2.0
/* Certificates to lines of JSON, and these to a file. Knows no socket and no policy. */
#include "signer/audit.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <openssl/x509v3.h>
#include "base/escape.h"
#include "base/file_trust.h"
#include "pki/identity.h"
#include "base/log.h"
#include "pki/names.h"

struct audit {
	int fd;
	bool sync;
	bool torn; /* the file ends within a line */
	char *path;
};

/* ---- the file ---- */

/* Is the end of the file the end of a line? -errno */
static int ends_within_line(int fd)
{
	struct stat st;
	char last;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	if (!st.st_size)
		return 0;
	if (pread(fd, &last, 1, st.st_size - 1) != 1)
		return -EIO;
	return last != '\n';
}

static int repair(struct audit *a)
{
	int torn = ends_within_line(a->fd);

	if (torn <= 0)
		return torn;
	log_warn("%s: its last line was cut short, and is ended now", a->path);
	return write(a->fd, "\n", 1) == 1 ? 0 : -errno;
}

static int check_trust(const struct audit *a)
{
	char why[256];
	struct stat st;

	if (fstat(a->fd, &st))
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	if (!file_trust(a->path, &st, FILE_LOG, why, sizeof(why)))
		return 0;
	log_error("audit.log = %s: %s", a->path, why);
	return -EPERM;
}

int audit_open(const char *path, bool sync, struct audit **out)
{
	struct audit *a = calloc(1, sizeof(*a));
	int ret = -ENOMEM;

	*out = NULL;
	if (!a)
		return ret;
	a->sync = sync;
	/* O_NONBLOCK: a FIFO by mistake must not hang the start. */
	a->fd = open(path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
	if (a->fd < 0)
		ret = -errno;
	else if ((a->path = strdup(path)))
		ret = check_trust(a);
	if (!ret)
		ret = repair(a);
	if (!ret) {
		*out = a;
		return 0;
	}
	log_error("audit.log = %s: %s", path,
		  ret == -EINVAL ? "not a regular file" : strerror(-ret));
	audit_free(a);
	return ret;
}

void audit_free(struct audit *a)
{
	if (!a)
		return;
	if (a->fd >= 0)
		close(a->fd);
	free(a->path);
	free(a);
}

/* Part of a line is worse than none: what comes next must not become its end. */
static int append(struct audit *a, const char *line, size_t len)
{
	ssize_t n;

	if (a->torn && write(a->fd, "\n", 1) == 1)
		a->torn = false;
	if (a->torn)
		return -errno;
	n = TEMP_FAILURE_RETRY(write(a->fd, line, len));
	if (n < 0)
		return -errno;
	if ((size_t)n < len) {
		a->torn = true;
		return -ENOSPC;
	}
	if (a->sync && fdatasync(a->fd) < 0)
		return -errno;
	return 0;
}

/* ---- JSON ---- */

static void put_string(FILE *out, const char *key, const char *value)
{
	fprintf(out, "\"%s\":", key);
	escape_json(value, out);
}

static void put_time_value(FILE *out, const char *key, time_t t, long ms)
{
	char text[32];
	struct tm tm;

	gmtime_r(&t, &tm);
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
	fprintf(out, "\"%s\":\"%s", key, text);
	if (ms >= 0)
		fprintf(out, ".%03ld", ms);
	fputs("Z\"", out);
}

static void put_now(FILE *out)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	put_time_value(out, "time", now.tv_sec, now.tv_nsec / 1000000);
}

static void put_time(FILE *out, const char *key, const ASN1_TIME *t)
{
	time_t seconds = 0;

	(void)!identity_time(t, &seconds);
	put_time_value(out, key, seconds, -1);
}

static void put_name(FILE *out, const char *key, const X509_NAME *name)
{
	scoped_mem char *text = names_subject(name);

	put_string(out, key, text ? text : "");
}

static void put_serial(FILE *out, X509 *cert)
{
	scoped_bn *n = ASN1_INTEGER_to_BN(X509_get0_serialNumber(cert), NULL);
	char *hex = n ? BN_bn2hex(n) : NULL;

	put_string(out, "serial", hex ? hex : "");
	OPENSSL_free(hex);
}

static void put_fingerprint(FILE *out, X509 *cert)
{
	uint8_t print[FINGERPRINT_LEN] = {0};
	char hex[2 * FINGERPRINT_LEN + 1];

	(void)!identity_fingerprint(cert, print);
	identity_hex(print, sizeof(print), hex);
	put_string(out, "fingerprint", hex);
}

/* ---- names ---- */

static void put_names(FILE *out, X509 *cert)
{
	scoped_names *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);

	fputs("\"names\":[", out);
	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		scoped_mem char *text = names_general(sk_GENERAL_NAME_value(names, i));

		fputs(i ? "," : "", out);
		escape_json(text ? text : "", out);
	}
	putc(']', out);
}

/* ---- a line ---- */

static void put_peer(FILE *out, const struct audit_entry *e)
{
	char ip[INET6_ADDRSTRLEN] = "";
	char text[INET6_ADDRSTRLEN + 16] = "";

	if ((e->family == AF_INET || e->family == AF_INET6) &&
	    inet_ntop(e->family, e->peer, ip, sizeof(ip)))
		snprintf(text, sizeof(text), e->family == AF_INET ? "%s:%u" : "[%s]:%u", ip,
			 ntohs(e->port));
	put_string(out, "peer", text);
}

static void put_original(FILE *out, X509 *cert)
{
	fputs("\"original\":{", out);
	put_serial(out, cert);
	putc(',', out);
	put_fingerprint(out, cert);
	putc(',', out);
	put_name(out, "issuer", X509_get_issuer_name(cert));
	putc(',', out);
	put_name(out, "subject", X509_get_subject_name(cert));
	putc(',', out);
	put_names(out, cert);
	putc('}', out);
}

/* "serial" first: ktlsgatectl forged looks for it there. */
static void put_forged(FILE *out, X509 *cert)
{
	fputs("\"forged\":{", out);
	put_serial(out, cert);
	putc(',', out);
	put_fingerprint(out, cert);
	putc(',', out);
	put_time(out, "not_before", X509_get0_notBefore(cert));
	putc(',', out);
	put_time(out, "not_after", X509_get0_notAfter(cert));
	putc('}', out);
}

static void put_line(FILE *out, const struct audit_entry *e)
{
	putc('{', out);
	put_now(out);
	putc(',', out);
	put_forged(out, e->forged);
	putc(',', out);
	put_original(out, e->original);
	putc(',', out);
	put_string(out, "ca", e->ca->name);
	putc(',', out);
	put_string(out, "vserver", e->vserver->name);
	putc(',', out);
	put_string(out, "service", e->service->name);
	putc(',', out);
	put_peer(out, e);
	fprintf(out, ",\"flow\":%" PRIu64 "}\n", e->flow);
}

int audit_write(struct audit *a, const struct audit_entry *e)
{
	scoped_mem char *line = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&line, &len);
	int ret;

	if (!out)
		return -ENOMEM;
	put_line(out, e);
	ret = ferror(out) ? -ENOMEM : 0;
	if (fclose(out))
		ret = -ENOMEM;
	if (!ret)
		ret = append(a, line, len);
	if (ret)
		log_error("%s: %s; nothing is issued", a->path, strerror(-ret));
	return ret;
}
