// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests for padata_do_multithreaded().
 *
 * Run them again through debugfs once the system is up: what is wrongly marked
 * __init goes unnoticed as long as the init sections have not been freed.
 */
#include <kunit/test.h>
#include <linux/padata.h>
#include <linux/slab.h>

#define START	1000UL
#define SIZE	5000UL

struct padata_test {
	atomic_t seen[SIZE];
	atomic_t outside, misaligned;
	unsigned long size, align;
};

struct padata_case {
	const char *name;
	unsigned long size, align, min_chunk;
	int max_threads;
	bool numa_aware;
};

static const struct padata_case padata_cases[] = {
	{ "nothing", 0, 1, 1, 4 },
	{ "one unit", 1, 1, 1, 4 },
	{ "one thread", SIZE, 1, 1, 1 },
	{ "two threads", SIZE, 1, 1, 2 },
	{ "many threads", SIZE, 1, 1, 64 },
	{ "smaller than a chunk", SIZE, 1, 2 * SIZE, 4 },
	{ "aligned", SIZE, 64, 1, 4 },
	{ "aligned, large chunks", SIZE, 64, 1000, 4 },
	{ "several nodes", SIZE, 1, 1, 4, true },
};

KUNIT_ARRAY_PARAM_DESC(padata, padata_cases, name);

static void padata_test_thread(unsigned long start, unsigned long end, void *arg)
{
	struct padata_test *t = arg;

	if ((start != START && start % t->align) ||
	    (end != START + t->size && end % t->align))
		atomic_inc(&t->misaligned);

	for (; start < end; start++) {
		if (start < START || start >= START + t->size)
			atomic_inc(&t->outside);
		else
			atomic_inc(&t->seen[start - START]);
	}
}

static void padata_every_unit_once(struct kunit *test)
{
	const struct padata_case *c = test->param_value;
	struct padata_test *t = kunit_kzalloc(test, sizeof(*t), GFP_KERNEL);
	unsigned long i;

	KUNIT_ASSERT_NOT_NULL(test, t);
	t->size = c->size;
	t->align = c->align;

	struct padata_mt_job job = {
		.thread_fn = padata_test_thread,
		.fn_arg = t,
		.start = START,
		.size = c->size,
		.align = c->align,
		.min_chunk = c->min_chunk,
		.max_threads = c->max_threads,
		.numa_aware = c->numa_aware,
	};
	padata_do_multithreaded(&job);

	KUNIT_EXPECT_EQ(test, atomic_read(&t->outside), 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&t->misaligned), 0);
	for (i = 0; i < c->size; i++)
		if (atomic_read(&t->seen[i]) != 1)
			break;
	KUNIT_EXPECT_EQ(test, i, c->size);
}

static struct kunit_case padata_test_cases[] = {
	KUNIT_CASE_PARAM(padata_every_unit_once, padata_gen_params),
	{}
};

static struct kunit_suite padata_test_suite = {
	.name = "padata_multithreaded",
	.test_cases = padata_test_cases,
};

kunit_test_suite(padata_test_suite);

MODULE_DESCRIPTION("KUnit tests for padata_do_multithreaded()");
MODULE_LICENSE("GPL");
