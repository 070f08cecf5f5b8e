// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests for the memmap of device memory: after memremap_pages() each
 * struct page and each pageblock of a range must hold exactly what is spelled
 * out here, page by page, whatever route mm/mm_init.c takes to write it.
 *
 * The ranges are free physical address space, so no device is needed.  An
 * altmap cannot be tested like that: its memmap would live in the range itself.
 *
 * The same holds for pages that memmap_sync() says are ready, no matter how far
 * the rest of their memmap has got.
 */
#include <kunit/device.h>
#include <kunit/static_stub.h>
#include <kunit/test.h>
#include <linux/dax.h>
#include <linux/delay.h>
#include <linux/ioport.h>
#include <linux/kernfs.h>
#include <linux/kthread.h>
#include <linux/memmap_async.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>
#include "../internal.h"
#include "../memmap_async/pgmap.h"

/*
 * Beyond so many pages a compound's tails are all alike.  Comparing a few
 * thousand of them finds what can go wrong, and keeps the 1 GiB cases short.
 */
#define COMPOUND_CHECK_PAGES	4096UL

/* Orders of compound pages, whatever the size of a page. */
#define ORDER_2M	ilog2(SZ_2M / PAGE_SIZE)
#define ORDER_1G	ilog2(SZ_1G / PAGE_SIZE)

/*
 * Within a section, and where a page of memmap begins: of other memmaps, as those of
 * 64 KiB pages at 2 MiB, vmemmap_populate_basepages() leaves out the last page.
 */
#define OFFSET		MAX(SZ_2M, PAGE_SIZE / sizeof(struct page) * PAGE_SIZE)

struct zone_device_case {
	const char *name;
	enum memory_type type;
	unsigned int vmemmap_shift;
	/* What is taken from the free region, in bytes. */
	unsigned long offset, size;
	int nr_range;
};

static const struct zone_device_case zone_device_cases[] = {
	{ "private", MEMORY_DEVICE_PRIVATE, 0, 0, SZ_16M, 1 },
	{ "coherent", MEMORY_DEVICE_COHERENT, 0, 0, SZ_16M, 1 },
	{ "fs_dax", MEMORY_DEVICE_FS_DAX, 0, 0, SZ_16M, 1 },
	{ "generic", MEMORY_DEVICE_GENERIC, 0, 0, SZ_16M, 1 },
	{ "pci_p2pdma", MEMORY_DEVICE_PCI_P2PDMA, 0, 0, SZ_16M, 1 },
	{ "fs_dax, one subsection", MEMORY_DEVICE_FS_DAX, 0, SZ_2M, SZ_2M, 1 },
	{ "fs_dax, partial sections", MEMORY_DEVICE_FS_DAX, 0, SZ_64M + OFFSET, SZ_256M, 1 },
	{ "fs_dax, large", MEMORY_DEVICE_FS_DAX, 0, 0, SZ_2G, 1 },
	{ "generic, large", MEMORY_DEVICE_GENERIC, 0, 0, SZ_1G, 1 },
	{ "private, three ranges", MEMORY_DEVICE_PRIVATE, 0, 0, SZ_256M, 3 },
	{ "fs_dax, three ranges", MEMORY_DEVICE_FS_DAX, 0, OFFSET, SZ_256M, 3 },
	{ "generic, compounds of 8 pages", MEMORY_DEVICE_GENERIC, 3, 0, SZ_16M, 1 },
	{ "generic, 2M compounds", MEMORY_DEVICE_GENERIC, ORDER_2M, 0, SZ_16M, 1 },
	{ "generic, 2M compounds, partial sections", MEMORY_DEVICE_GENERIC, ORDER_2M,
	  OFFSET, SZ_256M, 1 },
	{ "generic, 2M compounds, large", MEMORY_DEVICE_GENERIC, ORDER_2M, 0, SZ_1G, 1 },
	{ "generic, 1G compounds", MEMORY_DEVICE_GENERIC, ORDER_1G, 0, SZ_2G, 1 },
	{ "fs_dax, 2M compounds", MEMORY_DEVICE_FS_DAX, ORDER_2M, 0, SZ_256M, 1 },
	{ "generic, 2M compounds, three ranges", MEMORY_DEVICE_GENERIC, ORDER_2M, 0, SZ_256M, 3 },
};

KUNIT_ARRAY_PARAM_DESC(zone_device, zone_device_cases, name);

static void zone_device_test_folio_free(struct folio *folio)
{
}

static vm_fault_t zone_device_test_migrate_to_ram(struct vm_fault *vmf)
{
	return VM_FAULT_SIGBUS;
}

/* Whoever handles a memory failure wants to look at the page. */
static int zone_device_test_memory_failure(struct dev_pagemap *pgmap, unsigned long pfn,
					   unsigned long nr_pages, int mf_flags)
{
	return page_pgmap(pfn_to_page(pfn)) == pgmap ? 0 : -EIO;
}

static const struct dev_pagemap_ops zone_device_test_ops = {
	.memory_failure = zone_device_test_memory_failure,
	.folio_free = zone_device_test_folio_free,
	.migrate_to_ram = zone_device_test_migrate_to_ram,
};

KUNIT_DEFINE_ACTION_WRAPPER(zone_device_unmap, memunmap_pages, struct dev_pagemap *);
KUNIT_DEFINE_ACTION_WRAPPER(zone_device_vfree, vfree, const void *);

static void zone_device_release_region(void *data)
{
	struct resource *res = data;

	release_mem_region(res->start, resource_size(res));
}

/* A struct page of device memory that belongs to no compound page. */
static void want_page(struct page *want, unsigned long pfn, int nid,
		      struct dev_pagemap *pgmap)
{
	memset(want, 0, sizeof(*want));
	set_page_links(want, ZONE_DEVICE, nid, pfn);
	__set_bit(PG_reserved, &want->flags.f);
	page_cpupid_reset_last(want);
	page_kasan_tag_reset(want);
	want->_unused_pgmap_compound_info = pgmap;
	want->zone_device_data = NULL;
	atomic_set(&want->_mapcount, -1);
	atomic_set(&want->_refcount, pgmap->type == MEMORY_DEVICE_GENERIC);
#ifdef WANT_PAGE_VIRTUAL
	set_page_address(want, __va(PFN_PHYS(pfn)));
#endif
}

