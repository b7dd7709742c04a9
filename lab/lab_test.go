package lab

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"ssi/internal/errno"
	"ssi/internal/id"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes namespaces and mounts")
	}
}

// labName names a lab of this run of the tests: several may run at once.
func labName(name string) string { return fmt.Sprintf("T%d-%s", os.Getpid(), name) }

// start makes a lab of the test.
func start(t *testing.T, o Options) *Lab {
	t.Helper()
	needRoot(t)
	o.Name = labName(strings.TrimPrefix(t.Name(), "Test"))
	l, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// sh runs a shell command on a node, which must succeed.
func sh(t *testing.T, l *Lab, n id.Node, script string) string {
	t.Helper()
	out, code, err := l.Console(t.Context(), n, "sh", "-c", script)
	if err != nil || code != 0 {
		t.Fatalf("node %d: %s: status %d, %v: %s", n, script, code, err, out)
	}
	return strings.TrimSpace(string(out))
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatal("not in time: ", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func nodeStatus(t *testing.T, l *Lab, n id.Node) NodeStatus {
	t.Helper()
	st, err := l.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(st.Nodes, func(s NodeStatus) bool { return s.Node == n })
	if i < 0 {
		t.Fatalf("status has no node %d", n)
	}
	return st.Nodes[i]
}

func TestNode(t *testing.T) {
	if err := os.MkdirAll("/tmp/lab-of-the-host", 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll("/tmp/lab-of-the-host") })
	t.Setenv("LAB_TEST", "passed on")
	t.Chdir("/usr") // nodes do not see every place a checkout may lie in
	l := start(t, Options{Nodes: 2})
	for _, c := range []struct{ name, script, want string }{
		{"host name", "hostname; cat /etc/hostname", "node2\nnode2"},
		{"hosts", "grep -c node /etc/hosts", "2"},
		{"PID 1", "tr '\\0' ' ' </proc/1/cmdline", "ssi init"},
		{"address", "ip -4 -o addr show eth0 | grep -o '10[^ ]*/24'", "10.85.0.2/24"},
		{"lo", "ip -o link show lo | grep -c ,UP", "1"},
		{"hidden /tmp", "ls -A /tmp; stat -c %a /tmp", "1777"},
		{"hidden /run", "ls -d /run/ssi-lab 2>&1 | grep -c 'cannot access'", "1"},
		{"own state", "ls -A /var/lib/ssi; stat -c %a /var/lib/ssi", "700"},
		{"mode of parents", "stat -c %a-%U / /var /var/lib /etc", "755-root\n755-root\n755-root\n755-root"},
		{"links first in PATH", "command -v fake-applet; fake-applet", linkDir + "/fake-applet\napplet"},
		{"join file", "cat /etc/ssi/join; stat -c %a /etc/ssi/join", "token2\n10.85.0.1:1985\n600"},
		{"environment", "echo $LAB_TEST $SSI_LAB", "passed on " + labName("Node")},
		{"devices", "head -c 3 /dev/zero | od -An -tx1; echo x >/dev/null; test -c /dev/fuse && test -c /dev/net/tun", "00 00 00"},
		{"cgroup", "cat /sys/fs/cgroup/cgroup.procs | grep -x 1; mkdir /sys/fs/cgroup/x; rmdir /sys/fs/cgroup/x", "1"},
		{"sysfs is read-only", "mkdir /sys/x 2>&1 | grep -o 'Read-only'; ls /sys/class/net", "Read-only\neth0\nlo"},
		{"the clock of the host", "date -s @1 2>&1 | grep -o 'not permitted'", "not permitted"},
		{"console", "echo words >/dev/console", ""},
		{"working directory", "pwd", "/usr"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := sh(t, l, 2, c.script); got != c.want {
				t.Errorf("%s\ngot  %q\nwant %q", c.script, got, c.want)
			}
		})
	}
	var log bytes.Buffer
	if err := l.Logs(t.Context(), 2, false, &log); err != nil || !strings.Contains(log.String(), "fake init of node2") || !strings.Contains(log.String(), "words") {
		t.Errorf("logs: %v: %s", err, log.String())
	}
	if got := sh(t, l, 1, "ls /etc/ssi"); got != "ssi.toml" {
		t.Errorf("/etc/ssi of node 1 holds %q: the tokens must be gone", got)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestExec(t *testing.T) {
	l := start(t, Options{Nodes: 1})
	for _, c := range []struct {
		args []string
		code int
		err  string
	}{
		{[]string{"true"}, 0, ""},
		{[]string{"sh", "-c", "exit 7"}, 7, ""},
		{[]string{"sh", "-c", "kill -TERM $$"}, 128 + 15, ""},
		{[]string{"sh", "-c", "kill -KILL $$"}, 128 + 9, ""},
		{[]string{"no-such-command"}, 127, "node 1: no-such-command: command not found"},
		{[]string{"/no/such/command"}, 127, "node 1: /no/such/command: no such file or directory"},
		{[]string{"/etc/passwd"}, 126, "node 1: /etc/passwd: permission denied"},
	} {
		_, code, err := l.Console(t.Context(), 1, c.args...)
		text := ""
		if err != nil {
			text = strings.TrimPrefix(err.Error(), "exec: ")
		}
		if code != c.code || text != c.err {
			t.Errorf("%q: status %d, %q; want %d, %q", c.args, code, text, c.code, c.err)
		}
	}
	if _, _, err := l.Console(t.Context(), 9, "true"); !errno.Is(err, errno.NotFound) || !strings.Contains(err.Error(), "its nodes are 1 to 1") {
		t.Errorf("exec on a node that is not there: %v", err)
	}
	// A command whose caller goes away is hung up with its children.
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _, _ = l.Console(ctx, 1, "sh", "-c", "trap '' HUP; sleep 1234 & wait")
	}()
	running := func() bool { return sh(t, l, 1, "grep -l 1234 /proc/[0-9]*/cmdline 2>/dev/null | wc -l") >= "3" } // sh, sleep, grep
	eventually(t, "the command runs", running)
	cancel()
	<-done
	eventually(t, "the command ends", func() bool { return !running() })
}

func TestLifeOfANode(t *testing.T) {
	l := start(t, Options{Nodes: 3})
	ctx := t.Context()
	if err := l.StartNode(ctx, 2); !errno.Is(err, errno.Exists) || !strings.Contains(err.Error(), "on already") {
		t.Errorf("start of a running node: %v", err)
	}
	if err := l.Crash(ctx, 200); err == nil {
		t.Error("crash of node 200 is no error")
	}
	sh(t, l, 2, "echo kept >/kept; echo gone >/run/gone; sync")

	hctx, release := context.WithCancel(ctx)
	held := make(chan struct{})
	go func() {
		defer close(held)
		_, _, _ = l.Console(hctx, 1, "/sbin/ssi", "hold", "2")
	}()
	defer func() { release(); <-held }()
	eventually(t, "the connection stands", func() bool { return strings.Contains(sh(t, l, 1, "ss -Htn state established dst 10.85.0.2"), "1985") })
	ended := make(chan error, 1)
	go func() {
		_, code, err := l.Console(ctx, 2, "sleep", "1000")
		if code != 255 {
			err = errno.New(errno.Other, "", 0, "status %d, %v", code, err)
		}
		ended <- err
	}()
	eventually(t, "the command runs", func() bool { return sh(t, l, 2, "grep -lx 'sleep.*' /proc/[0-9]*/comm 2>/dev/null | wc -l") >= "1" })

	if err := l.Crash(ctx, 2); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "node 2 went off: crashed") {
		t.Errorf("a command on a node that crashes: %v", err)
	}
	if err := l.Crash(ctx, 2); !errno.Is(err, errno.Unavailable) || !strings.Contains(err.Error(), "off already") {
		t.Errorf("crash of a crashed node: %v", err)
	}
	if st := nodeStatus(t, l, 2); st.State != Off || st.Cause != "crashed" {
		t.Errorf("status of a crashed node: %+v", st)
	}
	if _, _, err := l.Console(ctx, 2, "true"); !errno.Is(err, errno.Unavailable) {
		t.Errorf("exec on a crashed node: %v", err)
	}
	// A power cut sends nothing: the peer's connection must still stand.
	if got := sh(t, l, 1, "ss -Htn state established dst 10.85.0.2"); !strings.Contains(got, "1985") {
		t.Errorf("after a power cut, the peer's connections are %q: it was told", got)
	}
	if err := l.StartNode(ctx, 2); err != nil {
		t.Fatal(err)
	}
	if err := l.Wait(ctx, 20*time.Second); err != nil {
		t.Fatal(err)
	}
	if got := sh(t, l, 2, "cat /kept; ls /run/gone 2>/dev/null; ls -A /tmp"); got != "kept" {
		t.Errorf("after a restart the disk holds %q", got)
	}
}

func TestPauseAndPower(t *testing.T) {
	l := start(t, Options{Nodes: 2})
	ctx := t.Context()
	if err := l.Resume(ctx, 2); !errno.Is(err, errno.Invalid) {
		t.Errorf("resume of a running node: %v", err)
	}
	if err := l.Pause(ctx, 2); err != nil {
		t.Fatal(err)
	}
	if _, code, _ := l.Console(ctx, 1, "/sbin/ssi", "probe", "2", "300ms"); code == 0 {
		t.Error("a paused node answers")
	}
	if _, _, err := l.Console(ctx, 2, "true"); !errno.Is(err, errno.Unavailable) || !strings.Contains(err.Error(), "paused") {
		t.Errorf("exec on a paused node: %v", err)
	}
	if err := l.Resume(ctx, 2); err != nil {
		t.Fatal(err)
	}
	sh(t, l, 1, "/sbin/ssi probe 2 5s")
	if err := l.Pause(ctx, 2); err != nil {
		t.Fatal(err)
	}
	if err := l.Crash(ctx, 2); err != nil { // of a paused node
		t.Fatal(err)
	}
	if err := l.StartNode(ctx, 2); err != nil {
		t.Fatal(err)
	}
	ready := func() {
		t.Helper()
		if err := l.Wait(ctx, 20*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	ready()
	boots := nodeStatus(t, l, 2).Boots
	_, _, _ = l.Console(ctx, 2, "kill", "-USR1", "1") // the fake init reboots
	eventually(t, "the node reboots", func() bool {
		st := nodeStatus(t, l, 2)
		return st.State == On && st.Boots == boots+1
	})
	ready()
	_, _, _ = l.Console(ctx, 2, "kill", "-TERM", "1") // the fake init powers off
	eventually(t, "the node powers off", func() bool {
		st := nodeStatus(t, l, 2)
		return st.State == Off && st.Cause == "powered off"
	})
	if err := l.StartNode(ctx, 2); err != nil {
		t.Fatal(err)
	}
}

func TestDiskFull(t *testing.T) {
	l := start(t, Options{Nodes: 2, Disk: 4 << 20})
	out, code, _ := l.Console(t.Context(), 2, "dd", "if=/dev/zero", "of=/var/fill", "bs=64k")
	if code == 0 || !strings.Contains(string(out), "No space left") {
		t.Fatalf("dd onto a small disk: status %d: %s", code, out)
	}
	sh(t, l, 1, "dd if=/dev/zero of=/var/fill bs=64k count=8") // each node has its own
	if err := l.Crash(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	if err := l.StartNode(t.Context(), 2); err != nil { // a full disk does not keep a node from starting
		t.Fatal(err)
	}
	sh(t, l, 2, "rm /var/fill; echo x >/var/x")
}

func TestAdd(t *testing.T) {
	l := start(t, Options{Nodes: 1})
	n, err := l.Add(t.Context())
	if err != nil || n != 2 {
		t.Fatalf("add: node %d, %v", n, err)
	}
	if err := l.Wait(t.Context(), 20*time.Second); err != nil {
		t.Fatal(err)
	}
	if got := sh(t, l, 2, "cat /etc/ssi/join"); got != "added\n10.85.0.1:1985" {
		t.Errorf("join file of an added node: %q", got)
	}
	sh(t, l, 1, "/sbin/ssi probe 2 5s") // by name: the hosts file grew
	if err := l.Crash(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if n, err := l.Add(t.Context()); err != nil || n != 3 { // through node 2
		t.Fatalf("add while node 1 is off: node %d, %v", n, err)
	}
}

func TestFollowLogs(t *testing.T) {
	l := start(t, Options{Nodes: 1})
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- l.Logs(ctx, 1, true, w)
		_ = w.Close()
	}()
	sc := bufio.NewScanner(r)
	for i := range 3 {
		want := "line " + strconv.Itoa(i)
		sh(t, l, 1, "echo "+want+" >/dev/console")
		for sc.Scan() && sc.Text() != want {
		}
		if sc.Text() != want {
			t.Fatalf("%q did not come", want)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
