// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * How programs are started by a descriptor, and what a process has of its own: a group, a name and rights to keep, a personality, limits,
 * barriers, and signals to one thread. The program starts itself again, always as an executable.
 *
 *     [/ld.so] PATH              the test
 *     PATH child WHAT            a child of it
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>

#include "calls.h"

#define SCRIPT "/tmp/execution.script"
#define LINK_PATH "/tmp/execution.link"

static const char *self;

static int child(const char *what)
{
	const char *name = (const char *)getauxval(AT_EXECFN), *greeting = getenv("GREETING");

	if (greeting == NULL || strcmp(greeting, "hello child") != 0)
		return 90;
	if (strcmp(what, "name") == 0)
		return strcmp(name, self) == 0 ? 7 : 91;
	if (strcmp(what, "descriptor") == 0)
		return strncmp(name, "/dev/fd/", 8) == 0 ? 8 : 92;
	/* What the interpreter of a script is told instead of its path. */
	if (strncmp(what, "/dev/fd/", 8) == 0)
		return 9;
	if (strcmp(what, "personality") == 0)
		return personality(-1) == (ADDR_NO_RANDOMIZE | UNAME26) ? 10 : 93;
	return 98;
}

/* What is to be started by the next child, and what comes of it where it is not started. */
static struct {
	int folder, flags;
	const char *path, *what;
} wanted;

static int start(int folder, const char *path, const char *what, int flags)
{
	static char *environment[] = { "GREETING=hello child", NULL };
	pid_t pid;

	wanted.folder = folder;
	wanted.path = path;
	wanted.what = what;
	wanted.flags = flags;
	pid = vfork();
	if (pid == 0) {
		char *words[] = { (char *)self, "child", (char *)wanted.what, NULL };

		syscall(SYS_execveat, wanted.folder, wanted.path, words, environment, wanted.flags);
		_exit(errno == 0 ? 97 : 128 + errno);
	}
	return ended_with(pid);
}

static void descriptors(void)
{
	const char *name = strrchr(self, '/') + 1;
	char folder[64], text[128];
	int above, program = open(self, O_PATH | O_CLOEXEC), script, closing, plain;

	snprintf(folder, sizeof(folder), "%.*s", (int)(name - self), self);
	REQUIRE((above = open(folder, O_PATH | O_CLOEXEC)) >= 0 && program >= 0, "the program and its folder");
	EXPECT_VALUE(7, start(AT_FDCWD, self, "name", 0), "execveat by a path");
	EXPECT_VALUE(7, start(-1, self, "name", 0), "for which no folder is needed");
	EXPECT_VALUE(8, start(above, name, "descriptor", 0), "by a folder and a name in it");
	EXPECT_VALUE(8, start(program, "", "descriptor", AT_EMPTY_PATH), "and by a descriptor that is closed then");
	EXPECT_VALUE(128 + ENOENT, start(program, "", "descriptor", 0), "which has to be said");
	EXPECT_VALUE(128 + EACCES, start(above, "", "descriptor", AT_EMPTY_PATH), "a folder is no program");
	EXPECT_VALUE(128 + EBADF, start(9999, name, "name", 0), "nor is there one in no folder");
	EXPECT_VALUE(128 + ENOTDIR, start(program, name, "name", 0), "or in a file");
	EXPECT_VALUE(128 + EINVAL, start(AT_FDCWD, self, "name", AT_REMOVEDIR), "execveat with an unknown flag");
	REQUIRE(symlink(self, LINK_PATH) == 0, "a link");
	EXPECT_VALUE(7, start(above, self, "name", AT_SYMLINK_NOFOLLOW), "AT_SYMLINK_NOFOLLOW without a link");
	EXPECT_VALUE(128 + ELOOP, start(AT_FDCWD, LINK_PATH, "name", AT_SYMLINK_NOFOLLOW), "and with one");
	unlink(LINK_PATH);

	plain = open(SCRIPT, O_CREAT | O_TRUNC | O_WRONLY, 0600);
	snprintf(text, sizeof(text), "#!%s child\n", self);
	REQUIRE(plain >= 0 && write(plain, text, strlen(text)) > 0 && close(plain) == 0, SCRIPT);
	EXPECT_VALUE(128 + EACCES, start(AT_FDCWD, SCRIPT, "", 0), "a script that is not executable");
	REQUIRE(chmod(SCRIPT, 0700) == 0, "chmod");
	script = open(SCRIPT, O_RDONLY);
	closing = open(SCRIPT, O_RDONLY | O_CLOEXEC);
	EXPECT_VALUE(9, start(script, "", "", AT_EMPTY_PATH), "a script by a descriptor is started");
	close(script);
	EXPECT_VALUE(128 + ENOENT, start(closing, "", "", AT_EMPTY_PATH), "but not by one that its interpreter would not have");
	close(closing);
	unlink(SCRIPT);
	close(above);
	close(program);
}

