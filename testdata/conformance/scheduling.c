/* sched_{get,set}{scheduler,param,attr}, sched_rr_get_interval of another process. */
#include "conform.h"

struct attr { /* sched_setattr(2) */
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
};

static const char *describe(pid_t pid)
{
	static char text[128];
	struct attr a;
	memset(&a, 0, sizeof a);
	errno = 0;
	if (syscall(SYS_sched_getattr, pid, &a, sizeof a, 0))
		return result(-1);
	snprintf(text, sizeof text, "policy %u flags %llu nice %d priority %u", a.policy, (unsigned long long)a.flags, a.nice, a.priority);
	return text;
}

int main(int argc, char **argv)
{
	(void)argc;
	begin(argv);
	struct target t = start("target"), a = start("alice's");
	struct sched_param p = {.sched_priority = 0};
	struct timespec slice;
	ask(&a, "uid %d", ALICE);

	NOTE("sched_getscheduler", sched_getscheduler(t.pid));
	fact("sched_getattr", "%s", describe(t.pid));
	NOTE("sched_setscheduler(BATCH)", sched_setscheduler(t.pid, SCHED_BATCH, &p));
	NOTE("sched_getscheduler", sched_getscheduler(t.pid));
	asked(&t, "sched");
	p.sched_priority = 1;
	NOTE("sched_setscheduler(BATCH, priority 1)", sched_setscheduler(t.pid, SCHED_BATCH, &p));
	NOTE("sched_setscheduler(policy 99)", sched_setscheduler(t.pid, 99, &p));
	NOTE("sched_setscheduler(NULL)", sched_setscheduler(t.pid, SCHED_OTHER, NULL));
	NOTE("sched_setparam(1)", sched_setparam(t.pid, &p));
	p.sched_priority = 0;
	NOTE("sched_setparam(0)", sched_setparam(t.pid, &p));
	p.sched_priority = 77;
	NOTE("sched_getparam", sched_getparam(t.pid, &p));
	fact("priority", "%d", p.sched_priority);
	NOTE("sched_getparam(a bad pointer)", syscall(SYS_sched_getparam, t.pid, 8));
	NOTE("sched_getparam(nobody)", sched_getparam(NOBODY_HAS, &p));
	NOTE("sched_getparam(-1)", sched_getparam(-1, &p));
	NOTE("sched_getscheduler(nobody)", sched_getscheduler(NOBODY_HAS));
	NOTE("sched_getscheduler(-1)", sched_getscheduler(-1));
	NOTE("sched_rr_get_interval", sched_rr_get_interval(t.pid, &slice));
	NOTE("sched_rr_get_interval(nobody)", sched_rr_get_interval(NOBODY_HAS, &slice));

	struct attr set = {.size = sizeof set, .policy = SCHED_OTHER, .nice = 6};
	NOTE("sched_setattr(OTHER, nice 6)", syscall(SYS_sched_setattr, t.pid, &set, 0));
	fact("sched_getattr", "%s", describe(t.pid));
	asked(&t, "nice");
	set.size = 4;
	NOTE("sched_setattr(size 4)", syscall(SYS_sched_setattr, t.pid, &set, 0));
	set.size = 1 << 20;
	NOTE("sched_setattr(size 1 MiB)", syscall(SYS_sched_setattr, t.pid, &set, 0));
	set.size = sizeof set;
	NOTE("sched_setattr(flags 1)", syscall(SYS_sched_setattr, t.pid, &set, 1));
	NOTE("sched_setattr(NULL)", syscall(SYS_sched_setattr, t.pid, NULL, 0));
	NOTE("sched_getattr(size 4)", syscall(SYS_sched_getattr, t.pid, &set, 4, 0));
	fact("sched_getattr(nobody)", "%s", describe(NOBODY_HAS));

	AS(ALICE, {
		struct sched_param zero = {.sched_priority = 0};
		NOTE("alice: sched_setscheduler(hers, BATCH)", sched_setscheduler(a.pid, SCHED_BATCH, &zero));
		NOTE("alice: sched_setscheduler(root's, BATCH)", sched_setscheduler(t.pid, SCHED_BATCH, &zero));
		NOTE("alice: sched_getscheduler(root's)", sched_getscheduler(t.pid));
		zero.sched_priority = 1;
		NOTE("alice: sched_setscheduler(hers, FIFO)", sched_setscheduler(a.pid, SCHED_FIFO, &zero));
	});
	AS(BOB, {
		struct sched_param zero = {.sched_priority = 0};
		NOTE("bob: sched_setparam(alice's)", sched_setparam(a.pid, &zero));
		NOTE("bob: sched_getparam(alice's)", sched_getparam(a.pid, &zero));
	});
	asked(&a, "sched");
	end_of(&t), end_of(&a);
	return finish();
}
