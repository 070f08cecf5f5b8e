// SPDX-License-Identifier: GPL-2.0
/*
 * Many threads on one mapping, each at pages of its own choice.
 *
 * dax_pages write FILE SIZE THREADS PAGES SEED: maps FILE, and each thread
 * writes PAGES whole pages at random.  What is in a page follows from its
 * place and SEED.
 * dax_pages verify ...: the same arguments; every page has what was written.
 * dax_pages storm FILE SIZE THREADS SECONDS SEED: threads write a word here and
 * there until they get SIGBUS; fails if one does not within SECONDS.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE	4096UL
#define WORDS	(PAGE / sizeof(uint64_t))

enum mode { WRITE, VERIFY, STORM };

static enum mode mode;
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

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static uint64_t random_page(uint64_t thread, uint64_t i)
{
	return mix(mix(seed ^ thread << 32) ^ i) % nr_pages;
}

/* What this returns is how many pages were wrong, or 1 if no SIGBUS came. */
static void *work(void *arg)
{
	uint64_t thread = (uintptr_t)arg, i, w, bad = 0;
	double end = now() + count;

	if (mode == STORM) {
		if (sigsetjmp(on_sigbus, 1))
			return NULL;
		for (i = 0; now() < end; i++)
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

static int usage(void)
{
	printf("usage: dax_pages write|verify FILE SIZE THREADS PAGES SEED\n"
	       "       dax_pages storm FILE SIZE THREADS SECONDS SEED\n");
	return 2;
}

int main(int argc, char **argv)
{
	uint64_t size, threads, i, bad = 0;
	pthread_t *ids;
	int fd;

	if (argc != 7)
		return usage();
	if (!strcmp(argv[1], "write"))
		mode = WRITE;
	else if (!strcmp(argv[1], "verify"))
		mode = VERIFY;
	else if (!strcmp(argv[1], "storm"))
		mode = STORM;
	else
		return usage();
	size = strtoull(argv[3], NULL, 0);
	threads = strtoull(argv[4], NULL, 0);
	count = strtoull(argv[5], NULL, 0);
	seed = mix(strtoull(argv[6], NULL, 0));
	nr_pages = size / PAGE;
	if (!nr_pages || !threads || !count)
		return usage();

	if (mode == STORM)
		signal(SIGBUS, sigbus);
	fd = open(argv[2], O_RDWR);
	map = fd < 0 ? MAP_FAILED : mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED) {
		fprintf(stderr, "dax_pages: %s: %s\n", argv[2], strerror(errno));
		return 1;
	}
	ids = calloc(threads, sizeof(*ids));
	if (!ids)
		return 1;
	for (i = 0; i < threads; i++) {
		errno = pthread_create(&ids[i], NULL, work, (void *)(uintptr_t)i);
		if (errno) {
			fprintf(stderr, "dax_pages: no thread: %s\n", strerror(errno));
			return 1;
		}
	}
	for (i = 0; i < threads; i++) {
		void *result;

		pthread_join(ids[i], &result);
		bad += (uintptr_t)result;
	}
	if (bad)
		fprintf(stderr, mode == STORM ? "dax_pages: %lu threads got no SIGBUS\n" :
			"dax_pages: %lu pages are not what was written\n", bad);
	return !!bad;
}
