package remote

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"ssi/internal/id"
	"ssi/vproc/call"
)

// entry is a pidfd of a process elsewhere that was given out. Its name holds all
// of it:
//
//	w|e USER.PID.THREAD.BOOT.NUMBER.SERIAL[.NODE]
//
// w: it is watched; e: the process has ended. Numbers are hexadecimal, the serial
// tells apart pidfds of one process. NODE is where it lives, if that is not where its
// PID is from.
type entry struct {
	ended  bool
	user   uint32
	target target
	serial uint64
	node   id.Node
}

func (e *entry) name() string {
	state, thread := "w", 0
	if e.ended {
		state = "e"
	}
	if e.target.thread {
		thread = 1
	}
	s := fmt.Sprintf("%s%x.%x.%x.%x.%x.%x", state, e.user, e.target.pid, thread, e.target.boot, e.target.number, e.serial)
	if e.node != id.PID(e.target.pid).Home() {
		s += fmt.Sprintf(".%x", uint16(e.node))
	}
	return s
}

// parseName reads what name wrote, and nothing else.
func parseName(s string) (*entry, bool) {
	var e entry
	var state byte
	var thread int
	n, err := fmt.Sscanf(s, "%c%x.%x.%x.%x.%x.%x", &state, &e.user, &e.target.pid, &thread, &e.target.boot, &e.target.number, &e.serial)
	e.ended, e.target.thread = state == 'e', thread == 1
	e.node = id.PID(e.target.pid).Home()
	if f := strings.Split(s, "."); len(f) == 7 {
		node, nerr := strconv.ParseUint(f[6], 16, 16)
		if e.node = id.Node(node); nerr != nil || !e.node.Valid() {
			return nil, false
		}
	}
	return &e, err == nil && n == 7 && e.target.pid > 0 && e.name() == s
}

// openFile opens a pidfd of a process of another node.
func (m *Remote) openFile(ctx context.Context, r *call.Request, pid id.PID) call.Outcome {
	reply, at := m.askPlace(ctx, pid, m.place(pid), ask{r: r})
	if at == m.self {
		return call.Outcome{Continue: true}
	}
	if reply.Errno != 0 {
		return call.Outcome{Reply: call.Reply{Errno: reply.Errno}}
	}
	t, err := decodeTarget(reply.Out)
	if err != nil || t.pid != r.Int(0) {
		m.log.Error("an answer that is none", "op", r.Nr.String(), "peer", at, "err", err)
		return call.Fail(unix.EIO)
	}
	f, err := m.files.add(r.Caller.UID, t, at, r.Args[1]&unix.PIDFD_NONBLOCK != 0)
	if err != nil {
		if e := errnoOf(err); e != unix.EMFILE && e != unix.ENFILE {
			m.log.Error("a pidfd cannot be made", "op", "remote", "err", err)
		}
		return call.Fail(errnoOf(err))
	}
	return call.Outcome{File: f, CloseOnExec: true}
}

// toFile is for pidfd_send_signal: on a pidfd of the kernel's own it goes on, and
// on what is none it says so.
func (m *Remote) toFile(ctx context.Context, r *call.Request) call.Outcome {
	e := m.files.find(r.File)
	if e == nil {
		return call.Outcome{Continue: true}
	}
	if e.ended || !m.up(e.node) {
		return call.Fail(unix.ESRCH)
	}
	reply, to := m.ask(ctx, e.node, ask{file: &e.target, r: r})
	if to != 0 { // it was there when it was opened
		return call.Fail(unix.ESRCH)
	}
	return call.Outcome{Reply: reply}
}

// find recognises a file that add made: it is, by its own inode, in the directory,
// which only root can enter.
func (f *files) find(file *os.File) *entry {
	if file == nil {
		return nil
	}
	have, err := file.Stat()
	if err != nil || have.Mode()&os.ModeNamedPipe == 0 {
		return nil
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return nil
	}
	for range 2 { // it may be renamed meanwhile, once: see end
		var path string
		if cerr := raw.Control(func(fd uintptr) { path, err = os.Readlink("/proc/self/fd/" + strconv.Itoa(int(fd))) }); cerr != nil || err != nil {
			return nil
		}
		dir, name := filepath.Split(path)
		e, ok := parseName(name)
		if !ok || filepath.Clean(dir) != f.dir {
			return nil
		}
		if is, err := os.Lstat(path); err == nil && os.SameFile(have, is) {
			return e
		}
	}
	return nil
}

// make makes the FIFO of e and opens its reading end for a caller. The lock
// belongs to what was opened, with all its duplicates.
func (f *files) make(e *entry, nonblock bool) (*os.File, error) {
	path := filepath.Join(f.dir, e.name())
	if err := unix.Mkfifo(path, 0); err != nil {
		return nil, fmt.Errorf("mkfifo: %w", err)
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err == nil {
		err = unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB)
	}
	if err == nil {
		err = unix.SetNonblock(fd, false)
	}
	file := os.NewFile(uintptr(fd), path) // of the blocking kind: it leaves the flags alone
	if err == nil && nonblock {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		if fd >= 0 {
			_ = file.Close()
		}
		_ = os.Remove(path)
		return nil, fmt.Errorf("open a pidfd: %w", err)
	}
	return file, nil
}

// held tells whether somebody has the file of e still.
func (f *files) held(e *entry) bool {
	fd, err := unix.Open(filepath.Join(f.dir, e.name()), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return !errors.Is(err, os.ErrNotExist)
	}
	defer func() { _ = unix.Close(fd) }()
	return errors.Is(unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// end notes that the process of e has ended, and tells it: in this order, so that
// nobody who knows it can still signal.
func (f *files) end(e *entry) error {
	old := e.name()
	e.ended = true
	if err := os.Rename(filepath.Join(f.dir, old), filepath.Join(f.dir, e.name())); err != nil {
		return err
	}
	return f.tell(e)
}

// tell makes the file of e readable. Another byte, after a daemon that was killed
// here, does no harm.
func (f *files) tell(e *entry) error {
	path := filepath.Join(f.dir, e.name())
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENXIO) { // nobody reads
		return os.Remove(path)
	}
	if err != nil {
		return err
	}
	_, err = unix.Write(fd, []byte{0})
	_ = unix.Close(fd)
	return err
}
