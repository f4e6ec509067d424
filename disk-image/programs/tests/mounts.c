// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Mounts, one step at a time: a file system that is configured, mounted, copied, moved, restricted, described and taken away, another root, and
 * the name space of another process. It is done in a name space of the program's own.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <stddef.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "calls.h"

/* Of the interface of mounts; the C library has none of it. */
enum {
	set_flag = 0, set_string = 1, create = 6, reconfigure = 7,
	clone_tree = 1, move_from_empty_path = 4,
	attribute_read_only = 1, attribute_no_suid = 2,
	recursive = 0x8000,
	mask_superblock = 1, mask_mount = 2, mask_point = 16, mask_type = 32,
};
static const uint64_t root_of_the_name_space = ~0UL;

struct attributes {
	uint64_t set, clear, propagation, user_space;
};

struct request {
	uint32_t size, spare;
	uint64_t mount, parameter;
};

/* What statmount tells, with room for the strings that follow. */
struct description {
	uint32_t size, options;
	uint64_t mask;
	uint32_t major, minor;
	uint64_t magic;
	uint32_t flags, type;
	uint64_t mount, parent;
	uint32_t old_mount, old_parent;
	uint64_t attributes, propagation, group, master, from;
	uint32_t root, point;
	uint64_t spare[50];
	char strings[512];
};

static int is_there(const char *path)
{
	return access(path, F_OK) == 0;
}

static int touch(const char *path)
{
	int fd = open(path, O_CREAT | O_WRONLY, 0600);

	return fd < 0 ? -1 : close(fd);
}

/* A file system in memory that is mounted nowhere yet. */
static int in_memory(const char *mode)
{
	int context = (int)syscall(SYS_fsopen, "tmpfs", 0), mount;

	if (syscall(SYS_fsconfig, context, set_string, "mode", mode, 0) != 0 || syscall(SYS_fsconfig, context, create, NULL, NULL, 0) != 0)
		return -1;
	mount = (int)syscall(SYS_fsmount, context, 0, 0);
	close(context);
	return mount;
}

static uint64_t identity(const char *path)
{
	struct {
		uint32_t mask, size;
		uint64_t words[31];
	} status = { 0 };

	/* STATX_MNT_ID_UNIQUE */
	if (syscall(SYS_statx, AT_FDCWD, path, 0, 0x4000, &status) != 0 || !(status.mask & 0x4000))
		return 0;
	return status.words[17];
}

static void configuring(void)
{
	struct stat status = { 0 };
	int context = (int)syscall(SYS_fsopen, "tmpfs", 0), mount;

	EXPECT(context >= 0, "fsopen");
	EXPECT_ERROR(ENODEV, syscall(SYS_fsopen, "nothing", 0), "fsopen of what there is not");
	EXPECT_ERROR(EINVAL, syscall(SYS_fsopen, "tmpfs", 0x80), "fsopen with an unknown flag");
	EXPECT_ERROR(EINVAL, syscall(SYS_fsmount, context, 0, 0), "fsmount before it is made");
	EXPECT_OK(syscall(SYS_fsconfig, context, set_string, "mode", "0751", 0), "fsconfig of a parameter");
	EXPECT_ERROR(EOPNOTSUPP, syscall(SYS_fsconfig, context, 99, NULL, NULL, 0), "fsconfig of an unknown kind");
	EXPECT_ERROR(EINVAL, syscall(SYS_fsconfig, context, set_string, NULL, "x", 0), "fsconfig without a name");
	EXPECT_OK(syscall(SYS_fsconfig, context, create, NULL, NULL, 0), "fsconfig makes it");
	EXPECT_ERROR(EBUSY, syscall(SYS_fsconfig, context, create, NULL, NULL, 0), "once");
	mount = (int)syscall(SYS_fsmount, context, 0, attribute_no_suid);
	EXPECT(mount >= 0 && fstat(mount, &status) == 0 && (status.st_mode & 07777) == 0751, "fsmount, with what was configured");
	EXPECT(!is_there("/tmp/point/file") && touch("/tmp/point/below") == 0, "it is nowhere yet");
	EXPECT_OK(syscall(SYS_move_mount, mount, "", AT_FDCWD, "/tmp/point", move_from_empty_path), "move_mount puts it into the tree");
	EXPECT(!is_there("/tmp/point/below") && touch("/tmp/point/file") == 0, "where it is seen");
	EXPECT_ERROR(EINVAL, syscall(SYS_move_mount, AT_FDCWD, "/tmp", AT_FDCWD, "/tmp/other", 1 << 20), "move_mount with an unknown flag");
	EXPECT_ERROR(EINVAL, syscall(SYS_move_mount, AT_FDCWD, "/tmp/point", AT_FDCWD, "/tmp/file", 0), "and of a folder to a file");
	close(mount);
	close(context);
}

