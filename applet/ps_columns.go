package applet

import (
	"fmt"
	"math/bits"
	"os/user"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"ssi/internal/api"
	"ssi/internal/id"
)

// psColumn is one column of ps: its names, and how procps prints it.
type psColumn struct {
	names string // what -o and --sort call it, separated by blanks
	head  string
	width int
	left  bool // aligned to the left
	cut   bool // text over the width is cut, unless it is the last column

	num  func(c *psView, p *api.Process) int64 // sorts, and is the text if text is nil
	text func(c *psView, p *api.Process) string
}

// psView is what columns need besides the process.
type psView struct {
	now    time.Time
	memory map[id.Node]uint64 // bytes of each node
	plain  bool               // numbers instead of names of users and groups
	users  map[uint32]string
	groups map[uint32]string
	prefix map[*api.Process]string // the tree before a command, with --forest
}

func newPSView(now time.Time, l *listing) *psView {
	c := &psView{now: now, memory: map[id.Node]uint64{}, users: map[uint32]string{}, groups: map[uint32]string{}}
	for _, load := range l.Loads {
		c.memory[load.Node] = load.MemTotal
	}
	return c
}

// user is the name of a user on this node, or the number.
func (c *psView) user(uid uint32) string {
	name, ok := c.users[uid]
	if !ok {
		name = strconv.FormatUint(uint64(uid), 10)
		if u, err := user.LookupId(name); err == nil && !c.plain {
			name = u.Username
		}
		c.users[uid] = name
	}
	return name
}

func (c *psView) group(gid uint32) string {
	name, ok := c.groups[gid]
	if !ok {
		name = strconv.FormatUint(uint64(gid), 10)
		if g, err := user.LookupGroupId(name); err == nil && !c.plain {
			name = g.Name
		}
		c.groups[gid] = name
	}
	return name
}

// psPIDWidth holds PID_MAX_LIMIT, which every node of a cluster uses.
const psPIDWidth = 7

func pidColumn(names, head string, f func(p *api.Process) id.PID) psColumn {
	return psColumn{names: names, head: head, width: psPIDWidth, num: func(_ *psView, p *api.Process) int64 { return int64(f(p)) }}
}

func numColumn(names, head string, width int, f func(p *api.Process) int64) psColumn {
	return psColumn{names: names, head: head, width: width, num: func(_ *psView, p *api.Process) int64 { return f(p) }}
}

func nameColumn(names, head string, f func(c *psView, p *api.Process) string) psColumn {
	return psColumn{names: names, head: head, width: 8, left: true, cut: true, text: f}
}

func textColumn(names, head string, width int, f func(c *psView, p *api.Process) string) psColumn {
	return psColumn{names: names, head: head, width: width, left: true, text: f}
}

