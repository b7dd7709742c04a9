/* prlimit(2) of another process. */
#include "conform.h"

static const char *limit(pid_t pid, int what)
{
	static char text[64];
	struct rlimit l;
	errno = 0;
	if (prlimit(pid, what, NULL, &l))
		return result(-1);
	snprintf(text, sizeof text, "%ld %ld", (long)l.rlim_cur, (long)l.rlim_max);
	return text;
}

int main(int argc, char **argv)
{
	(void)argc;
	begin(argv);
	struct target t = start("target"), a = start("alice's");
	struct rlimit set = {100, 200}, old = {0, 0};

	NOTE("prlimit(NOFILE, 100 200)", prlimit(t.pid, RLIMIT_NOFILE, &set, NULL));
	fact("prlimit(NOFILE)", "%s", limit(t.pid, RLIMIT_NOFILE));
	asked(&t, "rlimit");
	set.rlim_cur = 50;
	NOTE("prlimit(NOFILE, 50 200), and the old one", prlimit(t.pid, RLIMIT_NOFILE, &set, &old));
	fact("the old one", "%ld %ld", (long)old.rlim_cur, (long)old.rlim_max);
	asked(&t, "rlimit");
	set.rlim_cur = 300;
	NOTE("prlimit(soft above hard)", prlimit(t.pid, RLIMIT_NOFILE, &set, NULL));
	fact("prlimit(resource 99)", "%s", limit(t.pid, 99));
	fact("prlimit(resource -1)", "%s", limit(t.pid, -1));
	fact("prlimit(nobody)", "%s", limit(NOBODY_HAS, RLIMIT_NOFILE));
	fact("prlimit(-1)", "%s", limit(-1, RLIMIT_NOFILE));
	NOTE("prlimit(a bad new pointer)", syscall(SYS_prlimit64, t.pid, RLIMIT_NOFILE, 8, 0));
	NOTE("prlimit(a bad old pointer)", syscall(SYS_prlimit64, t.pid, RLIMIT_NOFILE, 0, 8));
	NOTE("prlimit(neither)", prlimit(t.pid, RLIMIT_NOFILE, NULL, NULL));

	set = (struct rlimit){100, 200};
	prlimit(a.pid, RLIMIT_NOFILE, &set, NULL);
	ask(&a, "uid %d", ALICE);
	AS(ALICE, {
		struct rlimit up = {100, 400}, down = {20, 150};
		fact("alice: prlimit(hers)", "%s", limit(a.pid, RLIMIT_NOFILE));
		NOTE("alice: prlimit(hers, raise the hard one)", prlimit(a.pid, RLIMIT_NOFILE, &up, NULL));
		NOTE("alice: prlimit(hers, lower)", prlimit(a.pid, RLIMIT_NOFILE, &down, NULL));
		fact("alice: prlimit(root's)", "%s", limit(t.pid, RLIMIT_NOFILE));
		NOTE("alice: prlimit(root's, set)", prlimit(t.pid, RLIMIT_NOFILE, &down, NULL));
	});
	asked(&a, "rlimit");
	AS(BOB, fact("bob: prlimit(alice's)", "%s", limit(a.pid, RLIMIT_NOFILE)));
	set = (struct rlimit){100, 400};
	NOTE("root: prlimit(alice's, raise the hard one)", prlimit(a.pid, RLIMIT_NOFILE, &set, NULL));
	asked(&a, "rlimit");
	end_of(&t), end_of(&a);
	return finish();
}
