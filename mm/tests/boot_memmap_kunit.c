// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests for the memmap of the memory that the kernel was booted with:
 * none of its struct pages may have been forgotten, and none been initialized,
 * or given to the page allocator, twice. So it is when memory comes back online.
 */
#include <kunit/test.h>
#include <linux/initrd.h>
#include <linux/memmap_async.h>
#include <linux/memory.h>
#include <linux/memory_hotplug.h>
#include <linux/mm.h>
#include <linux/mmzone.h>
#include <linux/page-isolation.h>
#include <linux/page_ext.h>
#include <linux/poison.h>
#include <linux/set_memory.h>
#include <linux/vmstat.h>
#include <asm/sections.h>
#include "../internal.h"
#include "../page_alloc.h"

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

	/* The initrd's pages are given to the page allocator after that. */
	wait_for_initramfs();

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

/* A page that was freed at boot, as part of a block, and not used since. */
static void want_fresh(struct page *want, struct page *page)
{
	memset(want, 0, sizeof(*want));
	set_page_links(want, page_zonenum(page), page_to_nid(page), page_to_pfn(page));
	page_cpupid_reset_last(want);
	page_kasan_tag_reset(want);
	atomic_set(&want->_mapcount, -1);
	want->lru.next = &page->lru;
	want->lru.prev = &page->lru;
#ifdef WANT_PAGE_VIRTUAL
	set_page_address(want, lowmem_page_address(page));
#endif
}

/* What page->flags and the like must not say of a free page, used before or not. */
static bool looks_free(struct page *page)
{
	return !page_ref_count(page) && !page->mapping && !page_has_type(page) &&
	       atomic_read(&page->_mapcount) == -1 &&
	       !(page->flags.f & PAGE_FLAGS_CHECK_AT_PREP);
}

/* Options that make a free page's memory inaccessible, or leave a mark in it. */
static bool content_is_free(struct page *page)
{
#ifdef CONFIG_ARCH_HAS_SET_DIRECT_MAP
	if (debug_pagealloc_enabled_static())
		return !kernel_page_present(page);
#endif
	if (page_poisoning_enabled_static())
		return !memchr_inv(page_address(page), PAGE_POISON, PAGE_SIZE);
	return !want_init_on_free() || !memchr_inv(page_address(page), 0, PAGE_SIZE);
}

/* With page_owner=on: allocated, says the owner's record, which freeing clears. */
static bool has_owner(struct page *page)
{
	bool ret = false;
#ifdef CONFIG_PAGE_OWNER
	struct page_ext *page_ext = page_ext_get(page);

	if (page_ext) {
		ret = test_bit(PAGE_EXT_OWNER_ALLOCATED, &page_ext->flags);
		page_ext_put(page_ext);
	}
#endif
	return ret;
}

static bool is_free_block(struct page *page)
{
	return PageBuddy(page) && buddy_order_unsafe(page) == MAX_PAGE_ORDER;
}

/* Nearly all of it is still as boot left it, word by word. */
static void boot_memmap_free(struct kunit *test)
{
	unsigned long pfn, nr_pages = 0, nr_fresh = 0;
	struct page want;
	struct zone *zone;

	for_each_populated_zone(zone) {
		pfn = ALIGN(zone->zone_start_pfn, MAX_ORDER_NR_PAGES);

		for (; pfn < zone_end_pfn(zone); pfn += MAX_ORDER_NR_PAGES) {
			struct page *page = pfn_to_online_page(pfn);
			unsigned long i, bad = 0;

			if (!page || page_zone(page) != zone || !is_free_block(page))
				continue;

			spin_lock_irq(&zone->lock);
			/* The first one knows about the block. */
			for (i = 1; i < MAX_ORDER_NR_PAGES && is_free_block(page); i++) {
				want_fresh(&want, page + i);
				nr_fresh += !memcmp(&want, page + i, sizeof(want));
				nr_pages++;
				if (!looks_free(page + i) || has_owner(page + i) ||
				    (!(i % 128) && !content_is_free(page + i)))
					bad = i;
			}
			spin_unlock_irq(&zone->lock);

			if (bad) {
				KUNIT_FAIL(test, "pfn %#lx: %*ph", pfn + bad,
					   (int)sizeof(*page), page + bad);
				return;
			}
			cond_resched();
		}
	}
	kunit_info(test, "%lu of %lu fresh", nr_fresh, nr_pages);
	KUNIT_EXPECT_GT(test, nr_fresh, nr_pages / 2);
}