// psColumns is all columns; widths and forms are those of procps 4.
func psColumns() []psColumn {
	all := []psColumn{
		numColumn("node enode", "NODE", 4, func(p *api.Process) int64 { return int64(p.Node) }),
		pidColumn("pid", "PID", func(p *api.Process) id.PID { return p.PID }),
		pidColumn("tgid", "TGID", func(p *api.Process) id.PID { return p.PID }),
		pidColumn("ppid", "PPID", func(p *api.Process) id.PID { return p.PPID }),
		pidColumn("pgid pgrp", "PGID", func(p *api.Process) id.PID { return p.PGID }),
		pidColumn("sid", "SID", func(p *api.Process) id.PID { return p.SID }),
		pidColumn("sess session", "SESS", func(p *api.Process) id.PID { return p.SID }),
		pidColumn("tpgid", "TPGID", func(p *api.Process) id.PID {
			if p.TPGID == 0 {
				return -1
			}
			return p.TPGID
		}),
		nameColumn("user uname", "USER", func(c *psView, p *api.Process) string { return c.user(p.EUID) }),
		nameColumn("euser", "EUSER", func(c *psView, p *api.Process) string { return c.user(p.EUID) }),
		nameColumn("ruser", "RUSER", func(c *psView, p *api.Process) string { return c.user(p.UID) }),
		nameColumn("uid_hack", "UID", func(c *psView, p *api.Process) string { return c.user(p.EUID) }),
		nameColumn("group", "GROUP", func(c *psView, p *api.Process) string { return c.group(p.EGID) }),
		nameColumn("egroup", "EGROUP", func(c *psView, p *api.Process) string { return c.group(p.EGID) }),
		nameColumn("rgroup", "RGROUP", func(c *psView, p *api.Process) string { return c.group(p.GID) }),
		numColumn("uid", "UID", 5, func(p *api.Process) int64 { return int64(p.EUID) }),
		numColumn("euid", "EUID", 5, func(p *api.Process) int64 { return int64(p.EUID) }),
		numColumn("ruid", "RUID", 5, func(p *api.Process) int64 { return int64(p.UID) }),
		numColumn("gid", "GID", 5, func(p *api.Process) int64 { return int64(p.EGID) }),
		numColumn("egid", "EGID", 5, func(p *api.Process) int64 { return int64(p.EGID) }),
		numColumn("rgid", "RGID", 5, func(p *api.Process) int64 { return int64(p.GID) }),
		{names: "luid", head: "LUID", width: 5, text: func(_ *psView, p *api.Process) string {
			if p.LoginUID == nil {
				return "-"
			}
			return strconv.FormatUint(uint64(*p.LoginUID), 10)
		}},
		{names: "comm ucomm", head: "COMMAND", width: 15, left: true, cut: true, text: psComm},
		{names: "ucmd", head: "CMD", width: 15, left: true, cut: true, text: psComm},
		{names: "args command", head: "COMMAND", width: 27, left: true, cut: true, text: psArgs},
		{names: "cmd", head: "CMD", width: 27, left: true, cut: true, text: psArgs},
		textColumn("tty tt", "TT", 8, psTTY),
		textColumn("tname", "TTY", 8, psTTY),
		textColumn("stat", "STAT", 4, psStat),
		textColumn("s state", "S", 1, func(_ *psView, p *api.Process) string { return p.State }),
		textColumn("f flag flags", "F", 1, func(_ *psView, p *api.Process) string { return strconv.Itoa(int(p.Flags >> 6 & 7)) }),
		numColumn("nice ni", "NI", 3, func(p *api.Process) int64 { return int64(p.Nice) }),
		numColumn("pri", "PRI", 3, func(p *api.Process) int64 { return 39 - int64(p.Priority) }),
		numColumn("opri", "PRI", 3, func(p *api.Process) int64 { return 60 + int64(p.Priority) }),
		numColumn("priority", "PRI", 3, func(p *api.Process) int64 { return int64(p.Priority) }),
		{names: "rtprio", head: "RTPRIO", width: 6, num: func(_ *psView, p *api.Process) int64 { return int64(p.RTPriority) }, text: func(_ *psView, p *api.Process) string {
			if p.Policy != 1 && p.Policy != 2 { // SCHED_FIFO, SCHED_RR
				return "-"
			}
			return strconv.Itoa(int(p.RTPriority))
		}},
		{names: "cls", head: "CLS", width: 3, text: psClass},
		textColumn("class", "CLS", 3, psClass),
		textColumn("policy", "POL", 3, psClass),
		numColumn("psr", "PSR", 3, func(p *api.Process) int64 { return int64(p.CPU) }),
		numColumn("nlwp", "NLWP", 4, func(p *api.Process) int64 { return int64(p.Threads) }),
		numColumn("thcount", "THCNT", 5, func(p *api.Process) int64 { return int64(p.Threads) }),
		numColumn("minflt min_flt", "MINFLT", 6, func(p *api.Process) int64 { return int64(p.MinFaults) }),
		numColumn("majflt maj_flt", "MAJFLT", 6, func(p *api.Process) int64 { return int64(p.MajFaults) }),
		numColumn("vsz vsize", "VSZ", 6, func(p *api.Process) int64 { return int64(p.VSize >> 10) }),
		numColumn("rss rssize", "RSS", 5, func(p *api.Process) int64 { return int64(p.RSS >> 10) }),
		numColumn("rsz", "RSZ", 5, func(p *api.Process) int64 { return int64(p.RSS >> 10) }),
		numColumn("sz", "SZ", 5, func(p *api.Process) int64 { return int64(p.VSize >> 12) }),
		textColumn("addr", "ADDR", 4, func(*psView, *api.Process) string { return "-" }),
		textColumn("wchan", "WCHAN", 6, func(*psView, *api.Process) string { return "-" }),
	}
	return append(all, psTimeColumns()...)
}

