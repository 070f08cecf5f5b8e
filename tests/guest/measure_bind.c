// SPDX-License-Identifier: GPL-2.0
/*
 * For scripts/measure.py: what a bind of the one fsdax namespace takes, by the
 * monotonic clock, in nanoseconds.
 *
 * measure_bind usable FILE OFFSET: unbinds, binds, mounts, maps FILE of the
 * filesystem, writes one byte at OFFSET, waits until the memmap is initialised,
 * unmounts.  Prints when each was reached, counted from the beginning of the
 * bind, and how much of the memmap was initialised meanwhile.
 *
 * measure_bind unbind: binds, and unbinds when a quarter is initialised.
 *
 * A kernel without memmap_state has initialised everything when bind returns.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <time.h>
#include <unistd.h>

#define DRIVER		"/sys/bus/nd/drivers/nd_pmem/"
#define DISK		"/dev/pmem0"
#define HUGE		(2UL << 20)
#define SAMPLES		4096
#define SAMPLE_NS	20000000UL

static char device[64];
static uint64_t started;

static struct {
	uint64_t time;
	unsigned long done;
} samples[SAMPLES];
static unsigned int nr_samples;
static atomic_bool stop;

static void __attribute__((noreturn)) die(const char *what)
{
	fprintf(stderr, "measure_bind: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000UL + t.tv_nsec - started;
}

static void nap(uint64_t ns)
{
	struct timespec t = { .tv_nsec = ns };

	nanosleep(&t, NULL);
}

/* The device has its name only as long as it is bound. */
static void find_device(void)
{
	glob_t found;

	if (glob(DRIVER "pfn*", 0, NULL, &found)) {
		errno = ENODEV;
		die("no fsdax namespace");
	}
	snprintf(device, sizeof(device), "%s", found.gl_pathv[0] + strlen(DRIVER));
	globfree(&found);
}

static uint64_t tell_driver(const char *what)
{
	char path[128];
	uint64_t begin;
	int fd;

	snprintf(path, sizeof(path), DRIVER "%s", what);
	fd = open(path, O_WRONLY);
	if (fd < 0)
		die(path);
	begin = now();
	if (write(fd, device, strlen(device)) < 0)
		die(what);
	begin = now() - begin;
	close(fd);
	return begin;
}

static int open_attribute(const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "/sys/bus/nd/devices/%s/%s", device, name);
	return open(path, O_RDONLY);
}

static unsigned long read_number(int fd)
{
	char text[32] = "";

	return pread(fd, text, sizeof(text) - 1, 0) > 0 ? strtoul(text, NULL, 0) : 0;
}

static unsigned long attribute(const char *name)
{
	int fd = open_attribute(name);
	unsigned long value = fd < 0 ? 0 : read_number(fd);

	if (fd >= 0)
		close(fd);
	return value;
}

static int active(int fd)
{
	char text[32] = "";

	return pread(fd, text, sizeof(text) - 1, 0) > 0 && !strncmp(text, "active", 6);
}

/* False: this kernel has been idle since bind returned. */
static bool wait_idle(void)
{
	struct pollfd wait = { .fd = open_attribute("memmap_state"), .events = POLLPRI };

	if (wait.fd < 0)
		return false;
	while (active(wait.fd))
		if (poll(&wait, 1, 1000) < 0)
			die("poll memmap_state");
	close(wait.fd);
	return true;
}

static void *sample(void *unused)
{
	int fd = -1;

	(void)unused;
	while (!stop && nr_samples < SAMPLES) {
		if (fd < 0)
			fd = open_attribute("memmap_pages_done");
		if (fd >= 0) {
			samples[nr_samples].done = read_number(fd);
			samples[nr_samples++].time = now();
		}
		nap(SAMPLE_NS);
	}
	return NULL;
}

static void usable(const char *file, off_t offset)
{
	uint64_t unbound, bound, mounted, byte, idle;
	pthread_t sampler;
	unsigned int i;
	char *map;
	int fd;

	unbound = tell_driver("unbind");
	sleep(1);
	started = now();
	if (pthread_create(&sampler, NULL, sample, NULL))
		die("thread");
	tell_driver("bind");
	bound = now();
	if (mount(DISK, "/mnt", "ext4", 0, "dax=always"))
		die("mount");
	mounted = now();
	fd = open(file, O_RDWR);
	map = fd < 0 ? MAP_FAILED : mmap(NULL, HUGE, PROT_READ | PROT_WRITE,
					 MAP_SHARED, fd, offset);
	if (map == MAP_FAILED)
		die(file);
	*(volatile char *)map = 1;
	byte = now();
	idle = wait_idle() ? now() : bound;
	stop = 1;
	pthread_join(sampler, NULL);

	printf("usable: unbind=%lu bound=%lu mounted=%lu byte=%lu idle=%lu total=%lu\n",
	       unbound, bound, mounted, byte, idle,
	       attribute("memmap_pages_total"));
	for (i = 0; i < nr_samples; i++)
		printf("sample: time=%lu done=%lu\n", samples[i].time, samples[i].done);
	munmap(map, HUGE);
	close(fd);
	if (umount("/mnt"))
		die("umount");
}

static void unbind_early(void)
{
	unsigned long total, done;
	uint64_t unbound;
	int state;

	tell_driver("unbind");
	sleep(1);
	tell_driver("bind");
	state = open_attribute("memmap_state");
	total = attribute("memmap_pages_total");
	while (state >= 0 && active(state) && attribute("memmap_pages_done") < total / 4)
		nap(5000000);
	done = attribute("memmap_pages_done");
	unbound = tell_driver("unbind");
	printf("early: unbind=%lu done=%lu total=%lu\n", unbound, done, total);
	tell_driver("bind");
	wait_idle();
}

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "usable")) {
		find_device();
		usable(argv[2], strtoull(argv[3], NULL, 0));
	} else if (argc == 2 && !strcmp(argv[1], "unbind")) {
		find_device();
		unbind_early();
	} else {
		printf("usage: measure_bind usable FILE OFFSET | measure_bind unbind\n");
		return argc == 2 && !strcmp(argv[1], "--help") ? 0 : 2;
	}
	return 0;
}
