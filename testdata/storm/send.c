/* send PID FROM TO RESULTS [PAUSE]: queues SIGRTMIN+1 with the values FROM to TO-1 to
 * PID, with a pause of so many microseconds after each, and then writes into
 * RESULTS a line "VALUE ERRNO" for each (0: it was sent). */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	if (argc != 5 && argc != 6)
		return 2;
	int pid = atoi(argv[1]), from = atoi(argv[2]), to = atoi(argv[3]), pause = argc == 6 ? atoi(argv[5]) : 0;
	int *result = calloc(to - from, sizeof *result);
	char temporary[4096];
	for (int v = from; v < to; v++) {
		result[v - from] = sigqueue(pid, SIGRTMIN + 1, (union sigval){.sival_int = v}) == 0 ? 0 : errno;
		if (pause)
			usleep(pause);
	}
	snprintf(temporary, sizeof temporary, "%s.new", argv[4]);
	FILE *f = fopen(temporary, "w");
	if (f)
		for (int v = from; v < to; v++)
			fprintf(f, "%d %d\n", v, result[v - from]);
	if (!f || fclose(f) != 0 || rename(temporary, argv[4]) != 0) {
		perror(argv[4]);
		return 1;
	}
	return 0;
}
