// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Processes: vfork, exec, posix_spawn and wait, with what a child inherits and what its end tells; groups, priorities, limits, handles of
 * processes, and as much of ptrace as there is. The program starts itself again, through the loader where it was started so: the words before
 * `child` on its command line.
 *
 *     [/ld.so] PATH              the test
 *     [/ld.so] PATH child WHAT   a child of it
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

extern char **environ;

static char self[64];
static int through_loader;

static int child(const char *what)
{
	char text[16] = "";

	if (strcmp(what, "seven") == 0)
		return 7;
	if (strcmp(what, "environment") == 0)
		return getenv("GREETING") && strcmp(getenv("GREETING"), "hello child") == 0 ? 0 : 1;
	if (strcmp(what, "echo") == 0) {
		ssize_t n = read(0, text, sizeof(text));

		return n > 0 && write(1, text, (size_t)n) == n ? 0 : 1;
	}
	if (strcmp(what, "segv") == 0)
		*(volatile int *)address(16) = 1;
	if (strcmp(what, "loop") == 0)
		for (volatile unsigned long i = 0;; i++)
			;
	if (strcmp(what, "closed") == 0)
		return fcntl(100, F_GETFD) == -1 && errno == EBADF ? 0 : 1;
	return 98;
}

/* The command line that starts this program again as a child. */
static char *const *command(const char *what)
{
	static char *words[5];
	int n = 0;

	if (through_loader)
		words[n++] = "/ld.so";
	words[n++] = self;
	words[n++] = "child";
	words[n++] = (char *)what;
	words[n] = NULL;
	return words;
}

static int status_of(pid_t pid)
{
	int status = -1;

	return waitpid(pid, &status, 0) == pid ? status : -1;
}

static pid_t start(const char *what, char *const *environment)
{
	char *const *words = command(what);
	pid_t pid = -1;

	errno = posix_spawn(&pid, words[0], NULL, NULL, words, environment);
	return errno == 0 ? pid : -1;
}

static void spawned(void)
{
	char *environment[] = { "GREETING=hello child", NULL };
	pid_t pid, first, second;
	struct rusage usage;
	int status;

	pid = start("seven", environ);
	EXPECT(pid > 0 && pid != getpid(), "posix_spawn");
	status = status_of(pid);
	check(WIFEXITED(status) && WEXITSTATUS(status) == 7, "its exit status is 7", "status %#x", status);
	status = status_of(start("environment", environment));
	check(status == 0, "it gets the environment it is given", "status %#x", status);
	status = status_of(start("segv", environ));
	check(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV, "a child that crashes", "status %#x", status);
	EXPECT_ERROR(ECHILD, waitpid(-1, &status, 0), "wait without a child");
	pid = -1;
	EXPECT_VALUE(ENOENT, posix_spawn(&pid, "/no/such/program", NULL, NULL, command("seven"), environ), "posix_spawn of nothing");

	first = start("loop", environ);
	second = start("loop", environ);
	EXPECT(first > 0 && second > 0, "two children at once");
	EXPECT_VALUE(0, waitpid(-1, &status, WNOHANG), "wait with WNOHANG while they run");
	EXPECT_OK(kill(second, SIGTERM), "kill of the second");
	status = status_of(second);
	check(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM, "it ends by SIGTERM", "status %#x", status);
	EXPECT_OK(kill(first, SIGKILL), "kill of the first");
	EXPECT_VALUE(first, wait4(-1, &status, 0, &usage), "wait4 for any");
	check(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "it ends by SIGKILL", "status %#x", status);
}

