// SPDX-License-Identifier: Apache-2.0
/* Sealed files in memory; see shared_memory.h. Does not know what is in them. */
#include "base/shared_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

/* Linux before 6.3 does not know memory that can never be a program. */
static int new_file(const char *name)
{
	const unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
	int fd = memfd_create(name, flags | MFD_NOEXEC_SEAL);

	return fd < 0 && errno == EINVAL ? memfd_create(name, flags) : fd;
}

int shared_memory_new(const char *name, size_t len)
{
	scoped_fd fd = new_file(name);

	if (fd < 0 || ftruncate(fd, (off_t)len) ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW))
		return -errno;
	return TAKE_FD(fd);
}

#define COPY_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL)

int shared_memory_begin_copy(const char *name)
{
	int fd = new_file(name);

	return fd < 0 ? -errno : fd;
}

int shared_memory_end_copy(int fd)
{
	return fcntl(fd, F_ADD_SEALS, COPY_SEALS) ? -errno : 0;
}

int shared_memory_copy(const char *name, const void *data, size_t len)
{
	scoped_fd fd = new_file(name);
	const char *p = data;

	if (fd < 0)
		return -errno;
	while (len) {
		ssize_t n = TEMP_FAILURE_RETRY(write(fd, p, len));

		if (n < 0)
			return -errno;
		p += n;
		len -= (size_t)n;
	}
	return fcntl(fd, F_ADD_SEALS, COPY_SEALS) ? -errno : TAKE_FD(fd);
}

const void *shared_memory_map_copy(int fd, size_t *len)
{
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat st;

	if (seals < 0 || fstat(fd, &st))
		return NULL;
	*len = (size_t)st.st_size;
	if ((seals & COPY_SEALS) == COPY_SEALS)
		return shared_memory_map(fd, *len);
	errno = EPERM;
	return NULL;
}

int shared_memory_read_only(int fd)
{
	char path[64];
	int again;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	again = open(path, O_RDONLY | O_CLOEXEC);
	return again < 0 ? -errno : again;
}

int shared_memory_forbid_writers(int fd)
{
	return fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) ? -errno : 0;
}

static void *map(int fd, size_t len, int protection)
{
	void *memory = mmap(NULL, len, protection, MAP_SHARED, fd, 0);

	return memory == MAP_FAILED ? NULL : memory;
}

const void *shared_memory_map(int fd, size_t len)
{
	return map(fd, len, PROT_READ);
}

void *shared_memory_map_writable(int fd, size_t len)
{
	return map(fd, len, PROT_READ | PROT_WRITE);
}

void shared_memory_unmap(const void *memory, size_t len)
{
	if (memory)
		munmap((void *)memory, len);
}
