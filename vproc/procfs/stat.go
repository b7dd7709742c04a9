package procfs

import (
	"bytes"
	"strconv"

	"ssi/internal/id"
)

// tick is how many ticks of stat a second has: USER_HZ, 100 on every architecture
// that Go knows.
const tick = 100

// The numbers of fields of proc_pid_stat(5), from 1.
const (
	statPPID    = 4
	statPGRP    = 5
	statSession = 6
	statTPGID   = 8
	statThreads = 20
	statStart   = 22
)

// rewriteStat turns a stat into that of the same process seen from here: shift is
// how many ticks the clock of its starts is before ours. It returns nil for what
// is not a stat.
func rewriteStat(b []byte, shift int64) []byte {
	end := bytes.LastIndexByte(b, ')') // the name may hold anything
	if end < 0 {
		return nil
	}
	out := make([]byte, 0, len(b)+8)
	out = append(out, b[:end+1]...)
	field := 3
	for _, f := range bytes.Fields(b[end+1:]) {
		out = append(out, ' ')
		switch field {
		case statPPID:
			f = parentHere(f)
		case statPGRP, statSession, statTPGID:
			f = groupHere(f)
		case statStart:
			if start, err := strconv.ParseInt(string(f), 10, 64); err == nil {
				f = strconv.AppendInt(nil, max(0, start+shift), 10)
			}
		}
		out = append(out, f...)
		field++
	}
	if field <= statStart {
		return nil
	}
	return append(out, '\n')
}

// statField is a numeric field of a stat, or -1.
func statField(b []byte, n int) int64 {
	end := bytes.LastIndexByte(b, ')')
	if end < 0 {
		return -1
	}
	field := 3
	for f := range bytes.FieldsSeq(b[end+1:]) {
		if field == n {
			v, err := strconv.ParseInt(string(f), 10, 64)
			if err != nil {
				return -1
			}
			return v
		}
		field++
	}
	return -1
}

// comm is the name in a stat, with the newline that the file comm has.
func comm(stat []byte) []byte {
	from, to := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if from < 0 || to < from {
		return []byte("\n")
	}
	return append(bytes.Clone(stat[from+1:to]), '\n')
}

// parentHere is a parent as it is seen from another node: one that belongs to its
// node alone is init there, and there is one init.
func parentHere(f []byte) []byte {
	if pid, err := strconv.ParseInt(string(f), 10, 32); err == nil && pid > 0 && id.PID(pid).Home() == 0 {
		return []byte("1")
	}
	return f
}

// groupHere is a group or session as it is seen from another node: 0 if it is not
// seen there, as the kernel does it between PID namespaces.
func groupHere(f []byte) []byte {
	if pid, err := strconv.ParseInt(string(f), 10, 32); err == nil && pid > 0 && id.PID(pid).Home() == 0 {
		return []byte("0")
	}
	return f
}

// rewriteStatus does for status what rewriteStat does for stat.
func rewriteStatus(b []byte) []byte {
	const key = "\nPPid:\t"
	at := bytes.Index(b, []byte(key))
	if at < 0 {
		return b
	}
	at += len(key)
	end := bytes.IndexByte(b[at:], '\n')
	if end < 0 {
		return b
	}
	out := make([]byte, 0, len(b))
	out = append(out, b[:at]...)
	out = append(out, parentHere(b[at:at+end])...)
	return append(out, b[at+end:]...)
}
