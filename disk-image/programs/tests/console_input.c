/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Standard input: as many numbered lines as the argument says, then one without an end, then the end of input. */
#include "check.h"

int main(int argc, char **argv)
{
	long lines = argc > 1 ? atol(argv[1]) : 0, seen = 0, in_order = 0;
	char line[64], wanted[64];

	while (seen < lines && fgets(line, sizeof(line), stdin)) {
		snprintf(wanted, sizeof(wanted), "line %ld\n", seen++);
		in_order += !strcmp(line, wanted);
	}
	check(seen == lines, "all lines come", "%ld of %ld", seen, lines);
	check(in_order == lines, "whole and in order", "%ld of %ld", in_order, lines);
	check(fgets(line, sizeof(line), stdin) && !strcmp(line, "the rest"), "so does one without an end", "'%s'", line);
	check(!fgets(line, sizeof(line), stdin) && feof(stdin), "then input ends", "'%s'", line);
	return checks_end();
}
