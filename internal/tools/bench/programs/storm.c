/* storm SECONDS FIRST END: one process for each processor makes children at full
 * speed, each of which ends at once, and looks at their PIDs: those that are not
 * in [FIRST, END) are outside. Prints samples as JSON, see hammer.go. vfork(2) is
 * the fastest way to use up PIDs that ordinary programs have. */
#define _DEFAULT_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { WINDOW_MS = 250, MAX_WINDOWS = 400 }; /* as in hammer.go; 100 s */

struct share {
	unsigned long forks[MAX_WINDOWS];
	unsigned long outside;
};

static long now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000L + t.tv_nsec / 1000000L;
}

static int work(struct share *s, long start, long length, long first, long end)
{
	long ms;
	while ((ms = now_ms() - start) < length) {
		pid_t pid = vfork();
		if (pid == 0)
			_exit(0);
		if (pid < 0) {
			perror("vfork");
			return 1;
		}
		s->forks[ms / WINDOW_MS]++;
		s->outside += pid < first || pid >= end;
		while (waitpid(pid, NULL, 0) < 0)
			if (errno != EINTR) {
				perror("waitpid");
				return 1;
			}
	}
	return 0;
}

int main(int argc, char **argv)
{
	if (argc != 4)
		return 2;
	long length = 1000 * atol(argv[1]), first = atol(argv[2]), end = atol(argv[3]);
	int windows = length / WINDOW_MS, workers = sysconf(_SC_NPROCESSORS_ONLN), status, failed = 0;
	if (windows < 2 || windows > MAX_WINDOWS)
		return 2;
	struct share *all = mmap(NULL, workers * sizeof *all, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (all == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	long start = now_ms();
	for (int i = 0; i < workers; i++) {
		pid_t pid = fork();
		if (pid < 0) {
			perror("fork");
			return 1;
		}
		if (pid == 0)
			_exit(work(&all[i], start, length, first, end));
	}
	for (int i = 0; i < workers; i++)
		if (wait(&status) < 0 || status != 0)
			failed = 1;
	if (failed)
		return 1;
	unsigned long total = 0, outside = 0;
	printf("{\"rates\":[");
	for (int w = 0; w < windows; w++) {
		unsigned long sum = 0;
		for (int i = 0; i < workers; i++)
			sum += all[i].forks[w];
		total += sum;
		if (w > 0) /* things warm up in the first */
			printf("%s%lu", w > 1 ? "," : "", sum * (1000 / WINDOW_MS));
	}
	for (int i = 0; i < workers; i++)
		outside += all[i].outside;
	printf("],\"count\":%lu,\"outside\":%lu}\n", total, outside);
	return 0;
}
