// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Users, groups and capabilities of a thread: which of them each call changes, what goes along with it, and what somebody without rights may
 * not. Every part is a child, as what is given up is gone; the calls are made without the C library, which would have all threads follow.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/stat.h>

#include "calls.h"

#define FILE_PATH "/tmp/of-one-user"
#define KEEP ((unsigned)-1)

/* Numbers of capabilities, and their version. */
enum { cap_chown = 0, cap_dac_override = 1, cap_kill = 5, cap_setuid = 7, cap_net_raw = 13, cap_sys_admin = 21, version_3 = 0x20080522 };

struct capabilities {
	struct {
		uint32_t effective, permitted, inheritable;
	} half[2];
};

static int users_are(unsigned real, unsigned effective, unsigned saved)
{
	unsigned is[3] = { 99, 99, 99 };

	return syscall(SYS_getresuid, &is[0], &is[1], &is[2]) == 0 && is[0] == real && is[1] == effective && is[2] == saved;
}

static int groups_are(unsigned real, unsigned effective, unsigned saved)
{
	unsigned is[3] = { 99, 99, 99 };

	return syscall(SYS_getresgid, &is[0], &is[1], &is[2]) == 0 && is[0] == real && is[1] == effective && is[2] == saved;
}

/* With whose rights files are used: setfsuid tells, also where it cannot set. */
static unsigned file_user(void)
{
	return (unsigned)syscall(SYS_setfsuid, -1);
}

static long get(struct capabilities *all)
{
	uint32_t head[2] = { version_3, 0 };

	memset(all, 0, sizeof(*all));
	return syscall(SYS_capget, head, all);
}

static long set(const struct capabilities *all)
{
	uint32_t head[2] = { version_3, 0 };

	return syscall(SYS_capset, head, all);
}

static int can(int capability)
{
	struct capabilities all;

	return get(&all) == 0 && all.half[capability / 32].effective >> (capability % 32) & 1;
}

static void both_users(void)
{
	EXPECT(users_are(0, 0, 0), "getresuid");
	EXPECT_OK(syscall(SYS_setreuid, 1, 2), "setreuid");
	EXPECT(users_are(1, 2, 2), "sets the saved user too");
	EXPECT_VALUE(2, file_user(), "and that of files");
	EXPECT(!can(cap_chown), "and takes the capabilities away");
	EXPECT_OK(syscall(SYS_setreuid, 2, 1), "the two change places");
	EXPECT(users_are(2, 1, 1), "and the saved one goes along");
	EXPECT_OK(syscall(SYS_setreuid, KEEP, 2), "the real user is taken for the effective one");
	EXPECT(users_are(2, 2, 1), "which leaves the saved one");
	EXPECT_OK(syscall(SYS_setreuid, 2, 2), "but not if the real one is set");
	EXPECT(users_are(2, 2, 2), "after which there is one user");
	EXPECT_ERROR(EPERM, syscall(SYS_setreuid, KEEP, 1), "setreuid to somebody else");
	EXPECT_ERROR(EPERM, syscall(SYS_setreuid, 0, KEEP), "or to root");
	EXPECT_ERROR(EPERM, syscall(SYS_setregid, 7, 7), "nor are there rights to change the group");
	EXPECT_OK(syscall(SYS_setreuid, KEEP, KEEP), "setreuid to nobody changes nothing");
	EXPECT_ERROR(EFAULT, syscall(SYS_getresuid, 16, 16, 16), "getresuid to a bad pointer");
}

static void effective_only(void)
{
	EXPECT_OK(syscall(SYS_setreuid, KEEP, 3), "setreuid of the effective user");
	EXPECT(users_are(0, 3, 3), "leaves the real one, and saves the new one");
	EXPECT(!can(cap_setuid), "which has no capabilities");
	EXPECT_OK(syscall(SYS_setreuid, KEEP, 0), "setreuid back to the real user");
	EXPECT(users_are(0, 0, 3) && can(cap_setuid), "with all capabilities");
}

static void both_groups(void)
{
	EXPECT(groups_are(0, 0, 0), "getresgid");
	EXPECT_OK(syscall(SYS_setregid, 4, 5), "setregid");
	EXPECT(groups_are(4, 5, 5), "sets the saved group too");
	EXPECT_VALUE(5, syscall(SYS_setfsgid, -1), "and that of files");
	EXPECT(can(cap_chown), "and leaves the capabilities");
	EXPECT_OK(syscall(SYS_setregid, 6, KEEP), "setregid of the real group");
	EXPECT(groups_are(6, 5, 5), "sets it: there are the rights for any");
	EXPECT_ERROR(EFAULT, syscall(SYS_getresgid, 16, 16, 16), "getresgid to a bad pointer");
}

