// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Extended attributes of files, of links and of open files, on the disk: what is set is read and listed, what is removed is gone, and who may.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "calls.h"

#define FILE_PATH "/var/attributed"
#define LINK_PATH "/var/attributed.link"

static char names[512], value[256];

/* Whether a list of names, each ended by a zero, has this one. */
static int has(ssize_t length, const char *name)
{
	for (char *at = names; at < names + length; at += strlen(at) + 1)
		if (strcmp(at, name) == 0)
			return 1;
	return 0;
}

static void of_a_file(void)
{
	ssize_t length;

	EXPECT_OK(setxattr(FILE_PATH, "user.one", "first", 5, 0), "setxattr");
	EXPECT(getxattr(FILE_PATH, "user.one", value, sizeof(value)) == 5 && memcmp(value, "first", 5) == 0, "getxattr");
	EXPECT_VALUE(5, getxattr(FILE_PATH, "user.one", NULL, 0), "getxattr without room tells the size");
	EXPECT_ERROR(ERANGE, getxattr(FILE_PATH, "user.one", value, 4), "getxattr with too little room");
	EXPECT_ERROR(ENODATA, getxattr(FILE_PATH, "user.none", value, sizeof(value)), "getxattr of what is not there");
	EXPECT_ERROR(EEXIST, setxattr(FILE_PATH, "user.one", "x", 1, XATTR_CREATE), "XATTR_CREATE of what is there");
	EXPECT_ERROR(ENODATA, setxattr(FILE_PATH, "user.two", "x", 1, XATTR_REPLACE), "XATTR_REPLACE of what is not");
	EXPECT_OK(setxattr(FILE_PATH, "user.two", "second", 6, XATTR_CREATE), "XATTR_CREATE");
	EXPECT_OK(setxattr(FILE_PATH, "user.one", "other", 5, XATTR_REPLACE), "XATTR_REPLACE");
	EXPECT_OK(setxattr(FILE_PATH, "user.empty", "", 0, 0), "an empty value");
	EXPECT_VALUE(0, getxattr(FILE_PATH, "user.empty", value, sizeof(value)), "is there");
	EXPECT_ERROR(EOPNOTSUPP, setxattr(FILE_PATH, "nobodys.one", "x", 1, 0), "a name of no known kind");
	EXPECT_ERROR(EINVAL, setxattr(FILE_PATH, "user.one", "x", 1, 4), "setxattr with an unknown flag");
	length = listxattr(FILE_PATH, names, sizeof(names));
	EXPECT(length == 29 && has(length, "user.one") && has(length, "user.two") && has(length, "user.empty"), "listxattr");
	EXPECT_VALUE(29, listxattr(FILE_PATH, NULL, 0), "listxattr without room tells the size");
	EXPECT_ERROR(ERANGE, listxattr(FILE_PATH, names, 28), "listxattr with too little room");
	EXPECT_OK(removexattr(FILE_PATH, "user.empty"), "removexattr");
	EXPECT_ERROR(ENODATA, removexattr(FILE_PATH, "user.empty"), "removexattr of what is not there");
	EXPECT_ERROR(ENOENT, removexattr("/var/nothing", "user.one"), "removexattr of no file");
}

static void of_an_open_file(void)
{
	int fd = open(FILE_PATH, O_RDONLY);
	ssize_t length;

	REQUIRE(fd >= 0, "open");
	EXPECT(fgetxattr(fd, "user.one", value, sizeof(value)) == 5 && memcmp(value, "other", 5) == 0, "fgetxattr");
	/* To set one needs no descriptor that can be written to. */
	EXPECT_OK(fsetxattr(fd, "user.three", "third", 5, 0), "fsetxattr");
	EXPECT(getxattr(FILE_PATH, "user.three", value, sizeof(value)) == 5 && memcmp(value, "third", 5) == 0, "is the file's");
	length = flistxattr(fd, names, sizeof(names));
	EXPECT(length == 29 && has(length, "user.one") && has(length, "user.two") && has(length, "user.three"), "flistxattr");
	EXPECT_OK(fremovexattr(fd, "user.three"), "fremovexattr");
	EXPECT_ERROR(ENODATA, fgetxattr(fd, "user.three", value, sizeof(value)), "after which it is gone");
	close(fd);
	EXPECT_ERROR(EBADF, fgetxattr(fd, "user.one", value, sizeof(value)), "fgetxattr of a closed file");
	EXPECT_ERROR(EBADF, fsetxattr(fd, "user.one", "x", 1, 0), "fsetxattr of it");
	EXPECT_ERROR(EBADF, flistxattr(fd, names, sizeof(names)), "flistxattr of it");
	EXPECT_ERROR(EBADF, fremovexattr(fd, "user.one"), "fremovexattr of it");
}

