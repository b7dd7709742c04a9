/* What the conformance programs act on: it does what its standard input says, a
 * line at a time, and answers each command with one line.
 *
 *   pid ppid pgrp sid         those numbers
 *   uid U                     become user U
 *   setpgid P G, setsid       the calls, with their outcome
 *   catch S | ignore S | default S | block S | unblock S
 *   await S                   wait until S was caught, then as got
 *   got                       the signals caught since the last time, in order
 *   take                      the blocked signals that are pending, in the order of sigtimedwait
 *   nice sched ioprio affinity rlimit   its own attributes
 *   fork                      a child that does nothing; its PID
 *   reap                      kill and reap that child
 *   leave                     go on in a child, and exit with 0: the child answers
 *   thread                    a thread that does nothing; its TID
 *   name N                    the name of the process
 *   open PATH                 the number of the descriptor
 *   exit N, raise S, abort    as they say
 *   hang                      blocks everything that can be blocked, and answers no more commands
 */
#include "conform.h"
#include <pthread.h>
#include <sys/prctl.h>

#define MANY 4096

static struct { int signo, code, value; pid_t pid; uid_t uid; } caught[MANY];
static volatile sig_atomic_t ncaught;
static int seen;

static void on_signal(int signo, siginfo_t *info, void *context)
{
	(void)context;
	if (ncaught < MANY) {
		caught[ncaught].signo = signo;
		caught[ncaught].code = info->si_code;
		caught[ncaught].pid = info->si_pid;
		caught[ncaught].uid = info->si_uid;
		caught[ncaught].value = info->si_value.sival_int;
		ncaught++;
	}
}

static const char *code_name(int code)
{
	switch (code) {
	case SI_USER: return "user";
	case SI_QUEUE: return "queue";
	case SI_TKILL: return "tkill";
	case SI_KERNEL: return "kernel";
	case SI_MESGQ: return "mesgq";
	}
	return "other";
}

/* describe adds one signal to a text of which at bytes are written. */
static int describe(char *text, int at, int signo, int code, int value)
{
	char *to = text + at;
	int room = LINE - at;
	if (code == SI_QUEUE)
		return snprintf(to, room, " %s:%s:%d" + !at, signal_name(signo), code_name(code), value);
	return snprintf(to, room, " %s:%s" + !at, signal_name(signo), code_name(code));
}

static void got(void)
{
	char text[LINE] = "";
	int n = 0;
	for (; seen < ncaught && n < LINE - 64; seen++)
		n += describe(text, n, caught[seen].signo, caught[seen].code, caught[seen].value);
	puts(n ? text : "nothing");
}

static void take(void)
{
	char text[LINE] = "";
	int n = 0;
	sigset_t all;
	siginfo_t info;
	struct timespec now = {0};
	pthread_sigmask(SIG_SETMASK, NULL, &all);
	while (n < LINE - 64 && sigtimedwait(&all, &info, &now) > 0)
		n += describe(text, n, info.si_signo, info.si_code, info.si_value.sival_int);
	puts(n ? text : "nothing");
}

static void *idle(void *tid)
{
	*(volatile pid_t *)tid = gettid();
	for (;;)
		pause();
	return NULL;
}

static void reply(long r) { puts(result(r)); }

static void change(const char *how, int signo)
{
	struct sigaction a = {.sa_flags = SA_SIGINFO | SA_RESTART};
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, signo);
	sigfillset(&a.sa_mask);
	errno = 0;
	if (!strcmp(how, "catch")) {
		a.sa_sigaction = on_signal;
		reply(sigaction(signo, &a, NULL));
	} else if (!strcmp(how, "ignore")) {
		reply(signal(signo, SIG_IGN) == SIG_ERR ? -1 : 0);
	} else if (!strcmp(how, "default")) {
		reply(signal(signo, SIG_DFL) == SIG_ERR ? -1 : 0);
	} else {
		reply(sigprocmask(!strcmp(how, "block") ? SIG_BLOCK : SIG_UNBLOCK, &set, NULL));
	}
}

