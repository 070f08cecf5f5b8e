// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests for memmap_async, with an init function that only counts: which
 * pfns, how often, and whether it may sleep.
 *
 * Run them again through debugfs once the system is up: what is wrongly marked
 * __init goes unnoticed as long as the init sections have not been freed.
 */
#include <kunit/static_stub.h>
#include <kunit/test.h>
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/err.h>
#include <linux/kthread.h>
#include <linux/ktime.h>
#include <linux/memmap_async.h>
#include <linux/percpu.h>
#include <linux/preempt.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#define UNIT		512UL
#define BATCH		2048UL	/* what a worker claims at a time, of small units */
#define START		(7 * UNIT + 100)
#define END		(2000 * UNIT + 11)

struct memmap_preemptor;

struct memmap_test {
	struct memmap_async_desc desc;
	u8 *seen;		/* by pfn - START; each is written by its owner only */
	atomic_t twice, torn, outside, slept;
	atomic_t inside;
	atomic_t nr_done, done_early;
	atomic_long_t pages;
	struct completion *stall;	/* the first caller waits for it */
	struct completion stalled;
	struct completion second;
	bool met;
	atomic_t nr_calls;
	unsigned int udelay;
	atomic_long_t most_pages;
	struct memmap_preemptor *preemptor;
};

static unsigned long count_init(unsigned long start_pfn, unsigned long end_pfn,
				void *arg, bool can_resched)
{
	struct memmap_test *t = arg;
	unsigned long pfn;

	atomic_inc(&t->inside);
	if ((start_pfn != t->desc.start_pfn && start_pfn % t->desc.unit_pages) ||
	    (end_pfn != t->desc.end_pfn && end_pfn % t->desc.unit_pages))
		atomic_inc(&t->torn);
	if (can_resched && (preempt_count() || irqs_disabled()))
		atomic_inc(&t->slept);

	if (atomic_inc_return(&t->nr_calls) == 1 && t->stall) {
		complete(&t->stalled);
		wait_for_completion(t->stall);
	}
	if (t->udelay)
		udelay(t->udelay);

	for (pfn = start_pfn; pfn < end_pfn; pfn++) {
		if (pfn < t->desc.start_pfn || pfn >= t->desc.end_pfn)
			atomic_inc(&t->outside);
		else if (t->seen[pfn - t->desc.start_pfn]++)
			atomic_inc(&t->twice);
	}

	if (can_resched)
		cond_resched();
	atomic_long_add(end_pfn - start_pfn, &t->pages);
	atomic_dec(&t->inside);
	return end_pfn - start_pfn;
}

static void count_done(void *arg)
{
	struct memmap_test *t = arg;

	atomic_inc(&t->nr_done);
	if (memchr_inv(t->seen, 1, t->desc.end_pfn - t->desc.start_pfn))
		atomic_inc(&t->done_early);
}

KUNIT_DEFINE_ACTION_WRAPPER(memmap_test_vfree, vfree, const void *);
KUNIT_DEFINE_ACTION_WRAPPER(memmap_test_free, memmap_async_free, struct memmap_async *);

static struct memmap_test *memmap_test_alloc(struct kunit *test,
					     unsigned long start_pfn,
					     unsigned long end_pfn)
{
	struct memmap_test *t = kunit_kzalloc(test, sizeof(*t), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, t);
	t->seen = vzalloc(end_pfn - start_pfn);
	KUNIT_ASSERT_NOT_NULL(test, t->seen);
	KUNIT_ASSERT_EQ(test, 0, kunit_add_action_or_reset(test, memmap_test_vfree, t->seen));
	init_completion(&t->stalled);

	t->desc.start_pfn = start_pfn;
	t->desc.end_pfn = end_pfn;
	t->desc.unit_pages = UNIT;
	t->desc.nid = NUMA_NO_NODE;
	t->desc.init = count_init;
	t->desc.done = count_done;
	t->desc.arg = t;
	return t;
}

