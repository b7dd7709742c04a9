package rexec_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// result is how a shell would see the end of cmd.
func result(t *testing.T, cmd *exec.Cmd) (out, errs string, status int) {
	t.Helper()
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	return o2s(cmd.Wait(), cmd, &o, &e, t)
}

func o2s(err error, cmd *exec.Cmd, o, e *bytes.Buffer, t *testing.T) (string, string, int) {
	t.Helper()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	ws := cmd.ProcessState.Sys().(syscall.WaitStatus)
	status := ws.ExitStatus()
	if ws.Signaled() {
		status = 128 + int(ws.Signal())
	}
	return o.String(), e.String(), status
}

func TestCommands(t *testing.T) {
	base := t.TempDir()
	if err := os.Chmod(base, 0o755); err != nil {
		t.Fatal(err)
	}
	m := boot(t, base, 1)
	boot(t, base, 2)
	script := base + "/script" // no first line: execvp gives it to the shell
	noexec := base + "/noexec"
	for path, mode := range map[string]os.FileMode{script: 0o755, noexec: 0o644} {
		if err := os.WriteFile(path, []byte("echo script $1\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name, in  string
		argv      []string
		out, errs string
		status    int
	}{
		{name: "true", argv: []string{"true"}},
		{name: "status", argv: []string{"sh", "-c", "exit 42"}, status: 42},
		{name: "signal", argv: []string{"sh", "-c", "kill -USR1 $$"}, status: 128 + 10},
		{name: "killed", argv: []string{"sh", "-c", "kill -9 $$"}, status: 137},
		{name: "outputs", argv: []string{"sh", "-c", "echo out; echo err >&2; exit 1"}, out: "out\n", errs: "err\n", status: 1},
		{name: "stdin", in: "a\x00b\xff", argv: []string{"cat"}, out: "a\x00b\xff"},
		{name: "node", argv: []string{"sh", "-c", "echo $SSI_NODE"}, out: "N\n"},
		{name: "not found", argv: []string{"no-such-command"}, errs: "onnode: node N: no-such-command: not found\n", status: 127},
		{name: "not found here", argv: []string{"./no-such"}, errs: "onnode: node N: ./no-such: not found\n", status: 127},
		{name: "not executable", argv: []string{noexec}, errs: "onnode: node N: " + noexec + ": permission denied\n", status: 126},
		{name: "a directory", argv: []string{base}, errs: "onnode: node N: " + base + ": permission denied\n", status: 126},
		{name: "script", argv: []string{script, "x y"}, out: "script x y\n"},
		{name: "odd bytes", argv: []string{"printf", "%s|", "", "\xfe", "a\nb"}, out: "|\xfe|a\nb|"},
		{name: "reopen", argv: []string{"sh", "-c", "echo again > /dev/stderr"}, errs: "again\n"},
		{name: "no terminal", argv: []string{"sh", "-c", "(: </dev/tty) 2>/dev/null || echo none"}, out: "none\n"},
		{name: "late output", argv: []string{"sh", "-c", "(sleep 0.3; echo late) & echo first; exit 3"}, out: "first\nlate\n", status: 3},
		{name: "default dispositions", argv: []string{"grep", "-E", "^Sig(Ign|Blk)", "/proc/self/status"}, out: "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n"},
	} {
		for _, node := range []int{1, 2} {
			t.Run(fmt.Sprintf("%s/%d", c.name, node), func(t *testing.T) {
				cmd := m.onnode(node, c.argv...)
				cmd.Stdin = strings.NewReader(c.in)
				out, errs, status := result(t, cmd)
				n := fmt.Sprint(node)
				want := strings.ReplaceAll(c.out, "N", n)
				wantErr := strings.ReplaceAll(c.errs, "node N", "node "+n)
				if c.name != "node" {
					want = c.out
				}
				if out != want || errs != wantErr || status != c.status {
					t.Errorf("%q %q %d, want %q %q %d", out, errs, status, want, wantErr, c.status)
				}
			})
		}
	}
	out, errs, status := result(t, m.onnode(3, "true"))
	if status != 255 || !strings.HasPrefix(errs, "onnode: node 3: cannot be reached") {
		t.Errorf("unknown node: %q %q %d", out, errs, status)
	}
}

// TestCallersSurroundings compares what a command sees on the other node with
// what the same command sees here.
func TestCallersSurroundings(t *testing.T) {
	base := t.TempDir()
	for _, d := range []string{base, base + "/.."} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	m := boot(t, base, 1)
	boot(t, base, 2)
	hard := "ulimit -Hn; "
	if !capable(unix.CAP_SYS_RESOURCE) {
		t.Log("hard limits are not compared: this machine's root lacks CAP_SYS_RESOURCE")
		hard = ""
	}
	show := hard + `id -u; id -g; id -G; umask; nice; pwd; ulimit -Sn; ulimit -Sc; ulimit -Ss; ulimit -t; echo "$ODD"; cat /proc/self/oom_score_adj`
	for _, user := range []string{"", "setpriv --reuid=4242 --regid=4243 --groups=7,8,9"} {
		around := func(inner string) *exec.Cmd {
			return exec.Command("nsenter", "-t", fmt.Sprint(m.cmd.Process.Pid), "-m", "-p", "--", "sh", "-c",
				`cd /usr/lib; umask 27; ulimit -n 321; ulimit -Ss 4096; ulimit -t 77; export SSI_SOCKET=`+m.socket()+
					"; export ODD='a b\xff'; exec nice -n 5 "+user+" "+inner+` sh -c '`+show+`'`)
		}
		here, _, _ := result(t, around(""))
		there, errs, status := result(t, around(self(t)+" onnode 2"))
		if here != there || status != 0 || errs != "" {
			t.Errorf("user %q: here\n%s\nthere\n%s\n%s%d", user, here, there, errs, status)
		}
	}
	t.Run("directory", func(t *testing.T) {
		private := base + "/private"
		if err := os.Mkdir(private, 0o700); err != nil {
			t.Fatal(err)
		}
		cmd := m.onnode(2, "true")
		cmd.Args = []string{"nsenter", "-t", fmt.Sprint(m.cmd.Process.Pid), "-m", "-p", "--", "sh", "-c",
			"cd " + private + "; exec setpriv --reuid=4242 --regid=4243 --clear-groups " + self(t) + " onnode 2 true"}
		_, errs, status := result(t, cmd)
		if want := "onnode: node 2: cannot enter the working directory " + private + ": permission denied\n"; errs != want || status != 126 {
			t.Errorf("%q %d, want %q", errs, status, want)
		}
		cmd.Args[len(cmd.Args)-1] = "mkdir " + base + "/gone; cd " + base + "/gone; exec 3<.; P=$PWD; (cd /; rmdir $P); " +
			"exec setpriv --reuid=4242 --regid=4243 --clear-groups " + self(t) + " onnode 2 true"
		fresh := exec.Command(cmd.Args[0], cmd.Args[1:]...)
		fresh.Env = cmd.Env
		if _, errs, status := result(t, fresh); status == 0 || !strings.Contains(errs, "working directory") {
			t.Errorf("gone: %q %d", errs, status)
		}
	})
}

func capable(c int) bool {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&head, &data[0]) == nil && data[c/32].Effective&(1<<(c%32)) != 0
}

func TestSignalsReachTheCommand(t *testing.T) {
	base := t.TempDir()
	m := boot(t, base, 1)
	boot(t, base, 2)
	cmd := m.onnode(2, "sh", "-c", `trap 'echo usr1; exit 9' USR1; echo ready; while :; do sleep 0.05; done`)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 6)
	if _, err := io.ReadFull(out, line); err != nil || string(line) != "ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
	signalOnnode(t, cmd, syscall.SIGUSR1)
	rest, _ := io.ReadAll(out)
	_ = cmd.Wait()
	if string(rest) != "usr1\n" || cmd.ProcessState.ExitCode() != 9 {
		t.Errorf("%q, %v", rest, cmd.ProcessState)
	}
}

// signalOnnode sends sig to the onnode process below nsenter.
func signalOnnode(t *testing.T, cmd *exec.Cmd, sig syscall.Signal) {
	t.Helper()
	pid := 0
	eventually(t, "onnode", func() bool {
		kids := childrenOf(cmd.Process.Pid)
		if len(kids) == 1 {
			_, _ = fmt.Sscan(kids[0], &pid)
		}
		return pid != 0
	})
	if err := syscall.Kill(pid, sig); err != nil {
		t.Fatal(err)
	}
}

func TestNobodyReadsStdinYetSignalsPass(t *testing.T) {
	base := t.TempDir()
	m := boot(t, base, 1)
	boot(t, base, 2)
	cmd := m.onnode(2, "sleep", "987")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin = r
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	_ = w.SetWriteDeadline(time.Now().Add(time.Second)) // far more than fits on the way
	_, _ = w.Write(make([]byte, 4<<20))
	eventually(t, "command runs", func() bool { return alive("sleep", "987") })
	signalOnnode(t, cmd, syscall.SIGTERM)
	_ = cmd.Wait()
	if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); ws.ExitStatus() != 128+15 && !ws.Signaled() {
		t.Errorf("%v", cmd.ProcessState)
	}
	w.Close()
}
