package tftp

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// speedFile is the size of the file: below 65535 blocks of 512 bytes, which is
// as far as old clients count.
const speedFile = 24 << 20

// TestSpeed measures, against Debian's tftpd-hpa in the same run and with the
// same clients, in a network namespace of its own. Only if SSI_BENCH is set; it
// prints ratios and asserts nothing but that the bytes are right.
func TestSpeed(t *testing.T) {
	if os.Getenv("SSI_BENCH") == "" {
		t.Skip("set SSI_BENCH=1 to measure against tftpd-hpa")
	}
	if os.Getuid() != 0 {
		t.Skip("a network namespace needs root")
	}
	daemon, err := exec.LookPath("in.tftpd")
	if err != nil {
		daemon = "/usr/sbin/in.tftpd"
	}
	for _, path := range []string{daemon, "/usr/bin/tftp"} {
		if _, err := os.Stat(path); err != nil {
			t.Skipf("%v: apt install tftpd-hpa tftp-hpa", err)
		}
	}
	if os.Getenv("SSI_BENCH") != "inside" { // all threads of a process of its own are in the namespace
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestSpeed$", "-test.v", "-test.timeout=300s")
		cmd.Env = append(os.Environ(), "SSI_BENCH=inside")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
		runtime.LockOSThread() // the thread that the child's life hangs on
		defer runtime.UnlockOSThread()
		text, err := cmd.CombinedOutput()
		t.Logf("%s", text)
		if err != nil {
			t.Errorf("in the namespace: %v", err)
		}
		return
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	data := random(speedFile)
	if err := os.WriteFile(filepath.Join(dir, "f"), data, 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := Listen(netip.MustParseAddrPort("127.0.0.1:1069"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(c, Config{Files: files{"f": data}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	// Without -L it would go away from us; -s needs root.
	hpa := exec.Command(daemon, "-4", "-L", "-u", "root", "-a", ":69", "-s", dir)
	if err := hpa.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = hpa.Process.Kill(); _ = hpa.Wait() }()

	out := filepath.Join(dir, "out")
	clients := map[string]func(port int) *exec.Cmd{
		"tftp-hpa 512": func(port int) *exec.Cmd {
			return exec.Command("/usr/bin/tftp", "-m", "binary", "127.0.0.1", strconv.Itoa(port), "-c", "get", "f", out)
		},
	}
	if _, err := exec.LookPath("curl"); err == nil {
		for _, block := range []string{"512", "1468"} {
			clients["curl "+block] = func(port int) *exec.Cmd {
				return exec.Command("curl", "-s", "-m", "60", "--tftp-blksize", block, "-o", out, fmt.Sprintf("tftp://127.0.0.1:%d/f", port))
			}
		}
	}
	for name, client := range clients {
		times := map[int][]time.Duration{}
		for range 7 {
			for _, port := range []int{69, 1069} { // by turns: the machine is not always equally busy
				times[port] = append(times[port], fetch(t, client(port), out, data))
			}
		}
		theirs, ours := median(times[69]), median(times[1069])
		t.Logf("%-12s tftpd-hpa %6.1f MB/s, ssi %6.1f MB/s, ratio %.2f", name, mbs(theirs), mbs(ours), theirs.Seconds()/ours.Seconds())
	}
}

func fetch(t *testing.T, cmd *exec.Cmd, out string, want []byte) time.Duration {
	_ = os.Remove(out)
	for deadline := time.Now().Add(60 * time.Second); ; {
		begun := time.Now()
		text, err := cmd.CombinedOutput()
		took := time.Since(begun)
		got, rerr := os.ReadFile(out)
		if err == nil && rerr == nil && bytes.Equal(got, want) {
			return took
		}
		if time.Now().After(deadline) { // the daemon may not be up at first
			t.Fatalf("%v: %d bytes, %v %s", cmd.Args, len(got), err, text)
		}
		cmd = exec.Command(cmd.Args[0], cmd.Args[1:]...)
	}
}

func median(d []time.Duration) time.Duration { slices.Sort(d); return d[len(d)/2] }

func mbs(d time.Duration) float64 { return speedFile / 1e6 / d.Seconds() }