/* The kernel itself is in early memory, and nobody touches the struct pages of its text. */
static void boot_memmap_text(struct kunit *test)
{
	unsigned long pfn = PHYS_PFN(__pa_symbol(_stext));
	unsigned long end_pfn = PHYS_PFN(__pa_symbol(_etext));
	struct page want;

	for (; pfn < end_pfn; pfn++) {
		struct page *page = pfn_to_page(pfn);

		want_fresh(&want, page);
		__set_bit(PG_reserved, &want.flags.f);
		atomic_set(&want._refcount, 1);
		if (memcmp(&want, page, sizeof(want))) {
			KUNIT_FAIL(test, "pfn %#lx: %*ph", pfn, (int)sizeof(*page), page);
			return;
		}
		if (!zone_spans_pfn(page_zone(page), pfn)) {
			KUNIT_FAIL(test, "pfn %#lx is not in zone %s", pfn, page_zone(page)->name);
			return;
		}
	}
}

#ifdef CONFIG_MEMORY_HOTREMOVE
/* What the callback finds, which is told of one block of pages at a time. */
static struct {
	unsigned long nr_pages, bad_pfn;
	int bad_pageblocks, nr_tails, nr_tails_touched;
	struct page bad;
} onlined;

/* Pages that are about to be onlined are offline, and their pageblocks isolated. */
static void check_online_page(struct page *page, unsigned int order)
{
	unsigned long i;
	struct page want;

	for (i = 0; i < 1 << order; i++) {
		want_fresh(&want, page + i);
		atomic_set(&want._refcount, 1);
		__SetPageOffline(&want);
		if (memcmp(&want, page + i, sizeof(want))) {
			onlined.bad_pfn = page_to_pfn(page + i);
			onlined.bad = page[i];
		}
		if (pageblock_aligned(page_to_pfn(page + i)))
			onlined.bad_pageblocks += !is_migrate_isolate_page(page + i);
	}
	onlined.nr_pages += 1 << order;

	/* A flag that is not there for a fresh page, and would be cleared. */
	if (order)
		__set_bit(PG_referenced, &page[1].flags.f);
	generic_online_page(page, order);
	/* Nobody has got the page yet, since its pageblock is isolated. */
	if (order) {
		onlined.nr_tails++;
		onlined.nr_tails_touched += !__test_and_clear_bit(PG_referenced,
								  &page[1].flags.f);
	}
}

/* With these the page allocator looks at all pages that are freed. */
static bool all_pages_checked(void)
{
#ifdef CONFIG_MEMORY_FAILURE
	if (atomic_long_read(&num_poisoned_pages))
		return true;
#endif
	return IS_ENABLED(CONFIG_DEBUG_VM);
}

/* A block of memory that is free, so that it is certain to go offline. */
static struct memory_block *free_memory_block(unsigned long nr_pages)
{
	struct zone *zone;

	for_each_populated_zone(zone) {
		unsigned long pfn = ALIGN_DOWN(zone_end_pfn(zone), nr_pages);

		for (; pfn > zone->zone_start_pfn + nr_pages; pfn -= nr_pages) {
			unsigned long i;

			for (i = 1; i <= nr_pages / MAX_ORDER_NR_PAGES; i++) {
				struct page *page;

				page = pfn_to_online_page(pfn - i * MAX_ORDER_NR_PAGES);
				if (!page || page_zone(page) != zone || !is_free_block(page))
					break;
			}
			if (i > nr_pages / MAX_ORDER_NR_PAGES)
				return memory_block_get(PFN_PHYS(pfn - 1) /
							memory_block_size_bytes());
		}
	}
	return NULL;
}

