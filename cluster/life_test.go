package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ssi/cluster/core"
	"ssi/cluster/member"
	"ssi/internal/errno"
	"ssi/internal/id"
)

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func TestFoundAndRestart(t *testing.T) {
	t.Parallel()
	m, tokens := found(t, "fast", 2)
	m.founded()
	if len(tokens) != 2 {
		t.Errorf("%d tokens, want 2", len(tokens))
	}
	if _, err := m.c.Registry().Put(m.ctx(), false, "/a", []byte("b"), 0); err != nil {
		t.Fatal(err)
	}
	inc := m.c.Incarnation()
	m.halt()
	if !errors.Is(m.err, context.Canceled) {
		t.Errorf("Run ended with %v", m.err)
	}
	if got := m.c.Serving().Load(); got.OK || got.Cause != "the daemon is stopping" {
		t.Errorf("afterwards it is serving: %+v", got)
	}
	if _, err := m.c.Registry().Put(m.ctx(), false, "/a", nil, 0); !errno.Is(err, errno.Unavailable) {
		t.Errorf("a write afterwards: %v", err)
	}

	m.start() // the daemon alone: the same life
	m.serves()
	if m.c.Incarnation() != inc {
		t.Errorf("incarnation %d after a restart of the daemon, was %d", m.c.Incarnation(), inc)
	}
	view, err := m.c.Registry().View(m.ctx())
	if err != nil {
		t.Fatal(err)
	}
	if e, err := view.Get("/a"); err != nil || string(e.Value) != "b" {
		t.Errorf("/a is %v, %v", e, err)
	}
	for _, tr := range m.c.Members().Load().History {
		if !tr.Init && tr.To > member.Up {
			t.Errorf("the node left: %+v", tr)
		}
	}

	m.crash() // the machine: a new life
	m.start()
	v := await(t, "the new life UP", m.c.Members(), func(v *member.View) bool {
		n := v.Get(1)
		return n.State == member.Up && n.Incarnation == m.c.Incarnation()
	})
	if m.c.Incarnation() <= inc {
		t.Errorf("incarnation %d after %d", m.c.Incarnation(), inc)
	}
	// The history keeps why the life before ended on all its way.
	for _, tr := range v.History {
		if tr.Incarnation == inc && tr.To > member.GoingDown && tr.Cause != "it was started anew" {
			t.Errorf("the cause of %+v is %q", tr, tr.Cause)
		}
	}
}

