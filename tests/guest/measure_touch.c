// SPDX-License-Identifier: GPL-2.0
/*
 * For scripts/demo: what the first touch of 2 MiB of a DAX file takes.
 *
 * measure_touch allocate FILE SIZE: makes FILE, allocated but not written as far as
 * the filesystem knows, so that a fault zeroes what it maps.
 *
 * measure_touch warm FILE TIMES SEEDS: has the host provide memory for what is going
 * to be touched, as a fault there takes from 2 to 30 us for each 4 KiB, by chance, and
 * would hide the guest's own fault.  That is the first megabytes of FILE, and TIMES
 * touches with each of SEEDS seeds.
 *
 * measure_touch touch FILE TIMES SEED STATE: maps FILE, and writes a byte into
 * as many of its huge pages, at random.  One line each: how long it took,
 * whether memmap_state (STATE) was active before, whether a huge page came of
 * it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define HUGE	(2UL << 20)
/*
 * ext4 merges unwritten extents up to 128 MiB less a block, and a huge page
 * must not cross an extent's end: halves of 128 MiB stay as they are.
 */
#define EXTENT	(64UL << 20)
#define FIRST	(64UL << 20)

static void __attribute__((noreturn)) die(const char *what)
{
	fprintf(stderr, "measure_touch: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000UL + t.tv_nsec;
}

static long faults(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_minflt + usage.ru_majflt;
}

/* The same sequence for the same SEED, none of it in the first megabytes. */
static off_t random_page(off_t size)
{
	return FIRST + lrand48() % ((size - FIRST) / HUGE) * HUGE;
}

static void warm(int fd, off_t at)
{
	static char zeroes[HUGE];

	if (pwrite(fd, zeroes, HUGE, at) != HUGE)
		die("pwrite");
	if (fallocate(fd, FALLOC_FL_ZERO_RANGE, at, HUGE))
		die("fallocate of zeroes");
}

static void allocate(const char *file, off_t size)
{
	int fd = open(file, O_RDWR | O_CREAT, 0600);
	off_t at;

	if (fd < 0)
		die(file);
	for (at = 0; at < size; at += EXTENT)
		if (fallocate(fd, 0, at, EXTENT))
			die("fallocate");
}

static void warm_all(const char *file, unsigned int times, unsigned int seeds)
{
	int fd = open(file, O_RDWR);
	struct stat info;
	unsigned int i;
	off_t at;

	if (fd < 0 || fstat(fd, &info))
		die(file);
	for (at = 0; at < (off_t)FIRST; at += HUGE)
		warm(fd, at);
	for (; seeds; seeds--) {
		srand48(seeds);
		for (i = 0; i < times; i++)
			warm(fd, random_page(info.st_size));
	}
}

static int active(int fd)
{
	char text[32] = "";

	return fd >= 0 && pread(fd, text, sizeof(text) - 1, 0) > 0 &&
	       !strncmp(text, "active", 6);
}

static void touch(const char *file, unsigned int times, unsigned int seed, const char *state)
{
	int fd = open(file, O_RDWR), state_fd = open(state, O_RDONLY);
	struct result {
		uint64_t ns;
		int active, huge;
	} *results = malloc(times * sizeof(*results));
	struct stat info;
	unsigned int i;
	char *map;

	if (fd < 0 || fstat(fd, &info))
		die(file);
	map = mmap(NULL, info.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED || !results)
		die("mmap");
	/* No fault but those of the file is to be counted. */
	memset(results, 0xff, times * sizeof(*results));
	srand48(seed);
	now();
	for (i = 0; i < times; i++) {
		volatile char *page = map + random_page(info.st_size);
		struct result *result = &results[i];
		uint64_t begin;
		long before;

		result->active = active(state_fd);
		before = faults();
		begin = now();
		*page = 1;
		result->ns = now() - begin;
		page[HUGE / 2] = 1;
		result->huge = faults() - before == 1;
	}
	for (i = 0; i < times; i++)
		printf("touch: ns=%lu active=%d huge=%d\n", results[i].ns, results[i].active,
		       results[i].huge);
}

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "allocate")) {
		allocate(argv[2], strtoull(argv[3], NULL, 0));
	} else if (argc == 5 && !strcmp(argv[1], "warm")) {
		warm_all(argv[2], strtoul(argv[3], NULL, 0), strtoul(argv[4], NULL, 0));
	} else if (argc == 6 && !strcmp(argv[1], "touch")) {
		touch(argv[2], strtoul(argv[3], NULL, 0), strtoul(argv[4], NULL, 0), argv[5]);
	} else {
		printf("usage: measure_touch allocate FILE SIZE | measure_touch warm FILE TIMES SEEDS | measure_touch touch FILE TIMES SEED STATE\n");
		return argc == 2 && !strcmp(argv[1], "--help") ? 0 : 2;
	}
	return 0;
}
