// SPDX-License-Identifier: GPL-2.0
/*
 * For scripts/demo: times of the one fsdax namespace, by the monotonic clock, in
 * nanoseconds.  FILE is on it.
 *
 * measure first FILE OFFSET: waits for the disk that boot's own bind brings, mounts,
 * maps FILE, writes one byte at OFFSET, waits until the memmap is initialised, unmounts.
 * Prints when the filesystem was mounted and when the byte was written, by the
 * kernel's own clock.
 *
 * measure usable FILE OFFSET: unbinds, binds, and does the same.  Prints when each was
 * reached, counted from the beginning of the bind.
 *
 * measure tell DEVICE bind|unbind: prints what that took.
 *
 * measure warm FILE TIMES SEEDS: has the host provide memory for what is going to be
 * touched, as a fault there takes from 2 to 30 us for each 4 KiB, by chance, and would
 * hide the guest's own fault.  That is the first megabytes of FILE, and TIMES touches
 * with each of SEEDS seeds.
 *
 * measure touch FILE TIMES SEED: maps FILE, and writes a byte into as many of its
 * huge pages, at random.  One line each: how long it took, whether memmap_state was
 * active before, whether a huge page came of it.
 *
 * A kernel without memmap_state has initialised everything when bind returns.
 */
#include "guest.h"
#include <glob.h>
#include <poll.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <time.h>

#define DRIVER		"/sys/bus/nd/drivers/nd_pmem/"
#define DISK		"/dev/pmem0"
#define HUGE		(2UL << 20)
/* No random touch there. */
#define FIRST		(64UL << 20)

static uint64_t started;

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000UL + t.tv_nsec - started;
}

/* The device has its name only as long as it is bound. */
static const char *find_device(void)
{
	glob_t found;

	if (glob(DRIVER "pfn*", 0, NULL, &found))
		errx(1, "no fsdax namespace");
	return found.gl_pathv[0] + strlen(DRIVER);
}

static uint64_t tell_driver(const char *device, const char *what)
{
	char path[128];
	uint64_t begin;
	int fd;

	snprintf(path, sizeof(path), DRIVER "%s", what);
	fd = open_file(path, O_WRONLY);
	begin = now();
	if (write(fd, device, strlen(device)) < 0)
		err(1, "%s", what);
	begin = now() - begin;
	close(fd);
	return begin;
}

/* Negative: this kernel has none. */
static int open_state(const char *device)
{
	char path[128];

	snprintf(path, sizeof(path), "/sys/bus/nd/devices/%s/memmap_state", device);
	return open(path, O_RDONLY);
}

static int active(int fd)
{
	char text[32] = "";

	return fd >= 0 && pread(fd, text, sizeof(text) - 1, 0) > 0 && !strncmp(text, "active", 6);
}

/* 0: it has been idle since bind returned. */
static uint64_t when_idle(const char *device)
{
	struct pollfd wait = { .fd = open_state(device), .events = POLLPRI };

	if (wait.fd < 0)
		return 0;
	while (active(wait.fd))
		if (poll(&wait, 1, 1000) < 0)
			err(1, "poll memmap_state");
	close(wait.fd);
	return now();
}

/* Prints when the filesystem was mounted, and when FILE was written to. */
static void mount_and_write(const char *file, off_t offset)
{
	uint64_t mounted;
	char *map;
	int fd;

	if (mount(DISK, "/mnt", "ext4", 0, "dax=always"))
		err(1, "mount");
	mounted = now();
	fd = open_file(file, O_RDWR);
	map = map_file(fd, PROT_READ | PROT_WRITE, HUGE, offset);
	*(volatile char *)map = 1;
	printf(" mounted=%lu byte=%lu", mounted, now());
	munmap(map, HUGE);
	close(fd);
}

static void first(const char *file, off_t offset)
{
	/* Boot does not wait for the probe, which runs on another CPU. */
	while (access(DISK, F_OK))
		usleep(1000);
	printf("first:");
	mount_and_write(file, offset);
	printf("\n");
	when_idle(find_device());
}

static void usable(const char *file, off_t offset)
{
	const char *device = find_device();
	uint64_t bound, idle;

	printf("usable: unbind=%lu", tell_driver(device, "unbind"));
	sleep(1);
	started = now();
	tell_driver(device, "bind");
	bound = now();
	printf(" bound=%lu", bound);
	mount_and_write(file, offset);
	idle = when_idle(device);
	printf(" idle=%lu\n", idle ?: bound);
}

/* The same sequence for the same seed. */
static off_t random_page(off_t size)
{
	return FIRST + lrand48() % ((size - FIRST) / HUGE) * HUGE;
}

static void warm(int fd, off_t at)
{
	static char zeroes[HUGE];

	if (pwrite(fd, zeroes, HUGE, at) != HUGE)
		err(1, "pwrite");
	if (fallocate(fd, FALLOC_FL_ZERO_RANGE, at, HUGE))
		err(1, "fallocate of zeroes");
}

static void warm_all(const char *file, unsigned int times, unsigned int seeds)
{
	int fd = open_file(file, O_RDWR);
	off_t at, size = lseek(fd, 0, SEEK_END);
	unsigned int i;

	for (at = 0; at < (off_t)FIRST; at += HUGE)
		warm(fd, at);
	for (; seeds; seeds--) {
		srand48(seeds);
		for (i = 0; i < times; i++)
			warm(fd, random_page(size));
	}
}

static long faults(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_minflt + usage.ru_majflt;
}

static void touch(const char *file, unsigned int times, unsigned int seed)
{
	int fd = open_file(file, O_RDWR), state = open_state(find_device());
	off_t size = lseek(fd, 0, SEEK_END);
	struct result {
		uint64_t ns;
		int active, huge;
	} *results = malloc(times * sizeof(*results));
	unsigned int i;
	char *map;

	map = map_file(fd, PROT_READ | PROT_WRITE, size, 0);
	if (!results)
		err(1, "malloc");
	/* No fault but those of the file is to be counted. */
	memset(results, 0xff, times * sizeof(*results));
	srand48(seed);
	now();
	for (i = 0; i < times; i++) {
		volatile char *page = map + random_page(size);
		struct result *result = &results[i];
		uint64_t begin;
		long before;

		result->active = active(state);
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
	const char *what = argc > 1 ? argv[1] : "";
	unsigned long a = argc > 3 ? strtoul(argv[3], NULL, 0) : 0;
	unsigned long b = argc > 4 ? strtoul(argv[4], NULL, 0) : 0;

	if (argc == 4 && !strcmp(what, "tell"))
		printf("%lu\n", tell_driver(argv[2], argv[3]));
	else if (argc == 4 && !strcmp(what, "first"))
		first(argv[2], a);
	else if (argc == 4 && !strcmp(what, "usable"))
		usable(argv[2], a);
	else if (argc == 5 && !strcmp(what, "warm"))
		warm_all(argv[2], a, b);
	else if (argc == 5 && !strcmp(what, "touch"))
		touch(argv[2], a, b);
	else
		errx(2, "no such arguments");
	return 0;
}