static struct memmap_async *memmap_test_job(struct kunit *test, struct memmap_test *t)
{
	struct memmap_async *m = memmap_async_alloc(&t->desc);

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, m);
	KUNIT_ASSERT_EQ(test, 0, kunit_add_action_or_reset(test, memmap_test_free, m));
	return m;
}

/* Each pfn of the range was initialized, once, by whole units, and that was told. */
static void expect_all_once(struct kunit *test, struct memmap_test *t)
{
	unsigned long nr_pages = t->desc.end_pfn - t->desc.start_pfn;

	KUNIT_EXPECT_EQ(test, atomic_read(&t->twice), 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&t->outside), 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&t->torn), 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&t->slept), 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&t->inside), 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&t->nr_done), 1);
	KUNIT_EXPECT_EQ(test, atomic_read(&t->done_early), 0);
	KUNIT_EXPECT_EQ(test, atomic_long_read(&t->pages), nr_pages);
	KUNIT_EXPECT_NULL(test, memchr_inv(t->seen, 1, nr_pages));
}

struct memmap_case {
	const char *name;
	unsigned long start_pfn, end_pfn, unit_pages;
	unsigned int nr_workers;
	bool preemptible;
	bool background;
};

static const struct memmap_case memmap_cases[] = {
	{ "default workers", START, END, UNIT, 0 },
	{ "one worker", START, END, UNIT, 1 },
	{ "two workers", START, END, UNIT, 2 },
	{ "many workers", START, END, UNIT, 50 },
	{ "many workers, preemptible", START, END, UNIT, 50, true },
	{ "in the background", START, END, UNIT, 0, false, true },
	{ "two workers in the background", START, END, UNIT, 2, false, true },
	{ "more workers than units", START, START + 3 * UNIT, UNIT, 50 },
	{ "one page", START, START + 1, UNIT, 2 },
	{ "one unit", UNIT, 2 * UNIT, UNIT, 2 },
	{ "pfn 0", 0, 70 * UNIT, UNIT, 2 },
	{ "64 units", 0, 64 * UNIT, UNIT, 2 },
	{ "65 units", 0, 64 * UNIT + 1, UNIT, 2 },
	{ "units of one page", START, START + 1000, 1, 2 },
	{ "one unit larger than the range", START, END, 1UL << 30, 2, true },
};

KUNIT_ARRAY_PARAM_DESC(memmap, memmap_cases, name);

static struct memmap_test *memmap_case_alloc(struct kunit *test)
{
	const struct memmap_case *c = test->param_value;
	struct memmap_test *t = memmap_test_alloc(test, c->start_pfn, c->end_pfn);

	t->desc.unit_pages = c->unit_pages;
	t->desc.nr_workers = c->nr_workers;
	t->desc.preemptible = c->preemptible;
	t->desc.background = c->background;
	return t;
}

static void memmap_run(struct kunit *test)
{
	struct memmap_test *t = memmap_case_alloc(test);

	KUNIT_EXPECT_EQ(test, memmap_init_parallel(&t->desc), 0);
	expect_all_once(test, t);
}

static void memmap_start_wait(struct kunit *test)
{
	struct memmap_test *t = memmap_case_alloc(test);
	struct memmap_async *m = memmap_test_job(test, t);

	memmap_async_start(m);
	memmap_async_wait(m);
	expect_all_once(test, t);
	if (IS_ENABLED(CONFIG_MEMMAP_ASYNC))
		KUNIT_EXPECT_EQ(test, memmap_async_nr_pages(m),
				t->desc.end_pfn - t->desc.start_pfn);
}