/* Memory that is added comes by the same way as memory that is onlined again. */
static void boot_memmap_online(struct kunit *test)
{
	unsigned long nr_pages = PHYS_PFN(memory_block_size_bytes());
	unsigned long pfn, i, nr_fresh = 0, bad_pfn = 0;
	struct memory_block *block;
	struct page want;
	int round, err = 0;

	if (set_online_page_callback(check_online_page))
		kunit_skip(test, "a driver takes the pages that are onlined");
	lock_device_hotplug();
	block = free_memory_block(nr_pages);
	if (!block)
		goto out;
	pfn = section_nr_to_pfn(block->start_section_nr);

	for (round = 0; round < 2; round++) {
		err = device_offline(&block->dev);
		if (err == -EPERM)
			goto put;
		KUNIT_EXPECT_EQ(test, err, 0);
		if (err)
			break;
		memset(&onlined, 0, sizeof(onlined));
		KUNIT_EXPECT_EQ(test, device_online(&block->dev), 0);
		KUNIT_EXPECT_EQ(test, onlined.nr_pages, nr_pages);
		KUNIT_EXPECT_EQ(test, onlined.bad_pageblocks, 0);
		KUNIT_EXPECT_GT(test, onlined.nr_tails, 0);
		if (!all_pages_checked())
			KUNIT_EXPECT_EQ(test, onlined.nr_tails_touched, 0);
		if (onlined.bad_pfn)
			KUNIT_FAIL(test, "pfn %#lx: %*ph", onlined.bad_pfn,
				   (int)sizeof(onlined.bad), &onlined.bad);
	}

	for (i = 0; !err && i < nr_pages; i++) {
		struct page *page = pfn_to_page(pfn + i);

		want_fresh(&want, page);
		nr_fresh += !memcmp(&want, page, sizeof(want));
		if (pageblock_aligned(pfn + i) && is_migrate_isolate_page(page))
			bad_pfn = pfn + i;
		/* What is in use by now is no matter of this test. */
		if (PageOffline(page) || PageReserved(page))
			bad_pfn = pfn + i;
	}
	KUNIT_EXPECT_EQ(test, bad_pfn, 0);
	KUNIT_EXPECT_GT(test, nr_fresh, nr_pages / 2);
put:
	memory_block_put(block);
out:
	unlock_device_hotplug();
	restore_online_page_callback(check_online_page);
	/* arm64 does so. */
	if (err == -EPERM)
		kunit_skip(test, "the memory that the kernel was booted with stays online");
	if (!block)
		kunit_skip(test, "no block of memory is free");
}
#else
static void boot_memmap_online(struct kunit *test)
{
	kunit_skip(test, "memory cannot go offline");
}
#endif

static bool is_hidden(unsigned long pfn)
{
	unsigned long nr = pfn_to_section_nr(pfn);

	return present_section_nr(nr) && !online_section_nr(nr);
}

#ifdef CONFIG_DEFERRED_INIT_OVERLAP
/* What was seen while boot went on. With memmap_async=hold, no worker interfered. */
static struct {
	bool held;
	unsigned long nr_hidden, nr_hidden_after, pfn, nr_online, nr_bad, bad_pfn, initrd_pfn;
	bool ready;
	int soft_offline, memory_failure, contig;
	bool nolock, initrd_offline;
	unsigned long nr_wanted, nr_allocated, nr_offline, nr_stalls;
	int offline;
	bool shrinks;
} boot_early;

/* Sections that are there, and offline; @first_pfn becomes that of the first one. */
static unsigned long __init count_hidden_sections(unsigned long *first_pfn)
{
	unsigned long nr = 0;
	struct zone *zone;

	for_each_populated_zone(zone) {
		unsigned long pfn = SECTION_ALIGN_UP(zone->zone_start_pfn);

		for (; pfn < zone_end_pfn(zone); pfn += PAGES_PER_SECTION) {
			/* Zones of two nodes can take turns. */
			if (!is_hidden(pfn) || early_pfn_to_nid(pfn) != zone_to_nid(zone))
				continue;
			if (!nr++)
				*first_pfn = pfn;
		}
	}
	return nr;
}

static bool __init is_ready(struct page *page)
{
	return !PagePoisoned(page) && zone_spans_pfn(page_zone(page), page_to_pfn(page)) &&
	       page_to_nid(page) == zone_to_nid(page_zone(page));
}

/* What is online is ready; sections that are hidden in part would not do. */
static void __init check_online_pages(void)
{
	struct zone *zone;

	for_each_populated_zone(zone) {
		unsigned long pfn = pageblock_align(zone->zone_start_pfn);

		for (; pfn < zone_end_pfn(zone); pfn += pageblock_nr_pages) {
			struct page *page = pfn_to_online_page(pfn);

			if (!page)
				continue;
			boot_early.nr_online++;
			if (is_ready(page))
				continue;
			boot_early.nr_bad++;
			boot_early.bad_pfn = pfn;
		}
	}
}