/*
 * The first @nr struct pages of the compound page at @pfn.  They are built in
 * a scratch array, hence list heads that point to themselves move by @delta.
 */
static void want_compound(struct page *want, unsigned long pfn,
			  unsigned long nr, int nid, struct dev_pagemap *pgmap)
{
	const struct page *head = pfn_to_page(pfn);
	const unsigned int order = pgmap->vmemmap_shift;
	unsigned long *word = (unsigned long *)want;
	unsigned long i;

	for (i = 0; i < nr; i++) {
		want_page(want + i, pfn + i, nid, pgmap);
		if (!i) {
			__set_bit(PG_head, &want->flags.f);
			continue;
		}
		want[i].mapping = TAIL_MAPPING;
		atomic_set(&want[i]._refcount, 0);
		set_compound_head(want + i, head, order);
	}
	prep_compound_head(want, order);

	for (i = 0; i < nr * sizeof(*want) / sizeof(*word); i++) {
		if (word[i] >= (unsigned long)want &&
		    word[i] < (unsigned long)(want + nr))
			word[i] += (unsigned long)head - (unsigned long)want;
	}
}

static void expect_range(struct kunit *test, struct dev_pagemap *pgmap,
			 const struct range *range, struct page *want, int nid)
{
	unsigned long end_pfn = PHYS_PFN(range->end + 1);
	unsigned long nr_compound = pgmap_vmemmap_nr(pgmap);
	unsigned long nr = min(nr_compound, COMPOUND_CHECK_PAGES);
	unsigned long pfn, i;

	for (pfn = PHYS_PFN(range->start); pfn < end_pfn; pfn += nr_compound) {
		const struct page *page = pfn_to_page(pfn);

		/*
		 * With an optimised vmemmap nr struct pages can be mapped to a
		 * few physical ones.  Their tails are alike, so that reading
		 * all of them through the shared mapping is still right.
		 */
		if (nr_compound == 1)
			want_page(want, pfn, nid, pgmap);
		else
			want_compound(want, pfn, nr, nid, pgmap);

		for (i = 0; i < nr; i++) {
			if (!memcmp(page + i, want + i, sizeof(*page)))
				continue;
			KUNIT_FAIL(test, "pfn %#lx, page %lu of %lu: got %*ph, want %*ph",
				   pfn, i, nr_compound,
				   (int)sizeof(*page), page + i,
				   (int)sizeof(*page), want + i);
			return;
		}
		cond_resched();
	}

	for (pfn = pageblock_align(PHYS_PFN(range->start)); pfn < end_pfn;
	     pfn += pageblock_nr_pages) {
		enum migratetype mt = get_pfnblock_migratetype(pfn_to_page(pfn), pfn);

		if (mt != MIGRATE_MOVABLE) {
			KUNIT_FAIL(test, "pageblock at pfn %#lx: migratetype %d", pfn, mt);
			return;
		}
	}
}

/* The memmap of a section can be in one block, or in as many as it has pages. */
#define MEMMAP_ORDER	ilog2(PAGES_PER_SECTION * sizeof(struct page) / PAGE_SIZE)

/* What a memmap and its page tables are in is allocated as one of these. */
static const unsigned int block_orders[] = { 0, MEMMAP_ORDER };

/* Not present in any page table, and no flags that a struct page could have. */
#define RUBBISH		0xa4

/*
 * Leaves rubbish in the pages that this CPU is going to use next: a word that
 * nobody writes must not pass for a zero.
 */
static void soil_free_pages(void)
{
	struct page *pages[32];
	int i, j;

	for (i = 0; i < ARRAY_SIZE(block_orders); i++) {
		for (j = 0; j < ARRAY_SIZE(pages); j++) {
			pages[j] = alloc_pages(GFP_KERNEL | __GFP_NOWARN, block_orders[i]);
			if (pages[j])
				memset(page_address(pages[j]), RUBBISH,
				       PAGE_SIZE << block_orders[i]);
		}
		while (j--) {
			if (pages[j])
				__free_pages(pages[j], block_orders[i]);
		}
	}
}

static struct page *want_alloc(struct kunit *test)
{
	struct page *want = vmalloc(sizeof(*want) * COMPOUND_CHECK_PAGES);

	KUNIT_ASSERT_NOT_NULL(test, want);
	KUNIT_ASSERT_EQ(test, 0, kunit_add_action_or_reset(test, zone_device_vfree, want));
	return want;
}

/* A pgmap that is ready to be mapped, at addresses that nobody uses. */
static struct dev_pagemap *zone_device_alloc(struct kunit *test,
					     const struct zone_device_case *c)
{
	unsigned long stride = ALIGN(c->offset + c->size, SZ_1G);
	struct dev_pagemap *pgmap;
	struct resource *res;
	int i;

	pgmap = kunit_kzalloc(test, struct_size(pgmap, ranges, c->nr_range), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, pgmap);

	/* One spare so that all can be aligned to 1 GiB. */
	res = request_free_mem_region(&iomem_resource, (c->nr_range + 1) * stride,
				      "zone_device_kunit");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, res);
	KUNIT_ASSERT_EQ(test, 0, kunit_add_action_or_reset(test, zone_device_release_region, res));

	pgmap->type = c->type;
	pgmap->vmemmap_shift = c->vmemmap_shift;
	pgmap->ops = &zone_device_test_ops;
	pgmap->owner = test;
	pgmap->nr_range = c->nr_range;
	for (i = 0; i < c->nr_range; i++) {
		pgmap->ranges[i].start = ALIGN(res->start, SZ_1G) + i * stride + c->offset;
		pgmap->ranges[i].end = pgmap->ranges[i].start + c->size - 1;
	}
	return pgmap;
}

