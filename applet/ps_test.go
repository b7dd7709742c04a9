package applet

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"ssi/internal/api"
	"ssi/internal/id"
)

func TestPSForms(t *testing.T) {
	_, run := startDaemon(t)
	for _, c := range []struct{ words, want string }{
		{"ps aux --node 1", `
NODE USER         PID %CPU %MEM    VSZ   RSS TTY      STAT START   TIME COMMAND
   1 root           1  0.0  0.1   8192  2048 ?        Ss   Nov20   0:00 /sbin/ssi init
   1 root       40000  0.0  0.1   8192  2048 pts/0    Ss   10:00   0:01 -bash
   1 4294967    40001  0.0  0.1   8192  2048 pts/0    SN+  11:00   0:00 vi a?b
`},
		{"ps -ef --node 2", `
NODE UID          PID    PPID  C STIME TTY          TIME CMD
   2 root           2       0  0 Nov20 ?        00:00:00 [kthreadd]
   2 root       70000       1 90 11:58 ?        00:01:30 /usr/bin/hog --all
   2 root       70001   70000  0 11:59 ?        00:00:00 [gone] <defunct>
`},
		{"ps -e --node=2", `
NODE     PID TTY          TIME CMD
   2       2 ?        00:00:00 kthreadd
   2   70000 ?        00:01:30 hog
   2   70001 ?        00:00:00 gone <defunct>
`},
		{"ps ax --forest --node 1", `
NODE     PID TTY      STAT   TIME COMMAND
   1       1 ?        Ss     0:00 /sbin/ssi init
   1   40000 pts/0    Ss     0:01  \_ -bash
   1   40001 pts/0    SN+    0:00      \_ vi a?b
`},
		{"ps -eo pid,enode,comm=NAME --node 1", `
    PID NODE NAME
      1    1 ssi
  40000    1 bash
  40001    1 vi
`},
		{"ps -o pid= -o comm= -p 70000", `
  70000 hog
`},
		{"ps ax -o pid,user:12,%mem --sort=-%mem,pid --no-headers --node 2", `
  70000 root         50.0
  70001 root          0.1
      2 root          0.0
`},
		{"ps -C hog -o etime,etimes,time,cputimes,lstart", `
    ELAPSED ELAPSED     TIME     TIME                  STARTED
      01:40     100 00:01:30       90 Sun Nov 22 11:58:20 2026
`},
		{"ps -t pts/0 -o pid,tty", `
    PID TT
  40000 pts/0
  40001 pts/0
`},
		{"ps -u 4294967 -N -o pid --node 1", `
    PID
      1
  40000
`},
		{"ps r -A -o pid,s", `
    PID S
  70000 R
`},
		{"ps -l -p 70000", `
NODE F S   UID     PID    PPID  C PRI  NI ADDR    SZ WCHAN  TTY          TIME CMD
   2 0 R     0   70000       1 90  80   0 -     2048 -      ?        00:01:30 hog
`},
		{"ps --ppid 1 -o node,pid k node", `
NODE     PID
   1   40000
   2   70000
`},
		{"ps 40000 70000 -o pid", `
    PID
  40000
  70000
`},
		{"ps -aux --node 2 --cols 40", `
NODE USER         PID %CPU %MEM    VSZ  
   2 root           2  0.0  0.0      0  
   2 root       70000 90.0 50.0   8192 5
   2 root       70001  0.0  0.1   8192  
`},
	} {
		out, errOut, status := run(strings.Fields(c.words)...)
		if want := strings.TrimPrefix(c.want, "\n"); out != want {
			t.Errorf("%s:\ngot\n%swant\n%s%s", c.words, out, want, errOut)
		}
		if silent := strings.Contains(c.words, "--node"); silent && (status != 0 || errOut != "") ||
			!silent && (status != 1 || errOut != "ps: node 4: did not answer within 2s\n") {
			t.Errorf("%s: status %d, stderr %q", c.words, status, errOut)
		}
	}
}

func TestPSAsksForWhatItNeeds(t *testing.T) {
	d, run := startDaemon(t)
	for words, want := range map[string]api.ListProcesses{
		"ps":                    {Local: true},
		"ps -f":                 {Local: true},
		"ps aux":                {},
		"ps -p 5,70000":         {PIDs: []id.PID{5, 70000}},
		"ps -p 5 -p 6":          {PIDs: []id.PID{5, 6}},
		"ps -N -p 5":            {},
		"ps -p 5 -e":            {},
		"ps -p 5 -C x":          {},
		"ps -C x -p 5":          {},
		"ps --node 2 -p 5":      {Node: 2, PIDs: []id.PID{5}},
		"ps -e -o luid":         {Login: true},
		"ps -e --timeout 100ms": {Timeout: 100},
	} {
		d.lists = nil
		run(strings.Fields(words)...)
		if len(d.lists) != 1 {
			t.Errorf("%s: asked %d times", words, len(d.lists))
			continue
		}
		if got := d.lists[0]; got.Local != want.Local || got.Node != want.Node || got.Login != want.Login || got.Timeout != want.Timeout || !slices.Equal(got.PIDs, want.PIDs) {
			t.Errorf("%s: asked %+v, want %+v", words, got, want)
		}
	}
}

