// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * The rest of what is done to files: modes and owners, times, ways to open and to find them, hints about what is read next, and handles.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <utime.h>

#include "calls.h"

#define PAGE 4096
#define PAGES 16
#define FOLDER "/var/files"

static char bytes[PAGES * PAGE];

static unsigned mode_of(const char *path)
{
	struct stat status;

	return lstat(path, &status) == 0 ? status.st_mode & 07777 : 0xffff;
}

static int is_owned(const char *path, uid_t user, gid_t group)
{
	struct stat status;

	return lstat(path, &status) == 0 && status.st_uid == user && status.st_gid == group;
}

static int make(const char *path, const char *text)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);

	return fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) ? close(fd) : -1;
}

static void modes(void)
{
	mode_t before = umask(0);

	EXPECT_VALUE(0, umask(027), "umask tells what was before");
	EXPECT(make("masked", "") == 0 && mode_of("masked") == 0640, "and takes rights away");
	EXPECT(mkdir("folder", 0777) == 0 && mode_of("folder") == 0750, "from folders too");
	EXPECT_VALUE(027, umask(07777), "umask again");
	EXPECT_VALUE(0777, umask(022), "has bits of rights only");
	unlink("masked");
	umask(before);

	EXPECT_OK(make("file", "text") | symlink("file", "link"), "a file and a link");
	EXPECT_OK(syscall(SYS_fchmodat2, AT_FDCWD, "link", 0600, 0), "fchmodat2 follows links");
	EXPECT_VALUE(0600, mode_of("file"), "to the file");
	EXPECT_ERROR(EOPNOTSUPP, syscall(SYS_fchmodat2, AT_FDCWD, "link", 0640, AT_SYMLINK_NOFOLLOW), "links have no modes");
	EXPECT_OK(syscall(SYS_fchmodat2, AT_FDCWD, "file", 0640, AT_SYMLINK_NOFOLLOW), "files have, also when links are not followed");
	EXPECT_VALUE(0640, mode_of("file"), "which it sets");
	EXPECT_ERROR(EINVAL, syscall(SYS_fchmodat2, AT_FDCWD, "file", 0640, AT_REMOVEDIR), "fchmodat2 with an unknown flag");
}

static void owners(void)
{
	int fd = open("file", O_PATH);

#ifdef SYS_lchown
	EXPECT_OK(syscall(SYS_lchown, "link", 5, 6), "lchown");
#else
	EXPECT_OK(lchown("link", 5, 6), "lchown");
#endif
	EXPECT(is_owned("link", 5, 6) && is_owned("file", 0, 0), "changes the link, not the file");
	EXPECT_OK(fchownat(AT_FDCWD, "link", 7, -1, 0), "fchownat");
	EXPECT(is_owned("link", 5, 6) && is_owned("file", 7, 0), "changes the file, and no group if there is none");
	EXPECT_OK(fchownat(AT_FDCWD, "link", -1, 8, AT_SYMLINK_NOFOLLOW), "fchownat of the link");
	EXPECT(is_owned("link", 5, 8) && is_owned("file", 7, 0), "changes the link");
	EXPECT_OK(fchownat(fd, "", 0, 0, AT_EMPTY_PATH), "fchownat of a descriptor");
	EXPECT(is_owned("file", 0, 0), "changes its file");
	EXPECT_ERROR(ENOENT, fchownat(fd, "", 0, 0, 0), "which has to be said");
	EXPECT_ERROR(EINVAL, fchownat(AT_FDCWD, "file", 0, 0, AT_REMOVEDIR), "fchownat with an unknown flag");
	close(fd);
}

