/* Calls rexecve in many ways; what it returns is printed: value and errno. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static char *env[] = {"A=1", "B=two words", NULL};

static long rexecve(const void *path, const void *argv, const void *envp, long node)
{
	return syscall(0x5504, path, argv, envp, node);
}

static void tell(const char *what, long r)
{
	printf("%s %ld %s\n", what, r, r < 0 ? strerrorname_np(errno) : "-");
	fflush(stdout);
}

static char **arguments;
static int node;

static void *thread(void *arg)
{
	tell("thread", rexecve(arguments[0], arguments, env, node));
	return arg;
}

/* Calls again and again; another thread executes a program, or ends the process. */
static void *again(void *arg)
{
	for (;;) {
		long fd = rexecve(arguments[0], arguments, env, node);
		if (fd >= 0)
			close(fd);
		else if (errno != EAGAIN && errno != EBUSY && errno != EMFILE)
			tell("again", fd);
	}
	return arg;
}

/* Changes the end of a path. */
static volatile char changing[16] = "/bin/true";
static void *change(void *arg)
{
	for (;;) {
		changing[9] = 'x';
		changing[9] = 0;
	}
	return arg;
}

static volatile int signals;
static void count(int sig) { signals += sig > 0; }

/* The system call, and whether it leaves all registers but its result, rcx and r11. */
static long preserved(const void *path, void *argv, void *envp, long n)
{
	register long r10 __asm__("r10") = n, r8 __asm__("r8") = 88, r9 __asm__("r9") = 99;
	register long r12 __asm__("r12") = 12, r13 __asm__("r13") = 13;
	long rax = 0x5504, rdi = (long)path, rsi = (long)argv, rdx = (long)envp, rbx = 77;
	__asm__ volatile("syscall" : "+a"(rax), "+D"(rdi), "+S"(rsi), "+d"(rdx), "+b"(rbx), "+r"(r10), "+r"(r8), "+r"(r9), "+r"(r12), "+r"(r13) : : "rcx", "r11", "memory");
	if (rdi != (long)path || rsi != (long)argv || rdx != (long)envp || r10 != n || r8 != 88 || r9 != 99 || rbx != 77 || r12 != 12 || r13 != 13)
		printf("registers have changed\n");
	errno = rax < 0 ? -rax : 0;
	return rax < 0 ? -1 : rax;
}

/* A filter by which execveat fails with EPERM. */
static void filter(void)
{
	struct sock_filter program[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 322, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog f = {4, program};
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &f))
		perror("seccomp");
}

static void addresses(void)
{
	char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	munmap(page + 4096, 4096);
	memset(page, 'x', 4096);
	char *argv[] = {"x", NULL}, *wrong[] = {"x", (char *)8, NULL};
	char **open_ended = (char **)(page + 4096 - 8);
	tell("no path", rexecve(NULL, argv, env, node));
	tell("path without end", rexecve(page + 4000, argv, env, node));
	tell("argument", rexecve("/bin/true", wrong, env, node));
	tell("environment", rexecve("/bin/true", argv, wrong, node));
	*open_ended = "x";
	tell("list without end", rexecve("/bin/true", open_ended, env, node));
	tell("list nowhere", rexecve("/bin/true", (void *)-8L, env, node));
	page[4095] = 0;
	tell("empty path", rexecve(page + 4095, argv, env, node));
	char *longer = malloc(5000);
	memset(longer, 'p', 4999), longer[4999] = 0;
	tell("long path", rexecve(longer, argv, env, node));
	size_t much = 1 << 20;
	char *big = malloc(much);
	memset(big, 'b', much - 1), big[much - 1] = 0;
	char *two[] = {"x", big, NULL};
	tell("long argument", rexecve("/bin/true", two, env, node));
	char **many = calloc(2 << 20, sizeof *many);
	for (int i = 0; i < (2 << 20) - 1; i++)
		many[i] = "";
	tell("many arguments", rexecve("/bin/true", many, env, node));
}

int main(int argc, char **argv)
{
	const char *mode = argc > 2 ? argv[1] : "";
	if (argc < 3)
		return 2;
	node = atoi(argv[2]);
	arguments = argv + 3;
	if (!strcmp(mode, "plain")) {
		tell(mode, rexecve(arguments[0], arguments, env, node));
	} else if (!strcmp(mode, "null")) { /* as execve takes them */
		tell(mode, rexecve(arguments[0], NULL, NULL, node));
	} else if (!strcmp(mode, "registers") || !strcmp(mode, "filtered")) {
		if (*mode == 'f')
			filter();
		int before = dup(1), after;
		close(before);
		tell(mode, preserved(arguments[0], arguments, env, node));
		after = dup(1);
		if (before != after)
			printf("descriptor %d is left\n", before);
	} else if (!strcmp(mode, "thread")) {
		pthread_t t[4];
		for (int i = 0; i < 3; i++)
			pthread_create(&t[i], NULL, (void *(*)(void *))pause, NULL);
		pthread_create(&t[3], NULL, thread, NULL);
		pthread_join(t[3], NULL);
	} else if (!strcmp(mode, "race")) {
		pthread_t t;
		for (int i = 0; i < 4; i++)
			pthread_create(&t, NULL, again, NULL);
		usleep(getpid() % 30 * 1000); /* while the daemon starts */
		if (getpid() % 2) {
			char *other[] = {"echo", "other program", NULL};
			execve("/bin/echo", other, env);
		}
		printf("end\n");
		return 0;
	} else if (!strcmp(mode, "changing")) {
		pthread_t t;
		pthread_create(&t, NULL, change, NULL);
		for (;;) {
			long r = preserved((const void *)changing, arguments, env, node);
			if (r >= 0 || (errno != ENOENT && errno != ENOTDIR))
				tell(mode, r);
		}
	} else if (!strcmp(mode, "vfork")) {
		int status;
		pid_t pid = vfork();
		if (pid == 0) {
			rexecve(arguments[0], arguments, env, node);
			_exit(99);
		}
		waitpid(pid, &status, 0);
		printf("%d child %d\n", pid, WEXITSTATUS(status));
	} else if (!strcmp(mode, "signals")) {
		struct itimerval every = {{0, 200}, {0, 200}};
		signal(SIGALRM, count);
		setitimer(ITIMER_REAL, &every, NULL);
		for (int i = 0; i < 20; i++)
			if (rexecve("/nowhere", arguments, env, node) != -1 || errno != ENOENT)
				tell("not refused", -1);
		rexecve(arguments[0], arguments, env, node); /* the timer goes on, and SIGALRM kills */
	} else if (!strcmp(mode, "files")) {
		struct rlimit none = {dup(1) + 0, 100};
		close(none.rlim_cur);
		setrlimit(RLIMIT_NOFILE, &none);
		tell(mode, rexecve(arguments[0], arguments, env, node));
	} else if (!strcmp(mode, "addresses")) {
		addresses();
	} else if (!strcmp(mode, "again")) { /* as the functions of libcluster */
		for (int i = 0; i < 100; i++) {
			long r = rexecve(arguments[0], arguments, env, node);
			if (r < 0 && errno != EAGAIN) {
				tell(mode, r);
				return 1;
			}
			if (r >= 0)
				close(r);
		}
	}
	return 3;
}
