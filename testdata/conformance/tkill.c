/* tkill(2) and tgkill(2): signals to one thread of another process. */
#include "conform.h"

static long tkill(pid_t tid, int signo) { return syscall(SYS_tkill, tid, signo); }

int main(int argc, char **argv)
{
	(void)argc;
	begin(argv);
	struct target t = start("target"), a = start("alice's");
	ask(&a, "uid %d", ALICE);
	ask(&t, "catch %d", SIGUSR1);
	pid_t tid = atoi(ask(&t, "thread"));

	NOTE("tgkill(target, target, SIGUSR1)", tgkill(t.pid, t.pid, SIGUSR1));
	fact("target", "%s", ask(&t, "await %d", SIGUSR1));
	NOTE("tgkill(target, thread, SIGUSR1)", tgkill(t.pid, tid, SIGUSR1));
	fact("target", "%s", ask(&t, "await %d", SIGUSR1));
	NOTE("tkill(thread, SIGUSR1)", tkill(tid, SIGUSR1));
	fact("target", "%s", ask(&t, "await %d", SIGUSR1));
	NOTE("tkill(target, SIGUSR1)", tkill(t.pid, SIGUSR1));
	fact("target", "%s", ask(&t, "await %d", SIGUSR1));
	NOTE("kill(thread, SIGUSR1)", kill(tid, SIGUSR1)); /* a thread names its process */
	fact("target", "%s", ask(&t, "await %d", SIGUSR1));
	NOTE("tgkill(target, alice's, 0)", tgkill(t.pid, a.pid, 0));
	NOTE("tgkill(thread, thread, 0)", tgkill(tid, tid, 0));
	NOTE("tgkill(target, nobody, 0)", tgkill(t.pid, NOBODY_HAS, 0));
	NOTE("tgkill(target, thread, 99)", tgkill(t.pid, tid, 99));
	NOTE("tgkill(0, thread, 0)", tgkill(0, tid, 0));
	NOTE("tgkill(target, -1, 0)", tgkill(t.pid, -1, 0));
	NOTE("tkill(0, 0)", tkill(0, 0));
	NOTE("tkill(-1, 0)", tkill(-1, 0));
	NOTE("tkill(nobody, 0)", tkill(NOBODY_HAS, 0));
	AS(BOB, {
		NOTE("bob: tkill(alice's, 0)", tkill(a.pid, 0));
		NOTE("bob: tgkill(target, thread, 0)", tgkill(t.pid, tid, 0));
	});
	AS(ALICE, NOTE("alice: tgkill(alice's, alice's, 0)", tgkill(a.pid, a.pid, 0)));
	NOTE("tgkill(target, thread, SIGKILL)", tgkill(t.pid, tid, SIGKILL));
	int s;
	waitpid(t.child, &s, 0);
	fact("target", "%s", status_text(s));
	end_of(&a);
	return finish();
}
