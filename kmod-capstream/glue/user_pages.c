// SPDX-License-Identifier: GPL-2.0-only
/*
 * Pinned memory of programs, for user_pages.rs: in C since what it takes, the lock of an address space, references of pages and
 * kvmalloc(), are inline functions.
 *
 * Portals run while any program may be running, or none, so they cannot use a program's addresses. With virtual memory they get
 * an address of the kernel's: that of the page itself, or, for pages that do not follow each other, one where they are mapped in
 * order while they are pinned. Without it a program's address is the memory itself.
 *
 * What keeps a page from becoming somebody else's memory is a reference to it, which is held from capstream_pin() to
 * capstream_unpin(). Without virtual memory these are plain references: get_user_pages() takes no others.
 *
 * Lock order: mmap_lock of the caller's address space; nothing is taken inside.
 */
#include <linux/err.h>
#include <linux/highmem.h>
#include <linux/mm.h>
#include <linux/overflow.h>
#include <linux/sched/mm.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>
#include <asm/mapping.h>
#ifdef CONFIG_MMU
#include <asm/paging.h>
#endif

struct capstream_pin {
	/* Kept from being freed, so that no other address space gets its address; but not kept alive. */
	struct mm_struct *mm;
	unsigned long address;
	/* The same for portals. */
	unsigned long alias;
	/* Where the pages are mapped in order, if that was needed. */
	void *map;
	/* How often translations of the address space had been taken away when this was seen to be what is mapped. */
	unsigned long changes;
	bool write;
	unsigned long nr_pages;
	struct page *pages[];
};

bool capstream_holds(struct capstream_pin *pin, unsigned long address, unsigned long len, bool write);
unsigned long capstream_pin_address(const struct capstream_pin *pin);
bool capstream_fault_in(unsigned long address, unsigned long len, bool write);
struct capstream_pin *capstream_pin(unsigned long address, unsigned long len, bool write);
void capstream_unpin(struct capstream_pin *pin);
bool capstream_pin_alive(const struct capstream_pin *pin);
unsigned long capstream_copy_out(const struct capstream_pin *pin, unsigned long to, unsigned long len);
unsigned long capstream_space(void);
int capstream_watch_memory(void (*left)(unsigned long space));

/* Whether [address, last] is mapped for this access; the caller holds mm's lock. */
static bool mapped(struct mm_struct *mm, unsigned long address, unsigned long last, bool write)
{
	vm_flags_t needed = write ? VM_READ | VM_WRITE : VM_READ;

	for (;;) {
		struct vm_area_struct *vma = vma_lookup(mm, address);

		if (!vma || (vma->vm_flags & needed) != needed || vma->vm_flags & (VM_IO | VM_PFNMAP))
			return false;
		if (vma->vm_end - 1 >= last)
			return true;
		address = vma->vm_end;
	}
}

#ifdef CONFIG_MMU
static unsigned long changes(const struct mm_struct *mm)
{
	return mm->context.changes;
}

static long get_pages(unsigned long address, unsigned long nr_pages, bool write, struct page **pages)
{
	return pin_user_pages(address, nr_pages, FOLL_LONGTERM | (write ? FOLL_WRITE : 0), pages);
}

static void put_pages(struct capstream_pin *pin)
{
	if (pin->map)
		vunmap(pin->map);
	unpin_user_pages_dirty_lock(pin->pages, pin->nr_pages, pin->write);
}

static bool in_order(const struct capstream_pin *pin)
{
	unsigned long i;

	for (i = 1; i < pin->nr_pages; i++)
		if (page_to_pfn(pin->pages[i]) != page_to_pfn(pin->pages[0]) + i)
			return false;
	return true;
}

static int find_alias(struct capstream_pin *pin)
{
	void *begin;

	if (in_order(pin)) {
		begin = page_address(pin->pages[0]);
	} else {
		pin->map = vmap(pin->pages, pin->nr_pages, VM_MAP, PAGE_KERNEL);
		if (!pin->map)
			return -ENOMEM;
		begin = pin->map;
	}
	pin->alias = (unsigned long)begin + offset_in_page(pin->address);
	return 0;
}

static bool same_pages(struct mm_struct *mm, const struct capstream_pin *pin)
{
	unsigned long i;

	for (i = 0; i < pin->nr_pages; i++)
		if (lkl_mapped_pfn(mm, (pin->address & PAGE_MASK) + (i << PAGE_SHIFT)) != page_to_pfn(pin->pages[i]))
			return false;
	return true;
}

bool capstream_fault_in(unsigned long address, unsigned long len, bool write)
{
	return access_ok((void __user *)address, len) && !lkl_fault_in(address, len, write);
}
#else
static unsigned long changes(const struct mm_struct *mm)
{
	/* Nobody counts: look each time. */
	return 0;
}

