package proctab

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"ssi/internal/api"
	"ssi/internal/id"
)

const statLine = "65600 (a) R b)) S 65537 65600 65537 34818 65601 4194560 1212 5 3 4 150 50 7 8 39 19 3 0 2600 8192000 500 18446744073709551615 1 2 3 0 0 0 1 2 3 0 0 0 17 5 99 2 0 0 0 1 2 3 4 5 6 7 0\n"

func TestParseStat(t *testing.T) {
	var p api.Process
	if err := parseStat([]byte(statLine), 4096, &p); err != nil {
		t.Fatal(err)
	}
	want := api.Process{
		PID: 65600, Comm: "a) R b)", State: "S", PPID: 65537, PGID: 65600, SID: 65537, TTYNr: 34818, TPGID: 65601, Flags: 4194560,
		MinFaults: 1212, MajFaults: 3, UserTime: 1500, SystemTime: 500, Priority: 39, Nice: 19, Threads: 3, StartTicks: 2600,
		VSize: 8192000, RSS: 500 * 4096, CPU: 5, RTPriority: 99, Policy: 2,
	}
	if d := cmp.Diff(want, p); d != "" {
		t.Error(d)
	}
	p = api.Process{}
	if err := parseStat([]byte(strings.Replace(statLine, "34818 65601", "0 -1", 1)), 4096, &p); err != nil || p.TPGID != -1 {
		t.Errorf("without a terminal: %v, tpgid %d", err, p.TPGID)
	}
}

func TestParseStatRefuses(t *testing.T) {
	for _, s := range []string{
		"", "1", "1 (x", "1 x)", ") (", "1 (x)", "1 (x) S", "x (x) S 1 1", "0" + statLine[5:],
		strings.Replace(statLine, " S ", " SS ", 1), strings.Replace(statLine, " 1212 ", " 12x ", 1), statLine[:100],
	} {
		var p api.Process
		if err := parseStat([]byte(s), 1, &p); err == nil {
			t.Errorf("%q was taken for a stat file: %+v", s, p)
		}
	}
}

func TestParseStatus(t *testing.T) {
	text := "Name:\tsleep\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t65600\nUid:\t1000\t1001\t1002\t1003\nGid:\t7\t8\t9\t10\nVmPeak:\t   100 kB\nVmLck:\t      12 kB\nUid:\t1\t1\t1\t1\n"
	p := api.Process{PID: 65600}
	if err := parseStatus([]byte(text), &p); err != nil {
		t.Fatal(err)
	}
	if p.UID != 1000 || p.EUID != 1001 || p.GID != 7 || p.EGID != 8 || p.Locked != 12<<10 {
		t.Errorf("%+v", p)
	}
	p.PID = 65601
	if err := parseStatus([]byte(text), &p); !gone(err) {
		t.Errorf("a thread: %v, want ESRCH", err)
	}
	if err := parseStatus([]byte("Name:\tx\nUid:\t1\n"), &p); err == nil {
		t.Error("half a status was accepted")
	}
}

