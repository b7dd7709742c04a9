package remote

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"ssi/internal/id"
	"ssi/vproc/call"
)

// Calls that mean a process which lives on another node than its home reach it from
// everywhere, and what stands for it at home is left alone.
func TestPlaced(t *testing.T) {
	w := newMachines(t)
	p, tid := w.pid, w.thread
	home, life, far, self := w.caller(homeNode, alice), w.caller(lifeNode, alice), w.caller(farNode, alice), w.itself()
	other := w.caller(farNode, bob)
	leader := home
	leader.PID = int32(w.leader) // something stands for it where the process lives
	stop, cont, usr1 := int(unix.SIGSTOP), int(unix.SIGCONT), int(unix.SIGUSR1)
	for _, c := range []struct {
		name string
		who  call.Caller
		nr   call.Nr
		args []int
		want string
	}{
		{"far", far, call.Kill, []int{p, usr1}, "0"},
		{"far, not his", other, call.Kill, []int{p, usr1}, "EPERM"},
		{"far, a thread", far, call.Tgkill, []int{p, tid, usr1}, "0"},
		{"far, the main thread", far, call.Tgkill, []int{p, p, usr1}, "0"},
		{"far, by its TID", far, call.Tkill, []int{tid, 0}, "0"},
		{"far, no thread of it", far, call.Tgkill, []int{p, w.neighbour[2], 0}, "ESRCH"},
		{"far, group", far, call.Getpgid, []int{p}, fmt.Sprint(w.leader)},
		{"far, nice", far, call.Setpriority, []int{0, p, 3}, "0"},
		{"far, nice is", other, call.Getpriority, []int{0, p}, "17"},
		{"far, ptrace", far, call.Ptrace, []int{ptraceAttach, p}, "EPERM"},
		{"far, kcmp", far, call.Kcmp, []int{p, p}, "EPERM"},
		{"home, no signal", home, call.Kill, []int{p, 0}, "0"},
		{"home, a thread", home, call.Tgkill, []int{p, tid, usr1}, "0"},
		{"home, nice", home, call.Setpriority, []int{0, p, 4}, "0"},
		{"home, nice is", home, call.Getpriority, []int{0, p}, "16"},
		{"home, ioprio", home, call.IoprioSet, []int{1, p, 2<<13 | 5}, "0"},
		{"home, ioprio is", home, call.IoprioGet, []int{1, p}, fmt.Sprint(2<<13 | 5)},
		{"home, scheduler", home, call.SchedGetscheduler, []int{p}, "0"},
		{"home, ptrace", home, call.Ptrace, []int{ptraceAttach, p}, "EPERM"},
		{"where it lives", life, call.Kill, []int{p, usr1}, "continue"},
		{"where it lives, a thread", life, call.Tgkill, []int{p, tid, usr1}, "continue"},
		{"where it lives, nice", life, call.Getpriority, []int{0, p}, "continue"},
		{"where it lives, pidfd", life, call.PidfdOpen, []int{p}, "continue"},
		{"where it lives, ptrace", life, call.Ptrace, []int{ptraceAttach, p}, "continue"},
		{"where it lives, kcmp", life, call.Kcmp, []int{p, w.neighbour[2]}, "continue"},
		{"where it lives, a stand-in is at its home", life, call.Kill, []int{w.leader, 0}, "0"},
		{"itself", self, call.Kill, []int{p, usr1}, "continue"},
		{"itself, stop", self, call.Tgkill, []int{p, p, stop}, "continue"},
		{"itself, home", self, call.Kill, []int{w.neighbour[1], usr1}, "0"},
		{"itself, far", self, call.Kill, []int{w.neighbour[3], usr1}, "0"},
		{"the leader, where it has a stand-in", leader, call.Kill, []int{w.neighbour[2], usr1}, "0"},
		{"itself, not its own", self, call.Kill, []int{1, usr1}, "continue"},
		{"home, stop", home, call.Kill, []int{p, stop}, "0"},
	} {
		if got := w.call(c.who, c.nr, c.args...); got != c.want {
			t.Errorf("%s: %s%v: %s, want %s", c.name, c.nr, c.args, got, c.want)
		}
	}
	eventually(t, "the stop", func() bool { return w.field(lifeNode, p, 3) == "T" })
	w.has("the surrogate when it is stopped", homeNode, p, 3, "S")
	for _, who := range []call.Caller{home, far} {
		if got := w.call(who, call.Kill, p, cont); got != "0" {
			t.Errorf("node %d: SIGCONT: %s", who.Node, got)
		}
		eventually(t, "that it goes on", func() bool { return w.field(lifeNode, p, 3) == "S" })
		if got := w.call(who, call.Tgkill, p, p, stop); got != "0" {
			t.Errorf("node %d: stop: %s", who.Node, got)
		}
		eventually(t, "the stop", func() bool { return w.field(lifeNode, p, 3) == "T" })
	}
	surrogate := home
	surrogate.PID = int32(p)
	if got := w.call(surrogate, call.Kill, p, stop); got != "continue" {
		t.Errorf("the surrogate stops itself: %s", got)
	}
	if got := w.call(far, call.Kill, p, cont); got != "0" {
		t.Errorf("SIGCONT: %s", got)
	}
	w.settled()
	if n := w.count(w.out, unix.SIGUSR1); n != 2 { // blocked: of the process, and of its main thread; the other thread has its own
		t.Errorf("SIGUSR1 was taken %d times", n)
	}
	// The sender is named where its number is free; otherwise its user at least.
	for n, pid := range map[id.Node]int{homeNode: p, lifeNode: w.leader, farNode: p} {
		got := append(lines(t, w.heard[n]), "")[1]
		var signo, code, from, uid, value int
		if _, err := fmt.Sscan(got, &signo, &code, &from, &uid, &value); err != nil {
			t.Fatal(n, got, err)
		}
		if signo != usr1 || code != 0 || uid != alice || (from == pid) != (n == farNode) {
			t.Errorf("process %d signals node %d: %q", pid, n, got)
		}
	}
	const nice = 19
	w.has("the surrogate", homeNode, p, nice, "0")
	w.has("the process", lifeNode, p, nice, "4")
	w.has("the surrogate", homeNode, p, 3, "S")
	w.has("the stand-in", lifeNode, w.leader, 3, "S")
	// When it has ended, it is nowhere, whatever is still known.
	if got := w.call(far, call.Kill, p, int(unix.SIGKILL)); got != "0" {
		t.Errorf("SIGKILL: %s", got)
	}
	eventually(t, "its end", func() bool { return w.gone(lifeNode, p) })
	for _, known := range []bool{true, false} {
		if !known {
			w.do(lifeNode, "Know", map[id.PID]id.Node{}, new(bool))
		}
		for _, who := range []call.Caller{home, life, far} {
			want := "ESRCH"
			if known && who.Node == lifeNode {
				want = "continue" // the kernel says it
			}
			if got := w.call(who, call.Setpriority, 0, p, 7); got != want {
				t.Errorf("node %d, known %v: what has ended: %s, want %s", who.Node, known, got, want)
			}
		}
	}
	w.has("the surrogate", homeNode, p, nice, "0")
}

