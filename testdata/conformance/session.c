/* Sessions and their terminal: what its keys and its end do to a job of targets. */
#include "conform.h"
#include <pty.h>
#include <termios.h>

static struct target a, b, c;

static void join_a(void) { setpgid(0, a.child); }

static const char *waited(struct target *t, int options)
{
	int s = 0;
	pid_t r = waitpid(t->child, &s, options);
	return r == -1 ? result(-1) : r == 0 ? "nothing yet" : status_text(s);
}

static void key(int master, char k)
{
	if (write(master, &k, 1) != 1)
		broken("write to the terminal");
}

/* leader is the session; its standard output is the program's. */
static void leader(int master, int slave)
{
	if (setsid() < 0 || ioctl(slave, TIOCSCTTY, 0))
		broken("make a session");
	signal(SIGTTOU, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	a = start_by("a", own_group), b = start_by("b", join_a), c = start_by("c", own_group);
	fact("a is in my session", "%s", atoi(ask(&a, "sid")) == getpid() ? "yes" : "no");
	fact("b is in a's group", "%s", atoi(ask(&b, "pgrp")) == a.pid ? "yes" : "no");
	NOTE("tcsetpgrp(a's group)", tcsetpgrp(slave, a.pid));
	fact("tcgetpgrp is a", "%s", tcgetpgrp(slave) == a.pid ? "yes" : "no");
	fact("tcgetsid is me", "%s", tcgetsid(slave) == getpid() ? "yes" : "no");

	int signals[] = {SIGINT, SIGQUIT, SIGWINCH, SIGHUP, SIGCONT};
	for (int i = 0; i < 5; i++)
		ask(&a, "catch %d", signals[i]), ask(&b, "catch %d", signals[i]), ask(&c, "catch %d", signals[i]);
	key(master, 3);
	fact("^C: a", "%s", ask(&a, "await %d", SIGINT));
	fact("^C: b", "%s", ask(&b, "await %d", SIGINT));
	key(master, 28);
	fact("^\\: a", "%s", ask(&a, "await %d", SIGQUIT));
	fact("^\\: b", "%s", ask(&b, "await %d", SIGQUIT));
	struct winsize size = {.ws_row = 33, .ws_col = 44};
	ioctl(master, TIOCSWINSZ, &size);
	fact("new size: a", "%s", ask(&a, "await %d", SIGWINCH));
	fact("new size: b", "%s", ask(&b, "await %d", SIGWINCH));
	asked(&c, "got");

	key(master, 26);
	fact("^Z: a", "%s", waited(&a, WUNTRACED));
	fact("^Z: b", "%s", waited(&b, WUNTRACED));
	NOTE("tcsetpgrp(mine)", tcsetpgrp(slave, getpgrp()));
	NOTE("kill(-job, SIGCONT)", kill(-a.pid, SIGCONT));
	fact("bg: a", "%s", waited(&a, WCONTINUED));
	fact("bg: b", "%s", waited(&b, WCONTINUED));
	fact("bg: a", "%s", ask(&a, "await %d", SIGCONT));
	fact("bg: b", "%s", ask(&b, "await %d", SIGCONT));
	NOTE("tcsetpgrp(c's group)", tcsetpgrp(slave, c.pid));
	key(master, 3);
	fact("^C: c", "%s", ask(&c, "await %d", SIGINT));
	asked(&a, "got");
	asked(&b, "got");
	NOTE("tcsetpgrp(nobody's group)", tcsetpgrp(slave, NOBODY_HAS));
	NOTE("tcsetpgrp(the group of another session)", tcsetpgrp(slave, getppid()));

	/* The leader's end hangs up the foreground job. */
	NOTE("tcsetpgrp(a's group)", tcsetpgrp(slave, a.pid));
}

int main(int argc, char **argv)
{
	(void)argc;
	begin(argv);
	int master, slave, go[2], fds[2][2], s;
	if (openpty(&master, &slave, NULL, NULL, NULL) || pipe(go) || pipe(fds[0]) || pipe(fds[1]))
		broken("openpty");
	fcntl(master, F_SETFD, FD_CLOEXEC);
	fflush(stdout);
	pid_t p = fork();
	if (p == 0) {
		leader(master, slave);
		/* The program is to go on asking the targets. */
		struct target all[2] = {a, b};
		for (int i = 0; i < 2; i++) {
			int out[4] = {all[i].in, all[i].out, all[i].pid, getpid()};
			if (write(go[1], out, sizeof out) != sizeof out)
				broken("write");
		}
		char byte;
		if (read(fds[0][0], &byte, 1) != 1)
			broken("read");
		_exit(0);
	}
	close(slave);
	struct target left[2];
	for (int i = 0; i < 2; i++) {
		int in[4];
		if (read(go[0], in, sizeof in) != sizeof in)
			broken("read");
		int fd = syscall(SYS_pidfd_open, in[3], 0);
		left[i] = (struct target){.name = i ? "b" : "a", .pid = in[2], .in = syscall(SYS_pidfd_getfd, fd, in[0], 0), .out = syscall(SYS_pidfd_getfd, fd, in[1], 0)};
		close(fd);
	}
	if (write(fds[0][1], "x", 1) != 1)
		broken("write");
	waitpid(p, &s, 0);
	fact("leader", "%s", status_text(s));
	fact("hang-up: a", "%s", ask(&left[0], "await %d", SIGHUP));
	fact("hang-up: b", "%s", ask(&left[1], "await %d", SIGHUP));
	for (int i = 0; i < 2; i++)
		fact("new parent", "%s", ask(&left[i], "ppid"));
	NOTE("kill(-job, SIGKILL)", kill(-left[0].pid, SIGKILL));
	EVENTUALLY("the job is gone", kill(-left[0].pid, 0) == -1 && errno == ESRCH);
	return finish();
}