static void moving(void)
{
	int tree, copy;

	EXPECT_OK(syscall(SYS_move_mount, AT_FDCWD, "/tmp/point", AT_FDCWD, "/tmp/other", 0), "move_mount of what is mounted");
	EXPECT(is_there("/tmp/point/below") && is_there("/tmp/other/file"), "moves it");
	EXPECT_ERROR(EINVAL, syscall(SYS_move_mount, AT_FDCWD, "/tmp/point", AT_FDCWD, "/tmp/other", 0), "what is not mounted is not moved");
	copy = (int)syscall(SYS_open_tree, AT_FDCWD, "/tmp/other", clone_tree | O_CLOEXEC);
	EXPECT(copy >= 0, "open_tree makes a copy of a mount");
	EXPECT_OK(syscall(SYS_move_mount, copy, "", AT_FDCWD, "/tmp/point", move_from_empty_path), "which can be mounted");
	EXPECT(touch("/tmp/point/both") == 0 && is_there("/tmp/other/both"), "and shows the same files");
	tree = (int)syscall(SYS_open_tree, AT_FDCWD, "/tmp/point", 0);
	EXPECT(tree >= 0 && faccessat(tree, "both", F_OK, 0) == 0, "open_tree without a copy");
	EXPECT_ERROR(EBADF, syscall(SYS_fsync, tree), "opens a place alone");
	EXPECT_ERROR(EINVAL, syscall(SYS_open_tree, AT_FDCWD, "/tmp/point", recursive), "a tree of what is no copy");
	close(tree);
	close(copy);
}

static void restricting(void)
{
	struct attributes all = { .set = attribute_read_only }, none = { .clear = attribute_read_only };
	struct attributes wrong = { .set = 1 << 30 };
	int context;

	EXPECT_OK(syscall(SYS_mount_setattr, AT_FDCWD, "/tmp/point", 0, &all, sizeof(all)), "mount_setattr");
	EXPECT_ERROR(EROFS, touch("/tmp/point/new"), "makes a mount read-only");
	EXPECT_OK(touch("/tmp/other/new"), "and no other of the same file system");
	EXPECT_OK(syscall(SYS_mount_setattr, AT_FDCWD, "/tmp/point", recursive, &none, sizeof(none)), "mount_setattr back");
	EXPECT_OK(touch("/tmp/point/new"), "after which it can be written to");
	EXPECT_ERROR(EINVAL, syscall(SYS_mount_setattr, AT_FDCWD, "/tmp/point", 0, &wrong, sizeof(wrong)), "an unknown attribute");
	EXPECT_ERROR(EINVAL, syscall(SYS_mount_setattr, AT_FDCWD, "/tmp/point", 0, &all, 8), "a structure that is too short");
	EXPECT_ERROR(EINVAL, syscall(SYS_mount_setattr, AT_FDCWD, "/tmp/point/file", 0, &all, sizeof(all)), "and a place where nothing is mounted");

	context = (int)syscall(SYS_fspick, AT_FDCWD, "/tmp/other", 0);
	EXPECT(context >= 0, "fspick");
	EXPECT_OK(syscall(SYS_fsconfig, context, set_flag, "ro", NULL, 0), "a parameter of what is mounted");
	EXPECT_OK(syscall(SYS_fsconfig, context, reconfigure, NULL, NULL, 0), "is changed");
	EXPECT_ERROR(EROFS, touch("/tmp/point/newer"), "for all its mounts");
	close(context);
	EXPECT_ERROR(EINVAL, syscall(SYS_fspick, AT_FDCWD, "/tmp/other/file", 0), "fspick of a file");
	context = (int)syscall(SYS_fspick, AT_FDCWD, "/tmp/point", 0);
	EXPECT_OK(syscall(SYS_fsconfig, context, set_flag, "rw", NULL, 0) | syscall(SYS_fsconfig, context, reconfigure, NULL, NULL, 0),
		  "and changed back");
	EXPECT_OK(touch("/tmp/other/newer"), "so that there are new files");
	close(context);
}