// A call to many reaches the process once, where it lives, and neither what stands
// for it nor what stands there for others.
func TestPlacedAmongMany(t *testing.T) {
	w := newMachines(t)
	p, g := w.pid, w.leader
	home, life, far, self := w.caller(homeNode, alice), w.caller(lifeNode, alice), w.caller(farNode, alice), w.itself()
	const nice = 19
	// The surrogate has the best priority, which is not the group's.
	w.do(homeNode, "Renice", [2]int{p, -9}, new(bool))
	w.do(lifeNode, "Renice", [2]int{g, -9}, new(bool))
	sig := 40
	sent := map[unix.Signal]bool{}
	for _, who := range []call.Caller{home, life, far, self} {
		name := fmt.Sprintf("process %d of node %d", who.PID, who.Node)
		for _, c := range []struct {
			nr   call.Nr
			args []int
			want string
		}{
			{call.Setpriority, []int{1, g, 2}, "EACCES"}, // alice does not have hers back
			{call.Getpriority, []int{1, g}, "15"},
			{call.Getpriority, []int{2, alice}, "20"},
			{call.IoprioSet, []int{2, g, 2<<13 | 6}, "0"},
			{call.IoprioGet, []int{2, g}, fmt.Sprint(2<<13 | 6)},
		} {
			if c.nr == call.Setpriority {
				root := who
				root.Caps = 1<<41 - 1
				if got := w.call(root, c.nr, 1, g, 5); got != "0" {
					t.Errorf("%s: root: %s: %s", name, c.nr, got)
				}
			}
			if got := w.call(who, c.nr, c.args...); got != c.want {
				t.Errorf("%s: %s%v: %s, want %s", name, c.nr, c.args, got, c.want)
			}
		}
		sig++
		target := -g
		if who.PID == int32(p) {
			target = 0 // its own group
		}
		// It is dealt with one by one at home and where it lives, and not on the third node.
		if got := w.call(who, call.Kill, target, sig); got != "0" {
			t.Errorf("%s: its group: %s", name, got)
		}
		sent[unix.Signal(sig)] = true
	}
	everyone := map[unix.Signal]call.Caller{50: self, 51: home, 52: far}
	for s, who := range everyone {
		want := "0"
		if who.Node == farNode { // nobody protected is hers: her kernel does its part
			want = "continue"
		}
		if got := w.call(who, call.Kill, -1, int(s)); got != want {
			t.Errorf("process %d of node %d: everyone: %s, want %s", who.PID, who.Node, got, want)
		}
	}
	w.has("the surrogate", homeNode, p, nice, "-9")
	w.has("the stand-in", lifeNode, g, nice, "-9")
	w.settled()
	for s := range sent {
		if n := w.count(w.out, s); n != 1 {
			t.Errorf("the process took signal %d %d times", s, n)
		}
		if n := w.count(w.heard[homeNode], s); n != 1 {
			t.Errorf("another member of its group took signal %d %d times", s, n)
		}
		if n := w.count(w.heard[lifeNode], s) + w.count(w.heard[farNode], s); n != 0 {
			t.Errorf("others took signal %d %d times", s, n)
		}
	}
	for s, who := range everyone {
		for n, out := range map[id.Node]string{0: w.out, homeNode: w.heard[homeNode], lifeNode: w.heard[lifeNode], farNode: w.heard[farNode]} {
			want := 1
			if n == 0 && who.PID == int32(p) || n == farNode && who.Node == farNode {
				want = 0
			}
			if got := w.count(out, s); got != want {
				t.Errorf("signal %d to everyone came %d times to %s, want %d", s, got, filepath.Base(out), want)
			}
		}
	}
	w.has("the surrogate", homeNode, p, 3, "S")
	w.has("the stand-in", lifeNode, g, 3, "S")
}

