/* calls CALL PID COUNT MS MAX: makes a system call for MS milliseconds, COUNT of
 * them a sample, MAX samples at most, and prints samples as JSON, see hammer.go.
 * In C: the runtime of Go wakes threads of its own while a call takes long. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { MAX_SAMPLES = 100000, CLUSTERNODE_NUM = 0x5501 };

static long now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000L + t.tv_nsec;
}

int main(int argc, char **argv)
{
	static long took[MAX_SAMPLES];
	if (argc != 6)
		return 2;
	long nr, pid = atol(argv[2]), count = atol(argv[3]), length = 1000000L * atol(argv[4]), max = atol(argv[5]), n = 0;
	if (!strcmp(argv[1], "getppid"))
		nr = SYS_getppid;
	else if (!strcmp(argv[1], "kill"))
		nr = SYS_kill;
	else if (!strcmp(argv[1], "clusternode_num"))
		nr = CLUSTERNODE_NUM;
	else
		return 2;
	if (pid == 0)
		pid = getpid();
	if (max <= 0 || max > MAX_SAMPLES)
		max = MAX_SAMPLES;
	for (long start = now_ns(), end = start; n < max && end - start < length; n++) {
		long began = now_ns();
		for (long i = 0; i < count; i++)
			/* ENOSYS is the answer where there is no filter. */
			if (syscall(nr, pid, 0) < 0 && !(nr == CLUSTERNODE_NUM && errno == ENOSYS)) {
				perror(argv[1]);
				return 1;
			}
		end = now_ns();
		took[n] = end - began;
	}
	printf("{\"durations_ns\":[");
	for (long i = 0; i < n; i++)
		printf("%s%ld", i ? "," : "", took[i]);
	printf("]}\n");
	return 0;
}
