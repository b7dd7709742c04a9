package lab

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/errno"
)

// traces is what a lab could leave behind.
type traces struct {
	mounts     []string // of this mount namespace, without their numbers
	interfaces []string
}

func tracesNow(t *testing.T) traces {
	t.Helper()
	var tr traces
	raw, err := os.ReadFile("/proc/self/mountinfo")
	check(t, err)
	for line := range strings.Lines(string(raw)) {
		tr.mounts = append(tr.mounts, strings.Join(strings.Fields(line)[3:], " "))
	}
	entries, err := os.ReadDir("/sys/class/net")
	check(t, err)
	for _, e := range entries {
		tr.interfaces = append(tr.interfaces, e.Name())
	}
	return tr
}

// spaces are the namespaces of a lab while it ran. The kernel uses their numbers
// again: only a process that was there then counts as left in one.
type spaces struct {
	set  map[string]bool
	seen float64 // seconds since boot
}

// namespaces are those of a lab: of its supervisor and of the processes below.
func namespaces(t *testing.T, supervisor int) spaces {
	t.Helper()
	own := map[string]bool{}
	for _, kind := range []string{"mnt", "net", "pid", "ipc", "uts", "cgroup"} {
		own[must(os.Readlink("/proc/self/ns/"+kind))] = true
	}
	labs := map[string]bool{}
	pidns := must(os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", supervisor)))
	links := must(filepath.Glob("/proc/[0-9]*/ns/pid"))
	for _, l := range links {
		status, err := os.ReadFile(filepath.Join(filepath.Dir(filepath.Dir(l)), "status"))
		to, err2 := os.Readlink(l)
		if err != nil || err2 != nil || to != pidns && !descends(string(status), supervisor) {
			continue
		}
		for _, ns := range must(filepath.Glob(filepath.Join(filepath.Dir(l), "*"))) {
			if to, err := os.Readlink(ns); err == nil && !own[to] && !strings.HasPrefix(to, "user") && !strings.HasPrefix(to, "time") {
				labs[to] = true
			}
		}
	}
	uptime, _, _ := strings.Cut(string(must(os.ReadFile("/proc/uptime"))), " ")
	return spaces{labs, must(strconv.ParseFloat(uptime, 64))}
}

// started is when a process started, in seconds since boot, by proc_pid_stat(5).
func started(dir string) float64 {
	raw, err := os.ReadFile(filepath.Join(dir, "stat"))
	fields := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
	if err != nil || len(fields) < 20 || fields[0] == "Z" { // ended, and the machine's init did not look yet
		return math.Inf(1)
	}
	return must(strconv.ParseFloat(fields[19], 64)) / 100
}

// descends reports whether a process is a child of the supervisor.
func descends(status string, supervisor int) bool {
	return strings.Contains(status, fmt.Sprintf("\nPPid:\t%d\n", supervisor))
}

// checkNothingLeft waits until nothing is left of a lab; the kernel ends
// interfaces and namespaces a little after the processes.
func checkNothingLeft(t *testing.T, name string, before traces, ns spaces) {
	t.Helper()
	if len(ns.set) < 5 {
		t.Errorf("only %d namespaces were seen while the lab ran", len(ns.set))
	}
	var left []string
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		left = leftovers(t, name, before, ns)
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("left of the lab: %q", left)
			return
		}
	}
}

func leftovers(t *testing.T, name string, before traces, ns spaces) []string {
	t.Helper()
	var left []string
	after := tracesNow(t)
	for _, m := range after.mounts {
		if !slices.Contains(before.mounts, m) {
			left = append(left, "mount "+m)
		}
	}
	for _, i := range after.interfaces {
		if !slices.Contains(before.interfaces, i) {
			left = append(left, "interface "+i)
		}
	}
	for _, l := range must(filepath.Glob("/proc/[0-9]*/ns/*")) {
		if to, err := os.Readlink(l); err == nil && ns.set[to] && started(filepath.Dir(filepath.Dir(l))) <= ns.seen {
			left = append(left, "namespace "+to+" of "+l)
		}
	}
	for _, l := range must(filepath.Glob("/proc/[0-9]*/cmdline")) {
		if raw, err := os.ReadFile(l); err == nil && bytes.Contains(raw, []byte(roleSupervisor+"\x00"+name+"\x00")) {
			left = append(left, "process "+l)
		}
	}
	if _, err := os.Stat(dirOf(name)); err == nil {
		left = append(left, "directory "+dirOf(name))
	}
	cg, err := openCgroups()
	check(t, err)
	defer cg.close()
	if _, err := cg.root.Stat(cgroupStem + name); !errors.Is(err, fs.ErrNotExist) {
		left = append(left, fmt.Sprint("cgroup: ", err))
	}
	return left
}

func supervisorOf(t *testing.T, l *Lab) int {
	t.Helper()
	st, err := l.Status(t.Context())
	check(t, err)
	return st.PID
}

func TestLeavesNothing(t *testing.T) {
	needRoot(t)
	before := tracesNow(t)
	l := start(t, Options{Nodes: 3})
	check(t, l.Cut(t.Context(), 1, 2, false))
	check(t, l.Pause(t.Context(), 3))
	ns := namespaces(t, supervisorOf(t, l))
	if left := leftovers(t, l.Name, before, ns); len(left) < 10 {
		t.Errorf("the search finds a running lab by %q only", left)
	}
	check(t, l.Close())
	checkNothingLeft(t, l.Name, before, ns)
}

