/* SPDX-License-Identifier: GPL-2.0 */
/* What the C programs here share. */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static inline int open_file(const char *path, int flags)
{
	int fd = open(path, flags);

	if (fd < 0)
		err(1, "%s", path);
	return fd;
}

static inline void *map_file(int fd, int prot, size_t size, off_t offset)
{
	void *map = mmap(NULL, size, prot, MAP_SHARED, fd, offset);

	if (map == MAP_FAILED)
		err(1, "mmap of %#zx bytes at %#lx", size, offset);
	return map;
}
