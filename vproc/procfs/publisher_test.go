package procfs

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/errno"
	"ssi/internal/id"
)

// fakeProc is a directory that looks like a proc(5).
type fakeProc struct {
	t   *testing.T
	dir string
}

func newFakeProc(t *testing.T) fakeProc {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: it reads in the name of others")
	}
	dir, err := os.MkdirTemp("", "proc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	p := fakeProc{t, dir}
	p.file("stat", "cpu 1 2 3\nbtime 1700000000\nprocesses 5\n")
	p.process(1, "init", "")
	return p
}

func (p fakeProc) file(name, content string) {
	p.t.Helper()
	at := filepath.Join(p.dir, name)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(at, []byte(content), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

func (p fakeProc) process(pid int, name, args string) {
	p.t.Helper()
	d := strconv.Itoa(pid) + "/"
	p.file(d+"stat", string(line(pid, name, statNumbers(1, 0, 0, -1, 1, 100)...)))
	p.file(d+"status", "Name:\t"+name+"\nPPid:\t1\n")
	p.file(d+"statm", "1 2 3\n")
	p.file(d+"cmdline", args)
}

func (p fakeProc) end(pid int) {
	p.t.Helper()
	if err := os.RemoveAll(filepath.Join(p.dir, strconv.Itoa(pid))); err != nil {
		p.t.Fatal(err)
	}
}

// pollUntil polls until f is content with what changed since the last call.
func pollUntil(t *testing.T, p *Publisher, since *PollReply, f func(*PollReply) error) *PollReply {
	t.Helper()
	var rep *PollReply
	within(t, 10*time.Second, func() (err error) { // a scan answers everybody for a while
		rep, err = p.Poll(t.Context(), &PollRequest{Instance: since.GetInstance(), Since: since.GetAt()})
		if err != nil {
			return err
		}
		return f(rep)
	})
	return rep
}

func toldPIDs(rep *PollReply) (all []int32) {
	for _, p := range rep.GetProcesses() {
		all = append(all, p.GetPid())
	}
	slices.Sort(all)
	return all
}

func TestPublisher(t *testing.T) {
	proc := newFakeProc(t)
	proc.process(two, "a", "a\x00")
	proc.process(two+1, "standin", "")
	proc.process(77, "low", "")
	proc.process(tri, "placed", "")
	proc.process(tri+1, "stray", "")
	away := false // the first one lives elsewhere
	p, err := NewPublisher(proc.dir, 2, func(pid id.PID) bool { return pid == tri }, func(pid id.PID) bool { return pid == two+1 || pid == two && away })
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	is := func(full bool, gone []int32, want ...int32) func(*PollReply) error {
		return func(rep *PollReply) error {
			if got := toldPIDs(rep); rep.GetFull() != full || !slices.Equal(got, want) || !slices.Equal(rep.GetGone(), gone) {
				return fmt.Errorf("full %v, told %v, gone %v; want %v, %v, %v", rep.GetFull(), got, rep.GetGone(), full, want, gone)
			}
			return nil
		}
	}
	first := pollUntil(t, p, nil, is(true, nil, two, tri))
	if first.GetBoot() != 1700000000 || !slices.Contains(first.GetFiles(), "statm") {
		t.Errorf("%+v", first)
	}
	pollUntil(t, p, first, is(false, nil))
	proc.process(two+2, "b", string(make([]byte, maxCmdline+10)))
	next := pollUntil(t, p, first, is(false, nil, two+2))
	if c := next.GetProcesses()[0]; !c.GetLong() || len(c.GetCmdline()) != maxCmdline {
		t.Errorf("a command line of %d bytes, long %v", len(c.GetCmdline()), c.GetLong())
	}
	proc.process(two, "renamed", "a\x00")
	proc.end(two + 2)
	last := pollUntil(t, p, next, is(false, []int32{two + 2}, two))
	pollUntil(t, p, last, is(false, nil))
	pollUntil(t, p, first, is(false, []int32{two + 2}, two)) // somebody who knows less
	pollUntil(t, p, &PollReply{Instance: p.instance + 1, At: 3}, is(true, nil, two, tri))
	pollUntil(t, p, &PollReply{Instance: p.instance, At: 1 << 60}, is(true, nil, two, tri))
	away = true
	last = pollUntil(t, p, last, is(false, []int32{two}))
	// More ends than are remembered: who is too far behind is told everything.
	p.lost = last.GetAt() + 1
	pollUntil(t, p, last, is(true, nil, tri))
}

// Who only wants to know which processes there are is told at once; the others are looked at by and by.
func TestPublisherQuick(t *testing.T) {
	proc := newFakeProc(t)
	proc.process(two, "old", "")
	proc.process(two+1, "young", "")
	p, err := NewPublisher(proc.dir, 2, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	quick := func(since *PollReply, want ...int32) *PollReply {
		t.Helper()
		p.whole.began, p.any = time.Now(), pace{} // as if all had been looked at just now, and a quick scan were due
		rep, err := p.Poll(t.Context(), &PollRequest{Instance: since.GetInstance(), Since: since.GetAt(), Quick: true})
		if got := toldPIDs(rep); err != nil || !slices.Equal(got, want) || rep.GetAll() {
			t.Errorf("told %v, all %v, %v; want %v", got, rep.GetAll(), err, want)
		}
		return rep
	}
	first, err := p.Poll(t.Context(), &PollRequest{Quick: true}) // nothing was looked at yet
	if got := toldPIDs(first); err != nil || !slices.Equal(got, []int32{two, two + 1}) || !first.GetAll() {
		t.Fatalf("told %v, all %v, %v", got, first.GetAll(), err)
	}
	p.procs[two].born = time.Now().Add(-2 * young)
	for i := range 3 {
		proc.process(two+i, "changed", "")
	}
	rep := quick(first, two+1, two+2)
	proc.end(two + 1)
	if rep = quick(rep); !slices.Equal(rep.GetGone(), []int32{two + 1}) {
		t.Errorf("gone %v", rep.GetGone())
	}
	p.whole.began = time.Now().Add(-keepUp) // it is time for all
	rep, err = p.Poll(t.Context(), &PollRequest{Instance: rep.GetInstance(), Since: rep.GetAt(), Quick: true})
	if got := toldPIDs(rep); err != nil || !slices.Equal(got, []int32{two}) || !rep.GetAll() {
		t.Errorf("told %v, all %v, %v", got, rep.GetAll(), err)
	}
}

// One question may be for many processes.
func TestFetcherAlso(t *testing.T) {
	proc := newFakeProc(t)
	for i := range 3 {
		proc.file(strconv.Itoa(two+i)+"/environ", strings.Repeat("E", (i+1)*maxAlsoBytes/4))
	}
	f, err := NewFetcher(proc.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ask := func(what What, path string, also ...int32) (*FetchReply, error) {
		return f.Fetch(t.Context(), &FetchRequest{Caller: &Caller{}, Pid: two, Path: path, What: what, Also: also})
	}
	rep, err := ask(What_READ, "environ", two+9, two+1, two+2, two+1) // the last ones are more than there is room for
	if err != nil || len(rep.GetData()) != maxAlsoBytes/4 || len(rep.GetAlso()) != 2 || rep.GetAlso()[0].GetErrno() != uint32(unix.ENOENT) || len(rep.GetAlso()[1].GetData()) != maxAlsoBytes/2 {
		t.Errorf("%d bytes and %d others, %v", len(rep.GetData()), len(rep.GetAlso()), err)
	}
	for _, bad := range [][]int32{make([]int32, maxAlso+1), {0}, {-1}, {1 << pidBits}} {
		if _, err := ask(What_READ, "environ", bad...); errno.KindOf(err) != errno.Invalid {
			t.Errorf("%d others: %v", len(bad), err)
		}
	}
	if _, err := ask(What_LINK, "cwd", two+1); errno.KindOf(err) != errno.Invalid {
		t.Errorf("links: %v", err)
	}
}

// A long list comes in parts, and together they are all of it.
func TestPublisherParts(t *testing.T) {
	proc := newFakeProc(t)
	args := string(make([]byte, maxCmdline))
	const n = 2*maxReply/maxCmdline + 100
	for i := range n {
		proc.process(two+i, "p", args)
	}
	p, err := NewPublisher(proc.dir, 2, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	seen := map[int32]bool{}
	var last *PollReply
	parts := 0
	for {
		rep, err := p.Poll(t.Context(), &PollRequest{Instance: last.GetInstance(), Since: last.GetAt()})
		if err != nil {
			t.Fatal(err)
		}
		parts++
		if rep.GetFull() != (last == nil) {
			t.Fatalf("part %d: full %v", parts, rep.GetFull())
		}
		for _, pid := range toldPIDs(rep) {
			if seen[pid] {
				t.Fatalf("process %d is told twice", pid)
			}
			seen[pid] = true
		}
		if last = rep; !rep.GetMore() {
			break
		}
	}
	if len(seen) != n || parts < 2 {
		t.Errorf("%d of %d processes in %d parts", len(seen), n, parts)
	}
}

func TestFetcher(t *testing.T) {
	proc := newFakeProc(t)
	proc.process(two, "a", "a\x00")
	d := strconv.Itoa(two) + "/"
	proc.file(d+"environ", "SECRET=1\x00")
	if err := os.Chmod(filepath.Join(proc.dir, d+"environ"), 0o400); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/somewhere", filepath.Join(proc.dir, d+"cwd")); err != nil {
		t.Fatal(err)
	}
	proc.file(d+"fd/0", "")
	proc.file(d+"fd/7", "")
	proc.file(d+"smaps", string(make([]byte, maxFile+1)))
	f, err := NewFetcher(proc.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	root, user := &Caller{}, &Caller{Uid: 1234, Gid: 1234, Groups: []uint32{7}}
	for _, c := range []struct {
		who   *Caller
		path  string
		what  What
		data  string
		names []string
		err   string
	}{
		{root, "environ", What_READ, "SECRET=1\x00", nil, ""},
		{user, "environ", What_READ, "", nil, "permission denied"},
		{user, "statm", What_READ, "1 2 3\n", nil, ""},
		{user, "cwd", What_LINK, "/somewhere", nil, ""},
		{user, "exe", What_LINK, "", nil, "no such file or directory"},
		{user, "fd", What_LIST, "", []string{"0", "7"}, ""},
		{user, "smaps", What_READ, "", nil, "file too large"},
		{user, "maps", What_READ, "", nil, "no such file or directory"},
	} {
		rep, err := f.Fetch(t.Context(), &FetchRequest{Caller: c.who, Pid: two, Path: c.path, What: c.what})
		if err != nil {
			t.Errorf("%s: %v", c.path, err)
			continue
		}
		got := ""
		if e := rep.GetErrno(); e != 0 {
			got = unix.Errno(e).Error()
		}
		slices.Sort(rep.GetNames())
		if string(rep.GetData()) != c.data || !slices.Equal(rep.GetNames(), c.names) || got != c.err {
			t.Errorf("%s: %q, %q, %s; want %q, %q, %s", c.path, rep.GetData(), rep.GetNames(), got, c.data, c.names, c.err)
		}
	}
	rep, err := f.Fetch(t.Context(), &FetchRequest{Caller: root, Pid: two, Path: "comm", What: What_WRITE, Data: []byte("x")})
	if err != nil || rep.GetErrno() != uint32(unix.ENOENT) {
		t.Errorf("%v, %v", rep, err)
	}
	for _, bad := range []*FetchRequest{
		{Caller: root, Pid: two, Path: "comm", What: What_WRITE}, {Caller: root, Pid: two, Path: "comm", What: What_WRITE, Data: make([]byte, 4097)},
		{Caller: root, Pid: two, Path: "stat", What: What_WRITE, Data: []byte("x")}, {Caller: root, Pid: two, Path: "comm", Data: []byte("x")},
		{Caller: root, Pid: two, Path: "uid_map", What: What_WRITE, Data: []byte("x")}, {Caller: root, Path: "stat", What: What_WRITE, Data: []byte("x")},
		{Pid: two, Path: "environ"}, {Caller: &Caller{Groups: make([]uint32, 1<<17)}, Pid: two, Path: "environ"}, {Caller: root, Pid: two, Path: "mem"},
	} {
		if _, err := f.Fetch(t.Context(), bad); errno.KindOf(err) != errno.Invalid {
			t.Errorf("%v: %v", bad.GetPath(), err)
		}
	}
	for range maxFetches { // as many as may be reading are
		f.slots <- struct{}{}
	}
	if _, err := f.Fetch(t.Context(), &FetchRequest{Caller: root, Pid: two, Path: "statm"}); errno.KindOf(err) != errno.Full {
		t.Errorf("one more: %v", err)
	}
	for range maxFetches {
		<-f.slots
	}
	// Nobody waits longer than it has time.
	p, err := NewPublisher(proc.dir, 2, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	p.turn <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Poll(ctx, &PollRequest{}); errno.KindOf(err) != errno.Timeout {
		t.Errorf("a poll behind another: %v", err)
	}
	<-p.turn
}
