package rexec_test

import (
	"bytes"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ssi/internal/api"
	"ssi/internal/pty"
)

// terminal is a shell on a terminal in a machine, and what it has shown.
type terminal struct {
	t      *testing.T
	master *os.File
	cmd    *exec.Cmd

	mu    sync.Mutex
	shown bytes.Buffer
	seen  int // what expect has passed
}

func openTerminal(t *testing.T, m *machine, argv ...string) *terminal {
	t.Helper()
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	if err := pty.SetSize(master, 24, 200); err != nil {
		t.Fatal(err)
	}
	x := &terminal{t: t, master: master}
	// setsid: the shell leads a session of its own inside of the PID namespace.
	x.cmd = exec.Command("nsenter", append([]string{"-t", strconv.Itoa(m.cmd.Process.Pid), "-m", "-p", "--", "setsid", "-c", "-w"}, argv...)...)
	x.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TERM=xterm", "HOME=/", "PS1=@$SSI_NODE> ", api.SocketEnv + "=" + m.socket(), "ONNODE=" + self(t) + " onnode 2", "INPUTRC=/dev/null"}
	x.cmd.Stdin, x.cmd.Stdout, x.cmd.Stderr = slave, slave, slave
	x.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := x.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = slave.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 4096)
		for {
			n, err := master.Read(b)
			x.mu.Lock()
			x.shown.Write(b[:n])
			x.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = x.cmd.Process.Kill()
		_ = master.Close()
		<-done
		_ = x.cmd.Wait()
		if t.Failed() {
			t.Logf("terminal:\n%q", x.shown.String())
		}
	})
	return x
}

