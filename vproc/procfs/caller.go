package procfs

import (
	"bytes"
	"encoding/binary"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/fuse"
	"ssi/internal/id"
	"ssi/internal/sys"
)

// ownID is what is known of the role's own process.
type ownID struct {
	userNS string // its user namespace; "": unknown
	caps   uint64 // its effective capabilities
}

func ownIDs(real *os.File) ownID {
	to, err := os.Readlink(real.Name() + "/self/ns/user")
	if err != nil {
		return ownID{}
	}
	status, err := os.ReadFile(real.Name() + "/self/status")
	if err != nil {
		return ownID{}
	}
	caps, ok := capabilities(status)
	if !ok {
		return ownID{}
	}
	return ownID{to, caps}
}

// capabilities is the effective ones of a status.
func capabilities(status []byte) (uint64, bool) {
	caps, err := strconv.ParseUint(string(statusLine(status, "CapEff")), 16, 64)
	return caps, err == nil
}

// callers is who threads were a moment ago: a program that looks at all processes
// asks thousands of times.
type callers struct {
	mu    sync.Mutex
	known map[callerKey]knownCaller
}

type callerKey struct{ tid, uid, gid uint32 }

type knownCaller struct {
	*Caller
	who string // see identity
	at  time.Time
}

// maxCallers is how many are kept.
const maxCallers = 256

func nobody() knownCaller { return newCaller(&Caller{Uid: stranger, Gid: stranger}) }

func newCaller(c *Caller) knownCaller { return knownCaller{c, identity(c), time.Now()} }

// identity is all of a caller that decides about what it may see.
func identity(c *Caller) string {
	b := make([]byte, 0, 8+4*len(c.Groups))
	for _, n := range append([]uint32{c.Uid, c.Gid}, c.Groups...) {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	return string(b)
}

// callerOf is the caller of r for the kernel of another node, as it was again ago at most. It
// must not be written to.
func (t *tree) callerOf(r *fuse.Request) knownCaller {
	k := callerKey{r.PID, r.UID, r.GID}
	c := &t.callers
	c.mu.Lock()
	known, ok := c.known[k]
	c.mu.Unlock()
	if ok && time.Since(known.at) < again {
		return known
	}
	known = newCaller(t.lookAtCaller(r, 1<<unix.CAP_SYS_PTRACE))
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil || len(c.known) >= maxCallers {
		c.known = map[callerKey]knownCaller{}
	}
	c.known[k] = known
	return known
}

// lookAtCaller finds out who the caller is. What is not known for certain is not claimed: user 0 counts as
// root only with the capabilities that are needed, in the user namespace of this process: to read,
// CAP_SYS_PTRACE, which decides about the files of other users' processes (ptrace(2)).
func (t *tree) lookAtCaller(r *fuse.Request, needed uint64) *Caller {
	c := &Caller{Uid: r.UID, Gid: r.GID}
	buf := make([]byte, 16<<10)
	status, err := t.status(r.PID, buf)
	if err != nil {
		if r.UID == 0 {
			return nobody().Caller
		}
		return c
	}
	for g := range bytes.FieldsSeq(statusLine(status, "Groups")) {
		n, err := strconv.ParseUint(string(g), 10, 32)
		if err != nil || len(c.Groups) >= 1<<16 { // NGROUPS_MAX
			break // the buffer ended
		}
		c.Groups = append(c.Groups, uint32(n))
	}
	if r.UID != 0 {
		return c
	}
	caps, ok := capabilities(status)
	if !ok || caps&needed != needed {
		return nobody().Caller
	}
	ns := make([]byte, 64)
	n, err := unix.Readlinkat(int(t.real.Fd()), strconv.Itoa(int(r.PID))+"/ns/user", ns)
	if err != nil || t.ids.userNS == "" || string(ns[:n]) != t.ids.userNS {
		return nobody().Caller
	}
	return c
}

// status is the status of a thread of this node, as far as it fits into buf.
func (t *tree) status(tid uint32, buf []byte) ([]byte, error) {
	if tid == 0 {
		return nil, unix.ESRCH
	}
	path := append(strconv.AppendUint(make([]byte, 0, 32), uint64(tid), 10), "/status\x00"...)
	n, err := sys.ReadFileAt(int(t.real.Fd()), path, buf)
	return buf[:n], err
}

// statusLine is the value of a line of a status.
func statusLine(status []byte, key string) []byte {
	_, rest, ok := bytes.Cut(status, []byte("\n"+key+":"))
	if !ok {
		return nil
	}
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	return bytes.TrimSpace(line)
}

// processOf is the process that a thread of this node belongs to.
func (t *tree) processOf(tid uint32) (id.PID, bool) {
	if fd, err := unix.PidfdOpen(int(tid), 0); err == nil { // only of a process; see pidfd_open(2)
		_ = unix.Close(fd)
		return id.PID(tid), true
	}
	status, err := t.status(tid, make([]byte, 4096))
	if err != nil {
		return 0, false
	}
	return pidOf(string(statusLine(status, "Tgid")))
}
