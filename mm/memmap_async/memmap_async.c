// SPDX-License-Identifier: GPL-2.0
/*
 * Initialization of the memmap by several CPUs.
 *
 * A caller with struct pages to initialize describes the range and how to do a
 * piece of it; the rest (which worker does which piece, on which CPU, and which
 * caller waits for what) is decided here and nowhere else.
 */
#define pr_fmt(fmt) "memmap_async: " fmt

#include <kunit/static_stub.h>
#include <linux/init.h>
#include <linux/kernel.h>
#include <linux/log2.h>
#include <linux/memmap_async.h>
#include <linux/mm.h>
#include <linux/padata.h>
#include <linux/printk.h>
#include <linux/rcupdate.h>
#include <linux/sched/isolation.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/topology.h>
#include <linux/workqueue.h>

/*
 * The least that is worth a worker of its own, in pages: 300 microseconds of
 * work at 10 ns for a struct page, against some tens to wake a worker up.
 */
#define WORKER_PAGES	SZ_32K

static enum {
	MEMMAP_ASYNC_OFF,	/* each caller initializes its struct pages alone */
	MEMMAP_ASYNC_SYNC,	/* workers help, and all callers wait for them */
	MEMMAP_ASYNC_ON,	/* callers who need not wait do not */
	MEMMAP_ASYNC_HOLD,	/* for tests: at boot, no worker begins before the end */
} memmap_async_mode __ro_after_init = MEMMAP_ASYNC_ON;

static int __init memmap_async_setup(char *str)
{
	static const char * const modes[] = { "off", "sync", "on", "hold" };
	int mode = str ? match_string(modes, ARRAY_SIZE(modes), str) : -EINVAL;

	if (mode < 0)
		pr_warn("memmap_async= takes on, sync or off; it stays on\n");
	else
		memmap_async_mode = mode;
	return 0;
}
early_param("memmap_async", memmap_async_setup);

static struct workqueue_struct *memmap_async_wq __ro_after_init;
static struct workqueue_struct *memmap_async_background_wq __ro_after_init;

/*
 * Struct pages are written by the CPUs of their own node, strictly, and not by
 * those that are isolated.
 */
static struct workqueue_struct * __init
memmap_async_alloc_wq(const char *name, unsigned int flags, int max_active, int nice)
{
	struct workqueue_attrs *attrs = alloc_workqueue_attrs();
	struct workqueue_struct *wq = alloc_workqueue("%s", WQ_UNBOUND | flags,
						      max_active, name);
	int err = -ENOMEM;

	if (attrs && wq) {
		attrs->affn_scope = WQ_AFFN_NUMA;
		attrs->affn_strict = true;
		attrs->nice = nice;
		err = apply_workqueue_attrs(wq, attrs);
	}
	free_workqueue_attrs(attrs);

	if (wq && err) {
		destroy_workqueue(wq);
		wq = NULL;
	}
	return wq;
}

/* These have to be there for page_alloc_init_late(). */
static int __init memmap_async_init(void)
{
	memmap_async_wq = memmap_async_alloc_wq("memmap_async", 0, 0, 0);

	/* All nodes together; each gets its share. */
	memmap_async_background_wq =
		memmap_async_alloc_wq("memmap_async_bg", WQ_FREEZABLE,
				      min(num_possible_cpus(), WQ_MAX_ACTIVE), MAX_NICE);

	/* The share of a small node is not rounded up to the default of 8. */
	if (memmap_async_background_wq)
		workqueue_set_min_active(memmap_async_background_wq, 1);

	return memmap_async_wq && memmap_async_background_wq ? 0 : -ENOMEM;
}
early_initcall(memmap_async_init);

/* What WQ_SYSFS does, which is not possible so early. */
static int __init memmap_async_sysfs_init(void)
{
	if (!IS_ENABLED(CONFIG_MEMMAP_ASYNC) || !memmap_async_background_wq)
		return 0;
	return workqueue_sysfs_register(memmap_async_background_wq);
}
postcore_initcall(memmap_async_sysfs_init);

/**
 * memmap_async_in_background() - whether to initialize a range in the background
 * @nr_pages: how many struct pages it has
 *
 * Context: Any.
 * Return: True if the kernel can, if the command line does not forbid it, and
 * if there are enough of them to be worth it.
 */
