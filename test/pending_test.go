package test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"ssi/internal/id"
	"ssi/lab"
)

const (
	// pendingCalls is how many calls are pending at a time in make test; the variable
	// SSI_PENDING of the environment gives another number, up to 100000, of which
	// each node has up to pendingEach. It is lowered to half of what the machine has
	// left of numbers (kernel.pid_max), threads and memory.
	pendingCalls = 3000
	pendingEach  = 12000
	// userCalls and keptCallers, whose descriptors a daemon keeps, are those of
	// vproc/gate; keptSockets is more than what connections to all nodes add.
	userCalls   = 256
	keptCallers = 16
	keptSockets = 16
	// nodeMemory bounds the daemon, in KiB, however many calls wait.
	nodeMemory = 256 << 10
)

// flood is a process on a node that is going to be silent, and threads on others
// that all send it a signal.
type flood struct {
	*cluster
	who      []string // runs a command as a user
	dir      string   // of its files on each node, which the user may write
	programs string
	silent   id.Node
	receiver string // its PID
}

// startFlood starts a receiver on node silent and at most total threads on nodes 1
// to silent-1; it returns how many there are.
func startFlood(c *cluster, programs string, silent id.Node, who []string, total int) (f *flood, n int) {
	c.t.Helper()
	f = &flood{cluster: c, who: who, dir: fmt.Sprintf("/tmp/flood%d", len(who)), programs: programs, silent: silent}
	for n := id.Node(1); n <= silent; n++ {
		c.do(n, "sh", "-c", fmt.Sprintf("mkdir %s && chmod 777 %[1]s", f.dir))
	}
	f.background(silent, fmt.Sprintf("ulimit -i unlimited 2>/dev/null; exec %s/receive %s/receiver %s/counts", programs, f.dir, f.dir))
	f.receiver = f.file(silent, "receiver")
	senders := int(silent) - 1
	for i := range senders {
		f.background(id.Node(i+1), fmt.Sprintf("exec %s/pend %s %d %d %s", programs, f.receiver, total*i/senders, total*(i+1)/senders, f.dir))
	}
	for i := range senders {
		var pid, threads int
		if _, err := fmt.Sscan(f.file(id.Node(i+1), "ready"), &pid, &threads); err != nil || threads == 0 {
			c.t.Fatalf("the threads of node %d: %d, %v", i+1, threads, err)
		}
		n += threads
	}
	return f, n
}

// background starts a script of bash as the user.
func (f *flood) background(n id.Node, script string) {
	f.t.Helper()
	got := f.login(n, "", slices.Concat(f.who, []string{"bash", "-c", fmt.Sprintf("setsid bash -c '%s' </dev/null >/dev/null 2>&1 &", script)})...)
	if got.status != 0 {
		f.t.Fatalf("node %d: %s: %+v", n, script, got)
	}
}

// file waits for a file of the flood and reads it.
func (f *flood) file(n id.Node, name string) (text string) {
	f.t.Helper()
	f.eventually(fmt.Sprintf("%s on node %d", name, n), func() bool {
		out, status := f.try(n, "cat", filepath.Join(f.dir, name))
		text = strings.TrimSpace(out)
		return status == 0
	})
	return text
}

// waiting is how many threads of all nodes are in rt_sigqueueinfo(2).
func (f *flood) waiting() (n int) {
	f.t.Helper()
	script := fmt.Sprintf(`read pid threads <%s/ready && cat /proc/$pid/task/*/syscall 2>/dev/null | grep -c '^%d '; true`, f.dir, syscall.SYS_RT_SIGQUEUEINFO)
	for i := id.Node(1); i < f.silent; i++ {
		k, err := strconv.Atoi(strings.TrimSpace(f.do(i, "sh", "-c", script)))
		f.ok(err)
		n += k
	}
	return n
}

// end waits for the end of all calls, and returns what each was told and how often
// its signal came.
func (f *flood) end() (told map[int]syscall.Errno, came map[int]int) {
	f.t.Helper()
	told, came = map[int]syscall.Errno{}, map[int]int{}
	for n := id.Node(1); n < f.silent; n++ {
		pairs(f.cluster, f.file(n, "sent"), func(v, e int) { told[v] = syscall.Errno(e) })
	}
	f.do(f.silent, "kill", "-TERM", f.receiver)
	pairs(f.cluster, f.file(f.silent, "counts"), func(v, n int) { came[v] = n })
	return told, came
}

// daemon is the PID, the greatest memory in KiB, and the number of descriptors of
// the node daemon.
func (c *cluster) daemon(n id.Node) (pid string, memory, files int) {
	c.t.Helper()
	out := c.do(n, "sh", "-c", `p=$(pgrep -P 1 -xf 'ssi node') && echo $p $(awk '/^VmHWM/ {print $2}' /proc/$p/status) $(ls /proc/$p/fd | wc -l)`)
	if _, err := fmt.Sscan(out, &pid, &memory, &files); err != nil {
		c.t.Fatalf("node %d: the daemon: %q: %v", n, out, err)
	}
	return pid, memory, files
}

