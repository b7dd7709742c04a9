/* sigqueue(3), rt_sigqueueinfo(2), rt_tgsigqueueinfo(2): values, order, refusals. */
#include "conform.h"

static long queueinfo(pid_t pid, int signo, int code, int value)
{
	siginfo_t info;
	memset(&info, 0, sizeof info);
	info.si_signo = signo;
	info.si_code = code;
	info.si_pid = getpid();
	info.si_uid = getuid();
	info.si_value.sival_int = value;
	return syscall(SYS_rt_sigqueueinfo, pid, signo, &info);
}

static long tgqueueinfo(pid_t pid, pid_t tid, int signo, int code, int value)
{
	siginfo_t info;
	memset(&info, 0, sizeof info);
	info.si_signo = signo;
	info.si_code = code;
	info.si_pid = getpid();
	info.si_uid = getuid();
	info.si_value.sival_int = value;
	return syscall(SYS_rt_tgsigqueueinfo, pid, tid, signo, &info);
}

int main(int argc, char **argv)
{
	(void)argc;
	begin(argv);
	struct target t = start("target"), a = start("alice's");
	union sigval v;
	ask(&a, "uid %d", ALICE);

	/* Queued signals come in order, the lowest number first; values are kept. */
	int signals[] = {SIGRTMIN + 3, SIGRTMIN, SIGRTMIN + 1, SIGUSR2};
	for (int i = 0; i < 4; i++)
		ask(&t, "block %d", signals[i]);
	int failed = 0;
	for (int i = 0; i < 20; i++)
		for (int j = 0; j < 4; j++) {
			v.sival_int = 100 * j + i;
			failed += sigqueue(t.pid, signals[j], v) != 0;
		}
	fact("80 sigqueues failed", "%d", failed);
	asked(&t, "take");
	v.sival_int = -7;
	NOTE("sigqueue(target, SIGUSR2, -7)", sigqueue(t.pid, SIGUSR2, v));
	asked(&t, "take");

	/* Caught at once. */
	ask(&t, "catch %d", SIGRTMIN + 5);
	v.sival_int = 42;
	NOTE("sigqueue(target, SIGRTMIN+5, 42)", sigqueue(t.pid, SIGRTMIN + 5, v));
	fact("target", "%s", ask(&t, "await %d", SIGRTMIN + 5));

	NOTE("sigqueue(target, 0)", sigqueue(t.pid, 0, v));
	NOTE("sigqueue(target, 99)", sigqueue(t.pid, 99, v));
	NOTE("sigqueue(nobody, 0)", sigqueue(NOBODY_HAS, 0, v));
	NOTE("sigqueue(-target, SIGUSR2)", sigqueue(-t.pid, SIGUSR2, v));
	NOTE("sigqueue(0, SIGUSR2)", sigqueue(0, SIGUSR2, v));
	AS(BOB, {
		NOTE("bob: sigqueue(alice's, SIGUSR2)", sigqueue(a.pid, SIGUSR2, v));
		NOTE("bob: sigqueue(target, 0)", sigqueue(t.pid, 0, v));
	});
	AS(ALICE, NOTE("alice: sigqueue(alice's, 0)", sigqueue(a.pid, 0, v)));

	/* Nobody may claim to be the kernel, or kill(2), towards another. */
	NOTE("rt_sigqueueinfo(target, SI_QUEUE)", queueinfo(t.pid, SIGRTMIN, SI_QUEUE, 1));
	NOTE("rt_sigqueueinfo(target, SI_MESGQ)", queueinfo(t.pid, SIGRTMIN, SI_MESGQ, 2));
	NOTE("rt_sigqueueinfo(target, SI_USER)", queueinfo(t.pid, SIGRTMIN, SI_USER, 3));
	NOTE("rt_sigqueueinfo(target, SI_KERNEL)", queueinfo(t.pid, SIGRTMIN, SI_KERNEL, 4));
	NOTE("rt_sigqueueinfo(target, SI_TKILL)", queueinfo(t.pid, SIGRTMIN, SI_TKILL, 5));
	NOTE("rt_sigqueueinfo(target, a bad pointer)", syscall(SYS_rt_sigqueueinfo, t.pid, SIGRTMIN, 8));
	asked(&t, "take");

	/* To one thread. */
	pid_t tid = atoi(ask(&t, "thread"));
	NOTE("rt_tgsigqueueinfo(target, target)", tgqueueinfo(t.pid, t.pid, SIGRTMIN + 1, SI_QUEUE, 6));
	asked(&t, "take");
	NOTE("rt_tgsigqueueinfo(target, thread, 0)", tgqueueinfo(t.pid, tid, 0, SI_QUEUE, 0));
	NOTE("rt_tgsigqueueinfo(target, nobody)", tgqueueinfo(t.pid, NOBODY_HAS, SIGRTMIN, SI_QUEUE, 0));
	NOTE("rt_tgsigqueueinfo(target, alice's)", tgqueueinfo(t.pid, a.pid, SIGRTMIN, SI_QUEUE, 0));
	NOTE("rt_tgsigqueueinfo(target, 0)", tgqueueinfo(t.pid, 0, SIGRTMIN, SI_QUEUE, 0));
	NOTE("rt_tgsigqueueinfo(-1, target)", tgqueueinfo(-1, t.pid, SIGRTMIN, SI_QUEUE, 0));
	NOTE("rt_tgsigqueueinfo(target, target, SI_USER)", tgqueueinfo(t.pid, t.pid, SIGRTMIN, SI_USER, 0));
	asked(&t, "take");
	end_of(&t), end_of(&a);
	return finish();
}
