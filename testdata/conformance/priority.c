/* getpriority(2) and setpriority(2) of processes, groups and users. */
#include "conform.h"

static struct target a, b, c;

static void join_a(void) { setpgid(0, a.child); }

/* get is getpriority's result: any number is a right one, so errno tells. */
static const char *get(int which, id_t who)
{
	static char text[32];
	errno = 0;
	int n = getpriority(which, who);
	if (errno)
		return result(-1);
	snprintf(text, sizeof text, "nice %d", n);
	return text;
}

int main(int argc, char **argv)
{
	(void)argc;
	begin(argv);
	a = start_by("a", own_group), b = start_by("b", join_a), c = start_by("c", own_group);

	NOTE("setpriority(process a, 5)", setpriority(PRIO_PROCESS, a.pid, 5));
	fact("getpriority(process a)", "%s", get(PRIO_PROCESS, a.pid));
	asked(&a, "nice");
	asked(&b, "nice");
	NOTE("setpriority(process a, -5)", setpriority(PRIO_PROCESS, a.pid, -5));
	fact("getpriority(process a)", "%s", get(PRIO_PROCESS, a.pid));
	NOTE("setpriority(process a, 100)", setpriority(PRIO_PROCESS, a.pid, 100));
	fact("getpriority(process a)", "%s", get(PRIO_PROCESS, a.pid));
	NOTE("setpriority(process a, -100)", setpriority(PRIO_PROCESS, a.pid, -100));
	fact("getpriority(process a)", "%s", get(PRIO_PROCESS, a.pid));
	NOTE("setpriority(process nobody)", setpriority(PRIO_PROCESS, NOBODY_HAS, 0));
	fact("getpriority(process nobody)", "%s", get(PRIO_PROCESS, NOBODY_HAS));
	NOTE("setpriority(which 3)", setpriority(3, a.pid, 0));
	fact("getpriority(which 3)", "%s", get(3, a.pid));
	fact("getpriority(which -1)", "%s", get(-1, a.pid));

	NOTE("setpriority(group, 7)", setpriority(PRIO_PGRP, a.pid, 7));
	asked(&a, "nice"), asked(&b, "nice"), asked(&c, "nice");
	NOTE("setpriority(process b, 3)", setpriority(PRIO_PROCESS, b.pid, 3));
	fact("getpriority(group), the best of it", "%s", get(PRIO_PGRP, a.pid));
	NOTE("setpriority(group nobody)", setpriority(PRIO_PGRP, NOBODY_HAS, 0));
	fact("getpriority(group nobody)", "%s", get(PRIO_PGRP, NOBODY_HAS));

	ask(&a, "uid %d", ALICE), ask(&c, "uid %d", ALICE);
	NOTE("setpriority(user alice, 9)", setpriority(PRIO_USER, ALICE, 9));
	asked(&a, "nice"), asked(&b, "nice"), asked(&c, "nice");
	NOTE("setpriority(process c, 8)", setpriority(PRIO_PROCESS, c.pid, 8));
	fact("getpriority(user alice), the best of hers", "%s", get(PRIO_USER, ALICE));
	NOTE("setpriority(user bob, who has no process)", setpriority(PRIO_USER, BOB, 1));
	fact("getpriority(user bob)", "%s", get(PRIO_USER, BOB));

	AS(ALICE, {
		NOTE("alice: setpriority(process a, 12)", setpriority(PRIO_PROCESS, a.pid, 12));
		NOTE("alice: setpriority(process a, 2)", setpriority(PRIO_PROCESS, a.pid, 2));
		NOTE("alice: setpriority(process b, 12)", setpriority(PRIO_PROCESS, b.pid, 12));
		NOTE("alice: setpriority(group with one of root's, 13)", setpriority(PRIO_PGRP, a.pid, 13));
		fact("alice: getpriority(process b)", "%s", get(PRIO_PROCESS, b.pid));
	});
	asked(&a, "nice"), asked(&b, "nice");
	AS(BOB, {
		NOTE("bob: setpriority(process c, 19)", setpriority(PRIO_PROCESS, c.pid, 19));
		NOTE("bob: setpriority(user alice, 19)", setpriority(PRIO_USER, ALICE, 19));
		fact("bob: getpriority(process c)", "%s", get(PRIO_PROCESS, c.pid));
	});
	end_of(&a), end_of(&b), end_of(&c);
	return finish();
}
