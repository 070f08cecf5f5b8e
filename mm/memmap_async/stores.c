// SPDX-License-Identifier: GPL-2.0
/*
 * Which stores initialize the memmap of device memory.
 *
 * These struct pages are not read soon, so there is nothing to gain by having
 * them in the caches; non-temporal stores need not read what they overwrite, and
 * leave the caches to other data. Whether they are faster is another matter, and
 * machines differ by factors, in both directions. So it is found out on the spot:
 * the first device memory is initialized by turns with one kind and the other.
 *
 * That tells something only if it is the stores that take the time. A virtual
 * machine's memory can be none of its host's before it is touched, and then it is
 * the host's page faults. So each turn is timed by itself, and unless all turns
 * of a kind are much the same and no longer than stores can take, cached stores
 * it is.
 *
 * Boot memory is none of this: its struct pages are looked at soon.
 */
#define pr_fmt(fmt) "memmap_async: " fmt

#include <linux/atomic.h>
#include <linux/kernel.h>
#include <linux/math64.h>
#include <linux/memmap_async.h>
#include <linux/moduleparam.h>
#include <linux/preempt.h>
#include <linux/printk.h>
#include <linux/sched/clock.h>
#include <linux/sizes.h>
#include <linux/string.h>

/*
 * In struct pages: 16 MiB of memmap, so that what one turn leaves behind in the
 * caches does not matter much to the next.
 */
#define TURN_PAGES	SZ_256K

/* In picoseconds: ten times what a machine's stores take for a struct page. */
#define MAX_PS		100000

static const char * const stores_names[] = { "cached", "nontemporal", "auto" };

static int stores_choice = MEMMAP_STORES_AUTO;

static atomic_long_t trial_pages;
/* Turns with an odd number are those of non-temporal stores. */
static struct {
	atomic64_t ns, nr_pages;
} trial[MEMMAP_STORES_TURNS];

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
 * Which stores to use, by the picoseconds that a struct page took in each turn:
 * non-temporal ones if they are clearly faster, since what is cached is of some
 * use to the driver; -ERANGE if the turns don't tell.
 */
int memmap_stores_choose(const u64 ps[MEMMAP_STORES_TURNS])
{
	u64 lowest[] = { U64_MAX, U64_MAX }, highest[] = { 0, 0 };
	int i;

	for (i = 0; i < MEMMAP_STORES_TURNS; i++) {
		lowest[i % 2] = min(lowest[i % 2], ps[i]);
		highest[i % 2] = max(highest[i % 2], ps[i]);
	}
	for (i = 0; i < 2; i++)
		/* A turn of no time did not take place. */
		if (!lowest[i] || highest[i] > MAX_PS || highest[i] > 2 * lowest[i])
			return -ERANGE;

	i = MEMMAP_STORES_NONTEMPORAL;
	if (highest[i] + highest[i] / 8 < lowest[MEMMAP_STORES_CACHED])
		return MEMMAP_STORES_NONTEMPORAL;
	return MEMMAP_STORES_CACHED;
}

static void stores_decide(void)
{
	u64 ps[MEMMAP_STORES_TURNS];
	int i, choice;

	for (i = 0; i < MEMMAP_STORES_TURNS; i++) {
		u64 nr_pages = atomic64_read(&trial[i].nr_pages);

		ps[i] = div64_u64(atomic64_read(&trial[i].ns) * 1000, max(nr_pages, 1));
	}
	choice = memmap_stores_choose(ps);

	WRITE_ONCE(stores_choice, choice < 0 ? MEMMAP_STORES_CACHED : choice);
	pr_info("%s stores for device memory%s; ps a struct page: cached %llu %llu %llu %llu, nontemporal %llu %llu %llu %llu\n",
		stores_names[stores_choice],
		choice < 0 ? ", as a trial did not tell" : "",
		ps[0], ps[2], ps[4], ps[6], ps[1], ps[3], ps[5], ps[7]);
	BUILD_BUG_ON(MEMMAP_STORES_TURNS != 8);
}

static void stores_stamp(int stores, struct page *page, unsigned long nr_pages)
{
	if (stores == MEMMAP_STORES_NONTEMPORAL)
		memmap_stamp_nontemporal(page, nr_pages);
	else
		memmap_stamp(page, nr_pages);
}

/**
 * memmap_stamp_device() - memmap_stamp() for struct pages that are not needed soon
 * @page: the first of them; it and the next one are initialized already
 * @nr_pages: struct pages in the run, those two included
 *
 * Context: Any. Nobody else looks at these struct pages.
 */
void memmap_stamp_device(struct page *page, unsigned long nr_pages)
{
	int stores = READ_ONCE(stores_choice);
	unsigned long before, turn;
	u64 start;

	if (stores != MEMMAP_STORES_AUTO) {
		stores_stamp(stores, page, nr_pages);
		return;
	}

	/* What is timed must not include others' work, nor end on another CPU. */
	if (preemptible()) {
		memmap_stamp(page, nr_pages);
		return;
	}

	before = atomic_long_fetch_add(nr_pages, &trial_pages);
	turn = before / TURN_PAGES;
	if (turn >= MEMMAP_STORES_TURNS) {
		memmap_stamp(page, nr_pages);
		return;
	}

	start = local_clock();
	stores_stamp(turn % 2, page, nr_pages);
	atomic64_add(local_clock() - start, &trial[turn].ns);
	atomic64_add(nr_pages, &trial[turn].nr_pages);

	/* One of them gets there first. */
	if (before + nr_pages >= MEMMAP_STORES_TURNS * TURN_PAGES)
		stores_decide();
}
