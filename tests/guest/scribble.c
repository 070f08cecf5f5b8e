// SPDX-License-Identifier: GPL-2.0
/*
 * scribble ram KEEP_MB: fills free RAM but KEEP_MB with rubbish, and frees it.
 * scribble physical START SIZE: fills physical memory, through /dev/mem.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define RUBBISH	0xa5a5c3c35a5a3c3cUL

static void __attribute__((noreturn)) die(const char *what)
{
	fprintf(stderr, "scribble: %s: %s\n", what, strerror(errno));
	exit(1);
}

static size_t free_bytes(void)
{
	char line[128];
	size_t kb = 0;
	FILE *file = fopen("/proc/meminfo", "r");

	if (!file)
		die("/proc/meminfo");
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "MemFree: %zu", &kb) == 1)
			break;
	fclose(file);
	return kb << 10;
}

int main(int argc, char **argv)
{
	size_t size, keep, i;
	uint64_t *map;
	int fd;

	if (argc == 3 && !strcmp(argv[1], "ram")) {
		keep = strtoull(argv[2], NULL, 0) << 20;
		size = free_bytes();
		if (size <= keep)
			return 0;
		size -= keep;
		map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		/* Which saves most of the faults. */
		if (map != MAP_FAILED)
			madvise(map, size, MADV_HUGEPAGE);
	} else if (argc == 4 && !strcmp(argv[1], "physical")) {
		size = strtoull(argv[3], NULL, 0);
		fd = open("/dev/mem", O_RDWR);
		if (fd < 0)
			die("/dev/mem");
		map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
			   strtoull(argv[2], NULL, 0));
	} else {
		printf("usage: scribble ram KEEP_MB | scribble physical START SIZE\n");
		return argc == 2 && !strcmp(argv[1], "--help") ? 0 : 2;
	}
	if (map == MAP_FAILED)
		die("mmap");
	/* Not memset(), which an emulated CPU does byte by byte. */
	for (i = 0; i < size / sizeof(*map); i++)
		map[i] = RUBBISH;
	return 0;
}