static void as_another(void)
{
	/* The user for whom the program does something, and the one whose rights it has. */
	EXPECT_OK(syscall(SYS_setresuid, NOBODY, 0, 0), "another real user");
	EXPECT_ERROR(EACCES, syscall(SYS_faccessat2, AT_FDCWD, "file", R_OK, 0), "faccessat2 asks for the real user");
	EXPECT_OK(syscall(SYS_faccessat2, AT_FDCWD, "file", R_OK, AT_EACCESS), "or for the effective one");
	EXPECT_OK(syscall(SYS_setresuid, NOBODY, NOBODY, NOBODY), "no rights any more");
	EXPECT_ERROR(EACCES, syscall(SYS_faccessat2, AT_FDCWD, "file", R_OK, AT_EACCESS), "which then has none");
	EXPECT_ERROR(EPERM, fchownat(AT_FDCWD, "file", NOBODY, -1, 0), "nor may it take the file");
	EXPECT_ERROR(EPERM, lchown("link", NOBODY, -1), "nor the link");
	EXPECT_ERROR(EPERM, syscall(SYS_fchmodat2, AT_FDCWD, "file", 0666, 0), "nor change its mode");
}

static void access_to_files(void)
{
	EXPECT_OK(chmod("file", 0600), "a file of one user");
	in_child(as_another, "a child of another user ends");
	EXPECT_OK(symlink("nothing", "dangling"), "a link to nothing");
	EXPECT_ERROR(ENOENT, syscall(SYS_faccessat2, AT_FDCWD, "dangling", F_OK, 0), "faccessat2 follows links");
	EXPECT_OK(syscall(SYS_faccessat2, AT_FDCWD, "dangling", F_OK, AT_SYMLINK_NOFOLLOW), "or does not");
	EXPECT_ERROR(EINVAL, syscall(SYS_faccessat2, AT_FDCWD, "file", R_OK, 1 << 20), "faccessat2 with an unknown flag");
	EXPECT_ERROR(EINVAL, syscall(SYS_faccessat2, AT_FDCWD, "file", 8, 0), "and with an unknown right");
}

/* Calls that the C library makes newer ones of. */
static void older_calls(void)
{
#ifdef SYS_creat
	struct utimbuf seconds = { .actime = 1000, .modtime = 2000 };
	struct timeval times[2] = { { 3000, 250000 }, { 4000, 500000 } };
	struct stat status = { 0 };
	int fd = (int)syscall(SYS_creat, "created", 0604), folder = open("folder", O_DIRECTORY);

	EXPECT(fd >= 0 && write(fd, "hello", 5) == 5 && mode_of("created") == 0604, "creat");
	EXPECT_ERROR(EBADF, read(fd, bytes, 1), "is for writing");
	close(fd);
	close((int)syscall(SYS_creat, "created", 0600));
	EXPECT(stat("created", &status) == 0 && status.st_size == 0 && mode_of("created") == 0604, "and empties a file that is there");
	EXPECT_OK(syscall(SYS_renameat, AT_FDCWD, "created", folder, "moved"), "renameat");
	EXPECT(access("created", F_OK) != 0 && access("folder/moved", F_OK) == 0, "moves from one folder to another");
	EXPECT_ERROR(ENOENT, syscall(SYS_renameat, AT_FDCWD, "created", folder, "moved"), "what is there");
	EXPECT_ERROR(EBADF, syscall(SYS_renameat, folder, "moved", 9999, "moved"), "renameat to no folder");

	EXPECT_OK(syscall(SYS_utime, "file", &seconds), "utime");
	EXPECT(stat("file", &status) == 0 && status.st_atim.tv_sec == 1000 && status.st_mtim.tv_sec == 2000, "sets seconds");
	EXPECT_OK(syscall(SYS_utimes, "file", times), "utimes");
	EXPECT(stat("file", &status) == 0 && status.st_atim.tv_nsec == 250000000 && status.st_mtim.tv_nsec == 500000000,
	       "sets microseconds");
	times[1].tv_usec = 1000000;
	EXPECT_ERROR(EINVAL, syscall(SYS_utimes, "file", times), "of which a second has a million");
	times[1].tv_usec = 1;
	EXPECT_OK(syscall(SYS_futimesat, folder, "moved", times), "futimesat");
	EXPECT(stat("folder/moved", &status) == 0 && status.st_mtim.tv_sec == 4000 && status.st_mtim.tv_nsec == 1000, "in a folder");
	EXPECT_OK(syscall(SYS_futimesat, AT_FDCWD, "file", NULL), "futimesat without times");
	EXPECT(stat("file", &status) == 0 && status.st_mtim.tv_sec > 4000, "means now");
	EXPECT_ERROR(ENOENT, syscall(SYS_utime, "nothing", NULL), "utime of nothing");
	close(folder);
	unlink("folder/moved");
#endif
}

