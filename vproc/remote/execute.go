package remote

import (
	"fmt"

	"golang.org/x/sys/unix"

	"ssi/internal/sys"
	"ssi/vproc/call"
)

// How a call is executed at the home of its target.
type how uint8

const (
	refused how = iota // by nobody here: it is not sent to other nodes
	asks               // it changes nothing, and the kernel tells everybody: as this process
	judged             // it changes nothing, but is not for everybody: in the caller's name
	once               // in the caller's name, and once
	opens              // it makes a file
)

// execution is what the home does for a call; nr is its number here.
func execution(n call.Nr) (h how, nr uintptr) {
	switch n {
	case call.Kill:
		return once, unix.SYS_KILL
	case call.Tkill:
		return once, unix.SYS_TKILL
	case call.Tgkill:
		return once, unix.SYS_TGKILL
	case call.RtSigqueueinfo:
		return once, unix.SYS_RT_SIGQUEUEINFO
	case call.RtTgsigqueueinfo:
		return once, unix.SYS_RT_TGSIGQUEUEINFO
	case call.PidfdOpen:
		return opens, unix.SYS_PIDFD_OPEN
	case call.PidfdSendSignal:
		return once, unix.SYS_PIDFD_SEND_SIGNAL
	case call.Getpgid:
		return asks, unix.SYS_GETPGID
	case call.Getsid:
		return asks, unix.SYS_GETSID
	case call.Getpriority:
		return asks, unix.SYS_GETPRIORITY
	case call.Setpriority:
		return once, unix.SYS_SETPRIORITY
	case call.IoprioGet:
		return asks, unix.SYS_IOPRIO_GET
	case call.IoprioSet:
		return once, unix.SYS_IOPRIO_SET
	case call.SchedGetaffinity:
		return asks, unix.SYS_SCHED_GETAFFINITY
	case call.SchedSetaffinity:
		return once, unix.SYS_SCHED_SETAFFINITY
	case call.SchedGetparam:
		return asks, unix.SYS_SCHED_GETPARAM
	case call.SchedSetparam:
		return once, unix.SYS_SCHED_SETPARAM
	case call.SchedGetscheduler:
		return asks, unix.SYS_SCHED_GETSCHEDULER
	case call.SchedSetscheduler:
		return once, unix.SYS_SCHED_SETSCHEDULER
	case call.SchedGetattr:
		return asks, unix.SYS_SCHED_GETATTR
	case call.SchedSetattr:
		return once, unix.SYS_SCHED_SETATTR
	case call.SchedRrGetInterval:
		return asks, unix.SYS_SCHED_RR_GET_INTERVAL
	case call.Prlimit64:
		return once, unix.SYS_PRLIMIT64
	}
	return refused, 0
}

// manner is execution for one request: a prlimit(2) that only asks, and a signal
// that is none, need not be remembered.
func manner(r *call.Request) how {
	h, _ := execution(r.Nr)
	nothing := false
	switch r.Nr {
	case call.Prlimit64:
		nothing = r.Args[2] == 0
	case call.Kill, call.Tkill, call.PidfdSendSignal:
		nothing = r.Int(1) == 0
	case call.Tgkill:
		nothing = r.Int(2) == 0
	}
	if nothing {
		return judged
	}
	return h
}

// attrSize is the longest struct sched_attr that the kernel looks at, which takes
// its length from the structure itself: no memory of ours may follow it.
const attrSize = 4096

// systemCall is a request as a call for this kernel, with memory of its own. If
// kept is set, what the call writes goes there if there is room.
func systemCall(r *call.Request, kept []byte) (sys.Call, error) {
	row, _ := r.Nr.Row()
	_, nr := execution(r.Nr)
	c := sys.Call{Nr: nr, Args: r.Args}
	in := r.In
	for _, p := range row.Pieces(&r.Args, call.In) {
		if p.Layout == call.Attr {
			if len(in) > attrSize {
				return c, fmt.Errorf("%s: %d bytes of attributes: %w", row.Name, len(in), unix.EINVAL)
			}
			b := make([]byte, attrSize)
			copy(b, in)
			in = nil
			c.Mem = append(c.Mem, sys.Memory{Arg: p.Arg, Data: b})
			continue
		}
		if len(in) < p.Len {
			return c, fmt.Errorf("%s: memory is missing: %w", row.Name, unix.EINVAL)
		}
		c.Mem = append(c.Mem, sys.Memory{Arg: p.Arg, Data: in[:p.Len]})
		in = in[p.Len:]
	}
	if len(in) > 0 {
		return c, fmt.Errorf("%s: more memory than it reads: %w", row.Name, unix.EINVAL)
	}
	for _, p := range row.Pieces(&r.Args, call.Out) {
		switch {
		case p.Layout == call.Attr: // it is there already
		case p.Len > 0 && p.Len <= len(kept):
			c.Mem = append(c.Mem, sys.Memory{Arg: p.Arg, Data: kept[:p.Len:p.Len], Fixed: true})
			kept = kept[p.Len:]
		default:
			c.Mem = append(c.Mem, sys.Memory{Arg: p.Arg, Data: make([]byte, p.Len)})
		}
	}
	limitSizes(&row, &c)
	return c, nil
}

// limitSizes keeps the kernel within the memory of c, whatever length the caller
// said. Both replacements are judged as what they replace: a mask is cut by the
// kernel to fewer bytes than there are, or refused for its odd length; a longer
// structure is refused.
func limitSizes(row *call.Call, c *sys.Call) {
	for _, m := range row.Mem {
		if m.SizeArg == 0 {
			continue
		}
		room := 0
		for _, mem := range c.Mem {
			if mem.Arg == m.Arg {
				room = len(mem.Data)
			}
		}
		count := c.Args[m.SizeArg] & 0xffffffff
		if count <= uint64(room) || c.Args[m.Arg] == 0 {
			continue
		}
		if row.Nr == call.SchedGetattr {
			count = 1<<32 - 1
		} else {
			count = uint64(room)&^7 | count&7
		}
		c.Args[m.SizeArg] = count
	}
}

// replyOf is what the kernel said of c.
func replyOf(r *call.Request, c *sys.Call) call.Reply {
	if c.Ret == sys.NotMade {
		return call.Reply{Errno: unix.EIO}
	}
	e := c.Errno()
	reply := call.Reply{Ret: c.Ret, Errno: e}
	row, _ := r.Nr.Row()
	switch {
	case e == 0:
	case r.Nr == call.SchedSetattr && e == unix.E2BIG: // it writes the right length
		reply.Ret = 0
	default:
		reply.Ret = 0
		return reply
	}
	for _, p := range row.Pieces(&r.Args, call.Out) {
		for _, m := range c.Mem {
			if m.Arg == p.Arg {
				reply.Out = append(reply.Out, m.Data[:min(p.Len, len(m.Data))]...)
			}
		}
	}
	if r.Nr == call.SchedSetattr && e == 0 {
		reply.Out = nil
	}
	if r.Nr == call.SchedGetaffinity {
		reply.Out = reply.Out[:min(len(reply.Out), int(c.Ret))]
	}
	reply.Out = reply.Out[:min(len(reply.Out), int(r.OutLen))]
	return reply
}
