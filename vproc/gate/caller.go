package gate

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"ssi/internal/id"
	"ssi/internal/sys"
	"ssi/vproc/call"
)

// maxStatus is above the size of /proc/TID/status: MaxGroups groups of at most 11
// bytes, and what else is in it.
const maxStatus = call.MaxGroups*11 + 8192

// firstStatus is room for nearly all of them.
const firstStatus = 4096

var errStatus = errors.New("not a status of proc(5)")

// identities tells who calls. What it tells of a thread is of the caller of a
// notification only if that is still valid after.
type identities struct {
	node id.Node
	proc *os.File // the directory /proc
	dir  int      // of proc
	// The inodes of this process's namespaces.
	userNS, pidNS uint64
	buffers       sync.Pool // *[firstStatus]byte
}

func newIdentities(node id.Node) (*identities, error) {
	proc, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	d := &identities{node: node, proc: proc, dir: int(proc.Fd())}
	if d.userNS, err = d.namespace("self/ns/user"); err == nil {
		d.pidNS, err = d.namespace("self/ns/pid")
	}
	if err != nil {
		_ = proc.Close()
		return nil, err
	}
	return d, nil
}

func (d *identities) close() error { return d.proc.Close() }

func (d *identities) namespace(path string) (inode uint64, err error) {
	var st unix.Stat_t
	if err := unix.Fstatat(d.dir, path, &st, 0); err != nil {
		return 0, fmt.Errorf("namespace %s: %w", path, err)
	}
	return st.Ino, nil
}

// of is the whole identity of thread tid.
func (d *identities) of(tid uint32) (c call.Caller, nested bool, err error) {
	task := strconv.FormatUint(uint64(tid), 10)
	b, _ := d.buffers.Get().(*[firstStatus]byte)
	if b == nil {
		b = new([firstStatus]byte)
	}
	defer d.buffers.Put(b)
	status, err := d.status(task, b[:])
	if err != nil {
		return c, false, fmt.Errorf("identity of thread %d: %w", tid, err)
	}
	c, nested, err = parseStatus(status)
	if err != nil {
		return c, false, fmt.Errorf("identity of thread %d: %w", tid, err)
	}
	c.Node = d.node
	if c.Caps != 0 && !nested {
		user, err := d.namespace(task + "/ns/user")
		if err != nil {
			return c, false, err
		}
		if user != d.userNS {
			c.Caps = 0
		}
	}
	return c, nested, nil
}

// status reads the file into b, or into more memory if it is longer.
func (d *identities) status(task string, b []byte) ([]byte, error) {
	path := []byte(task + "/status\x00")
	n, err := sys.ReadFileAt(d.dir, path, b)
	if err == nil && n == len(b) {
		b = make([]byte, maxStatus)
		n, err = sys.ReadFileAt(d.dir, path, b)
	}
	switch {
	case err != nil:
		return nil, err
	case n == maxStatus:
		return nil, errStatus
	}
	return b[:n], nil
}

// parseStatus reads /proc/TID/status (proc_pid_status(5)) of a thread in the PID
// namespace of that proc or below. Caps are those in the caller's own user
// namespace.
func parseStatus(b []byte) (c call.Caller, nested bool, err error) {
	p := statusParser{rest: b}
	c.PID = int32(p.field("Tgid:").number(1<<31 - 1))
	ids := p.field("Uid:")
	for _, v := range [...]*uint32{&c.UID, &c.EUID, &c.SUID, &c.FSUID} {
		*v = uint32(ids.number(1<<32 - 1))
	}
	ids = p.field("Gid:")
	for _, v := range [...]*uint32{&c.GID, &c.EGID, &c.SGID, &c.FSGID} {
		*v = uint32(ids.number(1<<32 - 1))
	}
	groups := p.field("Groups:")
	for groups.more() && len(c.Groups) <= call.MaxGroups {
		c.Groups = append(c.Groups, uint32(groups.number(1<<32-1)))
	}
	// One number for each namespace, from that of proc down to the thread's own.
	tids := p.field("NSpid:")
	c.TID = int32(tids.number(1<<31 - 1))
	nested = tids.more()
	c.PGID = int32(p.field("NSpgid:").number(1<<31 - 1))
	c.SID = int32(p.field("NSsid:").number(1<<31 - 1))
	caps := bytes.TrimSpace(p.field("CapEff:").rest)
	c.Caps, err = strconv.ParseUint(string(caps), 16, 64)
	if p.bad || err != nil || c.PID == 0 || c.TID == 0 || len(c.Groups) > call.MaxGroups {
		return call.Caller{}, false, errStatus
	}
	return c, nested, nil
}

// statusParser takes lines from the front of rest.
type statusParser struct {
	rest []byte
	bad  bool
}

// numbers is a list of decimal numbers.
type numbers struct {
	rest []byte
	bad  *bool
}

// field is what follows name, which begins a line after those taken so far.
func (p *statusParser) field(name string) *numbers {
	for len(p.rest) > 0 {
		line, rest, _ := bytes.Cut(p.rest, []byte("\n"))
		p.rest = rest
		if v, ok := bytes.CutPrefix(line, []byte(name)); ok {
			return &numbers{v, &p.bad}
		}
	}
	p.bad = true
	return &numbers{nil, &p.bad}
}

func (n *numbers) more() bool {
	n.rest = bytes.TrimLeft(n.rest, "\t ")
	return len(n.rest) > 0 && !*n.bad
}

func (n *numbers) number(most uint64) uint64 {
	if !n.more() {
		*n.bad = true
		return 0
	}
	var v uint64
	i := 0
	for ; i < len(n.rest) && n.rest[i] >= '0' && n.rest[i] <= '9' && v <= most; i++ {
		v = v*10 + uint64(n.rest[i]-'0')
	}
	if i == 0 || v > most {
		*n.bad = true
		return 0
	}
	n.rest = n.rest[i:]
	return v
}
