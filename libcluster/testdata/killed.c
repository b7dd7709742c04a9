/* The daemon of the node is killed within rexecve: the call returns 0 and no descriptor,
 * then one, then an error. Descriptor 0 is left as it was. */
#include <fcntl.h>
static long answers(void);
#define CLUSTER_SYSCALL4(nr, a, b, c, d) ((void)(a), (void)(b), (void)(c), (void)(d), answers())
#include "../cluster.h"
#include <stdio.h>

static int calls, given;

static long answers(void)
{
	switch (calls++) {
	case 0:
		return 0;
	case 1:
		return given = open("/dev/null", O_RDONLY);
	}
	errno = ENOENT;
	return -1;
}

int main(void)
{
	if (rexecve("/x", NULL, NULL, 2) != -1 || errno != ENOENT || calls != 3)
		return printf("%d calls, %s\n", calls, strerror(errno));
	if (fcntl(0, F_GETFD) < 0 || fcntl(given, F_GETFD) >= 0)
		return puts("a wrong descriptor was closed");
	close(0);
	calls = 1;
	if (rexecve("/x", NULL, NULL, 2) != -1 || given != 0 || fcntl(0, F_GETFD) >= 0)
		return puts("descriptor 0 was left open");
	puts("ok");
	return 0;
}
