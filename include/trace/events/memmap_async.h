/* SPDX-License-Identifier: GPL-2.0 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM memmap_async

#if !defined(_TRACE_MEMMAP_ASYNC_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_MEMMAP_ASYNC_H

#include <linux/tracepoint.h>

/* A range begins to be initialized. */
TRACE_EVENT(memmap_async_start,
	    TP_PROTO(unsigned long start_pfn, unsigned long end_pfn, int nid),
	    TP_ARGS(start_pfn, end_pfn, nid),
	    TP_STRUCT__entry(__field(unsigned long, start_pfn)
			     __field(unsigned long, end_pfn)
			     __field(int, nid)
	    ),
	    TP_fast_assign(__entry->start_pfn = start_pfn;
			   __entry->end_pfn = end_pfn;
			   __entry->nid = nid;
	    ),
	    TP_printk("start_pfn=%#lx end_pfn=%#lx nid=%d",
		      __entry->start_pfn, __entry->end_pfn, __entry->nid)
);

/* All of a range is initialized, or it goes away before. */
TRACE_EVENT(memmap_async_end,
	    TP_PROTO(unsigned long start_pfn, unsigned long end_pfn,
		     unsigned long nr_pages),
	    TP_ARGS(start_pfn, end_pfn, nr_pages),
	    TP_STRUCT__entry(__field(unsigned long, start_pfn)
			     __field(unsigned long, end_pfn)
			     __field(unsigned long, nr_pages)
	    ),
	    TP_fast_assign(__entry->start_pfn = start_pfn;
			   __entry->end_pfn = end_pfn;
			   __entry->nr_pages = nr_pages;
	    ),
	    TP_printk("start_pfn=%#lx end_pfn=%#lx nr_pages=%lu",
		      __entry->start_pfn, __entry->end_pfn, __entry->nr_pages)
);

/* A caller needed pages while a memmap was being initialized. */
TRACE_EVENT(memmap_sync,
	    TP_PROTO(unsigned long pfn, unsigned long nr_pages, u64 wait_ns, int ret),
	    TP_ARGS(pfn, nr_pages, wait_ns, ret),
	    TP_STRUCT__entry(__field(unsigned long, pfn)
			     __field(unsigned long, nr_pages)
			     __field(u64, wait_ns)
			     __field(int, ret)
	    ),
	    TP_fast_assign(__entry->pfn = pfn;
			   __entry->nr_pages = nr_pages;
			   __entry->wait_ns = wait_ns;
			   __entry->ret = ret;
	    ),
	    TP_printk("pfn=%#lx nr_pages=%lu wait_ns=%llu ret=%d",
		      __entry->pfn, __entry->nr_pages, __entry->wait_ns, __entry->ret)
);

#endif /* _TRACE_MEMMAP_ASYNC_H */

/* This part must be outside protection */
#include <trace/define_trace.h>
