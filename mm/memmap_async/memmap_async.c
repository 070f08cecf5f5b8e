// SPDX-License-Identifier: GPL-2.0
/*
 * Initialization of the memmap by several CPUs.
 *
 * Whoever has struct pages to initialize describes the range and how to do a
 * piece of it; the rest (who does which piece, on which CPUs, who waits for
 * whom) is decided here and nowhere else.
 */
#define pr_fmt(fmt) "memmap_async: " fmt

#include <kunit/static_stub.h>
#include <linux/init.h>
#include <linux/jiffies.h>
#include <linux/log2.h>
#include <linux/memmap_async.h>
#include <linux/mm.h>
#include <linux/padata.h>
#include <linux/printk.h>
#include <linux/sched/isolation.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/topology.h>
#include <linux/workqueue.h>

/*
 * The least that is worth a worker of its own, in pages: 300 microseconds of
 * work at 10 ns for a struct page, against some tens to wake somebody up.
 */
#define WORKER_PAGES	SZ_32K

static struct workqueue_struct *memmap_async_wq __ro_after_init;

/*
 * Struct pages are written by the CPUs of their own node, strictly, and not by
 * those that are isolated. This has to be there for page_alloc_init_late().
 */
static int __init memmap_async_init(void)
{
	struct workqueue_attrs *attrs = alloc_workqueue_attrs();
	struct workqueue_struct *wq = alloc_workqueue("memmap_async", WQ_UNBOUND, 0);

	if (attrs && wq) {
		attrs->affn_scope = WQ_AFFN_NUMA;
		attrs->affn_strict = true;
		if (!apply_workqueue_attrs(wq, attrs))
			memmap_async_wq = wq;
	}
	free_workqueue_attrs(attrs);

	if (wq && !memmap_async_wq)
		destroy_workqueue(wq);
	return memmap_async_wq ? 0 : -ENOMEM;
}
early_initcall(memmap_async_init);

static bool memmap_async_valid(const struct memmap_async_desc *desc)
{
	unsigned long max_pfn = PHYS_PFN((phys_addr_t)-1);

#ifdef MAX_PHYSMEM_BITS
	max_pfn = (1UL << (MAX_PHYSMEM_BITS - PAGE_SHIFT)) - 1;
#endif
	if (desc->start_pfn < desc->end_pfn && desc->end_pfn - 1 <= max_pfn &&
	    is_power_of_2(desc->unit_pages))
		return true;

	pr_warn("refused: pfns %#lx up to %#lx in units of %lu pages\n",
		desc->start_pfn, desc->end_pfn, desc->unit_pages);
	return false;
}

/* The node to work on and the number of workers, where not given. */
static void memmap_async_place(struct memmap_async_desc *desc)
{
	unsigned long nr_pages = desc->end_pfn - desc->start_pfn;

	if (desc->nid == NUMA_NO_NODE)
		desc->nid = numa_mem_id();
	desc->nid = numa_nearest_node(desc->nid, N_CPU);

	if (!desc->nr_workers) {
		desc->nr_workers = cpumask_weight_and(cpumask_of_node(desc->nid),
						      housekeeping_cpumask(HK_TYPE_DOMAIN));
		desc->nr_workers = clamp(desc->nr_workers, 1,
					 DIV_ROUND_UP(nr_pages, WORKER_PAGES));
	}
}

#ifndef CONFIG_MEMMAP_ASYNC

/*
 * The range, on one worker that shares it out to as many threads of padata,
 * which looks after chunk sizes and load.
 */
struct memmap_async {
	struct memmap_async_desc desc;
	struct workqueue_struct *wq;
	struct work_struct work;
	atomic_long_t nr_pages;
	atomic_t started;
	bool cancelled;
};

static void memmap_async_thread(unsigned long start_pfn, unsigned long end_pfn,
				void *arg)
{
	struct memmap_async *m = arg;

	atomic_long_add(m->desc.init(start_pfn, end_pfn, m->desc.arg, true),
			&m->nr_pages);
}

static void memmap_async_work(struct work_struct *work)
{
	struct memmap_async *m = container_of(work, struct memmap_async, work);
	struct padata_mt_job job = {
		.thread_fn	= memmap_async_thread,
		.fn_arg		= m,
		.start		= m->desc.start_pfn,
		.size		= m->desc.end_pfn - m->desc.start_pfn,
		.align		= m->desc.unit_pages,
		.min_chunk	= WORKER_PAGES,
		.max_threads	= m->desc.nr_workers,
	};

	padata_do_multithreaded(&job);
}

