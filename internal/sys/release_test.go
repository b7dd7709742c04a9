package sys

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// fileRSS is RssFile of proc_pid_status(5) in KiB.
func fileRSS(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(b), "RssFile:")
	if !ok {
		t.Skip("the kernel does not tell RssFile")
	}
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestReleaseText(t *testing.T) {
	before := fileRSS(t)
	ReleaseText()
	if after := fileRSS(t); after >= before {
		t.Errorf("%d KiB of files before, %d after", before, after)
	} else {
		t.Logf("%d KiB of files before, %d after", before, after)
	}
}
