/* kill(-1): everything the caller may signal, but for itself and PID 1. It is
 * called as users that own nothing else, never as root. */
#include "conform.h"

int main(int argc, char **argv)
{
	(void)argc;
	begin(argv);
	struct target r = start("root's"), a = start("alice's"), a2 = start("alice's second"), b = start("bob's");
	struct target *all[] = {&r, &a, &a2, &b};
	for (int i = 0; i < 4; i++)
		ask(all[i], "catch %d", SIGUSR1);
	ask(&a, "uid %d", ALICE), ask(&a2, "uid %d", ALICE), ask(&b, "uid %d", BOB);

	AS(ALICE, {
		signal(SIGUSR1, SIG_DFL); /* the caller itself is spared */
		NOTE("alice: kill(-1, 0)", kill(-1, 0));
		NOTE("alice: kill(-1, SIGUSR1)", kill(-1, SIGUSR1));
		NOTE("alice: kill(-1, 99)", kill(-1, 99));
	});
	fact("alice's", "%s", ask(&a, "await %d", SIGUSR1));
	fact("alice's second", "%s", ask(&a2, "await %d", SIGUSR1));
	asked(&b, "got");
	asked(&r, "got");
	AS(BOB, NOTE("bob: kill(-1, SIGKILL)", kill(-1, SIGKILL)));
	int s;
	waitpid(b.child, &s, 0);
	fact("bob's", "%s", status_text(s));
	asked(&a, "got");
	fact("root's still answers", "%s", atoi(ask(&r, "pid")) == r.pid ? "yes" : "no");
	/* Without processes of one's own there is nothing that may be signalled. */
	AS(BOB, {
		long one = kill(-1, 0);
		fact("bob alone: kill(-1, 0)", "%s", result(one));
	});
	end_of(&a), end_of(&a2), end_of(&r);
	return finish();
}
