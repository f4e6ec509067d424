// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Takes memory until there is none.
 *
 *     memory large    in large pieces, of which one is refused in the end; gives all back and takes it once more
 *     memory small    in small pieces, until the kernel ends somebody for it
 */
#include <sys/mman.h>

#include "check.h"

#define LARGE (1ul << 20)
#define SMALL 16384ul
#define PIECES 4096

static void *pieces[PIECES];

static int take_large(void)
{
	int taken = 0;

	while (taken < PIECES) {
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

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	checks_begin();
	if (strcmp(what, "large") == 0) {
		int first = take_large(), second;

		check(first > 8 && errno == ENOMEM, "what is too much is ENOMEM", "%d pieces, %s", first, strerror(errno));
		give_back(first);
		second = take_large();
		check(second > first / 2, "it comes back", "%d, then %d pieces", first, second);
		give_back(second);
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