static int __init boot_early_sync(void)
{
	unsigned long unused;
	struct page *page;

	check_online_pages();
	if (initrd_start)
		boot_early.initrd_pfn = page_to_pfn(virt_to_page((void *)initrd_start));
	boot_early.held = memmap_async_held();
	boot_early.nr_hidden = count_hidden_sections(&boot_early.pfn);
	if (!boot_early.nr_hidden)
		return 0;
	memmap_boot_sync(boot_early.pfn + 1, 1);
	page = pfn_to_online_page(boot_early.pfn + 1);
	boot_early.ready = page && is_ready(page);
	boot_early.nr_hidden_after = count_hidden_sections(&unused);
	return 0;
}
pure_initcall(boot_early_sync);

/* Who goes by pfn has that pfn's section ready, whichever it is. */
static int __init boot_early_readers(void)
{
	struct page *page = alloc_pages_nolock(0, NUMA_NO_NODE, 0);
	unsigned long pfn = 0;

	boot_early.nolock = page;
	if (page)
		free_pages_nolock(page, 0);
	if (!boot_early.held)
		return 0;
	/* Its pages are free by then. After a kexec they are deferred memory's neighbours. */
	wait_for_initramfs();
	boot_early.initrd_offline = boot_early.initrd_pfn && is_hidden(boot_early.initrd_pfn);
#ifdef CONFIG_MEMORY_FAILURE
	count_hidden_sections(&pfn);
	boot_early.soft_offline = soft_offline_page(pfn + 1, 0) ?: unpoison_memory(pfn + 1);
	count_hidden_sections(&pfn);
	boot_early.memory_failure = memory_failure(pfn + 1, MF_SW_SIMULATED) ?:
				    unpoison_memory(pfn + 1);
#endif
#ifdef CONFIG_CONTIG_ALLOC
	count_hidden_sections(&pfn);
	boot_early.contig = alloc_contig_range(pfn, pfn + pageblock_nr_pages, ACR_FLAGS_NONE,
					       GFP_KERNEL);
	if (!boot_early.contig)
		free_contig_range(pfn, pageblock_nr_pages);
#endif
	return 0;
}
late_initcall(boot_early_readers);

static unsigned long __init boot_early_stalls(void)
{
	unsigned long nr = 0;
#ifdef CONFIG_VM_EVENT_COUNTERS
	unsigned long *events = kmalloc_array(NR_VM_EVENT_ITEMS, sizeof(*events), GFP_KERNEL);
	int i;

	if (!events)
		return ULONG_MAX;
	all_vm_events(events);
	for (i = ALLOCSTALL_NORMAL; i <= ALLOCSTALL_MOVABLE; i++)
		nr += events[i];
	nr += events[PGSCAN_DIRECT] + events[PGSCAN_KSWAPD] + events[OOM_KILL];
	kfree(events);
#endif
	return nr;
}

/* Nearly all memory is there for who asks for it, and nothing is reclaimed for it. */
static int __init boot_early_hog(void)
{
	unsigned long nr = 0;
	struct page *page, *next;
	LIST_HEAD(pages);

	if (!boot_early.held || movable_node_is_enabled())
		return 0;
	boot_early.nr_stalls = boot_early_stalls();
	boot_early.nr_wanted = (nr_free_pages() + memmap_boot_nr_deferred()) / 100 * 95;
	while (nr < boot_early.nr_wanted) {
		/* First for those who cannot wait. */
		gfp_t gfp = nr < boot_early.nr_wanted / 8 * 7 ? GFP_ATOMIC : GFP_KERNEL;

		/* Those of CMA and ZONE_MOVABLE count as well. */
		gfp |= __GFP_HIGHMEM | __GFP_MOVABLE;
		page = alloc_pages(gfp | __GFP_NOWARN | __GFP_NORETRY, MAX_PAGE_ORDER);
		if (!page)
			break;
		boot_early.nr_offline += !pfn_to_online_page(page_to_pfn(page));
		list_add(&page->lru, &pages);
		nr += MAX_ORDER_NR_PAGES;
		if (nr % PHYS_PFN(SZ_1G) == 0)
			check_online_pages();
	}
	boot_early.nr_allocated = nr;
	list_for_each_entry_safe(page, next, &pages, lru)
		__free_pages(page, MAX_PAGE_ORDER);
	boot_early.nr_stalls = boot_early_stalls() - boot_early.nr_stalls;
	return 0;
}
late_initcall_sync(boot_early_hog);

