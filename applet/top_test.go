package applet

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/api"
	"ssi/internal/id"
)

func cannedListing() *listing {
	l := &listing{}
	for _, b := range cannedProcesses() {
		l.Processes = append(l.Processes, b.Processes...)
		if b.Load != nil {
			l.Loads = append(l.Loads, *b.Load)
		}
		if b.Error != "" {
			l.Errors = append(l.Errors, b.Error)
		}
	}
	return l
}

func order(m *topModel) (out []id.PID) {
	for _, p := range m.rows {
		out = append(out, p.PID)
	}
	return out
}

func TestTopUsage(t *testing.T) {
	m := newTopModel()
	m.update(cannedListing(), testNow())
	if got := m.usage[topKey{2, 70000, 70000}]; got != 900 {
		t.Errorf("first list: hog uses %d tenths, want the average of its life, 900", got)
	}
	l := cannedListing()
	for i := range l.Processes {
		p := &l.Processes[i]
		p.Age += 2000
		switch p.PID {
		case 70000:
			p.UserTime += 500
		case 40001:
			p.SystemTime += 4000 // two CPUs
		}
	}
	for i := range l.Loads {
		l.Loads[i].CPUTotal += 8000
		l.Loads[i].CPUIdle += 2000
	}
	m.update(l, testNow().Add(2*time.Second))
	for k, want := range map[topKey]int64{{2, 70000, 70000}: 250, {1, 40001, 40001}: 2000, {1, 40000, 40000}: 0} {
		if got := m.usage[k]; got != want {
			t.Errorf("%+v uses %d tenths, want %d", k, got, want)
		}
	}
	if m.busy[1] != 750 {
		t.Errorf("node 1 is %d tenths busy, want 750", m.busy[1])
	}
	if got := order(m); got[0] != 40001 || got[1] != 70000 {
		t.Errorf("order %d", got)
	}
	// A PID given to another process does not inherit what the first one used.
	l.Processes = slices.Clone(l.Processes)
	for i := range l.Processes {
		if l.Processes[i].PID == 70000 {
			l.Processes[i].StartTicks, l.Processes[i].Age, l.Processes[i].UserTime, l.Processes[i].SystemTime = 99999, 1000, 100, 0
		}
	}
	m.update(l, testNow().Add(3*time.Second))
	if got := m.usage[topKey{2, 70000, 99999}]; got != 100 {
		t.Errorf("a new process with an old PID uses %d tenths, want 100", got)
	}
}

func TestTopOrderAndFilter(t *testing.T) {
	m := newTopModel()
	m.update(cannedListing(), testNow())
	for _, c := range []struct {
		set  func()
		want []id.PID
	}{
		{func() { m.sort = "mem" }, []id.PID{70000}},
		{func() { m.sort = "time" }, []id.PID{70000, 40000}},
		{func() { m.sort = "pid" }, []id.PID{1, 2, 40000, 40001, 70000, 70001}},
		{func() { m.reverse = true }, []id.PID{70001, 70000, 40001, 40000, 2, 1}},
		{func() { m.reverse = false; m.sort = "command" }, []id.PID{40000, 70001, 70000, 2, 1, 40001}},
		{func() { m.sort = "node" }, []id.PID{1, 40000, 40001, 70000}},
		{func() { m.sort = "pid"; m.filter = "HOG --ALL" }, []id.PID{70000}},
		{func() { m.filter = ""; m.user = "4294967" }, []id.PID{40001}},
		{func() { m.user = ""; m.node = 2 }, []id.PID{2, 70000, 70001}},
		{func() { m.idle = true }, []id.PID{70000}},
		{func() { m.filter = "nothing" }, nil},
	} {
		c.set()
		m.arrange()
		if got := order(m); len(got) < len(c.want) || !slices.Equal(got[:len(c.want)], c.want) || c.want == nil && len(got) > 0 {
			t.Errorf("sort %s: %d, want %d…", m.sort, got, c.want)
		}
	}
	if m.current() != nil {
		t.Error("something is selected in an empty list")
	}
	m.move(1)
}

func TestTopScreenFits(t *testing.T) {
	m := newTopModel()
	for _, size := range [][2]int{{80, 24}, {200, 5}, {10, 3}, {1, 1}, {80, 0}} {
		for range 2 { // before the first list, and with it
			lines := m.screen(size[0], size[1], "")
			if len(lines) != size[1] {
				t.Errorf("%v: %d lines", size, len(lines))
			}
			for _, l := range lines {
				if n := cells(l.text); n > size[0] {
					t.Errorf("%v: a line of %d cells: %q", size, n, l.text)
				}
			}
			m.update(cannedListing(), testNow())
		}
	}
	m.args, m.sort = true, "pid"
	m.arrange()
	m.move(100)
	lines := m.screen(100, 8, "question? ")
	if last := lines[7]; !last.reverse || !strings.Contains(last.text, "70001") {
		t.Errorf("the selected process is not on the screen: %+v", lines)
	}
	m = newTopModel()
	m.args, m.sort = true, "pid"
	m.update(cannedListing(), testNow())
	text := ""
	for _, l := range m.screen(100, 24, "question? ") {
		text += l.text + "\n"
	}
	for _, want := range []string{"2 nodes, 6 processes, 1 running", "node 1   cpu [|||||               ]  25.0%  mem [|||||     ]  50.0%", "node 4: did not answer within 2s", "question? ",
		"   2   70000 root       20   0    8192  524288 R  90.0  50.0   1:30.00 /usr/bin/hog --all", "vi a?b"} {
		if !strings.Contains(text, want) {
			t.Errorf("the screen lacks %q:\n%s", want, text)
		}
	}
}