static void memmap_refused(struct kunit *test)
{
	static const struct {
		unsigned long start_pfn, end_pfn, unit_pages;
	} bad[] = {
		{ 0, 0, UNIT },
		{ START, START, UNIT },
		{ END, START, UNIT },
		{ ULONG_MAX, 0, UNIT },
		{ ULONG_MAX - UNIT, UNIT, UNIT },
		{ 0, ULONG_MAX, UNIT },
		{ START, ULONG_MAX, UNIT },
		{ START, END, 0 },
		{ START, END, UNIT + 1 },
		{ START, END, 3 },
	};
	struct memmap_test *t = memmap_test_alloc(test, START, END);
	int i;

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		struct memmap_async *m;

		t->desc.start_pfn = bad[i].start_pfn;
		t->desc.end_pfn = bad[i].end_pfn;
		t->desc.unit_pages = bad[i].unit_pages;

		KUNIT_EXPECT_EQ_MSG(test, memmap_init_parallel(&t->desc), -EINVAL, "%d", i);
		m = memmap_async_alloc(&t->desc);
		KUNIT_EXPECT_EQ_MSG(test, PTR_ERR_OR_ZERO(m), -EINVAL, "%d", i);
		if (!IS_ERR(m))
			memmap_async_free(m);
	}
	KUNIT_EXPECT_EQ(test, atomic_read(&t->nr_calls), 0);
}

static struct memmap_async *no_memory(const struct memmap_async_desc *desc)
{
	return ERR_PTR(-ENOMEM);
}

/* Without memory for the workers it is done all the same, by the caller. */
static void memmap_no_memory(struct kunit *test)
{
	struct memmap_test *t = memmap_test_alloc(test, START, END);

	t->desc.nr_workers = 2;
	kunit_activate_static_stub(test, memmap_async_alloc, no_memory);
	KUNIT_EXPECT_EQ(test, memmap_init_parallel(&t->desc), 0);
	kunit_deactivate_static_stub(test, memmap_async_alloc);

	KUNIT_EXPECT_EQ(test, atomic_read(&t->nr_calls), 1);
	expect_all_once(test, t);
}

/* The first call does not return before there is a second one. */
static unsigned long meet_init(unsigned long start_pfn, unsigned long end_pfn,
			       void *arg, bool can_resched)
{
	struct memmap_test *t = arg;

	switch (atomic_inc_return(&t->nr_calls)) {
	case 1:
		t->met = wait_for_completion_timeout(&t->second, 20 * HZ);
		complete(&t->stalled);
		break;
	case 2:
		complete(&t->second);
		break;
	}
	return end_pfn - start_pfn;
}

/* Of two workers both work. A caller in memmap_async_wait() could pass for one. */
static void memmap_two_at_a_time(struct kunit *test)
{
	struct memmap_test *t = memmap_test_alloc(test, START, END);

	init_completion(&t->second);
	t->desc.nr_workers = 2;
	t->desc.preemptible = true;
	t->desc.init = meet_init;
	t->desc.done = NULL;
	memmap_async_start(memmap_test_job(test, t));
	wait_for_completion(&t->stalled);
	KUNIT_EXPECT_TRUE(test, t->met);
}

#ifdef CONFIG_MEMMAP_ASYNC

/* A job with one worker, which has claimed some units and does not get on with them. */
static struct memmap_async *memmap_test_stalled_job(struct kunit *test,
						    struct memmap_test *t,
						    struct completion *stall)
{
	struct memmap_async *m;

	init_completion(stall);
	t->stall = stall;
	t->desc.nr_workers = 1;
	t->desc.preemptible = true;

	m = memmap_test_job(test, t);
	memmap_async_start(m);
	wait_for_completion(&t->stalled);
	return m;
}

/* Takes @udelay for each UNIT, and no time worth mentioning without. */
static unsigned long batch_init(unsigned long start_pfn, unsigned long end_pfn,
				void *arg, bool can_resched)
{
	struct memmap_test *t = arg;
	unsigned long nr_pages = end_pfn - start_pfn;

	if (nr_pages > atomic_long_read(&t->most_pages))
		atomic_long_set(&t->most_pages, nr_pages);
	atomic_inc(&t->nr_calls);
	atomic_long_add(nr_pages, &t->pages);
	if (t->udelay) {
		/* By the clock of the engine: udelay() is as good as its calibration. */
		ktime_t end = ktime_add_us(ktime_get(),
					   t->udelay * DIV_ROUND_UP(nr_pages, UNIT));

		while (ktime_before(ktime_get(), end))
			cpu_relax();
	}
	return nr_pages;
}

