package proctab

import (
	"context"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"ssi/internal/api"
	"ssi/internal/errno"
	"ssi/internal/id"
)

// Places tells of what has a PID on this node and is not what it seems. Its methods must not block.
type Places interface {
	// Hidden reports whether a PID is nobody's here: that of a surrogate, whose process lives on
	// another node, or of a stand-in.
	Hidden(pid id.PID) bool
	// Lives is the node on which the process of a surrogate lives; 0 for everything else.
	Lives(pid id.PID) id.Node
}

func (r *Reader) hidden(pid id.PID) bool { return r.places != nil && r.places.Hidden(pid) }

// lives is the other node on which a process of this one lives, or 0.
func (r *Reader) lives(pid id.PID) id.Node {
	if r.places == nil {
		return 0
	}
	if n := r.places.Lives(pid); n != r.self {
		return n
	}
	return 0
}

// moved is those of pids that live elsewhere.
func (r *Reader) moved(pids []id.PID) (all []*Moved) {
	for _, pid := range pids {
		if n := r.lives(pid); n != 0 {
			all = append(all, &Moved{Pid: int32(pid), Node: uint32(n)})
		}
	}
	return all
}

// group calls f for a process group: with its number, if all its members here are what they
// seem, else for each of those that are. As in kill(2) it is a success if one of them was, and otherwise what the last one gave.
func (r *Reader) group(group id.PID, f func(id.PID) error) error {
	if r.places == nil {
		return f(-group)
	}
	s, err := r.get()
	if err != nil {
		return err
	}
	defer r.put(s)
	pids, err := r.pids()
	if err != nil {
		return err
	}
	var members []id.PID
	for _, pid := range pids {
		var p api.Process
		if b, err := r.read(s, pid, "stat", bufSize); err != nil || parseStat(b, r.pageSize, &p) != nil || p.PGID != group {
			continue
		}
		members = append(members, pid)
	}
	visible := slices.DeleteFunc(slices.Clone(members), r.hidden)
	if len(visible) == len(members) {
		return f(-group)
	}
	var last error = unix.ESRCH
	done := false
	for _, pid := range visible {
		if err := f(pid); err == nil {
			done = true
		} else if err != unix.ESRCH { //nolint:errorlint // of the kernel
			last = err
		}
	}
	if done {
		return nil
	}
	return last
}

// byNode sorts what moved by where it lives now.
func byNode(moved []*Moved) map[id.Node][]id.PID {
	by := map[id.Node][]id.PID{}
	for _, m := range moved {
		by[id.Node(m.GetNode())] = append(by[id.Node(m.GetNode())], id.PID(m.GetPid()))
	}
	return by
}

// listMoved lists what lives elsewhere than at its home, which told so. What moves on
// meanwhile is left out, as what ends is.
func (l *Local) listMoved(ctx context.Context, moved []*Moved, req *api.ListProcesses, send func(id.Node, api.ProcessBatch) error) (id.Node, error) {
	by := byNode(moved)
	for _, n := range slices.Sorted(maps.Keys(by)) {
		if _, err := l.choose("list processes", n); err != nil {
			return n, err
		}
		there := *req
		there.PIDs = by[n]
		if len(there.PIDs) > api.MaxPIDs {
			return n, errno.New(errno.Full, "list processes", n, "more processes moved there than were named")
		}
		if _, err := l.listNode(ctx, n, &there, func(b api.ProcessBatch) error {
			b.Load = nil // it is told by those that are asked for themselves
			return send(n, b)
		}); err != nil {
			return n, err
		}
	}
	return 0, nil
}
