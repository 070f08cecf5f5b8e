/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _LINUX_MEMMAP_ASYNC_H
#define _LINUX_MEMMAP_ASYNC_H

#include <asm/barrier.h>
#include <linux/atomic.h>
#include <linux/kernel.h>
#include <linux/types.h>

struct page;

#ifdef CONFIG_MEMMAP_ASYNC_DEVICE
extern atomic_t memmap_async_active;
int __memmap_sync(unsigned long pfn, unsigned long nr_pages);
#endif

/**
 * memmap_sync() - have struct pages of device memory ready
 * @pfn: first pfn that is needed
 * @nr_pages: how many; all of them in one range of one pgmap
 *
 * The memmap of a pgmap with PGMAP_MEMMAP_ASYNC is initialized while its driver
 * is in use already. A caller who is about to look at a struct page of it calls
 * this first, unless the page comes from a mapping or a reference, whose maker
 * has. It initializes what is needed and not ready, and waits for nothing else.
 * It costs nothing while no memmap is being initialized, and little for pages
 * that are ready.
 *
 * Context: Process context, may sleep, though a subsection takes microseconds.
 * Ends early if the task is killed.
 * Return: 0 if the struct pages may be used, or do not belong to device memory;
 * -ENXIO if the device is going away or not there yet, -EINTR if the task was
 * killed, -EINVAL if not all of them are in one range.
 */
static inline int memmap_sync(unsigned long pfn, unsigned long nr_pages)
{
	might_sleep();
#ifdef CONFIG_MEMMAP_ASYNC_DEVICE
	smp_rmb(); /* see memmap_async_active */
	if (unlikely(atomic_read_acquire(&memmap_async_active)))
		return __memmap_sync(pfn, nr_pages);
#endif
	return 0;
}

#ifdef CONFIG_DEFERRED_INIT_OVERLAP
bool memmap_boot_sync(unsigned long pfn, unsigned long nr_pages);
bool memmap_boot_wait(void);
void memmap_boot_finish(void);
unsigned long memmap_boot_nr_deferred(void);
#else
static inline bool memmap_boot_sync(unsigned long pfn, unsigned long nr_pages)
{
	return false;
}

static inline bool memmap_boot_wait(void)
{
	return false;
}

static inline void memmap_boot_finish(void)
{
}

static inline unsigned long memmap_boot_nr_deferred(void)
{
	return 0;
}
#endif

/**
 * struct memmap_async_desc - a range of struct pages to initialize, and how
 * @start_pfn: first pfn of the range
 * @end_pfn: the pfn after the last one
 * @unit_pages: what is not torn apart, in pages: a power of two. Units are
 *	aligned to their own size; the first and the last can be partial.
 * @nid: the memory's node, whose CPUs do the work. A node without CPUs is
 *	served by the nearest that has some.
 * @nr_workers: how many work at a time; 0: as many as the node has CPUs, less
 *	where the range is too small for so many. Of workers in the background
 *	one less while the kernel boots.
 * @preemptible: @init takes longer than some microseconds for a unit, or takes
 *	locks that sleep on PREEMPT_RT. If it does not, preemption is off while
 *	units are initialized, so that no task waits for one whose owner does not run.
 * @background: no caller waits for all of it. The workers have the lowest priority,
 *	freeze with the system and are, for all such ranges together, no more
 *	than there are CPUs. Without CONFIG_MEMMAP_ASYNC this is ignored.
 * @init: initializes the struct pages and the pageblocks of
 *	[@start_pfn, @end_pfn), which are borders of units or of the range, and
 *	returns the number of pages that became available by that. It is called
 *	on several CPUs at a time, and once for each pfn. With @can_resched it is
 *	called from process context and should reschedule now and then; without,
 *	it must not sleep, and interrupts can be off.
 * @done: if not NULL, called once when all of the range may be used, and not
 *	if it was cancelled before. It is called by the one that initialized the
 *	last unit, so it must not sleep.
 * @arg: passed to @init and @done
 *
 * The descriptor is copied. @arg has to stay what it is until
 * memmap_async_wait() or memmap_async_cancel() has returned.
 */
struct memmap_async_desc {
	unsigned long start_pfn;
	unsigned long end_pfn;
	unsigned long unit_pages;
	int nid;
	unsigned int nr_workers;
	bool preemptible;
	bool background;
	unsigned long (*init)(unsigned long start_pfn, unsigned long end_pfn,
			      void *arg, bool can_resched);
	void (*done)(void *arg);
	void *arg;
};

struct memmap_async;
struct dev_pagemap;
struct work_struct;

bool memmap_async_in_background(unsigned long nr_pages);
bool memmap_async_held(void);
unsigned long memmap_async_progress(const struct dev_pagemap *pgmap, unsigned long *total);
int memmap_async_complete(struct dev_pagemap *pgmap);
void memmap_async_notify(struct dev_pagemap *pgmap, struct work_struct *work);
int memmap_init_parallel(const struct memmap_async_desc *desc);
struct memmap_async *memmap_async_alloc(const struct memmap_async_desc *desc);