static void own_group(void)
{
	EXPECT_OK(setpgid(0, 0), "setpgid");
#ifdef SYS_getpgrp
	EXPECT_VALUE(getpid(), syscall(SYS_getpgrp), "getpgrp");
#else
	EXPECT_VALUE(getpid(), getpgrp(), "getpgrp");
#endif
}

/* Capabilities and rights that come and go with users. */
static void kept(void)
{
	enum { chown_files = 0, name_machine = 21 };

	EXPECT_VALUE(1, prctl(PR_CAPBSET_READ, chown_files), "PR_CAPBSET_READ");
	EXPECT_OK(prctl(PR_CAPBSET_DROP, chown_files), "PR_CAPBSET_DROP");
	EXPECT_VALUE(0, prctl(PR_CAPBSET_READ, chown_files), "takes it from programs that are started");
	EXPECT_ERROR(EINVAL, prctl(PR_CAPBSET_READ, 99), "of a capability that there is not");
	EXPECT_VALUE(0, prctl(PR_GET_KEEPCAPS), "PR_GET_KEEPCAPS");
	EXPECT_OK(prctl(PR_SET_KEEPCAPS, 1), "PR_SET_KEEPCAPS");
	EXPECT_VALUE(1, prctl(PR_GET_KEEPCAPS), "is told");
	EXPECT_ERROR(EPERM, prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, name_machine, 0, 0), "PR_CAP_AMBIENT of what is not inherited");
	become_nobody();
	{
		uint32_t head[2] = { 0x20080522, 0 }, all[6] = { 0 };

		EXPECT(syscall(SYS_capget, head, all) == 0 && all[0] == 0 && all[1] == 0xffffffff, "keeps what is permitted for another user");
		all[0] = 1U << name_machine | 1;
		EXPECT_OK(syscall(SYS_capset, head, all), "who can use it");
	}
	EXPECT_OK(syscall(SYS_sethostname, "kept", 4), "as is seen");
	EXPECT_VALUE(0, prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), "PR_GET_NO_NEW_PRIVS");
	EXPECT_OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS");
	EXPECT_VALUE(1, prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), "is told");
	EXPECT_ERROR(EINVAL, prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0), "and is for good");
}