/* Has one worker do all of it: a caller who waits would help. */
static struct memmap_test *memmap_batch_run(struct kunit *test, unsigned long unit_pages,
					    unsigned long end_pfn, unsigned int udelay)
{
	struct memmap_test *t = memmap_test_alloc(test, START, end_pfn);
	int i;

	t->desc.unit_pages = unit_pages;
	t->desc.nr_workers = 1;
	t->desc.init = batch_init;
	t->udelay = udelay;
	memmap_async_start(memmap_test_job(test, t));
	for (i = 0; i < 20000 && atomic_long_read(&t->pages) < end_pfn - START; i++)
		fsleep(1000);
	KUNIT_EXPECT_EQ(test, atomic_long_read(&t->pages), end_pfn - START);
	return t;
}

/* A worker takes small units several at a time, of one word of the claim map. */
static void memmap_batch(struct kunit *test)
{
	static const struct {
		unsigned long unit_pages, units;
	} cases[] = {
		{ 1, 64 },
		{ BATCH / 64, 64 },
		{ UNIT, BATCH / UNIT },
		{ BATCH, 1 },
		{ 8 * BATCH, 1 },
	};
	int i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		unsigned long unit_pages = cases[i].unit_pages;
		unsigned long units = IS_ENABLED(CONFIG_PREEMPT_RT) ? 1 : cases[i].units;
		struct memmap_test *t = memmap_batch_run(test, unit_pages, END, 0);
		unsigned long nr_calls = DIV_ROUND_UP(DIV_ROUND_UP(END, unit_pages) -
						      START / unit_pages, units);

		KUNIT_EXPECT_LE(test, atomic_long_read(&t->most_pages), units * unit_pages);
		KUNIT_EXPECT_GE(test, atomic_read(&t->nr_calls), nr_calls);
		/* It begins with one, and what interrupts it takes time as well. */
		KUNIT_EXPECT_LE(test, atomic_read(&t->nr_calls), nr_calls + nr_calls / 4 + 8);
	}
}

/* But not where a unit takes long, as preemption is off until all are done. */
static void memmap_batch_slow(struct kunit *test)
{
	struct memmap_test *t = memmap_batch_run(test, UNIT, START + 64 * UNIT, 500);

	KUNIT_EXPECT_EQ(test, atomic_long_read(&t->most_pages), UNIT);
}

static void memmap_grow(struct kunit *test)
{
	struct memmap_test *t = memmap_test_alloc(test, START, END);
	struct completion stall;
	struct memmap_async *m = memmap_test_stalled_job(test, t, &stall);
	unsigned long flags, some, rest, none;

	local_irq_save(flags);
	some = memmap_async_grow(m, 10 * UNIT);
	rest = memmap_async_grow(m, ULONG_MAX);
	/* What the worker has is in flight: neither wait for it nor claim to have it. */
	none = memmap_async_grow(m, 1);
	local_irq_restore(flags);

	KUNIT_EXPECT_GE(test, some, 10 * UNIT);
	KUNIT_EXPECT_LT(test, some, 11 * UNIT);
	KUNIT_EXPECT_EQ(test, some + rest, atomic_long_read(&t->pages));
	KUNIT_EXPECT_GE(test, some + rest, END - START - BATCH);
	KUNIT_EXPECT_EQ(test, none, 0);

	complete(&stall);
	memmap_async_wait(m);
	expect_all_once(test, t);
	KUNIT_EXPECT_EQ(test, memmap_async_grow(m, 1), 0);
}

struct memmap_racer {
	struct memmap_async *m;
	struct memmap_test *t;
	unsigned int step;
	int err;
	struct completion done;
};

static void memmap_racer_run(struct kunit *test, struct memmap_racer *r,
			     int (*fn)(void *), struct memmap_async *m,
			     struct memmap_test *t, unsigned int step)
{
	r->m = m;
	r->t = t;
	r->step = step;
	r->err = 0;
	init_completion(&r->done);
	KUNIT_ASSERT_FALSE(test, IS_ERR(kthread_run(fn, r, "memmap_racer")));
}

