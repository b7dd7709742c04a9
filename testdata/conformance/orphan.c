/* Orphaned groups: a stopped one is hung up, and the terminal's stops are ignored. */
#include "conform.h"

/* middle makes the target a child of a process between it and the program: that
 * one ends as soon as the target is stopped. */
static void middle(void)
{
	setpgid(0, 0);
	pid_t p = fork();
	if (p == 0) {
		setpgid(0, 0);
		return;
	}
	int s;
	close(0), close(1); /* the target's */
	if (waitpid(p, &s, WUNTRACED) != p || !WIFSTOPPED(s))
		_exit(1);
	_exit(0);
}

int main(int argc, char **argv)
{
	(void)argc;
	begin(argv);
	struct target t = start_by("t", middle);
	int s;
	ask(&t, "catch %d", SIGHUP);
	ask(&t, "catch %d", SIGCONT);
	fact("its parent is the one between", "%s", atoi(ask(&t, "ppid")) == t.child ? "yes" : "no");
	fact("it leads a group", "%s", atoi(ask(&t, "pgrp")) == t.pid ? "yes" : "no");
	fact("my session", "%s", atoi(ask(&t, "sid")) == getsid(0) ? "yes" : "no");
	NOTE("kill(SIGTSTP)", kill(t.pid, SIGTSTP)); /* its parent ends then: the group is orphaned */
	waitpid(t.child, &s, 0);
	fact("the one between", "%s", status_text(s));
	/* SIGCONT makes it run and both are pending then: the lower number comes first,
	 * but each is caught once. */
	const char *got = ask(&t, "await %d", SIGHUP);
	fact("hung up", "%s", strstr(got, "HUP") ? "yes" : got);
	fact("continued", "%s", strstr(got, "CONT") || strstr(ask(&t, "await %d", SIGCONT), "CONT") ? "yes" : "no");
	fact("its parent", "%s", ask(&t, "ppid"));
	fact("its group is the same", "%s", atoi(ask(&t, "pgrp")) == t.pid ? "yes" : "no");

	int stops[] = {SIGTSTP, SIGTTIN, SIGTTOU};
	for (int i = 0; i < 3; i++) {
		char what[32];
		snprintf(what, sizeof what, "kill(SIG%s)", signal_name(stops[i]));
		NOTE(what, kill(t.pid, stops[i]));
		fact("it answers", "%s", atoi(ask(&t, "pid")) == t.pid ? "yes" : "no");
	}
	NOTE("kill(-group, SIGKILL)", kill(-t.pid, SIGKILL));
	EVENTUALLY("it is gone", kill(t.pid, 0) == -1 && errno == ESRCH);

	/* With a parent in another group of the session, the stop takes place. */
	struct target u = start_by("u", own_group);
	NOTE("kill(SIGTSTP)", kill(u.pid, SIGTSTP));
	waitpid(u.child, &s, WUNTRACED);
	fact("u", "%s", status_text(s));
	end_of(&u);
	return finish();
}
