package procfs

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/errno"
	"ssi/internal/id"
	"ssi/internal/sys"
)

const (
	// maxCmdline is how long a command line is pushed.
	maxCmdline = 4096
	// maxReply is about how many bytes of processes one answer to a poll has.
	maxReply = 2 << 20
	// maxGone is how many ends are remembered; who asks for older ones is told
	// everything anew.
	maxGone = 8192
	// maxProcesses is how many processes of a node are published.
	maxProcesses = 1 << 16
	// freshFor is how long a scan answers everybody; a scan also takes a fifth of a processor at most.
	freshFor  = 5 * time.Millisecond
	scanShare = 4
	// young is how long also a quick scan looks at a process: most execute a program soon.
	young = 2 * time.Second
	// sweep is after how many scans of all a process is read again whose stat did not
	// change: a change of users or signals does not show there.
	sweep = 16
)

// Publisher tells other nodes of the processes of this one.
type Publisher struct {
	self     id.Node
	dir      *os.File // the plain proc(5) of the node
	placed   func(id.PID) bool
	hidden   func(id.PID) bool
	boot     int64
	files    []string
	instance uint64

	turn  chan struct{} // of capacity 1: who holds it may touch what follows
	procs map[id.PID]*published
	gone  []ended // oldest first
	at    uint64  // of the last change
	lost  uint64  // of the last change that gone does not hold any more
	scans uint64
	any   pace   // of the last scan
	whole pace   // of the last one that looked at all processes
	round uint64 // number of that
	quick bool   // this one does not
	buf   []byte
	path  []byte
}

// pace is when a scan began and how long it took.
type pace struct {
	began time.Time
	took  time.Duration
}

// due reports whether it is time for another scan for who asked at a time.
func (p pace) due(asked time.Time) bool {
	return p.began.Before(asked) && asked.Sub(p.began) >= max(freshFor, scanShare*p.took)
}

// published is a process as others know it.
type published struct {
	at                           uint64 // of its last change
	seen                         uint64 // number of the scan
	born                         time.Time
	uid, gid                     uint32
	stat, status, statm, cmdline []byte
	long                         bool
}

type ended struct {
	at  uint64
	pid id.PID
}

// NewPublisher publishes what is in the proc(5) at root for node self: the processes
// with PIDs of its window without those for which hidden is true, surrogates of what lives
// elsewhere; and of the others those for which placed is true, which live here
// under a PID of another node. Both may be nil (none) and must not block. The caller closes the publisher.
func NewPublisher(root string, self id.Node, placed, hidden func(id.PID) bool) (*Publisher, error) {
	d, err := os.Open(root)
	if err != nil {
		return nil, fmt.Errorf("open the process list: %w", err)
	}
	p := &Publisher{
		self: self, dir: d, placed: placed, hidden: hidden, instance: rand.Uint64() | 1, turn: make(chan struct{}, 1),
		procs: map[id.PID]*published{}, buf: make([]byte, 16<<10), path: make([]byte, 0, 64),
	}
	if p.boot, err = bootTime(d); err != nil {
		_ = d.Close()
		return nil, err
	}
	own, err := os.ReadDir(root + "/1") // there is no self in the proc(5) of another PID namespace
	if err != nil {
		_ = d.Close()
		return nil, fmt.Errorf("read the process list: %w", err)
	}
	for _, e := range own {
		p.files = append(p.files, e.Name())
	}
	return p, nil
}

// Close closes the directory; no call may be running.
func (p *Publisher) Close() error { return p.dir.Close() }

// bootTime is btime of proc_stat(5): when this kernel started, in seconds since
// 1970. All on one kernel read the same number, always.
func bootTime(proc *os.File) (int64, error) {
	b, err := os.ReadFile(proc.Name() + "/stat")
	if err != nil {
		return 0, fmt.Errorf("time of the boot: %w", err)
	}
	_, rest, _ := bytes.Cut(b, []byte("\nbtime "))
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	t, err := strconv.ParseInt(string(line), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("time of the boot: %s/stat: %w", proc.Name(), err)
	}
	return t, nil
}

// Poll implements the service.
func (p *Publisher) Poll(ctx context.Context, req *PollRequest) (*PollReply, error) {
	asked := time.Now()
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done(): // some process blocks the scan of another caller
		return nil, errno.New(errno.Timeout, "list processes", p.self, "%w", ctx.Err())
	}
	quick := req.GetQuick() && asked.Sub(p.whole.began) < keepUp
	last := p.whole
	if quick {
		last = p.any
	}
	if last.due(asked) || p.scans == 0 {
		if err := p.scan(quick); err != nil {
			return nil, err
		}
	}
	rep := p.changes(req)
	rep.All = !quick
	return rep, nil
}

