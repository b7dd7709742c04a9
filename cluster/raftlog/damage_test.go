package raftlog

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	pb "go.etcd.io/raft/v3/raftpb"
)

// victim is a log of some segments, with two snapshots, on which damage is
// tried. Its last group has several blocks.
type victim struct {
	dir    string
	files  map[string][]byte
	disk   map[string][]byte // what is in dir, if known
	whole  string            // its state
	before string            // its state before the last Save
	last   string            // the last segment
	begin  int64             // of the last group there
	end    int64
}

func newVictim(t testing.TB) *victim {
	t.Helper()
	v := &victim{dir: memDir(t)}
	d := smallDisk()
	d.segment = 9 * blockSize
	l := createWith(t, v.dir, d, nil)
	next := uint64(1)
	add := func(n, size int) {
		save(t, l, hard(1, 1, next), entriesOf(next, n, 1, size), nil)
		next += uint64(n)
	}
	snap := func(at uint64) {
		if err := l.TakeSnapshot(at, &pb.ConfState{Voters: []uint64{1}}, fmt.Appendf(nil, "state %d", at)); err != nil {
			t.Fatal(err)
		}
	}
	for range 4 {
		add(2, 100)
	}
	snap(3)
	for range 3 {
		add(2, 100)
	}
	snap(9)
	for len(l.segments) < 3 || l.active().at.block != 3 {
		add(1, 100)
	}
	v.before = text(t, l)
	active := l.active()
	v.begin = int64(active.at.block) * blockSize
	add(3, 480)
	v.end = int64(l.active().at.block) * blockSize
	v.whole = text(t, l)
	v.last, _ = filepath.Rel(v.dir, l.active().path)
	if blocks := (v.end - v.begin) / blockSize; len(l.segments) < 3 || blocks < 3 || l.active() != active {
		t.Fatalf("%d segments, last group has %d blocks", len(l.segments), blocks)
	}
	crash(l)
	v.files = files(t, v.dir)
	return v
}

// open opens the victim with other files; the state is empty if it is refused.
func (v *victim) open(t testing.TB, files map[string][]byte) (state string, err error) {
	t.Helper()
	v.put(t, files)
	l, err := tryOpen(v.dir, smallDisk())
	if err != nil {
		var d *DamagedError
		if !errors.As(err, &d) {
			t.Fatalf("not a DamagedError: %v", err)
		}
		if !strings.Contains(err.Error(), v.dir) || !strings.Contains(err.Error(), "rejoin") || strings.Contains(err.Error(), "\n") {
			t.Fatalf("not a helpful message: %v", err)
		}
		return "", err
	}
	defer crash(l)
	v.disk = nil // it may have tidied up
	return text(t, l), nil
}

