package pid1

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ssi/init/boot"
	"ssi/internal/config"
	"ssi/internal/keeper"
	"ssi/internal/proc"
)

// The test binary is PID 1 of a PID namespace, its node and its spawn role, too.
func TestMain(m *testing.M) {
	if ByKernel(os.Args, func(name string) bool { return name == "init" || name == "bare" }) {
		os.Exit(Run(machineOptions()))
	}
	if len(os.Args) > 1 {
		log := slog.New(slog.NewTextHandler(os.Stderr, nil))
		switch os.Args[1] {
		case "init":
			if os.Getpid() == 1 {
				_ = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
				_ = unix.Mount("proc", "/proc", "proc", 0, "")
			}
			o := Options{RunDir: os.Getenv("TEST_DIR"), Cgroup: "ssi-init-test-" + filepath.Base(os.Getenv("TEST_DIR")), Log: log}
			if os.Getenv("TEST_BOOT") != "" {
				o.Boot, o.testBoot = []string{"boot"}, true
			}
			os.Exit(Run(o))
		case "bare":
			os.Exit(Run(Options{Log: log}))
		case "boot":
			if os.Getenv("TEST_BOOT") != "" {
				os.Exit(testBoot(log, os.Args[2:]))
			}
			os.Exit(machineBoot(os.Args[2:]))
		case "kexec":
			text, _ := os.ReadFile("/proc/cmdline")
			if err := boot.LoadKernel("/boot/vmlinuz", "/boot/initrd", strings.TrimSpace(string(text))+" again"); err != nil {
				log.Error("kexec", "err", err)
				os.Exit(1)
			}
			os.Exit(0)
		case "initctl":
			os.Exit(boot.RunInitctl(boot.RoleLog("initctl", slog.LevelInfo), config.ButtonPowerOff))
		case "getty":
			os.Exit(boot.RunGetty(boot.RoleLog("getty", slog.LevelInfo), boot.Space{}, os.Args[2:]))
		case "node":
			os.Exit(testNode(log))
		case "spawn": // a child of PID 1 that creates nothing
			for {
				_ = unix.Pause() // select{} would be a deadlock to the runtime
			}
		}
	}
	os.Exit(m.Run())
}

// testNode writes what it sees to files in TEST_DIR and obeys lines sent to its
// listener.
func testNode(log *slog.Logger) int {
	dir := os.Getenv("TEST_DIR")
	k, err := keeper.Open(log, func(e proc.Exit) {
		appendLine(dir, "exits", fmt.Sprintf("%d %d", e.PID, e.Status))
	})
	if err != nil {
		log.Error("node", "err", err)
		return 1
	}
	l, err := k.Listen("main", "unix", filepath.Join(dir, "sock"))
	if err != nil {
		log.Error("node", "err", err)
		return 1
	}
	appendLine(dir, "starts", strconv.Itoa(os.Getpid()))
	for {
		c, err := l.Accept()
		if err != nil {
			return 1
		}
		b := make([]byte, 100)
		n, _ := c.Read(b)
		verb, arg, _ := strings.Cut(string(b[:n]), " ")
		answer := "ok"
		switch verb {
		case "crash":
			panic("a crash")
		case "halt":
			err = k.Shutdown(keeper.Halt)
		case "respawn":
			err = k.RestartSpawn()
		case "put":
			var f *os.File
			if f, err = os.CreateTemp(dir, "kept"); err == nil {
				_, _ = f.WriteString(arg)
				err = k.Put(arg, f)
				_ = f.Close()
			}
		case "take":
			var f *os.File
			if f, err = k.Take(arg); err == nil {
				m, _ := f.ReadAt(b, 0)
				answer = string(b[:m])
				_ = f.Close()
			}
		case "drop":
			err = k.Drop(arg)
		case "orphan": // a process whose parent ends at once: PID 1 gets it
			err = exec.Command("sh", "-c", "sh -c 'sleep 0.05; exit 7' &").Run()
		case "late": // one that needs the role spawn when it is told to end
			err = exec.Command("sh", "-c", `setsid sh -c 'trap "sleep 0.3; look" TERM; look() { for p in /proc/[0-9]*; do
				case "$(tr "\\0" " " <$p/cmdline)" in "ssi spawn "|"ssi node ") echo served >>$TEST_DIR/served;; esac; done; exit; }
				echo >$TEST_DIR/ready; while :; do sleep 0.1; done' >/dev/null 2>&1 &`).Run()
		case "double": // a child that gets away from the group
			err = exec.Command("sh", "-c", "setsid sleep 1000 &").Run()
		}
		if err != nil {
			answer = "error " + err.Error()
			if os.IsNotExist(err) {
				answer = "none"
			}
		}
		_, _ = c.Write([]byte(answer))
		_ = c.Close()
	}
}