func TestParseArgs(t *testing.T) {
	for in, want := range map[string][]string{
		"": nil, "\x00": nil, "a": {"a"}, "a\x00": {"a"}, "a\x00b c\x00": {"a", "b c"}, "a\x00\x00b\x00\x00\x00": {"a", "", "b"},
	} {
		if got := parseArgs([]byte(in)); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestParseLoginUID(t *testing.T) {
	if u := parseLoginUID([]byte("1000")); u == nil || *u != 1000 {
		t.Errorf("got %v, want 1000", u)
	}
	for _, s := range []string{"4294967295", "", "x"} {
		if u := parseLoginUID([]byte(s)); u != nil {
			t.Errorf("%q: %d, want none", s, *u)
		}
	}
}

func TestTTYName(t *testing.T) {
	drivers := parseTTYDrivers([]byte(`/dev/tty             /dev/tty        5       0 system:/dev/tty
/dev/console         /dev/console    5       1 system:console
/dev/ptmx            /dev/ptmx       5       2 system
/dev/vc/0            /dev/vc/0       4       0 system:vtmaster
hvc                  /dev/hvc      229 0-7 system
serial               /dev/ttyS       4 64-95 serial
pty_slave            /dev/pts      136 0-1048575 pty:slave
unknown              /dev/tty        4 1-63 console
broken               nothing         x 1-2 y
`))
	for nr, want := range map[uint32]string{
		0: "", 136 << 8: "pts/0", 136<<8 | 5: "pts/5", 137<<8 | 1: "pts/257", 136<<8 | 1<<20 | 2: "pts/258",
		4<<8 | 1: "tty1", 4<<8 | 65: "ttyS1", 5<<8 | 1: "console", 229<<8 | 3: "hvc3", 200<<8 | 9: "200:9",
	} {
		if got := ttyName(nr, drivers); got != want {
			t.Errorf("terminal %#x is %q, want %q", nr, got, want)
		}
	}
}

func TestParseLoad(t *testing.T) {
	var l api.Load
	if running, ok := parseLoadavg([]byte("0.50 1.25 2.00 3/456 789\n"), &l); !ok || l.Average != [3]float64{0.5, 1.25, 2} || running != 2 || l.Tasks != 456 {
		t.Errorf("loadavg: %d, %+v", running, l)
	}
	if !parseCPU([]byte("cpu  10 20 30 40 50 60 70 80 9 9\ncpu0 1 2\n"), &l) || l.CPUTotal != 3600 || l.CPUIdle != 900 {
		t.Errorf("cpu: %+v", l)
	}
	if !parseMeminfo([]byte("MemTotal:        1000 kB\nMemFree: 1 kB\nMemAvailable:    500 kB\nSwapTotal: 4 kB\nSwapFree: 2 kB\n"), &l) || l.MemTotal != 1000<<10 || l.MemAvailable != 500<<10 || l.SwapTotal != 4096 || l.SwapFree != 2048 {
		t.Errorf("meminfo: %+v", l)
	}
	if !parseUptime([]byte("12.34 56.78\n"), &l) || l.Uptime != 12340 {
		t.Errorf("uptime: %+v", l)
	}
	for _, bad := range []string{"", "x", "NaN NaN NaN 1/2 3", "0.5 0.5", "0.1 0.1 0.1 3", "-1 0 0 1/2 3"} {
		if _, ok := parseLoadavg([]byte(bad), &l); ok || parseUptime([]byte("-"+bad), &l) || parseCPU([]byte(bad), &l) || parseMeminfo([]byte(bad), new(api.Load)) {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func FuzzParseProc(f *testing.F) {
	f.Add([]byte(statLine))
	f.Add([]byte("Uid:\t1\t2\t3\t4\nGid:\t1\t2\t3\t4\nVmLck:\t1 kB\n"))
	f.Add([]byte("a\x00b\x00\x00"))
	f.Add([]byte("serial /dev/ttyS 4 64-95 serial"))
	for _, name := range []string{"stat", "status", "cmdline", "loginuid"} {
		if b, err := os.ReadFile("/proc/self/" + name); err == nil {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var p api.Process
		if parseStat(b, 4096, &p) == nil && (p.PID <= 0 || len(p.State) != 1 || len(p.Comm) > maxComm) {
			t.Errorf("bad process %+v", p)
		}
		_ = parseStatus(b, &p)
		for i, a := range parseArgs(b) {
			if strings.ContainsRune(a, 0) {
				t.Errorf("argument %d has a NUL: %q", i, a)
			}
		}
		if u := parseLoginUID(b); u != nil && *u == 1<<32-1 {
			t.Error("unset login user was taken for a user")
		}
		for _, d := range parseTTYDrivers(b) {
			if d.last < d.first {
				t.Errorf("bad range %+v", d)
			}
		}
		var l api.Load
		if running, ok := parseLoadavg(b, &l); ok && (running < 0 || l.Tasks < 0 || !(l.Average[0] >= 0)) {
			t.Errorf("bad load %+v", l)
		}
		parseCPU(b, &l)
		parseMeminfo(b, &l)
		parseUptime(b, &l)
	})
}

// A peer may send anything: what comes out must hold the limits, and what this
// node sends must survive the way.
func FuzzListReply(f *testing.F) {
	p := api.Process{PID: 65600, Comm: "x", State: "R", Args: []string{"a", "", "\xff"}, TTY: "pts/1", TPGID: -1, Nice: -5}
	b, err := proto.Marshal(&ListReply{Processes: []*ProcessMessage{message(&p)}, Load: loadMessage(&api.Load{Average: [3]float64{1, 2, 3}})})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var rep ListReply
		if proto.Unmarshal(b, &rep) != nil {
			return
		}
		for _, m := range rep.GetProcesses() {
			p := process(2, m)
			size := 0
			for _, a := range p.Args {
				size += len(a)
			}
			if p.Node != 2 || len(p.Comm) > maxComm || len(p.TTY) > maxComm || size > api.MaxArgs || len(p.State) != 1 {
				t.Errorf("over the limits: %+v", p)
			}
			if d := cmp.Diff(p, process(2, message(&p))); d != "" {
				t.Error(d)
			}
		}
		if rep.GetLoad() != nil {
			if l := load(3, rep.GetLoad()); !(l.Average[0] >= 0) || l.Node != 3 {
				t.Errorf("bad load %+v", l)
			}
		}
	})
}

func TestMessageKeepsEveryField(t *testing.T) {
	u := uint32(12)
	p := api.Process{
		Node: 5, PID: 1, PPID: 2, PGID: 3, SID: 4, TTY: "pts/5", TTYNr: 6, TPGID: -1, State: "D", Flags: 8, UID: 9, EUID: 10, GID: 11, EGID: 12,
		LoginUID: &u, Nice: -13, Priority: -14, RTPriority: 15, Policy: 16, Threads: 17, CPU: 18, MinFaults: 19, MajFaults: 20, UserTime: 21,
		SystemTime: 22, Start: 23, StartTicks: 24, Age: 25, VSize: 26, RSS: 27, Locked: 28, Comm: "c", Args: []string{"a", ""}, Kernel: true,
	}
	if d := cmp.Diff(p, process(id.Node(5), message(&p))); d != "" {
		t.Error(d)
	}
	l := api.Load{Node: 5, Value: 1, CPUs: 2, Average: [3]float64{3, 4, 5}, Recent: 6.5, Tasks: 7, CPUTotal: 8, CPUIdle: 9, MemTotal: 10, MemAvailable: 11, SwapTotal: 12, SwapFree: 13, Uptime: 14}
	if d := cmp.Diff(l, *load(5, loadMessage(&l))); d != "" {
		t.Error(d)
	}
}
