// SPDX-License-Identifier: GPL-2.0
/*
 * write_errno [-n] FILE TEXT: one write(2); its errno is the exit status.
 * SIGINT interrupts it and nothing more.  -n: with the lowest priority, and
 * "ready" is printed right before.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static void interrupt(int sig)
{
	(void)sig;
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = interrupt };
	int fd, lowly = argc == 4 && !strcmp(argv[1], "-n");

	argv += lowly;
	if (argc != 3 + lowly) {
		printf("usage: write_errno [-n] FILE TEXT\n");
		return 255;
	}
	/* Without SA_RESTART. */
	sigaction(SIGINT, &action, NULL);
	fd = open(argv[1], O_WRONLY);
	if (fd < 0)
		return errno;
	if (lowly) {
		puts("ready");
		fflush(stdout);
		setpriority(PRIO_PROCESS, 0, 19);
	}
	return write(fd, argv[2], strlen(argv[2])) < 0 ? errno : 0;
}
