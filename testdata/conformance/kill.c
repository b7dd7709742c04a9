/* kill(2) of one process: who may, which signals there are, what is no process. */
#include "conform.h"

static struct target root, alice, bob;

static void matrix(const char *who)
{
	struct target *all[] = {&root, &alice, &bob};
	int signals[] = {0, SIGUSR1, SIGCONT, SIGRTMIN, SIGRTMAX, SIGRTMAX + 1, -1, 1 << 20};
	for (unsigned i = 0; i < sizeof all / sizeof *all; i++)
		for (unsigned j = 0; j < sizeof signals / sizeof *signals; j++) {
			char what[128];
			snprintf(what, sizeof what, "%s: kill(%s, %d)", who, all[i]->name, signals[j]);
			NOTE(what, kill(all[i]->pid, signals[j]));
		}
	char what[128];
	snprintf(what, sizeof what, "%s: kill(nobody, 0)", who);
	NOTE(what, kill(NOBODY_HAS, 0));
	snprintf(what, sizeof what, "%s: kill(nobody, 99)", who);
	NOTE(what, kill(NOBODY_HAS, 99));
}

static void quiet(struct target *t)
{
	int signals[] = {SIGUSR1, SIGCONT, SIGRTMIN, SIGRTMAX};
	for (unsigned i = 0; i < sizeof signals / sizeof *signals; i++)
		ask(t, "catch %d", signals[i]);
}

int main(int argc, char **argv)
{
	(void)argc;
	begin(argv);
	root = start("root's"), alice = start("alice's"), bob = start("bob's");
	quiet(&root), quiet(&alice), quiet(&bob);
	ask(&alice, "uid %d", ALICE);
	ask(&bob, "uid %d", BOB);

	matrix("root");
	AS(ALICE, matrix("alice"));
	/* The last signal that may be sent was sent last, so all are there. */
	kill(root.pid, SIGUSR1), kill(alice.pid, SIGUSR1), kill(bob.pid, SIGUSR1);
	ask(&root, "await %d", SIGRTMAX), ask(&alice, "await %d", SIGRTMAX), ask(&bob, "await %d", SIGRTMAX);

	/* The sender's real or effective user must be the target's real or saved one. */
	AS(BOB, {
		NOTE("bob: kill(bob's, 0)", kill(bob.pid, 0));
		NOTE("bob: kill(alice's, 0)", kill(alice.pid, 0));
	});
	fflush(stdout);
	if (fork() == 0) {
		setresuid(ALICE, BOB, 0);
		NOTE("real alice, effective bob: kill(alice's, 0)", kill(alice.pid, 0));
		NOTE("real alice, effective bob: kill(bob's, 0)", kill(bob.pid, 0));
		NOTE("real alice, effective bob: kill(root's, 0)", kill(root.pid, 0));
		_exit(0);
	}
	wait(NULL);
	if (fork() == 0) {
		setresuid(0, ALICE, 0); /* without CAP_KILL by the effective user */
		NOTE("real root, effective alice: kill(root's, 0)", kill(root.pid, 0));
		NOTE("real root, effective alice: kill(bob's, 0)", kill(bob.pid, 0));
		_exit(0);
	}
	wait(NULL);

	/* A stopped process, and one that blocks everything, die by SIGKILL. */
	struct target hung = start("hung");
	int s;
	ask(&hung, "hang");
	NOTE("kill(hung, SIGTERM)", kill(hung.pid, SIGTERM));
	NOTE("kill(hung, SIGSTOP)", kill(hung.pid, SIGSTOP));
	NOTE("kill(hung, SIGKILL)", kill(hung.pid, SIGKILL));
	waitpid(hung.child, &s, 0);
	fact("hung", "%s", status_text(s));
	EVENTUALLY("kill(reaped, 0) is ESRCH", kill(hung.pid, 0) == -1 && errno == ESRCH);

	/* The default action, and one that was ignored. */
	NOTE("kill(bob's, SIGTERM)", kill(bob.pid, SIGTERM));
	waitpid(bob.child, &s, 0);
	fact("bob's", "%s", status_text(s));
	ask(&alice, "ignore %d", SIGTERM);
	NOTE("kill(alice's, SIGTERM)", kill(alice.pid, SIGTERM));
	fact("alice's still answers", "%s", atoi(ask(&alice, "pid")) == alice.pid ? "yes" : "no");
	end_of(&alice);
	end_of(&root);
	return finish();
}
