// SPDX-License-Identifier: GPL-2.0
/*
 * memmap_digest START_PFN NR_PAGES [ram]: prints digests of the struct pages of a
 * ZONE_DEVICE range, or of System RAM, and of its pageblock bits, one line a section
 * and a total, so that two kernels can be compared.
 *
 * One binary for any kernel of x86-64, or of arm64 with pages of 4 KiB and 48-bit
 * addresses: vmcoreinfo says where the page tables and the sections are, /proc/kcore
 * gives the RAM behind them, /dev/mem the memory of devices.  (By virtual address kcore
 * has the memmap of System RAM only.)  What vmcoreinfo does not tell, the layout of
 * struct mem_section_usage, is checked against the subsection map, which holes in System
 * RAM are not in.
 *
 * The pgmap pointer is the one word that may differ from boot to boot: it is
 * replaced by 1 where it is what most pages have, and left alone elsewhere.  Of System
 * RAM these are the two pointers by which a free block is in a list.
 */
#include "guest.h"
#include <elf.h>

#define PAGE_BYTES	4096UL
#define KERNEL_MAP	0xffffffff80000000UL
#define PTE_PRESENT	1UL
#ifdef __aarch64__
#define PTE_ADDRESS	0x0000fffffffff000UL
#define pte_huge(e)	(!((e) & 2UL))
#else
#define PTE_ADDRESS	0x000ffffffffff000UL
#define pte_huge(e)	((e) & 0x80UL)
#endif
#define SUBSECTION	(2UL << 20)

static int mem, kcore, ram;
static Elf64_Phdr *ranges;
static int nr_ranges, levels;
static char *vmcoreinfo;
static uint64_t top_table;