static void attribute(const char *which)
{
	if (!strcmp(which, "nice")) {
		printf("%d\n", getpriority(PRIO_PROCESS, 0));
	} else if (!strcmp(which, "sched")) {
		struct sched_param p;
		sched_getparam(0, &p);
		printf("policy %d priority %d\n", sched_getscheduler(0), p.sched_priority);
	} else if (!strcmp(which, "ioprio")) {
		printf("%ld\n", syscall(SYS_ioprio_get, 1, 0));
	} else if (!strcmp(which, "affinity")) {
		cpu_set_t set;
		sched_getaffinity(0, sizeof set, &set);
		for (int i = 0; i < 64; i++)
			if (CPU_ISSET(i, &set))
				printf("%d ", i);
		puts("");
	} else {
		struct rlimit l;
		getrlimit(RLIMIT_NOFILE, &l);
		printf("%ld %ld\n", (long)l.rlim_cur, (long)l.rlim_max);
	}
}

static void awaits(int signo)
{
	for (int i = 0; i < 4000; i++) {
		for (int j = seen; j < ncaught; j++)
			if (caught[j].signo == signo) {
				got();
				return;
			}
		usleep(5000);
	}
	puts("never");
}

static void obey(char *line)
{
	static pid_t child;
	char what[32] = "", *rest = line;
	long a = 0, b = 0;
	int n = 0;
	if (sscanf(line, "%31s%n", what, &n) != 1)
		return;
	rest = line + n + strspn(line + n, " ");
	sscanf(rest, "%ld %ld", &a, &b);
	errno = 0;
	if (!strcmp(what, "pid")) printf("%d\n", getpid());
	else if (!strcmp(what, "ppid")) printf("%d\n", getppid());
	else if (!strcmp(what, "pgrp")) printf("%d\n", getpgrp());
	else if (!strcmp(what, "sid")) printf("%d\n", getsid(0));
	else if (!strcmp(what, "uid")) { become(a); puts("0"); }
	else if (!strcmp(what, "setpgid")) reply(setpgid(a, b));
	else if (!strcmp(what, "setsid")) reply(setsid() < 0 ? -1 : 0);
	else if (strstr("catch ignore default block unblock", what)) change(what, a);
	else if (!strcmp(what, "await")) awaits(a);
	else if (!strcmp(what, "got")) got();
	else if (!strcmp(what, "take")) take();
	else if (strstr("nice sched ioprio affinity rlimit", what)) attribute(what);
	else if (!strcmp(what, "fork")) {
		child = fork();
		if (child == 0) {
			for (;;)
				pause();
		}
		reply(child);
	} else if (!strcmp(what, "reap")) {
		int s;
		kill(child, SIGKILL);
		puts(waitpid(child, &s, 0) == child ? status_text(s) : "lost");
	} else if (!strcmp(what, "leave")) {
		pid_t was = getpid();
		if (fork())
			_exit(0);
		while (getppid() == was)
			usleep(1000);
		puts("0");
	} else if (!strcmp(what, "thread")) {
		static volatile pid_t tid;
		pthread_t t;
		tid = 0;
		pthread_create(&t, NULL, idle, (void *)&tid);
		while (!tid)
			usleep(1000);
		printf("%d\n", tid);
	} else if (!strcmp(what, "name")) reply(prctl(PR_SET_NAME, rest));
	else if (!strcmp(what, "open")) reply(open(rest, O_RDONLY));
	else if (!strcmp(what, "exit")) _exit(a);
	else if (!strcmp(what, "raise")) { signal(a, SIG_DFL); raise(a); puts("0"); }
	else if (!strcmp(what, "abort")) abort();
	else if (!strcmp(what, "hang")) {
		sigset_t all;
		sigfillset(&all);
		sigprocmask(SIG_SETMASK, &all, NULL);
		puts("0");
		for (;;)
			pause();
	} else puts("what?");
}

int main(void)
{
	char line[LINE];
	int n = 0;
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (;;) { /* not stdio: a forked child must not read again what its parent read */
		ssize_t r = read(0, line + n, 1);
		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return 0;
		if (line[n] != '\n') {
			n += n < LINE - 2;
			continue;
		}
		line[n] = 0;
		n = 0;
		obey(line);
	}
}
