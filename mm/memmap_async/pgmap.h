/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _MM_MEMMAP_ASYNC_PGMAP_H
#define _MM_MEMMAP_ASYNC_PGMAP_H

#include <linux/types.h>

struct dev_pagemap;

/* For mm/memremap.c; pgmap.c says what they do. */
#ifdef CONFIG_MEMMAP_ASYNC_DEVICE
struct memmap_async;

void pgmap_memmap_alloc(struct dev_pagemap *pgmap, bool background);
bool pgmap_memmap_start(struct dev_pagemap *pgmap, int range_id);
int pgmap_memmap_sync(struct dev_pagemap *pgmap, unsigned long pfn,
		      unsigned long nr_pages);
void pgmap_memmap_cancel(struct dev_pagemap *pgmap);
void pgmap_memmap_free(struct dev_pagemap *pgmap);

/* For mm/tests. */
void pgmap_memmap_start_workers(struct memmap_async *job);
#else
static inline void pgmap_memmap_alloc(struct dev_pagemap *pgmap, bool background)
{
}

static inline bool pgmap_memmap_start(struct dev_pagemap *pgmap, int range_id)
{
	return false;
}

static inline void pgmap_memmap_cancel(struct dev_pagemap *pgmap)
{
}

static inline void pgmap_memmap_free(struct dev_pagemap *pgmap)
{
}
#endif

#endif /* _MM_MEMMAP_ASYNC_PGMAP_H */
