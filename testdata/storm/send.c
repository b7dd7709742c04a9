/* send PID FROM TO RESULTS: queues SIGRTMIN+1 with the values FROM to TO-1 to PID,
 * and then writes into RESULTS a line "VALUE ERRNO" for each (0: it was sent). */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
	if (argc != 5)
		return 2;
	int pid = atoi(argv[1]), from = atoi(argv[2]), to = atoi(argv[3]);
	int *result = calloc(to - from, sizeof *result);
	char temporary[4096];
	for (int v = from; v < to; v++)
		result[v - from] = sigqueue(pid, SIGRTMIN + 1, (union sigval){.sival_int = v}) == 0 ? 0 : errno;
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
