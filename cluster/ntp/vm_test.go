package ntp

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/vm"
	"ssi/internal/vmtest"
)

// The kernel's clock does what Clock says: in a machine of its own, which runs
// this test as its init.
func TestKernelClockInVM(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: machines take long, and -short is set")
	}
	n := vmtest.New(t, 1)
	k := vmtest.CloudKernel(t)
	init := filepath.Join(t.TempDir(), "init")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", init, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // it has no libraries there
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the test: %v\n%s", err, out)
	}
	program, err := os.ReadFile(init)
	if err != nil {
		t.Fatal(err)
	}
	initrd := filepath.Join(t.TempDir(), "initrd")
	if err := os.WriteFile(initrd, cpio("init", program), 0o600); err != nil {
		t.Fatal(err)
	}
	m := n.Machine(vm.Spec{
		Name: "clock", Kernel: k.Image, Initrd: initrd,
		Append: "console=ttyS0 panic=-1 quiet loglevel=4 rdinit=/init -- -test.run=^TestKernelClock$ -test.v",
	})
	m.Start()
	if got := m.Say(`--- (PASS|FAIL|SKIP): TestKernelClock `)[1]; got != "PASS" {
		t.Errorf("in the machine: %s", got)
	}
}

// cpio is an archive of one program (newc, Documentation/driver-api/early-userspace/buffer-format.rst).
func cpio(name string, content []byte) []byte {
	var b bytes.Buffer
	pad := func() { b.Write(make([]byte, -b.Len()&3)) }
	file := func(name string, mode, size int, content []byte) {
		fmt.Fprintf(&b, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X", 1, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(name)+1, 0)
		b.WriteString(name + "\x00")
		pad()
		b.Write(content)
		pad()
	}
	file(name, 0o100755, len(content), content)
	file("TRAILER!!!", 0, 0, nil)
	return b.Bytes()
}

// TestKernelClock moves the clock of the machine, so it runs only as process 1 of
// one that was made for it.
func TestKernelClock(t *testing.T) {
	if os.Getpid() != 1 {
		t.Skip("it changes the clock of the machine: TestKernelClockInVM runs it")
	}
	clock := SystemClock()
	// ahead is by how much the clock is ahead of the one that nobody adjusts.
	ahead := func() time.Duration {
		var wall, raw unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC_RAW, &raw); err != nil {
			t.Fatal(err)
		}
		if err := unix.ClockGettime(unix.CLOCK_REALTIME, &wall); err != nil {
			t.Fatal(err)
		}
		return time.Duration(wall.Nano() - raw.Nano())
	}
	// wait lets d of unadjusted time pass.
	wait := func(d time.Duration) {
		for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		}
	}
	near := func(what string, got, want, by time.Duration) {
		t.Helper()
		if (got - want).Abs() > by {
			t.Errorf("%s: %v, want %v", what, got, want)
		} else {
			t.Logf("%s: %v", what, got)
		}
	}
	if err := clock.Adjust(0, 0); err != nil {
		t.Fatal(err)
	}
	for _, step := range []time.Duration{time.Hour, -90*time.Minute - 300*time.Millisecond, 1, -1500 * time.Millisecond} {
		before := ahead()
		if err := clock.Step(step); err != nil {
			t.Fatal(err)
		}
		near(fmt.Sprintf("step by %v", step), ahead()-before, step, 20*time.Millisecond)
	}
	for _, slew := range []time.Duration{time.Millisecond, -time.Millisecond} {
		before := ahead()
		if err := clock.Adjust(0, slew); err != nil {
			t.Fatal(err)
		}
		wait(5 * time.Second)
		near(fmt.Sprintf("slew by %v", slew), ahead()-before, slew, 300*time.Microsecond)
	}
	for _, ppm := range []float64{400, -400, 0} {
		if err := clock.Adjust(ppm, 0); err != nil {
			t.Fatal(err)
		}
		before := ahead()
		wait(5 * time.Second)
		near(fmt.Sprintf("%v ppm for 5 s", ppm), ahead()-before, time.Duration(ppm*5000), 500*time.Microsecond)
	}
	if err := clock.Adjust(0, 0); err != nil {
		t.Fatal(err)
	}
	if err := clock.Adjust(MaxFrequency*2, 0); err == nil {
		t.Log("the kernel clamps a frequency beyond its limit")
	}
	var state unix.Timex
	if _, err := unix.Adjtimex(&state); err != nil || state.Status&unix.STA_UNSYNC != 0 {
		t.Errorf("the kernel calls the clock unsynchronised (status %#x, %v)", state.Status, err)
	}
}
