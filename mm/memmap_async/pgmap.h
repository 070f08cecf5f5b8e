/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _MM_MEMMAP_ASYNC_PGMAP_H
#define _MM_MEMMAP_ASYNC_PGMAP_H

#include <linux/types.h>

struct dev_pagemap;

/* For mm/memremap.c; pgmap.c says what they do. */
#ifdef CONFIG_MEMMAP_ASYNC_DEVICE
struct memmap_async;

void pgmap_jobs_alloc(struct dev_pagemap *pgmap, bool background);
bool pgmap_jobs_start(struct dev_pagemap *pgmap, int range_id);
int pgmap_jobs_sync(struct dev_pagemap *pgmap, unsigned long pfn,
		    unsigned long nr_pages);
void pgmap_jobs_cancel(struct dev_pagemap *pgmap);
void pgmap_jobs_free(struct dev_pagemap *pgmap);

/* For mm/tests. */
void pgmap_jobs_start_workers(struct memmap_async *job);
#else
static inline void pgmap_jobs_alloc(struct dev_pagemap *pgmap, bool background)
{
}

static inline bool pgmap_jobs_start(struct dev_pagemap *pgmap, int range_id)
{
	return false;
}

static inline void pgmap_jobs_cancel(struct dev_pagemap *pgmap)
{
}

static inline void pgmap_jobs_free(struct dev_pagemap *pgmap)
{
}
#endif

#endif /* _MM_MEMMAP_ASYNC_PGMAP_H */
