/* wait4(2) and waitid(2) of targets as children: what they report, and when. */
#include "conform.h"

static struct target t;

static const char *waited(pid_t pid, int options)
{
	static char text[96];
	int s = 0;
	errno = 0;
	pid_t r = waitpid(pid, &s, options);
	if (r == -1)
		return result(-1);
	if (r == 0)
		return "nothing yet";
	snprintf(text, sizeof text, "%s %s", r == t.child ? "the target" : "another", status_text(s));
	return text;
}

static const char *code(int c)
{
	switch (c) {
	case CLD_EXITED: return "exited";
	case CLD_KILLED: return "killed";
	case CLD_DUMPED: return "dumped";
	case CLD_STOPPED: return "stopped";
	case CLD_CONTINUED: return "continued";
	}
	return "other";
}

static const char *waitided(idtype_t type, id_t who, int options)
{
	static char text[96];
	siginfo_t info;
	memset(&info, 0, sizeof info);
	errno = 0;
	if (waitid(type, who, &info, options))
		return result(-1);
	if (!info.si_pid)
		return "nothing yet";
	snprintf(text, sizeof text, "%s %s %d of user %d", info.si_pid == t.child ? "the target" : "another", code(info.si_code), info.si_status, info.si_uid);
	return text;
}

static struct rlimit no_core;
static void without_core(void) { setrlimit(RLIMIT_CORE, &no_core); }

int main(int argc, char **argv)
{
	(void)argc;
	begin(argv);
	setrlimit(RLIMIT_CORE, &no_core);

	int statuses[] = {0, 1, 77, 255};
	for (int i = 0; i < 4; i++) {
		char what[32];
		t = start("t");
		snprintf(what, sizeof what, "exit %d", statuses[i]);
		ask(&t, "%s", what);
		fact(what, "%s", waited(t.child, 0));
	}
	int signals[] = {SIGHUP, SIGINT, SIGQUIT, SIGKILL, SIGSEGV, SIGTERM, SIGUSR1, SIGRTMIN};
	for (unsigned i = 0; i < sizeof signals / sizeof *signals; i++) {
		char what[32];
		t = start_by("t", without_core);
		snprintf(what, sizeof what, "kill by %d", signals[i]);
		kill(t.pid, signals[i]);
		fact(what, "%s", waited(t.child, 0));
	}
	t = start_by("t", without_core);
	ask(&t, "raise %d", SIGTERM);
	fact("it raised SIGTERM", "%s", waited(t.child, 0));
	t = start_by("t", without_core);
	ask(&t, "abort");
	fact("it aborted", "%s", waited(t.child, 0));

	t = start_by("t", own_group); /* not mine, which is orphaned: SIGTSTP would be ignored */
	fact("WNOHANG", "%s", waited(t.child, WNOHANG));
	kill(t.pid, SIGSTOP);
	fact("stopped", "%s", waited(t.child, WUNTRACED));
	fact("reported once", "%s", waited(t.child, WUNTRACED | WNOHANG));
	kill(t.pid, SIGCONT);
	fact("continued", "%s", waited(t.child, WCONTINUED));
	fact("reported once", "%s", waited(t.child, WCONTINUED | WNOHANG));
	fact("it answers", "%s", atoi(ask(&t, "pid")) == t.pid ? "yes" : "no");
	kill(t.pid, SIGTSTP);
	fact("stopped", "%s", waitided(P_PID, t.child, WSTOPPED));
	kill(t.pid, SIGCONT);
	fact("continued", "%s", waitided(P_PID, t.child, WCONTINUED));
	kill(t.pid, SIGSTOP);
	fact("stopped", "%s", waitided(P_ALL, 0, WSTOPPED));
	kill(t.pid, SIGKILL); /* of a stopped one */
	fact("WNOWAIT", "%s", waitided(P_PID, t.child, WEXITED | WNOWAIT));
	fact("a zombie may be signalled", "%s", result(kill(t.pid, 0)));
	fact("killed", "%s", waited(t.child, 0));
	fact("and no more", "%s", waited(t.child, 0));
	fact("waitid, and no more", "%s", waitided(P_PID, t.child, WEXITED));
	EVENTUALLY("kill is ESRCH", kill(t.pid, 0) == -1 && errno == ESRCH);

	fact("none of all", "%s", waited(-1, WNOHANG));
	t = start_by("t", own_group);
	fact("none of my group", "%s", waited(0, WNOHANG));
	fact("one of its group", "%s", waited(-t.child, WNOHANG));
	ask(&t, "exit 5");
	fact("of its group", "%s", waited(-t.child, 0));
	fact("a process that is no child", "%s", waited(1, WNOHANG));
	fact("nobody", "%s", waited(NOBODY_HAS, 0));
	fact("options 1<<20", "%s", waited(-1, 1 << 20));
	fact("waitid without a state", "%s", waitided(P_ALL, 0, 0));
	t = start("t");
	int fd = syscall(SYS_pidfd_open, t.child, 0);
	ask(&t, "exit 6");
	fact("P_PIDFD", "%s", waitided(P_PIDFD, fd, WEXITED));
	t = start_by("t", as_alice);
	ask(&t, "exit 8");
	fact("alice's", "%s", waitided(P_ALL, 0, WEXITED));

	/* SIGCHLD ignored: nothing to wait for. */
	signal(SIGCHLD, SIG_IGN);
	t = start("t");
	ask(&t, "exit 0");
	fact("with SIGCHLD ignored", "%s", waited(-1, 0));
	return finish();
}
