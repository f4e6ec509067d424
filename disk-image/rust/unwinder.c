// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * What the distribution's libgcc_eh, which unwinds the stack when a Rust program panics, expects of glibc. Linked into static programs only, in
 * which there is one object.
 */
#define _GNU_SOURCE
#include <link.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

/* struct dl_find_object of glibc, on processors whose unwind information needs no base address. */
struct found_object {
	unsigned long long flags;
	void *map_start;
	void *map_end;
	struct link_map *link_map;
	void *eh_frame;
	unsigned long long reserved[7];
};

/*
 * libgcc_eh takes it that threads are there when one function of theirs is, and calls these. Its own references to them are weak: they fetch
 * nothing from a static library.
 */
__attribute__((used)) static void *const called[] = { pthread_once, pthread_mutex_lock, pthread_mutex_unlock };

struct search {
	uintptr_t address;
	struct found_object *result;
};

static int look(struct dl_phdr_info *info, size_t size, void *context)
{
	struct search *search = context;
	uintptr_t eh_frame = 0;
	int found = 0;

	(void)size;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *header = &info->dlpi_phdr[i];
		uintptr_t begin = info->dlpi_addr + header->p_vaddr;

		if (header->p_type == PT_GNU_EH_FRAME) {
			eh_frame = begin;
		} else if (header->p_type == PT_LOAD && search->address - begin < header->p_memsz) {
			search->result->map_start = (void *)begin;
			search->result->map_end = (void *)(begin + header->p_memsz);
			found = 1;
		}
	}
	search->result->eh_frame = (void *)eh_frame;
	return found && eh_frame != 0;
}

/* Where the unwind information is of the object that the address is in: 0, or -1 when it is in none. musl has no such function. */
int _dl_find_object(void *address, struct found_object *result)
{
	struct search search = { (uintptr_t)address, result };

	*result = (struct found_object){ 0 };
	return dl_iterate_phdr(look, &search) == 1 ? 0 : -1;
}
