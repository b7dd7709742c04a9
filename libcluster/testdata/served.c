/* The functions of cluster.h on a node of a small cluster, which fake is. Its bytes
 * are those that vproc/remote documents. */
#include <stdint.h>
#include <errno.h>
#include <string.h>
static long fake(long nr, void *a, long b, void *c);
#define CLUSTER_SYSCALL(nr, a, b, c) fake((nr), (void *)(a), (long)(b), (void *)(c))
static long fake4(long nr, const char *path, char *const argv[], char *const envp[], long node);
#define CLUSTER_SYSCALL4(nr, a, b, c, d) fake4((nr), (a), (b), (c), (d))
#include "../cluster.h"
#include <stdio.h>

static uint32_t *put(uint32_t *to, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
	to[0] = a, to[1] = b, to[2] = c, to[3] = d;
	return to + 4;
}

static long fail(int e)
{
	errno = e;
	return -1;
}

static long fake(long nr, void *a, long b, void *c)
{
	uint32_t out[26] = {0}, *end;
	long node = (long)c;
	switch (nr) {
	case 0x5500:
		if (b < 8)
			return fail(EINVAL);
		if (node == 0)
			end = put(put(out, 104, 1, 1, 127), 2, 2, 77, 0), strcpy((char *)end, "cluster");
		else if (node <= 2)
			end = put(put(out, 104, node, 2, node == 2 ? 5 : 0), 11 * node, 0, 5 + node, 0), strcpy((char *)end, node == 1 ? "one" : "two");
		else
			return fail(ENOENT);
		memcpy(a, out, b < 104 ? b : 104);
		return 104;
	case 0x5501:
		return 1;
	case 0x5502:
		return (long)a == 2;
	case 0x5503:
		if (a)
			*(uint64_t *)a = 77;
		if (b > 0 && c)
			((uint32_t *)c)[0] = 1;
		if (b > 1 && c)
			((uint32_t *)c)[1] = 2;
		return 2;
	}
	return fail(ENOSYS);
}

/* What daemons that are killed leave is closed, and the call made again. */
static int left; /* daemons that will be killed */
static long fake4(long nr, const char *path, char *const argv[], char *const envp[], long node)
{
	if (nr != 0x5504 || !path || !argv || !envp || node != 2)
		return fail(EINVAL);
	return left-- > 0 ? dup(1) : fail(ENOENT);
}

static int next_descriptor(void)
{
	int fd = dup(1);
	close(fd);
	return fd;
}

#define CHECK(x) do { if (!(x)) { printf("not so: %s\n", #x); bad = 1; } } while (0)

int main(void)
{
	int bad = 0;
	cluster_info_t info;
	clusternode_info_t n;
	transid_t epoch = 0;
	clusternode_t nodes[4] = {0};
	CHECK(sizeof info == 104 && sizeof n == 104);
	CHECK(cluster_info(&info) == 0 && info.version == 1 && info.self == 1 && info.maxnodes == 127 && info.up == 2 && info.init == 2);
	CHECK(info.epoch == 77 && !strcmp(info.name, "cluster"));
	CHECK(cluster_ssiconfig() == 1 && cluster_maxnodes() == 127 && clusternode_num() == 1);
	CHECK(clusternode_avail(2) == 1 && clusternode_avail(3) == 0);
	CHECK(clusternode_info(2, sizeof n, &n) == 0 && n.node == 2 && n.state == CLUSTERNODE_UP && n.flags == (CLUSTERNODE_CAPABLE | CLUSTERNODE_INIT));
	CHECK(n.incarnation == 22 && n.since == 7 && !strcmp(n.name, "two"));
	CHECK(clusternode_info(3, sizeof n, &n) == -1 && errno == ENOENT);
	CHECK(clusternode_info(0, sizeof n, &n) == -1 && errno == EINVAL);
	CHECK(clusternode_info(1, -1, &n) == -1 && errno == EINVAL);
	CHECK(clusternode_info(1, 8, &n) == 0 && n.node == 1);
	CHECK(cluster_membership(&epoch, 4, nodes) == 2 && epoch == 77 && nodes[0] == 1 && nodes[1] == 2 && nodes[2] == 0);
	CHECK(cluster_membership(NULL, 0, NULL) == 2);
	CHECK(cluster_getnodebyname("two") == 2);
	CHECK(cluster_getnodebyname("three") == CLUSTERNODE_INVAL && errno == ENOENT);
	char *list[] = {NULL};
	int before = next_descriptor();
	left = 0;
	CHECK(rexecve("/x", list, list, 2) == -1 && errno == ENOENT);
	left = 2;
	CHECK(rexecve("/x", list, list, 2) == -1 && errno == ENOENT && left == -1);
	left = 1000;
	CHECK(rexecve("/x", list, list, 2) == -1 && errno == EAGAIN && left > 900);
	CHECK(next_descriptor() == before);
	if (!bad)
		puts("ok");
	return bad;
}