static void describing(void)
{
	static struct description about;
	uint64_t point = identity("/tmp/point"), other = identity("/tmp/other"), parent = identity("/tmp"), list[64];
	struct request one = { sizeof(one), 0, point, mask_superblock | mask_mount | mask_point | mask_type };
	struct request all = { sizeof(all), 0, root_of_the_name_space, 0 };
	long number, found = 0;

	REQUIRE(point && other && parent && point != other, "mounts have numbers");
	EXPECT_OK(syscall(SYS_statmount, &one, &about, sizeof(about), 0), "statmount");
	EXPECT((about.mask & one.parameter) == one.parameter && about.mount == point && about.parent == parent, "tells which it is, and on which");
	EXPECT(strcmp(about.strings + about.type, "tmpfs") == 0 && strcmp(about.strings + about.point, "/tmp/point") == 0,
	       "what it is, and where");
	EXPECT_ERROR(EOVERFLOW, syscall(SYS_statmount, &one, &about, offsetof(struct description, strings) + 4, 0),
		     "statmount with too little room");
	one.mount = 1UL << 60;
	EXPECT_ERROR(ENOENT, syscall(SYS_statmount, &one, &about, sizeof(about), 0), "statmount of nothing");
	one.size = 8;
	EXPECT_ERROR(EINVAL, syscall(SYS_statmount, &one, &about, sizeof(about), 0), "and of too short a request");
	number = syscall(SYS_listmount, &all, list, 64, 0);
	for (long i = 0; i < number; i++)
		found += list[i] == point || list[i] == other || list[i] == parent;
	EXPECT_VALUE(3, found, "listmount");
	all.mount = parent;
	number = syscall(SYS_listmount, &all, list, 64, 0);
	EXPECT(number == 2 && ((list[0] == point && list[1] == other) || (list[0] == other && list[1] == point)), "listmount of what is on a mount");
	EXPECT_VALUE(1, syscall(SYS_listmount, &all, list, 1, 0), "listmount with room for one");
	all.parameter = list[0];
	EXPECT(syscall(SYS_listmount, &all, list + 1, 8, 0) == 1 && list[1] != list[0], "and for the rest");
	all.mount = 1UL << 60;
	EXPECT_ERROR(ENOENT, syscall(SYS_listmount, &all, list, 64, 0), "listmount of nothing");
}

static void taking_away(void)
{
	int fd = open("/tmp/point/file", O_RDONLY);

	EXPECT_ERROR(EBUSY, umount2("/tmp/point", 0), "umount2 of what is in use");
	EXPECT_ERROR(EINVAL, umount2("/tmp/point/file", 0), "and of no mount");
	EXPECT_ERROR(EINVAL, umount2("/tmp/point", 1 << 20), "and with an unknown flag");
	EXPECT_OK(umount2("/tmp/point", MNT_DETACH), "MNT_DETACH takes it out of the tree");
	EXPECT(is_there("/tmp/point/below") && !is_there("/tmp/point/file"), "where it is not seen");
	EXPECT_OK(fsync(fd), "though it is there as long as it is used");
	close(fd);
	EXPECT_ERROR(EAGAIN, umount2("/tmp/other", MNT_EXPIRE), "MNT_EXPIRE marks at first");
	EXPECT_OK(umount2("/tmp/other", MNT_EXPIRE), "and takes what was not used since");
	EXPECT_ERROR(EINVAL, umount2("/tmp/other", UMOUNT_NOFOLLOW), "after which it is not there");
}