static void zone_device_map(struct kunit *test, struct dev_pagemap *pgmap, int nid)
{
	soil_free_pages();
	KUNIT_ASSERT_FALSE(test, IS_ERR(memremap_pages(pgmap, nid)));
	KUNIT_ASSERT_EQ(test, 0, kunit_add_action_or_reset(test, zone_device_unmap, pgmap));
}

static void zone_device_memmap(struct kunit *test)
{
	const struct zone_device_case *c = test->param_value;
	struct dev_pagemap *pgmap = zone_device_alloc(test, c);
	struct page *want = want_alloc(test);
	int i, nid = numa_mem_id();

	zone_device_map(test, pgmap, nid);
	for (i = 0; i < c->nr_range; i++)
		expect_range(test, pgmap, &pgmap->ranges[i], want, nid);
}

/* A block for a memmap, or one for anybody. */
static void *block_alloc(unsigned int order, bool memmap)
{
	struct page *page;

	if (memmap)
		return vmemmap_alloc_block(PAGE_SIZE << order, numa_mem_id());

	page = alloc_pages(GFP_KERNEL, order);
	return page ? page_address(page) : NULL;
}

/* With init_on_alloc all pages are zeroed, but those for a memmap. */
static void zone_device_not_zeroed(struct kunit *test)
{
	if (!want_init_on_alloc(GFP_KERNEL) || want_init_on_free() ||
	    page_poisoning_enabled_static())
		kunit_skip(test, "init_on_alloc is off, or not alone");

	for (int i = 0; i < 2 * ARRAY_SIZE(block_orders); i++) {
		const unsigned int order = block_orders[i / 2];
		const size_t size = PAGE_SIZE << order;
		const bool memmap = i % 2;
		void *block, *got = NULL, *again[32] = {};
		int j;

		block = block_alloc(order, memmap);
		KUNIT_ASSERT_NOT_NULL(test, block);
		memset(block, RUBBISH, size);

		/* What was freed last on a CPU is used first, but others can be faster. */
		migrate_disable();
		free_pages((unsigned long)block, order);
		for (j = 0; j < ARRAY_SIZE(again) && got != block; j++) {
			got = block_alloc(order, memmap);
			again[j] = got;
		}
		migrate_enable();

		KUNIT_EXPECT_PTR_EQ(test, got, block);
		if (got == block)
			KUNIT_EXPECT_NULL_MSG(test, memchr_inv(got, memmap ? RUBBISH : 0, size),
					      "order %u, %s", order, memmap ? "memmap" : "other");
		while (j--)
			free_pages((unsigned long)again[j], order);
	}
}

/* Of memory for a memmap only the first page is checked, at both ends. */
static void zone_device_not_checked(struct kunit *test)
{
	void *block, *again;
	long __maybe_unused nr_poisoned;

	if (IS_ENABLED(CONFIG_DEBUG_VM))
		kunit_skip(test, "all pages are checked");

	block = block_alloc(MEMMAP_ORDER, true);
	KUNIT_ASSERT_NOT_NULL(test, block);

#ifdef CONFIG_MEMORY_FAILURE
	/* Other tests poison pages, and then all are checked. */
	nr_poisoned = atomic_long_xchg(&num_poisoned_pages, 0);
#endif
	migrate_disable();
	/* If it were checked, this page would be reported, and the block lost. */
	set_page_count(virt_to_page(block) + 1, 1);
	__free_pages_untouched(virt_to_page(block), MEMMAP_ORDER);
	again = block_alloc(MEMMAP_ORDER, true);
	set_page_count(virt_to_page(block) + 1, 0);
	migrate_enable();
#ifdef CONFIG_MEMORY_FAILURE
	atomic_long_add(nr_poisoned, &num_poisoned_pages);
#endif

	KUNIT_EXPECT_PTR_EQ(test, again, block);
	free_pages((unsigned long)again, MEMMAP_ORDER);
}

/* Pages that memmap was in are as fit for use as any, the first one included. */
static void zone_device_memmap_freed(struct kunit *test)
{
	const unsigned int order = MEMMAP_ORDER;
	struct page *again[32] = {};
	struct page *want, *page, *got = NULL;
	int i;

	want = kunit_kcalloc(test, 1 << order, sizeof(*want), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, want);
	page = alloc_pages(GFP_KERNEL, order);
	KUNIT_ASSERT_NOT_NULL(test, page);
	memcpy(want, page, sizeof(*want) << order);

	__set_bit(PG_referenced, &page->flags.f);
	set_page_private(page, 1);
	/* What was freed last on a CPU is used first, but others can be faster. */
	migrate_disable();
	__free_pages_untouched(page, order);
	for (i = 0; i < ARRAY_SIZE(again) && got != page; i++) {
		got = alloc_pages(GFP_KERNEL, order);
		again[i] = got;
	}
	migrate_enable();
	KUNIT_EXPECT_PTR_EQ(test, got, page);

	for (i = 0; got == page && i < 1 << order; i++) {
		KUNIT_EXPECT_EQ_MSG(test, page[i].flags.f, want[i].flags.f, "page %d", i);
		KUNIT_EXPECT_EQ_MSG(test, page_ref_count(page + i),
				    page_ref_count(want + i), "page %d", i);
		KUNIT_EXPECT_EQ_MSG(test, page[i].private, want[i].private, "page %d", i);
		KUNIT_EXPECT_EQ_MSG(test, page[i].page_type, want[i].page_type, "page %d", i);
	}
	for (i = 0; i < ARRAY_SIZE(again); i++)
		if (again[i])
			__free_pages(again[i], order);
}

static bool is_mapped(const void *addr)
{
	unsigned long word;

	return !copy_from_kernel_nofault(&word, addr, sizeof(word));
}

/* A range with neighbours in its first and its last section. */
struct neighbours {
	struct dev_pagemap *pgmap, *below, *above;
	struct page *want;
	int nid;
};

