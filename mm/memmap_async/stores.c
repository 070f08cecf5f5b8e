// SPDX-License-Identifier: GPL-2.0
/*
 * Which stores initialize the memmap of device memory.
 *
 * Nobody looks at these struct pages soon, so there is nothing to gain by having
 * them in the caches; stores past the caches need not read what they overwrite,
 * and leave the caches to others. Whether they are faster is another matter, and
 * machines differ by factors, in both directions. So it is found out on the spot:
 * the first device memory is initialized by turns with one kind and the other.
 *
 * Boot memory is none of this: its struct pages are looked at soon.
 */
#define pr_fmt(fmt) "memmap_async: " fmt

#include <linux/atomic.h>
#include <linux/kernel.h>
#include <linux/math64.h>
#include <linux/memmap_async.h>
#include <linux/moduleparam.h>
#include <linux/printk.h>
#include <linux/sched/clock.h>
#include <linux/sizes.h>
#include <linux/string.h>

/*
 * In struct pages: 16 MiB of memmap, so that what one turn leaves behind in the
 * caches does not matter much to the next.
 */
#define TURN_PAGES	SZ_256K
#define NR_TURNS	8

enum {
	STORES_CACHED,
	STORES_NONTEMPORAL,
	STORES_AUTO,
};

static const char * const stores_names[] = { "cached", "nontemporal", "auto" };

static int stores_choice = STORES_AUTO;

static atomic_long_t trial_pages;
static struct {
	atomic64_t ns, nr_pages;
} trial[STORES_AUTO];

static int stores_set(const char *val, const struct kernel_param *kp)
{
	int choice = sysfs_match_string(stores_names, val);

	if (choice < 0)
		return choice;
	stores_choice = choice;
	return 0;
}

static int stores_get(char *buffer, const struct kernel_param *kp)
{
	return sysfs_emit(buffer, "%s\n", stores_names[READ_ONCE(stores_choice)]);
}

static const struct kernel_param_ops stores_ops = {
	.set = stores_set,
	.get = stores_get,
};

#undef MODULE_PARAM_PREFIX
#define MODULE_PARAM_PREFIX "memmap_async."
module_param_cb(stores, &stores_ops, NULL, 0444);

/*
 * Whether stores past the caches are worth it, by the picoseconds that a struct
 * page takes: clearly, since what is cached is of some use to the driver.
 */
bool memmap_stores_prefer_nontemporal(u64 cached_ps, u64 nontemporal_ps)
{
	return nontemporal_ps + nontemporal_ps / 8 < cached_ps;
}

static u64 trial_ps(int stores)
{
	u64 nr_pages = atomic64_read(&trial[stores].nr_pages);

	return div64_u64(atomic64_read(&trial[stores].ns) * 1000, max(nr_pages, 1));
}

static void stores_decide(void)
{
	u64 cached = trial_ps(STORES_CACHED), nontemporal = trial_ps(STORES_NONTEMPORAL);
	int choice = memmap_stores_prefer_nontemporal(cached, nontemporal);

	WRITE_ONCE(stores_choice, choice);
	pr_info("%s stores for device memory; ps a struct page: cached %llu, nontemporal %llu\n",
		stores_names[choice], cached, nontemporal);
}

static void stores_stamp(int stores, struct page *page, unsigned long nr_pages)
{
	if (stores == STORES_NONTEMPORAL)
		memmap_stamp_nontemporal(page, nr_pages);
	else
		memmap_stamp(page, nr_pages);
}

/**
 * memmap_stamp_device() - memmap_stamp() for struct pages that nobody needs soon
 * @page: the first of them; it and the next one are initialized already
 * @nr_pages: struct pages in the run, those two included
 *
 * Context: Any. Nobody else looks at these struct pages.
 */
void memmap_stamp_device(struct page *page, unsigned long nr_pages)
{
	int stores = READ_ONCE(stores_choice);
	unsigned long before;
	u64 start;

	if (stores != STORES_AUTO) {
		stores_stamp(stores, page, nr_pages);
		return;
	}

	before = atomic_long_fetch_add(nr_pages, &trial_pages);
	stores = before / TURN_PAGES % STORES_AUTO;

	start = local_clock();
	stores_stamp(stores, page, nr_pages);
	atomic64_add(local_clock() - start, &trial[stores].ns);
	atomic64_add(nr_pages, &trial[stores].nr_pages);

	/* One of them gets there first. */
	if (before < NR_TURNS * TURN_PAGES && before + nr_pages >= NR_TURNS * TURN_PAGES)
		stores_decide();
}
