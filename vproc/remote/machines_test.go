package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"ssi/internal/id"
	"ssi/vproc/call"
)

// placed is what a daemon of the tests knows of processes that do not live in the
// window of their PID. It is in a file, for the next daemon.
type placed struct {
	mu    sync.Mutex
	where map[id.PID]id.Node
	files []*os.File // given to callers
}

func (p *placed) lives(pid id.PID) (id.Node, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n, ok := p.where[pid]
	return n, ok
}

func (p *placed) load(path string) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(b, &p.where)
}

func (h *Home) knowledge() string { return filepath.Join(h.dir, fmt.Sprintf("lives%d", h.self)) }

// Know sets what the daemon knows by itself.
func (h *Home) Know(where map[id.PID]id.Node, _ *bool) error {
	b, err := json.Marshal(where)
	if err != nil {
		return err
	}
	h.placed.mu.Lock()
	defer h.placed.mu.Unlock()
	h.placed.where = where
	return os.WriteFile(h.knowledge(), b, 0o600)
}

// Place starts a program under a PID, which may be of another node.
func (h *Home) Place(p Placement, _ *bool) error {
	defer func() { _ = window(h.self) }()
	for range 20 { // a thread of this program may take the number
		if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", fmt.Append(nil, p.PID-1), 0); err != nil {
			return err
		}
		var pid int
		if err := p.Start.start(&pid); err != nil || pid == p.PID {
			return err
		}
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	return fmt.Errorf("PID %d is taken", p.PID)
}

// Placement is a program and its PID.
type Placement struct {
	Start Start
	PID   int
}

// Order is a caught call of a process of the node: an encoded request. File is 1
// more than the number of the file that it means, or 0.
type Order struct {
	Request []byte
	File    int
}

// Said is what became of an Order: in words, and the number of a file.
type Said struct {
	Words string
	File  int
}

// Order is Handle, and Quick before it, as the gate asks.
func (h *Home) Order(o Order, s *Said) error {
	r, err := call.DecodeRequest(o.Request)
	if err != nil {
		return err
	}
	h.placed.mu.Lock()
	if o.File > 0 {
		r.File = h.placed.files[o.File-1]
	}
	h.placed.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	little := *r
	little.Caller = call.Caller{Node: h.self, TID: r.Caller.TID, PGID: r.Caller.PGID}
	out, ok := h.m.Quick(&little)
	if !ok {
		out = h.m.Handle(ctx, r)
	}
	s.Words = said(out)
	if out.File != nil {
		h.placed.mu.Lock()
		defer h.placed.mu.Unlock()
		h.placed.files = append(h.placed.files, out.File)
		s.File = len(h.placed.files)
	}
	return nil
}

// Readable polls a file.
func (h *Home) Readable(file int, is *bool) error {
	h.placed.mu.Lock()
	defer h.placed.mu.Unlock()
	p := []unix.PollFd{{Fd: int32(h.placed.files[file-1].Fd()), Events: unix.POLLIN}}
	n, err := unix.Poll(p, 0)
	*is = n == 1
	if errors.Is(err, unix.EINTR) {
		err = nil
	}
	return err
}

// Read is a file as the node sees it; one that is not there is empty.
func (h *Home) Read(path string, text *string) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		err = nil
	}
	*text = string(b)
	return err
}

// Renice sets the priority of a process: its PID and the value.
func (h *Home) Renice(v [2]int, _ *bool) error {
	return unix.Setpriority(unix.PRIO_PROCESS, v[0], v[1])
}

// machines are three nodes, each a daemon in a PID namespace of its own. Node 1 is
// the home of a process that lives on node 2.
type machines struct {
	t   testing.TB
	dir string
	*mesh
	seq atomic.Uint64

	leader    int    // of the process's group: of node 1, with a stand-in on node 2
	pid       int    // of the process on node 2, and of its surrogate on node 1
	out       string // of the process
	thread    int    // a thread of it, of the window of node 2
	neighbour [4]int // a process of alice on each node
	heard     [4]string
}

const (
	homeNode = id.Node(1)
	lifeNode = id.Node(2)
	farNode  = id.Node(3)
)

// threaded is taker with another thread, which has its TID from the window of the
// node; both take all signals.
var threadedStart = strings.Replace(taker, `print("ready"`, `
import threading, time
if len(sys.argv) > 2:
    while not os.path.exists(sys.argv[2]): time.sleep(0.001)
    t = threading.Thread(target=signal.pause, daemon=True); t.start()
    print("thread", t.native_id, flush=True)
print("ready"`, 1)