// changes is what is new since the last poll of this caller.
func (p *Publisher) changes(req *PollRequest) *PollReply {
	since := req.GetSince()
	rep := &PollReply{Instance: p.instance, At: p.at, Boot: p.boot}
	if req.GetInstance() != p.instance || since > p.at || since < p.lost {
		since, rep.Full, rep.Files = 0, true, p.files
	}
	type change struct {
		pid id.PID
		*published
	}
	var changed []change
	for pid, q := range p.procs {
		if q.at > since {
			changed = append(changed, change{pid, q})
		}
	}
	slices.SortFunc(changed, func(a, b change) int { return cmp.Compare(a.at, b.at) })
	size := 0
	for _, c := range changed {
		if size > maxReply {
			rep.More = true
			break
		}
		rep.Processes = append(rep.Processes, &Process{
			Pid: int32(c.pid), Uid: c.uid, Gid: c.gid, Stat: c.stat, Status: c.status, Statm: c.statm, Cmdline: c.cmdline, Long: c.long,
		})
		size += len(c.stat) + len(c.status) + len(c.statm) + len(c.cmdline) + 32
		if size > maxReply {
			rep.At = c.at
		}
	}
	if !rep.More {
		rep.At = p.at
	}
	if !rep.Full {
		first, _ := slices.BinarySearchFunc(p.gone, since+1, func(e ended, at uint64) int { return cmp.Compare(e.at, at) })
		for _, e := range p.gone[first:] {
			if e.at <= rep.At {
				rep.Gone = append(rep.Gone, int32(e.pid))
			}
		}
	}
	return rep
}

// scan brings the table up to date, as a stranger sees it; a quick one only looks at the
// processes that are new or young.
func (p *Publisher) scan(quick bool) error {
	p.any.began, p.quick = time.Now(), quick
	p.scans++
	if !quick {
		p.round++
	}
	err := sys.As(sys.Credentials{UID: stranger, GID: stranger}, p.scanAs)
	p.any.took = time.Since(p.any.began)
	if !quick {
		p.whole = p.any
	}
	if err != nil {
		return errno.New(errno.Other, "list processes", p.self, "%w", err)
	}
	for pid, q := range p.procs {
		if q.seen == p.scans {
			continue
		}
		delete(p.procs, pid)
		p.at++
		p.gone = append(p.gone, ended{p.at, pid})
	}
	if n := len(p.gone) - maxGone; n > 0 {
		p.lost = p.gone[n-1].at
		p.gone = append(p.gone[:0], p.gone[n:]...)
	}
	return nil
}

func (p *Publisher) scanAs() error {
	fd, err := unix.Openat(int(p.dir.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	d := os.NewFile(uintptr(fd), "proc")
	defer func() { _ = d.Close() }()
	list, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range list {
		pid, ok := pidOf(name)
		if !ok || !p.shown(pid) {
			continue
		}
		p.look(pid)
	}
	return nil
}

// shown reports whether a PID of this node is published.
func (p *Publisher) shown(pid id.PID) bool {
	switch pid.Home() {
	case 0:
		return false
	case p.self:
		return p.hidden == nil || !p.hidden(pid)
	}
	return p.placed != nil && p.placed(pid) // else a stand-in, or a stray
}

// look reads a process again if it may have changed. One that ends meanwhile is
// left as not seen.
func (p *Publisher) look(pid id.PID) {
	q := p.procs[pid]
	if q != nil && p.quick && p.any.began.Sub(q.born) > young {
		q.seen = p.scans
		return
	}
	stat, err := p.read(pid, "/stat", p.buf)
	if err != nil {
		return
	}
	if q == nil {
		if len(p.procs) >= maxProcesses {
			return
		}
		q = &published{born: p.any.began}
	} else if bytes.Equal(q.stat, stat) && (uint64(pid)+p.round)%sweep != 0 {
		q.seen = p.scans
		return
	}
	now := published{seen: p.scans, at: q.at, born: q.born, stat: bytes.Clone(stat)}
	var st unix.Stat_t
	if err := unix.Fstatat(int(p.dir.Fd()), strconv.Itoa(int(pid)), &st, 0); err != nil {
		return
	}
	now.uid, now.gid = st.Uid, st.Gid
	for _, f := range []struct {
		name string
		to   *[]byte
	}{{"/status", &now.status}, {"/statm", &now.statm}, {"/cmdline", &now.cmdline}} {
		b, err := p.read(pid, f.name, p.buf)
		if err != nil {
			return
		}
		if f.to == &now.cmdline && len(b) > maxCmdline {
			now.long, b = true, b[:maxCmdline]
		}
		*f.to = bytes.Clone(b)
	}
	if q.at == 0 || !q.same(&now) {
		p.at++
		now.at = p.at
	}
	p.procs[pid] = &now
}

func (p *Publisher) read(pid id.PID, name string, buf []byte) ([]byte, error) {
	p.path = strconv.AppendInt(p.path[:0], int64(pid), 10)
	p.path = append(append(p.path, name...), 0)
	n, err := sys.ReadFileAt(int(p.dir.Fd()), p.path, buf)
	return buf[:n], err
}

func (q *published) same(o *published) bool {
	return q.uid == o.uid && q.gid == o.gid && q.long == o.long && bytes.Equal(q.stat, o.stat) &&
		bytes.Equal(q.status, o.status) && bytes.Equal(q.statm, o.statm) && bytes.Equal(q.cmdline, o.cmdline)
}
