// SPDX-License-Identifier: Apache-2.0 OR MIT
/* What benches/mips.rs runs: random numbers, a sort, a sieve and a checksum, over and over. */

typedef unsigned long u64;
typedef unsigned int u32;
typedef unsigned char u8;

enum { NUMBERS = 1024, SIEVE = 4096, CHECKED = 2048 };

static u32 next_random(u32 state)
{
	state ^= state << 13;
	state ^= state >> 17;
	return state ^ state << 5;
}

static void sort(u32 *a, long n)
{
	long i = 0, j = n - 1;
	u32 pivot = a[n / 2];

	while (i <= j) {
		while (a[i] < pivot)
			i++;
		while (a[j] > pivot)
			j--;
		if (i <= j) {
			u32 t = a[i];

			a[i++] = a[j];
			a[j--] = t;
		}
	}
	if (j > 0)
		sort(a, j + 1);
	if (n - i > 1)
		sort(a + i, n - i);
}

/* Entered with `scratch` at NUMBERS + SIEVE bytes of memory and more; returns a number that depends on everything. */
u64 work(u8 *scratch, u64 rounds)
{
	u32 *numbers = (u32 *)scratch;
	u8 *sieve = scratch + 4 * NUMBERS;
	u32 state = 12345;
	u64 sum = 0;

	while (rounds--) {
		u32 crc = ~0u;

		for (long i = 0; i < NUMBERS; i++)
			numbers[i] = state = next_random(state);
		sort(numbers, NUMBERS);
		for (long i = 0; i < SIEVE; i++)
			sieve[i] = 0;
		for (long i = 2; i * i < SIEVE; i++)
			if (!sieve[i])
				for (long j = i * i; j < SIEVE; j += i)
					sieve[j] = 1;
		for (long i = 0; i < SIEVE; i++)
			sum += !sieve[i];
		for (long i = 0; i < CHECKED; i++) {
			crc ^= scratch[i];
			for (int bit = 0; bit < 8; bit++)
				crc = (crc >> 1) ^ (0xedb88320u & -(crc & 1));
		}
		sum = sum * 31 + crc;
	}
	return sum;
}