// A supervisor that is killed takes all nodes along; the next start removes the
// rest.
func TestKilledSupervisor(t *testing.T) {
	needRoot(t)
	before := tracesNow(t)
	l, err := Start(t.Context(), Options{Name: labName("killed"), Nodes: 2})
	check(t, err)
	sh(t, l, 2, "setsid sleep 1000 >/dev/null 2>&1 </dev/null &")
	ns := namespaces(t, supervisorOf(t, l))
	check(t, unix.Kill(supervisorOf(t, l), unix.SIGKILL))
	<-l.ended
	if _, err := l.Status(t.Context()); !errno.Is(err, errno.Unavailable) || !strings.Contains(err.Error(), "no lab named") {
		t.Errorf("status of a killed lab: %v", err)
	}
	if _, err := os.Stat(dirOf(l.Name)); err != nil {
		t.Errorf("a killed supervisor cannot have removed its directory: %v", err)
	}
	second, err := Start(t.Context(), Options{Name: l.Name, Nodes: 1})
	check(t, err)
	check(t, second.Close())
	if err := l.Close(); err == nil || !strings.Contains(err.Error(), "did not end in order: signal: killed") {
		t.Errorf("close of a killed lab: %v", err)
	}
	checkNothingLeft(t, l.Name, before, ns)
}

func TestTwoLabs(t *testing.T) {
	a := start(t, Options{Nodes: 2})
	b, err := Start(t.Context(), Options{Name: labName("other"), Nodes: 2})
	check(t, err)
	defer b.Close()
	if _, err := Start(t.Context(), Options{Name: b.Name}); !errno.Is(err, errno.Exists) || !strings.Contains(err.Error(), "is running") {
		t.Errorf("a second lab of the same name: %v", err)
	}
	sh(t, a, 1, "touch /only-in-a")
	if got := sh(t, b, 1, "ls /only-in-a 2>&1 | grep -c 'cannot access'"); got != "1" {
		t.Error("a file of one lab shows in another")
	}
	check(t, a.Crash(t.Context(), 2))
	if !reach(t, b, 1, 2, "5s") || reach(t, a, 1, 2, "300ms") {
		t.Error("node 2 of one lab answers for that of the other")
	}
	names, err := List(t.Context())
	if err != nil || !slices.Contains(names, a.Name) || !slices.Contains(names, b.Name) {
		t.Errorf("list: %q, %v", names, err)
	}
	check(t, b.Close())
	sh(t, a, 1, "true") // the end of one is not the other's
}

func TestBadOptions(t *testing.T) {
	needRoot(t)
	for _, o := range []Options{
		{Name: "a/b"}, {Name: strings.Repeat("x", 33)}, {Nodes: -1}, {Nodes: MaxNodes + 1}, {Disk: 1},
		{Share: []string{"relative"}}, {Share: []string{"/run/x"}}, {Share: []string{"/"}}, {Share: []string{"/no/such/dir"}},
	} {
		if l, err := Start(t.Context(), o); !errno.Is(err, errno.Invalid) {
			t.Errorf("%+v: %v", o, err)
			if l != nil {
				_ = l.Close()
			}
		}
	}
	if _, err := Attach(t.Context(), labName("none")); !errno.Is(err, errno.Unavailable) || !strings.Contains(err.Error(), "ssi lab --name "+labName("none")+" up") {
		t.Errorf("attach to no lab: %v", err)
	}
}

// A first boot that fails says why, in one line, and leaves nothing.
func TestFirstBootFails(t *testing.T) {
	needRoot(t)
	before := tracesNow(t)
	_, err := Start(t.Context(), Options{Name: labName("fail"), Nodes: 2, Profile: "refused"})
	if err == nil || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "node 1: `/sbin/ssi cluster init` failed: no such profile") {
		t.Errorf("%v", err)
	}
	if left := leftovers(t, labName("fail"), before, spaces{}); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// A supervisor that does not come up is told apart from a lab that is not there.
func TestSupervisorFails(t *testing.T) {
	needRoot(t)
	before := tracesNow(t)
	_, err := Start(t.Context(), Options{Name: labName("sup"), Binary: "/bin/false"})
	if err == nil || !strings.Contains(err.Error(), "the supervisor ended (exit status 1)") {
		t.Errorf("%v", err)
	}
	if left := leftovers(t, labName("sup"), before, spaces{}); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// A node whose PID 1 ends at once is reported with its last words.
func TestNodeDies(t *testing.T) {
	needRoot(t)
	_, err := Start(t.Context(), Options{Name: labName("dies"), Nodes: 2, Profile: "deadly"})
	if err == nil || !strings.Contains(err.Error(), "it went off: PID 1 ended with status 1") || !strings.Contains(err.Error(), "deadly profile") {
		t.Errorf("%v", err)
	}
}

func TestShare(t *testing.T) {
	needRoot(t)
	dir := t.TempDir() // in /tmp, which nodes do not see otherwise
	check(t, os.WriteFile(dir+"/f", []byte("of the host"), 0o644))
	l := start(t, Options{Nodes: 2, Share: []string{dir}})
	sh(t, l, 1, "echo changed >"+dir+"/f; touch "+dir+"/new")
	check(t, l.Crash(t.Context(), 1))
	check(t, l.StartNode(t.Context(), 1))
	if got := sh(t, l, 1, "cat "+dir+"/f"); got != "changed" {
		t.Errorf("on node 1: %q", got)
	}
	if got := sh(t, l, 2, "cat "+dir+"/f; ls "+dir); got != "of the hostf" {
		t.Errorf("on node 2: %q", got)
	}
	if got := must(os.ReadFile(dir + "/f")); string(got) != "of the host" {
		t.Errorf("on the host: %q", got)
	}
}

// lab runs `ssi lab ARGS` as a process of its own.
func labCmd(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(must(os.Executable()), append([]string{"lab"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}
