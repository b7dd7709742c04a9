/* pidfd_open(2), poll on it, pidfd_send_signal(2), waitid(P_PIDFD). */
#include "conform.h"

static long pidfd_open_(pid_t pid, unsigned flags) { return syscall(SYS_pidfd_open, pid, flags); }
static long send_(int fd, int signo, siginfo_t *info, unsigned flags) { return syscall(SYS_pidfd_send_signal, fd, signo, info, flags); }

/* opened is a descriptor's number reduced to whether it is one. */
static const char *opened(long fd) { return fd >= 0 ? "a descriptor" : result(fd); }

static const char *ready(int fd, int ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	switch (poll(&p, 1, ms)) {
	case 0: return "no";
	case 1: return p.revents & POLLIN ? "POLLIN" : "something else";
	}
	return result(-1);
}

int main(int argc, char **argv)
{
	(void)argc;
	begin(argv);
	struct target t = start("target"), a = start("alice's");
	ask(&a, "uid %d", ALICE);
	ask(&t, "catch %d", SIGUSR1);
	pid_t tid = atoi(ask(&t, "thread"));

	int fd = pidfd_open_(t.pid, 0);
	fact("pidfd_open(target, 0)", "%s", opened(fd));
	fact("close on exec", "%s", fcntl(fd, F_GETFD) & FD_CLOEXEC ? "yes" : "no");
	fact("it is readable", "%s", ready(fd, 0));
	NOTE("pidfd_send_signal(SIGUSR1)", send_(fd, SIGUSR1, NULL, 0));
	fact("target", "%s", ask(&t, "await %d", SIGUSR1));
	NOTE("pidfd_send_signal(0)", send_(fd, 0, NULL, 0));
	NOTE("pidfd_send_signal(99)", send_(fd, 99, NULL, 0));
	NOTE("pidfd_send_signal(SIGUSR1, flags 1<<30)", send_(fd, SIGUSR1, NULL, 1 << 30));
	siginfo_t info;
	memset(&info, 0, sizeof info);
	info.si_signo = SIGUSR1;
	info.si_code = SI_QUEUE;
	info.si_value.sival_int = 77;
	NOTE("pidfd_send_signal(SIGUSR1, 77)", send_(fd, SIGUSR1, &info, 0));
	fact("target", "%s", ask(&t, "await %d", SIGUSR1));
	NOTE("pidfd_send_signal(SIGUSR2 with SIGUSR1's info)", send_(fd, SIGUSR2, &info, 0));
	info.si_code = SI_USER;
	NOTE("pidfd_send_signal(SI_USER)", send_(fd, SIGUSR1, &info, 0));
	NOTE("pidfd_send_signal(not a pidfd)", send_(1, 0, NULL, 0));
	NOTE("pidfd_send_signal(-1)", send_(-1, 0, NULL, 0));
	fact("pidfd_open(nobody)", "%s", opened(pidfd_open_(NOBODY_HAS, 0)));
	fact("pidfd_open(0)", "%s", opened(pidfd_open_(0, 0)));
	fact("pidfd_open(-1)", "%s", opened(pidfd_open_(-1, 0)));
	fact("pidfd_open(target, flags 1)", "%s", opened(pidfd_open_(t.pid, 1)));
	fact("pidfd_open(a thread)", "%s", pidfd_open_(tid, 0) < 0 ? "refused" : "a descriptor");
	AS(BOB, {
		int f = pidfd_open_(a.pid, 0);
		fact("bob: pidfd_open(alice's)", "%s", opened(f));
		NOTE("bob: pidfd_send_signal(alice's, SIGUSR1)", send_(f, SIGUSR1, NULL, 0));
		NOTE("bob: pidfd_send_signal(target, 0)", send_(fd, 0, NULL, 0));
	});
	AS(ALICE, {
		int f = pidfd_open_(a.pid, 0);
		NOTE("alice: pidfd_send_signal(alice's, 0)", send_(f, 0, NULL, 0));
	});

	/* A duplicate serves as well, also one of another process. */
	int copy = dup(fd);
	NOTE("pidfd_send_signal(duplicate)", send_(copy, SIGUSR1, NULL, 0));
	fact("target", "%s", ask(&t, "await %d", SIGUSR1));

	int afd = pidfd_open_(a.pid, 0);
	struct pollfd p = {.fd = fd, .events = POLLIN};
	NOTE("pidfd_send_signal(SIGKILL)", send_(fd, SIGKILL, NULL, 0));
	NOTE("poll", poll(&p, 1, 20000));
	fact("readable now", "%s", ready(fd, 0));
	fact("the duplicate too", "%s", ready(copy, 0));
	fact("alice's is not", "%s", ready(afd, 0));
	int s;
	waitpid(t.child, &s, 0);
	fact("target", "%s", status_text(s));
	EVENTUALLY("pidfd_send_signal to a reaped one is ESRCH", send_(fd, 0, NULL, 0) == -1 && errno == ESRCH);
	ask(&a, "exit 0");
	fact("alice's became readable", "%s", ready(afd, 20000));
	waitpid(a.child, &s, 0);
	fact("alice's", "%s", status_text(s));
	return finish();
}
