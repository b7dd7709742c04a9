/* /proc of another process: the fields that tools read, and who may read them. */
#include "conform.h"
#include <dirent.h>
#include <sys/prctl.h>

static struct target t, a, changed;

static const char *slurp(pid_t pid, const char *file, size_t *size)
{
	static char text[1 << 16];
	char path[128];
	snprintf(path, sizeof path, "/proc/%d/%s", pid, file);
	errno = 0;
	int fd = open(path, O_RDONLY);
	ssize_t n = 0, r;
	if (fd < 0)
		return NULL;
	while ((r = read(fd, text + n, sizeof text - 1 - n)) > 0)
		n += r;
	int e = errno;
	close(fd);
	errno = e;
	if (r < 0)
		return NULL;
	text[n] = 0;
	if (size)
		*size = n;
	return text;
}

/* name is a PID in words. */
static const char *name(long pid)
{
	if (pid == t.pid) return "target";
	if (pid == getpid()) return "me";
	if (pid == getpgrp()) return "my group";
	if (pid == getsid(0)) return "my session";
	return "another";
}

/* field is a line of status. */
static void field(struct target *of, const char *key)
{
	char what[64];
	const char *s = slurp(of->pid, "status", NULL);
	snprintf(what, sizeof what, "%s: status %s", of->name, key);
	for (; s && *s; s = strchr(s, '\n') ? strchr(s, '\n') + 1 : NULL) {
		size_t n = strlen(key);
		if (!strncmp(s, key, n) && s[n] == ':') {
			char value[256];
			int i = 0;
			for (s += n + 1; *s == '\t' || *s == ' '; s++)
				;
			for (; *s && *s != '\n' && i < 255; s++)
				value[i++] = *s == '\t' ? ' ' : *s;
			value[i] = 0;
			if (!strcmp(key, "Pid") || !strcmp(key, "Tgid") || !strcmp(key, "PPid"))
				fact(what, "%s", name(atol(value)));
			else
				fact(what, "%s", value);
			return;
		}
	}
	fact(what, "missing");
}

/* stat_fields prints those of proc_pid_stat(5) that are the same each time. */
static void stat_fields(struct target *of)
{
	static const struct { int number; const char *name; int pid; } want[] = {
		{4, "ppid", 1}, {5, "pgrp", 1}, {6, "session", 1}, {7, "tty_nr", 0}, {8, "tpgid", 0},
		{18, "priority", 0}, {19, "nice", 0}, {20, "num_threads", 0}, {38, "exit_signal", 0}, {40, "rt_priority", 0}, {41, "policy", 0},
	};
	const char *s = slurp(of->pid, "stat", NULL);
	char what[64];
	if (!s) {
		fact("stat", "%s", result(-1));
		return;
	}
	fact("stat begins with the PID", "%s", atoi(s) == of->pid ? "yes" : "no");
	const char *open = strchr(s, '('), *close = strrchr(s, ')');
	fact("stat comm", "%.*s", (int)(close - open - 1), open + 1);
	int fields = 2;
	for (const char *p = close + 1; *p; p++)
		if (*p == ' ') {
			fields++;
			for (unsigned i = 0; i < sizeof want / sizeof *want; i++)
				if (want[i].number == fields) {
					snprintf(what, sizeof what, "stat %s", want[i].name);
					if (want[i].pid)
						fact(what, "%s", name(atol(p + 1)));
					else
						fact(what, "%ld", atol(p + 1));
				}
		}
	fact("stat has as many fields as mine", "%d", fields);
}

/* state waits until the state letter of stat is this one. */
static int state(pid_t pid, char want)
{
	const char *s = slurp(pid, "stat", NULL);
	return s && strrchr(s, ')') && strrchr(s, ')')[2] == want;
}

/* says tells whether status has that line. */
static int says(pid_t pid, const char *line)
{
	const char *s = slurp(pid, "status", NULL);
	return s && strstr(s, line);
}

static void link_of(struct target *of, const char *which)
{
	char path[128], to[4096], what[128];
	snprintf(path, sizeof path, "/proc/%d/%s", of->pid, which);
	snprintf(what, sizeof what, "%s: %s", of->name, which);
	ssize_t n = readlink(path, to, sizeof to - 1);
	if (n < 0) {
		fact(what, "%s", result(-1));
		return;
	}
	to[n] = 0;
	if (strchr(to, '['))
		*strchr(to, '[') = 0; /* pipe:[N] */
	const char *base = strrchr(to, '/');
	fact(what, "%s", !strcmp(which, "exe") && base ? base + 1 : to);
}

static void readable(struct target *of, const char *file)
{
	char what[128];
	size_t n = 0;
	snprintf(what, sizeof what, "%s: read %s", of->name, file);
	const char *s = slurp(of->pid, file, &n);
	if (s && !strcmp(file, "wchan"))
		n = 1; /* 0 or a name, as it happens */
	fact(what, "%s", s ? n ? "some bytes" : "empty" : result(-1));
}