/* getdents of x86-64: the kind is in the last byte. */
static void listing(void)
{
#ifdef SYS_getdents
	struct entry {
		unsigned long number, offset;
		unsigned short length;
		char name[];
	} __attribute__((packed));
	int folder = open("folder", O_RDONLY), file = open("file", O_RDONLY), files = 0, folders = 0;
	long length;

	EXPECT_OK(make("folder/inside", ""), "a file in a folder");
	EXPECT_ERROR(EINVAL, syscall(SYS_getdents, folder, bytes, 8), "getdents with too little room");
	length = syscall(SYS_getdents, folder, bytes, sizeof(bytes));
	for (long at = 0; at < length;) {
		struct entry *entry = (void *)(bytes + at);
		char kind = bytes[at + entry->length - 1];

		files += strcmp(entry->name, "inside") == 0 && kind == 8 /* DT_REG */;
		folders += entry->name[0] == '.' && kind == 4 /* DT_DIR */;
		at += entry->length;
	}
	EXPECT(files == 1 && folders == 2, "getdents");
	EXPECT_VALUE(0, syscall(SYS_getdents, folder, bytes, sizeof(bytes)), "and its end");
	EXPECT_ERROR(ENOTDIR, syscall(SYS_getdents, file, bytes, sizeof(bytes)), "getdents of a file");
	close(folder);
	close(file);
	unlink("folder/inside");
#endif
}

static const uint64_t no_crossing = 1, no_magic_links = 2, no_links = 4, beneath = 8, in_root = 16;

static long open_how(int folder, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve, size_t size)
{
	struct {
		uint64_t flags, mode, resolve, more[2];
	} how = { flags, mode, resolve, { 0, size == sizeof(how) } };
	long fd = syscall(SYS_openat2, folder, path, &how, size);

	if (fd >= 0)
		close((int)fd);
	return fd < 0 ? fd : 0;
}

static void ways_to_open(void)
{
	int folder = open("folder", O_PATH), fd = open("file", O_RDONLY), root = open("/", O_PATH);
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	EXPECT_OK(make("folder/inside", "") | symlink("/inside", "folder/absolute") | symlink("inside", "folder/link") |
			  symlink("../file", "folder/out"),
		  "a folder with links");
	EXPECT_OK(open_how(folder, "../file", O_RDONLY, 0, 0, 24), "openat2");
	EXPECT_ERROR(ENOENT, open_how(folder, "absolute", O_RDONLY, 0, 0, 24), "follows a link to the root");
	EXPECT_OK(open_how(folder, "new", O_CREAT | O_WRONLY, 0604, 0, 24), "openat2 of a new file");
	EXPECT_VALUE(0604, mode_of("folder/new"), "with its mode");
	EXPECT_OK(open_how(folder, "link", O_RDONLY, 0, beneath, 24), "RESOLVE_BENEATH");
	EXPECT_ERROR(EXDEV, open_how(folder, "../file", O_RDONLY, 0, beneath, 24), "does not leave the folder");
	EXPECT_ERROR(EXDEV, open_how(folder, "out", O_RDONLY, 0, beneath, 24), "also not by a link");
	EXPECT_ERROR(EXDEV, open_how(folder, "/var", O_RDONLY, 0, beneath, 24), "nor from the root");
	EXPECT_OK(open_how(folder, "absolute", O_RDONLY, 0, in_root, 24), "RESOLVE_IN_ROOT makes the folder the root");
	EXPECT_OK(open_how(folder, "../../../inside", O_RDONLY, 0, in_root, 24), "above which nothing is");
	EXPECT_ERROR(ENOENT, open_how(folder, "out", O_RDONLY, 0, in_root, 24), "for links neither");
	EXPECT_ERROR(ELOOP, open_how(folder, "link", O_RDONLY, 0, no_links, 24), "RESOLVE_NO_SYMLINKS");
	EXPECT_OK(open_how(folder, "inside", O_RDONLY, 0, no_links, 24), "and without a link");
	EXPECT_OK(open_how(AT_FDCWD, path, O_RDONLY, 0, 0, 24), "a link of /proc");
	EXPECT_ERROR(ELOOP, open_how(AT_FDCWD, path, O_RDONLY, 0, no_magic_links, 24), "RESOLVE_NO_MAGICLINKS");
	EXPECT_ERROR(EXDEV, open_how(root, "proc/self/stat", O_RDONLY, 0, no_crossing, 24), "RESOLVE_NO_XDEV");
	EXPECT_OK(open_how(root, "var", O_RDONLY, 0, no_crossing, 24), "and within a file system");
	EXPECT_ERROR(EINVAL, open_how(folder, "inside", O_RDONLY, 0, 1 << 20, 24), "openat2 with an unknown restriction");
	EXPECT_ERROR(EINVAL, open_how(folder, "inside", 1UL << 40, 0, 0, 24), "with an unknown flag");
	EXPECT_ERROR(EINVAL, open_how(folder, "inside", O_RDONLY, 0600, 0, 24), "with a mode and no new file");
	EXPECT_ERROR(EINVAL, open_how(folder, "inside", O_RDONLY, 0, beneath | in_root, 24), "with what excludes each other");
	EXPECT_ERROR(EINVAL, open_how(folder, "inside", O_RDONLY, 0, 0, 16), "with a structure that is too short");
	EXPECT_OK(open_how(folder, "inside", O_RDONLY, 0, 0, 32), "with a longer one, in which nothing is");
	EXPECT_ERROR(E2BIG, open_how(folder, "inside", O_RDONLY, 0, 0, 40), "with one in which there is something");
	close(folder);
	close(fd);
	close(root);
}

