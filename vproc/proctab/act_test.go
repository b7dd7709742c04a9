package proctab

import (
	"context"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"ssi/internal/api"
	"ssi/internal/errno"
	"ssi/internal/id"
	"ssi/internal/sys"
)

func TestSignal(t *testing.T) {
	needRoot(t)
	dial := start(t, nil)
	for _, node := range []id.Node{1, 2} {
		cmd := sleeper(t, 0)
		pid := id.PID(cmd.Process.Pid)
		ps, _, _ := list(t, dial(), api.ListProcesses{PIDs: []id.PID{pid}, Node: node})
		if len(ps) != 1 {
			t.Fatalf("node %d: %d processes", node, len(ps))
		}
		call := func(sig int, targets ...api.ProcessTarget) []api.ProcessResult {
			t.Helper()
			var r api.ProcessResults
			if err := dial().Call(testContext(t), api.ProcessSignal, api.SignalProcesses{Targets: targets, Signal: sig}, &r); err != nil {
				t.Fatal(err)
			}
			return r.Results
		}
		r := call(0, api.ProcessTarget{Node: node, PID: pid}, api.ProcessTarget{Node: node, PID: 4194303},
			api.ProcessTarget{Node: node, PID: pid, StartTicks: ps[0].StartTicks + 1}, api.ProcessTarget{Node: node, PID: -pid})
		for i, want := range []syscall.Errno{0, unix.ESRCH, unix.ESRCH, 0} {
			if r[i].Errno != want || r[i].Error != "" || r[i].Node != node {
				t.Errorf("node %d, target %d: %+v, want errno %d", node, i, r[i], want)
			}
		}
		call(int(unix.SIGTERM), api.ProcessTarget{Node: node, PID: pid, StartTicks: ps[0].StartTicks})
		_ = cmd.Wait()
		if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signal() != unix.SIGTERM {
			t.Errorf("node %d: it ended by %v", node, ws)
		}
	}
}

// The credentials that reach the kernel are those the other node was told.
func TestActInTheNameOfAUser(t *testing.T) {
	needRoot(t)
	n := newNode(t, 2)
	mine, roots := sleeper(t, 4242), sleeper(t, 0)
	ts := []*Target{{Pid: int32(mine.Process.Pid)}, {Pid: int32(roots.Process.Pid)}, {Pid: 1}}
	who := &Caller{Uid: 4242, Gid: 4242, Groups: []uint32{1, 2}}
	sig, err := n.Signal(context.Background(), &SignalRequest{Caller: who, Targets: ts, Signal: 0})
	if err != nil {
		t.Fatal(err)
	}
	if want := []uint32{0, uint32(unix.EPERM), uint32(unix.EPERM)}; !slices.Equal(sig.Errnos, want) {
		t.Errorf("signal: %v, want %v", sig.Errnos, want)
	}
	for _, c := range []struct {
		nice int32
		want []uint32
	}{
		{5, []uint32{0, uint32(unix.EPERM), uint32(unix.EPERM)}},
		{1, []uint32{uint32(unix.EACCES), uint32(unix.EPERM), uint32(unix.EPERM)}}, // only root may take back
	} {
		rep, err := n.Renice(context.Background(), &ReniceRequest{Caller: who, Targets: ts, Nice: c.nice})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(rep.Errnos, c.want) {
			t.Errorf("nice %d: %v, want %v", c.nice, rep.Errnos, c.want)
		}
	}
	if prio, _ := unix.Getpriority(unix.PRIO_PROCESS, mine.Process.Pid); prio != 20-5 { // the raw call answers 20-nice
		t.Errorf("nice value is %d, want 5", 20-prio)
	}
	if _, err := n.Signal(context.Background(), &SignalRequest{Targets: ts}); !errno.Is(err, errno.Invalid) {
		t.Errorf("a request without a caller: %v", err)
	}
}

