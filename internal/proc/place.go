package proc

import "slices"

// StandIn is the name, in comm and exe of proc(5), of the processes of root that hold the
// number of a process of another node here (vproc/standin).
const StandIn = "ssi-standin"

// Place is where a process stands among the others of the cluster: the numbers
// that getpid(2), getppid(2), getpgrp(2) and getsid(2) tell it, and what of those
// of its parent and of its group's leader decides whether a process group is
// orphaned (POSIX, "orphaned process group").
type Place struct {
	// PID is that of the process; 0 means that it has no place, and then all others
	// are 0.
	PID int32
	// Parent is the parent's PID; 1: whatever node's init.
	Parent, ParentGroup, ParentSession int32
	// Group is the process group, and GroupParent the parent of its leader (0: the
	// leader is gone).
	Group, GroupParent int32
	Session            int32
}

// Kin is the other processes that it names.
func (p *Place) Kin() (pids []int32) {
	for _, pid := range []int32{p.Parent, p.Group, p.Session} {
		if pid > 1 && pid != p.PID && !slices.Contains(pids, pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// numbers are all numbers of a place, in the order in which they travel.
func (p *Place) numbers() [7]*int32 {
	return [...]*int32{&p.PID, &p.Parent, &p.ParentGroup, &p.ParentSession, &p.Group, &p.GroupParent, &p.Session}
}

// valid reports whether p is no place or one that a process can have.
func (p *Place) valid() bool {
	if *p == (Place{}) {
		return true
	}
	for _, v := range p.numbers() {
		if *v < 0 {
			return false
		}
	}
	return p.PID > 1 && p.Parent > 0 && p.Parent != p.PID && p.Group > 1 && p.Session > 1
}