static void users_of_files(void)
{
	struct stat status = { 0 };
	int fd;

	EXPECT_VALUE(0, syscall(SYS_setfsgid, 8), "setfsgid tells the group before");
	EXPECT_VALUE(0, syscall(SYS_setfsuid, NOBODY), "setfsuid tells the user before");
	EXPECT_VALUE(NOBODY, file_user(), "and sets it");
	EXPECT(users_are(0, 0, 0), "and no other");
	EXPECT(!can(cap_dac_override) && can(cap_kill), "capabilities for files go, others stay");
	EXPECT_ERROR(EACCES, open(FILE_PATH, O_RDONLY), "so files of others are not opened");
	fd = open("/tmp/mine", O_CREAT | O_EXCL | O_WRONLY, 0600);
	EXPECT(fd >= 0 && fstat(fd, &status) == 0 && status.st_uid == NOBODY && status.st_gid == 8, "and new ones are of this user and group");
	close(fd);
	unlink("/tmp/mine");
	EXPECT_VALUE(NOBODY, syscall(SYS_setfsuid, 0), "setfsuid back");
	EXPECT(can(cap_dac_override), "with the capabilities for files");
	fd = open(FILE_PATH, O_RDONLY);
	EXPECT(fd >= 0, "and so they are opened");
	close(fd);
	become_nobody();
	EXPECT_VALUE(NOBODY, syscall(SYS_setfsuid, 0), "without rights setfsuid");
	EXPECT_VALUE(NOBODY, file_user(), "sets nothing");
	EXPECT_VALUE(NOBODY, syscall(SYS_setfsgid, 0), "nor does setfsgid");
	EXPECT_VALUE(NOBODY, syscall(SYS_setfsgid, -1), "set anything");
}

static void capabilities(void)
{
	uint32_t head[2] = { 1, 0 };
	struct capabilities all, before, less;

	EXPECT_OK(get(&before), "capget");
	EXPECT(before.half[0].effective == 0xffffffff && before.half[0].permitted == 0xffffffff && before.half[1].effective != 0,
	       "root has all");
	EXPECT_ERROR(EINVAL, syscall(SYS_capget, head, &all), "capget of an unknown version");
	EXPECT(head[0] == version_3, "tells the known one");
	EXPECT_OK(syscall(SYS_capget, (head[0] = 1, head), NULL), "which is how one asks for it");
	head[1] = 0x7ffffff;
	EXPECT_ERROR(ESRCH, syscall(SYS_capget, head, &all), "capget of no process");
	head[1] = 1;
	EXPECT(syscall(SYS_capget, head, &all) == 0 && all.half[0].permitted == 0xffffffff, "capget of process 1");
	EXPECT_ERROR(EPERM, syscall(SYS_capset, head, &all), "capset is for oneself");

	less = before;
	less.half[0].effective &= ~(1U << cap_dac_override | 1U << cap_chown);
	less.half[0].inheritable = 1U << cap_net_raw;
	EXPECT_OK(set(&less), "capset of less");
	EXPECT(get(&all) == 0 && memcmp(&all, &less, sizeof(all)) == 0, "is what capget tells");
	EXPECT_ERROR(EPERM, chown(FILE_PATH, 9, 9), "after which chown is not allowed");
	EXPECT_OK(set(&before), "what is permitted can be taken back");
	EXPECT_OK(chown(FILE_PATH, 9, 9), "and chown is");
	EXPECT_OK(chown(FILE_PATH, 0, 0), "and back");
	less.half[0].permitted &= ~(1U << cap_chown);
	EXPECT_OK(set(&less), "capset of less that is permitted");
	EXPECT_ERROR(EPERM, set(&before), "which is for good");
	less.half[0].effective |= 1U << cap_chown;
	EXPECT_ERROR(EPERM, set(&less), "and nothing is effective that is not permitted");
	EXPECT_OK(syscall(SYS_setreuid, 1, 1), "another user");
	EXPECT(get(&all) == 0 && all.half[0].permitted == 0 && all.half[0].effective == 0 && all.half[0].inheritable == 1U << cap_net_raw,
	       "has none but what is to be inherited");
	EXPECT_ERROR(EPERM, syscall(SYS_sethostname, "x", 1), "and may not name the machine");
}

int main(void)
{
	int fd;

	checks_begin();
	REQUIRE((fd = open(FILE_PATH, O_CREAT | O_WRONLY, 0600)) >= 0, FILE_PATH);
	close(fd);
	in_child(both_users, "a child with other users ends");
	in_child(effective_only, "a child with another effective user ends");
	in_child(both_groups, "a child with other groups ends");
	in_child(users_of_files, "a child with another user of files ends");
	in_child(capabilities, "a child with less capabilities ends");
	EXPECT(users_are(0, 0, 0) && groups_are(0, 0, 0) && can(cap_sys_admin), "and the parent is who it was");
	unlink(FILE_PATH);
	return checks_end();
}
