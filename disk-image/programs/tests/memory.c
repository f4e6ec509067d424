// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Takes memory until there is none.
 *
 *     memory large    more than there is, which is refused; then half of what there is, gives it back and takes it again, several times
 *     memory small    in small pieces, until the kernel ends somebody for it
 */
#include <sys/mman.h>
#include <sys/sysinfo.h>

#include "check.h"

#define LARGE (1ul << 20)
#define SMALL 16384ul
#define PIECES 4096
#define ROUNDS 5

static void *pieces[PIECES];

/* Takes this many pieces; how many there were. */
static int take(int wanted)
{
	int taken = 0;

	while (taken < wanted && taken < PIECES) {
		void *piece = mmap(NULL, LARGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (piece == MAP_FAILED)
			break;
		memset(piece, 'x', LARGE);
		pieces[taken++] = piece;
	}
	return taken;
}

static void give_back(int taken)
{
	while (taken-- > 0)
		munmap(pieces[taken], LARGE);
}

static void large(void)
{
	struct sysinfo info;
	int half, round, good = 0;

	REQUIRE(sysinfo(&info) == 0, "sysinfo");
	errno = 0;
	check(mmap(NULL, info.totalram * info.mem_unit + LARGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED &&
		      errno == ENOMEM,
	      "more than there is is ENOMEM", "%s", strerror(errno));
	half = (int)(info.freeram * info.mem_unit / 2 / LARGE);
	REQUIRE(half > 8, "8 MiB and more are free");
	for (round = 0; round < ROUNDS; round++) {
		int taken = take(half);

		good += taken == half;
		give_back(taken);
	}
	check(good == ROUNDS, "what is given back can be had again", "%d of %d times %d MiB", good, ROUNDS, half);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	checks_begin();
	if (strcmp(what, "large") == 0) {
		large();
		return checks_end();
	}
	if (strcmp(what, "small") != 0)
		return 98;
	printf("about to take everything\n");
	for (;;) {
		char *piece = mmap(NULL, SMALL, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (piece != MAP_FAILED)
			memset(piece, 'x', SMALL);
	}
}
