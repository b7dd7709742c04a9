package raftlog

import (
	"fmt"
	"io"
	"log"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	pb "go.etcd.io/raft/v3/raftpb"
)

var testID = Identity{Cluster: "c0ffee", Node: 3, RaftID: 1<<16 | 3, Recovery: 256}

// memDir is a temporary directory in memory, where a sync costs nothing.
func memDir(t testing.TB) string {
	if _, err := os.Stat("/dev/shm"); err != nil {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp("/dev/shm", "raftlog-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// smallDisk has segments of 8 KiB and hardly a reserve.
func smallDisk() disk {
	d := realDisk()
	d.segment, d.reserve = 16*blockSize, 1
	return d
}

func createWith(t testing.TB, dir string, d disk, snap *pb.Snapshot) *Log {
	t.Helper()
	lock, err := lockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	l, err := create(dir, lock, testID, snap, nil, d)
	if err != nil {
		_ = lock.Close()
		t.Fatal(err)
	}
	return l
}

func tryOpen(dir string, d disk) (*Log, error) {
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	l, err := openLocked(dir, lock, Identity{}, nil, d)
	if err != nil {
		_ = lock.Close()
	}
	return l, err
}

func openWith(t testing.TB, dir string, d disk) *Log {
	t.Helper()
	l, err := tryOpen(dir, d)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// crash drops a log as the end of its process would.
func crash(l *Log) {
	l.active().file.Close()
	_ = l.lock.Close()
}

func hard(term, vote, commit uint64) *pb.HardState {
	return &pb.HardState{Term: &term, Vote: &vote, Commit: &commit}
}

// entriesOf makes n entries from an index.
func entriesOf(from uint64, n int, term uint64, size int) []*pb.Entry {
	var out []*pb.Entry
	for i := range uint64(n) {
		data := make([]byte, size)
		copy(data, fmt.Sprintf("%d/%d", from+i, term))
		out = append(out, &pb.Entry{Index: new(from + i), Term: &term, Data: data})
	}
	return out
}

func snapshotOf(index, term uint64, data string) *pb.Snapshot {
	return &pb.Snapshot{Data: []byte(data), Metadata: &pb.SnapshotMetadata{
		Index: &index, Term: &term, ConfState: pb.EnsureConfState(&pb.ConfState{Voters: []uint64{testID.RaftID}}),
	}}
}

func save(t testing.TB, l *Log, hs *pb.HardState, entries []*pb.Entry, snap *pb.Snapshot) {
	t.Helper()
	if err := l.Save(hs, entries, snap, true); err != nil {
		t.Fatal(err)
	}
}

// text describes a log's state: snapshot, hard state but for the commit index,
// and entries. Logs that differ by a commit index or by older entries that are
// kept are the same.
func text(t testing.TB, l *Log) string {
	t.Helper()
	st, err := l.State()
	if err != nil {
		t.Fatal(err)
	}
	return stateText(st)
}

func stateText(st State) string {
	s := fmt.Sprintf("term %d vote %d snap %d %d %v %q", st.HardState.GetTerm(), st.HardState.GetVote(),
		st.Snapshot.GetMetadata().GetIndex(), st.Snapshot.GetMetadata().GetTerm(), st.Snapshot.GetMetadata().GetConfState().GetVoters(), st.Snapshot.GetData())
	for _, e := range st.Entries {
		s += fmt.Sprintf("\n%d %d %v %d %.20q", e.GetIndex(), e.GetTerm(), e.GetType(), len(e.Data), e.Data)
	}
	return s
}

// files are the contents of all files below dir.
func files(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() || info.Name() == "lock" || info.Name() == reserveFile {
			return err
		}
		b, err := os.ReadFile(path)
		rel, _ := filepath.Rel(dir, path)
		out[rel] = b
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// put makes dir hold exactly these files.
func put(t testing.TB, dir string, want map[string][]byte) {
	t.Helper()
	subs, _ := filepath.Glob(filepath.Join(dir, "*"))
	for _, sub := range subs {
		_ = os.RemoveAll(sub)
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, want[name], 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func clone(m map[string][]byte) map[string][]byte {
	out := maps.Clone(m)
	for k := range out {
		out[k] = slices.Clone(out[k])
	}
	return out
}

func quiet() *log.Logger { return log.New(io.Discard, "", 0) }
