// SPDX-License-Identifier: Apache-2.0
/* What is read from the resolver's memory, whatever a captured resolver has written there. */
#include <arpa/inet.h>
#include <sys/mman.h>
#include <string.h>
#include "service/resolved.h"
#include "base/shared_memory.h"
#include "unit.h"

#define PORT   443
#define ROUNDS 100000

static struct cfg_service service;
static const struct resolved *table;
static struct resolved *written;

static struct found_address ipv4(const char *text)
{
	struct found_address a = {.family = AF_INET};

	inet_pton(AF_INET, text, &a.address);
	return a;
}

static struct found_address ipv6(const char *text)
{
	struct found_address a = {.family = AF_INET6, .scope_id = 7};

	inet_pton(AF_INET6, text, &a.address);
	return a;
}

static struct resolved_addresses get(void)
{
	struct resolved_addresses out;

	memset(&out, 0xff, sizeof(out));
	resolved_get(table, &service, &out, NULL);
	return out;
}

/* The only address, as text; NULL: there is none. */
static const char *told(struct found_address a)
{
	static char text[CFG_ADDRESS_TEXT];
	struct resolved_addresses got;
	struct sockaddr_storage ss = {0};

	resolved_publish(written, &(struct found_addresses){.n = 1, .list = {a}});
	got = get();
	memcpy(&ss, &got.list[0], sizeof(got.list[0]));
	return got.n ? cfg_address_text(&ss, text) : NULL;
}

static void check_told(struct found_address a, const char *want)
{
	const char *got = told(a);

	CHECK(got && !strcmp(got, want));
}

static void test_addresses(void)
{
	CHECK_INT(get().n, 0);
	check_told(ipv4("192.0.2.1"), "192.0.2.1:443");
	check_told(ipv6("2001:db8::1"), "[2001:db8::1]:443");
	CHECK_INT(get().list[0].sin6_scope_id, 0);
	told(ipv6("fe80::1"));
	CHECK_INT(get().list[0].sin6_scope_id, 7);
}

static void test_none_of_a_backend(void)
{
	static const uint32_t families[] = {AF_UNSPEC, AF_UNIX, AF_NETLINK, AF_VSOCK, UINT32_MAX};

	for (size_t i = 0; i < ARRAY_SIZE(families); i++)
		CHECK(!told((struct found_address){.family = families[i], .address = {{{1}}}}));
	CHECK(!told(ipv4("0.0.0.0")));
	CHECK(!told(ipv4("224.0.0.1")));
	CHECK(!told(ipv4("255.255.255.255")));
	CHECK(!told(ipv6("::")));
	CHECK(!told(ipv6("ff02::1")));
	CHECK(!told(ipv6("::ffff:127.0.0.1")));
}

static void test_numbers(void)
{
	static const uint32_t numbers[] = {0, 1, RESOLVED_MAX, RESOLVED_MAX + 1, UINT32_MAX};
	struct found_addresses all = {0};

	for (int i = 0; i < RESOLVED_MAX; i++)
		all.list[i] = ipv4("192.0.2.1");
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		all.n = numbers[i];
		resolved_publish(written, &all);
		CHECK_INT(get().n, all.n < RESOLVED_MAX ? all.n : RESOLVED_MAX);
	}
}

/* Every byte of it. */
static void test_anything(void)
{
	uint8_t *bytes = (uint8_t *)written;
	unsigned bad = 0, some = 0;

	srandom(1);
	for (int round = 0; round < ROUNDS; round++) {
		struct resolved_addresses got;

		for (size_t i = 0; i < sizeof(*written); i++)
			bytes[i] = random() % 4 ? (uint8_t)(random() % 12) : (uint8_t)random();
		got = get();
		bad += got.n > RESOLVED_MAX;
		some += got.n && got.n <= RESOLVED_MAX;
		for (uint32_t i = 0; i < got.n && i < RESOLVED_MAX; i++) {
			const struct sockaddr_in6 *sa = &got.list[i];

			bad += sa->sin6_family != AF_INET && sa->sin6_family != AF_INET6;
			bad += sa->sin6_port != service.port;
			bad += sa->sin6_family == AF_INET6 && sa->sin6_flowinfo;
		}
	}
	CHECK_INT(bad, 0);
	CHECK(some); /* or nothing was tried */
	memset(written, 0, sizeof(*written));
}

/* Killed in the middle of writing: what was there before stays, and the next one can write. */
static void test_half_written(void)
{
	struct resolved_addresses got;

	told(ipv4("192.0.2.1"));
	memset(&written->lists[(written->turn + 1) % 2], 0xff, sizeof(written->lists[0]) / 2);
	got = get();
	CHECK_INT(got.n, 1);
	check_told(ipv4("192.0.2.2"), "192.0.2.2:443");
}

static atomic_bool over;

static void *turn_for_ever(void *arg)
{
	(void)arg;
	while (!over)
		atomic_fetch_add(&written->turn, 1);
	return NULL;
}

/* Returns each time, with what there is or nothing. */
static void test_never_still(void)
{
	pthread_t thread;

	CHECK_INT(pthread_create(&thread, NULL, turn_for_ever, NULL), 0);
	for (int i = 0; i < ROUNDS; i++)
		(void)get();
	over = true;
	pthread_join(thread, NULL);
}

/* What the data process has of it. */
static void test_read_only(int fd)
{
	scoped_fd again = shared_memory_read_only(fd);
	const struct resolved *mine = resolved_map(again, 1);

	CHECK(mine);
	CHECK(!shared_memory_map_writable(again, resolved_table_size(1)));
	CHECK(mprotect((void *)mine, resolved_table_size(1), PROT_READ | PROT_WRITE));
	CHECK(ftruncate(fd, 0) && ftruncate(fd, 1 << 20));
}

int main(void)
{
	scoped_fd fd = resolved_new(1);

	service.port = htons(PORT);
	table = resolved_map(fd, 1);
	written = shared_memory_map_writable(fd, resolved_table_size(1));
	if (!table || !written)
		return 1;
	test_addresses();
	test_none_of_a_backend();
	test_numbers();
	test_anything();
	test_half_written();
	test_never_still();
	test_read_only(fd);
	return unit_end();
}