static long vectors(long call, int fd, char *text, size_t length, off_t at, int flags)
{
	struct iovec vector[2] = { { text, length / 2 }, { text + length / 2, length - length / 2 } };

	return syscall(call, fd, vector, 2, at, 0, flags);
}

static void reads_and_writes(void)
{
	enum { high = 1, synchronous = 4, now = 8, append = 16 };
	int fd = open("file", O_RDWR | O_TRUNC), pipes[2];
	char text[16] = "";

	EXPECT_VALUE(7, vectors(SYS_pwritev2, fd, "vectors", 7, 0, synchronous), "pwritev2");
	EXPECT_VALUE(0, lseek(fd, 0, SEEK_CUR), "at a place does not move");
	EXPECT_VALUE(3, vectors(SYS_pwritev2, fd, "VEC", 3, -1, 0), "pwritev2 at no place");
	EXPECT_VALUE(3, lseek(fd, 0, SEEK_CUR), "does");
	EXPECT_VALUE(4, vectors(SYS_pwritev2, fd, " end", 4, 0, append), "RWF_APPEND");
	EXPECT(vectors(SYS_preadv2, fd, text, 15, 0, 0) == 11 && strcmp(text, "VECtors end") == 0, "is at the end, and preadv2 tells");
	EXPECT(vectors(SYS_preadv2, fd, text, 4, -1, 0) == 4 && memcmp(text, "tors", 4) == 0 && lseek(fd, 0, SEEK_CUR) == 7,
	       "preadv2 at no place moves too");
	EXPECT_VALUE(7, vectors(SYS_preadv2, fd, text, 7, 0, high | now), "RWF_NOWAIT of what is in memory");
	EXPECT_ERROR(EOPNOTSUPP, vectors(SYS_preadv2, fd, text, 7, 0, 1 << 20), "preadv2 with an unknown flag");
	EXPECT_ERROR(EINVAL, vectors(SYS_preadv2, fd, text, 7, -2, 0), "and at an impossible place");
	REQUIRE(pipe(pipes) == 0, "pipe");
	EXPECT_ERROR(EAGAIN, vectors(SYS_preadv2, pipes[0], text, 7, -1, now), "RWF_NOWAIT of an empty pipe");
	EXPECT_ERROR(ESPIPE, vectors(SYS_preadv2, pipes[0], text, 7, 0, 0), "which has no places");
	close(pipes[0]);
	close(pipes[1]);
	close(fd);
}

