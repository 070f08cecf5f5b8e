// SPDX-License-Identifier: GPL-2.0
/*
 * attribute_file write FILE TEXT: one write(2); its errno is the exit status.
 * SIGINT interrupts it and nothing more.  With low instead of write it has the lowest
 * priority, and "ready" is printed right before.
 *
 * attribute_file poll FILE: prints what it reads, waits up to two minutes until poll()
 * says that the attribute has changed, and prints it again.
 */
#include "guest.h"
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>

static void interrupt(int sig)
{
	(void)sig;
}

static void print(int fd)
{
	char text[64];
	ssize_t n = pread(fd, text, sizeof(text), 0);

	printf("%.*s", (int)(n > 0 ? n : 0), text);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	/* Without SA_RESTART. */
	struct sigaction action = { .sa_handler = interrupt };
	struct pollfd wait = { .events = POLLPRI };
	int low = argc == 4 && !strcmp(argv[1], "low");
	int writes = low || (argc == 4 && !strcmp(argv[1], "write"));

	if (!writes && (argc != 3 || strcmp(argv[1], "poll")))
		errx(255, "usage: attribute_file write FILE TEXT | attribute_file poll FILE");
	sigaction(SIGINT, &action, NULL);
	wait.fd = open(argv[2], writes ? O_WRONLY : O_RDONLY);
	if (wait.fd < 0)
		return errno;
	if (low) {
		puts("ready");
		fflush(stdout);
		setpriority(PRIO_PROCESS, 0, 19);
	}
	if (writes)
		return write(wait.fd, argv[3], strlen(argv[3])) < 0 ? errno : 0;
	/* What was read last is what poll() compares with. */
	print(wait.fd);
	if (poll(&wait, 1, 120000) != 1)
		return ETIME;
	print(wait.fd);
	return 0;
}
