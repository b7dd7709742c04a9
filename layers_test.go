package main_test

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"
)

// The layers, lowest first. A package may import packages of lower lines only,
// never of its own line or above. A new package needs a place here. What stands
// behind a # explains the line.
const layers = `
internal/id                                          # the identifiers
internal/delay internal/errno internal/sys           # frames held back; the one error that crosses the wire; system calls
internal/proc                                        # a process in bytes
internal/api internal/config internal/feature internal/fuse internal/keeper internal/kmod internal/pty internal/vm   # tools
internal/netconf                                     # the network of this machine, as configured
cluster/member cluster/registry cluster/pki cluster/raftlog   # replicated states, keys, disk
cluster/core cluster/ics cluster/ntp                 # consensus; transport; time
cluster                                              # runs the core
cluster/control                                      # the cluster's methods of the local socket
netboot/dhcp netboot/ra netboot/tftp netboot/httpboot netboot/initramfs netboot/loader netboot/machine   # booting machines: its parts
netboot                                              # the service that puts them together
vproc/call                                           # the system calls that name processes
vproc/window vproc/gate vproc/ptrace vproc/remote vproc/standin vproc/procfs vproc/proctab   # the process space: its parts
vproc/spawn vproc/rexec                              # creates processes here; and there
init/boot init/install                               # from power-on to the roles; onto a Debian machine
libcluster                                           # the cluster's system calls, for programs of users
applet init lab                                      # commands; PID 1; a cluster on one machine
.                                                    # main: the only importer of everything
test internal/tools/*                                # tests of whole clusters; programs for the maintainers
`

// testOnly are packages that only tests may import; they may import anything
// below the ends.
const testOnly = "internal/simnet internal/lincheck internal/labtest internal/vmtest"

// layer is where a package stands, from 1; 0 is nowhere.
func layer(pkg string) int {
	n := 0
	for line := range strings.Lines(strings.TrimSpace(layers)) {
		n++
		line, _, _ = strings.Cut(line, "#")
		for _, pattern := range strings.Fields(line) {
			if ok, err := path.Match(pattern, pkg); ok && err == nil {
				return n
			}
		}
	}
	return 0
}

// schema reports whether a package is only generated protobuf code; it belongs
// to the package above it and to those that wire it.
func schema(pkg string) bool { return strings.HasSuffix(path.Base(pkg), "pb") }

// mayImport returns why from may not import to, or nil.
func mayImport(from, to string) error {
	switch {
	case schema(to):
		if from == path.Dir(to) || layer(from) > layer(path.Dir(to)) {
			return nil
		}
		return fmt.Errorf("the schema %s belongs to %s", to, path.Dir(to))
	case schema(from):
		return fmt.Errorf("a schema imports nothing of ssi")
	case slices.Contains(strings.Fields(testOnly), to):
		return fmt.Errorf("%s is for tests only", to)
	case slices.Contains(strings.Fields(testOnly), from):
		if layer(to) < layer("lab") || from == "internal/labtest" {
			return nil
		}
		return fmt.Errorf("%s is too high for a test helper", to)
	case layer(from) == 0 || layer(to) == 0:
		return fmt.Errorf("give both a place in layers_test.go")
	case layer(to) == layer(from):
		return fmt.Errorf("they are siblings: declare a small interface and let main pass the other one")
	case layer(to) > layer(from):
		return fmt.Errorf("it is higher: declare a small interface and let main pass it")
	}
	return nil
}

func TestLayers(t *testing.T) {
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		if !schema(s.dir) && layer(s.dir) == 0 && !slices.Contains(strings.Fields(testOnly), s.dir) {
			t.Errorf("%s: package %s has no place in layers_test.go", s.path, s.dir)
		}
		own, _ := s.imports()
		for _, to := range own {
			if err := mayImport(s.dir, to); err != nil {
				t.Errorf("%s imports %s: %v", s.path, to, err)
			}
		}
	}
}

// The rule itself can fail.
func TestMayImport(t *testing.T) {
	for _, c := range []struct {
		from, to string
		ok       bool
	}{
		{"internal/errno", "internal/id", true},
		{"internal/id", "internal/errno", false},
		{"cluster/core", "cluster/member", true},
		{"cluster/member", "cluster/registry", false},
		{"cluster/core", "cluster/ics", false},
		{"vproc/rexec", "vproc/spawn", false},
		{"vproc/rexec", "cluster", true},
		{"cluster", "vproc/rexec", false},
		{"applet", "lab", false},
		{".", "applet", true},
		{"applet", ".", false},
		{"internal/tools/man", "applet", true},
		{"cluster/core", "cluster/core/corepb", true},
		{"cluster/member", "cluster/core/corepb", false},
		{"cluster", "cluster/ics/icspb", true},
		{"cluster/core/corepb", "internal/id", false},
		{"cluster/core", "internal/simnet", false},
		{"internal/simnet", "internal/id", true},
		{"nosuch", "internal/id", false},
	} {
		if err := mayImport(c.from, c.to); (err == nil) != c.ok {
			t.Errorf("%s imports %s: %v, want ok %v", c.from, c.to, err, c.ok)
		}
	}
}