bool memmap_async_in_background(unsigned long nr_pages)
{
	return IS_ENABLED(CONFIG_MEMMAP_ASYNC) && nr_pages > WORKER_PAGES &&
	       memmap_async_mode >= MEMMAP_ASYNC_ON;
}

/**
 * memmap_async_held() - whether boot's workers begin only when boot waits for them
 *
 * Tests have to reach every page by way of who needs it.
 *
 * Context: Any.
 * Return: True with memmap_async=hold.
 */
bool __init memmap_async_held(void)
{
	return memmap_async_mode == MEMMAP_ASYNC_HOLD;
}

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

/* The node whose CPUs do the work; a kernel without NUMA has one node, too. */
static int memmap_async_node(int nid)
{
	if (nid == NUMA_NO_NODE)
		nid = numa_mem_id();
	return IS_ENABLED(CONFIG_NUMA) ? numa_nearest_node(nid, N_CPU) : nid;
}

/* The node to work on and the number of workers, where not given. */
static void memmap_async_place(struct memmap_async_desc *desc)
{
	unsigned long nr_pages = desc->end_pfn - desc->start_pfn;

	desc->nid = memmap_async_node(desc->nid);

	if (!desc->nr_workers) {
		/* A cpuset that becomes isolated replaces the mask. */
		scoped_guard(rcu)
			desc->nr_workers =
				cpumask_weight_and(cpumask_of_node(desc->nid),
						   housekeeping_cpumask(HK_TYPE_DOMAIN));
		/* What boot wakes up would have to wait for a worker's time slice. */
		if (desc->background && system_state < SYSTEM_RUNNING && desc->nr_workers > 1)
			desc->nr_workers--;
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
};

static void memmap_async_thread(unsigned long start_pfn, unsigned long end_pfn,
				void *arg)
{
	struct memmap_async *m = arg;

	m->desc.init(start_pfn, end_pfn, m->desc.arg, true);
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
	if (m->desc.done)
		m->desc.done(m->desc.arg);
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
	queue_work_node(m->desc.nid, m->wq, &m->work);
}

void memmap_async_wait(struct memmap_async *m)
{
	flush_work(&m->work);
}

void memmap_async_free(struct memmap_async *m)
{
	memmap_async_wait(m);
	kfree(m);
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
 * units are not a power of two, -EOPNOTSUPP with memmap_async=off, -ENOMEM. The
 * range has to be initialized in another way then.
 */
struct memmap_async *memmap_async_alloc(const struct memmap_async_desc *desc)
{
	struct memmap_async_desc d = *desc;
	struct workqueue_struct *wq;

	KUNIT_STATIC_STUB_REDIRECT(memmap_async_alloc, desc);

	if (!memmap_async_valid(&d))
		return ERR_PTR(-EINVAL);
	if (memmap_async_mode == MEMMAP_ASYNC_OFF)
		return ERR_PTR(-EOPNOTSUPP);

	wq = d.background ? memmap_async_background_wq : memmap_async_wq;
	if (!wq)
		return ERR_PTR(-ENOMEM);

	memmap_async_place(&d);
	return memmap_async_new(&d, wq);
}

/**
 * memmap_init_parallel() - initialize a range of struct pages, now
 * @desc: the range and how to initialize it
 *
 * If there is nothing to gain by several workers, or no memory for them, the
 * caller does it by itself.
 *
 * Context: Process context, sleeps.
 * Return: 0, or -EINVAL as memmap_async_alloc(), with nothing initialized.
 */
int memmap_init_parallel(const struct memmap_async_desc *desc)
{
	struct memmap_async_desc d = *desc;
	struct memmap_async *m;

	if (!memmap_async_valid(&d))
		return -EINVAL;
	memmap_async_place(&d);

	m = d.nr_workers > 1 ? memmap_async_alloc(&d) : ERR_PTR(-ENOMEM);
	if (IS_ERR(m)) {
		d.init(d.start_pfn, d.end_pfn, d.arg, true);
		if (d.done)
			d.done(d.arg);
		return 0;
	}

	memmap_async_start(m);
	memmap_async_wait(m);
	memmap_async_free(m);
	return 0;
}
