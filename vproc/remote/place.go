package remote

import (
	"context"

	"golang.org/x/sys/unix"

	"ssi/internal/id"
	"ssi/vproc/call"
)

// maxMoves is how many answers that name another node are followed for one call: one
// is usual, and a second one may be of a node that does not know yet.
const maxMoves = 2

// place is the node on which a process lives, as far as this one knows: where it was
// placed, or the one in whose window its PID lies. What is of window 0 is here.
func (m *Remote) place(pid id.PID) id.Node {
	home := pid.Home()
	if home == 0 {
		return m.self
	}
	if m.cfg.Lives != nil {
		if n, ok := m.cfg.Lives(pid); ok {
			return n
		}
	}
	return home
}

// native tells whether a process is here, if there is one.
func (m *Remote) native(pid id.PID) bool { return m.place(pid) == m.self }

// elsewhere is the node that is to be asked for r instead of this one, its home.
// file is the target of a call by pidfd, which means what was here when it was
// opened. A call that was begun here before the process was placed stays here: it
// is not to be done twice.
func (m *Remote) elsewhere(r *call.Request) (n id.Node, ok bool) {
	t := r.Target()
	if t.Kind != call.OfProcess || id.PID(t.ID).Home() != m.self {
		return 0, false
	}
	n = m.place(id.PID(t.ID))
	return n, n != m.self && (manner(r) != once || !m.answers.knows(r.Origin))
}

// askPlace has the node where process pid lives execute a call: first n is asked, and
// then the node that it names. at is the node that replied; if it is this one, there
// is no reply, and the caller's kernel is to go on.
func (m *Remote) askPlace(ctx context.Context, pid id.PID, n id.Node, a ask) (reply call.Reply, at id.Node) {
	gone := call.Reply{Errno: unix.ESRCH}
	for range maxMoves + 1 {
		if n == m.self {
			if m.native(pid) {
				return call.Reply{}, m.self
			}
			return gone, 0
		}
		if !m.up(n) {
			return gone, n
		}
		reply, to := m.ask(ctx, n, a)
		if to == 0 {
			return reply, n
		}
		n = to
	}
	return gone, 0
}

// executes tells whether calls of other nodes to pid, or to a pidfd of it, are
// executed here, after elsewhere has said that no other node is to be asked.
func (m *Remote) executes(pid id.PID) bool {
	home := pid.Home()
	return home == m.self || home != 0 && m.native(pid)
}
