// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests for the memmap of device memory: after memremap_pages() each
 * struct page and each pageblock of a range must hold exactly what is spelled
 * out here, page by page, whatever route mm/mm_init.c takes to write it.
 *
 * The ranges are free physical address space, so no device is needed.  An
 * altmap cannot be tested like that: its memmap would live in the range itself.
 */
#include <kunit/test.h>
#include <linux/ioport.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>
#include "../internal.h"

/*
 * Beyond so many pages a compound's tails are all alike.  Comparing a few
 * thousand of them finds what can go wrong, and keeps the 1 GiB cases short.
 */
#define COMPOUND_CHECK_PAGES	4096UL

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
	{ "fs_dax, partial sections", MEMORY_DEVICE_FS_DAX, 0, SZ_64M + SZ_2M, SZ_256M, 1 },
	{ "fs_dax, large", MEMORY_DEVICE_FS_DAX, 0, 0, SZ_2G, 1 },
	{ "generic, large", MEMORY_DEVICE_GENERIC, 0, 0, SZ_1G, 1 },
	{ "private, three ranges", MEMORY_DEVICE_PRIVATE, 0, 0, SZ_256M, 3 },
	{ "fs_dax, three ranges", MEMORY_DEVICE_FS_DAX, 0, SZ_2M, SZ_256M, 3 },
	{ "generic, 32K compounds", MEMORY_DEVICE_GENERIC, 3, 0, SZ_16M, 1 },
	{ "generic, 2M compounds", MEMORY_DEVICE_GENERIC, 9, 0, SZ_16M, 1 },
	{ "generic, 2M compounds, partial sections", MEMORY_DEVICE_GENERIC, 9, SZ_2M, SZ_256M, 1 },
	{ "generic, 2M compounds, large", MEMORY_DEVICE_GENERIC, 9, 0, SZ_1G, 1 },
	{ "generic, 1G compounds", MEMORY_DEVICE_GENERIC, 18, 0, SZ_2G, 1 },
	{ "fs_dax, 2M compounds", MEMORY_DEVICE_FS_DAX, 9, 0, SZ_256M, 1 },
	{ "generic, 2M compounds, three ranges", MEMORY_DEVICE_GENERIC, 9, 0, SZ_256M, 3 },
};

KUNIT_ARRAY_PARAM_DESC(zone_device, zone_device_cases, name);

static void zone_device_test_folio_free(struct folio *folio)
{
}

static vm_fault_t zone_device_test_migrate_to_ram(struct vm_fault *vmf)
{
	return VM_FAULT_SIGBUS;
}

static const struct dev_pagemap_ops zone_device_test_ops = {
	.folio_free = zone_device_test_folio_free,
	.migrate_to_ram = zone_device_test_migrate_to_ram,
};

KUNIT_DEFINE_ACTION_WRAPPER(zone_device_unmap, memunmap_pages, struct dev_pagemap *);

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

static void zone_device_memmap(struct kunit *test)
{
	const struct zone_device_case *c = test->param_value;
	unsigned long stride = ALIGN(c->offset + c->size, SZ_1G);
	int i, nid = numa_mem_id();
	struct dev_pagemap *pgmap;
	struct resource *res;
	struct page *want;
	void *addr;

	pgmap = kunit_kzalloc(test, struct_size(pgmap, ranges, c->nr_range), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, pgmap);

	want = vmalloc(sizeof(*want) * COMPOUND_CHECK_PAGES);
	KUNIT_ASSERT_NOT_NULL(test, want);
	KUNIT_ASSERT_EQ(test, 0, kunit_add_action_or_reset(test, (kunit_action_t *)vfree, want));

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

	addr = memremap_pages(pgmap, nid);
	KUNIT_ASSERT_FALSE(test, IS_ERR(addr));
	KUNIT_ASSERT_EQ(test, 0, kunit_add_action_or_reset(test, zone_device_unmap, pgmap));

	for (i = 0; i < c->nr_range; i++)
		expect_range(test, pgmap, &pgmap->ranges[i], want, nid);
}

static struct kunit_case zone_device_test_cases[] = {
	KUNIT_CASE_PARAM_ATTR(zone_device_memmap, zone_device_gen_params,
			      { .speed = KUNIT_SPEED_SLOW }),
	{}
};

static struct kunit_suite zone_device_test_suite = {
	.name = "zone_device_memmap",
	.test_cases = zone_device_test_cases,
};

kunit_test_suite(zone_device_test_suite);

MODULE_DESCRIPTION("KUnit tests for the memmap of device memory");
MODULE_LICENSE("GPL");