static void properties(void)
{
	char name[16] = "";
	int signal = -1, reaper = -1;

	EXPECT_OK(prctl(PR_SET_NAME, "a name that is too long"), "PR_SET_NAME");
	EXPECT(prctl(PR_GET_NAME, name) == 0 && strcmp(name, "a name that is ") == 0, "PR_GET_NAME");
	/* It belongs to the memory, which a child that changed its user had too. */
	EXPECT_VALUE(0, prctl(PR_GET_DUMPABLE), "PR_GET_DUMPABLE after a change of users");
	EXPECT_OK(prctl(PR_SET_DUMPABLE, 1), "PR_SET_DUMPABLE");
	EXPECT_VALUE(1, prctl(PR_GET_DUMPABLE), "is told");
	EXPECT_ERROR(EINVAL, prctl(PR_SET_DUMPABLE, 2), "and has two values that may be asked for");
	EXPECT_OK(prctl(PR_SET_PDEATHSIG, SIGUSR1), "PR_SET_PDEATHSIG");
	EXPECT(prctl(PR_GET_PDEATHSIG, &signal) == 0 && signal == SIGUSR1, "is told");
	EXPECT_ERROR(EINVAL, prctl(PR_SET_PDEATHSIG, 99), "and is a signal");
	EXPECT_OK(prctl(PR_SET_PDEATHSIG, 0), "or none");
	EXPECT_OK(prctl(PR_SET_CHILD_SUBREAPER, 1), "PR_SET_CHILD_SUBREAPER");
	EXPECT(prctl(PR_GET_CHILD_SUBREAPER, &reaper) == 0 && reaper == 1, "is told");
	EXPECT_OK(prctl(PR_SET_TIMERSLACK, 12345UL), "PR_SET_TIMERSLACK");
	EXPECT_VALUE(12345, prctl(PR_GET_TIMERSLACK), "is told");
	EXPECT_OK(prctl(PR_SET_TIMERSLACK, 0UL), "and back");
	EXPECT_VALUE(50000, prctl(PR_GET_TIMERSLACK), "to what it was");
	EXPECT_ERROR(EINVAL, prctl(PR_SET_SECCOMP, 1, 0, 0, 0), "there is no seccomp");
	EXPECT_ERROR(EINVAL, prctl(0x53564d41 /* PR_SET_VMA */, 0, 0, 0, 0), "nor are there names for memory");
	EXPECT_ERROR(EINVAL, prctl(62 /* PR_SCHED_CORE */, 0, 0, 0, 0), "nor cores to be shared");
	EXPECT_ERROR(EINVAL, prctl(PR_SET_TSC, 1), "nor another clock of the processor");
	EXPECT_ERROR(EINVAL, prctl(9999, 0, 0, 0, 0), "nor what nobody knows");
}

static void personalities(void)
{
	struct utsname names;

	EXPECT_VALUE(0, personality(-1), "personality");
	EXPECT_VALUE(0, personality(ADDR_NO_RANDOMIZE | UNAME26), "tells what was before");
	EXPECT_VALUE(ADDR_NO_RANDOMIZE | UNAME26, personality(-1), "and sets it");
	EXPECT(uname(&names) == 0 && strncmp(names.release, "2.6.", 4) == 0, "for programs that know no newer Linux");
	EXPECT_VALUE(10, start(AT_FDCWD, self, "personality", 0), "also for those that are started");
	EXPECT_VALUE(ADDR_NO_RANDOMIZE | UNAME26, personality(0), "and back");
	EXPECT(uname(&names) == 0 && strncmp(names.release, "6.", 2) == 0, "to what is there");
}

static void limits(void)
{
	struct rlimit is = { 0 }, few = { 10, 20 }, wrong = { 20, 10 };
	int fd = -1, last = -1;

	EXPECT(syscall(SYS_getrlimit, RLIMIT_NOFILE, &is) == 0 && is.rlim_cur >= 256 && is.rlim_cur <= is.rlim_max, "getrlimit");
	EXPECT_ERROR(EINVAL, syscall(SYS_setrlimit, RLIMIT_NOFILE, &wrong), "setrlimit to more than the most");
	EXPECT_OK(syscall(SYS_setrlimit, RLIMIT_NOFILE, &few), "setrlimit");
	EXPECT(syscall(SYS_getrlimit, RLIMIT_NOFILE, &is) == 0 && is.rlim_cur == 10 && is.rlim_max == 20, "is told");
	while ((fd = dup(1)) >= 0)
		last = fd;
	EXPECT(last == 9 && errno == EMFILE, "and holds");
	EXPECT_ERROR(EINVAL, syscall(SYS_getrlimit, 99, &is), "getrlimit of what there is not");
	EXPECT_ERROR(EINVAL, syscall(SYS_setrlimit, 99, &few), "and setrlimit");
	EXPECT_ERROR(EFAULT, syscall(SYS_getrlimit, RLIMIT_NOFILE, 16), "and getrlimit to a bad pointer");
	become_nobody();
	few.rlim_cur = few.rlim_max = 21;
	EXPECT_ERROR(EPERM, syscall(SYS_setrlimit, RLIMIT_NOFILE, &few), "more than the most is for the privileged");
	few.rlim_cur = few.rlim_max = 20;
	EXPECT_OK(syscall(SYS_setrlimit, RLIMIT_NOFILE, &few), "up to there is for all");
	EXPECT(dup(1) == 10, "and holds too");
}

