/* What the conformance programs share. A program starts targets, by $ONNODE if
 * that is set ("onnode 2"), acts on them by system calls, and prints one line per
 * fact: "what = outcome". No line holds a number that differs between two right
 * systems (PIDs have names), so that the lines of one plain Linux machine and
 * those of a cluster can be compared. The last line is "end".
 *
 * A target is the program target beside this one; it takes commands on its
 * standard input and answers each with one line, see target.c. */
#ifndef CONFORM_H
#define CONFORM_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <libgen.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE 100  /* seconds that a whole program may take */
#define LINE 8192     /* bytes of a command or an answer */
#define ALICE 23401   /* users that own nothing else on any machine */
#define BOB 23402
#define NOBODY_HAS 4194303 /* a PID that no process has: the last below pid_max */

struct target {
	const char *name;
	pid_t pid;   /* as the target says */
	pid_t child; /* as fork said; on one machine the same */
	int in, out; /* its standard input and output */
};

static void broken(const char *what)
{
	printf("BROKEN %s: %s\n", what, strerror(errno));
	fflush(stdout);
	_exit(2);
}

/* fact prints one line. */
__attribute__((format(printf, 2, 3), unused))
static void fact(const char *what, const char *format, ...)
{
	va_list ap;
	va_start(ap, format);
	printf("%s = ", what);
	vprintf(format, ap);
	putchar('\n');
	fflush(stdout);
	va_end(ap);
}

/* result is the outcome of a system call: a number, or -1 and the error. */
__attribute__((unused))
static const char *result(long r)
{
	static char text[4][64];
	static int next;
	char *t = text[next++ % 4];
	if (r == -1)
		snprintf(t, sizeof text[0], "-1 %s", strerrorname_np(errno));
	else
		snprintf(t, sizeof text[0], "%ld", r);
	return t;
}

/* CALL prints a call as written and its outcome. */
#define CALL(call) do { errno = 0; long r_ = (call); const char *t_ = result(r_); fact(#call, "%s", t_); } while (0)
/* NOTE does the same under another name. */
#define NOTE(what, call) do { errno = 0; long r_ = (call); const char *t_ = result(r_); fact(what, "%s", t_); } while (0)

/* ask sends a command and returns the answer. */
__attribute__((format(printf, 2, 3), unused))
static char *ask(struct target *t, const char *format, ...)
{
	static char line[4][LINE];
	static int next;
	char *answer = line[next++ % 4], command[LINE];
	va_list ap;
	va_start(ap, format);
	int n = vsnprintf(command, sizeof command - 1, format, ap);
	va_end(ap);
	command[n++] = '\n';
	if (write(t->in, command, n) != n)
		broken("write to a target");
	for (n = 0; n < LINE - 1; n++) {
		ssize_t r;
		while ((r = read(t->out, answer + n, 1)) < 0 && errno == EINTR)
			;
		if (r <= 0) {
			snprintf(answer, LINE, "(gone)");
			return answer;
		}
		if (answer[n] == '\n')
			break;
	}
	answer[n] = 0;
	return answer;
}

/* asked prints what a target answers. */
__attribute__((unused))
static void asked(struct target *t, const char *command)
{
	char what[128];
	snprintf(what, sizeof what, "%s: %s", t->name, command);
	fact(what, "%s", ask(t, "%s", command));
}

static const char *directory; /* where the programs are */

/* begin is the first call of each program: it leads a session of its own, as one
 * that a daemon starts, so that nobody else's terminal or groups matter. */
__attribute__((unused))
static void begin(char **argv)
{
	static char self[4096];
	/* Whoever runs this may ignore signals, also those that the C library hides. */
	struct { void *handler; unsigned long flags; void *restorer; uint64_t mask; } standard = {0};
	for (int s = 1; s <= 64; s++)
		syscall(SYS_rt_sigaction, s, &standard, NULL, sizeof standard.mask);
	if (!realpath(argv[0], self))
		broken("realpath");
	directory = dirname(self);
	if (getsid(0) != getpid() && setsid() < 0) /* its caller made it lead a group */
		broken("setsid");
	alarm(PATIENCE);
	signal(SIGPIPE, SIG_IGN);
	setvbuf(stdout, NULL, _IOLBF, 0);
}

