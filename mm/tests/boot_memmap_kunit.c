// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests for the memmap of the memory that the kernel was booted with:
 * none of its struct pages may have been forgotten, and none been initialized,
 * or given to the page allocator, twice.
 */
#include <kunit/test.h>
#include <linux/memory_hotplug.h>
#include <linux/mm.h>
#include <linux/mmzone.h>
#include <linux/page-isolation.h>

/* Struct pages that were never written to say something else, if anything. */
static void boot_memmap_links(struct kunit *test)
{
	struct zone *zone;

	for_each_populated_zone(zone) {
		unsigned long pfn, nr_pages = 0;

		for (pfn = zone->zone_start_pfn; pfn < zone_end_pfn(zone); pfn++) {
			struct page *page = pfn_to_online_page(pfn);

			if (!page)
				continue;
			if (PagePoisoned(page) || page_zonenum(page) >= MAX_NR_ZONES) {
				KUNIT_FAIL(test, "pfn %#lx is not initialized", pfn);
				return;
			}
			/* Zones overlap where nodes do. */
			if (page_zone(page) == zone)
				nr_pages++;
			if (!(pfn % PAGES_PER_SECTION))
				cond_resched();
		}
		KUNIT_EXPECT_GE_MSG(test, nr_pages, zone->present_pages, "node %d, zone %s",
				    zone_to_nid(zone), zone->name);
	}
}

/* Each page that is not reserved was given to the page allocator, once. */
static void boot_memmap_managed(struct kunit *test)
{
	struct zone *zone;

	for_each_populated_zone(zone) {
		unsigned long pfn, nr_pages = 0;

		for (pfn = zone->zone_start_pfn; pfn < zone_end_pfn(zone); pfn++) {
			struct page *page = pfn_to_online_page(pfn);

			if (page && page_zone(page) == zone && !PageReserved(page))
				nr_pages++;
			if (!(pfn % PAGES_PER_SECTION))
				cond_resched();
		}
		KUNIT_EXPECT_EQ_MSG(test, nr_pages, zone_managed_pages(zone), "node %d, zone %s",
				    zone_to_nid(zone), zone->name);
	}
}

static void boot_memmap_pageblocks(struct kunit *test)
{
	struct zone *zone;

	for_each_populated_zone(zone) {
		unsigned long pfn = pageblock_align(zone->zone_start_pfn);

		for (; pfn < zone_end_pfn(zone); pfn += pageblock_nr_pages) {
			struct page *page = pfn_to_online_page(pfn);

			if (!page || page_zone(page) != zone)
				continue;
			if (get_pageblock_migratetype(page) >= MIGRATE_TYPES ||
			    is_migrate_isolate_page(page)) {
				KUNIT_FAIL(test, "pageblock at pfn %#lx: migratetype %d", pfn,
					   get_pageblock_migratetype(page));
				return;
			}
		}
	}
}

static struct kunit_case boot_memmap_test_cases[] = {
	KUNIT_CASE_SLOW(boot_memmap_links),
	KUNIT_CASE_SLOW(boot_memmap_managed),
	KUNIT_CASE_SLOW(boot_memmap_pageblocks),
	{}
};

static struct kunit_suite boot_memmap_test_suite = {
	.name = "boot_memmap",
	.test_cases = boot_memmap_test_cases,
};

kunit_test_suite(boot_memmap_test_suite);

MODULE_DESCRIPTION("KUnit tests for the memmap of boot memory");
MODULE_LICENSE("GPL");
