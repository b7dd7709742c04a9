package procfs

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"testing"
)

// reads is how many read(2) the role mount has made: one for each request of the kernel, and some more.
func reads(t testing.TB) int {
	t.Helper()
	b, err := os.ReadFile("/proc/.local/" + strconv.Itoa(ask(t, "").Mount) + "/io")
	if err != nil {
		t.Skipf("the kernel does not count what processes read: %v", err)
	}
	_, rest, _ := bytes.Cut(b, []byte("syscr: "))
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	n, err := strconv.Atoi(string(line))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A remote process that did not change costs the role mount nothing, and environ, which the kernel may not keep
// for all users, one request.
func TestViewCost(t *testing.T) {
	remotePIDs(t)
	list := []string{"-e", "-o", "pid,ppid,user,stat,comm"}
	all := output(t, "ps", "-e", "-o", "pid=")
	processes := strings.Count(onlyFrom(all, 2), "\n")
	more := 40 + 8*(strings.Count(all, "\n")-processes) // for the listing, and each file of a local process
	for _, c := range []struct {
		args  []string
		limit int
	}{{list, more}, {[]string{"aux"}, processes + more}} {
		output(t, "ps", c.args...)
		best := 1 << 30
		for range 5 { // sometimes the processes are looked at again meanwhile
			before := reads(t)
			output(t, "ps", c.args...)
			best = min(best, reads(t)-before)
		}
		if t.Logf("ps %q of %d remote processes: %d requests", c.args, processes, best); best > c.limit {
			t.Errorf("ps %q of %d remote processes: %d requests, want %d at most", c.args, processes, best, c.limit)
		}
	}
}