/* How many pages of the beginning of a file are in memory, or are there and not on the disk. */
static long cached(int fd, int dirty)
{
	struct {
		uint64_t offset, length;
	} range = { 0, PAGES * PAGE };
	struct {
		uint64_t cached, dirty, writeback, evicted, lately;
	} found = { 0 };

	if (syscall(SYS_cachestat, fd, &range, &found, 0) != 0)
		return -1;
	return (long)(dirty ? found.dirty : found.cached);
}

static void memory_of_files(void)
{
	int fd = open("cached", O_RDWR | O_CREAT | O_TRUNC, 0600), writing = open("cached", O_WRONLY), pipes[2];
	uint64_t range[2] = { 0, PAGE }, found[5];

	REQUIRE(pipe(pipes) == 0 && write(fd, bytes, sizeof(bytes)) == sizeof(bytes), "a file of 16 pages");
	EXPECT_VALUE(PAGES, cached(fd, 0), "cachestat: what is written is in memory");
	EXPECT_VALUE(PAGES, cached(fd, 1), "and not on the disk");
	EXPECT_OK(sync_file_range(fd, 0, PAGE, SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER),
		  "sync_file_range of a page");
	EXPECT_VALUE(PAGES - 1, cached(fd, 1), "writes the page");
	EXPECT_OK(sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER), "sync_file_range to the end");
	EXPECT_VALUE(0, cached(fd, 1), "writes all");
	EXPECT_ERROR(EINVAL, sync_file_range(fd, 0, 0, 8), "sync_file_range with an unknown flag");
	EXPECT_ERROR(ESPIPE, sync_file_range(pipes[0], 0, 0, SYNC_FILE_RANGE_WRITE), "and of a pipe");
	EXPECT_OK(syscall(SYS_fadvise64, fd, 0, 4 * PAGE, POSIX_FADV_DONTNEED), "fadvise64: four pages are not needed");
	EXPECT_VALUE(PAGES - 4, cached(fd, 0), "and leave the memory");
	EXPECT_OK(syscall(SYS_fadvise64, fd, 0, 0, POSIX_FADV_DONTNEED), "nor are the others");
	EXPECT_VALUE(0, cached(fd, 0), "which leave it too");
	EXPECT_OK(syscall(SYS_fadvise64, fd, 0, 4 * PAGE, POSIX_FADV_WILLNEED), "fadvise64: four pages will be needed");
	EXPECT(cached(fd, 0) >= 4, "and are fetched");
	EXPECT_ERROR(EINVAL, syscall(SYS_fadvise64, fd, 0, 0, 99), "fadvise64 with unknown advice");
	EXPECT_ERROR(ESPIPE, syscall(SYS_fadvise64, pipes[0], 0, 0, POSIX_FADV_NORMAL), "and of a pipe");
	EXPECT_OK(syscall(SYS_fadvise64, fd, 0, 0, POSIX_FADV_DONTNEED), "all leave the memory again");
	EXPECT_OK(readahead(fd, 0, sizeof(bytes)), "readahead");
	EXPECT_VALUE(PAGES, cached(fd, 0), "fetches them");
	EXPECT_ERROR(EBADF, readahead(writing, 0, PAGE), "readahead of what is not for reading");
	EXPECT_ERROR(EINVAL, readahead(pipes[0], 0, PAGE), "and of a pipe");
	EXPECT_ERROR(EINVAL, syscall(SYS_cachestat, fd, range, found, 1), "cachestat with an unknown flag");
	EXPECT_ERROR(EBADF, syscall(SYS_cachestat, 9999, range, found, 0), "and of nothing");
	close(fd);
	close(writing);
	close(pipes[0]);
	close(pipes[1]);
}

