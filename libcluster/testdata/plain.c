/* What each call says on a machine that is no node, a line for each. */
#include "../cluster.h"
#include <stdio.h>

static void tell(const char *what, long r)
{
	printf("%s %ld %s\n", what, r, r == -1 || errno ? strerror(errno) : "-");
	errno = 0;
}

int main(void)
{
	cluster_info_t info;
	clusternode_info_t node;
	transid_t epoch;
	clusternode_t nodes[4];
	errno = 0;
	tell("cluster_ssiconfig", cluster_ssiconfig());
	tell("cluster_info", cluster_info(&info));
	tell("cluster_maxnodes", cluster_maxnodes());
	tell("clusternode_num", clusternode_num());
	tell("clusternode_avail", clusternode_avail(1));
	tell("clusternode_info", clusternode_info(1, sizeof node, &node));
	tell("cluster_membership", cluster_membership(&epoch, 4, nodes));
	tell("cluster_getnodebyname", cluster_getnodebyname("one"));
	tell("rexecve", rexecve("/bin/true", NULL, NULL, 1));
	tell("rfork", syscall(SYS_rfork, 0, 0, 0));
	tell("migrate", syscall(SYS_migrate, 0, 0, 0));
	return 0;
}
