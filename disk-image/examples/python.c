// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Python as a program that can be at any address: the interpreter of Debian's package libpython3.11.
 *
 *	cc -O2 python.c -o python
 *
 * Debian's own /usr/bin/python3 is linked at a fixed address, which is there once in a process: of a monitor's cVMs one at a time can run it.
 */
#include <dlfcn.h>
#include <stdio.h>

int main(int argc, char **argv)
{
	void *library = dlopen("libpython3.11.so.1.0", RTLD_NOW | RTLD_GLOBAL);
	int (*python)(int, char **) = NULL;

	if (library != NULL)
		*(void **)&python = dlsym(library, "Py_BytesMain");
	if (python == NULL) {
		fprintf(stderr, "%s: %s\n", argv[0], dlerror());
		return 1;
	}
	return python(argc, argv);
}
