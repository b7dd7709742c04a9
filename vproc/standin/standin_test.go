package standin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/proc"
	"ssi/internal/sys"
)

// The tests run as PID 1 of a PID namespace of their own, where PIDs are as large as
// those of a cluster.
func TestMain(m *testing.M) {
	if os.Getpid() == 1 {
		if err := errors.Join(
			unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("proc", "/proc", "proc", 0, ""),
			os.WriteFile("/proc/sys/kernel/pid_max", []byte("4194304"), 0),
			os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte("65836"), 0), // node 2
		); err != nil {
			fmt.Fprintln(os.Stderr, "PID namespace:", err)
			os.Exit(1)
		}
		proc.DefaultSignals() // as the role spawn does; make(1) ignores some
		os.Exit(m.Run())
	}
	if os.Getuid() != 0 {
		fmt.Println("skipped: needs root: it makes PID namespaces")
		return
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

const patience = 20 * time.Second

// children creates processes as children of PID 1, which this is.
type children struct{}

func (children) Spawn(_ context.Context, s *proc.Spec, files []*os.File) (int32, *os.File, error) {
	fd := -1
	attr := &syscall.ProcAttr{Env: s.Env, Dir: s.Dir, Sys: &syscall.SysProcAttr{Setsid: true, PidFD: &fd}}
	for _, f := range files {
		attr.Files = append(attr.Files, f.Fd())
	}
	pid, err := syscall.ForkExec(s.Path, s.Argv, attr)
	if err != nil {
		return 0, nil, err
	}
	return int32(pid), os.NewFile(uintptr(fd), "pidfd"), nil
}

// reap reaps the children that have ended, as init does.
func (k *kit) reap(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(time.Millisecond):
		}
		list, _ := os.ReadDir("/proc")
		for _, e := range list {
			b, err := os.ReadFile("/proc/" + e.Name() + "/stat")
			if pid, perr := strconv.Atoi(e.Name()); err == nil && perr == nil && strings.Contains(string(b), ") Z 1 ") {
				var ws unix.WaitStatus
				if n, err := unix.Wait4(pid, &ws, unix.WNOHANG, nil); err == nil && n == pid {
					k.mu.Lock()
					k.ends[pid] = ws
					k.mu.Unlock()
				}
			}
		}
	}
}

type kit struct {
	*testing.T
	m     *Maker
	exits chan proc.Exit

	mu   sync.Mutex
	ends map[int]unix.WaitStatus // of the children of PID 1
}

func start(t *testing.T) *kit {
	t.Helper()
	if len(sys.Hollow()) == 0 {
		t.Skip("there are no stand-ins on this processor")
	}
	k := &kit{T: t, exits: make(chan proc.Exit, 100)}
	var err error
	if k.m, err = New(Config{
		Spawn: children{}, Exited: func(e proc.Exit) { k.exits <- e }, LocalView: "SSI_LOCALVIEW",
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}); err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan struct{})
	k.ends = map[int]unix.WaitStatus{}
	go func() {
		defer close(done)
		k.reap(stop)
	}()
	t.Cleanup(func() {
		k.m.Close()
		eventually(t, "nothing is left", func() bool {
			list, _ := os.ReadDir("/proc")
			return !slices.ContainsFunc(list, func(e os.DirEntry) bool {
				pid, err := strconv.Atoi(e.Name())
				return err == nil && pid != 1 && pid < 65536
			})
		})
		close(stop)
		<-done
	})
	return k
}

// command is a process that runs.
type command struct {
	*kit
	pid   int32
	pidfd *os.File
	in    *os.File
	out   *os.File
}

// home is a place: a job of the shell 40000 on node 1.
func home(pid, group int32) proc.Place {
	return proc.Place{PID: pid, Parent: 40000, ParentGroup: 40000, ParentSession: 40000, Group: group, GroupParent: 40000, Session: 40000}
}

