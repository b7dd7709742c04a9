package proc

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"ssi/internal/sys"
)

// TestDefaultSignals starts a program from a process that ignores what nohup and
// make ignore; in a process of its own, so that this one keeps its signals.
func TestDefaultSignals(t *testing.T) {
	const env = "PROC_TEST_SIGNALS"
	ignored := []unix.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGPIPE, 32}
	if os.Getenv(env) != "" {
		for _, s := range ignored {
			if s < 32 {
				signal.Ignore(s)
			} else if _, err := sys.SetAction(s, sys.Action{1}); err != nil { // SIG_IGN
				t.Fatal(err)
			}
		}
		if os.Getenv(env) == "reset" {
			DefaultSignals()
		}
		out, err := exec.Command("grep", "SigIgn", "/proc/self/status").Output()
		fmt.Println(string(out), err)
		return
	}
	mask := func(mode string) (m uint64) {
		t.Helper()
		cmd := exec.Command(os.Args[0], "-test.run=^TestDefaultSignals$", "-test.v")
		cmd.Env = append(os.Environ(), env+"="+mode)
		out, err := cmd.CombinedOutput()
		_, text, ok := strings.Cut(string(out), "SigIgn:")
		if _, serr := fmt.Sscanf(text, "%x", &m); err != nil || !ok || serr != nil {
			t.Fatalf("%v, %v: %s", err, serr, out)
		}
		return m
	}
	before, after := mask("keep"), mask("reset")
	for _, s := range ignored {
		bit := uint64(1) << (s - 1)
		if before&bit == 0 {
			t.Errorf("signal %d is not inherited as ignored: the test shows nothing", s)
		}
		if after&bit != 0 {
			t.Errorf("signal %d is still ignored", s)
		}
	}
}
