// SPDX-License-Identifier: Apache-2.0
/* What processes have given up, tried by the system calls themselves. */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdbool.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include "base/sandbox.h"
#include "unit.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

/* Runs try in a process of its own; its exit status, or 128 and the signal. */
static int in_child(int (*try)(void))
{
	int status = 0;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (!pid)
		_exit(try());
	if (waitpid(pid, &status, 0) != pid)
		return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* The place, from 1, of the first that does not say EPERM; 0: all do. */
static int first_allowed(const long *calls, int n)
{
	for (int i = 0; i < n; i++) {
		errno = 0;
		if (syscall(calls[i], -1L, -1L, -1L, -1L, -1L, -1L) != -1 || errno != EPERM)
			return i + 1;
	}
	return 0;
}

static int supervisor(void)
{
	static const long calls[] = {
		SYS_ptrace,	SYS_process_vm_readv, SYS_init_module, SYS_finit_module,
		SYS_mount,	SYS_umount2,	      SYS_unshare,     SYS_setns,
		SYS_kexec_load, SYS_keyctl,	      SYS_move_mount};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || sandbox_supervisor())
		return 100;
	return first_allowed(calls, (int)ARRAY_SIZE(calls));
}

/* What the supervisor needs most; and it is inherited. */
static int execute(void)
{
	if (supervisor())
		return 100;
	execl("/usr/bin/grep", "grep", "-q", "^Seccomp:.2", "/proc/self/status", NULL);
	return 101;
}

/* No right but to read what others may not. */
static bool may_only_read(void)
{
	scoped_file *f = fopen("/proc/self/status", "r");
	unsigned long long effective = ~0ull;
	char line[256];

	while (f && fgets(line, sizeof(line), f))
		(void)sscanf(line, "CapEff: %llx", &effective);
	return !(effective & ~(1ull << CAP_DAC_READ_SEARCH));
}

static int check(void)
{
	static const long calls[] = {SYS_execve, SYS_clone,  SYS_kill,	 SYS_ptrace,  SYS_bpf,
				     SYS_mount,	 SYS_setuid, SYS_listen, SYS_accept4, SYS_unlink};

	if (sandbox_check(false))
		return 100;
	if (open("/dev/null", O_WRONLY) >= 0 || errno != EPERM)
		return 101;
	if (socket(AF_INET, SOCK_STREAM, 0) >= 0 || errno != EPERM)
		return 102;
	if (!may_only_read())
		return 103;
	return first_allowed(calls, (int)ARRAY_SIZE(calls));
}

int main(void)
{
	if (SANITIZED) {
		puts("not tested: a sanitizer needs what is forbidden");
		return 0;
	}
	CHECK_INT(in_child(supervisor), 0);
	CHECK_INT(in_child(execute), 0);
	CHECK_INT(in_child(check), 0);
	return unit_end();
}