/* run_target becomes the target. */
static void run_target(void)
{
	char path[4200], words[256], *argv[16];
	int n = 0;
	const char *on = getenv("ONNODE");
	snprintf(words, sizeof words, "%s", on ? on : "");
	for (char *w = strtok(words, " "); w && n < 14; w = strtok(NULL, " "))
		argv[n++] = w;
	snprintf(path, sizeof path, "%s/target", directory);
	argv[n++] = path;
	argv[n] = NULL;
	signal(SIGPIPE, SIG_DFL);
	execvp(argv[0], argv);
	_exit(127);
}

/* start_by starts a target; prepare, if any, is called in the child before. */
__attribute__((unused))
static struct target start_by(const char *name, void (*prepare)(void))
{
	struct target t = {.name = name};
	int in[2], out[2];
	char answer[64] = "";
	if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC))
		broken("pipe");
	t.child = fork();
	if (t.child < 0)
		broken("fork");
	if (t.child == 0) {
		dup2(in[0], 0);
		dup2(out[1], 1);
		if (prepare)
			prepare();
		run_target();
	}
	close(in[0]);
	close(out[1]);
	t.in = in[1];
	t.out = out[0];
	snprintf(answer, sizeof answer, "%s", ask(&t, "pid"));
	t.pid = atoi(answer);
	if (t.pid <= 0) {
		errno = ECHILD;
		broken("start a target");
	}
	return t;
}

__attribute__((unused))
static struct target start(const char *name) { return start_by(name, NULL); }

/* end_of kills a target and waits for it. */
__attribute__((unused))
static void end_of(struct target *t)
{
	int status;
	kill(t->child, SIGKILL);
	waitpid(t->child, &status, 0);
	close(t->in);
	close(t->out);
}

/* become takes a user and the group of the same number, without others. */
__attribute__((unused))
static void become(uid_t uid)
{
	if (setgroups(0, NULL) || setresgid(uid, uid, uid) || setresuid(uid, uid, uid))
		broken("become a user");
}

/* AS does something in a child that is another user. */
#define AS(uid, ...) do { \
	fflush(stdout); \
	pid_t p_ = fork(); \
	if (p_ < 0) broken("fork"); \
	if (p_ == 0) { become(uid); __VA_ARGS__; fflush(stdout); _exit(0); } \
	int s_; \
	if (waitpid(p_, &s_, 0) != p_ || s_ != 0) broken("a step as another user"); \
} while (0)

__attribute__((unused))
static void as_alice(void) { become(ALICE); }
__attribute__((unused))
static void as_bob(void) { become(BOB); }
__attribute__((unused))
static void own_group(void) { setpgid(0, 0); }
__attribute__((unused))
static void own_session(void) { setsid(); }

/* signal_name is TERM, or RT3 for SIGRTMIN+3. */
__attribute__((unused))
static const char *signal_name(int signo)
{
	static char number[16];
	const char *name = sigabbrev_np(signo);
	snprintf(number, sizeof number, "RT%d", signo - SIGRTMIN);
	return name ? name : number;
}

/* status_text is a wait status in words. */
__attribute__((unused))
static const char *status_text(int s)
{
	static char text[64];
	if (WIFEXITED(s))
		snprintf(text, sizeof text, "exited %d", WEXITSTATUS(s));
	else if (WIFSIGNALED(s))
		snprintf(text, sizeof text, "killed by %s", signal_name(WTERMSIG(s)));
	else if (WIFSTOPPED(s))
		snprintf(text, sizeof text, "stopped by %s", signal_name(WSTOPSIG(s)));
	else if (WIFCONTINUED(s))
		snprintf(text, sizeof text, "continued");
	else
		snprintf(text, sizeof text, "%#x", s);
	return text;
}

/* eventually waits until a condition holds and prints whether it did. */
#define EVENTUALLY(what, condition) do { \
	int ok_ = 0; \
	for (int i_ = 0; i_ < 2000 && !(ok_ = !!(condition)); i_++) usleep(5000); \
	fact(what, "%s", ok_ ? "yes" : "no"); \
} while (0)

__attribute__((unused))
static int finish(void)
{
	puts("end");
	return 0;
}

#endif