static int memmap_race_wait(void *data)
{
	struct memmap_racer *r = data;

	memmap_async_wait(r->m);
	complete(&r->done);
	return 0;
}

/* A caller who waits needs no worker, of which there may be none for lack of memory. */
static void memmap_wait_takes_part(struct kunit *test)
{
	struct memmap_test *t = memmap_test_alloc(test, START, END);
	struct memmap_async *m = memmap_test_job(test, t);
	struct memmap_racer r;

	memmap_racer_run(test, &r, memmap_race_wait, m, t, 0);
	if (!wait_for_completion_timeout(&r.done, 20 * HZ)) {
		KUNIT_FAIL(test, "nobody does the work");
		memmap_async_start(m);
		wait_for_completion(&r.done);
	}
	expect_all_once(test, t);
}

static void memmap_sync_pages(struct kunit *test)
{
	struct memmap_test *t = memmap_test_alloc(test, START, END);
	struct memmap_async *m = memmap_test_job(test, t);

	KUNIT_EXPECT_EQ(test, memmap_async_sync(m, START - 1, START + 1), -EINVAL);
	KUNIT_EXPECT_EQ(test, memmap_async_sync(m, END - 1, END + 1), -EINVAL);
	KUNIT_EXPECT_EQ(test, memmap_async_sync(m, START, START), -EINVAL);
	KUNIT_EXPECT_EQ(test, memmap_async_sync(m, START + 1, START), -EINVAL);
	KUNIT_EXPECT_EQ(test, atomic_read(&t->nr_calls), 0);

	/* Not started: a caller who needs pages gets them. */
	KUNIT_EXPECT_EQ(test, memmap_async_sync(m, END - UNIT, END), 0);
	KUNIT_EXPECT_NULL(test, memchr_inv(t->seen + END - START - UNIT, 1, UNIT));

	KUNIT_EXPECT_EQ(test, memmap_async_sync(m, START, END), 0);
	expect_all_once(test, t);

	/* Nothing is left for workers. */
	memmap_async_start(m);
	memmap_async_wait(m);
	expect_all_once(test, t);
	KUNIT_EXPECT_EQ(test, memmap_async_sync(m, START, END), 0);
	expect_all_once(test, t);
}

/* A caller who needs a page gets its unit, and nothing but that. */
static void memmap_sync_one_unit(struct kunit *test)
{
	struct memmap_test *t = memmap_test_alloc(test, START, END);
	struct memmap_async *m = memmap_test_job(test, t);

	KUNIT_EXPECT_EQ(test, memmap_async_sync(m, 100 * UNIT + 7, 100 * UNIT + 8), 0);
	KUNIT_EXPECT_EQ(test, atomic_long_read(&t->pages), UNIT);
	KUNIT_EXPECT_NULL(test, memchr_inv(t->seen + 100 * UNIT - START, 1, UNIT));

	KUNIT_EXPECT_EQ(test, memmap_async_sync(m, 100 * UNIT - 1, 101 * UNIT + 1), 0);
	KUNIT_EXPECT_EQ(test, atomic_long_read(&t->pages), 3 * UNIT);

	memmap_async_start(m);
	memmap_async_wait(m);
	expect_all_once(test, t);
}

/* A worker that does not get on holds up no caller who needs another unit. */
static void memmap_sync_passes_worker(struct kunit *test)
{
	struct memmap_test *t = memmap_test_alloc(test, START, END);
	struct completion stall;
	struct memmap_async *m = memmap_test_stalled_job(test, t, &stall);

	KUNIT_EXPECT_EQ(test, memmap_async_sync(m, END - 1, END), 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&t->nr_calls), 2);

	complete(&stall);
	memmap_async_wait(m);
	expect_all_once(test, t);
}

/* Needs pages all over the range, and checks that they are ready when told so. */
static int memmap_race_sync(void *data)
{
	struct memmap_racer *r = data;
	unsigned long nr_pages = END - START, pos = r->step, i;

	for (i = 0; i < 500 && !r->err; i++) {
		pos = (pos + r->step * UNIT) % (nr_pages - 2 * UNIT);
		r->err = memmap_async_sync(r->m, START + pos, START + pos + UNIT + 1);
		if (!r->err && memchr_inv(r->t->seen + pos, 1, UNIT + 1))
			r->err = -EIO;
	}
	complete(&r->done);
	return 0;
}

