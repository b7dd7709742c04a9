/* kill(2) of groups: kill(-group), killpg and kill(0), from in and outside. */
#include "conform.h"

static struct target a, b, c;

static void join_a(void) { setpgid(0, a.child); }

int main(int argc, char **argv)
{
	(void)argc;
	begin(argv);
	a = start_by("leader", own_group);
	b = start_by("member", join_a);
	c = start_by("outsider", own_group);
	ask(&a, "catch %d", SIGUSR1), ask(&b, "catch %d", SIGUSR1), ask(&c, "catch %d", SIGUSR1);

	fact("leader leads", "%s", atoi(ask(&a, "pgrp")) == a.pid ? "yes" : "no");
	fact("member is in its group", "%s", atoi(ask(&b, "pgrp")) == a.pid ? "yes" : "no");
	NOTE("kill(-group, 0)", kill(-a.pid, 0));
	NOTE("kill(-group, SIGUSR1)", kill(-a.pid, SIGUSR1));
	fact("leader", "%s", ask(&a, "await %d", SIGUSR1));
	fact("member", "%s", ask(&b, "await %d", SIGUSR1));
	asked(&c, "got");
	NOTE("killpg(group, SIGUSR1)", killpg(a.pid, SIGUSR1));
	fact("leader", "%s", ask(&a, "await %d", SIGUSR1));
	fact("member", "%s", ask(&b, "await %d", SIGUSR1));
	NOTE("kill(-group, 99)", kill(-a.pid, 99));
	NOTE("kill(-nobody, 0)", kill(-NOBODY_HAS, 0));
	NOTE("kill(-member, 0), which leads no group", kill(-b.pid, 0));
	NOTE("kill(INT_MIN, 0)", kill(-2147483647 - 1, 0));
	NOTE("killpg(-1, 0)", killpg(-1, 0));

	/* It is enough that one member may be signalled. */
	AS(ALICE, NOTE("alice: kill(-group of root, SIGUSR1)", kill(-a.pid, SIGUSR1)));
	ask(&b, "uid %d", ALICE);
	AS(ALICE, NOTE("alice: kill(-group with one of hers, SIGUSR1)", kill(-a.pid, SIGUSR1)));
	fact("member", "%s", ask(&b, "await %d", SIGUSR1));
	asked(&a, "got");

	/* kill(0) from a process of the group. */
	fflush(stdout);
	pid_t p = fork();
	if (p == 0) {
		setpgid(0, a.child);
		signal(SIGUSR1, SIG_IGN);
		NOTE("in the group: kill(0, 0)", kill(0, 0));
		NOTE("in the group: kill(0, SIGUSR1)", kill(0, SIGUSR1));
		NOTE("in the group: kill(0, 99)", kill(0, 99));
		_exit(0);
	}
	waitpid(p, NULL, 0);
	fact("leader", "%s", ask(&a, "await %d", SIGUSR1));
	fact("member", "%s", ask(&b, "await %d", SIGUSR1));
	asked(&c, "got");

	/* A group lives as long as a member does. */
	int s;
	NOTE("kill(leader, SIGKILL)", kill(a.pid, SIGKILL));
	waitpid(a.child, &s, 0);
	fact("leader", "%s", status_text(s));
	NOTE("kill(-group, SIGUSR1)", kill(-a.pid, SIGUSR1));
	fact("member", "%s", ask(&b, "await %d", SIGUSR1));
	NOTE("kill(-group, SIGKILL)", kill(-a.pid, SIGKILL));
	waitpid(b.child, &s, 0);
	fact("member", "%s", status_text(s));
	EVENTUALLY("kill(-group, 0) is ESRCH", kill(-a.pid, 0) == -1 && errno == ESRCH);
	end_of(&c);
	return finish();
}