// A pidfd of the process is one, from wherever it was opened.
func TestPlacedPidfd(t *testing.T) {
	w := newMachines(t)
	far, home := w.caller(farNode, alice), w.caller(homeNode, alice)
	files := map[id.Node]int{}
	readable := func(n id.Node) (is bool) {
		w.do(n, "Readable", files[n], &is)
		return is
	}
	send := func(who call.Caller, sig int) string {
		return w.order(w.request(who, call.PidfdSendSignal, 3, sig), files[who.Node]).Words
	}
	for _, who := range []call.Caller{far, home} {
		s := w.order(w.request(who, call.PidfdOpen, w.pid, 0), 0)
		if files[who.Node] = s.File; s.File == 0 {
			t.Fatalf("node %d: pidfd_open: %s", who.Node, s.Words)
		}
		if thread := w.order(w.request(who, call.PidfdOpen, w.thread, unix.PIDFD_THREAD), 0); thread.File == 0 {
			t.Errorf("node %d: pidfd_open of a thread: %s", who.Node, thread.Words)
		}
		if got := send(who, int(unix.SIGUSR2)); got != "0" {
			t.Errorf("node %d: a signal: %s", who.Node, got)
		}
		eventually(t, "the signal", func() bool { return w.count(w.out, unix.SIGUSR2) == len(files) })
		if readable(who.Node) {
			t.Errorf("node %d: readable before the end", who.Node)
		}
	}
	// The daemons that watch it and that gave it out are others now.
	for _, n := range []id.Node{homeNode, lifeNode} {
		_ = w.try(n, "Kill", true, new(bool))
		eventually(t, "the next daemon", func() bool { return w.try(n, "Die", int64(0), new(bool)) == nil })
	}
	w.do(lifeNode, "Protect", []int{w.leader}, new(bool))
	w.do(homeNode, "Protect", []int{w.pid}, new(bool))
	if got := send(far, 0); got != "0" {
		t.Errorf("another daemon: %s", got)
	}
	if got := send(far, int(unix.SIGKILL)); got != "0" {
		t.Errorf("SIGKILL: %s", got)
	}
	eventually(t, "that it is readable", func() bool { return readable(farNode) })
	eventually(t, "its end", func() bool { return w.gone(lifeNode, w.pid) })
	if got := send(far, 0); got != "ESRCH" {
		t.Errorf("what has ended: %s", got)
	}
	w.has("the surrogate", homeNode, w.pid, 3, "S")
}

