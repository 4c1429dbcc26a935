// SPDX-License-Identifier: Apache-2.0
/* name_pattern.c: which names fit which patterns, and which patterns are none. */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include "unit.h"
#include "certs.h"
#include "pki/name_pattern.h"

static void check(const char *patterns, const char *name, int fits, int want)
{
	CHECK_INT(fits, want);
	if (fits != want)
		printf("  pattern %s, name %s\n", patterns, name);
}

/* ---- subjects ---- */

/*
 * "C=DE", "+UID=x" for an attribute of the RDN before, a NULL at the end: in the order of the
 * certificate. Values are UTF-8.
 */
static X509_NAME *dn(const char *first, ...)
{
	X509_NAME *name = X509_NAME_new();
	va_list ap;

	va_start(ap, first);
	for (const char *s = first; s; s = va_arg(ap, const char *)) {
		int set = *s == '+' ? -1 : 0;
		const char *equals = strchr(s, '=');
		char type[32];

		s += *s == '+';
		snprintf(type, sizeof(type), "%.*s", (int)(equals - s), s);
		NEED(name &&
		     X509_NAME_add_entry_by_txt(name, type, MBSTRING_UTF8,
						(const unsigned char *)equals + 1, -1, -1, set));
	}
	va_end(ap);
	return name;
}

static void subject(const char *patterns, X509_NAME *name, int want)
{
	char why[NAME_PATTERN_WHY_MAX], text[256];

	X509_NAME_oneline(name, text, sizeof(text));
	CHECK_INT(name_patterns_check(patterns, why), 0);
	if (*why)
		printf("  %s: %s\n", patterns, why);
	check(patterns, text, name_patterns_fit_subject(patterns, name), want);
	X509_NAME_free(name);
}

static void test_subjects(void)
{
	const char *pay = "subject:CN=*,OU=Payments,O=Corp";

	subject(pay, dn("O=Corp", "OU=Payments", "CN=alice", NULL), 1);
	subject(pay, dn("O=CORP", "OU=payments", "CN=Alice Smith", NULL), 1);
	/* what is text in a value is no structure */
	subject(pay, dn("O=Corp", "CN=mallory,OU=Payments", NULL), 0);
	subject(pay, dn("O=Corp", "+CN=mallory,OU=Payments", NULL), 0);
	subject(pay, dn("O=Corp", "OU=Payments,CN=mallory", NULL), 0);
	subject(pay, dn("O=Corp", "OU=x", "OU=Payments", "CN=alice", NULL), 0);
	subject(pay, dn("OU=Payments", "O=Corp", "CN=alice", NULL), 0);
	subject(pay, dn("CN=alice", "OU=Payments", "O=Corp", NULL), 0);
	subject(pay, dn("O=Corp", "OU=Payments", "+CN=alice", NULL), 0);
	subject(pay, dn("O=Corp", "OU=Payments", NULL), 0);
	subject(pay, dn("O=Corp2", "OU=Payments", "CN=alice", NULL), 0);
	subject(pay, dn("O=Corp", "OU=Payments", "SN=alice", NULL), 0);
	subject("subject:CN=*", dn("CN=a,b+c=d", NULL), 1);
	subject("subject:CN=a\\,b\\+c=*", dn("CN=a,b+c=d", NULL), 1);
	subject("subject:CN=a\\2cb\\2Bc=*", dn("CN=a,b+c=d", NULL), 1);
	subject("subject:CN=Alice\\20Smith", dn("CN=Alice Smith", NULL), 1);
	subject("subject:CN=Alice\\ Smith email:*", dn("CN=Alice Smith", NULL), 1);
	subject("subject:CN=Alice?Smith", dn("CN=Alice Smith", NULL), 1);
	subject("subject:2.5.4.3=a,cn=b", dn("CN=b", "CN=a", NULL), 1);
	subject("subject:CN=a\\*", dn("CN=ab", NULL), 0);
	subject("subject:CN=a\\*", dn("CN=a*", NULL), 1);
	subject("subject:CN=[a-c!]*", dn("CN=Bob", NULL), 1);
	subject("subject:CN=[a-c]*", dn("CN=dave", NULL), 0);
	subject("subject:CN=[!a-c]*", dn("CN=dave", NULL), 1);
	subject("subject:CN=[!a-c]", dn("CN=B", NULL), 0);
	subject("subject:CN=Zo\\C3\\AB", dn("CN=Zo\xc3\xab", NULL), 1);
	subject("subject:CN=Zo?", dn("CN=Zo\xc3\xab", NULL), 1);
	subject("subject:CN=Zo?", dn("CN=Zoee", NULL), 0);
	/* any number of RDNs */
	subject("subject:**,O=Corp", dn("O=Corp", "OU=x", "CN=a", NULL), 1);
	subject("subject:**,O=Corp", dn("O=Corp", NULL), 1);
	subject("subject:**,O=Corp", dn("CN=x,O=Corp", NULL), 0);
	subject("subject:CN=x,**", dn("O=Corp", "CN=x", NULL), 1);
	subject("subject:CN=x,**", dn("O=Corp", "CN=xy", NULL), 0);
	subject("subject:*", dn(NULL), 1);
	subject("subject:**", dn(NULL), 1);
	subject("subject:CN=*", dn(NULL), 0);
	/* an RDN is a set */
	subject("subject:CN=a+UID=b", dn("UID=b", "+CN=a", NULL), 1);
	subject("subject:UID=b+CN=a", dn("UID=b", "+CN=a", NULL), 1);
	subject("subject:UID=b,CN=a", dn("UID=b", "+CN=a", NULL), 0);
	subject("dir:CN=*", dn("CN=a", NULL), 0);
}

