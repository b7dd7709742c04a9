package ptrace

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"ssi/cluster/ics"
	"ssi/internal/errno"
	"ssi/internal/sys"
	"ssi/vproc/call"
)

// methodCheck asks a node whether it can execute a program: the answer is an error
// number, or 0.
const methodCheck = "ssi.rexecve.Check"

// maxChecks is how many checks for others a node makes at a time.
const maxChecks = 64

// maxQuestion is the longest encoded question.
const maxQuestion = 16*unix.PathMax + 12*call.MaxGroups

// question is what methodCheck asks.
type question struct {
	Path   []byte   `json:"path"`
	Dir    []byte   `json:"dir"` // where a Path that is not absolute begins; absolute
	UID    uint32   `json:"uid"`
	GID    uint32   `json:"gid"`
	Groups []uint32 `json:"groups,omitempty"`
}

var errQuestion = errors.New("not a question")

func decodeQuestion(b []byte) (*question, error) {
	if len(b) > maxQuestion {
		return nil, errQuestion
	}
	var q question
	if err := json.Unmarshal(b, &q); err != nil {
		return nil, err
	}
	for _, p := range [...][]byte{q.Path, q.Dir} {
		if len(p) == 0 || len(p) >= unix.PathMax || bytes.IndexByte(p, 0) >= 0 {
			return nil, errQuestion
		}
	}
	if q.Dir[0] != '/' || len(q.Groups) > call.MaxGroups {
		return nil, errQuestion
	}
	return &q, nil
}

// Handlers is where the service is registered: ics.Transport.
type Handlers interface {
	Handle(method string, h ics.Handler)
}

// Register lets other nodes ask s.
func Register(h Handlers, s *Server) {
	h.Handle(methodCheck, ics.Unary(func(ctx context.Context, req *wrapperspb.BytesValue) (*wrapperspb.UInt32Value, error) {
		e, err := s.ServeCheck(ctx, req.GetValue())
		if err != nil {
			return nil, err
		}
		return wrapperspb.UInt32(uint32(e)), nil
	}))
}

// ServeCheck answers a question of another node. A node may ask in the name of any
// user, as it may run programs for any.
func (s *Server) ServeCheck(ctx context.Context, b []byte) (unix.Errno, error) {
	q, err := decodeQuestion(b)
	if err != nil {
		return 0, errno.New(errno.Invalid, "rexecve", s.cfg.Self, "%w", err)
	}
	select {
	case s.checks <- struct{}{}:
	default:
		return 0, errno.New(errno.Full, "rexecve", s.cfg.Self, "%d checks are under way", maxChecks)
	}
	if !s.add() {
		<-s.checks
		return 0, errno.New(errno.Unavailable, "rexecve", s.cfg.Self, "the daemon is stopping")
	}
	result := make(chan unix.Errno, 1)
	go func() { // the file system may hang
		defer s.calls.Done()
		defer func() { <-s.checks }()
		result <- q.check()
	}()
	select {
	case e := <-result:
		return e, nil
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// check tells how execve(2) would fail, as far as it can be told before. A program for
// another machine, and one in a form that is none, are not refused where others may be
// registered (binfmt_misc).
func (q *question) check() unix.Errno {
	path := string(q.Path)
	if !filepath.IsAbs(path) {
		path = string(q.Dir) + "/" + path
	}
	who := sys.Credentials{UID: q.UID, GID: q.GID, Groups: q.Groups}
	var f *os.File
	err := sys.As(who, func() (err error) {
		if err := isDirectory(string(q.Dir)); err != nil {
			return err
		}
		f, err = openProgram(path)
		return err
	})
	if err != nil {
		return errnoOf(err)
	}
	defer func() { _ = f.Close() }()
	interpreter, err := formatOf(f)
	if err != nil {
		return errnoOf(err)
	}
	if interpreter == "" {
		return 0
	}
	if !filepath.IsAbs(interpreter) {
		interpreter = string(q.Dir) + "/" + interpreter
	}
	return errnoOf(sys.As(who, func() error {
		f, err := openProgram(interpreter)
		if err != nil {
			return err
		}
		return f.Close()
	}))
}

// isDirectory tells by a nil error that this thread may go to dir.
func isDirectory(dir string) error {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return unix.ENOTDIR
	}
	return unix.Faccessat(unix.AT_FDCWD, dir, unix.X_OK, unix.AT_EACCESS)
}

// openProgram finds a file that this thread may execute. It is not open for reading.
func openProgram(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = unix.EACCES
	}
	if err == nil {
		err = unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// formatOf tells by a nil error that f is in a form that the kernel knows, and the
// interpreter that a script names.
func formatOf(f *os.File) (interpreter string, err error) {
	r, err := os.Open("/proc/self/fd/" + strconv.Itoa(int(f.Fd()))) // as this process, which may read it
	if err != nil {
		return "", err
	}
	defer func() { _ = r.Close() }()
	b := make([]byte, maxHead)
	n, err := io.ReadFull(r, b)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return "", err
	}
	b = b[:n]
	switch line, ok := bytes.CutPrefix(b, []byte("#!")); {
	case ok:
		line, _, _ = bytes.Cut(line, []byte("\n"))
		name, _, _ := bytes.Cut(bytes.TrimLeft(line, " \t"), []byte(" "))
		name, _, _ = bytes.Cut(name, []byte("\t"))
		name, _, _ = bytes.Cut(name, []byte("\x00"))
		if len(name) == 0 {
			return "", unix.ENOEXEC
		}
		return string(name), nil
	case isNative(b) || othersRegistered():
		return "", nil
	}
	return "", unix.ENOEXEC
}

// isNative tells whether b begins an ELF file (elf(5)) for this machine.
func isNative(b []byte) bool {
	const machineAt, x86, x8664, arm, arm64 = 18, 3, 62, 40, 183
	if len(b) < machineAt+2 || !bytes.HasPrefix(b, []byte("\x7fELF")) {
		return false
	}
	machine := binary.LittleEndian.Uint16(b[machineAt:])
	if runtime.GOARCH == "arm64" {
		return machine == arm64 || machine == arm
	}
	return machine == x8664 || machine == x86
}

// othersRegistered tells whether there are forms beside those of the kernel
// (Documentation/admin-guide/binfmt-misc.rst).
func othersRegistered() bool {
	entries, err := os.ReadDir("/proc/sys/fs/binfmt_misc")
	return err == nil && len(entries) > 2 // beside register and status
}

// errnoOf is the error number in err: 0 without an error, EIO without a number.
func errnoOf(err error) unix.Errno {
	var e unix.Errno
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e) && e != 0:
		return e
	}
	return unix.EIO
}