func TestRenice(t *testing.T) {
	needRoot(t)
	dial := start(t, nil)
	cmd := sleeper(t, 0)
	pid := id.PID(cmd.Process.Pid)
	for i, target := range []api.ProcessTarget{{Node: 1, PID: pid}, {Node: 2, PID: -pid}} {
		var r api.ProcessResults
		if err := dial().Call(testContext(t), api.ProcessRenice, api.ReniceProcesses{Targets: []api.ProcessTarget{target}, Nice: 7 + i}, &r); err != nil {
			t.Fatal(err)
		}
		if prio, _ := unix.Getpriority(unix.PRIO_PROCESS, int(pid)); len(r.Results) != 1 || r.Results[0].Errno != 0 || 20-prio != 7+i {
			t.Errorf("%+v: nice is %d, want %d; %+v", target, 20-prio, 7+i, r)
		}
	}
}

func TestRefused(t *testing.T) {
	dial := start(t, nil)
	for _, c := range []struct {
		name string
		req  api.SignalProcesses
	}{
		{"nothing", api.SignalProcesses{}},
		{"everything", api.SignalProcesses{Targets: []api.ProcessTarget{{PID: -1}}}},
		{"own group", api.SignalProcesses{Targets: []api.ProcessTarget{{PID: 0}}}},
		{"PID too high", api.SignalProcesses{Targets: []api.ProcessTarget{{PID: 1 << 23}}}},
		{"PID too low", api.SignalProcesses{Targets: []api.ProcessTarget{{PID: -1 << 31}}}},
		{"node too high", api.SignalProcesses{Targets: []api.ProcessTarget{{PID: 5, Node: 200}}}},
		{"too many", api.SignalProcesses{Targets: make([]api.ProcessTarget, api.MaxPIDs+1)}},
		{"signal", api.SignalProcesses{Targets: []api.ProcessTarget{{PID: 5}}, Signal: 65}},
		{"negative signal", api.SignalProcesses{Targets: []api.ProcessTarget{{PID: 5}}, Signal: -1}},
		{"group with start", api.SignalProcesses{Targets: []api.ProcessTarget{{PID: -5, StartTicks: 1}}}},
	} {
		if err := dial().Call(testContext(t), api.ProcessSignal, c.req, nil); !errno.Is(err, errno.Invalid) {
			t.Errorf("%s: %v, want invalid", c.name, err)
		}
	}
	var r api.ProcessResults
	if err := dial().Call(testContext(t), api.ProcessSignal, api.SignalProcesses{Targets: []api.ProcessTarget{{PID: 9<<15 + 1}}}, &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Results) != 1 || !strings.Contains(r.Results[0].Error, "node 9 is not UP") {
		t.Errorf("the home is not UP: %+v", r)
	}
}

// The whole way of a user's order: who calls is told by the kernel at the local
// socket, and the kernel that owns the process judges, here and on another node.
func TestUserThroughTheSocket(t *testing.T) {
	needRoot(t)
	dial := start(t, nil)
	const uid = 4242
	mine, roots := sleeper(t, uid), sleeper(t, 0)
	for _, node := range []id.Node{1, 2} {
		var c *api.Client
		if err := sys.As(sys.Credentials{UID: uid, GID: uid}, func() error { c = dial(); return nil }); err != nil {
			t.Fatal(err)
		}
		var r api.ProcessResults
		req := api.SignalProcesses{Targets: []api.ProcessTarget{
			{Node: node, PID: id.PID(mine.Process.Pid)}, {Node: node, PID: id.PID(roots.Process.Pid)}, {Node: node, PID: 1},
		}}
		if err := c.Call(testContext(t), api.ProcessSignal, req, &r); err != nil {
			t.Fatal(err)
		}
		for i, want := range []syscall.Errno{0, unix.EPERM, unix.EPERM} {
			if len(r.Results) != 3 || r.Results[i].Errno != want || r.Results[i].Error != "" {
				t.Errorf("node %d, target %d: %+v, want errno %d", node, i, r.Results, want)
			}
		}
		if ps, _, failed := list(t, c, api.ListProcesses{Node: node}); len(ps) == 0 || len(failed) > 0 {
			t.Errorf("node %d: a user sees %d processes, %v", node, len(ps), failed)
		}
	}
}
