package netconf

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"golang.org/x/sys/unix"

	"ssi/internal/kmod"
	"ssi/internal/vm"
	"ssi/internal/vmtest"
	"ssi/netboot/initramfs"
)

// The init of a machine is this test binary, too: it has the kernel modules that
// the computer may lack on which the tests run.
func TestMain(m *testing.M) {
	if os.Getpid() != 1 || os.Args[0] != "/init" {
		os.Exit(m.Run())
	}
	status, err := machineInit()
	fmt.Printf("INIT: the tests ended with status %d, %v\n", status, err)
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

// inMachine are the tests that run in a machine, and the modules that they need.
const inMachine = "^TestBondAndVLAN$"

func machineModules() []string { return []string{"veth", "bonding", "8021q"} }

// machineInit runs them and returns the exit status.
func machineInit() (int, error) {
	for dir, kind := range map[string]string{"/proc": "proc", "/sys": "sysfs", "/dev": "devtmpfs", "/tmp": "tmpfs"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return 0, err
		}
		if err := unix.Mount(kind, dir, kind, 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			return 0, fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return 0, err
	}
	index, err := kmod.Open(filepath.Join("/lib/modules", unix.ByteSliceToString(u.Release[:])))
	if err != nil {
		return 0, err
	}
	loader := kmod.NewLoader(index, kmod.NewRules(), kmod.NewSystem("/sys"))
	for _, name := range machineModules() {
		if _, err := loader.Load(name); err != nil {
			return 0, err
		}
	}
	tests := exec.Command("/proc/self/exe", "-test.run="+inMachine, "-test.v")
	tests.Env = []string{inside + "=1"} // the machine's network is the tests' own
	tests.Stdout, tests.Stderr = os.Stdout, os.Stdout
	err = tests.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// TestMachineBondAndVLAN runs the test of bonds in a machine: the kernel of many
// computers has no bonding.
func TestMachineBondAndVLAN(t *testing.T) {
	n := vmtest.New(t, 1)
	kernel := vmtest.CloudKernel(t)
	dir := t.TempDir()
	binary, image := filepath.Join(dir, "netconf.test"), filepath.Join(dir, "initrd")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-trimpath", "-ldflags", "-s -w", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH=amd64", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the tests: %v\n%s", err, out)
	}
	if _, err := initramfs.Build(t.Context(), initramfs.Config{Binary: binary, Tree: kernel.Modules, Modules: machineModules()}, image); err != nil {
		t.Fatal(err)
	}
	m := n.Machine(vm.Spec{
		Name: "netconf", Kernel: kernel.Image, Initrd: image, Append: "console=ttyS0 panic=-1 quiet loglevel=4",
	})
	m.Start()
	end := m.Say(`(?s)(.*)INIT: the tests ended with (.*?)\n`)
	if end[2] != "status 0, <nil>" || !passed(end[1]) {
		t.Errorf("the tests in the machine ended with %s:\n%s", end[2], end[1])
	}
	m.Off()
}

// passed reports whether a test ran: one that is skipped or not found succeeds,
// too.
func passed(output string) bool {
	return regexp.MustCompile(`(?m)^\s*--- PASS: TestBondAndVLAN `).MatchString(output)
}
