package call

// Kind is what a call is aimed at.
type Kind uint8

// The kinds.
const (
	Nobody    Kind = iota // no process can be meant
	Self                  // the calling thread or process
	OfProcess             // the process or thread ID
	OfGroup               // the process group ID
	OfUser                // every process of the user ID
	Everyone              // every process the caller may signal, except PID 1: kill(-1)
	ByFile                // whom a file descriptor means
	Cluster               // the cluster itself
)

// Target is whom a call is aimed at.
type Target struct {
	Kind Kind
	ID   int64
}

// The values of "which" in setpriority(2) and ioprio_set(2) that differ from Self.
const (
	prioPgrp, prioUser     = 1, 2
	ioprioPgrp, ioprioUser = 2, 3
)

// Target is whom r is aimed at. Of a Pair it is the first process; 0 is resolved
// to the caller's own group or user where that is meant.
func (r *Request) Target() Target {
	row, ok := r.Nr.Row()
	if !ok {
		return Target{}
	}
	if r.Nr >= SsiInfo {
		return Target{Kind: Cluster}
	}
	v := int64(r.Int(row.PID))
	switch {
	case r.Nr == PidfdSendSignal:
		return Target{Kind: ByFile}
	case r.Nr == Kill:
		return killTarget(v, &r.Caller)
	case row.Class == Which:
		return r.whichTarget(&row, v)
	case v == 0:
		return Target{Kind: Self}
	case v < 0:
		return Target{}
	}
	return Target{OfProcess, v}
}

func killTarget(v int64, c *Caller) Target {
	switch {
	case v > 0:
		return Target{OfProcess, v}
	case v == 0:
		return Target{OfGroup, int64(c.PGID)}
	case v == -1:
		return Target{Kind: Everyone}
	case v == -1<<31: // kill_something_info in kernel/signal.c
		return Target{}
	}
	return Target{OfGroup, -v}
}

func (r *Request) whichTarget(row *Call, v int64) Target {
	pgrp, user := int32(prioPgrp), int32(prioUser)
	if row.Self != 0 {
		pgrp, user = ioprioPgrp, ioprioUser
	}
	switch r.Int(0) {
	case int32(row.Self):
		if v == 0 {
			return Target{Kind: Self}
		}
		if v < 0 {
			return Target{}
		}
		return Target{OfProcess, v}
	case pgrp:
		if v == 0 {
			return Target{OfGroup, int64(r.Caller.PGID)}
		}
		return Target{OfGroup, v}
	case user:
		if v == 0 {
			return Target{OfUser, int64(r.Caller.UID)}
		}
		return Target{OfUser, int64(uint32(v))}
	}
	return Target{}
}