// expect waits until text is shown after what was expected before.
func (x *terminal) expect(text string) {
	x.t.Helper()
	end := time.Now().Add(patience)
	for {
		x.mu.Lock()
		i := strings.Index(x.shown.String()[x.seen:], text)
		if i >= 0 {
			x.seen += i + len(text)
		}
		rest := x.shown.String()[x.seen:]
		x.mu.Unlock()
		if i >= 0 {
			return
		}
		if time.Now().After(end) {
			x.t.Fatalf("%q is not shown, but %q", text, rest)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (x *terminal) typ(text string) {
	x.t.Helper()
	if _, err := x.master.WriteString(text); err != nil {
		x.t.Fatal(err)
	}
}

func TestTerminal(t *testing.T) {
	base := t.TempDir()
	m := boot(t, base, 1)
	boot(t, base, 2)
	x := openTerminal(t, m, "bash", "--norc", "--noediting", "-i")
	const here, there = "@> ", "@2> " // the prompts; what is typed before them may go to the command
	status := func(want string) {
		t.Helper()
		x.expect(here)
		x.typ("echo [$?]\n")
		x.expect("\r\n[" + want + "]\r\n")
	}
	t.Run("size and name", func(t *testing.T) {
		x.expect(here)
		x.typ("$ONNODE sh -c 'tty; stty size; echo $TERM; exit 3'\n")
		x.expect("/dev/pts/")
		x.expect("24 200\r\nxterm\r\n")
		status("3")
	})
	t.Run("interrupt", func(t *testing.T) {
		x.expect(here)
		x.typ("$ONNODE sh -c 'echo up; exec sleep 100'\n")
		x.expect("up\r\n")
		x.typ("\x03")
		status("130")
	})
	t.Run("quit", func(t *testing.T) {
		x.expect(here)
		x.typ("$ONNODE sh -c 'ulimit -c 0; echo up; exec sleep 100'\n")
		x.expect("up\r\n")
		x.typ("\x1c")
		status("131")
	})
	t.Run("end of file", func(t *testing.T) {
		x.expect(here)
		x.typ("$ONNODE sh -c 'echo up; exec cat'\n")
		x.expect("up\r\n")
		x.typ("line\n")
		x.expect("line\r\nline\r\n")
		x.typ("\x04")
		status("0")
	})
	t.Run("stop and continue", func(t *testing.T) {
		x.expect(here)
		x.typ("$ONNODE sh -c 'echo up; exec cat'\n")
		x.expect("up\r\n")
		x.typ("\x1a")
		x.expect("Stopped")
		x.expect(here)
		x.typ("jobs\n")
		x.expect("Stopped")
		x.expect(here)
		x.typ("echo local\n")
		x.expect("\r\nlocal\r\n")
		x.expect(here)
		x.typ("fg\n")
		x.expect("ONNODE sh -c")
		x.typ("again\n")
		x.expect("again\r\nagain\r\n")
		x.typ("\x1a")
		x.expect("Stopped")
		x.expect(here)
		x.typ("fg\n")
		x.expect("ONNODE sh -c")
		x.typ("third\n")
		x.expect("third\r\nthird\r\n")
		x.typ("\x03")
		status("130")
	})
	t.Run("window size", func(t *testing.T) {
		x.expect(here)
		x.typ("$ONNODE sh -c 'trap \"stty size; exit 0\" WINCH; echo up; while :; do sleep 0.02; done'\n")
		x.expect("up\r\n")
		if err := pty.SetSize(x.master, 30, 100); err != nil {
			t.Fatal(err)
		}
		x.expect("30 100")
		status("0")
	})
	t.Run("background leaves the terminal alone", func(t *testing.T) {
		x.expect(here)
		x.typ("$ONNODE sh -c 'sleep 0.3; echo from behind' &\n")
		x.expect("\n[1] ")
		x.expect(here)
		x.typ("echo front\n")
		x.expect("\r\nfront\r\n")
		x.expect("from behind")
		x.typ("wait; stty -a | grep -o ' icanon'\n")
		x.expect("\r\n icanon")
	})
	// jobs waits until the shell shows its only job in that state; bash names the signal in POSIX mode only.
	jobs := func(state string) {
		t.Helper()
		f := base + "/jobs"
		x.typ("set -o posix; until jobs >" + f + "; grep -q '" + state + "' " + f + "; do sleep 0.02; done; set +o posix; echo [reached]\n")
		x.expect("\r\n[reached]\r\n")
		x.expect(here)
	}
	t.Run("background reader is stopped", func(t *testing.T) {
		x.expect(here)
		x.typ("$ONNODE sh -c 'read a; echo got $a; read b; echo and $b' &\n")
		x.expect(here)
		jobs("Stopped(SIGTTIN)")
		x.typ("bg\n")
		x.expect(here)
		jobs("Stopped(SIGTTIN)")
		x.typ("fg\n")
		x.expect("ONNODE sh -c")
		x.typ("one\n")
		x.expect("got one\r\n")
		x.typ("\x1a")
		x.expect("Stopped")
		x.expect(here)
		x.typ("bg\n") // it waits in read(2), which starts again
		x.expect(here)
		jobs("Stopped(SIGTTIN)")
		x.typ("fg\n")
		x.expect("ONNODE sh -c")
		x.typ("two\n")
		x.expect("and two\r\n")
		status("0")
	})
	t.Run("background writer is stopped if the terminal says so", func(t *testing.T) {
		x.expect(here)
		x.typ("stty tostop; $ONNODE sh -c 'echo from behind' &\n")
		x.expect(here)
		jobs("Stopped(SIGTTOU)")
		x.typ("stty -tostop; fg\n")
		x.expect("\r\nfrom behind\r\n")
		status("0")
	})
	t.Run("shell in the background waits for the terminal", func(t *testing.T) {
		x.expect(here)
		x.typ("$ONNODE bash --norc --noediting -i &\n")
		x.expect(here)
		jobs("Stopped(SIGTT")
		x.typ("fg\n")
		x.expect(there)
		x.typ("cat\n")
		x.typ("a line\n")
		x.expect("a line\r\na line\r\n")
		x.typ("\x04")
		x.expect(there)
		x.typ("exit 9\n")
		status("9")
	})
	t.Run("shell there", func(t *testing.T) {
		x.expect(here)
		x.typ("$ONNODE bash --norc --noediting -i\n")
		x.expect(there)
		x.typ("echo on $SSI_NODE\n")
		x.expect("\r\non 2\r\n")
		x.expect(there)
		sleep, lives := mark(40)
		x.typ(sleep + "\n")
		x.expect(sleep + "\r\n")
		eventually(t, "sleep runs", lives)
		x.typ("\x1a")
		x.expect("Stopped")
		x.expect(there)
		x.typ("kill %1; while kill -0 %1 2>/dev/null; do sleep 0.02; done; exit 7\n") // with a stopped job it would be refused
		x.expect("exit 7")
		status("7")
	})
	t.Run("split stderr", func(t *testing.T) {
		x.expect(here)
		x.typ("$ONNODE sh -c 'echo out; echo err >&2' 2>" + base + "/err\n")
		x.expect("out\r\n")
		status("0")
		if b, _ := os.ReadFile(base + "/err"); string(b) != "err\n" {
			t.Errorf("%q", b)
		}
	})
	t.Run("pager keeps the keys", func(t *testing.T) {
		x.expect(here)
		x.typ("$ONNODE cat /proc/cpuinfo /proc/cpuinfo | less -X -c\n")
		x.expect(":")
		x.typ("q")
		status("0")
	})
	t.Run("typed lines go to a command with a pipe", func(t *testing.T) {
		x.expect(here)
		x.typ("$ONNODE cat | tr a-z A-Z\n")
		x.typ("hello\n\x04")
		x.expect("HELLO\r\n")
		status("0")
	})
	t.Run("loss restores the terminal", func(t *testing.T) {
		x.expect(here)
		x.typ("$ONNODE sh -c 'echo up; kill -9 $PPID; sleep 100'\n") // the session leader
		x.expect("up\r\n")
		status("137")
		x.expect(here)
		x.typ("stty -a | grep -o ' icanon'\n")
		x.expect("\r\n icanon")
	})
}
