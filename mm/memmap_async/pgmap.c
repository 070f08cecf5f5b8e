// SPDX-License-Identifier: GPL-2.0
/*
 * Device memory whose memmap is initialized while it is in use already.
 *
 * memremap_pages() prepares a job for each range of a pgmap with
 * PGMAP_MEMMAP_ASYNC before the pgmap can be found, so that nothing can fail
 * later, and starts it once the range has a vmemmap. Until then memmap_sync()
 * fails; from then on it has the pages it is asked for initialized at once.
 *
 * Its caller holds a reference to the pgmap. memunmap_pages() cancels the jobs
 * first, so that the last reference is not kept by a task that initializes pages,
 * waits until there is none, and frees the jobs.
 */
#include <kunit/static_stub.h>
#include <linux/atomic.h>
#include <linux/cache.h>
#include <linux/export.h>
#include <linux/memmap_async.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/mmzone.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/workqueue.h>
#include "../mm_init.h"
#include "pgmap.h"

#define CREATE_TRACE_POINTS
#include <trace/events/memmap_async.h>

struct pgmap_range {
	struct memmap_device_arg device;
	struct memmap_async_desc desc;
	struct memmap_async *job;
	/* Set with release once the vmemmap is there: the job may be used. */
	bool started;
};

struct pgmap_jobs {
	struct work_struct *notify_work;
	atomic_t nr_left;	/* ranges not ready */
	int nr_range;
	struct pgmap_range ranges[] __counted_by(nr_range);
};

/*
 * How many pgmaps have struct pages that may not be ready. As long as there are
 * none, memmap_sync() looks at nothing else.
 *
 * It is incremented before the pgmap is published, by pgmap_array and by the
 * driver. To have a pfn of this pgmap, the caller of memmap_sync() has read what
 * was published, so the read barrier there sees to it that the increment is read.
 *
 * It is decremented after the last unit was published. The caller that reads 0
 * with acquire sees the struct pages of all units, because those who published
 * the others came before: within a range by the claim map's count of what
 * remains, between ranges by @nr_left.
 *
 * For modules that call memmap_sync().
 */
atomic_t memmap_async_active __read_mostly;
EXPORT_SYMBOL_FOR_MODULES(memmap_async_active, "dax,device_dax,hwpoison-inject,nd_pmem");

static void pgmap_range_done(void *arg)
{
	struct pgmap_range *r = container_of(arg, struct pgmap_range, device);
	struct pgmap_jobs *jobs = r->device.pgmap->memmap_jobs;
	struct work_struct *notify_work;

	trace_memmap_async_end(r->desc.start_pfn, r->desc.end_pfn,
			       r->desc.end_pfn - r->desc.start_pfn);

	/* Fully ordered, so that the decrement comes after the struct pages. */
	if (!atomic_dec_and_test(&jobs->nr_left))
		return;

	atomic_dec(&memmap_async_active);
	notify_work = READ_ONCE(jobs->notify_work);
	if (notify_work)
		queue_work(system_freezable_wq, notify_work);
}

static void __pgmap_jobs_free(struct pgmap_jobs *jobs)
{
	int i;

	for (i = 0; i < jobs->nr_range; i++)
		if (!IS_ERR_OR_NULL(jobs->ranges[i].job))
			memmap_async_free(jobs->ranges[i].job);
	kfree(jobs);
}

/*
 * Prepares to initialize the memmap of @pgmap in the background, if that is what
 * its driver (@background) and the command line say and if its pages allow it.
 * Nobody can find the pgmap yet. If there is no memory for it, the memmap is
 * complete when memremap_pages() returns, as it always is without
 * PGMAP_MEMMAP_ASYNC.
 *
 * Process context, sleeps.
 */