func TestPSRefuses(t *testing.T) {
	d, run := startDaemon(t)
	for words, want := range map[string]string{
		"ps -Z": "unsupported option -Z", "ps --context": "unsupported option --context", "ps axq": "unsupported option q", "ps -eLf": "onnode NODE ps -L",
		"ps auxe": "environment", "ps -o nosuch": `unknown user-defined format specifier "nosuch"`, "ps --sort nosuch": "unknown sort specifier", "ps -p": "value is missing",
		"ps -p x": "not a process ID", "ps -u nosuchuser": "user name does not exist", "ps -ef u": "conflicting", "ps --cols x": "not a number", "ps -o": "value is missing",
		"ps --timeout 1y -e": "not a duration", "ps --json=1": "takes no value", "ps -": "improper list", "ps -y": "-y goes with -l", "ps -o pid:0": "not a width", "ps --node": "needs a value",
	} {
		d.lists = nil
		out, errOut, status := run(strings.Fields(words)...)
		if out != "" || !strings.Contains(errOut, want) || !strings.HasPrefix(errOut, "ps: ") || status == 0 || len(d.lists) != 0 {
			t.Errorf("%s: %q %q %d", words, out, errOut, status)
		}
	}
	if out, _, status := run("ps", "--help"); status != 0 || !strings.Contains(out, "--forest") {
		t.Errorf("--help: %d\n%s", status, out)
	}
	if _, _, status := run("ps", "-C", "nothing", "--node", "1"); status != 1 {
		t.Errorf("nothing selected: status %d, want 1", status)
	}
}

func TestPSJSON(t *testing.T) {
	_, run := startDaemon(t)
	out, _, status := run("ps", "-C", "hog", "--json")
	var l listing
	if err := json.Unmarshal([]byte(out), &l); err != nil {
		t.Fatal(err, out)
	}
	if status != 1 || len(l.Processes) != 1 || l.Processes[0].Comm != "hog" || l.Processes[0].Node != 2 || len(l.Errors) != 1 || len(l.Loads) != 2 {
		t.Errorf("status %d: %+v", status, l)
	}
}

// A list is not of one moment, so parents can form a ring.
func TestForestOfARing(t *testing.T) {
	ps := []api.Process{{Node: 1, PID: 5, PPID: 6}, {Node: 1, PID: 6, PPID: 5}, {Node: 1, PID: 7, PPID: 7}, {Node: 2, PID: 8, PPID: 5}}
	rows := []*api.Process{&ps[0], &ps[1], &ps[2], &ps[3]}
	c := &psView{}
	if got := forest(c, rows); len(got) != 4 {
		t.Errorf("%d of 4 processes are in the forest", len(got))
	}
}

// child is a process with known properties.
func child(t *testing.T, attr *syscall.SysProcAttr, words ...string) int {
	t.Helper()
	attr.Pdeathsig = syscall.SIGKILL
	cmd := exec.Command(words[0], words[1:]...)
	cmd.SysProcAttr = attr
	in, err := cmd.StdinPipe() // what it reads ends with the test
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close() })
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skipf("cannot start %v: %v", words, err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if _, err := out.Read(make([]byte, 1)); err != nil { // it writes when it is nearly ready
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; runtime.Gosched() { // and then it sleeps
		b, err := os.ReadFile("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/stat")
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("%v does not sleep: %s, %v", words, b, err)
		}
		if bytes.Contains(b, []byte(") S ")) {
			break
		}
	}
	return cmd.Process.Pid
}

