package proctab

import (
	"syscall"

	"ssi/internal/api"
	"ssi/internal/errno"
	"ssi/internal/id"
	"ssi/internal/sys"
)

// message turns a process into what travels between nodes.
func message(p *api.Process) *ProcessMessage {
	m := &ProcessMessage{
		Pid: int32(p.PID), Ppid: int32(p.PPID), Pgid: int32(p.PGID), Sid: int32(p.SID),
		TtyNr: p.TTYNr, Tpgid: int32(p.TPGID), Flags: p.Flags,
		Uid: p.UID, Euid: p.EUID, Gid: p.GID, Egid: p.EGID, LoginUid: p.LoginUID,
		Nice: p.Nice, Priority: p.Priority, RtPriority: p.RTPriority, Policy: p.Policy, Threads: p.Threads, Cpu: p.CPU,
		MinFaults: p.MinFaults, MajFaults: p.MajFaults, UtimeMs: p.UserTime, StimeMs: p.SystemTime,
		StartMs: p.Start, StartTicks: p.StartTicks, AgeMs: p.Age,
		Vsize: p.VSize, Rss: p.RSS, Locked: p.Locked, Comm: []byte(p.Comm), Kernel: p.Kernel,
	}
	if p.TTY != "" {
		m.Tty = []byte(p.TTY)
	}
	if p.State != "" {
		m.State = uint32(p.State[0])
	}
	if len(p.Args) > 0 {
		m.Args = make([][]byte, len(p.Args))
		for i, a := range p.Args {
			m.Args[i] = []byte(a)
		}
	}
	return m
}

// process turns a message of node n back, and cuts what is over the limits.
func process(n id.Node, m *ProcessMessage) api.Process {
	p := api.Process{
		Node: n, PID: id.PID(m.GetPid()), PPID: id.PID(m.GetPpid()), PGID: id.PID(m.GetPgid()), SID: id.PID(m.GetSid()),
		TTY: cut(m.GetTty(), maxComm), TTYNr: m.GetTtyNr(), TPGID: id.PID(m.GetTpgid()), State: "?", Flags: m.GetFlags(),
		UID: m.GetUid(), EUID: m.GetEuid(), GID: m.GetGid(), EGID: m.GetEgid(), LoginUID: m.LoginUid,
		Nice: m.GetNice(), Priority: m.GetPriority(), RTPriority: m.GetRtPriority(), Policy: m.GetPolicy(),
		Threads: m.GetThreads(), CPU: m.GetCpu(), MinFaults: m.GetMinFaults(), MajFaults: m.GetMajFaults(),
		UserTime: m.GetUtimeMs(), SystemTime: m.GetStimeMs(), Start: m.GetStartMs(), StartTicks: m.GetStartTicks(), Age: m.GetAgeMs(),
		VSize: m.GetVsize(), RSS: m.GetRss(), Locked: m.GetLocked(), Comm: cut(m.GetComm(), maxComm), Kernel: m.GetKernel(),
	}
	if c := m.GetState(); c > ' ' && c <= '~' {
		p.State = stateName(byte(c))
	}
	room := api.MaxArgs
	for _, a := range m.GetArgs() {
		if room <= 0 {
			break
		}
		p.Args = append(p.Args, cut(a, room))
		room -= len(a) + 1
	}
	return p
}

func cut(b []byte, limit int) string { return string(b[:min(len(b), limit)]) }

func loadMessage(l *api.Load) *LoadMessage {
	return &LoadMessage{
		Value: int64(l.Value), Cpus: int32(l.CPUs), Average: l.Average[:], Recent: l.Recent, Tasks: int32(l.Tasks),
		CpuTotalMs: l.CPUTotal, CpuIdleMs: l.CPUIdle, MemTotal: l.MemTotal, MemAvailable: l.MemAvailable,
		SwapTotal: l.SwapTotal, SwapFree: l.SwapFree, UptimeMs: l.Uptime,
	}
}

func load(n id.Node, m *LoadMessage) *api.Load {
	l := &api.Load{
		Node: n, Value: int(m.GetValue()), CPUs: int(m.GetCpus()), Tasks: int(m.GetTasks()),
		CPUTotal: m.GetCpuTotalMs(), CPUIdle: m.GetCpuIdleMs(), MemTotal: m.GetMemTotal(), MemAvailable: m.GetMemAvailable(),
		SwapTotal: m.GetSwapTotal(), SwapFree: m.GetSwapFree(), Uptime: m.GetUptimeMs(),
	}
	sane := func(v float64) bool { return v >= 0 && v <= 1e9 } // JSON knows no NaN
	if sane(m.GetRecent()) {
		l.Recent = m.GetRecent()
	}
	for i, v := range m.GetAverage() {
		if i < len(l.Average) && sane(v) {
			l.Average[i] = v
		}
	}
	return l
}

func caller(c sys.Credentials) *Caller {
	return &Caller{Uid: c.UID, Gid: c.GID, Groups: c.Groups}
}

// credentials refuses a message without a caller: that would be root.
func credentials(op string, c *Caller) (sys.Credentials, error) {
	const maxGroups = 1 << 16 // NGROUPS_MAX of include/uapi/linux/limits.h
	if c == nil || len(c.GetGroups()) > maxGroups {
		return sys.Credentials{}, errno.New(errno.Invalid, op, 0, "the request names no caller, or one in too many groups")
	}
	return sys.Credentials{UID: c.GetUid(), GID: c.GetGid(), Groups: c.GetGroups()}, nil
}

func targetMessages(ts []api.ProcessTarget) []*Target {
	out := make([]*Target, len(ts))
	for i, t := range ts {
		out[i] = &Target{Pid: int32(t.PID), StartTicks: t.StartTicks}
	}
	return out
}

func targets(ms []*Target) []api.ProcessTarget {
	out := make([]api.ProcessTarget, len(ms))
	for i, m := range ms {
		out[i] = api.ProcessTarget{PID: id.PID(m.GetPid()), StartTicks: m.GetStartTicks()}
	}
	return out
}

func reply(all []outcome, err error) (*ActReply, error) {
	if err != nil {
		return nil, err
	}
	rep := &ActReply{Errnos: make([]uint32, len(all))}
	for i, o := range all {
		rep.Errnos[i] = uint32(o.errno)
		if o.moved != 0 && rep.Moved == nil {
			rep.Moved = make([]uint32, len(all))
		}
		if o.moved != 0 {
			rep.Moved[i] = uint32(o.moved)
		}
	}
	return rep, nil
}

// outcomes is what node n answered for so many targets.
func outcomes(op string, n id.Node, rep *ActReply, targets int) ([]outcome, error) {
	if len(rep.GetErrnos()) != targets || len(rep.GetMoved()) != 0 && len(rep.GetMoved()) != targets {
		return nil, errno.New(errno.Unknown, op, n, "answered for %d of %d processes", len(rep.GetErrnos()), targets)
	}
	out := make([]outcome, targets)
	for i, e := range rep.GetErrnos() {
		out[i].errno = syscall.Errno(e)
	}
	for i, m := range rep.GetMoved() {
		out[i].moved = id.Node(m)
	}
	return out, nil
}
