package procfs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What is written to a file of a remote process does there what it does on one machine, and says what it
// says there.
func TestViewWrite(t *testing.T) {
	pids := remotePIDs(t)
	if _, err := exec.LookPath("setpriv"); err != nil {
		t.Skip("setpriv is not installed")
	}
	for _, c := range []struct {
		uid    int
		of     string
		name   string
		value  string
		denied bool
	}{
		{0, "root", "oom_score_adj", "500", false},
		{0, "user", "oom_score_adj", "300", false},
		{1234, "user", "oom_score_adj", "600", false},
		{1234, "user", "oom_score_adj", "-5", true}, // only root may take that
		{1234, "root", "oom_score_adj", "700", true},
		{65534, "user", "oom_score_adj", "700", true},
		{0, "user", "oom_score_adj", "nonsense", true},
		{0, "user", "oom_score_adj", "99999", true},
		{0, "user", "oom_adj", "15", false},
		{0, "user", "coredump_filter", "0x3f", false},
		{1234, "user", "coredump_filter", "0x7f", false},
		{0, "user", "timerslack_ns", "60000", false},
		{65534, "user", "timerslack_ns", "70000", true},
		{0, "root", "clear_refs", "1", false},
		{1234, "root", "clear_refs", "1", true},
		{0, "user", "comm", "other", true}, // one's own only
		{0, "user", "loginuid", "7", true},
		{0, "root", "stat", "1", true},
		{1234, "user", "stat", "1", true},
		{0, "root", "environ", "1", true},
	} {
		f := file(pids[c.of], c.name)
		script := "setpriv --reuid=" + strconv.Itoa(c.uid) + " --regid=" + strconv.Itoa(c.uid) + " --clear-groups sh -c 'echo " + c.value + " >" + f + "'; echo $?; cat " + f
		there, err := remotely(t, "sh", "-c", script) // first: what is not taken back must not matter
		if err != nil && c.name != "clear_refs" {     // which cannot be read
			t.Fatalf("%v, %s", err, there)
		}
		if c.name == "oom_score_adj" && !c.denied { // as it was before
			if out, err := remotely(t, "sh", "-c", "echo 0 >"+f); err != nil {
				t.Fatalf("%v, %s", err, out)
			}
		}
		here, _ := run(t, "sh", "-c", script)
		if c.name == "stat" { // only how it ends
			here, there = strings.SplitN(here, "(sleep)", 2)[0], strings.SplitN(there, "(sleep)", 2)[0]
		}
		if here != there || strings.Contains(here, "\n0\n") || strings.HasPrefix(here, "0\n") == c.denied {
			t.Errorf("user %d writes %q to %s of %s:\n%snot\n%s", c.uid, c.value, c.name, c.of, here, there)
		}
	}
	f := file(pids["root"], "oom_score_adj")
	if out, err := run(t, "setpriv", "--bounding-set=-all", "--inh-caps=-all", "sh", "-c", "echo 900 >"+f); err == nil {
		t.Errorf("user 0 without capabilities writes: %s", out)
	}
	if err := os.Chmod(f, 0o600); !errors.Is(err, unix.EPERM) {
		t.Errorf("chmod: %v", err)
	}
	// Through one descriptor, and by a program.
	d, err := os.OpenFile(f, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, value := range []string{"321\n", "9\n"} {
		if n, err := d.WriteAt([]byte(value), 0); n != len(value) || err != nil {
			t.Errorf("write: %d, %v", n, err)
		}
		within(t, 2*time.Second, func() error { // the kernel forgets what was written by and by
			b := make([]byte, 20)
			if n, _ := d.ReadAt(b, 0); string(b[:n]) != value {
				if b, err := os.ReadFile(f); err != nil || string(b) != value {
					return fmt.Errorf("%q, %w", b, err)
				}
			}
			return nil
		})
	}
	if _, err := d.WriteAt(make([]byte, 10_000), 0); err == nil {
		t.Error("much nonsense was written")
	}
	pid := strconv.Itoa(pids["root"])
	if _, err := exec.LookPath("choom"); err != nil {
		t.Log("choom is not installed")
	} else if out := output(t, "choom", "-n", "77", "-p", pid) + output(t, "choom", "-p", pid); !strings.Contains(out, "value: 77") {
		t.Errorf("choom: %s", out)
	}
}

// A write whose answer is lost is an error; nobody knows whether it was done.
func TestViewWriteLost(t *testing.T) {
	pids := remotePIDs(t)
	f := file(pids["idle7"], "oom_score_adj")
	d, err := os.OpenFile(f, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	ask(t, "slow")
	_, err = d.WriteString("5")
	ask(t, "fast")
	if !errors.Is(err, unix.EIO) {
		t.Errorf("a write to a node that does not answer: %v", err)
	}
}
