package test

import (
	"os"
	"testing"

	"ssi/internal/vm"
	"ssi/internal/vmtest"
)

// TestMachinesGeneric: a machine with an e1000, for which Debian's cloud kernel has no
// driver, boots Debian's generic kernel from a first node that runs it, and is UP.
func TestMachinesGeneric(t *testing.T) {
	if os.Getenv("SSI_TEST_GENERIC") == "" {
		t.Skip("skipped: it fetches and boots a kernel of 100 MB; `make test-generic` runs it")
	}
	m := newMachinesOf(t, vmtest.GenericKernel, 2, 1)
	m.run(m.first, "ssi cluster init --name generic --node 1")
	m.sees(m.first, 1, "UP")
	m.first.Say("booting machines")
	m.run(m.first, "ssi addnode 52:54:00:55:00:02 --node 2")
	second := m.node(2, func(s *vm.Spec) { s.NICs[0].Model = "e1000" })
	second.Start()
	m.shell(second)
	m.sees(m.first, 2, "UP")
	m.until(second, "readlink /sys/class/net/*/device/driver", "e1000")
}