static void file_systems(void)
{
	int disk = open("file", O_PATH), process = open("/proc/self/stat", O_RDONLY);
	struct statfs known = { 0 };
	struct stat status = { 0 };

	EXPECT(fstatfs(disk, &known) == 0 && known.f_type == 0xef53 && known.f_bsize == PAGE && known.f_blocks > 0, "fstatfs of the disk");
	EXPECT(fstatfs(process, &known) == 0 && known.f_type == 0x9fa0, "and of /proc");
	EXPECT(fstat(disk, &status) == 0 && S_ISREG(status.st_mode), "fstat");
	close(process);
	EXPECT_ERROR(EBADF, fstatfs(process, &known), "fstatfs of a closed file");
	close(disk);
#ifdef SYS_ustat
	{
		struct {
			int blocks;
			unsigned long inodes;
			char name[6], pack[6];
		} free = { 0 };

		EXPECT_OK(syscall(SYS_ustat, status.st_dev, &free), "ustat");
		EXPECT(free.blocks > 0 && free.inodes > 0, "tells what is free");
		EXPECT_ERROR(EINVAL, syscall(SYS_ustat, makedev(200, 200), &free), "and nothing of a device that is not there");
	}
#endif
#ifdef SYS_sysfs
	{
		char name[64] = "";
		long number = syscall(SYS_sysfs, 1, "ext4");

		EXPECT(number >= 0 && number < syscall(SYS_sysfs, 3), "sysfs knows ext4");
		EXPECT(syscall(SYS_sysfs, 2, number, name) == 0 && strcmp(name, "ext4") == 0, "by its number");
		EXPECT_ERROR(EINVAL, syscall(SYS_sysfs, 1, "nothing"), "and not what there is not");
		EXPECT_ERROR(EINVAL, syscall(SYS_sysfs, 4), "sysfs of an unknown kind");
	}
#endif
}

static union {
	struct file_handle head;
	char room[sizeof(struct file_handle) + 128];
} handle;
static int mounted;

static void opening_as_nobody(void)
{
	become_nobody();
	EXPECT_ERROR(EPERM, open_by_handle_at(mounted, &handle.head, O_RDONLY), "open_by_handle_at is for the privileged");
}

static void handles(void)
{
	struct stat one = { 0 }, other = { 0 };
	int mount = -1, fd;

	REQUIRE((mounted = open("/", O_RDONLY)) >= 0 && make("handled", "by its handle") == 0, "a file");
	EXPECT_ERROR(EOVERFLOW, name_to_handle_at(AT_FDCWD, "handled", &handle.head, &mount, 0), "name_to_handle_at without room");
	EXPECT(handle.head.handle_bytes > 0 && handle.head.handle_bytes <= 128, "tells how much it takes");
	EXPECT_OK(name_to_handle_at(AT_FDCWD, "handled", &handle.head, &mount, 0), "name_to_handle_at");
	EXPECT_OK(rename("handled", "elsewhere"), "the file gets another name");
	fd = open_by_handle_at(mounted, &handle.head, O_RDONLY);
	EXPECT(fd >= 0 && read(fd, bytes, sizeof(bytes)) == 13 && memcmp(bytes, "by its handle", 13) == 0, "open_by_handle_at");
	EXPECT(fstat(fd, &one) == 0 && stat("elsewhere", &other) == 0 && one.st_ino == other.st_ino, "is the same file");
	close(fd);
	in_child(opening_as_nobody, "a child without rights ends");
	EXPECT_OK(unlink("elsewhere"), "unlink");
	EXPECT_ERROR(ESTALE, open_by_handle_at(mounted, &handle.head, O_RDONLY), "then there is nothing to open");
	handle.head.handle_bytes = 0;
	EXPECT_ERROR(EINVAL, open_by_handle_at(mounted, &handle.head, O_RDONLY), "open_by_handle_at of an empty handle");
	EXPECT_ERROR(ENOENT, name_to_handle_at(AT_FDCWD, "elsewhere", &handle.head, &mount, 0), "name_to_handle_at of nothing");
	EXPECT_ERROR(EINVAL, name_to_handle_at(AT_FDCWD, "file", &handle.head, &mount, 1 << 20), "and with an unknown flag");
	close(mounted);
}

int main(void)
{
	checks_begin();
	REQUIRE(mkdir(FOLDER, 0755) == 0 && chdir(FOLDER) == 0, FOLDER);
	modes();
	owners();
	access_to_files();
	older_calls();
	listing();
	ways_to_open();
	reads_and_writes();
	memory_of_files();
	file_systems();
	handles();
	return checks_end();
}