static long get_pages(unsigned long address, unsigned long nr_pages, bool write, struct page **pages)
{
	return get_user_pages(address, nr_pages, write ? FOLL_WRITE : 0, pages);
}

static void put_pages(struct capstream_pin *pin)
{
	unsigned long i;

	for (i = 0; i < pin->nr_pages; i++)
		put_page(pin->pages[i]);
}

static int find_alias(struct capstream_pin *pin)
{
	pin->alias = pin->address;
	return 0;
}

static bool same_pages(struct mm_struct *mm, const struct capstream_pin *pin)
{
	return true;
}

bool capstream_fault_in(unsigned long address, unsigned long len, bool write)
{
	/* What is mapped is there. */
	return false;
}
#endif

/* Whether the range of the calling task, which was pinned, is still mapped for this access, and to the same pages. len is not 0 and the range does not wrap. */
bool capstream_holds(struct capstream_pin *pin, unsigned long address, unsigned long len, bool write)
{
	struct mm_struct *mm = current->mm;
	bool result;

	if (mm != pin->mm)
		return false;
	if (IS_ENABLED(CONFIG_MMU) && changes(mm) == pin->changes)
		return true;
	mmap_read_lock(mm);
	result = mapped(mm, address, address + (len - 1), write) && same_pages(mm, pin);
	if (result)
		pin->changes = changes(mm);
	mmap_read_unlock(mm);
	return result;
}

/* Pins a range of the calling task. len is not 0 and the range does not wrap. Returns -EFAULT or -ENOMEM as a pointer on failure. */
struct capstream_pin *capstream_pin(unsigned long address, unsigned long len, bool write)
{
	unsigned long first = address >> PAGE_SHIFT;
	unsigned long nr_pages = ((address + (len - 1)) >> PAGE_SHIFT) - first + 1;
	struct mm_struct *mm = current->mm;
	struct capstream_pin *pin;
	int error;

	if (!mm)
		return ERR_PTR(-EFAULT);
	pin = kvmalloc(struct_size(pin, pages, nr_pages), GFP_KERNEL | __GFP_NOWARN);
	if (!pin)
		return ERR_PTR(-ENOMEM);
	pin->address = address;
	pin->alias = 0;
	pin->map = NULL;
	pin->write = write;
	pin->nr_pages = 0;

	mmap_read_lock(mm);
	if (mapped(mm, address, address + (len - 1), write)) {
		while (pin->nr_pages < nr_pages) {
			long got = get_pages((first + pin->nr_pages) << PAGE_SHIFT, nr_pages - pin->nr_pages,
					     write, pin->pages + pin->nr_pages);

			if (got <= 0)
				break;
			pin->nr_pages += got;
		}
	}
	pin->changes = changes(mm);
	mmap_read_unlock(mm);

	mmgrab(mm);
	pin->mm = mm;
	error = pin->nr_pages < nr_pages ? -EFAULT : find_alias(pin);
	if (error) {
		capstream_unpin(pin);
		return ERR_PTR(error);
	}
	return pin;
}

void capstream_unpin(struct capstream_pin *pin)
{
	put_pages(pin);
	mmdrop(pin->mm);
	kvfree(pin);
}

unsigned long capstream_pin_address(const struct capstream_pin *pin)
{
	return pin->alias;
}

/* Whether the address space that the memory was pinned from has a user left. */
bool capstream_pin_alive(const struct capstream_pin *pin)
{
	return atomic_read(&pin->mm->mm_users) > 0;
}

/*
 * Copies the first len bytes of the pinned memory to the calling task's memory; returns how many were not copied. len is
 * not more than what was pinned.
 */
unsigned long capstream_copy_out(const struct capstream_pin *pin, unsigned long to, unsigned long len)
{
	unsigned long offset = offset_in_page(pin->address);
	unsigned long i;

	for (i = 0; len && i < pin->nr_pages; i++) {
		unsigned long part = min(len, PAGE_SIZE - offset);
		void *from = kmap_local_page(pin->pages[i]);
		unsigned long left = copy_to_user((void __user *)to, from + offset, part);

		kunmap_local(from);
		if (left)
			return len - part + left;
		to += part;
		len -= part;
		offset = 0;
	}
	return len;
}

/* A number for the address space of the calling task. */
unsigned long capstream_space(void)
{
	return (unsigned long)current->mm;
}

static void (*memory_left)(unsigned long space);

static int notify_left(struct notifier_block *block, unsigned long unused, void *mm)
{
	memory_left((unsigned long)mm);
	return NOTIFY_DONE;
}

static struct notifier_block watch = { .notifier_call = notify_left };

/* Has `left` called, in a task, with the number of each address space that its last user has left. To be called once. */
int capstream_watch_memory(void (*left)(unsigned long space))
{
	memory_left = left;
	return blocking_notifier_chain_register(&lkl_memory_left, &watch);
}