static void everything(struct target *of)
{
	static const char *files[] = {"stat", "status", "statm", "cmdline", "comm", "environ", "maps", "smaps_rollup", "io", "limits", "cgroup",
		"oom_score", "oom_score_adj", "wchan", "mountinfo", "nosuch"};
	for (unsigned i = 0; i < sizeof files / sizeof *files; i++)
		readable(of, files[i]);
	link_of(of, "exe"), link_of(of, "cwd"), link_of(of, "root"), link_of(of, "fd/0");
	char path[128];
	snprintf(path, sizeof path, "/proc/%d/fd", of->pid);
	DIR *d = opendir(path);
	fact("opendir fd", "%s", d ? "yes" : result(-1));
	if (d)
		closedir(d);
}

/* listed reports whether /proc lists a PID. */
static int listed(pid_t pid)
{
	DIR *d = opendir("/proc");
	struct dirent *e;
	int found = 0;
	while (d && (e = readdir(d)))
		found |= atoi(e->d_name) == pid;
	if (d)
		closedir(d);
	return found;
}

static int count(pid_t pid, const char *dir)
{
	char path[128];
	int n = 0;
	snprintf(path, sizeof path, "/proc/%d/%s", pid, dir);
	DIR *d = opendir(path);
	struct dirent *e;
	if (!d)
		return -1;
	while ((e = readdir(d)))
		n += e->d_name[0] != '.';
	closedir(d);
	return n;
}

static void prepare(void)
{
	own_session();
	if (chdir("/usr"))
		broken("chdir");
	setenv("CONFORMANCE", "a value", 1);
}

int main(int argc, char **argv)
{
	(void)argc;
	begin(argv);
	t = start_by("target", prepare), a = start_by("alice's", as_alice), changed = start("alice's, once root's");
	ask(&changed, "uid %d", ALICE);
	ask(&t, "name a (strange) name");
	ask(&t, "block %d", SIGUSR1), ask(&t, "ignore %d", SIGUSR2), ask(&t, "catch %d", SIGINT);
	kill(t.pid, SIGUSR1);
	setpriority(PRIO_PROCESS, t.pid, 4);
	EVENTUALLY("stat says that it sleeps", state(t.pid, 'S'));
	/* From home it is passed on; and what stat does not show, status tells 16 looks later at most. */
	EVENTUALLY("status shows the pending signal", says(t.pid, "\nShdPnd:\t0000000000000200\n"));
	stat_fields(&t);
	static const char *keys[] = {"Name", "Umask", "Tgid", "Ngid", "Pid", "PPid", "TracerPid", "Uid", "Gid", "Groups", "Threads", "SigPnd", "ShdPnd", "SigBlk",
		"SigIgn", "SigCgt", "NoNewPrivs"};
	for (unsigned i = 0; i < sizeof keys / sizeof *keys; i++)
		field(&t, keys[i]);
	field(&a, "Uid"), field(&a, "Gid"), field(&a, "Groups"), field(&a, "CapEff");
	everything(&t);
	AS(ALICE, everything(&t); everything(&a); everything(&changed));
	AS(BOB, everything(&a));
	size_t n;
	const char *s = slurp(t.pid, "cmdline", &n);
	fact("cmdline is one argument", "%s", s && n && strlen(s) == n - 1 && strrchr(s, '/') ? strrchr(s, '/') + 1 : "no");
	s = slurp(t.pid, "environ", &n);
	int found = 0;
	for (const char *p = s; p && p < s + n; p += strlen(p) + 1)
		found += !strcmp(p, "CONFORMANCE=a value");
	fact("environ has the variable", "%d", found);
	s = slurp(t.pid, "comm", NULL);
	fact("comm", "%s", s ? strtok((char *)s, "\n") : result(-1));
	fact("tasks", "%d", count(t.pid, "task"));
	ask(&t, "thread");
	EVENTUALLY("two tasks", count(t.pid, "task") == 2);
	EVENTUALLY("status has two threads", says(t.pid, "\nThreads:\t2\n")); /* it may be half a second old */
	int before = count(t.pid, "fd");
	ask(&t, "open /etc/passwd");
	fact("one descriptor more", "%d", count(t.pid, "fd") - before);

	fact("it is listed", "%s", listed(t.pid) ? "yes" : "no");
	kill(t.pid, SIGSTOP);
	EVENTUALLY("it is stopped", state(t.pid, 'T'));
	kill(t.pid, SIGCONT);
	EVENTUALLY("it sleeps", state(t.pid, 'S'));
	kill(t.pid, SIGKILL);
	EVENTUALLY("it is a zombie", state(t.pid, 'Z'));
	end_of(&t);
	EVENTUALLY("it is gone", !listed(t.pid) && !slurp(t.pid, "stat", NULL));
	fact("stat of a process that is gone", "%s", slurp(t.pid, "stat", NULL) ? "readable" : result(-1));
	fact("stat of nobody", "%s", slurp(NOBODY_HAS, "stat", NULL) ? "readable" : result(-1));
	end_of(&a), end_of(&changed);
	return finish();
}