func (k *kit) try(s *proc.Spec) (*command, error) {
	k.Helper()
	inR, inW, err := os.Pipe()
	if err != nil {
		k.Fatal(err)
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		k.Fatal(err)
	}
	defer func() { _ = inR.Close(); _ = outW.Close() }()
	_ = inR.Fd() // it blocks from now on
	if s.Dir == "" {
		s.Dir = "/"
	}
	if s.Env == nil {
		s.Env = []string{"PATH=/usr/bin:/bin"}
	}
	c := &command{kit: k, in: inW, out: outR}
	c.pid, c.pidfd, err = k.m.Create(k.Context(), s, []*os.File{inR, outW, outW})
	k.Cleanup(func() { _ = inW.Close(); _ = outR.Close() })
	if err == nil {
		k.Cleanup(func() {
			_ = unix.PidfdSendSignal(int(c.pidfd.Fd()), unix.SIGKILL, nil, 0)
			_ = c.pidfd.Close()
		})
	}
	return c, err
}

func (k *kit) create(s *proc.Spec) *command {
	k.Helper()
	c, err := k.try(s)
	if err != nil {
		k.Fatal(err)
	}
	if c.pid != s.Place.PID {
		k.Fatalf("PID %d, want %d", c.pid, s.Place.PID)
	}
	return c
}

// line reads what the command writes.
func (c *command) line() string {
	c.Helper()
	_ = c.out.SetReadDeadline(time.Now().Add(patience))
	b, one := []byte{}, make([]byte, 1)
	for {
		if _, err := c.out.Read(one); err != nil {
			c.Fatalf("after %q: %v", b, err)
		}
		if one[0] == '\n' {
			return string(b)
		}
		b = append(b, one[0])
	}
}

func (c *command) exit() proc.Exit {
	c.Helper()
	select {
	case e := <-c.exits:
		if e.PID != c.pid {
			c.Fatalf("the end of %d, want that of %d", e.PID, c.pid)
		}
		return e
	case <-time.After(patience):
		c.Fatalf("the end of %d is not told", c.pid)
	}
	panic("not reached")
}

func shell(p proc.Place, script string) *proc.Spec {
	return &proc.Spec{Argv: []string{"sh", "-c", script}, Place: p}
}

const who = `set -- $(cat /proc/$$/stat); echo $1 $4 $5 $6`

func TestPlace(t *testing.T) {
	k := start(t)
	for _, c := range []struct {
		name  string
		place proc.Place
		want  string
	}{
		{"job of a shell", home(40001, 40001), "40001 40000 40001 40000"},
		{"second of a pipeline", home(40003, 40002), "40003 40000 40002 40000"},
		{"in a script", proc.Place{PID: 40005, Parent: 40004, ParentGroup: 40004, ParentSession: 40000, Group: 40004, GroupParent: 40000, Session: 40000}, "40005 40004 40004 40000"},
		{"in a subshell of a pipeline", proc.Place{PID: 40008, Parent: 40007, ParentGroup: 40006, ParentSession: 40000, Group: 40006, GroupParent: 40000, Session: 40000}, "40008 40007 40006 40000"},
		{"parent is init", proc.Place{PID: 40010, Parent: 1, Group: 40009, Session: 40000}, "40010 1 40009 40000"},
		{"a session of its own", proc.Place{PID: 40011, Parent: 40000, ParentGroup: 40000, ParentSession: 40000, Group: 40011, GroupParent: 40000, Session: 40011}, "40011 40000 40011 40011"},
		{"a daemon", proc.Place{PID: 40012, Parent: 1, Group: 40012, Session: 40012}, "40012 1 40012 40012"},
		{"a session of its own, of a parent whose session has no number of the cluster", proc.Place{PID: 40015, Parent: 40014, ParentGroup: 40014, ParentSession: 500, Group: 40015, GroupParent: 40014, Session: 40015}, "40015 40014 40015 40015"},
		{"a parent of another session", proc.Place{PID: 40013, Parent: 41000, ParentGroup: 41000, ParentSession: 41000, Group: 40013, Session: 40000}, "40013 1 40013 40000"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := (&kit{T: t, m: k.m, exits: k.exits}).create(shell(c.place, who+"; read x; exit 7"))
			if got := r.line(); got != c.want {
				t.Errorf("PID, parent, group, session: %s, want %s", got, c.want)
			}
			_ = r.in.Close()
			if c.place.Parent == 1 || c.place.Parent == 41000 {
				eventually(t, "its end", func() bool {
					k.mu.Lock()
					defer k.mu.Unlock()
					ws, ok := k.ends[int(r.pid)]
					return ok && ws.ExitStatus() == 7
				})
			} else if e := r.exit(); e.Status.ExitStatus() != 7 || e.MaxRSS == 0 {
				t.Errorf("%+v", e)
			}
			k.m.Release(r.pid)
		})
	}
	eventually(t, "only the root is left", func() bool { return len(k.m.StandIns()) == 1 })
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			out, _ := exec.Command("ps", "-eo", "pid,ppid,pgid,sid,stat,comm").Output()
			t.Fatalf("not in time: %s; processes:\n%s", what, out)
		}
	}
}

