/* getpgid(2), getsid(2), setpgid(2), and who a target's parent is. */
#include "conform.h"

static struct target a, b, s;

static const char *name(long pid)
{
	if (pid == -1)
		return result(-1);
	if (pid == 0)
		return "0";
	if (pid == a.pid)
		return "a";
	if (pid == b.pid)
		return "b";
	if (pid == s.pid)
		return "s";
	if (pid == getpid())
		return "me";
	if (pid == getpgrp())
		return "my group";
	if (pid == getsid(0))
		return "my session";
	return "another";
}

#define NAMED(call) do { errno = 0; long r_ = (call); fact(#call, "%s", name(r_)); } while (0)
#define TOLD(t, what) fact(#t ": " what, "%s", name(atoi(ask(&t, what))))

int main(int argc, char **argv)
{
	(void)argc;
	begin(argv);
	a = start_by("a", own_group), b = start("b"), s = start_by("s", own_session);

	fact("a has the PID that fork told", "%s", a.pid == a.child ? "yes" : "no");
	TOLD(a, "ppid"), TOLD(a, "pgrp"), TOLD(a, "sid");
	TOLD(b, "ppid"), TOLD(b, "pgrp"), TOLD(b, "sid");
	TOLD(s, "ppid"), TOLD(s, "pgrp"), TOLD(s, "sid");
	NAMED(getpgid(a.pid));
	NAMED(getpgid(b.pid));
	NAMED(getpgid(s.pid));
	NAMED(getsid(a.pid));
	NAMED(getsid(b.pid));
	NAMED(getsid(s.pid));
	NAMED(getpgid(NOBODY_HAS));
	NAMED(getsid(NOBODY_HAS));
	NAMED(getpgid(-1));
	NAMED(getsid(-1));
	AS(ALICE, NAMED(getpgid(a.pid)));

	/* A child that has called exec, one of another session, what is none. */
	NAMED(setpgid(b.pid, b.pid));
	NAMED(setpgid(s.pid, s.pid));
	NAMED(setpgid(NOBODY_HAS, NOBODY_HAS));
	NAMED(setpgid(-1, 0));
	NAMED(setpgid(0, -1));
	NAMED(setpgid(0, s.pid));
	NAMED(setpgid(0, NOBODY_HAS));

	/* A target moves itself: to a group of its own, to another, to one of another session. */
	fact("b: setpgid to its own", "%s", ask(&b, "setpgid 0 0"));
	NAMED(getpgid(b.pid));
	TOLD(b, "pgrp");
	fact("b: setpgid to a's", "%s", ask(&b, "setpgid 0 %d", a.pid));
	NAMED(getpgid(b.pid));
	fact("b: setpgid to s's", "%s", ask(&b, "setpgid 0 %d", s.pid));
	fact("b: setpgid to nobody's", "%s", ask(&b, "setpgid 0 %d", NOBODY_HAS));
	fact("b: setpgid of me", "%s", ask(&b, "setpgid %d 0", getpid()));
	fact("a, a leader: setsid", "%s", ask(&a, "setsid"));
	fact("b: setsid", "%s", ask(&b, "setsid"));
	NAMED(getsid(b.pid));
	NAMED(getpgid(b.pid));

	/* A child joins a's group, as a shell puts a job together. */
	fflush(stdout);
	if (fork() == 0) {
		NAMED(setpgid(0, a.pid));
		NAMED(getpgid(0));
		_exit(0);
	}
	wait(NULL);
	end_of(&a), end_of(&b), end_of(&s);
	return finish();
}
