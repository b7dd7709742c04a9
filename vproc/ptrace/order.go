package ptrace

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"ssi/internal/id"
)

// SurrogateRole is the first argument of this program in a process that stands for one
// that rexecve started elsewhere. The kernel adds the name of the Order and the
// arguments of the program, but the first.
const SurrogateRole = "rexec-surrogate"

// maxHead is the longest first line of a script that the kernel reads, with its end
// (BINPRM_BUF_SIZE), and maxOrder the longest Order.
const (
	maxHead  = 256
	maxOrder = maxHead + 8*unix.PathMax
)

// Order is what a surrogate is to run; its arguments but the first, and its
// environment, are the process's own.
type Order struct {
	Node id.Node `json:"node"`
	Path []byte  `json:"path"`
	// Arg0 is the first argument of the program. It may differ from Path, and is cut to
	// PATH_MAX bytes.
	Arg0 []byte `json:"arg0"`
}

// errOrder tells that a file is no Order.
var errOrder = errors.New("not an order of rexecve")

// script is the order as a script for the interpreter exe, the path of this program.
func (o *Order) script(exe string) ([]byte, error) {
	head := "#!" + exe + " " + SurrogateRole + "\n"
	if len(head) >= maxHead || strings.ContainsAny(exe, " \t\n\x00") {
		return nil, fmt.Errorf("%s as an interpreter: %w", exe, unix.EOPNOTSUPP)
	}
	rest, err := json.Marshal(o)
	return append([]byte(head), rest...), err
}

// file is the order as a file that can be executed.
func (o *Order) file(exe string) (*os.File, error) {
	b, err := o.script(exe)
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("rexecve", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), "order")
	defer func() { _ = f.Close() }()
	if _, err := f.Write(b); err != nil {
		return nil, err
	}
	if err := f.Chmod(0o555); err != nil {
		return nil, err
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_WRITE | unix.F_SEAL_GROW | unix.F_SEAL_SHRINK
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return os.Open("/proc/self/fd/" + strconv.Itoa(fd)) // to be read only
}

// decodeOrder reads what script made.
func decodeOrder(b []byte) (*Order, error) {
	_, rest, ok := bytes.Cut(b, []byte("\n"))
	if !ok || !bytes.HasPrefix(b, []byte("#!")) {
		return nil, errOrder
	}
	var o Order
	if err := json.Unmarshal(rest, &o); err != nil {
		return nil, fmt.Errorf("%w: %w", errOrder, err)
	}
	if !o.Node.Valid() || len(o.Path) == 0 || len(o.Path) >= unix.PathMax || bytes.IndexByte(o.Path, 0) >= 0 || bytes.IndexByte(o.Arg0, 0) >= 0 {
		return nil, errOrder
	}
	return &o, nil
}

// TakeOrder reads the Order that the kernel gave to this process as name, the second
// argument in SurrogateRole, and closes it.
func TakeOrder(name string) (*Order, error) {
	n, ok := strings.CutPrefix(name, "/dev/fd/")
	fd, err := strconv.ParseUint(n, 10, 31)
	if !ok || err != nil {
		return nil, errOrder
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(fd), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG { // what else can be read may wait
		return nil, errOrder
	}
	b, err := readOrder(int(fd))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return decodeOrder(b)
}

// readOrder reads and closes the file fd. If that is the standard input, output or
// error, which the caller had closed, it is /dev/null afterwards, as the Go runtime makes
// them: else what this process opens next would take their place.
func readOrder(fd int) ([]byte, error) {
	moved, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	f := os.NewFile(uintptr(moved), "order")
	defer func() { _ = f.Close() }()
	if fd > 2 {
		_ = unix.Close(fd)
		return io.ReadAll(io.NewSectionReader(f, 0, maxOrder))
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = null.Close() }()
	if err := unix.Dup3(int(null.Fd()), fd, 0); err != nil {
		return nil, os.NewSyscallError("dup3", err)
	}
	return io.ReadAll(io.NewSectionReader(f, 0, maxOrder))
}