static void neighbours_map(struct kunit *test, struct neighbours *n)
{
	static const struct zone_device_case c = {
		"fs_dax", MEMORY_DEVICE_FS_DAX, 0, SZ_4M, SZ_16G + SZ_64M, 1
	};

	/* arm64 frees all of a page of memmap with the first subsection that is in it. */
	if (PAGES_PER_SUBSECTION * sizeof(struct page) < PAGE_SIZE)
		kunit_skip(test, "subsections share pages of memmap");

	n->pgmap = zone_device_alloc(test, &c);
	n->below = zone_device_alloc(test, &c);
	n->above = zone_device_alloc(test, &c);
	n->want = want_alloc(test);
	n->nid = numa_mem_id();

	n->below->range.start = n->pgmap->range.start - SZ_2M;
	n->below->range.end = n->pgmap->range.start - 1;
	n->above->range.start = n->pgmap->range.end + 1;
	n->above->range.end = n->pgmap->range.end + SZ_2M;

	zone_device_map(test, n->below, n->nid);
	zone_device_map(test, n->above, n->nid);
}

/* All of the memmap is gone, and nobody else's. */
static void expect_gone(struct kunit *test, struct neighbours *n)
{
	unsigned long start_pfn = PHYS_PFN(n->pgmap->range.start);
	unsigned long end_pfn = PHYS_PFN(n->pgmap->range.end + 1);
	unsigned long pfn;

	for (pfn = start_pfn; pfn < end_pfn; pfn += PAGES_PER_SUBSECTION)
		KUNIT_EXPECT_FALSE_MSG(test, pfn_valid(pfn), "pfn %#lx", pfn);
	for (pfn = SECTION_ALIGN_UP(start_pfn); pfn < SECTION_ALIGN_DOWN(end_pfn);
	     pfn += PAGES_PER_SUBSECTION)
		KUNIT_EXPECT_FALSE_MSG(test, is_mapped(pfn_to_page(pfn)), "pfn %#lx", pfn);
	expect_range(test, n->below, &n->below->range, n->want, n->nid);
	expect_range(test, n->above, &n->above->range, n->want, n->nid);
}

/* Its memmap goes with a range, and comes back with it. */
static void zone_device_gone(struct kunit *test)
{
	struct neighbours n;

	neighbours_map(test, &n);
	zone_device_map(test, n.pgmap, n.nid);
	KUNIT_EXPECT_TRUE(test, is_mapped(pfn_to_page(PHYS_PFN(n.pgmap->range.start))));

	kunit_release_action(test, zone_device_unmap, n.pgmap);
	expect_gone(test, &n);

	zone_device_map(test, n.pgmap, n.nid);
	expect_range(test, n.pgmap, &n.pgmap->range, n.want, n.nid);
}

/* The same with neighbours that come later and go earlier. */
static void zone_device_neighbours_gone(struct kunit *test)
{
	struct neighbours n;

	neighbours_map(test, &n);
	kunit_release_action(test, zone_device_unmap, n.above);
	kunit_release_action(test, zone_device_unmap, n.below);

	zone_device_map(test, n.pgmap, n.nid);
	zone_device_map(test, n.below, n.nid);
	zone_device_map(test, n.above, n.nid);
	expect_range(test, n.pgmap, &n.pgmap->range, n.want, n.nid);

	kunit_release_action(test, zone_device_unmap, n.above);
	kunit_release_action(test, zone_device_unmap, n.below);
	expect_range(test, n.pgmap, &n.pgmap->range, n.want, n.nid);
}

/* For how many blocks, for memmap or for page tables, there is memory left. */
static long blocks_left;

static void *alloc_block_while_left(unsigned long size, int node)
{
	struct page *page;

	if (blocks_left-- <= 0)
		return NULL;
	page = alloc_pages_node(node, GFP_KERNEL, get_order(size));
	return page ? page_address(page) : NULL;
}

/* Out of memory for the vmemmap: nothing is left of the range, wherever it stopped. */
static void zone_device_add_fails(struct kunit *test)
{
	struct neighbours n;
	long nr_blocks;

	neighbours_map(test, &n);

	blocks_left = LONG_MAX;
	kunit_activate_static_stub(test, vmemmap_alloc_block, alloc_block_while_left);
	zone_device_map(test, n.pgmap, n.nid);
	nr_blocks = LONG_MAX - blocks_left;
	KUNIT_EXPECT_GT(test, nr_blocks, 100);
	kunit_release_action(test, zone_device_unmap, n.pgmap);

	for (int i = 0; i < 3; i++) {
		void *addr;

		blocks_left = (nr_blocks - 1) * i / 2;
		addr = memremap_pages(n.pgmap, n.nid);
		KUNIT_EXPECT_EQ(test, PTR_ERR_OR_ZERO(addr), -ENOMEM);
		expect_gone(test, &n);
		if (IS_ENABLED(CONFIG_X86_64))
			KUNIT_EXPECT_FALSE(test, is_mapped(__va(n.pgmap->range.start)));
	}

	kunit_deactivate_static_stub(test, vmemmap_alloc_block);
	zone_device_map(test, n.pgmap, n.nid);
	expect_range(test, n.pgmap, &n.pgmap->range, n.want, n.nid);
}

static bool is_found(struct dev_pagemap *pgmap, u64 addr)
{
	struct dev_pagemap *got = get_dev_pagemap(PHYS_PFN(addr));

	if (got)
		put_dev_pagemap(got);
	return got == pgmap;
}