func newMachines(t testing.TB) *machines {
	t.Helper()
	needInside(t)
	dir, err := os.MkdirTemp("/dev/shm", "machines")
	must(t, err)
	must(t, os.Chmod(dir, 0o711))
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	w := &machines{t: t, dir: dir, mesh: newMesh(0, dir)}
	for n := range w.links {
		wantHome(t, n, dir)
	}
	for n := range w.links {
		eventually(t, "a node", func() bool { return w.try(n, "Die", int64(0), new(bool)) == nil })
	}
	w.leader = w.start(homeNode, Start{Args: sleeps(), UID: alice, Group: 0})
	w.do(lifeNode, "Place", Placement{Start{Args: sleeps(), UID: alice}, w.leader}, new(bool)) // its stand-in
	w.out = filepath.Join(dir, "out")
	for range 5 { // until a number is free on both
		w.pid = w.start(homeNode, Start{Args: sleeps(), UID: alice, Group: w.leader})
		flag := filepath.Join(dir, "flag")
		s := Start{Args: []string{"python3", "-c", threadedStart, fmt.Sprint(alice), flag}, Group: w.leader, Output: w.out}
		if err = w.try(lifeNode, "Place", Placement{s, w.pid}, new(bool)); err == nil {
			must(t, os.WriteFile(flag, nil, 0o600))
			break
		}
	}
	must(t, err)
	eventually(t, "the process", func() bool {
		all := strings.Fields(strings.Join(lines(t, w.out), " "))
		if len(all) == 4 && all[2] == "ready" {
			_, err = fmt.Sscan(all[1], &w.thread)
		}
		return w.thread > 0
	})
	if id.PID(w.thread).Home() != lifeNode || id.PID(w.pid).Home() != homeNode {
		t.Fatalf("process %d has a thread %d", w.pid, w.thread)
	}
	for n := range w.links {
		w.heard[n] = filepath.Join(dir, fmt.Sprintf("heard%d", n))
		group := -1
		if n == homeNode {
			group = w.leader
		}
		w.neighbour[n] = w.start(n, Start{Args: []string{"python3", "-c", taker, fmt.Sprint(alice)}, Group: group, Output: w.heard[n]})
		eventually(t, "a neighbour", func() bool { return len(lines(t, w.heard[n])) == 1 })
	}
	w.do(homeNode, "Know", map[id.PID]id.Node{id.PID(w.pid): lifeNode}, new(bool))
	w.do(lifeNode, "Know", map[id.PID]id.Node{id.PID(w.pid): lifeNode}, new(bool))
	w.do(homeNode, "Protect", []int{w.pid}, new(bool))
	w.do(lifeNode, "Protect", []int{w.leader}, new(bool))
	return w
}

func (w *machines) try(n id.Node, method string, args, reply any) error {
	return w.links[n].do(w.t.Context(), method, args, reply)
}

func (w *machines) do(n id.Node, method string, args, reply any) {
	w.t.Helper()
	must(w.t, w.try(n, method, args, reply))
}

func (w *machines) start(n id.Node, s Start) (pid int) {
	w.t.Helper()
	w.do(n, "Start", s, &pid)
	if id.PID(pid).Home() != n {
		w.t.Fatalf("a process of node %d has PID %d", n, pid)
	}
	return pid
}

// caller is a process of a node that only its numbers make.
func (w *machines) caller(n id.Node, uid uint32) call.Caller {
	c := caller(uid)
	first, _ := n.Window()
	own := int32(first) + 9000
	c.Node, c.PID, c.TID, c.PGID, c.SID = n, own, own, own, own
	return c
}

// itself is the process that was placed, as a caller.
func (w *machines) itself() call.Caller {
	c := w.caller(lifeNode, alice)
	c.PID, c.TID, c.PGID = int32(w.pid), int32(w.pid), int32(w.leader)
	return c
}

func (w *machines) request(c call.Caller, nr call.Nr, args ...int) *call.Request {
	r := &call.Request{Nr: nr, Caller: c, Origin: call.Origin{Node: c.Node, Incarnation: 7, Seq: w.seq.Add(1)}}
	for i, a := range args {
		r.Args[i] = uint64(a)
	}
	return r
}

// order has the node of the caller handle a call.
func (w *machines) order(r *call.Request, file int) (s Said) {
	w.t.Helper()
	w.do(r.Caller.Node, "Order", Order{r.Append(nil), file}, &s)
	return s
}

func (w *machines) call(c call.Caller, nr call.Nr, args ...int) string {
	w.t.Helper()
	return w.order(w.request(c, nr, args...), 0).Words
}

// field is one of proc_pid_stat(5) on a node, from 3 for the state; "" if the process
// has ended.
func (w *machines) field(n id.Node, pid, number int) string {
	w.t.Helper()
	var text string
	w.do(n, "Read", fmt.Sprintf("/proc/%d/stat", pid), &text)
	f := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(f) < number-2 || f[0] == "Z" {
		return ""
	}
	return f[number-3]
}

// gone says whether a process was waited for, too: setpriority(2) still finds a
// zombie, kill(2) as well.
func (w *machines) gone(n id.Node, pid int) bool {
	w.t.Helper()
	var text string
	w.do(n, "Read", fmt.Sprintf("/proc/%d/stat", pid), &text)
	return text == ""
}

func (w *machines) has(what string, n id.Node, pid, number int, want string) {
	w.t.Helper()
	if got := w.field(n, pid, number); got != want {
		w.t.Errorf("%s: field %d of process %d on node %d is %q, want %q", what, number, pid, n, got, want)
	}
}

// count is how often a program took a signal.
func (w *machines) count(out string, sig unix.Signal) (n int) {
	w.t.Helper()
	for _, l := range lines(w.t, out) {
		if strings.HasPrefix(l, fmt.Sprintf("%d ", int(sig))) {
			n++
		}
	}
	return n
}

// settled waits until every program has taken what was sent to it before: the
// highest signal is taken last.
func (w *machines) settled() {
	w.t.Helper()
	for n := range w.links {
		w.mark(w.neighbour[n], w.heard[n])
	}
	w.mark(w.pid, w.out)
}

func (w *machines) mark(pid int, out string) {
	w.t.Helper()
	const last = 64
	before := w.count(out, last)
	n := farNode
	if id.PID(pid).Home() == farNode {
		n = homeNode
	}
	if got := w.call(w.caller(n, 0), call.Kill, pid, last); got != "0" {
		w.t.Fatalf("a mark for process %d: %s", pid, got)
	}
	eventually(w.t, "a mark", func() bool { return w.count(out, last) > before })
}
