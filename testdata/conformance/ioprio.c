/* ioprio_get(2) and ioprio_set(2) of processes, groups and users. */
#include "conform.h"

#define VALUE(class, data) ((class) << 13 | (data))
enum { PROCESS = 1, PGRP = 2, USER = 3 };

static struct target a, b;

static void join_a(void) { setpgid(0, a.child); }
static long get(int which, int who) { return syscall(SYS_ioprio_get, which, who); }
static long set(int which, int who, int value) { return syscall(SYS_ioprio_set, which, who, value); }

int main(int argc, char **argv)
{
	(void)argc;
	begin(argv);
	a = start_by("a", own_group), b = start_by("b", join_a);

	NOTE("ioprio_set(a, best effort 6)", set(PROCESS, a.pid, VALUE(2, 6)));
	NOTE("ioprio_get(a)", get(PROCESS, a.pid));
	asked(&a, "ioprio");
	NOTE("ioprio_set(a, class 7)", set(PROCESS, a.pid, VALUE(7, 0)));
	NOTE("ioprio_set(nobody)", set(PROCESS, NOBODY_HAS, VALUE(2, 6)));
	NOTE("ioprio_get(nobody)", get(PROCESS, NOBODY_HAS));
	NOTE("ioprio_get(which 0)", get(0, a.pid));
	NOTE("ioprio_get(which 4)", get(4, a.pid));
	NOTE("ioprio_set(group, idle)", set(PGRP, a.pid, VALUE(3, 0)));
	asked(&a, "ioprio"), asked(&b, "ioprio");
	NOTE("ioprio_set(b, best effort 2)", set(PROCESS, b.pid, VALUE(2, 2)));
	NOTE("ioprio_get(group), the best of it", get(PGRP, a.pid));
	NOTE("ioprio_get(group nobody)", get(PGRP, NOBODY_HAS));
	NOTE("ioprio_set(group nobody)", set(PGRP, NOBODY_HAS, VALUE(2, 0)));
	ask(&a, "uid %d", ALICE);
	NOTE("ioprio_set(user alice, best effort 5)", set(USER, ALICE, VALUE(2, 5)));
	asked(&a, "ioprio"), asked(&b, "ioprio");
	NOTE("ioprio_get(user alice)", get(USER, ALICE));
	NOTE("ioprio_get(user bob, who has no process)", get(USER, BOB));
	AS(ALICE, {
		NOTE("alice: ioprio_set(hers, best effort 3)", set(PROCESS, a.pid, VALUE(2, 3)));
		NOTE("alice: ioprio_set(hers, real time)", set(PROCESS, a.pid, VALUE(1, 3)));
		NOTE("alice: ioprio_set(root's)", set(PROCESS, b.pid, VALUE(2, 3)));
		NOTE("alice: ioprio_get(root's)", get(PROCESS, b.pid));
	});
	asked(&a, "ioprio");
	end_of(&a), end_of(&b);
	return finish();
}