#ifdef CONFIG_MEMORY_HOTREMOVE
/* The last block can go, its zone ends with the one before. */
static int __init boot_early_offline(void)
{
	pg_data_t *pgdat = NODE_DATA(early_pfn_to_nid(max_pfn - 1));
	struct zone *zone = pgdat->node_zones + pgdat->nr_zones - 1;
	unsigned long size = memory_block_size_bytes();
	unsigned long pfn = ALIGN_DOWN(zone_end_pfn(zone) - 1, PHYS_PFN(size));
	struct memory_block *block;

	/* With movable_node boot allocates nothing there, if firmware says that it can go. */
	if (!boot_early.held || !movable_node_is_enabled())
		return 0;
	block = memory_block_get(PFN_PHYS(pfn) / size);
	lock_device_hotplug();
	boot_early.offline = device_offline(&block->dev);
	boot_early.shrinks = zone_end_pfn(zone) == pfn;
	if (!boot_early.offline)
		boot_early.offline = device_online(&block->dev);
	unlock_device_hotplug();
	memory_block_put(block);
	return 0;
}
late_initcall_sync(boot_early_offline);
#endif

static void boot_memmap_early(struct kunit *test)
{
	kunit_info(test, "%lu sections were offline, %lu after one was needed",
		   boot_early.nr_hidden, boot_early.nr_hidden_after);
	if (boot_early.nr_hidden)
		KUNIT_EXPECT_TRUE(test, boot_early.ready);
	KUNIT_EXPECT_GT(test, boot_early.nr_online, 0);
	KUNIT_EXPECT_EQ_MSG(test, boot_early.nr_bad, 0, "pfn %#lx", boot_early.bad_pfn);
	KUNIT_EXPECT_TRUE(test, boot_early.nolock);
	if (!boot_early.held)
		return;

	KUNIT_EXPECT_GT(test, boot_early.nr_hidden, 0);
	KUNIT_EXPECT_EQ(test, boot_early.nr_hidden_after, boot_early.nr_hidden - 1);
	KUNIT_EXPECT_FALSE(test, boot_early.initrd_offline);
	KUNIT_EXPECT_EQ(test, boot_early.soft_offline, 0);
	KUNIT_EXPECT_EQ(test, boot_early.memory_failure, 0);
	KUNIT_EXPECT_EQ(test, boot_early.contig, 0);
	KUNIT_EXPECT_GE(test, boot_early.nr_allocated, boot_early.nr_wanted);
	KUNIT_EXPECT_EQ(test, boot_early.nr_offline, 0);
	KUNIT_EXPECT_EQ(test, boot_early.nr_stalls, 0);
	if (!movable_node_is_enabled() || !IS_ENABLED(CONFIG_MEMORY_HOTREMOVE))
		return;

	KUNIT_EXPECT_EQ(test, boot_early.offline, 0);
	KUNIT_EXPECT_TRUE(test, boot_early.shrinks);
}
#else
static void boot_memmap_early(struct kunit *test)
{
	kunit_skip(test, "boot has waited");
}
#endif

/* Nothing is left hidden. */
static void boot_memmap_each_online(struct kunit *test)
{
	struct zone *zone;

	for_each_populated_zone(zone) {
		unsigned long pfn = SECTION_ALIGN_UP(zone->zone_start_pfn);

		for (; pfn < zone_end_pfn(zone); pfn += PAGES_PER_SECTION)
			KUNIT_EXPECT_FALSE_MSG(test, is_hidden(pfn), "pfn %#lx is offline", pfn);
	}
}

static struct kunit_case boot_memmap_test_cases[] = {
	KUNIT_CASE_SLOW(boot_memmap_links),
	KUNIT_CASE_SLOW(boot_memmap_managed),
	KUNIT_CASE_SLOW(boot_memmap_pageblocks),
	KUNIT_CASE_SLOW(boot_memmap_free),
	KUNIT_CASE(boot_memmap_text),
	KUNIT_CASE_SLOW(boot_memmap_online),
	KUNIT_CASE(boot_memmap_early),
	KUNIT_CASE(boot_memmap_each_online),
	{}
};

static struct kunit_suite boot_memmap_test_suite = {
	.name = "boot_memmap",
	.test_cases = boot_memmap_test_cases,
};

kunit_test_suite(boot_memmap_test_suite);

MODULE_DESCRIPTION("KUnit tests for the memmap of boot memory");
MODULE_LICENSE("GPL");
