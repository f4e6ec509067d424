// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * What becomes of files when the disk, or the monitor, fails.
 *
 *     disk records           writes numbered records, and tells of each when it is synced, for ever; first tells what it found
 *     disk records-at-least N    checks that records are there, N of them or more
 *     disk fill              fills the disk, which has to end with ENOSPC, and goes on when there is room again
 *     disk write-until-error     writes and syncs ever more, until the disk fails, which has to be EIO
 *     disk read-until-error      reads a file that is not in memory, for ever, until the disk fails, which has to be EIO
 *     disk go-on             writes and syncs for a while
 */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"

#define RECORD 100
#define BLOCK 65536

static char block[BLOCK] __attribute__((aligned(4096)));

static void make_record(char *record, unsigned int number)
{
	int length = snprintf(record, RECORD, "record %u", number);

	for (int i = length + 1; i < RECORD; i++)
		record[i] = (char)(number * 31 + (unsigned int)i * 7);
}

/* How many records are whole and in order, from the first on; what follows them is as it was before, or the begin of the next. */
static unsigned int count_records(int file)
{
	char record[RECORD], expected[RECORD];
	unsigned int number = 0;

	while (pread(file, record, RECORD, (off_t)number * RECORD) == RECORD) {
		make_record(expected, number);
		if (memcmp(record, expected, RECORD) != 0)
			break;
		number++;
	}
	return number;
}

static void write_records(void)
{
	int file = open("/records", O_RDWR | O_CREAT, 0644), folder = open("/", O_RDONLY);
	char record[RECORD], name[32];
	unsigned int found;
	struct stat info;

	REQUIRE(file >= 0 && folder >= 0, "/records");
	found = count_records(file);
	REQUIRE(fstat(file, &info) == 0, "fstat");
	/* Records are written one after the other: no more than one can be incomplete. */
	if (!check(info.st_size <= (off_t)(found + 1) * RECORD, "nothing behind the records", "%lld bytes, %u records",
		   (long long)info.st_size, found))
		return;
	printf("found %u\n", found);
	REQUIRE(fsync(folder) == 0, "fsync of the folder");
	for (unsigned int number = found;; number++) {
		make_record(record, number);
		REQUIRE(pwrite(file, record, RECORD, (off_t)number * RECORD) == RECORD, "pwrite");
		/* Names come and go too, which the journal has to keep apart from the records. */
		snprintf(name, sizeof(name), "/name%u", number % 8);
		if (number % 3 == 0)
			close(open(name, O_WRONLY | O_CREAT, 0644));
		else
			unlink(name);
		REQUIRE(fsync(file) == 0, "fsync");
		printf("synced %u\n", number);
	}
}

static void check_records(unsigned int least)
{
	int file = open("/records", O_RDONLY);
	unsigned int found;

	REQUIRE(file >= 0, "/records");
	found = count_records(file);
	check(found >= least, "every record that was synced", "%u of %u", found, least);
}

static void fill(void)
{
	int file = open("/filling", O_RDWR | O_CREAT, 0644);
	ssize_t written;

	REQUIRE(file >= 0, "/filling");
	memset(block, 'f', BLOCK);
	do {
		written = write(file, block, BLOCK);
	} while (written == BLOCK || (written > 0 && written < BLOCK));
	check(written < 0 && errno == ENOSPC, "a full disk is ENOSPC", "%zd, %s", written, strerror(errno));
	EXPECT_OK(ftruncate(file, 4096), "ftruncate");
	EXPECT_OK(fsync(file), "fsync");
	EXPECT_VALUE(BLOCK, write(file, block, BLOCK) + pwrite(file, block, 0, 0), "there is room again");
	EXPECT_OK(fsync(file), "fsync of what was written then");
	EXPECT_OK(unlink("/filling"), "unlink");
}

static void write_until_error(void)
{
	int file = open("/growing", O_RDWR | O_CREAT, 0644), error = 0;

	REQUIRE(file >= 0, "/growing");
	memset(block, 'g', BLOCK);
	/* The disk has 32 MiB. */
	for (int i = 0; i < 1024 && !error; i++)
		if (write(file, block, BLOCK) != BLOCK || fsync(file) != 0)
			error = errno;
	check(error == EIO, "a disk that fails is EIO", "%s", strerror(error));
}

static void read_until_error(void)
{
	int file = open("/reading", O_RDWR | O_CREAT | O_DIRECT, 0644);
	ssize_t result;

	REQUIRE(file >= 0, "/reading");
	memset(block, 'r', BLOCK);
	for (int i = 0; i < 64; i++)
		REQUIRE(write(file, block, BLOCK) == BLOCK, "write");
	REQUIRE(fsync(file) == 0, "fsync");
	printf("reading\n");
	for (unsigned int i = 0;; i++) {
		result = pread(file, block, BLOCK, (off_t)(i % 64) * BLOCK);
		if (result != BLOCK)
			break;
	}
	check(result < 0 && errno == EIO, "a disk that fails is EIO", "%zd, %s", result, strerror(errno));
}

static void go_on(void)
{
	int file = open("/going", O_RDWR | O_CREAT, 0644);

	REQUIRE(file >= 0, "/going");
	printf("going on\n");
	for (int i = 0; i < 50; i++) {
		REQUIRE(pwrite(file, block, BLOCK, (off_t)(i % 16) * BLOCK) == BLOCK, "pwrite");
		REQUIRE(fsync(file) == 0, "fsync");
		usleep(10000);
	}
	reached("the disk was there to the end");
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	checks_begin();
	if (strcmp(what, "records") == 0)
		write_records();
	else if (strcmp(what, "records-at-least") == 0 && argc > 2)
		check_records((unsigned int)atoi(argv[2]));
	else if (strcmp(what, "fill") == 0)
		fill();
	else if (strcmp(what, "write-until-error") == 0)
		write_until_error();
	else if (strcmp(what, "read-until-error") == 0)
		read_until_error();
	else if (strcmp(what, "go-on") == 0)
		go_on();
	else
		check(0, what, "%s", "is nothing that this program does");
	return checks_end();
}