static void barriers(void)
{
	enum { global = 1, global_expedited = 2, expedited = 8, registers = 16, code = 32, sequences = 128, told = 512 };
	long known = syscall(SYS_membarrier, 0, 0, 0);

	EXPECT((known & (global | global_expedited | expedited | registers | told)) == (global | global_expedited | expedited | registers | told),
	       "membarrier");
	EXPECT_VALUE(0, known & (code | sequences), "there is none for code or for sequences");
	EXPECT_OK(syscall(SYS_membarrier, global, 0, 0), "a barrier for all");
	EXPECT_OK(syscall(SYS_membarrier, global_expedited, 0, 0), "for those that are registered");
	EXPECT_ERROR(EPERM, syscall(SYS_membarrier, expedited, 0, 0), "for one's own without being registered");
	EXPECT_VALUE(0, syscall(SYS_membarrier, told, 0, 0), "as is told");
	EXPECT_OK(syscall(SYS_membarrier, registers, 0, 0), "to be registered");
	EXPECT_OK(syscall(SYS_membarrier, expedited, 0, 0), "for one's own");
	EXPECT_VALUE(registers, syscall(SYS_membarrier, told, 0, 0), "of which it is told");
	EXPECT_ERROR(EINVAL, syscall(SYS_membarrier, code, 0, 0), "none for code");
	EXPECT_ERROR(EINVAL, syscall(SYS_membarrier, global, 1, 0), "and none with an unknown flag");
}

static volatile int thread_number;

static void *waits_for_a_signal(void *got)
{
	sigset_t mask;

	sigemptyset(&mask);
	sigaddset(&mask, SIGUSR1);
	thread_number = (int)syscall(SYS_gettid);
	sigwaitinfo(&mask, got);
	return NULL;
}

static long queue_signal(int process, int thread, int signal, int code, int value)
{
	siginfo_t info = { 0 };

	info.si_signo = signal;
	info.si_code = code;
	info.si_pid = getpid();
	info.si_value.sival_int = value;
	return syscall(SYS_rt_tgsigqueueinfo, process, thread, signal, &info);
}

static pid_t parent;

static void pretends(void)
{
	EXPECT_ERROR(EPERM, queue_signal(parent, parent, SIGUSR1, SI_USER, 0), "nobody passes as another who sends to others");
	EXPECT_OK(queue_signal(parent, parent, SIGUSR2, SI_QUEUE, 79), "but values are sent");
	become_nobody();
	EXPECT_ERROR(EPERM, queue_signal(parent, parent, SIGUSR2, SI_QUEUE, 80), "by those who may");
}

static void signals(void)
{
	struct timespec none = { 0, 0 };
	siginfo_t got = { 0 };
	pthread_t thread;
	sigset_t mask, is;

	sigemptyset(&mask);
	sigaddset(&mask, SIGUSR1);
	sigaddset(&mask, SIGUSR2);
	REQUIRE(sigprocmask(SIG_BLOCK, &mask, NULL) == 0, "sigprocmask");
	REQUIRE(pthread_create(&thread, NULL, waits_for_a_signal, &got) == 0, "a thread");
	while (thread_number == 0)
		sched_yield();
	EXPECT_OK(queue_signal(getpid(), thread_number, 0, SI_QUEUE, 0), "rt_tgsigqueueinfo of no signal");
	EXPECT_OK(queue_signal(getpid(), thread_number, SIGUSR1, SI_QUEUE, 77), "rt_tgsigqueueinfo");
	EXPECT(sigpending(&is) == 0 && !sigismember(&is, SIGUSR1), "is for one thread");
	pthread_join(thread, NULL);
	EXPECT(got.si_signo == SIGUSR1 && got.si_code == SI_QUEUE && got.si_value.sival_int == 77 && got.si_pid == getpid(),
	       "which gets the value");
	EXPECT_OK(queue_signal(getpid(), (int)syscall(SYS_gettid), SIGUSR2, SI_QUEUE, 78), "rt_tgsigqueueinfo to oneself");
	EXPECT(sigtimedwait(&mask, &got, &none) == SIGUSR2 && got.si_value.sival_int == 78, "is told with its value too");
	parent = getpid();
	in_child(pretends, "a child that sends ends");
	EXPECT(sigtimedwait(&mask, &got, &none) == SIGUSR2 && got.si_value.sival_int == 79 && got.si_pid != parent, "which are told");
	EXPECT_ERROR(EAGAIN, sigtimedwait(&mask, &got, &none), "and nothing else is");
	EXPECT_ERROR(ESRCH, queue_signal(1, parent, SIGUSR1, SI_QUEUE, 0), "a thread of another process");
	EXPECT_ERROR(EINVAL, queue_signal(parent, -1, SIGUSR1, SI_QUEUE, 0), "an impossible thread");
	EXPECT_ERROR(EINVAL, queue_signal(parent, parent, 99, SI_QUEUE, 0), "and an impossible signal");
	sigprocmask(SIG_UNBLOCK, &mask, NULL);
}