static void of_a_link(void)
{
	ssize_t length;

	REQUIRE(symlink("attributed", LINK_PATH) == 0, "symlink");
	EXPECT_ERROR(EPERM, lsetxattr(LINK_PATH, "user.link", "x", 1, 0), "links have no attributes of users");
	EXPECT_OK(lsetxattr(LINK_PATH, "trusted.link", "of the link", 11, 0), "lsetxattr");
	EXPECT(lgetxattr(LINK_PATH, "trusted.link", value, sizeof(value)) == 11 && memcmp(value, "of the link", 11) == 0, "lgetxattr");
	EXPECT_ERROR(ENODATA, getxattr(LINK_PATH, "trusted.link", value, sizeof(value)), "getxattr follows the link");
	length = llistxattr(LINK_PATH, names, sizeof(names));
	EXPECT(length == 13 && has(length, "trusted.link"), "llistxattr");
	length = listxattr(LINK_PATH, names, sizeof(names));
	EXPECT(length == 18 && has(length, "user.one"), "listxattr follows the link");
	EXPECT_ERROR(ENODATA, removexattr(LINK_PATH, "trusted.link"), "removexattr follows the link");
	EXPECT_OK(lremovexattr(LINK_PATH, "trusted.link"), "lremovexattr");
	EXPECT_VALUE(0, llistxattr(LINK_PATH, names, sizeof(names)), "after which there is none");
	unlink(LINK_PATH);
}

static void as_nobody(void)
{
	become_nobody();
	EXPECT_VALUE(5, getxattr(FILE_PATH, "user.one", value, sizeof(value)), "who can read the file reads its attributes");
	EXPECT_ERROR(EACCES, setxattr(FILE_PATH, "user.one", "x", 1, 0), "who cannot write it does not set them");
	EXPECT_ERROR(EACCES, removexattr(FILE_PATH, "user.one"), "nor remove them");
	EXPECT_ERROR(ENODATA, getxattr(FILE_PATH, "trusted.one", value, sizeof(value)), "trusted ones are not to be seen");
	EXPECT_VALUE(18, listxattr(FILE_PATH, names, sizeof(names)), "nor listed");
	EXPECT_ERROR(EPERM, setxattr(FILE_PATH, "trusted.one", "x", 1, 0), "nor set");
}

static void elsewhere(void)
{
	REQUIRE(mknod("/tmp/attributed", S_IFREG | 0644, 0) == 0, "a file in memory");
	EXPECT_ERROR(EOPNOTSUPP, setxattr("/tmp/attributed", "user.one", "x", 1, 0), "files in memory have no attributes");
	unlink("/tmp/attributed");
}

int main(void)
{
	checks_begin();
	umask(022);
	REQUIRE(mknod(FILE_PATH, S_IFREG | 0644, 0) == 0, "a file");
	of_a_file();
	of_an_open_file();
	of_a_link();
	EXPECT_OK(setxattr(FILE_PATH, "trusted.one", "x", 1, 0), "a trusted attribute");
	in_child(as_nobody, "a child of somebody else ends");
	EXPECT_VALUE(30, listxattr(FILE_PATH, names, sizeof(names)), "which the privileged see");
	elsewhere();
	unlink(FILE_PATH);
	return checks_end();
}
