package proc

import (
	"os"
	"strconv"
	"strings"
)

// Relatives is where a process of this node stands: fields 3 to 6 of proc_pid_stat(5).
type Relatives struct {
	State                  byte // 'R', 'S', 'T', 'Z' …
	Parent, Group, Session int32
}

// RelativesOf reads them; ok is false if there is no such process.
func RelativesOf(pid int32) (r Relatives, ok bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(int(pid)) + "/stat")
	if err != nil {
		return r, false
	}
	s := string(b)
	f := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(f) < 4 {
		return r, false
	}
	r.State = f[0][0]
	for i, to := range []*int32{&r.Parent, &r.Group, &r.Session} {
		v, err := strconv.ParseInt(f[1+i], 10, 32)
		if err != nil {
			return r, false
		}
		*to = int32(v)
	}
	return r, true
}