// Each call is done once, though it asks two nodes and all their daemons are killed.
func TestPlacedOnceInAStorm(t *testing.T) {
	w := newMachines(t)
	const senders, each = 4, 100
	ctx, cancel := context.WithCancel(t.Context())
	var killer sync.WaitGroup
	kills := 0
	killer.Go(func() {
		for ctx.Err() == nil {
			if w.links[homeNode+id.Node(rand.IntN(2))].do(ctx, "Kill", true, new(bool)) != nil {
				kills++
			}
			select {
			case <-ctx.Done():
			case <-time.After(time.Duration(5+rand.IntN(40)) * time.Millisecond):
			}
		}
	})
	queue := func(value int) string {
		r := w.request(w.caller(farNode, 0), call.RtSigqueueinfo, w.pid, 40, 1)
		r.In = make([]byte, call.SiginfoSize)
		const siQueue = -1
		binary.NativeEndian.PutUint32(r.In, 40)
		binary.NativeEndian.PutUint32(r.In[8:], uint32(0xffffffff&siQueue))
		binary.NativeEndian.PutUint32(r.In[24:], uint32(value))
		var s Said
		if err := w.try(farNode, "Order", Order{Request: r.Append(nil)}, &s); err != nil {
			return err.Error()
		}
		return s.Words
	}
	var wg sync.WaitGroup
	outcomes := make([]string, 1+senders*each)
	for i := range senders {
		wg.Go(func() {
			for j := range each {
				v := 1 + i*each + j
				outcomes[v] = queue(v)
			}
		})
	}
	wg.Wait()
	cancel()
	killer.Wait()
	const end = 999999
	if got := queue(end); got != "0" {
		t.Fatalf("the last: %s", got)
	}
	eventually(t, "the last value", func() bool { return values(t, w.out)[end] == 1 })
	got := values(t, w.out)
	failed := 0
	for v, o := range outcomes[1:] {
		switch v++; {
		case o == "0" && got[v] != 1:
			t.Errorf("value %d came %d times", v, got[v])
		case o != "0":
			failed++
			if o != "EIO" || got[v] > 1 {
				t.Errorf("value %d: %s, and it came %d times", v, o, got[v])
			}
		}
	}
	t.Logf("%d calls, daemons killed up to %d times, %d calls of which nobody knows", senders*each, kills, failed)
	if kills == 0 {
		t.Error("no daemon was killed")
	}
	eventually(t, "that the last daemon killed is back", func() bool {
		return w.try(homeNode, "Read", "/proc/self/stat", new(string)) == nil
	})
	w.has("the surrogate", homeNode, w.pid, 3, "S")
}

// peersFunc is other nodes that say what they like.
type peersFunc func(n id.Node, a ask) []byte

func (peersFunc) Nodes() []id.Node { return []id.Node{1, 2, 3} }

func (f peersFunc) Call(_ context.Context, n id.Node, _ string, req, reply proto.Message) error {
	a, err := decodeAsk(req.(*wrapperspb.BytesValue).GetValue())
	if err == nil {
		reply.(*wrapperspb.BytesValue).Value = f(n, a)
	}
	return err
}