static void with_pipes(void)
{
	posix_spawn_file_actions_t actions;
	char *const *words = command("echo");
	int in[2], out[2], status;
	char text[16] = "";
	pid_t pid;

	REQUIRE(pipe(in) == 0 && pipe(out) == 0, "pipe");
	REQUIRE(posix_spawn_file_actions_init(&actions) == 0, "file actions");
	REQUIRE(posix_spawn_file_actions_adddup2(&actions, in[0], 0) == 0, "file actions");
	REQUIRE(posix_spawn_file_actions_adddup2(&actions, out[1], 1) == 0, "file actions");
	EXPECT_VALUE(0, posix_spawn(&pid, words[0], &actions, NULL, words, environ), "posix_spawn with redirection");
	EXPECT_VALUE(5, write(in[1], "hello", 5), "write to the child");
	EXPECT_VALUE(5, read(out[0], text, sizeof(text)), "read from the child");
	EXPECT(memcmp(text, "hello", 5) == 0, "it is what was written");
	status = status_of(pid);
	check(status == 0, "the child with pipes ends well", "status %#x", status);
	close(in[0]);
	close(out[1]);
	signal(SIGPIPE, SIG_IGN);
	EXPECT_ERROR(EPIPE, write(in[1], "x", 1), "write to a pipe that nobody reads");
	EXPECT_VALUE(0, read(out[0], text, 1), "read of a pipe that nobody writes");
	close(in[1]);
	close(out[0]);
}

static void vforked(void)
{
	static volatile int seen;
	char *const *words = command("closed");
	int status, zero = open("/dev/zero", O_RDONLY);
	pid_t pid;

	REQUIRE(zero >= 0 && dup3(zero, 100, O_CLOEXEC) == 100, "a descriptor to be closed");
	pid = vfork();
	if (pid == 0) {
		seen = getppid();
		_exit(5);
	}
	EXPECT_VALUE(getpid(), seen, "a vforked child shares memory, and its parent is this process");
	status = status_of(pid);
	check(WIFEXITED(status) && WEXITSTATUS(status) == 5, "a vforked child ends by _exit", "status %#x", status);
	pid = vfork();
	if (pid == 0) {
		execve(words[0], words, environ);
		_exit(6);
	}
	status = status_of(pid);
	check(status == 0, "vfork and exec, which closes what is close-on-exec", "status %#x", status);
	EXPECT(fcntl(100, F_GETFD) == FD_CLOEXEC, "it is open here");
	close(100);
	close(zero);
}

static volatile sig_atomic_t children;

static void count_child(int signal)
{
	(void)signal;
	children++;
}

static void told_by_signal(void)
{
	struct sigaction action = { .sa_handler = count_child };
	sigset_t blocked, before;
	int status;

	sigemptyset(&blocked);
	sigaddset(&blocked, SIGCHLD);
	REQUIRE(sigprocmask(SIG_BLOCK, &blocked, &before) == 0, "sigprocmask");
	REQUIRE(sigaction(SIGCHLD, &action, NULL) == 0, "sigaction");
	REQUIRE(start("seven", environ) > 0, "posix_spawn");
	while (children == 0)
		sigsuspend(&before);
	EXPECT_VALUE(1, children, "SIGCHLD arrives");
	EXPECT(wait(&status) > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 7, "the child can be waited for");
	REQUIRE(sigprocmask(SIG_SETMASK, &before, NULL) == 0, "sigprocmask");
	signal(SIGCHLD, SIG_DFL);
}

static void handles(void)
{
	pid_t pid = start("loop", environ);
	int handle = (int)syscall(SYS_pidfd_open, pid, 0);
	struct pollfd end = { .fd = handle, .events = POLLIN };
	siginfo_t info = { 0 };

	EXPECT(handle >= 0, "pidfd_open");
	EXPECT_VALUE(0, poll(&end, 1, 0), "it is not readable while the process runs");
	EXPECT_OK(syscall(SYS_pidfd_send_signal, handle, SIGKILL, NULL, 0), "pidfd_send_signal");
	EXPECT_VALUE(1, poll(&end, 1, 60000), "and is at its end");
	EXPECT(waitid(P_PID, (id_t)pid, &info, WEXITED) == 0 && info.si_code == CLD_KILLED && info.si_status == SIGKILL, "waitid");
	close(handle);
}

