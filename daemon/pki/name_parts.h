/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A name of a certificate, taken apart for patterns (name_pattern.h): a row of characters, with
 * marks in between where one part ends and the next begins. A character of a value never looks like
 * a mark, so that no value can be taken for more parts than it is.
 */
#ifndef KTLSGATE_NAME_PARTS_H
#define KTLSGATE_NAME_PARTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <openssl/x509v3.h>
#include "base/scoped.h"

enum name_kind {
	NAME_SUBJECT,
	NAME_DNS,
	NAME_EMAIL,
	NAME_URI,
	NAME_IP,
	NAME_DIR,
	NAME_UPN,
	NAME_OTHER,
	NAME_RID, /* registeredID */
	NAME_TYPE /* what is left: x400Address and ediPartyName */
};

/* A part is a Unicode character or a mark, and flags. */
#define PART_EXACT    0x40000000u /* capital letters are others than small ones here */
#define PART_BOUNDARY 0x80000000u /* of two parts, e.g. the '.' of a DNS name; no * fits it */
#define PART_CODE     0x3fffffffu

/* Marks; no character has such a code. */
#define PART_MARK(n)   (PART_BOUNDARY | (0x200000u + (n)))
#define PART_RDN       PART_MARK(0) /* a relative distinguished name begins */
#define PART_RDN_END   PART_MARK(1)
#define PART_ATTRIBUTE PART_MARK(2) /* the OID of an attribute follows; sorted by their texts */
#define PART_VALUE     PART_MARK(3) /* its value follows, or an otherName's */
#define PART_DER       PART_MARK(4) /* not a text: its DER in hexadecimal follows */

#define NAME_OID_MAX   80
#define NAME_PARTS_MAX 4096 /* a longer name fits nothing but KIND:* */
#define NAME_AVAS_MAX  16   /* attributes of one RDN; likewise */

struct name_parts {
	uint32_t *list;
	size_t n, room;
	bool unusable;	/* nothing can be said about it: fits nothing but KIND:* */
	bool no_memory; /* likewise */
};

void name_parts_free(struct name_parts *p);
#define scoped_name_parts __attribute__((cleanup(name_parts_free))) struct name_parts

void name_parts_add(struct name_parts *p, uint32_t part);
/* Each character of an ASCII text. */
void name_parts_add_ascii(struct name_parts *p, const char *text, uint32_t flags);

enum name_kind name_kind_of(const GENERAL_NAME *name);
/* All but NAME_IP, which has no parts. */
void name_parts_of(const GENERAL_NAME *name, struct name_parts *out);
/* The last RDN first, as RFC 4514 writes it. */
void name_parts_of_dn(const X509_NAME *name, struct name_parts *out);

#endif