func TestDecodeKeys(t *testing.T) {
	for in, want := range map[string][]topKeyPress{
		"qä":             {{char: 'q'}, {char: 'ä'}},
		"\x1b[A\x1bOBx":  {{name: "up"}, {name: "down"}, {char: 'x'}},
		"\x1b[5~\x1b[6~": {{name: "pageup"}, {name: "pagedown"}},
		"\x1b[1~\x1b[F":  {{name: "home"}, {name: "end"}},
		"\x1b":           {{name: "esc"}},
		"\x1bq":          {{name: "esc"}, {char: 'q'}},
		"\x1b[<0;1;1Mq":  {{char: 'q'}},
		"\x1b[12":        nil,
		"\xff":           {{char: 0xfffd}},
		"":               nil,
	} {
		if got := decodeKeys([]byte(in)); !slices.Equal(got, want) {
			t.Errorf("%q: %+v, want %+v", in, got, want)
		}
	}
}

func FuzzDecodeKeys(f *testing.F) {
	f.Add([]byte("q\x1b[A\x1b[5~\xff\x1b"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got := decodeKeys(b); len(got) > len(b) {
			t.Errorf("%d keys from %d bytes", len(got), len(b))
		}
	})
}

func TestTopBatch(t *testing.T) {
	d, run := startDaemon(t)
	out, errOut, status := run("top", "-b", "-n", "2", "-d", "0.2", "-o", "-pid", "-c", "--node", "2", "-u", "root")
	if status != 0 || strings.Count(out, "ssi top - ") != 2 || strings.Count(out, "/usr/bin/hog --all") != 2 || strings.Contains(out, "/sbin/ssi") || !strings.Contains(out, "sort pid reversed") {
		t.Errorf("%d %s\n%s", status, errOut, out)
	}
	if len(d.lists) != 2 || d.lists[0].Node != 2 {
		t.Errorf("asked %+v", d.lists)
	}
	for words, want := range map[string]string{
		"top -b -d 0": "the delay is", "top -b -d NaN": "the delay is", "top -b -n -1": "number of lists", "top -b -o x": "cannot sort", "top -b -p x": "not a process ID", "top x": "too much",
	} {
		if _, errOut, status := run(strings.Fields(words)...); status != 2 || !strings.Contains(errOut, want) {
			t.Errorf("%s: %d %q", words, status, errOut)
		}
	}
}

// pseudoTerminal is a terminal with a program on it.
type pseudoTerminal struct {
	t      *testing.T
	master *os.File
	cmd    *exec.Cmd

	mu   sync.Mutex
	text []byte
	more chan struct{} // something was written
}

// openTerminal starts this test binary as top on a new terminal.
func openTerminal(t *testing.T, words ...string) *pseudoTerminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := master.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var slave *os.File
	if err := raw.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err != nil {
			return
		}
		var n int
		if n, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN); err != nil {
			return
		}
		if err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 100}); err != nil {
			return
		}
		slave, err = os.OpenFile("/dev/pts/"+id.Node(n).String(), os.O_RDWR|unix.O_NOCTTY, 0)
	}); err != nil || slave == nil {
		t.Fatal("open a terminal: ", err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestTopProcess$")
	cmd.Env = append(os.Environ(), "SSI_TEST_TOP="+strings.Join(words, " "))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = slave.Close()
	p := &pseudoTerminal{t: t, master: master, cmd: cmd, more: make(chan struct{}, 1)}
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			p.mu.Lock()
			p.text = append(p.text, buf[:n]...)
			p.mu.Unlock()
			select {
			case p.more <- struct{}{}:
			default:
			}
			if err != nil {
				return
			}
		}
	})
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = master.SetReadDeadline(time.Unix(1, 0))
		wg.Wait()
		_ = master.Close()
	})
	return p
}

// expect waits until the terminal was sent a text, and forgets all up to it.
func (p *pseudoTerminal) expect(text string) {
	p.t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		p.mu.Lock()
		if _, rest, ok := bytes.Cut(p.text, []byte(text)); ok {
			p.text = rest
			p.mu.Unlock()
			return
		}
		got := string(p.text)
		p.mu.Unlock()
		select {
		case <-p.more:
		case <-deadline:
			p.t.Fatalf("no %q within 20s; got %q", text, got)
		}
	}
}

func (p *pseudoTerminal) send(keys string) {
	p.t.Helper()
	if _, err := io.WriteString(p.master, keys); err != nil {
		p.t.Fatal(err)
	}
}

