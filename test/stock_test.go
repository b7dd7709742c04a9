package test

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// stock runs a script as a user's process of node 1, root's or with user before
// it. It is status 0 and no word on stderr, and stdout matches, or the script is
// named.
func (c *cluster) stock(user []string, script, stdout string) {
	c.t.Helper()
	c.stockFails(user, script, 0, stdout, `^$`)
}

func (c *cluster) stockFails(user []string, script string, status int, stdout, stderr string) {
	c.t.Helper()
	got := c.login(1, "", slices.Concat(user, []string{"sh", "-c", script})...)
	if got.status != status || !regexp.MustCompile(stdout).MatchString(got.stdout) || !regexp.MustCompile(stderr).MatchString(got.stderr) {
		c.t.Errorf("%s: status %d, want %d\nstdout %q, want a match of %q\nstderr %q, want a match of %q",
			script, got.status, status, got.stdout, stdout, got.stderr, stderr)
	}
}

// TestStockTools: programs that know nothing of ssi, on node 1, see and act on a
// process of node 2 by its PID.
func TestStockTools(t *testing.T) {
	c := start(t, 3)
	if got := c.login(1, "", "onnode", "2", "sh", "-c", "cd /usr && setsid sleep 4711 </dev/null >/dev/null 2>&1 &"); got.status != 0 {
		t.Fatalf("%+v", got)
	}
	pid := ""
	c.eventually("pgrep finds it", func() bool {
		pid = strings.TrimSpace(c.login(1, "", "pgrep", "-xf", "sleep 4711").stdout)
		return pid != ""
	})
	there := strings.TrimSpace(c.do(2, "pgrep", "-xf", "sleep 4711"))
	if pid != there {
		t.Fatalf("node 1 sees process %s, node 2 has %s", pid, there)
	}
	named := func(s string) string { return strings.ReplaceAll(s, "PID", pid) }

	for _, x := range []struct{ script, stdout string }{
		{"ps -p PID -o pid=,user=,comm=,args=", `^ *PID root +sleep +sleep 4711\n$`},
		{"ps aux | grep -c '[s]leep 4711'", `^1\n$`},
		{"ps -ef | grep '[s]leep 4711'", `^root +PID +1 .* sleep 4711\n$`},
		{"pidof sleep", `\bPID\b`},
		{"pstree -p | grep -c 'sleep(PID)'", `^1\n$`},
		{"top -b -n 1 -p PID | tail -n 1", `^ *PID root .* sleep *\n$`},
		{"lsof -p PID -a -d cwd", `sleep +PID root +cwd +\S+ .* /usr`},
		{"readlink /proc/PID/exe /proc/PID/cwd", `^/usr/bin/sleep\n/usr\n$`},
		{"tr '\\0' ' ' </proc/PID/cmdline", `^sleep 4711 $`},
		{"cat /proc/PID/where", `^2\n$`},
		{"ls /proc/PID/fd /proc/PID/task", `^/proc/PID/fd:\n0\n1\n2\n\n/proc/PID/task:\nPID\n$`},
		{"cat /cluster/node2/proc/PID/comm", `^sleep\n$`},
		{"cat /proc/cluster/self; awk '$2 == \"UP\" {print $1}' /proc/cluster/nodes", `^1\n1\n2\n3\n$`},
		{"awk '$5 == \"UP\" {print $3}' /proc/cluster/events", `^1\n2\n3\n$|^1\n3\n2\n$`},

		{"kill -0 PID; bash -c 'kill -0 PID'; dash -c 'kill -0 PID'; python3 -c 'import os; os.kill(PID, 0)'", `^$`},
		{"renice -n 3 -p PID >/dev/null && ps -o ni= -p PID", `^ *3\n$`},
		{"chrt -b -p 0 PID && chrt -p PID", `SCHED_BATCH`},
		{"taskset -p 1 PID >/dev/null && taskset -p PID", `mask: 1\n$`},
		{"ionice -c 3 -p PID && ionice -p PID", `^idle\n$`},
		{"prlimit --pid PID --core=7:8 && prlimit --pid PID --core -o SOFT,HARD --noheadings", `^ *7 +8\n$`},
		{"kill -STOP PID && until ps -o stat= -p PID | grep -q T; do :; done; kill -CONT PID && until ps -o stat= -p PID | grep -q S; do :; done", `^$`},
		{"python3 -c 'import os; print(os.getpgid(PID) == PID, os.getsid(PID) == PID)'", `^True True\n$`},
		{"strace -f -e trace=kill sh -c 'kill -0 PID' 2>&1", `kill\(PID, 0\) += 0`},

		// A nested PID namespace is its own world, and what changes users goes on working.
		{"unshare -Upf --mount-proc sh -c 'kill -0 1 && ps -e -o pid= | wc -l'", `^3\n$`},
		{"su -s /bin/sh -c 'id -u' nobody; sudo -n id -u", `^65534\n0\n$`},

		{"python3 -c 'import ctypes; print(ctypes.CDLL(None).syscall(0x5501))'", `^1\n$`},
		{"sysctl -n kernel.ostype; bash -c 'cat <(echo x)'; free >/dev/null; uptime -p >/dev/null", `^Linux\nx\n$`},
	} {
		c.stock(nil, named(x.script), named(x.stdout))
	}

	for _, x := range []struct {
		script         string
		status         int
		stdout, stderr string
	}{
		{"strace -p PID", 1, `^$`, `attach: ptrace\(PTRACE_SEIZE, PID\): Operation not permitted`},
		{"gdb -p PID -batch 2>&1 | grep -i ptrace", 0, `ptrace: Operation not permitted`, `^$`},
		{"localview pgrep -xf 'sleep 4711'", 1, `^$`, `^$`},
		{"onnode -l 3 pgrep -xf 'sleep 4711'", 1, `^$`, `^$`},
		{"onnode 3 pgrep -xf 'sleep 4711'", 0, `^PID\n$`, `^$`},
		{"kill -0 4194303", 1, `^$`, `No such process`},
	} {
		c.stockFails(nil, named(x.script), x.status, named(x.stdout), named(x.stderr))
	}

	// Another user sees what the kernel there would show it, and no more.
	c.stock(nobody, named("ps -p PID -o comm="), `^sleep\n$`)
	for _, x := range []struct{ script, stderr string }{
		{"kill -0 PID", `Operation not permitted`},
		{"renice -n 9 -p PID", `Operation not permitted|Permission denied`},
		{"cat /proc/PID/environ", `Permission denied`},
		{"ls /proc/PID/fd", `Permission denied`},
		{"readlink -v /proc/PID/exe", `Permission denied`},
		{"cat /proc/PID/maps", `Permission denied`},
	} {
		script := named(x.script)
		got := c.login(1, "", slices.Concat(nobody, []string{"sh", "-c", script})...)
		if got.status == 0 || got.stdout != "" || !regexp.MustCompile(x.stderr).MatchString(got.stderr) {
			t.Errorf("nobody: %s: %+v, want %q", script, got, x.stderr)
		}
	}

	c.stock(nil, named("pkill -xf 'sleep 4711'; while kill -0 PID 2>/dev/null; do :; done; while [ -e /proc/PID ]; do :; done"), `^$`)
}