static void another_root(void)
{
	int mount = in_memory("0755");

	REQUIRE(unshare(CLONE_NEWNS) == 0, "unshare");
	EXPECT_OK(syscall(SYS_move_mount, mount, "", AT_FDCWD, "/tmp/point", move_from_empty_path), "a mount for a root");
	close(mount);
	EXPECT_ERROR(EINVAL, syscall(SYS_pivot_root, "/tmp/other", "/tmp/other"), "pivot_root to what is no mount");
	EXPECT_OK(mkdir("/tmp/point/before", 0755) | touch("/tmp/point/here"), "with a folder for the root before");
	EXPECT_ERROR(EINVAL, syscall(SYS_pivot_root, "/tmp/point", "/tmp/other"), "which has to be below it");
	if (syscall(SYS_pivot_root, "/tmp/point", "/tmp/point/before") != 0) {
		check(0, "pivot_root", "%s", strerror(errno));
		return;
	}
	reached("pivot_root");
	EXPECT(is_there("/here") && !is_there("/ld.so") && is_there("/before/ld.so"), "changes the root");
	EXPECT_OK(umount2("/before", MNT_DETACH), "and the one before can be taken away");
	EXPECT(!is_there("/before/ld.so"), "after which nothing of it is seen");
}

static void name_spaces(void)
{
	int ours = open("/proc/self/ns/mnt", O_RDONLY), theirs, file = open("/", O_RDONLY);

	REQUIRE(ours >= 0 && unshare(CLONE_NEWNS) == 0, "another name space");
	theirs = open("/proc/self/ns/mnt", O_RDONLY);
	EXPECT_OK(mount("none", "/tmp/other", "tmpfs", 0, NULL) | touch("/tmp/other/inside"), "with a mount");
	EXPECT_OK(setns(ours, CLONE_NEWNS), "setns to the one before");
	EXPECT(!is_there("/tmp/other/inside"), "where the mount is not");
	EXPECT_OK(setns(theirs, 0), "setns to whatever it is");
	EXPECT(is_there("/tmp/other/inside"), "where it is");
	EXPECT_ERROR(EINVAL, setns(ours, CLONE_NEWUTS), "setns to a name space of another kind");
	EXPECT_ERROR(EINVAL, setns(file, CLONE_NEWNS), "and to what is none");
	EXPECT_ERROR(EBADF, setns(9999, CLONE_NEWNS), "and to nothing");
	close(theirs);
	close(ours);
	close(file);
}

static void as_nobody(void)
{
	struct attributes less = { .set = attribute_no_suid };
	int ours = open("/proc/self/ns/mnt", O_RDONLY);

	become_nobody();
	EXPECT_ERROR(EPERM, umount2("/tmp/other", 0), "umount2 is for the privileged");
	EXPECT_ERROR(EPERM, syscall(SYS_fsopen, "tmpfs", 0), "so is fsopen");
	EXPECT_ERROR(EPERM, syscall(SYS_fspick, AT_FDCWD, "/tmp", 0), "fspick");
	EXPECT_ERROR(EPERM, syscall(SYS_open_tree, AT_FDCWD, "/tmp", clone_tree), "open_tree of a copy");
	EXPECT_ERROR(EPERM, syscall(SYS_move_mount, AT_FDCWD, "/tmp", AT_FDCWD, "/var", 0), "move_mount");
	EXPECT_ERROR(EPERM, syscall(SYS_mount_setattr, AT_FDCWD, "/tmp", 0, &less, sizeof(less)), "mount_setattr");
	EXPECT_ERROR(EPERM, syscall(SYS_pivot_root, "/tmp", "/tmp"), "pivot_root");
	EXPECT_ERROR(EPERM, setns(ours, CLONE_NEWNS), "and setns");
	close(ours);
}

int main(void)
{
	checks_begin();
	REQUIRE(unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0, "mounts of one's own");
	REQUIRE(mkdir("/tmp/point", 0755) == 0 && mkdir("/tmp/other", 0755) == 0 && touch("/tmp/file") == 0, "places to mount at");
	configuring();
	moving();
	restricting();
	describing();
	taking_away();
	in_child(another_root, "a child with another root ends");
	EXPECT(is_there("/ld.so"), "which is the child's alone");
	in_child(name_spaces, "a child with two name spaces ends");
	in_child(as_nobody, "a child without rights ends");
	return checks_end();
}