static int memmap_race_grow(void *data)
{
	struct memmap_racer *r = data;

	while (memmap_async_grow(r->m, r->step))
		cond_resched();
	complete(&r->done);
	return 0;
}

/* Workers, callers who need certain pages and those who need any, at a time. */
static void memmap_race(struct kunit *test)
{
	static const unsigned int workers[] = { 1, 2, 20 };
	struct memmap_racer r[4];
	int i, j;

	for (i = 0; i < 3 * ARRAY_SIZE(workers); i++) {
		struct memmap_test *t = memmap_test_alloc(test, START, END);
		struct memmap_async *m;

		t->desc.nr_workers = workers[i % ARRAY_SIZE(workers)];
		t->desc.preemptible = i & 1;
		m = memmap_test_job(test, t);

		memmap_async_start(m);
		memmap_racer_run(test, &r[0], memmap_race_sync, m, t, 7);
		memmap_racer_run(test, &r[1], memmap_race_sync, m, t, 911);
		memmap_racer_run(test, &r[2], memmap_race_grow, m, t, 1);
		memmap_racer_run(test, &r[3], memmap_race_grow, m, t, 20 * UNIT);
		for (j = 0; j < ARRAY_SIZE(r); j++) {
			wait_for_completion(&r[j].done);
			KUNIT_EXPECT_EQ(test, r[j].err, 0);
		}
		memmap_async_wait(m);
		expect_all_once(test, t);
	}
}

/* After cancelling nothing is touched, and nobody gets anything. */
static void memmap_cancel(struct kunit *test)
{
	struct memmap_test *t = memmap_test_alloc(test, START, END);
	struct memmap_async *m = memmap_test_job(test, t);

	memmap_async_cancel(m);
	KUNIT_EXPECT_EQ(test, memmap_async_sync(m, START, START + 1), -ENXIO);
	KUNIT_EXPECT_EQ(test, memmap_async_grow(m, 1), 0);
	memmap_async_start(m);
	memmap_async_wait(m);
	memmap_async_cancel(m);
	KUNIT_EXPECT_EQ(test, memmap_async_sync(m, START, END), -ENXIO);
	KUNIT_EXPECT_EQ(test, atomic_read(&t->nr_calls), 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&t->nr_done), 0);
}

static int memmap_race_cancel(void *data)
{
	struct memmap_racer *r = data;

	memmap_async_cancel(r->m);
	complete(&r->done);
	return 0;
}

/* Cancelling waits for what is in flight, for that only, and lets nobody in. */
static void memmap_cancel_in_flight(struct kunit *test)
{
	struct memmap_test *t = memmap_test_alloc(test, START, END);
	struct completion stall;
	struct memmap_async *m = memmap_test_stalled_job(test, t, &stall);
	struct memmap_racer r;

	memmap_racer_run(test, &r, memmap_race_cancel, m, t, 0);
	KUNIT_EXPECT_EQ(test, wait_for_completion_timeout(&r.done, msecs_to_jiffies(50)), 0);
	KUNIT_EXPECT_EQ(test, memmap_async_sync(m, END - 1, END), -ENXIO);
	KUNIT_EXPECT_EQ(test, memmap_async_grow(m, 1), 0);

	complete(&stall);
	wait_for_completion(&r.done);
	memmap_async_wait(m);
	KUNIT_EXPECT_EQ(test, memmap_async_sync(m, START, START + 1), -ENXIO);
	KUNIT_EXPECT_EQ(test, atomic_read(&t->nr_calls), 1);
	KUNIT_EXPECT_EQ(test, atomic_read(&t->inside), 0);
}

/* On each CPU one that gets it before all others, and cancels. */
struct memmap_preemptor {
	struct kthread_work work;
	struct kthread_worker *worker;
	struct memmap_async *m;
	unsigned long slept;
	struct completion done;
};

