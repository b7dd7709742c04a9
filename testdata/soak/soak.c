/* soak PID N: N times, calls and reads that concern process PID, which lives as long.
 * Prints what failed; nothing should. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

static void check(int ok, const char *what)
{
	if (!ok)
		printf("%s: %s\n", what, strerror(errno));
}

static void read_all(int pid, const char *name)
{
	char path[64], text[8192];
	snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	check(fd >= 0 && read(fd, text, sizeof text) > 0, path);
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	int pid = atoi(argv[1]), n = atoi(argv[2]);
	for (int i = 0; i < n; i++) {
		check(kill(pid, 0) == 0, "kill");
		check(sigqueue(pid, SIGCONT, (union sigval){.sival_int = i}) == 0, "sigqueue");
		check(setpriority(PRIO_PROCESS, pid, i % 5) == 0, "setpriority");
		int fd = syscall(SYS_pidfd_open, pid, 0);
		check(fd >= 0, "pidfd_open");
		check(poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 0) == 0, "poll");
		close(fd);
		read_all(pid, "stat");
		read_all(pid, "status");
		if (i % 16 == 0) {
			DIR *d = opendir("/proc");
			check(d && readdir(d), "/proc");
			if (d)
				closedir(d);
			read_all(pid, "environ");
		}
	}
	return 0;
}