/* A value that is not text is none of them, and has a form of its own. */
static void test_values_that_are_no_text(void)
{
	const unsigned char bits[] = {0x0a, 0x3b};
	X509_NAME *name = X509_NAME_new();

	NEED(X509_NAME_add_entry_by_txt(name, "x500UniqueIdentifier", V_ASN1_BIT_STRING, bits, 2,
					-1, 0));
	CHECK_INT(name_patterns_fit_subject("subject:x500UniqueIdentifier=*", name), 0);
	CHECK_INT(name_patterns_fit_subject("subject:2.5.4.45=#*0A3B", name), 1);
	CHECK_INT(name_patterns_fit_subject("subject:2.5.4.45=#*0A3C", name), 0);
	CHECK_INT(name_patterns_fit_subject("subject:*", name), 1);
	X509_NAME_free(name);
	name = dn("CN=#0a", NULL);
	CHECK_INT(name_patterns_fit_subject("subject:CN=#0a", name), 0);
	CHECK_INT(name_patterns_fit_subject("subject:CN=\\#0a", name), 1);
	X509_NAME_free(name);
	/* nobody has verified this one */
	name = X509_NAME_new();
	NEED(X509_NAME_add_entry_by_txt(name, "CN", V_ASN1_UTF8STRING,
					(const unsigned char *)"admin\0x", 7, -1, 0));
	CHECK_INT(name_patterns_fit_subject("subject:CN=*", name), 0);
	CHECK_INT(name_patterns_fit_subject("subject:CN=admin", name), 0);
	X509_NAME_free(name);
}

/* ---- alternative names ---- */

static void general(const char *patterns, int type, const char *text, int want)
{
	char why[NAME_PATTERN_WHY_MAX];
	GENERAL_NAME *name = a2i_GENERAL_NAME(NULL, NULL, NULL, type, text, 0);

	NEED(name);
	CHECK_INT(name_patterns_check(patterns, why), 0);
	if (*why)
		printf("  %s: %s\n", patterns, why);
	check(patterns, text, name_patterns_fit(patterns, name), want);
	GENERAL_NAME_free(name);
}

static void test_dns(void)
{
	general("dns:*.corp.example", GEN_DNS, "a.CORP.example", 1);
	general("dns:*.corp.example", GEN_DNS, "a.b.corp.example", 0);
	general("dns:**.corp.example", GEN_DNS, "a.b.corp.example", 1);
	general("dns:app*.example", GEN_DNS, "app.evil.example", 0);
	general("dns:*.corp.example", GEN_DNS, ".corp.example", 0);
	general("dns:a[.]b", GEN_DNS, "a.b", 0);
	general("dns:a?b", GEN_DNS, "a.b", 0);
	general("dns:*", GEN_DNS, "a.b", 1);
	general("email:* uri:* dns:a", GEN_DNS, "b", 0);
}