// The peer is procps, asked about the same processes at the same time. Columns
// of PIDs are narrower on a machine with a low pid_max, so blanks count only in
// the others.
func TestPSAgainstProcps(t *testing.T) {
	path, err := exec.LookPath("/usr/bin/ps")
	if err != nil {
		t.Skip("needs procps to compare with: apt install procps")
	}
	dial := realDaemon(t)
	pids := []int{1, os.Getpid(),
		child(t, &syscall.SysProcAttr{Setsid: true}, "sh", "-c", "echo; read x", "with space", "tab\there", "ä\xff\n"),
		child(t, &syscall.SysProcAttr{Setpgid: true}, "nice", "-n", "7", "sh", "-c", "echo; read x"),
	}
	if os.Getuid() == 0 {
		pids = append(pids, child(t, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 12345678, Gid: 87654}}, "sh", "-c", "echo; read x"))
	}
	loose := []string{"pid", "ppid", "pgid", "sid", "sess", "tgid", "tpgid"}
	strict := []string{"user", "euser", "ruser", "uid", "euid", "ruid", "group", "egroup", "rgroup", "gid", "rgid", "comm", "ucmd", "args", "cmd", "tty", "tname",
		"stat", "s", "f", "ni", "nice", "pri", "opri", "priority", "rtprio", "cls", "class", "policy", "nlwp", "vsz", "sz", "lstart", "stime", "start_time", "start", "bsdstart"}
	for _, pid := range pids {
		p := strconv.Itoa(pid)
		names := slices.DeleteFunc(slices.Clone(strict), func(name string) bool { // what changes from one moment to the next
			return pid == 1 && (name == "vsz" || name == "sz" || name == "stat" || name == "args" || name == "cmd") ||
				pid == os.Getpid() && (name == "nlwp" || name == "stat" || name == "vsz" || name == "sz" || name == "s")
		})
		formats := map[string]bool{strings.Join(names, ","): true, strings.Join(loose, ","): false, "args": true, "comm": true, "user=NAME,comm=PROGRAM": true, "pid=,ppid=": false}
		for format, exact := range formats {
			want, err := exec.Command(path, "-ww", "-o", format, "-p", p).Output()
			if err != nil {
				t.Errorf("procps -o %s -p %s: %v", format, p, err)
				continue
			}
			got := psOutput(t, dial, "ps", "-ww", "-o", format, "-p", p)
			if !exact {
				want, got = squeeze(want), squeeze(got)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("-o %s -p %s:\nprocps %q\nours   %q", format, p, want, got)
			}
		}
	}
	// Whole forms, by words: all columns but those that change.
	for _, form := range []string{"-f", "j"} {
		p := strconv.Itoa(pids[2])
		want, err := exec.Command(path, "-ww", form, "-p", p).Output()
		if err != nil {
			t.Fatal(err)
		}
		got := strings.ReplaceAll(string(psOutput(t, dial, "ps", "-ww", form, "-p", p)), "NODE", "")
		got = strings.Replace(got, "\n   1 ", "\n", 1)
		if string(squeeze([]byte(got))) != string(squeeze(want)) {
			t.Errorf("%s:\nprocps %s\nours   %s", form, want, got)
		}
	}
}

func psOutput(t *testing.T, dial func(context.Context) (*api.Client, error), words ...string) []byte {
	t.Helper()
	var out, errOut bytes.Buffer
	env := System(words, "test")
	env.Stdout, env.Stderr, env.Dial = &out, &errOut, dial
	env.Getenv = func(name string) string {
		if name == LocalViewEnv || name == "COLUMNS" {
			return ""
		}
		return os.Getenv(name)
	}
	if status := Main(env, processEntries()); status != 0 {
		t.Fatalf("%v: status %d: %s", words, status, errOut.String())
	}
	return out.Bytes()
}

// squeeze makes every run of blanks one.
func squeeze(b []byte) []byte {
	var out []byte
	for line := range bytes.Lines(b) {
		out = append(append(out, bytes.Join(bytes.Fields(line), []byte(" "))...), '\n')
	}
	return out
}

func FuzzPSOptions(f *testing.F) {
	for _, s := range []string{"aux", "-ef", "-eo pid,comm=X", "--sort=-rss ax", "-p 1,2", "-t -", "-o pid:5=", "-aux", "--", "k-pid"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		o := newPSOptions()
		o.lookupUser = func(string) (uint32, error) { return 0, nil }
		o.lookupGroup = o.lookupUser
		if o.parse(strings.Split(s, " ")) != nil {
			return
		}
		l := &listing{}
		for _, b := range cannedProcesses() {
			l.Processes = append(l.Processes, b.Processes...)
		}
		c := newPSView(testNow(), l)
		keep := o.filter(0, false)
		l.Processes = slices.DeleteFunc(l.Processes, func(p api.Process) bool { return !keep(&p) })
		var out bytes.Buffer
		if err := o.print(&out, c, o.order(c, l.Processes), o.form(false), 80); err != nil {
			t.Error(err)
		}
		for line := range strings.Lines(out.String()) {
			if strings.ContainsRune(line, 0x1b) && !strings.ContainsRune(s, 0x1b) {
				t.Errorf("%q prints an escape: %q", s, line)
			}
		}
	})
}

// BenchmarkPSAux is the command against this machine's processes, without the
// start of the program.
func BenchmarkPSAux(b *testing.B) {
	dial := realDaemon(b)
	for b.Loop() {
		if _, errOut, status := runCommand(dial, "ps", "aux"); status != 0 {
			b.Fatal(errOut)
		}
	}
}
