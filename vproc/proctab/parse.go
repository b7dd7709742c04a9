package proctab

import (
	"bytes"
	"errors"

	"golang.org/x/sys/unix"

	"ssi/internal/api"
	"ssi/internal/id"
)

var (
	errStat   = errors.New("not a stat file of proc(5)")
	errStatus = errors.New("not a status file of proc(5)")
)

// userHZ is how many ticks of stat(5) make a second: USER_HZ of all
// architectures ssi runs on (include/asm-generic/param.h).
const userHZ = 100

const (
	tickMS   = 1000 / userHZ
	pfKernel = 0x00200000 // PF_KTHREAD of include/linux/sched.h
	maxComm  = 64         // TASK_COMM_LEN is 16, names of kernel workers are longer
)

// fields walks numbers that single blanks or tabs separate.
type fields struct {
	b   []byte
	bad bool
}

func (f *fields) word() []byte {
	i := 0
	for i < len(f.b) && (f.b[i] == ' ' || f.b[i] == '\t') {
		i++
	}
	j := i
	for j < len(f.b) && f.b[j] != ' ' && f.b[j] != '\t' && f.b[j] != '\n' {
		j++
	}
	w := f.b[i:j]
	f.b = f.b[j:]
	f.bad = f.bad || len(w) == 0
	return w
}

func (f *fields) skip(n int) {
	for range n {
		f.word()
	}
}

// num reads a decimal number; a negative one comes back in two's complement.
func (f *fields) num() uint64 {
	w := f.word()
	neg := len(w) > 1 && w[0] == '-'
	if neg {
		w = w[1:]
	}
	var v uint64
	for _, c := range w {
		if c < '0' || c > '9' {
			f.bad = true
			return 0
		}
		v = v*10 + uint64(c-'0')
	}
	if neg {
		return -v
	}
	return v
}

// parseStat reads /proc/PID/stat into p. RSS comes in pages and is turned into
// bytes by pageSize; Start and Age are left to the caller, who knows the clocks.
// The name of a program may hold anything, ") R 1" too, so the fields are
// counted from the last parenthesis.
func parseStat(b []byte, pageSize uint64, p *api.Process) error {
	open := bytes.IndexByte(b, '(')
	end := bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return errStat
	}
	head := fields{b: b[:open]}
	p.PID = id.PID(head.num())
	comm := b[open+1 : end]
	p.Comm = string(comm[:min(len(comm), maxComm)])
	f := fields{b: b[end+1:]}
	state := f.word() // 3
	if len(state) != 1 || state[0] <= ' ' || state[0] > '~' {
		return errStat
	}
	p.State = stateName(state[0])
	p.PPID = id.PID(f.num())
	p.PGID = id.PID(f.num())
	p.SID = id.PID(f.num())
	p.TTYNr = uint32(f.num())
	p.TPGID = id.PID(f.num()) // 8
	p.Flags = uint32(f.num())
	p.MinFaults = f.num()
	f.skip(1)
	p.MajFaults = f.num()
	f.skip(1)
	p.UserTime = int64(f.num()) * tickMS // 14
	p.SystemTime = int64(f.num()) * tickMS
	f.skip(2)
	p.Priority = int32(f.num()) // 18
	p.Nice = int32(f.num())
	p.Threads = int32(f.num())
	f.skip(1)
	p.StartTicks = f.num() // 22
	p.VSize = f.num()
	p.RSS = f.num() * pageSize
	f.skip(14)
	p.CPU = int32(f.num()) // 39
	p.RTPriority = int32(f.num())
	p.Policy = int32(f.num())
	p.Kernel = p.Flags&pfKernel != 0
	if head.bad || f.bad || p.PID <= 0 {
		return errStat
	}
	return nil
}

// stateName is the one-letter string for c without garbage.
func stateName(c byte) string {
	const all = "RSDTtZXIKWP"
	if i := bytes.IndexByte([]byte(all), c); i >= 0 {
		return all[i : i+1]
	}
	return string(rune(c))
}

// parseStatus reads the users, groups and locked memory of /proc/PID/status into
// p; the rest is in stat. ESRCH means that p is not a process but a thread of one.
func parseStatus(b []byte, p *api.Process) error {
	users, groups := false, false
	for len(b) > 0 {
		line := b
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			line, b = b[:i], b[i+1:]
		} else {
			b = nil
		}
		if len(line) < 5 {
			continue
		}
		switch line[0] {
		case 'T':
			// A thread ID has a directory too, which readdir does not show.
			if f, ok := after(line, "Tgid:"); ok && id.PID(f.num()) != p.PID {
				return unix.ESRCH
			}
		case 'U':
			if f, ok := after(line, "Uid:"); ok {
				p.UID, p.EUID = uint32(f.num()), uint32(f.num())
				users = !f.bad
			}
		case 'G':
			if f, ok := after(line, "Gid:"); ok {
				p.GID, p.EGID = uint32(f.num()), uint32(f.num())
				groups = !f.bad
			}
		case 'V':
			if f, ok := after(line, "VmLck:"); ok {
				p.Locked = f.num() << 10
				b = nil // nothing of interest comes after it
			}
		}
	}
	if !users || !groups {
		return errStatus
	}
	return nil
}

func after(line []byte, key string) (fields, bool) {
	if len(line) < len(key) || string(line[:len(key)]) != key {
		return fields{}, false
	}
	return fields{b: line[len(key):]}, true
}

// parseArgs splits /proc/PID/cmdline. NUL bytes at the end are no arguments: a
// program that writes its own title leaves many.
func parseArgs(b []byte) []string {
	b = bytes.TrimRight(b, "\x00")
	if len(b) == 0 {
		return nil
	}
	args := make([]string, 0, bytes.Count(b, []byte{0})+1)
	s := string(b) // one string that all arguments share
	for {
		i := indexNUL(s)
		if i < 0 {
			return append(args, s)
		}
		args = append(args, s[:i])
		s = s[i+1:]
	}
}

func indexNUL(s string) int {
	for i := range len(s) {
		if s[i] == 0 {
			return i
		}
	}
	return -1
}

// parseLoginUID reads /proc/PID/loginuid; nil means unset (-1).
func parseLoginUID(b []byte) *uint32 {
	f := fields{b: b}
	v := f.num()
	if f.bad || v >= 1<<32-1 {
		return nil
	}
	u := uint32(v)
	return &u
}
