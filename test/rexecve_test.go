package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"ssi/lab"
)

// callers are programs that become `ARGUMENTS` on node N: NAME N ARGUMENTS. What
// rexecve returns they print, and end with 99.
func callers(t *testing.T, dir string) map[string][]string {
	t.Helper()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	header, err := filepath.Abs("../libcluster")
	if err != nil {
		t.Fatal(err)
	}
	compile(t, filepath.Join(dir, "caller-c"), write("caller.c", sources["caller.c"]), "-I", header)
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(dir, "caller-go"), write("caller.go", sources["caller.go"]))
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", build.Args, err, out)
	}
	return map[string][]string{
		"C":      {filepath.Join(dir, "caller-c")},
		"Go":     {filepath.Join(dir, "caller-go")},
		"Python": {"/usr/bin/python3", write("caller.py", sources["caller.py"])},
	}
}

var sources = map[string]string{
	"caller.c": `
#include <cluster.h>
#include <stdio.h>
#include <stdlib.h>
extern char **environ;
int main(int argc, char **argv)
{
	if (argc > 2)
		rexecve(argv[2], argv + 2, environ, atoi(argv[1]));
	printf("%s\n", strerror(errno));
	return 99;
}
`,
	"caller.go": `package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"ssi/libcluster"
)

func main() {
	n, _ := strconv.Atoi(os.Args[1])
	err := libcluster.Exec(os.Args[2], os.Args[2:], os.Environ(), n)
	var e syscall.Errno
	errors.As(err, &e)
	text := e.Error()
	fmt.Println(string(text[0]-'a'+'A') + text[1:])
	os.Exit(99)
}
`,
	"caller.py": `
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def strings(list):
    return (ctypes.c_char_p * (len(list) + 1))(*list, None)
args = [os.fsencode(a) for a in sys.argv[2:]]
env = [k + b"=" + v for k, v in os.environb.items()]
libc.syscall(ctypes.c_long(0x5504), args[0], strings(args), strings(env), ctypes.c_long(int(sys.argv[1])))
print(os.strerror(ctypes.get_errno()))
sys.exit(99)
`,
}

// A process becomes a program on another node, from any language, and stays what its
// parent knows.
func TestRexecve(t *testing.T) {
	dir := enterable(t)
	programs := callers(t, dir)
	c := start(t, 2, func(o *lab.Options) { o.Share = append(o.Share, dir) })
	for name, caller := range programs {
		t.Run(name, func(t *testing.T) {
			c := &cluster{c.Lab, t}
			command := strings.Join(caller, " ")
			for _, s := range []struct {
				script string // CALL is the program that calls
				want   string
			}{
				{`CALL 2 /bin/sh -c 'echo "$SSI_NODE $0 $X"; exit 7' two\ words; echo $?`, "2 two words yes\n7\n"},
				{`echo text | CALL 2 /bin/cat | tr a-z A-Z`, "TEXT\n"},
				{`CALL 2 /bin/sh -c 'kill -9 $$'; echo $?`, "137\n"},
				{`cd /usr; umask 27; CALL 2 /bin/sh -c 'pwd; umask'`, "/usr\n0027\n"},
				{`CALL 2 /bin/sh -c 'echo error >&2' 2>&1 >/dev/null`, "error\n"},
				{`CALL 2 /bin/sleep 1000 & kill $!; wait $!; echo $?`, "143\n"},
				{`cd /bin; CALL 2 sh -c 'echo here'`, "here\n"},
				{`CALL 1 /bin/sh -c 'echo "$X $1"; exit 6' sh own; echo $?`, "yes own\n6\n"},
				{`CALL 1 /bin/sh -c 'echo $$' & wait $! && echo $!`, "SAME"},
				{`CALL 2 /nowhere; echo $?`, "No such file or directory\n99\n"},
				{`CALL 1 /nowhere; echo $?`, "No such file or directory\n99\n"},
				{`CALL 2 /etc; echo $?`, "Permission denied\n99\n"},
				{`CALL 2 /etc/passwd/x; echo $?`, "Not a directory\n99\n"},
				{`CALL 3 /bin/true; echo $?`, "Invalid argument\n99\n"},
				{`CALL 0 /bin/true; echo $?`, "Invalid argument\n99\n"},
			} {
				got := c.login(1, "", "env", "X=yes", "bash", "-c", strings.ReplaceAll(s.script, "CALL", command))
				if s.want == "SAME" {
					if f := strings.Fields(got.stdout); len(f) == 2 && f[0] == f[1] {
						continue
					}
				}
				if got.stdout != s.want || got.status != 0 {
					t.Errorf("%s: %q, %q, status %d, want %q", s.script, got.stdout, got.stderr, got.status, s.want)
				}
			}
			// With the caller's rights.
			got := c.login(1, "", append(append(nobody, caller...), "2", "/usr/bin/id", "-u")...)
			if got.stdout != "65534\n" || got.status != 0 {
				t.Errorf("another user: %+v", got)
			}
			// The PID at home is the caller's: who has it, and who is its parent.
			got = c.login(1, "", "bash", "-c", fmt.Sprintf(`coproc %s 2 /bin/sh -c 'echo ready; read x; exit 5'; read -u ${COPROC[0]} line; echo $line
				ps -o ppid= -p $COPROC_PID | tr -d ' '; echo $$; pid=$COPROC_PID; echo >&${COPROC[1]}; wait $pid; echo $?`, command))
			f := strings.Fields(got.stdout)
			if len(f) != 4 || f[0] != "ready" || f[1] != f[2] || f[3] != "5" {
				t.Errorf("%q, %q", got.stdout, got.stderr)
			}
		})
	}
}