/* A pgmap is found by the pfns of all its ranges, and of those it had before by none. */
static void zone_device_found(struct kunit *test)
{
	static const struct zone_device_case c = {
		"fs_dax, three ranges", MEMORY_DEVICE_FS_DAX, 0, 0, SZ_256M, 3
	};
	struct dev_pagemap *pgmap = zone_device_alloc(test, &c);

	for (pgmap->nr_range = c.nr_range; pgmap->nr_range; pgmap->nr_range--) {
		zone_device_map(test, pgmap, numa_mem_id());
		for (int i = 0; i < c.nr_range; i++) {
			const struct range *range = &pgmap->ranges[i];

			KUNIT_EXPECT_EQ(test, is_found(pgmap, range->start), i < pgmap->nr_range);
			KUNIT_EXPECT_EQ(test, is_found(pgmap, range->end), i < pgmap->nr_range);
		}
		kunit_release_action(test, zone_device_unmap, pgmap);
	}
}

static struct kunit_case zone_device_test_cases[] = {
	KUNIT_CASE_PARAM_ATTR(zone_device_memmap, zone_device_gen_params,
			      { .speed = KUNIT_SPEED_SLOW }),
	KUNIT_CASE(zone_device_not_zeroed),
	KUNIT_CASE(zone_device_not_checked),
	KUNIT_CASE(zone_device_memmap_freed),
	KUNIT_CASE_SLOW(zone_device_gone),
	KUNIT_CASE_SLOW(zone_device_neighbours_gone),
	KUNIT_CASE_SLOW(zone_device_add_fails),
	KUNIT_CASE(zone_device_found),
	{}
};

static struct kunit_suite zone_device_test_suite = {
	.name = "zone_device_memmap",
	.test_cases = zone_device_test_cases,
};

kunit_test_suites(&zone_device_test_suite);

#ifdef CONFIG_MEMMAP_ASYNC_DEVICE

static const struct zone_device_case background_case = {
	"fs_dax", MEMORY_DEVICE_FS_DAX, 0, OFFSET, 8 * PAGES_PER_SECTION * PAGE_SIZE, 1
};

/* Workers that never get to run. */
static void no_workers(struct memmap_async *job)
{
}

/*
 * Maps @c in the background, but without workers, and makes sure that the pages
 * of all sections that are its own, which nobody uses yet, hold no old memmap.
 */
static struct dev_pagemap *background_map(struct kunit *test,
					  const struct zone_device_case *c)
{
	struct dev_pagemap *pgmap = zone_device_alloc(test, c);
	int i;

	pgmap->flags = PGMAP_MEMMAP_ASYNC;
	kunit_activate_static_stub(test, pgmap_jobs_start_workers, no_workers);
	zone_device_map(test, pgmap, numa_mem_id());
	KUNIT_ASSERT_NOT_NULL_MSG(test, pgmap->memmap_jobs, "memmap_async=on is needed");

	for (i = 0; i < c->nr_range; i++) {
		unsigned long first = SECTION_ALIGN_UP(PHYS_PFN(pgmap->ranges[i].start));
		unsigned long last = SECTION_ALIGN_DOWN(PHYS_PFN(pgmap->ranges[i].end + 1));

		memset(pfn_to_page(first), 0xff, (last - first) * sizeof(struct page));
	}
	return pgmap;
}

/* A subsection in the midst of those that are not ready from the start. */
static unsigned long background_pfn(struct dev_pagemap *pgmap)
{
	unsigned long start_pfn = PHYS_PFN(pgmap->range.start);

	return SECTION_ALIGN_UP(start_pfn) + 37 * PAGES_PER_SUBSECTION;
}

static bool touched(unsigned long pfn)
{
	return memchr_inv(pfn_to_page(pfn), 0xff, sizeof(struct page));
}

static void expect_pfns(struct kunit *test, struct dev_pagemap *pgmap,
			unsigned long start_pfn, unsigned long end_pfn,
			struct page *want)
{
	struct range range = {
		.start	= PFN_PHYS(start_pfn),
		.end	= PFN_PHYS(end_pfn) - 1,
	};

	expect_range(test, pgmap, &range, want, pgmap->nid);
}

/* In the end it is the same memmap. */
static void background_memmap(struct kunit *test)
{
	const struct zone_device_case *c = test->param_value;
	struct dev_pagemap *pgmap = zone_device_alloc(test, c);
	struct page *want = want_alloc(test);
	int i, nid = numa_mem_id();

	pgmap->flags = PGMAP_MEMMAP_ASYNC;
	zone_device_map(test, pgmap, nid);
	KUNIT_EXPECT_EQ(test, pgmap->flags, 0);

	for (i = 0; i < c->nr_range; i++) {
		struct range *range = &pgmap->ranges[i];

		KUNIT_EXPECT_EQ(test, 0, memmap_sync(PHYS_PFN(range->start),
						     PHYS_PFN(range_len(range))));
		expect_range(test, pgmap, range, want, nid);
	}
}

/* A caller who needs a page gets its subsection, and nothing but that. */
static void background_sync(struct kunit *test)
{
	struct dev_pagemap *pgmap = background_map(test, &background_case);
	unsigned long start = PHYS_PFN(pgmap->range.start);
	unsigned long end = PHYS_PFN(pgmap->range.end + 1);
	unsigned long pfn = background_pfn(pgmap), p;
	unsigned long first = SECTION_ALIGN_UP(start), last = SECTION_ALIGN_DOWN(end);
	struct page *want = want_alloc(test);

	KUNIT_EXPECT_EQ(test, 1, atomic_read(&memmap_async_active));

	/* Sections that are not all of the range are ready from the start. */
	KUNIT_ASSERT_LT(test, start, first);
	KUNIT_ASSERT_LT(test, last, end);
	expect_pfns(test, pgmap, start, first, want);
	expect_pfns(test, pgmap, last, end, want);

	KUNIT_EXPECT_EQ(test, 0, memmap_sync(pfn, 0));
	KUNIT_EXPECT_FALSE(test, touched(pfn));
	KUNIT_EXPECT_EQ(test, 0, memmap_sync(pfn + 7, 1));
	expect_pfns(test, pgmap, pfn, pfn + PAGES_PER_SUBSECTION, want);
	for (p = first; p < last; p++)
		KUNIT_ASSERT_EQ_MSG(test, touched(p),
				    p >= pfn && p < pfn + PAGES_PER_SUBSECTION, "pfn %#lx", p);

	KUNIT_EXPECT_EQ(test, 0, memmap_sync(pfn - 1, PAGES_PER_SUBSECTION + 2));
	expect_pfns(test, pgmap, pfn - PAGES_PER_SUBSECTION,
		    pfn + 2 * PAGES_PER_SUBSECTION, want);

	KUNIT_EXPECT_EQ(test, -EINVAL, memmap_sync(end - 1, 2));
	KUNIT_EXPECT_EQ(test, -EINVAL, memmap_sync(start, ULONG_MAX));
	/* Neither device memory nor our business. */
	KUNIT_EXPECT_EQ(test, 0, memmap_sync(page_to_pfn(virt_to_page(test)), 1));

	KUNIT_EXPECT_EQ(test, 0, memmap_sync(start, end - start));
	expect_range(test, pgmap, &pgmap->range, want, pgmap->nid);
}