// Nodes that send a call round in circles, or to where the process is not, do not
// hold it up.
func TestPlacedByLiars(t *testing.T) {
	needInside(t)
	pid := 2<<id.PIDShift + 300
	for _, c := range []struct {
		name  string
		moved map[id.Node]id.Node // 0: it is there
		want  string
		asked int
	}{
		{"in a circle", map[id.Node]id.Node{2: 3, 3: 2}, "ESRCH", maxMoves + 1},
		{"to itself", map[id.Node]id.Node{2: 2}, "ESRCH", maxMoves + 1},
		{"to the caller", map[id.Node]id.Node{2: 1}, "ESRCH", 1},
		{"to a node that is not there", map[id.Node]id.Node{2: 77}, "ESRCH", 1},
		{"to the one where it is", map[id.Node]id.Node{2: 3, 3: 0}, "0", 2},
	} {
		asked := 0
		var first call.Origin
		m, err := New(Config{Self: 1, Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler), Peers: peersFunc(func(n id.Node, a ask) []byte {
			if asked++; asked == 1 {
				first = a.r.Origin
			}
			if a.r.Origin != first {
				t.Errorf("%s: another origin: %+v, %+v", c.name, a.r.Origin, first)
			}
			if to := c.moved[n]; to != 0 {
				return encodeMoved(to)
			}
			return (&call.Reply{}).Append(nil)
		})})
		must(t, err)
		for nr, want := range map[call.Nr]string{call.Kill: c.want, call.PidfdOpen: c.want, call.Ptrace: c.want} {
			if want == "0" {
				want = map[call.Nr]string{call.Kill: "0", call.PidfdOpen: "EIO", call.Ptrace: "ESRCH"}[nr]
			}
			asked = 0
			r := &call.Request{Nr: nr, Args: [6]uint64{uint64(pid), uint64(pid)}, Caller: caller(0), Origin: call.Origin{Node: 1, Incarnation: 1, Seq: 1}}
			if nr != call.Ptrace {
				r.Args[1] = 0
			}
			if got := said(m.Handle(t.Context(), r)); got != want || asked != c.asked {
				t.Errorf("%s: %s: %s after %d questions, want %s after %d", c.name, nr, got, asked, want, c.asked)
			}
		}
		m.Close()
	}
	// All of a group is not elsewhere.
	m, err := New(Config{Self: 1, Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler), Peers: peersFunc(func(id.Node, ask) []byte { return encodeMoved(1) })})
	must(t, err)
	defer m.Close()
	r := &call.Request{Nr: call.Kill, Caller: caller(0), Origin: call.Origin{Node: 1, Incarnation: 1, Seq: 1}}
	r.Args[0] = -uint64(pid)
	if got := said(m.Handle(t.Context(), r)); got != "EIO" {
		t.Errorf("a group: %s", got)
	}
}

// What the home did before the process was placed elsewhere is not done there again.
func TestPlacedMeanwhile(t *testing.T) {
	w := newWorld(t)
	pid := w.here(Start{Args: sleeps()})
	lives := id.Node(0)
	m, err := New(Config{Self: 1, Peers: w.peers, Log: slog.New(slog.DiscardHandler), Dir: filepath.Join(w.dir, "other"), Lives: func(id.PID) (id.Node, bool) {
		return lives, lives != 0
	}})
	must(t, err)
	defer m.Close()
	serve := func(seq uint64, sig int) (call.Reply, id.Node) {
		t.Helper()
		r := w.request(caller(0), call.Kill, pid, sig)
		r.Caller.Node, r.Origin = 3, call.Origin{Node: 3, Incarnation: 1, Seq: seq}
		b, err := m.ServeCall(t.Context(), 3, ask{r: r}.encode())
		must(t, err)
		reply, to, err := decodeAnswer(b)
		must(t, err)
		return reply, to
	}
	if reply, to := serve(1, int(unix.SIGWINCH)); reply.Errno != 0 || to != 0 {
		t.Errorf("at home: %+v, node %d", reply, to)
	}
	lives = 2
	for seq, want := range map[uint64]id.Node{1: 0, 2: 2} {
		if reply, to := serve(seq, int(unix.SIGWINCH)); reply.Errno != 0 || to != want {
			t.Errorf("placed: call %d: %+v, node %d, want %d", seq, reply, to, want)
		}
	}
	if _, to := serve(1, 0); to != 2 { // nothing is kept of what only asks
		t.Errorf("placed: a question: node %d", to)
	}
}
