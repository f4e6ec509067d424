// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Shows and changes what is in a file system.
 *
 *     tree list FOLDER         what is below it, on the same file system: type and mode, owner, links, time, path, target or contents
 *     tree write FILE TEXT     makes it, or writes it anew
 *     tree make FOLDER
 *     tree remove FILE
 *     tree rename FROM TO
 *     tree try-write FILE      writes a byte, or says why it cannot
 *     tree total-memory        in bytes
 *     tree hold FILE TEXT      writes it and says so, then waits for the end of standard input, and reads it
 *
 * Several follow each other with -- between.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static void show_text(const char *path)
{
	char text[64];
	FILE *file = fopen(path, "r");
	size_t n = file ? fread(text, 1, sizeof(text), file) : 0;

	printf(" \"%.*s\"", (int)n, text);
	if (file)
		fclose(file);
}

static int show(const char *path, const struct stat *status, int kind, struct FTW *place)
{
	char target[256];
	ssize_t n;

	(void)kind;
	(void)place;
	printf("%o %d:%d %d %lld %s", status->st_mode, status->st_uid, status->st_gid,
	       S_ISDIR(status->st_mode) ? 0 : (int)status->st_nlink, (long long)status->st_mtime, path);
	if (S_ISLNK(status->st_mode)) {
		n = readlink(path, target, sizeof(target));
		printf(" -> %.*s", (int)(n > 0 ? n : 0), target);
	} else if (S_ISCHR(status->st_mode) || S_ISBLK(status->st_mode)) {
		printf(" %d,%d", major(status->st_rdev), minor(status->st_rdev));
	} else if (S_ISREG(status->st_mode) && status->st_size < 64) {
		show_text(path);
	}
	printf("\n");
	return 0;
}

static int fail(const char *what, const char *path)
{
	fprintf(stderr, "tree: %s %s: %s\n", what, path, strerror(errno));
	return 1;
}

static int write_file(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");

	if (!file || fputs(text, file) < 0 || fflush(file) != 0 || fsync(fileno(file)) < 0 || fclose(file) != 0)
		return fail("write", path);
	return 0;
}

static int run(int argc, char **argv)
{
	FILE *file;

	if (argc == 2 && strcmp(argv[0], "list") == 0)
		return nftw(argv[1], show, 16, FTW_PHYS | FTW_MOUNT) == 0 ? 0 : fail("list", argv[1]);
	if (argc == 3 && strcmp(argv[0], "write") == 0)
		return write_file(argv[1], argv[2]);
	if (argc == 2 && strcmp(argv[0], "make") == 0)
		return mkdir(argv[1], 0755) == 0 ? 0 : fail("make", argv[1]);
	if (argc == 1 && strcmp(argv[0], "total-memory") == 0) {
		printf("%lld\n", (long long)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE));
		return 0;
	}
	if (argc == 2 && strcmp(argv[0], "remove") == 0)
		return remove(argv[1]) == 0 ? 0 : fail("remove", argv[1]);
	if (argc == 3 && strcmp(argv[0], "rename") == 0)
		return rename(argv[1], argv[2]) == 0 ? 0 : fail("rename", argv[1]);
	if (argc == 2 && strcmp(argv[0], "try-write") == 0) {
		file = fopen(argv[1], "r+");
		printf("%s: %s\n", argv[1],
		       file && fputc('x', file) != EOF && fflush(file) == 0 ? "was written" : strerror(errno));
		return 0;
	}
	if (argc == 3 && strcmp(argv[0], "hold") == 0) {
		if (write_file(argv[1], argv[2]))
			return 1;
		printf("written\n");
		fflush(stdout);
		while (getchar() != EOF)
			;
		show_text(argv[1]);
		printf("\n");
		return 0;
	}
	fprintf(stderr, "tree: nothing of this kind\n");
	return 2;
}

int main(int argc, char **argv)
{
	int begin = 1, status = 0;

	for (int i = 1; i <= argc && status == 0; i++)
		if (i == argc || strcmp(argv[i], "--") == 0) {
			status = run(i - begin, argv + begin);
			begin = i + 1;
		}
	return status;
}
