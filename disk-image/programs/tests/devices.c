// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * What a program finds around it: the nodes of /cap, and the file systems that programs expect.
 */
#include <dirent.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <capstream.h>

#include "check.h"

#define PROC 0x9fa0
#define EXT4 0xef53

static void node(const char *path, unsigned int major_number, unsigned int minor_number)
{
	struct stat status = { 0 };

	REQUIRE(stat(path, &status) == 0, path);
	check(S_ISCHR(status.st_mode) && (status.st_mode & 07777) == 0666 && major(status.st_rdev) == major_number &&
		      minor(status.st_rdev) == minor_number,
	      path, "mode %#o, device %u:%u", status.st_mode, major(status.st_rdev), minor(status.st_rdev));
}

static long file_system(const char *path)
{
	struct statfs status = { 0 };

	return statfs(path, &status) == 0 ? (long)status.f_type : -1;
}

/* Whether a line of the list of mounts begins so. A tmpfs of a kernel without MMU is a ramfs to statfs. */
static int mounted(const char *begin)
{
	FILE *mounts = fopen("/proc/mounts", "r");
	char line[256];
	int found = 0;

	if (mounts == NULL)
		return 0;
	while (fgets(line, sizeof(line), mounts) != NULL)
		found |= strncmp(line, begin, strlen(begin)) == 0;
	fclose(mounts);
	return found;
}

/* What opening a node with this minor says. */
static int open_minor(unsigned int minor_number)
{
	int result = -1;

	if (mknod("/cap/other", S_IFCHR | 0666, makedev(CAP_STREAM_MAJOR, minor_number)) == 0)
		result = open("/cap/other", O_RDWR);
	unlink("/cap/other");
	return result;
}

int main(void)
{
	struct stat status = { 0 };
	int entries = 0, fd;
	char text[64] = "";
	DIR *folder;

	checks_begin();
	node("/cap/cf1", CAP_FILE_MAJOR, 1);
	node("/cap/cf2", CAP_FILE_MAJOR, 2);
	node("/cap/cg1", CAP_BELL_MAJOR, 1);
	node("/cap/cg2", CAP_BELL_MAJOR, 2);
	node("/cap/ch1", CAP_STREAM_MAJOR, 1);
	node("/cap/ch2", CAP_STREAM_MAJOR, 2);
	node("/cap/ch3", CAP_STREAM_MAJOR, 3);
	node("/cap/ch4", CAP_STREAM_MAJOR, 4);
	EXPECT_OK(stat("/cap", &status), "stat of /cap");
	check((status.st_mode & 07777) == 0777, "/cap is for everybody", "mode %#o", status.st_mode);
	EXPECT(mounted("tmpfs /cap tmpfs "), "/cap is a tmpfs");
	REQUIRE((folder = opendir("/cap")) != NULL, "opendir");
	for (struct dirent *entry; (entry = readdir(folder)) != NULL;)
		entries += entry->d_name[0] != '.';
	closedir(folder);
	EXPECT_VALUE(8, entries, "/cap has two files, four streams and two bells");
	EXPECT_VALUE(EXT4, file_system("/"), "/ is ext4");
	EXPECT_VALUE(PROC, file_system("/proc"), "/proc is there");
	EXPECT(file_system("/sys") > 0 && access("/sys/kernel", F_OK) == 0, "/sys is there");
	EXPECT_OK(access("/dev/null", W_OK), "/dev/null is there");
	EXPECT_OK(access("/dev/zero", R_OK), "/dev/zero is there");
	EXPECT_OK(access("/dev/urandom", R_OK), "/dev/urandom is there");
	REQUIRE((fd = open("/proc/self/comm", O_RDONLY)) >= 0, "/proc/self/comm");
	EXPECT(read(fd, text, sizeof(text) - 1) > 1, "/proc tells about this process");
	close(fd);
	EXPECT_VALUE(0, getuid(), "the program is started as root");
	EXPECT(open_minor(1000) >= 0, "a minor without a node in /cap can be given one");
	EXPECT_ERROR(ENXIO, open_minor(5000), "a minor that does not exist cannot");
	return checks_end();
}