/* A pgmap counts as active until its last range is ready, and no longer. */
static void background_idle(struct kunit *test)
{
	static const struct zone_device_case c = {
		"fs_dax, three ranges", MEMORY_DEVICE_FS_DAX, 0, 0, SZ_64K * PAGE_SIZE, 3
	};
	struct dev_pagemap *pgmap = background_map(test, &c);
	int i;

	for (i = 0; i < c.nr_range; i++) {
		struct range *range = &pgmap->ranges[i];

		KUNIT_EXPECT_EQ(test, 1, atomic_read(&memmap_async_active));
		KUNIT_EXPECT_EQ(test, 0, memmap_sync(PHYS_PFN(range->start),
						     PHYS_PFN(range_len(range))));
	}
	KUNIT_EXPECT_EQ(test, 0, atomic_read(&memmap_async_active));
}

#ifdef CONFIG_MEMORY_FAILURE
static void background_memory_failure(struct kunit *test)
{
	struct dev_pagemap *pgmap = background_map(test, &background_case);
	unsigned long pfn = background_pfn(pgmap);
	unsigned long recovered = NODE_DATA(pgmap->nid)->mf_stats.recovered;

	KUNIT_EXPECT_EQ(test, 0, memory_failure(pfn, MF_SW_SIMULATED));
	KUNIT_EXPECT_EQ(test, recovered + 1, NODE_DATA(pgmap->nid)->mf_stats.recovered);
	KUNIT_EXPECT_FALSE(test, touched(pfn + PAGES_PER_SUBSECTION));
}

/* A page that has no struct page to be asked is poisoned all the same. */
static void background_memory_failure_early(struct kunit *test)
{
	struct dev_pagemap *pgmap = background_map(test, &background_case);
	unsigned long pfn = background_pfn(pgmap);
	struct memory_failure_stats *stats = &NODE_DATA(pgmap->nid)->mf_stats;
	const struct vmem_altmap altmap = {
		.base_pfn = PHYS_PFN(pgmap->range.start),
		.reserve = pfn + 1 - PHYS_PFN(pgmap->range.start),
	};
	struct memory_failure_stats before = *stats;

	/* What the driver reserved: nobody ever initializes that. */
	memcpy(&pgmap->altmap, &altmap, sizeof(altmap));
	pgmap->flags |= PGMAP_ALTMAP_VALID;
	KUNIT_EXPECT_EQ(test, -ENXIO, memory_failure(pfn, MF_SW_SIMULATED));
	pgmap->flags &= ~PGMAP_ALTMAP_VALID;
	KUNIT_EXPECT_EQ(test, before.failed + 1, stats->failed);
	KUNIT_EXPECT_EQ(test, before.total + 1, stats->total);

	/* The device is going away. */
	pgmap_jobs_cancel(pgmap);
	KUNIT_EXPECT_EQ(test, -ENXIO, memory_failure(pfn, MF_SW_SIMULATED));
	KUNIT_EXPECT_EQ(test, before.failed + 2, stats->failed);
	KUNIT_EXPECT_EQ(test, before.total + 2, stats->total);
	KUNIT_EXPECT_FALSE(test, touched(pfn));
}
#endif

#if IS_BUILTIN(CONFIG_DAX)
static long background_dax_access(struct dax_device *dax_dev, pgoff_t pgoff,
				  long nr_pages, enum dax_access_mode mode,
				  void **kaddr, unsigned long *pfn)
{
	struct dev_pagemap *pgmap = dax_get_private(dax_dev);

	if (pfn)
		*pfn = PHYS_PFN(pgmap->range.start) + pgoff;
	return PHYS_PFN(range_len(&pgmap->range)) - pgoff;
}

static int background_dax_zero(struct dax_device *dax_dev, pgoff_t pgoff, size_t nr_pages)
{
	return -EIO;
}

static const struct dax_operations background_dax_ops = {
	.direct_access = background_dax_access,
	.zero_page_range = background_dax_zero,
};

/* Whoever asks for a pfn gets struct pages with it; who does not gets none. */
static void background_dax(struct kunit *test)
{
	struct dev_pagemap *pgmap = background_map(test, &background_case);
	unsigned long pfn = PHYS_PFN(pgmap->range.start), got = 0;
	struct dax_device *dax_dev = alloc_dax(pgmap, &background_dax_ops);
	const pgoff_t pgoff = background_pfn(pgmap) - pfn;
	void *kaddr;
	int id;

	KUNIT_ASSERT_FALSE(test, IS_ERR(dax_dev));

	id = dax_read_lock();
	KUNIT_EXPECT_EQ(test, 3, dax_direct_access(dax_dev, pgoff, 3, DAX_ACCESS, &kaddr, NULL));
	KUNIT_EXPECT_FALSE(test, touched(pfn + pgoff));

	KUNIT_EXPECT_EQ(test, 3, dax_direct_access(dax_dev, pgoff, 3, DAX_ACCESS, &kaddr, &got));
	KUNIT_EXPECT_EQ(test, got, pfn + pgoff);
	KUNIT_EXPECT_PTR_EQ(test, page_pgmap(pfn_to_page(got)), pgmap);
	KUNIT_EXPECT_FALSE(test, touched(got + PAGES_PER_SUBSECTION));
	dax_read_unlock(id);

	kill_dax(dax_dev);
	put_dax(dax_dev);
}
#endif

