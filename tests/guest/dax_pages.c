// SPDX-License-Identifier: GPL-2.0
/*
 * Writes to mappings.
 *
 * dax_pages write FILE SIZE THREADS PAGES SEED: each thread writes PAGES whole
 * pages at random.  What is in a page follows from its place and SEED.
 * dax_pages verify ...: the same arguments; every page has what was written.
 * dax_pages storm FILE SIZE THREADS SECONDS SEED: threads write a word here and
 * there until they get SIGBUS; fails if one does not within SECONDS.
 * dax_pages fill FILE SIZE OFFSET: writes rubbish everywhere from OFFSET on.
 * dax_pages poison FILE SIZE PAGE: prints the pfn of that page, and has the kernel believe
 * that it is broken; fails if it does not get SIGBUS for it.
 */
#include "guest.h"
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <time.h>

#define PAGE	4096UL
#define WORDS	(PAGE / sizeof(uint64_t))
#define RUBBISH	0xa5a5c3c35a5a3c3cUL

enum mode { WRITE, VERIFY, STORM, FILL, POISON };

static unsigned int mode;
static uint64_t *map;
static uint64_t nr_pages, count, seed;
static __thread sigjmp_buf on_sigbus;

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15UL;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9UL;
	x = (x ^ x >> 27) * 0x94d049bb133111ebUL;
	return x ^ x >> 31;
}

static void sigbus(int sig)
{
	(void)sig;
	siglongjmp(on_sigbus, 1);
}

static uint64_t random_page(uint64_t thread, uint64_t i)
{
	return mix(mix(seed ^ thread << 32) ^ i) % nr_pages;
}

/* What this returns is how many pages were wrong, or 1 if no SIGBUS came. */
static void *work(void *arg)
{
	uint64_t thread = (uintptr_t)arg, i, w, bad = 0;
	time_t end = time(NULL) + count;

	if (mode == STORM) {
		if (sigsetjmp(on_sigbus, 1))
			return NULL;
		for (i = 0; time(NULL) < end; i++)
			*(volatile uint64_t *)(map + random_page(thread, i) * WORDS) = i;
		return (void *)1;
	}

	for (i = 0; i < count; i++) {
		uint64_t page = random_page(thread, i);
		volatile uint64_t *at = map + page * WORDS;
		int wrong = 0;

		for (w = 0; w < WORDS; w++) {
			uint64_t word = mix(seed ^ (page * WORDS + w));

			if (mode == WRITE)
				at[w] = word;
			else
				wrong |= at[w] != word;
		}
		bad += wrong;
	}
	return (void *)(uintptr_t)bad;
}

static int poison(uint64_t page)
{
	volatile uint64_t *at = map + page * WORDS;
	int pagemap = open("/proc/self/pagemap", O_RDONLY);
	int inject = open("/sys/kernel/debug/hwpoison/corrupt-pfn", O_WRONLY);
	uint64_t entry;

	*at = RUBBISH;
	if (pread(pagemap, &entry, sizeof(entry), (uintptr_t)at / PAGE * sizeof(entry)) < 0)
		err(1, "pagemap");
	printf("%lu\n", entry & ((1UL << 55) - 1));
	fflush(stdout);
	if (sigsetjmp(on_sigbus, 1))
		return 0;
	if (dprintf(inject, "%lu", entry & ((1UL << 55) - 1)) < 0)
		err(1, "corrupt-pfn");
	*at = 0;
	errx(1, "no SIGBUS");
}

int main(int argc, char **argv)
{
	static const char *const modes[] = { "write", "verify", "storm", "fill", "poison" };
	uint64_t size, threads, offset = 0, i, bad = 0;

	while (mode <= POISON && argc > 1 && strcmp(argv[1], modes[mode]))
		mode++;
	if (mode > POISON || argc != (mode >= FILL ? 5 : 7))
		errx(2, "no such arguments");
	size = strtoull(argv[3], NULL, 0);
	threads = strtoull(argv[4], NULL, 0);
	if (mode >= FILL) {
		offset = threads;
	} else {
		count = strtoull(argv[5], NULL, 0);
		seed = mix(strtoull(argv[6], NULL, 0));
	}
	nr_pages = size / PAGE;

	if (mode == STORM || mode == POISON)
		signal(SIGBUS, sigbus);
	map = map_file(open_file(argv[2], O_RDWR), PROT_READ | PROT_WRITE, size,
		       mode == FILL ? offset : 0);
	if (mode == FILL) {
		/* Not memset(), which an emulated CPU does byte by byte. */
		for (i = 0; i < nr_pages * WORDS; i++)
			map[i] = RUBBISH;
		return 0;
	}

	if (mode == POISON)
		return poison(offset);

	pthread_t ids[threads];

	for (i = 0; i < threads; i++) {
		errno = pthread_create(&ids[i], NULL, work, (void *)(uintptr_t)i);
		if (errno)
			err(1, "no thread");
	}
	for (i = 0; i < threads; i++) {
		void *result;

		pthread_join(ids[i], &result);
		bad += (uintptr_t)result;
	}
	if (bad)
		errx(1, "%lu %s", bad, mode == STORM ? "threads got no SIGBUS" :
		     "pages are not what was written");
	return 0;
}
