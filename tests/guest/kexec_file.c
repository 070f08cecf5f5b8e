// SPDX-License-Identifier: GPL-2.0
/*
 * kexec_file now|crash KERNEL INITRD CMDLINE: loads a kernel, and starts it at
 * once, or leaves it to be started by a panic.  (Debian's kexec-tools would have
 * the machine that runs the tests reboot by kexec from then on.)
 */
#include "guest.h"
#include <linux/kexec.h>
#include <linux/reboot.h>
#include <sys/syscall.h>

int main(int argc, char **argv)
{
	int kernel, initrd, crash;

	if (argc != 5)
		errx(2, "usage: kexec_file now|crash KERNEL INITRD CMDLINE");
	crash = !strcmp(argv[1], "crash");
	kernel = open_file(argv[2], O_RDONLY);
	initrd = open_file(argv[3], O_RDONLY);
	if (syscall(SYS_kexec_file_load, kernel, initrd, strlen(argv[4]) + 1, argv[4],
		    crash ? KEXEC_FILE_ON_CRASH : 0))
		err(1, "load");
	if (crash)
		return 0;
#ifdef __x86_64__
	/* The next kernel has the same clock. */
	printf("kexec: %llu\n", __builtin_ia32_rdtsc());
	fflush(stdout);
#endif
	syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_KEXEC, NULL);
	err(1, "reboot");
}
