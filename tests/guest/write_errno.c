// SPDX-License-Identifier: GPL-2.0
/*
 * write_errno FILE TEXT: one write(2), whose errno is the exit status.  SIGINT
 * interrupts it and nothing more.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void interrupt(int sig)
{
	(void)sig;
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = interrupt };
	int fd;

	if (argc != 3) {
		printf("usage: write_errno FILE TEXT\n");
		return 255;
	}
	/* Without SA_RESTART. */
	sigaction(SIGINT, &action, NULL);
	fd = open(argv[1], O_WRONLY);
	if (fd < 0)
		return errno;
	return write(fd, argv[2], strlen(argv[2])) < 0 ? errno : 0;
}