// cooked reports whether the terminal is as it was before top had it.
func (p *pseudoTerminal) cooked() bool {
	raw, err := p.master.SyscallConn()
	if err != nil {
		p.t.Fatal(err)
	}
	var tio *unix.Termios
	if cerr := raw.Control(func(fd uintptr) { tio, err = unix.IoctlGetTermios(int(fd), unix.TCGETS) }); cerr != nil || err != nil {
		p.t.Fatal(cerr, err)
	}
	return tio.Lflag&unix.ICANON != 0 && tio.Lflag&unix.ECHO != 0 && tio.Lflag&unix.ISIG != 0
}

// TestTopProcess is top itself, in the process that openTerminal starts.
func TestTopProcess(t *testing.T) {
	words := os.Getenv("SSI_TEST_TOP")
	if words == "" {
		return // it is not that process
	}
	env := System(strings.Fields(words), "test")
	os.Exit(Main(env, processEntries()))
}

func TestTopLive(t *testing.T) {
	d, _ := startDaemon(t)
	p := openTerminal(t, "top", "-d", "0.2", "-o", "cpu")
	p.expect(screenEnter)
	p.expect("2 nodes, 6 processes")
	p.expect("hog")
	if p.cooked() {
		t.Error("the terminal is not raw while top runs")
	}
	p.send("M")
	p.expect("sort mem")
	p.send("/hog\r")
	p.expect(`filter "hog"`)
	p.send("k")
	p.expect("process ID to signal [70000 on node 2, hog]")
	p.send("\r")
	p.expect("signal [TERM]: ")
	p.send("HUP\r")
	p.expect("sent HUP: 70000 on node 2")
	p.send("r")
	p.expect("process ID to renice")
	p.send("70404\r")
	p.expect("nice value")
	p.send("5\r")
	p.expect("(70404): No such process")
	d.mu.Lock()
	if len(d.signals) != 1 || d.signals[0].Signal != 1 || d.signals[0].Targets[0] != (api.ProcessTarget{Node: 2, PID: 70000, StartTicks: 70000}) {
		t.Errorf("signals: %+v", d.signals)
	}
	if len(d.renices) != 1 || d.renices[0].Nice != 5 || d.renices[0].Targets[0].PID != 70404 {
		t.Errorf("renices: %+v", d.renices)
	}
	d.mu.Unlock()
	p.send("q")
	p.expect(screenLeave)
	if err := p.cmd.Wait(); err != nil {
		t.Error(err)
	}
	if !p.cooked() {
		t.Error("the terminal is still raw after q")
	}
}

func TestTopGivesTheTerminalBack(t *testing.T) {
	for name, end := range map[string]func(*pseudoTerminal) error{
		"SIGTERM": func(p *pseudoTerminal) error { return p.cmd.Process.Signal(syscall.SIGTERM) },
		"SIGINT":  func(p *pseudoTerminal) error { return p.cmd.Process.Signal(syscall.SIGINT) },
		"SIGHUP":  func(p *pseudoTerminal) error { return p.cmd.Process.Signal(syscall.SIGHUP) },
		"^C":      func(p *pseudoTerminal) error { _, err := p.master.WriteString("\x03"); return err },
	} {
		t.Run(name, func(t *testing.T) {
			startDaemon(t)
			p := openTerminal(t, "top")
			p.expect("hog")
			if err := end(p); err != nil {
				t.Fatal(err)
			}
			p.expect(screenLeave)
			if err := p.cmd.Wait(); err != nil {
				t.Error(err)
			}
			if !p.cooked() {
				t.Error("the terminal is still raw")
			}
		})
	}
}

func TestTopStopsAndGoesOn(t *testing.T) {
	startDaemon(t)
	p := openTerminal(t, "top")
	p.expect("hog")
	p.send("\x1a")
	p.expect(screenLeave)
	var status unix.WaitStatus
	if _, err := unix.Wait4(p.cmd.Process.Pid, &status, unix.WUNTRACED, nil); err != nil || !status.Stopped() {
		t.Fatalf("^Z: %v, status %x", err, status)
	}
	if !p.cooked() {
		t.Error("the terminal is raw while top is stopped")
	}
	if err := p.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	p.expect(screenEnter)
	p.expect("hog")
	p.send("q")
	p.expect(screenLeave)
	if err := p.cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func TestTopWithoutTerminalOrDaemon(t *testing.T) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestTopProcess$")
	cmd.Env = append(os.Environ(), "SSI_TEST_TOP=top")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if err == nil || !regexp.MustCompile(`^top: there is no terminal .*use top -b\n$`).Match(out) {
		t.Errorf("%v: %q", err, out)
	}
	t.Setenv(api.SocketEnv, filepath.Join(t.TempDir(), "s"))
	_, errOut, status := runCommand(api.Dial, "top", "-b", "-n", "1")
	if status != 1 || !strings.Contains(errOut, "no ssi daemon on this machine") {
		t.Errorf("%d %q", status, errOut)
	}
}