// TestNodeGoesDark: with a node its processes leave /proc of the others, and a
// signal to one of them says that there is none.
func TestNodeGoesDark(t *testing.T) {
	c := start(t, 3)
	c.login(1, "", "onnode", "2", "sh", "-c", "setsid sleep 4712 </dev/null >/dev/null 2>&1 &")
	pid := ""
	c.eventually("pgrep finds it", func() bool {
		pid = strings.TrimSpace(c.login(1, "", "pgrep", "-xf", "sleep 4712").stdout)
		return pid != ""
	})
	// A pidfd that is polled, and a command whose caller waits, tell of the end.
	c.login(1, "", "sh", "-c", `setsid python3 -c '
import os, select, sys
fd = os.pidfd_open(int(sys.argv[1]))
open("/run/open", "w").close()
select.select([fd], [], [])
open("/run/polled", "w").close()
' `+pid+` </dev/null >/dev/null 2>&1 &
setsid sh -c 'onnode 2 sleep 4713; echo $? >/run/status.new; mv /run/status.new /run/status' </dev/null >/dev/null 2>&1 &`)
	c.eventually("the pidfd is open, the command runs", func() bool {
		_, status := c.try(1, "test", "-e", "/run/open")
		return status == 0 && c.login(1, "", "pgrep", "-xf", "sleep 4713").status == 0
	})
	c.ok(c.Crash(c.ctx(), 2))
	c.eventually("the entries are gone", func() bool { return c.login(1, "", "sh", "-c", "test -e /proc/"+pid).status != 0 })
	c.stockFails(nil, "kill -0 "+pid, 1, `^$`, `No such process`)
	c.eventually("the waiters are told", func() bool {
		_, polled := c.try(1, "test", "-e", "/run/polled")
		out, _ := c.try(1, "cat", "/run/status")
		return polled == 0 && out == "255\n"
	})
}

// TestMountRoleKilled: the server of the clusterwide /proc is killed while programs read it: none sees
// an error, and what is remote stays.
func TestMountRoleKilled(t *testing.T) {
	c := start(t, 2)
	c.login(1, "", "onnode", "2", "sh", "-c", "setsid sleep 4714 </dev/null >/dev/null 2>&1 &")
	c.eventually("pgrep finds it", func() bool { return c.login(1, "", "pgrep", "-xf", "sleep 4714").status == 0 })
	c.login(1, "", "sh", "-c", `setsid sh -c 'while [ ! -e /run/enough ]; do
ps -e -o args= >/run/list 2>/run/errors || echo status $? >>/run/bad
[ -s /run/errors ] && cat /run/errors >>/run/bad
grep -q "sleep 4714" /run/list || echo missing >>/run/bad
echo x >>/run/rounds
done' </dev/null >/dev/null 2>&1 &`)
	rounds := func() int {
		out, _ := c.try(1, "cat", "/run/rounds")
		return len(out)
	}
	for range 3 {
		before := rounds()
		c.killRole(1, "mount")
		c.eventually("it goes on", func() bool { return rounds() > before+4 })
	}
	c.do(1, "touch", "/run/enough")
	if out, status := c.try(1, "cat", "/run/bad"); status == 0 {
		t.Errorf("programs saw: %s", out)
	}
}
