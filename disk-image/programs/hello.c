// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Says hello from inside a cVM, with the name of the kernel that it runs on and its arguments.
 */
#include <stdio.h>
#include <sys/utsname.h>

int main(int argc, char **argv)
{
	struct utsname system;

	if (uname(&system) != 0) {
		perror("uname");
		return 1;
	}
	printf("Hello from %s %s\n", system.sysname, system.release);
	for (int i = 1; i < argc; i++)
		printf("argument %d: %s\n", i, argv[i]);
	return 0;
}
