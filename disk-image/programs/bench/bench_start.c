// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Says that it is there, and waits if it is told to: for the time from a start to main, and for the memory of a cVM that is idle.
 *
 *     bench_start [wait]
 */
#include <unistd.h>

int main(int argc, char **argv)
{
	static const char text[] = "main is reached\n";

	(void)argv;
	if (write(1, text, sizeof(text) - 1) != sizeof(text) - 1)
		return 1;
	while (argc > 1)
		pause();
	return 0;
}
