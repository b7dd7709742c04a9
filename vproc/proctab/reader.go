package proctab

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/api"
	"ssi/internal/errno"
	"ssi/internal/id"
	"ssi/internal/sys"
)

const (
	// maxScans is how many listings may run at a time. A file of proc(5) can
	// block for long (cmdline waits for the memory map of its process).
	maxScans = 16
	// maxProcesses ends a listing; a window holds half as many PIDs.
	maxProcesses = 1 << 16
	// bufSize holds any stat, the part of status that matters, and MaxArgs.
	bufSize = 8 << 10
)

// Reader reads the processes of this node from a proc(5). It is safe for
// concurrent use.
type Reader struct {
	self     id.Node
	dir      *os.File // the proc(5)
	pageSize uint64
	ttys     []ttyRange
	scans    chan struct{}
	places   Places // nil: everything lives here

	mu   sync.Mutex
	free []*scratch // at most maxScans
}

// scratch is what one listing works in.
type scratch struct {
	buf  []byte
	path []byte
}

// NewReader reads the proc(5) mounted at root ("/proc") for node self.
func NewReader(root string, self id.Node) (*Reader, error) {
	dir, err := os.Open(root)
	if err != nil {
		return nil, fmt.Errorf("open the process list: %w", err)
	}
	drivers, _ := os.ReadFile(root + "/tty/drivers") // without it terminals are shown by number
	return &Reader{
		self: self, dir: dir, pageSize: uint64(os.Getpagesize()),
		ttys: parseTTYDrivers(drivers), scans: make(chan struct{}, maxScans),
	}, nil
}

// Close closes the directory; no call may be running.
func (r *Reader) Close() error { return r.dir.Close() }

// get starts a scan, or fails if too many run.
func (r *Reader) get() (*scratch, error) {
	select {
	case r.scans <- struct{}{}:
	default:
		return nil, errno.New(errno.Full, "list processes", r.self, "%d listings are running already; one of its processes may be blocking them", maxScans)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.free); n > 0 {
		s := r.free[n-1]
		r.free = r.free[:n-1]
		return s, nil
	}
	return &scratch{buf: make([]byte, bufSize), path: make([]byte, 0, 64)}, nil
}

func (r *Reader) put(s *scratch) {
	r.mu.Lock()
	r.free = append(r.free, s)
	r.mu.Unlock()
	<-r.scans
}

// clocks relates the ticks of stat(5) to now.
type clocks struct {
	boot  int64 // milliseconds since boot, suspended time included
	epoch int64 // the boot itself, milliseconds since 1970
}

func now() (clocks, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return clocks{}, err
	}
	boot := ts.Nano() / 1e6
	// Whole seconds, as btime of /proc/stat: so a start is the same each time it
	// is asked for, and the same that procps shows.
	epoch := (time.Now().UnixMilli() - boot) / 1000 * 1000
	return clocks{boot: boot, epoch: epoch}, nil
}

// List calls f with the processes of this node in the order of their PIDs: all of
// them, or those in pids. A process that ends meanwhile is left out. f must not
// keep the pointer. An error of f ends the list.
func (r *Reader) List(pids []id.PID, login bool, f func(*api.Process) error) error {
	s, err := r.get()
	if err != nil {
		return err
	}
	defer r.put(s)
	if len(pids) == 0 {
		if pids, err = r.pids(); err != nil {
			return err
		}
	} else {
		pids = slices.Clone(pids)
		slices.Sort(pids)
		pids = slices.Compact(pids)
	}
	c, err := now()
	if err != nil {
		return err
	}
	var p api.Process
	for _, pid := range pids {
		if r.hidden(pid) {
			continue
		}
		p = api.Process{}
		if err := r.process(s, pid, c, login, &p); err != nil {
			if gone(err) {
				continue
			}
			return errno.New(errno.Other, "list processes", r.self, "process %d: %w", pid, err)
		}
		if err := f(&p); err != nil {
			return err
		}
	}
	return nil
}

// gone tells the errors of a process that ended meanwhile.
func gone(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) }

// pids reads the directory. It is opened anew for a position of its own.
func (r *Reader) pids() ([]id.PID, error) {
	fd, err := unix.Openat(int(r.dir.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("read the process list: %w", err)
	}
	d := os.NewFile(uintptr(fd), "proc")
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("read the process list: %w", err)
	}
	pids := make([]id.PID, 0, len(names))
	for _, n := range names {
		if n[0] < '1' || n[0] > '9' {
			continue
		}
		if v, err := strconv.ParseInt(n, 10, 32); err == nil && len(pids) < maxProcesses {
			pids = append(pids, id.PID(v))
		}
	}
	return pids, nil
}

// read reads one file of a process into the scratch buffer.
func (r *Reader) read(s *scratch, pid id.PID, name string, limit int) ([]byte, error) {
	s.path = strconv.AppendInt(s.path[:0], int64(pid), 10)
	s.path = append(s.path, '/')
	s.path = append(s.path, name...)
	s.path = append(s.path, 0)
	n, err := sys.ReadFileAt(int(r.dir.Fd()), s.path, s.buf[:limit])
	return s.buf[:n], err
}

func (r *Reader) process(s *scratch, pid id.PID, c clocks, login bool, p *api.Process) error {
	b, err := r.read(s, pid, "stat", bufSize)
	if err != nil {
		return err
	}
	if err := parseStat(b, r.pageSize, p); err != nil {
		return err
	}
	if b, err = r.read(s, pid, "status", bufSize); err != nil {
		return err
	}
	if err := parseStatus(b, p); err != nil {
		return err
	}
	if !p.Kernel && p.State != "Z" {
		if b, err = r.read(s, pid, "cmdline", api.MaxArgs); err != nil && !gone(err) {
			return err
		}
		p.Args = parseArgs(b)
	}
	if login {
		if b, err = r.read(s, pid, "loginuid", 32); err == nil { // a kernel without audit has no such file
			p.LoginUID = parseLoginUID(b)
		}
	}
	p.Node = r.self
	p.TTY = ttyName(p.TTYNr, r.ttys)
	p.Age = max(0, c.boot-int64(p.StartTicks)*tickMS)
	p.Start = c.epoch + int64(p.StartTicks)*tickMS
	return nil
}

// startTicks is when process pid started, in ticks since boot.
func (r *Reader) startTicks(pid id.PID) (uint64, error) {
	s, err := r.get()
	if err != nil {
		return 0, err
	}
	defer r.put(s)
	b, err := r.read(s, pid, "stat", bufSize)
	if err != nil {
		return 0, err
	}
	var p api.Process
	if err := parseStat(b, r.pageSize, &p); err != nil {
		return 0, err
	}
	return p.StartTicks, nil
}
