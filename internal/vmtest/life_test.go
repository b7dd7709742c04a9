package vmtest

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"ssi/internal/vm"
)

// again runs one test of this binary in a process of its own, with a cache of
// its own; role is what the test is to do there.
func again(t *testing.T, test, role string) (cmd *exec.Cmd, cache string) {
	t.Helper()
	cache = t.TempDir()
	cmd = exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+test+"$", "-test.v")
	cmd.Env = append(os.Environ(), "VMTEST_ROLE="+role, "SSI_TEST_CACHE="+cache)
	return cmd, cache
}

func role() string { return os.Getenv("VMTEST_ROLE") }

// firmwareOnly is a machine that waits for the network for ever.
func firmwareOnly() vm.Spec {
	return vm.Spec{Name: "n1", Boot: vm.BootNetwork, NICs: []vm.NIC{{Segment: "lan"}}, Memory: 64}
}

// A test that fails leaves what is needed to see why, and says where; one that
// passes leaves nothing.
func TestArtefacts(t *testing.T) {
	if role() != "" {
		n := New(t, 1)
		n.Machine(firmwareOnly())
		if role() == "fail" {
			t.Error("as it should")
		}
		return
	}
	if err := vm.Available(vm.BIOS); err != nil {
		t.Skipf("skipped: %v", err)
	}
	SkipLater(t)
	cmd, cache := again(t, "TestArtefacts", "fail")
	out, err := cmd.CombinedOutput()
	where := regexp.MustCompile(`a summary of the machines are in (\S+)`).FindSubmatch(out)
	if err == nil || where == nil || !strings.HasPrefix(string(where[1]), cache) {
		t.Fatalf("%v: %s", err, out)
	}
	for _, name := range []string{"summary", "n1.console", "lan.pcap"} {
		if _, err := os.Stat(filepath.Join(string(where[1]), name)); err != nil {
			t.Error(err)
		}
	}
	cmd, cache = again(t, "TestArtefacts", "pass")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if _, err := os.Stat(filepath.Join(cache, "failed")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a test that passed left something: %v", err)
	}
}

// No QEMU outlives the process that started it, however that ends.
func TestDiesWithItsOwner(t *testing.T) {
	if role() == "owner" {
		n := New(t, 1)
		m := n.Machine(firmwareOnly())
		m.Start()
		fmt.Printf("PID %d\n", m.PID())
		select {} // until it is killed
	}
	if err := vm.Available(vm.BIOS); err != nil {
		t.Skipf("skipped: %v", err)
	}
	SkipLater(t)
	cmd, _ := again(t, "TestDiesWithItsOwner", "owner")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := 0
	for lines := bufio.NewScanner(out); pid == 0 && lines.Scan(); {
		_, _ = fmt.Sscanf(lines.Text(), "PID %d", &pid) // the line that matters
	}
	if pid == 0 || !alive(pid) {
		t.Fatalf("QEMU is process %d", pid)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	for end := time.Now().Add(Patience); alive(pid); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("QEMU (process %d) is still there", pid)
		}
	}
}

// alive reports whether a process runs: it is there and no zombie.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

// What QEMU says about itself is told.
func TestQEMUFails(t *testing.T) {
	n := New(t, 1)
	spec := firmwareOnly()
	spec.Extra = []string{"-no-such-option"}
	bad := n.Machine(spec)
	for range 2 { // a failure takes no place
		err := bad.PowerOn(t.Context())
		if err == nil || !strings.HasPrefix(err.Error(), "machine n1: power on: the machine is off: ") || !strings.Contains(err.Error(), "invalid option") {
			t.Errorf("power-on says %v", err)
		}
	}
	spec = firmwareOnly()
	spec.Name = "n2"
	m := n.Machine(spec)
	m.Start()
	if err := m.PowerOn(t.Context()); err == nil || !strings.Contains(err.Error(), "on already") {
		t.Errorf("a second power-on says %v", err)
	}
	if err := bad.PowerOn(t.Context()); err == nil || !strings.Contains(err.Error(), "1 machines are on already") {
		t.Errorf("one machine too many: %v", err)
	}
	m.Say("iPXE") // nothing is lost: its ROM is the first to speak
	if err := syscall.Kill(m.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Expect(t.Context(), "never"); !errors.Is(err, vm.ErrOff) {
		t.Errorf("a machine whose QEMU dies: %v", err)
	}
	if err := m.Wait(t.Context()); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("the end of QEMU is told as %v", err)
	}
	m.Start()
	ctx, cancel := within(t)
	defer cancel()
	if err := m.Quit(ctx); err != nil {
		t.Error(err)
	}
	if m.On() || m.PID() != 0 {
		t.Error("it is on after Quit")
	}
}
