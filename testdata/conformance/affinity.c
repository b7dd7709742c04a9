/* sched_getaffinity(2) and sched_setaffinity(2) of another process. */
#include "conform.h"

static long get(pid_t pid, size_t size, void *mask) { return syscall(SYS_sched_getaffinity, pid, size, mask); }
static long set(pid_t pid, size_t size, const void *mask) { return syscall(SYS_sched_setaffinity, pid, size, mask); }

int main(int argc, char **argv)
{
	(void)argc;
	begin(argv);
	struct target t = start("target"), a = start("alice's");
	unsigned char mask[1024] = {0}, all[1024] = {0};
	ask(&a, "uid %d", ALICE);

	long got = get(t.pid, sizeof all, all);
	fact("sched_getaffinity tells as much as for oneself", "%s", got == get(0, sizeof mask, mask) ? "yes" : "no");
	fact("the same CPUs as one's own", "%s", memcmp(all, mask, sizeof all) ? "no" : "yes");
	memset(mask, 0, sizeof mask);
	mask[0] = 1;
	NOTE("sched_setaffinity(CPU 0)", set(t.pid, sizeof mask, mask));
	asked(&t, "affinity");
	memset(mask, 0xff, sizeof mask);
	got = get(t.pid, sizeof mask, mask);
	fact("sched_getaffinity", "%d", mask[0]);
	fact("bytes beyond what it tells are left", "%s", got > 0 && got < 1024 && mask[got] == 0xff ? "yes" : "no");
	NOTE("sched_setaffinity(8 bytes, all CPUs)", set(t.pid, 8, all));
	memset(mask, 0, sizeof mask);
	NOTE("sched_setaffinity(no CPU)", set(t.pid, sizeof mask, mask));
	mask[1000] = 1;
	NOTE("sched_setaffinity(CPU 8000)", set(t.pid, sizeof mask, mask));
	NOTE("sched_setaffinity(size 0)", set(t.pid, 0, mask));
	NOTE("sched_setaffinity(a bad pointer)", set(t.pid, 8, (void *)8));
	NOTE("sched_getaffinity(a bad pointer)", get(t.pid, 1024, (void *)8));
	NOTE("sched_getaffinity(size 0)", get(t.pid, 0, mask));
	NOTE("sched_getaffinity(size 1)", get(t.pid, 1, mask));
	NOTE("sched_getaffinity(size 9)", get(t.pid, 9, mask));
	NOTE("sched_getaffinity(nobody)", get(NOBODY_HAS, 1024, mask));
	NOTE("sched_setaffinity(nobody)", set(NOBODY_HAS, 1024, all));
	NOTE("sched_getaffinity(-1)", get(-1, 1024, mask));
	AS(ALICE, {
		NOTE("alice: sched_setaffinity(hers)", set(a.pid, 8, all));
		NOTE("alice: sched_setaffinity(root's)", set(t.pid, 8, all));
		fact("alice: sched_getaffinity(root's)", "%s", get(t.pid, 1024, mask) > 0 ? "a mask" : result(-1));
	});
	end_of(&t), end_of(&a);
	return finish();
}
