// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * CAP_File within one cVM: every error that its requests promise, and reads and writes at every kind of offset.
 */
#include <fcntl.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <capstream.h>

#include "check.h"

#define NOWHERE ((void *)16)
#define FAR_AWAY ((void *)(UINTPTR_MAX - 4095))
#define SIZE 1000

static char range[SIZE], second[SIZE];
static const char constant[SIZE] = "in read-only memory";

static void wrong_arguments(int publisher, int user)
{
	static char text[16];

	EXPECT_ERROR(ENOENT, ioctl(publisher, CAP_FILE_REVOKE), "REVOKE without a published range");
	EXPECT_ERROR(EINVAL, ioctl(publisher, CAP_FILE_SET_SIZE, 0), "SET_SIZE 0");
	EXPECT_ERROR(EINVAL, ioctl(publisher, CAP_FILE_SET_SIZE, -1), "SET_SIZE -1");
	EXPECT_ERROR(EINVAL, ioctl(publisher, CAP_FILE_SET_MODE, 2), "SET_MODE 2");
	EXPECT_ERROR(EINVAL, ioctl(publisher, CAP_FILE_SET_MODE, -1), "SET_MODE -1");
	EXPECT_OK(ioctl(publisher, CAP_FILE_SET_SIZE, SIZE), "SET_SIZE");
	EXPECT_OK(ioctl(publisher, CAP_FILE_SET_CAP, NOWHERE), "SET_CAP takes any address");
	EXPECT_ERROR(EFAULT, ioctl(publisher, CAP_FILE_ADV, "file\0\0\0\0\0"), "ADV of memory that is nowhere");
	EXPECT_OK(ioctl(publisher, CAP_FILE_SET_CAP, FAR_AWAY), "SET_CAP at the end of the address space");
	EXPECT_ERROR(EFAULT, ioctl(publisher, CAP_FILE_ADV, "file\0\0\0\0\0"), "ADV of memory at the end of the address space");
	if (is_protected(constant)) {
		EXPECT_OK(ioctl(publisher, CAP_FILE_SET_CAP, constant), "SET_CAP to read-only memory");
		EXPECT_ERROR(EFAULT, ioctl(publisher, CAP_FILE_ADV, "file\0\0\0\0\0"), "ADV of read-only memory as read-write");
	}
	EXPECT_OK(ioctl(publisher, CAP_FILE_SET_CAP, range), "SET_CAP");
	EXPECT_ERROR(EFAULT, ioctl(publisher, CAP_FILE_ADV, NULL), "ADV null");
	EXPECT_ERROR(EFAULT, ioctl(publisher, CAP_FILE_ADV, NOWHERE), "ADV nowhere");
	EXPECT_ERROR(EINVAL, ioctl(publisher, CAP_FILE_ADV, "\0\0\0\0\0\0\0\0\0"), "ADV with an empty key");
	EXPECT_ERROR(EFAULT, ioctl(user, CAP_FILE_PRB, NULL), "PRB null");
	EXPECT_ERROR(EINVAL, ioctl(user, CAP_FILE_PRB, "\0\0\0\0\0\0\0\0\0"), "PRB with an empty key");
	EXPECT_ERROR(EAGAIN, ioctl(user, CAP_FILE_PRB, "nobody\0\0\0"), "PRB of a key that does not exist, O_NONBLOCK");
	EXPECT_ERROR(ENOTCONN, read(user, text, 1), "read without a range");
	EXPECT_ERROR(ENOTCONN, write(user, text, 1), "write without a range");
	EXPECT_ERROR(ENOTTY, ioctl(user, _IO(CAP_FILE_TYPE, 0x7f)), "a request that does not exist");
	EXPECT_ERROR(ENOTTY, ioctl(user, CAP_STREAM_RESET), "a request of another device");
	EXPECT_ERROR(EFAULT, ioctl(user, CAP_FILE_STATS, NULL), "STATS null");
	if (is_protected(constant))
		EXPECT_ERROR(EFAULT, ioctl(user, CAP_FILE_STATS, constant), "STATS in read-only memory");
}

