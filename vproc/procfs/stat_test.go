package procfs

import (
	"bytes"
	"strconv"
	"strings"
	"testing"

	"ssi/internal/id"
)

// line is a stat with a name and, from its fourth field on, numbers.
func line(pid int, name string, numbers ...int) []byte {
	b := strconv.Itoa(pid) + " (" + name + ") S"
	for _, n := range numbers {
		b += " " + strconv.Itoa(n)
	}
	return []byte(b + "\n")
}

// statNumbers is a stat's fields from the fourth on: parent, group, session, terminal, its group, then the 9th to 52nd.
func statNumbers(ppid, pgrp, session, tpgid, threads, start int) []int {
	n := []int{ppid, pgrp, session, 34816, tpgid}
	for f := 9; f <= 52; f++ {
		switch f {
		case statThreads:
			n = append(n, threads)
		case statStart:
			n = append(n, start)
		default:
			n = append(n, f)
		}
	}
	return n
}

func TestRewriteStat(t *testing.T) {
	const far = 2<<id.PIDShift + 7
	for _, c := range []struct {
		name                        string
		ppid, pgrp, session, tpgid  int
		start                       int
		wantPPID, wantGrp, wantSess int
		wantTPGID, wantStart        int
	}{
		{"sleep", far, far + 1, far + 2, far + 1, 5000, far, far + 1, far + 2, far + 1, 4000},
		{"of init", 1, far, far, -1, 5000, 1, far, far, -1, 4000},
		{"of a process of its node", 77, 77, 78, 77, 5000, 1, 0, 0, 0, 4000},
		{"without a parent", 0, 0, 0, -1, 5000, 0, 0, 0, -1, 4000},
		{"older than this boot", far, far, far, -1, 10, far, far, far, -1, 0},
		{"evil) S 1 2 3 (", far, far, far, -1, 5000, far, far, far, -1, 4000},
		{"", far, far, far, -1, 5000, far, far, far, -1, 4000},
	} {
		in := line(far, c.name, statNumbers(c.ppid, c.pgrp, c.session, c.tpgid, 3, c.start)...)
		want := line(far, c.name, statNumbers(c.wantPPID, c.wantGrp, c.wantSess, c.wantTPGID, 3, c.wantStart)...)
		if got := rewriteStat(in, -1000); !bytes.Equal(got, want) {
			t.Errorf("%s:\n%s, want\n%s", c.name, got, want)
		}
		if n := statField(in, statThreads); n != 3 {
			t.Errorf("%s: %d threads", c.name, n)
		}
		if got := comm(in); string(got) != c.name+"\n" {
			t.Errorf("comm %q", got)
		}
	}
	for _, bad := range []string{"", "1", "1 (x", "1 (x) S", "1 (x) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18"} {
		if got := rewriteStat([]byte(bad), 0); got != nil {
			t.Errorf("%q became %q", bad, got)
		}
	}
}

func TestRewriteStatus(t *testing.T) {
	for in, want := range map[string]string{
		"Name:\tx\nPPid:\t77\nTracerPid:\t0\n":    "Name:\tx\nPPid:\t1\nTracerPid:\t0\n",
		"Name:\tx\nPPid:\t65540\nTracerPid:\t0\n": "Name:\tx\nPPid:\t65540\nTracerPid:\t0\n",
		"Name:\tx\nPPid:\t0\n":                    "Name:\tx\nPPid:\t0\n",
		"Name:\tx\nPPid:\t":                       "Name:\tx\nPPid:\t",
		"":                                        "",
	} {
		if got := rewriteStatus([]byte(in)); string(got) != want {
			t.Errorf("%q became %q", in, got)
		}
	}
}

// What another node sends never makes more than one line of a stat, nor a panic.
func FuzzRewrite(f *testing.F) {
	f.Add(line(5, "x", statNumbers(1, 2, 3, 4, 5, 6)...), int64(-100))
	f.Add([]byte("1 (\n) S 1"), int64(1<<62))
	f.Fuzz(func(t *testing.T, b []byte, shift int64) {
		out := rewriteStat(b, shift)
		if out != nil && (!bytes.HasSuffix(out, []byte("\n")) || statField(out, statStart) == -1 && statField(b, statStart) >= 0) {
			t.Errorf("%q became %q", b, out)
		}
		_ = comm(b)
		_ = rewriteStatus(b)
		_ = statusLine(b, "Groups")
	})
}

