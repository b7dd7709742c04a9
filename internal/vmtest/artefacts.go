package vmtest

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ssi/internal/vm"
)

const (
	keptFailures = 20
	shownLines   = 40 // of a console, in the summary
)

// summarize says what a network is like.
func summarize(test string, n *vm.Network) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", test)
	for _, s := range n.Segments() {
		fmt.Fprintf(&b, "\nsegment %s\n", s.Name())
		stats := s.Stats()
		for _, port := range slices.Sorted(maps.Keys(stats)) {
			fmt.Fprintf(&b, "  %s: %+v\n", port, stats[port])
		}
	}
	for _, m := range n.Machines() {
		power := "off"
		if m.On() {
			power = "on"
		}
		fmt.Fprintf(&b, "\nmachine %s: %s, %d MiB\n", m.Name(), power, m.Spec().Memory)
		for i, nic := range m.Spec().NICs {
			fmt.Fprintf(&b, "  %s %v on %s\n", vm.PortName(m.Name(), i), nic.MAC, nic.Segment)
		}
		for line := range strings.Lines(m.Console().Tail(shownLines)) {
			fmt.Fprintf(&b, "  | %s\n", strings.TrimSuffix(line, "\n"))
		}
	}
	return b.String()
}

// keep copies what is known of a closed network and tells where.
func keep(t testing.TB, dir, summary string) {
	t.Helper()
	root := cacheDir(t, "failed")
	err := prune(root, keptFailures-1)
	var to string
	if err == nil {
		to, err = os.MkdirTemp(root, strings.NewReplacer("/", "-", "*", "-").Replace(t.Name())+"-")
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(to, "summary"), []byte(summary), 0o600)
	}
	for _, kind := range []string{"*.console", "*.qemu", "*.pcap"} {
		files, _ := filepath.Glob(filepath.Join(dir, kind)) // the patterns are well-formed
		for _, f := range files {
			if err == nil {
				err = copyFile(filepath.Join(to, filepath.Base(f)), f, 0o600)
			}
		}
	}
	if err != nil {
		t.Errorf("keep what is known of the machines: %v", err)
	}
	t.Logf("consoles, captures and a summary of the machines are in %s\n%s", to, summary)
}