static void contents(int publisher, int user)
{
	static char back[2 * SIZE];
	struct cap_file_stats stats = { 0 };

	for (int i = 0; i < SIZE; i++)
		range[i] = (char)(i * 7);
	EXPECT_OK(ioctl(publisher, CAP_FILE_ADV, "file\0\0\0\0\0"), "ADV");
	EXPECT_OK(ioctl(user, CAP_FILE_PRB, "file\0\0\0\0\0"), "PRB");
	EXPECT_VALUE(SIZE, read(user, back, sizeof(back)), "read of everything and more");
	EXPECT(memcmp(back, range, SIZE) == 0, "it is what was published");
	EXPECT_VALUE(0, read(user, back, 1), "end of file");
	EXPECT_VALUE(SIZE, lseek(user, 0, SEEK_END), "the end is the size");
	EXPECT_VALUE(SIZE - 3, lseek(user, -3, SEEK_END), "lseek from the end");
	EXPECT_VALUE(3, read(user, back, 100), "the last three bytes");
	EXPECT(memcmp(back, range + SIZE - 3, 3) == 0, "they are the last three");
	EXPECT_ERROR(EINVAL, lseek(user, -1, SEEK_SET), "lseek before the beginning");
	EXPECT_VALUE(1, pread(user, back, 1, 501), "pread of one byte at an odd offset");
	EXPECT(back[0] == range[501], "it is that byte");
	EXPECT_VALUE(0, pread(user, back, 1, SIZE), "pread at the end");
	EXPECT_VALUE(5, pwrite(user, "hello", 5, 3), "pwrite");
	EXPECT(memcmp(range + 3, "hello", 5) == 0, "the publisher sees it");
	EXPECT(range[2] == 2 * 7 && range[8] == 8 * 7, "its neighbours are as they were");
	EXPECT_VALUE(2, pwrite(user, "abcdef", 6, SIZE - 2), "pwrite across the end");
	EXPECT(memcmp(range + SIZE - 2, "ab", 2) == 0, "up to the end");
	EXPECT_ERROR(ENOSPC, pwrite(user, "x", 1, SIZE), "pwrite at the end");
	EXPECT_ERROR(EFAULT, pread(user, NOWHERE, 8, 0), "pread to nowhere");
	if (is_protected(constant))
		EXPECT_ERROR(EFAULT, pread(user, (void *)constant, 8, 0), "pread to read-only memory");
	EXPECT_ERROR(EFAULT, pwrite(user, NOWHERE, 8, 0), "pwrite from nowhere");
	EXPECT_OK(ioctl(user, CAP_FILE_STATS, &stats), "STATS");
	check(stats.size == SIZE && !stats.read_only && stats.reads >= 3 && stats.written_bytes == 7, "STATS count",
	      "size %llu, read_only %u, reads %llu, written_bytes %llu", (unsigned long long)stats.size, stats.read_only,
	      (unsigned long long)stats.reads, (unsigned long long)stats.written_bytes);
}

static void revoked(int publisher, int user)
{
	static char text[16];

	EXPECT_OK(ioctl(publisher, CAP_FILE_REVOKE), "REVOKE");
	EXPECT_ERROR(ESTALE, pread(user, text, 1, 0), "read after REVOKE");
	EXPECT_ERROR(ESTALE, pwrite(user, text, 1, 0), "write after REVOKE");
	EXPECT_OK(ioctl(publisher, CAP_FILE_ADV, "file\0\0\0\0\0"), "ADV of the key again");
	EXPECT_ERROR(ESTALE, pread(user, text, 1, 0), "what was attached before stays stale");
	EXPECT_OK(ioctl(user, CAP_FILE_PRB, "file\0\0\0\0\0"), "PRB again");
	EXPECT_VALUE(1, pread(user, text, 1, 0), "read again");
	EXPECT_OK(ioctl(publisher, CAP_FILE_REVOKE), "REVOKE again");
}

static void read_only(int publisher, int user)
{
	static char text[16];

	EXPECT_OK(ioctl(publisher, CAP_FILE_SET_CAP, second), "SET_CAP to another range");
	EXPECT_OK(ioctl(publisher, CAP_FILE_SET_MODE, CAP_FILE_READ_ONLY), "SET_MODE read-only");
	EXPECT_OK(ioctl(publisher, CAP_FILE_ADV, "constant\0"), "ADV read-only");
	EXPECT_ERROR(EADDRINUSE, ioctl(user, CAP_FILE_ADV, "constant\0"), "ADV of a key that is taken");
	EXPECT_OK(ioctl(user, CAP_FILE_PRB, "constant\0"), "PRB of a read-only range");
	EXPECT_VALUE(16, pread(user, text, 16, 0), "read of a read-only range");
	EXPECT_ERROR(EACCES, pwrite(user, text, 16, 0), "write to a read-only range");
	EXPECT_OK(ioctl(publisher, CAP_FILE_REVOKE), "REVOKE of a read-only range");
}

int main(void)
{
	int publisher, user;

	checks_begin();
	REQUIRE((publisher = open("/cap/cf1", O_RDWR)) >= 0, "/cap/cf1");
	REQUIRE((user = open("/cap/cf2", O_RDWR | O_NONBLOCK)) >= 0, "/cap/cf2");
	/* So that ADV of a taken key fails for that reason. */
	REQUIRE(ioctl(user, CAP_FILE_SET_SIZE, SIZE) == 0 && ioctl(user, CAP_FILE_SET_CAP, range) == 0, "a second range");
	wrong_arguments(publisher, user);
	contents(publisher, user);
	revoked(publisher, user);
	read_only(publisher, user);
	return checks_end();
}
