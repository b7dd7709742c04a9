package remote

import (
	"context"
	"sync"

	"golang.org/x/sys/unix"

	"ssi/internal/id"
	"ssi/vproc/call"
)

// toMany is for a call that means a group, a user or everyone: first the other
// nodes, all at once, then this one.
func (m *Remote) toMany(ctx context.Context, r *call.Request, t call.Target) call.Outcome {
	theirs := combine(r, m.askOthers(ctx, r))
	if reply, ok := m.here(ctx, r, t, theirs); ok {
		return call.Outcome{Reply: reply}
	}
	return call.Outcome{Continue: true}
}

// askOthers has all other nodes that are UP execute r.
func (m *Remote) askOthers(ctx context.Context, r *call.Request) []call.Reply {
	var replies []call.Reply
	var wg sync.WaitGroup
	nodes := m.cfg.Peers.Nodes()
	replies = make([]call.Reply, len(nodes))
	for i, n := range nodes {
		if n == m.self {
			replies[i].Errno = unix.ESRCH // it has its turn
			continue
		}
		wg.Go(func() {
			var to id.Node
			if replies[i], to = m.ask(ctx, n, ask{r: r}); to != 0 { // nobody lives elsewhere for all of a group
				replies[i] = call.Reply{Errno: unix.EIO}
			}
		})
	}
	wg.Wait()
	return replies
}

// here does the part of this node and returns the outcome of the whole. ok is
// false if the caller's own kernel is to do it: what it says is then the outcome
// of the whole, and a signal comes from the caller itself.
func (m *Remote) here(ctx context.Context, r *call.Request, t call.Target, theirs call.Reply) (reply call.Reply, ok bool) {
	nobody := theirs.Errno == unix.ESRCH
	switch {
	case m.reaches(r, t), t.Kind == call.Everyone && m.ofSession(r):
		// Neither the kernel's way here nor one call.
	case nobody, t.Kind == call.Everyone: // kill(-1) is 0 if there is anybody at all
		return call.Reply{}, false
	case r.Nr == call.Kill:
		return m.groupHere(r, t, theirs)
	}
	return combine(r, []call.Reply{theirs, m.outcome(ctx, r, nil)}), true
}

// groupHere does the part of this node of a signal to a group of which there is
// something elsewhere. If the caller may signal one here, it is done by its own
// kernel; otherwise there is nothing to be done here.
func (m *Remote) groupHere(r *call.Request, t call.Target, theirs call.Reply) (reply call.Reply, ok bool) {
	may := *r
	may.Args[1] = 0 // asks only
	if m.ofSession(r) && m.groupContinues(r, int(t.ID)) {
		return call.Reply{}, false
	}
	mine, err := m.runCall(named(&may, t), m.identity(&r.Caller), nil)
	switch {
	case err != nil:
		m.log.Error("a call cannot be executed", "op", r.Nr.String(), "err", err)
		mine = call.Reply{Errno: unix.EIO}
	case mine.Errno == 0:
		return call.Reply{}, false
	}
	return combine(r, []call.Reply{theirs, mine}), true
}
