// SPDX-License-Identifier: GPL-2.0
/*
 * What user space sees of a memmap that is initialized in the background.
 *
 * For the drivers that leave it to the background, nd_pmem and device_dax: they
 * map their pages by devm_dax_memremap_pages(), and have dax_memmap_groups in
 * their dev_groups. The attributes thus go before the pgmap does.
 */
#include <linux/dax.h>
#include <linux/device.h>
#include <linux/memmap_async.h>
#include <linux/memremap.h>
#include <linux/sysfs.h>
#include <linux/workqueue.h>

struct dax_memmap {
	struct work_struct notify_work;
	struct device *dev;
	struct dev_pagemap *pgmap;
};

static void dax_memmap_notify(struct work_struct *work)
{
	struct dax_memmap *memmap = container_of(work, struct dax_memmap, notify_work);
	char state[] = "MEMMAP_STATE=idle";
	char *envp[2] = { state };

	sysfs_notify(&memmap->dev->kobj, NULL, "memmap_state");
	kobject_uevent_env(&memmap->dev->kobj, KOBJ_CHANGE, envp);
}

static void devm_dax_memmap_release(struct device *dev, void *res)
{
	struct dax_memmap *memmap = res;

	cancel_work_sync(&memmap->notify_work);
}

/* devm_memremap_pages() for a driver with dax_memmap_groups. */
void *devm_dax_memremap_pages(struct device *dev, struct dev_pagemap *pgmap)
{
	struct dax_memmap *memmap;
	void *addr;

	memmap = devres_alloc(devm_dax_memmap_release, sizeof(*memmap), GFP_KERNEL);
	if (!memmap) {
		/* A driver that does not know of it can have the pgmap next. */
		pgmap->flags &= ~PGMAP_MEMMAP_ASYNC;
		return ERR_PTR(-ENOMEM);
	}

	INIT_WORK(&memmap->notify_work, dax_memmap_notify);
	memmap->dev = dev;
	memmap->pgmap = pgmap;
	/* Before the pgmap, so that it goes after what queues the work. */
	devres_add(dev, memmap);

	addr = devm_memremap_pages(dev, pgmap);
	if (!IS_ERR(addr))
		memmap_async_notify(pgmap, &memmap->notify_work);
	return addr;
}
EXPORT_SYMBOL_GPL(devm_dax_memremap_pages);

static struct dev_pagemap *dax_memmap_pgmap(struct device *dev)
{
	struct dax_memmap *memmap = devres_find(dev, devm_dax_memmap_release, NULL, NULL);

	return memmap ? memmap->pgmap : NULL;
}

static ssize_t memmap_state_show(struct device *dev, struct device_attribute *attr,
				 char *buf)
{
	unsigned long total, done = memmap_async_progress(dax_memmap_pgmap(dev), &total);

	return sysfs_emit(buf, "%s\n", done == total ? "idle" : "active");
}

static ssize_t memmap_state_store(struct device *dev, struct device_attribute *attr,
				  const char *buf, size_t count)
{
	struct dev_pagemap *pgmap = dax_memmap_pgmap(dev);
	struct kernfs_node *kn;
	int err;

	if (!sysfs_streq(buf, "sync"))
		return -EINVAL;
	if (!percpu_ref_tryget_live(&pgmap->ref))
		return -ENXIO;

	/*
	 * Unbinding the device waits for tasks in its attributes before it ends
	 * what this one waits for. So leave the attribute: for tasks with a
	 * reference to the pgmap it ends that first, and waits then.
	 */
	kn = sysfs_break_active_protection(&dev->kobj, &attr->attr);
	err = memmap_async_complete(pgmap);
	if (kn)
		sysfs_unbreak_active_protection(kn);
	put_dev_pagemap(pgmap);

	/* The freezer interrupts as well, which user space need not know. */
	return err == -EINTR ? -ERESTARTSYS : err ?: count;
}
static DEVICE_ATTR_RW(memmap_state);

static ssize_t memmap_pages_done_show(struct device *dev, struct device_attribute *attr,
				      char *buf)
{
	unsigned long total;

	return sysfs_emit(buf, "%lu\n", memmap_async_progress(dax_memmap_pgmap(dev), &total));
}
static DEVICE_ATTR_RO(memmap_pages_done);

static ssize_t memmap_pages_total_show(struct device *dev, struct device_attribute *attr,
				       char *buf)
{
	unsigned long total;

	memmap_async_progress(dax_memmap_pgmap(dev), &total);
	return sysfs_emit(buf, "%lu\n", total);
}
static DEVICE_ATTR_RO(memmap_pages_total);

static struct attribute *dax_memmap_attrs[] = {
	&dev_attr_memmap_state.attr,
	&dev_attr_memmap_pages_done.attr,
	&dev_attr_memmap_pages_total.attr,
	NULL
};

static umode_t dax_memmap_visible(struct kobject *kobj, struct attribute *attr, int n)
{
	struct dev_pagemap *pgmap = dax_memmap_pgmap(kobj_to_dev(kobj));

	return pgmap && pgmap->memmap_jobs ? attr->mode : 0;
}

static const struct attribute_group dax_memmap_group = {
	.attrs = dax_memmap_attrs,
	.is_visible = dax_memmap_visible,
};

const struct attribute_group *dax_memmap_groups[] = { &dax_memmap_group, NULL };
EXPORT_SYMBOL_GPL(dax_memmap_groups);