// A stand-in that leads a group becomes the process whose number it has.
func TestOwnerArrives(t *testing.T) {
	k := start(t)
	second := k.create(shell(home(40002, 40001), who+"; read x"))
	if got := second.line(); got != "40002 40000 40001 40000" {
		t.Error(got)
	}
	if !k.m.StandIn(40001) || !k.m.StandIn(40000) || k.m.StandIn(40002) {
		t.Error("stand-ins: ", k.m.StandIns())
	}
	first := k.create(shell(home(40001, 40001), who+"; read x"))
	if got := first.line(); got != "40001 40000 40001 40000" {
		t.Error(got)
	}
	if k.m.StandIn(40001) {
		t.Error("40001 is a process now")
	}
	if err := unix.Kill(-40001, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	ended := map[int32]unix.Signal{}
	for range 2 {
		e := <-k.exits
		ended[e.PID] = e.Status.Signal()
	}
	if ended[40001] != unix.SIGTERM || ended[40002] != unix.SIGTERM {
		t.Error(ended)
	}
}

// Everything else of a Spec.
func TestSpec(t *testing.T) {
	k := start(t)
	s := shell(home(40001, 40001), `echo $(id -u) $(id -g) $(id -G) $(umask) $(pwd) $(ulimit -n) $(ulimit -Hn) $(cut -d' ' -f19 /proc/$$/stat) $A $0
grep SigIgn /proc/self/status; grep SigBlk /proc/self/status; ls /proc/self/fd | tr '\n' ' '; echo
grep -c 'arena\|memfd' /proc/$$/maps; for f in /proc/$$/fd/*; do readlink $f; done | grep -c 'memfd\|pidfd'`)
	s.UID, s.GID, s.Groups, s.Umask, s.Dir, s.Nice = 1234, 4321, []uint32{7, 8}, 0o27, "/usr", 5
	s.Env = []string{"A=b c", "PATH=/nowhere:/usr/bin:/bin"}
	s.Limits = []proc.Rlimit{{Resource: unix.RLIMIT_NOFILE, Cur: 77, Max: 99}}
	s.Ignored = 1<<(unix.SIGHUP-1) | 1<<63
	c := k.create(s)
	for _, want := range []string{
		"1234 4321 4321 7 8 0027 /usr 77 99 5 b c sh", "SigIgn:\t8000000000000001", "SigBlk:\t0000000000000000", "0 1 2 3 ", "0", "0", // 3 is ls's own
	} {
		if got := c.line(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if e := c.exit(); !e.Status.Exited() {
		t.Errorf("%+v", e)
	}
}

func TestNotExecuted(t *testing.T) {
	k := start(t)
	dir := t.TempDir()
	script := dir + "/script"
	if err := os.WriteFile(script, []byte("echo $0 $1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		argv []string
		dir  string
		uid  uint32
		want proc.Failure
	}{
		{[]string{"no-such-command"}, "/", 0, proc.Failure{Op: "exec", Path: "no-such-command", Errno: unix.ENOENT}},
		{[]string{"/no/such"}, "/", 0, proc.Failure{Op: "exec", Path: "/no/such", Errno: unix.ENOENT}},
		{[]string{"/etc/passwd"}, "/", 0, proc.Failure{Op: "exec", Path: "/etc/passwd", Errno: unix.EACCES}},
		{[]string{"sh"}, "/no/such", 0, proc.Failure{Op: "chdir", Path: "/no/such", Errno: unix.ENOENT}},
		{[]string{"sh"}, "/root", 1234, proc.Failure{Op: "chdir", Path: "/root", Errno: unix.EACCES}},
	} {
		_, err := k.try(&proc.Spec{Argv: c.argv, Dir: c.dir, UID: c.uid, Place: home(40001, 40001)})
		var f *proc.Failure
		if !errors.As(err, &f) || *f != c.want {
			t.Errorf("%v in %s: %v, want %v", c.argv, c.dir, err, &c.want)
		}
		eventually(t, "nothing is left of it", func() bool { return unix.Kill(40001, 0) == unix.ESRCH })
	}
	c := k.create(&proc.Spec{Argv: []string{script, "x"}, Place: home(40001, 40001)})
	if got := c.line(); got != script+" x" {
		t.Errorf("a script without a first line: %q", got)
	}
}

func TestNoPlace(t *testing.T) {
	k := start(t)
	held := exec.Command("sleep", "1000")
	if err := held.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = held.Process.Kill(); _ = held.Wait() }()
	taken := int32(held.Process.Pid)
	view := shell(home(40001, 40001), "true")
	view.Env = []string{"SSI_LOCALVIEW=1"}
	parent, session := home(40001, 40001), home(40001, 40001)
	parent.Parent = taken
	none := home(40001, 40001)
	none.Session, none.ParentSession = 500, 500
	session.Session, session.ParentSession = taken, taken
	long := shell(home(40001, 40001), "true")
	long.Env = []string{strings.Repeat("x", 1000)}
	for range 5000 {
		long.Argv = append(long.Argv, long.Env[0])
	}
	for name, s := range map[string]*proc.Spec{
		"none": {Argv: []string{"true"}}, "PID": shell(home(taken, taken), "true"), "parent": shell(parent, "true"),
		"session": shell(session, "true"), "session of no node": shell(none, "true"), "view": view, "too long": long,
	} {
		_, err := k.try(s)
		var u *Unplaceable
		if !errors.As(err, &u) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if unix.Kill(500, 0) != unix.ESRCH {
		t.Error("a process has a number of no node")
	}
	eventually(t, "nothing is left", func() bool { return len(k.m.StandIns()) <= 1 && unix.Kill(40001, 0) == unix.ESRCH })
	k.create(shell(home(40001, 40001), "read x")) // as if nothing had been
}

func TestStops(t *testing.T) {
	k := start(t)
	c := k.create(shell(home(40001, 40001), "kill -TSTP $$; echo on; read x"))
	if e := c.exit(); !e.Status.Stopped() || e.Status.StopSignal() != unix.SIGTSTP { // its group is not orphaned
		t.Fatalf("%+v", e)
	}
	if err := unix.Kill(int(c.pid), unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if e := c.exit(); !e.Status.Continued() {
		t.Fatalf("%+v", e)
	}
	if got := c.line(); got != "on" {
		t.Error(got)
	}
}

func TestGone(t *testing.T) {
	k := start(t)
	c := k.create(shell(home(40001, 40001), "while read x; do "+who+"; done"))
	_, _ = c.in.WriteString("\n")
	if got := c.line(); got != "40001 40000 40001 40000" {
		t.Error(got)
	}
	k.m.Gone(40000)
	eventually(t, "the parent is init", func() bool {
		_, _ = c.in.WriteString("\n")
		return c.line() == "40001 1 40001 40000"
	})
	if k.m.StandIn(40000) {
		t.Error("it is still there")
	}
}
