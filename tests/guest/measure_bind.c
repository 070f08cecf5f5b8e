// SPDX-License-Identifier: GPL-2.0
/*
 * For scripts/demo: what a bind of the one fsdax namespace takes, by the
 * monotonic clock, in nanoseconds.
 *
 * measure_bind first FILE OFFSET: waits for the disk that boot's own bind brings,
 * mounts, maps FILE of the filesystem, writes one byte at OFFSET, waits until the
 * memmap is initialised, unmounts.  Prints when the filesystem was mounted and when
 * the byte was written, by the kernel's own clock.
 *
 * measure_bind usable FILE OFFSET: unbinds, binds, and does the same.  Prints when
 * each was reached, counted from the beginning of the bind.
 *
 * measure_bind unbind: binds, and unbinds when a quarter is initialised.
 *
 * measure_bind bare TIMES: binds, and unbinds at once.  Leaves it unbound.
 *
 * A kernel without memmap_state has initialised everything when bind returns.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <poll.h>
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

static char device[64];
static uint64_t started;

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

/* Prints when the filesystem was mounted, and when FILE was written to. */
static void mount_and_write(const char *file, off_t offset)
{
	uint64_t mounted;
	char *map;
	int fd;

	if (mount(DISK, "/mnt", "ext4", 0, "dax=always"))
		die("mount");
	mounted = now();
	fd = open(file, O_RDWR);
	map = fd < 0 ? MAP_FAILED : mmap(NULL, HUGE, PROT_READ | PROT_WRITE,
					 MAP_SHARED, fd, offset);
	if (map == MAP_FAILED)
		die(file);
	*(volatile char *)map = 1;
	printf(" mounted=%lu byte=%lu", mounted, now());
	munmap(map, HUGE);
	close(fd);
}

static void unmount(void)
{
	if (umount("/mnt"))
		die("umount");
}

static void first(const char *file, off_t offset)
{
	/* Boot does not wait for the probe, which runs on another CPU. */
	while (access(DISK, F_OK))
		nap(1000000);
	printf("first:");
	mount_and_write(file, offset);
	printf("\n");
	find_device();
	wait_idle();
	unmount();
}

static void usable(const char *file, off_t offset)
{
	uint64_t unbound, bound;

	unbound = tell_driver("unbind");
	sleep(1);
	started = now();
	tell_driver("bind");
	bound = now();
	printf("usable: unbind=%lu bound=%lu", unbound, bound);
	mount_and_write(file, offset);
	printf(" idle=%lu\n", wait_idle() ? now() : bound);
	unmount();
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

/* The first one of all is not printed: QEMU has yet to translate its code. */
static void bare(unsigned int times)
{
	uint64_t bound, unbound;
	unsigned int i;

	tell_driver("unbind");
	for (i = 0; i <= times; i++) {
		sleep(1);
		bound = tell_driver("bind");
		unbound = tell_driver("unbind");
		if (i)
			printf("bare: bound=%lu unbind=%lu\n", bound, unbound);
	}
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (argc == 4 && !strcmp(what, "first")) {
		first(argv[2], strtoull(argv[3], NULL, 0));
	} else if (argc == 4 && !strcmp(what, "usable")) {
		find_device();
		usable(argv[2], strtoull(argv[3], NULL, 0));
	} else if (argc == 2 && !strcmp(what, "unbind")) {
		find_device();
		unbind_early();
	} else if (argc == 3 && !strcmp(what, "bare")) {
		find_device();
		bare(strtoul(argv[2], NULL, 0));
	} else {
		printf("usage: measure_bind first|usable FILE OFFSET | measure_bind unbind | measure_bind bare TIMES\n");
		return argc == 2 && !strcmp(what, "--help") ? 0 : 2;
	}
	return 0;
}