// TestRexecveTerminal: what called rexecve is a job of its shell as before: ^C, ^Z, fg.
func TestRexecveTerminal(t *testing.T) {
	dir := enterable(t)
	caller := callers(t, dir)["C"][0]
	c := start(t, 2, func(o *lab.Options) { o.Share = append(o.Share, dir) })
	s := c.sit(1)
	if got := s.line(caller + " 2 /bin/sh -c 'test -t 0 && test -t 1 && stty size && uname -n'"); got != "24 80\nnode2\n" {
		t.Errorf("a terminal on node 2: %q", got)
	}
	s.keys(caller + " 2 /bin/sh -c 'echo started; sleep 1000'\n")
	s.expect(`\nstarted\r\n`)
	c.running(2, "sleep 1000", 1)
	s.keys("\x03")
	s.expect(`READY> $`)
	if got := s.line("echo $?"); got != "130\n" {
		t.Errorf("after ^C $? is %q", got)
	}
	c.running(2, "sleep 1000", 0)
	s.keys(caller + " 2 /bin/sh -c 'echo up; read x; echo got $x'\n")
	s.expect(`\nup\r\n`)
	s.keys("\x1a")
	s.expect(`(?s)Stopped.*READY> $`)
	s.keys("fg\n")
	s.expect(`fg\r\n`)
	s.keys("line\n")
	s.expect(`(?s)got line\r\n.*READY> $`)
}

// TestRexecveKilledDaemon: while the daemon of a node is killed again and again, every
// caller there becomes the program, or is told an error, or waits.
func TestRexecveKilledDaemon(t *testing.T) {
	dir := enterable(t)
	caller := callers(t, dir)["C"][0]
	c := start(t, 2, profile("lan"), func(o *lab.Options) { o.Share = append(o.Share, dir) })
	const workers = 4 // the odd ones for node 2
	for i := range workers {
		c.login(1, "", "sh", "-c", fmt.Sprintf(`setsid sh -c 'while [ ! -e /run/enough ]; do
			out=$(%s %d /bin/echo done 2>&1); echo $? $out; done >/run/ends.%d; touch /run/ended.%d' </dev/null >/dev/null 2>&1 &`, caller, i%2+1, i, i))
	}
	for range 6 {
		c.killNodeRole(1)
	}
	c.do(1, "touch", "/run/enough")
	c.eventually("the callers end", func() bool {
		_, status := c.try(1, "sh", "-c", fmt.Sprintf("[ $(ls /run/ended.* | wc -l) = %d ]", workers))
		return status == 0
	})
	for i := range workers {
		ends := map[string]int{}
		for line := range strings.Lines(c.do(1, "cat", fmt.Sprintf("/run/ends.%d", i))) {
			ends[strings.TrimSpace(line)]++
		}
		for end := range ends {
			own := end == "0 done" || end == "99 Resource temporarily unavailable"
			remote := own || strings.HasPrefix(end, "255 ") || end == "99 Host is down" // the connection was that of the daemon
			if i%2 == 0 && !own || i%2 == 1 && !remote {
				t.Errorf("worker %d, %d times: %s", i, ends[end], end)
			}
		}
		if ends["0 done"] == 0 {
			t.Errorf("worker %d: no program was executed: %v", i, ends)
		}
		t.Logf("worker %d: %v", i, ends)
	}
}