void pgmap_jobs_alloc(struct dev_pagemap *pgmap, bool background)
{
	struct pgmap_jobs *jobs;
	unsigned long nr_pages = 0;
	int i;

	pgmap->memmap_jobs = NULL;
	if (!background)
		return;

	for (i = 0; i < pgmap->nr_range; i++)
		nr_pages += PHYS_PFN(range_len(&pgmap->ranges[i]));
	if (!memmap_async_in_background(nr_pages))
		return;

	jobs = kzalloc_flex(*jobs, ranges, pgmap->nr_range);
	if (!jobs)
		return;
	jobs->nr_range = pgmap->nr_range;
	atomic_set(&jobs->nr_left, pgmap->nr_range);

	for (i = 0; i < pgmap->nr_range; i++) {
		const struct range *range = &pgmap->ranges[i];
		struct pgmap_range *r = &jobs->ranges[i];

		/* A caller who waits for a unit must not wait for long. */
		if (!memmap_device_desc(pgmap, PHYS_PFN(range->start),
					PHYS_PFN(range->end) + 1, pgmap->nid,
					&r->device, &r->desc) || r->desc.preemptible)
			goto err_free;

		r->desc.background = true;
		r->desc.done = pgmap_range_done;
		r->job = memmap_async_alloc(&r->desc);
		if (IS_ERR(r->job))
			goto err_free;
	}

	atomic_inc(&memmap_async_active);
	pgmap->memmap_jobs = jobs;
	return;

err_free:
	__pgmap_jobs_free(jobs);
}

/* A place for tests to keep the workers from it. */
void pgmap_jobs_start_workers(struct memmap_async *job)
{
	KUNIT_STATIC_STUB_REDIRECT(pgmap_jobs_start_workers, job);
	memmap_async_start(job);
}

/*
 * Starts to initialize the memmap of a range that has got its vmemmap. Returns
 * false if there is no job to do it, true if there is; it has just begun then.
 *
 * Sections that are not all of this range are initialized before this returns:
 * the rest of such a section can be System RAM, and pfn_to_online_page() is
 * less particular about it.
 *
 * Process context, sleeps.
 */
bool pgmap_jobs_start(struct dev_pagemap *pgmap, int range_id)
{
	struct pgmap_range *r;
	unsigned long first, last;

	if (!pgmap->memmap_jobs)
		return false;

	r = &pgmap->memmap_jobs->ranges[range_id];
	trace_memmap_async_start(r->desc.start_pfn, r->desc.end_pfn, r->desc.nid);

	/* What the driver reserved in front belongs to the section, not to the job. */
	first = SECTION_ALIGN_UP(PHYS_PFN(pgmap->ranges[range_id].start));
	first = min(first, r->desc.end_pfn);
	last = max(SECTION_ALIGN_DOWN(r->desc.end_pfn), r->desc.start_pfn);
	if (r->desc.start_pfn < first)
		memmap_async_sync(r->job, r->desc.start_pfn, first);
	if (last < r->desc.end_pfn)
		memmap_async_sync(r->job, last, r->desc.end_pfn);

	/* Pairs with the acquire in pgmap_jobs_sync(). */
	smp_store_release(&r->started, true);
	pgmap_jobs_start_workers(r->job);
	return true;
}

/*
 * Has [@pfn, @end_pfn) initialized, in steps after each of which a signal that
 * @state allows for ends it.
 */
static int pgmap_range_sync(struct pgmap_range *r, unsigned long pfn,
			    unsigned long end_pfn, unsigned int state)
{
	while (pfn < end_pfn) {
		unsigned long next = min(SECTION_ALIGN_UP(pfn + 1), end_pfn);
		int err = memmap_async_sync(r->job, pfn, next);

		if (err)
			return err;

		pfn = next;
		if (pfn < end_pfn) {
			if (signal_pending_state(state, current))
				return -EINTR;
			cond_resched();
		}
	}
	return 0;
}

/*
 * memmap_sync() for a pgmap that the caller holds a reference to.
 *
 * Process context, may sleep.
 */
