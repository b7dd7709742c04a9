package member

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ssi/internal/errno"
	"ssi/internal/id"
)

func info(n id.Node) *Info {
	return &Info{Name: "n" + n.String(), Addr: "10.0.0." + n.String() + ":1985", Capable: true}
}

// must applies commands and returns the states that node 1 went through.
func must(t *testing.T, m *Machine, cs ...Command) (path []State) {
	t.Helper()
	for _, c := range cs {
		ts, err := m.Apply(c, 1)
		if err != nil {
			t.Fatalf("%+v: %v", c, err)
		}
		for _, x := range ts {
			if !x.Init {
				path = append(path, x.To)
			}
		}
	}
	return path
}

func TestLife(t *testing.T) {
	m := New()
	got := must(t, m,
		Command{Op: Join, Node: 1, Incarnation: 5, Info: info(1)},
		Command{Op: Join, Node: 1, Incarnation: 5, Info: info(1)}, // again: nothing
		Command{Op: MarkUp, Node: 1, Incarnation: 5},
		Command{Op: InitTaken, Node: 1, Incarnation: 5, Term: 3},
		Command{Op: Expire, Node: 1, Incarnation: 5, Cause: "silent"},
		Command{Op: CleanupDone, Node: 1, Incarnation: 5, To: UCleanup},
		Command{Op: CleanupDone, Node: 1, Incarnation: 5, To: Down},
		Command{Op: Join, Node: 1, Incarnation: 6, Info: info(1)},
		Command{Op: MarkUp, Node: 1, Incarnation: 6},
		Command{Op: Leave, Node: 1, Incarnation: 6, Cause: "bye"},
	)
	want := []State{ComingUp, Up, KCleanup, UCleanup, Down, ComingUp, Up, Shutdown, GoingDown, KCleanup}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	v := m.View()
	if v.Epoch != id.Epoch(len(want)+1) || v.Init != 1 || v.InitTerm != 3 || !v.Get(1).Left {
		t.Errorf("view: %+v", v)
	}
	for i, x := range v.History {
		if x.Epoch != id.Epoch(i+1) {
			t.Errorf("transition %d has number %d", i+1, x.Epoch)
		}
	}
	if v.Get(9).State != NeverUp {
		t.Error("an unknown node is not NEVERUP")
	}
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		name string
		cmd  Command
		kind errno.Kind
	}{
		{"node out of range", Command{Op: Join, Node: 128, Incarnation: 9, Info: info(1)}, errno.Invalid},
		{"new life while the old one is up", Command{Op: Join, Node: 1, Incarnation: 6, Info: info(1)}, errno.Exists},
		{"old life", Command{Op: Join, Node: 1, Incarnation: 4, Info: info(1)}, errno.Stale},
		{"no description", Command{Op: Join, Node: 2, Incarnation: 4}, errno.Invalid},
		{"bad address", Command{Op: Join, Node: 2, Incarnation: 4, Info: &Info{Addr: "nowhere"}}, errno.Invalid},
		{"bad second address", Command{Op: Join, Node: 2, Incarnation: 4, Info: &Info{Addr: "a:1", Others: []string{"nowhere"}}}, errno.Invalid},
		{"too many addresses", Command{Op: Join, Node: 2, Incarnation: 4, Info: &Info{Addr: "a:1", Others: []string{"b:1", "c:1", "d:1", "e:1"}}}, errno.Invalid},
		{"witness capable of init", Command{Op: Join, Node: 2, Incarnation: 4, Info: &Info{Addr: "a:1", Witness: true, Capable: true}}, errno.Invalid},
		{"expire another life", Command{Op: Expire, Node: 1, Incarnation: 4}, errno.Stale},
		{"unknown node", Command{Op: SetState, Node: 7, To: Shutdown}, errno.NotFound},
		{"not settable", Command{Op: SetState, Node: 1, To: UCleanup}, errno.Invalid},
		{"living node to KCLEANUP by order", Command{Op: SetState, Node: 1, Incarnation: 5, To: KCleanup}, errno.Unavailable},
		{"remove a living node", Command{Op: Remove, Node: 1}, errno.Invalid},
		{"cleanup of a living node", Command{Op: CleanupDone, Node: 1, Incarnation: 5, To: Down}, errno.Invalid},
		{"init for a stranger", Command{Op: InitTaken, Node: 3, Incarnation: 1, Term: 9}, errno.Invalid},
		{"init in a past term", Command{Op: InitTaken, Node: 1, Incarnation: 5, Term: 1}, errno.Stale},
		{"unknown command", Command{Op: "dance", Node: 1, Incarnation: 5}, errno.Invalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := New()
			must(t, m, Command{Op: Join, Node: 1, Incarnation: 5, Info: info(1)}, Command{Op: MarkUp, Node: 1, Incarnation: 5},
				Command{Op: InitTaken, Node: 1, Incarnation: 5, Term: 2})
			before, _ := m.Snapshot()
			_, err := m.Apply(c.cmd, 1)
			if !errno.Is(err, c.kind) {
				t.Errorf("got %v, want kind %v", err, c.kind)
			}
			if _, back := DecodeResult(ResultOf(m.Epoch(), err).Encode()); back == nil || back.Error() != err.Error() || !errno.Is(back, c.kind) {
				t.Errorf("the refusal %v arrives as %v", err, back)
			}
			if after, _ := m.Snapshot(); !bytes.Equal(before, after) {
				t.Error("a refused command changed the state")
			}
		})
	}
}

