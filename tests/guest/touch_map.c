// SPDX-License-Identifier: GPL-2.0
/*
 * touch_map FILE SIZE STEP: maps a file or a DAX device, writes a word each
 * STEP bytes and reads it again, so that the kernel uses the struct pages.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	size_t size, step, at;
	volatile char *map;
	int fd;

	if (argc != 4) {
		printf("usage: touch_map FILE SIZE STEP\n");
		return argc == 2 && !strcmp(argv[1], "--help") ? 0 : 2;
	}
	size = strtoull(argv[2], NULL, 0);
	step = strtoull(argv[3], NULL, 0);
	fd = open(argv[1], O_RDWR);
	map = fd < 0 ? MAP_FAILED : mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED || !step) {
		fprintf(stderr, "touch_map: %s: %s\n", argv[1], strerror(errno));
		return 1;
	}
	for (at = 0; at < size; at += step)
		*(volatile size_t *)(map + at) = ~at;
	for (at = 0; at < size; at += step)
		if (*(volatile size_t *)(map + at) != ~at) {
			fprintf(stderr, "touch_map: %#zx reads back wrong\n", at);
			return 1;
		}
	return 0;
}
