package proctab

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"ssi/internal/api"
	"ssi/internal/errno"
	"ssi/internal/id"
)

// places is a Places of a test: what is hidden, and where it lives.
type places map[id.PID]id.Node

func (p places) Hidden(pid id.PID) bool { _, ok := p[pid]; return ok }

func (p places) Lives(pid id.PID) id.Node { return p[pid] }

// procOf is a proc(5) with processes of these PIDs, as their own groups.
func procOf(t *testing.T, pids ...id.PID) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"stat", "loadavg", "meminfo", "uptime"} {
		b, err := os.ReadFile("/proc/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		t.Fatal(err)
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		number := strconv.Itoa(int(pid))
		at := filepath.Join(dir, number)
		if err := os.Mkdir(at, 0o700); err != nil {
			t.Fatal(err)
		}
		stat := append([]byte(number), stat[slices.Index(stat, ' '):]...)
		status := []byte(regexp.MustCompile(`(?m)^Tgid:.*$`).ReplaceAllString(string(status), "Tgid:\t"+number))
		for name, b := range map[string][]byte{"stat": stat, "status": status, "cmdline": []byte("p" + number + "\x00")} {
			if err := os.WriteFile(filepath.Join(at, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

func nodeOf(t *testing.T, root string, n id.Node, p Places) *Node {
	t.Helper()
	node, err := NewNode(root, n, p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = node.Close() })
	return node
}

// A process that lives elsewhere is listed there, once, and a stand-in nowhere.
func TestListPlaces(t *testing.T) {
	window := func(n id.Node) id.PID { first, _ := n.Window(); return first }
	moved, standin, plain := window(2)+5, window(2)+6, window(3)+7
	gone := window(2) + 8 // to a node that is not there
	dial := start(t, map[id.Node]Service{
		2: nodeOf(t, procOf(t, moved, window(2)+9, gone), 2, places{moved: 3, gone: 9}),
		3: nodeOf(t, procOf(t, moved, standin, plain), 3, places{standin: 0}),
	})
	for _, c := range []struct {
		node id.Node
		pids []id.PID
		want []string // the PIDs and their nodes
		bad  id.Node
	}{
		{0, nil, []string{"65541 on 3", "65545 on 2", "98311 on 3"}, 0},
		{0, []id.PID{moved, standin, plain}, []string{"65541 on 3", "98311 on 3"}, 0},
		{0, []id.PID{moved, moved}, []string{"65541 on 3"}, 0},
		{2, []id.PID{moved}, nil, 0},
		{0, []id.PID{gone, window(2) + 9}, []string{"65545 on 2"}, 9},
	} {
		ps, _, failed := list(t, dial(), api.ListProcesses{Node: c.node, PIDs: c.pids})
		var got []string
		for _, p := range ps {
			if p.Node != 1 { // the real one
				got = append(got, strconv.Itoa(int(p.PID))+" on "+p.Node.String())
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, c.want) || len(failed) != 0 && c.bad == 0 || c.bad != 0 && failed[c.bad] == "" {
			t.Errorf("node %d, %v: %q, failed %v; want %q, %d", c.node, c.pids, got, failed, c.want, c.bad)
		}
	}
	var p api.ProcessPlace
	if err := dial().Call(testContext(t), api.ProcessWhere, api.WhereProcess{PID: gone}, &p); !errno.Is(err, errno.Unavailable) {
		t.Errorf("where: %+v, %v", p, err)
	}
}

// What is done to a process reaches it where it lives, and not what has its PID at home.
func TestActPlaces(t *testing.T) {
	needRoot(t)
	moved, standin, leader := sleeper(t, 0), sleeper(t, 0), sleeper(t, 0)
	pid := func(c *exec.Cmd) id.PID { return id.PID(c.Process.Pid) }
	member := exec.Command("/bin/sleep", "1000")
	member.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true, Pgid: leader.Process.Pid}
	if err := member.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = member.Process.Kill(); _ = member.Wait() })
	dial := start(t, map[id.Node]Service{
		2: nodeOf(t, "/proc", 2, places{pid(moved): 3, pid(standin): 0, pid(leader): 3}),
		3: nodeOf(t, "/proc", 3, places{pid(standin): 2, pid(leader): 9}),
	})
	nice := func(target api.ProcessTarget, to int) api.ProcessResult {
		t.Helper()
		var r api.ProcessResults
		if err := dial().Call(testContext(t), api.ProcessRenice, api.ReniceProcesses{Targets: []api.ProcessTarget{target}, Nice: to}, &r); err != nil {
			t.Fatal(err)
		}
		return r.Results[0]
	}
	is := func(c *exec.Cmd, want int) {
		t.Helper()
		if prio, _ := unix.Getpriority(unix.PRIO_PROCESS, c.Process.Pid); 20-prio != want {
			t.Errorf("the nice value of %d is %d, want %d", c.Process.Pid, 20-prio, want)
		}
	}
	if r := nice(api.ProcessTarget{PID: pid(moved), Node: 2}, 3); r.Node != 3 || r.Errno != 0 || r.Error != "" {
		t.Errorf("%+v", r)
	}
	is(moved, 3)
	if r := nice(api.ProcessTarget{PID: pid(standin), Node: 2}, 3); r.Errno != unix.ESRCH {
		t.Errorf("a stand-in: %+v", r)
	}
	if r := nice(api.ProcessTarget{PID: pid(standin), Node: 3}, 3); r.Errno != unix.ESRCH {
		t.Errorf("one that leads back to a stand-in: %+v", r)
	}
	if r := nice(api.ProcessTarget{PID: pid(leader), Node: 2}, 3); r.Error == "" || r.Node != 9 {
		t.Errorf("one on a node that is not UP: %+v", r)
	}
	is(standin, 0)
	// A group: its members that live here, without the surrogate.
	if r := nice(api.ProcessTarget{PID: -pid(leader), Node: 2}, 4); r.Errno != 0 || r.Error != "" {
		t.Errorf("%+v", r)
	}
	is(leader, 0)
	is(member, 4)
	if r := nice(api.ProcessTarget{PID: -pid(standin), Node: 2}, 4); r.Errno != unix.ESRCH {
		t.Errorf("a group of nobody: %+v", r)
	}
	var p api.ProcessPlace
	if err := dial().Call(testContext(t), api.ProcessWhere, api.WhereProcess{PID: pid(moved), Node: 2}, &p); err != nil || p.Node != 3 {
		t.Errorf("where: %+v, %v", p, err)
	}
}

// A group is one target, whichever nodes have members of it.
func TestMerge(t *testing.T) {
	for _, c := range []struct {
		answers []any // syscall.Errno, or why there is none
		errno   syscall.Errno
		failed  string
	}{
		{[]any{unix.ESRCH, unix.EPERM, unix.ESRCH}, unix.EPERM, ""},
		{[]any{unix.EPERM, syscall.Errno(0), unix.ESRCH}, 0, ""},
		{[]any{"late", syscall.Errno(0), "later"}, 0, ""},
		{[]any{unix.ESRCH, "late", unix.EPERM}, 0, "late"},
		{[]any{unix.ESRCH, unix.ESRCH}, unix.ESRCH, ""},
	} {
		r := make([]api.ProcessResult, 1)
		m := newMerger(r)
		for _, a := range c.answers {
			if why, ok := a.(string); ok {
				m.failed(0, why)
			} else {
				m.done(0, a.(syscall.Errno))
			}
		}
		if r[0].Errno != c.errno || r[0].Error != c.failed {
			t.Errorf("%v: %+v", c.answers, r[0])
		}
	}
}