struct memmap_async *memmap_async_new(const struct memmap_async_desc *desc,
				      struct workqueue_struct *wq)
{
	struct memmap_async *m = kzalloc_obj(*m);

	if (!m)
		return ERR_PTR(-ENOMEM);
	m->desc = *desc;
	m->wq = wq;
	INIT_WORK(&m->work, memmap_async_work);
	return m;
}

void memmap_async_start(struct memmap_async *m)
{
	if (!atomic_xchg(&m->started, 1))
		queue_work_node(m->desc.nid, m->wq, &m->work);
}

int memmap_async_sync(struct memmap_async *m, unsigned long start_pfn,
		      unsigned long end_pfn)
{
	if (start_pfn >= end_pfn || start_pfn < m->desc.start_pfn ||
	    end_pfn > m->desc.end_pfn)
		return -EINVAL;
	if (READ_ONCE(m->cancelled))
		return -ENXIO;

	memmap_async_start(m);
	flush_work(&m->work);
	return READ_ONCE(m->cancelled) ? -ENXIO : 0;
}

unsigned long memmap_async_grow(struct memmap_async *m, unsigned long nr_pages)
{
	return 0;
}

void memmap_async_wait(struct memmap_async *m)
{
	flush_work(&m->work);
}

void memmap_async_cancel(struct memmap_async *m)
{
	WRITE_ONCE(m->cancelled, true);
	atomic_set(&m->started, 1);
	cancel_work_sync(&m->work);
}

void memmap_async_free(struct memmap_async *m)
{
	memmap_async_cancel(m);
	kfree(m);
}

unsigned long memmap_async_nr_pages(const struct memmap_async *m)
{
	return atomic_long_read(&m->nr_pages);
}

unsigned int memmap_async_nr_workers(const struct memmap_async *m)
{
	return m->desc.nr_workers;
}

#endif /* !CONFIG_MEMMAP_ASYNC */

/**
 * memmap_async_alloc() - prepare to initialize a range of struct pages
 * @desc: the range and how to initialize it
 *
 * Nothing is initialized before memmap_async_start(), memmap_async_sync() or
 * memmap_async_grow() is called.
 *
 * Context: Process context, may sleep.
 * Return: What the other functions take and memmap_async_free() frees; -EINVAL
 * if the range is empty, inverted or larger than the address space, or if its
 * units are not a power of two, -ENOMEM. The range has to be initialized in
 * another way then.
 */
struct memmap_async *memmap_async_alloc(const struct memmap_async_desc *desc)
{
	struct memmap_async_desc d = *desc;

	KUNIT_STATIC_STUB_REDIRECT(memmap_async_alloc, desc);

	if (!memmap_async_valid(&d))
		return ERR_PTR(-EINVAL);
	if (!memmap_async_wq)
		return ERR_PTR(-ENOMEM);

	memmap_async_place(&d);
	return memmap_async_new(&d, memmap_async_wq);
}

/**
 * memmap_async_run() - initialize a range of struct pages, now
 * @desc: the range and how to initialize it
 *
 * If there is nothing to gain by several workers, or no memory for them, the
 * caller does it by itself.
 *
 * Context: Process context, sleeps.
 * Return: 0, or -EINVAL as memmap_async_alloc(), with nothing initialized.
 */
int memmap_async_run(const struct memmap_async_desc *desc)
{
	struct memmap_async_desc d = *desc;
	unsigned long start = jiffies;
	struct memmap_async *m;

	if (!memmap_async_valid(&d))
		return -EINVAL;
	memmap_async_place(&d);

	m = d.nr_workers > 1 ? memmap_async_alloc(&d) : ERR_PTR(-ENOMEM);
	if (IS_ERR(m)) {
		d.init(d.start_pfn, d.end_pfn, d.arg, true);
		return 0;
	}

	memmap_async_start(m);
	memmap_async_wait(m);
	pr_info("pfns %#lx up to %#lx initialized in %ums by %u workers on node %d\n",
		d.start_pfn, d.end_pfn, jiffies_to_msecs(jiffies - start),
		memmap_async_nr_workers(m), d.nid);
	memmap_async_free(m);
	return 0;
}