static DEFINE_PER_CPU(struct memmap_preemptor, memmap_preemptors);

static void memmap_preempt_cancel(struct kthread_work *work)
{
	struct memmap_preemptor *p = container_of(work, struct memmap_preemptor, work);
	unsigned long nvcsw = current->nvcsw;

	memmap_async_cancel(p->m);
	p->slept = current->nvcsw - nvcsw;
	complete(&p->done);
}

/* Has itself preempted as soon as preemption is on again. */
static unsigned long preempted_init(unsigned long start_pfn, unsigned long end_pfn,
				    void *arg, bool can_resched)
{
	struct memmap_test *t = arg;

	if (atomic_inc_return(&t->nr_calls) == 1) {
		t->preemptor = raw_cpu_ptr(&memmap_preemptors);
		kthread_queue_work(t->preemptor->worker, &t->preemptor->work);
		complete(&t->stalled);
	}
	return end_pfn - start_pfn;
}

/*
 * A task that is preempted is not inside the gate: neither a worker nor a caller
 * in need makes a cancelling task wait until the scheduler lets them run again.
 */
static void memmap_cancel_preempted(struct kunit *test)
{
	int round, cpu;

	for (round = 0; round < 20; round++) {
		struct memmap_test *t = memmap_test_alloc(test, START, END);
		struct memmap_async *m;

		t->desc.nr_workers = 1;
		t->desc.init = preempted_init;
		m = memmap_test_job(test, t);

		for_each_online_cpu(cpu) {
			struct memmap_preemptor *p = per_cpu_ptr(&memmap_preemptors, cpu);

			p->m = m;
			p->slept = 0;
			init_completion(&p->done);
			kthread_init_work(&p->work, memmap_preempt_cancel);
			p->worker = kthread_run_worker_on_cpu(cpu, 0, "memmap_preempt/%u");
			KUNIT_ASSERT_FALSE(test, IS_ERR(p->worker));
			sched_set_fifo(p->worker->task);
		}

		if (round % 2)
			memmap_async_start(m);
		else
			memmap_async_sync(m, START, END);
		wait_for_completion(&t->stalled);
		wait_for_completion(&t->preemptor->done);
		KUNIT_EXPECT_EQ_MSG(test, t->preemptor->slept, 0, "round %d", round);

		for_each_online_cpu(cpu)
			kthread_destroy_worker(per_cpu(memmap_preemptors, cpu).worker);
	}
}

/* Cancelled at all moments: what was touched is whole, and then none is. */
static void memmap_cancel_race(struct kunit *test)
{
	int round, late = 0;

	for (round = 0; round < 40; round++) {
		struct memmap_test *t = memmap_test_alloc(test, START, END);
		struct memmap_async *m;
		struct memmap_racer r;
		int nr_calls;

		t->desc.nr_workers = 1 + round % 4;
		t->udelay = 5;
		m = memmap_test_job(test, t);
		memmap_async_start(m);
		memmap_racer_run(test, &r, memmap_race_sync, m, t, 7);
		fsleep(round * 100);
		memmap_async_cancel(m);

		KUNIT_EXPECT_EQ(test, atomic_read(&t->inside), 0);
		nr_calls = atomic_read(&t->nr_calls);
		late += nr_calls && atomic_long_read(&t->pages) < END - START;
		wait_for_completion(&r.done);
		KUNIT_EXPECT_TRUE(test, !r.err || r.err == -ENXIO);
		memmap_async_wait(m);
		fsleep(200);
		KUNIT_EXPECT_EQ(test, atomic_read(&t->nr_calls), nr_calls);
		KUNIT_EXPECT_EQ(test, atomic_read(&t->twice), 0);
		KUNIT_EXPECT_EQ(test, atomic_read(&t->nr_done),
				atomic_long_read(&t->pages) == END - START);
		KUNIT_EXPECT_EQ(test, memmap_async_sync(m, START, END), -ENXIO);
	}
	/* Else this test tested nothing. */
	KUNIT_EXPECT_GT(test, late, 0);
}

