// SPDX-License-Identifier: GPL-2.0
/*
 * Device memory whose memmap is initialized while it is in use already.
 *
 * memremap_pages() prepares a job for each range of a pgmap with
 * PGMAP_MEMMAP_ASYNC before anybody can find the pgmap, so that nothing can fail
 * later, and starts it once the range has a vmemmap. Until then memmap_sync()
 * fails; from then on it has the pages it is asked for initialized at once.
 *
 * Who calls it holds a reference to the pgmap. memunmap_pages() cancels the jobs
 * first, so that the last reference is not kept by somebody who initializes
 * pages, waits until there is none, and frees the jobs.
 *
 * The static key is on from before the pgmap can be found until all of its
 * struct pages are ready, or nobody can have a reference any more.
 */
#include <kunit/static_stub.h>
#include <linux/device.h>
#include <linux/jiffies.h>
#include <linux/kref.h>
#include <linux/memmap_async.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/mmzone.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/sysfs.h>
#include <linux/workqueue.h>
#include <trace/events/memmap_async.h>
#include "../mm_init.h"
#include "pgmap.h"

struct range_memmap {
	struct device_memmap device;
	struct memmap_async_desc desc;
	struct memmap_async *job;
	struct pgmap_memmap *memmap;
	/* All pfns of the range, those included that the driver reserved. */
	unsigned long start_pfn, end_pfn;
	unsigned long start;	/* in jiffies */
	unsigned int msecs;	/* valid once it is finished */
	/* Set with release once the vmemmap is there: the job may be used. */
	bool started;
	/* Set with release once all is initialized. */
	bool finished;
	bool reported;
};

struct pgmap_memmap {
	/* One of the pgmap, and one of each who waits for it in sysfs. */
	struct kref kref;
	struct work_struct finish_work;
	struct device *dev;	/* has the attributes, NULL if none does */
	/* Of finish_work, and of who has cancelled it: */
	bool holds_key;
	bool notified;
	int nr_range;
	struct range_memmap ranges[] __counted_by(nr_range);
};

DEFINE_STATIC_KEY_FALSE(memmap_async_device);
EXPORT_SYMBOL_GPL(memmap_async_device);

static bool pgmap_memmap_finished(const struct pgmap_memmap *memmap)
{
	int i;

	for (i = 0; i < memmap->nr_range; i++)
		/* Pairs with the release in range_memmap_done(). */
		if (!smp_load_acquire(&memmap->ranges[i].finished))
			return false;
	return true;
}

static void pgmap_memmap_put_key(struct pgmap_memmap *memmap)
{
	if (!memmap->holds_key)
		return;

	memmap->holds_key = false;
	/* Pairs with the barrier in memmap_sync(). */
	smp_mb();
	static_branch_dec(&memmap_async_device);
}

/* Tells user space that all is initialized. */
static void pgmap_memmap_notify(struct device *dev)
{
	char state[] = "MEMMAP_STATE=idle";
	char *envp[2] = { state };

	sysfs_notify(&dev->kobj, NULL, "memmap_state");
	kobject_uevent_env(&dev->kobj, KOBJ_CHANGE, envp);
}

/* What there is to do when a range is initialized, and could not be done by whom did it. */
static void pgmap_memmap_finish(struct work_struct *work)
{
	struct pgmap_memmap *memmap = container_of(work, struct pgmap_memmap, finish_work);
	struct device *dev = READ_ONCE(memmap->dev);
	int i;

	for (i = 0; i < memmap->nr_range; i++) {
		struct range_memmap *r = &memmap->ranges[i];

		/* Pairs with the release in range_memmap_done(). */
		if (smp_load_acquire(&r->finished) && !r->reported) {
			r->reported = true;
			memmap_async_report(&r->desc, r->job, r->msecs);
		}
	}

	if (!pgmap_memmap_finished(memmap))
		return;

	pgmap_memmap_put_key(memmap);
	if (dev && !memmap->notified) {
		memmap->notified = true;
		pgmap_memmap_notify(dev);
	}
}

