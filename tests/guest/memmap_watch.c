// SPDX-License-Identifier: GPL-2.0
/*
 * memmap_watch DIRECTORY SECONDS: DIRECTORY is a device's in sysfs, resolved.
 * Waits until poll() says that its memmap_state changed and a uevent says
 * MEMMAP_STATE=idle, and prints what came: "armed" once it listens, "poll TEXT"
 * with what the file reads then, "uevent ACTION".  Fails if one does not come.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/netlink.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static char text[64];

static const char *read_state(int fd)
{
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

	text[n > 0 ? n : 0] = 0;
	text[strcspn(text, "\n")] = 0;
	return text;
}

/* "change@/devices/...", then variables, a NUL after each. */
static int is_ours(const char *message, ssize_t size, const char *directory)
{
	const char *at = strchr(message, '@'), *end = message + size;

	if (!at || strcmp(at + 1, directory + strlen("/sys")))
		return 0;
	for (at = message; at < end; at += strlen(at) + 1)
		if (!strcmp(at, "MEMMAP_STATE=idle"))
			return 1;
	return 0;
}

int main(int argc, char **argv)
{
	struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_groups = 1 };
	int state, events, polled = 0, notified = 0;
	char path[PATH_MAX], message[8192];
	struct pollfd fds[2];
	time_t end;

	if (argc != 3) {
		printf("usage: memmap_watch DIRECTORY SECONDS\n");
		return 2;
	}
	snprintf(path, sizeof(path), "%s/memmap_state", argv[1]);
	state = open(path, O_RDONLY);
	events = socket(AF_NETLINK, SOCK_RAW, NETLINK_KOBJECT_UEVENT);
	if (state < 0 || events < 0 || bind(events, (void *)&address, sizeof(address))) {
		fprintf(stderr, "memmap_watch: %s: %s\n", path, strerror(errno));
		return 1;
	}
	/* What was read last is what poll() compares with. */
	printf("armed %s\n", read_state(state));
	fflush(stdout);
	end = time(NULL) + atoi(argv[2]);

	while ((!polled || !notified) && time(NULL) < end) {
		fds[0] = (struct pollfd){ polled ? -1 : state, POLLPRI | POLLERR, 0 };
		fds[1] = (struct pollfd){ events, POLLIN, 0 };
		if (poll(fds, 2, 1000) <= 0)
			continue;
		if (fds[0].revents & POLLPRI) {
			polled = 1;
			printf("poll %s\n", read_state(state));
		}
		if (fds[1].revents & POLLIN) {
			ssize_t n = recv(events, message, sizeof(message) - 1, 0);

			message[n > 0 ? n : 0] = 0;
			if (n > 0 && is_ours(message, n, argv[1])) {
				notified = 1;
				printf("uevent %.*s\n", (int)strcspn(message, "@"), message);
			}
		}
	}
	return !polled || !notified;
}
