package lab

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/pty"
)

// runCmd runs a command to its end.
func runCmd(t *testing.T, stdin string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	cmd := labCmd(t, args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	err := cmd.Run()
	if _, ok := err.(*exec.ExitError); err != nil && !ok {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func TestRunCommand(t *testing.T) {
	needRoot(t)
	before := tracesNow(t)
	out, errs, status := runCmd(t, "input\n", "run", "--console", "--name", labName("run"), "-n", "2", "--", "sh", "-c", "hostname; cat; pwd; echo to stderr >&2; exit 7")
	if want := "node1\ninput\n" + must(os.Getwd()) + "\n"; out != want || errs != "to stderr\n" || status != 7 {
		t.Errorf("stdout %q, want %q; stderr %q; status %d", out, want, errs, status)
	}
	if left := leftovers(t, labName("run"), before, spaces{}); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	// In a directory that nodes do not see, a script is found all the same.
	dir := t.TempDir()
	check(t, os.WriteFile(dir+"/script", []byte("cat data\n"), 0o644))
	check(t, os.WriteFile(dir+"/data", []byte("data\n"), 0o644))
	cmd := labCmd(t, "run", "--console", "--name", labName("run"), "-n", "1", "sh", "script")
	cmd.Dir = dir
	if raw, err := cmd.CombinedOutput(); err != nil || string(raw) != "data\n" {
		t.Errorf("script in /tmp: %v: %q", err, raw)
	}
}

// However the owner ends, the lab ends.
func TestOwnerEnds(t *testing.T) {
	needRoot(t)
	for _, c := range []struct {
		sig    syscall.Signal
		script string
		status int // -1: by the signal itself
	}{
		{unix.SIGKILL, "echo up; exec sleep 1000", -1},
		{unix.SIGINT, "echo up; exec sleep 1000", 130},
		{unix.SIGHUP, "echo up; exec sleep 1000", 129},
		{unix.SIGTERM, "trap '' TERM HUP; echo up; while :; do sleep 1; done", 255}, // it does not listen
		{unix.SIGUSR1, "trap 'echo usr1; exit 3' USR1; echo up; while :; do sleep 0.1; done", 3},
	} {
		t.Run(unix.SignalName(c.sig), func(t *testing.T) {
			if testing.Short() && c.sig != unix.SIGKILL {
				t.Skip("short: five labs take their time")
			}
			before := tracesNow(t)
			cmd := labCmd(t, "run", "--console", "--name", labName("owner"), "-n", "2", "--", "sh", "-c", c.script)
			stdout := must(cmd.StdoutPipe())
			var errs bytes.Buffer
			cmd.Stderr = &errs
			check(t, cmd.Start())
			if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "up\n" {
				_ = cmd.Wait()
				t.Fatalf("%q, %v; %s", line, err, errs.String())
			}
			l, err := Attach(t.Context(), labName("owner"))
			check(t, err)
			ns := namespaces(t, supervisorOf(t, l))
			check(t, cmd.Process.Signal(c.sig))
			_ = cmd.Wait()
			if got := cmd.ProcessState.ExitCode(); got != c.status {
				t.Errorf("status %d, want %d", got, c.status)
			}
			checkNothingLeft(t, labName("owner"), before, ns)
		})
	}
}

// A signal before the nodes are UP ends the start.
func TestInterruptedStart(t *testing.T) {
	needRoot(t)
	before := tracesNow(t)
	cmd := labCmd(t, "run", "--console", "--name", labName("intr"), "-n", "2", "--profile", "sleepy", "true")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	check(t, cmd.Start())
	var st Status
	defer func() {
		if t.Failed() {
			t.Logf("the last status is %+v; the lab wrote %q", st, errs.String())
		}
	}()
	eventually(t, "the lab is there", func() bool {
		l, err := Attach(t.Context(), labName("intr"))
		if err != nil {
			return false
		}
		st, err = l.Status(t.Context())
		return err == nil && len(st.Nodes) == 2 && st.Nodes[1].State == On
	})
	check(t, cmd.Process.Signal(unix.SIGINT))
	_ = cmd.Wait()
	if status := cmd.ProcessState.ExitCode(); status != 255 || !strings.Contains(errs.String(), "interrupted before the nodes were UP") {
		t.Errorf("status %d: %s", status, errs.String())
	}
	if left := leftovers(t, labName("intr"), before, spaces{}); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

func TestUpAndVerbs(t *testing.T) {
	needRoot(t)
	if testing.Short() {
		t.Skip("short: it starts forty programs")
	}
	before := tracesNow(t)
	lab := "--name=" + labName("up")
	out, errs, status := runCmd(t, "", "up", lab, "-n", "2", "--disk", "8M")
	if status != 0 || !strings.HasPrefix(out, `lab "`+labName("up")+`" is up: 2 nodes in`) {
		t.Fatalf("up: status %d: %s%s", status, out, errs)
	}
	t.Cleanup(func() { _, _ = labCmd(t, "down", lab).CombinedOutput() })
	for _, c := range []struct {
		args   string
		status int
		want   string // in stdout or stderr
	}{
		{"up", 1, `a lab named "` + labName("up") + `" is running: use it`},
		{"up -n 0", 2, "0 nodes: a lab has 1 to 127"},
		{"up -n 128", 2, "128 nodes: a lab has 1 to 127"},
		{"up --disk much", 2, `"much" is no size`},
		{"status", 0, labName("up") + "  1     on     10.85.0.1"},
		{"exec --console 2 -- hostname", 0, "node2\n"},
		{"exec --console 2 sh -c exit\t5", 5, ""},
		{"exec --console 2 no-such", 127, "lab: exec: node 2: no-such: command not found"},
		{"exec 0 true", 2, `"0" is not a node number`},
		{"exec 128 true", 2, `"128" is not a node number`},
		{"exec --console 3 true", 255, `the lab "` + labName("up") + `" has no node 3: its nodes are 1 to 2`},
		// The fake daemon runs nothing: who is refused learns of the other way.
		{"exec 2 true", 255, "lab: node 2: this daemon has no method"},
		{"exec 2 true", 255, "past the daemon: `ssi lab --name " + labName("up") + " exec --console 2 CMD`"},
		{"exec 3 true", 255, `node 3: there is no such node: lab "` + labName("up") + `" has 2`},
		{"exec 2", 2, "arguments are missing"},
		{"crash 2", 0, ""},
		{"crash 2", 1, "node 2: it is off already"},
		{"exec 2 true", 255, "node 2: it is off"},
		{"exec --console 2 true", 255, "node 2: it is off"},
		{"status", 0, "crashed"},
		{"start node2", 0, ""},
		{"start 2", 1, "node 2: it is on already"},
		{"pause 2", 0, ""},
		{"pause 2", 1, "it is paused"},
		{"exec 2 true", 255, "node 2: it is paused"},
		{"resume 2", 0, ""},
		{"cut 1 2 --one-way", 0, ""},
		{"status", 0, "node 1 to node 2: cut"},
		{"delay 1:2 50ms", 0, ""},
		{"loss 2 10%", 0, ""},
		{"status", 0, "node 1 to node 2: cut, delayed by 50ms"},
		{"status", 0, "node 2, in and out: 10% lost"},
		{"loss 2 101%", 1, "it must be 0% to 100%"},
		{"delay 2 soon", 2, `"soon" is no time`},
		{"cut 1", 2, "arguments are missing"},
		{"cut 1 1", 1, "two different ones"},
		{"heal", 0, ""},
		{"add", 0, "3\n"},
		{"exec --console 3 hostname", 0, "node3\n"},
		{"logs 3", 0, "fake init of node3"},
		{"explode", 2, `there is no command "explode"`},
		{"down", 0, ""},
		{"down", 1, `no lab named "` + labName("up") + "\" is running; `ssi lab status` lists those that are\n"},
		{"exec 1 true", 255, `no lab named "` + labName("up") + `" is running`},
		{"sh --console 1", 255, `no lab named "` + labName("up") + `" is running`},
	} {
		args := strings.Fields(c.args)
		if strings.Contains(c.args, "\t") { // one argument with a blank
			args = []string{"exec", "--console", "2", "sh", "-c", "exit 5"}
		}
		out, errs, status := runCmd(t, "", append([]string{args[0], lab}, args[1:]...)...)
		if status != c.status || !strings.Contains(out+errs, c.want) {
			t.Errorf("lab %s: status %d, want %d; %s%s, want %q", c.args, status, c.status, out, errs, c.want)
		}
	}
	if left := leftovers(t, labName("up"), before, spaces{}); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

func TestStatusJSON(t *testing.T) {
	l := start(t, Options{Nodes: 1})
	out, errs, status := runCmd(t, "", "status", "--json", "--name", l.Name)
	var all []Status
	if err := json.Unmarshal([]byte(out), &all); err != nil || status != 0 || len(all) != 1 || all[0].Name != l.Name || !all[0].Owned || len(all[0].Nodes) != 1 {
		t.Errorf("status %d, %v: %s%s", status, err, out, errs)
	}
}

// An interactive shell has a terminal of the node: with the window's size, job
// control, ^C; the user's terminal is as before afterwards.
func TestTerminal(t *testing.T) {
	l := start(t, Options{Nodes: 1})
	master, slave, err := pty.Open()
	check(t, err)
	defer master.Close()
	defer slave.Close()
	check(t, pty.SetSize(master, 33, 101))
	modes := must(pty.Modes(slave))
	cmd := labCmd(t, "sh", "--console", "1", "--name", l.Name)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.Env = append(os.Environ(), "PS1=> ", "TERM=dumb", "HOME=/") // without the start-up file of whoever runs the test
	cmd.SysProcAttr.Setsid, cmd.SysProcAttr.Setctty = true, true
	check(t, cmd.Start())
	screen := &screen{t: t, r: master}
	screen.typeLine("echo is-up-$((1+1))")
	screen.expect("is-up-2")
	screen.typeLine("tty; stty size; echo size-$?")
	screen.expect("/dev/pts/0")
	screen.expect("33 101")
	screen.expect("size-0")
	check(t, pty.SetSize(master, 40, 120)) // the client gets SIGWINCH
	screen.typeLine("until test \"$(stty size)\" = '40 120'; do sleep 0.05; done; echo resized-$((1+1))")
	screen.expect("resized-2")
	screen.typeLine("sleep 1000; echo after-$?")
	eventually(t, "sleep runs in the foreground", func() bool { return sh(t, l, 1, "grep -lx sleep /proc/[0-9]*/comm | wc -l") == "1" })
	_, err = master.Write([]byte{3})
	check(t, err)
	screen.typeLine("echo then-$((1+1))")
	screen.expect("then-2")
	screen.typeLine("sleep 1000 & jobs; kill %1; exit 3")
	screen.expect("Running")
	_ = cmd.Wait()
	if status := cmd.ProcessState.ExitCode(); status != 3 {
		t.Errorf("status %d, want 3", status)
	}
	if got := must(pty.Modes(slave)); !reflect.DeepEqual(got, modes) {
		t.Errorf("the terminal was left in other modes:\n%+v\n%+v", got, modes)
	}
}

// screen reads what a terminal shows.
type screen struct {
	t    *testing.T
	r    *os.File
	seen []byte
}

func (s *screen) typeLine(line string) {
	s.t.Helper()
	if _, err := io.WriteString(s.r, line+"\r"); err != nil {
		s.t.Fatal(err)
	}
}

// expect reads until the text was shown.
func (s *screen) expect(text string) {
	s.t.Helper()
	check(s.t, s.r.SetReadDeadline(time.Now().Add(20*time.Second)))
	buf := make([]byte, 4096)
	for {
		if i := bytes.Index(s.seen, []byte(text)); i >= 0 {
			s.seen = s.seen[i+len(text):]
			return
		}
		n, err := s.r.Read(buf)
		if err != nil {
			s.t.Fatalf("%q was not shown: %v; the screen: %s", text, err, fmt.Sprintf("%q", s.seen))
		}
		s.seen = append(s.seen, buf[:n]...)
	}
}