static void range_memmap_done(void *arg)
{
	struct range_memmap *r = container_of(arg, struct range_memmap, device);

	r->msecs = jiffies_to_msecs(jiffies - r->start);
	/* Who sees it may look at the time that it took. */
	smp_store_release(&r->finished, true);
	queue_work(system_freezable_wq, &r->memmap->finish_work);
}

static void pgmap_memmap_release(struct kref *kref)
{
	struct pgmap_memmap *memmap = container_of(kref, struct pgmap_memmap, kref);
	int i;

	for (i = 0; i < memmap->nr_range; i++)
		if (!IS_ERR_OR_NULL(memmap->ranges[i].job))
			memmap_async_free(memmap->ranges[i].job);
	kfree(memmap);
}

/*
 * Prepares to initialize the memmap of @pgmap in the background, if that is what
 * its driver (@background) and the command line say and if its pages allow it.
 * Nobody can find the pgmap yet. If there is no memory for it, the memmap is
 * complete when memremap_pages() returns, as it always is without
 * PGMAP_MEMMAP_ASYNC.
 *
 * Process context, sleeps, takes the lock for CPU hotplug.
 */
void pgmap_memmap_alloc(struct dev_pagemap *pgmap, bool background)
{
	struct pgmap_memmap *memmap;
	unsigned long nr_pages = 0;
	int i;

	pgmap->memmap = NULL;
	if (!background)
		return;

	for (i = 0; i < pgmap->nr_range; i++)
		nr_pages += PHYS_PFN(range_len(&pgmap->ranges[i]));
	if (!memmap_async_in_background(nr_pages))
		return;

	memmap = kzalloc_flex(*memmap, ranges, pgmap->nr_range);
	if (!memmap)
		return;
	memmap->nr_range = pgmap->nr_range;
	kref_init(&memmap->kref);
	INIT_WORK(&memmap->finish_work, pgmap_memmap_finish);

	for (i = 0; i < pgmap->nr_range; i++) {
		struct range_memmap *r = &memmap->ranges[i];

		r->memmap = memmap;
		r->start_pfn = PHYS_PFN(pgmap->ranges[i].start);
		r->end_pfn = r->start_pfn + PHYS_PFN(range_len(&pgmap->ranges[i]));

		/* Who waits for a unit must not have to wait for long. */
		if (!memmap_device_desc(pgmap, r->start_pfn, r->end_pfn, pgmap->nid,
					&r->device, &r->desc) || r->desc.preemptible)
			goto err_free;

		r->desc.background = true;
		r->desc.done = range_memmap_done;
		r->job = memmap_async_alloc(&r->desc);
		if (IS_ERR(r->job))
			goto err_free;
	}

	static_branch_inc(&memmap_async_device);
	memmap->holds_key = true;
	pgmap->memmap = memmap;
	return;

err_free:
	kref_put(&memmap->kref, pgmap_memmap_release);
}

