// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * What a program that stands in for the monitor has of it: standard streams, arguments, environment, user, terminal.
 *
 *     standard copy             standard input to standard output, to its end
 *     standard both TEXT TEXT   one to standard output, one to standard error
 *     standard numbers COUNT    1 to COUNT, a line each
 *     standard endless          lines, until it cannot
 *     standard ignore-pipe      the same without SIGPIPE; tells the error on standard error and exits with it
 *     standard wait             waits for input by poll, while a timer goes on
 *     standard describe ARG...  arguments, environment, folder, user, machine
 *     standard terminal         what each stream is
 *     standard size             the terminal's size, and again when it changes
 *     standard line             a line of input in brackets
 *     standard exit STATUS
 *     standard signal NUMBER
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

extern char **environ;

static int write_all(int to, const char *bytes, size_t length)
{
	while (length > 0) {
		ssize_t n = write(to, bytes, length);

		if (n < 0)
			return -1;
		bytes += n;
		length -= (size_t)n;
	}
	return 0;
}

static int copy(void)
{
	static char buffer[64 << 10];
	ssize_t n;

	while ((n = read(0, buffer, sizeof(buffer))) > 0)
		if (write_all(1, buffer, (size_t)n) < 0) {
			perror("write");
			return 1;
		}
	if (n < 0)
		perror("read");
	return n < 0;
}

static int both(const char *out, const char *err)
{
	return write_all(1, out, strlen(out)) < 0 || write_all(2, err, strlen(err)) < 0;
}

static int numbers(long count)
{
	for (long i = 1; i <= count; i++)
		printf("%ld\n", i);
	return fflush(stdout) != 0;
}

static int endless(void)
{
	static const char line[] = "again and again\n";

	while (write(1, line, sizeof(line) - 1) > 0)
		;
	dprintf(2, "write: %s\n", strerror(errno));
	return errno;
}

static int wait_for_input(void)
{
	struct pollfd events = { .fd = 0, .events = POLLIN };
	char byte;
	int ticks = 0;

	dprintf(2, "waiting\n");
	/* The cVM goes on meanwhile: its timers run. */
	while (poll(&events, 1, 1) == 0)
		if (++ticks == 20)
			dprintf(2, "still waiting\n");
	if (read(0, &byte, 1) != 1)
		return 1;
	printf("after %s ticks: %c\n", ticks >= 20 ? "many" : "few", byte);
	/* Without waiting there is nothing more. */
	fcntl(0, F_SETFL, O_NONBLOCK);
	printf("%s\n", read(0, &byte, 1) < 0 ? strerror(errno) : "something");
	return 0;
}

static int describe(int argc, char **argv)
{
	gid_t groups[64];
	char text[4096];
	int count = getgroups(64, groups);

	for (int i = 0; i < argc; i++)
		printf("argument <%s>\n", argv[i]);
	for (char **variable = environ; *variable; variable++)
		printf("variable <%s>\n", *variable);
	printf("folder <%s>\n", getcwd(text, sizeof(text)) ? text : "none");
	printf("user %d %d %d %d\n", getuid(), geteuid(), getgid(), getegid());
	for (int i = 0; i < count; i++)
		printf("group %d\n", groups[i]);
	printf("machine <%s>\n", gethostname(text, sizeof(text)) ? "none" : text);
	return 0;
}

static int terminal(void)
{
	static const char *const names[] = { "/dev/stdin", "/dev/stdout", "/dev/stderr" };

	for (int i = 0; i < 3; i++) {
		int fd = open(names[i], i ? O_WRONLY : O_RDONLY);

		dprintf(2, "%s: %s, %s again\n", names[i], isatty(i) ? "terminal" : "stream",
			fd < 0 ? strerror(errno) : "open");
		close(fd);
	}
	return 0;
}

static volatile sig_atomic_t resized;

static void on_resize(int signal)
{
	(void)signal;
	resized = 1;
}

static int size(void)
{
	struct winsize size;
	struct sigaction action = { .sa_handler = on_resize };
	sigset_t changed, before;

	sigemptyset(&changed);
	sigaddset(&changed, SIGWINCH);
	sigprocmask(SIG_BLOCK, &changed, &before);
	sigaction(SIGWINCH, &action, NULL);
	for (int i = 0; i < 2; i++) {
		while (i && !resized)
			sigsuspend(&before);
		if (ioctl(0, TIOCGWINSZ, &size) < 0) {
			perror("TIOCGWINSZ");
			return 1;
		}
		printf("%d rows, %d columns\n", size.ws_row, size.ws_col);
		fflush(stdout);
	}
	return 0;
}

static int line(void)
{
	char text[256];

	printf("ready\n");
	fflush(stdout);
	if (!fgets(text, sizeof(text), stdin))
		return 1;
	text[strcspn(text, "\n")] = 0;
	printf("[%s]\n", text);
	return 0;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (strcmp(what, "copy") == 0)
		return copy();
	if (strcmp(what, "both") == 0 && argc == 4)
		return both(argv[2], argv[3]);
	if (strcmp(what, "numbers") == 0 && argc == 3)
		return numbers(atol(argv[2]));
	if (strcmp(what, "endless") == 0)
		return endless();
	if (strcmp(what, "ignore-pipe") == 0) {
		signal(SIGPIPE, SIG_IGN);
		return endless();
	}
	if (strcmp(what, "wait") == 0)
		return wait_for_input();
	if (strcmp(what, "describe") == 0)
		return describe(argc - 2, argv + 2);
	if (strcmp(what, "terminal") == 0)
		return terminal();
	if (strcmp(what, "size") == 0)
		return size();
	if (strcmp(what, "line") == 0)
		return line();
	if (strcmp(what, "exit") == 0 && argc == 3)
		return atoi(argv[2]);
	if (strcmp(what, "signal") == 0 && argc == 3) {
		raise(atoi(argv[2]));
		return 0;
	}
	dprintf(2, "standard: '%s' is nothing that it does\n", what);
	return 2;
}