/*
 * What follows is implemented twice: in Rust (memmap_async_main.rs), and for
 * kernels without CONFIG_MEMMAP_ASYNC in memmap_async.c.
 */

/**
 * memmap_async_start() - let the workers begin
 * @m: from memmap_async_alloc(), not started yet
 *
 * Context: Process context. Does not wait, cannot fail.
 */
void memmap_async_start(struct memmap_async *m);

/**
 * memmap_async_wait() - wait until all of the range is initialized
 * @m: from memmap_async_alloc(), started
 *
 * The caller takes part in the work; kernels without CONFIG_MEMMAP_ASYNC leave it
 * to the worker. Returns as well when memmap_async_cancel() has.
 *
 * Context: Process context, sleeps.
 */
void memmap_async_wait(struct memmap_async *m);

/**
 * memmap_async_free() - cancel what is still to do, and free it
 * @m: from memmap_async_alloc(); it is not reachable any more
 *
 * Waits for the units in flight; kernels without CONFIG_MEMMAP_ASYNC finish the
 * range instead if they have begun with it.
 *
 * Context: Process context, sleeps.
 */
void memmap_async_free(struct memmap_async *m);

/*
 * What follows is there only with CONFIG_MEMMAP_ASYNC.
 */

/**
 * memmap_async_nr_pages() - the pages that became available so far
 * @m: from memmap_async_alloc()
 *
 * Context: Any.
 * Return: The sum of what @desc->init() returned.
 */
unsigned long memmap_async_nr_pages(const struct memmap_async *m);

/**
 * memmap_async_grow() - initialize units that are not claimed yet
 * @m: from memmap_async_alloc()
 * @nr_pages: how many pages have to become available
 *
 * For a page allocator that has run out of pages while the rest of them is
 * being initialized.
 *
 * Context: Process or interrupt context, interrupts off included; not NMI, and
 * on PREEMPT_RT not hard interrupts, since it can be the one that completes the
 * range. Allocates nothing and waits for nothing. The caller sees to it that @m is
 * not freed meanwhile.
 * Return: The pages that became available, as told by @desc->init(). 0 if there
 * is nothing left to begin with, though units can still be in flight then.
 */
unsigned long memmap_async_grow(struct memmap_async *m, unsigned long nr_pages);

/**
 * memmap_async_sync() - have some struct pages initialized now
 * @m: from memmap_async_alloc(), started or not
 * @start_pfn: first pfn that is needed
 * @end_pfn: the pfn after the last one
 *
 * Initializes the units in question that are not claimed yet, and waits for
 * those that are; if these are small, for some of their neighbours, too. No
 * other unit is waited for.
 *
 * Context: Process context, may sleep. The caller sees to it that @m is not
 * freed meanwhile.
 * Return: 0 when all of them may be used, -ENXIO after memmap_async_cancel(),
 * -EINVAL if the pfns are not in the range.
 */
int memmap_async_sync(struct memmap_async *m, unsigned long start_pfn,
		      unsigned long end_pfn);

/**
 * memmap_async_cancel() - stop: when this returns, the range is left alone
 * @m: from memmap_async_alloc()
 *
 * Takes as long as a unit takes, or some small ones.
 *
 * Context: Process context, sleeps.
 */
void memmap_async_cancel(struct memmap_async *m);

/**
 * memmap_stamp() - initialize a run of struct pages after the example of two
 * @page: the first of them; it and the next one are initialized already
 * @nr_pages: struct pages in the run, those two included
 *
 * For pages that differ by nothing but where they are: from each to the next,
 * every word stays the same or changes by the same amount. Tracepoints that are
 * to see each page are not called.
 *
 * Context: Any. Nobody else writes to these struct pages meanwhile. A reader of
 * one that is not ready yet, as some that go by pfn are, may find any mixture of
 * words from before and after.
 */
void memmap_stamp(struct page *page, unsigned long nr_pages);

#ifdef CONFIG_X86_64
void memmap_stamp_nontemporal(struct page *page, unsigned long nr_pages);
#endif

#if defined(CONFIG_X86_64) && defined(CONFIG_MEMMAP_ASYNC_DEVICE)
enum {
	MEMMAP_STORES_CACHED,
	MEMMAP_STORES_NONTEMPORAL,
	MEMMAP_STORES_AUTO,
};

/* How many times the trial of both takes turns, those of one kind and the other. */
#define MEMMAP_STORES_TURNS	8

void memmap_stamp_device(struct page *page, unsigned long nr_pages);
int memmap_stores_choose(const u64 ps[MEMMAP_STORES_TURNS]);
#else
static inline void memmap_stamp_device(struct page *page, unsigned long nr_pages)
{
	memmap_stamp(page, nr_pages);
}
#endif

/* For memmap_async_alloc() only, which see. @wq stays for good. */
struct workqueue_struct;
struct memmap_async *memmap_async_new(const struct memmap_async_desc *desc,
				      struct workqueue_struct *wq);

#endif /* _LINUX_MEMMAP_ASYNC_H */