// TestSettable checks the table of clusternode_setstate.
func TestSettable(t *testing.T) {
	want := "COMINGUP>UP COMINGUP>KCLEANUP UP>SHUTDOWN UP>GOINGDOWN UP>KCLEANUP SHUTDOWN>UP SHUTDOWN>GOINGDOWN SHUTDOWN>KCLEANUP GOINGDOWN>KCLEANUP UCLEANUP>DOWN"
	var got []string
	for from := NeverUp; from <= Down; from++ {
		for to := NeverUp; to <= Down; to++ {
			if from.Settable(to) {
				got = append(got, fmt.Sprintf("%v>%v", from, to))
			}
		}
	}
	if s := strings.Join(got, " "); s != want {
		t.Errorf("settable: %s\nwant:     %s", s, want)
	}
}

// random is a random command, often one that fits.
func random(r *rand.Rand, m *Machine) Command {
	n := id.Node(1 + r.IntN(4))
	c := Command{Node: n, Incarnation: m.Get(n).Incarnation + id.Incarnation(r.IntN(2)), Term: m.View().InitTerm + uint64(r.IntN(2)), To: State(r.IntN(8)), Cause: "c"}
	c.Op = []Op{Join, Join, MarkUp, SetState, Expire, CleanupDone, CleanupDone, Leave, Remove, InitTaken}[r.IntN(10)]
	switch c.Op {
	case Join:
		c.Info = info(n)
	case CleanupDone:
		c.To = m.Get(n).State + 1
	}
	return c
}

// TestRandom checks with random commands that two machines stay equal, one of
// them restored from a snapshot now and then, that views never change, and that
// the history is bounded and without gaps.
func TestRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	a, b := New(), New()
	type seen struct {
		view *View
		text string
	}
	var views []seen
	for i := range 15_000 {
		raw := random(r, a).Encode()
		ca, err := DecodeCommand(raw)
		if err != nil {
			t.Fatal(err)
		}
		_, ea := a.Apply(ca, int64(i))
		_, eb := b.Apply(ca, int64(i))
		if fmt.Sprint(ea) != fmt.Sprint(eb) {
			t.Fatalf("command %d: %v and %v", i, ea, eb)
		}
		if i%1000 == 0 {
			snap, err := a.Snapshot()
			if err != nil {
				t.Fatal(err)
			}
			b = New()
			if err := b.Restore(snap); err != nil {
				t.Fatal(err)
			}
			again, _ := b.Snapshot()
			if !bytes.Equal(snap, again) {
				t.Fatalf("command %d: the restored state differs", i)
			}
			v := a.View()
			views = append(views, seen{v, fmt.Sprint(*v)})
		}
	}
	for _, s := range views {
		if fmt.Sprint(*s.view) != s.text {
			t.Fatal("a view that was handed out has changed")
		}
	}
	v := a.View()
	if len(v.History) != MaxHistory || v.Epoch <= 2*MaxHistory {
		t.Errorf("history of %d at epoch %d", len(v.History), v.Epoch)
	}
	for i, x := range v.History {
		if x.Epoch != v.Epoch-id.Epoch(MaxHistory-1-i) {
			t.Fatalf("history has %d at place %d", x.Epoch, i)
		}
	}
	if ts, ok := v.Since(v.Epoch - 3); len(ts) != 3 || !ok {
		t.Errorf("the last three: %v %v", ts, ok)
	}
	if _, ok := v.Since(1); ok {
		t.Error("a history with a gap is called complete")
	}
}

func TestCauseIsCut(t *testing.T) {
	m := New()
	must(t, m, Command{Op: Join, Node: 1, Incarnation: 1, Info: info(1), Cause: strings.Repeat("ä\n", 500)})
	if c := m.View().History[0].Cause; len(c) > MaxCause || strings.ContainsAny(c, "\n") {
		t.Errorf("cause of %d bytes: %q", len(c), c)
	}
}

func FuzzRestore(f *testing.F) {
	m := New()
	if _, err := m.Apply(Command{Op: Join, Node: 1, Incarnation: 1, Info: info(1)}, 1); err != nil {
		f.Fatal(err)
	}
	snap, _ := m.Snapshot()
	f.Add(snap)
	f.Add([]byte(`{"epoch":1,"nodes":[{"node":1,"state":9}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := New()
		if m.Restore(b) != nil {
			return
		}
		first, err := m.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		again := New()
		if err := again.Restore(first); err != nil {
			t.Fatalf("%v\n%s", err, first)
		}
	})
}

func FuzzCommand(f *testing.F) {
	f.Add(Command{Op: Join, Node: 1, Incarnation: 1, Info: info(1)}.Encode())
	f.Add(Command{Op: SetState, Node: 1, To: Down}.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := DecodeCommand(b)
		if err != nil {
			return
		}
		m := New()
		ts, err := m.Apply(c, 1)
		if err != nil && (len(ts) > 0 || m.Epoch() != 0) {
			t.Errorf("refused (%v) and yet changed", err)
		}
	})
}