static void test_mailboxes(void)
{
	general("email:*@corp.example", GEN_EMAIL, "erika.m@corp.example", 1);
	general("email:*@corp.example", GEN_EMAIL, "mallory@evil.example@corp.example", 0);
	general("email:*@corp.example", GEN_EMAIL, "\"mallory@evil.example\"@corp.example", 0);
	general("email:*@*.corp.example", GEN_EMAIL, "a@b.corp.example", 1);
	general("email:*@*.corp.example", GEN_EMAIL, "a@b.c.corp.example", 0);
	general("email:*.example", GEN_EMAIL, "a@corp.example", 0);
	general("email:*", GEN_EMAIL, "a@corp.example", 1);
	general("upn:*@corp.example", GEN_OTHERNAME, "1.3.6.1.4.1.311.20.2.3;UTF8:a.b@corp.example",
		1);
	general("upn:*@corp.example", GEN_OTHERNAME,
		"1.3.6.1.4.1.311.20.2.3;UTF8:a@evil@corp.example", 0);
}

static void test_uris(void)
{
	general("uri:https://corp.example/*", GEN_URI, "HTTPS://Corp.Example/a", 1);
	general("uri:https://corp.example/*", GEN_URI, "https://corp.example/a/b", 0);
	general("uri:https://corp.example/**", GEN_URI, "https://corp.example/a/b?c", 1);
	general("uri:https://corp.example/Admin", GEN_URI, "https://corp.example/admin", 0);
	general("uri:https://*.corp.example/x", GEN_URI, "https://evil.example/.corp.example/x", 0);
	general("uri:https://*.corp.example/x", GEN_URI, "https://evil@a.corp.example/x", 0);
	general("uri:https://*.corp.example/x", GEN_URI, "https://evil:b.corp.example/x", 0);
	general("uri:https://*.corp.example/x", GEN_URI, "https://a#.corp.example/x", 0);
	general("uri:https://*.corp.example/x", GEN_URI, "https://a.b.corp.example/x", 0);
	general("uri:https://h/*", GEN_URI, "https://h/a.b", 1);
	general("uri:https://h/*", GEN_URI, "https://h/a%2fb", 0);
	general("uri:https://h/app/**", GEN_URI, "https://h/app/../admin", 0);
	general("uri:https://h/app/*", GEN_URI, "https://h/app/..", 0);
	general("uri:https://h/app/*", GEN_URI, "https://h/app/...", 1);
	general("uri:urn:uuid:*", GEN_URI, "urn:uuid:1-2", 1);
	general("uri:urn:*", GEN_URI, "urn:uuid:1-2", 0);
}

static void test_addresses(void)
{
	general("ip:192.0.2.1", GEN_IPADD, "192.0.2.1", 1);
	general("ip:192.0.2.1", GEN_IPADD, "192.0.2.10", 0);
	general("ip:192.0.2.0/25", GEN_IPADD, "192.0.2.127", 1);
	general("ip:192.0.2.0/25", GEN_IPADD, "192.0.2.128", 0);
	general("ip:0.0.0.0/0", GEN_IPADD, "203.0.113.9", 1);
	general("ip:0.0.0.0/0", GEN_IPADD, "2001:db8::1", 0);
	general("ip:2001:db8::/33", GEN_IPADD, "2001:db8:7fff::", 1);
	general("ip:2001:db8::/33", GEN_IPADD, "2001:db8:8000::", 0);
	general("ip:*", GEN_IPADD, "2001:db8:8000::", 1);
}

static void test_others(void)
{
	general("other:1.2.3.4=user?", GEN_OTHERNAME, "1.2.3.4;UTF8:user1", 1);
	general("other:1.2.3.4=user?", GEN_OTHERNAME, "1.2.3.4;UTF8:admin", 0);
	general("other:1.2.3.4=user?", GEN_OTHERNAME, "1.2.3.4;UTF8:USER1", 0);
	general("other:1.2.3.4=user?", GEN_OTHERNAME, "1.2.3.5;UTF8:user1", 0);
	general("other:1.2.3.4=*", GEN_OTHERNAME, "1.2.3.4;FORMAT:HEX,OCT:0a3b", 0);
	general("other:1.2.3.4=#04020A3b", GEN_OTHERNAME, "1.2.3.4;FORMAT:HEX,OCT:0a3b", 1);
	general("other:1.2.3.4=#04020A3b", GEN_OTHERNAME, "1.2.3.4;FORMAT:HEX,OCT:0a3c", 0);
	general("other:1.2.3.4=#04020A3b", GEN_OTHERNAME, "1.2.3.4;UTF8:#04020a3b", 0);
	general("other:*", GEN_OTHERNAME, "1.2.3.4;UTF8:x", 1);
	general("rid:1.2.3", GEN_RID, "1.2.3", 1);
	general("rid:1.2.3", GEN_RID, "1.2.3.4", 0);
	general("rid:1.2.*", GEN_RID, "1.2.3.4", 0);
	general("rid:1.2.**", GEN_RID, "1.2.3.4", 1);
}

