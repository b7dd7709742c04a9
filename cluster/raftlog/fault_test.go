package raftlog

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"
	"golang.org/x/sys/unix"
)

// childEnv tells this test binary to be the process that a test wants to kill,
// or to have in a mount namespace of its own.
const childEnv = "RAFTLOG_TEST_CHILD"

func child(t *testing.T, name, dir string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+name+"$", "-test.v")
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	return cmd
}

// TestWriteFails makes one write fail after a part of it was done.
func TestWriteFails(t *testing.T) {
	for _, c := range []struct {
		err   error
		again bool // may the log be used further?
	}{{unix.ENOSPC, true}, {unix.EDQUOT, true}, {unix.EIO, false}} {
		dir := memDir(t)
		d := smallDisk()
		fail := false
		d.pwrite = func(f *os.File, b []byte, off int64) error {
			if fail {
				fail = false
				if _, err := f.WriteAt(b[:len(b)/2+7], off); err != nil {
					return err
				}
				return os.NewSyscallError("pwrite", c.err)
			}
			_, err := f.WriteAt(b, off)
			return err
		}
		l := createWith(t, dir, d, nil)
		save(t, l, hard(1, 1, 1), entriesOf(1, 2, 1, 50), nil)
		before := text(t, l)
		fail = true
		err := l.Save(hard(1, 1, 1), entriesOf(3, 5, 1, 300), nil, true)
		if !errors.Is(err, c.err) || !strings.Contains(err.Error(), dir) {
			t.Fatalf("%v: %v", c.err, err)
		}
		if got := text(t, l); got != before {
			t.Errorf("%v: state is %s", c.err, got)
		}
		err = l.Save(hard(1, 1, 1), entriesOf(3, 1, 1, 10), nil, true)
		if (err == nil) != c.again {
			t.Errorf("%v: the next save: %v", c.err, err)
		}
		want := text(t, l)
		crash(l)
		l = openWith(t, dir, smallDisk())
		if got := text(t, l); got != want {
			t.Errorf("%v: got %s\nwant %s", c.err, got, want)
		}
		crash(l)
	}
}

