package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A node that leaves takes its entries away; one that comes back brings them.
func TestViewLeave(t *testing.T) {
	pids := remotePIDs(t)
	stat := file(pids["root"], "stat")
	kept, err := os.Open(stat)
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	ask(t, "leave")
	within(t, 2*time.Second, func() error {
		if _, err := os.ReadFile(stat); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("its process: %v", err)
		}
		if out := onlyFrom(output(t, "ps", "-e", "-o", "pid="), 2); out != "" {
			return fmt.Errorf("ps shows %s", out)
		}
		if b, err := os.ReadFile("/proc/cluster/nodes"); err != nil || string(b) != "1 up\n" {
			return fmt.Errorf("/proc/cluster/nodes: %q, %v", b, err)
		}
		if _, err := os.Stat("/cluster/node2/proc"); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("/cluster/node2: %v", err)
		}
		return nil
	})
	ask(t, "join")
	within(t, 5*time.Second, func() error {
		if out := onlyFrom(output(t, "ps", "-e", "-o", "pid="), 2); !strings.Contains(out, strconv.Itoa(pids["root"])) {
			return errors.New("ps does not show the node that came back")
		}
		return nil
	})
}

// A node that does not answer delays nobody for long, and what is known of it stays.
func TestViewSlow(t *testing.T) {
	pids := remotePIDs(t)
	pid := strconv.Itoa(pids["root"])
	output(t, "ps", "-e") // so that everything is known
	ask(t, "slow")
	defer ask(t, "fast")
	done := make(chan error, 1)
	go func() {
		for range 5 {
			out, err := exec.Command("ps", "-e", "-o", "pid=").CombinedOutput()
			if err != nil || !strings.Contains(string(out), pid) {
				done <- fmt.Errorf("ps: %v, %s", err, out)
				return
			}
		}
		// A file that must be fetched fails when its time is over.
		if _, err := os.ReadFile(file(pids["root"], "limits")); !errors.Is(err, unix.ETIMEDOUT) {
			done <- fmt.Errorf("limits: %v", err)
			return
		}
		done <- nil
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(fetchWait + 20*time.Second):
		t.Error("readers wait for a node that does not answer")
	}
}

// The role mount is killed again and again while ps runs: nobody sees an error, or
// a process missing.
func TestViewKill(t *testing.T) {
	pids := remotePIDs(t)
	output(t, "ps", "-e")
	first := ask(t, "").Lives
	kills := 0
	for end := time.Now().Add(20 * time.Second); kills < 10 && time.Now().Before(end); kills++ {
		ps := exec.Command("sh", "-c", `for i in 1 2 3 4 5; do ps -e -o pid= || exit 1; cat /proc/`+strconv.Itoa(pids["user"])+`/environ /proc/`+strconv.Itoa(pids["root"])+`/stat >/dev/null || exit 2; done`)
		var out bytes.Buffer
		ps.Stdout, ps.Stderr = &out, &out
		if err := ps.Start(); err != nil {
			t.Fatal(err)
		}
		ask(t, "kill")
		if err := ps.Wait(); err != nil {
			t.Errorf("a reader: %v\n%s", err, out.String())
		}
		for _, name := range []string{"root", "user", "threads"} {
			if n := strings.Count(out.String(), strconv.Itoa(pids[name])); n != 5 {
				t.Errorf("kill %d: the process %s is listed %d times in 5 lists", kills, name, n)
			}
		}
	}
	if now := ask(t, "").Lives; now < first+kills {
		t.Errorf("%d lives after %d kills, %d before", now, kills, first)
	}
	// The mounts in the file system are still there.
	for _, name := range []string{"/proc/.local/self/stat", "/proc/sys/kernel/pid_max", "/proc/self/stat", "/cluster/node2/proc/loadavg"} {
		if _, err := os.ReadFile(name); err != nil {
			t.Errorf("after the kills: %v", err)
		}
	}
	// What dies while nobody serves is forgotten, before the kernel does so by itself.
	stat := file(pids["idle1"], "stat")
	if _, err := os.ReadFile(stat); err != nil {
		t.Fatal(err)
	}
	ask(t, "kill")
	killThere(t, pids["idle1"])
	within(t, attrTTL/2, func() error {
		if _, err := os.Stat(stat); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("a dead process: %v", err)
		}
		return nil
	})
}
