package procfs

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// TestView runs the tests that follow on two machines, in the view of one.
func TestView(t *testing.T) {
	if os.Getenv(modeEnv) == "view" {
		t.Skip("we are in it")
	}
	runMachine(t, []string{countEnv + "=20"}, "-test.run=^TestView", "-test.v", "-test.timeout=150s")
}

func output(t testing.TB, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed", name)
	}
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Errorf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// onRemote runs a command on machine 2, with its plain /proc.
func onRemote(t testing.TB, name string, args ...string) string {
	t.Helper()
	return output(t, "nsenter", append([]string{"-t", os.Getenv(remoteEnv), "-p", "-m", "--", name}, args...)...)
}

func TestViewPS(t *testing.T) {
	inView(t)
	pids, _ := ask(t, "", "")
	for _, name := range []string{"root", "user", "threads"} {
		pid := strconv.Itoa(pids[name])
		for _, format := range []string{"pid,ppid,pgid,sid,user,euser,group,ni,pri,stat,tty,nlwp,comm,args", "pid,vsz,lstart,cls,rtprio,psr,sig,caught"} {
			here, there := output(t, "ps", "-ww", "-p", pid, "-o", format), onRemote(t, "ps", "-ww", "-p", pid, "-o", format)
			if here != there {
				t.Errorf("ps of %s shows\n%snot\n%s", name, here, there)
			}
		}
	}
}
