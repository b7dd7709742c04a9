package vmtest

import (
	"context"
	"hash/fnv"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"ssi/internal/vm"
)

// Patience bounds every wait of Machine; nothing takes nearly as long on an idle
// computer.
const Patience = 3 * time.Minute

// laterEnv names the variable that says that machines are tested another time.
const laterEnv = "SSI_TEST_VM_LATER"

// Net is the network of one test. Its methods fail the test instead of returning
// errors.
type Net struct {
	vm *vm.Network
	t  testing.TB
}

// SkipLater skips a test of machines in the part of `make test` that runs
// everything at once: machines would not get the processor time that they need.
func SkipLater(t testing.TB) {
	t.Helper()
	if os.Getenv(laterEnv) != "" {
		t.Skipf("skipped: %s is set; `make test-vm` runs the tests of machines", laterEnv)
	}
}

// New makes the network of a test in which at most so many machines are on at
// the same time. It is called once in a test, because it waits for the places of
// all of them; it skips the test where QEMU is missing.
func New(t testing.TB, machines int) *Net {
	t.Helper()
	if err := vm.Available(vm.BIOS); err != nil {
		t.Skipf("skipped: %v", err)
	}
	SkipLater(t)
	takeSlots(t, machines)
	// Short, and only what is to be kept: no disks.
	dir := filepath.Join(t.TempDir(), "net")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(t.Name())) // a hash never fails
	network, err := vm.New(dir, h.Sum64())
	if err != nil {
		t.Fatal(err)
	}
	network.Limit = machines
	n := &Net{network, t}
	t.Cleanup(func() {
		summary := ""
		if t.Failed() {
			summary = summarize(t.Name(), network)
		}
		if err := network.Close(); err != nil {
			t.Errorf("close the network: %v", err)
		}
		if t.Failed() {
			keep(t, dir, summary)
		}
	})
	return n
}

// VM is the network itself.
func (n *Net) VM() *vm.Network { return n.vm }

// Segment is the segment with this name, which is captured from its first use
// on. Use it before the machines of the segment are on.
func (n *Net) Segment(name string) *vm.Segment {
	n.t.Helper()
	s, err := n.vm.Segment(name)
	if err != nil {
		n.t.Fatal(err)
	}
	n.capture(s)
	return s
}

// capture captures a segment, once: the file says whether it does.
func (n *Net) capture(s *vm.Segment) {
	n.t.Helper()
	path := filepath.Join(n.dir(), s.Name()+".pcap")
	if _, err := os.Stat(path); err == nil {
		return
	}
	if err := s.Capture(path); err != nil {
		n.t.Fatal(err)
	}
}

func (n *Net) dir() string { return n.vm.Dir() }

// Machine makes a machine, which is off, and its segments. It skips the test if
// its firmware is not installed.
func (n *Net) Machine(spec vm.Spec) *Machine {
	n.t.Helper()
	if err := vm.Available(spec.Firmware); err != nil {
		n.t.Skipf("skipped: %v", err)
	}
	m, err := n.vm.Machine(spec)
	if err != nil {
		n.t.Fatal(err)
	}
	for _, s := range n.vm.Segments() {
		n.capture(s)
	}
	return &Machine{Machine: m, t: n.t}
}

// Netns makes a network namespace with an interface on a segment that has this
// address, in CIDR notation. Both end with the test, which is skipped without
// root.
func (n *Net) Netns(segment, iface, addr string) *vm.Netns {
	n.t.Helper()
	if os.Geteuid() != 0 {
		n.t.Skip("skipped: a network namespace needs root")
	}
	prefix, err := netip.ParsePrefix(addr)
	if err != nil {
		n.t.Fatal(err)
	}
	ns, err := vm.NewNetns()
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		if err := ns.Close(); err != nil {
			n.t.Error(err)
		}
	})
	tap, err := n.Segment(segment).Tap(ns, iface, prefix)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		if err := tap.Close(); err != nil {
			n.t.Error(err)
		}
	})
	return ns
}

func within(t testing.TB) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), Patience)
}