int pgmap_jobs_sync(struct dev_pagemap *pgmap, unsigned long pfn,
		    unsigned long nr_pages)
{
	struct pgmap_jobs *jobs = pgmap->memmap_jobs;
	int i;

	if (!jobs)
		return 0;

	for (i = 0; i < jobs->nr_range; i++) {
		struct pgmap_range *r = &jobs->ranges[i];

		if (pfn < r->desc.start_pfn || pfn >= r->desc.end_pfn)
			continue;
		if (nr_pages > r->desc.end_pfn - pfn)
			break;
		/* Pairs with the release in pgmap_jobs_start(). */
		if (!smp_load_acquire(&r->started))
			return -ENXIO;
		return pgmap_range_sync(r, pfn, pfn + nr_pages, TASK_KILLABLE);
	}
	return -EINVAL;
}

/*
 * The first step of teardown: when this returns, nobody writes to the memmap of
 * @pgmap, and memmap_sync() fails.
 *
 * Process context, sleeps for no longer than what is in flight takes.
 */
void pgmap_jobs_cancel(struct dev_pagemap *pgmap)
{
	struct pgmap_jobs *jobs = pgmap->memmap_jobs;
	int i;

	if (!jobs)
		return;

	for (i = 0; i < jobs->nr_range; i++) {
		struct pgmap_range *r = &jobs->ranges[i];
		unsigned long nr_pages;

		memmap_async_cancel(r->job);
		nr_pages = memmap_async_nr_pages(r->job);
		if (nr_pages < r->desc.end_pfn - r->desc.start_pfn)
			trace_memmap_async_end(r->desc.start_pfn, r->desc.end_pfn, nr_pages);
	}
}

/*
 * The last step, when nobody can have a reference to @pgmap.
 *
 * Process context, sleeps.
 */
void pgmap_jobs_free(struct dev_pagemap *pgmap)
{
	struct pgmap_jobs *jobs = pgmap->memmap_jobs;

	if (!jobs)
		return;

	/* Else it was decremented by pgmap_range_done(). */
	if (atomic_read(&jobs->nr_left))
		atomic_dec(&memmap_async_active);
	pgmap->memmap_jobs = NULL;
	__pgmap_jobs_free(jobs);
}

/*
 * Returns how many struct pages of @pgmap are initialized, of *@total. It is one
 * with a memmap in the background, and is not unmapped meanwhile.
 */
unsigned long memmap_async_progress(const struct dev_pagemap *pgmap, unsigned long *total)
{
	unsigned long done = 0;
	int i;

	*total = 0;
	for (i = 0; i < pgmap->memmap_jobs->nr_range; i++) {
		const struct pgmap_range *r = &pgmap->memmap_jobs->ranges[i];

		done += memmap_async_nr_pages(r->job);
		*total += r->desc.end_pfn - r->desc.start_pfn;
	}
	return done;
}
EXPORT_SYMBOL_FOR_MODULES(memmap_async_progress, "dax");

/*
 * Has the rest of a memmap initialized. The caller has a reference to @pgmap.
 * Returns -ENXIO if it is being unmapped, -EINTR after a signal.
 *
 * Process context, sleeps.
 */
int memmap_async_complete(struct dev_pagemap *pgmap)
{
	int i, err = 0;

	for (i = 0; i < pgmap->memmap_jobs->nr_range && !err; i++) {
		struct pgmap_range *r = &pgmap->memmap_jobs->ranges[i];

		err = pgmap_range_sync(r, r->desc.start_pfn, r->desc.end_pfn,
				       TASK_INTERRUPTIBLE);
	}
	return err;
}
EXPORT_SYMBOL_FOR_MODULES(memmap_async_complete, "dax");

/*
 * For the caller that has just mapped @pgmap: queues @work when all is
 * initialized, unless it is already, and never after memunmap_pages().
 */
void memmap_async_notify(struct dev_pagemap *pgmap, struct work_struct *work)
{
	if (pgmap->memmap_jobs)
		/* Pairs with the dependency in pgmap_range_done(). */
		smp_store_release(&pgmap->memmap_jobs->notify_work, work);
}
EXPORT_SYMBOL_FOR_MODULES(memmap_async_notify, "dax");
