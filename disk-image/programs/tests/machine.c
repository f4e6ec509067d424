// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * The machine as a whole: its domain, the kernel's messages, and terminals that are hung up.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/utsname.h>

#include "calls.h"

enum { read_some = 2, read_all = 3, read_and_clear = 4, clear = 5, console_off = 6, console_on = 7, console_level = 8, unread = 9, size = 10 };

static char text[1 << 16];

static int domain_is(const char *name)
{
	struct utsname names;

	return uname(&names) == 0 && strcmp(names.domainname, name) == 0;
}

static void domain(void)
{
	struct utsname before;

	REQUIRE(uname(&before) == 0, "uname");
	EXPECT_OK(syscall(SYS_setdomainname, "example.org", 7), "setdomainname");
	EXPECT(domain_is("example"), "sets as much as is said");
	EXPECT_ERROR(EINVAL, syscall(SYS_setdomainname, text, 65), "a name that is too long");
	EXPECT_ERROR(EINVAL, syscall(SYS_setdomainname, "x", -1), "and one that is shorter than nothing");
	EXPECT_ERROR(EFAULT, syscall(SYS_setdomainname, 16, 5), "and one at a bad pointer");
	EXPECT(domain_is("example"), "change nothing");
	EXPECT_OK(syscall(SYS_setdomainname, before.domainname, strlen(before.domainname)), "setdomainname back");
	EXPECT(domain_is(before.domainname), "sets what was before");
}

static long log_of(int what, void *buffer, long length)
{
	return syscall(SYS_syslog, what, buffer, length);
}

/* Has the kernel say something, which nobody is to see on its console. */
static void say(const char *words)
{
	int fd = open("/dev/kmsg", O_WRONLY);

	EXPECT_VALUE((long)strlen(words), write(fd, words, strlen(words)), "the kernel is told something");
	close(fd);
}

static void messages(void)
{
	long length = log_of(size, NULL, 0);

	EXPECT(length >= 1 << 12 && length <= (long)sizeof(text), "the kernel has room for messages");
	say("<7>said by a test\n");
	memset(text, 0, sizeof(text));
	EXPECT(log_of(read_all, text, sizeof(text) - 1) > 0 && strstr(text, "said by a test\n"), "syslog has it");
	EXPECT(strstr(text, "<15>") != NULL, "as of a user, for who searches errors");
	EXPECT(log_of(unread, NULL, 0) > 0, "there is something that nobody has read");
	memset(text, 0, sizeof(text));
	while (log_of(unread, NULL, 0) > 0 && log_of(read_some, text, sizeof(text) - 1) > 0)
		;
	EXPECT(strstr(text, "said by a test\n") != NULL, "which is read");
	EXPECT_VALUE(0, log_of(unread, NULL, 0), "once");
	EXPECT(log_of(read_and_clear, text, sizeof(text) - 1) > 0, "though it is still there");
	EXPECT_VALUE(0, log_of(read_all, text, sizeof(text) - 1), "until it is cleared");
	say("<7>said again\n");
	memset(text, 0, sizeof(text));
	EXPECT(log_of(read_all, text, sizeof(text) - 1) > 0 && strstr(text, "said again\n") && !strstr(text, "said by a test"),
	       "after which there is what is new");
	EXPECT_OK(log_of(clear, NULL, 0), "and cleared without being read");
	EXPECT_VALUE(0, log_of(read_all, text, sizeof(text) - 1), "which leaves nothing");
	EXPECT_OK(log_of(console_off, NULL, 0), "the console is switched off");
	EXPECT_OK(log_of(console_on, NULL, 0), "and on");
	EXPECT_ERROR(EINVAL, log_of(console_level, NULL, 0), "it has no level 0");
	EXPECT_ERROR(EINVAL, log_of(console_level, NULL, 9), "and no level 9");
	EXPECT_ERROR(EINVAL, log_of(99, NULL, 0), "and syslog no such request");
	EXPECT_ERROR(EINVAL, log_of(read_all, NULL, 1), "and no reading to nowhere");
}

static volatile int hung_up;

static void on_hang_up(int signal)
{
	(void)signal;
	hung_up++;
}

/* The leader of a session, whose terminal goes away. */
static void with_a_terminal(void)
{
	struct sigaction action = { .sa_handler = on_hang_up }, before;
	int master = open("/dev/ptmx", O_RDWR | O_NOCTTY), zero = 0, number = -1, terminal, own;
	char path[32], byte;

	EXPECT(master >= 0 && ioctl(master, TIOCSPTLCK, &zero) == 0 && ioctl(master, TIOCGPTN, &number) == 0, "a terminal");
	snprintf(path, sizeof(path), "/dev/pts/%d", number);
	EXPECT(setsid() == getpid(), "a session");
	EXPECT_OK(syscall(SYS_vhangup), "vhangup without a terminal");
	EXPECT_VALUE(0, hung_up, "does nothing");
	terminal = open(path, O_RDWR);
	own = open("/dev/tty", O_RDWR);
	EXPECT(terminal >= 0 && own >= 0, "whose terminal it is");
	sigaction(SIGHUP, &action, &before);
	EXPECT_OK(syscall(SYS_vhangup), "vhangup");
	EXPECT_VALUE(1, hung_up, "sends SIGHUP");
	EXPECT_VALUE(0, read(terminal, &byte, 1), "the terminal is at its end");
	EXPECT_ERROR(EIO, write(terminal, "x", 1), "and takes nothing");
	EXPECT_ERROR(ENXIO, open("/dev/tty", O_RDWR), "and is the session's no more");
	EXPECT_VALUE(0, read(own, &byte, 1), "also for who has it open");
	close(terminal);
	close(own);
	EXPECT_ERROR(EIO, read(master, &byte, 1), "when it is closed, the other side sees it");
	sigaction(SIGHUP, &before, NULL);
}

static void as_nobody(void)
{
	become_nobody();
	EXPECT_ERROR(EPERM, syscall(SYS_setdomainname, "x", 1), "setdomainname is for the privileged");
	EXPECT_ERROR(EPERM, syscall(SYS_vhangup), "so is vhangup");
	EXPECT_ERROR(EPERM, log_of(clear, NULL, 0), "and to clear messages");
	EXPECT(log_of(size, NULL, 0) > 0, "but not to know how many there can be");
}

int main(void)
{
	checks_begin();
	domain();
	messages();
	in_child(with_a_terminal, "a child with a terminal ends");
	in_child(as_nobody, "a child without rights ends");
	return checks_end();
}