// TestSyncFails shows that a failed sync is final: a second one would succeed
// without the data being on the disk.
func TestSyncFails(t *testing.T) {
	dir := memDir(t)
	d := smallDisk()
	fail := false
	d.fdatasync = func(*os.File) error {
		if fail {
			fail = false
			return os.NewSyscallError("fdatasync", unix.EIO)
		}
		return nil
	}
	l := createWith(t, dir, d, nil)
	save(t, l, hard(1, 1, 1), entriesOf(1, 2, 1, 50), nil)
	before := text(t, l)
	fail = true
	if err := l.Save(hard(1, 1, 1), entriesOf(3, 1, 1, 50), nil, true); !errors.Is(err, unix.EIO) {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"save":     l.Save(hard(1, 1, 1), entriesOf(3, 1, 1, 50), nil, true),
		"commit":   l.Save(hard(1, 1, 2), nil, nil, false),
		"snapshot": l.TakeSnapshot(1, nil, nil),
	} {
		if !errors.Is(err, unix.EIO) {
			t.Errorf("%s after a failed sync: %v", name, err)
		}
	}
	if got := text(t, l); got != before {
		t.Errorf("state is %s", got)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

// TestCrashBetweenSegments stops after the new segment is there and before the
// old one has its end.
func TestCrashBetweenSegments(t *testing.T) {
	dir := memDir(t)
	d := smallDisk()
	fail := false
	d.pwrite = func(f *os.File, b []byte, off int64) error {
		if fail && off > 0 {
			return os.NewSyscallError("pwrite", unix.EIO)
		}
		_, err := f.WriteAt(b, off)
		return err
	}
	l := createWith(t, dir, d, nil)
	next := uint64(1)
	for l.active().room(3, endBlocks) {
		save(t, l, hard(1, 1, 1), entriesOf(next, 1, 1, 50), nil)
		next++
	}
	want := text(t, l)
	fail = true
	if err := l.Save(nil, entriesOf(next, 3, 1, 400), nil, true); !errors.Is(err, unix.EIO) {
		t.Fatal(err)
	}
	if seqs, _ := numbered(l.sub, logPrefix); len(seqs) != 2 {
		t.Fatalf("segments %v", seqs)
	}
	crash(l)
	for range 2 { // the first Open tidies up, the second finds it so
		l = openWith(t, dir, smallDisk())
		if got := text(t, l); got != want || len(l.segments) != 1 {
			t.Errorf("%d segments, got %s\nwant %s", len(l.segments), got, want)
		}
		crash(l)
	}
	l = openWith(t, dir, smallDisk())
	save(t, l, nil, entriesOf(next, 3, 1, 400), nil)
	want = text(t, l)
	crash(l)
	l = openWith(t, dir, smallDisk())
	defer func() { _ = l.Close() }()
	if got := text(t, l); got != want || len(l.segments) != 2 {
		t.Errorf("%d segments, got %s\nwant %s", len(l.segments), got, want)
	}
}

// TestFullDisk fills a small file system.
func TestFullDisk(t *testing.T) {
	if dir := os.Getenv(childEnv); dir != "" {
		fullDisk(t, dir)
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a small file system")
	}
	cmd := child(t, "TestFullDisk", t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func fullDisk(t *testing.T, mnt string) {
	if err := unix.Mount("none", mnt, "tmpfs", 0, "size=4m"); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(mnt, "raft")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	d := realDisk()
	d.segment, d.reserve = 64<<10, 512<<10
	l := createWith(t, dir, d, nil)
	next := uint64(1)
	put := func() error {
		err := l.Save(hard(1, 1, next-1), entriesOf(next, 4, 1, 2000), nil, true)
		if err == nil {
			next += 4
		}
		return err
	}
	var err error
	for err == nil {
		err = put()
	}
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "nothing acknowledged is lost") {
		t.Fatalf("full disk: %v", err)
	}
	for range 3 {
		if err := put(); !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("still full: %v", err)
		}
	}
	for size := 600; size > 0; size -= 100 { // and the last blocks of the segment
		for err = nil; err == nil; {
			if err = l.Save(hard(1, 1, next-1), entriesOf(next, 1, 1, size), nil, true); err == nil {
				next++
			}
		}
	}
	// Someone else takes what is left.
	hog, err := os.Create(filepath.Join(mnt, "hog"))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = hog.Write(make([]byte, 4096))
	}
	_ = hog.Close()
	want := text(t, l)
	crash(l)
	l = openWith(t, dir, d)
	if got := text(t, l); got != want {
		t.Fatalf("after a crash on a full disk: got %d bytes of state, want %d", len(got), len(want))
	}
	// The reserve makes the snapshot possible, which frees the segments.
	if err := l.Save(hard(1, 1, next-1), nil, nil, false); err != nil {
		t.Fatal(err)
	}
	if err := l.TakeSnapshot(next-1, &pb.ConfState{Voters: []uint64{1}}, make([]byte, 500<<10)); err != nil {
		t.Fatalf("snapshot on a full disk: %v", err)
	}
	if err := put(); err != nil {
		t.Fatalf("after the snapshot freed space: %v", err)
	}
	if info, err := os.Stat(filepath.Join(l.sub, reserveFile)); err != nil || info.Size() != d.reserve {
		t.Errorf("the reserve is not there again: %v", err)
	}
	want = text(t, l)
	crash(l)
	l = openWith(t, dir, d)
	defer func() { _ = l.Close() }()
	if got := text(t, l); got != want {
		t.Errorf("got %d bytes of state, want %d", len(got), len(want))
	}
}

// TestKilledWriter kills a writing process and looks for what it acknowledged.
func TestKilledWriter(t *testing.T) {
	if dir := os.Getenv(childEnv); dir != "" {
		endlessWriter(t, dir)
		return
	}
	dir := t.TempDir()
	l := createWith(t, dir, smallDisk(), nil)
	_ = l.Close()
	var acked uint64
	for round := range 6 {
		cmd := child(t, "TestKilledWriter", dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		guard := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); {
			if _, err := fmt.Sscanf(lines.Text(), "acked %d", &acked); err == nil {
				n++
			}
			if n == 20+13*round {
				_ = cmd.Process.Kill()
			}
		}
		guard.Stop()
		_ = cmd.Wait() // it was killed
		l := openWith(t, dir, smallDisk())
		st, err := l.State()
		if err != nil {
			t.Fatal(err)
		}
		last, _ := l.Storage().LastIndex()
		if last < acked || acked == 0 {
			t.Fatalf("round %d: the log ends at %d, %d was acknowledged", round, last, acked)
		}
		for _, e := range st.Entries {
			if want := fmt.Sprintf("%d/1", e.GetIndex()); !strings.HasPrefix(string(e.Data), want) {
				t.Fatalf("entry %d is %.20q", e.GetIndex(), e.Data)
			}
		}
		_ = l.Close()
	}
}

func endlessWriter(t *testing.T, dir string) {
	l := openWith(t, dir, smallDisk())
	last, err := l.Storage().LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	for next := last + 1; ; next += 3 {
		save(t, l, hard(1, 1, next-1), entriesOf(next, 3, 1, 32+int(next*37%2000)), nil) // their beginnings are compared
		fmt.Println("acked", next+2)
		if next%10 == 0 {
			if err := l.TakeSnapshot(next-1, nil, fmt.Appendf(nil, "%d", next)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestTakeSnapshotBesideSave runs both at once, for the race detector.
func TestTakeSnapshotBesideSave(t *testing.T) {
	dir := memDir(t)
	l := createWith(t, dir, smallDisk(), nil)
	saved := make(chan uint64, 1)
	done := make(chan error, 1)
	go func() {
		var err error
		for at := range saved {
			if err == nil {
				err = l.TakeSnapshot(at, nil, make([]byte, 1000))
			}
		}
		done <- err
	}()
	for next := uint64(1); next < 300; next++ {
		save(t, l, hard(1, 1, next), entriesOf(next, 1, 1, 100), nil)
		select {
		case saved <- next:
		default:
		}
	}
	close(saved)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	want := text(t, l)
	crash(l)
	l = openWith(t, dir, smallDisk())
	defer func() { _ = l.Close() }()
	if got := text(t, l); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

// BenchmarkSave saves batches of 16 entries of 256 bytes.
func BenchmarkSave(b *testing.B) {
	for name, dir := range map[string]string{"disk": b.TempDir(), "memory": memDir(b)} {
		b.Run(name, func(b *testing.B) {
			l, err := Create(filepath.Join(dir, fmt.Sprint(b.N)), testID, nil, nil)
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = l.Close() }()
			next := uint64(1)
			b.SetBytes(16 * 256)
			for b.Loop() {
				if err := l.Save(hard(1, 1, next-1), entriesOf(next, 16, 1, 256), nil, true); err != nil {
					b.Fatal(err)
				}
				next += 16
				if next%16384 == 1 {
					if err := l.TakeSnapshot(next-17, nil, nil); err != nil {
						b.Fatal(err)
					}
					if err := l.Compact(next - 17); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

// BenchmarkOpen opens a log with 10,000 entries.
func BenchmarkOpen(b *testing.B) {
	dir := memDir(b)
	l, err := Create(dir, testID, nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	if err := l.Save(hard(1, 1, 0), entriesOf(1, 10_000, 1, 256), nil, true); err != nil {
		b.Fatal(err)
	}
	_ = l.Close()
	for b.Loop() {
		l, err := Open(dir, testID, nil)
		if err != nil {
			b.Fatal(err)
		}
		_ = l.Close()
	}
}
