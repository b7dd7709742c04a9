/* receive PIDFILE COUNTS: counts the values of SIGRTMIN+1, and at SIGTERM writes
 * into COUNTS a line "VALUE COUNT" for each that came. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define VALUES 100000

static unsigned short counts[VALUES];

static void count(const siginfo_t *info)
{
	int v = info->si_value.sival_int;
	if (v >= 0 && v < VALUES)
		counts[v]++;
}

/* finish makes a whole file of a temporary one. */
static void finish(FILE *f, const char *temporary, const char *path)
{
	if (!f || fclose(f) != 0 || rename(temporary, path) != 0) {
		perror(path);
		exit(1);
	}
}

int main(int argc, char **argv)
{
	sigset_t set;
	siginfo_t info;
	char temporary[4096];
	if (argc != 3)
		return 2;
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + 1);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	snprintf(temporary, sizeof temporary, "%s.new", argv[1]);
	FILE *f = fopen(temporary, "w");
	if (f)
		fprintf(f, "%d\n", getpid());
	finish(f, temporary, argv[1]);
	for (;;) {
		int s = sigwaitinfo(&set, &info);
		if (s == SIGRTMIN + 1)
			count(&info);
		else if (s == SIGTERM)
			break;
	}
	sigdelset(&set, SIGTERM);
	while (sigtimedwait(&set, &info, &(struct timespec){0}) > 0)
		count(&info);
	snprintf(temporary, sizeof temporary, "%s.new", argv[2]);
	if ((f = fopen(temporary, "w")))
		for (int v = 0; v < VALUES; v++)
			if (counts[v])
				fprintf(f, "%d %d\n", v, counts[v]);
	finish(f, temporary, argv[2]);
	return 0;
}
