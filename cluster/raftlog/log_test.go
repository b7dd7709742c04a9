package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"golang.org/x/sys/unix"
)

func TestCreateOpen(t *testing.T) {
	dir := filepath.Join(memDir(t), "a", "raft")
	if _, err := Open(dir, Identity{}, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("no directory: %v", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Identity{}, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("empty directory: %v", err)
	}
	l, err := Create(dir, testID, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := l.State(); err != nil || !raft.IsEmptyHardState(st.HardState) || len(st.Entries) > 0 || !raft.IsEmptySnap(st.Snapshot) {
		t.Fatalf("new log holds %v, %v", st, err)
	}
	save(t, l, hard(1, 5, 0), entriesOf(1, 3, 1, 10), nil)
	want := text(t, l)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Save(hard(2, 5, 0), nil, nil, true); !errors.Is(err, os.ErrClosed) {
		t.Fatalf("save after close: %v", err)
	}
	if _, err := Create(dir, testID, nil, nil); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("create over a log: %v", err)
	}
	l, err = Open(dir, testID, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := text(t, l); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if l.Identity() != testID {
		t.Errorf("identity %v", l.Identity())
	}
	if err := l.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, testID, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("open after remove: %v", err)
	}
}

func TestBadIdentity(t *testing.T) {
	for _, id := range []Identity{
		{}, {Cluster: "a b", Node: 1, RaftID: 1}, {Cluster: strings.Repeat("x", 65), Node: 1, RaftID: 1},
		{Cluster: "c", Node: 128, RaftID: 1}, {Cluster: "c", Node: 1},
	} {
		if l, err := Create(memDir(t), id, nil, nil); err == nil {
			_ = l.Close()
			t.Errorf("%+v was accepted", id)
		}
	}
}

func TestIdentityMismatch(t *testing.T) {
	dir := memDir(t)
	l, err := Create(dir, testID, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	for _, want := range []Identity{{Cluster: "other"}, {Node: 4}, {RaftID: 9}, {Recovery: 1}} {
		_, err := Open(dir, want, nil)
		var d *DamagedError
		if !errors.As(err, &d) || !strings.Contains(d.Why, "belongs to") {
			t.Errorf("%+v: %v", want, err)
		}
	}
}

func TestLock(t *testing.T) {
	dir := memDir(t)
	l, err := Create(dir, testID, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, err = Open(dir, testID, nil)
	if !errors.Is(err, unix.EBUSY) || !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) {
		t.Fatalf("second open: %v", err)
	}
}

func TestConflictingEntriesReplace(t *testing.T) {
	dir := memDir(t)
	l := createWith(t, dir, smallDisk(), nil)
	save(t, l, hard(1, 1, 2), entriesOf(1, 10, 1, 30), nil)
	save(t, l, hard(2, 1, 2), entriesOf(5, 2, 2, 30), nil)
	if last, _ := l.Storage().LastIndex(); last != 6 {
		t.Fatalf("last index %d", last)
	}
	want := text(t, l)
	crash(l)
	l = openWith(t, dir, smallDisk())
	defer func() { _ = l.Close() }()
	if got := text(t, l); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func TestSaveRefusesNonsense(t *testing.T) {
	l := createWith(t, memDir(t), smallDisk(), nil)
	defer func() { _ = l.Close() }()
	save(t, l, hard(3, 1, 2), entriesOf(1, 4, 3, 5), nil)
	want := text(t, l)
	for name, err := range map[string]error{
		"gap":             l.Save(nil, entriesOf(6, 1, 3, 5), nil, true),
		"committed":       l.Save(nil, entriesOf(2, 1, 3, 5), nil, true),
		"term back":       l.Save(nil, entriesOf(5, 1, 2, 5), nil, true),
		"term ahead":      l.Save(nil, entriesOf(5, 1, 4, 5), nil, true),
		"commit ahead":    l.Save(hard(3, 1, 9), nil, nil, true),
		"hard state back": l.Save(hard(2, 1, 2), nil, nil, true),
		"too big":         l.Save(nil, entriesOf(5, 1, 3, MaxSave), nil, true),
		"uncommitted":     l.TakeSnapshot(3, nil, nil),
		"compact":         l.Compact(2),
	} {
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if got := text(t, l); got != want {
		t.Errorf("changed to %s", got)
	}
	save(t, l, hard(3, 1, 4), entriesOf(5, 1, 3, 5), nil)
}

// TestCommitIndexAlone shows that a commit index costs no write, that Close
// writes it, and that a crash forgets it but not what a snapshot covers.
func TestCommitIndexAlone(t *testing.T) {
	dir := memDir(t)
	d := smallDisk()
	syncs := 0
	d.fdatasync = func(f *os.File) error { syncs++; return nil }
	l := createWith(t, dir, d, nil)
	save(t, l, hard(1, 1, 0), entriesOf(1, 5, 1, 5), nil)
	syncs = 0
	if err := l.Save(hard(1, 1, 3), nil, nil, false); err != nil || syncs != 0 {
		t.Fatalf("%v, %d syncs", err, syncs)
	}
	commit := func() uint64 {
		hs, _, err := l.Storage().InitialState()
		if err != nil {
			t.Fatal(err)
		}
		return hs.GetCommit()
	}
	crash(l)
	l = openWith(t, dir, d)
	if commit() != 0 {
		t.Errorf("commit %d after a crash", commit())
	}
	save(t, l, hard(1, 1, 3), nil, nil)
	if err := l.Save(hard(1, 1, 5), nil, nil, false); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = openWith(t, dir, d)
	defer func() { _ = l.Close() }()
	if commit() != 5 {
		t.Errorf("commit %d after Close", commit())
	}
}

func TestSegmentsRollAndGo(t *testing.T) {
	dir := memDir(t)
	l := createWith(t, dir, smallDisk(), nil)
	next := uint64(1)
	for range 40 {
		save(t, l, hard(1, 1, next), entriesOf(next, 3, 1, 300), nil)
		next += 3
	}
	// One that needs a segment of its own size.
	save(t, l, hard(1, 1, next), entriesOf(next, 4, 1, 10_000), nil)
	if n := len(l.segments); n < 5 {
		t.Fatalf("%d segments", n)
	}
	want := text(t, l)
	crash(l)
	l = openWith(t, dir, smallDisk())
	if got := text(t, l); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	for i, at := range []uint64{60, 100, 120} {
		if err := l.TakeSnapshot(at, &pb.ConfState{Voters: []uint64{7}}, fmt.Appendf(nil, "state at %d", at)); err != nil {
			t.Fatal(err)
		}
		snaps, _ := numbered(l.sub, snapPrefix)
		if len(snaps) != min(i+1, 2) {
			t.Errorf("%d snapshots after %d", len(snaps), i+1)
		}
	}
	if err := l.TakeSnapshot(120, nil, nil); !errors.Is(err, raft.ErrSnapOutOfDate) {
		t.Errorf("same snapshot again: %v", err)
	}
	if first := l.segments[0].seq; first < 4 {
		t.Errorf("first segment is %d", first)
	}
	if err := l.Compact(110); err != nil {
		t.Fatal(err)
	}
	if first, _ := l.Storage().FirstIndex(); first != 111 {
		t.Errorf("first index %d", first)
	}
	want = text(t, l)
	if !strings.Contains(want, "snap 120 1 [7] \"state at 120\"") {
		t.Error(want)
	}
	crash(l)
	l = openWith(t, dir, smallDisk())
	defer func() { _ = l.Close() }()
	if got := text(t, l); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if first, _ := l.Storage().FirstIndex(); first != 101 {
		t.Errorf("entries since %d, want those since the older snapshot", first)
	}
}

func TestReceivedSnapshot(t *testing.T) {
	dir := memDir(t)
	l := createWith(t, dir, smallDisk(), snapshotOf(1, 1, "begin"))
	save(t, l, hard(1, 1, 2), entriesOf(2, 4, 1, 50), nil)
	save(t, l, hard(4, 2, 101), entriesOf(101, 1, 4, 50), snapshotOf(100, 3, "from the leader"))
	save(t, l, hard(4, 2, 102), entriesOf(102, 40, 4, 200), nil) // rolls
	want := text(t, l)
	crash(l)
	l = openWith(t, dir, smallDisk())
	defer func() { _ = l.Close() }()
	if got := text(t, l); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if err := l.Save(nil, nil, snapshotOf(90, 3, "old"), true); err == nil {
		t.Error("an older snapshot was accepted")
	}
}

// TestRandomLife drives a log with random operations and crashes and compares
// it with what raft.MemoryStorage would hold.
func TestRandomLife(t *testing.T) {
	seeds := uint64(60)
	if slow {
		seeds = 10
	}
	t.Logf("%d seeds", seeds)
	for seed := range seeds {
		randomLife(t, seed)
	}
}

func randomLife(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 0))
	dir := memDir(t)
	l := createWith(t, dir, smallDisk(), nil)
	var model State
	model.HardState, model.Snapshot = hard(0, 0, 0), pb.EnsureSnapshot(nil)
	term, commit := uint64(1), uint64(0)
	for step := range 120 {
		snapAt := model.Snapshot.GetMetadata().GetIndex()
		last := snapAt + uint64(len(model.Entries))
		switch rnd.IntN(10) {
		case 0, 1, 2, 3, 4:
			if rnd.IntN(6) == 0 {
				term++
			}
			from := last + 1
			if rnd.IntN(4) == 0 {
				from = commit + 1 + rnd.Uint64N(last-commit+1)
			}
			if e := from - snapAt - 1; e > 0 && model.Entries[e-1].GetTerm() > term {
				term = model.Entries[e-1].GetTerm()
			}
			add := entriesOf(from, 1+rnd.IntN(5), term, rnd.IntN(900))
			model.Entries = append(slices.Clone(model.Entries[:from-snapAt-1]), add...)
			commit += rnd.Uint64N(from + uint64(len(add)) - commit)
			model.HardState = hard(term, rnd.Uint64N(3), commit)
			save(t, l, model.HardState, add, nil)
		case 5:
			term++
			model.HardState = hard(term, 1, commit)
			save(t, l, model.HardState, nil, nil)
		case 6, 7:
			if commit == snapAt {
				continue
			}
			at := snapAt + 1 + rnd.Uint64N(commit-snapAt)
			data := fmt.Sprintf("seed %d step %d", seed, step)
			if err := l.TakeSnapshot(at, &pb.ConfState{Voters: []uint64{testID.RaftID}}, []byte(data)); err != nil {
				t.Fatalf("seed %d step %d: %v", seed, step, err)
			}
			model.Snapshot = snapshotOf(at, model.Entries[at-snapAt-1].GetTerm(), data)
			model.Entries = model.Entries[at-snapAt:]
			if rnd.IntN(2) == 0 {
				if err := l.Compact(at - min(at, rnd.Uint64N(3))); err != nil {
					t.Fatal(err)
				}
			}
		case 8:
			if rnd.IntN(3) > 0 {
				continue
			}
			term++
			commit = last + 1 + rnd.Uint64N(20)
			model = State{HardState: hard(term, 0, commit), Snapshot: snapshotOf(commit, term, fmt.Sprint("received ", step))}
			save(t, l, model.HardState, nil, model.Snapshot)
		case 9:
			crash(l)
			l = openWith(t, dir, smallDisk())
		}
		if got, want := text(t, l), stateText(model); got != want {
			t.Fatalf("seed %d step %d: got %s\nwant %s", seed, step, got, want)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestRaft runs the consensus itself on the log, with crashes.
func TestRaft(t *testing.T) {
	dir := memDir(t)
	l := createWith(t, dir, smallDisk(), snapshotOf(1, 1, ""))
	var applied []string
	for round := range 4 {
		rn, err := raft.NewRawNode(&raft.Config{
			ID: testID.RaftID, ElectionTick: 10, HeartbeatTick: 1, Storage: l.Storage(),
			MaxSizePerMsg: 1 << 20, MaxInflightMsgs: 16, Logger: &raft.DefaultLogger{Logger: quiet()},
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := rn.Campaign(); err != nil {
			t.Fatal(err)
		}
		applied = nil
		for i := 0; i < 50 || rn.HasReady(); i++ {
			if i < 50 {
				if err := rn.Propose(fmt.Appendf(nil, "%d.%d", round, i)); err != nil && i > 5 {
					t.Fatal(err)
				}
			}
			if !rn.HasReady() {
				continue
			}
			rd := rn.Ready()
			if err := l.Save(rd.HardState, rd.Entries, rd.Snapshot, rd.MustSync); err != nil {
				t.Fatal(err)
			}
			for _, e := range rd.CommittedEntries {
				if len(e.Data) > 0 {
					applied = append(applied, string(e.Data))
				}
			}
			rn.Advance(rd)
		}
		crash(l)
		l = openWith(t, dir, smallDisk())
	}
	defer func() { _ = l.Close() }()
	for round := range 4 {
		if want := fmt.Sprintf("%d.49", round); !slices.Contains(applied, want) {
			t.Errorf("entry %s is lost; applied %d", want, len(applied))
		}
	}
}

// withVoters is an edit for Replace: other voters, and the same term and entries
// but for changes of the voters.
func withVoters(voters ...uint64) func(State) (State, error) {
	return func(st State) (State, error) {
		meta := st.Snapshot.GetMetadata()
		st.Snapshot = &pb.Snapshot{Data: st.Snapshot.GetData(), Metadata: &pb.SnapshotMetadata{
			ConfState: &pb.ConfState{Voters: voters}, Index: new(meta.GetIndex()), Term: new(meta.GetTerm()),
		}}
		st.Entries = slices.Clone(st.Entries)
		for i, e := range st.Entries {
			if e.GetType() != pb.EntryNormal {
				st.Entries[i] = &pb.Entry{Type: pb.EntryNormal.Enum(), Index: new(e.GetIndex()), Term: new(e.GetTerm())}
			}
		}
		return st, nil
	}
}

func TestReplace(t *testing.T) {
	for _, base := range []uint64{0, 1} {
		dir := memDir(t)
		var first *pb.Snapshot
		if base > 0 {
			first = snapshotOf(base, 1, "state")
		}
		l := createWith(t, dir, smallDisk(), first)
		entries := entriesOf(base+1, 5, 1, 20)
		entries[1].Type = pb.EntryConfChangeV2.Enum()
		save(t, l, hard(1, 9, base+2), entries, nil)
		if err := Replace(dir, 512, withVoters(77), nil); !errors.Is(err, unix.EBUSY) {
			t.Fatalf("a log in use is replaced: %v", err)
		}
		crash(l)
		if err := Replace(dir, testID.Recovery, withVoters(77), nil); err == nil {
			t.Error("the same generation was accepted")
		}
		if err := Replace(dir, 512, withVoters(77), nil); err != nil {
			t.Fatal(err)
		}
		l, err := Open(dir, Identity{Recovery: 512, RaftID: testID.RaftID}, nil)
		if err != nil {
			t.Fatal(err)
		}
		hs, conf, err := l.Storage().InitialState()
		if err != nil || !slices.Equal(conf.GetVoters(), []uint64{77}) || hs.GetTerm() != 1 || hs.GetVote() != 9 || hs.GetCommit() != base+2 {
			t.Errorf("%v %v %v", hs, conf, err)
		}
		st, err := l.State()
		if err != nil || len(st.Entries) != 5 || st.Entries[1].GetType() != pb.EntryNormal || len(st.Entries[1].Data) != 0 || !bytes.Equal(st.Entries[4].Data, entries[4].Data) {
			t.Errorf("%v, %v", st.Entries, err)
		}
		save(t, l, hard(2, 9, base+6), entriesOf(base+6, 1, 2, 5), nil)
		if subs, _ := numbered(dir, subPrefix); len(subs) != 1 {
			t.Errorf("%d logs", len(subs))
		}
		_ = l.Close()
	}
}

// TestReplaceCrash opens what a crash in Replace leaves: the old log or the new.
func TestReplaceCrash(t *testing.T) {
	dir := memDir(t)
	l := createWith(t, dir, smallDisk(), nil)
	save(t, l, hard(1, 1, 1), entriesOf(1, 2, 1, 9), nil)
	crash(l)
	before := files(t, dir)
	if err := Replace(dir, 300, withVoters(5), nil); err != nil {
		t.Fatal(err)
	}
	both := clone(before)
	unfinished := clone(before)
	for name, b := range files(t, dir) {
		both[name] = b
		unfinished[filepath.Join(buildDir, filepath.Base(name))] = b
	}
	for _, c := range []struct {
		files    map[string][]byte
		recovery uint64
	}{{both, 300}, {unfinished, testID.Recovery}} {
		put(t, dir, c.files)
		l := openWith(t, dir, smallDisk())
		if l.Identity().Recovery != c.recovery {
			t.Errorf("recovery %d, want %d", l.Identity().Recovery, c.recovery)
		}
		_ = l.Close()
		if all, _ := filepath.Glob(filepath.Join(dir, "*")); len(all) != 2 {
			t.Errorf("left behind: %v", all)
		}
	}
}