struct background_unmapper {
	struct dev_pagemap *pgmap;
	struct completion done;
};

static int background_unmap(void *data)
{
	struct background_unmapper *u = data;

	memunmap_pages(u->pgmap);
	complete(&u->done);
	return 0;
}

/*
 * A caller with a reference while the device goes away is told so, also of pages
 * that were ready, and the memmap stays until the reference is put.
 */
static void background_dying(struct kunit *test)
{
	struct dev_pagemap *pgmap = background_map(test, &background_case);
	unsigned long pfn = background_pfn(pgmap);
	struct background_unmapper u = { .pgmap = pgmap };
	int i;

	init_completion(&u.done);
	KUNIT_ASSERT_PTR_EQ(test, pgmap, get_dev_pagemap(pfn));
	KUNIT_EXPECT_EQ(test, 0, pgmap_jobs_sync(pgmap, pfn, 1));

	kunit_remove_action(test, zone_device_unmap, pgmap);
	KUNIT_ASSERT_FALSE(test, IS_ERR(kthread_run(background_unmap, &u, "unmap")));
	for (i = 0; i < 1000 && !percpu_ref_is_dying(&pgmap->ref); i++)
		fsleep(1000);

	KUNIT_EXPECT_EQ(test, -ENXIO, memmap_sync(pfn, 1));
	KUNIT_EXPECT_EQ(test, -ENXIO, pgmap_jobs_sync(pgmap, pfn, 1));
	KUNIT_EXPECT_EQ(test, -ENXIO, pgmap_jobs_sync(pgmap, pfn + PAGES_PER_SUBSECTION, 1));
	KUNIT_EXPECT_FALSE(test, touched(pfn + PAGES_PER_SUBSECTION));
	KUNIT_EXPECT_FALSE(test, completion_done(&u.done));

	put_dev_pagemap(pgmap);
	wait_for_completion(&u.done);
	KUNIT_EXPECT_NULL(test, pgmap->memmap_jobs);
	KUNIT_EXPECT_EQ(test, 0, atomic_read(&memmap_async_active));
	KUNIT_EXPECT_EQ(test, 0, memmap_sync(pfn, 1));
}

/* Unmapped at all moments, with a task that faults in pages all the while. */
struct background_faulter {
	unsigned long start;
	unsigned long nr_ready, nr_not_ready;
};

static int background_faults(void *data)
{
	struct background_faulter *f = data;
	unsigned long start = f->start, pos = 0;

	while (!kthread_should_stop()) {
		struct dev_pagemap *pgmap;

		pos = (pos + 37 * PAGES_PER_SUBSECTION + 1) % PHYS_PFN(background_case.size);
		pgmap = get_dev_pagemap(start + pos);
		if (pgmap && !memmap_sync(start + pos, 1)) {
			if (page_pgmap(pfn_to_page(start + pos)) == pgmap)
				f->nr_ready++;
			else
				f->nr_not_ready++;
		}
		if (pgmap)
			put_dev_pagemap(pgmap);
		cond_resched();
	}
	return 0;
}

static void background_unmap_race(struct kunit *test)
{
	struct dev_pagemap *pgmap = zone_device_alloc(test, &background_case);
	struct background_faulter f = { .start = PHYS_PFN(pgmap->range.start) };
	struct task_struct *task;
	int round;

	task = kthread_run(background_faults, &f, "background_faults");
	KUNIT_ASSERT_FALSE(test, IS_ERR(task));
	for (round = 0; round < 30; round++) {
		pgmap->flags = PGMAP_MEMMAP_ASYNC;
		if (IS_ERR(memremap_pages(pgmap, numa_mem_id()))) {
			KUNIT_FAIL(test, "round %d", round);
			break;
		}
		fsleep(round * 200);
		memunmap_pages(pgmap);
	}
	kthread_stop(task);
	KUNIT_EXPECT_EQ(test, f.nr_not_ready, 0);
	/* Else this test tested nothing. */
	KUNIT_EXPECT_GT(test, f.nr_ready, 0);
	KUNIT_EXPECT_EQ(test, 0, atomic_read(&memmap_async_active));
}

/* What the driver wants once is not left to the pgmap's next driver. */
static void background_refused(struct kunit *test)
{
	static const struct zone_device_case c = {
		"private", MEMORY_DEVICE_PRIVATE, 0, 0, SZ_1G, 1
	};
	struct dev_pagemap *pgmap = zone_device_alloc(test, &c);

	pgmap->flags = PGMAP_MEMMAP_ASYNC;
	pgmap->ops = NULL;
	kunit_warning_suppress(test) {
		void *addr = memremap_pages(pgmap, numa_mem_id());

		KUNIT_EXPECT_EQ(test, PTR_ERR_OR_ZERO(addr), -EINVAL);
	}
	KUNIT_EXPECT_EQ(test, pgmap->flags, 0);
}

#if IS_BUILTIN(CONFIG_DAX)
static bool has_memmap_state(struct device *dev)
{
	struct kernfs_node *kn = kernfs_find_and_get(dev->kobj.sd, "memmap_state");

	kernfs_put(kn);
	return kn;
}