static uint64_t info(const char *key, int base)
{
	size_t length = strlen(key);
	char *line;

	for (line = vmcoreinfo; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
		if (!strncmp(line, key, length) && line[length] == '=')
			return strtoull(line + length + 1, NULL, base);
	errx(1, "vmcoreinfo has no %s", key);
}

/* RAM by /proc/kcore, what it has not by /dev/mem. */
static void copy_physical(uint64_t phys, void *to, size_t size)
{
	size_t offset = phys % PAGE_BYTES;
	char *map;
	int i;

	for (i = 0; i < nr_ranges; i++) {
		uint64_t at = phys - ranges[i].p_paddr;

		if (phys < ranges[i].p_paddr || at + size > ranges[i].p_memsz)
			continue;
		if (pread(kcore, to, size, ranges[i].p_offset + at) != (ssize_t)size)
			err(1, "%#lx bytes of RAM at physical %#lx", size, phys);
		return;
	}
	map = map_file(mem, PROT_READ, offset + size, phys - offset);
	memcpy(to, map + offset, size);
	munmap(map, offset + size);
}

/* What of the kernel's address space is physically contiguous from VIRT on. */
static uint64_t walk(uint64_t virt, uint64_t *left)
{
	/* The same ones are asked again and again. */
	static struct {
		uint64_t phys, entries[512];
	} tables[6];
	uint64_t table = top_table;
	int level;

	for (level = levels; level > 0; level--) {
		unsigned int shift = 12 + 9 * (level - 1);
		uint64_t e;

		if (tables[level].phys != table)
			copy_physical(table, tables[level].entries, PAGE_BYTES);
		tables[level].phys = table;
		e = tables[level].entries[virt >> shift & 511];
		if (!(e & PTE_PRESENT))
			errx(1, "kernel address %#lx is not mapped (level %d)", virt, level);
		if (level == 1 || pte_huge(e)) {
			uint64_t offset = virt & ((1UL << shift) - 1);

			*left = (1UL << shift) - offset;
			return (e & PTE_ADDRESS & ~((1UL << shift) - 1)) + offset;
		}
		table = e & PTE_ADDRESS;
	}
	errx(1, "unreachable");
}

static void copy_kernel(uint64_t virt, void *to, size_t size)
{
	while (size) {
		uint64_t part, phys = walk(virt, &part);

		if (part > size)
			part = size;
		copy_physical(phys, to, part);
		virt += part;
		to = (char *)to + part;
		size -= part;
	}
}

static uint64_t fnv(uint64_t hash, uint64_t word)
{
	hash = (hash ^ word) * 0x100000001b3UL;
	return hash ^ hash >> 29;
}

#define FNV_START	0xcbf29ce484222325UL

/* /proc/kcore: a note with vmcoreinfo, and where it has what of RAM. */
static void open_kcore(void)
{
	static char note[1 << 16];
	Elf64_Ehdr head;
	int i;

	mem = open_file("/dev/mem", O_RDONLY);
	kcore = open_file("/proc/kcore", O_RDONLY);
	if (pread(kcore, &head, sizeof(head), 0) != sizeof(head))
		err(1, "/proc/kcore");
	ranges = calloc(head.e_phnum, sizeof(*ranges));
	if (!ranges || pread(kcore, ranges, head.e_phnum * sizeof(*ranges), head.e_phoff) < 0)
		err(1, "the ranges of /proc/kcore");
	for (i = 0; i < head.e_phnum; i++) {
		if (ranges[i].p_type == PT_NOTE &&
		    pread(kcore, note, sizeof(note) - 1, ranges[i].p_offset) > 0)
			vmcoreinfo = memmem(note, sizeof(note), "OSRELEASE=", 10);
		else if (ranges[i].p_paddr != -1UL)
			ranges[nr_ranges++] = ranges[i];
	}
	if (!vmcoreinfo)
		errx(1, "there is no vmcoreinfo in /proc/kcore");
}

static uint64_t section_bytes, section_pages, page_size;

static uint64_t digest_pageblocks(uint64_t usage, uint64_t from, uint64_t to)
{
	uint64_t hash = FNV_START;
	unsigned int subsections = section_bytes / SUBSECTION, i;
	uint64_t map[8];
	uint8_t flags[512];

	/* struct rcu_head, then the subsection map, then the pageblock flags */
	if (subsections % 64 || subsections > 512)
		errx(1, "sections of %#lx bytes are new to me", section_bytes);
	copy_kernel(usage + 16, map, subsections / 8);
	/* CONFIG_MEMORY_ISOLATION makes it five bits a pageblock, rounded up. */
	copy_kernel(usage + 16 + subsections / 8, flags, subsections);
	for (i = from * PAGE_BYTES / SUBSECTION; i < to * PAGE_BYTES / SUBSECTION; i++) {
		if (!ram && !(map[i / 64] >> i % 64 & 1))
			errx(1, "subsection %u is not in the map: a new struct mem_section_usage?",
			    i);
		if (flags[i] >> 5)
			errx(1, "pageblock %u has the bits %#x: not one byte a pageblock?", i,
			    flags[i]);
		hash = fnv(hash, flags[i]);
	}
	return hash;
}

/* The word that most of the first data pages have where pgmap is. */
static uint64_t find_pgmap(uint64_t memmap, uint64_t last, uint64_t offset)
{
	uint64_t word;

	copy_kernel(memmap + last * page_size + offset, &word, sizeof(word));
	if (word & 1) {
		/* A tail: its head has it.  Shared tails name theirs by a mask. */
		uint64_t order = 0, head = last;

		do {
			head = last & ~((1UL << ++order) - 1);
			copy_kernel(memmap + head * page_size + offset, &word, sizeof(word));
		} while ((word & 1) && order < 18);
	}
	if (word & 1 || !word)
		errx(1, "no pgmap in the last page of the range nor in its head");
	return word;
}

int main(int argc, char **argv)
{
	uint64_t start, nr, pfn, end, per_root, section_size, offset, pgmap = 0;
	uint64_t mem_section, all_pages = FNV_START, all_blocks = FNV_START, normalised = 0;
	uint64_t mapcount, lru, buddy;
	uint64_t *words;

	ram = argc == 4 && !strcmp(argv[3], "ram");
	if (argc != 3 + ram)
		errx(2, "usage: memmap_digest START_PFN NR_PAGES [ram]");
	start = strtoull(argv[1], NULL, 0);
	nr = strtoull(argv[2], NULL, 0);
	end = start + nr;

	open_kcore();
#ifdef __aarch64__
	top_table = info("SYMBOL(swapper_pg_dir)", 16) - info("NUMBER(kimage_voffset)", 16);
	levels = 4;
	if (info("NUMBER(TCR_EL1_T1SZ)", 16) != 16 || info("PAGESIZE", 10) != PAGE_BYTES)
		errx(1, "page tables of another form than four levels for 48 bits");
#else
	top_table = info("SYMBOL(init_top_pgt)", 16) - KERNEL_MAP + info("NUMBER(phys_base)", 10);
	levels = info("NUMBER(pgtable_l5_enabled)", 10) ? 5 : 4;
#endif
	section_bytes = 1UL << info("NUMBER(SECTION_SIZE_BITS)", 10);
	section_pages = section_bytes / PAGE_BYTES;
	page_size = info("SIZE(page)", 10);
	offset = info("OFFSET(page.compound_info)", 10);
	mapcount = info("OFFSET(page._mapcount)", 10);
	lru = info("OFFSET(page.lru)", 10);
	buddy = info("NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)", 10);
	section_size = info("SIZE(mem_section)", 10);
	mem_section = info("SYMBOL(mem_section)", 16);
	per_root = PAGE_BYTES / section_size;
	if (page_size % 8 || offset % 8)
		errx(1, "struct pages of %lu bytes are new to me", page_size);
	words = malloc(section_pages * page_size);
	if (!words)
		errx(1, "no memory for the struct pages of a section");

	for (pfn = start; pfn < end; ) {
		uint64_t number = pfn / section_pages, base = number * section_pages;
		uint64_t last = base + section_pages < end ? base + section_pages : end;
		uint64_t root, fields[2], memmap, i, w, pages = FNV_START, blocks;

		copy_kernel(mem_section + number / per_root * 8, &root, 8);
		if (!root)
			errx(1, "pfn %#lx has no section", pfn);
		copy_kernel(root + number % per_root * section_size, fields, sizeof(fields));
		memmap = fields[0] & ~(PAGE_BYTES - 1);
		if (!memmap || !fields[1])
			errx(1, "pfn %#lx has no memmap", pfn);
		if (!pgmap && !ram)
			pgmap = find_pgmap(memmap, end - 1, offset);

		copy_kernel(memmap + pfn * page_size, words, (last - pfn) * page_size);
		for (i = 0; i < last - pfn; i++) {
			uint64_t *page = words + i * page_size / 8;

			if (ram && *(uint32_t *)((char *)page + mapcount) == (uint32_t)buddy) {
				page[lru / 8] = page[lru / 8 + 1] = 1;
				normalised++;
			} else if (!ram && page[offset / 8] == pgmap) {
				page[offset / 8] = 1;
				normalised++;
			}
			for (w = 0; w < page_size / 8; w++)
				pages = fnv(pages, page[w]);
		}
		blocks = digest_pageblocks(fields[1], pfn - base, last - base);
		printf("section %lu pages %016lx pageblocks %016lx\n", number, pages, blocks);
		all_pages = fnv(all_pages, pages);
		all_blocks = fnv(all_blocks, blocks);
		pfn = last;
	}
	printf("total pages %016lx pageblocks %016lx nr %lu normalised %lu\n", all_pages,
	       all_blocks, nr, normalised);
	return 0;
}
