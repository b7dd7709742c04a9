package main

import (
	"slices"
	"sync/atomic"

	"ssi/internal/id"
	"ssi/vproc/procfs"
	"ssi/vproc/rexec"
	"ssi/vproc/standin"
)

// places tells of the PIDs of this node that are not what they seem: surrogates,
// whose processes live on other nodes, stand-ins for processes of other nodes, and
// processes that live here under the PID of another node.
type places struct {
	self  id.Node
	rexec *rexec.Server
	maker *standin.Maker
	roles *roles
	relay atomic.Pointer[procfs.Relay] // nil: there is none yet
}

// hidden reports whether a PID is nobody's here.
func (p *places) hidden(pid id.PID) bool {
	_, surrogate := p.rexec.LivesOn(int32(pid))
	return surrogate || p.maker.StandIn(int32(pid)) || pid.Home() != p.self && !p.placed(pid)
}

// placed reports whether the process lives here though its home is another node.
func (p *places) placed(pid id.PID) bool { return p.rexec.Placed(int32(pid)) }

// lives is where a process lives if that is not known by its PID.
func (p *places) lives(pid id.PID) (id.Node, bool) {
	if p.placed(pid) {
		return p.self, true
	}
	return p.rexec.LivesOn(int32(pid))
}

// ownStandIns is the stand-ins that have PIDs of this node.
func (p *places) ownStandIns() (pids []int32) {
	for _, pid := range p.maker.StandIns() {
		if id.PID(pid).Home() == p.self {
			pids = append(pids, int32(pid))
		}
	}
	slices.Sort(pids)
	return pids
}

// protected is the processes that calls to many must not reach.
func (p *places) protected() []int {
	return slices.Concat(p.roles.pids(), p.rexec.Surrogates(), p.maker.StandIns())
}

// moved tells the role mount where processes live.
func (p *places) moved(w rexec.Where) {
	if relay := p.relay.Load(); relay != nil {
		relay.SetPlaces(placesIn(w))
	}
}

// placesIn is w for package procfs.
func placesIn(w rexec.Where) *procfs.Places {
	p := &procfs.Places{Away: map[id.PID]id.Node{}}
	for pid, n := range w.Away {
		p.Away[id.PID(pid)] = n
	}
	for _, pid := range w.Placed {
		p.Placed = append(p.Placed, id.PID(pid))
	}
	return p
}

// processPlaces is what package proctab asks.
type processPlaces struct{ *places }

// Hidden is hidden for processes of this node's window, and all others of another's.
func (p processPlaces) Hidden(pid id.PID) bool { return pid.Home() != 0 && p.hidden(pid) }

// Lives is where the process of a surrogate lives.
func (p processPlaces) Lives(pid id.PID) id.Node {
	n, _ := p.rexec.LivesOn(int32(pid))
	return n
}