/* A device has the attributes as long as its memmap was not complete from the start. */
static void background_attrs(struct kunit *test)
{
	struct dev_pagemap *pgmap = zone_device_alloc(test, &background_case);
	struct device *dev = kunit_device_register(test, "memmap_background");
	unsigned long total;

	KUNIT_ASSERT_FALSE(test, IS_ERR(dev));
	kunit_activate_static_stub(test, pgmap_jobs_start_workers, no_workers);
	KUNIT_ASSERT_EQ(test, 0, device_add_groups(dev, dax_memmap_groups));
	KUNIT_EXPECT_FALSE(test, has_memmap_state(dev));
	device_remove_groups(dev, dax_memmap_groups);

	pgmap->flags = PGMAP_MEMMAP_ASYNC;
	KUNIT_ASSERT_FALSE(test, IS_ERR(devm_dax_memremap_pages(dev, pgmap)));
	KUNIT_ASSERT_EQ(test, 0, device_add_groups(dev, dax_memmap_groups));
	KUNIT_EXPECT_TRUE(test, has_memmap_state(dev));
	KUNIT_EXPECT_EQ(test, 0, memmap_sync(background_pfn(pgmap), 1));
	KUNIT_EXPECT_LT(test, memmap_async_progress(pgmap, &total), total);
	KUNIT_EXPECT_EQ(test, 0, memmap_async_complete(pgmap));
	KUNIT_EXPECT_EQ(test, memmap_async_progress(pgmap, &total), total);
	device_remove_groups(dev, dax_memmap_groups);
	devm_memunmap_pages(dev, pgmap);

	/* Without the flag it is complete on return. */
	KUNIT_ASSERT_FALSE(test, IS_ERR(devm_dax_memremap_pages(dev, pgmap)));
	KUNIT_ASSERT_EQ(test, 0, device_add_groups(dev, dax_memmap_groups));
	KUNIT_EXPECT_FALSE(test, has_memmap_state(dev));
	device_remove_groups(dev, dax_memmap_groups);
	devm_memunmap_pages(dev, pgmap);
}
#endif

/* A range that can't be mapped takes those along that were begun with. */
static void background_second_range_fails(struct kunit *test)
{
	static const struct zone_device_case c = {
		"fs_dax, two ranges", MEMORY_DEVICE_FS_DAX, 0, 0, SZ_1G, 2
	};
	struct dev_pagemap *pgmap = zone_device_alloc(test, &c);
	unsigned long pfn = PHYS_PFN(pgmap->ranges[0].start);

	pgmap->ranges[1] = pgmap->ranges[0];
	pgmap->flags = PGMAP_MEMMAP_ASYNC;

	kunit_warning_suppress(test) {
		void *addr = memremap_pages(pgmap, numa_mem_id());

		KUNIT_EXPECT_EQ(test, PTR_ERR_OR_ZERO(addr), -ENOMEM);
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 1);
	}
	KUNIT_EXPECT_NULL(test, pgmap->memmap_jobs);
	KUNIT_EXPECT_EQ(test, pgmap->flags, 0);
	KUNIT_EXPECT_EQ(test, 0, atomic_read(&memmap_async_active));
	KUNIT_EXPECT_EQ(test, 0, memmap_sync(pfn, 1));
}

/* A range without a vmemmap is reported as long as a caller is there to hear of it. */
static void background_no_vmemmap(struct kunit *test)
{
	static const struct zone_device_case c = {
		"private, an altmap without room", MEMORY_DEVICE_PRIVATE, 0, 0, SZ_1G, 1
	};
	struct dev_pagemap *pgmap = zone_device_alloc(test, &c);
	unsigned long pfn = PHYS_PFN(pgmap->range.start);
	const struct vmem_altmap altmap = { .base_pfn = pfn };
	void *addr;

	memcpy(&pgmap->altmap, &altmap, sizeof(altmap));
	pgmap->flags = PGMAP_MEMMAP_ASYNC | PGMAP_ALTMAP_VALID;

	addr = memremap_pages(pgmap, numa_mem_id());
	KUNIT_EXPECT_EQ(test, PTR_ERR_OR_ZERO(addr), -ENOMEM);
	KUNIT_EXPECT_NULL(test, pgmap->memmap_jobs);
	KUNIT_EXPECT_EQ(test, 0, atomic_read(&memmap_async_active));
	KUNIT_EXPECT_EQ(test, 0, memmap_sync(pfn, 1));
}

static struct memmap_async *no_memory(const struct memmap_async_desc *desc)
{
	return ERR_PTR(-ENOMEM);
}

/* Without memory for a job it is complete on return. */
static void background_no_memory(struct kunit *test)
{
	struct dev_pagemap *pgmap = zone_device_alloc(test, &background_case);
	struct page *want = want_alloc(test);

	pgmap->flags = PGMAP_MEMMAP_ASYNC;
	kunit_activate_static_stub(test, memmap_async_alloc, no_memory);
	zone_device_map(test, pgmap, numa_mem_id());
	KUNIT_EXPECT_NULL(test, pgmap->memmap_jobs);
	expect_range(test, pgmap, &pgmap->range, want, pgmap->nid);
}

static struct kunit_case background_test_cases[] = {
	KUNIT_CASE_PARAM_ATTR(background_memmap, zone_device_gen_params,
			      { .speed = KUNIT_SPEED_SLOW }),
	KUNIT_CASE(background_sync),
	KUNIT_CASE(background_idle),
#ifdef CONFIG_MEMORY_FAILURE
	KUNIT_CASE(background_memory_failure),
	KUNIT_CASE(background_memory_failure_early),
#endif
#if IS_BUILTIN(CONFIG_DAX)
	KUNIT_CASE(background_dax),
#endif
	KUNIT_CASE(background_dying),
	KUNIT_CASE_SLOW(background_unmap_race),
	KUNIT_CASE(background_refused),
#if IS_BUILTIN(CONFIG_DAX)
	KUNIT_CASE(background_attrs),
#endif
	KUNIT_CASE(background_second_range_fails),
	KUNIT_CASE(background_no_vmemmap),
	KUNIT_CASE(background_no_memory),
	{}
};

static struct kunit_suite background_test_suite = {
	.name = "memmap_background",
	.test_cases = background_test_cases,
};

kunit_test_suites(&background_test_suite);

#endif /* CONFIG_MEMMAP_ASYNC_DEVICE */

MODULE_DESCRIPTION("KUnit tests for the memmap of device memory");
MODULE_LICENSE("GPL");