static void test_directory_names(void)
{
	GENERAL_NAME *name = GENERAL_NAME_new();

	NEED(name);
	GENERAL_NAME_set0_value(name, GEN_DIRNAME, dn("O=Corp", "CN=mallory,OU=x", NULL));
	CHECK_INT(name_patterns_fit("dir:CN=*,OU=x,O=Corp", name), 0);
	CHECK_INT(name_patterns_fit("dir:CN=*,O=Corp", name), 1);
	CHECK_INT(name_patterns_fit("subject:CN=*,O=Corp", name), 0);
	GENERAL_NAME_free(name);
}

/* ---- malformed patterns, and long names ---- */

static void test_malformed(void)
{
	static const char *const bad[][2] = {
		{"CN=x", "no kind"},
		{"nothing:x", "no kind"},
		{"dns:", "no kind"},
		{"dns:ok subject:CN", "CN\" where TYPE=VALUE belongs"},
		{"subject:CN=a,b", "\"b\" where TYPE=VALUE belongs"},
		{"subject:CN=a,", "\"\" where TYPE=VALUE belongs"},
		{"subject:CN=a+", "\"\" where TYPE=VALUE belongs"},
		{"subject:*,O=Corp", "\"*\" where TYPE=VALUE belongs"},
		{"subject:Nonsense=a", "unknown attribute \"Nonsense\""},
		{"subject:CN=\"a\\,b\"", "a bare \" in a value"},
		{"subject:CN=a;O=b", "a bare ; in a value"},
		{"subject:CN=**", "** within an RDN"},
		{"subject:CN=[a", "no ] closes"},
		{"subject:CN=[a,b]", "no ] closes"},
		{"subject:CN=[]", "nothing in between"},
		{"subject:CN=a\\", "backslash"},
		{"subject:CN=a\\q", "backslash"},
		{"subject:CN=a\\C3", "backslash"},
		{"subject:CN=a\\00", "backslash"},
		{"dns:a\xff", "no UTF-8"},
		{"ip:192.0.2.*", "ADDRESS/LENGTH"},
		{"ip:192.0.2.0/33", "ADDRESS/LENGTH"},
		{"ip:192.0.2.0/", "ADDRESS/LENGTH"},
		{"other:1.2.3.4", "says nothing about the value"},
		{"other:*=x", "no OID"},
		{"type:3", "says nothing about the value"},
	};
	char why[NAME_PATTERN_WHY_MAX], text[NAME_PATTERN_MAX + 8];

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		CHECK_INT(name_patterns_check(bad[i][0], why), -EINVAL);
		CHECK(strstr(why, bad[i][1]) && strlen(why) + 1 < sizeof(why));
		if (!strstr(why, bad[i][1]))
			printf("  %s: %s\n", bad[i][0], why);
	}
	memset(text, 'x', sizeof(text));
	memcpy(text, "dns:", 4);
	text[sizeof(text) - 1] = '\0';
	CHECK_INT(name_patterns_check(text, why), -EINVAL);
}

/* No pattern and no name take more than parts * tokens steps: this would be 2^60 by backtracking.
 */
static void test_bounded(void)
{
	char text[3001];
	GENERAL_NAME *name;

	memset(text, 'a', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	name = a2i_GENERAL_NAME(NULL, NULL, NULL, GEN_DNS, text, 0);
	NEED(name);
	CHECK_INT(name_patterns_fit("dns:*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b", name), 0);
	CHECK_INT(name_patterns_fit("dns:*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*", name), 1);
	GENERAL_NAME_free(name);
}

int main(void)
{
	test_subjects();
	test_values_that_are_no_text();
	test_dns();
	test_mailboxes();
	test_uris();
	test_addresses();
	test_others();
	test_directory_names();
	test_malformed();
	test_bounded();
	return unit_end();
}
