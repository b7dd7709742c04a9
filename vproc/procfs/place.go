package procfs

import (
	"bytes"

	"ssi/internal/id"
	"ssi/internal/proc"
)

// A process that another node created here has a PID of that node's window. Its name
// leads to the local process at once, though the kernel may still believe that it leads to the surrogate there: such
// names are settled before they matter. The process itself comes by /proc/self and waits for that;
// for others the role node tells of it (Cluster), or the next listing finds it.

// maxSettled is how many names are remembered as settled; the others are settled again.
const maxSettled = 4096

// place says how a PID that exists on this node is to be shown; see Table.place.
func (t *tree) place(pid id.PID) (q *process, local bool) { return t.table.place(pid, t.standin) }

// standin reports whether a process of this node is a stand-in.
func (t *tree) standin(pid id.PID) bool {
	status, err := t.status(uint32(pid), make([]byte, 1024))
	return err == nil && bytes.HasPrefix(status, []byte("Name:\t"+proc.StandIn+"\n")) &&
		bytes.Equal(statusLine(status, "Uid"), []byte("0\t0\t0\t0"))
}

// foreign reports whether a PID is of another node.
func (t *tree) foreign(pid id.PID) bool {
	self := t.table.itself()
	return self != 0 && pid.Home() != 0 && pid.Home() != self
}

// told notes what the kernel is about to be told of a PID that is there.
func (t *tree) told(pid id.PID, local bool) {
	if !t.foreign(pid) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case !local:
		delete(t.settled, pid)
	case len(t.settled) < maxSettled:
		t.settled[pid] = true
	}
}

// unsettle notes that the kernel is about to be told what a listing has of processes elsewhere.
func (t *tree) unsettle(items []item) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.settled) == 0 {
		return
	}
	for _, i := range items {
		if n := split(i.node); n.kind == kindRemote && n.file() == fileDir {
			delete(t.settled, n.pid)
		}
	}
}

// uncertain reports whether the kernel may believe that the name of a local process leads elsewhere.
func (t *tree) uncertain(pid id.PID) bool {
	if !t.foreign(pid) {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return !t.settled[pid]
}

// certain makes the kernel forget the name of a local process. It waits for the lookups that
// are under way, as InvalidateEntry does; those that come later find the local process.
func (t *tree) certain(pid id.PID) {
	_ = t.conn.InvalidateEntry(rootID, pidName(pid))
	t.told(pid, true)
}

// settle makes the kernel forget the names of those local processes of which it may believe that they
// live elsewhere, by and by.
func (t *tree) settle(local []id.PID) {
	var names []*process
	for _, pid := range local {
		if t.uncertain(pid) && !t.standin(pid) {
			names = append(names, &process{pid: pid})
		}
	}
	if len(names) > 0 {
		t.forgetNames(names)
	}
}
