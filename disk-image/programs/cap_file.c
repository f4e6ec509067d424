// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Reads and overwrites a CAP_File: a byte range that somebody else published under a key, here the monitor.
 *
 *     cap_file [KEY]      the key is 'test1' unless given
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <capstream.h>

#define DEVICE "/cap/cf1"
#define LENGTH 32

static void die(const char *what)
{
	fprintf(stderr, "cap_file: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void read_and_print(int file, const char *key)
{
	char text[LENGTH + 1] = "";
	ssize_t n = read(file, text, LENGTH);

	if (n < 0)
		die("read");
	printf("read %zd bytes ('%s') from cap_file with key '%s'\n", n, text, key);
}

int main(int argc, char **argv)
{
	static const char filler[] = "cap filler\n";
	char key[CAP_KEY_LEN] = "";
	ssize_t n;
	int file;

	strncpy(key, argc > 1 ? argv[1] : "test1", sizeof(key));
	file = open(DEVICE, O_RDWR);
	if (file < 0)
		die(DEVICE);
	if (ioctl(file, CAP_FILE_PRB, key) != 0)
		die("no range is published under the key");
	read_and_print(file, key);
	if (lseek(file, 0, SEEK_SET) != 0)
		die("lseek");
	n = write(file, filler, sizeof(filler));
	if (n < 0)
		die("write");
	printf("wrote %zd bytes\n", n);
	if (lseek(file, 0, SEEK_SET) != 0)
		die("lseek");
	read_and_print(file, key);
	close(file);
	return 0;
}