/* Where a child can be apart from its parent. */
static void apart(void)
{
#ifdef __x86_64__
	struct pollfd ready;
	pid_t process, orphan = -1;
	int pipes[2], status = 0;
	char state[64] = "", path[32];

	EXPECT_ERROR(EINTR, syscall(SYS_restart_syscall), "restart_syscall without a call that was interrupted");
	REQUIRE(pipe(pipes) == 0, "pipe");
	ready = (struct pollfd){ pipes[0], POLLIN, 0 };
	process = fork();
	if (process == 0)
		/* A signal that only stops it is not an interruption: the kernel has the program make this call to go on. */
		_exit(poll(&ready, 1, 20000) == 1 ? 11 : errno);
	snprintf(path, sizeof(path), "/proc/%d/stat", process);
	do {
		int fd = open(path, O_RDONLY);

		sched_yield();
		if (read(fd, state, sizeof(state) - 1) <= 0)
			break;
		close(fd);
	} while (strstr(state, ") S") == NULL);
	EXPECT(kill(process, SIGSTOP) == 0 && waitpid(process, &status, WUNTRACED) == process && WIFSTOPPED(status), "a wait is stopped");
	EXPECT(kill(process, SIGCONT) == 0 && waitpid(process, &status, WCONTINUED) == process && WIFCONTINUED(status), "and goes on");
	REQUIRE(write(pipes[1], "x", 1) == 1, "write");
	EXPECT_VALUE(11, ended_with(process), "by restart_syscall, as if nothing had been");

	/* A child that is left alone is told, and its grandparent has it. */
	REQUIRE(read(pipes[0], state, 1) == 1 && prctl(PR_SET_CHILD_SUBREAPER, 1) == 0, "a reaper");
	process = fork();
	if (process == 0) {
		if (fork() == 0) {
			pid_t number = getpid();

			prctl(PR_SET_PDEATHSIG, SIGUSR1);
			if (write(pipes[1], &number, sizeof(number)) == sizeof(number))
				pause();
			_exit(1);
		}
		_exit(read(pipes[0], &orphan, sizeof(orphan)) == sizeof(orphan) && write(pipes[1], &orphan, sizeof(orphan)) > 0 ? 12 : 1);
	}
	EXPECT_VALUE(12, ended_with(process), "a parent ends before its child");
	EXPECT(read(pipes[0], &orphan, sizeof(orphan)) == sizeof(orphan) && waitpid(-1, &status, 0) == orphan, "which the reaper gets");
	EXPECT(WIFSIGNALED(status) && WTERMSIG(status) == SIGUSR1, "and which gets the signal for it");
	close(pipes[0]);
	close(pipes[1]);
#endif
}

int main(int count, char **words)
{
	checks_begin();
	self = words[0];
	if (count > 2 && strcmp(words[1], "child") == 0)
		return child(words[2]);
	barriers();
	descriptors();
	in_child(own_group, "a child with a group of its own ends");
	in_child(kept, "a child with rights to keep ends");
	in_child(properties, "a child with properties ends");
	in_child(personalities, "a child with a personality ends");
	in_child(limits, "a child with limits ends");
	signals();
	apart();
	return checks_end();
}