#if defined(CONFIG_X86_64) && defined(CONFIG_MEMMAP_ASYNC_DEVICE)
static void memmap_stores(struct kunit *test)
{
	static const struct {
		const char *name;
		int choice;
		u64 ps[MEMMAP_STORES_TURNS];
	} cases[] = {
		{ "nontemporal by far", MEMMAP_STORES_NONTEMPORAL,
		  { 10000, 5000, 10100, 5000, 10000, 5100, 10000, 5000 } },
		{ "nontemporal by an eighth", MEMMAP_STORES_NONTEMPORAL,
		  { 10000, 8800, 10000, 8800, 10000, 8800, 10000, 8800 } },
		{ "nontemporal by less", MEMMAP_STORES_CACHED,
		  { 10000, 9000, 10000, 9000, 10000, 9000, 10000, 9000 } },
		{ "nontemporal on average", MEMMAP_STORES_CACHED,
		  { 10000, 5000, 10000, 9500, 10000, 5000, 10000, 5000 } },
		{ "cached", MEMMAP_STORES_CACHED,
		  { 10000, 20000, 10000, 20000, 10000, 20000, 10000, 20000 } },
		{ "memory touched for the first time", -ERANGE,
		  { 334190, 493216, 334190, 493216, 334190, 493216, 334190, 493216 } },
		{ "touched before, in part", -ERANGE,
		  { 90000, 2000, 2500, 2000, 2500, 2000, 2500, 2000 } },
		{ "interrupted", -ERANGE,
		  { 10000, 5000, 10000, 5000, 10000, 5000, 10000, 10001 } },
		{ "a turn left out", -ERANGE,
		  { 10000, 5000, 10000, 0, 10000, 5000, 10000, 5000 } },
		{ "none took place", -ERANGE, {} },
	};
	int i;

	for (i = 0; i < ARRAY_SIZE(cases); i++)
		KUNIT_EXPECT_EQ_MSG(test, memmap_stores_choose(cases[i].ps),
				    cases[i].choice, "%s", cases[i].name);
}
#else
static void memmap_stores(struct kunit *test)
{
	kunit_skip(test, "there is one kind of stores only");
}
#endif

#endif /* CONFIG_MEMMAP_ASYNC */

static struct kunit_case memmap_async_test_cases[] = {
	KUNIT_CASE_PARAM(memmap_run, memmap_gen_params),
	KUNIT_CASE_PARAM(memmap_start_wait, memmap_gen_params),
	KUNIT_CASE(memmap_refused),
	KUNIT_CASE(memmap_no_memory),
	KUNIT_CASE(memmap_two_at_a_time),
	{}
};

static struct kunit_suite memmap_async_test_suite = {
	.name = "memmap_async",
	.test_cases = memmap_async_test_cases,
};

kunit_test_suites(&memmap_async_test_suite);

#ifdef CONFIG_MEMMAP_ASYNC

static struct kunit_case memmap_async_engine_test_cases[] = {
	KUNIT_CASE(memmap_batch),
	KUNIT_CASE(memmap_batch_slow),
	KUNIT_CASE(memmap_wait_takes_part),
	KUNIT_CASE(memmap_sync_pages),
	KUNIT_CASE(memmap_sync_one_unit),
	KUNIT_CASE(memmap_sync_passes_worker),
	KUNIT_CASE(memmap_grow),
	KUNIT_CASE(memmap_race),
	KUNIT_CASE(memmap_cancel),
	KUNIT_CASE(memmap_cancel_in_flight),
	KUNIT_CASE(memmap_cancel_preempted),
	KUNIT_CASE(memmap_cancel_race),
	KUNIT_CASE(memmap_stores),
	{}
};

static struct kunit_suite memmap_async_engine_test_suite = {
	.name = "memmap_async_engine",
	.test_cases = memmap_async_engine_test_cases,
};

kunit_test_suites(&memmap_async_engine_test_suite);

#endif /* CONFIG_MEMMAP_ASYNC */

MODULE_DESCRIPTION("KUnit tests for memmap_async");
MODULE_LICENSE("GPL");
