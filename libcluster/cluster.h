/* The system calls of an ssi cluster, under the names of libcluster. Header only:
 * nothing is linked. On a machine that is no node of a cluster all fail with
 * ENOSYS, but for cluster_ssiconfig, which tells just that.
 *
 * Functions return -1 and set errno unless said otherwise. */
#ifndef SSI_CLUSTER_H
#define SSI_CLUSTER_H

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#ifdef __cplusplus
extern "C" {
#endif

/* syscall(2) is hidden by strict standards (-std=c99). */
#if !defined _DEFAULT_SOURCE && !defined _GNU_SOURCE
extern long syscall(long, ...);
#endif

/* Numbers, the same on all architectures. */
enum {
	SYS_ssi_info = 0x5500,
	SYS_clusternode_num,
	SYS_clusternode_avail,
	SYS_cluster_membership,
	SYS_rexecve,
	SYS_rfork, /* reserved, as is the one that follows: ENOSYS */
	SYS_migrate,
};

typedef int clusternode_t;  /* 1 to cluster_maxnodes() */
typedef uint64_t transid_t; /* a transition of the membership: each has a higher number */

#define CLUSTERNODE_INVAL 0 /* no node */

/* States of a node. */
enum {
	CLUSTERNODE_NEVERUP,
	CLUSTERNODE_COMINGUP,
	CLUSTERNODE_UP,
	CLUSTERNODE_SHUTDOWN,
	CLUSTERNODE_GOINGDOWN,
	CLUSTERNODE_KCLEANUP,
	CLUSTERNODE_UCLEANUP,
	CLUSTERNODE_DOWN,
};

/* Flags of a node. */
enum {
	CLUSTERNODE_CAPABLE = 1, /* may become the init node */
	CLUSTERNODE_WITNESS = 2, /* votes, and runs no programs */
	CLUSTERNODE_INIT = 4,    /* is the init node */
};

/* What ssi_info tells of the cluster. */
typedef struct {
	uint32_t size;     /* of what there is to know; more in a later version */
	uint32_t version;  /* 1 */
	uint32_t self;     /* number of this node */
	uint32_t maxnodes; /* the highest number of a node */
	uint32_t up;       /* nodes that are UP and run programs */
	uint32_t init;     /* the init node, or CLUSTERNODE_INVAL */
	transid_t epoch;   /* the last transition */
	char name[72];
} cluster_info_t;

/* What it tells of one node. */
typedef struct {
	uint32_t size;
	uint32_t node;
	uint32_t state;
	uint32_t flags;
	uint64_t incarnation; /* another one for each time the node was started */
	transid_t since;      /* the transition into this state */
	char name[72];
} clusternode_info_t;

#ifndef CLUSTER_SYSCALL /* for tests */
#define CLUSTER_SYSCALL(nr, a, b, c) syscall((nr), (a), (b), (c))
#endif
#ifndef CLUSTER_SYSCALL4
#define CLUSTER_SYSCALL4(nr, a, b, c, d) syscall((nr), (a), (b), (c), (d))
#endif

/* cluster_info: 0. */
static inline int cluster_info(cluster_info_t *info)
{
	memset(info, 0, sizeof *info);
	return CLUSTER_SYSCALL(SYS_ssi_info, info, sizeof *info, 0L) < 0 ? -1 : 0;
}

/* cluster_ssiconfig: 1 if this machine is a node of a cluster, 0 if not. */
static inline int cluster_ssiconfig(void)
{
	return CLUSTER_SYSCALL(SYS_clusternode_num, 0L, 0L, 0L) > 0;
}

/* cluster_maxnodes: the highest number that a node can have. */
static inline int cluster_maxnodes(void)
{
	cluster_info_t info;
	return cluster_info(&info) ? -1 : (int)info.maxnodes;
}

/* clusternode_num: the node on which the caller runs. */
static inline clusternode_t clusternode_num(void)
{
	return (clusternode_t)CLUSTER_SYSCALL(SYS_clusternode_num, 0L, 0L, 0L);
}

/* clusternode_avail: 1 if the node is UP and runs programs, 0 if not. EINVAL: no
 * node can have that number. */
static inline int clusternode_avail(clusternode_t node)
{
	return (int)CLUSTER_SYSCALL(SYS_clusternode_avail, (long)node, 0L, 0L);
}

/* clusternode_info: 0; size is sizeof *info. EINVAL: no node can have that number,
 * or size is less than 8; ENOENT: no node has had it. */
static inline int clusternode_info(clusternode_t node, int size, clusternode_info_t *info)
{
	if (node == CLUSTERNODE_INVAL || size < 0) {
		errno = EINVAL;
		return -1;
	}
	memset(info, 0, (size_t)size < sizeof *info ? (size_t)size : sizeof *info);
	return CLUSTER_SYSCALL(SYS_ssi_info, info, (long)size, (long)node) < 0 ? -1 : 0;
}

/* cluster_membership: how many nodes are UP and run programs. Their numbers, count
 * of them at most, go to nodes and the last transition to epoch; either may be NULL. */
static inline int cluster_membership(transid_t *epoch, int count, clusternode_t *nodes)
{
	return (int)CLUSTER_SYSCALL(SYS_cluster_membership, epoch, (long)count, nodes);
}

/* cluster_getnodebyname: the number, or CLUSTERNODE_INVAL. ENOENT: there is none of
 * that name. */
static inline clusternode_t cluster_getnodebyname(const char *name)
{
	clusternode_info_t info;
	clusternode_t node;
	int max = cluster_maxnodes();
	if (max < 0)
		return CLUSTERNODE_INVAL;
	for (node = 1; node <= max; node++)
		if (clusternode_info(node, sizeof info, &info) == 0 && strcmp(info.name, name) == 0)
			return node;
	errno = ENOENT;
	return CLUSTERNODE_INVAL;
}

/* rexecve: execve(2) of a program on another node. It does not return if that
 * succeeds: the process is the program then, with its PID, parent, process group,
 * session, terminal, descriptors 0 to 2, working directory, credentials and limits;
 * other descriptors do not go with it. For the caller's own node it is execve(2).
 *
 * Errors are those of execve(2) on that node, of which some (ETXTBSY, an ELF
 * interpreter that is missing) show only in what the program prints and its status,
 * as for a shell: 126, 127; and
 * EINVAL: no node has that number, or it runs no programs;
 * EHOSTDOWN: the node is not UP;
 * EAGAIN: too many calls are under way, or another thread's;
 * EBUSY: the caller is traced;
 * EMFILE: the caller needs one descriptor for a moment;
 * EOPNOTSUPP: the caller has another root directory than the node;
 * ETIMEDOUT: the node does not answer;
 * ENOSYS: also in a PID namespace of its own, and for programs of 32 bits.
 *
 * The system call itself may return a descriptor, when the daemon of the node is
 * killed within it: it is to be closed, and the call to be made again. */
static inline int rexecve(const char *path, char *const argv[], char *const envp[], clusternode_t node)
{
	int tries;
	for (tries = 0; tries < 10; tries++) {
		long fd = CLUSTER_SYSCALL4(SYS_rexecve, path, argv, envp, (long)node);
		if (fd < 0)
			return -1;
		close((int)fd);
	}
	errno = EAGAIN;
	return -1;
}

#ifdef __cplusplus
}
#endif

#endif