static void settings(void)
{
	struct sched_param first = { .sched_priority = 1 }, none = { 0 };
	struct rlimit limit = { 0 }, now = { 0 };
	struct rusage usage;
	cpu_set_t set;
	pid_t pid = vfork();
	int status;

	if (pid == 0)
		_exit(setpgid(0, 0) == 0 && getpgid(0) == getpid() && getsid(0) != getpid() ? 4 : 1);
	status = status_of(pid);
	check(WIFEXITED(status) && WEXITSTATUS(status) == 4, "setpgid, getpgid, getsid", "status %#x", status);
	EXPECT(setpriority(PRIO_PROCESS, 0, 5) == 0 && getpriority(PRIO_PROCESS, 0) == 5, "setpriority, getpriority");
	EXPECT_OK(setpriority(PRIO_PROCESS, 0, 0), "and back");
	/* The system calls: the C library has none of its own. */
	EXPECT_OK(syscall(SYS_sched_setscheduler, 0, SCHED_FIFO, &first), "sched_setscheduler");
	EXPECT_VALUE(SCHED_FIFO, syscall(SYS_sched_getscheduler, 0), "sched_getscheduler");
	EXPECT_OK(syscall(SYS_sched_setscheduler, 0, SCHED_OTHER, &none), "and back");
	EXPECT(sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) == 1, "there is one processor");
	REQUIRE(getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur > 20, "getrlimit");
	limit.rlim_cur = 20;
	EXPECT(setrlimit(RLIMIT_NOFILE, &limit) == 0 && getrlimit(RLIMIT_NOFILE, &now) == 0 && now.rlim_cur == 20, "setrlimit");
	EXPECT_VALUE(19, fcntl(0, F_DUPFD, 19), "a descriptor below the limit");
	EXPECT_ERROR(EMFILE, fcntl(0, F_DUPFD, 19), "and no other");
	close(19);
	EXPECT_OK(getrusage(RUSAGE_CHILDREN, &usage), "getrusage");
}

#ifdef __x86_64__
static long traced(int request, pid_t pid)
{
	return ptrace(request, pid, NULL, NULL);
}

static void trace(void)
{
	pid_t pid = fork();
	int status = 0;

	if (pid == 0) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		_exit((int)syscall(SYS_getppid) == getppid() ? 3 : 1);
	}
	EXPECT(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP, "a child that is traced stops");
	EXPECT_ERROR(EIO, traced(PTRACE_SINGLESTEP, pid), "there are no single steps");
	EXPECT_OK(traced(PTRACE_SYSCALL, pid), "PTRACE_SYSCALL");
	EXPECT(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP, "stops it at its next system call");
	EXPECT_OK(traced(PTRACE_CONT, pid), "PTRACE_CONT");
	status = status_of(pid);
	check(WIFEXITED(status) && WEXITSTATUS(status) == 3, "and it ends well", "status %#x", status);
}

/* What it does with memory is in address_space.c. */
static void forked(void)
{
	pid_t pid = fork();
	int status = -1;

	if (pid == 0)
		_exit(6);
	waitpid(pid, &status, 0);
	check(WIFEXITED(status) && WEXITSTATUS(status) == 6, "fork", "status %#x", status);
	pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	if (pid == 0)
		_exit(7);
	waitpid(pid, &status, 0);
	check(WIFEXITED(status) && WEXITSTATUS(status) == 7, "clone that shares no memory", "status %#x", status);
}
#else
/*
 * Without virtual memory two processes cannot have different memory at the same addresses: what would need it is refused, by whichever
 * name.
 */
static void forked(void)
{
	pid_t pid = fork();

	if (pid == 0)
		_exit(0);
	check(pid == -1 && errno == EINVAL, "fork is refused with EINVAL", "returned %d, %s", pid, strerror(errno));
	pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	if (pid == 0)
		_exit(0);
	check(pid == -1 && errno == EINVAL, "and so is clone that shares no memory", "returned %d, %s", pid, strerror(errno));
}
#endif

int main(int argc, char **argv)
{
	char name[64] = "";
	ssize_t n = readlink("/proc/self/exe", name, sizeof(name) - 1);

	if (argc == 3 && strcmp(argv[1], "child") == 0)
		return child(argv[2]);
	checks_begin();
	REQUIRE(n > 0, "/proc/self/exe");
	/* Where the loader was started by name, it is what runs. */
	through_loader = strcmp(name, "/ld.so") == 0;
	snprintf(self, sizeof(self), "%s", through_loader ? argv[0] : name);
	spawned();
	with_pipes();
	vforked();
	told_by_signal();
	handles();
	settings();
	forked();
#ifdef __x86_64__
	trace();
#endif
	return checks_end();
}