// TestSnapshotRestart: after a restart all that is in the snapshot is known,
// although no entry of the log after it says anything of it.
func TestSnapshotRestart(t *testing.T) {
	t.Parallel()
	m, _ := found(t, "fast", 0, func(m *machine) {
		m.change = func(c *Config) { c.snapshotEntries = 10 }
	})
	m.founded()
	snaps := func() int {
		found, err := filepath.Glob(filepath.Join(m.dir, dirRaft, "r-*", "snap-*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(found)
	}
	for i := 0; snaps() == 0; i++ {
		if _, err := m.c.Registry().Put(m.ctx(), false, "/a", []byte{byte(i)}, 0); err != nil {
			t.Fatal(err)
		}
	}
	before := m.c.Members().Load()
	m.halt()
	m.start()
	m.serves()
	if v := m.c.Members().Load(); v.Get(1).State != member.Up || len(v.History) < len(before.History) {
		t.Errorf("after the restart the membership is %+v", v)
	}
	if _, err := m.c.Registry().Stale().Get("/a"); err != nil {
		t.Errorf("after the restart: %v", err)
	}
}

func TestThreeNodes(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "hooks")
	all := clusterOf(t, 3, func(m *machine) {
		m.change = func(c *Config) {
			c.HooksDir = filepath.Join(filepath.Dir(out), "etc")
		}
	})
	etc := filepath.Join(filepath.Dir(out), "etc")
	for _, kind := range []string{"nodeup", "nodedown"} {
		if err := os.MkdirAll(filepath.Join(etc, kind+".d"), 0o755); err != nil {
			t.Fatal(err)
		}
		writeHook(t, filepath.Join(etc, kind+".d"), "10-note", "echo "+kind+" $1 $SSI_CAUSE >>"+out, 0o755)
	}
	registryThroughFollowers(t, all)
	clockOffsets(t, all)

	// A node dies: the others say so, with its cause all the way to DOWN, and each
	// hook runs once.
	all[2].crash()
	v := all[0].sees(3, member.Down)
	all[1].sees(3, member.Down)
	var causes []string
	for _, tr := range v.History {
		if tr.Node == 3 && tr.To >= member.KCleanup {
			causes = append(causes, tr.Cause)
		}
	}
	if len(causes) != 3 || !strings.Contains(causes[0], "no sign of life") || causes[1] != causes[0] || causes[2] != causes[0] {
		t.Errorf("the causes of its death are %q", causes)
	}
	until(t, "OnGone", func() bool {
		all[0].mu.Lock()
		defer all[0].mu.Unlock()
		return len(all[0].gone) == 1 && all[0].gone[0] == 3
	})
	hooks := func() string { b, _ := os.ReadFile(out); return string(b) }
	if got := hooks(); strings.Count(got, "nodedown 3 no sign of life") != 1 || strings.Count(got, "nodedown") != 1 {
		t.Errorf("the hooks wrote %q", got)
	}

	// It comes back under its number, with an empty memory.
	all[2].start()
	var back id.Epoch // of its return
	for _, tr := range all[0].sees(3, member.Up).History {
		if tr.Node == 3 && tr.To == member.Up {
			back = tr.Epoch
		}
	}
	all[2].serves()
	await(t, "nodeup to be noted", all[0].c.Revision(), func(uint64) bool {
		e, err := all[0].c.Registry().Stale().Get(keyNodeupDone)
		var done id.Epoch
		return err == nil && json.Unmarshal(e.Value, &done) == nil && done >= back
	})
	if got := hooks(); strings.Count(got, "nodeup 3 ready") != 1 {
		t.Errorf("after its return the hooks wrote %q", got)
	}

	// The leader leaves in order; the role moves, and no hook is forgotten.
	first := all[0].c.Status().Load().Leader
	if first != 1 {
		t.Fatalf("node %d leads; the founder should", first)
	}
	if err := all[0].c.Leave(all[0].ctx(), "holiday"); err != nil {
		t.Fatal(err)
	}
	if got := all[0].c.Serving().Load(); got.OK {
		t.Error("a node that left serves")
	}
	if !all[0].c.Leaving() {
		t.Error("it is not leaving")
	}
	v = all[1].sees(1, member.Down)
	if v.Init == 1 || v.Get(1).Cause != "holiday" || !v.Get(1).Left {
		t.Errorf("afterwards node %d is init and node 1 is %+v", v.Init, v.Get(1))
	}
	all[0].halt()
	until(t, "nodedown", func() bool { return strings.Contains(hooks(), "nodedown 1 holiday") })
	if n := strings.Count(hooks(), "nodeup"); n != 1 {
		t.Errorf("the new init holder ran nodeup again: %q", hooks())
	}
	if got := all[1].c.Members().Load().Get(1).State; got != member.Down {
		t.Errorf("node 1 is %v", got)
	}
	if _, err := all[1].c.Registry().Put(all[1].ctx(), false, "/after", nil, 0); err != nil {
		t.Errorf("a write afterwards: %v", err)
	}
}

func registryThroughFollowers(t *testing.T, all []*machine) {
	t.Helper()
	reg := all[1].c.Registry()
	w, err := reg.Watch("/x", reg.Stale().Revision())
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	res, err := all[2].c.Registry().Put(all[2].ctx(), false, "/x/a", []byte("1"), 0)
	if err != nil {
		t.Fatal(err)
	}
	events, err := w.Next(all[1].ctx())
	if err != nil || len(events) != 1 || events[0].Key != "/x/a" || events[0].Revision != res.Revision {
		t.Errorf("the watch saw %+v, %v", events, err)
	}
	for _, m := range all {
		view, err := m.c.Registry().View(m.ctx())
		if err != nil {
			t.Fatal(err)
		}
		if e, err := view.Get("/x/a"); err != nil || string(e.Value) != "1" {
			t.Errorf("node %d reads %v, %v", m.c.Self(), e, err)
		}
	}
	leaseExpires(t, all[2])
}

func clockOffsets(t *testing.T, all []*machine) {
	t.Helper()
	got := all[1].c.ClockOffsets(all[1].ctx())
	for n := id.Node(1); n <= 3; n++ {
		if d, ok := got[n]; !ok || d.Abs() > 10*time.Second {
			t.Errorf("the clock of node %d is %v ahead (%v)", n, d, ok)
		}
	}
}

// TestForce: of two voters one dies; the other says that it cannot decide, and goes
// on alone when it is told to.
func TestForce(t *testing.T) {
	t.Parallel()
	all := clusterOf(t, 2)
	if _, _, err := all[0].c.Force(all[0].ctx(), "test"); !errno.Is(err, errno.Invalid) || !strings.Contains(err.Error(), "can decide") {
		t.Errorf("force of a cluster that can decide: %v", err)
	}
	if _, err := all[0].c.Registry().Put(all[0].ctx(), false, "/kept", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	all[1].crash()
	s := await(t, "advice", all[0].c.Status(), func(s core.Status) bool { return s.Problem != "" })
	if !strings.Contains(s.Problem, "ssi cluster force") {
		t.Errorf("the advice is %q", s.Problem)
	}
	await(t, "the fence", all[0].c.Serving(), func(s Serving) bool { return !s.OK })
	if _, err := all[0].c.Rejoin(all[0].ctx()); !errno.Is(err, errno.Invalid) {
		t.Errorf("rejoin of a node whose state is needed: %v", err)
	}
	if _, err := all[0].c.Registry().Put(all[0].ctx(), false, "/lost", nil, 0); !errno.Is(err, errno.NoQuorum) {
		t.Errorf("a write without a quorum: %v", err)
	}
	if err := all[0].c.Barrier(all[0].ctx()); !errno.Is(err, errno.NoQuorum) {
		t.Errorf("a read without a quorum: %v", err)
	}
	_, lost, err := all[0].c.Force(all[0].ctx(), "node 2 burnt down")
	if err != nil || len(lost) != 1 || lost[0] != 2 {
		t.Fatalf("force: lost %v, %v", lost, err)
	}
	if err := all[0].ended(); !errors.Is(err, ErrRestart) {
		t.Errorf("Run ended with %v", err)
	}
	all[0].start()
	all[0].serves()
	all[0].sees(2, member.Down)
	view, err := all[0].c.Registry().View(all[0].ctx())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := view.Get("/kept"); err != nil {
		t.Errorf("after force: %v", err)
	}

	// The lost one was not lost after all: it learns that its state is void.
	all[1].start()
	if err := all[1].ended(); !errors.Is(err, ErrRestart) {
		t.Errorf("Run ended with %v", err)
	}
	all[1].start()
	all[0].sees(2, member.Up)
	all[0].votes(2)

	// It may start anew, empty; the only voter may not.
	aside, err := all[1].c.Rejoin(all[1].ctx())
	if err != nil || !exists(aside) {
		t.Fatalf("rejoin: %q, %v", aside, err)
	}
	if err := all[1].ended(); !errors.Is(err, ErrRestart) {
		t.Errorf("Run ended with %v", err)
	}
	all[1].start()
	all[1].serves()
	if _, err := all[1].c.Registry().Put(all[1].ctx(), false, "/again", nil, 0); err != nil {
		t.Error(err)
	}
}

// TestDeclaredDead: a node that the others declared dead, without having died,
// starts anew with a new incarnation.
func TestDeclaredDead(t *testing.T) {
	t.Parallel()
	all := clusterOf(t, 3)
	inc := all[2].c.Incarnation()
	if _, err := all[0].c.SetState(all[0].ctx(), 3, member.KCleanup, "test"); err != nil {
		t.Fatal(err)
	}
	if err := all[2].ended(); !errors.Is(err, ErrRestart) {
		t.Fatalf("Run ended with %v", err)
	}
	if got, err := incarnation(filepath.Join(all[2].run, fileIncarnation)); err != nil || got <= inc {
		t.Errorf("the next incarnation is %d, %v; it was %d", got, err, inc)
	}
	all[2].start()
	all[0].sees(3, member.Up)

	// Its certificate is revoked: its connections end at once, it is forgotten with
	// its vote, and it stays out.
	if err := all[0].c.Revoke(all[0].ctx(), 3, ""); err != nil {
		t.Fatal(err)
	}
	v := all[0].sees(3, member.NeverUp)
	var causes []string
	for _, tr := range v.History {
		if tr.Node == 3 && tr.To == member.Down {
			causes = append(causes, tr.Cause)
		}
	}
	if want := []string{"test", "its certificates were revoked"}; !slices.Equal(causes, want) {
		t.Errorf("it went down because of %q, want %q", causes, want)
	}
	if _, err := all[0].c.status.Wait(all[0].ctx(), func(s core.Status) bool { return !slices.Contains(s.Voters, 3) }); err != nil {
		t.Errorf("it still votes: %v", err)
	}
	if !strings.Contains(all[0].log.String(), "revoked") {
		t.Error("the log does not say that its connections ended")
	}
	all[2].halt()

	// A new certificate for the number is good.
	token := all[0].token(3, time.Hour)
	m, err := admit(t, token, all[1].addr)
	if err != nil {
		t.Fatal(err)
	}
	m.start()
	all[1].sees(3, member.Up)

	for n, kind := range map[id.Node]errno.Kind{1: errno.Invalid, 9: errno.NotFound} {
		if err := all[0].c.Revoke(all[0].ctx(), n, ""); !errno.Is(err, kind) {
			t.Errorf("revoke node %d: %v", n, err)
		}
	}
}