func appendLine(dir, file, line string) {
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err == nil {
		_, _ = fmt.Fprintln(f, line)
		_ = f.Close()
	}
}

type box struct {
	t   *testing.T
	dir string
	cmd *exec.Cmd
	log *bytes.Buffer
}

// start starts the role init; namespace tells whether as process 1.
func start(t *testing.T, namespace bool) *box {
	t.Helper()
	return startWith(t, namespace, func(*box) {})
}

// startWith starts it after prepare.
func startWith(t *testing.T, namespace bool, prepare func(*box)) *box {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: it makes PID namespaces")
	}
	x := &box{t: t, dir: t.TempDir(), log: &bytes.Buffer{}}
	x.cmd = exec.Command("/proc/self/exe", "init")
	x.cmd.Env = append(os.Environ(), "TEST_DIR="+x.dir)
	logFile, err := os.Create(filepath.Join(x.dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer logFile.Close()
	x.cmd.Stdout, x.cmd.Stderr = logFile, logFile
	x.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if namespace {
		x.cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWPID | syscall.CLONE_NEWNS
	}
	prepare(x)
	if err := x.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = x.cmd.Process.Kill()
		_ = x.cmd.Wait()
		if root, err := cgroupRoot(); err == nil {
			cgroup(filepath.Join(root, "ssi-init-test-"+filepath.Base(x.dir), "rexec")).remove()
		}
		if t.Failed() {
			t.Logf("log:\n%s", x.read("log"))
		}
	})
	x.until("node runs", func() bool { return len(x.lines("starts")) == 1 })
	return x
}

