/* pend PID FROM TO DIRECTORY: TO-FROM threads, or as many as there may be, wait until
 * DIRECTORY/go exists, and then each queues SIGRTMIN+1 with a value of its own to PID.
 * DIRECTORY/ready has the number of threads, DIRECTORY/sent at the end a line
 * "VALUE ERRNO" for each (0: it was sent). */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define STACK 16384 /* PTHREAD_STACK_MIN */

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static int pid, from, *result;

static void *queue(void *arg)
{
	int i = (int)(long)arg;
	pthread_mutex_lock(&gate);
	pthread_mutex_unlock(&gate);
	result[i] = sigqueue(pid, SIGRTMIN + 1, (union sigval){.sival_int = from + i}) == 0 ? 0 : errno;
	return NULL;
}

/* put makes a whole file at once. */
static void put(const char *name, int n, int values)
{
	char temporary[64];
	snprintf(temporary, sizeof temporary, "%s.new", name);
	FILE *f = fopen(temporary, "w");
	if (f && !values)
		fprintf(f, "%d %d\n", getpid(), n);
	for (int i = 0; f && values && i < n; i++)
		fprintf(f, "%d %d\n", from + i, result[i]);
	if (!f || fclose(f) != 0 || rename(temporary, name) != 0) {
		perror(name);
		exit(1);
	}
}

int main(int argc, char **argv)
{
	if (argc != 5 || chdir(argv[4]) != 0)
		return 2;
	pid = atoi(argv[1]);
	from = atoi(argv[2]);
	int want = atoi(argv[3]) - from, n;
	pthread_t *threads = calloc(want, sizeof *threads);
	result = calloc(want, sizeof *result);
	/* One mapping for all stacks: the number of mappings is limited, too. */
	char *stacks = mmap(NULL, (size_t)want * STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (!threads || !result || stacks == MAP_FAILED) {
		perror("memory");
		return 1;
	}
	pthread_attr_t attr;
	pthread_attr_init(&attr);
	pthread_mutex_lock(&gate);
	for (n = 0; n < want; n++) {
		pthread_attr_setstack(&attr, stacks + (size_t)n * STACK, STACK);
		if (pthread_create(&threads[n], &attr, queue, (void *)(long)n) != 0)
			break;
	}
	put("ready", n, 0);
	while (access("go", F_OK) != 0)
		usleep(10000);
	pthread_mutex_unlock(&gate);
	for (int i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
	put("sent", n, 1);
	return 0;
}