// psTimeColumns is the columns about time and its use.
func psTimeColumns() []psColumn {
	cpu := func(p *api.Process) int64 { return (p.UserTime + p.SystemTime) / 1000 }
	pcpu := func(_ *psView, p *api.Process) int64 { // tenths of a percent
		if p.Age < 1000 {
			return 0
		}
		return (p.UserTime + p.SystemTime) / (p.Age / 1000)
	}
	pmem := func(c *psView, p *api.Process) int64 {
		total := c.memory[p.Node]
		if total == 0 {
			return 0
		}
		hi, lo := bits.Mul64(p.RSS, 1000)
		if hi >= total {
			return 999
		}
		v, _ := bits.Div64(hi, lo, total)
		return int64(min(v, 999))
	}
	started := func(c *psView, p *api.Process) time.Time { return time.UnixMilli(p.Start).In(c.now.Location()) }
	start := func(_ *psView, p *api.Process) int64 { return p.Start }
	startTime := func(c *psView, p *api.Process) string {
		t := started(c, p)
		switch {
		case t.Year() != c.now.Year():
			return t.Format("2006")
		case t.YearDay() != c.now.YearDay():
			return t.Format("Jan02")
		}
		return t.Format("15:04")
	}
	clock := func(seconds int64) string {
		s := fmt.Sprintf("%02d:%02d:%02d", seconds/3600%24, seconds/60%60, seconds%60)
		if d := seconds / 86400; d > 0 {
			s = strconv.FormatInt(d, 10) + "-" + s
		}
		return s
	}
	onCPU := func(_ *psView, p *api.Process) int64 { return p.UserTime + p.SystemTime }
	return []psColumn{
		{names: "pcpu %cpu", head: "%CPU", width: 4, num: pcpu, text: func(c *psView, p *api.Process) string { return tenths(pcpu(c, p)) }},
		{names: "c", head: "C", width: 2, num: pcpu, text: func(c *psView, p *api.Process) string { return strconv.FormatInt(min(pcpu(c, p)/10, 99), 10) }},
		{names: "pmem %mem", head: "%MEM", width: 4, num: pmem, text: func(c *psView, p *api.Process) string { return tenths(pmem(c, p)) }},
		{names: "start_time", head: "START", width: 5, left: true, num: start, text: startTime},
		{names: "stime", head: "STIME", width: 5, left: true, num: start, text: startTime},
		{names: "start", head: "STARTED", width: 8, num: start, text: func(c *psView, p *api.Process) string {
			if t := started(c, p); c.now.Sub(t) < 24*time.Hour {
				return t.Format("15:04:05")
			} else {
				return t.Format("  Jan 02")
			}
		}},
		{names: "bsdstart", head: "START", width: 6, num: start, text: func(c *psView, p *api.Process) string {
			if t := started(c, p); c.now.Sub(t) < 24*time.Hour {
				return t.Format(" 15:04")
			} else {
				return t.Format("Jan 02")
			}
		}},
		{names: "lstart", head: "STARTED", width: 24, num: start, text: func(c *psView, p *api.Process) string { return started(c, p).Format("Mon Jan _2 15:04:05 2006") }},
		{names: "etime", head: "ELAPSED", width: 11, num: func(_ *psView, p *api.Process) int64 { return p.Age }, text: func(_ *psView, p *api.Process) string {
			return strings.TrimPrefix(clock(p.Age/1000), "00:")
		}},
		numColumn("etimes", "ELAPSED", 7, func(p *api.Process) int64 { return p.Age / 1000 }),
		{names: "time cputime", head: "TIME", width: 8, num: onCPU, text: func(_ *psView, p *api.Process) string { return clock(cpu(p)) }},
		{names: "bsdtime", head: "TIME", width: 6, num: onCPU, text: func(_ *psView, p *api.Process) string { return fmt.Sprintf("%d:%02d", cpu(p)/60, cpu(p)%60) }},
		numColumn("times cputimes", "TIME", 8, cpu),
	}
}

// tenths prints tenths of a percent as procps does: without them from 100 on.
func tenths(v int64) string {
	if v > 999 {
		return strconv.FormatInt(v/10, 10)
	}
	return strconv.FormatInt(v/10, 10) + "." + strconv.FormatInt(v%10, 10)
}

func psTTY(_ *psView, p *api.Process) string {
	if p.TTY == "" {
		return "?"
	}
	return p.TTY
}

// psStat is the state with its BSD marks.
func psStat(_ *psView, p *api.Process) string {
	s := []byte(p.State)
	mark := func(on bool, c byte) {
		if on {
			s = append(s, c)
		}
	}
	mark(p.Nice < 0, '<')
	mark(p.Nice > 0, 'N')
	mark(p.Locked > 0, 'L')
	mark(p.SID == p.PID, 's')
	mark(p.Threads > 1, 'l')
	mark(p.PGID == p.TPGID && p.TPGID > 0, '+')
	return string(s)
}

func psClass(_ *psView, p *api.Process) string {
	names := [...]string{"TS", "FF", "RR", "B", "ISO", "IDL", "DLN", "EXT"}
	if p.Policy < 0 || int(p.Policy) >= len(names) {
		return "?"
	}
	return names[p.Policy]
}

func psComm(c *psView, p *api.Process) string {
	s := c.prefix[p] + printable(p.Comm)
	if p.State == "Z" {
		s += " <defunct>"
	}
	return s
}

func psArgs(c *psView, p *api.Process) string {
	switch {
	case p.State == "Z":
		return c.prefix[p] + "[" + printable(p.Comm) + "] <defunct>"
	case len(p.Args) == 0:
		return c.prefix[p] + "[" + printable(p.Comm) + "]"
	}
	return c.prefix[p] + printable(strings.Join(p.Args, " "))
}

// printable replaces what could confuse a terminal: a program chooses its name
// and arguments freely.
func printable(s string) string {
	plain := true
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			plain = false
			break
		}
	}
	if plain {
		return s
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n':
			return ' '
		case r == utf8.RuneError || !unicode.IsPrint(r):
			return '?'
		}
		return r
	}, s)
}