// TestPendingCalls: a great number of calls wait for a node that is silent. The
// daemon lives and stays small, other users' calls go on, and when the node is
// back every call ends with the right result.
func TestPendingCalls(t *testing.T) {
	total := pendingCalls
	if s := os.Getenv("SSI_PENDING"); s != "" {
		var err error
		if total, err = strconv.Atoi(s); err != nil || total < userCalls || total > 100000 {
			t.Fatalf("SSI_PENDING is %q, want %d to 100000", s, userCalls)
		}
	}
	if most := spareThreads(t); total > most {
		t.Logf("%d calls, and not %d: the machine has no more", most, total)
		total = most
	}
	dir := enterable(t)
	compile(t, filepath.Join(dir, "pend"), "../testdata/pending/pend.c")
	compile(t, filepath.Join(dir, "receive"), "../testdata/storm/receive.c")
	senders := max(2, (total+pendingEach-1)/pendingEach)
	silent := id.Node(senders + 1)
	// The lease of the wan profile is longer than the node is silent.
	c := start(t, senders+1, profile("wan"), func(o *lab.Options) { o.Share = append(o.Share, dir) })
	pid, _, files := c.daemon(1)

	// Another user's own calls are limited, so that others' go on.
	alice := []string{"setpriv", "--reuid", "23401", "--regid", "23401", "--clear-groups"}
	user, n := startFlood(c, dir, silent, alice, senders*2*userCalls)
	other := strings.TrimSpace(c.login(2, "", "sh", "-c", "setsid sleep 4720 </dev/null >/dev/null 2>&1 & echo $!").stdout)
	c.ok(c.Pause(c.ctx(), silent))
	paused := time.Now()
	user.release()
	c.eventually("the calls above the limit are refused", func() bool { return user.waiting() == senders*userCalls })
	if got := c.login(1, "", slices.Concat(nobody, []string{"sh", "-c", "kill -0 " + other})...); got.status != 1 || !strings.Contains(got.stderr, "not permitted") {
		t.Errorf("a call of another user: %+v", got)
	}
	c.stock(nil, "kill -0 "+other, `^$`)
	if k := user.waiting(); k != senders*userCalls {
		t.Errorf("%d calls of the user wait after others' calls ended, want %d", k, senders*userCalls)
	}
	c.ok(c.Resume(c.ctx(), silent))
	t.Logf("%d threads of a user, silence of %v", n, time.Since(paused))
	refused := user.check(n)
	if refused != n-senders*userCalls {
		t.Errorf("%d calls were refused, want %d", refused, n-senders*userCalls)
	}

	root, n := startFlood(c, dir, silent, nil, total)
	c.ok(c.Pause(c.ctx(), silent))
	paused = time.Now()
	root.release()
	c.eventually("all calls wait", func() bool { return root.waiting() == n })
	c.do(1, "clusternode_num")
	c.ok(c.Resume(c.ctx(), silent))
	t.Logf("%d threads of root (of %d that were wanted), silence of %v", n, total, time.Since(paused))
	if refused := root.check(n); refused != 0 {
		t.Errorf("%d calls of root were refused", refused)
	}

	after, memory, _ := c.daemon(1)
	t.Logf("the daemon took up to %d KiB", memory)
	if after != pid {
		t.Errorf("the daemon was process %s, is %s", pid, after)
	}
	if memory > nodeMemory {
		t.Errorf("the daemon took up to %d KiB", memory)
	}
	c.eventually("no descriptor is left", func() bool {
		_, _, now := c.daemon(1)
		return now <= files+keptCallers+keptSockets
	})
}

// spareThreads is half of how many threads the machine could make.
func spareThreads(t *testing.T) int {
	t.Helper()
	least := 0
	for _, x := range []struct {
		path, field string
		threads     func(n int) int
	}{
		{"/proc/sys/kernel/pid_max", "", func(n int) int { return n }},
		{"/proc/sys/kernel/threads-max", "", func(n int) int { return n }},
		{"/proc/meminfo", "MemAvailable:", func(kib int) int { return kib / 64 }},
	} {
		b, err := os.ReadFile(x.path)
		if err != nil {
			t.Fatal(err)
		}
		_, text, _ := strings.Cut(string(b), x.field)
		n, err := strconv.Atoi(strings.Fields(text)[0])
		if err != nil {
			t.Fatal(err)
		}
		if n = x.threads(n); least == 0 || n < least {
			least = n
		}
	}
	return least / 2
}

// release lets all threads go.
func (f *flood) release() {
	f.t.Helper()
	for n := id.Node(1); n < f.silent; n++ {
		f.do(n, "touch", filepath.Join(f.dir, "go"))
	}
}

// check accounts for all n calls, and returns how many were refused.
func (f *flood) check(n int) (refused int) {
	f.t.Helper()
	told, came := f.end()
	if len(told) != n {
		f.t.Errorf("%d calls of %d are accounted for", len(told), n)
	}
	wrong := map[string]int{}
	for v, e := range told {
		switch {
		case e == 0 && came[v] == 1:
		case e == syscall.EAGAIN && came[v] == 0:
			refused++
		default:
			wrong[fmt.Sprintf("%v, and came %d times", e, came[v])]++
		}
	}
	if len(wrong) != 0 {
		f.t.Errorf("calls with a wrong end: %v", wrong)
	}
	return refused
}