/* A place for tests to keep the workers from it. */
void pgmap_memmap_start_workers(struct memmap_async *job)
{
	KUNIT_STATIC_STUB_REDIRECT(pgmap_memmap_start_workers, job);
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
bool pgmap_memmap_start(struct dev_pagemap *pgmap, int range_id)
{
	struct range_memmap *r;
	unsigned long first, last;

	if (!pgmap->memmap)
		return false;

	r = &pgmap->memmap->ranges[range_id];
	r->start = jiffies;
	trace_memmap_async_start(r->desc.start_pfn, r->desc.end_pfn, r->desc.nid,
				 memmap_async_nr_workers(r->job), true);

	first = min(SECTION_ALIGN_UP(r->start_pfn), r->end_pfn);
	last = max(SECTION_ALIGN_DOWN(r->end_pfn), r->desc.start_pfn);
	if (r->desc.start_pfn < first)
		memmap_async_sync(r->job, r->desc.start_pfn, first);
	if (last < r->end_pfn)
		memmap_async_sync(r->job, last, r->end_pfn);

	/* Pairs with the acquire in pgmap_memmap_sync(). */
	smp_store_release(&r->started, true);
	pgmap_memmap_start_workers(r->job);
	return true;
}

/*
 * Has [@pfn, @end_pfn) initialized, in steps after each of which a signal that
 * @state allows for ends it.
 */
static int range_memmap_sync(struct range_memmap *r, unsigned long pfn,
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
int pgmap_memmap_sync(struct dev_pagemap *pgmap, unsigned long pfn,
		      unsigned long nr_pages)
{
	struct pgmap_memmap *memmap = pgmap->memmap;
	int i;

	if (!memmap)
		return 0;

	for (i = 0; i < memmap->nr_range; i++) {
		struct range_memmap *r = &memmap->ranges[i];

		if (pfn < r->start_pfn || pfn >= r->end_pfn)
			continue;
		if (nr_pages > r->end_pfn - pfn)
			break;
		/* Pairs with the release in pgmap_memmap_start(). */
		if (!smp_load_acquire(&r->started))
			return -ENXIO;
		return range_memmap_sync(r, pfn, pfn + nr_pages, TASK_KILLABLE);
	}
	return -EINVAL;
}

/*
 * The first step of teardown: when this returns, nobody writes to the memmap of
 * @pgmap, and memmap_sync() fails.
 *
 * Process context, sleeps for no longer than what is in flight takes.
 */
void pgmap_memmap_cancel(struct dev_pagemap *pgmap)
{
	struct pgmap_memmap *memmap = pgmap->memmap;
	int i;

	if (!memmap)
		return;

	for (i = 0; i < memmap->nr_range; i++) {
		struct range_memmap *r = &memmap->ranges[i];

		memmap_async_cancel(r->job);
		if (!r->finished)
			trace_memmap_async_cancel(r->desc.start_pfn, r->desc.end_pfn,
						  memmap_async_nr_pages(r->job));
	}
}

/*
 * The last step, when nobody can have a reference to @pgmap.
 *
 * Process context, sleeps, takes the lock for CPU hotplug.
 */
void pgmap_memmap_free(struct dev_pagemap *pgmap)
{
	struct pgmap_memmap *memmap = pgmap->memmap;

	if (!memmap)
		return;

	cancel_work_sync(&memmap->finish_work);
	pgmap_memmap_put_key(memmap);
	pgmap->memmap = NULL;
	kref_put(&memmap->kref, pgmap_memmap_release);
}

static void devm_pgmap_memmap_release(struct device *dev, void *res);

/*
 * The attributes' memmap, or NULL if they are being removed. It stays while the
 * attribute is protected from removal.
 */
static struct pgmap_memmap *device_pgmap_memmap(struct device *dev)
{
	struct pgmap_memmap **memmap = devres_find(dev, devm_pgmap_memmap_release, NULL, NULL);

	return memmap ? *memmap : NULL;
}

static ssize_t memmap_state_show(struct device *dev, struct device_attribute *attr,
				 char *buf)
{
	struct pgmap_memmap *memmap = device_pgmap_memmap(dev);

	if (!memmap)
		return -ENXIO;
	return sysfs_emit(buf, "%s\n", pgmap_memmap_finished(memmap) ? "idle" : "active");
}

static ssize_t memmap_state_store(struct device *dev, struct device_attribute *attr,
				  const char *buf, size_t count)
{
	struct pgmap_memmap *memmap = device_pgmap_memmap(dev);
	struct kernfs_node *kn;
	int i, err = 0;

	if (!sysfs_streq(buf, "sync"))
		return -EINVAL;
	if (!memmap)
		return -ENXIO;

	/*
	 * Unbinding the device waits for those who use its attributes before it
	 * cancels what they wait for. So don't be one of them; there is a
	 * reference instead.
	 */
	kref_get(&memmap->kref);
	kn = sysfs_break_active_protection(&dev->kobj, &attr->attr);

	for (i = 0; i < memmap->nr_range && !err; i++) {
		struct range_memmap *r = &memmap->ranges[i];

		err = range_memmap_sync(r, r->desc.start_pfn, r->desc.end_pfn,
					TASK_INTERRUPTIBLE);
		/* Until whoever did the last unit has said so. */
		if (!err)
			memmap_async_wait(r->job);
	}

	if (kn)
		sysfs_unbreak_active_protection(kn);
	kref_put(&memmap->kref, pgmap_memmap_release);

	/* The freezer interrupts as well; that is nobody's business. */
	return err == -EINTR ? -ERESTARTSYS : err ?: count;
}
static DEVICE_ATTR_RW(memmap_state);

static ssize_t memmap_pages_done_show(struct device *dev, struct device_attribute *attr,
				      char *buf)
{
	struct pgmap_memmap *memmap = device_pgmap_memmap(dev);
	unsigned long nr_pages = 0;
	int i;

	if (!memmap)
		return -ENXIO;
	for (i = 0; i < memmap->nr_range; i++)
		nr_pages += memmap_async_nr_pages(memmap->ranges[i].job);
	return sysfs_emit(buf, "%lu\n", nr_pages);
}
static DEVICE_ATTR_RO(memmap_pages_done);

static ssize_t memmap_pages_total_show(struct device *dev, struct device_attribute *attr,
				       char *buf)
{
	struct pgmap_memmap *memmap = device_pgmap_memmap(dev);
	unsigned long nr_pages = 0;
	int i;

	if (!memmap)
		return -ENXIO;
	for (i = 0; i < memmap->nr_range; i++)
		nr_pages += memmap->ranges[i].desc.end_pfn - memmap->ranges[i].desc.start_pfn;
	return sysfs_emit(buf, "%lu\n", nr_pages);
}
static DEVICE_ATTR_RO(memmap_pages_total);

static struct attribute *pgmap_memmap_attrs[] = {
	&dev_attr_memmap_state.attr,
	&dev_attr_memmap_pages_done.attr,
	&dev_attr_memmap_pages_total.attr,
	NULL,
};

static const struct attribute_group pgmap_memmap_group = {
	.attrs = pgmap_memmap_attrs,
};

static void devm_pgmap_memmap_release(struct device *dev, void *res)
{
	struct pgmap_memmap *memmap = *(struct pgmap_memmap **)res;

	device_remove_group(dev, &pgmap_memmap_group);
	WRITE_ONCE(memmap->dev, NULL);
	cancel_work_sync(&memmap->finish_work);
}

/* Another pgmap of the same device can have an entry as well. */
static int pgmap_memmap_match(struct device *dev, void *res, void *memmap)
{
	return *(struct pgmap_memmap **)res == memmap;
}

/*
 * Gives @dev, whose driver has mapped @pgmap, the attributes to follow the
 * initialization of its memmap, if it takes place in the background. They go
 * with the driver, before the memmap does. Without them the device is as usable.
 *
 * Process context, sleeps.
 */
void pgmap_memmap_add_attrs(struct device *dev, struct dev_pagemap *pgmap)
{
	struct pgmap_memmap **memmap;
	int err;

	if (!pgmap->memmap)
		return;

	memmap = devres_alloc(devm_pgmap_memmap_release, sizeof(*memmap), GFP_KERNEL);
	if (!memmap) {
		dev_warn(dev, "no memmap_state: %d\n", -ENOMEM);
		return;
	}

	/* First, since the attributes look for it. */
	*memmap = pgmap->memmap;
	devres_add(dev, memmap);
	err = device_add_group(dev, &pgmap_memmap_group);
	if (err) {
		dev_warn(dev, "no memmap_state: %d\n", err);
		devres_destroy(dev, devm_pgmap_memmap_release, pgmap_memmap_match,
			       pgmap->memmap);
		return;
	}

	/* It may have finished meanwhile, and had nobody to tell. */
	WRITE_ONCE(pgmap->memmap->dev, dev);
	queue_work(system_freezable_wq, &pgmap->memmap->finish_work);
}

/* For a pgmap that is unmapped by hand: as if the driver of @dev went. */
void pgmap_memmap_del_attrs(struct device *dev, struct dev_pagemap *pgmap)
{
	if (pgmap->memmap)
		devres_release(dev, devm_pgmap_memmap_release, pgmap_memmap_match,
			       pgmap->memmap);
}