// put makes the directory hold these files; a refused Open changes none, so
// only those that differ have to be written.
func (v *victim) put(t testing.TB, files map[string][]byte) {
	t.Helper()
	if v.disk == nil || len(v.disk) != len(files) {
		put(t, v.dir, files)
	} else {
		for name, b := range files {
			if d := v.disk[name]; len(b) == len(d) && (len(b) == 0 || &b[0] == &d[0]) {
				continue
			}
			if err := os.WriteFile(filepath.Join(v.dir, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	v.disk = files
}

// stride is the distance of the bytes that are tried: all, but for the race
// detector, which learns nothing from more.
func stride() int {
	if slow {
		return 13
	}
	return 1
}

// usedUp is the end of the last block of a file that is not zero.
func usedUp(b []byte) int {
	n := len(b)
	for n > blockSize && isZero(b[n-blockSize:n]) {
		n -= blockSize
	}
	return n
}

// TestFlippedBits flips each byte of each file: nothing may be lost silently.
func TestFlippedBits(t *testing.T) {
	v := newVictim(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	// What a log is worth whose newest snapshot cannot be read; see
	// TestOlderSnapshot.
	without := maps.Clone(v.files)
	for name := range v.files {
		if strings.HasSuffix(name, fmt.Sprintf("%s%016x", snapPrefix, 9)) {
			delete(without, name)
		}
	}
	older, err := v.open(t, without)
	if err != nil || len(without) == len(v.files) {
		t.Fatal(err)
	}
	refused, kept := 0, 0
	for _, name := range slices.Sorted(maps.Keys(v.files)) {
		for off := 0; off < len(v.files[name]); off += stride() {
			if off >= usedUp(v.files[name]) {
				off += 60
			}
			if off >= len(v.files[name]) {
				break
			}
			bad := maps.Clone(v.files)
			bad[name] = slices.Clone(bad[name])
			bad[name][off] ^= 1 << rnd.IntN(8)
			state, err := v.open(t, bad)
			switch {
			case err != nil:
				refused++
			case state != v.whole && state != older:
				t.Fatalf("%s byte %d: opened with %s", name, off, state)
			case !strings.Contains(name, snapPrefix):
				t.Fatalf("%s byte %d: not noticed", name, off)
			default:
				kept++
			}
		}
	}
	t.Logf("%d refused, %d opened by the older snapshot", refused, kept)
}

// TestShortened cuts the files at each byte: every file has its size from the
// beginning, so that is no trace of a crash.
func TestShortened(t *testing.T) {
	v := newVictim(t)
	for _, name := range slices.Sorted(maps.Keys(v.files)) {
		step := stride()
		if strings.Contains(name, logPrefix) && name != v.last {
			step = 17
		}
		for n := 0; n < len(v.files[name]); n += step {
			bad := maps.Clone(v.files)
			bad[name] = bad[name][:n]
			if state, err := v.open(t, bad); err == nil && !strings.Contains(name, snapPrefix) {
				t.Fatalf("%s cut at %d: opened with %s", name, n, state)
			}
		}
	}
}

// TestUnfinishedWrite leaves each combination of the blocks of the last group
// unwritten, as a power cut does: the log is what it was before, and works.
func TestUnfinishedWrite(t *testing.T) {
	v := newVictim(t)
	blocks := int((v.end - v.begin) / blockSize)
	for missing := 1; missing < 1<<blocks; missing++ {
		bad := clone(v.files)
		for i := range blocks {
			if missing&(1<<i) != 0 {
				at := v.begin + int64(i)*blockSize
				clear(bad[v.last][at : at+blockSize])
			}
		}
		put(t, v.dir, bad)
		l := openWith(t, v.dir, smallDisk())
		if got := text(t, l); got != v.before {
			t.Fatalf("blocks %b missing: got %s\nwant %s", missing, got, v.before)
		}
		last, _ := l.Storage().LastIndex()
		save(t, l, hard(2, 1, 1), entriesOf(last+1, 1, 2, 10), nil)
		want := text(t, l)
		crash(l)
		l = openWith(t, v.dir, smallDisk())
		if got := text(t, l); got != want {
			t.Fatalf("blocks %b missing, then written: got %s\nwant %s", missing, got, want)
		}
		crash(l)
	}
}

// TestZeroedFromByte zeroes the last segment from each byte on. Behind a block
// boundary in the last group this is a crash, elsewhere damage.
func TestZeroedFromByte(t *testing.T) {
	v := newVictim(t)
	for off := int64(0); off < v.end; off += int64(stride()) {
		bad := maps.Clone(v.files)
		bad[v.last] = slices.Clone(bad[v.last])
		clear(bad[v.last][off:])
		state, err := v.open(t, bad)
		switch {
		case err != nil && off > v.begin && off%blockSize == 0:
			t.Fatalf("zero from %d: refused: %v", off, err)
		case err == nil && state != v.before && state != v.whole:
			// Zeros from the end of an earlier group on cannot be told from a
			// log that never was longer.
			end := (off + blockSize - 1) / blockSize * blockSize
			if used := v.files[v.last][off:end]; strings.Trim(string(used), "\x00") != "" {
				t.Fatalf("zero from %d (last group at %d): opened with %s", off, v.begin, state)
			}
		}
	}
}

// TestZeroedBlock zeroes each block that was written before the last group.
func TestZeroedBlock(t *testing.T) {
	v := newVictim(t)
	for name, b := range v.files {
		if !strings.Contains(name, logPrefix) {
			continue
		}
		for off := int64(0); off < int64(len(b)); off += blockSize {
			if isZero(b[off:off+blockSize]) || name == v.last && off >= v.begin {
				continue
			}
			bad := clone(v.files)
			clear(bad[name][off : off+blockSize])
			if state, err := v.open(t, bad); err == nil {
				t.Fatalf("%s: zeroed block at %d: opened with %s", name, off, state)
			}
		}
	}
}

func TestMissingFiles(t *testing.T) {
	v := newVictim(t)
	names := slices.Sorted(maps.Keys(v.files))
	for _, name := range names {
		bad := maps.Clone(v.files)
		delete(bad, name)
		state, err := v.open(t, bad)
		if err == nil && state != v.whole && !strings.Contains(name, snapPrefix) {
			t.Errorf("without %s: opened with %s", name, state)
		}
	}
	snaps := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !strings.Contains(n, snapPrefix) })
	if len(snaps) != 2 {
		t.Fatalf("snapshots %v", snaps)
	}
	bad := maps.Clone(v.files)
	delete(bad, snaps[0])
	delete(bad, snaps[1])
	if state, err := v.open(t, bad); err == nil {
		t.Errorf("without snapshots: opened with %s", state)
	}
	only := map[string][]byte{}
	for _, n := range names {
		if strings.HasSuffix(n, identityFile) {
			only[n] = v.files[n]
		}
	}
	if state, err := v.open(t, only); err == nil {
		t.Errorf("with the identity only: opened with %s", state)
	}
}

// TestOlderSnapshot shows that a bad newest snapshot costs nothing while the
// one before it and the log are there, and that it is told.
func TestOlderSnapshot(t *testing.T) {
	v := newVictim(t)
	snaps := slices.DeleteFunc(slices.Sorted(maps.Keys(v.files)), func(n string) bool { return !strings.Contains(n, snapPrefix) })
	bad := clone(v.files)
	bad[snaps[1]][len(bad[snaps[1]])-6] ^= 4
	put(t, v.dir, bad)
	lock, err := lockDir(v.dir)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	l, err := openLocked(v.dir, lock, Identity{}, slog.New(slog.NewTextHandler(&out, nil)), smallDisk())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	st, err := l.State()
	if err != nil || st.Snapshot.GetMetadata().GetIndex() != 3 || st.Entries[0].GetIndex() != 4 {
		t.Fatalf("%v, %v", st, err)
	}
	if tail := v.whole[strings.Index(v.whole, "\n"):]; !strings.HasSuffix(stateText(st), tail) {
		t.Errorf("got %s\nwant the end of %s", stateText(st), v.whole)
	}
	if !strings.Contains(out.String(), "newest snapshot is damaged") {
		t.Errorf("log: %s", &out)
	}
	if err := l.TakeSnapshot(9, nil, []byte("again")); err != nil {
		t.Fatal(err)
	}
	want := text(t, l)
	crash(l)
	l2 := openWith(t, v.dir, smallDisk())
	defer func() { _ = l2.Close() }()
	if got := text(t, l2); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

// TestBadReceivedSnapshot: the log before a snapshot from the leader is no
// substitute for it.
func TestBadReceivedSnapshot(t *testing.T) {
	dir := memDir(t)
	l := createWith(t, dir, smallDisk(), snapshotOf(1, 1, "begin"))
	save(t, l, hard(1, 1, 2), entriesOf(2, 4, 1, 50), nil)
	save(t, l, hard(4, 2, 100), nil, snapshotOf(100, 3, "from the leader"))
	path := snapshotPath(l.sub, 100)
	crash(l)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	_, err := Open(dir, Identity{}, nil)
	var d *DamagedError
	if !errors.As(err, &d) || !strings.Contains(d.File, "snap-0000000000000064") {
		t.Fatalf("%v", err)
	}
}

// TestForeignFiles puts segments and snapshots of another log in place.
func TestForeignFiles(t *testing.T) {
	v, other := newVictim(t), memDir(t)
	id := testID
	id.Node = 9
	lock, err := lockDir(other)
	if err != nil {
		t.Fatal(err)
	}
	l, err := create(other, lock, id, nil, nil, smallDisk())
	if err != nil {
		t.Fatal(err)
	}
	save(t, l, hard(1, 1, 2), entriesOf(1, 2, 1, 5), nil)
	seg, err := os.ReadFile(l.active().path)
	if err != nil {
		t.Fatal(err)
	}
	crash(l)
	bad := maps.Clone(v.files)
	bad[v.last] = seg
	if _, err := v.open(t, bad); err == nil {
		t.Error("a segment of another node was accepted")
	}
	alone := maps.Clone(files(t, other))
	for name := range alone {
		if strings.HasSuffix(name, identityFile) {
			alone[name] = []byte(testID.text())
		}
	}
	if _, err := v.open(t, alone); err == nil || !strings.Contains(err.Error(), "belongs to") {
		t.Errorf("a log with another identity was accepted: %v", err)
	}
	swapped := maps.Clone(v.files)
	var segs []string
	for _, n := range slices.Sorted(maps.Keys(v.files)) {
		if strings.Contains(n, logPrefix) {
			segs = append(segs, n)
		}
	}
	swapped[segs[0]], swapped[segs[1]] = swapped[segs[1]], swapped[segs[0]]
	if _, err := v.open(t, swapped); err == nil {
		t.Error("swapped segments were accepted")
	}
}

// FuzzOpen opens mutated segments and snapshots: refused or opened, never a
// panic, and never with less than was saved before the last group.
func FuzzOpen(f *testing.F) {
	v := newVictim(f)
	names := slices.Sorted(maps.Keys(v.files))
	for i, n := range names {
		f.Add(uint8(i), uint32(0), []byte{1})
		f.Add(uint8(i), uint32(len(v.files[n])/2), make([]byte, blockSize))
	}
	f.Fuzz(func(t *testing.T, file uint8, off uint32, patch []byte) {
		name := names[int(file)%len(names)]
		bad := maps.Clone(v.files)
		bad[name] = slices.Clone(bad[name])
		b := bad[name]
		copy(b[int(off)%len(b):], patch)
		state, err := v.open(t, bad)
		if err == nil && state != v.whole && state != v.before && !strings.Contains(name, snapPrefix) {
			t.Fatalf("opened with %s", state)
		}
	})
}

// FuzzRecords decodes groups that have a right checksum but any content.
func FuzzRecords(f *testing.F) {
	f.Add(appendBase(nil, 0))
	b, err := payloadOf(hard(1, 2, 3), entriesOf(1, 2, 1, 3), &mark{index: 1, term: 1, crc: 7})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append(appendBase(nil, 7), b...))
	f.Fuzz(func(t *testing.T, b []byte) {
		p := replay{}
		p.beginSegment()
		if decodeRecords(b, p.add) != nil || !p.begun {
			return
		}
		s, _, err := p.finish(func(m mark) (*pb.Snapshot, error) { return snapshotOf(m.index, m.term, ""), nil })
		if err == nil {
			first, _ := s.FirstIndex()
			if last, _ := s.LastIndex(); last+1 < first {
				t.Fatalf("log from %d to %d", first, last)
			}
		}
	})
}