func (x *box) until(what string, ok func() bool) {
	x.t.Helper()
	end := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(end) {
			x.t.Fatalf("not within 20 s: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (x *box) read(file string) string {
	b, _ := os.ReadFile(filepath.Join(x.dir, file))
	return string(b)
}

func (x *box) lines(file string) []string { return strings.Fields(x.read(file)) }

// ask sends one line to the node role.
func (x *box) ask(line string) string {
	x.t.Helper()
	c, err := net.Dial("unix", filepath.Join(x.dir, "sock"))
	if err != nil {
		x.t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = c.Write([]byte(line))
	b := make([]byte, 200)
	n, _ := c.Read(b)
	return string(b[:n])
}

func (x *box) want(line, answer string) {
	x.t.Helper()
	if got := x.ask(line); got != answer {
		x.t.Errorf("%s: %q, want %q", line, got, answer)
	}
}

func TestNodeRestartsAndFilesStay(t *testing.T) {
	x := start(t, true)
	x.want("take nothing", "none")
	x.want("put one", "ok")
	for i := range 3 {
		x.ask("crash")
		// The listener is kept: the question waits for the next life.
		x.want("take one", "one")
		if n := len(x.lines("starts")); n != i+2 {
			t.Errorf("%d starts", n)
		}
	}
	x.want("drop one", "ok")
	x.want("take one", "none")
	for i := range keeper.MaxFiles - 1 { // one is the listener
		x.want(fmt.Sprintf("put f%d", i), "ok")
	}
	if got := x.ask("put more"); !strings.Contains(got, "as many files as it may") {
		t.Errorf("one too many: %q", got)
	}
	x.want("put f3", "ok") // instead of the one kept
}

func TestExitsAreReported(t *testing.T) {
	x := start(t, true)
	x.want("orphan", "ok")
	x.until("the exit of an orphan is reported", func() bool {
		return strings.Contains(x.read("exits"), " "+strconv.Itoa(7<<8)+"\n")
	})
}

func TestSpawnRestarts(t *testing.T) {
	x := start(t, true)
	for range 2 {
		x.want("respawn", "ok")
	}
	x.until("the restart is logged", func() bool { return strings.Contains(x.read("log"), "role ended\" op=spawn") })
}

func TestMemory(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector multiplies the memory of a process")
	}
	x := start(t, true)
	for range 20 {
		x.want("orphan", "ok")
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", x.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil || kib > 12<<10 {
		t.Errorf("PID 1 holds %d KiB, at most 12 MiB (%v)", kib, err)
	}
	t.Logf("PID 1 holds %d KiB", kib)
}

// What ends is served until it has ended: the roles go after it.
func TestUsersEndFirst(t *testing.T) {
	x := start(t, true)
	x.want("late", "ok")
	x.until("it waits for the end", func() bool { return x.read("ready") != "" })
	x.ask("halt")
	_ = x.cmd.Wait()
	if got := x.read("served"); strings.Count(got, "served") != 2 {
		t.Errorf("the roles spawn and node ended before a process that needed them: %q", got)
	}
}

func TestEnds(t *testing.T) {
	for _, c := range []struct {
		name      string
		namespace bool
		end       func(x *box)
		status    func(ws syscall.WaitStatus) bool
	}{
		// reboot(2) ends a PID namespace: init dies by SIGINT, for a reboot by SIGHUP.
		{"by the node", true, func(x *box) { x.ask("halt") }, func(ws syscall.WaitStatus) bool { return ws.Signal() == syscall.SIGINT }},
		{"SIGTERM", true, func(x *box) { _ = x.cmd.Process.Signal(unix.SIGTERM) }, func(ws syscall.WaitStatus) bool { return ws.Signal() == syscall.SIGINT }},
		{"reboot", true, func(x *box) { _ = x.cmd.Process.Signal(sigReboot) }, func(ws syscall.WaitStatus) bool { return ws.Signal() == syscall.SIGHUP }},
		{"not process 1", false, func(x *box) { _ = x.cmd.Process.Signal(unix.SIGTERM) }, func(ws syscall.WaitStatus) bool { return ws.Exited() && ws.ExitStatus() == 0 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := start(t, c.namespace)
			if c.namespace {
				x.want("double", "ok")
			}
			began := time.Now()
			c.end(x)
			timer := time.AfterFunc(25*time.Second, func() { _ = x.cmd.Process.Kill() })
			defer timer.Stop()
			_ = x.cmd.Wait()
			ws := x.cmd.ProcessState.Sys().(syscall.WaitStatus)
			if !c.status(ws) {
				t.Errorf("%v after %s", x.cmd.ProcessState, time.Since(began))
			}
			for _, pid := range x.lines("starts") {
				if c.namespace {
					break
				}
				n, _ := strconv.Atoi(pid)
				if err := syscall.Kill(n, 0); err == nil {
					t.Errorf("node role %d lives", n)
				}
			}
		})
	}
}

func TestRing(t *testing.T) {
	r := &ring{more: make(chan struct{}, 1)}
	const over = 10
	for i := range keeper.MaxExits + over {
		r.add(proc.Exit{PID: int32(i)})
	}
	got, dropped, _ := r.take()
	if len(got) != keeper.MaxExits || dropped != over || got[0].PID != over || got[len(got)-1].PID != keeper.MaxExits+over-1 {
		t.Errorf("%d exits from %d to %d, %d dropped", len(got), got[0].PID, got[len(got)-1].PID, dropped)
	}
	r.add(proc.Exit{PID: 1})
	if got, dropped, _ = r.take(); len(got) != 1 || dropped != 0 {
		t.Errorf("then %d exits, %d dropped", len(got), dropped)
	}
}

func TestBackOff(t *testing.T) {
	now := time.Now()
	r := &role{end: func() {}}
	var got []time.Duration
	for range 9 {
		r.started = now
		now = now.Add(time.Second)
		r.exited(now)
		got = append(got, r.delay)
	}
	want := []int64{100, 200, 400, 800, 1600, 3200, 6400, 10000, 10000}
	for i := range want {
		if got[i].Milliseconds() != want[i] {
			t.Fatalf("%v", got)
		}
	}
	r.started = now
	if r.exited(now.Add(healthy)); r.delay != firstDelay {
		t.Errorf("after a healthy life: %s", r.delay)
	}
}

func TestPanicsAreSurvived(t *testing.T) {
	d := newInitd(Options{Log: slog.New(slog.DiscardHandler)})
	n := 0
	for range 2 {
		d.safely("test", func() { n++; panic("a test") })
	}
	if n != 2 {
		t.Errorf("%d steps", n)
	}
}

func TestMountBasics(t *testing.T) {
	if is, err := mounted("/proc"); !is || err != nil {
		t.Errorf("/proc: %v, %v", is, err)
	}
	dir := filepath.Join(t.TempDir(), "new")
	if is, err := mounted(dir); is || err != nil {
		t.Errorf("a new directory: %v, %v", is, err)
	}
	if _, err := os.Stat(dir); err != nil {
		t.Error("the directory was not made")
	}
	done, err := mountBasics([]basic{{dir: dir, kind: "no-such-file-system"}, {dir: "/proc", kind: "proc"}})
	if err == nil || len(done) != 0 || !strings.Contains(err.Error(), dir) {
		t.Errorf("%v, %v", done, err)
	}
}

// A node's users get half of its PID window.
func TestTaskLimit(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "ssi"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := cgroup(filepath.Join(dir, "ssi", "rexec")).limit(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"ssi/pids.max": "16384", "cgroup.subtree_control": "+pids"} {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	if err := cgroup(filepath.Join(dir, "none", "rexec")).limit(); err == nil {
		t.Error("without a controller it says nothing")
	}
}