func TestIdent(t *testing.T) {
	const pid = 127<<id.PIDShift + 32767
	seen := map[uint64]string{}
	check := func(what string, n uint64, want ident) {
		t.Helper()
		if got := split(n); got != want {
			t.Errorf("%s: %+v, want %+v", what, got, want)
		}
		if other, ok := seen[n]; ok {
			t.Errorf("%s and %s have the same ID", what, other)
		}
		seen[n] = what
	}
	for _, far := range []bool{false, true} {
		i := processID(127, pid)
		i.far = far
		where := strconv.FormatBool(far)
		check("process "+where, i.number(), ident{far, kindRemote, 127, pid, 0})
		n := i.remote(len(files)-1, serialMask)
		check("file "+where, n, ident{far, kindRemote, 127, pid, serialMask<<fileBits | uint64(len(files)-1)})
		if s := split(n); s.file() != len(files)-1 || s.serial() != serialMask {
			t.Errorf("file %d, serial %d", s.file(), s.serial())
		}
		n = i.child(fileNS, 1<<numberBits-1)
		check("item "+where, n, ident{far, kindItem, 127, pid, uint64(fileNS)<<numberBits | (1<<numberBits - 1)})
		if d, number := split(n).item(); d != fileNS || number != 1<<numberBits-1 {
			t.Errorf("item %d of %d", number, d)
		}
		n = i.thread(pid, len(taskFiles)-1)
		check("thread "+where, n, ident{far, kindTask, 127, pid, uint64(pid)<<taskBits | uint64(len(taskFiles)-1)})
		if tid, f := split(n).task(); tid != pid || f != len(taskFiles)-1 {
			t.Errorf("file %d of thread %d", f, tid)
		}
	}
	check("local", localPID(pid), ident{kind: kindLocal, pid: pid})
	check("far", farID(127, farFile+len(nodeFiles)), ident{kind: kindFar, node: 127, rest: uint64(farFile + len(nodeFiles))})
	if s := split(named(kindStatic, 0, "meminfo")); s.kind != kindStatic || s.far {
		t.Errorf("%+v", s)
	}
	if len(files) > 1<<fileBits || len(taskFiles) > 1<<taskBits || fileNS >= 1<<(restBits-numberBits) {
		t.Error("the IDs have no room for the files")
	}
}

func TestPIDOf(t *testing.T) {
	for in, want := range map[string]id.PID{"1": 1, "65540": 65540, "4194303": 4194303} {
		if pid, ok := pidOf(in); !ok || pid != want {
			t.Errorf("%q: %d, %v", in, pid, ok)
		}
	}
	for _, in := range []string{"", "0", "01", "+1", "-1", "1 ", "4194304", "2147483648", "99999999999", "x", strings.Repeat("1", 100)} {
		if pid, ok := pidOf(in); ok {
			t.Errorf("%q is %d", in, pid)
		}
	}
}

// Other nodes are told nothing but what is in the tables.
func TestPathOf(t *testing.T) {
	for _, c := range []struct {
		pid  int32
		path string
		what What
		want string
	}{
		{65540, "stat", What_READ, "65540/stat"},
		{65540, "environ", What_READ, "65540/environ"},
		{65540, "cwd", What_LINK, "65540/cwd"},
		{65540, "fd", What_LIST, "65540/fd"},
		{65540, "fd/3", What_LINK, "65540/fd/3"},
		{65540, "fdinfo/3", What_READ, "65540/fdinfo/3"},
		{65540, "ns/net", What_LINK, "65540/ns/net"},
		{65540, "task", What_LIST, "65540/task"},
		{65540, "task/65541/stat", What_READ, "65540/task/65541/stat"},
		{0, "loadavg", What_READ, "loadavg"},
		{0, ".", What_LIST, "."},
		{65540, "mem", What_READ, ""}, {65540, "pagemap", What_READ, ""}, {65540, "clear_refs", What_READ, ""},
		{65540, "cwd", What_READ, ""}, {65540, "root/etc/shadow", What_READ, ""}, {65540, "cwd/x", What_LINK, ""},
		{65540, "fd/3", What_READ, ""}, {65540, "fd/../stat", What_LINK, ""}, {65540, "fd/", What_LINK, ""},
		{65540, "task/1/../../stat", What_READ, ""}, {65540, "task/65541/fd", What_LIST, ""}, {65540, "task/65541/mem", What_READ, ""},
		{65540, "", What_READ, ""}, {65540, ".", What_LIST, ""}, {65540, "..", What_LIST, ""}, {65540, "net/tcp", What_READ, ""},
		{65540, "where", What_READ, ""}, {65540, "stat/x", What_READ, ""}, {-1, "stat", What_READ, ""}, {1 << 22, "stat", What_READ, ""},
		{0, "kcore", What_READ, ""}, {0, "self/environ", What_READ, ""}, {0, "..", What_LIST, ""}, {0, "sys/kernel/pid_max", What_READ, ""}, {0, "kmsg", What_READ, ""},
	} {
		got, ok := pathOf(&FetchRequest{Pid: c.pid, Path: c.path, What: c.what})
		if ok != (c.want != "") || ok && got != c.want {
			t.Errorf("%d %q %v: %q, %v", c.pid, c.path, c.what, got, ok)
		}
	}
}

func FuzzPathOf(f *testing.F) {
	f.Add(int32(65540), "task/65541/stat", int32(0))
	f.Add(int32(0), ".", int32(2))
	f.Fuzz(func(t *testing.T, pid int32, path string, what int32) {
		got, ok := pathOf(&FetchRequest{Pid: pid, Path: path, What: What(what)})
		if ok && (strings.Contains(got, "..") || strings.HasPrefix(got, "/") || strings.Contains(got, "//") || strings.Count(got, "/") > 3 || strings.Contains(got, "\x00")) {
			t.Errorf("%d %q leads to %q", pid, path, got)
		}
	})
}
