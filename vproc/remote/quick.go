package remote

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"ssi/internal/id"
	"ssi/vproc/call"
)

// Quick decides about a call for which nobody has to be asked; ok is false if it
// cannot. Handle would say the same. It waits for nothing, and needs of the caller
// only Node, TID and PGID.
func (m *Remote) Quick(r *call.Request) (o call.Outcome, ok bool) {
	switch t := r.Target(); t.Kind {
	case call.OfProcess:
		return m.quickProcess(r, id.PID(t.ID))
	case call.OfGroup:
		return call.Outcome{Continue: true}, ofWindow0(t) // a group of this node alone, or none
	case call.OfUser, call.Everyone, call.ByFile:
		return call.Outcome{}, false
	case call.Cluster:
		return call.Outcome{Reply: m.cluster(r)}, true
	}
	return call.Outcome{Continue: true}, true // nobody else is meant, as the caller's kernel knows too
}

// ofWindow0 tells whether a group is one that no other node can have.
func ofWindow0(t call.Target) bool { return t.ID >= 1<<31 || id.PID(t.ID).Home() == 0 }

func (m *Remote) quickProcess(r *call.Request, pid id.PID) (o call.Outcome, ok bool) {
	switch {
	case r.Nr == call.Setpgid:
		// A child has something native here, and so has each group that it can join.
		return call.Outcome{Continue: true}, true
	case manner(r) == refused:
		return m.quickRefuse(r)
	case m.native(pid):
		return call.Outcome{Continue: true}, true
	case !m.up(m.place(pid)):
		return absent(int(pid)), true
	}
	return call.Outcome{}, false
}

// quickRefuse decides about a call that does not go across nodes, by the first
// process that is not of this node.
func (m *Remote) quickRefuse(r *call.Request) (o call.Outcome, ok bool) {
	pids, _ := refusal(r)
	for _, pid := range pids {
		switch {
		case m.native(pid):
		case !m.up(m.place(pid)):
			return absent(int(pid)), true
		default:
			return call.Outcome{}, false
		}
	}
	return call.Outcome{Continue: true}, true
}

// absent is the outcome of a call that means a process which is nowhere. This
// kernel has none either and knows what it says then, by the other arguments too;
// but it must not be told to go on if something here stands for that process.
func absent(pid int) call.Outcome {
	if errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
		return call.Outcome{Continue: true}
	}
	return call.Fail(unix.ESRCH)
}

func (m *Remote) up(n id.Node) bool { return slices.Contains(m.cfg.Peers.Nodes(), n) }
